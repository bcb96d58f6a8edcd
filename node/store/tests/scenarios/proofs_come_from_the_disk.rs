// SPDX-License-Identifier: MIT OR Apache-2.0
//! A proof shows what the disk has now: a warm cache does not help a rotten shard.

use std::fs;
use std::path::Path;

use supernode_protocol::tree::{chunk_count, verify_chunk};
use supernode_store::StoreError;

use super::support::{config, open, put};
use crate::sample::{Client, Recipe, Terms, object};

/// Flips a byte of every 16 KiB of these bytes, in place.
fn rot(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    for entry in fs::read_dir(path).expect("a directory").flatten() {
        if entry.path().extension().is_none_or(|name| name != "seg") {
            continue;
        }
        let content = fs::read(entry.path()).expect("a segment");
        let Some(start) = content.windows(64).position(|window| window == &bytes[..64]) else {
            continue;
        };
        let file = fs::OpenOptions::new().write(true).open(entry.path()).expect("writable");
        for at in (start..start + bytes.len()).step_by(16 << 10) {
            file.write_at(&[!content[at]], at as u64).expect("writable");
        }
        return;
    }
    panic!("the bytes are not on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_any_shard_are_proven_with_few_bytes_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = config(directory.path());
    config.segment_bytes_max = 64 << 20;
    let store = open(config).await.expect("a new store");
    let client = Client::new(1);
    // One group, a tree read whole, and a tree too large for that.
    for (number, stripe_bytes) in [(1, 640), (2, 3 << 20), (3, 40 << 20)] {
        let object = object(Recipe { stripe_bytes, ..Recipe::small(u64::from(number)) });
        put(&store, &client, &object, Terms::pin(number, number)).await.expect("put");
        let (_, id, bytes) = &object.groups[0].shards[1];
        let (len, count) = (bytes.len() as u64, chunk_count(bytes.len() as u64));
        store.shard(*id).await.expect("into the cache");
        let asked = vec![count - 1, 0, count / 2, count / 3, count - 1];
        let before = store.metrics().read;
        let proofs = store.prove(*id, asked.clone()).await.expect("whole");
        let after = store.metrics().read;
        assert_eq!(proofs.len(), asked.len());
        for (chunk, proof) in asked.into_iter().zip(&proofs) {
            verify_chunk(id, len, chunk, proof).expect("a verifier accepts it");
        }
        let (ios, read) = (after.ios - before.ios, after.bytes - before.bytes);
        assert!(read <= (192 << 10), "{read} bytes read of {len}");
        assert!((2..=32).contains(&ios), "{ios} reads: some, whatever is cached, and few");
        let refused = store.prove(*id, vec![0, count]).await;
        assert!(matches!(refused, Err(StoreError::BadRange { .. })), "{refused:?}");
        let refused = store.prove(*id, vec![0; 257]).await;
        assert!(matches!(refused, Err(StoreError::TooMany { .. })), "{refused:?}");
        assert_eq!(store.prove(*id, Vec::new()).await.expect("nothing asked"), []);
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_shard_is_not_proven_from_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe { stripe_bytes: 200_000, ..Recipe::small(5) });
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    let (_, id, bytes) = &object.groups[0].shards[0];
    let (_, other, _) = &object.groups[0].shards[1];
    store.shard(*id).await.expect("into the cache");
    store.prove(*id, vec![0, 50]).await.expect("whole");
    rot(directory.path(), bytes);
    let refused = store.prove(*id, vec![50]).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(store.metrics().damaged, 1);
    store.prove(*other, vec![50]).await.expect("its neighbour is whole");
    store.release(client.id, Terms::pin(1, 1).lease).await.expect("its own lease");
    let refused = store.prove(*other, vec![50]).await;
    assert!(matches!(refused, Err(StoreError::ShardNotFound { .. })), "{refused:?}");
    store.close().await.expect("an orderly stop");
}
