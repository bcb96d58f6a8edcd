// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting again, by walking, what is otherwise kept up with each change; and deriving again the
//! keys that only say in another order what others say.

use std::collections::{BTreeMap, BTreeSet};

use supernode_protocol::ids::{LeaseId, ShardId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::dump::visit;
use super::entries::{
    DeadRecord, GroupEntry, Kept, LeaseState, SegmentEntry, State, UploadEntry, decode, malformed,
};
use super::keys::{self, KeyParts};
use super::query::{group_of, thing_of};
use super::usage::{Tally, Usage};
use super::{Catalog, IndexError, KvRead, Thing};

/// Live and trash references of a shard or block.
type References = BTreeMap<Thing, (u32, u32)>;

/// Keys that follow from others: queues, and second ways to leases and what they cover.
pub(crate) const DERIVED: [u8; 4] = [keys::QUEUE, keys::DEAL, keys::OWNER, keys::LEASE_GROUP];

/// Compares references, figures and derived keys with a full walk; each difference is a sentence.
///
/// # Errors
/// When the map cannot be read.
pub fn check<K: KvRead + ?Sized>(kv: &K) -> Result<Vec<String>, IndexError> {
    let mut walk = Walk {
        kv,
        usage: Usage::default(),
        references: References::new(),
        anchors: BTreeMap::new(),
        needed: BTreeMap::new(),
        covered: BTreeMap::new(),
        derived: BTreeSet::new(),
    };
    walk.uploads()?;
    let mut differences = walk.groups()?;
    differences.extend(walk.leases()?);
    differences.extend(walk.things()?);
    walk.tombstones()?;
    let stated = Catalog(kv).usage()?;
    walk.dead()?;
    differences.extend(walk.segments()?);
    differences.extend(walk.derived()?);
    if walk.usage != stated {
        differences.push(format!("figures say {stated:?}, a walk counts {:?}", walk.usage));
    }
    Ok(differences)
}

struct Walk<'k, K: ?Sized> {
    kv: &'k K,
    usage: Usage,
    references: References,
    /// What lives, by the segment it was begun in.
    anchors: BTreeMap<u32, u64>,
    /// Bytes of records that are read again, by segment.
    needed: BTreeMap<u32, u64>,
    /// Groups that each lease covers, and their slots.
    covered: BTreeMap<LeaseId, (u32, Tally)>,
    /// Keys that must be there because of others.
    derived: BTreeSet<Vec<u8>>,
}

