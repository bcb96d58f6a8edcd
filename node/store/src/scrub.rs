// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads everything that is kept, from the disk itself, before somebody needs it.
//!
//! - A **pass** goes through the segments in order: every record's header and meta, both copies of
//!   every segment's header, and the bytes and hash tree of every shard and block that is kept.
//!   What is dead is passed over: it may be a hole.
//! - Damage is set aside as by any reader ([`crate::reader`]) and told to whoever listens
//!   ([`crate::Store::damage`]); it is remembered over restarts and looked at first.
//! - A thread of its own does this, at `scrub_bytes_per_sec`, every `scrub_interval_secs` of
//!   running time. It can be started, paused and resumed, and goes on where it was.
//!
//! `scrub.json` in the data directory holds the position. Without it a pass begins anew.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, ShardId};

use crate::catalog::Thing;
use crate::error::StoreError;
use crate::index::Mark;
use crate::metrics::Counters;
use crate::reader::Reader;
use crate::record::{Kind, Position};
use crate::segment::{FoundRecord, SEGMENT_HEADER_BYTES, ScanRange, Segment, Tail, scan_segment};

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
    /// Shards, blocks and stretches of the log that are damaged.
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
    Whole(u64),
    Damaged,
    Unreadable,
    /// Not kept, or not from there.
    Elsewhere,
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
        let state = Mutex::new(State { progress, is_closing: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), counters });
        let scrubber = Scrubber {
            shared: Arc::clone(&shared),
            reader,
            config,
            file,
            saved: Instant::now(),
            debt: Duration::ZERO,
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

    /// Ends the thread, and waits for the record it is at. Blocks.
    pub(crate) fn close(&self) {
        self.ask_to_close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the scrub panicked");
        }
    }

    fn ask_to_close(&self) {
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

/// The handle is gone or closes: no error, but the end.
type Flow<T = ()> = ControlFlow<(), T>;

impl Scrubber {
    fn run(mut self) {
        // What was damaged is known again before anybody asks for it.
        let _ = self.look_again().is_continue() && self.serve().is_continue();
        self.save();
    }

    fn serve(&mut self) -> Flow {
        loop {
            self.wait_for_a_pass()?;
            if let Err(error) = self.pass()? {
                tracing::error!(%error, "the scrub cannot read the map; it waits");
                self.shared.state.lock().progress.next = None;
            }
            self.end_pass();
            self.save();
        }
    }

    /// Looks at what an earlier run found damaged.
    fn look_again(&mut self) -> Flow {
        let remembered = std::mem::take(&mut self.shared.state.lock().progress.damaged);
        for (position, (thing, at)) in remembered.iter().copied().enumerate() {
            if self.keep_going(0).is_break() {
                // The next start has the rest to look at.
                let rest = &remembered[position..];
                self.shared.state.lock().progress.damaged.extend_from_slice(rest);
                return Flow::Break(());
            }
            let found = self.check(thing, at);
            self.remember(thing, at, &found);
        }
        Flow::Continue(())
    }

    fn wait_for_a_pass(&mut self) -> Flow {
        let mut state = self.shared.state.lock();
        loop {
            if state.is_closing {
                return Flow::Break(());
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
                    return Flow::Continue(());
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
    fn pass(&mut self) -> Flow<Result<(), StoreError>> {
        let segments = Arc::clone(self.reader.segments());
        let mark = self.reader.overlay().mark().map_err(StoreError::from);
        let (numbers, mark) = match (segments.numbers(), mark) {
            (Ok(numbers), Ok(mark)) => (numbers, mark),
            (Err(error), _) | (_, Err(error)) => return Flow::Continue(Err(error)),
        };
        let (first, mut from) = self.shared.state.lock().progress.next.unwrap_or_default();
        for (position, number) in numbers.iter().copied().enumerate() {
            if number < first || number > mark.segment {
                continue;
            }
            if number > first {
                from = 0;
            }
            let segment = match segments.segment(number) {
                Ok(segment) => segment,
                Err(error) => {
                    self.unreadable_segment(number, &error);
                    continue;
                }
            };
            // A successor that cannot be read is passed over: the next one says as much as is sure.
            let next = numbers[position + 1..].iter().find_map(|next| segments.segment(*next).ok());
            let range = range(&segment, next.as_ref(), mark, from);
            if let Err(error) = self.segment(&segment, range)? {
                return Flow::Continue(Err(error));
            }
        }
        Flow::Continue(Ok(()))
    }

    fn unreadable_segment(&self, number: u32, error: &StoreError) {
        // It may have been given back since it was listed.
        let is_gone = self.reader.catalog().gone_through().is_ok_and(|gone| number <= gone);
        if !is_gone {
            tracing::error!(segment = number, %error, "a segment cannot be read");
            self.shared.state.lock().progress.status.unreadable += 1;
        }
    }

    fn segment(&mut self, segment: &Segment, range: ScanRange) -> Flow<Result<(), StoreError>> {
        let segment = segment.cold();
        if range.from == 0 {
            self.headers(&segment);
        }
        let mut flow = Flow::Continue(());
        let outcome = scan_segment(&segment, range, |found| {
            flow = self.record(&found);
            match flow {
                Flow::Continue(()) => Ok(()),
                Flow::Break(()) => Err(StoreError::stopped("the scrub stops here")),
            }
        });
        flow?;
        match outcome {
            Ok(extent) => {
                for damage in &extent.damage {
                    tracing::error!(?damage, "the log is damaged");
                }
                self.shared.state.lock().progress.status.damaged += extent.damage.len() as u64;
            }
            Err(error @ StoreError::Index { .. }) => return Flow::Continue(Err(error)),
            Err(error) => self.unreadable_segment(segment.header.number, &error),
        }
        let next = (segment.header.number + 1, 0);
        self.shared.state.lock().progress.next = Some(next);
        Flow::Continue(Ok(()))
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

    fn record(&mut self, found: &FoundRecord) -> Flow {
        let (id, at, end) = (found.header.id, found.at, found.end());
        let thing = match found.header.kind {
            Kind::Shard => Some(Thing::Shard(ShardId::from_bytes(id))),
            Kind::Block => Some(Thing::Block(Cid::from_bytes(id))),
            _ => None,
        };
        let found = thing.map(|thing| (thing, self.check(thing, at)));
        let mut read = HEAD_READ_BYTES;
        if let Some((thing, outcome)) = &found {
            self.remember(*thing, at, outcome);
        }
        {
            let Progress { status, next, .. } = &mut self.shared.state.lock().progress;
            status.records += 1;
            status.passed_bytes += end - at.offset;
            *next = Some((at.segment, end));
            match found {
                Some((_, Found::Whole(len))) => {
                    read += len;
                    status.verified += 1;
                    status.verified_bytes += len;
                }
                Some((_, Found::Damaged)) => status.damaged += 1,
                Some((_, Found::Unreadable)) => status.unreadable += 1,
                Some((_, Found::Elsewhere)) | None => {}
            }
        }
        self.keep_going(read)
    }

    /// Checks a thing, if it is the record at `at` that is kept.
    fn check(&self, thing: Thing, at: Position) -> Found {
        let kept = match self.reader.catalog().kept(thing) {
            Ok(Some(kept)) if kept.at == at => kept,
            Ok(_) => return Found::Elsewhere,
            Err(error) => {
                tracing::error!(%error, "the scrub cannot ask the map");
                return Found::Unreadable;
            }
        };
        match self.reader.verify_on_disk(thing, &kept) {
            Ok(()) => Found::Whole(kept.len),
            // Freed in this very moment.
            Err(StoreError::ShardNotFound { .. }) => Found::Elsewhere,
            // Who reads says what is damaged.
            Err(StoreError::Damaged { .. }) => Found::Damaged,
            Err(error) => {
                tracing::error!(?thing, %error, "what is kept cannot be read");
                Found::Unreadable
            }
        }
    }

    fn remember(&self, thing: Thing, at: Position, found: &Found) {
        let damaged = &mut self.shared.state.lock().progress.damaged;
        damaged.retain(|(known, _)| *known != thing);
        if matches!(found, Found::Damaged | Found::Unreadable) && damaged.len() < REMEMBERED_MAX {
            damaged.push((thing, at));
        }
    }

    /// Waits as the pace and the operator want it; ends with the handle.
    fn keep_going(&mut self, read: u64) -> Flow {
        if let Some(nanos) = (read * 1_000_000_000).checked_div(self.config.bytes_per_sec) {
            self.debt += Duration::from_nanos(nanos);
        }
        if self.saved.elapsed() >= SAVE_INTERVAL {
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
        if state.is_closing { Flow::Break(()) } else { Flow::Continue(()) }
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

/// What of a segment holds records for certain.
fn range(segment: &Segment, next: Option<&Segment>, mark: Mark, from: u64) -> ScanRange {
    let number = segment.header.number;
    let stated = next.map(|next| next.header.previous).filter(|previous| previous.number == number);
    let tail = match stated {
        _ if number == mark.segment => Tail::Stated(mark.end),
        Some(previous) => Tail::Stated(previous.end),
        None => Tail::Open { durable: u64::MAX },
    };
    let before_sequence = next.map_or(mark.sequence + 1, |next| next.header.first_sequence);
    ScanRange { from, tail, after_sequence: segment.header.first_sequence - 1, before_sequence }
}
