// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receipts are taken at their word only where the word is checked.

use libp2p_identity::Keypair;
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::wire::{HeldIndexes, Receipt};

use super::{Claim, given_to};
use crate::PlacedGroup;

struct Holder {
    key: Keypair,
    node: NodeId,
}

impl Holder {
    fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let node = NodeId::from_public(&key.public()).expect("Ed25519");
        Self { key, node }
    }

    /// A receipt for `held` under `claim`, signed as it stands.
    fn sign(&self, claim: &Claim, bytes: u64, held: Vec<HeldIndexes>) -> Receipt {
        let mut digest = HeldDigest::default();
        for part in &held {
            for index in &part.indexes {
                digest.push(part.group, part.stripe_first, part.stripe_count, *index);
            }
        }
        let Claim { genesis, deal, object, shards_root, width, stripe_count } = *claim;
        let message = ReceiptClaim {
            genesis,
            deal,
            object,
            shards_root,
            width,
            stripe_count,
            node: self.node,
            bytes,
            held: digest.finish(),
        };
        let signature = self.key.sign(&message.message()).expect("Ed25519 signs");
        Receipt { shards_root, bytes, held, signature }
    }
}

fn claim() -> Claim {
    Claim {
        genesis: [1; 32],
        deal: DealId(7),
        object: Cid::of(b"object"),
        shards_root: [2; 32],
        width: 3,
        stripe_count: 128,
    }
}

fn part(group: u32, indexes: &[u16]) -> HeldIndexes {
    let stripe_first = group * 64;
    HeldIndexes { group, stripe_first, stripe_count: 64, indexes: indexes.to_vec() }
}

#[test]
fn an_honest_receipt_is_taken_and_every_other_is_not() {
    let (alice, bob) = (Holder::new(), Holder::new());
    let groups: Vec<PlacedGroup> = (0..2)
        .map(|group| PlacedGroup {
            stripe_first: group * 64,
            stripe_count: 64,
            vector: vec![alice.node, bob.node, alice.node],
            index_bytes: 3,
        })
        .collect();
    let claim = claim();
    let honest = alice.sign(&claim, 9, vec![part(0, &[0, 2]), part(1, &[2])]);
    let taken = claim.check(alice.node, &honest, &groups).expect("what Alice was given");
    assert_eq!(taken.slots.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 2), (1, 2)]);
    assert_eq!(taken.receipt.bytes, 9);

    let refused = |receipt: &Receipt| claim.check(alice.node, receipt, &groups).err();
    let with = |held| alice.sign(&claim, 9, held);
    assert!(refused(&with(vec![part(0, &[1])])).expect("Bob's").contains("not given"));
    assert!(refused(&with(vec![part(0, &[3])])).expect("beyond the vector").contains("not given"));
    assert!(refused(&with(vec![part(0, &[0, 0])])).expect("twice").contains("not given"));
    assert!(refused(&with(vec![part(1, &[0]), part(0, &[0])])).expect("order").contains("given"));
    assert!(refused(&with(vec![part(2, &[0])])).expect("no such group").contains("group 2"));
    let mut shifted = part(1, &[0]);
    shifted.stripe_first = 0;
    assert!(refused(&with(vec![shifted])).expect("other stripes").contains("wrongly"));

    let others = bob.sign(&claim, 9, vec![part(0, &[0, 2]), part(1, &[2])]);
    assert!(refused(&others).expect("Bob's key").contains("signature"));
    let more = alice.sign(&claim, 10, honest.held.clone());
    assert!(refused(&more).expect("more bytes than its slots have").contains("10 bytes for 9"));
    let wider = Claim { width: 4, ..self::claim() };
    assert!(wider.check(alice.node, &honest, &groups).is_err(), "another shape");
    assert_eq!(given_to(alice.node, &groups), [part(0, &[0, 2]), part(1, &[0, 2])]);
    let elsewhere = Claim { genesis: [9; 32], ..self::claim() };
    assert!(elsewhere.check(alice.node, &honest, &groups).is_err(), "another chain");
    let other_list = Receipt { shards_root: [3; 32], ..honest };
    assert!(refused(&other_list).expect("another list").contains("list"));
}
