// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads everything that is kept, from the disk itself, before somebody needs it.
//!
//! - A **pass** goes through the segments in order: every record's header and meta, both copies of
//!   every segment's header, its footer, which must say what the records say, and the bytes and
//!   hash tree of every shard and block that is kept.
//!   What is dead is passed over: it may be a hole.
//! - Damage is set aside as by any reader ([`crate::reader`]) and told to whoever listens
//!   ([`crate::Store::damage`]); it is remembered over restarts and looked at first.
//! - A thread of its own does this, at `scrub_bytes_per_sec`, every `scrub_interval_secs` of
//!   running time. It can be started, paused and resumed, and goes on where it was.
//!
//! `scrub.json` in the data directory holds the position. Without it a pass begins anew.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, ShardId};

use crate::catalog::{Thing, keys, thing_of, visit};
use crate::error::StoreError;
use crate::index::Mark;
use crate::metrics::Counters;
use crate::reader::Reader;
use crate::record::Position;
use crate::segment::{
    FooterCheck, FoundRecord, Predecessor, SEGMENT_HEADER_BYTES, ScanRange, Segment, Tail,
    scan_segment,
};

/// Where the position is kept.
const FILE: &str = "scrub.json";
/// How often it is written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Things whose damage is remembered by name; the rest of it is counted.
const REMEMBERED_MAX: usize = 4096;
/// What one direct read of a record's head costs.
const HEAD_READ_BYTES: u64 = 4096;
/// Debts below this are not worth a sleep.
const NAP: Duration = Duration::from_millis(5);
/// How long it rests when it cannot go on.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// How long a stop waits for it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting thread looks at the running time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// When and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScrubConfig {
    /// Seconds from the end of a pass to the next; 0 for only when asked.
    pub(crate) interval_secs: u64,
    /// Speed; 0 for as fast as it goes.
    pub(crate) bytes_per_sec: u64,
}

/// What the scrub does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubState {
    /// Nothing, until the next pass is due.
    #[default]
    Waiting,
    /// A pass.
    Running,
    /// Nothing, until it is resumed.
    Paused,
}

/// What an operator may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubCommand {
    /// Begin a pass now; resumes one that is paused.
    Start,
    /// Stop where it is.
    Pause,
    /// Go on.
    Resume,
}

impl FromStr for ScrubCommand {
    type Err = UnknownCommand;

    fn from_str(text: &str) -> Result<Self, UnknownCommand> {
        match text {
            "start" => Ok(Self::Start),
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            _ => Err(UnknownCommand),
        }
    }
}

/// No command of the scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scrub is told to start, pause or resume")]
pub struct UnknownCommand;

/// How far the scrub is and what it found. Seconds are the node's running time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubStatus {
    /// What it does now.
    pub state: ScrubState,
    /// When this pass, or the last one, began.
    pub started_secs: u64,
    /// When the last whole pass ended; 0 for never.
    pub finished_secs: u64,
    /// Whole passes so far.
    pub passes: u64,
    /// Bytes of the log that this pass has behind it.
    pub passed_bytes: u64,
    /// Bytes of the log when it began.
    pub total_bytes: u64,
    /// Records whose header and meta were whole.
    pub records: u64,
    /// Shards and blocks whose bytes were.
    pub verified: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Shards, blocks, stretches of the log, and copies of what it says (headers of segments,
    /// footers) that are damaged.
    pub damaged: u64,
    /// Shards, blocks and segments that the disk would not read.
    pub unreadable: u64,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    status: ScrubStatus,
    /// Where a pass goes on; nothing between passes.
    next: Option<(u32, u64)>,
    /// What was found damaged, and where.
    damaged: Vec<(Thing, Position)>,
}

/// What became of a shard or block.
enum Found {
    /// Its bytes, which were read.
    Whole(u64),
    Damaged,
    Unreadable,
    /// Not kept, or not from there.
    Elsewhere,
}

impl Found {
    fn len(&self) -> u64 {
        match self {
            Self::Whole(len) => *len,
            Self::Damaged | Self::Unreadable | Self::Elsewhere => 0,
        }
    }
}

/// The handle of the thread. The last one to go ends it.
pub(crate) struct Scrub {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    counters: Arc<Counters>,
}

struct State {
    progress: Progress,
    /// Why nothing goes on.
    failure: Option<StoreError>,
    is_closing: bool,
}

