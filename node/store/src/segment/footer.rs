// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands behind the records of a segment that was sealed in good order: all that a replay
//! wants of them, in one piece.
//!
//! - The log is the truth, a footer a checked copy of its headers and metas. It is used when the
//!   successor's header states it, its checksum holds, and its records follow each other from the
//!   first to the segment's end. Whatever else it is, the records themselves are read.
//! - It is read twice: once to check all of it, then to use it. What is used is held against the
//!   first reading, piece by piece, so a disk that changes its mind is noticed in time, and memory
//!   is needed for one piece only.
//!
//! ```text
//! magic 8 B | tag 8 B | count 8 B | entries
//! entry: kind, sequence, second, unsynced, three lengths, id, shared, rest of the meta
//! ```
//!
//! `docs/DATA_FORMAT.md` has every byte.

use std::ops::Range;

use super::header::SEGMENT_HEADER_BYTES;
use super::scan::{Extent, FoundRecord, ScanRange, Tail, decode_meta, scan_segment};
use super::{Segment, SegmentHeader};
use crate::disk::read_exact_at;
use crate::error::StoreError;
use crate::planted::{Bug, has};
use crate::record::{Header, Kind, Shape, read_u64, to_len};

/// A footer that would become larger is given up: it waits in memory until its segment is full, and
/// records that are so small are read quickly without it.
pub(crate) const FOOTER_BYTES_MAX: usize = 32 << 20;
/// Footers begin on a disk block.
pub(super) const FOOTER_ALIGN: u64 = 4096;
/// The first version of segments that have footers.
const FOOTER_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"SNFOOTER";
/// Bytes before the first entry.
const PRELUDE_BYTES: usize = 24;
/// Where the count stands.
const COUNT: Range<usize> = 16..24;
/// An entry without its meta takes no more: a kind, seven varints and an id.
const ENTRY_BYTES_MAX: usize = 1 + 7 * 10 + 32;
/// Read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// Where a footer is, and what its bytes sum up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterPlace {
    /// Its first byte in the segment's file.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
    /// Their CRC32C.
    pub crc: u32,
}

/// Why a footer is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FooterFault(pub(crate) &'static str);

// --- writing -------------------------------------------------------------------------------

/// The footer of a segment that still takes records.
pub(super) struct FooterDraft {
    bytes: Vec<u8>,
    bytes_max: usize,
    count: u64,
    sequence_next: u64,
    /// The meta of the last record.
    meta: Vec<u8>,
}

impl FooterDraft {
    /// Of a segment without records.
    pub(super) fn new(header: &SegmentHeader, bytes_max: usize) -> Self {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&header.tag.to_le_bytes());
        bytes.resize(PRELUDE_BYTES, 0);
        let sequence_next = header.first_sequence;
        Self { bytes, bytes_max, count: 0, sequence_next, meta: Vec::new() }
    }

    /// Adds the next record; says whether the footer may still grow.
    pub(super) fn add(&mut self, header: &Header, meta: &[u8]) -> bool {
        let Some(skipped) = header.sequence.checked_sub(self.sequence_next) else { return false };
        let shared = self.meta.iter().zip(meta).take_while(|(old, new)| old == new).count();
        let shape = header.shape;
        self.bytes.push(header.kind.number());
        for number in [
            skipped,
            header.running_secs,
            u64::from(header.unsynced),
            u64::from(shape.meta_len),
            u64::from(shape.outboard_len),
            shape.payload_len,
        ] {
            put_varint(&mut self.bytes, number);
        }
        self.bytes.extend_from_slice(&header.id);
        put_varint(&mut self.bytes, shared as u64);
        self.bytes.extend_from_slice(&meta[shared..]);
        self.meta.clear();
        self.meta.extend_from_slice(meta);
        self.sequence_next = header.sequence + 1;
        self.count += 1;
        self.bytes.len() <= self.bytes_max
    }

    /// The footer's bytes; nothing for a segment without records.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        self.bytes[COUNT].copy_from_slice(&self.count.to_le_bytes());
        (self.count > 0).then_some(self.bytes)
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

// --- reading -------------------------------------------------------------------------------

/// The bytes of an entry that are not parsed yet.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn narrow(&mut self) -> Option<u32> {
        self.varint().and_then(|number| number.try_into().ok())
    }
}

/// An entry without its meta: its header, as far as it stands there, and how many bytes of the meta
/// before are its own as well.
fn entry(fields: &mut Fields<'_>) -> Option<(Header, usize)> {
    let kind = Kind::from_number(*fields.take(1)?.first()?)?;
    let (skipped, running_secs, unsynced) = (fields.varint()?, fields.varint()?, fields.narrow()?);
    let (meta_len, outboard_len) = (fields.narrow()?, fields.narrow()?);
    let shape = Shape { meta_len, outboard_len, payload_len: fields.varint()? };
    let id = fields.take(32)?.try_into().ok()?;
    let shared = usize::try_from(fields.varint()?).ok()?;
    let header = Header {
        kind,
        tag: 0,
        offset: 0,
        sequence: skipped,
        running_secs,
        unsynced,
        shape,
        id,
        meta_crc: 0,
    };
    (shape.is_sane() && shared <= meta_len as usize).then_some((header, shared))
}

