// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a holder of a group proves to another node that it may store slots of the group there.
//!
//! Whoever repairs is on no list of writers. Three things together let it write all the same, and
//! nothing but what the owner of the lease has asked this network to keep:
//!
//! - the **warrant**, a placement record signed by the lease's owner, whom the node lets write. It
//!   names the repairer among the holders of the group;
//! - the **placement** that follows it, signed by the repairer itself. It names the node;
//! - the **manifest**, whose root hashes to the object. It says which shard each slot has.
//!
//! A warrant is not handed on: who was named by a repairer only, and by no owner, cannot repair.
//! The upload that a repair writes under is not chosen by anybody, so that nobody can meddle with
//! an upload of the owner's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, NodeId, ShardId, Slot, UploadId};
use crate::lease::{Commit, LeaseKind, LeaseTerms};
use crate::manifest::{GroupSpan, ManifestError, Page, Root};
use crate::placement::{PlacementError, PlacementRecord};
use crate::signed::{SignatureError, Signed};

/// What a repairer shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The lease that is to keep the slots: a pin of the warrant's writer, or a repair lease.
    pub terms: LeaseTerms,
    /// Names the repairer; signed by the lease's owner.
    pub warrant: Signed<PlacementRecord>,
    /// Names the node; signed by the repairer.
    pub placement: Signed<PlacementRecord>,
}

/// Why a repair is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// A signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A vector is out of range.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Root or page are not those of the object.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The root is another object's.
    #[error("the manifest root does not hash to {object}")]
    WrongRoot {
        /// The object.
        object: Cid,
    },
    /// The page of group 0 is inside the root.
    #[error("group 0 has no page of its own")]
    StrayPage,
    /// Warrant and placement are not of the same group.
    #[error("the placement is of another group than the warrant, or of another width")]
    OtherGroup,
    /// The lease is somebody else's.
    #[error("the warrant is signed by {writer}, the lease belongs to {owner}")]
    NotOwner {
        /// Who signed the warrant.
        writer: NodeId,
        /// Whom the lease names.
        owner: NodeId,
    },
    /// The caller has not signed the placement.
    #[error("the placement is signed by {writer}, and not by {caller}, who shows it")]
    NotWriter {
        /// Who signed it.
        writer: NodeId,
        /// Who shows it.
        caller: NodeId,
    },
    /// The owner has not named the caller.
    #[error("the warrant does not name {caller} among the holders of the group")]
    NotHolder {
        /// Who shows it.
        caller: NodeId,
    },
    /// The placement is not a later one.
    #[error("the placement of epoch {epoch} does not follow the warrant of epoch {warrant}")]
    NotNewer {
        /// The placement's.
        epoch: u64,
        /// The warrant's.
        warrant: u64,
    },
    /// The placement gives this node nothing.
    #[error("the placement does not name {node}")]
    NotHere {
        /// The node that was asked.
        node: NodeId,
    },
    /// A lease of a kind that nobody but its owner, or the chain, begins.
    #[error("a repair keeps what it restores under a pin or a repair lease, not a {} lease",
        .kind.name())]
    Kind {
        /// What was asked for.
        kind: LeaseKind,
    },
}

/// A proven repair: what may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    repair: Repair,
    span: GroupSpan,
    shards: BTreeMap<Slot, (ShardId, u64)>,
}

impl Repair {
    /// The object that is repaired.
    pub fn object(&self) -> Cid {
        self.warrant.body_unverified().object
    }

    /// The group of it.
    pub fn group(&self) -> u32 {
        self.warrant.body_unverified().group
    }

