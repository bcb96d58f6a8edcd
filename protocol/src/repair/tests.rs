// SPDX-License-Identifier: MIT OR Apache-2.0
//! A repair is allowed what it proves, and every other one is told why not.

use bytes::Bytes;
use libp2p_identity::Keypair;

use super::{Allowed, Repair, RepairError};
use crate::erasure::Codec;
use crate::geometry;
use crate::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use crate::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use crate::manifest::{Block, Builder, Extent, Stripe};
use crate::placement::PlacementRecord;
use crate::signed::Signed;

/// An object of two groups of two stripes at 2+1, its owner, and a holder that repairs.
struct World {
    owner: Keypair,
    holder: Keypair,
    root: Block,
    page: Block,
}

const NODE: NodeId = NodeId::from_bytes([9; 32]);
const OTHER: NodeId = NodeId::from_bytes([8; 32]);

fn id(key: &Keypair) -> NodeId {
    NodeId::from_public(&key.public()).expect("Ed25519")
}

fn shard(stripe: u32, index: u16) -> ShardId {
    ShardId::of(format!("{stripe}/{index}").as_bytes())
}

impl World {
    fn new() -> Self {
        let mut builder = Builder::new();
        let mut pages = Vec::new();
        for stripe in 0..4 {
            let extent = Extent::Stripe(Stripe {
                len: 100,
                codec: Codec::default_for(2, 1),
                data_count: 2,
                parity_count: 1,
                shard_len: geometry::shard_len(100, 2),
                shards: (0..3).map(|index| shard(stripe, index)).collect(),
            });
            pages.extend(builder.push(extent).expect("a valid stripe"));
            if stripe == 1 {
                pages.extend(builder.end_page().expect("a page"));
            }
        }
        let (last, manifest) = builder.finish([0; 32]).expect("a manifest");
        pages.extend(last);
        let page = pages.pop().expect("the page of group 1");
        let (owner, holder) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        Self { owner, holder, root: manifest.block, page }
    }

    fn placement(&self, by: &Keypair, epoch: u64, nodes: [NodeId; 3]) -> Signed<PlacementRecord> {
        let (object, nodes) = (self.root.cid, nodes.to_vec());
        let body = PlacementRecord { object, group: 1, epoch, nodes, writer: id(by) };
        Signed::sign(body, by).expect("own key")
    }

    fn repair(&self) -> Repair {
        let holder = id(&self.holder);
        Repair {
            terms: LeaseTerms {
                lease: LeaseId::from_bytes([1; 16]),
                owner: id(&self.owner),
                kind: LeaseKind::Pin,
                expiry: Expiry::RunningSeconds(60),
            },
            warrant: self.placement(&self.owner, 0, [holder, OTHER, OTHER]),
            placement: self.placement(&self.holder, 1, [holder, NODE, NODE]),
        }
    }

    fn check(&self, repair: &Repair) -> Result<(), RepairError> {
        repair.check(id(&self.holder), NODE)
    }

    fn allowed(&self, repair: Repair) -> Allowed {
        self.check(&repair).expect("proven");
        repair.open(NODE, &self.root.bytes, &self.page.bytes).expect("its manifest")
    }
}

#[test]
fn what_the_manifest_and_the_placement_say_may_be_written_and_nothing_else() {
    let world = World::new();
    let allowed = world.allowed(world.repair());
    assert_eq!(allowed.owner(), id(&world.owner));
    let len = geometry::shard_len(100, 2);
    for stripe in 0..6 {
        for index in 0..4 {
            let slot = Slot { stripe, index };
            let is_its = (2..4).contains(&stripe) && (1..3).contains(&index);
            assert_eq!(allowed.is_shard(slot, shard(stripe, index), len), is_its, "{slot:?}");
            assert!(!allowed.is_shard(slot, shard(stripe, index), len + 64), "{slot:?}");
            assert!(!allowed.is_shard(slot, shard(stripe + 1, index), len), "{slot:?}");
        }
    }
}

#[test]
fn only_the_commit_of_this_repair_ends_it() {
    let world = World::new();
    let repair = world.repair();
    let allowed = world.allowed(repair.clone());
    let commit = Commit {
        upload: allowed.upload(),
        object: world.root.cid,
        group: 1,
        page: Some(world.page.cid),
        stripe_first: 2,
        stripe_count: 2,
        terms: repair.terms.clone(),
        placement: repair.placement.clone(),
        missing: Vec::new(),
    };
    assert!(allowed.is_commit(&commit));
    let longer = LeaseTerms { expiry: Expiry::RunningSeconds(61), ..repair.terms.clone() };
    let later = world.placement(&world.holder, 2, [NODE; 3]);
    for other in [
        Commit { object: Cid::of(b"another"), ..commit.clone() },
        Commit { group: 0, ..commit.clone() },
        Commit { page: None, ..commit.clone() },
        Commit { stripe_first: 1, ..commit.clone() },
        Commit { stripe_count: 1, ..commit.clone() },
        Commit { terms: longer, ..commit.clone() },
        Commit { placement: later, ..commit.clone() },
        Commit { upload: UploadId::from_bytes([0; 16]), ..commit },
    ] {
        assert!(!allowed.is_commit(&other), "{other:?}");
    }
}

