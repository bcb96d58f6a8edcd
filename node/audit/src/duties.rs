// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: all duties together, and which job is next.
//!
//! Two lanes, one job each at a time, so that a slow cleanup never delays a proof: challenges
//! (survey, answer, fates) and cleanup. Views go in, jobs come out, what came of them goes in.

use std::time::Duration;

use crate::audits::Audits;
use crate::chain::{BlockHash, BlockRef, Height, Standing, View};
use crate::cleanup::{Cleanup, Refusal};
use crate::config::AuditConfig;
use crate::cursor::Cursor;
use crate::health::Health;
use crate::jobs::{Done, Ground, Job};
use crate::metrics::AuditMetrics;
use crate::verdict::Keep;

/// Everything that is decided, and nothing that waits.
#[derive(Debug)]
pub(crate) struct Duties {
    health: Health,
    audits: Audits,
    cleanup: Cleanup,
    lane: AuditLane,
    retry_after: Duration,
    /// What was said of the chain in the log.
    told: Option<(Standing, Option<Refusal>)>,
}

#[derive(Debug, Default)]
struct AuditLane {
    busy: bool,
    /// The best block whose open audits are known.
    surveyed: Option<BlockRef>,
    /// The last job was an answer: look at the chain again before the next one.
    answered: bool,
    /// The finalised block that was asked last for the fates of audits.
    fates_of: Option<BlockHash>,
    retry_at: Option<Duration>,
}

impl Duties {
    pub(crate) fn new(
        config: &AuditConfig,
        genesis: BlockHash,
        cursor: Option<Cursor>,
        now: Duration,
    ) -> Self {
        let cleanup = Cleanup::new(config, genesis, cursor);
        let stall = Duration::from_secs(config.stall_after_secs);
        Self {
            health: Health::new(stall, cleanup.processed(), now),
            audits: Audits::new(config.clone()),
            cleanup,
            lane: AuditLane::default(),
            retry_after: Duration::from_secs(config.retry_interval_secs),
            told: None,
        }
    }

    /// Takes the chain's newest view.
    pub(crate) fn observe(&mut self, view: View) {
        let ours = view.standing.takes_proofs();
        self.health.observe(view);
        if ours {
            let best = self.best();
            self.audits.watch_deadlines(best);
        }
        self.lane.retry_at = None;
        self.cleanup.nudge();
    }

    fn best(&self) -> Height {
        self.health.view().best.height
    }

    /// The next job of either lane, if there is one.
    pub(crate) fn next_job(&mut self, now: Duration) -> Option<Job> {
        self.tell(now);
        self.next_audit_job(now).or_else(|| self.next_clean_job(now))
    }

    fn next_audit_job(&mut self, now: Duration) -> Option<Job> {
        let waiting = self.lane.retry_at.is_some_and(|at| now < at);
        let view = self.health.view();
        if self.lane.busy || waiting || !view.standing.takes_proofs() {
            return None;
        }
        let (best, finalised) = (view.best, view.finalised);
        let job = self.answer_or_survey(best).or_else(|| {
            let healthy = self.health.standing(now) == Standing::Healthy;
            let asked = self.lane.fates_of == Some(finalised.hash);
            let due = self.audits.fates_due(finalised.height);
            (healthy && !asked && !due.is_empty()).then_some(Job::Fates(due, finalised))
        })?;
        self.lane.busy = true;
        Some(job)
    }

    fn answer_or_survey(&mut self, best: BlockRef) -> Option<Job> {
        let stale = self.lane.surveyed != Some(best);
        let overdue = stale && self.lane.answered;
        let surveyed = self.lane.surveyed.filter(|_| !overdue);
        if let Some(surveyed) = surveyed {
            let batch = self.audits.next_batch(surveyed.height, best.height);
            if !batch.is_empty() {
                return Some(Job::Answer(batch));
            }
        }
        stale.then_some(Job::Survey(best))
    }

    fn next_clean_job(&mut self, now: Duration) -> Option<Job> {
        if self.health.standing(now) != Standing::Healthy {
            return None;
        }
        let finalised = self.health.view().finalised;
        self.cleanup.next(finalised, now).map(Job::Clean)
    }

    /// Takes what came of a job.
    pub(crate) fn apply(&mut self, done: Done, now: Duration) {
        let best = self.best();
        match done {
            Done::Surveyed(at, outcome) => {
                self.lane.busy = false;
                match outcome {
                    Ok(open) => {
                        self.lane.answered = false;
                        self.lane.surveyed = Some(at);
                        self.audits.observe(at.height, open);
                        self.audits.watch_deadlines(best.max(at.height));
                    }
                    Err(error) => self.pause(&error, now),
                }
            }
            Done::Answered(answered) => {
                self.lane.busy = false;
                self.lane.answered = true;
                self.audits.settle(best, answered);
            }
            Done::Fates(at, outcome) => {
                self.lane.busy = false;
                match outcome {
                    Ok(fates) => {
                        self.audits.conclude(at.height, &fates);
                        let more = !self.audits.fates_due(at.height).is_empty();
                        self.lane.fates_of = (!more).then_some(at.hash);
                    }
                    Err(error) => self.pause(&error, now),
                }
            }
            Done::Cleaned(outcome) => {
                self.cleanup.settle(outcome, now);
                self.health.processed(self.cleanup.processed(), now);
            }
            Done::Planned(_) => {}
        }
    }

    fn pause(&mut self, error: &dyn std::fmt::Display, now: Duration) {
        tracing::warn!(%error, "audits could not be read and are read again");
        self.lane.retry_at = Some(now.saturating_add(self.retry_after));
    }

    /// What a plan made now would stand on.
    pub(crate) fn ground(&self, now: Duration) -> Ground {
        let finalised = self.health.view().finalised;
        let standing = self.health.standing(now);
        if standing != Standing::Healthy {
            let processed = self.cleanup.processed().unwrap_or(finalised.height);
            let at = BlockRef { height: processed, ..finalised };
            return Ground::Infirm(at, Keep::Untrusted(standing));
        }
        match self.cleanup.caught_up(finalised) {
            Some(block) => Ground::Firm(block),
            None => Ground::Infirm(finalised, Keep::History),
        }
    }

    /// Says in the log, once each time, how the chain is.
    fn tell(&mut self, now: Duration) {
        let state = (self.health.standing(now), self.cleanup.tally().refusal);
        if self.told.as_ref() == Some(&state) {
            return;
        }
        let (standing, refusal) = &state;
        if *standing == Standing::Healthy && refusal.is_none() {
            tracing::info!("the chain is healthy");
        } else {
            tracing::warn!(%standing, ?refusal, "the chain is not well: no deal ends");
        }
        self.told = Some(state);
    }

    pub(crate) fn metrics(&self, now: Duration) -> AuditMetrics {
        let standing = self.health.standing(now);
        let cleanup = self.cleanup.tally();
        AuditMetrics {
            chain_alarm: standing != Standing::Healthy
                || cleanup.refusal.is_some()
                || self.health.is_late(now),
            standing,
            audits: self.audits.tally(),
            cleanup,
            finalised_rose_at: self.health.rose_at(),
            finalised_lag: now.saturating_sub(self.health.rose_at()),
            mailbox_depth: 0,
        }
    }
}
