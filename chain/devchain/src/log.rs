// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file everything is kept in: appended to, never rewritten.
//!
//! A record is `len u32 LE | crc32c u32 LE | kind u8 | body`; `len` counts kind and body, the
//! checksum covers them. One block is one batch of records, written with one call and synced before
//! anybody hears of it. What a crash leaves behind is a batch that is not whole, and only at the
//! end: opening cuts the file after the last batch before the first record that does not check out.
//! If more than that one batch would be lost the file was damaged, not torn, and opening fails
//! rather than forgetting blocks that were promised.
//!
//! A chain without a directory keeps the same records in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Bytes before the kind.
const RECORD_HEADER_BYTES: usize = 8;

/// No record is longer: a block has at most 5 MiB of extrinsics, and a trie node one value.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// A batch that did not make it is shorter; a longer tail is not one.
const TAIL_BYTES_MAX: usize = 256 << 20;

/// Body of a record of heads: two hashes.
const HEADS_BYTES: usize = 64;

/// Read this much of the file at a time when opening it.
const SCAN_BYTES: usize = 1 << 20;

/// What a record says; the number is the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First record: the format's name and the hash of block 0.
    Format = 1,
    /// One node of a state trie: its hash, then its bytes.
    Node = 2,
    /// One block: header and extrinsics.
    Block = 3,
    /// The best and the finalised block from here on. Ends every batch.
    Heads = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Format, Self::Node, Self::Block, Self::Heads]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Where the body of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Byte offset in the file.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u32,
}

impl Span {
    /// The span without its first `bytes` bytes.
    pub(crate) fn skip(self, bytes: u32) -> Self {
        let length = self.length.saturating_sub(bytes);
        Self { offset: self.offset + u64::from(bytes), length }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be read, written or cut.
    #[error("cannot access the chain's log {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process runs this chain.
    #[error("the chain in {} is running already; stop it or use another directory", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A record in the middle is wrong.
    #[error(
        "the chain's log {} is damaged at byte {offset}: {reason}; \
         remove the directory to begin a new chain", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad record starts.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
}

/// Records that are written together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Adds a record and returns where its body will be, counted from the start of the batch.
    pub(crate) fn push(&mut self, kind: Kind, parts: &[&[u8]]) -> Span {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(body + 1).expect("the author keeps blocks far below 4 GiB");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(kind as u8);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let crc = crc32c::crc32c(&self.bytes[start + RECORD_HEADER_BYTES..]);
        self.bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        Span { offset: (start + RECORD_HEADER_BYTES + 1) as u64, length: length - 1 }
    }
}

enum Medium {
    File { file: File, path: PathBuf },
    Memory(RwLock<Vec<u8>>),
}

/// The log. One writer appends; readers read what was appended, without a lock on a file.
pub(crate) struct Log {
    medium: Medium,
    end: AtomicU64,
}

impl Log {
    /// A log that ends with the process.
    pub(crate) fn in_memory() -> Self {
        Self { medium: Medium::Memory(RwLock::default()), end: AtomicU64::new(0) }
    }

