// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: which challenges are answered now, and what became of them.
//!
//! - Everything is reconciled with what the best block lists as open; nothing is remembered over a
//!   restart, because nothing needs to be.
//! - One submission is in flight at a time, and no audit is in two of them. After its fate is known
//!   the list decides: what is still open is answered again, what is gone waits for finality.
//! - Results are counted once, from the finalised chain. A challenge that a reorganisation took
//!   back is dropped and counted as nothing.
//! - A proof counts in blocks up to the deadline, and the next block is the first it can reach: at
//!   the deadline itself there is nothing left to send.
//! - Two forks may give one id to different challenges, so an answer is matched by the whole
//!   challenge.

use std::collections::BTreeMap;

use supernode_protocol::deal::AuditId;

use crate::chain::{AuditFate, ChainError, Challenge, Height, ProofFate, Submitted};
use crate::config::AuditConfig;
use crate::keeper::ProveError;

#[cfg(test)]
mod tests;

/// Results asked for in one step.
const FATES_PER_STEP_MAX: usize = 64;

/// How audits ended, and how they stand. Those that end in `_total` only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditTally {
    /// Passed, on the finalised chain.
    pub passed_total: u64,
    /// Failed although a proof was sent: the chain refused it.
    pub failed_total: u64,
    /// Failed because no proof was in a block in time.
    pub late_total: u64,
    /// Failed because this node could not prove the slot.
    pub unprovable_total: u64,
    /// Submissions that were in no block, or whose fate could not be learnt.
    pub submission_failures_total: u64,
    /// Open for this node now.
    pub open: u64,
    /// Open with little of their window left.
    pub pressing: u64,
    /// Open and not provable at the last attempt.
    pub unprovable: u64,
    /// Blocks that were left when the newest accepted proof was in a block.
    pub slack_last_blocks: Option<u64>,
    /// The least there ever were.
    pub slack_min_blocks: Option<u64>,
}

/// What an attempt to answer did.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// No proof could be made.
    pub(crate) unprovable: Vec<(Challenge, ProveError)>,
    /// Did not fit into the transaction, or was overtaken.
    pub(crate) unsent: Vec<Challenge>,
    /// In the transaction.
    pub(crate) sent: Vec<Challenge>,
    /// What became of the transaction, if there was one.
    pub(crate) outcome: Option<Result<Submitted, ChainError>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be answered when the best block has this height.
    Open { try_at: Height },
    /// In the submission that is under way.
    InFlight,
    /// Accepted in a block of this height, which may still be retracted.
    Accepted { at: Height },
    /// Not open any more since the best block had this height; finality will say why.
    Gone { since: Height },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Unprovable,
    Refused,
}

#[derive(Debug)]
struct Entry {
    challenge: Challenge,
    state: State,
    accepted_at: Option<Height>,
    trouble: Option<Trouble>,
    warned: bool,
}

impl Entry {
    fn new(challenge: Challenge) -> Self {
        let state = State::Open { try_at: 0 };
        Self { challenge, state, accepted_at: None, trouble: None, warned: false }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::InFlight)
    }
}

/// All audits of this node that are not settled.
#[derive(Debug)]
pub(crate) struct Audits {
    config: AuditConfig,
    entries: BTreeMap<AuditId, Entry>,
    submitting: bool,
    tally: AuditTally,
}

impl Audits {
    pub(crate) fn new(config: AuditConfig) -> Self {
        let tally = AuditTally::default();
        Self { config, entries: BTreeMap::new(), submitting: false, tally }
    }

    /// Takes the list of what is open after a block of the best chain.
    pub(crate) fn observe(&mut self, best: Height, open: Vec<Challenge>) {
        // A full list says nothing about ids beyond its last.
        let full = open.len() >= self.config.open_audits_max;
        let seen_to = open.last().filter(|_| full).map(|last| last.audit);
        let listed: BTreeMap<_, _> = open.into_iter().map(|it| (it.audit, it)).collect();
        for (audit, entry) in &mut self.entries {
            let covered = seen_to.is_none_or(|last| *audit <= last);
            let settled = match &mut entry.state {
                State::Accepted { at } => best >= *at,
                State::Open { .. } => true,
                State::InFlight => false,
                State::Gone { since } => {
                    // Heights may fall: a taller chain was shown for a while.
                    *since = (*since).min(best);
                    false
                }
            };
            if covered && settled && !listed.contains_key(audit) {
                entry.state = State::Gone { since: best };
            }
        }
        for (audit, challenge) in listed {
            self.reopen(best, audit, challenge);
        }
        self.forget_oldest();
        self.watch_deadlines(best);
    }

