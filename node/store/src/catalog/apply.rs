// SPDX-License-Identifier: MIT OR Apache-2.0
//! From one record to the changes it makes.

use supernode_protocol::ids::{Cid, ShardId, UploadId};
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use super::entries::{GroupEntry, Kept, State, UploadEntry, encode};
use super::query::PAGE;
use super::usage::Usage;
use super::{
    Body, CACHED_SLOT, Catalog, Entry, Event, Freed, GroupEvent, HeldGroup, IndexError, Kv,
    LeaseChange, Tally, Thing, cached_upload, keys,
};
use crate::planted::{Bug, has};
use crate::record::{CommitBody, Holder, Placed, Span, Trashed, cid_of, shard_of};

mod leases;
mod reclaim;
mod restate;

/// An upload moves in its queue at most once in this time.
const UPLOAD_QUEUE_SECS: u64 = 60;

/// Applies one record and says what others may want to hear of.
///
/// # Errors
/// Only when the map cannot be read; its changes must then be dropped.
pub fn apply<K: Kv>(kv: &mut K, entry: &Entry<'_>) -> Result<Vec<Event>, IndexError> {
    let usage = Catalog(&*kv).usage()?;
    let mut change = Change { kv, usage, entry, events: Vec::new() };
    change.count_record()?;
    match entry.body {
        Body::Shard(placed) => {
            change.keep(Thing::Shard(shard_of(entry.id)))?;
            change.place(placed)?;
        }
        Body::Slot(placed) => change.place(placed)?,
        Body::Block(holder) => {
            change.keep(Thing::Block(cid_of(entry.id)))?;
            change.hold(holder)?;
        }
        Body::BlockRef(holder) => change.hold(holder)?,
        Body::Commit(body) => change.commit(body)?,
        Body::Placement(record) => change.placement(record)?,
        Body::Lease(LeaseChange::Renew { lease, expiry }) => change.renew(*lease, *expiry)?,
        Body::Lease(LeaseChange::Release { lease } | LeaseChange::Expire { lease }) => {
            change.end_lease(*lease)?;
        }
        Body::Lease(LeaseChange::Abandon { upload }) => change.abandon(*upload)?,
        Body::Tombstone(freed) => change.bury(*freed)?,
        Body::Span(span) => change.span(span)?,
        Body::ShardCopy => change.relocate(Thing::Shard(shard_of(entry.id)))?,
        Body::BlockCopy => change.relocate(Thing::Block(cid_of(entry.id)))?,
        Body::Restate(restate) => change.restate(restate)?,
        Body::Reclaim(reclaim) => change.reclaim(reclaim)?,
        Body::Clock { .. } | Body::Journal(_) => {}
    }
    let Change { usage, events, kv, .. } = change;
    kv.put(keys::usage(), encode(&usage));
    Ok(events)
}

struct Change<'a, K> {
    kv: &'a mut K,
    usage: Usage,
    entry: &'a Entry<'a>,
    events: Vec<Event>,
}

/// How the references of a shard or block change.
#[derive(Clone, Copy)]
enum Shift {
    AddLive,
    DropLive,
    DropTrash,
    ToTrash,
    ToLive,
}

