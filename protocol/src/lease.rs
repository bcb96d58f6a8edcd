// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases: why bytes are kept, for whom, and until when.
//!
//! A lease covers groups of objects on one node. Renewing or releasing it is one small record on
//! each disk, whatever it covers. Only the owner named in a lease releases it.

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, LeaseId, NodeId, Slot, UploadId};
use crate::placement::PlacementRecord;
use crate::signed::Signed;

/// Why something is kept; decides its clock and what must happen before bytes are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseKind {
    /// Paid for on chain; ends by finalised height.
    Deal,
    /// An upload that has no commit yet; ends an hour after its last frame, without trash.
    Upload,
    /// Kept by its owner's word on a network without a chain; at most 30 days at a time.
    Pin,
    /// Held by a repair until the deal's or pin's lease takes over.
    Repair,
    /// May be evicted at any time.
    Cache,
}

impl LeaseKind {
    /// The kind's name in metrics and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deal => "deal",
            Self::Upload => "upload",
            Self::Pin => "pin",
            Self::Repair => "repair",
            Self::Cache => "cache",
        }
    }
}

/// When a lease ends. Never by wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expiry {
    /// After this many seconds of the holding node's running time, counted from its commit.
    RunningSeconds(u64),
    /// When the finalised chain has passed this block.
    FinalisedHeight(u64),
    /// Only by eviction.
    Never,
}

/// What a writer asks for when it commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// Chosen by the owner, random.
    pub lease: LeaseId,
    /// Who may renew and release it.
    pub owner: NodeId,
    /// Why the group is kept.
    pub kind: LeaseKind,
    /// Until when.
    pub expiry: Expiry,
}

/// Binds what was uploaded to what it is: one per group on each holder.
///
/// From the moment it is durable, slots `stripe_first..stripe_first + stripe_count` of the upload
/// count under `(object, group)` and the lease covers them; so do the manifest root and the
/// group's page, which must have been uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The upload whose slots are bound.
    pub upload: UploadId,
    /// The object they belong to: the CID of the manifest root.
    pub object: Cid,
    /// The manifest page, and so the group.
    pub group: u32,
    /// The CID of the group's page; `None` for group 0, whose page is inside the root.
    pub page: Option<Cid>,
    /// The group's first stripe, counted over the whole object.
    pub stripe_first: u32,
    /// How many stripes the group has; 0 for a group of other extents.
    pub stripe_count: u32,
    /// The lease that keeps it.
    pub terms: LeaseTerms,
    /// Who holds what.
    pub placement: Signed<PlacementRecord>,
    /// Slots that no holder made durable; the group's leader takes them over.
    pub missing: Vec<Slot>,
}
