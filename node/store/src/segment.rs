// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments: the append-only files `NNNNNNNNNN.seg` that the log consists of.
//!
//! - A segment begins with two 4 KiB blocks that each hold its header, so that a damaged block does
//!   not cost a gigabyte. Records follow.
//! - The header names the segment's **tag**, a secret number that each of its records repeats, and
//!   **where its predecessor ends**. The end of a segment is thus stated by its successor, durably
//!   and once: what a failed write or a crash left behind it in the older file never counts again.
//! - Only the newest segment takes records. It is sealed when it is full, when a write or a sync
//!   on it failed, or when the program starts after anything but an orderly stop. Sealing rewrites
//!   nothing: the successor's header does it.
//! - One that is sealed because it is full has a **footer** behind its end: what its records say
//!   without their payloads, in one piece. The successor's header states where, so it is durable
//!   before. It is a checked copy; wherever it is not whole, the records themselves are read.
//! - The header is durable, file and name, before the first record is written. A newest segment
//!   without a valid header therefore holds nothing, and is removed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::planted::{Bug, has};
use crate::record::Position;

mod footer;
mod header;
mod log;
mod scan;

pub(crate) use self::footer::{FooterCheck, counted};
pub use self::footer::{FooterPlace, visit_segment};
pub use self::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError};
pub use self::log::Log;
pub(crate) use self::log::LogEnd;
pub use self::scan::{
    Damage, Extent, FoundRecord, ScanRange, Tail, read_outboard, read_payload, read_record,
    scan_segment, survey,
};

/// The version of the segment format that this program writes; it reads older ones as well.
pub const SEGMENT_VERSION: u32 = 2;

/// Open files kept for readers; the oldest ones are closed first.
const OPEN_FILES_MAX: usize = 128;

/// The file name of a segment.
pub fn file_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// The number in a segment's file name.
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let plain = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A segment that is open for reading.
#[derive(Clone)]
pub struct Segment {
    /// Its header.
    pub header: SegmentHeader,
    /// Its bytes.
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    /// The same one, read past what the system has in memory.
    #[must_use]
    pub fn cold(&self) -> Self {
        Self { header: self.header, file: Arc::new(Cold(Arc::clone(&self.file))) }
    }

    /// Where a record of this segment at `offset` is.
    pub fn position(&self, offset: u64) -> Position {
        Position { segment: self.header.number, offset }
    }
}

/// A file whose reads come from the disk itself.
struct Cold(Arc<dyn DiskFile>);

impl DiskFile for Cold {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_cold_at(offset, buffer)
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_cold_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.0.write_at(offset, parts)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.reserve(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// All segments of a directory, opened when needed. Shared by writer, readers and tools.
pub struct Segments {
    disk: Arc<dyn Disk>,
    open: Mutex<HashMap<u32, Segment>>,
}

impl Segments {
    /// The segments on a disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::new(HashMap::new()) }
    }

    /// The disk they are on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Numbers of all segment files, ascending.
    pub fn numbers(&self) -> Result<Vec<u32>, StoreError> {
        let names =
            self.disk.list().map_err(|error| StoreError::io("list the data directory", error))?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a segment and checks its header.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] or [`StoreError::BadSegment`], or what the disk says.
    pub fn segment(&self, number: u32) -> Result<Segment, StoreError> {
        if let Some(segment) = self.open.lock().get(&number) {
            return Ok(segment.clone());
        }
        let name = file_name(number);
        let file = self
            .disk
            .open(&name, false)
            .map_err(|error| StoreError::io(format!("open segment {name}"), error))?;
        let header = read_header(&*file, number)?;
        let segment = Segment { header, file };
        self.remember(segment.clone());
        Ok(segment)
    }

    /// Closes a segment whose file is gone, so that its bytes are.
    pub(crate) fn forget(&self, number: u32) {
        self.open.lock().remove(&number);
    }

    fn remember(&self, segment: Segment) {
        let mut open = self.open.lock();
        if open.len() >= OPEN_FILES_MAX {
            let oldest = open.keys().min().copied();
            oldest.and_then(|oldest| open.remove(&oldest));
        }
        open.insert(segment.header.number, segment);
    }
}

fn read_header(file: &dyn DiskFile, number: u32) -> Result<SegmentHeader, StoreError> {
    let mut block = vec![0; SEGMENT_HEADER_BYTES];
    let read = file
        .read_at(0, &mut block)
        .map_err(|error| StoreError::io(format!("read segment {}", file_name(number)), error))?;
    match SegmentHeader::decode(&block[..read]) {
        Ok(header) if header.number == number => Ok(header),
        Ok(header) => {
            let reason = format!("its header says that it is segment {}", header.number);
            Err(StoreError::BadSegment { segment: number, reason })
        }
        Err(SegmentHeaderError::Unknown { version }) => Err(StoreError::NewerFormat {
            what: format!("segment {} (format {version})", file_name(number)),
        }),
        Err(SegmentHeaderError::Invalid) => {
            let reason = "both copies of its header are damaged".to_owned();
            Err(StoreError::BadSegment { segment: number, reason })
        }
    }
}

/// Creates a segment: header written, file and name durable.
fn create(disk: &dyn Disk, header: SegmentHeader) -> io::Result<Segment> {
    let name = file_name(header.number);
    let file = match disk.create(&name) {
        // A creation that failed half-way left a file without records.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&name, true)?,
        other => other?,
    };
    file.write_at(0, &[&header.encode()])?;
    file.sync_data()?;
    if !has(Bug::SyncsNoDirectory) {
        disk.sync_dir()?;
    }
    Ok(Segment { header, file })
}

/// What a new segment's header says of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predecessor {
    /// The older segment; 0 if there is none.
    pub number: u32,
    /// Where it ends, for ever.
    pub end: u64,
    /// Its footer, if it was sealed in good order.
    pub footer: Option<FooterPlace>,
}

impl Predecessor {
    /// A segment that ends there and has no footer.
    pub fn bare(number: u32, end: u64) -> Self {
        Self { number, end, footer: None }
    }
}

#[cfg(test)]
mod tests;
