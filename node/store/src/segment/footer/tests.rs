// SPDX-License-Identifier: MIT OR Apache-2.0
//! Footers that are whole, damaged, torn, forged and unwritable: with each a replay finds the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use supernode_protocol::ids::LeaseId;

use super::{
    FOOTER_ALIGN, FooterDraft, FooterFault, FooterPlace, WINDOW_BYTES, put_varint, visit_segment,
};
use crate::disk::{Disk, Fault, SimDisk};
use crate::record::{Body, Draft, Freed, LeaseChange, Payload, Position, Reclaim, Span};
use crate::segment::tests::{Hooked, block, new_log};
use crate::segment::{
    Damage, Extent, FooterCheck, FoundRecord, Predecessor, ScanRange, Segment, Segments, Tail,
    file_name, scan_segment,
};

/// A record without a payload.
fn plain(sequence: u64, id: u8, body: Body) -> Draft {
    let running_secs = sequence * 200;
    Draft { sequence, running_secs, durable: 0, id: [id; 32], body, payload: Payload::None }
}

/// A long meta unlike that of any other record.
fn noise(sequence: u64, len: usize) -> Body {
    let key = usize::try_from(sequence * 31).expect("few records");
    let byte = |at| u8::try_from((at * 7 + key) % 251).expect("small");
    Body::Journal((0..len).map(byte).collect())
}

/// Records of several kinds, with metas that begin alike and others that do not.
fn drafts() -> Vec<Draft> {
    let lease = LeaseId::from_bytes([7; 16]);
    let records = vec![Position { segment: 1, offset: 8192 }; 30];
    vec![
        block(1, 0, 9000),
        block(2, 1, 100),
        plain(3, 3, Body::Lease(LeaseChange::Release { lease })),
        plain(4, 4, Body::Tombstone(Freed::Group { group: 300 })),
        plain(7, 0, Body::Reclaim(Reclaim::Punched { records })),
        plain(8, 8, Body::Span(Span { group: 1, bytes: vec![9; 300] })),
        plain(9, 0, Body::Clock { stopped: false }),
    ]
}

/// A segment of these records, and a second one that was begun after it.
fn sealed(disk: &SimDisk, drafts: &[Draft]) -> Arc<Segments> {
    let (mut log, segments) = new_log(disk);
    for batch in drafts.chunks(2) {
        log.append(batch.iter()).expect("a sound disk");
    }
    log.sync().expect("a sound disk");
    log.rotate(drafts.last().map_or(1, |draft| draft.sequence) + 1).expect("a sound disk");
    segments
}

fn open(disk: &SimDisk) -> (Segment, Predecessor) {
    let segments = Segments::new(Arc::new(disk.clone()));
    let stated = segments.segment(2).expect("a readable header").header.previous;
    (segments.segment(1).expect("a readable header"), stated)
}

fn range(end: u64) -> ScanRange {
    ScanRange { from: 0, tail: Tail::Stated(end), after_sequence: 0, before_sequence: u64::MAX }
}

type Visited = (Vec<String>, Extent);

/// What is found with a footer, and whether it was found there.
fn visited(segment: &Segment, footer: Option<FooterPlace>, end: u64) -> (Visited, bool) {
    let mut found = Vec::new();
    let visit = |record: FoundRecord| {
        found.push(format!("{record:?}"));
        Ok(())
    };
    let (extent, by_footer) =
        visit_segment(segment, footer, range(end), visit).expect("a readable file");
    ((found, extent), by_footer)
}

fn scanned(segment: &Segment, end: u64) -> Visited {
    visited(segment, None, end).0
}

#[test]
fn a_footer_says_what_the_records_say() {
    let disk = SimDisk::new(7);
    // More than a window of metas, none of which fits between two of them.
    let long = (10..60).map(|sequence| plain(sequence, 1, noise(sequence, 11_003)));
    sealed(&disk, &drafts().into_iter().chain(long).collect::<Vec<_>>());
    let (segment, stated) = open(&disk);
    let place = stated.footer.expect("it was sealed in good order");
    assert!(place.len > 2 * WINDOW_BYTES as u64, "{place:?}");
    assert!(place.offset >= stated.end && place.offset.is_multiple_of(FOOTER_ALIGN));
    let (found, by_footer) = visited(&segment, stated.footer, stated.end);
    assert!(by_footer);
    assert_eq!(found, scanned(&segment, stated.end));
    assert_eq!(found.0.len(), 57);
}

#[test]
fn metas_that_begin_alike_are_written_once() {
    let disk = SimDisk::new(8);
    sealed(&disk, &(1..=100).map(|sequence| block(sequence, 0, 10)).collect::<Vec<_>>());
    let (segment, stated) = open(&disk);
    let place = stated.footer.expect("it was sealed in good order");
    assert!(place.len < 100 * 44, "{place:?}");
    assert!(visited(&segment, stated.footer, stated.end).1);
}

