// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the log means: a pure state machine over an ordered map.
//!
//! - [`mod@apply`] takes one record and changes the map. It decides nothing and refuses nothing:
//!   what may be written is decided before, by the writer's plan. It is total, because a replay
//!   after damage may lack any record; a slot of a shard that is not there is skipped.
//! - The map holds only what follows from records, never from a clock or a setting, so that a
//!   rebuild from the log gives the same map as the life that wrote it.
//! - The same code runs over the index in service, and over a map in memory when a log is dumped
//!   or checked.
//!
//! How things hang together: **slots** refer to shards, groups and uploads to manifest blocks.
//! A slot belongs to an upload or to a group. Leases cover groups. A shard or block is *live* while
//! an upload or a covered group refers to it, in the *trash* while only groups without a lease do,
//! and *dead* when nothing does; then it waits for its tombstone.
//!
//! Work is proportional to what changes: a commit costs its group's slots, a release the slots of
//! the groups that nothing else covers, and every figure in [`Usage`] is kept up as they go.

use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, ShardId};
use supernode_protocol::lease::LeaseKind;

use crate::record::{Body, Freed, LeaseChange, Position};

mod apply;
mod cached;
mod check;
mod deals;
mod dump;
mod entries;
pub mod keys;
mod query;
mod usage;

pub use self::apply::apply;
pub use self::cached::{CACHED_SLOT, CachedShard, cached_upload};
#[cfg(test)]
pub(crate) use self::check::DERIVED;
pub use self::check::check;
pub use self::deals::{DealLease, DealSlot};
pub use self::dump::dump_lines;
pub(crate) use self::dump::visit;
pub use self::entries::{
    DeadRecord, GroupEntry, Kept, LeaseState, SegmentEntry, State, UploadEntry,
};
pub(crate) use self::query::thing_of;
pub use self::query::{Catalog, CoveredGroup};
pub use self::usage::{ByState, LeaseUsage, Tally, Usage};

/// The index cannot be read, or contradicts itself. The log is unharmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct IndexError {
    /// What was noticed.
    pub reason: String,
}

impl IndexError {
    /// An error with a reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl From<IndexError> for crate::error::StoreError {
    fn from(error: IndexError) -> Self {
        Self::Index { reason: error.reason }
    }
}

/// Pairs in key order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reading an ordered map.
pub trait KvRead {
    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Pairs from `start` (included) to `end` (excluded) in order, at most `limit`.
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError>;
}

/// Changing it. Changes are seen by later reads.
pub trait Kv: KvRead {
    /// Sets a value.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);

    /// Removes a key, if it is there.
    fn delete(&mut self, key: Vec<u8>);
}

/// A record as the state machine sees it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// What it is about.
    pub id: &'a [u8; 32],
    /// What it says.
    pub body: &'a Body,
    /// The node's running second when it was written.
    pub running_secs: u64,
    /// Where it is.
    pub at: Position,
    /// Bytes from there to its payload.
    pub payload_start: u64,
    /// Bytes of payload.
    pub payload_len: u64,
    /// Bytes it takes in its segment.
    pub record_len: u64,
}

/// A shard or a manifest block: what has bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Thing {
    /// A shard.
    Shard(ShardId),
    /// A manifest root or page.
    Block(Cid),
}

/// A change that others want to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// The group is held from now on (or again).
    Committed(HeldGroup),
    /// No lease covers the group any more.
    Released(HeldGroup),
}

/// What one record brought about, besides its changes to the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a group.
    Group(GroupEvent),
    /// A shard or block is not live any more: caches drop it.
    Unwanted(Thing),
}

/// Names a group, and the CID under which it is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeldGroup {
    /// The object.
    pub object: Cid,
    /// Which of its groups.
    pub group: u32,
    /// The group's page, if it is not inside the root.
    pub page: Option<Cid>,
}

/// Whether a record changes what is kept for whom; clocks and journals do not.
pub fn is_mutation(body: &Body) -> bool {
    !matches!(body, Body::Clock { .. } | Body::Journal(_))
}

/// Position of a lease kind in per-kind figures.
pub(crate) fn kind_index(kind: LeaseKind) -> usize {
    match kind {
        LeaseKind::Deal => 0,
        LeaseKind::Upload => 1,
        LeaseKind::Pin => 2,
        LeaseKind::Repair => 3,
        LeaseKind::Cache => 4,
    }
}

/// All lease kinds, in the order of per-kind figures.
pub const LEASE_KINDS: [LeaseKind; 5] =
    [LeaseKind::Deal, LeaseKind::Upload, LeaseKind::Pin, LeaseKind::Repair, LeaseKind::Cache];
