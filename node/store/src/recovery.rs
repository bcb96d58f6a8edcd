// SPDX-License-Identifier: MIT OR Apache-2.0
//! From files to a store that knows where it stands.
//!
//! 1. Read all segment headers: which segments there are, and where each but the newest ends.
//! 2. Sync the newest segment: what a killed process left in the system's cache must be on disk
//!    before anybody builds on it.
//! 3. Open the index, or move it away and begin an empty one.
//! 4. Replay what is newer than the index's mark. Whether a rebuild or one lost second: the same.
//!    Of a sealed segment with a whole footer it reads that, and no record.
//!
//! What could not be read is remembered with the index, for as long as it is this one: a map that
//! lacks records is good enough to serve from, and no ground to free anything on.
//!
//! In the newest segment the records after the last certain sync are checked with their payloads: a
//! record whose header reached the disk may lack its bytes. The log ends before the first that is
//! not whole. Sealed segments were synced whole before their successor began.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use supernode_protocol::ids::NodeId;

use crate::catalog::{Catalog, Entry, IndexError, apply};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::index::{Index, Mark, OpenFailure, Overlay, SledIndex, SledOptions};
use crate::planted::{Bug, has};
use crate::record::{Body, Position};
use crate::segment::{
    Damage, FooterCheck, FooterPlace, FoundRecord, LogEnd, Predecessor, SEGMENT_HEADER_BYTES,
    SEGMENT_VERSION, ScanRange, Segment, Segments, Tail, counted, file_name, scan_segment, survey,
    visit_segment,
};

/// Entries that are written to the index together while replaying. sled keeps every node that a
/// batch replaces until the batch ends: with 16,000 entries that is half a gigabyte, and slower.
const REPLAY_BATCH_ENTRIES: usize = 1024;
/// More numbers than any lost segments can have used.
const LOST_SEQUENCES_MAX: u64 = 1 << 31;

/// Which segments there are and where they end.
pub struct Layout {
    /// Readable segments, oldest first.
    spans: Vec<Span>,
    /// Segments whose header is lost.
    bad: Vec<(u32, StoreError)>,
    /// Created, but never used: nothing was ever acknowledged in them.
    unborn: Vec<u32>,
    number_max: u32,
}

struct Span {
    segment: Segment,
    /// As its successor states.
    end: Option<u64>,
    /// The same.
    footer: Option<FooterPlace>,
}

impl Layout {
    /// Reads all segment headers.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] before anything is changed; I/O errors.
    pub fn read(segments: &Segments) -> Result<Self, StoreError> {
        let numbers = segments.numbers()?;
        let (mut found, mut headless) = (Vec::new(), Vec::new());
        for number in &numbers {
            match segments.segment(*number) {
                Ok(segment) => found.push(segment),
                Err(error @ StoreError::BadSegment { .. }) => headless.push((*number, error)),
                Err(error) => return Err(error),
            }
        }
        let ends: HashMap<_, _> = found
            .iter()
            .map(|segment| (segment.header.previous.number, segment.header.previous))
            .collect();
        let (mut bad, mut unborn) = (Vec::new(), Vec::new());
        for (number, error) in headless {
            // Whatever is left of its file, a successor knows whether records were in it.
            let was_used = ends.get(&number).is_some_and(|it| it.end > SEGMENT_HEADER_BYTES as u64);
            if !was_used && is_short(segments, number)? {
                unborn.push(number);
            } else {
                bad.push((number, error));
            }
        }
        let spans = found
            .into_iter()
            .map(|segment| {
                let stated = ends.get(&segment.header.number);
                let (end, footer) = (stated.map(|it| it.end), stated.and_then(|it| it.footer));
                Span { segment, end, footer }
            })
            .collect();
        Ok(Self { spans, bad, unborn, number_max: numbers.last().copied().unwrap_or(0) })
    }

    /// The same, without a look at footers: what the records themselves say.
    #[must_use]
    pub fn without_footers(mut self) -> Self {
        self.spans.iter_mut().for_each(|span| span.footer = None);
        self
    }

    /// Refuses a directory that belongs to another node.
    fn check_owner(&self, node: NodeId) -> Result<(), StoreError> {
        match self.spans.iter().map(|span| span.segment.header.node).find(|found| *found != node) {
            Some(found) => Err(StoreError::ForeignNode { expected: node, found }),
            None => Ok(()),
        }
    }

