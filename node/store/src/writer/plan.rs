// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be written: every rule that can refuse an operation, in one place.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::limits::PIN_SECONDS_MAX;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use super::{Planned, Writer};
use crate::buffer::FilledShard;
use crate::catalog::{Catalog, State, Thing, cached_upload};
use crate::config::Durability;
use crate::error::StoreError;
use crate::record::{
    Body, CommitBody, Freed, Holder, LeaseChange, Payload, Placed, Position, Span,
};

/// What the store is asked to write. Bodies are verified before they get here.
#[derive(Debug)]
pub enum Op {
    /// A shard under an upload.
    PutShard {
        /// The authenticated peer.
        caller: NodeId,
        /// The upload.
        upload: UploadId,
        /// The position.
        slot: Slot,
        /// The shard's id, to which its bytes were found to hash.
        shard: ShardId,
        /// The bytes.
        filled: FilledShard,
        /// Where an equal shard was just read from disk and found whole.
        seen_at: Option<Position>,
    },
    /// A manifest block under an upload.
    PutBlock {
        /// The authenticated peer.
        caller: NodeId,
        /// The upload.
        upload: UploadId,
        /// The block's id, to which its bytes were found to hash.
        cid: Cid,
        /// The bytes.
        bytes: Bytes,
        /// Where an equal block was just read from disk and found whole.
        seen_at: Option<Position>,
    },
    /// A manifest block that another directory of the store has under the same upload: each is to
    /// be complete in itself, so this is beyond the offered capacity if need be.
    CopyBlock {
        /// Whose upload it is.
        caller: NodeId,
        /// The upload.
        upload: UploadId,
        /// The block's id, to which its bytes were found to hash.
        cid: Cid,
        /// The bytes.
        bytes: Bytes,
    },
    /// Binds an upload to an object.
    Commit {
        /// The authenticated peer.
        caller: NodeId,
        /// As sent; its signature is verified.
        commit: Box<Commit>,
        /// What the manifest says.
        facts: CommitFacts,
    },
    /// A placement record that may be newer than the one here; its signature is verified.
    Place {
        /// The record.
        record: Box<Signed<PlacementRecord>>,
    },
    /// Keeps bytes with a group.
    KeepSpan {
        /// The object.
        object: Cid,
        /// Which group, and what.
        span: Span,
    },
    /// Ends a lease, or an upload.
    Release {
        /// The authenticated peer.
        caller: NodeId,
        /// Which.
        lease: LeaseId,
    },
    /// Moves the end of a deal lease, by the chain's word.
    MoveDeal {
        /// Which.
        lease: LeaseId,
        /// The finalised height at which it ends.
        height: u64,
    },
    /// Ends a deal lease, by the chain's word.
    EndDeal {
        /// Which.
        lease: LeaseId,
    },
    /// Ends a lease here alone, when other directories have all that it covers. Refused if that is
    /// more by now.
    Forsake {
        /// Which.
        lease: LeaseId,
        /// Object, group, and how many slots of it are elsewhere.
        groups: HashSet<(Cid, u32, u32)>,
    },
    /// Ends the wait of a group in the trash, when other directories have all of it.
    Bury {
        /// The object.
        object: Cid,
        /// Which of its groups.
        group: u32,
    },
    /// Another operation, whose answer waits for the disk in any mode, as does all before it.
    Durably(Box<Op>),
    /// Moves the end of a lease.
    Renew {
        /// The authenticated peer.
        caller: NodeId,
        /// Which.
        lease: LeaseId,
        /// Its new end, counted from now.
        expiry: Expiry,
    },
}

/// What the manifest says about a group, read before its commit is planned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitFacts {
    /// Size of the whole object.
    pub object_bytes: u64,
    /// Which shard belongs into which slot of the group.
    pub shards: HashMap<Slot, (ShardId, u64)>,
}

impl Op {
    /// Bytes that it would add to the log, besides a little meta.
    pub fn payload_len(&self) -> u64 {
        match self {
            Self::PutShard { filled, .. } => filled.bytes().len() as u64,
            Self::PutBlock { bytes, .. } | Self::CopyBlock { bytes, .. } => bytes.len() as u64,
            Self::Durably(op) => op.payload_len(),
            _ => 0,
        }
    }

    /// Whether it repeats to the store what the chain has said, which nobody will say again.
    pub(super) fn is_the_chains_word(&self) -> bool {
        matches!(self, Self::MoveDeal { .. } | Self::EndDeal { .. })
    }
}

