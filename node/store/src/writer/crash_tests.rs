// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random lives with every kind of end. A failure prints its seed, which replays it.

use std::collections::BTreeSet;
use std::env;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::ids::{LeaseId, UploadId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::ReclaimJob;
use super::harness::{Action, HEIGHT_MAX, IndexFate, LARGE, Lab, config};
use crate::catalog::{DERIVED, KvRead, check, keys};
use crate::config::{Durability, StoreConfig};
use crate::disk::{Disk, Fault};
use crate::index::MapKv;
use crate::sample::Terms;

/// Lives that the test goes through, unless it is told otherwise, and events in each.
const LIVES: u64 = 300;
const EVENTS: u32 = 50;

/// Seeds of the lives: `SUPERNODE_LIVES` says how many, `SUPERNODE_SEED` where to begin, which is
/// the only one then.
fn seeds() -> Range<u64> {
    let given = |name| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let base = given("SUPERNODE_SEED");
    let lives = given("SUPERNODE_LIVES").unwrap_or(if base.is_some() { 1 } else { LIVES });
    let base = base.unwrap_or(0);
    println!("{lives} lives from seed {base}");
    base..base + lives
}

fn fate(random: &mut ChaCha8Rng) -> IndexFate {
    [IndexFate::Kept, IndexFate::Lost, IndexFate::Older][random.random_range(0..3)]
}

/// A random life; counts what came of it.
pub(super) fn live(seed: u64, counts: &mut Counts) -> Lab {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = Lab::new(seed);
    for _ in 0..EVENTS {
        // The power may go at any write or sync of whatever comes next.
        let cut = random.random_bool(0.2);
        if cut {
            let (syncs, writes) = lab.disk.counts();
            lab.inject(Fault::PowerOff(syncs + writes + random.random_range(0..6)));
        }
        match random.random_range(0..11) {
            0..7 => {
                // A write that is torn is to have many records.
                let more = if cut { random.random_range(0..4) } else { 0 };
                let actions = (0..=more).flat_map(|_| lab.world.random(&mut random));
                let actions: Vec<_> = actions.collect();
                let batch = random.random_range(1..10);
                for batch in actions.chunks(batch) {
                    if !lab.disk.is_off() {
                        lab.run(batch);
                    }
                }
            }
            7..9 => {
                lab.tick(random.random_range(0..120));
                if !lab.disk.is_off() && random.random_bool(0.2) {
                    lab.compact();
                }
                if !lab.disk.is_off() {
                    lab.reclaim(random.random_range(0..16));
                }
            }
            9 => {
                let (height, page) =
                    (random.random_range(0..HEIGHT_MAX), random.random_range(1..4));
                counts.due += lab.look_up_deals(height, page);
            }
            _ => lab.flush_index(),
        }
        if cut {
            // What was to fail may not have come to it.
            let power_cut = random.random_bool(0.7);
            lab.restart(power_cut, fate(&mut random));
            counts.footers += lab.footers;
        } else if random.random_bool(0.1) {
            lab.close_and_open(fate(&mut random));
        }
    }
    lab.compare();
    counts.punched += lab.punched;
    counts.unlinked += lab.unlinked;
    counts.gathered += lab.gathered;
    lab
}

/// The power goes between the write of a batch and its sync, again and again.
pub(super) fn life_with_torn_ends(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = Lab::new(seed);
    for number in 0..8 {
        let object = random.random_range(0..lab.world.objects.len());
        let batch = lab.world.whole_group(0, object, 0, Terms::pin(number, number));
        let (syncs, writes) = lab.disk.counts();
        // A segment is begun with a write and two syncs.
        lab.inject(Fault::PowerOff(syncs + writes + 4));
        lab.run(&batch);
        assert!(lab.disk.is_off(), "seed {seed}");
        lab.restart(true, fate(&mut random));
    }
}

#[test]
fn the_torn_end_of_a_write_is_no_damage() {
    (0..20).for_each(life_with_torn_ends);
}

/// What lives came to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Slices of holes.
    punched: usize,
    /// Segments removed.
    unlinked: usize,
    /// Slices that compaction read.
    gathered: usize,
    /// Deals found by their end.
    due: usize,
    /// Footers read by starts.
    footers: u64,
}

#[test]
fn whatever_happens_acknowledged_is_kept_and_the_rest_is_whole_or_absent() {
    let (seeds, mut counts) = (seeds(), Counts::default());
    for seed in seeds.clone() {
        live(seed, &mut counts);
    }
    println!("{counts:?}");
    let is_many = seeds.count() as u64 >= LIVES;
    let Counts { punched, unlinked, gathered, due, footers } = counts;
    let eventful = punched.min(unlinked).min(gathered).min(due) > 100 && footers > 400;
    assert!(eventful || !is_many, "too dull: {counts:?}");
}

