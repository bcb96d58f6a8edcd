// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compaction: what still lives and was begun in the oldest segment is said again at the head of
//! the log, until nothing needs that segment and it goes as any other.
//!
//! ```text
//! list groups -> for each: gather (read, verify) -> copies, leases, group -> sync -> unlink
//! ```
//!
//! - Always the oldest segment: what is left is the last part of the log at every moment, so there
//!   is nothing to carry along, tombstones least of all. What is dead in younger segments becomes
//!   holes meanwhile; compaction is for what holes cannot give back.
//! - Everything that lives and was begun in the oldest segment is kept by a group that was begun
//!   there (or by an upload, which ends by itself). So it goes from group to group, those that end
//!   first before the others: they lie together then, and die together.
//! - Uploads of cached shards do not end by themselves. They come after the groups.
//! - A record of it changes nothing but places. It may be cut short anywhere, and begins again.
//! - Reading is done beside the writer, in slices, at a pace of its own; a slice is written like
//!   any batch, and what changed meanwhile is passed over.

use std::collections::VecDeque;

use supernode_protocol::ids::{Cid, ShardId, Slot, UploadId};
use supernode_protocol::lease::Expiry;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use super::reclaim::{ReclaimJob, Slice};
use super::{Planned, Writer};
use crate::catalog::{Catalog, GroupEntry, IndexError, KvRead, State, Thing, UploadEntry, Usage};
use crate::error::StoreError;
use crate::metrics::bump;
use crate::planted::{Bug, has};
use crate::reader::{Reader, Shard};
use crate::record::{
    Body, CachedTold, GroupPart, Holder, LeaseTold, Payload, Position, Restate, Trashed, short_id,
};

/// Groups listed in one slice. These are small in tests, so that little things have several.
const LISTED_GROUPS_MAX: usize = if cfg!(test) { 2 } else { 16 << 10 };
/// Groups gathered in one slice.
const GATHERED_GROUPS_MAX: usize = if cfg!(test) { 2 } else { 256 };
/// Bytes read in one slice, but for the last of it.
const SLICE_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };
/// Slots and leases that one part of a group says.
const PART_SLOTS_MAX: usize = if cfg!(test) { 3 } else { 2048 };
const PART_LEASES_MAX: usize = if cfg!(test) { 1 } else { 1024 };
/// How long a segment rests that is held by something that has to end by itself: at first, and at
/// most. An upload is mostly over in a moment; looking for what came of it walks over all groups.
const REST_SECS: (u64, u64) = (5, 600);

/// Something that is kept, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThingRead {
    thing: Thing,
    at: Position,
    content: Shard,
}

/// What of a group lies in segments that are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    object: Cid,
    group: u32,
    /// Shards and blocks.
    things: Vec<ThingRead>,
    /// Everything else, once nothing is left to be copied.
    facts: Option<Box<GroupFacts>>,
    /// Or it ended meanwhile.
    is_gone: bool,
}

/// What of a group only the log knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupFacts {
    entry: GroupEntry,
    span_at: Option<Position>,
    placement: Signed<PlacementRecord>,
    missing: Vec<Slot>,
    span: Option<Vec<u8>>,
}

/// Cached shards that lie in segments that are to go.
#[derive(Debug)]
pub(super) struct GatheredCached {
    /// Uploads and their shards, read back where these lie there too.
    shards: Vec<(UploadId, ShardId, Option<ThingRead>)>,
    /// Where it goes on; `None` when these are all.
    next: Option<UploadId>,
}

/// What the writer remembers between slices.
#[derive(Debug, Default)]
pub(super) struct Compacting {
    round: Option<Round>,
    /// What is left of the oldest segment.
    pass: Pass,
    /// Bytes that were of no use when the last round ended: it cannot do better.
    floor_bytes: u64,
    /// The running second of the last slice, and the bytes read in it.
    paced: (u64, u64),
    not_before_secs: u64,
    /// How long it rested before.
    rest_secs: u64,
}

/// From the oldest segment to the one that was the newest at its beginning.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// The last segment that is to be emptied.
    through: u32,
    /// Somebody asked for it: it goes on whatever it brings.
    is_asked: bool,
}

impl Round {
    fn goes_on<E>(
        self,
        oldest: u32,
        is_worth_it: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        Ok(oldest <= self.through && (self.is_asked || is_worth_it()?))
    }
}

/// One look at all groups.
#[derive(Debug, Default)]
struct Pass {
    segment: u32,
    /// Still to be gathered.
    groups: VecDeque<(Cid, u32)>,
    /// Where the list goes on; `None` when it is complete.
    listed: Option<Cursor>,
    /// The same for cached shards.
    cached: Option<Option<UploadId>>,
    /// Something was written in it.
    has_moved: bool,
}

