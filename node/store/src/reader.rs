// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading, beside the writer and without asking it. Everything here blocks on the disk.
//!
//! Nothing is believed: the index says where a record should be, the record's header must agree,
//! and the bytes must hash to the id. What does not is counted, set aside under its position and
//! never served; a new copy of it (a put, a repair) has another position and is served again.
//!
//! What is read may move at any time, because compaction copies it to the head of the log and its
//! old place goes. So who fails to read looks again where it is, and fails only if that is still
//! there.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::lease::Expiry;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree;
use supernode_protocol::wire::ByteRange;

use crate::catalog::{Catalog, GroupEntry, IndexError, Kept, State, Thing};
use crate::disk::{Block, Blocks, DiskFile};
use crate::error::StoreError;
use crate::index::Overlay;
use crate::metrics::{Counters, bump};
use crate::planted::{Bug, has};
use crate::record::{Body, GroupPart, HEADER_BYTES, Header, Position, Restate, to_len};
use crate::segment::{FoundRecord, Segment, Segments, read_record};
use tokio::sync::broadcast;

mod open;
mod prove;

pub use self::open::{Opened, ShardTree};

/// Damaged things that a slow listener may fall behind by; then it is told how many it missed.
const DAMAGE_MAX: usize = 1024;

/// A verified shard with its hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its hash tree, from which range proofs are cut.
    pub outboard: Bytes,
}

/// A verified part of a shard, with what somebody else needs to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRead {
    /// The whole shard's length.
    pub shard_len: u64,
    /// What was asked for, widened to whole chunk groups.
    pub range: ByteRange,
    /// Parents of the hash tree.
    pub proof: Bytes,
    /// The bytes of `range`.
    pub bytes: Bytes,
}

/// How bytes come from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the system's memory, which has them then for the next who wants them.
    Kept,
    /// Past it, on disks that are written past it too: what is wanted once shall not drive out
    /// what is wanted often.
    Once,
}

impl Way {
    /// Reads a range of a file, or as much as there is of it.
    fn read(self, file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Bytes> {
        if self == Self::Once {
            let mut block = Block::new(offset, len);
            match block.fill_once(file, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Bytes::new());
                }
                filled => filled?,
            }
            return Ok(Bytes::from_owner(block));
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

/// Reads of one store. Cheap to share.
pub struct Reader {
    segments: Arc<Segments>,
    overlay: Arc<Overlay>,
    counters: Arc<Counters>,
    /// Records that were found damaged.
    quarantine: Mutex<HashMap<Position, Thing>>,
    /// Told once of each of them.
    damage: broadcast::Sender<Thing>,
    pieces: Blocks,
}

impl Reader {
    /// A reader over segments and map.
    pub(crate) fn new(
        segments: Arc<Segments>,
        overlay: Arc<Overlay>,
        counters: Arc<Counters>,
    ) -> Self {
        let (damage, _) = broadcast::channel(DAMAGE_MAX);
        Self {
            segments,
            overlay,
            counters,
            quarantine: Mutex::default(),
            damage,
            pieces: Blocks::default(),
        }
    }

    /// The same reader, which tells others of damage too.
    pub(crate) fn telling(self, damage: broadcast::Sender<Thing>) -> Self {
        Self { damage, ..self }
    }

    /// The segments.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// The map.
    pub fn overlay(&self) -> &Arc<Overlay> {
        &self.overlay
    }

    /// Hears of everything that is found damaged from now on.
    pub fn damage(&self) -> broadcast::Receiver<Thing> {
        self.damage.subscribe()
    }

    /// Records that are not served.
    pub fn quarantined(&self) -> u64 {
        let known = self.quarantine.lock().clone();
        // What was freed, or put anew, is no longer missed.
        let is_missed = |at: &Position, thing: &Thing| {
            let kept = self.catalog().kept(*thing);
            kept.map_or(true, |kept| kept.is_some_and(|kept| kept.at == *at))
        };
        let missed = known.iter().filter(|(at, thing)| is_missed(at, thing));
        missed.count() as u64
    }

    /// Questions to the map as readers see it.
    pub fn catalog(&self) -> Catalog<'_, Overlay> {
        Catalog(&self.overlay)
    }

    /// Whether it is on disk that a deal lease ends at a height by the chain's word.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn is_settled_at(&self, lease: LeaseId, height: u64) -> Result<bool, IndexError> {
        let state = Catalog(&self.overlay.durable()).lease(lease)?;
        Ok(state.is_some_and(|state| {
            state.is_settled() && state.expiry == Expiry::FinalisedHeight(height)
        }))
    }

