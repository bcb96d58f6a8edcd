// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seam between the store and a directory of files.
//!
//! - [`Disk`] is one flat directory; [`DiskFile`] one file in it, written at offsets.
//! - [`RealDisk`] is the operating system's, [`SimDisk`] lives in memory and can crash, tear
//!   writes, fail syncs and run full, all from a seed.
//! - Nothing is durable before [`DiskFile::sync_data`] returned without error, and no name is
//!   before [`Disk::sync_dir`] did. A failed sync says nothing about what is on the platter: the
//!   caller must not try again on the same file and believe the second answer.
//!
//! Calls block. They are made on the writer's thread, on the index thread and on the bounded pool
//! of reading threads, never on a runtime's worker.

use std::io;
use std::sync::Arc;

mod block;
mod direct;
mod probe;
mod real;
mod sim;

pub(crate) use self::block::{Block, Blocks};
pub(crate) use self::probe::open;
pub use self::probe::{Io, IoChoice};

pub use self::real::{DirectoryLock, LockError, RealDisk};
pub use self::sim::{Fault, SimDisk};

/// What disks and page caches work in.
const BLOCK_BYTES: u64 = 4096;

/// One flat directory of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of the regular files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file that must not exist yet.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file; for writing too when `writable`.
    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that a process without privileges may still write.
    fn free_bytes(&self) -> io::Result<u64>;

    /// A number nobody outside can guess.
    fn nonce(&self) -> io::Result<u64>;
}

/// One open file. Reads may run beside a write.
pub trait DiskFile: Send + Sync {
    /// Writes all `parts`, one after the other, from `offset`. A disk that writes whole blocks
    /// leaves zeros behind them up to the end of a block, so `offset` goes up from call to call.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Reads into `buffer` until it is full or the file ends; returns how much was read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Self::read_at`] for what is wanted but once: a disk that is written past the system's
    /// memory is read past it too where offset, length and memory are whole blocks.
    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    /// The file's length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// As [`Self::read_at`], from the disk itself and past what the system has in memory, where the
    /// file system can do that.
    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sets blocks aside for writes of these bytes, which may lie behind the file's end: what is
    /// written there later lies together. The file keeps its length.
    /// [`io::ErrorKind::Unsupported`] where the file system cannot.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts off what lies behind `len`, and what is set aside there.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Gives these bytes back to the file system: they read as zeros, the file keeps its length.
    /// [`io::ErrorKind::Unsupported`] where the file system cannot.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes every write before this call durable (`fdatasync`), holes included.
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads exactly `buffer.len()` bytes; a file that ends earlier gives
/// [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn read_exact_at(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let read = file.read_at(offset, buffer)?;
    if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