/// The entries of a footer, in order.
struct Entries<'s> {
    segment: &'s Segment,
    place: FooterPlace,
    /// Sums of the windows that were read once.
    sums: Vec<u32>,
    /// The sum of all that was read so far.
    crc: u32,
    /// Bytes of the footer that were read.
    read: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are behind us.
    used: usize,
    /// Entries to come.
    left: u64,
    /// Where the next record is.
    offset: u64,
    sequence_next: u64,
    /// The meta of the last entry.
    meta: Vec<u8>,
}

impl<'s> Entries<'s> {
    /// Begins; windows with known sums must be the same again.
    fn begin(
        segment: &'s Segment,
        place: FooterPlace,
        sums: Vec<u32>,
    ) -> Result<Self, FooterFault> {
        let mut entries = Self {
            segment,
            place,
            sums,
            crc: 0,
            read: 0,
            buffer: Vec::new(),
            used: 0,
            left: 0,
            offset: SEGMENT_HEADER_BYTES as u64,
            sequence_next: segment.header.first_sequence,
            meta: Vec::new(),
        };
        entries.need(PRELUDE_BYTES)?;
        if entries.buffer[..8] != MAGIC || read_u64(&entries.buffer, 8) != segment.header.tag {
            return Err(FooterFault("it does not begin as a footer of this segment"));
        }
        entries.left = read_u64(&entries.buffer, COUNT.start);
        entries.used = PRELUDE_BYTES;
        Ok(entries)
    }

    fn unread(&self) -> u64 {
        self.place.len - self.read
    }

    /// Reads on until so many bytes are there.
    fn need(&mut self, len: usize) -> Result<(), FooterFault> {
        while self.buffer.len() - self.used < len {
            self.fill()?;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), FooterFault> {
        let len = WINDOW_BYTES.min(usize::try_from(self.unread()).unwrap_or(WINDOW_BYTES));
        if len == 0 {
            return Err(FooterFault("it ends within an entry"));
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let known = self.buffer.len();
        self.buffer.resize(known + len, 0);
        let window = &mut self.buffer[known..];
        read_exact_at(&*self.segment.file, self.place.offset + self.read, window)
            .map_err(|_| FooterFault("it cannot be read"))?;
        let sum = crc32c::crc32c(window);
        self.crc = crc32c::crc32c_append(self.crc, window);
        let number = to_len(self.read) / WINDOW_BYTES;
        self.read += len as u64;
        match self.sums.get(number) {
            Some(known) if *known != sum => return Err(FooterFault("it changes while it is read")),
            Some(_) => {}
            None => self.sums.push(sum),
        }
        Ok(())
    }

    /// The next record's header; its meta is in `self.meta` then.
    fn next(&mut self) -> Result<Option<Header>, FooterFault> {
        if self.left == 0 {
            let is_over = self.used == self.buffer.len() && self.unread() == 0;
            return if is_over { Ok(None) } else { Err(FooterFault("bytes follow its entries")) };
        }
        let unread = usize::try_from(self.unread()).unwrap_or(usize::MAX);
        let here = self.buffer.len() - self.used;
        self.need(ENTRY_BYTES_MAX.min(here.saturating_add(unread)))?;
        let mut fields = Fields(&self.buffer[self.used..]);
        let damaged = FooterFault("an entry cannot be read");
        let (found, shared) = entry(&mut fields).ok_or(damaged)?;
        self.used = self.buffer.len() - fields.0.len();
        if shared > self.meta.len() {
            return Err(damaged);
        }
        let rest = found.shape.meta_len as usize - shared;
        self.need(rest)?;
        self.meta.truncate(shared);
        self.meta.extend_from_slice(&self.buffer[self.used..self.used + rest]);
        self.used += rest;
        let header = Header {
            tag: self.segment.header.tag,
            offset: self.offset,
            sequence: self.sequence_next.checked_add(found.sequence).ok_or(damaged)?,
            meta_crc: crc32c::crc32c(&self.meta),
            ..found
        };
        self.offset += header.shape.record_len(header.offset);
        self.sequence_next = header.sequence.checked_add(1).ok_or(damaged)?;
        self.left -= 1;
        Ok(Some(header))
    }
}

/// A footer that was read once and is whole.
struct Footer<'s> {
    segment: &'s Segment,
    place: FooterPlace,
    sums: Vec<u32>,
    /// Numbers of its first and its last record.
    sequences: (u64, u64),
}

impl<'s> Footer<'s> {
    /// Checks a footer of a segment that ends at `end`.
    fn open(segment: &'s Segment, place: FooterPlace, end: u64) -> Result<Self, FooterFault> {
        let FooterPlace { offset, len, crc } = place;
        let is_behind = offset >= end && offset.is_multiple_of(FOOTER_ALIGN);
        let is_sane = segment.header.version >= FOOTER_VERSION
            && len <= (FOOTER_BYTES_MAX + PRELUDE_BYTES) as u64
            && offset.checked_add(len).is_some();
        if !is_behind || !is_sane {
            return Err(FooterFault("there can be none where it is said to be"));
        }
        let mut entries = Entries::begin(segment, place, Vec::new())?;
        let (mut first, mut last) = (None, 0);
        while let Some(header) = entries.next()? {
            first.get_or_insert(header.sequence);
            last = header.sequence;
        }
        if entries.crc != crc && !has(Bug::BelievesFooter) {
            return Err(FooterFault("its checksum does not hold"));
        }
        if entries.offset != end {
            return Err(FooterFault("its records do not end where the segment does"));
        }
        let first = first.ok_or(FooterFault("it has no records"))?;
        Ok(Self { segment, place, sums: entries.sums, sequences: (first, last) })
    }

