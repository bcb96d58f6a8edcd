// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layers over the database, newest first:
//!
//! ```text
//! unsynced   applied, not durable yet; the writer sees it, readers only in the relaxed modes
//! fresh      durable and acknowledged, not yet handed to the database
//! frozen     being written to the database right now
//! database
//! ```
//!
//! A layer moves down by a swap under the lock, and leaves only after the layer below has it, so a
//! reader that looks from the top down misses nothing. The lock is held for map operations only,
//! never over I/O. A range read looks into the database after it has copied the layers; if another
//! layer was handed to the database meanwhile, it looks again, so it never sees half of a batch.

use std::collections::btree_map::Range;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::{Changes, Index, Mark};
use crate::catalog::{IndexError, Kv, KvRead, Pairs, keys};
use crate::planted::{Bug, has};

/// Entries that may wait for the database before the writer waits too.
pub const PENDING_ENTRIES_MAX: usize = 100_000;

/// Entries beyond which the writer adds nothing of its own accord: the rest is for clients.
const PENDING_ENTRIES_IDLE: usize = PENDING_ENTRIES_MAX / 2;

/// The map that readers and the writer see.
pub struct Overlay {
    /// Gone after the orderly end, so that the files are free for the next start.
    index: RwLock<Option<Arc<dyn Index>>>,
    layers: RwLock<Layers>,
    /// Whether readers see what is not durable yet.
    relaxed: bool,
    /// Counts layers handed to the database; changes under the lock of the layers only.
    handed_over: AtomicU64,
    /// One writer to the database at a time.
    flushing: Mutex<()>,
    room: Condvar,
    room_lock: Mutex<()>,
}

/// How much of the newest changes somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    /// What is on disk.
    Durable,
    /// What is in the file, and can be read back.
    Written,
    /// What is planned.
    Applied,
}

#[derive(Default)]
struct Layers {
    /// Applied and not written.
    unsynced: Changes,
    /// Written and not synced; kept apart only where readers see it.
    written: Changes,
    fresh: Changes,
    fresh_mark: Option<Mark>,
    /// Of everything published, here or in the database.
    published: Option<Mark>,
    frozen: Option<Arc<Changes>>,
}

impl Layers {
    /// The layers, oldest first.
    fn ordered(&self, view: View) -> impl Iterator<Item = &Changes> {
        let written = (view >= View::Written).then_some(&self.written);
        let unsynced = (view >= View::Applied).then_some(&self.unsynced);
        self.frozen.as_deref().into_iter().chain([&self.fresh]).chain(written).chain(unsynced)
    }

    fn get(&self, key: &[u8], view: View) -> Option<Option<Vec<u8>>> {
        self.ordered(view).filter_map(|layer| layer.get(key)).last().cloned()
    }

    fn merged(&self, start: &[u8], end: &[u8], view: View) -> Changes {
        let mut merged = Changes::new();
        for layer in self.ordered(view) {
            let within = slice(layer, start, end).map(|(key, value)| (key.clone(), value.clone()));
            merged.extend(within);
        }
        merged
    }
}

fn slice<'a>(
    changes: &'a Changes,
    start: &[u8],
    end: &[u8],
) -> Range<'a, Vec<u8>, Option<Vec<u8>>> {
    changes.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end.max(start))))
}

impl Overlay {
    /// No changes over a database.
    pub fn new(index: Arc<dyn Index>, relaxed: bool) -> Self {
        Self {
            index: RwLock::new(Some(index)),
            layers: RwLock::default(),
            relaxed,
            handed_over: AtomicU64::new(0),
            flushing: Mutex::new(()),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
        }
    }

    /// The database below.
    ///
    /// # Errors
    /// After [`Self::close`].
    pub fn index(&self) -> Result<Arc<dyn Index>, IndexError> {
        self.index.read().clone().ok_or_else(|| IndexError::new("it is closed"))
    }

    /// Lets go of the database. Reads fail from now on.
    pub fn close(&self) {
        self.index.write().take();
    }

