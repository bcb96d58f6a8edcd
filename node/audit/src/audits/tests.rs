// SPDX-License-Identifier: MIT OR Apache-2.0
//! Challenges against heights: no chain, no store, one rule at a time.

use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::Cid;

use super::{Answered, Audits};
use crate::chain::{
    AuditFate, BlockHash, BlockRef, ChainError, Challenge, Height, ProofFate, Submitted,
};
use crate::config::AuditConfig;
use crate::keeper::ProveError;

const OPENED: Height = 100;
const DEADLINE: Height = 120;

fn challenge(audit: u64) -> Challenge {
    Challenge {
        audit: AuditId(audit),
        deal: DealId(1),
        object: Cid::from_bytes([1; 32]),
        stripe: 0,
        index: 3,
        seed: [7; 32],
        chunk_count: 4,
        opened_at: OPENED,
        deadline: DEADLINE,
    }
}

fn audits() -> Audits {
    Audits::new(AuditConfig { batch_proofs_max: 2, open_audits_max: 4, ..AuditConfig::default() })
}

fn ids(batch: &[Challenge]) -> Vec<u64> {
    batch.iter().map(|it| it.audit.0).collect()
}

fn accepted(sent: Vec<Challenge>, at: Height) -> Answered {
    let block = BlockRef { height: at, hash: BlockHash::default() };
    let fates = sent.iter().map(|it| (it.audit, ProofFate::Accepted)).collect();
    Answered { sent, outcome: Some(Ok(Submitted { block, fates })), ..Answered::default() }
}

fn failed(sent: Vec<Challenge>) -> Answered {
    let error = ChainError::NotTaken { reason: "a test".to_owned() };
    Answered { sent, outcome: Some(Err(error)), ..Answered::default() }
}

fn unprovable(challenge: Challenge) -> Answered {
    let error = ProveError::Damaged { reason: "a test".to_owned() };
    Answered { unprovable: vec![(challenge, error)], ..Answered::default() }
}

#[test]
fn what_is_in_flight_is_not_sent_again() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1), challenge(2), challenge(3)]);
    let batch = audits.next_batch(101, 101);
    assert_eq!(ids(&batch), [1, 2], "a full batch");
    assert_eq!(audits.next_batch(101, 101), [], "one submission at a time");
    audits.observe(102, vec![challenge(1), challenge(2), challenge(3)]);
    assert_eq!(audits.next_batch(102, 102), []);
    audits.settle(103, accepted(batch, 103));
    assert_eq!(ids(&audits.next_batch(102, 103)), [3]);
}

#[test]
fn the_nearest_deadline_goes_first() {
    let mut audits = audits();
    let near = Challenge { deadline: DEADLINE - 5, ..challenge(9) };
    audits.observe(101, vec![challenge(1), challenge(2), near]);
    assert_eq!(ids(&audits.next_batch(101, 101)), [9, 1]);
}

#[test]
fn nothing_is_sent_that_the_next_block_cannot_count() {
    let mut audits = audits();
    audits.observe(DEADLINE - 1, vec![challenge(1)]);
    assert_eq!(audits.next_batch(DEADLINE - 1, DEADLINE), [], "the deadline's block is there");
    assert_eq!(ids(&audits.next_batch(DEADLINE - 1, DEADLINE - 1)), [1]);
}

#[test]
fn an_accepted_proof_that_is_retracted_is_sent_again() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1)]);
    let batch = audits.next_batch(101, 101);
    audits.settle(101, accepted(batch, 102));
    audits.observe(101, vec![challenge(1)]);
    assert_eq!(audits.next_batch(101, 101), [], "read before the block that took it");
    audits.observe(102, vec![challenge(1)]);
    assert_eq!(ids(&audits.next_batch(102, 102)), [1], "another block of that height");
}

#[test]
fn a_submission_of_unknown_fate_is_repeated_only_if_the_audit_is_still_open() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1), challenge(2)]);
    let batch = audits.next_batch(101, 101);
    audits.settle(101, failed(batch));
    audits.observe(102, vec![challenge(1), challenge(2)]);
    assert_eq!(audits.next_batch(102, 102), [], "it may still arrive");
    audits.observe(103, vec![challenge(2)]);
    assert_eq!(ids(&audits.next_batch(103, 103)), [2], "the first has arrived");
}

#[test]
fn near_the_deadline_a_failed_submission_is_repeated_in_every_block() {
    let mut audits = audits();
    audits.observe(115, vec![challenge(1)]);
    let batch = audits.next_batch(115, 115);
    audits.settle(115, failed(batch));
    audits.observe(116, vec![challenge(1)]);
    assert_eq!(ids(&audits.next_batch(116, 116)), [1]);
}