#[test]
fn whatever_is_left_of_a_log_fits_together() {
    for seed in 0..12 {
        let mut lab = live(seed, &mut Counts::default());
        lab.check_every_end();
        // Nor does anything keep a segment for good.
        lab.compact();
        for _ in 0..10 {
            lab.reclaim(400);
            lab.tick(700);
        }
        assert!(!lab.writer.is_compacting(), "seed {seed}: it does not come to its end");
        lab.compare();
    }
}

#[test]
fn a_check_notices_each_derived_key_that_is_lost_or_there_for_nothing() {
    let mut seen = BTreeSet::new();
    for seed in 0..6 {
        let mut lab = live(seed, &mut Counts::default());
        let cache = Terms { kind: LeaseKind::Cache, expiry: Expiry::Never, ..Terms::pin(8, 18) };
        let (upload, lease) = (UploadId::from_bytes([9; 16]), LeaseId::from_bytes([9; 16]));
        let put = |shard| Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard };
        // One is freed, and one is about to be.
        lab.perform(&[put(0), Action::Release { client: 0, lease }]);
        lab.writer.tick().expect("a sound disk");
        lab.perform(&[put(1), Action::Release { client: 0, lease }]);
        let evicted = lab.world.whole_group(0, 0, 0, cache);
        lab.perform(&evicted);
        lab.perform(&[Action::Release { client: 0, lease: cache.lease }]);
        let pairs = lab.reader.overlay().range(&[0], &[255], usize::MAX).expect("a sound index");
        let map = MapKv(pairs.into_iter().collect());
        assert_eq!(check(&map).expect("a map in memory"), [""; 0], "seed {seed}");
        for (key, value) in map.0.iter().filter(|(key, _)| DERIVED.contains(&key[0])) {
            seen.insert(if key[0] == keys::QUEUE { key[..2].to_vec() } else { key[..1].to_vec() });
            let (mut lacking, mut excessive) = (map.clone(), map.clone());
            lacking.0.remove(key);
            let mut other = key.clone();
            other.last_mut().into_iter().for_each(|byte| *byte ^= 0x80);
            excessive.0.insert(other, value.clone());
            for wrong in [lacking, excessive] {
                let noticed = check(&wrong).expect("a map in memory");
                assert_eq!(noticed.len(), 1, "seed {seed}: {}: {noticed:?}", key.escape_ascii());
            }
        }
    }
    assert_eq!(seen.len(), 3 + 7, "some kind of key never came up: {seen:?}");
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

