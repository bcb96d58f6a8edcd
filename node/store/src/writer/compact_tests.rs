// SPDX-License-Identifier: MIT OR Apache-2.0
//! When compaction begins and ends, what it leaves out, and in what order it writes. That it loses
//! nothing, whatever comes between, is for the random lives.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use supernode_protocol::ids::{LeaseId, ShardId, UploadId};
use supernode_protocol::lease::Expiry;

use super::ReclaimJob;
use super::harness::{Action, IndexFate, LARGE, Lab, config};
use crate::catalog::{Thing, cached_upload};
use crate::config::StoreConfig;
use crate::disk::Fault;
use crate::reader::Way;
use crate::record::Body;
use crate::sample::Terms;
use crate::segment::read_record;

/// Steps that are enough for any round here.
const STEPS: u32 = 400;

/// Puts a group under a lease; its upload has the same number.
fn put(lab: &mut Lab, number: u8, object: usize, secs: u64) -> Terms {
    let expiry = Expiry::RunningSeconds(secs);
    let terms = Terms { expiry, ..Terms::pin(number, number) };
    for batch in lab.world.whole_group(0, object, 0, terms).chunks(3) {
        lab.run(batch);
    }
    terms
}

/// A group that stays; then small ones come and go, which leaves records that no hole gives back.
fn wasteful(percent: u8) -> Lab {
    let config = StoreConfig { compact_waste_percent: percent, ..config() };
    let mut lab = Lab::with_config(1, config);
    put(&mut lab, 1, 0, 1_000_000);
    for number in 2..60 {
        let terms = put(&mut lab, number, 1, 1_000_000);
        lab.run(&[Action::Release { client: 0, lease: terms.lease }]);
        lab.tick(lab.config.trash_secs);
        lab.tick(1);
    }
    lab
}

fn waste(lab: &Lab) -> (u64, u64) {
    let usage = lab.reader.catalog().usage().expect("a sound index");
    (usage.waste_bytes(), usage.log_bytes - usage.returned_bytes)
}

#[test]
fn it_begins_by_itself_when_much_is_of_no_use_and_ends_when_little_is() {
    let mut lab = wasteful(50);
    let files = lab.segment_files();
    let (before, held) = waste(&lab);
    assert!(before * 2 > held && files > 3, "{before} of {held} in {files} files");
    lab.reclaim(STEPS);
    let (after, left) = waste(&lab);
    assert!(lab.gathered > 0 && lab.segment_files() < files);
    assert!(after * 4 < left || after < lab.config.segment_bytes_max, "{after} of {left}");
    let gathered = lab.gathered;
    lab.reclaim(STEPS);
    assert_eq!(lab.gathered, gathered, "there is nothing left to win");
    lab.compare();
    lab.restart(true, IndexFate::Lost);
}

#[test]
fn at_0_percent_it_never_begins_by_itself() {
    let mut lab = wasteful(0);
    lab.reclaim(STEPS);
    assert_eq!(lab.gathered, 0);
    lab.compact();
    lab.reclaim(STEPS);
    assert!(lab.gathered > 0, "asked for, it does");
    lab.compare();
}

#[test]
fn it_keeps_to_its_pace() {
    let config = StoreConfig { compact_bytes_per_sec: 1, ..config() };
    let mut lab = Lab::with_config(2, config);
    put(&mut lab, 1, LARGE, 1_000);
    put(&mut lab, 2, 0, 1_000);
    lab.compact();
    for second in 1..4 {
        lab.reclaim(STEPS);
        assert_eq!(lab.gathered, second, "a slice a second");
        lab.tick(1);
    }
}

#[test]
fn what_ends_first_is_written_first() {
    for ends in [[500, 100], [100, 500]] {
        // All of it in one segment.
        let config = StoreConfig { segment_bytes_max: 4 << 20, ..config() };
        let mut lab = Lab::with_config(3, config);
        put(&mut lab, 1, 0, ends[0]);
        put(&mut lab, 2, 1, ends[1]);
        lab.compact();
        lab.reclaim(STEPS);
        let place = |object: usize| {
            let shard = Thing::Shard(lab.world.objects[object].groups[0].shards[0].1);
            lab.reader.catalog().kept(shard).expect("a sound index").expect("it is here").at
        };
        assert_eq!(place(0) < place(1), ends[0] < ends[1], "{ends:?}");
        lab.compare();
    }
}

