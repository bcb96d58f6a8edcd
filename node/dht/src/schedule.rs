// SPDX-License-Identifier: MIT OR Apache-2.0
//! When each of our own records is published again. Pure: time is passed in.
//!
//! Records live for a limited time wherever they were put, and the peers closest to a key change,
//! so whoever wants a record to stay publishes it again and again. The library's own jobs copy the
//! whole table for that and start everything at once; this schedule keeps one due time per record,
//! spreads them by the hash of the record, and hands out only as many as the caller can run.

use std::collections::hash_map::Entry::Vacant;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use supernode_protocol::ids::Cid;

/// Something of ours that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// Our node record.
    Node,
    /// The provider record of an object or page.
    Provider(Cid),
    /// A small manifest block.
    Manifest(Cid),
}

impl Item {
    /// A number in `[0, 1024)` that is fixed per item: its place in time among the others.
    fn spread(&self) -> u32 {
        let bytes = match self {
            Self::Node => return 0,
            Self::Provider(cid) | Self::Manifest(cid) => cid.as_bytes(),
        };
        u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) % SPREAD
    }
}

const SPREAD: u32 = 1024;
/// Wait before a failed publication is tried again; doubles with each failure.
const RETRY: Duration = Duration::from_secs(2);
/// Known peers from which on a publication counts as wide enough until the next interval.
const REACH_ENOUGH: usize = 5;
/// Wait before a narrow publication is repeated because more peers are known.
const WIDEN: Duration = Duration::from_millis(500);

/// The end of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It went out.
    Published {
        /// Peers in the routing table when it started.
        reach: usize,
        /// Peers in the routing table now.
        known: usize,
    },
    /// Nobody took it.
    Failed,
}

#[derive(Debug)]
struct Entry {
    due: Option<Instant>,
    failures: u32,
    reach: Option<usize>,
}

/// All of our records and when each is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    entries: HashMap<Item, Entry>,
    // Items that are not being published right now, by due time.
    queue: BTreeSet<(Instant, Item)>,
    // Items whose last publication failed or reached fewer peers than is enough.
    narrow: BTreeSet<Item>,
}

impl Schedule {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, entries: HashMap::new(), queue: BTreeSet::new(), narrow: BTreeSet::new() }
    }

    /// Adds an item, due at once. An item already here keeps its time.
    pub(crate) fn add(&mut self, item: Item, now: Instant) {
        self.add_at(item, now);
    }

    /// Adds an item that is known to the network already, such as after a restart: due at its own
    /// place within the next eighth of the interval.
    pub(crate) fn add_spread(&mut self, item: Item, now: Instant) {
        self.add_at(item, now + self.interval / 8 * item.spread() / SPREAD);
    }

    fn add_at(&mut self, item: Item, due: Instant) {
        if let Vacant(entry) = self.entries.entry(item) {
            entry.insert(Entry { due: Some(due), failures: 0, reach: None });
            self.queue.insert((due, item));
        }
    }

    /// Forgets an item. One that is being published right now is not published again.
    pub(crate) fn remove(&mut self, item: Item) -> bool {
        let Some(entry) = self.entries.remove(&item) else { return false };
        self.narrow.remove(&item);
        if let Some(due) = entry.due {
            self.queue.remove(&(due, item));
        }
        true
    }

    /// Makes a changed item due at once.
    pub(crate) fn refresh(&mut self, item: Item, now: Instant) {
        match self.entries.get_mut(&item) {
            None => self.add(item, now),
            Some(entry) => {
                entry.reach = None;
                entry.failures = 0;
                if let Some(due) = entry.due.replace(now) {
                    self.queue.remove(&(due, item));
                }
                self.queue.insert((now, item));
            }
        }
    }

    /// Whether the item has gone out at least once.
    pub(crate) fn is_published(&self, item: Item) -> bool {
        self.entries.get(&item).is_some_and(|entry| entry.reach.is_some())
    }

    /// Hands out up to `max` due items; each must come back through [`Schedule::finished`].
    pub(crate) fn take_due(&mut self, now: Instant, max: usize) -> Vec<Item> {
        let due: Vec<_> =
            self.queue.iter().take_while(|(due, _)| *due <= now).take(max).copied().collect();
        for (at, item) in &due {
            self.queue.remove(&(*at, *item));
            if let Some(entry) = self.entries.get_mut(item) {
                entry.due = None;
            }
        }
        due.into_iter().map(|(_, item)| item).collect()
    }

    /// Takes an item back and decides when it is due again.
    pub(crate) fn finished(&mut self, item: Item, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&item) else { return };
        if entry.due.is_some() {
            // It changed while it was on its way and is due already.
            return;
        }
        let wait = match outcome {
            Outcome::Published { reach, known } => {
                entry.failures = 0;
                entry.reach = Some(reach);
                let wide = reach >= REACH_ENOUGH;
                if wide {
                    self.narrow.remove(&item);
                } else {
                    self.narrow.insert(item);
                }
                if reach < known.min(REACH_ENOUGH) {
                    WIDEN
                } else {
                    // Earlier by up to an eighth, so that records added together drift apart.
                    self.interval - self.interval / 8 * item.spread() / SPREAD
                }
            }
            Outcome::Failed => {
                self.narrow.insert(item);
                entry.failures = entry.failures.saturating_add(1);
                (RETRY * 2_u32.pow((entry.failures - 1).min(12))).min(self.interval)
            }
        };
        entry.due = Some(now + wait);
        self.queue.insert((now + wait, item));
    }

    /// More peers are known: what went out to too few of them goes out again soon.
    pub(crate) fn peers_grew(&mut self, known: usize, now: Instant) {
        let soon = now + WIDEN;
        let target = known.min(REACH_ENOUGH);
        for item in &self.narrow {
            let Some(entry) = self.entries.get_mut(item) else { continue };
            let Some(due) = entry.due.filter(|due| *due > soon) else { continue };
            if entry.failures > 0 || entry.reach.is_none_or(|reach| reach < target) {
                entry.failures = 0;
                entry.due = Some(soon);
                self.queue.remove(&(due, *item));
                self.queue.insert((soon, *item));
            }
        }
    }

    /// When the next item is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests;
