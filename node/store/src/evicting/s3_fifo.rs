// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: which entry goes next. S3-FIFO (Yang et al., SOSP 2023), with queues weighed in bytes.
//!
//! - Newcomers wait in a small queue, a tenth of all bytes. Who was asked for twice there moves to
//!   the main queue, all others go, in the order in which they came to the disk.
//! - In the main queue the oldest goes, unless it was asked for since it was last looked at.
//! - The names of newcomers that went are remembered for a while, as many as there are entries. Who
//!   comes back in that time comes to the main queue.
//!
//! A hit counts up to three and moves nothing. Every operation is O(1): what an eviction passes
//! over was paid for by hits.
//!
//! An entry takes 48 bytes in the queues, 37 in the map, and 25 as a name that is remembered; as
//! all of these grow by doubling, at most [`ENTRY_BYTES_MAX`].

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Memory that one entry takes at most, with what doubling leaves unused. A map is never less than
/// 7/16 full.
pub const ENTRY_BYTES_MAX: u64 = 2 * 48 + 2 * 8 + (37 + 17) * 16 / 7 + 1;

/// The small queue has one part in this many.
const SMALL_SHARE: u64 = 10;
/// Hits count up to this.
const HITS_MAX: u8 = 3;
/// Hits that bring a newcomer to the main queue.
const HITS_TO_STAY: u8 = 2;
/// No entry.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct S3Fifo<K> {
    places: HashMap<K, u32>,
    entries: Vec<Entry<K>>,
    /// Unused entries, linked by `newer`.
    unused: u32,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    len: u32,
    newer: u32,
    older: u32,
    hits: u8,
    is_small: bool,
}

/// A queue through the entries.
#[derive(Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    bytes: u64,
}

/// Hashes of names that went, each with its number in the order of going.
#[derive(Debug, Default)]
struct Ghosts {
    order: VecDeque<u64>,
    numbers: HashMap<u64, u64>,
    /// The number of the first in `order`.
    first: u64,
}

impl<K: Copy + Eq + Hash> S3Fifo<K> {
    /// No entries.
    pub(super) fn new() -> Self {
        let empty = || Queue { oldest: NONE, newest: NONE, bytes: 0 };
        Self {
            places: HashMap::new(),
            entries: Vec::new(),
            unused: NONE,
            small: empty(),
            main: empty(),
            ghosts: Ghosts::default(),
        }
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether an entry is there, which is no visit.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// Counts a hit, if the entry is there.
    pub(super) fn visit(&mut self, key: &K) -> bool {
        let place = self.places.get(key).copied();
        if let Some(place) = place {
            let entry = self.entry(place);
            entry.hits = (entry.hits + 1).min(HITS_MAX);
        }
        place.is_some()
    }

    /// Adds an entry that is not there.
    pub(super) fn push(&mut self, key: K, len: u32) {
        let hash = self.places.hasher().hash_one(key);
        let is_small = !self.ghosts.take(hash);
        self.add(key, len, is_small);
    }

    /// Adds an entry of which nothing is known but that it is there: to the main queue.
    pub(super) fn restore(&mut self, key: K, len: u32) {
        self.add(key, len, false);
    }

    /// Takes an entry out; its length if it was there.
    pub(super) fn remove(&mut self, key: &K) -> Option<u32> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        let unused = self.unused;
        let entry = self.entry(place);
        entry.newer = unused;
        let len = entry.len;
        self.unused = place;
        Some(len)
    }

    /// Takes out the entry that is missed least, with its length.
    pub(super) fn evict(&mut self) -> Option<(K, u32)> {
        loop {
            let is_small = self.small.oldest != NONE
                && (self.main.oldest == NONE || self.small.bytes * SMALL_SHARE >= self.bytes());
            let place = if is_small { self.small.oldest } else { self.main.oldest };
            if place == NONE {
                return None;
            }
            let entry = self.entry(place);
            let key = entry.key;
            let stays = entry.hits >= if is_small { HITS_TO_STAY } else { 1 };
            if !stays {
                if is_small {
                    self.ghosts.add(self.places.hasher().hash_one(key), self.places.len());
                }
                return self.remove(&key).map(|len| (key, len));
            }
            entry.hits = if is_small { 0 } else { entry.hits - 1 };
            self.unlink(place);
            self.link(place, false);
        }
    }

    fn add(&mut self, key: K, len: u32, is_small: bool) {
        let entry = Entry { key, len, newer: NONE, older: NONE, hits: 0, is_small };
        let place = if self.unused == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 entries fit in memory")
        } else {
            let place = self.unused;
            self.unused = self.entry(place).newer;
            *self.entry(place) = entry;
            place
        };
        self.link(place, is_small);
        let before = self.places.insert(key, place);
        debug_assert!(before.is_none(), "an entry is added once");
    }

    fn entry(&mut self, place: u32) -> &mut Entry<K> {
        &mut self.entries[place as usize]
    }

    fn queue(&mut self, is_small: bool) -> &mut Queue {
        if is_small { &mut self.small } else { &mut self.main }
    }

    /// Makes an entry the newest of a queue.
    fn link(&mut self, place: u32, is_small: bool) {
        let len = u64::from(self.entry(place).len);
        let queue = self.queue(is_small);
        let older = std::mem::replace(&mut queue.newest, place);
        queue.bytes += len;
        if older == NONE {
            queue.oldest = place
        } else {
            self.entry(older).newer = place
        }
        let entry = self.entry(place);
        (entry.older, entry.newer, entry.is_small) = (older, NONE, is_small);
    }

    fn unlink(&mut self, place: u32) {
        let entry = self.entry(place);
        let (newer, older, is_small) = (entry.newer, entry.older, entry.is_small);
        let len = u64::from(entry.len);
        let queue = self.queue(is_small);
        queue.bytes -= len;
        if newer == NONE {
            queue.newest = older
        }
        if older == NONE {
            queue.oldest = newer
        }
        if newer != NONE {
            self.entry(newer).older = older
        }
        if older != NONE {
            self.entry(older).newer = newer
        }
    }
}

