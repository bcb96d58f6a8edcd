// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one writer of a store: decides, appends, syncs, publishes, answers. Synchronous, without a
//! clock and without threads, so that tests drive every step of it; the storage actor has both.
//!
//! The order is the contract:
//!
//! ```text
//! plan -> place -> apply (unsynced layer) -> write -> fdatasync -> publish -> answer -> index
//! ```
//!
//! - An operation is planned against everything before it, also what is in the same batch, becomes
//!   at most one record, and is applied to a layer that no reader sees yet.
//! - When a write or a sync fails, the segment is closed at the last byte known to be durable, and
//!   the batch is written once more, whole, to a new segment. If that fails too its operations are
//!   refused and the layer is dropped: the state is what it was before them. Releases and other
//!   records that need no room get a last try on their own, so that a full disk can be emptied.
//! - In the relaxed modes a batch is answered, and seen by readers, when it is written (`async`
//!   promises less, and gets no answer earlier: what cannot be read back yet is nobody's to see);
//!   its records stay in memory until their sync, so that they can be written again all the same.
//! - What the chain says of deals is answered after its sync in every mode, a refusal as well:
//!   whoever follows the chain goes on from the answer and does not come back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use supernode_protocol::wire::Ack;

use crate::catalog::{Catalog, Entry, Event, IndexError, Thing, apply};
use crate::config::{Durability, StoreConfig};
use crate::error::StoreError;
use crate::index::{Mark, Overlay};
use crate::metrics::{Counters, bump};
use crate::planted::{Bug, has};
use crate::reader::Reader;
use crate::record::{Body, Draft, Freed, LeaseChange, Payload, Position, short_id};
use crate::recovery::Recovered;
use crate::segment::Log;

mod compact;
mod fill;
mod plan;
mod reclaim;

use self::compact::Compacting;
use self::fill::Fill;
pub use self::plan::{CommitFacts, Op};
use self::reclaim::Reclaiming;
pub use self::reclaim::{Hole, ReclaimJob, Reclaimed};

/// The running time is written down at least this often.
const CLOCK_SECS: u64 = 60;
/// Free space, beyond the reserve, from which on some is set aside for the open segment.
const PLENTY_BYTES: u64 = 1 << 30;
/// Things that one tick ends or frees of each sort, so that puts are not kept waiting.
const TICK_ITEMS_MAX: usize = 512;

/// A finished operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The record behind it.
    pub ack: Ack,
    /// For a commit: slots of the group that are held here.
    pub slot_count: u32,
}

/// Hears of changes when they are published; must not block.
pub type EventSink = Box<dyn FnMut(Event) + Send>;

/// Where an operation's outcome goes.
pub type Answer = Box<dyn FnOnce(Result<Done, StoreError>) + Send>;

/// Who waits for an operation.
struct Waiter {
    answer: Answer,
    /// What the answer promises.
    promise: Durability,
}

/// What a plan comes to: one record.
#[derive(Debug)]
struct Planned {
    id: [u8; 32],
    body: Body,
    payload: Payload,
}

/// A record between its plan and its sync.
struct Pending {
    draft: Draft,
    at: Position,
    answer: Option<Answer>,
    /// What its answer promises; for the store's own records what all promise.
    promise: Durability,
    done: Done,
    events: Vec<Event>,
}

/// See the module.
pub struct Writer {
    config: StoreConfig,
    log: Log,
    overlay: Arc<Overlay>,
    reader: Arc<Reader>,
    counters: Arc<Counters>,
    on_event: EventSink,
    /// The number of the next record.
    sequence_next: u64,
    /// The node's running second.
    now: u64,
    /// The running second of the newest record.
    recorded_secs: u64,
    /// Records since the last sync; the first `written_count` of them are written.
    pending: Vec<Pending>,
    written_count: usize,
    /// Bytes of those that are not written yet.
    planned_bytes: u64,
    /// Bytes of all of them.
    pending_bytes: u64,
    /// Free space when last asked.
    free_bytes: u64,
    /// How full it was when last told.
    fill: Fill,
    /// The last tick left work for the next.
    is_behind: bool,
    mark: Mark,
    reclaiming: Reclaiming,
    compacting: Compacting,
}

