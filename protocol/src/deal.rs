// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a chain, its users and the nodes must write alike about a deal.
//!
//! - [`lease_of`] and [`deal_of`]: the lease that a deal gives its holders. The lease names the
//!   chain by its genesis, so that a node never takes another chain's word about its deals.
//! - [`registration_message`]: what a node signs to bind its identity to two accounts.
//! - [`ReceiptClaim`]: what a holder signs when its part of an object is durable, and
//!   [`HeldDigest`], which sums up the slots it speaks of.
//!
//! The messages are fixed-width fields behind a domain that ends with a version and a zero byte,
//! so that no signature under one can be shown as another; integers are little-endian.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, LeaseId, NodeId, ParseIdError};

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                // The standard parser also takes a plus sign; one spelling is enough.
                if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(ParseIdError::new($kind, text, "expected a number such as 7"));
                }
                text.parse().map(Self).map_err(|error| ParseIdError::new($kind, text, error))
            }
        }
    };
}

counted_id! {
    /// A deal of one chain, and the reservation it grew from. Counted from 1.
    DealId, "deal id"
}

counted_id! {
    /// An audit of one chain. Counted from 1.
    AuditId, "audit id"
}

/// What [`lease_of`] derives the chain's half of a lease id under.
const LEASE_CONTEXT: &str = "supernode/deal-lease/1";
/// Opens the message of a registration.
const REGISTRATION_DOMAIN: &[u8] = b"supernode/registration/1\0";
/// Opens the message of a receipt.
const RECEIPT_DOMAIN: &[u8] = b"supernode/receipt/1\0";

/// The lease that `deal` of the chain with this genesis gives its holders.
///
/// Shape: 8 bytes that name the chain, then the deal id in big-endian order, so that leases of
/// one chain sort by deal.
pub fn lease_of(genesis: &[u8; 32], deal: DealId) -> LeaseId {
    let mut bytes = [0; LeaseId::LEN];
    bytes[..8].copy_from_slice(&chain_name(genesis));
    bytes[8..].copy_from_slice(&deal.0.to_be_bytes());
    LeaseId::from_bytes(bytes)
}

/// The deal behind a lease, or nothing if the lease is no deal of this chain.
pub fn deal_of(genesis: &[u8; 32], lease: LeaseId) -> Option<DealId> {
    let (chain, deal) = lease.as_bytes().split_at(8);
    let deal = u64::from_be_bytes(deal.try_into().expect("the other 8 of 16 bytes"));
    (chain == chain_name(genesis)).then_some(DealId(deal))
}

fn chain_name(genesis: &[u8; 32]) -> [u8; 8] {
    let hash = blake3::derive_key(LEASE_CONTEXT, genesis);
    let (name, _) = hash.split_first_chunk().expect("32 bytes hold 8");
    *name
}

/// What a node's identity signs so that a registry may bind it to an owner and an operator.
///
/// The accounts are their SCALE encodings, each behind its length as u32. They and the genesis
/// are part of the message, so nobody can register the node a second time with a copy.
pub fn registration_message(genesis: &[u8; 32], owner: &[u8], operator: &[u8]) -> Vec<u8> {
    let mut message = REGISTRATION_DOMAIN.to_vec();
    message.extend_from_slice(genesis);
    for account in [owner, operator] {
        let len = u32::try_from(account.len()).expect("an account id is short");
        message.extend_from_slice(&len.to_le_bytes());
        message.extend_from_slice(account);
    }
    message
}

/// Sums up which slots a receipt speaks of: BLAKE3 over 14 bytes per run of slots.
///
/// One run is one index of one group. Runs come in group order and, within a group, in the order
/// of their indexes; a group in which the node holds nothing contributes nothing.
#[derive(Debug, Clone, Default)]
pub struct HeldDigest {
    hasher: blake3::Hasher,
}

impl HeldDigest {
    /// A node that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds slot `index` of every stripe of `group`.
    pub fn push(&mut self, group: u32, stripe_first: u32, stripe_count: u32, index: u16) {
        let mut run = [0; 14];
        run[..4].copy_from_slice(&group.to_le_bytes());
        run[4..8].copy_from_slice(&stripe_first.to_le_bytes());
        run[8..12].copy_from_slice(&stripe_count.to_le_bytes());
        run[12..].copy_from_slice(&index.to_le_bytes());
        self.hasher.update(&run);
    }

