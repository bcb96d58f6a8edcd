// SPDX-License-Identifier: MIT OR Apache-2.0
//! What compaction says again. To a map that knows it all, it only moves where things begin; to one
//! that saw the last part of the log alone, it brings about what the missing part did.
//!
//! What such a record speaks of is younger from then on: a thing begins at its copy, a lease at its
//! restatement, a group at the oldest of its restatement and of the things it refers to.

use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};

use super::{Change, Shift, hash_of};
use crate::catalog::entries::{GroupEntry, encode};
use crate::catalog::{CACHED_SLOT, IndexError, Kv, Tally, Thing, keys};
use crate::record::{CachedTold, GroupPart, LeaseTold, Placed, Restate, Trashed, cid_of, shard_of};

impl<K: Kv> Change<'_, K> {
    /// A copy of what is kept: read from there, and begun there, from now on.
    pub(super) fn relocate(&mut self, thing: Thing) -> Result<(), IndexError> {
        self.keep(thing)?;
        let Some(mut kept) = self.query().kept(thing)? else { return Ok(()) };
        kept.begun = self.begin_anew(kept.begun, self.entry.at.segment)?;
        self.kv.put(keys::thing(thing), encode(&kept));
        Ok(())
    }

    pub(super) fn restate(&mut self, restate: &Restate) -> Result<(), IndexError> {
        match restate {
            Restate::Lease(told) => self.restate_lease(told),
            Restate::Group(part) => self.restate_group(part),
            Restate::Cached(told) => self.restate_cached(told),
        }
    }

    /// Moves an anchor; returns where it is then.
    fn begin_anew(&mut self, old: u32, new: u32) -> Result<u32, IndexError> {
        self.anchor(new)?;
        self.release_anchor(old)?;
        Ok(new)
    }

    fn restate_lease(&mut self, told: &LeaseTold) -> Result<(), IndexError> {
        let id = told.lease;
        let mut lease = match self.query().lease(id)? {
            Some(lease) => lease,
            None => self.open_lease(told)?,
        };
        self.requeue(id, lease.expiry, told.expiry);
        (lease.expiry, lease.moved) = (told.expiry, told.moved);
        lease.created_secs = told.created_secs;
        lease.begun = self.begin_anew(lease.begun, self.entry.at.segment)?;
        self.kv.put(keys::lease(id), encode(&lease));
        Ok(())
    }

    /// The upload is all that this says, if it keeps nothing else; then older records are not
    /// needed for it, but for the shard's.
    fn restate_cached(&mut self, told: &CachedTold) -> Result<(), IndexError> {
        let id = told.holder.upload;
        let shard = shard_of(self.entry.id);
        self.place(&Placed { holder: told.holder, slot: CACHED_SLOT })?;
        let (upload, kept) = (self.query().upload(id)?, self.query().kept(Thing::Shard(shard))?);
        let (Some(mut upload), Some(kept)) = (upload, kept) else { return Ok(()) };
        upload.used_secs = told.used_secs;
        if (upload.slot_count, upload.block_count) == (1, 0) {
            let begun = kept.begun.min(self.entry.at.segment);
            upload.begun = self.begin_anew(upload.begun, begun)?;
        }
        self.kv.put(keys::upload(id), encode(&upload));
        Ok(())
    }

    fn restate_group(&mut self, part: &GroupPart) -> Result<(), IndexError> {
        let (object, number) = (cid_of(self.entry.id), part.group);
        let mut group = match self.query().group(object, number)? {
            Some(mut group) => {
                self.revive(object, number, &mut group)?;
                self.refer(object, &mut group)?;
                group
            }
            None => self.begin_group(object, part)?,
        };
        let added = self.restate_slots(object, number, &mut group, &part.slots)?;
        self.grow_leases(object, number, added)?;
        for told in &part.leases {
            self.restate_cover(told, object, number, &mut group)?;
        }
        self.note_commit(&mut group)?;
        group.placement = self.entry.at;
        group.epoch = part.placement.body_unverified().epoch;
        group.placement_hash = hash_of(&part.placement);
        if part.span.is_some() {
            self.kv.put(keys::span(object, number), encode(&self.entry.at));
        }
        if part.is_last {
            let since = part.first.unwrap_or(self.entry.at.segment);
            let begun = self.oldest_of(object, number, &group, since)?;
            group.begun = self.begin_anew(group.begun, begun)?;
        }
        // A replay that lacks the first part may lack what covered the group; it ended since, or
        // that part would be here.
        let uncovered = Trashed { secs: self.entry.running_secs, evicted: false };
        let uncovered = (group.lease_count == 0).then_some(uncovered);
        match part.trashed.or(uncovered) {
            Some(trashed) => self.trash(object, number, group, trashed),
            None => {
                self.kv.put(keys::group(object, number), encode(&group));
                Ok(())
            }
        }
    }

    fn begin_group(&mut self, object: Cid, part: &GroupPart) -> Result<GroupEntry, IndexError> {
        let begun = self.entry.at.segment;
        self.anchor(begun)?;
        let mut group = GroupEntry {
            page: part.page,
            object_bytes: part.object_bytes,
            stripe_first: part.stripe_first,
            stripe_count: part.stripe_count,
            ..GroupEntry::empty(self.entry.at, begun)
        };
        self.usage.live_groups += 1;
        self.refer(object, &mut group)?;
        Ok(group)
    }

    /// Adds slots that the group does not have yet. As ever, a slot of a shard that is not there
    /// is passed over.
    fn restate_slots(
        &mut self,
        object: Cid,
        number: u32,
        group: &mut GroupEntry,
        slots: &[(Slot, ShardId)],
    ) -> Result<Tally, IndexError> {
        let mut added = Tally::default();
        for (slot, shard) in slots {
            let key = keys::group_slot(object, number, *slot);
            let thing = Thing::Shard(*shard);
            let Some(kept) = self.query().kept(thing)? else { continue };
            if self.kv.get(&key)?.is_some() {
                continue;
            }
            self.shift(thing, Shift::AddLive)?;
            self.kv.put(key, shard.as_bytes().to_vec());
            group.slot_count += 1;
            group.slot_bytes += kept.len;
            self.usage.live_slots += 1;
            added.add(kept.len);
        }
        Ok(added)
    }

    fn restate_cover(
        &mut self,
        told: &LeaseTold,
        object: Cid,
        number: u32,
        group: &mut GroupEntry,
    ) -> Result<(), IndexError> {
        let id: LeaseId = told.lease;
        let mut lease = match self.query().lease(id)? {
            Some(lease) => lease,
            None => self.open_lease(told)?,
        };
        self.extend_cover(id, &mut lease, object, number, group)?;
        self.kv.put(keys::lease(id), encode(&lease));
        Ok(())
    }

    /// The oldest segment that a replay needs for a group which was restated since `since`.
    fn oldest_of(
        &self,
        object: Cid,
        number: u32,
        group: &GroupEntry,
        since: u32,
    ) -> Result<u32, IndexError> {
        let catalog = self.query();
        let slots = catalog.slots(object, number)?;
        let shards = slots.into_iter().map(|(_, shard)| Thing::Shard(shard));
        let blocks = [Some(object), group.page].into_iter().flatten().map(Thing::Block);
        let mut oldest = since;
        for thing in shards.chain(blocks) {
            oldest = catalog.kept(thing)?.map_or(oldest, |kept| oldest.min(kept.begun));
        }
        Ok(oldest)
    }
}
