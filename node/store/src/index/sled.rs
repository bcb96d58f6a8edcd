// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index on disk, in sled 0.34, under rules that make up for what sled does not promise.
//!
//! - Opening may panic or hang on damaged files, so it happens in a thread of its own, with the
//!   panic caught and a time limit. Later calls are guarded against panics too.
//! - Everything is in one tree, so that one batch covers entries, mark and check figures.
//! - Each value ends with the CRC32C of its key and itself. Opening walks all entries and compares
//!   their number and the sum of their hashes with the figures of the last batch: an entry that was
//!   lost, or came back from an older state, does not go unnoticed.
//! - `flush` alone does not reach the platter, so a checkpoint syncs the file and its directory
//!   through descriptors of our own. The background flusher stays on: it also collects garbage.
//! - A database that takes far more disk than its content is written anew ([`rewrite`]): before it
//!   is opened, or while it is in use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use self::rewrite::Copy;
use super::{Changes, Index, Mark};
use crate::catalog::{IndexError, KvRead, Pairs};

mod rewrite;

/// Version of keys and values; another one is rebuilt, never converted.
const INDEX_FORMAT: u32 = 6;
/// Sorts before every key of the catalog.
const META_KEY: &[u8] = &[0];
const CRC_BYTES: usize = 4;
/// More than this much disk per byte of content, and it is built anew. One that was just built has
/// about 5 (a million shards), so that building it anew at 4, as is advised, never ends.
const BLOAT_FACTOR: u64 = 16;
/// Smaller databases are never called bloated.
const BLOAT_BYTES_MIN: u64 = 64 << 20;
/// Writes between two looks at its size.
const WRITES_BETWEEN_LOOKS: u64 = 256;
/// Entries between two signs of life of a check.
const CHECK_STEP: u64 = 4096;

/// How to open the database.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Its directory.
    pub path: PathBuf,
    /// Memory for its cache.
    pub cache_bytes: u64,
    /// After this long without progress it is given up.
    pub timeout: Duration,
}

/// Why a database was not accepted; the caller moves it away and rebuilds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct OpenFailure {
    /// For the metric: one of a few words.
    pub reason: &'static str,
    /// For the log.
    pub detail: String,
}

impl OpenFailure {
    /// A failure of a kind.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Check figures over all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Meta {
    format: u32,
    mark: Mark,
    entry_count: u64,
    /// Wrapping sum of the hashes of all entries: does not depend on their order.
    hash_sum: u128,
}

impl Meta {
    fn add(&mut self, key: &[u8], stored: &[u8]) {
        self.entry_count += 1;
        self.hash_sum = self.hash_sum.wrapping_add(entry_hash(key, stored));
    }

    fn remove(&mut self, key: &[u8], stored: &[u8]) {
        self.entry_count = self.entry_count.saturating_sub(1);
        self.hash_sum = self.hash_sum.wrapping_sub(entry_hash(key, stored));
    }
}

fn entry_hash(key: &[u8], stored: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(stored);
    let hash = hasher.finalize();
    let half = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u128::from_le_bytes(*half)
}

/// An index in sled.
pub struct SledIndex {
    /// A handle. The lock is held to clone it, never while it is used.
    db: RwLock<sled::Db>,
    options: SledOptions,
    meta: Mutex<Meta>,
    upkeep: Mutex<Upkeep>,
    /// Never called bloated below this.
    bloat_bytes_min: u64,
}

/// A key, and what is stored under it from now on.
type Stored<'a> = (&'a [u8], Option<&'a [u8]>);

/// What the only writer knows of the size of the database, and does about it. Nobody else waits
/// for its lock.
struct Upkeep {
    content_bytes: u64,
    writes: u64,
    /// How many writes there are between two looks at the size; twice as many after each failure
    /// (a full disk, a file system that exchanges nothing).
    writes_between_looks: u64,
    copy: Option<Copy>,
}