    /// Whether an index with this mark can have come from this log.
    fn fits(&self, mark: &Mark) -> Result<bool, StoreError> {
        if mark.sequence == 0 {
            return Ok(true);
        }
        let span = self.spans.iter().find(|span| span.segment.header.number == mark.segment);
        let Some(span) = span.filter(|span| span.segment.header.tag == mark.tag) else {
            return Ok(false);
        };
        Ok(mark.end <= length(&span.segment)?.min(span.end.unwrap_or(u64::MAX)))
    }

    /// Whether this log is the one with this mark: then it has all that was durable by then.
    fn has(&self, mark: &Mark) -> bool {
        let headers = self.spans.iter().map(|span| span.segment.header);
        headers.into_iter().any(|header| (header.number, header.tag) == (mark.segment, mark.tag))
    }

    /// Why an index that opened cannot be used with this log, if it cannot.
    fn objection(&self, index: &dyn Index) -> Result<Option<OpenFailure>, StoreError> {
        let mark = index.mark();
        if !self.fits(&mark)? {
            let detail = format!("it follows another log: {mark:?}");
            return Ok(Some(OpenFailure::new("mark", detail)));
        }
        let unseen = self.unseen(index, &mark).and_then(|unseen| match unseen {
            Some(number) => {
                let detail = format!("segment {number} was not readable when it was built");
                Ok(Some(OpenFailure::new("segment", detail)))
            }
            None => self.miscounted(index, &mark),
        });
        Ok(unseen.unwrap_or_else(|error| Some(OpenFailure::new("error", error.to_string()))))
    }