impl<K: KvRead + ?Sized> Walk<'_, K> {
    fn refer(&mut self, thing: Thing, is_live: bool) {
        let (live, trash) = self.references.entry(thing).or_default();
        *(if is_live { live } else { trash }) += 1;
    }

    fn len(&self, shard: ShardId) -> Result<u64, IndexError> {
        Ok(Catalog(self.kv).kept(Thing::Shard(shard))?.map_or(0, |kept| kept.len))
    }

    fn uploads(&mut self) -> Result<(), IndexError> {
        let mut slots = Vec::new();
        visit(self.kv, keys::UPLOAD_SLOT, |key, value| {
            slots.push(ShardId::from_slice(value).ok_or_else(|| malformed(key))?);
            Ok(())
        })?;
        let mut bytes = 0;
        for shard in slots {
            bytes += self.len(shard)?;
            self.usage.upload_slots += 1;
            self.refer(Thing::Shard(shard), true);
        }
        let mut blocks = Vec::new();
        visit(self.kv, keys::UPLOAD_BLOCK, |key, _| {
            blocks.push(KeyParts::after(key, 1 + 16).cid().ok_or_else(|| malformed(key))?);
            Ok(())
        })?;
        blocks.into_iter().for_each(|cid| self.refer(Thing::Block(cid), true));
        let (mut count, anchors, derived) = (0, &mut self.anchors, &mut self.derived);
        visit(self.kv, keys::UPLOAD, |key, value| {
            count += 1;
            let upload = decode::<UploadEntry>(key, value)?;
            let id = KeyParts::after(key, 1).upload().ok_or_else(|| malformed(key))?;
            derived.extend(upload.queued_secs.map(|secs| keys::queue_upload(secs, id)));
            *anchors.entry(upload.begun).or_default() += 1;
            Ok(())
        })?;
        let uploads = self.usage.leases_of_kind_mut(LeaseKind::Upload);
        (uploads.count, uploads.bytes) = (count, bytes);
        Ok(())
    }

    /// Compares what groups say of themselves with their slots and leases.
    fn groups(&mut self) -> Result<Vec<String>, IndexError> {
        let mut differences = Vec::new();
        let mut groups = Vec::new();
        visit(self.kv, keys::GROUP, |key, value| {
            groups.push((group_of(key, 1)?, decode::<GroupEntry>(key, value)?));
            Ok(())
        })?;
        for ((object, number), group) in groups {
            let is_live = group.trashed_secs.is_none();
            *self.anchors.entry(group.begun).or_default() += 1;
            *self.needed.entry(group.commit.segment).or_default() += group.commit_len;
            let slots = Catalog(self.kv).slots(object, number)?;
            let count = slots.len() as u64;
            if is_live {
                self.usage.live_groups += 1;
                self.usage.live_slots += count;
            } else {
                self.usage.trash_groups += 1;
                self.usage.trash_slots += count;
            }
            let mut bytes = 0;
            for (_, shard) in slots {
                bytes += self.len(shard)?;
                self.refer(Thing::Shard(shard), is_live);
            }
            if group.refers.0 {
                self.refer(Thing::Block(object), is_live);
            }
            if let Some(page) = group.page.filter(|_| group.refers.1) {
                self.refer(Thing::Block(page), is_live);
            }
            self.derived.extend(group.trashed_secs.map(|secs| {
                if group.evicted {
                    keys::queue_evicted(object, number)
                } else {
                    keys::queue_trash(secs, object, number)
                }
            }));
            let leases = Catalog(self.kv).leases_of_group(object, number)?;
            let counted = (leases.len() as u64, count, bytes);
            let stated =
                (u64::from(group.lease_count), u64::from(group.slot_count), group.slot_bytes);
            if counted != stated || leases.is_empty() == is_live {
                differences.push(format!(
                    "group {number} of {object}, live: {is_live}, has leases, slots and bytes \
                     {counted:?}, not {stated:?}"
                ));
            }
            for lease in leases {
                self.derived.insert(keys::lease_group(lease, object, number));
                if let Some(state) = Catalog(self.kv).lease(lease)? {
                    self.usage.leases_of_kind_mut(state.kind).bytes += bytes;
                }
                let (groups, slots) = self.covered.entry(lease).or_default();
                *groups += 1;
                slots.count += count;
                slots.bytes += bytes;
            }
        }
        Ok(differences)
    }

    /// Compares what leases say they cover with the groups counted.
    fn leases(&mut self) -> Result<Vec<String>, IndexError> {
        let mut differences = Vec::new();
        let (usage, anchors, derived) = (&mut self.usage, &mut self.anchors, &mut self.derived);
        let mut covered = std::mem::take(&mut self.covered);
        visit(self.kv, keys::LEASE, |key, value| {
            let state: LeaseState = decode(key, value)?;
            let lease = KeyParts::after(key, 1).lease().ok_or_else(|| malformed(key))?;
            *anchors.entry(state.begun).or_default() += 1;
            usage.leases_of_kind_mut(state.kind).count += 1;
            derived.insert(keys::owner_lease(state.owner, lease));
            derived.extend((state.kind == LeaseKind::Deal).then(|| keys::deal(lease)));
            derived.extend(match state.expiry {
                Expiry::RunningSeconds(secs) => Some(keys::queue_lease(secs, lease)),
                Expiry::FinalisedHeight(height) => Some(keys::queue_deal(height, lease)),
                Expiry::Never => None,
            });
            let counted = covered.remove(&lease).unwrap_or_default();
            let stated = (state.group_count, state.slots);
            if counted != stated {
                differences.push(format!("lease {lease} covers {counted:?}, not {stated:?}"));
            }
            Ok(())
        })?;
        let lost = covered.keys().map(|lease| format!("lease {lease} covers groups and is gone"));
        differences.extend(lost);
        Ok(differences)
    }

    /// Compares what is kept with the references counted, and tallies it.
    fn things(&mut self) -> Result<Vec<String>, IndexError> {
        let mut differences = Vec::new();
        let mut references = std::mem::take(&mut self.references);
        for prefix in [keys::SHARD, keys::BLOCK] {
            let (usage, anchors, derived) = (&mut self.usage, &mut self.anchors, &mut self.derived);
            let needed = &mut self.needed;
            visit(self.kv, prefix, |key, value| {
                let thing = thing_of(key, 0).ok_or_else(|| malformed(key))?;
                let kept: Kept = decode(key, value)?;
                *anchors.entry(kept.begun).or_default() += 1;
                *needed.entry(kept.at.segment).or_default() += kept.record_len();
                let is_dead = kept.state() == State::Dead;
                derived.extend(is_dead.then(|| keys::queue_dead(thing)));
                let counted = references.remove(&thing).unwrap_or_default();
                if counted != (kept.live, kept.trash) {
                    let stated = (kept.live, kept.trash);
                    differences
                        .push(format!("{thing:?} has references {counted:?}, not {stated:?}"));
                }
                let tallies = match thing {
                    Thing::Shard(_) => &mut usage.shards,
                    Thing::Block(_) => &mut usage.blocks,
                };
                tallies.of(kept.state()).add(kept.len);
                Ok(())
            })?;
        }
        let lost = references.keys().map(|thing| format!("{thing:?} is referred to, but not here"));
        differences.extend(lost);
        Ok(differences)
    }

    /// Adds what is left of dead records.
    fn dead(&mut self) -> Result<(), IndexError> {
        let (usage, derived) = (&mut self.usage, &mut self.derived);
        visit(self.kv, keys::DEAD, |key, value| {
            let at = KeyParts::after(key, 1).position().ok_or_else(|| malformed(key))?;
            let record: DeadRecord = decode(key, value)?;
            let dead = match record.thing {
                Thing::Shard(_) => &mut usage.shards.dead,
                Thing::Block(_) => &mut usage.blocks.dead,
            };
            let hole = record.hole(at.offset).filter(|_| !record.punched);
            derived.extend(hole.map(|_| keys::queue_punch(at)));
            usage.punchable_bytes += hole.map_or(0, |(_, len)| len);
            match record.dead_bytes(at.offset) {
                0 => {}
                bytes => dead.add(bytes),
            }
            Ok(())
        })
    }

    /// Adds up the segments, and compares what they keep with what was begun in them.
    fn segments(&mut self) -> Result<Vec<String>, IndexError> {
        let (usage, mut differences) = (&mut self.usage, Vec::new());
        let mut anchors = std::mem::take(&mut self.anchors);
        let mut needed = std::mem::take(&mut self.needed);
        visit(self.kv, keys::SEGMENT, |key, value| {
            let number = KeyParts::after(key, 1).u32().ok_or_else(|| malformed(key))?;
            let segment: SegmentEntry = decode(key, value)?;
            usage.records += segment.records;
            usage.log_bytes += segment.bytes;
            usage.needed_bytes += segment.needed;
            usage.returned_bytes += segment.returned;
            let counted = (anchors.remove(&number), needed.remove(&number));
            let counted = (counted.0.unwrap_or(0), counted.1.unwrap_or(0));
            let stated = (segment.anchors, segment.needed);
            if counted != stated {
                differences.push(format!("segment {number} keeps {counted:?}, not {stated:?}"));
            }
            Ok(())
        })?;
        let lost = anchors.keys().map(|number| format!("segment {number} is needed and gone"));
        differences.extend(lost);
        Ok(differences)
    }

    /// Compares the keys that follow from others with those that are there.
    fn derived(&mut self) -> Result<Vec<String>, IndexError> {
        let mut differences = Vec::new();
        let mut derived = std::mem::take(&mut self.derived);
        for prefix in DERIVED {
            visit(self.kv, prefix, |key, _| {
                if !derived.remove(key) {
                    differences.push(format!("nothing accounts for {}", key.escape_ascii()));
                }
                Ok(())
            })?;
        }
        differences.extend(derived.iter().map(|key| format!("{} is missing", key.escape_ascii())));
        Ok(differences)
    }

    fn tombstones(&mut self) -> Result<(), IndexError> {
        let count = &mut self.usage.tombstones;
        visit(self.kv, keys::TOMBSTONE, |_, _| {
            *count += 1;
            Ok(())
        })
    }
}
