// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments that rot at rest: what is left is served, nothing of it is destroyed, and what was lost
//! counts again when somebody restores it.

use supernode_protocol::ids::{LeaseId, UploadId};

use super::ReclaimJob;
use super::harness::{Action, IndexFate, LARGE, Lab, config};
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::reader::Way;
use crate::record::Kind;
use crate::sample::Terms;
use crate::segment::file_name;

/// A pinned group with whole disk blocks in its shards, in sealed segments.
fn pinned(seed: u64) -> Lab {
    let mut lab = Lab::new(seed);
    let groups = [(0, LARGE, Terms::pin(1, 11)), (1, 0, Terms::pin(2, 12))];
    for (client, object, terms) in groups {
        lab.world.whole_group(client, object, 0, terms).chunks(1).for_each(|one| lab.run(one));
    }
    // Another segment begins.
    lab.run(&[shard(9, 2)]);
    lab
}

fn shard(upload: u8, shard: usize) -> Action {
    let upload = UploadId::from_bytes([upload; 16]);
    Action::PutShard { client: 0, upload, object: LARGE, group: 0, shard }
}

/// As much as time can bring about.
fn wait(lab: &mut Lab) {
    for _ in 0..4 {
        lab.model.now += lab.config.upload_idle_secs.max(lab.config.trash_secs);
        lab.writer.advance(lab.model.now);
        lab.writer.tick().expect("a sound index");
        while let Some(job) = lab.writer.reclaim().expect("a sound disk") {
            lab.punched += usize::from(matches!(job, ReclaimJob::Punch(_)));
            let done = job.run(&lab.reader);
            lab.writer.reclaimed(done).expect("a sound disk");
        }
    }
}

fn is_readable(lab: &Lab, shards: impl IntoIterator<Item = usize>) -> bool {
    let known = &lab.world.objects[LARGE].groups[0].shards;
    shards.into_iter().all(|shard| lab.reader.shard(known[shard].1, Way::Kept).is_ok())
}

/// Everything is as [`pinned`] left it, but for the idle upload.
fn assert_pinned(lab: &Lab) {
    assert!(is_readable(lab, 0..3));
    let leases = lab.reader.catalog().usage().expect("a sound index").leases;
    assert_eq!(leases.map(|kind| kind.count), [0, 0, 2, 0, 0], "both pins, and no upload");
}

#[test]
fn nothing_is_freed_on_the_word_of_a_map_that_lacks_records() {
    let mut lab = pinned(1);
    let commits = lab.records(Kind::Commit);
    commits.iter().for_each(|at| lab.flip_record(*at));
    lab.stated_footers().into_iter().for_each(|footer| lab.flip_footer(footer, 400));
    lab.restart_damaged(IndexFate::Lost);
    assert!(!lab.writer.reclaiming.is_whole);
    wait(&mut lab);
    // The index fits from now on, and still lacks the commits.
    lab.restart_damaged(IndexFate::Kept);
    wait(&mut lab);
    assert!(is_readable(&lab, 0..3), "under an upload, as far as anybody can tell");
    commits.iter().for_each(|at| lab.flip_record(*at));
    lab.restart_damaged(IndexFate::Lost);
    wait(&mut lab);
    assert_pinned(&lab);
}

#[test]
fn a_map_that_a_footer_completes_lacks_nothing() {
    let mut lab = pinned(1);
    (0..10).for_each(|_| lab.run(&[Action::KeepSpan { object: LARGE, group: 0, len: 2999 }]));
    let commits = lab.records(Kind::Commit);
    let sealed: Vec<_> = lab.stated_footers().iter().map(|(number, _)| *number).collect();
    assert!(commits.iter().all(|at| sealed.contains(&at.segment)), "{commits:?}");
    commits.iter().for_each(|at| lab.flip_record(*at));
    lab.restart_damaged(IndexFate::Lost);
    assert!(lab.writer.reclaiming.is_whole);
    wait(&mut lab);
    assert_pinned(&lab);
}

#[test]
fn a_segment_that_is_restored_counts_again() {
    let mut lab = pinned(2);
    let commit = lab.records(Kind::Commit)[0].segment;
    lab.flip_headers(commit);
    lab.restart_damaged(IndexFate::Lost);
    wait(&mut lab);
    lab.flip_headers(commit);
    lab.restart_damaged(IndexFate::Kept);
    wait(&mut lab);
    assert_pinned(&lab);
}

#[test]
fn a_used_segment_of_which_nothing_is_left_is_damage() {
    for len in [0, 8192] {
        let mut lab = pinned(6);
        lab.restart(false, IndexFate::Kept);
        lab.run(&[shard(9, 1)]);
        let commit = lab.records(Kind::Commit)[0].segment;
        let name = file_name(commit);
        let whole = lab.disk.content(&name).expect("a segment");
        let file = lab.disk.open(&name, true).expect("a segment");
        lab.flip_headers(commit);
        file.truncate(len).expect("a sound disk");
        for fate in [IndexFate::Kept, IndexFate::Lost] {
            lab.restart_damaged(fate);
            wait(&mut lab);
            let left = lab.disk.content(&name).map(|content| content.len() as u64);
            assert_eq!(left, Some(len), "{fate:?}");
            assert!(!lab.writer.reclaiming.is_whole, "{len} bytes, {fate:?}");
        }
        file.write_at(0, &[&whole]).expect("a sound disk");
        lab.restart_damaged(IndexFate::Kept);
        wait(&mut lab);
        assert_pinned(&lab);
    }
}

