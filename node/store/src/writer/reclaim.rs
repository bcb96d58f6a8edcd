// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving bytes back: the writer decides, somebody else does the slow part, the writer notes it.
//!
//! ```text
//! hole:    tombstone durable -> fence durable -> punch, sync -> "punched" record -> figures fall
//! segment: nothing needs it  -> "gone" record durable        -> unlink, oldest first
//! ```
//!
//! - A hole needs no record before it: what is dead stays dead, and punching twice does no harm. It
//!   does need the **fence**, any record that was begun after everything so far was durable: from
//!   it recovery knows that the dead record is no torn end, and does not look for its payload.
//!   Records of older segments need none, because those are sealed.
//! - A segment's end is said before it is done, and one file at a time, each removal durable before
//!   the next: what is left is always the last part of the log.
//! - Both come in slices, and a slice is run beside the writer, which meanwhile writes on.
//! - What one file refuses keeps nothing from the others: a segment that takes no hole is left
//!   alone until the next start, and holes do not wait for a file that cannot be removed.
//! - Nothing is given back while records are missing from the log or from the map that was built
//!   from it: what looks unwanted may be kept by one of those.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use supernode_protocol::ids::{Cid, UploadId};

use super::compact::{self, Gathered, GatheredCached};
use super::{Planned, Writer};
use crate::catalog::{Catalog, DeadRecord, IndexError};
use crate::error::StoreError;
use crate::metrics::bump;
use crate::planted::{Bug, has};
use crate::reader::Reader;
use crate::record::{Body, Payload, Position, Reclaim};
use crate::segment::{Segments, file_name};

/// Holes punched in one slice, and their bytes.
const PUNCH_RECORDS_MAX: usize = 256;
const PUNCH_BYTES_MAX: u64 = 1 << 30;
/// Dead records that one record forgets with their segment.
const CLEAR_RECORDS_MAX: usize = 1024;
/// Records that one slice writes about segments that go.
const RETIRE_RECORDS_MAX: usize = 16;
/// After a failure no file is removed for this long.
const PAUSE_SECS: u64 = 60;

/// A part of a file that becomes a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The dead record.
    at: Position,
    /// First byte in the file.
    start: u64,
    /// Bytes.
    len: u64,
}

/// A slice of slow work. Harmless to repeat, harmless to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReclaimJob {
    /// Make holes.
    Punch(Vec<Hole>),
    /// Remove segment files up to this number.
    Unlink {
        /// The newest to go.
        through: u32,
    },
    /// Find the groups that keep a segment.
    List {
        /// The oldest segment.
        segment: u32,
        /// Where the list goes on.
        after: Option<(Cid, u32)>,
    },
    /// Read what is cached there.
    GatherCached {
        /// The oldest segment.
        segment: u32,
        /// Where this goes on.
        after: Option<UploadId>,
    },
    /// Read what of some groups lies there.
    Gather {
        /// The oldest segment.
        segment: u32,
        /// Objects, and which of their groups.
        groups: Vec<(Cid, u32)>,
    },
}

/// What compaction read.
#[derive(Debug)]
pub(super) enum Slice {
    /// Groups that keep a segment.
    Listed(Result<Vec<(Cid, u32)>, StoreError>),
    /// Cached shards that are to be copied.
    Cached(Result<GatheredCached, StoreError>),
    /// What of groups is to be copied, group by group.
    Gathered(Vec<Result<Gathered, StoreError>>),
}

/// What came of a slice.
#[derive(Debug)]
pub struct Reclaimed {
    job: ReclaimJob,
    /// Records whose hole is durable, and its bytes.
    punched: Vec<Position>,
    punched_bytes: u64,
    /// Segments that took no hole, and why.
    refused: Vec<(u32, io::Error)>,
    unlinked: u64,
    /// Why not all files were removed.
    failure: Option<io::Error>,
    /// For compaction.
    slice: Option<Slice>,
}

/// What the writer remembers between slices.
#[derive(Debug)]
pub(super) struct Reclaiming {
    /// A slice is out.
    is_busy: bool,
    /// The file system makes holes.
    can_punch: bool,
    /// Segments that took no hole.
    unpunchable: BTreeSet<u32>,
    /// All records are there to say what is wanted.
    pub(super) is_whole: bool,
    /// Files up to this segment are gone; a start looks again, for a crash may have left some.
    unlinked_through: u32,
    unlink_not_before_secs: u64,
    /// The log refused a record about a slice: nothing goes on before this second.
    not_before_secs: u64,
}

