// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the segments of a node that does not run, by `docs/DATA_FORMAT.md` alone and with no code
//! of the node's: what a test holds the node's own word against.
//!
//! It is strict. Records must follow each other without a gap in place or number, up to the end
//! that the next segment states, and a footer that it states must say what they say; only the
//! newest segment may have a torn end. Whatever else is not as the page says is an error, which
//! names segment and offset.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

mod bytes;

use self::bytes::{Fields, Postcard, crc32c, put_number};

const HEADER_BYTES: u64 = 8192;
const COPY_BYTES: u64 = 4096;
const RECORD_HEADER_BYTES: usize = 96;
const ALIGN: u64 = 64;
const LARGE_PAYLOAD_BYTES: u64 = 64 << 10;
const LARGE_ALIGN: u64 = 4096;

/// 32 bytes that name a shard, a block or an object.
pub type Hash = [u8; 32];
/// 16 bytes that name an upload or a lease.
pub type Name = [u8; 16];

/// What a record says, as far as a test asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A shard, or a further slot of one, under an upload.
    Slot {
        /// Whose.
        upload: Name,
        /// Where in the object.
        stripe: u64,
        /// Where in the stripe.
        index: u64,
        /// Which shard.
        shard: Hash,
    },
    /// A manifest block, or a further reference to one, under an upload.
    Block {
        /// Whose.
        upload: Name,
        /// Which block.
        cid: Hash,
    },
    /// An upload becomes part of an object.
    Commit {
        /// Which upload.
        upload: Name,
        /// The CID of its root.
        object: Hash,
        /// What keeps it.
        lease: Name,
    },
    /// A lease was released or has expired, or an upload was given up.
    Ended {
        /// Of which.
        name: Name,
    },
    /// A shard (0), a block (1) or a group (2) is gone.
    Gone {
        /// The shard, the block, or the group's object.
        id: Hash,
        /// Which of them.
        what: u64,
    },
    /// What a group holds and what keeps it, said again by compaction.
    Restated {
        /// The CID of its root.
        object: Hash,
        /// Index in the stripe, and shard, of slots in the first stripe.
        slots: Vec<(u64, Hash)>,
        /// What keeps it.
        leases: Vec<Name>,
    },
    /// Anything else.
    Other,
}

/// `Word::Gone` of a group.
pub const GONE_GROUP: u64 = 2;

/// A record that counts.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it says.
    pub word: Word,
    /// The segment's file.
    pub path: PathBuf,
    /// Its bytes in that file, up to the end of the payload.
    pub start: u64,
    /// Where they end.
    pub end: u64,
}

/// Bytes of a shard or a block.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The segment's file.
    pub path: PathBuf,
    /// Where they begin.
    pub start: u64,
    /// How many.
    pub len: u64,
}

/// What a directory says.
#[derive(Debug, Default)]
pub struct Log {
    /// Number of the first record that is left.
    pub first: u64,
    /// All of them, in order: the record with number `first` first.
    pub records: Vec<Record>,
    /// The bytes of each shard and block that is not gone.
    pub payloads: HashMap<Hash, Payload>,
}

/// One segment.
struct Segment {
    path: PathBuf,
    number: u64,
    tag: u64,
    first: u64,
    previous: u64,
    previous_end: u64,
    /// Offset, length and checksum of the previous one's footer.
    previous_footer: Option<[u64; 3]>,
}

/// A record's header.
struct Header {
    kind: u8,
    sequence: u64,
    seconds: u64,
    unsynced: u64,
    outboard_len: u64,
    id: Hash,
    meta: Vec<u8>,
    payload: Payload,
    start: u64,
}

impl Payload {
    /// Whether the bytes are what their name says.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn is(&self, id: &Hash) -> Result<bool, String> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(|error| error.to_string())?];
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        match file.read_exact_at(&mut bytes, self.start) {
            Ok(()) => Ok(blake3::hash(&bytes).as_bytes() == id),
            // A payload that is cut short by the end of the file.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    fn end(&self) -> u64 {
        self.start + self.len
    }
}