/// What a writer shares with others.
pub struct WriterParts {
    /// How to work.
    pub config: StoreConfig,
    /// Reads records back.
    pub reader: Arc<Reader>,
    /// What to count.
    pub(crate) counters: Arc<Counters>,
    /// Hears of every change when it is published.
    pub on_event: EventSink,
}

impl Writer {
    /// Goes on where recovery ended.
    ///
    /// # Errors
    /// When the newest segment cannot be opened for writing.
    pub fn new(parts: WriterParts, recovered: &Recovered) -> Result<Self, StoreError> {
        let WriterParts { config, reader, counters, on_event } = parts;
        let replayed = &recovered.replayed;
        let segments = Arc::clone(&recovered.segments);
        let log = Log::resume(segments, config.node, config.segment_bytes_max, replayed.end)
            .map_err(|error| StoreError::io("open the newest segment", error))?;
        let overlay = Arc::clone(reader.overlay());
        let mark = replayed.mark;
        *counters.usage.lock() = Catalog(&*overlay).usage()?;
        counters.running_secs.store(mark.running_secs, Ordering::Relaxed);
        let reclaiming = Reclaiming::new(recovered.is_whole());
        Ok(Self {
            config,
            log,
            overlay,
            reader,
            counters,
            on_event,
            sequence_next: recovered.sequence_next(),
            now: mark.running_secs,
            recorded_secs: mark.running_secs,
            pending: Vec::new(),
            written_count: 0,
            planned_bytes: 0,
            pending_bytes: 0,
            free_bytes: 0,
            fill: Fill::Roomy,
            is_behind: false,
            mark,
            reclaiming,
            compacting: Compacting::default(),
        })
    }

    /// The node's running second at the last call.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The number of the next record.
    pub fn sequence_next(&self) -> u64 {
        self.sequence_next
    }