    /// Place of a shard that is to be served.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`] also for one in the trash.
    pub fn live_shard(&self, shard: ShardId) -> Result<Kept, StoreError> {
        let kept = self.catalog().kept(Thing::Shard(shard))?;
        kept.filter(|kept| kept.state() == State::Live).ok_or(StoreError::ShardNotFound { shard })
    }

    /// Reads and verifies a whole shard, in one read.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`], or what the disk says.
    pub fn shard(&self, shard: ShardId, way: Way) -> Result<Shard, StoreError> {
        self.follow_shard(shard, |kept| self.shard_at(shard, kept, way))
    }

    /// Reads and verifies a shard or block where it is kept, with its hash tree if it has one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the disk says.
    pub(crate) fn read_back(&self, thing: Thing, kept: &Kept) -> Result<Shard, StoreError> {
        match thing {
            Thing::Shard(shard) => self.shard_at(shard, kept, Way::Once),
            Thing::Block(_) => {
                let segment = self.segments.segment(kept.at.segment)?;
                let (record, _) = self.whole_record(&segment, thing, kept, Way::Kept)?;
                let bytes = record.slice(to_len(kept.payload_start)..);
                Ok(Shard { bytes, outboard: Bytes::new() })
            }
        }
    }

    /// Reads a shard or block where it is; again where it is then, if it moved meanwhile.
    pub(crate) fn follow<T>(
        &self,
        thing: Thing,
        read: impl Fn(&Kept) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut kept = self.catalog().kept(thing)?;
        while let Some(found) = kept {
            let outcome = read(&found);
            let now = if outcome.is_ok() { kept } else { self.catalog().kept(thing)? };
            if now.is_some_and(|now| now.at == found.at) {
                return outcome.map(Some);
            }
            kept = now;
        }
        Ok(None)
    }

    /// As [`Self::follow`], for a shard that is to be served.
    fn follow_shard<T>(
        &self,
        shard: ShardId,
        read: impl Fn(&Kept) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let absent = StoreError::ShardNotFound { shard };
        let is_live = |kept: &Kept| kept.state() == State::Live;
        let read = |kept: &Kept| is_live(kept).then(|| read(kept)).transpose();
        self.follow(Thing::Shard(shard), read)?.flatten().ok_or(absent)
    }

    fn shard_at(&self, shard: ShardId, kept: &Kept, way: Way) -> Result<Shard, StoreError> {
        let segment = self.segments.segment(kept.at.segment)?;
        self.whole_shard(&segment, shard, kept, way)
    }

    fn whole_shard(
        &self,
        segment: &Segment,
        shard: ShardId,
        kept: &Kept,
        way: Way,
    ) -> Result<Shard, StoreError> {
        let thing = Thing::Shard(shard);
        let (record, header) = self.whole_record(segment, thing, kept, way)?;
        let start = to_len(kept.payload_start);
        let tree_start = HEADER_BYTES + header.shape.meta_len as usize;
        let tree_end = tree_start + header.shape.outboard_len as usize;
        let outboard = record.slice(tree_start..tree_end);
        if tree::check_outboard(&shard, kept.len, &outboard).is_err() {
            return Err(self.set_aside(thing, kept.at));
        }
        Ok(Shard { bytes: record.slice(start..), outboard })
    }

    /// Reads and verifies a manifest block.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the disk says; `None` if it is not here.
    pub fn block(&self, cid: Cid) -> Result<Option<Bytes>, StoreError> {
        let thing = Thing::Block(cid);
        let block = self.follow(thing, |kept| self.read_back(thing, kept))?;
        Ok(block.map(|block| block.bytes))
    }