impl SledIndex {
    /// Opens and checks the database, or creates an empty one.
    ///
    /// # Errors
    /// Says why it cannot be trusted.
    pub fn open(options: &SledOptions) -> Result<Self, OpenFailure> {
        let (send, receive) = mpsc::sync_channel(1);
        let worker_options = options.clone();
        let worker = move || {
            // How large it is says nothing against it: a check may take minutes, as long as it
            // gets on. Nobody listens any more after the limit, and the receiver may be busy.
            let progress = || drop(send.try_send(None));
            let opened =
                catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(&worker_options, progress)));
            let outcome =
                opened.unwrap_or_else(|panic| Err(OpenFailure::new("panic", panic_text(&*panic))));
            // After the limit the database is dropped here.
            let _ = send.send(Some(outcome));
        };
        thread::Builder::new()
            .name("index-open".to_owned())
            .spawn(worker)
            .map_err(|error| OpenFailure::new("thread", error.to_string()))?;
        loop {
            match receive.recv_timeout(options.timeout) {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(_) => {
                    let detail = format!("no progress for {} s", options.timeout.as_secs());
                    return Err(OpenFailure::new("timeout", detail));
                }
            }
        }
    }

    fn open_unguarded(options: &SledOptions, progress: impl Fn()) -> Result<Self, OpenFailure> {
        let failed = |error: &dyn std::fmt::Display| OpenFailure::new("error", error.to_string());
        rewrite::clear(&options.path).map_err(|error| failed(&error))?;
        let db = config(&options.path, options.cache_bytes).open();
        let db = db.map_err(|error| failed(&error))?;
        let (meta, content_bytes) = check(&db, progress)?;
        Ok(Self {
            db: RwLock::new(db),
            options: options.clone(),
            meta: Mutex::new(meta),
            upkeep: Mutex::new(Upkeep {
                content_bytes,
                writes: 0,
                writes_between_looks: WRITES_BETWEEN_LOOKS,
                copy: None,
            }),
            bloat_bytes_min: BLOAT_BYTES_MIN,
        })
    }

    fn db(&self) -> sled::Db {
        self.db.read().clone()
    }

    /// Looks after the size of the database, once a write is done. What fails here costs disk and
    /// nothing else.
    fn keep_small(&self, upkeep: &mut Upkeep, changes: &[Stored<'_>], figures: &[u8]) {
        let outcome = match upkeep.copy.take() {
            Some(copy) => self.go_on(copy, changes, figures, upkeep),
            None => self.look(upkeep),
        };
        if let Err(error) = outcome {
            upkeep.writes_between_looks = upkeep.writes_between_looks.saturating_mul(2);
            tracing::warn!(%error, "the index could not be written anew; it stays as it is");
            if let Err(error) = rewrite::clear(&self.options.path) {
                tracing::warn!(%error, "what was written of it stays until the next attempt");
            }
        }
    }

    fn go_on(
        &self,
        mut copy: Copy,
        changes: &[Stored<'_>],
        figures: &[u8],
        upkeep: &mut Upkeep,
    ) -> Result<(), IndexError> {
        copy.follow(changes)?;
        if !copy.advance(&self.db())? {
            upkeep.copy = Some(copy);
            return Ok(());
        }
        let old_bytes = self.disk_bytes()?;
        let fresh = copy.finish(&self.options.path, figures)?;
        // From here on the copy is the index, whatever fails. Closing the old one takes a while,
        // and readers do not wait for it.
        let old = std::mem::replace(&mut *self.db.write(), fresh);
        drop(old);
        upkeep.writes_between_looks = WRITES_BETWEEN_LOOKS;
        match rewrite::settle(&self.options.path) {
            Ok(()) => tracing::info!(old_bytes, "the index is written anew"),
            Err(error) => tracing::warn!(%error, "the old index stays beside the new one"),
        }
        Ok(())
    }

    fn look(&self, upkeep: &mut Upkeep) -> Result<(), IndexError> {
        upkeep.writes += 1;
        if upkeep.writes < upkeep.writes_between_looks {
            return Ok(());
        }
        upkeep.writes = 0;
        if is_bloated(self.disk_bytes()?, upkeep.content_bytes, self.bloat_bytes_min) {
            upkeep.copy = Some(Copy::begin(&self.options.path, self.options.cache_bytes)?);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, IndexError> {
        let file = self.options.path.join("db");
        let size = std::fs::metadata(file).map_err(|error| IndexError::new(error.to_string()))?;
        Ok(size.len())
    }
}

fn config(path: &Path, cache_bytes: u64) -> sled::Config {
    sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(Some(500))
}

/// Walks all entries and compares them with the check figures; these, and the bytes of all entries.
fn check(db: &sled::Db, progress: impl Fn()) -> Result<(Meta, u64), OpenFailure> {
    let failed = |error: sled::Error| OpenFailure::new("error", error.to_string());
    let mut counted = Meta { format: INDEX_FORMAT, ..Meta::default() };
    let mut stated: Option<Meta> = None;
    let mut content_bytes = 0_u64;
    for pair in db.iter() {
        let (key, stored) = pair.map_err(failed)?;
        let value = unseal(&key, &stored)
            .ok_or_else(|| OpenFailure::new("checksum", "an entry's checksum does not hold"))?;
        if key == META_KEY {
            let meta = postcard::from_bytes(value);
            stated = Some(meta.map_err(|error| OpenFailure::new("format", error.to_string()))?);
        } else {
            counted.add(&key, &stored);
            if counted.entry_count.is_multiple_of(CHECK_STEP) {
                progress();
            }
            content_bytes += (key.len() + stored.len()) as u64;
        }
    }
    let Some(stated) = stated else {
        return match counted.entry_count {
            0 => Ok((counted, 0)),
            count => Err(OpenFailure::new("meta", format!("{count} entries, but no figures"))),
        };
    };
    if stated.format != INDEX_FORMAT {
        return Err(OpenFailure::new("format", format!("format {}", stated.format)));
    }
    counted.mark = stated.mark;
    if counted != stated {
        let (have, want) = (counted.entry_count, stated.entry_count);
        let detail = format!("{have} entries here, {want} expected, or their hashes differ");
        return Err(OpenFailure::new("content", detail));
    }
    let disk_bytes = db.size_on_disk().map_err(failed)?;
    if is_bloated(disk_bytes, content_bytes, BLOAT_BYTES_MIN) {
        let detail = format!("{disk_bytes} bytes on disk for {content_bytes} of content");
        return Err(OpenFailure::new("bloat", detail));
    }
    Ok((stated, content_bytes))
}

fn is_bloated(disk_bytes: u64, content_bytes: u64, bytes_min: u64) -> bool {
    disk_bytes > bytes_min.max(content_bytes.saturating_mul(BLOAT_FACTOR))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
        .to_owned()
}

fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    [value, &crc.to_le_bytes()].concat()
}

fn unseal<'v>(key: &[u8], stored: &'v [u8]) -> Option<&'v [u8]> {
    let (value, crc) = stored.split_at_checked(stored.len().checked_sub(CRC_BYTES)?)?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(key), value);
    (crc == expected.to_le_bytes()).then_some(value)
}