/// After which group a list goes on.
type Cursor = Option<(Cid, u32)>;

/// Lists groups that were begun in a segment or before, those that end first in front.
pub(super) fn list(
    reader: &Reader,
    segment: u32,
    after: Cursor,
) -> Result<Vec<(Cid, u32)>, StoreError> {
    let catalog = reader.catalog();
    let groups = catalog.groups_begun(segment, after, LISTED_GROUPS_MAX)?;
    let ends = groups.into_iter().map(|group| Ok((group_end(&catalog, group)?, group)));
    let mut ends = ends.collect::<Result<Vec<_>, IndexError>>()?;
    ends.sort_by_key(|(end, _)| *end);
    Ok(ends.into_iter().map(|(_, group)| group).collect())
}

/// When the last lease of a group ends: by which clock, and when on it.
fn group_end<K: KvRead + ?Sized>(
    catalog: &Catalog<'_, K>,
    (object, group): (Cid, u32),
) -> Result<(u8, u64), IndexError> {
    let mut end = (0, 0);
    for lease in catalog.leases_of_group(object, group)? {
        let Some(lease) = catalog.lease(lease)? else { continue };
        end = end.max(match lease.expiry {
            Expiry::RunningSeconds(secs) => (1, secs),
            Expiry::FinalisedHeight(height) => (2, height),
            Expiry::Never => (3, 0),
        });
    }
    Ok(end)
}

/// Reads what of some groups was begun in a segment or before it, as much as fits into a slice.
pub(super) fn gather(
    reader: &Reader,
    through: u32,
    groups: Vec<(Cid, u32)>,
) -> Vec<Result<Gathered, StoreError>> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for group in groups {
        if bytes >= SLICE_BYTES {
            break;
        }
        all.push(gather_group(reader, through, group, &mut bytes));
    }
    all
}