impl<K: Kv> Change<'_, K> {
    fn query(&self) -> Catalog<'_, K> {
        Catalog(&*self.kv)
    }

    // --- bytes -----------------------------------------------------------------------------

    /// A record with bytes: the place to read them from now on.
    fn keep(&mut self, thing: Thing) -> Result<(), IndexError> {
        let (at, payload_start) = (self.entry.at, self.entry.payload_start);
        let len = self.entry.payload_len;
        let old = self.query().kept(thing)?;
        // Without an older record it is dead until the first reference; with one, the older dies.
        self.tallies(thing).dead.add(len);
        if let Some(old) = old {
            self.leave_dead(thing, &old)?;
        } else {
            self.anchor(at.segment)?;
            self.kv.put(keys::queue_dead(thing), Vec::new());
            if self.kv.get(&keys::tombstone(thing))?.is_some() {
                self.kv.delete(keys::tombstone(thing));
                self.usage.tombstones -= 1;
            }
        }
        let new = Kept { at, payload_start, len, live: 0, trash: 0, begun: at.segment };
        let kept = old.map_or(new, |old| Kept { at, payload_start, len, ..old });
        self.need(at.segment, kept.record_len())?;
        self.kv.put(keys::thing(thing), encode(&kept));
        Ok(())
    }

    fn tallies(&mut self, thing: Thing) -> &mut super::usage::ByState {
        match thing {
            Thing::Shard(_) => &mut self.usage.shards,
            Thing::Block(_) => &mut self.usage.blocks,
        }
    }

    /// Changes references; a thing that is not there (lost to damage) is skipped.
    fn shift(&mut self, thing: Thing, shift: Shift) -> Result<(), IndexError> {
        let Some(mut kept) = self.query().kept(thing)? else { return Ok(()) };
        let before = kept.state();
        let (live, trash) = match shift {
            Shift::AddLive => (kept.live.saturating_add(1), kept.trash),
            Shift::DropLive => (kept.live.saturating_sub(1), kept.trash),
            Shift::DropTrash => (kept.live, kept.trash.saturating_sub(1)),
            Shift::ToTrash => (kept.live.saturating_sub(1), kept.trash.saturating_add(1)),
            Shift::ToLive => (kept.live.saturating_add(1), kept.trash.saturating_sub(1)),
        };
        (kept.live, kept.trash) = (live, trash);
        let after = kept.state();
        if before != after {
            let tallies = self.tallies(thing);
            tallies.of(before).remove(kept.len);
            tallies.of(after).add(kept.len);
        }
        if before == State::Live && after != State::Live {
            self.events.push(Event::Unwanted(thing));
        }
        match (before, after) {
            (State::Dead, State::Live | State::Trash) => self.kv.delete(keys::queue_dead(thing)),
            (State::Live | State::Trash, State::Dead) => {
                self.kv.put(keys::queue_dead(thing), Vec::new());
            }
            _ => {}
        }
        self.kv.put(keys::thing(thing), encode(&kept));
        Ok(())
    }

    fn shard_len(&self, shard: ShardId) -> Result<u64, IndexError> {
        Ok(self.query().kept(Thing::Shard(shard))?.map_or(0, |kept| kept.len))
    }

    // --- uploads ---------------------------------------------------------------------------

    /// The upload of a record, opened by it if need be; then one that `rests` may end by that.
    fn open(&mut self, holder: &Holder, rests: bool) -> Result<UploadEntry, IndexError> {
        let now = self.entry.running_secs;
        let queue = |secs| keys::queue_upload(secs, holder.upload);
        let Some(mut upload) = self.query().upload(holder.upload)? else {
            self.usage.leases_of_kind_mut(LeaseKind::Upload).count += 1;
            if rests {
                self.kv.put(queue(now), Vec::new());
            }
            self.anchor(self.entry.at.segment)?;
            return Ok(UploadEntry {
                begun: self.entry.at.segment,
                owner: holder.owner,
                used_secs: now,
                queued_secs: rests.then_some(now),
                slot_count: 0,
                slot_bytes: 0,
                block_count: 0,
            });
        };
        upload.used_secs = now.max(upload.used_secs);
        if let Some(queued_secs) = upload.queued_secs
            && upload.used_secs >= queued_secs + UPLOAD_QUEUE_SECS
        {
            self.kv.delete(queue(queued_secs));
            self.kv.put(queue(upload.used_secs), Vec::new());
            upload.queued_secs = Some(upload.used_secs);
        }
        Ok(upload)
    }

    /// A reference to older bytes makes the upload as old as they are: without their record a
    /// replay would pass over the reference.
    fn lean_on(&mut self, upload: &mut UploadEntry, kept: &Kept) -> Result<(), IndexError> {
        if kept.begun >= upload.begun {
            return Ok(());
        }
        self.anchor(kept.begun)?;
        self.release_anchor(upload.begun)?;
        upload.begun = kept.begun;
        Ok(())
    }

    /// Writes an upload back, or closes it when it holds nothing any more.
    fn close(&mut self, id: UploadId, upload: &UploadEntry) -> Result<(), IndexError> {
        if upload.slot_count == 0 && upload.block_count == 0 {
            self.kv.delete(keys::upload(id));
            if let Some(queued_secs) = upload.queued_secs {
                self.kv.delete(keys::queue_upload(queued_secs, id));
            }
            self.usage.leases_of_kind_mut(LeaseKind::Upload).count -= 1;
            self.release_anchor(upload.begun)
        } else {
            self.kv.put(keys::upload(id), encode(upload));
            Ok(())
        }
    }

    fn place(&mut self, placed: &Placed) -> Result<(), IndexError> {
        let shard = shard_of(self.entry.id);
        let Placed { holder, slot } = placed;
        let key = keys::upload_slot(holder.upload, *slot);
        let Some(kept) = self.query().kept(Thing::Shard(shard))? else {
            return self.displace(holder.upload, &key, shard);
        };
        if has(Bug::RevivesUncovered) && kept.state() == State::Trash {
            return Ok(());
        }
        let is_cached = *slot == CACHED_SLOT && holder.upload == cached_upload(shard);
        let mut upload = self.open(holder, !is_cached)?;
        self.lean_on(&mut upload, &kept)?;
        let old = self.kv.get(&key)?.and_then(|value| ShardId::from_slice(&value));
        if old != Some(shard) {
            if let Some(old) = old {
                self.unplace(&mut upload, old)?;
            }
            let len = self.shard_len(shard)?;
            self.shift(Thing::Shard(shard), Shift::AddLive)?;
            self.kv.put(key, shard.as_bytes().to_vec());
            upload.slot_count += 1;
            upload.slot_bytes += len;
            self.usage.upload_slots += 1;
            self.usage.leases_of_kind_mut(LeaseKind::Upload).bytes += len;
        }
        self.close(holder.upload, &upload)
    }

    /// A slot of a shard that is not there still ends what held its position before: a shard that
    /// was freed with its segment had done so, and a replay must not keep what it replaced.
    fn displace(&mut self, id: UploadId, key: &[u8], shard: ShardId) -> Result<(), IndexError> {
        let old = self.kv.get(key)?.and_then(|value| ShardId::from_slice(&value));
        let Some(old) = old.filter(|old| *old != shard) else { return Ok(()) };
        let Some(mut upload) = self.query().upload(id)? else { return Ok(()) };
        self.unplace(&mut upload, old)?;
        self.kv.delete(key.to_vec());
        self.close(id, &upload)
    }

    /// Takes a slot's figures out of its upload, and its reference off its shard.
    fn unplace(&mut self, upload: &mut UploadEntry, shard: ShardId) -> Result<(), IndexError> {
        self.uncount(upload, shard)?;
        self.shift(Thing::Shard(shard), Shift::DropLive)
    }

    fn uncount(&mut self, upload: &mut UploadEntry, shard: ShardId) -> Result<(), IndexError> {
        let len = self.shard_len(shard)?;
        upload.slot_count -= 1;
        upload.slot_bytes = upload.slot_bytes.saturating_sub(len);
        self.usage.upload_slots -= 1;
        let usage = self.usage.leases_of_kind_mut(LeaseKind::Upload);
        usage.bytes = usage.bytes.saturating_sub(len);
        Ok(())
    }

    fn hold(&mut self, holder: &Holder) -> Result<(), IndexError> {
        let cid = cid_of(self.entry.id);
        let Some(kept) = self.query().kept(Thing::Block(cid))? else { return Ok(()) };
        let mut upload = self.open(holder, true)?;
        self.lean_on(&mut upload, &kept)?;
        let key = keys::upload_block(holder.upload, cid);
        if self.kv.get(&key)?.is_none() {
            self.shift(Thing::Block(cid), Shift::AddLive)?;
            self.kv.put(key, Vec::new());
            upload.block_count += 1;
        }
        self.close(holder.upload, &upload)
    }

    fn drop_block(
        &mut self,
        id: UploadId,
        upload: &mut UploadEntry,
        cid: Cid,
    ) -> Result<(), IndexError> {
        let key = keys::upload_block(id, cid);
        if self.kv.get(&key)?.is_some() {
            self.kv.delete(key);
            upload.block_count -= 1;
            self.shift(Thing::Block(cid), Shift::DropLive)?;
        }
        Ok(())
    }

    fn abandon(&mut self, id: UploadId) -> Result<(), IndexError> {
        let Some(mut upload) = self.query().upload(id)? else { return Ok(()) };
        loop {
            let prefix = keys::upload_slots(id);
            let pairs = self.query().under(&prefix, PAGE)?;
            if pairs.is_empty() {
                break;
            }
            for (key, value) in pairs {
                if let Some(shard) = ShardId::from_slice(&value) {
                    self.unplace(&mut upload, shard)?;
                }
                self.kv.delete(key);
            }
        }
        let prefix = keys::upload_blocks(id);
        for (key, _) in self.query().under(&prefix, usize::MAX)? {
            if let Some(cid) = keys::KeyParts::after(&key, prefix.len()).cid() {
                self.drop_block(id, &mut upload, cid)?;
            }
        }
        self.close(id, &UploadEntry { slot_count: 0, block_count: 0, ..upload })
    }

    // --- groups ----------------------------------------------------------------------------

    fn commit(&mut self, body: &CommitBody) -> Result<(), IndexError> {
        let commit = &body.commit;
        let (object, number) = (commit.object, commit.group);
        let mut upload = self.query().upload(commit.upload)?;
        // Its slots come from records of the upload, which therefore are as old as it; its root may
        // be there for a sibling's sake.
        let mut begun = self.entry.at.segment;
        begun = upload.map_or(begun, |upload| begun.min(upload.begun));
        for cid in [Some(object), commit.page].into_iter().flatten() {
            let kept = self.query().kept(Thing::Block(cid))?;
            begun = kept.map_or(begun, |kept| begun.min(kept.begun));
        }
        let mut group = self.join_group(body, begun)?;
        if let Some(upload) = upload.as_mut() {
            let added = self.adopt_slots(body, upload, &mut group)?;
            self.grow_leases(object, number, added)?;
        }
        if let Some(mut upload) = upload {
            self.drop_block(commit.upload, &mut upload, object)?;
            if let Some(page) = commit.page {
                self.drop_block(commit.upload, &mut upload, page)?;
            }
            self.close(commit.upload, &upload)?;
        }
        self.cover(&commit.terms, object, number, &mut group)?;
        self.note_commit(&mut group)?;
        self.consider(&commit.placement, &mut group);
        self.kv.put(keys::group(object, number), encode(&group));
        let held = HeldGroup { object, group: number, page: group.page };
        self.events.push(Event::Group(GroupEvent::Committed(held)));
        Ok(())
    }

    /// The group of a commit: new, as it is, or out of the trash.
    fn join_group(&mut self, body: &CommitBody, begun: u32) -> Result<GroupEntry, IndexError> {
        let commit = &body.commit;
        let (object, number) = (commit.object, commit.group);
        if let Some(mut group) = self.query().group(object, number)? {
            if begun < group.begun {
                self.anchor(begun)?;
                self.release_anchor(group.begun)?;
                group.begun = begun;
            }
            self.revive(object, number, &mut group)?;
            self.refer(object, &mut group)?;
            return Ok(group);
        }
        let mut group = GroupEntry {
            epoch: commit.placement.body_unverified().epoch,
            placement_hash: hash_of(&commit.placement),
            page: commit.page,
            object_bytes: body.object_bytes,
            stripe_first: commit.stripe_first,
            stripe_count: commit.stripe_count,
            ..GroupEntry::empty(self.entry.at, begun)
        };
        self.anchor(begun)?;
        self.usage.live_groups += 1;
        self.refer(object, &mut group)?;
        Ok(group)
    }

    /// Has a live group count among the references of its root and page, if these are here.
    fn refer(&mut self, object: Cid, group: &mut GroupEntry) -> Result<(), IndexError> {
        if !group.refers.0 && self.query().kept(Thing::Block(object))?.is_some() {
            group.refers.0 = true;
            self.shift(Thing::Block(object), Shift::AddLive)?;
        }
        if let Some(page) = group.page
            && !group.refers.1
            && self.query().kept(Thing::Block(page))?.is_some()
        {
            group.refers.1 = true;
            self.shift(Thing::Block(page), Shift::AddLive)?;
        }
        Ok(())
    }

    /// Takes a group out of the trash, if it lies there.
    fn revive(
        &mut self,
        object: Cid,
        number: u32,
        group: &mut GroupEntry,
    ) -> Result<(), IndexError> {
        let Some(secs) = group.trashed_secs.take() else { return Ok(()) };
        self.kv.delete(keys::queue_trash(secs, object, number));
        self.kv.delete(keys::queue_evicted(object, number));
        group.evicted = false;
        self.shift_group(object, number, group, Shift::ToLive)?;
        let slots = u64::from(group.slot_count);
        self.usage.trash_slots -= slots;
        self.usage.live_slots += slots;
        self.usage.trash_groups -= 1;
        self.usage.live_groups += 1;
        Ok(())
    }

    /// This record has a group's facts from now on.
    fn note_commit(&mut self, group: &mut GroupEntry) -> Result<(), IndexError> {
        self.need_no_more(group.commit.segment, group.commit_len)?;
        (group.commit, group.commit_len) = (self.entry.at, self.entry.record_len);
        self.need(group.commit.segment, group.commit_len)
    }

    /// Moves the upload's slots of this group to the group; returns those that are new to it.
    fn adopt_slots(
        &mut self,
        body: &CommitBody,
        upload: &mut UploadEntry,
        group: &mut GroupEntry,
    ) -> Result<Tally, IndexError> {
        let commit = &body.commit;
        let first = commit.stripe_first;
        let slots = self.query().upload_slots(commit.upload, first, commit.stripe_count)?;
        let mut added = Tally::default();
        for (slot, shard) in slots {
            let key = keys::group_slot(commit.object, commit.group, slot);
            if self.kv.get(&key)?.is_none() {
                // The reference moves with the slot, so the shard itself does not change.
                let len = self.shard_len(shard)?;
                self.uncount(upload, shard)?;
                self.kv.put(key, shard.as_bytes().to_vec());
                group.slot_count += 1;
                group.slot_bytes += len;
                self.usage.live_slots += 1;
                added.add(len);
            } else {
                self.unplace(upload, shard)?;
            }
            self.kv.delete(keys::upload_slot(commit.upload, slot));
        }
        Ok(added)
    }

    /// Changes the references of everything in a group: its slots, its root and its page.
    fn shift_group(
        &mut self,
        object: Cid,
        number: u32,
        group: &GroupEntry,
        shift: Shift,
    ) -> Result<(), IndexError> {
        for (_, shard) in self.query().slots(object, number)? {
            self.shift(Thing::Shard(shard), shift)?;
        }
        if group.refers.0 {
            self.shift(Thing::Block(object), shift)?;
        }
        let page = group.page.filter(|_| group.refers.1);
        page.map_or(Ok(()), |page| self.shift(Thing::Block(page), shift))
    }

    fn consider(&mut self, placement: &Signed<PlacementRecord>, group: &mut GroupEntry) {
        let (epoch, hash) = (placement.body_unverified().epoch, hash_of(placement));
        // As `placement::precedence`: the higher epoch, then the smaller hash.
        let wins = (epoch, std::cmp::Reverse(hash))
            > (group.epoch, std::cmp::Reverse(group.placement_hash));
        if wins {
            group.placement = self.entry.at;
            group.epoch = epoch;
            group.placement_hash = hash;
        }
    }

    fn placement(&mut self, record: &Signed<PlacementRecord>) -> Result<(), IndexError> {
        let body = record.body_unverified();
        if let Some(mut group) = self.query().group(body.object, body.group)? {
            self.consider(record, &mut group);
            self.kv.put(keys::group(body.object, body.group), encode(&group));
        }
        Ok(())
    }

    fn span(&mut self, span: &Span) -> Result<(), IndexError> {
        let object = cid_of(self.entry.id);
        if self.query().group(object, span.group)?.is_some() {
            self.kv.put(keys::span(object, span.group), encode(&self.entry.at));
        }
        Ok(())
    }

    /// What was only cached may be evicted at any time: it waits for its tombstone alone.
    fn trash(
        &mut self,
        object: Cid,
        number: u32,
        mut group: GroupEntry,
        trashed: Trashed,
    ) -> Result<(), IndexError> {
        let Trashed { secs, evicted } = trashed;
        self.shift_group(object, number, &group, Shift::ToTrash)?;
        (group.trashed_secs, group.evicted) = (Some(secs), evicted);
        let queued = if evicted {
            keys::queue_evicted(object, number)
        } else {
            keys::queue_trash(secs, object, number)
        };
        self.kv.put(queued, Vec::new());
        self.kv.put(keys::group(object, number), encode(&group));
        let slots = u64::from(group.slot_count);
        self.usage.live_slots -= slots;
        self.usage.trash_slots += slots;
        self.usage.live_groups -= 1;
        self.usage.trash_groups += 1;
        Ok(())
    }

    fn forget(&mut self, object: Cid, number: u32, group: &GroupEntry) -> Result<(), IndexError> {
        let slots = u64::from(group.slot_count);
        let shift = if let Some(secs) = group.trashed_secs {
            self.kv.delete(keys::queue_trash(secs, object, number));
            self.kv.delete(keys::queue_evicted(object, number));
            self.usage.trash_slots -= slots;
            self.usage.trash_groups -= 1;
            Shift::DropTrash
        } else {
            self.usage.live_slots -= slots;
            self.usage.live_groups -= 1;
            Shift::DropLive
        };
        self.shift_group(object, number, group, shift)?;
        for (slot, _) in self.query().slots(object, number)? {
            self.kv.delete(keys::group_slot(object, number, slot));
        }
        self.kv.delete(keys::group(object, number));
        self.kv.delete(keys::span(object, number));
        self.need_no_more(group.commit.segment, group.commit_len)?;
        self.release_anchor(group.begun)
    }

    fn bury(&mut self, freed: Freed) -> Result<(), IndexError> {
        let thing = match freed {
            Freed::Shard => Thing::Shard(shard_of(self.entry.id)),
            Freed::Block => Thing::Block(cid_of(self.entry.id)),
            Freed::Group { group: number } => {
                let object = cid_of(self.entry.id);
                let group = self.query().group(object, number)?;
                return match group.filter(|group| group.trashed_secs.is_some()) {
                    Some(group) => self.forget(object, number, &group),
                    None => Ok(()),
                };
            }
        };
        let dead = self.query().kept(thing)?.filter(|kept| kept.state() == State::Dead);
        let Some(dead) = dead else { return Ok(()) };
        // Its bytes stay counted as dead until they are given back.
        self.kv.delete(keys::thing(thing));
        self.kv.delete(keys::queue_dead(thing));
        self.kv.put(keys::tombstone(thing), encode(&dead.at));
        self.usage.tombstones += 1;
        self.leave_dead(thing, &dead)?;
        self.release_anchor(dead.begun)
    }
}

fn hash_of(placement: &Signed<PlacementRecord>) -> [u8; 32] {
    *blake3::hash(&placement.encode()).as_bytes()
}
