// SPDX-License-Identifier: MIT OR Apache-2.0
//! The schedule under an injected clock.

use std::time::{Duration, Instant};

use supernode_protocol::ids::Cid;

use super::{Item, Outcome, RETRY, Schedule, WIDEN};

const INTERVAL: Duration = Duration::from_secs(3600);
const WIDE: Outcome = Outcome::Published { reach: 20, known: 20 };

fn item(number: u32) -> Item {
    Item::Provider(Cid::of(&number.to_le_bytes()))
}

#[test]
fn a_new_item_is_due_at_once_and_then_within_each_interval() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    schedule.add(item(1), start);
    assert_eq!(schedule.take_due(start, 8), [item(1)]);
    assert!(schedule.take_due(start, 8).is_empty(), "it is under way");
    assert!(!schedule.is_published(item(1)));
    schedule.finished(item(1), WIDE, start);
    assert!(schedule.is_published(item(1)));
    let due = schedule.next_due().expect("scheduled");
    assert!(due > start + INTERVAL * 7 / 8 && due <= start + INTERVAL);
    assert!(schedule.take_due(due - Duration::from_millis(1), 8).is_empty());
    assert_eq!(schedule.take_due(due, 8), [item(1)]);
}

#[test]
fn items_added_together_drift_apart() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    (0..1000).for_each(|n| schedule.add(item(n), start));
    for due in schedule.take_due(start, usize::MAX) {
        schedule.finished(due, WIDE, start);
    }
    // An eighth of an hour is 450 s: in no span of 4.5 s may more than a few fall.
    let first = schedule.next_due().expect("scheduled");
    let most = (0..100)
        .map(|step| first + Duration::from_millis(4500) * step)
        .map(|at| schedule.take_due(at, usize::MAX).len())
        .max();
    assert!(most < Some(40), "{most:?}");
}

#[test]
fn no_more_than_asked_for_are_handed_out() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    (0..10).for_each(|n| schedule.add(item(n), start));
    assert_eq!(schedule.take_due(start, 3).len(), 3);
    assert_eq!(schedule.take_due(start, 0).len(), 0);
    assert_eq!(schedule.take_due(start, 30).len(), 7);
}

#[test]
fn items_of_before_a_restart_are_spread() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    (0..1000).for_each(|n| schedule.add_spread(item(n), start));
    let quarter = schedule.take_due(start + INTERVAL / 32, usize::MAX).len();
    assert!((150..350).contains(&quarter), "{quarter}");
    assert_eq!(schedule.take_due(start + INTERVAL / 8, usize::MAX).len(), 1000 - quarter);
}

#[test]
fn failures_are_retried_with_growing_waits_up_to_the_interval() {
    let mut now = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    schedule.add(item(1), now);
    let mut waits = vec![];
    for _ in 0..14 {
        assert_eq!(schedule.take_due(now, 1), [item(1)]);
        schedule.finished(item(1), Outcome::Failed, now);
        let due = schedule.next_due().expect("scheduled");
        waits.push(due - now);
        now = due;
    }
    assert_eq!(waits[..3], [RETRY, RETRY * 2, RETRY * 4]);
    assert_eq!(waits[13], INTERVAL);
}

#[test]
fn removed_items_are_not_published_again() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    schedule.add(item(1), start);
    schedule.add(item(2), start);
    assert_eq!(schedule.take_due(start, 2).len(), 2);
    assert!(schedule.remove(item(1)));
    assert!(!schedule.remove(item(1)));
    schedule.finished(item(1), WIDE, start);
    schedule.finished(item(2), WIDE, start);
    assert!(schedule.remove(item(2)));
    assert_eq!(schedule.next_due(), None);
}

#[test]
fn a_change_while_under_way_goes_out_too() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    schedule.refresh(Item::Node, start);
    assert_eq!(schedule.take_due(start, 1), [Item::Node]);
    schedule.refresh(Item::Node, start);
    schedule.finished(Item::Node, WIDE, start);
    assert_eq!(schedule.take_due(start, 1), [Item::Node]);
}

#[test]
fn what_went_out_to_few_goes_out_again_when_more_are_known() {
    let start = Instant::now();
    let mut schedule = Schedule::new(INTERVAL);
    schedule.add(item(1), start);
    schedule.add(item(2), start);
    schedule.take_due(start, 2);
    schedule.finished(item(1), Outcome::Published { reach: 1, known: 1 }, start);
    schedule.finished(item(2), Outcome::Published { reach: 3, known: 3 }, start);
    schedule.peers_grew(3, start);
    assert_eq!(schedule.take_due(start + WIDEN, 8), [item(1)], "only the one that reached fewer");
    schedule.finished(item(1), Outcome::Published { reach: 3, known: 9 }, start);
    assert_eq!(schedule.take_due(start + WIDEN, 8), [item(1)], "more are known by now");
    schedule.finished(item(1), Outcome::Published { reach: 9, known: 9 }, start);
    schedule.peers_grew(9, start);
    assert_eq!(schedule.take_due(start + WIDEN, 8), [item(2)]);
    schedule.finished(item(2), Outcome::Published { reach: 9, known: 9 }, start);
    schedule.peers_grew(10, start);
    assert!(schedule.take_due(start + WIDEN, 8).is_empty(), "wide enough is enough");
}