    /// The digest of all runs.
    pub fn finish(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// What a holder states when its part of an object is durable: one per node and object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptClaim {
    /// The chain, by the hash of its first block.
    pub genesis: [u8; 32],
    /// The deal (still a reservation) that pays for it.
    pub deal: DealId,
    /// The object.
    pub object: Cid,
    /// The root over all its shards.
    pub shards_root: [u8; 32],
    /// Shards of each of its stripes. With the stripes it says where in the list a slot stands:
    /// audits that count otherwise could not be answered.
    pub width: u16,
    /// Stripes of the whole object.
    pub stripe_count: u32,
    /// Who holds, and whose identity signs.
    pub node: NodeId,
    /// The sum of `shard_len` over the slots that this node holds of the object.
    pub bytes: u64,
    /// Which slots those are, by [`HeldDigest`].
    pub held: [u8; 32],
}

impl ReceiptClaim {
    /// The bytes that the node's Ed25519 identity signs.
    pub fn message(&self) -> Vec<u8> {
        let mut message = RECEIPT_DOMAIN.to_vec();
        message.extend_from_slice(&self.genesis);
        message.extend_from_slice(&self.deal.0.to_le_bytes());
        message.extend_from_slice(self.object.as_bytes());
        message.extend_from_slice(&self.shards_root);
        message.extend_from_slice(&self.width.to_le_bytes());
        message.extend_from_slice(&self.stripe_count.to_le_bytes());
        message.extend_from_slice(self.node.as_bytes());
        message.extend_from_slice(&self.bytes.to_le_bytes());
        message.extend_from_slice(&self.held);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::{AuditId, DealId, HeldDigest, ReceiptClaim, deal_of, lease_of};
    use super::{LEASE_CONTEXT, registration_message};
    use crate::ids::{Cid, NodeId};

    #[test]
    fn ids_are_plain_numbers_in_text() {
        assert_eq!("17".parse(), Ok(DealId(17)));
        assert_eq!(AuditId(17).to_string(), "17");
        assert_eq!(serde_json::to_string(&DealId(17)).expect("a number"), "17");
        for text in ["", "+1", "-1", "1 ", "0x1", "18446744073709551616"] {
            assert!(text.parse::<DealId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_lease_leads_back_to_its_deal_on_its_own_chain_only() {
        let (ours, other) = ([1; 32], [2; 32]);
        for deal in [0, 1, 255, 1 << 40, u64::MAX].map(DealId) {
            let lease = lease_of(&ours, deal);
            assert_eq!(deal_of(&ours, lease), Some(deal));
            assert_eq!(deal_of(&other, lease), None);
        }
        assert!(lease_of(&ours, DealId(255)) < lease_of(&ours, DealId(256)));
        let name = blake3::derive_key(LEASE_CONTEXT, &ours);
        assert_eq!(lease_of(&ours, DealId(1)).as_bytes()[..8], name[..8]);
    }

    #[test]
    fn accounts_of_a_registration_cannot_be_shifted_into_each_other() {
        let one = registration_message(&[0; 32], b"ab", b"c");
        let other = registration_message(&[0; 32], b"a", b"bc");
        assert_ne!(one, other);
        assert_eq!(one.len(), 25 + 32 + 4 + 2 + 4 + 1);
    }

    fn claim() -> ReceiptClaim {
        ReceiptClaim {
            genesis: [1; 32],
            deal: DealId(2),
            object: Cid::from_bytes([3; 32]),
            shards_root: [4; 32],
            width: 14,
            stripe_count: 8,
            node: NodeId::from_bytes([5; 32]),
            bytes: 6,
            held: [7; 32],
        }
    }

    #[test]
    fn every_field_of_a_receipt_is_signed() {
        let honest = claim().message();
        assert_eq!(honest.len(), 20 + 32 + 8 + 32 + 32 + 2 + 4 + 32 + 8 + 32);
        let changes: [fn(&mut ReceiptClaim); 9] = [
            |claim| claim.genesis[31] ^= 1,
            |claim| claim.deal.0 ^= 1 << 63,
            |claim| claim.object = Cid::from_bytes([0; 32]),
            |claim| claim.shards_root[0] ^= 1,
            |claim| claim.width ^= 1 << 15,
            |claim| claim.stripe_count ^= 1 << 31,
            |claim| claim.node = NodeId::from_bytes([0; 32]),
            |claim| claim.bytes ^= 1 << 63,
            |claim| claim.held[0] ^= 1,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = claim();
            change(&mut other);
            assert_ne!(other.message(), honest, "field {at}");
        }
    }

    #[test]
    fn a_digest_tells_every_part_of_a_run() {
        let of = |runs: &[(u32, u32, u32, u16)]| {
            let mut digest = HeldDigest::new();
            runs.iter().for_each(|run| digest.push(run.0, run.1, run.2, run.3));
            digest.finish()
        };
        let honest = of(&[(0, 0, 64, 3), (1, 64, 2, 3)]);
        for other in [
            of(&[(0, 0, 64, 3)]),
            of(&[(1, 64, 2, 3), (0, 0, 64, 3)]),
            of(&[(0, 0, 64, 3), (2, 64, 2, 3)]),
            of(&[(0, 0, 64, 3), (1, 65, 2, 3)]),
            of(&[(0, 0, 64, 3), (1, 64, 1, 3)]),
            of(&[(0, 0, 64, 3), (1, 64, 2, 4)]),
        ] {
            assert_ne!(other, honest);
        }
    }
}
