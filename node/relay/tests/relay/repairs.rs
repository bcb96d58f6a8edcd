// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holders that restore slots on a node that has never heard of them.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use supernode_client::{Client, ClientError, Keypair, PutPart, PutShard};
use supernode_protocol::erasure::Codec;
use supernode_protocol::geometry;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::{Block, Builder, Extent, Root, Stripe};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::repair::Repair;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::ErrorCode;
use supernode_relay::Reason;

use crate::setup::{Setup, bytes_of, client, id_of};

const OTHER: NodeId = NodeId::from_bytes([8; 32]);
const SHARD_LEN: u64 = 64;

/// One stripe at 2+1 whose shards the owner has placed on the holder and two others.
struct Object {
    root: Block,
    shards: Vec<Bytes>,
}

impl Object {
    fn new() -> Self {
        let all = bytes_of(3 * 64);
        let shards: Vec<Bytes> =
            (0..3).map(|index| all.slice(64 * index..64 * index + 64)).collect();
        let mut builder = Builder::new();
        let stripe = Stripe {
            len: 100,
            codec: Codec::default_for(2, 1),
            data_count: 2,
            parity_count: 1,
            shard_len: geometry::shard_len(100, 2),
            shards: shards.iter().map(|bytes| ShardId::of(bytes)).collect(),
        };
        assert_eq!(stripe.shard_len, SHARD_LEN);
        builder.push(Extent::Stripe(stripe)).expect("a valid stripe");
        let (_, manifest) = builder.finish([0; 32]).expect("a manifest");
        Self { root: manifest.block, shards }
    }

    fn placed(&self, by: &Keypair, epoch: u64, nodes: [NodeId; 3]) -> Signed<PlacementRecord> {
        let nodes = nodes.to_vec();
        let body =
            PlacementRecord { object: self.root.cid, group: 0, epoch, nodes, writer: id_of(by) };
        Signed::sign(body, by).expect("own key")
    }

    /// The holder keeps index 0 and gives the node the two others.
    fn repair(&self, setup: &Setup, holder: &Keypair) -> Repair {
        let (it, node) = (id_of(holder), id_of(&setup.node_key));
        Repair {
            terms: LeaseTerms {
                lease: LeaseId::from_bytes([9; 16]),
                owner: id_of(&setup.writer_key),
                kind: LeaseKind::Pin,
                expiry: Expiry::RunningSeconds(60),
            },
            warrant: self.placed(&setup.writer_key, 0, [it, OTHER, OTHER]),
            placement: self.placed(holder, 1, [it, node, node]),
        }
    }

    fn put(&self, repair: &Repair, index: u16, shard: usize) -> PutShard {
        let bytes = self.shards[shard].clone();
        let slot = Slot { stripe: 0, index };
        PutShard { upload: repair.upload(), slot, shard: ShardId::of(&bytes), bytes }
    }

    /// The shard that belongs at an index, in a batch.
    fn part(&self, index: u16) -> PutPart {
        let bytes = self.shards[usize::from(index)].clone();
        PutPart { slot: Slot { stripe: 0, index }, shard: ShardId::of(&bytes), bytes }
    }

    fn commit(&self, repair: &Repair) -> Commit {
        let root = Root::decode(&self.root.bytes).expect("a manifest");
        repair.commit(&root.groups().next().expect("one group"))
    }