    /// What reads its records back.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Sets the running second; it never goes back.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.counters.running_secs.store(self.now, Ordering::Relaxed);
    }

    /// Performs a batch and answers each of its operations as the durability setting says.
    pub fn run(&mut self, batch: impl IntoIterator<Item = (Op, Answer)>) {
        self.look_at_space();
        for (op, answer) in batch {
            let (promise, wants_disk) = (self.promise(&op), op.is_the_chains_word());
            match self.plan(op) {
                // Who is refused has the error as an answer.
                Ok(planned) => drop(self.submit(planned, Some(Waiter { answer, promise }))),
                Err(error) => self.refuse_plan(answer, error, wants_disk),
            }
        }
        // Who was refused has the error as an answer.
        drop(self.finish_batch());
    }

    /// Ends what is due, frees what nobody wants, and writes the time down.
    ///
    /// # Errors
    /// When the index cannot be read, or the log takes no more.
    pub fn tick(&mut self) -> Result<(), StoreError> {
        self.look_at_space();
        self.tell_fill()?;
        self.is_behind = false;
        // An index that lags would lag further behind with each tick.
        let mut due = if self.overlay.is_lagging() { Vec::new() } else { self.due()? };
        let is_more = due.len() >= TICK_ITEMS_MAX;
        if self.now >= self.recorded_secs + CLOCK_SECS {
            due.push(Planned::clock(false));
        }
        let before = self.sequence_next;
        let outcome = due.into_iter().try_for_each(|planned| self.submit(planned, None));
        let outcome = outcome.and(self.finish_batch());
        // A disk that refuses is asked again in a second, and not at once.
        self.is_behind = is_more && outcome.is_ok() && self.sequence_next > before;
        outcome
    }

    /// Whether more was due at the last tick than one tick does, and that one got something done.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// What the last sync took; nothing before the first.
    pub(crate) fn sync_took(&self) -> Duration {
        self.counters.sync_took()
    }

    /// Whether something waits for its sync.
    pub fn has_unsynced(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes and syncs everything that is pending.
    ///
    /// # Errors
    /// Why some of it was refused; those operations have their answer already.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.write().and_then(|()| self.sync_written());
        synced.or_else(|error| self.write_again(&error))
    }

    /// Says goodbye: the next start needs no checks and appends where this one ended.
    ///
    /// # Errors
    /// When the last record or the index cannot be made durable.
    pub fn close(&mut self) -> Result<(), StoreError> {
        let mut outcome = self.sync();
        if outcome.is_ok() && self.mark != Mark::default() {
            outcome = self.submit(Planned::clock(true), None).and_then(|()| self.sync());
            if let Err(error) = self.log.trim() {
                tracing::warn!(%error, "the next start begins a new segment");
            }
        }
        while self.overlay.flush()? {}
        self.overlay.index()?.checkpoint()?;
        outcome
    }

    fn look_at_space(&mut self) {
        // A file system that cannot tell is treated as roomy: the write itself will say.
        self.free_bytes = self.log_disk_free().unwrap_or(u64::MAX);
    }

    fn log_disk_free(&self) -> io::Result<u64> {
        self.reader.segments().disk().free_bytes()
    }

    /// Records that time alone brings about.
    fn due(&self) -> Result<Vec<Planned>, IndexError> {
        let view = self.overlay.stage();
        let catalog = Catalog(&view);
        let mut due = Vec::new();
        let is_held = self.counters.holds_ends.load(Ordering::SeqCst);
        let leases_max = if is_held { 0 } else { TICK_ITEMS_MAX };
        for lease in catalog.leases_due(self.now, leases_max)? {
            due.push(Planned::lease(lease.as_bytes(), LeaseChange::Expire { lease }));
        }
        // With records missing, what looks unwanted may be somebody's. A lease may end all the
        // same: what it kept lies in the trash, where the next commit finds it.
        if !self.reclaiming.is_whole {
            return Ok(due);
        }
        if let Some(until) = self.now.checked_sub(self.config.upload_idle_secs) {
            for upload in catalog.uploads_due(until, TICK_ITEMS_MAX)? {
                due.push(Planned::lease(upload.as_bytes(), LeaseChange::Abandon { upload }));
            }
        }
        if let Some(until) = self.now.checked_sub(self.config.trash_secs) {
            for (object, group) in catalog.trash_due(until, TICK_ITEMS_MAX)? {
                due.push(Planned::tombstone(*object.as_bytes(), Freed::Group { group }));
            }
        }
        for (object, group) in catalog.evicted(TICK_ITEMS_MAX)? {
            due.push(Planned::tombstone(*object.as_bytes(), Freed::Group { group }));
        }
        for thing in catalog.dead(TICK_ITEMS_MAX)? {
            due.push(match thing {
                Thing::Shard(shard) => Planned::tombstone(*shard.as_bytes(), Freed::Shard),
                Thing::Block(cid) => Planned::tombstone(*cid.as_bytes(), Freed::Block),
            });
        }
        Ok(due)
    }

    /// Tells a waiter that its operation cannot be. It may be a record of which only memory knows
    /// that rules it out.
    fn refuse_plan(&mut self, answer: Answer, error: StoreError, wants_disk: bool) {
        let synced = if wants_disk { self.sync() } else { Ok(()) };
        answer(Err(synced.err().unwrap_or(error)));
    }

    /// Gives a planned record its place and applies it. A refusal goes to waiter and caller.
    fn submit(&mut self, planned: Planned, waiter: Option<Waiter>) -> Result<(), StoreError> {
        let Planned { id, body, payload } = planned;
        let (sequence, running_secs) = (self.sequence_next, self.now);
        let durable = if has(Bug::MiscountsUnsynced) { sequence - 1 } else { self.mark.sequence };
        let draft = Draft { sequence, running_secs, durable, id, body, payload };
        match self.place_and_apply(&draft) {
            Ok((at, record_len, events)) => {
                let done = Done { ack: Ack { sequence }, slot_count: 0 };
                self.sequence_next += 1;
                self.planned_bytes += record_len;
                self.pending_bytes += record_len;
                let (answer, promise) = match waiter {
                    Some(Waiter { answer, promise }) => (Some(answer), promise),
                    None => (None, self.config.durability),
                };
                self.pending.push(Pending { draft, at, answer, promise, done, events });
            }
            Err(error) => {
                if let Some(Waiter { answer, .. }) = waiter {
                    answer(Err(error.clone()));
                }
                return Err(error);
            }
        }
        self.answer_commit_count();
        if self.planned_bytes >= self.config.batch_bytes_max {
            self.finish_batch()?;
        }
        Ok(())
    }

    fn place_and_apply(
        &mut self,
        draft: &Draft,
    ) -> Result<(Position, u64, Vec<Event>), StoreError> {
        if !self.log.fits(draft, self.planned_bytes) {
            // The plan may lean on what is refused here; then it falls with it.
            self.sync()?;
            self.log
                .rotate(draft.sequence)
                .map_err(|error| StoreError::write(draft.payload.bytes().len() as u64, error))?;
        }
        let placed = self.log.place(draft, self.planned_bytes);
        let (at, record_len) = placed.ok_or_else(|| StoreError::stopped("no open segment"))?;
        let events = self.apply(draft, at, record_len)?;
        Ok((at, record_len, events))
    }

    fn apply(
        &self,
        draft: &Draft,
        at: Position,
        record_len: u64,
    ) -> Result<Vec<Event>, IndexError> {
        let shape = draft.shape();
        let entry = Entry {
            id: &draft.id,
            body: &draft.body,
            running_secs: draft.running_secs,
            at,
            payload_start: shape.payload_start(at.offset),
            payload_len: shape.payload_len,
            record_len,
        };
        let mut staged = self.overlay.stage();
        let events = apply(&mut staged, &entry)?;
        self.overlay.add_unsynced(staged.into_changes());
        Ok(events)
    }

    /// Fills in how many slots the newest record, if it is a commit, left in its group.
    fn answer_commit_count(&mut self) {
        let Some(newest) = self.pending.last_mut() else { return };
        let Body::Commit(body) = &newest.draft.body else { return };
        let view = self.overlay.stage();
        let group = Catalog(&view).group(body.commit.object, body.commit.group);
        newest.done.slot_count = group.ok().flatten().map_or(0, |group| group.slot_count);
    }

    /// The end of a batch, as far as the durability setting goes. Fails when any of it was
    /// refused: what comes next may stand on that.
    fn finish_batch(&mut self) -> Result<(), StoreError> {
        if self.pending.len() == self.written_count {
            return Ok(());
        }
        if has(Bug::AnswersUnsynced) {
            self.answer(|_| true);
        }
        // Records of the relaxed modes wait in memory for their sync; not too many of them.
        let much = self.pending_bytes >= self.config.batch_bytes_max;
        let awaited = self.pending.iter().any(|pending| pending.promise.waits_for_sync());
        let outcome = if awaited || much {
            self.sync()
        } else {
            self.write().or_else(|error| self.write_again(&error))
        };
        // Who was refused has the error as an answer. Without one, it was logged.
        if outcome.is_ok() {
            self.answer(|promise| !promise.waits_for_sync());
        }
        outcome
    }

    /// Appends what is planned.
    fn write(&mut self) -> io::Result<()> {
        let unwritten = self.pending.len() - self.written_count;
        if unwritten == 0 {
            return Ok(());
        }
        if self.free_bytes > self.config.reserve_bytes.saturating_add(PLENTY_BYTES) {
            self.log.reserve(self.planned_bytes);
        }
        let drafts = self.pending[self.written_count..].iter().map(|pending| &pending.draft);
        let bytes = self.log.append(drafts)?;
        bump(&self.counters.batches, 1);
        bump(&self.counters.batch_records, unwritten as u64);
        bump(&self.counters.batch_bytes, bytes);
        self.written_count = self.pending.len();
        self.planned_bytes = 0;
        self.overlay.note_written();
        Ok(())
    }

    /// Syncs what is written, shows it to everybody and answers.
    fn sync_written(&mut self) -> io::Result<()> {
        let Some(newest) = self.pending.last() else { return Ok(()) };
        let tag = self.log.tag().ok_or(io::ErrorKind::NotConnected)?;
        self.log.sync()?;
        self.mark = Mark {
            sequence: newest.draft.sequence,
            segment: newest.at.segment,
            tag,
            end: self.log.end().end,
            running_secs: newest.draft.running_secs,
            stopped: newest.draft.body == Body::Clock { stopped: true },
            lossy: self.mark.lossy,
        };
        self.recorded_secs = self.mark.running_secs;
        if has(Bug::AnswersUnpublished) {
            self.answer(|_| true);
        }
        self.overlay.publish(self.mark);
        self.answer(|_| true);
        self.forget_pending();
        Ok(())
    }

    /// Tells listeners and waiters, in this order: who has an answer finds everything as it says.
    fn answer(&mut self, is_kept: impl Fn(Durability) -> bool) {
        if !self.pending.iter().any(|pending| is_kept(pending.promise)) {
            return;
        }
        // In the order of the log, whatever each promises: all of it can be seen by now.
        for pending in &mut self.pending {
            pending.events.drain(..).for_each(&mut self.on_event);
        }
        if let Ok(usage) = Catalog(&*self.overlay).usage() {
            *self.counters.usage.lock() = usage;
        }
        for pending in &mut self.pending {
            if is_kept(pending.promise)
                && let Some(answer) = pending.answer.take()
            {
                answer(Ok(pending.done));
            }
        }
    }

    fn forget_pending(&mut self) {
        self.pending.clear();
        self.written_count = 0;
        self.planned_bytes = 0;
        self.pending_bytes = 0;
    }

    /// The log refused a write or a sync: once more, elsewhere; then without what needs room.
    fn write_again(&mut self, error: &io::Error) -> Result<(), StoreError> {
        let records = self.pending.len();
        tracing::error!(%error, records, "a segment is closed after a failed write or sync");
        let Err(error) = self.relocate() else { return Ok(()) };
        let refusal = StoreError::write(self.pending_bytes, error);
        let Some(first) = self.pending.first() else { return Err(refusal) };
        let first_sequence = first.draft.sequence;
        let (puts, mut rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(needs_room);
        if !puts.is_empty() {
            // Tombstones may stand on what is refused; they are due again at the next tick.
            rest.retain(|pending| !matches!(pending.draft.body, Body::Tombstone(_)));
        }
        self.pending = rest;
        refuse(puts, &refusal);
        for (pending, sequence) in self.pending.iter_mut().zip(first_sequence..) {
            pending.draft.sequence = sequence;
            pending.done.ack = Ack { sequence };
        }
        self.sequence_next = first_sequence + self.pending.len() as u64;
        if let Err(error) = self.relocate() {
            let refusal = StoreError::write(self.pending_bytes, error);
            refuse(std::mem::take(&mut self.pending), &refusal);
            self.overlay.drop_unsynced();
            self.sequence_next = first_sequence;
            self.forget_pending();
        }
        Err(refusal)
    }

    /// Writes everything pending to a new segment and syncs it there.
    fn relocate(&mut self) -> io::Result<()> {
        self.overlay.drop_unsynced();
        self.written_count = 0;
        self.planned_bytes = 0;
        self.pending_bytes = 0;
        let Some(first) = self.pending.first() else { return Ok(()) };
        self.log.rotate(first.draft.sequence)?;
        for position in 0..self.pending.len() {
            let draft = &self.pending[position].draft;
            let placed = self.log.place(draft, self.planned_bytes);
            let (at, record_len) = placed.ok_or(io::ErrorKind::NotConnected)?;
            // The events were told or kept at the first application; they are the same again.
            self.apply(draft, at, record_len).map_err(io::Error::other)?;
            self.pending[position].at = at;
            self.planned_bytes += record_len;
            self.pending_bytes += record_len;
        }
        self.write()?;
        self.sync_written()
    }
}