    /// Whether the bytes of a thing are whole, its hash tree included.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the disk says.
    pub fn verify(&self, thing: Thing, kept: &Kept) -> Result<(), StoreError> {
        let segment = self.segments.segment(kept.at.segment)?;
        self.verify_in(&segment, thing, kept)
    }

    /// As [`Self::verify`], past what the system has in memory.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_on_disk(&self, thing: Thing, kept: &Kept) -> Result<(), StoreError> {
        let segment = self.segments.segment(kept.at.segment)?.cold();
        self.verify_in(&segment, thing, kept)
    }

    fn verify_in(&self, segment: &Segment, thing: Thing, kept: &Kept) -> Result<(), StoreError> {
        match thing {
            Thing::Shard(shard) => self.whole_shard(segment, shard, kept, Way::Kept).map(drop),
            Thing::Block(_) => self.whole_record(segment, thing, kept, Way::Kept).map(drop),
        }
    }

    /// A group that is here, also one in the trash, and its placement that has precedence.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::Damaged`] or what the disk says.
    pub fn placement(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<(GroupEntry, Signed<PlacementRecord>), StoreError> {
        self.follow_group(object, group, |entry| {
            match read_record(&self.segments, entry.placement)?.body {
                Body::Commit(body) => Ok((*entry, body.commit.placement)),
                Body::Placement(record) => Ok((*entry, *record)),
                body => Ok((*entry, part(body, "a placement", entry.placement)?.placement)),
            }
        })
    }

    /// The slots that are missing everywhere, as the newest commit of a group says.
    ///
    /// # Errors
    /// As [`Self::placement`].
    pub fn missing(&self, object: Cid, group: u32) -> Result<Vec<Slot>, StoreError> {
        self.follow_group(object, group, |entry| {
            match read_record(&self.segments, entry.commit)?.body {
                Body::Commit(body) => Ok(body.commit.missing),
                body => Ok(part(body, "a commit", entry.commit)?.missing),
            }
        })
    }

    /// What is kept with a group, also with one in the trash, if anything is.
    ///
    /// # Errors
    /// As [`Self::placement`].
    pub fn span(&self, object: Cid, group: u32) -> Result<Option<Bytes>, StoreError> {
        self.follow_group(object, group, |_| {
            let Some(at) = self.catalog().span(object, group)? else { return Ok(None) };
            match read_record(&self.segments, at)?.body {
                Body::Span(span) => Ok(Some(span.bytes.into())),
                body => Ok(part(body, "a span", at)?.span.map(Bytes::from)),
            }
        })
    }

    /// Reads what a group's entry leads to; again if that is another one meanwhile.
    pub(crate) fn follow_group<T>(
        &self,
        object: Cid,
        group: u32,
        read: impl Fn(&GroupEntry) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let find = || {
            let entry = self.catalog().group(object, group)?;
            entry.ok_or(StoreError::GroupNotFound { object, group })
        };
        let mut entry = find()?;
        loop {
            let outcome = read(&entry);
            if outcome.is_ok() {
                return outcome;
            }
            let now = find()?;
            if now == entry {
                return outcome;
            }
            entry = now;
        }
    }

    /// Header to payload in one read, all of it verified.
    fn whole_record(
        &self,
        segment: &Segment,
        thing: Thing,
        kept: &Kept,
        way: Way,
    ) -> Result<(Bytes, Header), StoreError> {
        self.demand_sound(thing, kept.at)?;
        let (offset, len) = (kept.at.offset, to_len(kept.payload_start + kept.len));
        let record = way.read(&*segment.file, offset, len);
        let record = record.map_err(|error| StoreError::io("read a record", error))?;
        let header = Header::decode_at(&record, segment.header.tag, kept.at.offset);
        let header =
            header.ok().filter(|header| record.len() == len && agrees(header, thing, kept));
        let header = if has(Bug::BelievesIndex) { Header::decode(&record).ok() } else { header };
        let payload = record.get(to_len(kept.payload_start)..).unwrap_or_default();
        let whole = header.filter(|header| *blake3::hash(payload).as_bytes() == header.id);
        match whole {
            Some(header) => Ok((record, header)),
            None => Err(self.set_aside(thing, kept.at)),
        }
    }

    /// The record without its payload, as the index promised it.
    fn found(&self, thing: Thing, kept: &Kept) -> Result<FoundRecord, StoreError> {
        self.demand_sound(thing, kept.at)?;
        match read_record(&self.segments, kept.at) {
            Ok(found) if agrees(&found.header, thing, kept) => Ok(found),
            Ok(_) | Err(StoreError::Damaged { .. }) => Err(self.set_aside(thing, kept.at)),
            Err(error) => Err(error),
        }
    }

    fn demand_sound(&self, thing: Thing, at: Position) -> Result<(), StoreError> {
        if self.quarantine.lock().contains_key(&at) { Err(damaged(thing, at)) } else { Ok(()) }
    }

    fn set_aside(&self, thing: Thing, at: Position) -> StoreError {
        // What was freed since it was looked up may be a hole by now; that is no damage.
        let kept = self.catalog().kept(thing);
        if let (Thing::Shard(shard), Ok(None)) = (thing, &kept) {
            return StoreError::ShardNotFound { shard };
        }
        if kept.is_ok_and(|kept| kept.is_none_or(|kept| kept.at != at)) {
            return damaged(thing, at);
        }
        if self.quarantine.lock().insert(at, thing).is_none() {
            bump(&self.counters.damaged, 1);
            let error = damaged(thing, at);
            tracing::error!(%error, "never served again from here");
            // Without a listener the log and the figures have it.
            let _ = self.damage.send(thing);
        }
        damaged(thing, at)
    }
}