impl Log {
    /// Reads all segments of a directory.
    ///
    /// # Errors
    /// Whatever is not as the format says.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let segments = segments(directory)?;
        let successors: HashMap<u64, &Segment> =
            segments.iter().map(|it| (it.previous, it)).collect();
        let newest = segments.last().map(|it| it.number);
        let mut log = Self::default();
        for segment in &segments {
            let found = match successors.get(&segment.number) {
                Some(next) => {
                    let found = segment.records(Some(next.previous_end))?;
                    segment.check_footer(next, &found)?;
                    found
                }
                None if Some(segment.number) == newest => segment.whole(segment.records(None)?)?,
                // Begun, and given up before its first record: its successor follows another one.
                None => segment.records(Some(HEADER_BYTES))?,
            };
            for header in found {
                log.add(header)?;
            }
        }
        Ok(log)
    }

    /// The record of this number, if it is left.
    pub fn record(&self, sequence: u64) -> Option<&Record> {
        let at = sequence.checked_sub(self.first)?;
        self.records.get(usize::try_from(at).ok()?)
    }

    fn add(&mut self, header: Header) -> Result<(), String> {
        let next = self.first + self.records.len() as u64;
        if self.records.is_empty() {
            self.first = header.sequence;
        } else if header.sequence != next {
            let (found, at) = (header.sequence, header.place());
            return Err(format!("{at}: record {found} stands where record {next} should"));
        }
        let word = header.word().ok_or_else(|| format!("{}: a bad meta", header.place()))?;
        match header.kind {
            1 | 3 | 12 | 13 => drop(self.payloads.insert(header.id, header.payload.clone())),
            8 if matches!(word, Word::Gone { what: 0 | 1, .. }) => {
                self.payloads.remove(&header.id);
            }
            _ => {}
        }
        let (start, end) = (header.start, header.payload.end());
        self.records.push(Record { word, path: header.payload.path, start, end });
        Ok(())
    }
}

/// The segments of a directory that have a header, oldest first.
fn segments(directory: &Path) -> Result<Vec<Segment>, String> {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "seg"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let length = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        match Segment::read(&path)? {
            Some(segment) => found.push(segment),
            None if length <= HEADER_BYTES => {}
            None => return Err(format!("{}: no whole header", path.display())),
        }
    }
    Ok(found)
}

