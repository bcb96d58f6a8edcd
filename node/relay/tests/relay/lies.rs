// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that lies is caught, and told from one that fails.

use bytes::Bytes;
use supernode_client::{Client, ClientError, Peer};
use supernode_protocol::ids::{Cid, ShardId};
use supernode_protocol::wire::ErrorCode;

use crate::backend::Lie;
use crate::setup::{Setup, UPLOAD, bytes_of, commit_of, put_of};

const LEN: u64 = 200_000;

async fn stored(setup: &Setup) -> (Client, Peer, Bytes, ShardId) {
    let (client, peer) = (setup.writer(), setup.peer());
    let bytes = bytes_of(usize::try_from(LEN).expect("small"));
    client.put_shard(&peer, put_of(&bytes)).await.expect("a put");
    (client, peer, bytes.clone(), ShardId::of(&bytes))
}

fn assert_lied<T: std::fmt::Debug>(result: Result<T, ClientError>, lie: Lie) {
    let error = result.expect_err("a lie");
    assert!(matches!(error, ClientError::Lied { .. }), "{lie:?}: {error}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_whole_shard_that_is_not_the_shard_is_caught() {
    let setup = Setup::new();
    let (client, peer, bytes, shard) = stored(&setup).await;
    for lie in [Lie::FlippedByte, Lie::ShortShard] {
        *setup.backend.lie.lock() = Some(lie);
        assert_lied(client.shard(&peer, shard, LEN).await, lie);
    }
    *setup.backend.lie.lock() = None;
    // It has no bytes behind its end, and says so.
    let error = client.shard(&peer, shard, LEN + 64).await.expect_err("too long");
    assert_eq!(error.code(), Some(ErrorCode::BadRequest), "{error}");
    assert_eq!(client.shard(&peer, shard, LEN).await.expect("the truth"), bytes);
}

#[tokio::test]
async fn a_range_that_is_not_of_the_shard_is_caught() {
    let setup = Setup::new();
    let (client, peer, bytes, shard) = stored(&setup).await;
    for lie in [Lie::FlippedByte, Lie::FlippedProof, Lie::WrongShardLen, Lie::ShiftedRange] {
        *setup.backend.lie.lock() = Some(lie);
        assert_lied(client.shard_range(&peer, shard, LEN, 20_000..70_000).await, lie);
    }
    *setup.backend.lie.lock() = None;
    let truth = client.shard_range(&peer, shard, LEN, 20_000..70_000).await.expect("the truth");
    assert_eq!(truth, bytes[20_000..70_000]);
}

#[tokio::test]
async fn a_forged_manifest_or_placement_is_caught() {
    let setup = Setup::new();
    let (client, peer, ..) = stored(&setup).await;
    let root = bytes_of(300);
    let object = Cid::of(&root);
    client.put_block(&peer, UPLOAD, object, root).await.expect("a root");
    client.commit(&peer, commit_of(&setup.writer_key, object)).await.expect("a commit");
    for lie in [Lie::FlippedRoot, Lie::ForgedPlacement, Lie::PlacementOfAnother] {
        *setup.backend.lie.lock() = Some(lie);
        assert_lied(client.group(&peer, object, 0, true).await, lie);
    }
    *setup.backend.lie.lock() = None;
    client.group(&peer, object, 0, true).await.expect("the truth");
}

#[tokio::test]
async fn a_forged_node_record_is_left_out() {
    let setup = Setup::new();
    let (client, peer) = (setup.stranger(), setup.peer());
    *setup.backend.lie.lock() = Some(Lie::ForgedMember);
    assert_eq!(client.members(&peer, None).await.expect("the true ones").len(), 1);
}
