// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the store is asked: a small trait over its deal leases and its proofs.
//!
//! The binary implements [`Keeper`] over the store. This crate is the only one that moves or ends
//! deal leases; the store decides by itself what bytes that frees, and when.

use std::future::Future;

use supernode_protocol::ids::{Cid, LeaseId};

use crate::chain::{Challenge, Height};

/// A deal lease on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease; the deal's number is inside.
    pub lease: LeaseId,
    /// The stored end: a finalised height.
    pub height: Height,
    /// The objects it covers here.
    pub objects: Vec<Cid>,
    /// How many slots it covers here.
    pub slots: u64,
    /// The bytes of those slots; equal shards count once for each slot.
    pub bytes: u64,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store did not {operation}: {reason}")]
pub struct KeeperError {
    /// What was asked.
    pub operation: &'static str,
    /// What it says, with its remedy.
    pub reason: String,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// The bytes on disk are not what they should be.
    #[error("the shard is damaged: {reason}; it can be proved again once it is repaired")]
    Damaged {
        /// What the store says.
        reason: String,
    },
    /// The slot is not here.
    #[error("the shard is not here: {reason}; it can be proved once it is repaired")]
    Absent {
        /// What the store says.
        reason: String,
    },
    /// The store could not look.
    #[error("the store could not prove it: {reason}")]
    Failed {
        /// What the store says.
        reason: String,
    },
}

/// The store, as this crate needs it.
pub trait Keeper: Clone + Send + Sync + 'static {
    /// Deal leases in the order of their ids, after one of them, at most `limit`.
    fn deals(
        &self,
        after: Option<LeaseId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Held>, KeeperError>> + Send;

    /// Deal leases whose stored end is at or below `height`, in the order of `(end, id)`, after
    /// one such pair, at most `limit`. The work is proportional to what is returned.
    fn deals_due(
        &self,
        height: Height,
        after: Option<(Height, LeaseId)>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Held>, KeeperError>> + Send;

    /// The stored end of one deal lease, or nothing if it is not here. One lookup: it is asked for
    /// every change of every deal of the chain.
    fn stored_end(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Option<Height>, KeeperError>> + Send;

    /// Sets the stored end of a deal lease, earlier or later, by the chain's word. Durable when it
    /// returns; a lease that is gone by now is no error.
    fn move_deal(
        &self,
        lease: LeaseId,
        height: Height,
    ) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// Ends a deal lease: what no other lease covers goes to the trash. Durable when it returns;
    /// a lease that is gone already is no error.
    fn end_deal(&self, lease: LeaseId) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// The encoded proof (`supernode_protocol::audit::AuditProof`) for a challenge, read from the
    /// disk and verified.
    fn prove(
        &self,
        challenge: Challenge,
    ) -> impl Future<Output = Result<Vec<u8>, ProveError>> + Send;
}
