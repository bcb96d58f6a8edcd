// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random lives with every kind of end. A failure prints its seed, which replays it.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::ids::{LeaseId, UploadId};

use super::ReclaimJob;
use super::harness::{Action, IndexFate, LARGE, Lab, config};
use crate::config::{Durability, StoreConfig};
use crate::disk::Fault;
use crate::sample::Terms;

/// Lives that the test goes through, and events in each.
const LIVES: u64 = 250;
const EVENTS: u32 = 50;

fn fate(random: &mut ChaCha8Rng) -> IndexFate {
    [IndexFate::Kept, IndexFate::Lost, IndexFate::Older][random.random_range(0..3)]
}

/// Returns how many holes were made and how many segments removed.
fn live(seed: u64) -> (usize, usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = Lab::new(seed);
    for _ in 0..EVENTS {
        // The power may go at any write or sync of whatever comes next.
        let cut = random.random_bool(0.2);
        if cut {
            let (syncs, writes) = lab.disk.counts();
            lab.inject(Fault::PowerOff(syncs + writes + random.random_range(0..6)));
        }
        match random.random_range(0..10) {
            0..7 => {
                let actions = lab.world.random(&mut random);
                let batch = random.random_range(1..6);
                for batch in actions.chunks(batch) {
                    if !lab.disk.is_off() {
                        lab.run(batch);
                    }
                }
            }
            7..9 => {
                lab.tick(random.random_range(0..120));
                if !lab.disk.is_off() {
                    lab.reclaim(random.random_range(0..8));
                }
            }
            _ => lab.flush_index(),
        }
        if cut {
            // What was to fail may not have come to it.
            let power_cut = random.random_bool(0.7);
            lab.restart(power_cut, fate(&mut random));
        } else if random.random_bool(0.1) {
            lab.close_and_open(fate(&mut random));
        }
    }
    lab.compare();
    (lab.punched, lab.unlinked)
}

#[test]
fn whatever_happens_acknowledged_is_kept_and_the_rest_is_whole_or_absent() {
    let (mut punched, mut unlinked) = (0, 0);
    for seed in 0..LIVES {
        let (holes, segments) = live(seed);
        (punched, unlinked) = (punched + holes, unlinked + segments);
    }
    assert!(punched > 100 && unlinked > 100, "{punched} slices, {unlinked} segments: too dull");
}

/// Shards that were put, abandoned and freed before any of it was durable.
fn unsynced_life(seed: u64) -> Lab {
    let durability = Durability::Relaxed;
    let config = StoreConfig { durability, segment_bytes_max: 48 << 10, ..config() };
    let mut lab = Lab::with_config(seed, config);
    let upload = UploadId::from_bytes([1; 16]);
    let put = |shard| Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard };
    lab.run(&[put(0), put(1)]);
    let lease = LeaseId::from_bytes(*upload.as_bytes());
    lab.run(&[Action::Release { client: 0, lease }]);
    lab.tick(1);
    lab
}

#[test]
fn a_hole_is_vouched_for_before_it_is_made() {
    for seed in 0..20 {
        let mut lab = unsynced_life(seed);
        lab.reclaim(1);
        assert_eq!(lab.punched, 1, "seed {seed}");
        // The holes are there; recovery must not take them for the torn end of a write.
        lab.restart(true, IndexFate::Lost);
        lab.reclaim(4);
        lab.restart(true, IndexFate::Kept);
        let usage = lab.reader.catalog().usage().expect("a sound index");
        assert_eq!(usage.shards.dead.count, 0, "seed {seed}: {usage:?}");
    }
}