    /// The map without what is not durable yet, also in the relaxed modes.
    pub fn durable(&self) -> Durable<'_> {
        Durable(self)
    }

    /// The writer's view, to which one record's changes are staged.
    pub fn stage(&self) -> Staged<'_> {
        Staged { overlay: self, changes: Changes::new() }
    }

    /// Takes the changes of one record, which is not durable yet.
    pub fn add_unsynced(&self, changes: Changes) {
        self.layers.write().unsynced.extend(changes);
    }

    /// What was applied so far is in the file now: whoever reads before the sync finds its bytes.
    pub fn note_written(&self) {
        if self.relaxed {
            let layers = &mut *self.layers.write();
            layers.written.append(&mut layers.unsynced);
        }
    }

    /// Forgets everything that is not durable yet.
    pub fn drop_unsynced(&self) {
        let layers = &mut *self.layers.write();
        for layer in [&mut layers.unsynced, &mut layers.written] {
            layer.retain(|key, _| has(Bug::CountsRefused) && *key == keys::usage());
        }
    }

    /// What was not durable is now, up to `mark`: readers see it, the database gets it.
    pub fn publish(&self, mark: Mark) {
        let layers = &mut *self.layers.write();
        layers.fresh.append(&mut layers.written);
        if layers.fresh.is_empty() {
            std::mem::swap(&mut layers.fresh, &mut layers.unsynced);
        } else {
            layers.fresh.append(&mut layers.unsynced);
        }
        layers.fresh_mark = Some(mark);
        layers.published = Some(mark);
    }

    /// Up to where what readers see is durable.
    ///
    /// # Errors
    /// After [`Self::close`].
    pub fn mark(&self) -> Result<Mark, IndexError> {
        let published = self.layers.read().published;
        published.map_or_else(|| self.index().map(|index| index.mark()), Ok)
    }

    /// Entries that wait for the database.
    pub fn pending_entries(&self) -> usize {
        let layers = self.layers.read();
        layers.fresh.len() + layers.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// Entries that were applied and not published.
    pub fn unpublished_entries(&self) -> usize {
        self.layers.read().unsynced.len()
    }

    /// Whether the database has fallen so far behind that housekeeping waits for it.
    pub fn is_lagging(&self) -> bool {
        self.pending_entries() > PENDING_ENTRIES_IDLE
    }

    /// Writes everything published so far to the database; says whether there was anything.
    ///
    /// # Errors
    /// When the database fails; nothing is lost, the layer stays.
    pub fn flush(&self) -> Result<bool, IndexError> {
        let _one_at_a_time = self.flushing.lock();
        let (frozen, mark) = {
            let mut layers = self.layers.write();
            let Some(mark) = layers.fresh_mark else { return Ok(false) };
            let mut fresh = std::mem::take(&mut layers.fresh);
            if has(Bug::MarksAhead) {
                layers.fresh.extend(fresh.pop_last());
            }
            let frozen = match layers.frozen.take() {
                // The last attempt failed: its entries go first, newer ones over them.
                Some(older) => {
                    let mut all = Arc::unwrap_or_clone(older);
                    all.extend(fresh);
                    Arc::new(all)
                }
                None => Arc::new(fresh),
            };
            layers.frozen = Some(Arc::clone(&frozen));
            self.handed_over.fetch_add(1, Ordering::Relaxed);
            (frozen, mark)
        };
        self.index()?.write(&frozen, mark)?;
        let mut layers = self.layers.write();
        layers.frozen = None;
        if layers.fresh_mark == Some(mark) {
            layers.fresh_mark = None;
        }
        drop(layers);
        // Taking the lock orders this wake-up after a waiter's last look.
        drop(self.room_lock.lock());
        self.room.notify_all();
        Ok(true)
    }

    /// Blocks the writer while too much waits for the database, `timeout` at most.
    pub fn wait_for_room(&self, timeout: std::time::Duration) -> bool {
        let mut guard = self.room_lock.lock();
        let full = |(): &mut ()| self.pending_entries() >= PENDING_ENTRIES_MAX;
        !self.room.wait_while_for(&mut guard, full, timeout).timed_out()
    }

    fn view(&self) -> View {
        if self.relaxed { View::Written } else { View::Durable }
    }

    fn layered(&self, key: &[u8], view: View) -> Result<Option<Vec<u8>>, IndexError> {
        let layered = self.layers.read().get(key, view);
        layered.map_or_else(|| self.index()?.get(key), Ok)
    }

    fn range_layered(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        view: View,
    ) -> Result<Pairs, IndexError> {
        loop {
            let (changes, handed_over) = {
                let layers = self.layers.read();
                (layers.merged(start, end, view), self.handed_over.load(Ordering::Relaxed))
            };
            // Each removed key may hide one pair of the database.
            let removed = changes.values().filter(|value| value.is_none()).count();
            let below = self.index()?.range(start, end, limit.saturating_add(removed))?;
            let layers = self.layers.read();
            if self.handed_over.load(Ordering::Relaxed) == handed_over {
                drop(layers);
                return Ok(merge(below, changes, limit, limit.saturating_add(removed)));
            }
        }
    }
}

/// Lays changes over pairs that were fetched up to `fetched_max`.
fn merge(below: Pairs, changes: Changes, limit: usize, fetched_max: usize) -> Pairs {
    // A full page says nothing about keys beyond its last one.
    let horizon =
        (below.len() >= fetched_max).then(|| below.last().map(|(key, _)| key.clone())).flatten();
    let mut all: std::collections::BTreeMap<_, _> =
        below.into_iter().map(|(key, value)| (key, Some(value))).collect();
    all.extend(changes);
    all.into_iter()
        .take_while(|(key, _)| horizon.as_ref().is_none_or(|horizon| key <= horizon))
        .filter_map(|(key, value)| Some((key, value?)))
        .take(limit)
        .collect()
}

impl KvRead for Overlay {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.layered(key, self.view())
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        self.range_layered(start, end, limit, self.view())
    }
}

/// What is on disk.
pub struct Durable<'o>(&'o Overlay);

impl KvRead for Durable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.0.layered(key, View::Durable)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        self.0.range_layered(start, end, limit, View::Durable)
    }
}

/// One record's changes over everything before it.
pub struct Staged<'o> {
    overlay: &'o Overlay,
    changes: Changes,
}

impl Staged<'_> {
    /// The changes, to be added to the overlay.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl KvRead for Staged<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.overlay.layered(key, View::Applied),
        }
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        let changes: Changes = slice(&self.changes, start, end)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let removed = changes.values().filter(|value| value.is_none()).count();
        let wanted = limit.saturating_add(removed);
        let below = self.overlay.range_layered(start, end, wanted, View::Applied)?;
        Ok(merge(below, changes, limit, wanted))
    }
}

impl Kv for Staged<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }
}

#[cfg(test)]
mod tests;
