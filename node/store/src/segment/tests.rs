// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scans over damaged, torn, forged and foreign bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use supernode_protocol::ids::{Cid, NodeId, UploadId};

use super::{Extent, FooterPlace, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeaderError};
use super::{Log, LogEnd, Predecessor, ScanRange, SegmentHeader, Segments, Tail, file_name};
use super::{Segment, number_of, scan_segment, survey};
use crate::disk::{Disk, DiskFile, SimDisk};
use crate::error::StoreError;
use crate::record::{Body, Draft, Holder, Payload};
use crate::recovery::Layout;

const NODE: NodeId = NodeId::from_bytes([3; 32]);

pub(super) fn new_log(disk: &SimDisk) -> (Log, Arc<Segments>) {
    let segments = Arc::new(Segments::new(Arc::new(disk.clone())));
    let end = LogEnd { last: Predecessor::bare(0, 0), open: false, number_max: 0 };
    let mut log = Log::resume(Arc::clone(&segments), NODE, 1 << 20, end).expect("nothing to open");
    log.rotate(1).expect("a sound disk");
    (log, segments)
}

/// A block record with `len` bytes of payload, written as if all before `durable` was synced.
pub(super) fn block(sequence: u64, durable: u64, len: usize) -> Draft {
    let byte = u8::try_from(sequence).expect("few records");
    carrying(sequence, durable, vec![byte; len].into())
}

fn carrying(sequence: u64, durable: u64, bytes: Bytes) -> Draft {
    let holder = Holder { upload: UploadId::from_bytes([1; 16]), owner: NODE };
    Draft {
        sequence,
        running_secs: 0,
        durable,
        id: *Cid::of(&bytes).as_bytes(),
        body: Body::Block(holder),
        payload: Payload::Block(bytes),
    }
}

/// A file with something done to each read.
pub(super) struct Hooked<F> {
    file: Arc<dyn DiskFile>,
    hook: F,
}

impl<F: Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync + 'static> Hooked<F> {
    /// A segment whose reads go through `hook`.
    pub(super) fn over(segment: &Segment, hook: F) -> Segment {
        let file = Arc::clone(&segment.file);
        Segment { header: segment.header, file: Arc::new(Self { file, hook }) }
    }
}

impl<F: Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync> DiskFile for Hooked<F> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, buffer)?;
        (self.hook)(offset, buffer).map(|()| read)
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(offset, parts)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes drafts to a new segment; returns it with the offset of each record.
fn segment_of(drafts: &[Draft]) -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new(7);
    let (mut log, _) = new_log(&disk);
    let offsets = drafts
        .iter()
        .map(|draft| {
            let offset = log.end().end;
            log.append(std::iter::once(draft)).expect("a sound disk");
            offset
        })
        .collect();
    log.sync().expect("a sound disk");
    (disk, offsets)
}

/// Sequence numbers that a scan finds.
fn scan(disk: &SimDisk, tail: Tail) -> (Vec<u64>, Extent) {
    let segments = Segments::new(Arc::new(disk.clone()));
    let segment = segments.segment(1).expect("a readable header");
    let mut found = Vec::new();
    let range = ScanRange { from: 0, tail, after_sequence: 0, before_sequence: u64::MAX };
    let extent = scan_segment(&segment, range, |record| {
        found.push(record.header.sequence);
        Ok(())
    });
    (found, extent.expect("a readable file"))
}

fn flip(disk: &SimDisk, offset: u64) {
    disk.corrupt(&file_name(1), usize::try_from(offset).expect("a small file"), 0x10);
}

#[test]
fn names_are_ten_digits_and_seg() {
    assert_eq!(file_name(7), "0000000007.seg");
    assert_eq!(number_of("0000000007.seg"), Some(7));
    for name in ["7.seg", "0000000007.bak", "000000000x.seg", "9999999999.seg", "00000000007.seg"] {
        assert_eq!(number_of(name), None, "{name}");
    }
}