#[test]
fn no_segment_goes_while_another_is_unreadable() {
    let mut lab = Lab::new(5);
    lab.run(&[shard(1, 0)]);
    lab.restart(false, IndexFate::Kept);
    lab.run(&[shard(2, 1)]);
    lab.run(&[Action::Release { client: 0, lease: LeaseId::from_bytes([1; 16]) }]);
    lab.tick(1);
    let job = lab.writer.reclaim().expect("a sound disk");
    assert!(matches!(job, Some(ReclaimJob::Unlink { through: 1 })), "{job:?}");
    // The power goes after the log's word and before the deed.
    lab.restart(true, IndexFate::Kept);
    lab.perform(&[shard(3, 2)]);
    assert_eq!(lab.segment_files(), 3);
    lab.flip_headers(3);
    lab.restart_damaged(IndexFate::Kept);
    wait(&mut lab);
    assert!(lab.disk.content("0000000001.seg").is_some());
    lab.flip_headers(3);
    lab.restart_damaged(IndexFate::Kept);
    wait(&mut lab);
    assert!(lab.disk.content("0000000001.seg").is_none());
}

/// Puts a whole record where another is, as a disk does that mistakes an address, and reads both.
pub(super) fn read_misplaced(seed: u64) {
    let lab = pinned(seed);
    let known = &lab.world.objects[LARGE].groups[0].shards;
    let kept = [0, 1].map(|shard| lab.reader.live_shard(known[shard].1).expect("pinned"));
    let [from, to] = kept.map(|kept| (file_name(kept.at.segment), kept));
    let mut record = vec![0; usize::try_from(from.1.payload_start + from.1.len).expect("small")];
    assert_eq!((to.1.payload_start, to.1.len), (from.1.payload_start, from.1.len));
    let file = lab.disk.open(&from.0, false).expect("a segment");
    file.read_at(from.1.at.offset, &mut record).expect("a sound disk");
    let file = lab.disk.open(&to.0, true).expect("a segment");
    file.write_at(to.1.at.offset, &[&record]).expect("a sound disk");
    assert!(is_readable(&lab, [0, 2]));
    let read = lab.reader.shard(known[1].1, Way::Kept).map(|shard| shard.bytes == known[1].2);
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "seed {seed}: served: {read:?}");
}

#[test]
fn a_record_in_the_place_of_another_is_not_served() {
    // A disk that does not write whole blocks.
    read_misplaced(8);
}

/// A hole in the first segment that the second vouches for, and a record after it.
fn with_a_hole() -> Lab {
    let mut lab = Lab::with_config(3, StoreConfig { segment_bytes_max: 29_000, ..config() });
    lab.run(&[shard(1, 0), shard(2, 1)]);
    lab.run(&[shard(3, 2)]);
    assert_eq!(lab.segment_files(), 2, "the first two were the last batch of the first segment");
    lab.run(&[Action::Release { client: 0, lease: LeaseId::from_bytes([1; 16]) }]);
    lab.tick(1);
    lab.reclaim(2);
    assert_eq!(lab.punched, 1);
    lab
}

fn assert_hole_costs_its_shard_only(lab: &Lab) {
    let (_, shard, _) = lab.world.objects[LARGE].groups[0].shards[0];
    let hole = lab.reader.shard(shard, Way::Kept);
    assert!(matches!(hole, Err(StoreError::Damaged { .. })), "wanted again, and zeros: {hole:?}");
    assert!(is_readable(lab, 1..2), "it was durable, and still is");
}

#[test]
fn a_hole_in_a_segment_whose_successor_is_lost_is_no_torn_end() {
    let mut lab = with_a_hole();
    lab.flip_headers(2);
    lab.restart_damaged(IndexFate::Lost);
    assert_hole_costs_its_shard_only(&lab);
}

#[test]
fn a_hole_in_a_segment_whose_successor_was_moved_away_is_no_torn_end() {
    let mut lab = with_a_hole();
    lab.restart(false, IndexFate::Kept);
    let upload = UploadId::from_bytes([4; 16]);
    lab.run(&[Action::PutBlock { client: 0, upload, object: LARGE, group: 0 }]);
    assert_eq!(lab.segment_files(), 3);
    lab.disk.remove("0000000002.seg").expect("a segment");
    lab.restart_damaged(IndexFate::Lost);
    assert_hole_costs_its_shard_only(&lab);
}

#[test]
fn what_was_written_after_a_lost_segment_stands_beside_it_when_it_is_restored() {
    let mut lab = Lab::new(4);
    lab.run(&[shard(1, 0)]);
    lab.close_and_open(IndexFate::Kept);
    // The first segment ends in good order, and is sealed because this does not fit.
    lab.run(&[shard(2, 1)]);
    lab.flip_headers(2);
    lab.restart_damaged(IndexFate::Lost);
    assert!(is_readable(&lab, 0..1) && !is_readable(&lab, 1..2));
    let upload = UploadId::from_bytes([3; 16]);
    lab.perform(&[Action::PutBlock { client: 0, upload, object: LARGE, group: 0 }]);
    assert_eq!(lab.segment_files(), 3, "the first is not continued");
    lab.perform(&[shard(3, 2)]);
    lab.flip_headers(2);
    lab.restart_damaged(IndexFate::Kept);
    assert!(is_readable(&lab, 0..3));
}
