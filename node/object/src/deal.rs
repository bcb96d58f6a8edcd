// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the chain wants to see of a put that a deal pays for: who holds what, by their own word.
//!
//! Every holder is asked for one receipt. Its signature and its list are checked here, so that what
//! is handed to the chain is what the chain will accept: a holder that claims a slot nobody gave it
//! is left out like one that does not answer, and its slots are nobody's.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::wire::{HeldIndexes, Receipt};
use tracing::warn;

use crate::network::{Directory, HolderError, Holders, peer};
use crate::{Objects, PlacedGroup, PutReport};

/// Slots of one group as the chain is told them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedGroup {
    /// Stripes of the group.
    pub stripe_count: u32,
    /// Slot index to holder; `None` where nobody signed.
    pub nodes: Vec<Option<NodeId>>,
}

/// A receipt that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderReceipt {
    /// Who signed.
    pub node: NodeId,
    /// Bytes of its slots.
    pub bytes: u64,
    /// Ed25519 over the claim.
    pub signature: [u8; 64],
}

/// What a deal is activated with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// BLAKE3 over the object's list of shards.
    pub shards_root: [u8; 32],
    /// Groups in order.
    pub groups: Vec<AssignedGroup>,
    /// One receipt of each holder that appears in a group.
    pub receipts: Vec<HolderReceipt>,
    /// Holders that gave none, and why.
    pub without_receipt: Vec<(NodeId, String)>,
}

impl<H: Holders, D: Directory> Objects<H, D> {
    /// Asks every holder of a put for its receipt and makes of them what the chain is told.
    pub async fn assignment(
        &self,
        report: &PutReport,
        genesis: [u8; 32],
        deal: DealId,
    ) -> Assignment {
        let holders: BTreeSet<NodeId> =
            report.groups.iter().flat_map(|group| &group.vector).copied().collect();
        let asked = holders.into_iter().map(|node| async move {
            let receipt = self.receipt_of(node, report).await;
            (node, receipt.map_err(|error| error.message))
        });
        let width = report.groups.first().map_or(0, |group| group.vector.len());
        let claim = Claim {
            genesis,
            deal,
            object: report.cid,
            shards_root: report.shards_root,
            width: u16::try_from(width).expect("a stripe has at most 256 shards"),
            stripe_count: report.stripe_count,
        };
        let mut receipts = BTreeMap::new();
        let mut without_receipt = Vec::new();
        for (node, answer) in join_all(asked).await {
            match answer.and_then(|receipt| claim.check(node, &receipt, &report.groups)) {
                Ok(checked) => {
                    receipts.insert(node, checked);
                }
                Err(reason) => {
                    warn!(%node, reason, "a holder gave no usable receipt");
                    without_receipt.push((node, reason));
                }
            }
        }
        let groups = (0..).zip(&report.groups).map(|(number, group)| {
            let signed = |(index, node): (u16, &NodeId)| {
                let holds =
                    receipts.get(node).is_some_and(|it| it.slots.contains(&(number, index)));
                holds.then_some(*node)
            };
            AssignedGroup {
                stripe_count: group.stripe_count,
                nodes: (0_u16..).zip(&group.vector).map(signed).collect(),
            }
        });
        let groups = groups.collect();
        let receipts = receipts.into_values().filter(|it| !it.slots.is_empty());
        Assignment {
            shards_root: report.shards_root,
            groups,
            receipts: receipts.map(|checked| checked.receipt).collect(),
            without_receipt,
        }
    }

    async fn receipt_of(&self, node: NodeId, report: &PutReport) -> Result<Receipt, HolderError> {
        let record = self.directory.node(node).await.ok_or_else(|| HolderError {
            node,
            code: None,
            message: "it cannot be found any more".to_owned(),
        })?;
        let peer = peer(&record);
        let wanted = given_to(node, &report.groups);
        self.holders.receipt(&peer, report.lease, report.cid, wanted).await
    }
}

/// The slots that a put gave to a node.
fn given_to(node: NodeId, groups: &[PlacedGroup]) -> Vec<HeldIndexes> {
    let parts = (0..).zip(groups).map(|(group, placed)| {
        let slots = (0_u16..).zip(&placed.vector).filter(|(_, holder)| **holder == node);
        let PlacedGroup { stripe_first, stripe_count, .. } = *placed;
        let indexes = slots.map(|(index, _)| index).collect();
        HeldIndexes { group, stripe_first, stripe_count, indexes }
    });
    parts.filter(|part| !part.indexes.is_empty() && part.stripe_count > 0).collect()
}

/// What all receipts of a put have in common.
struct Claim {
    genesis: [u8; 32],
    deal: DealId,
    object: Cid,
    shards_root: [u8; 32],
    width: u16,
    stripe_count: u32,
}

struct Checked {
    receipt: HolderReceipt,
    /// Group and index.
    slots: BTreeSet<(u32, u16)>,
}

impl Claim {
    fn check(
        &self,
        node: NodeId,
        receipt: &Receipt,
        groups: &[PlacedGroup],
    ) -> Result<Checked, String> {
        let Self { genesis, deal, object, shards_root, width, stripe_count } = *self;
        if receipt.shards_root != shards_root {
            return Err("its receipt is for another list of shards".to_owned());
        }
        let mut slots = BTreeSet::new();
        let mut held = HeldDigest::default();
        let mut bytes = 0;
        for part in &receipt.held {
            let group = usize::try_from(part.group).ok().and_then(|number| groups.get(number));
            let shape = (part.stripe_first, part.stripe_count);
            let group = group
                .filter(|group| (group.stripe_first, group.stripe_count) == shape)
                .ok_or_else(|| format!("its receipt names group {} wrongly", part.group))?;
            for &index in &part.indexes {
                let in_order = slots.last().is_none_or(|last| *last < (part.group, index));
                if group.vector.get(usize::from(index)) != Some(&node) || !in_order {
                    return Err(format!(
                        "its receipt claims slot {index} of group {}, which it was not given",
                        part.group
                    ));
                }
                held.push(part.group, part.stripe_first, part.stripe_count, index);
                slots.insert((part.group, index));
                bytes += group.index_bytes;
            }
        }
        if receipt.bytes != bytes {
            return Err(format!("its receipt says {} bytes for {bytes}", receipt.bytes));
        }
        let held = held.finish();
        let claim = ReceiptClaim {
            genesis,
            deal,
            object,
            shards_root,
            width,
            stripe_count,
            node,
            bytes,
            held,
        };
        let signed =
            node.public_key().is_ok_and(|key| key.verify(&claim.message(), &receipt.signature));
        let signature = <[u8; 64]>::try_from(&receipt.signature[..]).ok().filter(|_| signed);
        let signature =
            signature.ok_or_else(|| "its receipt's signature does not hold".to_owned())?;
        Ok(Checked { receipt: HolderReceipt { node, bytes, signature }, slots })
    }
}

#[cfg(test)]
mod tests;
