// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts of the chain in our own terms. Heights are block numbers, accounts are public keys, money
//! is in the chain's smallest unit.

use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::{Cid, NodeId};

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its place in the registry.
    pub index: u32,
    /// Who is paid.
    pub owner: [u8; 32],
    /// Who submits proofs.
    pub operator: [u8; 32],
    /// Its identity on the network.
    pub peer: NodeId,
    /// Failure domain.
    pub region: String,
    /// Where it says it can be reached.
    pub addresses: Vec<String>,
    /// Bytes it offers.
    pub capacity: u64,
    /// Block of its registration.
    pub registered_at: u64,
}

/// Money set aside for a deal that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The id it shares with the deal it may become.
    pub deal: DealId,
    /// Who pays.
    pub owner: [u8; 32],
    /// Bytes of shards it covers.
    pub bytes: u64,
    /// Blocks the deal will last.
    pub duration: u64,
    /// What is set aside.
    pub escrow: u128,
    /// The last block in which it can be activated.
    pub activates_by: u64,
}

/// A deal that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    /// Its id.
    pub deal: DealId,
    /// Who pays.
    pub owner: [u8; 32],
    /// The object.
    pub object: Cid,
    /// BLAKE3 over the object's list of shards.
    pub shards_root: [u8; 32],
    /// Data shards of a stripe.
    pub data: u16,
    /// All shards of a stripe.
    pub width: u16,
    /// Stripes of the object.
    pub stripe_count: u32,
    /// Groups of the object.
    pub group_count: u32,
    /// Bytes of all assigned slots.
    pub bytes: u64,
    /// First block.
    pub activated_at: u64,
    /// Block in which it ends.
    pub expires_at: u64,
    /// What is left of the money.
    pub escrow: u128,
}

/// A deal that is over; the chain remembers it for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub deal: DealId,
    /// Who paid.
    pub owner: [u8; 32],
    /// The object.
    pub object: Cid,
    /// Block in which it ended.
    pub at: u64,
    /// Whether its owner ended it early.
    pub cancelled: bool,
}

/// What became of a deal id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DealState {
    /// Money is set aside, nothing is kept yet.
    Reserved(Reservation),
    /// It runs.
    Active(Deal),
    /// It is over.
    Ended(Ended),
    /// The chain knows nothing of it (any more).
    Unknown,
}

/// What one node keeps of one deal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The deal.
    pub deal: DealId,
    /// Bytes of its slots.
    pub bytes: u64,
    /// How many slots.
    pub slots: u32,
    /// Block up to which it was paid.
    pub settled_at: u64,
    /// Audits passed.
    pub passed: u32,
    /// Audits failed.
    pub failed: u32,
}

/// A challenge that waits for its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Its id.
    pub audit: AuditId,
    /// Who has to prove.
    pub node: u32,
    /// For which deal.
    pub deal: DealId,
    /// The object.
    pub object: Cid,
    /// Which stripe.
    pub stripe: u32,
    /// Which shard of it.
    pub index: u16,
    /// From which the chunks follow.
    pub seed: [u8; 32],
    /// How many chunks.
    pub chunk_count: u8,
    /// Block of the challenge.
    pub opened_at: u64,
    /// The last block in which a proof counts.
    pub deadline: u64,
}

/// What became of a challenge; the chain remembers it for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditResult {
    /// Its id.
    pub audit: AuditId,
    /// Who had to prove.
    pub node: u32,
    /// For which deal.
    pub deal: DealId,
    /// Which stripe.
    pub stripe: u32,
    /// Which shard of it.
    pub index: u16,
    /// Whether a proof was accepted.
    pub passed: bool,
    /// Block of the challenge.
    pub opened_at: u64,
    /// Block of the verdict.
    pub resolved_at: u64,
}

/// Something that happened to a deal in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DealEvent {
    /// Money was set aside for it.
    Reserved {
        /// Which.
        deal: DealId,
        /// The last block in which it can be activated.
        activates_by: u64,
    },
    /// It began.
    Activated {
        /// Which.
        deal: DealId,
        /// Its end.
        expires_at: u64,
    },
    /// Its end moved.
    Renewed {
        /// Which.
        deal: DealId,
        /// Its new end.
        expires_at: u64,
    },
    /// It, or the reservation it would have grown from, ended.
    Ended {
        /// Which.
        deal: DealId,
        /// When.
        at: u64,
        /// Whether its owner ended it early.
        cancelled: bool,
    },
}

impl DealState {
    /// Who pays or paid.
    pub fn owner(&self) -> Option<[u8; 32]> {
        match self {
            Self::Reserved(reservation) => Some(reservation.owner),
            Self::Active(deal) => Some(deal.owner),
            Self::Ended(ended) => Some(ended.owner),
            Self::Unknown => None,
        }
    }

    /// Its id, as far as it is known.
    pub fn id(&self) -> Option<DealId> {
        match self {
            Self::Reserved(reservation) => Some(reservation.deal),
            Self::Active(deal) => Some(deal.deal),
            Self::Ended(ended) => Some(ended.deal),
            Self::Unknown => None,
        }
    }
}