impl Progress {
    /// Begins a pass.
    fn begin(&mut self, counters: &Counters) {
        let ScrubStatus { finished_secs, passes, .. } = self.status;
        self.status = ScrubStatus {
            state: ScrubState::Running,
            started_secs: counters.running_secs.load(Ordering::Relaxed),
            finished_secs,
            passes,
            total_bytes: counters.usage.lock().log_bytes,
            ..ScrubStatus::default()
        };
        self.next = Some((0, 0));
    }
}

struct Scrubber {
    shared: Arc<Shared>,
    reader: Arc<Reader>,
    config: ScrubConfig,
    /// Nothing for a store without a directory.
    file: Option<PathBuf>,
    saved: Instant,
    /// What the pace says is to be waited for.
    debt: Duration,
    lost: Vec<Lost>,
}

impl Scrub {
    /// Goes on where the directory says, in a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn spawn(
        reader: Arc<Reader>,
        counters: Arc<Counters>,
        config: ScrubConfig,
        directory: Option<PathBuf>,
    ) -> Result<Self, StoreError> {
        let file = directory.map(|directory| directory.join(FILE));
        let progress = file.as_ref().and_then(|file| load(file)).unwrap_or_default();
        let state = Mutex::new(State { progress, failure: None, is_closing: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), counters });
        let scrubber = Scrubber {
            shared: Arc::clone(&shared),
            reader,
            config,
            file,
            saved: Instant::now(),
            debt: Duration::ZERO,
            lost: Vec::new(),
        };
        let thread = Builder::new()
            .name("store-scrub".to_owned())
            .spawn(move || scrubber.run())
            .map_err(|error| StoreError::io("start the scrub's thread", error))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn status(&self) -> ScrubStatus {
        self.shared.state.lock().progress.status
    }

    pub(crate) fn command(&self, command: ScrubCommand) -> ScrubStatus {
        let mut state = self.shared.state.lock();
        let progress = &mut state.progress;
        match command {
            ScrubCommand::Start if progress.next.is_none() => progress.begin(&self.shared.counters),
            ScrubCommand::Pause => progress.status.state = ScrubState::Paused,
            ScrubCommand::Start | ScrubCommand::Resume => {
                progress.status.state = match progress.next {
                    Some(_) => ScrubState::Running,
                    None => ScrubState::Waiting,
                };
            }
        }
        self.shared.changed.notify_all();
        state.progress.status
    }

    /// Why it does not go on, if it does not.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        let has_ended = self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished);
        let ended = has_ended.then(|| StoreError::stopped("the scrub's thread has ended"));
        self.shared.state.lock().failure.clone().or(ended)
    }

    /// Ends the thread, and waits for the record it is at. Blocks, but not for a disk that hangs.
    pub(crate) fn close(&self) {
        self.ask_to_close();
        let Some(thread) = self.thread.lock().take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() {
            if begun.elapsed() > CLOSE_PATIENCE {
                tracing::error!("the scrub waits for the disk; it is left behind");
                return;
            }
            std::thread::sleep(NAP);
        }
        if thread.join().is_err() {
            tracing::error!("the scrub panicked");
        }
    }

    /// Ends the thread when it next looks, without waiting for that.
    pub(crate) fn ask_to_close(&self) {
        self.shared.state.lock().is_closing = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.ask_to_close();
    }
}

fn load(file: &std::path::Path) -> Option<Progress> {
    let text = fs::read_to_string(file).ok()?;
    let progress = serde_json::from_str(&text);
    if let Err(error) = &progress {
        tracing::warn!(%error, file = %file.display(), "a scrub begins anew");
    }
    progress.ok()
}

/// Why it does not go on.
enum Stop {
    /// The handle is gone or closes.
    Closing,
    /// Map or directory cannot be read; the pass goes on later where it is.
    Failed(StoreError),
}

impl Stop {
    fn failure(self) -> Option<StoreError> {
        match self {
            Self::Closing => None,
            Self::Failed(error) => Some(error),
        }
    }
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a damaged log may have hidden something that is kept.
struct Lost {
    segment: u32,
    offsets: Range<u64>,
}

impl Scrubber {
    fn run(mut self) {
        // What was damaged is known again before anybody asks for it.
        let mut work = Self::look_again as fn(&mut Self) -> Result<(), Stop>;
        loop {
            match work(&mut self) {
                Err(Stop::Closing) => break,
                outcome => self.shared.state.lock().failure = outcome.err().and_then(Stop::failure),
            }
            if self.rest().is_err() {
                break;
            }
            work = Self::serve;
        }
        self.save();
    }