/// Calls sled; its panics become errors.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(IndexError::new(error.to_string())),
        Err(panic) => Err(IndexError::new(panic_text(&*panic))),
    }
}

fn opened<'v>(key: &[u8], stored: &'v [u8]) -> Result<&'v [u8], IndexError> {
    unseal(key, stored).ok_or_else(|| IndexError::new("an entry's checksum does not hold"))
}

impl KvRead for SledIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let stored = guarded(|| self.db().get(key))?;
        stored.map(|stored| Ok(opened(key, &stored)?.to_vec())).transpose()
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        if start >= end {
            return Ok(Pairs::new());
        }
        let is_meta = |pair: &sled::Result<(sled::IVec, sled::IVec)>| {
            pair.as_ref().is_ok_and(|(key, _)| key == META_KEY)
        };
        let pairs = guarded(|| {
            let pairs = self.db().range(start..end).filter(|pair| !is_meta(pair));
            pairs.take(limit).collect::<sled::Result<Vec<_>>>()
        })?;
        let pair = |(key, stored): (sled::IVec, sled::IVec)| {
            Ok((key.to_vec(), opened(&key, &stored)?.to_vec()))
        };
        pairs.into_iter().map(pair).collect()
    }
}

impl Index for SledIndex {
    fn write(&self, changes: &Changes, mark: Mark) -> Result<(), IndexError> {
        let mut meta = *self.meta.lock();
        meta.format = INDEX_FORMAT;
        meta.mark = mark;
        let db = self.db();
        let (mut sealed, mut before, mut after) = (Vec::with_capacity(changes.len()), 0, 0);
        for (key, value) in changes {
            let old = guarded(|| db.get(key))?;
            if let Some(old) = &old {
                meta.remove(key, old);
                before += (key.len() + old.len()) as u64;
            }
            match value {
                Some(value) => {
                    let stored = seal(key, value);
                    meta.add(key, &stored);
                    after += (key.len() + stored.len()) as u64;
                    sealed.push((&key[..], Some(stored)));
                }
                // Much comes and goes before it was ever written here.
                None if old.is_none() => {}
                None => sealed.push((&key[..], None)),
            }
        }
        let figures = postcard::to_allocvec(&meta).expect("plain figures have an encoding");
        let figures = seal(META_KEY, &figures);
        let mut batch = sled::Batch::default();
        batch.insert(META_KEY, &figures[..]);
        for (key, stored) in &sealed {
            match stored {
                Some(stored) => batch.insert(*key, &stored[..]),
                None => batch.remove(*key),
            }
        }
        guarded(|| db.apply_batch(batch))?;
        *self.meta.lock() = meta;
        drop(db);
        let mut upkeep = self.upkeep.lock();
        upkeep.content_bytes = (upkeep.content_bytes + after).saturating_sub(before);
        let changed: Vec<_> = sealed.iter().map(|(key, it)| (*key, it.as_deref())).collect();
        self.keep_small(&mut upkeep, &changed, &figures);
        Ok(())
    }

    fn mark(&self) -> Mark {
        self.meta.lock().mark
    }

    fn checkpoint(&self) -> Result<(), IndexError> {
        guarded(|| self.db().flush())?;
        rewrite::sync(&self.options.path)
            .map_err(|error| IndexError::new(format!("cannot sync the index: {error}")))
    }
}

#[cfg(test)]
mod tests;