    async fn show(&self, to: &Setup, by: &Client, repair: &Repair) -> Result<(), ClientError> {
        let (peer, root) = (to.peer(), self.root.bytes.clone());
        by.repair(&peer, repair.clone(), root, Bytes::new()).await.map(drop)
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ErrorCode {
    let error = outcome.expect_err("it is refused");
    error.code().unwrap_or_else(|| panic!("no answer: {error}"))
}

#[tokio::test]
async fn a_holder_restores_what_the_owner_has_asked_to_be_kept() {
    let (setup, object, key) = (Setup::new(), Object::new(), Keypair::generate_ed25519());
    let (peer, holder, repair) = (setup.peer(), client(&key, |_| {}), object.repair(&setup, &key));
    let early = holder.put_shard(&peer, object.put(&repair, 1, 1)).await;
    assert_eq!(code(early), ErrorCode::Refused, "nothing was shown yet");

    object.show(&setup, &holder, &repair).await.expect("proven");
    assert_eq!(setup.relay.metrics().repairs, 1);
    holder.put_shard(&peer, object.put(&repair, 1, 1)).await.expect("its slot");
    let upload = repair.upload();
    let many = vec![object.part(2)];
    let stored = holder.put_many(&peer, upload, many).await.expect("answered");
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let committed = holder.commit(&peer, object.commit(&repair)).await.expect("its commit");
    assert_eq!(committed.slot_count, 2);

    let came_as = setup.backend.content.lock().callers.clone();
    let owner = id_of(&setup.writer_key);
    assert_eq!(came_as, [owner; 4], "a block, two shards and a commit, as if from the owner");
    assert!(setup.backend.content.lock().blocks.contains_key(&object.root.cid));
    assert_eq!(setup.relay.metrics().repairs, 0, "the commit ends it");
    let late = holder.put_shard(&peer, object.put(&repair, 1, 1)).await;
    assert_eq!(code(late), ErrorCode::Refused);
    object.show(&setup, &holder, &repair).await.expect("it may be shown again");
    holder.put_shard(&peer, object.put(&repair, 1, 1)).await.expect("and put again");
}

#[tokio::test]
async fn a_repair_covers_its_own_slots_and_its_own_commit_only() {
    let (setup, object, key) = (Setup::new(), Object::new(), Keypair::generate_ed25519());
    let (peer, holder, repair) = (setup.peer(), client(&key, |_| {}), object.repair(&setup, &key));
    object.show(&setup, &holder, &repair).await.expect("proven");
    let begun = setup.backend.begun.load(SeqCst);

    // A slot of another holder, a shard of another slot, bytes of no slot.
    for (index, shard) in [(0, 0), (1, 2), (3, 1)] {
        let put = object.put(&repair, index, shard);
        assert_eq!(code(holder.put_shard(&peer, put).await), ErrorCode::Refused, "{index}");
    }
    let foreign = PutShard { bytes: bytes_of(64), ..object.put(&repair, 1, 1) };
    let foreign = PutShard { shard: ShardId::of(&foreign.bytes), ..foreign };
    assert_eq!(code(holder.put_shard(&peer, foreign).await), ErrorCode::Refused);
    let one_is_not = vec![object.part(1), object.part(0)];
    let put = holder.put_many(&peer, repair.upload(), one_is_not).await;
    assert_eq!(code(put), ErrorCode::Refused);
    assert_eq!(setup.backend.begun.load(SeqCst), begun, "refused before there was room for it");

    let block = Bytes::from_static(b"block");
    let cid = Cid::of(&block);
    let put = holder.put_block(&peer, repair.upload(), cid, block).await;
    assert_eq!(code(put), ErrorCode::Refused);
    let mut longer = object.commit(&repair);
    longer.terms.expiry = Expiry::RunningSeconds(61);
    assert_eq!(code(holder.commit(&peer, longer).await), ErrorCode::Refused);
    assert!(setup.backend.content.lock().commits.is_empty());

    // The proof is the holder's own, and it gives no say over the lease.
    let put = setup.stranger().put_shard(&peer, object.put(&repair, 1, 1)).await;
    assert_eq!(code(put), ErrorCode::Refused);
    let lease = repair.terms.lease;
    assert_eq!(code(holder.release(&peer, lease).await), ErrorCode::Refused);
    let end = Expiry::RunningSeconds(600);
    assert_eq!(code(holder.renew(&peer, lease, end).await), ErrorCode::Refused);
}

#[tokio::test]
async fn what_is_not_proven_leaves_nothing() {
    let (setup, object, key) = (Setup::new(), Object::new(), Keypair::generate_ed25519());
    let (holder, good) = (client(&key, |_| {}), object.repair(&setup, &key));
    let it = id_of(&key);

    // The warrant of somebody who may not write here.
    let stranger = Keypair::generate_ed25519();
    let owner = LeaseTerms { owner: id_of(&stranger), ..good.terms.clone() };
    let theirs = object.placed(&stranger, 0, [it; 3]);
    let unknown = Repair { terms: owner, warrant: theirs.clone(), ..good.clone() };
    assert_eq!(code(object.show(&setup, &holder, &unknown).await), ErrorCode::Refused);
    // Their warrant for a lease of one who may.
    let borrowed = Repair { warrant: theirs, ..good.clone() };
    assert_eq!(code(object.show(&setup, &holder, &borrowed).await), ErrorCode::Refused);
    // A good one, shown by another client.
    assert_eq!(code(object.show(&setup, &setup.stranger(), &good).await), ErrorCode::Refused);

    let no_manifest = Bytes::from_static(b"no manifest");
    let shown = holder.repair(&setup.peer(), good.clone(), no_manifest, Bytes::new()).await;
    assert_eq!(code(shown), ErrorCode::BadRequest);
    let stray = Bytes::from_static(b"a page");
    let root = object.root.bytes.clone();
    let shown = holder.repair(&setup.peer(), good.clone(), root, stray).await;
    assert_eq!(code(shown), ErrorCode::BadRequest);

    assert!(setup.backend.is_empty());
    let metrics = setup.relay.metrics();
    assert_eq!(metrics.repairs, 0);
    assert_eq!(metrics.rejected(Reason::BadRepair), 3);
}

#[tokio::test]
async fn what_is_remembered_of_repairs_is_bounded() {
    let setup = Setup::with(|config| config.repair_slots_max = 3);
    let object = Object::new();
    let keys: Vec<Keypair> = (0..2).map(|_| Keypair::generate_ed25519()).collect();
    let holders: Vec<Client> = keys.iter().map(|key| client(key, |_| {})).collect();
    let repairs: Vec<Repair> = keys.iter().map(|key| object.repair(&setup, key)).collect();
    object.show(&setup, &holders[0], &repairs[0]).await.expect("two of three slots");
    object.show(&setup, &holders[0], &repairs[0]).await.expect("the same ones");
    let busy = object.show(&setup, &holders[1], &repairs[1]).await;
    assert_eq!(code(busy), ErrorCode::Busy);
    assert_eq!(setup.relay.metrics().rejected(Reason::Repairs), 1);

    holders[0].commit(&setup.peer(), object.commit(&repairs[0])).await.expect("its commit");
    object.show(&setup, &holders[1], &repairs[1]).await.expect("there is room again");
}