    /// Passes, for ever.
    fn serve(&mut self) -> Result<(), Stop> {
        loop {
            self.wait_for_a_pass()?;
            self.pass()?;
            self.end_pass();
            self.save();
        }
    }

    /// Waits a while after a failure.
    fn rest(&self) -> Result<(), Stop> {
        let mut state = self.shared.state.lock();
        let Some(error) = state.failure.clone() else { return Ok(()) };
        tracing::error!(%error, pause = ?FAILURE_PAUSE, "the scrub cannot go on");
        let until = Instant::now() + FAILURE_PAUSE;
        while !state.is_closing && Instant::now() < until {
            self.shared.changed.wait_until(&mut state, until);
        }
        if state.is_closing { Err(Stop::Closing) } else { Ok(()) }
    }

    /// Looks at what an earlier run found damaged.
    fn look_again(&mut self) -> Result<(), Stop> {
        let remembered = self.shared.state.lock().progress.damaged.clone();
        for (thing, at) in remembered {
            let found = self.check(thing, at)?;
            self.remember(thing, at, &found);
            self.keep_going(found.len())?;
        }
        Ok(())
    }

    fn wait_for_a_pass(&mut self) -> Result<(), Stop> {
        let mut state = self.shared.state.lock();
        loop {
            if state.is_closing {
                return Err(Stop::Closing);
            }
            let status = state.progress.status;
            if status.state != ScrubState::Paused {
                let now = self.shared.counters.running_secs.load(Ordering::Relaxed);
                let due_secs = status.finished_secs.saturating_add(self.config.interval_secs);
                let is_due = self.config.interval_secs > 0 && now >= due_secs;
                if is_due && state.progress.next.is_none() {
                    state.progress.begin(&self.shared.counters);
                }
                if state.progress.next.is_some() {
                    state.progress.status.state = ScrubState::Running;
                    return Ok(());
                }
            }
            self.shared.changed.wait_for(&mut state, LOOK_INTERVAL);
        }
    }

    fn end_pass(&self) {
        let mut state = self.shared.state.lock();
        let Progress { status, next, .. } = &mut state.progress;
        if next.take().is_some() {
            status.passes += 1;
            status.finished_secs = self.shared.counters.running_secs.load(Ordering::Relaxed);
            tracing::info!(?status, "a scrub has gone through everything");
        }
        if status.state == ScrubState::Running {
            status.state = ScrubState::Waiting;
        }
    }

    /// Goes through all segments from where the last one stopped.
    fn pass(&mut self) -> Result<(), Stop> {
        let segments = Arc::clone(self.reader.segments());
        let (numbers, mark) = (segments.numbers()?, self.reader.overlay().mark()?);
        let (first, from) = self.shared.state.lock().progress.next.unwrap_or_default();
        for (position, number) in numbers.iter().copied().enumerate() {
            if number < first || number > mark.segment {
                continue;
            }
            let from = if number == first { from } else { 0 };
            match segments.segment(number) {
                Ok(segment) => {
                    // A successor that cannot be read is passed over: the next one says as much as
                    // is sure.
                    let mut later = numbers[position + 1..].iter();
                    let next = later.find_map(|next| segments.segment(*next).ok());
                    let stated = stated(&segment, next.as_ref());
                    self.segment(&segment, range(&segment, next.as_ref(), mark, from), stated)?;
                }
                Err(error) => self.unreadable_segment(number, 0, &error)?,
            }
            self.look_for_lost()?;
            self.shared.state.lock().progress.next = Some((number + 1, 0));
        }
        Ok(())
    }

    fn unreadable_segment(
        &mut self,
        number: u32,
        from: u64,
        error: &StoreError,
    ) -> Result<(), Stop> {
        // It may have been given back since it was listed.
        if number > self.reader.catalog().gone_through()? {
            tracing::error!(segment = number, %error, "a segment cannot be read");
            self.shared.state.lock().progress.status.unreadable += 1;
            self.lost.push(Lost { segment: number, offsets: from..u64::MAX });
        }
        Ok(())
    }

