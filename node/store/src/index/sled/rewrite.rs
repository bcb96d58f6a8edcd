// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing the database anew while it is in use. sled gives back what is overwritten more slowly
//! than a busy node overwrites: its file, and the memory that it keeps of the file, grow.
//!
//! The only writer copies a slice of the entries with each of its own writes, and repeats on the
//! copy what it changes of the entries that are there already. When all are there, the figures are
//! put beside them, the copy is made durable, and the two directories change places in one step.
//! Readers never wait; whatever happens before the exchange, the old database is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{META_KEY, Stored, guarded};
use crate::catalog::IndexError;

/// Entries copied with each write: a few milliseconds.
pub(super) const SLICE: usize = 2048;

/// A copy under way.
pub(super) struct Copy {
    db: sled::Db,
    path: PathBuf,
    /// The last key that was copied; entries up to it are in the copy, the others not yet.
    copied: Option<sled::IVec>,
}

/// Where the copy of a database is made.
pub(super) fn path_of(index: &Path) -> PathBuf {
    let name = index.file_name().unwrap_or_default().to_string_lossy();
    index.with_file_name(format!("{name}.new"))
}

/// Removes what an interrupted copy, or an exchanged database, has left.
pub(super) fn clear(index: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path_of(index)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Copy {
    /// An empty copy of the database at `index`.
    pub(super) fn begin(index: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        clear(index).map_err(|error| IndexError::new(error.to_string()))?;
        let path = path_of(index);
        let db = guarded(|| super::config(&path, cache_bytes).open())?;
        Ok(Self { db, path, copied: None })
    }

    /// Repeats a change that the database has seen.
    pub(super) fn follow(&self, changes: &[Stored<'_>]) -> Result<(), IndexError> {
        let Some(copied) = &self.copied else { return Ok(()) };
        let mut batch = sled::Batch::default();
        for (key, stored) in changes.iter().filter(|(key, _)| *key <= &copied[..]) {
            match stored {
                Some(stored) => batch.insert(*key, *stored),
                None => batch.remove(*key),
            }
        }
        guarded(|| self.db.apply_batch(batch))
    }

    /// Copies the next slice; whether that was the last.
    pub(super) fn advance(&mut self, from: &sled::Db) -> Result<bool, IndexError> {
        let start = self.copied.as_deref().unwrap_or(META_KEY);
        let slice = guarded(|| {
            let after = (std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded);
            from.range::<&[u8], _>(after).take(SLICE).collect::<sled::Result<Vec<_>>>()
        })?;
        let mut batch = sled::Batch::default();
        for (key, stored) in &slice {
            batch.insert(key, stored);
        }
        guarded(|| self.db.apply_batch(batch))?;
        let is_last = slice.len() < SLICE;
        if let Some((key, _)) = slice.into_iter().next_back() {
            self.copied = Some(key);
        }
        Ok(is_last)
    }

    /// Gives the complete copy its figures, makes it durable and puts it in the place of `index`.
    /// The old database is where the copy was; it goes with [`settle`]. After an error nothing has
    /// changed places.
    pub(super) fn finish(self, index: &Path, figures: &[u8]) -> Result<sled::Db, IndexError> {
        guarded(|| {
            self.db.insert(META_KEY, figures)?;
            self.db.flush()
        })?;
        self.exchange(index).map_err(|error| IndexError::new(error.to_string()))?;
        Ok(self.db)
    }

    fn exchange(&self, index: &Path) -> io::Result<()> {
        // sled finds such files by the path that it was opened with. Values here are far too short
        // for one; if there is one all the same, the copy has to stay where it is.
        if fs::read_dir(self.path.join("blobs"))?.next().is_some() {
            return Err(io::Error::other("the copy has files that it would not find again"));
        }
        sync(&self.path)?;
        renameat_with(CWD, &self.path, CWD, index, RenameFlags::EXCHANGE).map_err(io::Error::from)
    }
}

/// Makes an exchange durable, and removes the old database.
pub(super) fn settle(index: &Path) -> io::Result<()> {
    File::open(index.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    clear(index)
}

/// Makes the files of a flushed database durable.
pub(super) fn sync(index: &Path) -> io::Result<()> {
    File::open(index.join("db"))?.sync_all()?;
    File::open(index)?.sync_all()
}
