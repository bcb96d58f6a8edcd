// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: how far the finalised chain has been processed, and the next bounded step.
//!
//! The order, which is what makes a crash harmless:
//!
//! 1. *Walk*: without a cursor, or when missed blocks are too many or their state is gone, every
//!    own deal is compared with the chain once, page by page.
//! 2. *Follow*: finalised blocks one after another, each naming its parent; their changes move
//!    stored ends. The cursor is saved after the effects.
//! 3. *Due*: only at the newest processed block, leases whose end and buffer have passed are
//!    judged.
//! 4. *Count*: a few leases per block, for the figures.
//!
//! A cursor of another genesis, or a block whose parent is not the processed one, stops everything
//! here until the chain is the right one again: stored ends are not even moved.

use std::time::Duration;

use supernode_protocol::ids::LeaseId;

use crate::chain::{BlockHash, BlockRef, Height};
use crate::config::AuditConfig;
use crate::cursor::Cursor;

#[cfg(test)]
mod tests;

/// Why cleanup does nothing although the chain calls itself healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The cursor file was written on another chain: point the node at that chain, or remove the
    /// file to compare all own deals with this one.
    OtherGenesis,
    /// The processed block is not part of this finalised chain: the endpoint serves another
    /// history under the same genesis.
    HistoryDiffers,
}

/// One bounded step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compare a page of own leases with block `at`; the last page saves `target` as the cursor.
    Walk { at: BlockRef, target: BlockRef, after: Option<LeaseId> },
    /// Process finalised blocks after `from`, up to `to`.
    Follow { from: BlockRef, to: BlockRef },
    /// Judge a page of the leases that are due at `at`.
    Due { at: BlockRef, after: Option<(Height, LeaseId)> },
    /// Count a page of own leases.
    Count { at: Height, after: Option<LeaseId> },
}

/// Why following stopped before its last block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The blocks in between cannot be read any more, or are too many.
    Gap,
    /// The next block does not continue what was processed.
    Differs,
    /// Something failed; what was reached is saved.
    Failed(String),
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskDone {
    /// The next page begins after this lease; `None` when the walk is complete and saved.
    Walked { after: Option<LeaseId>, moved: u64 },
    /// The cursor is saved at `reached`.
    Followed { reached: BlockRef, moved: u64, stop: Option<Stop> },
    /// The next page begins after this lease; `None` at the end of what is due.
    Judged { after: Option<(Height, LeaseId)>, page: JudgedPage },
    /// The next page begins after this lease; `None` at the end.
    Counted { after: Option<LeaseId>, page: DealCounts },
}

/// What became of a page of leases that were due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JudgedPage {
    pub(crate) moved: u64,
    pub(crate) ended: u64,
    pub(crate) ended_slots: u64,
    pub(crate) ended_bytes: u64,
    pub(crate) disputed: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) failed: u64,
}

/// Deal leases by state, as of the last complete count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DealCounts {
    /// Their end lies ahead.
    pub active: u64,
    /// Their end has passed; buffer, confirmation or a renewal is waited for.
    pub ending: u64,
    /// Made for another chain; never touched.
    pub other_chain: u64,
}

impl DealCounts {
    fn add(&mut self, other: Self) {
        self.active += other.active;
        self.ending += other.ending;
        self.other_chain += other.other_chain;
    }
}

/// What cleanup did and sees. Those that end in `_total` only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanupTally {
    /// Stored ends moved.
    pub moved_total: u64,
    /// Leases ended.
    pub ended_total: u64,
    /// Their slots.
    pub ended_slots_total: u64,
    /// The bytes of those slots.
    pub ended_bytes_total: u64,
    /// Steps that failed and were repeated.
    pub failures_total: u64,
    /// Walks over all own deals.
    pub walks_total: u64,
    /// Leases that another endpoint kept alive in the last pass.
    pub disputed: u64,
    /// Leases that another endpoint did not confirm in the last pass.
    pub unconfirmed: u64,
    /// Deal leases by state.
    pub deals: DealCounts,
    /// Height of the last processed finalised block.
    pub processed: Option<Height>,
    /// Why nothing is done.
    pub refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Walk {
    target: BlockRef,
    after: Option<LeaseId>,
}

