// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lane's part in a commit: what it has of the group, and its own record of it.

use supernode_protocol::ids::NodeId;
use supernode_protocol::lease::{Commit, LeaseKind};

use super::{Lane, facts};
use crate::error::StoreError;
use crate::reader::Reader;
use crate::writer::{Done, Op};

/// What a lane has of what a commit speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    /// The upload has slots in the commit's stripes here.
    pub(crate) has_slots: bool,
    /// The upload is open here.
    pub(crate) is_open: bool,
    /// The upload has the manifest root here.
    pub(crate) has_root: bool,
    /// The upload has the group's page here.
    pub(crate) has_page: bool,
    /// The group is kept here, maybe in the trash.
    pub(crate) is_known: bool,
    /// The group is kept here, and not in the trash.
    pub(crate) is_here: bool,
    /// Some group of the object is, and so is the root.
    pub(crate) holds_object: bool,
    /// The commit's lease covers the group here: an answer was lost.
    pub(crate) is_covered: bool,
}

impl Part {
    fn of(reader: &Reader, caller: NodeId, commit: &Commit) -> Result<Self, StoreError> {
        let catalog = reader.catalog();
        let Commit { upload, object, group, page, terms, .. } = commit;
        // A lane without the group cannot know what rules the commit out on another one.
        if let Some(lease) = catalog.lease(terms.lease)? {
            if lease.owner != caller {
                return Err(StoreError::NotOwner {
                    what: format!("lease {}", terms.lease),
                    caller,
                });
            }
            let covered = catalog.lease_groups(terms.lease, None, 1)?;
            let is_other = covered.first().is_some_and(|(covered, _)| covered != object);
            if lease.kind == LeaseKind::Deal && is_other {
                return Err(in_use(commit));
            }
        }
        let known = catalog.group(*object, *group)?;
        let has_page = match page {
            Some(page) => catalog.upload_has_block(*upload, *page)?,
            None => true,
        };
        let slots = catalog.upload_slots(*upload, commit.stripe_first, commit.stripe_count)?;
        Ok(Self {
            has_slots: !slots.is_empty(),
            is_open: catalog.upload(*upload)?.is_some(),
            has_root: catalog.upload_has_block(*upload, *object)?,
            has_page,
            is_known: known.is_some(),
            is_here: known.is_some_and(|known| known.trashed_secs.is_none()),
            holds_object: catalog.holds_object(*object)?,
            is_covered: catalog.covers(*object, *group, terms.lease)?,
        })
    }

    /// Whether the upload's root has to be put here before the commit.
    pub(crate) fn lacks_root(&self) -> bool {
        let is_repeated = self.is_here && self.is_covered;
        let is_ready = self.is_open && (self.is_here || self.holds_object);
        !self.has_root && !is_repeated && !is_ready
    }

    /// Whether the group's page has.
    pub(crate) fn lacks_page(&self) -> bool {
        !self.has_page && !self.is_here
    }
}

/// A deal pays for one object.
pub(crate) fn in_use(commit: &Commit) -> StoreError {
    let reason = "its reservation is in use for another object".to_owned();
    StoreError::BadCommit { object: commit.object, group: commit.group, reason }
}

impl Lane {
    /// What is here of a commit's group; an error if something here rules the commit out.
    pub(crate) async fn part(&self, caller: NodeId, commit: Commit) -> Result<Part, StoreError> {
        self.blocking(move |reader| Part::of(reader, caller, &commit)).await
    }

    /// Commits what the upload has here.
    pub(crate) async fn commit(&self, caller: NodeId, commit: Commit) -> Result<Done, StoreError> {
        let op = self.commit_op(caller, commit).await?;
        self.perform(op).await
    }

    /// As [`Self::commit`], for its owner; all of the upload is on disk when it returns.
    pub(crate) async fn import(&self, commit: Commit) -> Result<Done, StoreError> {
        let op = self.commit_op(commit.terms.owner, commit).await?;
        self.perform(Op::Durably(Box::new(op))).await
    }

    async fn commit_op(&self, caller: NodeId, commit: Commit) -> Result<Op, StoreError> {
        let commit = Box::new(commit);
        let (commit, facts) = self
            .blocking(move |reader| {
                let facts = facts::read(reader, &commit)?;
                Ok((commit, facts))
            })
            .await?;
        Ok(Op::Commit { caller, commit, facts })
    }
}