/// Whether a record adds to what is kept; all others help to end it.
fn needs_room(pending: &Pending) -> bool {
    !matches!(
        pending.draft.body,
        Body::Lease(_) | Body::Tombstone(_) | Body::Clock { .. } | Body::Reclaim(_)
    )
}

fn refuse(refused: Vec<Pending>, error: &StoreError) {
    let count = refused.len();
    let answers: Vec<_> = refused.into_iter().filter_map(|pending| pending.answer).collect();
    let own = count - answers.len();
    if own > 0 {
        tracing::error!(records = own, %error, "what was due could not be written");
    }
    answers.into_iter().for_each(|answer| answer(Err(error.clone())));
}

impl Planned {
    fn clock(stopped: bool) -> Self {
        Self { id: [0; 32], body: Body::Clock { stopped }, payload: Payload::None }
    }

    fn lease(id: &[u8; 16], change: LeaseChange) -> Self {
        Self { id: short_id(id), body: Body::Lease(change), payload: Payload::None }
    }

    fn tombstone(id: [u8; 32], freed: Freed) -> Self {
        Self { id, body: Body::Tombstone(freed), payload: Payload::None }
    }
}

#[cfg(test)]
mod cached_tests;
#[cfg(test)]
mod compact_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod deal_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod footer_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod model;
#[cfg(test)]
#[cfg(feature = "planted-bugs")]
mod planted_tests;