    /// A segment before the mark with records of which the index has none: it was unreadable, and
    /// somebody has restored it.
    fn unseen(&self, index: &dyn Index, mark: &Mark) -> Result<Option<u32>, StoreError> {
        let catalog = Catalog(index);
        let gone_through = catalog.gone_through()?;
        for span in &self.spans {
            let number = span.segment.header.number;
            let is_passed = number > gone_through && number <= mark.segment;
            if is_passed && catalog.segment(number)?.records == 0 && self.holds_records(span)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// A segment before the mark with another number of records than its footer says.
    fn miscounted(
        &self,
        index: &dyn Index,
        mark: &Mark,
    ) -> Result<Option<OpenFailure>, StoreError> {
        let catalog = Catalog(index);
        let gone_through = catalog.gone_through()?;
        for Span { segment, end, footer } in &self.spans {
            let (Some(end), Some(footer)) = (*end, *footer) else { continue };
            let number = segment.header.number;
            if number <= gone_through || number >= mark.segment {
                continue;
            }
            let records = catalog.segment(number)?.records;
            let stated = counted(segment, footer, end, |count| count == records);
            if let Some(stated) = stated.filter(|stated| *stated != records) {
                let detail = format!(
                    "it has {records} records of segment {number}, whose footer has {stated}"
                );
                return Ok(Some(OpenFailure::new("footer", detail)));
            }
        }
        Ok(None)
    }

    /// Holds each footer against the records of its segment.
    ///
    /// # Errors
    /// When a segment cannot be read at all.
    pub(crate) fn check_footers(&self) -> Result<CheckedFooters, StoreError> {
        let mut checked = CheckedFooters::default();
        for span in &self.spans {
            let (Some(end), Some(place)) = (span.end, span.footer) else { continue };
            let mut check = FooterCheck::begin(&span.segment, place, end);
            scan_segment(&span.segment, self.range(span, Mark::default())?, |found| {
                check.record(&found.header);
                Ok(())
            })?;
            let number = span.segment.header.number;
            match check.fault() {
                None => checked.whole += 1,
                Some(fault) => {
                    tracing::warn!(segment = number, %fault, "a segment's footer is damaged");
                    checked.damaged.push(number);
                }
            }
        }
        Ok(checked)
    }

    fn holds_records(&self, span: &Span) -> Result<bool, StoreError> {
        let mut holds = false;
        let range = self.range(span, Mark::default())?;
        scan_segment(&span.segment, range, |_| {
            holds = true;
            Ok(())
        })?;
        Ok(holds)
    }

    /// What of a segment is to be visited after a mark.
    fn range(&self, span: &Span, mark: Mark) -> Result<ScanRange, StoreError> {
        let number = span.segment.header.number;
        let from = if number == mark.segment { mark.end } else { 0 };
        let tail = match span.end {
            Some(end) => Tail::Stated(end),
            // Sealed, but whatever says where is lost: a file that came after it shows that all
            // that counts was durable. A hole in it is no torn end.
            None if self.is_followed(number) => Tail::Open { durable: u64::MAX },
            None => {
                let durable = survey(&span.segment, from, mark.sequence)?;
                Tail::Open { durable: durable.max(mark.sequence) }
            }
        };
        let next = self.spans.iter().find(|next| next.segment.header.number > number);
        let before_sequence = next.map_or(u64::MAX, |next| next.segment.header.first_sequence);
        Ok(ScanRange { from, tail, after_sequence: mark.sequence, before_sequence })
    }

    /// Whether a segment that was used came after this one, readable or not.
    fn is_followed(&self, number: u32) -> bool {
        let readable = self.spans.last().map(|span| span.segment.header.number);
        readable.into_iter().chain(self.bad_numbers()).any(|other| other > number)
    }

    fn bad_numbers(&self) -> impl Iterator<Item = u32> {
        self.bad.iter().map(|(number, _)| *number)
    }

    /// Segments that cannot be read.
    pub fn bad_segments(&self) -> &[(u32, StoreError)] {
        &self.bad
    }

    /// Number of readable segments.
    pub fn segment_count(&self) -> usize {
        self.spans.len()
    }
}

/// What became of the footers that are stated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckedFooters {
    /// How many say what the records say.
    pub(crate) whole: u64,
    /// Segments whose footer does not.
    pub(crate) damaged: Vec<u32>,
}

/// Whether the file has no room for records.
fn is_short(segments: &Segments, number: u32) -> Result<bool, StoreError> {
    let name = file_name(number);
    let file = segments.disk().open(&name, false);
    let len = file.and_then(|file| file.len());
    let len = len.map_err(|error| StoreError::io(format!("measure segment {name}"), error))?;
    Ok(len <= SEGMENT_HEADER_BYTES as u64)
}

fn length(segment: &Segment) -> Result<u64, StoreError> {
    segment.file.len().map_err(|error| StoreError::io("measure a segment", error))
}

/// Where a replay ended.
pub struct Replayed {
    /// The end of the log.
    pub(crate) end: LogEnd,
    /// The mark of an index that has seen all of it.
    pub mark: Mark,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Records visited.
    pub records: u64,
    /// Bytes of torn tail in the newest segment.
    pub tail_bytes: u64,
    /// Segments whose footer was read, and no record.
    pub footers: u64,
}

/// Visits every record after a mark, in order, each with the mark that follows it.
///
/// # Errors
/// What `visit` returns, or an unreadable or newer segment.
pub fn replay(
    layout: &Layout,
    from: Mark,
    mut visit: impl FnMut(FoundRecord, Mark) -> Result<(), StoreError>,
) -> Result<Replayed, StoreError> {
    let mut mark = from;
    let lost = |after, before| layout.bad_numbers().any(|bad| after < bad && bad < before);
    let mut replayed = Replayed {
        end: LogEnd { last: Predecessor::bare(0, 0), open: false, number_max: layout.number_max },
        mark,
        damage: Vec::new(),
        records: 0,
        tail_bytes: 0,
        footers: 0,
    };
    for span in layout.spans.iter().filter(|span| span.segment.header.number >= from.segment) {
        let header = span.segment.header;
        mark.lossy |= lost(mark.segment, header.number);
        let range = layout.range(span, mark)?;
        let (extent, by_footer) = visit_segment(&span.segment, span.footer, range, |found| {
            let continues = mark.segment == header.number;
            let expected = if continues { mark.sequence + 1 } else { header.first_sequence };
            mark = Mark {
                sequence: found.header.sequence,
                segment: header.number,
                tag: header.tag,
                end: found.end(),
                running_secs: found.header.running_secs.max(mark.running_secs),
                stopped: found.body == Body::Clock { stopped: true },
                lossy: mark.lossy || found.header.sequence != expected,
            };
            replayed.records += 1;
            visit(found, mark)
        })?;
        mark.lossy |= !extent.damage.is_empty();
        replayed.footers += u64::from(by_footer);
        replayed.end.last = Predecessor::bare(header.number, extent.end);
        let is_last = mark.segment == header.number && !layout.is_followed(header.number);
        // What is new in our version of segments has no place in an older one.
        let is_ours = header.version == SEGMENT_VERSION;
        replayed.end.open = mark.stopped && is_last && is_ours && extent.tail_bytes == 0;
        replayed.tail_bytes = extent.tail_bytes;
        replayed.damage.extend(extent.damage);
    }
    // What is lost at the end may come back, and only counts as passed when something follows it.
    replayed.mark = Mark { lossy: mark.lossy || lost(mark.segment, u32::MAX), ..mark };
    Ok(replayed)
}

/// A found record as the catalog takes it.
pub fn entry_of(found: &FoundRecord) -> Entry<'_> {
    let shape = found.header.shape;
    Entry {
        id: &found.header.id,
        body: &found.body,
        running_secs: found.header.running_secs,
        at: found.at,
        payload_start: shape.payload_start(found.at.offset),
        payload_len: shape.payload_len,
        record_len: shape.record_len(found.at.offset),
    }
}