/// Reads cached shards that were begun in a segment or before it, as much as fits into a slice.
pub(super) fn gather_cached(
    reader: &Reader,
    through: u32,
    after: Option<UploadId>,
) -> Result<GatheredCached, StoreError> {
    let catalog = reader.catalog();
    let begun = catalog.cached_begun(through, after, GATHERED_GROUPS_MAX)?;
    let mut is_all = begun.len() < GATHERED_GROUPS_MAX;
    let (mut shards, mut next, mut bytes) = (Vec::new(), after, 0);
    for (upload, _, shard) in begun {
        if bytes >= SLICE_BYTES {
            is_all = false;
            break;
        }
        next = Some(upload);
        let thing = Thing::Shard(shard);
        let Some(kept) = catalog.kept(thing)? else { continue };
        let read = (kept.begun <= through).then(|| {
            bytes += kept.len;
            let content = reader.read_back(thing, &kept)?;
            Ok(ThingRead { thing, at: kept.at, content })
        });
        match read.transpose() {
            Ok(read) => shards.push((upload, shard, read)),
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!(%error, "compaction leaves out what it cannot read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(GatheredCached { shards, next: next.filter(|_| !is_all) })
}

/// Reads one of them, and adds to the bytes of the slice.
fn gather_group(
    reader: &Reader,
    through: u32,
    (object, group): (Cid, u32),
    bytes: &mut u64,
) -> Result<Gathered, StoreError> {
    let mut gathered = Gathered { object, group, things: Vec::new(), facts: None, is_gone: false };
    let Some(entry) = reader.catalog().group(object, group)? else {
        gathered.is_gone = true;
        return Ok(gathered);
    };
    for thing in things_of(&reader.catalog(), object, group, &entry)? {
        let kept = reader.catalog().kept(thing)?;
        let Some(kept) = kept.filter(|kept| kept.begun <= through) else { continue };
        if *bytes >= SLICE_BYTES {
            return Ok(gathered);
        }
        let content = reader.read_back(thing, &kept)?;
        *bytes += kept.len;
        gathered.things.push(ThingRead { thing, at: kept.at, content });
    }
    let span_at = reader.catalog().span(object, group)?;
    let span = reader.span(object, group)?.map(Vec::from);
    let missing = reader.missing(object, group)?;
    let (now, placement) = reader.placement(object, group)?;
    if now != entry {
        // It changed meanwhile, and what was read belongs to either.
        return Ok(gathered);
    }
    let facts = GroupFacts { entry, span_at, placement, missing, span };
    gathered.facts = Some(Box::new(facts));
    Ok(gathered)
}

fn things_of<K: KvRead + ?Sized>(
    catalog: &Catalog<'_, K>,
    object: Cid,
    group: u32,
    entry: &GroupEntry,
) -> Result<Vec<Thing>, IndexError> {
    let blocks = [Some(object), entry.page].into_iter().flatten().map(Thing::Block);
    let slots = catalog.slots(object, group)?;
    Ok(blocks.chain(slots.into_iter().map(|(_, shard)| Thing::Shard(shard))).collect())
}

impl Gathered {
    fn bytes(&self) -> u64 {
        self.things.iter().map(|read| read.content.bytes.len() as u64).sum()
    }
}

impl Writer {
    /// Begins a new segment and empties all before it, whatever that brings.
    ///
    /// # Errors
    /// When the log takes no new segment.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        if self.mark.segment == 0 {
            return Ok(());
        }
        let through = self.mark.segment;
        let begun = self.log.rotate(self.sequence_next);
        begun.map_err(|error| StoreError::write(0, error))?;
        // The newest segment with a record stays, so there has to be one in the new one.
        self.submit(Planned::clock(false), None)?;
        self.sync()?;
        let round = Some(Round { through, is_asked: true });
        self.compacting = Compacting { round, ..Compacting::default() };
        Ok(())
    }

    /// The segment that compaction works on now, if there is one.
    pub(super) fn compacts(&self) -> Result<Option<u32>, IndexError> {
        let state = &self.compacting;
        let (second, bytes) = state.paced;
        let pace = self.config.compact_bytes_per_sec;
        let is_paced = pace > 0 && second == self.now && bytes >= pace;
        // Half of what is reserved for deletes: compaction is how they get their room.
        let needs = SLICE_BYTES + self.config.reserve_bytes / 2;
        if is_paced || self.now < state.not_before_secs || self.free_bytes < needs {
            return Ok(None);
        }
        let view = self.overlay.stage();
        let oldest = Catalog(&view).oldest_segment()?.map(|(number, _)| number);
        let Some(oldest) = oldest.filter(|oldest| *oldest < self.mark.segment) else {
            return Ok(None);
        };
        // One that nothing needs goes as it is.
        if Catalog(&view).segment(oldest)?.anchors == 0 {
            return Ok(None);
        }
        let is_due = match state.round {
            Some(round) => round.goes_on(oldest, || self.is_wasteful(50))?,
            None => self.is_wasteful(100)?,
        };
        Ok(is_due.then_some(oldest))
    }

    /// Whether so much of the log is of no use that copying the rest is worth it; or a share, in
    /// percent, of so much.
    fn is_wasteful(&self, share: u64) -> Result<bool, IndexError> {
        let usage = Catalog(&self.overlay.stage()).usage()?;
        let held = usage.log_bytes.saturating_sub(usage.returned_bytes);
        let waste = self.waste_of(&usage);
        let percent = u64::from(self.config.compact_waste_percent);
        let news = waste.saturating_sub(self.compacting.floor_bytes);
        Ok(percent > 0
            && news * 100 >= self.config.segment_bytes_max * share
            && news * 100 * 100 >= percent * share * held)
    }

    /// Bytes that only compaction gives back.
    fn waste_of(&self, usage: &Usage) -> u64 {
        let holes = if self.reclaiming.can_punch() { 0 } else { usage.punchable_bytes };
        usage.waste_bytes() + holes
    }

    /// The next slice of work.
    pub(super) fn compaction(&mut self) -> Result<Option<ReclaimJob>, StoreError> {
        let Some(segment) = self.compacts()? else { return Ok(None) };
        let state = &mut self.compacting;
        let through = self.mark.segment - 1;
        if state.round.is_none() {
            tracing::info!(segment, through, "compaction begins");
            state.round = Some(Round { through, is_asked: false });
        }
        if state.pass.segment != segment {
            state.pass = Pass::of(segment);
        }
        let pass = &mut state.pass;
        if !pass.groups.is_empty() {
            let groups = pass.groups.iter().take(GATHERED_GROUPS_MAX).copied().collect();
            return Ok(Some(ReclaimJob::Gather { segment, groups }));
        }
        if let Some(after) = pass.listed {
            return Ok(Some(ReclaimJob::List { segment, after }));
        }
        if let Some(after) = pass.cached {
            return Ok(Some(ReclaimJob::GatherCached { segment, after }));
        }
        // Again, for what came from uploads meanwhile; then those that are left end by themselves.
        let has_moved = pass.has_moved;
        state.pass = Pass::of(segment);
        if has_moved && state.round.is_some_and(|round| round.is_asked) {
            state.rest_secs = 0;
            return Ok(Some(ReclaimJob::List { segment, after: None }));
        }
        let (least, most) = REST_SECS;
        state.rest_secs = if has_moved { least } else { (2 * state.rest_secs).clamp(least, most) };
        state.not_before_secs = self.now + state.rest_secs;
        tracing::debug!(segment, rest_secs = state.rest_secs, "something in it is not over yet");
        Ok(None)
    }

    /// Notes that a round is over, and what it came to.
    pub(super) fn end_round(&mut self) -> Result<(), IndexError> {
        let Some(round) = self.compacting.round else { return Ok(()) };
        let (oldest, waste_bytes) = {
            let view = self.overlay.stage();
            let oldest = Catalog(&view).oldest_segment()?.map_or(u32::MAX, |(number, _)| number);
            (oldest, self.waste_of(&Catalog(&view).usage()?))
        };
        if !round.goes_on(oldest, || self.is_wasteful(50))? {
            tracing::info!(oldest, waste_bytes, "compaction is over");
            let (paced, floor_bytes) = (self.compacting.paced, self.compacting.floor_bytes);
            // What is left after all was written anew is as good as it gets.
            let is_whole = oldest > round.through;
            let floor_bytes = if is_whole { waste_bytes } else { floor_bytes.min(waste_bytes) };
            self.compacting = Compacting { floor_bytes, paced, ..Compacting::default() };
        }
        Ok(())
    }

    /// Whether something is left of a round that somebody asked for, and is not resting.
    pub fn is_compacting(&self) -> bool {
        self.compacting.round.is_some_and(|round| round.is_asked)
    }

    /// Writes what a slice found.
    pub(super) fn compacted(&mut self, slice: Slice) -> Result<(), StoreError> {
        match slice {
            Slice::Listed(Ok(groups)) => {
                let pass = &mut self.compacting.pass;
                let is_all = groups.len() < LISTED_GROUPS_MAX;
                let last = groups.iter().max().copied();
                pass.listed = if is_all { None } else { Some(last) };
                pass.groups = groups.into();
                Ok(())
            }
            Slice::Listed(Err(error)) | Slice::Cached(Err(error)) => Err(error),
            Slice::Cached(Ok(GatheredCached { shards, next })) => {
                self.compacting.pass.cached = next.map(Some);
                for (upload, shard, read) in shards {
                    self.restate_cached(upload, shard, read)?;
                }
                self.sync()
            }
            Slice::Gathered(groups) => {
                for gathered in groups {
                    match gathered {
                        Ok(gathered) => self.restate(gathered)?,
                        Err(error) => {
                            // What is damaged has to be repaired first; the others go on.
                            self.compacting.pass.groups.pop_front();
                            tracing::warn!(%error, "compaction leaves out what it cannot read");
                        }
                    }
                }
                self.sync()
            }
        }
    }

    fn count_compacted(&mut self, bytes: u64) {
        let state = &mut self.compacting;
        if state.paced.0 != self.now {
            state.paced = (self.now, 0);
        }
        state.paced.1 += bytes;
        bump(&self.counters.compacted_bytes, bytes);
    }

    /// Says a cached shard again, if it is still cached.
    fn restate_cached(
        &mut self,
        upload: UploadId,
        shard: ShardId,
        read: Option<ThingRead>,
    ) -> Result<(), StoreError> {
        if let Some(read) = read {
            self.count_compacted(read.content.bytes.len() as u64);
            self.copy(read)?;
        }
        let entry = {
            let view = self.overlay.stage();
            let catalog = Catalog(&view);
            let entry = catalog.upload(upload)?;
            let cached =
                entry.as_ref().map(|entry| catalog.cached_by(upload, entry)).transpose()?;
            // Evicted meanwhile; somebody else may have taken the id.
            entry.filter(|_| cached.flatten() == Some(shard))
        };
        let through = self.compacting.pass.segment;
        // One that holds more is no cached shard's alone, whatever it is.
        let is_told = |entry: &UploadEntry| (entry.slot_count, entry.block_count) == (1, 0);
        let entry = entry.filter(|entry| entry.begun <= through && is_told(entry));
        let Some(entry) = entry else { return Ok(()) };
        let holder = Holder { upload, owner: entry.owner };
        let told = CachedTold { holder, used_secs: entry.used_secs };
        self.compacting.pass.has_moved = true;
        self.submit(Planned::restated(Restate::Cached(told), *shard.as_bytes()), None)
    }

    fn restate(&mut self, gathered: Gathered) -> Result<(), StoreError> {
        self.count_compacted(gathered.bytes());
        let Gathered { object, group, things, facts, is_gone } = gathered;
        let before = self.sequence_next;
        for read in things {
            self.copy(read)?;
        }
        if is_gone || facts.is_some() {
            self.compacting.pass.groups.pop_front();
        }
        if let Some(facts) = facts {
            self.restate_group(object, group, *facts)?;
        }
        self.compacting.pass.has_moved |= self.sequence_next > before;
        Ok(())
    }

    /// Copies a thing, if it is still where it was read.
    fn copy(&mut self, read: ThingRead) -> Result<(), StoreError> {
        let ThingRead { thing, at, content: Shard { bytes, outboard } } = read;
        let kept = Catalog(&self.overlay.stage()).kept(thing)?;
        if kept.is_none_or(|kept| kept.at != at || kept.state() == State::Dead) {
            return Ok(());
        }
        let (id, body) = match thing {
            Thing::Shard(shard) => (*shard.as_bytes(), Body::ShardCopy),
            Thing::Block(cid) => (*cid.as_bytes(), Body::BlockCopy),
        };
        let payload = Payload::Copy { bytes, outboard };
        self.submit(Planned { id, body, payload }, None)
    }

    fn restate_group(
        &mut self,
        object: Cid,
        group: u32,
        facts: GroupFacts,
    ) -> Result<(), StoreError> {
        let (slots, leases) = {
            let view = self.overlay.stage();
            let catalog = Catalog(&view);
            let same = catalog.group(object, group)? == Some(facts.entry)
                && catalog.span(object, group)? == facts.span_at;
            if !same {
                return Ok(());
            }
            (catalog.slots(object, group)?, leases_told(&catalog, object, group)?)
        };
        // All that are older than this, lest one stays behind its groups: only they lead to it.
        let newest = self.log.end().number;
        for (told, begun) in &leases {
            if *begun < newest {
                self.submit(
                    Planned::restated(Restate::Lease(*told), short_id(told.lease.as_bytes())),
                    None,
                )?;
            }
        }
        let leases: Vec<_> = leases.into_iter().map(|(told, _)| told).collect();
        self.restate_parts(object, group, facts, &slots, &leases)
    }

    fn restate_parts(
        &mut self,
        object: Cid,
        group: u32,
        facts: GroupFacts,
        slots: &[(Slot, ShardId)],
        leases: &[LeaseTold],
    ) -> Result<(), StoreError> {
        let GroupFacts { entry, placement, missing, span, .. } = facts;
        let trashed = entry.trashed_secs.map(|secs| Trashed { secs, evicted: entry.evicted });
        let (mut slots, mut leases) =
            (slots.chunks(PART_SLOTS_MAX), leases.chunks(PART_LEASES_MAX));
        let count = slots.len().max(leases.len()).max(1);
        let mut first = None;
        for number in 1..=count {
            let (is_last, leases) = (number == count, leases.next());
            let part = GroupPart {
                group,
                page: entry.page,
                object_bytes: entry.object_bytes,
                stripe_first: entry.stripe_first,
                stripe_count: entry.stripe_count,
                placement: placement.clone(),
                missing: missing.clone(),
                trashed,
                slots: slots.next().unwrap_or_default().to_vec(),
                leases: leases
                    .filter(|_| !has(Bug::RestatesUncovered))
                    .unwrap_or_default()
                    .to_vec(),
                span: span.clone().filter(|_| is_last),
                first,
                is_last,
            };
            self.submit(
                Planned::restated(Restate::Group(Box::new(part)), *object.as_bytes()),
                None,
            )?;
            let here = self.pending.last().map_or(self.mark.segment, |part| part.at.segment);
            first = first.or(Some(here));
        }
        Ok(())
    }
}

/// Leases of a group, and the segments they were begun in.
fn leases_told<K: KvRead + ?Sized>(
    catalog: &Catalog<'_, K>,
    object: Cid,
    group: u32,
) -> Result<Vec<(LeaseTold, u32)>, IndexError> {
    let mut told = Vec::new();
    for id in catalog.leases_of_group(object, group)? {
        let Some(lease) = catalog.lease(id)? else { continue };
        let (owner, kind, expiry) = (lease.owner, lease.kind, lease.expiry);
        let (created_secs, moved) = (lease.created_secs, lease.moved);
        let lease_told = LeaseTold { lease: id, owner, kind, expiry, created_secs, moved };
        told.push((lease_told, lease.begun));
    }
    Ok(told)
}

impl Pass {
    fn of(segment: u32) -> Self {
        Self { segment, listed: Some(None), cached: Some(None), ..Self::default() }
    }
}

impl Planned {
    fn restated(restate: Restate, id: [u8; 32]) -> Self {
        Self { id, body: Body::Restate(restate), payload: Payload::None }
    }
}