/// Makes holes in the newest segment.
pub(super) fn life_with_new_holes(seed: u64) {
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

#[test]
fn a_hole_is_vouched_for_before_it_is_made() {
    (0..20).for_each(life_with_new_holes);
}

/// Makes holes in an older segment than the one that says that nobody wants the bytes.
pub(super) fn life_with_old_holes(seed: u64) {
    let durability = Durability::Relaxed;
    let mut lab = Lab::with_config(seed, StoreConfig { durability, ..roomy() });
    let put = |upload, object, shard| {
        let upload = UploadId::from_bytes([upload; 16]);
        Action::PutShard { client: 0, upload, object, group: 0, shard }
    };
    // What stays keeps the first segment.
    lab.run(&[put(1, LARGE, 0), put(1, LARGE, 1), put(2, 0, 0)]);
    lab.writer.sync().expect("a sound disk");
    lab.restart(true, IndexFate::Kept);
    lab.run(&[put(2, 0, 1)]);
    lab.writer.sync().expect("a sound disk");
    let sure = lab.model.clone();
    let release = Action::Release { client: 0, lease: LeaseId::from_bytes([1; 16]) };
    let mut ahead = sure.clone();
    let released = ahead.plan(&lab.world, &release).map(|fact| ahead.number(fact));
    released.iter().for_each(|fact| ahead.apply(fact));
    ahead.now += 1;
    let due = ahead.due(lab.config.upload_idle_secs, lab.config.trash_secs);
    let maybe = released.into_iter().chain(due.into_iter().map(|fact| ahead.number(fact)));
    let maybe = maybe.collect();
    lab.run(&[release]);
    lab.tick(1);
    lab.reclaim(1);
    assert_eq!(lab.punched, 1, "seed {seed}");
    // Whatever is left of it: nothing is a hole that is wanted.
    (lab.model, lab.model.maybe) = (sure, maybe);
    lab.restart(true, IndexFate::Lost);
}

#[test]
fn a_hole_is_made_when_it_is_durable_that_nobody_wants_the_bytes() {
    (0..20).for_each(life_with_old_holes);
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
fn a_slice_that_cannot_be_noted_is_not_repeated_at_once() {
    let mut lab = Lab::with_config(4, roomy());
    die(&mut lab, 1);
    let job = lab.writer.reclaim().expect("a sound disk").expect("something to do");
    let done = job.run(&lab.reader);
    lab.inject(Fault::NoSpaceFrom(lab.disk.counts().1));
    lab.writer.reclaimed(done).expect_err("there is no space");
    let files = lab.disk.list().expect("a sound disk").len();
    for _ in 0..10 {
        assert_eq!(lab.writer.reclaim().expect("nothing is tried"), None);
    }
    assert_eq!(lab.disk.list().expect("a sound disk").len(), files);
    lab.disk.heal();
    lab.writer.advance(lab.model.now + 1);
    let job = lab.writer.reclaim().expect("a sound disk").expect("it goes on in a second");
    let done = job.run(&lab.reader);
    lab.writer.reclaimed(done).expect("a sound disk");
    assert!(returned(&lab, 1) > 0);
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
    let done = job.run(&lab.reader);
    lab.writer.reclaimed(done).expect("a sound disk");
    let job = lab.writer.reclaim().expect("a sound disk").expect("something to do");
    assert!(matches!(job, ReclaimJob::Punch(_)), "{job:?}");
    let done = job.run(&lab.reader);
    lab.writer.reclaimed(done).expect("a sound disk");
    assert!(returned(&lab, 2) > 0);
    assert_eq!(lab.writer.reclaim().expect("a sound disk"), None, "a minute's pause");
    lab.writer.advance(lab.model.now + 60);
    let job = lab.writer.reclaim().expect("a sound disk");
    assert_eq!(job, Some(ReclaimJob::Unlink { through: 1 }));
}

/// Which of the first two segments a power cut would leave.
fn left_by_a_power_cut(lab: &Lab) -> [bool; 2] {
    let disk = lab.disk.crash();
    ["0000000001.seg", "0000000002.seg"].map(|name| disk.content(name).is_some())
}

/// What is put in one segment and ended in the next goes with both, and the power goes meanwhile.
pub(super) fn life_with_many_ends(seed: u64) {
    for cut in 0..16 {
        let mut lab = Lab::with_config(seed, roomy());
        let upload = UploadId::from_bytes([1; 16]);
        lab.run(&[Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard: 0 }]);
        lab.restart(false, IndexFate::Kept);
        let lease = LeaseId::from_bytes(*upload.as_bytes());
        lab.run(&[Action::Release { client: 0, lease }]);
        lab.tick(0);
        lab.restart(false, IndexFate::Kept);
        die(&mut lab, 2);
        let (syncs, writes) = lab.disk.counts();
        lab.inject(Fault::PowerOff(syncs + writes + cut));
        lab.reclaim(2);
        lab.restart(true, IndexFate::Lost);
    }
}

#[test]
fn what_was_freed_stays_so_while_its_segments_go() {
    (0..6).for_each(life_with_many_ends);
}

#[test]
fn removed_segments_stay_away_in_their_order_whichever_syncs_fail() {
    let failures = (0..4).flat_map(|first| (first + 1..5).map(move |second| [first, second]));
    for (failing, seed) in failures.flat_map(|pair| (0..6).map(move |seed| (pair, seed))) {
        let mut lab = Lab::with_config(seed, roomy());
        for upload in 1..4 {
            die(&mut lab, upload);
            lab.restart(false, IndexFate::Kept);
        }
        die(&mut lab, 4);
        let mut job = lab.writer.reclaim().expect("a sound disk");
        assert_eq!(job, Some(ReclaimJob::Unlink { through: 3 }));
        let (syncs, _) = lab.disk.counts();
        failing.iter().for_each(|ordinal| lab.inject(Fault::Sync(syncs + ordinal)));
        while let Some(unlink @ ReclaimJob::Unlink { .. }) = job {
            let done = unlink.run(&lab.reader);
            let left = left_by_a_power_cut(&lab);
            assert_ne!(left, [true, false], "seed {seed}: {failing:?}: a gap in the log");
            lab.writer.reclaimed(done).expect("a sound disk");
            lab.writer.advance(lab.writer.now() + 60);
            job = lab.writer.reclaim().expect("a sound disk");
        }
        let left = left_by_a_power_cut(&lab);
        assert_eq!(left, [false; 2], "seed {seed}: {failing:?}: said to be gone");
    }
}