impl Writer {
    /// What the answer to an operation promises.
    pub(super) fn promise(&self, op: &Op) -> Durability {
        let of = |lease| {
            let known = Catalog(&self.overlay.stage()).lease(lease).ok().flatten();
            known.map_or(self.config.durability, |known| self.config.durability_of(known.kind))
        };
        match op {
            _ if op.is_the_chains_word() => Durability::Strict,
            // The end of a move: what is left elsewhere must not outlive what is left here.
            Op::Durably(_) | Op::Forsake { .. } | Op::Bury { .. } => Durability::Strict,
            Op::Commit { commit, .. } => self.config.durability_of(commit.terms.kind),
            Op::Renew { lease, .. } | Op::Release { lease, .. } => of(*lease),
            _ => self.config.durability,
        }
    }

    /// Checks an operation against everything before it.
    pub(super) fn plan(&self, op: Op) -> Result<Planned, StoreError> {
        match op {
            Op::PutShard { caller, upload, slot, shard, filled, seen_at } => {
                // An upload that never ends is nothing for a peer.
                if upload == cached_upload(shard) {
                    demand_owner(caller, self.config.node, || format!("upload {upload}"))?;
                }
                let holder = self.holder(caller, upload)?;
                let placed = Placed { holder, slot };
                let thing = Thing::Shard(shard);
                let id = *shard.as_bytes();
                self.demand_room(thing, filled.bytes().len() as u64)?;
                Ok(if self.is_here(thing, seen_at)? {
                    Planned { id, body: Body::Slot(placed), payload: Payload::None }
                } else {
                    Planned { id, body: Body::Shard(placed), payload: Payload::Shard(filled) }
                })
            }
            Op::PutBlock { caller, upload, cid, bytes, seen_at } => {
                let holder = self.holder(caller, upload)?;
                self.demand_room(Thing::Block(cid), bytes.len() as u64)?;
                self.plan_block(holder, cid, bytes, seen_at)
            }
            Op::CopyBlock { caller, upload, cid, bytes } => {
                let holder = self.holder(caller, upload)?;
                self.demand_reserve(bytes.len() as u64)?;
                self.plan_block(holder, cid, bytes, None)
            }
            Op::Commit { caller, commit, facts } => self.plan_commit(caller, *commit, &facts),
            Op::Place { record } => self.plan_placement(record),
            Op::KeepSpan { object, span } => {
                self.demand_group(object, span.group)?;
                let body = Body::Span(span);
                Ok(Planned { id: *object.as_bytes(), body, payload: Payload::None })
            }
            Op::Release { caller, lease } => self.plan_release(caller, lease),
            Op::Forsake { lease, groups } => self.plan_forsake(lease, &groups),
            Op::Bury { object, group } => self.plan_bury(object, group),
            Op::Durably(op) => self.plan(*op),
            Op::MoveDeal { lease, height } => {
                let expiry = Expiry::FinalisedHeight(height);
                self.plan_deal(lease, LeaseChange::Renew { lease, expiry })
            }
            Op::EndDeal { lease } => self.plan_deal(lease, LeaseChange::Expire { lease }),
            Op::Renew { caller, lease, expiry } => {
                let view = self.overlay.stage();
                let state = Catalog(&view).lease(lease)?;
                let state = state.ok_or(StoreError::LeaseNotFound { lease })?;
                demand_owner(caller, state.owner, || format!("lease {lease}"))?;
                demand_no_deal(lease, state.kind)?;
                check_expiry(state.kind, expiry)?;
                Ok(Planned::lease(lease.as_bytes(), LeaseChange::Renew { lease, expiry }))
            }
        }
    }

    fn holder(&self, caller: NodeId, upload: UploadId) -> Result<Holder, StoreError> {
        let view = self.overlay.stage();
        if let Some(entry) = Catalog(&view).upload(upload)? {
            demand_owner(caller, entry.owner, || format!("upload {upload}"))?;
        }
        Ok(Holder { upload, owner: caller })
    }

    fn plan_block(
        &self,
        holder: Holder,
        cid: Cid,
        bytes: Bytes,
        seen_at: Option<Position>,
    ) -> Result<Planned, StoreError> {
        let id = *cid.as_bytes();
        Ok(if self.is_here(Thing::Block(cid), seen_at)? {
            Planned { id, body: Body::BlockRef(holder), payload: Payload::None }
        } else {
            Planned { id, body: Body::Block(holder), payload: Payload::Block(bytes) }
        })
    }

    /// Whether whole bytes of this thing are here, so that a reference is enough.
    ///
    /// Bytes that this writer has yet to sync come from memory that was hashed, and the sync covers
    /// the reference too. Anything older is read back: adopting a damaged record would lose data.
    fn is_here(&self, thing: Thing, seen_at: Option<Position>) -> Result<bool, StoreError> {
        let view = self.overlay.stage();
        Ok(match Catalog(&view).kept(thing)? {
            None => false,
            Some(kept) if self.log.is_unsynced(kept.at) || seen_at == Some(kept.at) => true,
            Some(kept) => self.reader.verify(thing, &kept).is_ok(),
        })
    }