    fn entries(&self) -> Result<Entries<'s>, FooterFault> {
        Entries::begin(self.segment, self.place, self.sums.clone())
    }

    /// Visits the records; says where it came to and with which number.
    fn visit(
        &self,
        after_sequence: u64,
        visit: &mut impl FnMut(FoundRecord) -> Result<(), StoreError>,
    ) -> Result<(u64, u64), StoreError> {
        let mut reached = (SEGMENT_HEADER_BYTES as u64, after_sequence);
        let Ok(mut entries) = self.entries() else { return Ok(reached) };
        // Whatever cannot be read now is looked for among the records.
        while let Ok(Some(header)) = entries.next() {
            let Some(body) = decode_meta(&header, &entries.meta) else { break };
            let at = self.segment.position(header.offset);
            let found = FoundRecord { header, body, at };
            reached = (found.end(), header.sequence);
            visit(found)?;
        }
        Ok(reached)
    }
}

/// Visits the records of a segment in order: from its footer, if one is stated and whole and all of
/// the segment is asked for, and else by [`scan_segment`]. Says whether it was the footer.
///
/// # Errors
/// As [`scan_segment`].
pub fn visit_segment(
    segment: &Segment,
    footer: Option<FooterPlace>,
    mut range: ScanRange,
    mut visit: impl FnMut(FoundRecord) -> Result<(), StoreError>,
) -> Result<(Extent, bool), StoreError> {
    let (Some(place), Tail::Stated(end), 0) = (footer, range.tail, range.from) else {
        return Ok((scan_segment(segment, range, visit)?, false));
    };
    let expected = range.after_sequence + 1..range.before_sequence;
    let footer = Footer::open(segment, place, end).and_then(|footer| {
        let is_here = expected.contains(&footer.sequences.0) && footer.sequences.1 < expected.end;
        is_here.then_some(footer).ok_or(FooterFault("its records have other numbers"))
    });
    match footer {
        Ok(footer) => {
            (range.from, range.after_sequence) = footer.visit(range.after_sequence, &mut visit)?;
        }
        Err(fault) => {
            let number = segment.header.number;
            tracing::warn!(segment = number, %fault, "a footer is not used, its records are read");
        }
    }
    let is_all = range.from == end;
    if is_all {
        let last_sequence = range.after_sequence;
        return Ok((Extent { end, last_sequence, ..Extent::default() }, true));
    }
    Ok((scan_segment(segment, range, visit)?, false))
}

/// How many records a segment has that ends at `end`, as its footer says; nothing if that is not
/// whole. `is_expected` says which number needs no proof.
pub(crate) fn counted(
    segment: &Segment,
    place: FooterPlace,
    end: u64,
    is_expected: impl Fn(u64) -> bool,
) -> Option<u64> {
    let mut prelude = [0; PRELUDE_BYTES];
    read_exact_at(&*segment.file, place.offset, &mut prelude).ok()?;
    let count = read_u64(&prelude, COUNT.start);
    let is_true = is_expected(count) || Footer::open(segment, place, end).is_ok();
    is_true.then_some(count)
}

/// Holds a footer against the records of its segment.
pub(crate) struct FooterCheck<'s> {
    entries: Result<Entries<'s>, FooterFault>,
}

impl<'s> FooterCheck<'s> {
    /// Reads all of it; the segment ends at `end`.
    pub(crate) fn begin(segment: &'s Segment, place: FooterPlace, end: u64) -> Self {
        Self { entries: Footer::open(segment, place, end).and_then(|footer| footer.entries()) }
    }

    /// A record of the segment, in the order in which they stand there. Records that are damaged
    /// may be left out.
    pub(crate) fn record(&mut self, header: &Header) {
        let Ok(entries) = &mut self.entries else { return };
        let found = loop {
            match entries.next() {
                Ok(Some(found)) if found.offset < header.offset => {}
                outcome => break outcome,
            }
        };
        if found != Ok(Some(*header)) {
            self.entries = Err(found.err().unwrap_or(FooterFault("a record says something else")));
        }
    }

    /// What is wrong with the footer, if anything is.
    pub(crate) fn fault(&self) -> Option<FooterFault> {
        self.entries.as_ref().err().copied()
    }
}

#[cfg(test)]
mod tests;
