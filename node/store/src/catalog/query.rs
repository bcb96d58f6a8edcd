// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions to the map.

use std::collections::BTreeSet;

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};

use super::entries::{
    DeadRecord, GroupEntry, Kept, LeaseState, SegmentEntry, UploadEntry, decode, malformed,
};
use super::keys::{self, KeyParts, prefix_end};
use super::usage::Usage;
use super::{HeldGroup, IndexError, KvRead, Pairs, Thing};
use crate::record::Position;

/// Slots of one group at most: 64 stripes of 256 shards.
pub(super) const GROUP_SLOTS_MAX: usize = 64 * 256;
/// Entries fetched at once where there may be many.
pub(super) const PAGE: usize = 1024;

/// The map, asked in the catalog's own words.
#[derive(Debug)]
pub struct Catalog<'k, K: ?Sized>(pub &'k K);

/// A group that a lease covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoveredGroup {
    /// The lease.
    pub lease: LeaseId,
    /// What is known of it.
    pub state: LeaseState,
    /// The object.
    pub object: Cid,
    /// Which of its groups.
    pub group: u32,
    /// Size of the whole object.
    pub object_bytes: u64,
}

impl<K: KvRead + ?Sized> Catalog<'_, K> {
    fn entry<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, IndexError> {
        self.0.get(key)?.map(|value| decode(key, &value)).transpose()
    }

    /// Everything under a prefix, at most `limit` pairs.
    pub(super) fn under(&self, prefix: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        self.0.range(prefix, &prefix_end(prefix), limit)
    }

    /// The usage figures.
    pub fn usage(&self) -> Result<Usage, IndexError> {
        Ok(self.entry(&keys::usage())?.unwrap_or_default())
    }

    /// Place and references of a shard or block.
    pub fn kept(&self, thing: Thing) -> Result<Option<Kept>, IndexError> {
        self.entry(&keys::thing(thing))
    }

    /// An open upload.
    pub fn upload(&self, upload: UploadId) -> Result<Option<UploadEntry>, IndexError> {
        self.entry(&keys::upload(upload))
    }

    /// Whether an upload holds a manifest block.
    pub fn upload_has_block(&self, upload: UploadId, cid: Cid) -> Result<bool, IndexError> {
        Ok(self.0.get(&keys::upload_block(upload, cid))?.is_some())
    }

    /// A lease.
    pub fn lease(&self, lease: LeaseId) -> Result<Option<LeaseState>, IndexError> {
        self.entry(&keys::lease(lease))
    }

    /// A group, also one in the trash.
    pub fn group(&self, object: Cid, group: u32) -> Result<Option<GroupEntry>, IndexError> {
        self.entry(&keys::group(object, group))
    }

    /// Where a group's span is.
    pub fn span(&self, object: Cid, group: u32) -> Result<Option<Position>, IndexError> {
        self.entry(&keys::span(object, group))
    }

    /// Whether a lease covers a group.
    pub fn covers(&self, object: Cid, group: u32, lease: LeaseId) -> Result<bool, IndexError> {
        Ok(self.0.get(&keys::cover(object, group, lease))?.is_some())
    }

    /// Whether any covered group of an object is here, and so its root.
    pub fn holds_object(&self, object: Cid) -> Result<bool, IndexError> {
        let mut start = keys::object_groups(object);
        let end = prefix_end(&start);
        loop {
            let pairs = self.0.range(&start, &end, 16)?;
            let Some((last, _)) = pairs.last() else { return Ok(false) };
            start = keys::after(last);
            for (key, value) in &pairs {
                if decode::<GroupEntry>(key, value)?.trashed_secs.is_none() {
                    return Ok(true);
                }
            }
        }
    }

    /// Slots of a group that are here.
    pub fn slots(&self, object: Cid, group: u32) -> Result<Vec<(Slot, ShardId)>, IndexError> {
        let prefix = keys::group_slots(object, group);
        slots_of(self.under(&prefix, GROUP_SLOTS_MAX)?, prefix.len())
    }

    /// Slots of an upload within a run of stripes.
    pub fn upload_slots(
        &self,
        upload: UploadId,
        stripe_first: u32,
        stripe_count: u32,
    ) -> Result<Vec<(Slot, ShardId)>, IndexError> {
        let first = Slot { stripe: stripe_first, index: 0 };
        let start = keys::upload_slot(upload, first);
        let prefix = keys::upload_slots(upload);
        let end = match stripe_first.checked_add(stripe_count) {
            Some(stripe) => keys::upload_slot(upload, Slot { stripe, index: 0 }),
            None => prefix_end(&prefix),
        };
        if start >= end {
            return Ok(Vec::new());
        }
        slots_of(self.0.range(&start, &end, GROUP_SLOTS_MAX)?, prefix.len())
    }

    /// Groups that are covered by a lease, in order, after `after`.
    pub fn held_groups(
        &self,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<(HeldGroup, GroupEntry)>, IndexError> {
        let mut start = match after {
            Some((object, group)) => keys::after(&keys::group(object, group)),
            None => vec![keys::GROUP],
        };
        let end = prefix_end(&[keys::GROUP]);
        let mut held = Vec::new();
        while held.len() < limit {
            let pairs = self.0.range(&start, &end, PAGE)?;
            let Some((last, _)) = pairs.last() else { break };
            start = keys::after(last);
            for (key, value) in &pairs {
                let (object, group) = group_of(key, 1)?;
                let entry: GroupEntry = decode(key, value)?;
                if entry.trashed_secs.is_none() && held.len() < limit {
                    held.push((HeldGroup { object, group, page: entry.page }, entry));
                }
            }
        }
        Ok(held)
    }

    /// Groups that leases of an owner cover, in `(lease, object, group)` order.
    pub fn covered_by(
        &self,
        owner: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<CoveredGroup>, IndexError> {
        let owners = keys::owner(owner);
        let end = prefix_end(&owners);
        let mut start = match after {
            Some((lease, _, _)) => keys::owner_lease(owner, lease),
            None => owners.clone(),
        };
        let mut covered = Vec::new();
        while covered.len() < limit {
            let Some((key, _)) = self.0.range(&start, &end, 1)?.pop() else { break };
            start = keys::after(&key);
            let lease =
                KeyParts::after(&key, owners.len()).lease().ok_or_else(|| malformed(&key))?;
            let Some(state) = self.lease(lease)? else { continue };
            let within = after.filter(|(at, _, _)| *at == lease);
            let within = within.map(|(_, object, group)| (object, group));
            for (object, group) in self.lease_groups(lease, within, limit - covered.len())? {
                let entry = self.group(object, group)?;
                let object_bytes = entry.map_or(0, |entry| entry.object_bytes);
                covered.push(CoveredGroup { lease, state, object, group, object_bytes });
            }
        }
        Ok(covered)
    }

    /// Groups that a lease covers, in order, after `after`.
    pub fn lease_groups(
        &self,
        lease: LeaseId,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<(Cid, u32)>, IndexError> {
        let prefix = keys::lease_groups(lease);
        let start = match after {
            Some((object, group)) => keys::after(&keys::lease_group(lease, object, group)),
            None => prefix.clone(),
        };
        let pairs = self.0.range(&start, &prefix_end(&prefix), limit)?;
        pairs.iter().map(|(key, _)| group_of(key, prefix.len())).collect()
    }

    /// Leases that cover a group.
    pub fn leases_of_group(&self, object: Cid, group: u32) -> Result<Vec<LeaseId>, IndexError> {
        let prefix = keys::covers(object, group);
        let pairs = self.under(&prefix, usize::MAX)?;
        let lease = |key: &[u8]| KeyParts::after(key, prefix.len()).lease();
        pairs.iter().map(|(key, _)| lease(key).ok_or_else(|| malformed(key))).collect()
    }

    /// Leases whose running time is over at `now`.
    pub fn leases_due(&self, now: u64, limit: usize) -> Result<Vec<LeaseId>, IndexError> {
        self.due(keys::QUEUE_LEASE, now, limit, |parts| parts.lease())
    }

    /// Uploads that were not used since `until`.
    pub fn uploads_due(&self, until: u64, limit: usize) -> Result<Vec<UploadId>, IndexError> {
        let mut due = self.due(keys::QUEUE_UPLOAD, until, limit, |parts| parts.upload())?;
        let mut failed = None;
        // The queue lags behind the last use by up to a minute.
        due.retain(|upload| match self.upload(*upload) {
            Ok(entry) => entry.is_some_and(|entry| entry.used_secs <= until),
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(due), Err)
    }

    /// Groups that lie in the trash since `until` or longer.
    pub fn trash_due(&self, until: u64, limit: usize) -> Result<Vec<(Cid, u32)>, IndexError> {
        self.due(keys::QUEUE_TRASH, until, limit, |parts| Some((parts.cid()?, parts.u32()?)))
    }

    pub(super) fn due<T>(
        &self,
        queue: u8,
        until: u64,
        limit: usize,
        parse: impl Fn(&mut KeyParts<'_>) -> Option<T>,
    ) -> Result<Vec<T>, IndexError> {
        let (start, end) = keys::queue_until(queue, until);
        let pairs = self.0.range(&start, &end, limit)?;
        let parse = |key: &[u8]| parse(&mut KeyParts::after(key, 2 + 8));
        pairs.iter().map(|(key, _)| parse(key).ok_or_else(|| malformed(key))).collect()
    }

    /// Groups that wait for nothing but their tombstone.
    pub fn evicted(&self, limit: usize) -> Result<Vec<(Cid, u32)>, IndexError> {
        let pairs = self.under(&[keys::QUEUE, keys::QUEUE_EVICTED], limit)?;
        pairs.iter().map(|(key, _)| group_of(key, 2)).collect()
    }

    /// Groups that were begun in a segment or before it, also those in the trash, after `after`:
    /// the next `limit`. Walks over all groups.
    pub fn groups_begun(
        &self,
        through: u32,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<(Cid, u32)>, IndexError> {
        let mut start = match after {
            Some((object, group)) => keys::after(&keys::group(object, group)),
            None => vec![keys::GROUP],
        };
        let end = prefix_end(&[keys::GROUP]);
        let mut begun = Vec::new();
        while begun.len() < limit {
            let pairs = self.0.range(&start, &end, PAGE)?;
            let Some((last, _)) = pairs.last() else { break };
            start = keys::after(last);
            for (key, value) in &pairs {
                let entry: GroupEntry = decode(key, value)?;
                if entry.begun <= through && begun.len() < limit {
                    begun.push(group_of(key, 1)?);
                }
            }
        }
        Ok(begun)
    }

    /// The oldest segment that has records.
    pub fn oldest_segment(&self) -> Result<Option<(u32, SegmentEntry)>, IndexError> {
        let Some((key, value)) = self.under(&[keys::SEGMENT], 1)?.pop() else { return Ok(None) };
        let number = KeyParts::after(&key, 1).u32().ok_or_else(|| malformed(&key))?;
        Ok(Some((number, decode(&key, &value)?)))
    }

    /// A segment's figures.
    pub fn segment(&self, number: u32) -> Result<SegmentEntry, IndexError> {
        Ok(self.entry(&keys::segment(number))?.unwrap_or_default())
    }

    /// The newest segment that is gone; 0 for none.
    pub fn gone_through(&self) -> Result<u32, IndexError> {
        Ok(self.entry(&keys::gone())?.unwrap_or(0))
    }

    /// A dead record.
    pub fn dead_record(&self, at: Position) -> Result<Option<DeadRecord>, IndexError> {
        self.entry(&keys::dead(at))
    }

    /// Dead records of a segment that start before `until`, in order.
    pub fn dead_records(
        &self,
        segment: u32,
        until: u64,
        limit: usize,
    ) -> Result<Vec<(Position, DeadRecord)>, IndexError> {
        let end = keys::dead(Position { segment, offset: until });
        let pairs = self.0.range(&keys::dead(Position { segment, offset: 0 }), &end, limit)?;
        let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let at = KeyParts::after(key, 1).position().ok_or_else(|| malformed(key))?;
            Ok((at, decode(key, value)?))
        };
        pairs.iter().map(parse).collect()
    }

    /// Dead records with blocks that can be given back, in order of place, but for some segments.
    pub fn punchable(
        &self,
        limit: usize,
        without: &BTreeSet<u32>,
    ) -> Result<Vec<(Position, DeadRecord)>, IndexError> {
        let mut found = Vec::new();
        let mut start = vec![keys::QUEUE, keys::QUEUE_PUNCH];
        let end = prefix_end(&start);
        let left_out = without.iter().map(|number| keys::queue_punches(*number));
        let left_out = left_out.map(|prefix| (prefix.clone(), prefix_end(&prefix)));
        for (end, next) in left_out.chain([(end.clone(), end)]) {
            for (key, _) in self.0.range(&start, &end, limit - found.len())? {
                let at = KeyParts::after(&key, 2).position().ok_or_else(|| malformed(&key))?;
                let record = self.dead_record(at)?.ok_or_else(|| malformed(&key))?;
                found.push((at, record));
            }
            start = next;
        }
        Ok(found)
    }

    /// Shards and blocks that wait for their tombstone.
    pub fn dead(&self, limit: usize) -> Result<Vec<Thing>, IndexError> {
        let pairs = self.under(&[keys::QUEUE, keys::QUEUE_DEAD], limit)?;
        pairs.iter().map(|(key, _)| thing_of(key, 2).ok_or_else(|| malformed(key))).collect()
    }
}

/// A shard or block behind `prefix_len` bytes of a key.
pub(crate) fn thing_of(key: &[u8], prefix_len: usize) -> Option<Thing> {
    let mut parts = KeyParts::after(key, prefix_len);
    match parts.byte()? {
        keys::SHARD => parts.shard().map(Thing::Shard),
        keys::BLOCK => parts.cid().map(Thing::Block),
        _ => None,
    }
}

/// An object and group behind `prefix_len` bytes of a key.
pub(super) fn group_of(key: &[u8], prefix_len: usize) -> Result<(Cid, u32), IndexError> {
    let mut parts = KeyParts::after(key, prefix_len);
    let parsed = parts.cid().and_then(|object| Some((object, parts.u32()?)));
    parsed.ok_or_else(|| malformed(key))
}

fn slots_of(pairs: Pairs, prefix_len: usize) -> Result<Vec<(Slot, ShardId)>, IndexError> {
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
        let slot = KeyParts::after(&key, prefix_len).slot();
        slot.zip(ShardId::from_slice(&value)).ok_or_else(|| malformed(&key))
    };
    pairs.into_iter().map(parse).collect()
}