    /// Refuses what there is no room for, on the file system or in the offered capacity.
    fn demand_room(&self, thing: Thing, len: u64) -> Result<(), StoreError> {
        self.demand_reserve(len)?;
        let view = self.overlay.stage();
        let catalog = Catalog(&view);
        // Live and trash count as used already; dead bytes would be used again.
        let counted = catalog.kept(thing)?.is_some_and(|kept| kept.state() != State::Dead);
        if counted && self.config.capacity_bytes > 0 {
            return Ok(());
        }
        let usage = catalog.usage()?;
        let used = usage.bytes(State::Live) + usage.bytes(State::Trash);
        if used.saturating_add(len) > self.config.capacity_bytes {
            return full(len, "the offered capacity is used up");
        }
        Ok(())
    }

    fn demand_reserve(&self, len: u64) -> Result<(), StoreError> {
        if self.free_bytes < len + self.planned_bytes + self.config.reserve_bytes {
            return full(len, "the file system is down to the reserve");
        }
        Ok(())
    }

    fn plan_commit(
        &self,
        caller: NodeId,
        commit: Commit,
        facts: &CommitFacts,
    ) -> Result<Planned, StoreError> {
        let (object, group) = (commit.object, commit.group);
        let bad = |reason: String| Err(StoreError::BadCommit { object, group, reason });
        let view = self.overlay.stage();
        let catalog = Catalog(&view);
        let terms = &commit.terms;
        demand_owner(caller, terms.owner, || format!("lease {}", terms.lease))?;
        check_expiry(terms.kind, terms.expiry)?;
        if let Some(lease) = catalog.lease(terms.lease)? {
            demand_owner(caller, lease.owner, || format!("lease {}", terms.lease))?;
            if lease.kind != terms.kind {
                return bad(format!("its lease is already a {} lease", lease.kind.name()));
            }
            // A deal pays for one object. Checked here because commits of one lease may race.
            let covered = catalog.lease_groups(terms.lease, None, 1)?;
            let is_other = covered.first().is_some_and(|(covered, _)| *covered != object);
            if lease.kind == LeaseKind::Deal && is_other {
                return bad("its reservation is in use for another object".to_owned());
            }
        }
        let placement = commit.placement.body_unverified();
        if (placement.object, placement.group) != (object, group) {
            return bad("its placement names another object or group".to_owned());
        }
        let here = catalog.group(object, group)?.filter(|entry| entry.trashed_secs.is_none());
        match catalog.upload(commit.upload)? {
            Some(upload) => {
                demand_owner(caller, upload.owner, || format!("upload {}", commit.upload))?;
            }
            // A commit whose answer was lost is repeated; its upload is used up.
            None if here.is_some() && catalog.covers(object, group, terms.lease)? => {}
            None => return Err(StoreError::UnknownUpload { upload: commit.upload }),
        }
        let root_here = catalog.upload_has_block(commit.upload, object)?
            || here.is_some()
            || catalog.holds_object(object)?;
        if !root_here {
            return bad("its manifest root was not uploaded".to_owned());
        }
        if let Some(page) = commit.page
            && here.is_none()
            && !catalog.upload_has_block(commit.upload, page)?
        {
            return bad("its manifest page was not uploaded".to_owned());
        }
        let uploaded =
            catalog.upload_slots(commit.upload, commit.stripe_first, commit.stripe_count)?;
        for (slot, shard) in uploaded {
            let len = catalog.kept(Thing::Shard(shard))?.map(|kept| kept.len);
            if facts.shards.get(&slot).copied() != len.map(|len| (shard, len)) {
                let Slot { stripe, index } = slot;
                let reason = "differs from the one in the manifest";
                return bad(format!(
                    "the shard uploaded as stripe {stripe}, index {index} {reason}"
                ));
            }
        }
        let body = CommitBody { commit, object_bytes: facts.object_bytes };
        let body = Body::Commit(Box::new(body));
        Ok(Planned { id: *object.as_bytes(), body, payload: Payload::None })
    }

    fn plan_placement(&self, record: Box<Signed<PlacementRecord>>) -> Result<Planned, StoreError> {
        let (object, group) = {
            let body = record.body_unverified();
            (body.object, body.group)
        };
        self.demand_group(object, group)?;
        let id = *object.as_bytes();
        Ok(Planned { id, body: Body::Placement(record), payload: Payload::None })
    }