    /// What the repairer's shards are put under, on every node alike. It follows from who repairs
    /// what, and as whose lease.
    pub fn upload(&self) -> UploadId {
        let placement = self.placement.body_unverified();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"supernode/repair/1\0");
        hasher.update(placement.writer.as_bytes());
        hasher.update(placement.object.as_bytes());
        hasher.update(&placement.group.to_le_bytes());
        hasher.update(&placement.epoch.to_le_bytes());
        hasher.update(self.terms.lease.as_bytes());
        let hash = *hasher.finalize().as_bytes();
        let (id, _) = hash.split_first_chunk().expect("a hash is longer than an id");
        UploadId::from_bytes(*id)
    }

    /// The commit that ends it, of the manifest's `span` that says where the group is.
    pub fn commit(&self, span: &GroupSpan) -> Commit {
        Commit {
            upload: self.upload(),
            object: self.object(),
            group: span.group,
            page: span.page,
            stripe_first: span.stripe_first,
            stripe_count: span.stripe_count,
            terms: self.terms.clone(),
            placement: self.placement.clone(),
            missing: Vec::new(),
        }
    }

    /// Checks everything that is signed or named, before any block is looked at. That the
    /// warrant's writer may write to this node is for the node to know.
    ///
    /// # Errors
    /// [`RepairError`], except what [`Self::open`] says of blocks.
    pub fn check(&self, caller: NodeId, node: NodeId) -> Result<(), RepairError> {
        let (warrant, placement) = (self.warrant.verify()?, self.placement.verify()?);
        warrant.validate()?;
        placement.validate()?;
        let of = |record: &PlacementRecord| (record.object, record.group, record.nodes.len());
        if of(warrant) != of(placement) {
            return Err(RepairError::OtherGroup);
        }
        if warrant.writer != self.terms.owner {
            return Err(RepairError::NotOwner { writer: warrant.writer, owner: self.terms.owner });
        }
        if placement.writer != caller {
            return Err(RepairError::NotWriter { writer: placement.writer, caller });
        }
        if !warrant.nodes.contains(&caller) {
            return Err(RepairError::NotHolder { caller });
        }
        if placement.epoch <= warrant.epoch {
            return Err(RepairError::NotNewer { epoch: placement.epoch, warrant: warrant.epoch });
        }
        if !placement.nodes.contains(&node) {
            return Err(RepairError::NotHere { node });
        }
        match self.terms.kind {
            LeaseKind::Pin | LeaseKind::Repair => Ok(()),
            kind => Err(RepairError::Kind { kind }),
        }
    }

    /// Reads the manifest of a checked repair; `page` is empty for group 0.
    ///
    /// # Errors
    /// [`RepairError::WrongRoot`], [`RepairError::Manifest`].
    pub fn open(self, node: NodeId, root: &[u8], page: &[u8]) -> Result<Allowed, RepairError> {
        let (object, group) = (self.object(), self.group());
        if Cid::of(root) != object {
            return Err(RepairError::WrongRoot { object });
        }
        let root = Root::decode(root)?;
        let span = root.groups().find(|span| span.group == group);
        let span = span.ok_or(ManifestError::NoSuchGroup { group })?;
        let page = match span.page {
            None if !page.is_empty() => return Err(RepairError::StrayPage),
            None => root.page_0,
            Some(_) => root.open_page(group, page)?,
        };
        let shards = slots_of(&page, span.stripe_first, &self.placement, node);
        Ok(Allowed { repair: self, span, shards })
    }
}

/// What a placement gives a node of the stripes of a page.
fn slots_of(
    page: &Page,
    stripe_first: u32,
    placement: &Signed<PlacementRecord>,
    node: NodeId,
) -> BTreeMap<Slot, (ShardId, u64)> {
    let nodes = &placement.body_unverified().nodes;
    let mut slots = BTreeMap::new();
    for (stripe, extent) in (stripe_first..).zip(page.stripes()) {
        for ((index, shard), holder) in (0..).zip(&extent.shards).zip(nodes) {
            if *holder == node {
                slots.insert(Slot { stripe, index }, (*shard, extent.shard_len));
            }
        }
    }
    slots
}

impl Allowed {
    /// Whose lease it is: as whom the repairer writes.
    pub fn owner(&self) -> NodeId {
        self.repair.terms.owner
    }

    /// The object that is repaired.
    pub fn object(&self) -> Cid {
        self.repair.object()
    }

    /// The group's page, where it is a block of its own.
    pub fn page(&self) -> Option<Cid> {
        self.span.page
    }

    /// What it is written under.
    pub fn upload(&self) -> UploadId {
        self.repair.upload()
    }

    /// How many slots it may write.
    pub fn slot_count(&self) -> usize {
        self.shards.len()
    }

    /// Whether these bytes belong at this slot of this node.
    pub fn is_shard(&self, slot: Slot, shard: ShardId, len: u64) -> bool {
        self.shards.get(&slot) == Some(&(shard, len))
    }

    /// Whether this is the commit that ends the repair, whatever it says is missing still.
    pub fn is_commit(&self, commit: &Commit) -> bool {
        let missing = commit.missing.clone();
        *commit == Commit { missing, ..self.repair.commit(&self.span) }
    }
}

#[cfg(test)]
mod tests;
