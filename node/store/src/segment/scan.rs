// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading records back: one by position, or all of a segment in order.
//!
//! A scan reads headers and metas and seeks over payloads; where records are small, seeking costs
//! more than it saves, and many are read at once. Damage costs the record it is in:
//!
//! - a bad meta: the header still says where the next record starts;
//! - a bad header: the scan looks at every 64 B boundary for the next header that is whole, bears
//!   this segment's tag and its own offset, and has a higher sequence number;
//! - a bad payload is not noticed here, but by whoever reads it.
//!
//! In a segment whose end nobody has stated yet, records that were not durable for certain are
//! hashed, and the log ends before the first that is not whole: it is the torn end of the last
//! write. The next segment's header then states this end.

use std::ops::Range;

use supernode_protocol::tree;

use super::header::SEGMENT_HEADER_BYTES;
use super::{Segment, Segments};
use crate::disk::{DiskFile, read_exact_at};
use crate::error::StoreError;
use crate::planted::{Bug, has};
use crate::record::{
    Body, HEADER_BYTES, Header, HeaderError, Kind, MAGIC, Position, RECORD_ALIGN, to_len,
};

/// Read at once where a record is expected: header and almost every meta.
const HEAD_BYTES: usize = 1024;
/// Read at once where records are small, when looking for the next header, and when hashing
/// payloads.
const WINDOW_BYTES: usize = 256 << 10;
/// Records are small when the last one was shorter. Then a window has several.
const NEAR_BYTES: u64 = 32 << 10;
/// What an unreadable disk block costs.
const BLOCK_BYTES: usize = 4096;

/// A whole record, without its payload.
#[derive(Debug)]
pub struct FoundRecord {
    /// Its header.
    pub header: Header,
    /// Its meaning.
    pub body: Body,
    /// Where it is.
    pub at: Position,
}

impl FoundRecord {
    /// Where the next record may start.
    pub fn end(&self) -> u64 {
        self.at.offset + self.header.shape.record_len(self.at.offset)
    }
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Where its successor says: everything before was whole once.
    Stated(u64),
    /// With its file, or before the first record after this number that is not whole. A segment
    /// that others follow was durable to its last record, whatever number that has.
    Open {
        /// The newest record that was durable for certain.
        durable: u64,
    },
}

/// Bytes that should have been records and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// First byte.
    pub from: Position,
    /// One past the last byte.
    pub to: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// What a scan found besides records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// Where the last whole record ends.
    pub end: u64,
    /// The highest sequence number.
    pub last_sequence: u64,
    /// Damage before `end`.
    pub damage: Vec<Damage>,
    /// Bytes after `end` that are no records.
    pub tail_bytes: u64,
}

/// From where to where a scan goes.
#[derive(Debug, Clone, Copy)]
pub struct ScanRange {
    /// First record, or 0 for the first of the segment.
    pub from: u64,
    /// How the segment ends.
    pub tail: Tail,
    /// Records up to this number are not expected here.
    pub after_sequence: u64,
    /// Nor are those from this number on: a later segment has them.
    pub before_sequence: u64,
}

/// Visits the records of a segment in order.
///
/// # Errors
/// What `visit` returns, a record of a newer format, or a file that cannot be read at all.
pub fn scan_segment(
    segment: &Segment,
    range: ScanRange,
    mut visit: impl FnMut(FoundRecord) -> Result<(), StoreError>,
) -> Result<Extent, StoreError> {
    let len = segment.file.len().map_err(|error| StoreError::io("measure a segment", error))?;
    let (limit, durable) = match range.tail {
        Tail::Stated(end) => (end.min(len), u64::MAX),
        Tail::Open { durable } => (len, durable),
    };
    let mut at = range.from.max(SEGMENT_HEADER_BYTES as u64);
    let mut extent = Extent { end: at, last_sequence: range.after_sequence, ..Extent::default() };
    let mut unreadable: Vec<Damage> = Vec::new();
    let mut window = Window::new(&*segment.file, limit);
    while at < limit {
        let damage = |to, reason| Damage { from: segment.position(at), to, reason };
        let expected = extent.last_sequence + 1..range.before_sequence;
        match read_head(segment, &mut window, at, &expected)? {
            Head::Whole(found) => {
                let sequence = found.header.sequence;
                // What is missing before it, and it itself, must be sound or have been durable.
                let torn_before = !unreadable.is_empty() && sequence > durable.saturating_add(1);
                let is_whole = |found| has(Bug::BelievesTornEnd) || payload_holds(segment, found);
                if torn_before || (sequence > durable && !is_whole(&found)) {
                    break;
                }
                at = found.end();
                (extent.end, extent.last_sequence) = (at, sequence);
                extent.damage.append(&mut unreadable);
                visit(found)?;
            }
            Head::BadMeta(next) => {
                unreadable.push(damage(next, "its meta is damaged"));
                at = next;
            }
            Head::Lost => {
                let next = next_header(segment, at, limit, &expected);
                unreadable.push(damage(next.unwrap_or(limit), "there is no record header"));
                at = next.unwrap_or(limit);
            }
        }
    }
    if let Tail::Stated(end) = range.tail {
        if end > limit.max(SEGMENT_HEADER_BYTES as u64) {
            let reason = "the file ends before its records do";
            unreadable.push(Damage { from: segment.position(limit), to: end, reason });
        }
        if !unreadable.is_empty() {
            extent.damage.append(&mut unreadable);
            extent.end = limit;
        }
    }
    extent.tail_bytes = limit.saturating_sub(extent.end);
    Ok(extent)
}