#[test]
fn a_footer_with_any_bit_flipped_is_not_used_and_not_missed() {
    let disk = SimDisk::new(7);
    sealed(&disk, &drafts());
    let (segment, stated) = open(&disk);
    let place = stated.footer.expect("it was sealed in good order");
    let expected = scanned(&segment, stated.end);
    for bit in 0..place.len * 8 {
        let at = usize::try_from(place.offset + bit / 8).expect("a small file");
        disk.corrupt(&file_name(1), at, 1 << (bit % 8));
        let (found, by_footer) = visited(&segment, stated.footer, stated.end);
        disk.corrupt(&file_name(1), at, 1 << (bit % 8));
        assert!(!by_footer && found == expected, "bit {bit}: {found:?}");
    }
    assert!(visited(&segment, stated.footer, stated.end).1, "whole again");
}

#[test]
fn a_torn_footer_is_not_used_and_not_missed() {
    let disk = SimDisk::new(8);
    sealed(&disk, &drafts());
    let (segment, stated) = open(&disk);
    let place = stated.footer.expect("it was sealed in good order");
    let expected = scanned(&segment, stated.end);
    let file = disk.open(&file_name(1), true).expect("it is there");
    for len in (0..place.len).rev() {
        file.truncate(place.offset + len).expect("a sound disk");
        let (found, by_footer) = visited(&segment, stated.footer, stated.end);
        assert!(!by_footer && found == expected, "{len} bytes: {found:?}");
    }
}

#[test]
fn a_footer_makes_records_known_whose_headers_are_damaged() {
    let disk = SimDisk::new(7);
    sealed(&disk, &drafts());
    let (segment, stated) = open(&disk);
    let expected = scanned(&segment, stated.end);
    for at in [8192 + 20, 8192 + 100] {
        disk.corrupt(&file_name(1), at, 1);
        let (found, by_footer) = visited(&segment, stated.footer, stated.end);
        assert!(by_footer && found == expected);
        let scan = scanned(&segment, stated.end);
        assert!(matches!(&scan.1.damage[..], [Damage { .. }]), "{scan:?}");
        disk.corrupt(&file_name(1), at, 1);
    }
}

/// Bytes of a footer, and where they would be.
fn written(segment: &Segment, end: u64, bytes: &[u8]) -> FooterPlace {
    let offset = end.next_multiple_of(FOOTER_ALIGN);
    segment.file.truncate(offset).expect("a sound disk");
    segment.file.write_at(offset, &[bytes]).expect("a sound disk");
    FooterPlace { offset, len: bytes.len() as u64, crc: crc32c::crc32c(bytes) }
}

/// The footer of a segment, with something done to each record in it.
fn forged(segment: &Segment, end: u64, mut change: impl FnMut(&mut FooterDraft)) -> Vec<u8> {
    let mut draft = FooterDraft::new(&segment.header, usize::MAX);
    scan_segment(segment, range(end), |found| {
        assert!(draft.add(&found.header, &found.body.encode()));
        change(&mut draft);
        Ok(())
    })
    .expect("a readable file");
    draft.finish().expect("there are records")
}