    fn segment(
        &mut self,
        segment: &Segment,
        range: ScanRange,
        stated: Option<Predecessor>,
    ) -> Result<(), Stop> {
        let segment = segment.cold();
        if range.from == 0 {
            self.headers(&segment);
        }
        let mut footer = None;
        if let Some((place, end)) = stated.and_then(|it| Some((it.footer?, it.end))) {
            footer = Some(FooterCheck::begin(&segment, place, end));
            self.owe(place.len);
        }
        let mut expected = range.from.max(SEGMENT_HEADER_BYTES as u64);
        let mut stop = Ok(());
        let outcome = scan_segment(&segment, range, |found| {
            // Records follow each other without gaps.
            if found.at.offset > expected {
                self.damaged_range(found.at.segment, expected..found.at.offset);
            }
            expected = found.end();
            footer.iter_mut().for_each(|footer| footer.record(&found.header));
            stop = self.record(&found);
            let goes_on = stop.is_ok();
            goes_on.then_some(()).ok_or_else(|| StoreError::stopped("the scrub stops here"))
        });
        stop?;
        let number = segment.header.number;
        if let Some(fault) = footer.as_ref().and_then(FooterCheck::fault) {
            // Nothing is lost with it: it says what the records say.
            tracing::warn!(segment = number, %fault, "a segment's footer is damaged");
            self.shared.state.lock().progress.status.damaged += 1;
        }
        match outcome {
            Ok(extent) => {
                let ends = extent.damage.iter().map(|damage| damage.to).max();
                if let Some(end) = ends.filter(|end| *end > expected) {
                    self.damaged_range(number, expected..end);
                }
                Ok(())
            }
            Err(error) => self.unreadable_segment(number, expected, &error),
        }
    }

    fn damaged_range(&mut self, segment: u32, offsets: Range<u64>) {
        tracing::error!(segment, ?offsets, "the log is damaged");
        self.shared.state.lock().progress.status.damaged += 1;
        self.lost.push(Lost { segment, offsets });
    }

    /// Looks at what is kept where the log is damaged: no record has led there.
    fn look_for_lost(&mut self) -> Result<(), Stop> {
        let lost = std::mem::take(&mut self.lost);
        if lost.is_empty() {
            return Ok(());
        }
        let mut found: Vec<(Thing, Position)> = Vec::new();
        let reader = Arc::clone(&self.reader);
        for prefix in [keys::SHARD, keys::BLOCK] {
            visit(&**reader.overlay(), prefix, |key, _| {
                let Some(thing) = thing_of(key, 0) else { return Ok(()) };
                let Some(kept) = reader.catalog().kept(thing)? else { return Ok(()) };
                let is_there = |lost: &Lost| {
                    lost.segment == kept.at.segment && lost.offsets.contains(&kept.at.offset)
                };
                found.extend(lost.iter().any(is_there).then_some((thing, kept.at)));
                Ok(())
            })?;
        }
        for (thing, at) in found {
            let found = self.check(thing, at)?;
            self.remember(thing, at, &found);
            self.keep_going(found.len())?;
        }
        Ok(())
    }

    fn headers(&self, segment: &Segment) {
        let mut blocks = vec![0; SEGMENT_HEADER_BYTES];
        let read = segment.file.read_at(0, &mut blocks);
        let status = &mut self.shared.state.lock().progress.status;
        match read {
            Ok(_) => {
                let damaged = segment.header.damaged_copies(&blocks);
                if damaged > 0 {
                    let number = segment.header.number;
                    tracing::error!(segment = number, damaged, "a segment's header is damaged");
                }
                status.damaged += damaged;
            }
            Err(error) => {
                tracing::error!(segment = segment.header.number, %error, "no header can be read");
                status.unreadable += 1;
            }
        }
    }