#[test]
fn who_reads_where_something_was_reads_again_where_it_is() {
    let mut lab = Lab::with_config(6, config());
    put(&mut lab, 1, 0, 100_000);
    let (object, shard) = (lab.world.objects[0].cid, lab.world.objects[0].groups[0].shards[0].1);
    let reader = Arc::clone(&lab.reader);
    let lab = RefCell::new(lab);
    let compact = || {
        lab.borrow_mut().compact();
        lab.borrow_mut().reclaim(STEPS);
    };
    let thing = Thing::Shard(shard);
    let visits = Cell::new(0);
    let read = reader.follow(thing, |kept| {
        visits.set(visits.get() + 1);
        if visits.get() == 1 {
            compact();
        }
        reader.read_back(thing, kept)
    });
    assert_eq!(ShardId::of(&read.expect("whole").expect("it is here").bytes), shard);
    assert_eq!(visits.get(), 2, "its segment went between the look-up and the read");
    let read = reader.follow_group(object, 0, |entry| {
        visits.set(visits.get() + 1);
        if visits.get() == 3 {
            compact();
        }
        read_record(reader.segments(), entry.commit)
    });
    assert!(matches!(read.expect("whole").body, Body::Restate(_)));
    assert_eq!(visits.get(), 4);
    assert_eq!(reader.quarantined(), 0);
}

fn oldest(lab: &Lab) -> u32 {
    lab.reader.catalog().oldest_segment().expect("a sound index").expect("records").0
}

/// All that can be done now, without a look at the model.
fn reclaim_alone(lab: &mut Lab) {
    lab.writer.advance(lab.model.now);
    while let Some(job) = lab.writer.reclaim().expect("a sound disk") {
        let done = job.run(&lab.reader);
        lab.writer.reclaimed(done).expect("a sound disk");
    }
}

#[test]
fn a_damaged_shard_keeps_its_segment_until_it_is_put_again() {
    let mut lab = Lab::with_config(4, config());
    put(&mut lab, 1, 0, 100_000);
    put(&mut lab, 2, 1, 100_000);
    let shard = lab.world.objects[0].groups[0].shards[0].1;
    lab.flip_payload(shard);
    lab.compact();
    reclaim_alone(&mut lab);
    assert_eq!(oldest(&lab), 1, "its group needs it");
    assert!(lab.writer.is_compacting(), "the rest of the round waits");
    let upload = UploadId::from_bytes([9; 16]);
    let lease = LeaseId::from_bytes([9; 16]);
    let again = Action::PutShard { client: 0, upload, object: 0, group: 0, shard: 0 };
    lab.perform(&[again, Action::Release { client: 0, lease }]);
    lab.model.now += 600;
    reclaim_alone(&mut lab);
    assert!(oldest(&lab) > 1 && !lab.writer.is_compacting());
    lab.reader.shard(shard, Way::Kept).expect("whole again");
}

#[test]
fn a_cached_shard_moves_on_and_stays_as_old_as_it_is() {
    let mut lab = Lab::new(12);
    let (_, shard, _) = lab.world.objects[LARGE].groups[0].shards[0];
    let upload = cached_upload(shard);
    lab.run(&[Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard: 0 }]);
    let entry = |lab: &Lab| {
        let entry = lab.reader.catalog().upload(upload).expect("a sound index");
        entry.expect("it is cached")
    };
    let before = entry(&lab);
    lab.tick(100);
    lab.compact();
    lab.reclaim(STEPS);
    assert!(oldest(&lab) > before.begun, "its segment is gone");
    assert!(entry(&lab).begun > before.begun);
    assert_eq!(entry(&lab).used_secs, before.used_secs);
    lab.restart(true, IndexFate::Lost);
    lab.compare();
    assert_eq!(entry(&lab).used_secs, before.used_secs);
    assert!(lab.reader.shard(shard, Way::Kept).is_ok());
}

#[test]
fn an_upload_keeps_its_segment_until_it_ends() {
    let mut lab = Lab::with_config(5, config());
    let upload = UploadId::from_bytes([8; 16]);
    lab.run(&[Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard: 0 }]);
    put(&mut lab, 1, 0, 10_000);
    lab.compact();
    lab.reclaim(STEPS);
    assert!(lab.writer.is_compacting());
    lab.tick(lab.config.upload_idle_secs);
    lab.tick(600);
    lab.reclaim(STEPS);
    assert!(!lab.writer.is_compacting());
    lab.compare();
    lab.restart(true, IndexFate::Lost);
}

#[test]
fn a_full_disk_stops_it_and_nothing_else() {
    let mut lab = wasteful(50);
    lab.writer.config.reserve_bytes = u64::MAX / 4;
    lab.reclaim(STEPS);
    assert_eq!(lab.gathered, 0, "there is no room for copies");
    lab.writer.config.reserve_bytes = 0;
    lab.reclaim(STEPS);
    assert!(lab.gathered > 0);
    lab.compare();
}

