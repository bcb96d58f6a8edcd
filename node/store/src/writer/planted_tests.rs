// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every planted bug is noticed, by the tests that are there to notice its like.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash_tests::{
    Counts, life_with_many_ends, life_with_new_holes, life_with_old_holes, life_with_torn_ends,
    live,
};
use super::damage_tests::read_misplaced;
use super::fault_tests::fail_syncs;
use super::footer_tests::{cut_while_sealing, rebuild_from_rotten_footers};
use crate::planted::{Bug, plant};

/// Seeds that it may take.
const SEEDS_MAX: u64 = 100;

/// What an oracle says against the code, if anything.
fn objection(oracle: fn(u64), seed: u64) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| oracle(seed))).err()?;
    let said = panic.downcast_ref::<String>().cloned();
    said.or_else(|| panic.downcast_ref().map(|said: &&str| (*said).to_owned()))
}

fn random_life(seed: u64) {
    live(seed, &mut Counts::default());
}

/// Shows that an oracle notices a bug, that it says so in these words, and that it is the bug that
/// it notices.
fn assert_noticed(bug: Bug, oracle: fn(u64), words: &str) {
    for seed in 0..SEEDS_MAX {
        let Some(said) = plant(bug, || objection(oracle, seed)) else { continue };
        println!("{bug:?} is noticed with seed {seed}: {said}");
        if said.contains(words) {
            assert_eq!(objection(oracle, seed), None, "without {bug:?}");
            return;
        }
    }
    panic!("{bug:?} goes unnoticed");
}

#[test]
fn a_crash_notices_what_was_never_synced() {
    assert_noticed(Bug::SyncsNothing, random_life, "acknowledged up to");
}

#[test]
fn a_crash_notices_a_file_without_a_durable_name() {
    assert_noticed(Bug::SyncsNoDirectory, random_life, "acknowledged up to");
}

#[test]
fn a_crash_notices_a_sync_that_was_believed_the_second_time() {
    assert_noticed(Bug::BelievesSecondSync, fail_syncs, "a crash is no damage");
}

#[test]
fn a_crash_notices_a_start_on_what_was_not_durable() {
    assert_noticed(Bug::BuildsOnUnsynced, random_life, "a crash is no damage");
}

#[test]
fn an_answer_without_a_sync_is_noticed() {
    assert_noticed(Bug::AnswersUnsynced, random_life, "is answered, and not seen");
}

#[test]
fn an_answer_that_readers_do_not_know_of_is_noticed() {
    assert_noticed(Bug::AnswersUnpublished, random_life, "is answered, and not seen");
}

#[test]
fn a_crash_notices_records_that_promise_too_much() {
    assert_noticed(Bug::MiscountsUnsynced, life_with_torn_ends, "a crash is no damage");
}

#[test]
fn a_crash_notices_a_torn_end_that_was_believed() {
    assert_noticed(Bug::BelievesTornEnd, life_with_torn_ends, "damaged");
}

#[test]
fn a_misplaced_record_notices_an_index_that_was_believed() {
    assert_noticed(Bug::BelievesIndex, read_misplaced, "served");
}

#[test]
fn a_restart_notices_an_index_that_is_marked_ahead() {
    assert_noticed(Bug::MarksAhead, random_life, "a walk: ");
}

#[test]
fn a_walk_notices_figures_of_what_was_refused() {
    assert_noticed(Bug::CountsRefused, fail_syncs, "a walk: ");
}

#[test]
fn the_model_notices_what_was_revived_for_nobody() {
    assert_noticed(Bug::RevivesUncovered, random_life, "store and model");
}

#[test]
fn a_crash_notices_a_hole_in_what_is_still_wanted() {
    assert_noticed(Bug::PunchesUnburied, life_with_old_holes, "damaged");
}

#[test]
fn a_crash_notices_a_hole_that_looks_like_a_torn_end() {
    assert_noticed(Bug::PunchesUnfenced, life_with_new_holes, "acknowledged up to");
}

#[test]
fn a_restart_notices_a_group_that_was_said_again_in_part() {
    assert_noticed(Bug::RestatesUncovered, random_life, "index and log differ");
}

#[test]
fn a_crash_notices_tombstones_that_went_before_what_they_stand_on() {
    assert_noticed(Bug::DropsTombstones, life_with_many_ends, "a walk: ");
}

#[test]
fn a_rotten_footer_notices_that_it_was_believed() {
    assert_noticed(Bug::BelievesFooter, rebuild_from_rotten_footers, "store and model");
}

#[test]
fn a_crash_notices_a_footer_that_was_stated_too_early() {
    assert_noticed(Bug::StatesUnsyncedFooter, cut_while_sealing, "stated and is not whole");
}

#[test]
fn a_restart_notices_a_segment_that_went_too_early() {
    assert_noticed(Bug::UnlinksAnchored, random_life, "a walk: ");
}