/// Where an index comes from, and what to do with one that cannot be trusted.
pub trait IndexSource {
    /// Opens it, or begins an empty one where there is none.
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure>;

    /// Moves it out of the way.
    fn discard(&self) -> std::io::Result<()>;
}

/// The index directory beside the segments.
pub struct SledSource {
    /// How to open it.
    pub options: SledOptions,
}

impl IndexSource for SledSource {
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure> {
        Ok(Arc::new(SledIndex::open(&self.options)?))
    }

    /// Renames the directory to `index.bad-<n>` and removes older ones of that name.
    fn discard(&self) -> std::io::Result<()> {
        let path = &self.options.path;
        let parent = path.parent().unwrap_or(Path::new("."));
        let old = set_aside(parent, path)?;
        let next = old.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        match fs::rename(path, sibling(path, next)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        old.into_iter().try_for_each(|(_, path)| fs::remove_dir_all(path))
    }
}

fn sibling(path: &Path, number: u64) -> PathBuf {
    path.with_file_name(format!("{}{number}", bad_prefix(path)))
}

fn bad_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.bad-")
}

fn set_aside(parent: &Path, path: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let prefix = bad_prefix(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(&prefix).and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found)
}

/// A directory brought up to date.
pub struct Recovered {
    /// Its segments.
    pub segments: Arc<Segments>,
    /// The map over the index.
    pub overlay: Arc<Overlay>,
    /// Where the log ends and what was wrong with it.
    pub replayed: Replayed,
    /// Why the index was rebuilt, if it was.
    pub rebuilt: Option<&'static str>,
    /// Segments whose header is lost.
    pub bad_segments: Vec<u32>,
}

impl Recovered {
    /// Whether the map was built from all records, and all of them are still there.
    pub fn is_whole(&self) -> bool {
        self.bad_segments.is_empty() && !self.replayed.mark.lossy
    }

    /// The number of the next record. Those of a lost segment at the end are not given again: it
    /// may be restored.
    pub(crate) fn sequence_next(&self) -> u64 {
        let Mark { sequence, segment, .. } = self.replayed.mark;
        let is_lost = self.bad_segments.iter().any(|number| *number > segment);
        sequence + 1 + if is_lost { LOST_SEQUENCES_MAX } else { 0 }
    }
}

/// An index to go on with.
struct Opened {
    index: Arc<dyn Index>,
    /// Why it is a new one, if it is.
    rebuilt: Option<&'static str>,
    /// What the one before had seen of this log.
    expected: Option<Mark>,
}

/// How to recover.
pub struct Recovery<'a> {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Whose it must be; `None` accepts any and removes no segment (tools).
    pub node: Option<NodeId>,
    /// Its index.
    pub index: &'a dyn IndexSource,
    /// Whether readers see what is not durable yet.
    pub relaxed: bool,
}