impl Segment {
    fn read(path: &Path) -> Result<Option<Self>, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        for at in [0, COPY_BYTES] {
            let mut copy = [0; 128];
            let is_whole = file.read_exact_at(&mut copy, at).is_ok();
            if !is_whole || &copy[..8] != b"SNSEGMNT" || !crc32c::ends(&copy) {
                continue;
            }
            let mut fields = Fields(&copy[8..]);
            let (version, number, tag) = (fields.u32(), fields.u32(), fields.u64());
            let named = path.file_stem().is_some_and(|name| *name == *format!("{number:010}"));
            if !(1..=2).contains(&version) || !named {
                return Err(format!("{}: segment {number} of version {version}", path.display()));
            }
            let _node = fields.take(32);
            let first = fields.u64();
            let (previous_end, previous) = (fields.u64(), fields.u32());
            let footer = [fields.u64(), fields.u64(), fields.u32()];
            let previous_footer = Some(footer).filter(|footer| version >= 2 && footer[0] > 0);
            let path = path.to_owned();
            let segment =
                Self { path, number, tag, first, previous, previous_end, previous_footer };
            return Ok(Some(segment));
        }
        Ok(None)
    }

    /// All records up to the stated end, or to the first that is none.
    fn records(&self, end: Option<u64>) -> Result<Vec<Header>, String> {
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        let mut at = HEADER_BYTES;
        while end.is_none_or(|end| at < end) {
            let Some(header) = self.header(&file, at) else { break };
            at = header.payload.end().next_multiple_of(ALIGN);
            found.push(header);
        }
        match end {
            Some(end) if at != end => {
                let path = self.path.display();
                Err(format!("{path}: no whole record at {at}, and the log goes on to {end}"))
            }
            _ => Ok(found),
        }
    }

    /// A footer that the next segment states is, to the byte, what these records make.
    fn check_footer(&self, next: &Self, records: &[Header]) -> Result<(), String> {
        let Some([offset, len, crc]) = next.previous_footer else { return Ok(()) };
        let expected = self.footer(records);
        let mut bytes = vec![0; usize::try_from(len).map_err(|error| error.to_string())?];
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        let is_whole = file.read_exact_at(&mut bytes, offset).is_ok() && bytes == expected;
        let is_there = offset == next.previous_end.next_multiple_of(COPY_BYTES);
        if is_whole && is_there && u64::from(crc32c::of(&bytes)) == crc {
            return Ok(());
        }
        Err(format!("{}: a footer at {offset} that is none of these records", self.path.display()))
    }

    fn footer(&self, records: &[Header]) -> Vec<u8> {
        let mut bytes = b"SNFOOTER".to_vec();
        bytes.extend(self.tag.to_le_bytes());
        bytes.extend((records.len() as u64).to_le_bytes());
        let (mut next, mut before) = (self.first, &[][..]);
        for record in records {
            let meta = &record.meta[..];
            let pairs = meta.iter().zip(before);
            let shared = pairs.take_while(|(new, old)| new == old).count();
            bytes.push(record.kind);
            for number in [
                record.sequence - next,
                record.seconds,
                record.unsynced,
                meta.len() as u64,
                record.outboard_len,
                record.payload.len,
            ] {
                put_number(&mut bytes, number);
            }
            bytes.extend(record.id);
            put_number(&mut bytes, shared as u64);
            bytes.extend(&meta[shared..]);
            (next, before) = (record.sequence + 1, meta);
        }
        bytes
    }

    fn header(&self, file: &File, at: u64) -> Option<Header> {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        file.read_exact_at(&mut bytes, at).ok()?;
        let mut fields = Fields(&bytes[8..]);
        let (tag, offset) = (fields.u64(), fields.u64());
        let is_ours = bytes[..5] == *b"SNRC\x01" && tag == self.tag && offset == at;
        if !is_ours || !crc32c::ends(&bytes) {
            return None;
        }
        let sequence = fields.u64();
        let (seconds, unsynced) = (fields.u32(), fields.u32());
        let (meta_len, outboard_len, payload_len) = (fields.u32(), fields.u32(), fields.u64());
        let id = fields.take(32).try_into().ok()?;
        let meta_crc = fields.u32();
        let mut meta = vec![0; usize::try_from(meta_len).ok()?];
        let meta_at = at + RECORD_HEADER_BYTES as u64;
        file.read_exact_at(&mut meta, meta_at).ok()?;
        if u64::from(crc32c::of(&meta)) != meta_crc {
            return None;
        }
        let align = if payload_len >= LARGE_PAYLOAD_BYTES { LARGE_ALIGN } else { ALIGN };
        let start = (meta_at + meta_len + outboard_len).next_multiple_of(align);
        let payload = Payload { path: self.path.clone(), start, len: payload_len };
        let kind = bytes[5];
        Some(Header {
            kind,
            sequence,
            seconds,
            unsynced,
            outboard_len,
            id,
            meta,
            payload,
            start: at,
        })
    }

    /// The newest segment's records without its torn end: after the last that was certainly on
    /// disk, nothing from the first on whose payload is not whole.
    fn whole(&self, mut found: Vec<Header>) -> Result<Vec<Header>, String> {
        let durable = found.iter().map(|it| it.sequence - 1 - it.unsynced).max().unwrap_or(0);
        let mut end = found.len();
        for (at, header) in found.iter().enumerate() {
            let is_checked = header.sequence > durable && matches!(header.kind, 1 | 3 | 12 | 13);
            if is_checked && !header.payload.is(&header.id)? {
                end = at;
                break;
            }
        }
        found.truncate(end);
        Ok(found)
    }
}

impl Header {
    fn place(&self) -> String {
        format!("{} at {}", self.payload.path.display(), self.start)
    }

    fn word(&self) -> Option<Word> {
        let mut meta = Postcard(&self.meta);
        let id = self.id;
        Some(match self.kind {
            1 | 2 => {
                let (upload, _owner) = (meta.name()?, meta.hash()?);
                let (stripe, index) = (meta.number()?, meta.number()?);
                Word::Slot { upload, stripe, index, shard: id }
            }
            3 | 4 => Word::Block { upload: meta.name()?, cid: id },
            5 => {
                let (upload, object) = (meta.name()?, meta.hash()?);
                let _group = meta.number()?;
                if meta.byte()? == 1 {
                    let _page = meta.hash()?;
                }
                let (_stripe, _stripes) = (meta.number()?, meta.number()?);
                Word::Commit { upload, object, lease: meta.name()? }
            }
            7 => match meta.number()? {
                1..=3 => Word::Ended { name: meta.name()? },
                _ => Word::Other,
            },
            8 => Word::Gone { id, what: meta.number()? },
            14 if meta.number()? == 1 => restated(id, &mut meta)?,
            _ => Word::Other,
        })
    }
}

