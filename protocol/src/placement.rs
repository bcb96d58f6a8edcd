// SPDX-License-Identifier: MIT OR Apache-2.0
//! The placement record: which node holds which slot index of a group.
//!
//! One vector serves up to 64 stripes. The record is mutable and signed: by the putter at epoch 0,
//! later by the group's leader. It is a hint that is verified by use; a reader that follows it
//! still hashes every byte. How slots are chosen is the object layer's business, not a matter
//! between machines: reads follow what was recorded and never compute placement.

use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, NodeId};
use crate::limits::STRIPE_WIDTH_MAX;
use crate::signed::{Signed, SignedBody};

/// The nodes of one group, slot index to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRecord {
    /// The object.
    pub object: Cid,
    /// The group, which is the manifest page of the same number.
    pub group: u32,
    /// 0 at put; each repair or move raises it by one.
    pub epoch: u64,
    /// As long as the widest stripe of the group; entry `i` holds slot index `i` of each stripe.
    pub nodes: Vec<NodeId>,
    /// Who signed.
    pub writer: NodeId,
}

impl SignedBody for PlacementRecord {
    const DOMAIN: &'static str = "supernode/placement/1";

    fn signer(&self) -> NodeId {
        self.writer
    }
}

/// A placement record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The vector is empty or wider than any stripe may be.
    #[error("a placement of {count} nodes is out of range; a group has 1 to {STRIPE_WIDTH_MAX}")]
    Width {
        /// Entries in the vector.
        count: usize,
    },
}

impl PlacementRecord {
    /// Checks what decoding cannot.
    ///
    /// # Errors
    /// When the vector's width is out of range.
    pub fn validate(&self) -> Result<(), PlacementError> {
        match self.nodes.len() {
            1..=STRIPE_WIDTH_MAX => Ok(()),
            count => Err(PlacementError::Width { count }),
        }
    }
}

/// Which of two records of the same group to keep: `Greater` means the first.
///
/// The higher epoch wins; at equal epochs the smaller BLAKE3 of the encoding does, so that all
/// holders agree without talking.
pub fn precedence(a: &Signed<PlacementRecord>, b: &Signed<PlacementRecord>) -> Ordering {
    let epochs = a.body_unverified().epoch.cmp(&b.body_unverified().epoch);
    epochs.then_with(|| {
        let (a, b) = (blake3::hash(&a.encode()), blake3::hash(&b.encode()));
        b.as_bytes().cmp(a.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use core::cmp::Ordering;

    use libp2p_identity::Keypair;

    use super::{PlacementRecord, precedence};
    use crate::ids::{Cid, NodeId};
    use crate::signed::{SignatureError, Signed, SignedDecodeError};

    fn record(key: &Keypair, epoch: u64) -> Signed<PlacementRecord> {
        let writer = NodeId::from_public(&key.public()).expect("Ed25519");
        let body =
            PlacementRecord { object: Cid::of(b"o"), group: 0, epoch, nodes: vec![writer], writer };
        Signed::sign(body, key).expect("own key")
    }

    #[test]
    fn the_higher_epoch_wins_and_equal_epochs_agree_on_one() {
        let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        assert_eq!(precedence(&record(&alice, 2), &record(&bob, 1)), Ordering::Greater);
        let (a, b) = (record(&alice, 1), record(&bob, 1));
        assert_ne!(precedence(&a, &b), Ordering::Equal);
        assert_eq!(precedence(&a, &b), precedence(&b, &a).reverse());
        assert_eq!(precedence(&a, &a), Ordering::Equal);
    }

    #[test]
    fn a_record_changed_in_any_byte_is_refused() {
        let bytes = record(&Keypair::generate_ed25519(), 7).encode();
        Signed::<PlacementRecord>::decode(&bytes).expect("as signed");
        for position in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[position] ^= 1;
            assert!(Signed::<PlacementRecord>::decode(&forged).is_err(), "byte {position}");
        }
        let mut longer = bytes;
        longer.push(0);
        let error = Signed::<PlacementRecord>::decode(&longer).expect_err("trailing byte");
        assert!(matches!(error, SignedDecodeError::Malformed { .. }));
    }

    #[test]
    fn only_the_named_writer_can_sign() {
        let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let body = record(&alice, 0).body_unverified().clone();
        let error = Signed::sign(body, &bob).expect_err("bob is not alice");
        assert!(matches!(error, SignatureError::WrongKey { .. }));
    }
}
