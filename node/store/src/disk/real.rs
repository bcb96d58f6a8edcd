// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operating system's files, and the lock that keeps a second process out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{
    Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock, statvfs,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::direct::DirectWriter;
use super::{BLOCK_BYTES, Disk, DiskFile};
use crate::record::to_len;

/// Slices handed to one `pwritev`; Linux takes 1024 at most.
const VECTOR_PARTS_MAX: usize = 512;

/// A directory of the file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    path: PathBuf,
    writes_directly: bool,
}

impl RealDisk {
    /// Takes an existing directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes_directly: false }
    }

    /// As [`Self::new`]; writes go past the system's memory.
    pub fn direct(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes_directly: true }
    }

    fn opened(&self, file: File, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        // Readers ask for what they want, record by record: what the system would read ahead is not
        // what comes next. Advice is advice.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let writer = match self.writes_directly && writable {
            true => Some(Mutex::new(Some(DirectWriter::new(open_directly(&file, true)?)))),
            false => None,
        };
        let reads_directly = self.writes_directly;
        Ok(Arc::new(RealFile { file, reads_directly, reader: OnceLock::new(), writer }))
    }
}

/// A second handle to an open file, past the system's memory.
fn open_directly(file: &File, writable: bool) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path)
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // Our names are ASCII; a file called otherwise is none of ours.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        self.opened(options.open(self.path.join(name))?, true)
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(writable).open(self.path.join(name))?;
        self.opened(file, writable)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn nonce(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled == bytes.len() {
            Ok(u64::from_le_bytes(bytes))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Whether what is wanted but once is read past the system's memory.
    reads_directly: bool,
    /// For reads past the system's memory, once somebody wants one.
    reader: OnceLock<Option<File>>,
    /// For writes past it, while there are any. There is one writer, so nobody waits for it.
    writer: Option<Mutex<Option<DirectWriter>>>,
}

impl RealFile {
    /// A handle whose reads do not come from memory; `None` where there is none to have.
    fn direct(&self) -> Option<&File> {
        self.reader.get_or_init(|| open_directly(&self.file, false).ok()).as_ref()
    }

    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, mode, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            outcome => Ok(outcome?),
        }
    }

    /// Drops what the system has of these bytes in memory, as far as it follows the advice.
    fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        // Pages that are only touched in part would stay.
        let start = offset / BLOCK_BYTES * BLOCK_BYTES;
        let end = offset.saturating_add(len).next_multiple_of(BLOCK_BYTES);
        Ok(fadvise(&self.file, start, NonZeroU64::new(end - start), Advice::DontNeed)?)
    }
}

/// Reads whole blocks from the disk until the buffer is full or the file ends.
fn fill_directly(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                // Only the end of the file is no whole block.
                if !(read as u64).is_multiple_of(BLOCK_BYTES) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all `parts`, one after the other, from `offset`.
pub(super) fn write_all_at(file: &File, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
    for parts in parts.chunks(VECTOR_PARTS_MAX) {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        match &self.writer {
            None => write_all_at(&self.file, offset, parts),
            Some(writer) => {
                let mut writer = writer.lock();
                let writer = match &mut *writer {
                    Some(writer) => writer,
                    gone => gone.insert(DirectWriter::new(open_directly(&self.file, true)?)),
                };
                let read = |at, buffer: &mut [u8]| super::read_exact_at(self, at, buffer);
                writer.write_at(offset, parts, read)
            }
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // Direct reads want whole blocks, in the file and in memory.
        let start = offset / BLOCK_BYTES * BLOCK_BYTES;
        let end = (offset + buffer.len() as u64).next_multiple_of(BLOCK_BYTES);
        let (lead, span) = (to_len(offset - start), to_len(end - start));
        let mut space = vec![0; span + to_len(BLOCK_BYTES)];
        let aligned = space.as_ptr().align_offset(to_len(BLOCK_BYTES));
        let space = &mut space[aligned..aligned + span];
        let direct = self.direct().map(|file| fill_directly(file, start, space));
        // A file system may refuse them only now; then its advice has to do.
        let Some(Ok(filled)) = direct else {
            self.forget(offset, buffer.len() as u64)?;
            return self.read_at(offset, buffer);
        };
        let have = filled.saturating_sub(lead).min(buffer.len());
        buffer[..have].copy_from_slice(&space[lead..lead + have]);
        Ok(have)
    }

    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let block = to_len(BLOCK_BYTES);
        let is_whole = [to_len(offset), buffer.len(), buffer.as_ptr().addr()]
            .iter()
            .all(|number| number.is_multiple_of(block));
        let direct = if self.reads_directly && is_whole { self.direct() } else { None };
        match direct.map(|file| fill_directly(file, offset, buffer)) {
            Some(Ok(filled)) => Ok(filled),
            // A file system may refuse it only now.
            _ => self.read_at(offset, buffer),
        }
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if let Some(writer) = &self.writer {
            // Whoever cuts a file has written all of it; readers may keep it open for long.
            writer.lock().take();
        }
        self.file.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Keeps the directory to one process at a time, for as long as it lives.
///
/// The kernel drops the lock with the process, so a crash leaves nothing to clean up; the pid in
/// the file only serves the other process's error message.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the directory is in use by process {pid}")]
    Held {
        /// Who, as far as the lock file tells (0 if it does not).
        pid: u32,
    },
    /// The lock file cannot be opened or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DirectoryLock {
    /// Name of the lock file.
    pub const FILE: &'static str = "lock";

    /// Locks `directory`, or says who holds it.
    ///
    /// # Errors
    /// [`LockError::Held`] when another open store has it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(Self::FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                return Err(LockError::Held { pid: text.trim().parse().unwrap_or(0) });
            }
            Err(error) => return Err(LockError::Io(error.into())),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { file })
    }

    /// The process that holds `directory`, without taking it; `None` when nobody does. It is 0 in
    /// the instant before a new holder has written down who it is.
    ///
    /// # Errors
    /// When the lock file cannot be opened or read.
    pub fn holder(directory: &Path) -> io::Result<Option<u32>> {
        let mut file = match File::open(directory.join(Self::FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Some(text.trim().parse().unwrap_or(0)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for DirectoryLock {
    /// Closing the file is not enough: a child that another thread has just forked has it open too,
    /// until it becomes another program, and would keep the lock for so long.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::debug!(%error, "the directory's lock ends with its last open file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectoryLock, LockError};

    #[test]
    fn a_lock_ends_with_its_holder_though_a_child_still_has_the_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let lock = DirectoryLock::acquire(directory.path()).expect("nobody has it");
        // What a forked child has: the same open file.
        let inherited = lock.file.try_clone().expect("a second descriptor");
        let refused = DirectoryLock::acquire(directory.path());
        assert!(matches!(refused, Err(LockError::Held { .. })), "{refused:?}");
        drop(lock);
        DirectoryLock::acquire(directory.path()).expect("it was let go");
        drop(inherited);
    }
}