#[test]
fn a_damaged_header_costs_its_record_and_no_other() {
    for damaged in 0..4 {
        let drafts: Vec<_> = (1..=5).map(|sequence| block(sequence, sequence - 1, 9000)).collect();
        let (disk, offsets) = segment_of(&drafts);
        flip(&disk, offsets[damaged] + 60);
        let segments = Segments::new(Arc::new(disk.clone()));
        let segment = segments.segment(1).expect("a readable header");
        let durable = survey(&segment, 0, 0).expect("a readable file");
        assert_eq!(durable, 4);
        let (found, extent) = scan(&disk, Tail::Open { durable });
        let expected: Vec<_> = (1..=5).filter(|sequence| *sequence != damaged as u64 + 1).collect();
        assert_eq!(found, expected);
        assert_eq!(extent.damage.len(), 1, "{extent:?}");
        assert_eq!(extent.damage[0].from.offset, offsets[damaged]);
    }
}

#[test]
fn a_damaged_meta_costs_its_record_and_no_other() {
    let drafts: Vec<_> = (1..=3).map(|sequence| block(sequence, sequence - 1, 100)).collect();
    let (disk, offsets) = segment_of(&drafts);
    flip(&disk, offsets[1] + 96 + 5);
    let (found, extent) = scan(&disk, Tail::Open { durable: 2 });
    assert_eq!(found, [1, 3]);
    assert_eq!(extent.damage.len(), 1);
}

#[test]
fn the_log_ends_before_the_first_torn_record_of_the_last_write() {
    // Three and four and five were written together, after two was synced.
    let drafts: Vec<_> =
        (1..=5).map(|sequence| block(sequence, sequence.min(3) - 1, 700)).collect();
    for (torn, at) in [(3, 0), (3, 96 + 10), (3, 96 + 64 + 200), (4, 40), (5, 300)] {
        let (disk, offsets) = segment_of(&drafts);
        flip(&disk, offsets[torn - 1] + at);
        let segments = Segments::new(Arc::new(disk.clone()));
        let segment = segments.segment(1).expect("a readable header");
        let durable = survey(&segment, 0, 0).expect("a readable file");
        assert_eq!(durable, 2);
        let (found, extent) = scan(&disk, Tail::Open { durable });
        let expected: Vec<_> = (1..torn as u64).collect();
        assert_eq!(found, expected, "record {torn} torn at {at}");
        assert_eq!(extent.end, offsets[torn - 1]);
        assert!(extent.damage.is_empty(), "{extent:?}");
        assert!(extent.tail_bytes > 0);
    }
}

#[test]
fn bytes_of_a_client_are_never_taken_for_a_record() {
    let disk = SimDisk::new(7);
    let (mut log, segments) = new_log(&disk);
    let tag = segments.segment(1).expect("just made").header.tag;
    // The worst a client can do is to know the format; it does not know the tag.
    let start = log.end().end;
    let forged_at = start + 4096;
    let forged = block(9, 8, 10).encode(tag ^ 1, forged_at).head;
    let mut payload = vec![0; 8192];
    let victim = carrying(1, 0, payload.clone().into());
    let inside = forged_at - start - victim.shape().payload_start(start);
    let inside = usize::try_from(inside).expect("within the payload");
    payload[inside..inside + forged.len()].copy_from_slice(&forged);
    log.append([carrying(1, 0, payload.into()), block(2, 1, 10)].iter()).expect("a sound disk");
    log.sync().expect("a sound disk");
    flip(&disk, start + 60);
    let (found, _) = scan(&disk, Tail::Open { durable: 1 });
    assert_eq!(found, [2]);
}

#[test]
fn records_that_repeat_a_number_are_not_taken_twice() {
    let (disk, _) = segment_of(&[block(1, 0, 10), block(2, 1, 10), block(2, 1, 20)]);
    assert_eq!(scan(&disk, Tail::Open { durable: 1 }).0, [1, 2]);
}

#[test]
fn a_stated_end_is_the_end() {
    let drafts: Vec<_> = (1..=3).map(|sequence| block(sequence, sequence - 1, 10)).collect();
    let (disk, offsets) = segment_of(&drafts);
    assert_eq!(scan(&disk, Tail::Stated(offsets[2])).0, [1, 2]);
}