impl ReclaimJob {
    /// Does it. Blocks.
    pub fn run(self, reader: &Reader) -> Reclaimed {
        let segments = reader.segments();
        let mut done = Reclaimed {
            job: self.clone(),
            punched: Vec::new(),
            punched_bytes: 0,
            refused: Vec::new(),
            unlinked: 0,
            failure: None,
            slice: None,
        };
        match self {
            Self::Punch(holes) => {
                for holes in holes.chunk_by(|a, b| a.at.segment == b.at.segment) {
                    let segment = holes[0].at.segment;
                    let refused = punch(segments, segment, holes, &mut done).err();
                    done.refused.extend(refused.map(|error| (segment, error)));
                }
            }
            Self::Unlink { through } => {
                done.failure = unlink(segments, through, &mut done.unlinked).err();
            }
            Self::List { segment, after } => {
                done.slice = Some(Slice::Listed(compact::list(reader, segment, after)));
            }
            Self::GatherCached { segment, after } => {
                done.slice = Some(Slice::Cached(compact::gather_cached(reader, segment, after)));
            }
            Self::Gather { segment, groups } => {
                done.slice = Some(Slice::Gathered(compact::gather(reader, segment, groups)));
            }
        }
        done
    }
}

/// Makes holes in one segment and makes them durable.
fn punch(
    segments: &Segments,
    segment: u32,
    holes: &[Hole],
    done: &mut Reclaimed,
) -> io::Result<()> {
    let file = segments.disk().open(&file_name(segment), true)?;
    holes.iter().try_for_each(|hole| file.punch(hole.start, hole.len))?;
    file.sync_data()?;
    done.punched.extend(holes.iter().map(|hole| hole.at));
    done.punched_bytes += holes.iter().map(|hole| hole.len).sum::<u64>();
    Ok(())
}

/// Removes segment files, the oldest first, each durably before the next.
fn unlink(segments: &Segments, through: u32, removed: &mut u64) -> io::Result<()> {
    let disk = Arc::clone(segments.disk());
    // A file whose removal was not made durable is in no list any more, and may still come back.
    disk.sync_dir()?;
    let mut numbers = segments.numbers().map_err(io::Error::other)?;
    numbers.retain(|number| *number <= through);
    if has(Bug::DropsTombstones) {
        numbers.reverse();
    }
    for number in numbers {
        disk.remove(&file_name(number))?;
        segments.forget(number);
        *removed += 1;
        disk.sync_dir()?;
    }
    Ok(())
}

impl Reclaiming {
    pub(super) fn new(is_whole: bool) -> Self {
        Self {
            is_busy: false,
            can_punch: true,
            unpunchable: BTreeSet::new(),
            is_whole,
            unlinked_through: 0,
            unlink_not_before_secs: 0,
            not_before_secs: 0,
        }
    }

    /// Whether freed bytes can come back without their segment.
    pub(super) fn can_punch(&self) -> bool {
        self.can_punch
    }
}

impl Writer {
    /// The next slice of bytes to give back, if there is any; its outcome is expected by
    /// [`Self::reclaimed`] before there is another.
    ///
    /// # Errors
    /// When a record about it cannot be written, or the index cannot be read.
    pub fn reclaim(&mut self) -> Result<Option<ReclaimJob>, StoreError> {
        if !self.reclaiming.is_busy {
            self.end_round()?;
        }
        let state = &self.reclaiming;
        let may = state.is_whole && !state.is_busy && self.now >= state.not_before_secs;
        if !may || self.overlay.is_lagging() || !self.has_reclaimable()? {
            return Ok(None);
        }
        let slice = self.next_slice();
        self.rest_after(&slice);
        slice
    }

    /// A disk that refuses records is asked again in a second, and not at once.
    fn rest_after<T>(&mut self, outcome: &Result<T, StoreError>) {
        if outcome.is_err() {
            self.reclaiming.not_before_secs = self.now + 1;
        }
    }

    fn next_slice(&mut self) -> Result<Option<ReclaimJob>, StoreError> {
        // From here on the map holds nothing that is not durable.
        if !has(Bug::PunchesUnburied) {
            self.sync()?;
        }
        for _ in 0..RETIRE_RECORDS_MAX {
            let Some(record) = self.retirement()? else { break };
            self.submit(record, None)?;
            self.sync()?;
        }
        let job = match self.unlinkable()? {
            Some(through) => Some(ReclaimJob::Unlink { through }),
            None => match self.punchable()? {
                Some(job) => Some(job),
                None => self.compaction()?,
            },
        };
        self.reclaiming.is_busy = job.is_some();
        Ok(job)
    }