#[test]
fn without_holes_freed_bytes_stay_counted_until_their_segment_goes() {
    let mut lab = unsynced_life(1);
    lab.inject(Fault::NoHoles);
    lab.reclaim(8);
    assert_eq!(lab.punched, 1, "tried once");
    let usage = lab.reader.catalog().usage().expect("a sound index");
    assert_eq!(usage.shards.dead.bytes, 2 * 10_048);
    // Enough to begin another segment; then the first has nothing left that lives.
    let terms = Terms::pin(2, 12);
    for batch in lab.world.whole_group(0, LARGE, 0, terms).chunks(2) {
        lab.run(batch);
    }
    lab.run(&[Action::Release { client: 0, lease: terms.lease }]);
    lab.tick(lab.config.trash_secs);
    lab.tick(1);
    lab.writer.sync().expect("a sound disk");
    lab.reclaim(8);
    assert_eq!(lab.unlinked, 1);
    let usage = lab.reader.catalog().usage().expect("a sound index");
    assert!(usage.shards.dead.bytes <= 2 * 10_048, "{:?}", usage.shards.dead);
    lab.writer.sync().expect("a sound disk");
    lab.restart(true, IndexFate::Lost);
}

/// All of a test fits into one segment, unless it restarts.
fn roomy() -> StoreConfig {
    StoreConfig { segment_bytes_max: 4 << 20, ..config() }
}

/// Puts all large shards under an upload and ends it: dead records in the newest segment.
fn die(lab: &mut Lab, upload: u8) {
    let lease = LeaseId::from_bytes([upload; 16]);
    let upload = UploadId::from_bytes([upload; 16]);
    let put = |shard| Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard };
    lab.run(&[put(0), put(1), put(2), Action::Release { client: 0, lease }]);
    lab.tick(0);
}

fn returned(lab: &Lab, segment: u32) -> u64 {
    lab.reader.catalog().segment(segment).expect("a sound index").returned
}

#[test]
fn a_segment_that_takes_no_holes_keeps_none_from_the_others() {
    let mut lab = Lab::with_config(2, roomy());
    let upload = UploadId::from_bytes([9; 16]);
    // What lives keeps the first segment, and more is dead in it than one slice holds.
    lab.run(&[Action::PutShard { client: 0, upload, object: 0, group: 0, shard: 0 }]);
    (0..90).for_each(|_| die(&mut lab, 1));
    lab.restart(false, IndexFate::Kept);
    die(&mut lab, 1);
    lab.inject(Fault::Holes("0000000001.seg"));
    lab.reclaim(8);
    assert_eq!(returned(&lab, 1), 0);
    assert!(returned(&lab, 2) > 0);
    assert_eq!(lab.punched, 2, "each was tried once");
    lab.tick(100);
    lab.reclaim(4);
    assert_eq!(lab.punched, 2, "the first is left alone");
    lab.restart(false, IndexFate::Kept);
    lab.reclaim(4);
    assert!(returned(&lab, 1) > 0, "a start tries again");
    let left = lab.reader.catalog().punchable(1, &BTreeSet::new()).expect("a sound index");
    assert_eq!(left, []);
    lab.compare();
}

#[test]
fn holes_do_not_wait_for_a_file_that_cannot_be_removed() {
    let mut lab = Lab::with_config(3, roomy());
    die(&mut lab, 1);
    lab.restart(false, IndexFate::Kept);
    die(&mut lab, 2);
    let job = lab.writer.reclaim().expect("a sound disk").expect("something to do");
    assert_eq!(job, ReclaimJob::Unlink { through: 1 });
    lab.inject(Fault::Sync(lab.disk.counts().0));
    let done = job.run(lab.reader.segments());
    lab.writer.reclaimed(done).expect("a sound disk");
    let job = lab.writer.reclaim().expect("a sound disk").expect("something to do");
    assert!(matches!(job, ReclaimJob::Punch(_)), "{job:?}");
    let done = job.run(lab.reader.segments());
    lab.writer.reclaimed(done).expect("a sound disk");
    assert!(returned(&lab, 2) > 0);
    assert_eq!(lab.writer.reclaim().expect("a sound disk"), None, "a minute's pause");
    lab.writer.advance(lab.model.now + 60);
    let job = lab.writer.reclaim().expect("a sound disk");
    assert_eq!(job, Some(ReclaimJob::Unlink { through: 1 }));
}
