// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed segments with footers and without: a rebuild gives the same map, whatever became of them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::harness::{Action, IndexFate, LARGE, Lab};
use crate::disk::{Disk, Fault};
use crate::record::Kind;
use crate::sample::Terms;
use crate::segment::{SEGMENT_VERSION, SegmentHeader, file_name};

/// Several segments that were sealed because they were full.
fn sealed(seed: u64) -> Lab {
    let mut lab = Lab::new(seed);
    script(&lab).iter().for_each(|batch| lab.run(batch));
    lab
}

/// Four groups, in batches.
fn script(lab: &Lab) -> Vec<Vec<Action>> {
    let group =
        |(number, object)| lab.world.whole_group(0, object, 0, Terms::pin(number, 10 + number));
    let actions: Vec<_> =
        [(1, LARGE), (2, 0), (3, 1), (4, 2)].into_iter().flat_map(group).collect();
    actions.chunks(3).map(<[Action]>::to_vec).collect()
}

#[test]
fn a_rebuild_reads_the_footers_of_what_was_sealed() {
    for seed in 0..4 {
        let mut lab = sealed(seed);
        let footers = lab.stated_footers().len();
        assert!(footers >= 3, "seed {seed}: {footers} footers");
        lab.restart(true, IndexFate::Lost);
        assert_eq!(lab.footers, footers as u64, "seed {seed}");
        // What was left open has none, and is not in the way.
        lab.run(&[Action::PutBlock {
            client: 0,
            upload: Terms::pin(9, 9).upload,
            object: 0,
            group: 0,
        }]);
        lab.restart(true, IndexFate::Lost);
        assert_eq!(lab.footers, footers as u64, "seed {seed}");
    }
}

/// Footers rot, a bit in each; a rebuild must not notice anything but that.
pub(super) fn rebuild_from_rotten_footers(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = sealed(seed);
    for footer in lab.stated_footers() {
        lab.flip_footer(footer, random.random_range(0..footer.1.len * 8));
    }
    lab.rotten_footers = true;
    lab.restart(false, IndexFate::Lost);
    assert_eq!(lab.footers, 0, "seed {seed}: a footer was used");
}

#[test]
fn a_flipped_bit_in_a_footer_changes_no_map() {
    (0..60).for_each(rebuild_from_rotten_footers);
}

/// The power goes at each write and each sync of a life in which segments are sealed.
pub(super) fn cut_while_sealing(seed: u64) {
    let steps = {
        let lab = sealed(seed);
        let (syncs, writes) = lab.disk.counts();
        syncs + writes
    };
    for step in 0..steps {
        let mut lab = Lab::new(seed);
        lab.inject(Fault::PowerOff(step));
        for batch in script(&lab) {
            if !lab.disk.is_off() {
                lab.run(&batch);
            }
        }
        lab.restart(true, IndexFate::Lost);
    }
}

#[test]
fn the_power_may_go_at_any_step_of_sealing() {
    (0..4).for_each(cut_while_sealing);
}

#[test]
fn a_footer_that_cannot_be_written_costs_nothing_but_itself() {
    let (whole, steps) = {
        let lab = sealed(2);
        (lab.stated_footers().len(), lab.disk.counts())
    };
    let faults = (0..steps.0).map(Fault::Sync).chain((0..steps.1).map(Fault::Write));
    let mut without = 0;
    for fault in faults {
        let mut lab = Lab::new(2);
        lab.inject(fault);
        script(&lab).iter().for_each(|batch| drop(lab.perform(batch)));
        without += u32::from(lab.stated_footers().len() < whole);
        lab.check_footers();
        lab.compare_log();
        lab.restart_without_model();
        lab.check_footers();
        lab.compare_log();
    }
    assert!(without > 6, "{without} faults left a segment without a footer");
}

#[test]
fn an_index_that_lacks_a_record_of_a_sealed_segment_is_built_anew() {
    let mut lab = sealed(4);
    let footers = lab.stated_footers();
    let commit = lab.records(Kind::Commit)[0];
    let footer = *footers.iter().find(|(number, _)| *number == commit.segment).expect("sealed");
    // Without footer and header there is no such record.
    lab.flip_footer(footer, 300);
    lab.flip_record(commit);
    lab.rotten_footers = true;
    lab.restart_damaged(IndexFate::Lost);
    let lacking = lab.reader.catalog().usage().expect("a sound index").records;
    lab.restart_damaged(IndexFate::Kept);
    assert_eq!(lab.footers, 0, "what the footer says is not to be believed");
    lab.flip_footer(footer, 300);
    lab.restart_damaged(IndexFate::Kept);
    assert_eq!(
        lab.footers,
        footers.len() as u64,
        "the footer is whole again, and was held against"
    );
    let usage = lab.reader.catalog().usage().expect("a sound index");
    assert!(usage.records > lacking, "{usage:?}");
    lab.flip_record(commit);
    lab.compare_log();
}

/// Turns a segment into one of version 1, which knows no footers.
fn age(lab: &Lab, number: u32) {
    let file = lab.disk.open(&file_name(number), true).expect("a segment");
    let mut blocks = vec![0; 8192];
    file.read_at(0, &mut blocks).expect("a sound disk");
    let mut header = SegmentHeader::decode(&blocks).expect("a good header");
    assert_eq!(header.version, SEGMENT_VERSION);
    (header.version, header.previous.footer) = (1, None);
    file.write_at(0, &[&header.encode()]).expect("a sound disk");
    file.sync_data().expect("a sound disk");
}

fn versions(lab: &Lab) -> Vec<u32> {
    let segments = lab.reader.segments();
    let numbers = segments.numbers().expect("a directory in memory");
    let version = |number: &u32| segments.segment(*number).expect("readable").header.version;
    numbers.iter().map(version).collect()
}

#[test]
fn segments_of_version_1_are_read_and_never_continued() {
    for fate in [IndexFate::Lost, IndexFate::Kept] {
        // A disk that does not write whole blocks: headers are rewritten here.
        let mut lab = sealed(6);
        lab.close_and_open(IndexFate::Kept);
        let numbers = lab.reader.segments().numbers().expect("a directory in memory");
        numbers.iter().for_each(|number| age(&lab, *number));
        lab.close_and_open(fate);
        let old = lab.segment_files();
        assert_eq!(lab.footers, 0);
        lab.run(&[Action::KeepSpan { object: LARGE, group: 0, len: 10 }]);
        assert_eq!(lab.segment_files(), old + 1, "though the last one ended in good order");
        // More than a segment of them.
        (0..20).for_each(|_| lab.run(&[Action::KeepSpan { object: LARGE, group: 0, len: 2999 }]));
        let versions = versions(&lab);
        assert!(versions[..old].iter().all(|version| *version == 1), "{versions:?}");
        assert!(versions.len() > old + 1, "{versions:?}");
        assert!(versions[old..].iter().all(|version| *version == 2), "{versions:?}");
        let footers = lab.stated_footers();
        assert!(!footers.is_empty(), "what is sealed now has a footer");
        assert!(footers.iter().all(|(number, _)| !numbers.contains(number)), "{footers:?}");
        lab.restart(true, IndexFate::Lost);
        assert_eq!(lab.footers, footers.len() as u64);
    }
}