/// The newest record of a segment that was durable for certain, as later ones tell; 0 for none.
///
/// # Errors
/// As [`scan_segment`].
pub fn survey(segment: &Segment, from: u64, after_sequence: u64) -> Result<u64, StoreError> {
    let mut durable = 0;
    let tail = Tail::Open { durable: u64::MAX };
    let range = ScanRange { from, tail, after_sequence, before_sequence: u64::MAX };
    scan_segment(segment, range, |found| {
        durable = durable.max(found.header.durable_before());
        Ok(())
    })?;
    Ok(durable)
}

/// What is where a record is expected.
enum Head {
    Whole(FoundRecord),
    BadMeta(u64),
    Lost,
}

/// Bytes of a segment that were read together, before a limit.
struct Window<'s> {
    file: &'s dyn DiskFile,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
    /// What was asked for last.
    last: Option<u64>,
}

impl<'s> Window<'s> {
    fn new(file: &'s dyn DiskFile, limit: u64) -> Self {
        Self { file, limit, start: 0, bytes: Vec::new(), last: None }
    }

    /// The bytes from `at` on: `len` of them or more, or all before the limit.
    fn read(&mut self, at: u64, len: usize) -> &[u8] {
        let rest = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(rest);
        let near = self.last.replace(at).is_some_and(|last| last < at && at - last < NEAR_BYTES);
        let inside = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let inside = inside.filter(|from| from.saturating_add(len) <= self.bytes.len());
        let from = inside.unwrap_or_else(|| {
            let len = if near { WINDOW_BYTES.max(len).min(rest) } else { len };
            self.start = at;
            self.bytes.resize(len, 0);
            read_tolerantly(self.file, at, &mut self.bytes);
            0
        });
        &self.bytes[from..]
    }
}

fn read_head(
    segment: &Segment,
    window: &mut Window<'_>,
    at: u64,
    expected: &Range<u64>,
) -> Result<Head, StoreError> {
    let limit = window.limit;
    let head = window.read(at, HEAD_BYTES);
    let header = match Header::decode_at(head, segment.header.tag, at) {
        Ok(header) => header,
        Err(HeaderError::Invalid) => return Ok(Head::Lost),
        Err(error @ HeaderError::Unknown { .. }) => {
            return Err(StoreError::NewerFormat { what: error.to_string() });
        }
    };
    let end = at + header.shape.record_len(at);
    if !expected.contains(&header.sequence) || end > limit {
        return Ok(Head::Lost);
    }
    let meta_end = HEADER_BYTES + header.shape.meta_len as usize;
    let meta = match head.get(HEADER_BYTES..meta_end) {
        Some(meta) => meta,
        None => &window.read(at, meta_end)[HEADER_BYTES..meta_end],
    };
    let body = decode_meta(&header, meta);
    let at = segment.position(at);
    Ok(body.map_or(Head::BadMeta(end), |body| Head::Whole(FoundRecord { header, body, at })))
}

/// What the meta of a record says, if it is sound.
pub(super) fn decode_meta(header: &Header, meta: &[u8]) -> Option<Body> {
    let shape = header.shape;
    let tree_len = match header.kind {
        kind if kind.is_shard() => tree::outboard_len(shape.payload_len),
        _ => 0,
    };
    let kind = header.kind;
    let carries = kind.is_shard() || kind.is_block() || kind == Kind::Journal;
    let shape_holds =
        u64::from(shape.outboard_len) == tree_len && (carries || shape.payload_len == 0);
    (shape_holds && crc32c::crc32c(meta) == header.meta_crc)
        .then(|| Body::decode(header.kind, meta))
        .flatten()
}