impl Recovery<'_> {
    /// Does all four steps.
    ///
    /// # Errors
    /// A newer format or a foreign owner before anything was changed; I/O errors; an index that
    /// does not even open when empty.
    pub fn run(self) -> Result<Recovered, StoreError> {
        let segments = Arc::new(Segments::new(Arc::clone(&self.disk)));
        let layout = Layout::read(&segments)?;
        if let Some(node) = self.node {
            layout.check_owner(node)?;
        }
        for (number, error) in &layout.bad {
            tracing::error!(segment = number, %error, "going on without this segment");
        }
        // Tools remove nothing, and nobody does where something is to be found out first.
        if self.node.is_some() && layout.bad.is_empty() {
            self.remove_unborn(&layout)?;
        }
        self.sync_newest(&layout)?;
        let Opened { index, mut rebuilt, expected } = self.open_index(&layout)?;
        if index.mark().sequence == 0 && !layout.spans.is_empty() {
            rebuilt = rebuilt.or(Some("missing"));
        }
        let overlay = Arc::new(Overlay::new(index, self.relaxed));
        let replayed = catch_up(&layout, &overlay, expected)?;
        let bad_segments = layout.bad_numbers().collect();
        for damage in &replayed.damage {
            let Damage { from, to, reason } = damage;
            tracing::error!(segment = from.segment, from = from.offset, to, reason, "damaged log");
        }
        // An empty log has nothing to be missing from.
        let rebuilt = rebuilt.filter(|reason| *reason != "missing" || replayed.records > 0);
        let recovered = Recovered { segments, overlay, replayed, rebuilt, bad_segments };
        if !recovered.is_whole() {
            tracing::error!(
                bad_segments = ?recovered.bad_segments,
                "records are missing: nothing is freed until they are restored, or the files with \
                 the damage are moved away, and the index is rebuilt"
            );
        }
        Ok(recovered)
    }

    fn remove_unborn(&self, layout: &Layout) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("remove an unused segment", error);
        for number in &layout.unborn {
            self.disk.remove(&file_name(*number)).map_err(failed)?;
            self.disk.sync_dir().map_err(failed)?;
        }
        Ok(())
    }

    fn sync_newest(&self, layout: &Layout) -> Result<(), StoreError> {
        let Some(span) = layout.spans.last() else { return Ok(()) };
        let name = file_name(span.segment.header.number);
        let file = self.disk.open(&name, true);
        file.and_then(|file| if has(Bug::BuildsOnUnsynced) { Ok(()) } else { file.sync_data() })
            .and_then(|()| self.disk.sync_dir())
            .map_err(|error| StoreError::io(format!("sync segment {name}"), error))
    }

    fn open_index(&self, layout: &Layout) -> Result<Opened, StoreError> {
        let mut expected = None;
        let failure = match self.index.open() {
            Ok(index) => match layout.objection(&*index)? {
                None => return Ok(Opened { index, rebuilt: None, expected }),
                Some(failure) => {
                    expected = Some(index.mark()).filter(|mark| layout.has(mark));
                    failure
                }
            },
            Err(failure) => failure,
        };
        tracing::warn!(reason = failure.reason, detail = failure.detail, "rebuilding the index");
        self.index.discard().map_err(|error| StoreError::io("set the index aside", error))?;
        let index = self.index.open().map_err(|again| StoreError::Index {
            reason: format!("an empty one does not open either: {again}"),
        })?;
        if index.mark() != Mark::default() {
            let reason = "it was set aside and is still there".to_owned();
            return Err(StoreError::Index { reason });
        }
        Ok(Opened { index, rebuilt: Some(failure.reason), expected })
    }
}

/// Applies to the index what it has not seen.
///
/// Up to `expected` the log was durable once. What is missing of that has rotted away.
fn catch_up(
    layout: &Layout,
    overlay: &Overlay,
    expected: Option<Mark>,
) -> Result<Replayed, StoreError> {
    let from = overlay.index()?.mark();
    let mut last = None;
    let mut replayed = replay(layout, from, |found, mark| {
        let mut staged = overlay.stage();
        apply(&mut staged, &entry_of(&found))?;
        overlay.add_unsynced(staged.into_changes());
        last = Some(mark);
        if overlay.unpublished_entries() >= REPLAY_BATCH_ENTRIES {
            write_through(overlay, mark)?;
        }
        Ok(())
    })?;
    if let Some(expected) = expected.filter(|mark| mark.sequence > replayed.mark.sequence) {
        let Predecessor { number: segment, end: offset, .. } = replayed.end.last;
        let reason = "the log ends before what was durable in it";
        let from = Position { segment, offset };
        replayed.damage.push(Damage { from, to: expected.end.max(offset), reason });
        replayed.mark.lossy = true;
        replayed.end.open = false;
        last = Some(replayed.mark);
    }
    if let Some(mark) = last {
        write_through(overlay, mark)?;
        overlay.index()?.checkpoint()?;
    }
    Ok(replayed)
}

fn write_through(overlay: &Overlay, mark: Mark) -> Result<(), IndexError> {
    overlay.publish(mark);
    overlay.flush().map(drop)
}