#[test]
fn every_gap_in_the_proof_is_named() {
    let world = World::new();
    let (good, holder) = (world.repair(), id(&world.holder));
    world.check(&good).expect("the proof itself");
    let stranger = Keypair::generate_ed25519();

    let foreign = world.placement(&stranger, 0, [holder; 3]);
    let error = world.check(&Repair { warrant: foreign, ..good.clone() }).expect_err("its owner");
    assert!(matches!(error, RepairError::NotOwner { .. }), "{error}");

    let unnamed = world.placement(&world.owner, 0, [OTHER; 3]);
    let error = world.check(&Repair { warrant: unnamed, ..good.clone() }).expect_err("a holder");
    assert!(matches!(error, RepairError::NotHolder { .. }), "{error}");

    let error = good.check(OTHER, NODE).expect_err("shown by another");
    assert!(matches!(error, RepairError::NotWriter { .. }), "{error}");
    let error = good.check(holder, OTHER).expect_err("shown to another");
    assert!(matches!(error, RepairError::NotHere { .. }), "{error}");

    let same_epoch = world.placement(&world.holder, 0, [NODE; 3]);
    let error = world.check(&Repair { placement: same_epoch, ..good.clone() }).expect_err("epoch");
    assert!(matches!(error, RepairError::NotNewer { .. }), "{error}");

    let narrow =
        PlacementRecord { nodes: vec![NODE; 2], ..good.placement.body_unverified().clone() };
    let narrow = Signed::sign(narrow, &world.holder).expect("own key");
    let error = world.check(&Repair { placement: narrow, ..good.clone() }).expect_err("width");
    assert!(matches!(error, RepairError::OtherGroup), "{error}");
    let group = PlacementRecord { group: 0, ..good.placement.body_unverified().clone() };
    let group = Signed::sign(group, &world.holder).expect("own key");
    let error = world.check(&Repair { placement: group, ..good.clone() }).expect_err("group");
    assert!(matches!(error, RepairError::OtherGroup), "{error}");

    for kind in [LeaseKind::Deal, LeaseKind::Upload, LeaseKind::Cache] {
        let terms = LeaseTerms { kind, ..good.terms.clone() };
        let error = world.check(&Repair { terms, ..good.clone() }).expect_err("kind");
        assert_eq!(error, RepairError::Kind { kind });
    }
}

#[test]
fn a_signature_that_does_not_hold_is_found_on_either_record() {
    let world = World::new();
    let good = world.repair();
    let bytes = postcard::to_allocvec(&good).expect("an encoding");
    let mut refused = 0;
    for position in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[position] ^= 1;
        let Ok(repair) = postcard::from_bytes::<Repair>(&forged) else { continue };
        // What is not signed are the lease's id, kind and end.
        if (&repair.warrant, &repair.placement) != (&good.warrant, &good.placement) {
            world.check(&repair).expect_err("a changed record");
            refused += 1;
        }
    }
    assert!(refused > 300, "only {refused} bytes were looked at");
}

#[test]
fn blocks_of_another_object_are_refused() {
    let world = World::new();
    let (repair, other) = (world.repair(), Bytes::from_static(b"no manifest"));
    let open = |root: &Bytes, page: &Bytes| repair.clone().open(NODE, root, page);
    let error = open(&other, &world.page.bytes).expect_err("another root");
    assert!(matches!(error, RepairError::WrongRoot { .. }), "{error}");
    let error = open(&world.root.bytes, &other).expect_err("another page");
    assert!(matches!(error, RepairError::Manifest(_)), "{error}");
    let error = open(&world.root.bytes, &Bytes::new()).expect_err("no page");
    assert!(matches!(error, RepairError::Manifest(_)), "{error}");
}

#[test]
fn an_upload_belongs_to_one_repair() {
    let world = World::new();
    let repair = world.repair();
    assert_eq!(repair.upload(), world.repair().upload(), "it can be taken up again");
    let terms = LeaseTerms { lease: LeaseId::from_bytes([2; 16]), ..repair.terms.clone() };
    let next = world.placement(&world.holder, 2, [NODE; 3]);
    let others = [
        Repair { terms, ..repair.clone() },
        Repair { placement: next, ..repair.clone() },
        Repair { placement: world.placement(&world.owner, 1, [NODE; 3]), ..repair.clone() },
    ];
    for other in others {
        assert_ne!(other.upload(), repair.upload());
    }
}