/// Numbers that a scan finds through `hook`, and how many reads and bytes it took.
fn scan_hooked(
    disk: &SimDisk,
    hook: impl Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync + 'static,
) -> (Vec<u64>, u64, u64) {
    let segment = Segments::new(Arc::new(disk.clone())).segment(1).expect("a readable header");
    let figures = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counts = Arc::clone(&figures);
    let counting = move |offset: u64, buffer: &mut [u8]| {
        counts[0].fetch_add(1, Ordering::Relaxed);
        counts[1].fetch_add(buffer.len() as u64, Ordering::Relaxed);
        hook(offset, buffer)
    };
    let mut found = Vec::new();
    let tail = Tail::Open { durable: u64::MAX };
    let range = ScanRange { from: 0, tail, after_sequence: 0, before_sequence: u64::MAX };
    scan_segment(&Hooked::over(&segment, counting), range, |record| {
        found.push(record.header.sequence);
        Ok(())
    })
    .expect("a readable file");
    let [reads, bytes] = [0, 1].map(|which: usize| figures[which].load(Ordering::Relaxed));
    (found, reads, bytes)
}

#[test]
fn small_records_are_read_together_and_large_ones_are_passed_over() {
    let small: Vec<_> = (1..=250).map(|sequence| block(sequence, sequence - 1, 500)).collect();
    let (found, reads, _) = scan_hooked(&segment_of(&small).0, |_, _| Ok(()));
    assert_eq!(found.len(), 250);
    assert!(reads <= 3, "{reads} reads for 250 records");
    let large: Vec<_> = (1..=9).map(|sequence| block(sequence, sequence - 1, 99_000)).collect();
    let (found, reads, bytes) = scan_hooked(&segment_of(&large).0, |_, _| Ok(()));
    assert_eq!(found.len(), 9);
    assert!(reads <= 12 && bytes < 20_000, "{reads} reads of {bytes} bytes for 9 records");
}

#[test]
fn a_block_that_cannot_be_read_costs_what_begins_in_it() {
    let drafts: Vec<_> = (1..=250).map(|sequence| block(sequence, sequence - 1, 500)).collect();
    let (disk, offsets) = segment_of(&drafts);
    let bad = 20_480..24_576;
    let is_lost = |offset: &u64| bad.contains(offset) || bad.contains(&(offset + 145));
    let lost = offsets.iter().filter(|offset| is_lost(offset)).count();
    let bad = bad.clone();
    let (found, ..) = scan_hooked(&disk, move |offset, buffer| {
        let is_bad = offset < bad.end && offset + buffer.len() as u64 > bad.start;
        if is_bad { Err(io::Error::other("a bad block")) } else { Ok(()) }
    });
    assert!(lost > 3 && found.len() == 250 - lost, "{lost} begin there, {found:?}");
}

#[test]
fn one_good_copy_of_a_segment_header_is_enough() {
    let footer = FooterPlace { offset: 12_288, len: 77, crc: 5 };
    let header = SegmentHeader {
        version: SEGMENT_VERSION,
        number: 5,
        tag: 77,
        node: NODE,
        first_sequence: 9,
        previous: Predecessor { footer: Some(footer), ..Predecessor::bare(4, 8192) },
    };
    let good = header.encode();
    assert_eq!(good.len(), SEGMENT_HEADER_BYTES);
    assert_eq!(SegmentHeader::decode(&good), Ok(header));
    for block in [0..4096, 4096..8192] {
        let mut bytes = good.clone();
        bytes[block].fill(0);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes.fill(0);
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentHeaderError::Invalid));
    }
    for bit in 0..128 * 8 {
        let mut bytes = good[..4096].to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentHeaderError::Invalid), "bit {bit}");
    }
}

#[test]
fn a_segment_whose_header_is_lost_costs_its_own_records_only() {
    let disk = SimDisk::new(7);
    let (mut log, _) = new_log(&disk);
    for sequence in 1..=3 {
        log.append(std::iter::once(&block(sequence, sequence - 1, 10))).expect("a sound disk");
        log.sync().expect("a sound disk");
        log.rotate(sequence + 1).expect("a sound disk");
    }
    for copy in [0, 4096] {
        disk.corrupt(&file_name(2), copy, 1);
    }
    let layout = Layout::read(&Segments::new(Arc::new(disk.clone()))).expect("going on");
    assert_eq!(layout.segment_count(), 3, "two with records and the empty newest");
    assert!(matches!(layout.bad_segments(), [(2, StoreError::BadSegment { .. })]));
}

#[test]
fn a_newest_segment_without_a_header_was_never_used() {
    let disk = SimDisk::new(7);
    let (_, _) = new_log(&disk);
    disk.create(&file_name(2)).expect("a new name");
    let layout = Layout::read(&Segments::new(Arc::new(disk))).expect("going on");
    assert_eq!((layout.segment_count(), layout.bad_segments().len()), (1, 0));
}