impl Ghosts {
    /// Remembers a name, and forgets the oldest so that there are `max` at most.
    fn add(&mut self, hash: u64, max: usize) {
        self.numbers.insert(hash, self.first + self.order.len() as u64);
        self.order.push_back(hash);
        while self.order.len() > max {
            let oldest = self.order.pop_front().expect("it is longer than something");
            // One that came back, and went again, is remembered under its newer number.
            if self.numbers.get(&oldest) == Some(&self.first) {
                self.numbers.remove(&oldest);
            }
            self.first += 1;
        }
    }

    /// Whether a name is remembered; it is not any more.
    fn take(&mut self, hash: u64) -> bool {
        self.numbers.remove(&hash).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use supernode_protocol::ids::ShardId;

    use super::{ENTRY_BYTES_MAX, Entry, S3Fifo};

    #[derive(Clone, Copy)]
    struct Known {
        key: u16,
        len: u32,
        hits: u8,
    }

    /// The same policy on lists, as the paper puts it.
    #[derive(Default)]
    struct Reference {
        small: VecDeque<Known>,
        main: VecDeque<Known>,
        /// Names that went; `None` where one came back.
        ghosts: VecDeque<Option<u16>>,
    }

    impl Reference {
        fn find(&mut self, key: u16) -> Option<&mut Known> {
            self.small.iter_mut().chain(&mut self.main).find(|known| known.key == key)
        }

        fn push(&mut self, key: u16, len: u32) {
            let known = Known { key, len, hits: 0 };
            match self.ghosts.iter_mut().find(|ghost| **ghost == Some(key)) {
                Some(ghost) => {
                    *ghost = None;
                    self.main.push_back(known);
                }
                None => self.small.push_back(known),
            }
        }

        fn remove(&mut self, key: u16) {
            self.small.retain(|known| known.key != key);
            self.main.retain(|known| known.key != key);
        }

        fn evict(&mut self) -> Option<(u16, u32)> {
            loop {
                let len = self.small.len() + self.main.len();
                if !self.small.is_empty()
                    && (self.main.is_empty() || bytes(&self.small) * 9 >= bytes(&self.main))
                {
                    let oldest = self.small.pop_front().expect("not empty");
                    if oldest.hits < 2 {
                        self.ghosts.push_back(Some(oldest.key));
                        self.ghosts.drain(..self.ghosts.len().saturating_sub(len));
                        return Some((oldest.key, oldest.len));
                    }
                    self.main.push_back(Known { hits: 0, ..oldest });
                } else {
                    let oldest = self.main.pop_front()?;
                    if oldest.hits == 0 {
                        return Some((oldest.key, oldest.len));
                    }
                    self.main.push_back(Known { hits: oldest.hits - 1, ..oldest });
                }
            }
        }
    }

    fn bytes(queue: &VecDeque<Known>) -> u64 {
        queue.iter().map(|known| u64::from(known.len)).sum()
    }

    #[test]
    fn it_evicts_what_the_reference_evicts() {
        for seed in 0..64 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let (mut tested, mut reference) = (S3Fifo::new(), Reference::default());
            for step in 0..3000 {
                let key = random.random_range(0..60_u16);
                let known = reference.find(key);
                let at = format!("seed {seed}, step {step}");
                assert_eq!(tested.contains(&key), known.is_some(), "{at}");
                match (random.random_range(0..10), known) {
                    (0..4, known) => {
                        assert_eq!(tested.visit(&key), known.is_some(), "{at}");
                        known.into_iter().for_each(|known| known.hits = (known.hits + 1).min(3));
                    }
                    (4..8, None) => {
                        let len = random.random_range(1..1000);
                        tested.push(key, len);
                        reference.push(key, len);
                    }
                    (8, Some(known)) => {
                        assert_eq!(tested.remove(&key), Some(known.len), "{at}");
                        reference.remove(key);
                    }
                    _ => assert_eq!(tested.evict(), reference.evict(), "{at}"),
                }
                let all = bytes(&reference.small) + bytes(&reference.main);
                let len = reference.small.len() + reference.main.len();
                assert_eq!((tested.len(), tested.bytes()), (len, all), "{at}");
                assert!(tested.ghosts.order.len() <= 60, "{at}");
            }
        }
    }

    #[test]
    fn an_entry_takes_as_much_memory_as_is_said() {
        assert_eq!(size_of::<Entry<ShardId>>(), 48);
        assert_eq!((size_of::<(ShardId, u32)>(), size_of::<(u64, u64)>()), (36, 16));
        let mut tested = S3Fifo::new();
        let kept = 70_000_u32;
        for number in 0..2 * kept {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            tested.push(ShardId::from_bytes(id), 1);
            if number >= kept {
                tested.evict().expect("there are some");
            }
        }
        // A table of n buckets holds up to 7/8 n.
        let buckets = |capacity: usize| (capacity as u64 * 8 / 7).next_power_of_two();
        let taken = tested.entries.capacity() as u64 * 48
            + buckets(tested.places.capacity()) * 37
            + tested.ghosts.order.capacity() as u64 * 8
            + buckets(tested.ghosts.numbers.capacity()) * 17;
        assert!(tested.ghosts.order.len() > 60_000, "the names of many are remembered");
        assert!(taken <= (u64::from(kept) + 1) * ENTRY_BYTES_MAX, "{taken}");
    }
}