    fn demand_group(&self, object: Cid, group: u32) -> Result<(), StoreError> {
        let view = self.overlay.stage();
        let entry = Catalog(&view).group(object, group)?;
        entry
            .filter(|entry| entry.trashed_secs.is_none())
            .map(drop)
            .ok_or(StoreError::GroupNotFound { object, group })
    }

    fn plan_deal(&self, lease: LeaseId, change: LeaseChange) -> Result<Planned, StoreError> {
        let view = self.overlay.stage();
        let state = Catalog(&view).lease(lease)?;
        state
            .filter(|state| state.kind == LeaseKind::Deal)
            .ok_or(StoreError::LeaseNotFound { lease })?;
        Ok(Planned::lease(lease.as_bytes(), change))
    }

    fn plan_forsake(
        &self,
        lease: LeaseId,
        elsewhere: &HashSet<(Cid, u32, u32)>,
    ) -> Result<Planned, StoreError> {
        let view = self.overlay.stage();
        let catalog = Catalog(&view);
        catalog.lease(lease)?.ok_or(StoreError::LeaseNotFound { lease })?;
        for (object, group) in catalog.lease_groups(lease, None, usize::MAX)? {
            let slot_count = catalog.group(object, group)?.map_or(0, |entry| entry.slot_count);
            if !elsewhere.contains(&(object, group, slot_count)) {
                let reason = "it has grown while it was moved".to_owned();
                return Err(StoreError::BadCommit { object, group, reason });
            }
        }
        Ok(Planned::lease(lease.as_bytes(), LeaseChange::Release { lease }))
    }

    fn plan_bury(&self, object: Cid, group: u32) -> Result<Planned, StoreError> {
        let view = self.overlay.stage();
        let entry = Catalog(&view).group(object, group)?;
        // With records missing, what looks unwanted may be somebody's.
        entry
            .filter(|entry| entry.trashed_secs.is_some() && self.reclaiming.is_whole)
            .ok_or(StoreError::GroupNotFound { object, group })?;
        Ok(Planned::tombstone(*object.as_bytes(), Freed::Group { group }))
    }

    fn plan_release(&self, caller: NodeId, lease: LeaseId) -> Result<Planned, StoreError> {
        let view = self.overlay.stage();
        let catalog = Catalog(&view);
        if let Some(state) = catalog.lease(lease)? {
            demand_owner(caller, state.owner, || format!("lease {lease}"))?;
            demand_no_deal(lease, state.kind)?;
            return Ok(Planned::lease(lease.as_bytes(), LeaseChange::Release { lease }));
        }
        // An upload is a lease too: the one its id names.
        let upload = UploadId::from_bytes(*lease.as_bytes());
        let entry = catalog.upload(upload)?.ok_or(StoreError::LeaseNotFound { lease })?;
        demand_owner(caller, entry.owner, || format!("upload {upload}"))?;
        Ok(Planned::lease(upload.as_bytes(), LeaseChange::Abandon { upload }))
    }
}

fn full(wanted_bytes: u64, reason: &'static str) -> Result<(), StoreError> {
    Err(StoreError::Full { wanted_bytes, reason })
}

/// Peers have no say in when a deal ends.
fn demand_no_deal(lease: LeaseId, kind: LeaseKind) -> Result<(), StoreError> {
    if kind == LeaseKind::Deal { Err(StoreError::DealLease { lease }) } else { Ok(()) }
}

fn demand_owner(
    caller: NodeId,
    owner: NodeId,
    what: impl FnOnce() -> String,
) -> Result<(), StoreError> {
    if caller == owner { Ok(()) } else { Err(StoreError::NotOwner { what: what(), caller }) }
}

/// Each kind of lease has one clock, and all but the cache's must end.
fn check_expiry(kind: LeaseKind, expiry: Expiry) -> Result<(), StoreError> {
    let bad = |reason| Err(StoreError::BadExpiry { kind, expiry, reason });
    match (kind, expiry) {
        (LeaseKind::Upload, _) => bad("uploads are opened by putting shards, not by a commit"),
        (LeaseKind::Deal, Expiry::FinalisedHeight(_)) | (LeaseKind::Cache, Expiry::Never) => Ok(()),
        (LeaseKind::Pin | LeaseKind::Repair, Expiry::RunningSeconds(secs)) => {
            if secs <= PIN_SECONDS_MAX {
                Ok(())
            } else {
                bad("it is longer than 30 days; renew it in time instead")
            }
        }
        (LeaseKind::Deal, _) => bad("deals end by finalised height"),
        (LeaseKind::Cache, _) => bad("cache leases have no clock"),
        (LeaseKind::Pin | LeaseKind::Repair, _) => bad("pins and repairs end by running seconds"),
    }
}