/// A pass over pages: it belongs to the block at which it began.
#[derive(Debug)]
struct Pass<A> {
    /// The last block whose pass is complete.
    done_for: Option<BlockHash>,
    /// The block in which no more pages are taken.
    paused_for: Option<BlockHash>,
    running: Option<(BlockHash, A)>,
}

impl<A: Copy> Pass<A> {
    const fn new() -> Self {
        Self { done_for: None, paused_for: None, running: None }
    }

    /// Where to go on, or `None` if this block wants no more pages.
    fn position(&self, block: BlockHash) -> Option<Option<A>> {
        match self.running {
            Some(_) if self.paused_for == Some(block) => None,
            Some((_, after)) => Some(Some(after)),
            None if self.done_for == Some(block) => None,
            None => Some(None),
        }
    }

    /// A page is done. True when it was the last.
    fn advance(&mut self, block: BlockHash, after: Option<A>) -> bool {
        let began = self.running.map_or(block, |(began, _)| began);
        self.running = after.map(|after| (began, after));
        if after.is_none() {
            self.done_for = Some(began);
        }
        after.is_none()
    }
}

/// The state of cleanup.
#[derive(Debug)]
pub(crate) struct Cleanup {
    genesis: BlockHash,
    retry_after: Duration,
    cursor: Option<BlockRef>,
    foreign: bool,
    walk: Option<Walk>,
    due: Pass<(Height, LeaseId)>,
    pass: JudgedPage,
    count: Pass<LeaseId>,
    counting: DealCounts,
    counted_once: bool,
    running: Option<Task>,
    retry_at: Option<Duration>,
    /// The finalised head on which history was found to differ.
    differs_at: Option<BlockRef>,
    tally: CleanupTally,
}

impl Cleanup {
    pub(crate) fn new(config: &AuditConfig, genesis: BlockHash, cursor: Option<Cursor>) -> Self {
        let foreign = cursor.is_some_and(|cursor| cursor.genesis != genesis);
        Self {
            genesis,
            retry_after: Duration::from_secs(config.retry_interval_secs),
            cursor: cursor.filter(|_| !foreign).map(|cursor| cursor.block),
            foreign,
            walk: None,
            due: Pass::new(),
            pass: JudgedPage::default(),
            count: Pass::new(),
            counting: DealCounts::default(),
            counted_once: false,
            running: None,
            retry_at: None,
            differs_at: None,
            tally: CleanupTally::default(),
        }
    }

    /// The chain has moved: what failed may be tried again at once.
    pub(crate) fn nudge(&mut self) {
        self.retry_at = None;
    }

    /// The next step on a healthy chain with this finalised head, if there is one and none is
    /// running.
    pub(crate) fn next(&mut self, finalised: BlockRef, now: Duration) -> Option<Task> {
        let waiting = self.retry_at.is_some_and(|at| now < at);
        if self.running.is_some() || waiting || self.foreign {
            return None;
        }
        if self.differs_at == Some(finalised) {
            return None;
        }
        let task = self.choose(finalised)?;
        self.running = Some(task);
        Some(task)
    }

    fn choose(&mut self, finalised: BlockRef) -> Option<Task> {
        if let Some(walk) = &self.walk {
            let (target, after) = (walk.target, walk.after);
            // Facts of a later block are as final, and the blocks in between are followed after.
            return (finalised.height >= target.height).then_some(Task::Walk {
                at: finalised,
                target,
                after,
            });
        }
        let Some(cursor) = self.cursor else { return Some(self.begin_walk(finalised)) };
        if finalised.height < cursor.height {
            return None;
        }
        if finalised != cursor {
            if finalised.height == cursor.height {
                self.on_differs(finalised);
                return None;
            }
            return Some(Task::Follow { from: cursor, to: finalised });
        }
        self.differs_at = None;
        if let Some(after) = self.due.position(cursor.hash) {
            return Some(Task::Due { at: cursor, after });
        }
        let after = self.count.position(cursor.hash)?;
        Some(Task::Count { at: cursor.height, after })
    }

    fn begin_walk(&mut self, target: BlockRef) -> Task {
        self.tally.walks_total += 1;
        self.walk = Some(Walk { target, after: None });
        Task::Walk { at: target, target, after: None }
    }

    fn on_differs(&mut self, finalised: BlockRef) {
        if self.differs_at.is_none() {
            let processed = self.cursor.unwrap_or_default();
            tracing::error!(%processed, head = %finalised, genesis = %self.genesis,
                "the processed block is not part of this chain; nothing is moved or ended until \
                 the configured endpoints serve the chain that it belongs to");
        }
        self.differs_at = Some(finalised);
    }