/// A group as compaction says it.
fn restated(object: Hash, meta: &mut Postcard<'_>) -> Option<Word> {
    let _group = meta.number()?;
    if meta.byte()? == 1 {
        let _page = meta.hash()?;
    }
    let (_size, _stripe, _stripes) = (meta.number()?, meta.number()?, meta.number()?);
    let (_object, _group, _epoch) = (meta.hash()?, meta.number()?, meta.number()?);
    for _ in 0..meta.number()? {
        let _node = meta.hash()?;
    }
    let (_writer, _signature) = (meta.hash()?, meta.bytes()?);
    for _ in 0..meta.number()? {
        let (_stripe, _index) = (meta.number()?, meta.number()?);
    }
    if meta.byte()? == 1 {
        let (_second, _was_cached) = (meta.number()?, meta.byte()?);
    }
    let mut slots = Vec::new();
    for _ in 0..meta.number()? {
        let (stripe, index, shard) = (meta.number()?, meta.number()?, meta.hash()?);
        slots.extend((stripe == 0).then_some((index, shard)));
    }
    let mut leases = Vec::new();
    for _ in 0..meta.number()? {
        leases.push(meta.name()?);
        let (_owner, _kind) = (meta.hash()?, meta.number()?);
        // 2 never ends.
        let _end = if meta.number()? == 2 { 0 } else { meta.number()? };
        let (_created, _was_renewed) = (meta.number()?, meta.byte()?);
    }
    Some(Word::Restated { object, slots, leases })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use tempfile::TempDir;

    use super::{Log, Word};

    const SEGMENT: &str = "0000000001.seg";

    fn fixture(format: u32) -> PathBuf {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate lies");
        Path::new(&here).join(format!("../node/store/tests/fixtures/format-{format}"))
    }

    /// A directory that was written long ago, with some of its bytes changed.
    fn read(change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, Result<Log, String>) {
        let mut bytes = fs::read(fixture(1).join(SEGMENT)).expect("the fixture");
        change(&mut bytes);
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(SEGMENT), bytes).expect("a new file");
        let log = Log::read(dir.path());
        (dir, log)
    }

    /// How many payloads are not what their names say.
    fn spoilt(log: &Log) -> usize {
        let is_spoilt = |id, payload: &super::Payload| !payload.is(id).expect("it can be read");
        log.payloads.iter().filter(|(id, payload)| is_spoilt(id, payload)).count()
    }

    #[test]
    fn the_worked_example_is_read() {
        let (_dir, log) = read(|_| {});
        let log = log.expect("format 1");
        assert_eq!((log.first, spoilt(&log)), (1, 0));
        let Word::Slot { upload, shard, .. } = &log.records[0].word else { panic!("a shard") };
        assert_eq!((upload, &shard[..4]), (&[1; 16], &[0x36, 0x4c, 0xf3, 0xe4][..]));
        let commits = log.records.iter().filter(|it| matches!(it.word, Word::Commit { .. }));
        assert_eq!(commits.count(), 4, "two objects of one group and one of two");
    }

    #[test]
    fn a_footer_is_held_against_the_records() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for entry in fs::read_dir(fixture(2)).expect("the fixture").flatten() {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
        }
        Log::read(dir.path()).expect("format 2");
        let all = super::segments(dir.path()).expect("whole headers");
        let stated = |it: &super::Segment| Some((it.previous, it.previous_footer?));
        let (number, [offset, len, _]) = all.iter().find_map(stated).expect("one was full");
        let path = dir.path().join(format!("{number:010}.seg"));
        let whole = fs::read(&path).expect("a segment");
        for at in [offset, offset + 24 + 3, offset + len - 1] {
            let mut bytes = whole.clone();
            bytes[usize::try_from(at).expect("a small file")] ^= 1;
            fs::write(&path, bytes).expect("writable");
            let said = Log::read(dir.path()).map(drop).expect_err("a damaged footer");
            assert!(said.contains("a footer at"), "byte {at}: {said}");
        }
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let whole = read(|_| {}).1.expect("format 1").records.len();
        // The fixture was stopped in order: its last record says that all before is durable, so
        // a payload is not hashed for its place in the log, and is found spoilt.
        let (_dir, log) = read(|bytes| bytes[0x20c0] ^= 1);
        assert_eq!(spoilt(&log.expect("a whole log")), 1);
        for at in [0x2000, 0x2018, 0x2060] {
            let log = read(|bytes| bytes[at] ^= 1).1.expect("a log that ends there");
            assert_eq!(log.records.len(), 0, "byte {at}");
        }
        let log = read(|bytes| bytes.truncate(bytes.len() - 300)).1.expect("a shorter log");
        assert!(log.records.len() < whole);
        assert!(read(|bytes| (bytes[0] ^= 1, bytes[4096] ^= 1).0).1.is_err(), "no header");
        let log = read(|bytes| bytes[0] ^= 1).1.expect("one header is enough");
        assert_eq!(log.records.len(), whole);
    }
}