    fn record(&mut self, found: &FoundRecord) -> Result<(), Stop> {
        let (id, at, end) = (found.header.id, found.at, found.end());
        let thing = match found.header.kind {
            kind if kind.is_shard() => Some(Thing::Shard(ShardId::from_bytes(id))),
            kind if kind.is_block() => Some(Thing::Block(Cid::from_bytes(id))),
            _ => None,
        };
        let found = match thing {
            Some(thing) => {
                let found = self.check(thing, at)?;
                self.remember(thing, at, &found);
                found
            }
            None => Found::Elsewhere,
        };
        {
            let Progress { status, next, .. } = &mut self.shared.state.lock().progress;
            status.records += 1;
            status.passed_bytes += end - at.offset;
            *next = Some((at.segment, end));
            match found {
                Found::Whole(len) => {
                    status.verified += 1;
                    status.verified_bytes += len;
                }
                Found::Damaged => status.damaged += 1,
                Found::Unreadable => status.unreadable += 1,
                Found::Elsewhere => {}
            }
        }
        self.keep_going(HEAD_READ_BYTES + found.len())
    }

    /// Checks a thing, if it is the record at `at` that is kept.
    fn check(&self, thing: Thing, at: Position) -> Result<Found, Stop> {
        let kept =
            || Ok::<_, Stop>(self.reader.catalog().kept(thing)?.filter(|kept| kept.at == at));
        let Some(found) = kept()? else { return Ok(Found::Elsewhere) };
        Ok(match self.reader.verify_on_disk(thing, &found) {
            Ok(()) => Found::Whole(found.len),
            // Freed or put anew in this very moment.
            Err(_) if kept()?.is_none() => Found::Elsewhere,
            // Who reads says what is damaged.
            Err(StoreError::Damaged { .. }) => Found::Damaged,
            Err(error) => {
                tracing::error!(?thing, %error, "what is kept cannot be read");
                Found::Unreadable
            }
        })
    }

    fn remember(&self, thing: Thing, at: Position, found: &Found) {
        let damaged = &mut self.shared.state.lock().progress.damaged;
        damaged.retain(|(known, _)| *known != thing);
        if matches!(found, Found::Damaged | Found::Unreadable) && damaged.len() < REMEMBERED_MAX {
            damaged.push((thing, at));
        }
    }

    /// Notes what was read, for the pace.
    fn owe(&mut self, read: u64) {
        if let Some(nanos) = (read * 1_000_000_000).checked_div(self.config.bytes_per_sec) {
            self.debt += Duration::from_nanos(nanos);
        }
    }

    /// Waits as the pace and the operator want it; ends with the handle.
    fn keep_going(&mut self, read: u64) -> Result<(), Stop> {
        self.owe(read);
        let is_paused = self.shared.state.lock().progress.status.state == ScrubState::Paused;
        // A pause outlives whatever ends this process.
        if is_paused || self.saved.elapsed() >= SAVE_INTERVAL {
            self.save();
        }
        let mut state = self.shared.state.lock();
        if self.debt >= NAP && !state.is_closing {
            let begun = Instant::now();
            self.shared.changed.wait_for(&mut state, self.debt);
            self.debt = self.debt.saturating_sub(begun.elapsed());
        }
        while state.progress.status.state == ScrubState::Paused && !state.is_closing {
            self.shared.changed.wait(&mut state);
        }
        if state.is_closing { Err(Stop::Closing) } else { Ok(()) }
    }

    /// Writes the position down. Losing it costs time only, so nothing waits for the disk.
    fn save(&mut self) {
        self.saved = Instant::now();
        let Some(file) = &self.file else { return };
        let progress = self.shared.state.lock().progress.clone();
        let written = serde_json::to_string(&progress).map_err(io::Error::other).and_then(|text| {
            let fresh = file.with_extension("json.new");
            fs::write(&fresh, text + "\n")?;
            fs::rename(&fresh, file)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "how far the scrub is cannot be written down");
        }
    }
}

/// What its successor says of a segment.
fn stated(segment: &Segment, next: Option<&Segment>) -> Option<Predecessor> {
    let previous = next.map(|next| next.header.previous);
    previous.filter(|previous| previous.number == segment.header.number)
}

/// What of a segment holds records for certain.
fn range(segment: &Segment, next: Option<&Segment>, mark: Mark, from: u64) -> ScanRange {
    let number = segment.header.number;
    let tail = match stated(segment, next) {
        _ if number == mark.segment => Tail::Stated(mark.end),
        Some(previous) => Tail::Stated(previous.end),
        None => Tail::Open { durable: u64::MAX },
    };
    let before_sequence = next.map_or(mark.sequence + 1, |next| next.header.first_sequence);
    ScanRange { from, tail, after_sequence: segment.header.first_sequence - 1, before_sequence }
}