    fn reopen(&mut self, best: Height, audit: AuditId, challenge: Challenge) {
        let entry = self.entries.entry(audit).or_insert_with(|| Entry::new(challenge.clone()));
        if entry.challenge != challenge {
            // Another fork's challenge of the same number. What is in flight answers the old one.
            let in_flight = entry.state == State::InFlight;
            *entry = Entry::new(challenge);
            if in_flight {
                entry.state = State::InFlight;
            }
            return;
        }
        let pause_max = self.config.answer_retry_blocks.max(self.config.unprovable_retry_blocks);
        match entry.state {
            // As above: no pause is longer than the longest.
            State::Open { try_at } if try_at > best.saturating_add(pause_max) => {
                entry.state = State::Open { try_at: best };
            }
            State::Open { .. } | State::InFlight => {}
            // Read from a block before the one that took the proof.
            State::Accepted { at } if best < at => {}
            State::Accepted { .. } | State::Gone { .. } => {
                entry.state = State::Open { try_at: best };
            }
        }
    }

    /// Finality that stands still must not let this grow.
    fn forget_oldest(&mut self) {
        let gone = |entry: &Entry| matches!(entry.state, State::Gone { .. });
        let count = self.entries.values().filter(|entry| gone(entry)).count();
        let surplus = count.saturating_sub(self.config.open_audits_max);
        let oldest = self.entries.iter().filter(|(_, entry)| gone(entry)).map(|(id, _)| *id);
        for audit in oldest.take(surplus).collect::<Vec<_>>() {
            self.entries.remove(&audit);
        }
    }

    fn presses(&self, challenge: &Challenge, best: Height) -> bool {
        let window = u128::from(challenge.deadline.saturating_sub(challenge.opened_at));
        let left = u128::from(challenge.deadline.saturating_sub(best));
        left * 100 <= window * u128::from(self.config.alarm_window_percent)
    }

    /// Raises the alarm, in the log once for each audit.
    pub(crate) fn watch_deadlines(&mut self, best: Height) {
        let pressing: Vec<AuditId> = self
            .entries
            .values()
            .filter(|entry| entry.is_open() && self.presses(&entry.challenge, best))
            .map(|entry| entry.challenge.audit)
            .collect();
        for audit in &pressing {
            let Some(entry) = self.entries.get_mut(audit).filter(|entry| !entry.warned) else {
                continue;
            };
            entry.warned = true;
            let left = entry.challenge.deadline.saturating_sub(best);
            tracing::warn!(%audit, blocks_left = left, "an audit is not passed near its deadline");
        }
        let open = self.entries.values().filter(|entry| entry.is_open());
        self.tally.open = open.clone().count() as u64;
        let unprovable = open.filter(|entry| entry.trouble == Some(Trouble::Unprovable));
        self.tally.unprovable = unprovable.count() as u64;
        self.tally.pressing = pressing.len() as u64;
    }

    /// What is answered now, nearest deadline first. It is in flight from here to
    /// [`Self::settle`]. The list was last taken at `surveyed`; what was tried after that waits for
    /// the next one.
    pub(crate) fn next_batch(&mut self, surveyed: Height, best: Height) -> Vec<Challenge> {
        if self.submitting {
            return Vec::new();
        }
        let ready = self.entries.values().filter(|entry| {
            let untried = matches!(entry.state, State::Open { try_at } if try_at <= surveyed);
            untried && best < entry.challenge.deadline
        });
        let mut batch: Vec<Challenge> = ready.map(|entry| entry.challenge.clone()).collect();
        batch.sort_by_key(|challenge| (challenge.deadline, challenge.audit));
        batch.truncate(self.config.batch_proofs_max);
        for challenge in &batch {
            if let Some(entry) = self.entries.get_mut(&challenge.audit) {
                entry.state = State::InFlight;
            }
        }
        self.submitting = !batch.is_empty();
        batch
    }

    /// Takes what an attempt did. `best` is the height by now.
    pub(crate) fn settle(&mut self, best: Height, answered: Answered) {
        self.submitting = false;
        for challenge in &answered.unsent {
            self.put_back(challenge, 0, None);
        }
        for (challenge, error) in &answered.unprovable {
            self.on_unprovable(challenge, error, best);
        }
        match answered.outcome {
            Some(Ok(submitted)) => self.on_submitted(&answered.sent, &submitted, best),
            Some(Err(error)) => {
                tracing::warn!(%error, proofs = answered.sent.len(), "proofs were not taken");
                self.tally.submission_failures_total += 1;
                self.retry_soon(&answered.sent, best);
            }
            None => {}
        }
        self.watch_deadlines(best);
    }

