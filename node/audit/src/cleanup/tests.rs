// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of steps: no chain, no store, one rule at a time.

use std::time::Duration;

use supernode_protocol::ids::LeaseId;

use super::{Cleanup, DealCounts, JudgedPage, Refusal, Stop, Task, TaskDone};
use crate::chain::{BlockHash, BlockRef, Height};
use crate::config::AuditConfig;
use crate::cursor::Cursor;

const GENESIS: BlockHash = BlockHash::from_bytes([1; 32]);
const START: Duration = Duration::ZERO;

fn block(height: u8) -> BlockRef {
    BlockRef { height: Height::from(height), hash: BlockHash::from_bytes([height; 32]) }
}

fn lease(number: u8) -> LeaseId {
    LeaseId::from_bytes([number; 16])
}

fn after(height: u8) -> Cleanup {
    let cursor = Cursor { genesis: GENESIS, block: block(height) };
    Cleanup::new(&AuditConfig::default(), GENESIS, Some(cursor))
}

fn followed(reached: BlockRef, stop: Option<Stop>) -> Result<TaskDone, String> {
    Ok(TaskDone::Followed { reached, moved: 0, stop })
}

fn judged(after: Option<(Height, LeaseId)>, page: JudgedPage) -> Result<TaskDone, String> {
    Ok(TaskDone::Judged { after, page })
}

fn counted(after: Option<LeaseId>) -> Result<TaskDone, String> {
    Ok(TaskDone::Counted { after, page: DealCounts { active: 1, ..DealCounts::default() } })
}

#[test]
fn a_new_node_walks_first_and_follows_from_where_the_walk_began() {
    let mut cleanup = Cleanup::new(&AuditConfig::default(), GENESIS, None);
    let target = block(5);
    let walk = |at, after| Some(Task::Walk { at, target, after });
    assert_eq!(cleanup.next(target, START), walk(target, None));
    assert_eq!(cleanup.next(target, START), None, "one step at a time");
    cleanup.settle(Ok(TaskDone::Walked { after: Some(lease(3)), moved: 1 }), START);
    assert_eq!(cleanup.next(block(7), START), walk(block(7), Some(lease(3))));
    assert_eq!(cleanup.caught_up(block(5)), None);
    cleanup.settle(Ok(TaskDone::Walked { after: None, moved: 1 }), START);
    let follow = Task::Follow { from: target, to: block(7) };
    assert_eq!(cleanup.next(block(7), START), Some(follow));
    assert_eq!(cleanup.tally().moved_total, 2);
}

#[test]
fn nothing_is_judged_before_the_head_is_reached() {
    let mut cleanup = after(5);
    let follow = |from| Some(Task::Follow { from, to: block(9) });
    assert_eq!(cleanup.next(block(9), START), follow(block(5)));
    cleanup.settle(followed(block(7), None), START);
    assert_eq!(cleanup.next(block(9), START), follow(block(7)));
    cleanup.settle(followed(block(9), None), START);
    assert_eq!(cleanup.next(block(9), START), Some(Task::Due { at: block(9), after: None }));
    assert_eq!(cleanup.caught_up(block(9)), Some(block(9)));
}

#[test]
fn a_pass_goes_through_its_pages_and_is_made_once_per_block() {
    let mut cleanup = after(9);
    let due = |after| Some(Task::Due { at: block(9), after });
    assert_eq!(cleanup.next(block(9), START), due(None));
    let page = JudgedPage { ended: 2, ended_bytes: 10, disputed: 1, ..JudgedPage::default() };
    cleanup.settle(judged(Some((4, lease(4))), page), START);
    assert_eq!(cleanup.next(block(9), START), due(Some((4, lease(4)))));
    assert_eq!(cleanup.tally().disputed, 0, "the pass is not over");
    cleanup.settle(judged(None, page), START);
    let tally = cleanup.tally();
    assert_eq!((tally.ended_total, tally.ended_bytes_total, tally.disputed), (4, 20, 2));
    let count = |after| Some(Task::Count { at: 9, after });
    assert_eq!(cleanup.next(block(9), START), count(None));
    cleanup.settle(counted(Some(lease(1))), START);
    assert_eq!(cleanup.next(block(9), START), count(Some(lease(1))), "the first count is whole");
    cleanup.settle(counted(None), START);
    assert_eq!(cleanup.tally().deals.active, 2);
    assert_eq!(cleanup.next(block(9), START), None);
}

#[test]
fn what_was_not_confirmed_is_asked_again_though_the_chain_stands_still() {
    let mut cleanup = after(9);
    assert!(cleanup.next(block(9), START).is_some());
    let page = JudgedPage { unconfirmed: 1, ..JudgedPage::default() };
    cleanup.settle(judged(None, page), START);
    assert_eq!(cleanup.next(block(9), START), None);
    let later = Duration::from_secs(5);
    assert_eq!(cleanup.next(block(9), later), Some(Task::Due { at: block(9), after: None }));
}

#[test]
fn a_failure_waits_for_its_time_or_for_the_chain_to_move() {
    let mut cleanup = after(5);
    assert!(cleanup.next(block(6), START).is_some());
    cleanup.settle(Err("a test".to_owned()), START);
    assert_eq!(cleanup.next(block(6), Duration::from_secs(4)), None);
    cleanup.nudge();
    assert!(cleanup.next(block(6), Duration::from_secs(4)).is_some());
}

#[test]
fn a_cursor_of_another_genesis_stops_everything() {
    let cursor = Cursor { genesis: BlockHash::from_bytes([2; 32]), block: block(5) };
    let mut cleanup = Cleanup::new(&AuditConfig::default(), GENESIS, Some(cursor));
    assert_eq!(cleanup.next(block(9), START), None);
    assert_eq!(cleanup.next(block(5), START), None);
    assert_eq!(cleanup.tally().refusal, Some(Refusal::OtherGenesis));
    assert_eq!(cleanup.caught_up(block(5)), None);
}

#[test]
fn another_history_stops_everything_until_ours_is_back() {
    let mut cleanup = after(5);
    assert!(cleanup.next(block(9), START).is_some());
    cleanup.settle(followed(block(5), Some(Stop::Differs)), START);
    assert_eq!(cleanup.next(block(9), Duration::from_secs(999)), None);
    assert_eq!(cleanup.tally().refusal, Some(Refusal::HistoryDiffers));
    assert!(cleanup.next(block(10), START).is_some(), "a new head is looked at");
    cleanup.settle(followed(block(10), None), START);
    assert_eq!(cleanup.tally().refusal, None);
    let twin = BlockRef { hash: BlockHash::from_bytes([99; 32]), ..block(10) };
    assert_eq!(cleanup.next(twin, START), None, "the same height is not the same block");
    assert_eq!(cleanup.tally().refusal, Some(Refusal::HistoryDiffers));
    assert!(cleanup.next(block(10), START).is_some(), "the right block is back");
    assert_eq!(cleanup.tally().refusal, None);
}

#[test]
fn a_head_below_the_cursor_is_never_processed() {
    let mut cleanup = after(5);
    assert_eq!(cleanup.next(block(4), START), None);
    assert_eq!(cleanup.processed(), Some(5));
}

#[test]
fn a_gap_is_walked_over() {
    let mut cleanup = after(5);
    assert!(cleanup.next(block(200), START).is_some());
    cleanup.settle(followed(block(5), Some(Stop::Gap)), START);
    let walk = Task::Walk { at: block(201), target: block(200), after: None };
    assert_eq!(cleanup.next(block(201), START), Some(walk));
}