#[test]
fn another_forks_challenge_of_the_same_number_is_another_challenge() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1)]);
    let batch = audits.next_batch(101, 101);
    let other = Challenge { seed: [8; 32], ..challenge(1) };
    audits.observe(102, vec![other.clone()]);
    assert_eq!(audits.next_batch(102, 102), [], "a submission is under way");
    audits.settle(102, accepted(batch, 102));
    assert_eq!(audits.next_batch(102, 102), [other]);
}

#[test]
fn the_alarm_is_on_while_a_quarter_of_the_window_is_left() {
    let mut audits = audits();
    audits.observe(114, vec![challenge(1)]);
    assert_eq!(audits.tally().pressing, 0);
    audits.observe(115, vec![challenge(1)]);
    assert_eq!(audits.tally().pressing, 1, "5 of 20 blocks are left");
    let batch = audits.next_batch(115, 115);
    audits.settle(116, accepted(batch, 116));
    let tally = audits.tally();
    assert_eq!((tally.pressing, tally.open), (0, 0));
    assert_eq!((tally.slack_last_blocks, tally.slack_min_blocks), (Some(4), Some(4)));
}

#[test]
fn what_cannot_be_proved_is_tried_again_after_a_while() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1)]);
    let batch = audits.next_batch(101, 101);
    audits.settle(101, unprovable(batch[0].clone()));
    assert_eq!(audits.tally().unprovable, 1);
    audits.observe(105, vec![challenge(1)]);
    assert_eq!(audits.next_batch(105, 105), []);
    audits.observe(106, vec![challenge(1)]);
    let batch = audits.next_batch(106, 106);
    assert_eq!(ids(&batch), [1]);
    audits.settle(106, accepted(batch, 107));
    assert_eq!(audits.tally().unprovable, 0, "a repair brought it back");
}

#[test]
fn pauses_end_when_a_taller_chain_was_shown_for_a_while() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1)]);
    let batch = audits.next_batch(101, 101);
    audits.settle(9000, failed(batch));
    audits.observe(102, vec![challenge(1)]);
    assert_eq!(ids(&audits.next_batch(102, 102)), [1]);
}

#[test]
fn results_are_counted_once_and_by_what_happened() {
    let mut audits = audits();
    audits.observe(101, (1..=4).map(challenge).collect());
    let batch = audits.next_batch(101, 101);
    audits.settle(102, accepted(vec![batch[0].clone()], 102));
    audits.settle(102, unprovable(batch[1].clone()));
    let batch = audits.next_batch(101, 102);
    let reason = "wrong".to_owned();
    let fates = vec![(AuditId(3), ProofFate::Rejected { reason })];
    let block = BlockRef { height: 103, hash: BlockHash::default() };
    let outcome = Some(Ok(Submitted { block, fates }));
    audits.settle(103, Answered { sent: batch, outcome, ..Answered::default() });
    audits.observe(121, Vec::new());
    assert!(audits.fates_due(120).is_empty(), "not final yet");
    let due = audits.fates_due(121);
    assert_eq!(due.len(), 4);
    let fate = |audit: &AuditId| {
        (*audit, if audit.0 == 1 { AuditFate::Passed } else { AuditFate::Failed })
    };
    let fates: Vec<_> = due.iter().map(fate).collect();
    audits.conclude(121, &fates);
    audits.conclude(121, &fates);
    let tally = audits.tally();
    assert_eq!((tally.passed_total, tally.failed_total), (1, 1));
    assert_eq!((tally.late_total, tally.unprovable_total), (1, 1));
}

#[test]
fn a_retracted_challenge_counts_as_nothing() {
    let mut audits = audits();
    audits.observe(101, vec![challenge(1), challenge(2)]);
    audits.observe(102, Vec::new());
    audits.conclude(102, &[(AuditId(1), AuditFate::Unknown), (AuditId(2), AuditFate::Open)]);
    let tally = audits.tally();
    let all = (tally.passed_total, tally.failed_total, tally.late_total, tally.unprovable_total);
    assert_eq!(all, (0, 0, 0, 0));
    assert_eq!(audits.fates_due(103), [AuditId(2)], "asked again at a later block");
}

#[test]
fn a_full_list_says_nothing_about_what_lies_beyond_it() {
    let mut audits = audits();
    audits.observe(101, (1..=4).map(challenge).collect());
    audits.observe(102, (1..=3).chain([5]).map(challenge).collect());
    assert_eq!(audits.fates_due(102), [AuditId(4)]);
    let mut audits = self::audits();
    audits.observe(101, vec![challenge(8)]);
    audits.observe(102, (1..=4).map(challenge).collect());
    assert!(audits.fates_due(102).is_empty(), "8 may be open beyond the list");
}

#[test]
fn finality_that_stands_still_fills_no_memory() {
    let mut audits = audits();
    for audit in 1..100 {
        audits.observe(100 + audit, vec![challenge(audit)]);
        assert!(audits.entries.len() <= 4 + 1, "{}", audits.entries.len());
    }
}