#[test]
fn a_footer_that_cannot_be_is_refused_though_its_checksum_holds() {
    let disk = SimDisk::new(8);
    sealed(&disk, &drafts());
    let (segment, Predecessor { end, .. }) = open(&disk);
    let expected = scanned(&segment, end);
    let is_used = |segment: &Segment, place| {
        let (found, by_footer) = visited(segment, Some(place), end);
        assert_eq!(found, expected, "whatever the footer is");
        by_footer
    };
    let good = forged(&segment, end, |_| {});
    let place = written(&segment, end, &good);
    assert!(is_used(&segment, place));
    let mut older = segment.clone();
    older.header.version = 1;
    assert!(!is_used(&older, place), "there were none in its version");
    let mut other = segment.clone();
    other.header.tag ^= 1;
    let entries = super::Footer::open(&other, place, end).map(drop);
    assert_eq!(entries, Err(FooterFault("it does not begin as a footer of this segment")));
    // One record too few, as the segment ends earlier, or too many, as it ends later.
    for end in [end - 64, end + 64] {
        let entries = super::Footer::open(&segment, place, end).map(drop);
        assert_eq!(entries, Err(FooterFault("its records do not end where the segment does")));
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut endless = good[..24].to_vec();
    endless.extend([0xff; 200]);
    let mut trailing = good.clone();
    trailing.push(0);
    let bad = [with(24, 99), with(16, 200), with(16, 3), endless, trailing];
    for (number, bytes) in bad.iter().enumerate() {
        assert!(!is_used(&segment, written(&segment, end, bytes)), "forgery {number}");
    }
    let place = written(&segment, end, &good);
    for (after_sequence, before_sequence) in [(1, u64::MAX), (0, 9)] {
        let range = ScanRange { after_sequence, before_sequence, ..range(end) };
        let outcome = visit_segment(&segment, Some(place), range, |_| Ok(()));
        assert!(!outcome.expect("a readable file").1, "another segment has one of its numbers");
    }
    for place in [
        FooterPlace { offset: place.offset - FOOTER_ALIGN, ..place },
        FooterPlace { offset: place.offset + 1, ..place },
        FooterPlace { offset: u64::MAX - 4095, ..place },
        FooterPlace { len: u64::MAX, ..place },
        FooterPlace { len: 0, ..place },
    ] {
        assert!(!is_used(&segment, place), "{place:?}");
    }
}

#[test]
fn a_footer_that_becomes_too_large_is_given_up() {
    let disk = SimDisk::new(8);
    let (mut log, segments) = new_log(&disk);
    for sequence in 1..=70 {
        let meta = vec![u8::try_from(sequence).expect("few records"); 500 << 10];
        log.append(std::iter::once(&plain(sequence, 1, Body::Journal(meta)))).expect("a disk");
    }
    log.sync().expect("a sound disk");
    log.rotate(71).expect("a sound disk");
    let stated = segments.segment(2).expect("just made").header.previous;
    assert_eq!(stated.footer, None);
    assert_eq!(scanned(&segments.segment(1).expect("there"), stated.end).0.len(), 70);
}

#[test]
fn a_footer_that_cannot_be_written_or_synced_is_done_without() {
    for (seed, fault) in (0..4).flat_map(|seed| [(seed, true), (seed, false)]) {
        let disk = SimDisk::new(seed);
        let (mut log, segments) = new_log(&disk);
        log.append(drafts().iter()).expect("a sound disk");
        log.sync().expect("a sound disk");
        let (syncs, writes) = disk.counts();
        disk.inject(if fault { Fault::Write(writes) } else { Fault::Sync(syncs) });
        log.rotate(10).expect("the segment's own header can be written");
        let stated = segments.segment(2).expect("just made").header.previous;
        assert_eq!(stated, Predecessor { footer: None, ..stated });
        assert_eq!(scanned(&segments.segment(1).expect("there"), stated.end).0.len(), 7);
    }
}

#[test]
fn a_segment_that_was_left_unsynced_or_empty_has_no_footer() {
    let disk = SimDisk::new(8);
    let (mut log, segments) = new_log(&disk);
    log.rotate(1).expect("a sound disk");
    log.append(drafts().iter()).expect("a sound disk");
    log.rotate(1).expect("a sound disk");
    for number in [2, 3] {
        assert_eq!(segments.segment(number).expect("just made").header.previous.footer, None);
    }
}

#[test]
fn a_footer_that_changes_after_it_was_checked_is_left_where_it_changed() {
    let disk = SimDisk::new(7);
    let drafts: Vec<_> =
        (1..40).map(|sequence| plain(sequence, 1, noise(sequence, 30_011))).collect();
    sealed(&disk, &drafts);
    let (segment, stated) = open(&disk);
    let place = stated.footer.expect("it was sealed in good order");
    let expected = scanned(&segment, stated.end);
    let windows = place.len.div_ceil(WINDOW_BYTES as u64);
    for number in 0..windows {
        let at = place.offset + number * WINDOW_BYTES as u64 + 5000;
        let reads = AtomicU64::new(0);
        let turn = move |offset: u64, buffer: &mut [u8]| {
            let is_checked = reads.fetch_add(1, Ordering::Relaxed) >= windows;
            let at = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| buffer.get_mut(at))
                .filter(|_| is_checked)
                .into_iter()
                .for_each(|byte| *byte ^= 1);
            Ok(())
        };
        let fickle = Hooked::over(&segment, turn);
        let (found, by_footer) = visited(&fickle, stated.footer, stated.end);
        assert!(!by_footer, "window {number}");
        assert_eq!(found, expected, "window {number}");
    }
}

#[test]
fn a_check_holds_a_footer_against_each_record() {
    let disk = SimDisk::new(8);
    sealed(&disk, &drafts());
    let (segment, stated) = open(&disk);
    let checked = |place: FooterPlace| {
        let mut check = FooterCheck::begin(&segment, place, stated.end);
        scan_segment(&segment, range(stated.end), |found| {
            check.record(&found.header);
            Ok(())
        })
        .expect("a readable file");
        check.fault()
    };
    assert_eq!(checked(stated.footer.expect("sealed in good order")), None);
    // A byte of the first id: nothing in the footer itself speaks against it.
    let mut other = forged(&segment, stated.end, |_| {});
    other[40] ^= 1;
    let place = written(&segment, stated.end, &other);
    assert_eq!(checked(place), Some(FooterFault("a record says something else")));
    // A damaged record is passed over.
    let place = written(&segment, stated.end, &forged(&segment, stated.end, |_| {}));
    disk.corrupt(&file_name(1), 8192 + 20, 1);
    assert_eq!(checked(place), None);
}

#[test]
fn numbers_of_any_size_are_read_as_they_were_written() {
    for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        assert_eq!(super::Fields(&bytes).varint(), Some(number));
        assert_eq!(super::Fields(&bytes[1..]).varint().is_none(), bytes.len() == 1, "{number}");
    }
    assert_eq!(super::Fields(&[0xff; 10]).varint(), None, "more than 64 bits");
}