/// Cuts a range out of a shard that is in memory and verified.
pub(crate) fn cut(
    shard: ShardId,
    whole: &Shard,
    range: ByteRange,
) -> Result<RangeRead, StoreError> {
    let shard_len = whole.bytes.len() as u64;
    let aligned = align(shard, shard_len, range)?;
    let (start, end) = (aligned.offset, aligned.offset + aligned.len);
    let proof = tree::range_proof(&whole.outboard, shard_len, start..end)
        .map_err(|_| bad_range(shard, shard_len, range))?;
    let bytes = whole.bytes.slice(to_len(start)..to_len(end));
    Ok(RangeRead { shard_len, range: aligned, proof: proof.into(), bytes })
}

fn align(shard: ShardId, shard_len: u64, range: ByteRange) -> Result<ByteRange, StoreError> {
    let end = range.offset.checked_add(range.len).filter(|_| range.len > 0);
    let aligned = end.and_then(|end| tree::align_to_groups(range.offset..end, shard_len).ok());
    let aligned = aligned.ok_or_else(|| bad_range(shard, shard_len, range))?;
    Ok(ByteRange { offset: aligned.start, len: aligned.end - aligned.start })
}

fn bad_range(shard: ShardId, shard_len: u64, range: ByteRange) -> StoreError {
    StoreError::BadRange { shard, shard_len, offset: range.offset, len: range.len }
}

fn agrees(header: &Header, thing: Thing, kept: &Kept) -> bool {
    let (is_kind, id) = match thing {
        Thing::Shard(shard) => (header.kind.is_shard(), *shard.as_bytes()),
        Thing::Block(cid) => (header.kind.is_block(), *cid.as_bytes()),
    };
    let start = header.shape.payload_start(header.offset);
    is_kind
        && header.id == id
        && (start, header.shape.payload_len) == (kept.payload_start, kept.len)
}

fn damaged(thing: Thing, at: Position) -> StoreError {
    let what = match thing {
        Thing::Shard(shard) => format!("shard {shard}"),
        Thing::Block(cid) => format!("manifest block {cid}"),
    };
    StoreError::Damaged { what, at }
}

/// The part of a group that compaction wrote, where a record holds one.
fn part(body: Body, what: &str, at: Position) -> Result<GroupPart, StoreError> {
    match body {
        Body::Restate(Restate::Group(part)) => Ok(*part),
        _ => Err(misplaced(what, at)),
    }
}

fn misplaced(what: &str, at: Position) -> StoreError {
    StoreError::Damaged { what: what.to_owned(), at }
}
