// SPDX-License-Identifier: MIT OR Apache-2.0
//! What compaction writes so that the oldest segment can go: things that are so already, said
//! again at the head of the log.
//!
//! Where the map knows them already, such a record changes nothing but where they begin. In a
//! replay of the last part of the log, which lacks the records they come from, it brings them
//! about. So it says all of what it speaks of, and nothing relative to its own time.

use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use super::Holder;

/// Something that is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restate {
    /// A lease and its end. What it covers is said by its groups.
    Lease(LeaseTold),
    /// A group, or as much of a large one as fits into a record.
    Group(Box<GroupPart>),
    /// A cached shard: the upload that keeps it.
    Cached(CachedTold),
}

/// The upload of a cached shard as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedTold {
    /// The upload and its owner.
    pub holder: Holder,
    /// The running second in which it was last used.
    pub used_secs: u64,
}

/// A lease as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTold {
    /// Which.
    pub lease: LeaseId,
    /// Who may renew and release it.
    pub owner: NodeId,
    /// Why it keeps what it keeps.
    pub kind: LeaseKind,
    /// When it ends; running seconds count from the node's first start.
    pub expiry: Expiry,
    /// The running second it was opened in.
    pub created_secs: u64,
    /// Whether its end was moved since.
    pub moved: bool,
}

/// That no lease covers a group any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    /// The running second in which its last lease ended.
    pub secs: u64,
    /// Whether that was a cache lease.
    pub evicted: bool,
}

/// A group with some of its slots and leases. All that is not a list is the same in each part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPart {
    /// Which group of the object.
    pub group: u32,
    /// Its page, if that is not in the root.
    pub page: Option<Cid>,
    /// Size of the whole object.
    pub object_bytes: u64,
    /// Its first stripe.
    pub stripe_first: u32,
    /// Its stripes.
    pub stripe_count: u32,
    /// The placement that has precedence here.
    pub placement: Signed<PlacementRecord>,
    /// Slots that its newest commit said are missing everywhere.
    pub missing: Vec<Slot>,
    /// Set when it lies in the trash.
    pub trashed: Option<Trashed>,
    /// Slots that are here.
    pub slots: Vec<(Slot, ShardId)>,
    /// Leases that cover it, as they stand.
    pub leases: Vec<LeaseTold>,
    /// Bytes that are kept with it; in the last part only.
    pub span: Option<Vec<u8>>,
    /// The segment of the first part, where this is a further one.
    pub first: Option<u32>,
    /// Whether this is the last part: nothing older than the first is needed for the group.
    pub is_last: bool,
}