    /// Takes what the running step did.
    pub(crate) fn settle(&mut self, done: Result<TaskDone, String>, now: Duration) {
        let Some(task) = self.running.take() else { return };
        match (task, done) {
            (_, Err(reason)) => self.on_failure(&reason, now),
            (Task::Walk { target, .. }, Ok(TaskDone::Walked { after, moved })) => {
                self.tally.moved_total += moved;
                self.walk = after.map(|after| Walk { target, after: Some(after) });
                if self.walk.is_none() {
                    self.cursor = Some(target);
                }
            }
            (Task::Follow { to, .. }, Ok(TaskDone::Followed { reached, moved, stop })) => {
                self.tally.moved_total += moved;
                self.cursor = Some(reached);
                match stop {
                    None => self.differs_at = None,
                    Some(Stop::Gap) => {
                        self.begin_walk(to);
                    }
                    Some(Stop::Differs) => self.on_differs(to),
                    Some(Stop::Failed(reason)) => self.on_failure(&reason, now),
                }
            }
            (Task::Due { at, .. }, Ok(TaskDone::Judged { after, page })) => {
                self.on_judged(at, after, page, now);
            }
            (Task::Count { .. }, Ok(TaskDone::Counted { after, page })) => {
                self.on_counted(after, page);
            }
            (_, Ok(_)) => self.on_failure("a step was answered by another", now),
        }
    }

    fn on_judged(
        &mut self,
        at: BlockRef,
        after: Option<(Height, LeaseId)>,
        page: JudgedPage,
        now: Duration,
    ) {
        self.tally.moved_total += page.moved;
        self.tally.ended_total += page.ended;
        self.tally.ended_slots_total += page.ended_slots;
        self.tally.ended_bytes_total += page.ended_bytes;
        self.pass.disputed += page.disputed;
        self.pass.unconfirmed += page.unconfirmed;
        self.pass.failed += page.failed;
        if !self.due.advance(at.hash, after) {
            return;
        }
        let pass = std::mem::take(&mut self.pass);
        let before = (self.tally.disputed, self.tally.unconfirmed);
        if before != (pass.disputed, pass.unconfirmed) {
            let (disputed, unconfirmed) = (pass.disputed, pass.unconfirmed);
            tracing::warn!(disputed, unconfirmed, "leases kept by the word of other endpoints");
        }
        self.tally.disputed = pass.disputed;
        self.tally.unconfirmed = pass.unconfirmed;
        if pass.failed + pass.unconfirmed > 0 {
            // The chain may stand still while the store or an endpoint recovers.
            self.due.done_for = None;
            self.retry_at = Some(now.saturating_add(self.retry_after));
        }
    }

    fn on_counted(&mut self, after: Option<LeaseId>, page: DealCounts) {
        self.counting.add(page);
        let block = self.cursor.unwrap_or_default().hash;
        if self.count.advance(block, after) {
            self.tally.deals = std::mem::take(&mut self.counting);
            self.counted_once = true;
        } else if self.counted_once {
            // The rest waits for the next block.
            self.count.paused_for = Some(block);
        }
    }

    fn on_failure(&mut self, reason: &str, now: Duration) {
        tracing::warn!(reason, "a step of cleanup failed and is repeated");
        self.tally.failures_total += 1;
        self.retry_at = Some(now.saturating_add(self.retry_after));
    }

    /// The last processed block, if all of the finalised chain is processed.
    pub(crate) fn caught_up(&self, finalised: BlockRef) -> Option<BlockRef> {
        let ready = self.walk.is_none() && !self.foreign && self.differs_at.is_none();
        self.cursor.filter(|cursor| ready && *cursor == finalised)
    }

    /// The height of the last processed block.
    pub(crate) fn processed(&self) -> Option<Height> {
        self.cursor.map(|cursor| cursor.height)
    }

    fn refusal(&self) -> Option<Refusal> {
        let differs = self.differs_at.map(|_| Refusal::HistoryDiffers);
        if self.foreign { Some(Refusal::OtherGenesis) } else { differs }
    }

    pub(crate) fn tally(&self) -> CleanupTally {
        let (processed, refusal) = (self.processed(), self.refusal());
        CleanupTally { processed, refusal, ..self.tally }
    }
}