fn payload_holds(segment: &Segment, found: &FoundRecord) -> bool {
    let kind = found.header.kind;
    if !kind.is_shard() && !kind.is_block() {
        return true;
    }
    let shape = found.header.shape;
    let mut at = found.at.offset + shape.payload_start(found.at.offset);
    let end = at + shape.payload_len;
    let mut hasher = blake3::Hasher::new();
    let mut window = vec![0; WINDOW_BYTES.min(to_len(shape.payload_len))];
    while at < end {
        let piece = window.len().min(to_len(end - at));
        if read_exact_at(&*segment.file, at, &mut window[..piece]).is_err() {
            return false;
        }
        hasher.update(&window[..piece]);
        at += piece as u64;
    }
    *hasher.finalize().as_bytes() == found.header.id
}

/// Looks for the next whole header after `from`.
fn next_header(segment: &Segment, from: u64, limit: u64, expected: &Range<u64>) -> Option<u64> {
    let mut base = (from + 1).next_multiple_of(RECORD_ALIGN);
    while base < limit {
        // Windows overlap by a header, so that none is cut.
        let mut window = vec![0; (WINDOW_BYTES + HEADER_BYTES).min(to_len(limit - base))];
        read_tolerantly(&*segment.file, base, &mut window);
        for step in (0..window.len().min(WINDOW_BYTES)).step_by(to_len(RECORD_ALIGN)) {
            let offset = base + step as u64;
            if !window[step..].starts_with(&MAGIC) {
                continue;
            }
            // An unknown kind stops the scan when its turn comes; here it is a header like any.
            match Header::decode_at(&window[step..], segment.header.tag, offset) {
                Ok(header) if expected.contains(&header.sequence) => return Some(offset),
                Err(HeaderError::Unknown { .. }) => return Some(offset),
                _ => {}
            }
        }
        base += WINDOW_BYTES as u64;
    }
    None
}

/// Reads what can be read; the rest becomes zeros, which no header is.
fn read_tolerantly(file: &dyn DiskFile, at: u64, buffer: &mut [u8]) {
    if let Ok(read) = file.read_at(at, buffer) {
        buffer[read..].fill(0);
        return;
    }
    // A bad block is to cost no byte of its neighbours.
    let lead = to_len(at.next_multiple_of(BLOCK_BYTES as u64) - at).min(buffer.len());
    let (first, blocks) = buffer.split_at_mut(lead);
    let mut offset = at;
    for piece in std::iter::once(first).chain(blocks.chunks_mut(BLOCK_BYTES)) {
        let read = file.read_at(offset, piece).unwrap_or(0);
        piece[read..].fill(0);
        offset += piece.len() as u64;
    }
}

/// Reads one record (not its payload) that the index or another record points to.
///
/// # Errors
/// [`StoreError::Damaged`] when there is no whole record at this place.
pub fn read_record(segments: &Segments, at: Position) -> Result<FoundRecord, StoreError> {
    let segment = segments.segment(at.segment)?;
    let len = segment.file.len().map_err(|error| StoreError::io("measure a segment", error))?;
    let damaged = || StoreError::Damaged { what: "a record".to_owned(), at };
    if at.offset >= len {
        return Err(damaged());
    }
    let mut window = Window::new(&*segment.file, len);
    match read_head(&segment, &mut window, at.offset, &(1..u64::MAX))? {
        Head::Whole(found) => Ok(found),
        Head::BadMeta(_) | Head::Lost => Err(damaged()),
    }
}

/// Reads a part of a record's payload, unverified.
///
/// # Errors
/// [`StoreError::Io`] also when the file ends too early.
pub fn read_payload(
    segments: &Segments,
    found: &FoundRecord,
    from: u64,
    buffer: &mut [u8],
) -> Result<(), StoreError> {
    let segment = segments.segment(found.at.segment)?;
    let start = found.at.offset + found.header.shape.payload_start(found.at.offset) + from;
    read_exact_at(&*segment.file, start, buffer)
        .map_err(|error| StoreError::io("read a payload", error))
}

/// Reads a record's outboard, unverified.
///
/// # Errors
/// As [`read_payload`].
pub fn read_outboard(segments: &Segments, found: &FoundRecord) -> Result<Vec<u8>, StoreError> {
    let segment = segments.segment(found.at.segment)?;
    let shape = found.header.shape;
    let start = found.at.offset + HEADER_BYTES as u64 + u64::from(shape.meta_len);
    let mut outboard = vec![0; shape.outboard_len as usize];
    read_exact_at(&*segment.file, start, &mut outboard)
        .map_err(|error| StoreError::io("read an outboard", error))?;
    Ok(outboard)
}
