// SPDX-License-Identifier: MIT OR Apache-2.0
//! One fault at every place of a fixed script.

use std::sync::Arc;

use parking_lot::Mutex;
use supernode_protocol::ids::{LeaseId, UploadId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::harness::{Action, IndexFate, LARGE, Lab, World, config};
use super::{Answer, Done, Op, Planned};
use crate::catalog::{Event, GroupEvent};
use crate::config::{Durability, KindDurability, LeaseDurability, StoreConfig};
use crate::disk::Fault;
use crate::error::StoreError;
use crate::index::PENDING_ENTRIES_MAX;
use crate::record::{Freed, LeaseChange};
use crate::sample::Terms;

/// Two objects, a release, a renewal and what time brings, in small batches.
fn script(world: &World) -> Vec<Vec<Action>> {
    let (first, second) = (Terms::pin(1, 11), Terms::pin(2, 12));
    let mut actions = world.whole_group(0, 0, 0, first);
    actions.extend(world.whole_group(1, 2, 0, second));
    actions.push(Action::Renew { client: 0, lease: first.lease, secs: 1000 });
    actions.push(Action::Place { client: 1, object: 2, group: 0, epoch: 3 });
    actions.push(Action::Release { client: 1, lease: second.lease });
    actions.chunks(3).map(<[Action]>::to_vec).collect()
}

/// Runs the script to store and model; where the store refuses, the model is told nothing, but
/// remembers that a refused record may be on the disk until another one follows.
/// Returns how many operations were acknowledged.
fn run_with_refusals(lab: &mut Lab) -> usize {
    let mut acked = 0;
    for batch in script(&lab.world) {
        let mut ahead = lab.model.clone();
        let mut planned = Vec::new();
        for action in &batch {
            if let Some(fact) = ahead.plan(&lab.world, action) {
                let fact = ahead.number(fact);
                ahead.apply(&fact);
                planned.push(fact);
            }
        }
        let before = acked;
        let outcomes = lab.perform(&batch);
        for (action, outcome) in batch.iter().zip(outcomes) {
            let outcome = outcome.lock().take().expect("every operation is answered");
            if let Ok(done) = outcome {
                let fact = lab.model.plan(&lab.world, action).expect("the model agrees");
                let fact = lab.model.number(fact);
                assert_eq!(done.ack.sequence, fact.sequence);
                lab.model.apply(&fact);
                acked += 1;
            }
        }
        if acked > before {
            lab.model.maybe.clear();
        }
        if acked < before + planned.len() {
            lab.model.maybe.extend(planned);
        }
        lab.compare_live();
    }
    acked
}

/// Fails every sync of the script in turn, alone and with the next one.
pub(super) fn fail_syncs(seed: u64) {
    let mut lab = Lab::new(seed);
    let clean = run_with_refusals(&mut lab);
    let (syncs, _) = lab.disk.counts();
    assert!(syncs > 10, "{syncs}");
    for ordinal in 0..syncs {
        for second_too in [false, true] {
            let mut lab = Lab::new(seed);
            lab.inject(Fault::Sync(ordinal));
            // The new segment's own sync fails as well: then there is nowhere to go.
            if second_too {
                lab.inject(Fault::Sync(ordinal + 1));
            }
            let acked = run_with_refusals(&mut lab);
            if second_too {
                assert!(acked <= clean);
            } else if ordinal > 2 {
                assert_eq!(acked, clean, "sync {ordinal}: the batch is written again elsewhere");
            }
            // What the failed sync left in doubt on the disk must not be needed.
            lab.restart(true, IndexFate::Lost);
        }
    }
}

#[test]
fn a_failed_sync_at_any_place_is_answered_truly() {
    (0..6).for_each(fail_syncs);
}

#[test]
fn a_failed_write_at_any_place_is_answered_truly() {
    let mut lab = Lab::new(2);
    let clean = run_with_refusals(&mut lab);
    let (_, writes) = lab.disk.counts();
    for ordinal in 0..writes {
        let mut lab = Lab::new(2);
        lab.inject(Fault::Write(ordinal));
        let acked = run_with_refusals(&mut lab);
        assert!(acked >= clean - 3, "write {ordinal}: {acked} of {clean}");
        lab.restart(true, IndexFate::Lost);
    }
}

#[test]
fn a_full_disk_at_any_place_refuses_and_recovers_by_itself() {
    let mut lab = Lab::new(3);
    run_with_refusals(&mut lab);
    let (_, writes) = lab.disk.counts();
    for ordinal in 0..writes {
        let mut lab = Lab::new(3);
        lab.inject(Fault::NoSpaceFrom(ordinal));
        run_with_refusals(&mut lab);
        let more = lab.world.whole_group(0, 1, 0, Terms::pin(3, 13));
        for outcome in lab.perform(&more) {
            let outcome = outcome.lock().take().expect("every operation is answered");
            assert!(outcome.is_err(), "write {ordinal}: there is no space");
        }
        lab.compare_live();
        lab.disk.heal();
        lab.model.maybe.clear();
        more.chunks(2).for_each(|batch| lab.run(batch));
        lab.restart(true, IndexFate::Kept);
    }
}

#[test]
fn the_reserve_refuses_puts_and_lets_releases_through() {
    let reserve = StoreConfig { reserve_bytes: 1 << 20, ..config() };
    let mut lab = Lab::with_config(4, reserve);
    let terms = Terms::pin(1, 11);
    let put = lab.world.whole_group(0, 0, 0, terms);
    lab.run(&put);
    lab.disk.set_free_bytes((1 << 20) - 1);
    let more = lab.world.whole_group(0, 1, 0, Terms::pin(2, 12));
    for outcome in lab.perform(&more[..2]) {
        let outcome = outcome.lock().take().expect("every operation is answered");
        assert!(matches!(outcome, Err(StoreError::Full { .. })), "{outcome:?}");
    }
    lab.run(&[Action::Release { client: 0, lease: terms.lease }]);
    lab.tick(200);
    lab.tick(1);
    lab.disk.set_free_bytes(1 << 30);
    lab.run(&more);
    lab.compare();
}

#[test]
fn a_node_that_offers_nothing_takes_nothing() {
    let mut lab = Lab::with_config(5, StoreConfig { capacity_bytes: 0, ..config() });
    let put = lab.world.whole_group(0, 0, 0, Terms::pin(1, 11));
    for outcome in lab.perform(&put) {
        let outcome = outcome.lock().take().expect("every operation is answered");
        assert!(outcome.is_err());
    }
    assert!(lab.disk.content("0000000001.seg").is_none(), "not even a segment");
}

#[test]
fn the_capacity_is_met_to_the_byte_and_equal_shards_count_once() {
    let world = World::new();
    let zeros: usize = world.objects[2].groups[0].shards[0].2.len() + world.objects[2].root.len();
    for (capacity, fits) in [(zeros, true), (zeros - 1, false)] {
        let config = StoreConfig { capacity_bytes: capacity as u64, ..config() };
        let mut lab = Lab::with_config(6, config);
        let put = lab.world.whole_group(0, 2, 0, Terms::pin(1, 11));
        let outcomes = lab.perform(&put);
        let refused = outcomes
            .iter()
            .any(|outcome| outcome.lock().as_ref().expect("every operation is answered").is_err());
        assert_eq!(refused, !fits, "{capacity} bytes");
    }
}

#[test]
fn relaxed_modes_answer_early_and_lose_at_most_what_they_say() {
    for durability in [Durability::Relaxed, Durability::Async] {
        let mut lost = 0;
        for seed in 0..40 {
            let config = StoreConfig { durability, ..config() };
            let mut lab = Lab::with_config(seed, config);
            let batches = script(&lab.world);
            let (early, late) = batches.split_at(batches.len() / 2);
            early.iter().for_each(|batch| lab.run(batch));
            lab.writer.sync().expect("a sound disk");
            let (syncs, _) = lab.disk.counts();
            let sure = lab.model.clone();
            let mut planned = Vec::new();
            for batch in late {
                let before = lab.model.sequence_next;
                let mut ahead = lab.model.clone();
                for action in batch {
                    if let Some(fact) = ahead.plan(&lab.world, action) {
                        let fact = ahead.number(fact);
                        ahead.apply(&fact);
                        planned.push(fact);
                    }
                }
                lab.run(batch);
                assert!(lab.model.sequence_next > before, "answered before any sync");
            }
            assert_eq!(lab.disk.counts().0, syncs, "no sync yet");
            lab.compare_live();
            let all = lab.model.sequence_next;
            lab.model = sure;
            lab.model.maybe = planned;
            lab.restart(true, IndexFate::Kept);
            lost += u32::from(lab.model.sequence_next < all);
        }
        assert!(lost > 5, "{durability:?}: {lost} of 40 crashes lost something");
    }
}

/// Whether a commit that was acknowledged outlived a crash, and all that it covers with it.
fn committed_and_crashed(seed: u64, kind: LeaseKind, config: StoreConfig) -> bool {
    let mut lab = Lab::with_config(seed, config);
    let expiry = match kind {
        LeaseKind::Cache => Expiry::Never,
        _ => Expiry::RunningSeconds(1000),
    };
    let terms = Terms { lease: LEASE, kind, expiry, ..Terms::pin(1, 1) };
    let group = lab.world.whole_group(0, 0, 0, terms);
    // The puts may wait for the disk where the commit does not.
    let (commit, puts) = group.split_last().expect("a commit comes last");
    lab.perform(puts);
    lab.perform(std::slice::from_ref(commit));
    lab.restart_without_model();
    let lease = lab.reader.catalog().lease(LEASE).expect("a sound index");
    let object = lab.world.objects[0].cid;
    let held = lab.reader.catalog().slots(object, 0).expect("a sound index").len();
    assert_eq!(lease.is_some(), held > 0, "seed {seed}: a lease and what it covers");
    held == lab.world.objects[0].groups[0].shards.len()
}

#[test]
fn a_lease_kind_may_promise_more_or_less_than_the_rest() {
    use KindDurability::{AsNode, Only};
    let kinds = [LeaseKind::Pin, LeaseKind::Repair, LeaseKind::Cache];
    let of = |kind, own| match kind {
        LeaseKind::Pin => LeaseDurability { pin: own, ..LeaseDurability::default() },
        LeaseKind::Repair => LeaseDurability { repair: own, ..LeaseDurability::default() },
        _ => LeaseDurability { cache: own, ..LeaseDurability::default() },
    };
    let kept = |kind, durability, durability_of| {
        let lives = 0..40;
        let config = StoreConfig { durability, durability_of, ..config() };
        lives.filter(|seed| committed_and_crashed(*seed, kind, config.clone())).count()
    };
    for kind in kinds {
        for node in [Durability::Relaxed, Durability::Async] {
            // Its puts were not waited for; its commit is, and brings them along.
            for own in [Durability::Batched, Durability::Strict] {
                assert_eq!(kept(kind, node, of(kind, Only(own))), 40, "{kind:?} {node:?} {own:?}");
            }
            assert!(kept(kind, node, of(kind, AsNode)) < 40, "{kind:?} as {node:?}");
        }
        for own in [Durability::Relaxed, Durability::Async] {
            assert!(kept(kind, Durability::Batched, of(kind, Only(own))) < 40, "{kind:?} {own:?}");
            let others = kinds.into_iter().filter(|other| *other != kind);
            for other in others {
                assert_eq!(kept(other, Durability::Batched, of(kind, Only(own))), 40, "{other:?}");
            }
        }
    }
}

#[test]
fn events_come_in_the_order_of_the_log_whatever_each_promises() {
    let cache = KindDurability::Only(Durability::Async);
    let durability_of = LeaseDurability { cache, ..LeaseDurability::default() };
    let roomy = StoreConfig { segment_bytes_max: 4 << 20, ..config() };
    let mut lab = Lab::with_config(2, StoreConfig { durability_of, ..roomy });
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    lab.writer.on_event = Box::new(move |event| match event {
        Event::Group(event) => sink.lock().push(event),
        Event::Unwanted(_) => {}
    });
    let pin = Terms { lease: LEASE, ..Terms::pin(1, 1) };
    lab.perform(&lab.world.whole_group(0, 0, 0, pin));
    let (kind, expiry) = (LeaseKind::Cache, Expiry::Never);
    let again = lab.world.whole_group(0, 0, 0, Terms { kind, expiry, ..Terms::pin(2, 2) });
    let (commit, puts) = again.split_last().expect("a commit comes last");
    lab.perform(puts);
    told.lock().clear();
    lab.perform(&[Action::Release { client: 0, lease: LEASE }, commit.clone()]);
    let told = told.lock();
    let is_order = matches!(&told[..], [GroupEvent::Released(_), GroupEvent::Committed(_)]);
    assert!(is_order, "who follows them thinks that it is held: {told:?}");
}

const MODES: [Durability; 4] =
    [Durability::Batched, Durability::Strict, Durability::Relaxed, Durability::Async];
const DEAL: LeaseId = LeaseId::from_bytes([21; 16]);
const LEASE: LeaseId = LeaseId::from_bytes([22; 16]);

/// A group under a deal lease that ends at height 100, on disk.
fn under_a_deal(seed: u64, durability: Durability) -> Lab {
    let mut lab = Lab::with_config(seed, StoreConfig { durability, ..config() });
    let (kind, expiry) = (LeaseKind::Deal, Expiry::FinalisedHeight(100));
    let terms = Terms { lease: DEAL, kind, expiry, ..Terms::pin(1, 0) };
    let put = lab.world.whole_group(0, 0, 0, terms);
    lab.perform(&put);
    lab.writer.sync().expect("a sound disk");
    assert_eq!(end_of_deal(&lab), Some(100));
    lab
}

fn end_of_deal(lab: &Lab) -> Option<u64> {
    let deal = lab.reader.catalog().deal(DEAL).expect("a sound index");
    deal.map(|deal| deal.height)
}

/// Outcomes of a batch; every operation is answered by its end.
fn tell(lab: &mut Lab, ops: Vec<Op>) -> Vec<Result<Done, StoreError>> {
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let count = ops.len();
    let batch = ops.into_iter().map(|op| {
        let outcomes = Arc::clone(&outcomes);
        let answer: Answer = Box::new(move |outcome| outcomes.lock().push(outcome));
        (op, answer)
    });
    lab.writer.run(batch.collect::<Vec<_>>());
    let outcomes = std::mem::take(&mut *outcomes.lock());
    assert_eq!(outcomes.len(), count);
    outcomes
}

#[test]
fn the_chains_word_is_on_disk_before_its_answer_in_every_mode() {
    let moves = || vec![Op::MoveDeal { lease: DEAL, height: 50 }];
    let ends = || vec![Op::EndDeal { lease: DEAL }];
    for (seed, durability) in (0..40).flat_map(|seed| MODES.map(|mode| (seed, mode))) {
        for (ops, end) in [(moves(), Some(50)), (ends(), None)] {
            let mut lab = under_a_deal(seed, durability);
            let outcomes = tell(&mut lab, ops);
            assert!(outcomes.iter().all(Result::is_ok), "{durability:?}: {outcomes:?}");
            lab.restart_without_model();
            assert_eq!(end_of_deal(&lab), end, "seed {seed}, {durability:?}");
        }
    }
}

#[test]
fn a_sync_that_fails_refuses_the_chains_word_in_every_mode() {
    for durability in MODES {
        let twice = vec![Op::EndDeal { lease: DEAL }, Op::EndDeal { lease: DEAL }];
        for ops in [vec![Op::MoveDeal { lease: DEAL, height: 50 }], twice] {
            let mut lab = under_a_deal(1, durability);
            let (syncs, writes) = lab.disk.counts();
            lab.inject(Fault::PowerOff(syncs + writes + 1));
            for outcome in tell(&mut lab, ops) {
                // That the first has ended it already is not on disk either.
                let unsaid = matches!(outcome, Err(StoreError::Io { .. }));
                assert!(unsaid, "{durability:?}: {outcome:?}");
            }
        }
    }
}

#[test]
fn the_same_word_of_the_chain_counts_as_said_when_it_is_on_disk() {
    for durability in MODES {
        let mut lab = under_a_deal(1, durability);
        let expiry = Expiry::FinalisedHeight(50);
        let planned = Planned::lease(DEAL.as_bytes(), LeaseChange::Renew { lease: DEAL, expiry });
        lab.writer.submit(planned, None).expect("room");
        assert!(!lab.reader.is_settled_at(DEAL, 50).expect("a sound index"), "{durability:?}");
        lab.writer.sync().expect("a sound disk");
        assert!(lab.reader.is_settled_at(DEAL, 50).expect("a sound index"), "{durability:?}");
        assert!(!lab.reader.is_settled_at(DEAL, 51).expect("a sound index"), "{durability:?}");
    }
}

/// More uploads than one tick gives up, each with a slot, all idle.
fn many_idle_uploads(seed: u64) -> Lab {
    let mut lab = Lab::new(seed);
    let puts = (0..600_u32).map(|number| {
        let mut upload = [1; 16];
        upload[..4].copy_from_slice(&number.to_be_bytes());
        let upload = UploadId::from_bytes(upload);
        Action::PutShard { client: 0, upload, object: 2, group: 0, shard: 0 }
    });
    puts.collect::<Vec<_>>().chunks(50).for_each(|batch| lab.run(batch));
    lab.model.now += lab.config.upload_idle_secs;
    lab.writer.advance(lab.model.now);
    lab
}

fn open_uploads(lab: &Lab) -> u64 {
    lab.reader.catalog().usage().expect("a sound index").leases[1].count
}

#[test]
fn what_is_due_does_not_hurry_on_a_disk_that_refuses() {
    let mut lab = many_idle_uploads(7);
    let before = lab.writer.mark.segment;
    lab.inject(Fault::NoSpaceFrom(0));
    for _ in 0..3 {
        lab.writer.tick().expect_err("there is no space");
        assert!(!lab.writer.is_behind(), "the next look is in a second");
    }
    lab.disk.heal();
    lab.writer.tick().expect("there is space");
    assert!(lab.writer.is_behind());
    assert_eq!(open_uploads(&lab), 600 - 512);
    let numbers = lab.writer.mark.segment - before;
    assert!(numbers < 16, "{numbers} segments for three looks in vain and one that worked");
}

#[test]
fn what_is_due_waits_for_an_index_that_lags() {
    let mut lab = many_idle_uploads(8);
    let (upload, lease) = (UploadId::from_bytes([9; 16]), LeaseId::from_bytes([9; 16]));
    let put = Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard: 0 };
    lab.run(&[put, Action::Release { client: 0, lease }]);
    let (_, shard, _) = lab.world.objects[LARGE].groups[0].shards[0];
    let bury = Planned::tombstone(*shard.as_bytes(), Freed::Shard);
    lab.writer.submit(bury, None).and_then(|()| lab.writer.sync()).expect("a sound disk");
    let overlay = Arc::clone(lab.reader.overlay());
    let unrelated = |number: usize| ([&b"Z"[..], &number.to_le_bytes()].concat(), None);
    overlay.add_unsynced((0..PENDING_ENTRIES_MAX / 2).map(unrelated).collect());
    overlay.publish(lab.writer.mark);
    lab.writer.tick().expect("a sound disk");
    assert!(!lab.writer.is_behind());
    assert_eq!(open_uploads(&lab), 600);
    assert!(lab.writer.reclaim().expect("a sound disk").is_none());
    lab.flush_index();
    assert!(lab.writer.reclaim().expect("a sound disk").is_some(), "a hole");
    lab.writer.tick().expect("a sound disk");
    assert!(lab.writer.is_behind());
    assert_eq!(open_uploads(&lab), 600 - 512);
}