#[test]
fn a_lease_that_is_younger_than_its_group_goes_with_it() {
    // A segment for each start.
    let config = StoreConfig { segment_bytes_max: 4 << 20, ..config() };
    let mut lab = Lab::with_config(21, config);
    put(&mut lab, 1, 0, 100_000);
    lab.restart(true, IndexFate::Kept);
    put(&mut lab, 2, 0, 100_000);
    lab.restart(true, IndexFate::Kept);
    put(&mut lab, 3, 1, 100_000);
    lab.compact();
    lab.reclaim(STEPS);
    assert!(!lab.writer.is_compacting(), "segment {} is kept by a lease", oldest(&lab));
    lab.compare();
}

#[test]
fn what_was_refused_is_not_built_on() {
    for fail in 0..24 {
        // Each record is a batch of its own.
        let config = StoreConfig { batch_bytes_max: 1, segment_bytes_max: 4 << 20, ..config() };
        let mut lab = Lab::with_config(23, config);
        put(&mut lab, 1, 2, 100_000);
        lab.compact();
        let mut is_first = true;
        while let Ok(Some(job)) = lab.writer.reclaim() {
            let is_gather = matches!(job, ReclaimJob::Gather { .. });
            let done = job.run(&lab.reader);
            if is_gather && std::mem::take(&mut is_first) {
                let (_, writes) = lab.disk.counts();
                lab.inject(Fault::Write(writes + fail));
                lab.inject(Fault::Write(writes + fail + 2));
            }
            let _refused = lab.writer.reclaimed(done);
            lab.writer.advance(lab.writer.now() + 700);
        }
        lab.disk.heal();
        for _ in 0..3 {
            lab.model.now = lab.writer.now() + 700;
            reclaim_alone(&mut lab);
        }
        assert!(oldest(&lab) > 1, "write {fail}: it has to come to its end");
        lab.compare_log();
    }
}

#[test]
fn an_upload_that_took_the_place_of_a_cached_one_is_left_alone() {
    let config = StoreConfig { segment_bytes_max: 4 << 20, ..config() };
    let mut lab = Lab::with_config(24, config);
    let shard = lab.world.objects[LARGE].groups[0].shards[0].1;
    let (slot, other, _) = lab.world.objects[2].groups[0].shards[0].clone();
    let (upload, mine) = (cached_upload(shard), UploadId::from_bytes([9; 16]));
    let put =
        |client, upload, object| Action::PutShard { client, upload, object, group: 0, shard: 0 };
    lab.run(&[put(0, upload, LARGE), put(1, mine, 2)]);
    lab.compact();
    let mut is_gathered = false;
    while !is_gathered {
        let job = lab.writer.reclaim().expect("a sound disk").expect("a cached shard is kept");
        is_gathered = matches!(job, ReclaimJob::GatherCached { .. });
        let done = job.run(&lab.reader);
        if is_gathered {
            let lease = LeaseId::from_bytes(*upload.as_bytes());
            lab.perform(&[Action::Release { client: 0, lease }, put(1, upload, 2)]);
        }
        lab.writer.reclaimed(done).expect("a sound disk");
    }
    let slots = lab.reader.catalog().upload_slots(upload, 0, 1).expect("a sound index");
    assert_eq!(slots, [(slot, other)]);
}

#[test]
fn round_after_round_it_leaves_as_little_as_before() {
    let config = StoreConfig { compact_waste_percent: 40, ..config() };
    let mut lab = Lab::with_config(22, config);
    for (number, object) in [(1, 0), (2, LARGE), (3, 2)] {
        put(&mut lab, number, object, 2_500_000);
    }
    let mut rounds = 0;
    for turn in 0..80_u32 {
        let number = 10 + u8::try_from(turn).expect("small");
        let terms = put(&mut lab, number, 1, 1_000_000);
        lab.run(&[Action::Release { client: 0, lease: terms.lease }]);
        lab.tick(lab.config.trash_secs);
        lab.tick(1);
        let gathered = lab.gathered;
        lab.reclaim(60);
        rounds += u32::from(lab.gathered > gathered);
        let (waste, held) = waste(&lab);
        // A round begins at 40 %, and not before a segment's worth is of no use.
        assert!(waste * 100 < held * 65, "turn {turn}: {waste} of {held}");
    }
    assert!(rounds > 2, "{rounds}");
}