    /// Notes what came of a slice.
    ///
    /// # Errors
    /// When the record about it cannot be written; the slice will be repeated.
    pub fn reclaimed(&mut self, done: Reclaimed) -> Result<(), StoreError> {
        self.reclaiming.is_busy = false;
        bump(&self.counters.reclaimed_segments, done.unlinked);
        for (segment, error) in &done.refused {
            self.leave_alone(*segment, error);
        }
        if let Some(error) = &done.failure {
            self.reclaiming.unlink_not_before_secs = self.now + PAUSE_SECS;
            tracing::error!(%error, pause_secs = PAUSE_SECS, "an old segment was not removed");
        } else if let ReclaimJob::Unlink { through } = done.job {
            self.reclaiming.unlinked_through = through;
        }
        if let Some(slice) = done.slice {
            let written = self.compacted(slice);
            self.rest_after(&written);
            return written;
        }
        if done.punched.is_empty() {
            return Ok(());
        }
        let record = Planned::reclaim(Reclaim::Punched { records: done.punched });
        let noted = self.submit(record, None).and_then(|()| self.sync());
        self.rest_after(&noted);
        noted?;
        bump(&self.counters.reclaimed_bytes, done.punched_bytes);
        Ok(())
    }

    fn leave_alone(&mut self, segment: u32, error: &io::Error) {
        if error.kind() != io::ErrorKind::Unsupported {
            tracing::error!(segment, %error, "it takes no holes before the next start");
            self.reclaiming.unpunchable.insert(segment);
        } else if std::mem::take(&mut self.reclaiming.can_punch) {
            tracing::warn!(
                "this file system makes no holes: freed bytes come back with whole segments only"
            );
        }
    }

    /// Dead records of which holes can be made.
    fn holes(&self, limit: usize) -> Result<Vec<(Position, DeadRecord)>, IndexError> {
        if !self.reclaiming.can_punch {
            return Ok(Vec::new());
        }
        Catalog(&self.overlay.stage()).punchable(limit, &self.reclaiming.unpunchable)
    }

    fn has_reclaimable(&self) -> Result<bool, IndexError> {
        let holes = self.holes(1)?;
        let is_any = !holes.is_empty()
            || self.unlinkable()?.is_some()
            || self.retirement()?.is_some()
            || self.compacts()?.is_some();
        Ok(is_any)
    }

    fn unlinkable(&self) -> Result<Option<u32>, IndexError> {
        let through = Catalog(&self.overlay.stage()).gone_through()?;
        let state = &self.reclaiming;
        let is_due = self.now >= state.unlink_not_before_secs;
        Ok((is_due && through > state.unlinked_through).then_some(through))
    }

    /// The next record on the way out of the oldest segment, if nothing keeps it.
    fn retirement(&self) -> Result<Option<Planned>, IndexError> {
        let view = self.overlay.stage();
        let Some((number, segment)) = Catalog(&view).oldest_segment()? else { return Ok(None) };
        // The newest segment with a durable record stays: it says where the log is.
        let is_needed = segment.anchors > 0 && !has(Bug::UnlinksAnchored);
        if number >= self.mark.segment || is_needed {
            return Ok(None);
        }
        let dead = Catalog(&view).dead_records(number, u64::MAX, CLEAR_RECORDS_MAX)?;
        Ok(Some(Planned::reclaim(match dead.last() {
            Some((last, _)) => Reclaim::Cleared { segment: number, until: last.offset + 1 },
            None => Reclaim::Gone { through: number },
        })))
    }

    fn punchable(&mut self) -> Result<Option<ReclaimJob>, StoreError> {
        let mut holes = Vec::new();
        let mut bytes = 0;
        for (at, record) in self.holes(PUNCH_RECORDS_MAX)? {
            if let Some((start, len)) = record.hole(at.offset)
                && bytes < PUNCH_BYTES_MAX
            {
                bytes += len;
                holes.push(Hole { at, start, len });
            }
        }
        let is_newest = |hole: &Hole| hole.at.segment == self.mark.segment;
        if holes.iter().any(is_newest) && !has(Bug::PunchesUnfenced) {
            self.submit(Planned::clock(false), None)?;
            let before = self.mark.sequence;
            self.sync()?;
            if self.mark.sequence == before {
                return Ok(None);
            }
        }
        Ok((!holes.is_empty()).then_some(ReclaimJob::Punch(holes)))
    }
}

impl Planned {
    fn reclaim(reclaim: Reclaim) -> Self {
        Self { id: [0; 32], body: Body::Reclaim(reclaim), payload: Payload::None }
    }
}