    /// Opens or creates the file, hands every whole record to `visit`, cuts a torn tail.
    ///
    /// What was visited counts when the record of heads after it is visited: the tail that is cut
    /// may begin with whole records.
    pub(crate) fn open(
        path: &Path,
        mut visit: impl FnMut(Kind, Span, &[u8]) -> Result<(), String>,
    ) -> Result<Self, LogError> {
        let io = |source| LogError::Io { path: path.to_owned(), source };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        file.try_lock().map_err(|_| LogError::InUse { path: path.to_owned() })?;
        let length = file.metadata().map_err(io)?.len();
        let damaged = |offset, reason| LogError::Damaged { path: path.to_owned(), offset, reason };

        let mut scan = Scan::new(&file);
        while let Some((kind, span)) = scan.next_record().map_err(io)? {
            visit(kind, span, &scan.body[1..]).map_err(|reason| damaged(span.offset, reason))?;
        }
        let end = scan.batch_end;
        if end < length {
            let tail = usize::try_from(length - end)
                .ok()
                .filter(|tail| *tail <= TAIL_BYTES_MAX)
                .ok_or_else(|| damaged(scan.position, "too much follows it".to_owned()))?;
            let mut bytes = vec![0; tail];
            file.read_exact_at(&mut bytes, end).map_err(io)?;
            if batches_in(&bytes) > 1 {
                let reason = "whole batches follow a broken record".to_owned();
                return Err(damaged(scan.position, reason));
            }
            tracing::warn!(cut_bytes = length - end, "cut the torn tail of the chain's log");
            file.set_len(end).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        let medium = Medium::File { file, path: path.to_owned() };
        Ok(Self { medium, end: AtomicU64::new(end) })
    }

    /// Appends a batch and makes it durable. Returns the offset its spans count from.
    pub(crate) fn append(&self, batch: &Batch) -> Result<u64, LogError> {
        let base = self.end.load(Ordering::Acquire);
        match &self.medium {
            Medium::Memory(bytes) => bytes.write().extend_from_slice(&batch.bytes),
            Medium::File { file, path } => file
                .write_all_at(&batch.bytes, base)
                .and_then(|()| file.sync_data())
                .map_err(|source| LogError::Io { path: path.clone(), source })?,
        }
        self.end.store(base + batch.bytes.len() as u64, Ordering::Release);
        Ok(base)
    }

    /// Lets another process, or another chain in this one, have the file. Nothing is appended any
    /// more; readers that are still there may finish.
    pub(crate) fn release(&self) {
        if let Medium::File { file, path } = &self.medium
            && let Err(error) = file.unlock()
        {
            tracing::warn!(path = %path.display(), %error, "cannot unlock the chain's log");
        }
    }

    /// The bytes of a span.
    pub(crate) fn read(&self, span: Span) -> Result<Vec<u8>, LogError> {
        match &self.medium {
            Medium::Memory(bytes) => {
                let start = usize::try_from(span.offset).expect("it was a length of a vector");
                Ok(bytes.read()[start..start + span.length as usize].to_vec())
            }
            Medium::File { file, path } => {
                let mut bytes = vec![0; span.length as usize];
                file.read_exact_at(&mut bytes, span.offset)
                    .map_err(|source| LogError::Io { path: path.clone(), source })?;
                Ok(bytes)
            }
        }
    }
}

/// Reads records from the start of a file until one is not whole.
struct Scan<'a> {
    reader: BufReader<&'a File>,
    /// Kind and body of the record read last.
    body: Vec<u8>,
    /// End of the last whole record.
    position: u64,
    /// End of the last whole batch.
    batch_end: u64,
}

impl<'a> Scan<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            reader: BufReader::with_capacity(SCAN_BYTES, file),
            body: Vec::new(),
            position: 0,
            batch_end: 0,
        }
    }

    fn next_record(&mut self) -> std::io::Result<Option<(Kind, Span)>> {
        let mut header = [0; RECORD_HEADER_BYTES];
        if !fill(&mut self.reader, &mut header)? {
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        if length == 0 || length as usize > RECORD_BYTES_MAX {
            return Ok(None);
        }
        self.body.resize(length as usize, 0);
        if !fill(&mut self.reader, &mut self.body)? || crc32c::crc32c(&self.body) != crc {
            return Ok(None);
        }
        let Some(kind) = Kind::from_byte(self.body[0]) else { return Ok(None) };
        let offset = self.position + RECORD_HEADER_BYTES as u64 + 1;
        self.position = offset + u64::from(length) - 1;
        if kind == Kind::Heads {
            self.batch_end = self.position;
        }
        Ok(Some((kind, Span { offset, length: length - 1 })))
    }
}

/// How many batches end in these bytes, wherever their records begin: a length that is damaged
/// leads nowhere, but the record of heads at the end of a batch has a fixed shape.
fn batches_in(bytes: &[u8]) -> usize {
    const HEADS: usize = RECORD_HEADER_BYTES + 1 + HEADS_BYTES;
    let length = u32::try_from(HEADS - RECORD_HEADER_BYTES).expect("it is a small constant");
    bytes
        .windows(HEADS)
        .filter(|record| record[..4] == length.to_le_bytes())
        .filter(|record| record[RECORD_HEADER_BYTES] == Kind::Heads as u8)
        .filter(|record| {
            record[4..8] == crc32c::crc32c(&record[RECORD_HEADER_BYTES..]).to_le_bytes()
        })
        .count()
}

/// Fills the buffer; `false` at the end of the file.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