    fn put_back(&mut self, challenge: &Challenge, try_at: Height, trouble: Option<Trouble>) {
        let Some(entry) = self.entries.get_mut(&challenge.audit) else { return };
        if entry.challenge == *challenge {
            entry.state = State::Open { try_at };
            entry.trouble = trouble;
        } else {
            // The answer was to another fork's challenge; this one has not been tried.
            entry.state = State::Open { try_at: 0 };
        }
    }

    fn on_unprovable(&mut self, challenge: &Challenge, error: &ProveError, best: Height) {
        let known = self.entries.get(&challenge.audit);
        if known.is_some_and(|entry| entry.trouble != Some(Trouble::Unprovable)) {
            let (audit, deal) = (challenge.audit, challenge.deal);
            let (stripe, index) = (challenge.stripe, challenge.index);
            tracing::error!(%audit, %deal, stripe, index, %error, "an audit cannot be proved");
        }
        let again = best.saturating_add(self.config.unprovable_retry_blocks);
        self.put_back(challenge, again, Some(Trouble::Unprovable));
    }

    fn retry_soon(&mut self, sent: &[Challenge], best: Height) {
        for challenge in sent {
            let pressing = self.presses(challenge, best);
            let pause = if pressing { 1 } else { self.config.answer_retry_blocks };
            self.put_back(challenge, best.saturating_add(pause), None);
        }
    }

    fn on_submitted(&mut self, sent: &[Challenge], submitted: &Submitted, best: Height) {
        let at = submitted.block.height;
        for challenge in sent {
            let fates = submitted.fates.iter();
            let fate = fates.clone().find(|(audit, _)| *audit == challenge.audit);
            match fate.map(|(_, fate)| fate) {
                Some(ProofFate::Accepted) => self.on_accepted(challenge, at),
                Some(ProofFate::Rejected { reason }) => {
                    let audit = challenge.audit;
                    tracing::error!(%audit, reason, "the chain refused a proof");
                    let again = best.saturating_add(self.config.unprovable_retry_blocks);
                    self.put_back(challenge, again, Some(Trouble::Refused));
                }
                None => self.retry_soon(std::slice::from_ref(challenge), best),
            }
        }
    }

    fn on_accepted(&mut self, challenge: &Challenge, at: Height) {
        let Some(entry) = self.entries.get_mut(&challenge.audit) else { return };
        if entry.challenge != *challenge {
            entry.state = State::Open { try_at: 0 };
            return;
        }
        entry.state = State::Accepted { at };
        entry.accepted_at = Some(at);
        entry.trouble = None;
        self.note_slack(challenge.deadline.saturating_sub(at));
    }

    fn note_slack(&mut self, blocks: u64) {
        self.tally.slack_last_blocks = Some(blocks);
        let least = self.tally.slack_min_blocks.map_or(blocks, |least| least.min(blocks));
        self.tally.slack_min_blocks = Some(least);
    }

    /// Audits whose fate the finalised block can tell.
    pub(crate) fn fates_due(&self, finalised: Height) -> Vec<AuditId> {
        let due = self.entries.iter().filter(|(_, entry)| match entry.state {
            State::Gone { since } => since <= finalised,
            State::Open { .. } | State::InFlight | State::Accepted { .. } => false,
        });
        due.map(|(audit, _)| *audit).take(FATES_PER_STEP_MAX).collect()
    }

    /// Takes what the finalised block at `finalised` says of them.
    pub(crate) fn conclude(&mut self, finalised: Height, fates: &[(AuditId, AuditFate)]) {
        for (audit, fate) in fates {
            let Some(entry) = self.entries.get_mut(audit) else { continue };
            let State::Gone { since } = entry.state else { continue };
            if *fate == AuditFate::Open {
                // The block in which it was seen gone is not on this chain; look again later.
                entry.state = State::Gone { since: finalised.saturating_add(1) };
                continue;
            }
            let (trouble, accepted_at) = (entry.trouble, entry.accepted_at);
            let deadline = entry.challenge.deadline;
            self.entries.remove(audit);
            match (fate, trouble) {
                (AuditFate::Passed, _) => {
                    self.tally.passed_total += 1;
                    if accepted_at.is_none() {
                        self.note_slack(deadline.saturating_sub(since));
                    }
                }
                (AuditFate::Failed, None) => self.tally.late_total += 1,
                (AuditFate::Failed, Some(Trouble::Refused)) => self.tally.failed_total += 1,
                (AuditFate::Failed, Some(Trouble::Unprovable)) => {
                    self.tally.unprovable_total += 1;
                }
                (AuditFate::Unknown | AuditFate::Open, _) => {}
            }
        }
    }

    pub(crate) fn tally(&self) -> AuditTally {
        self.tally
    }
}
