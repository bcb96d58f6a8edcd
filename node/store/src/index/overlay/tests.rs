// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layers against one plain map, and what readers see while a layer moves.

use std::sync::{Arc, OnceLock, Weak};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Overlay;
use crate::catalog::{IndexError, Kv, KvRead, Pairs};
use crate::index::{Changes, Index, MapKv, Mark, MemoryIndex};

fn mark(sequence: u64) -> Mark {
    Mark { sequence, ..Mark::default() }
}

fn put(overlay: &Overlay, key: &[u8], value: &[u8]) {
    let mut staged = overlay.stage();
    staged.put(key.to_vec(), value.to_vec());
    overlay.add_unsynced(staged.into_changes());
}

#[test]
fn layers_over_a_database_read_like_one_map() {
    for seed in 0..50 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let overlay = Overlay::new(Arc::new(MemoryIndex::default()), false);
        let (mut published, mut newest) = (MapKv::default(), MapKv::default());
        for step in 1..200 {
            match random.random_range(0..10) {
                0..7 => {
                    let mut staged = overlay.stage();
                    for _ in 0..random.random_range(1..4) {
                        let key = vec![random.random_range(0..24_u8)];
                        if random.random_bool(0.4) {
                            staged.delete(key.clone());
                            newest.delete(key);
                        } else {
                            let value = vec![random.random_range(0..9_u8)];
                            staged.put(key.clone(), value.clone());
                            newest.put(key, value);
                        }
                    }
                    compare(&staged, &newest, &mut random, seed);
                    overlay.add_unsynced(staged.into_changes());
                }
                7 => {
                    overlay.publish(mark(step));
                    published = newest.clone();
                }
                8 => drop(overlay.flush().expect("a map in memory")),
                _ => {
                    overlay.drop_unsynced();
                    newest = published.clone();
                }
            }
            compare(&overlay, &published, &mut random, seed);
            compare(&overlay.stage(), &newest, &mut random, seed);
        }
    }
}

fn compare(layered: &impl KvRead, plain: &MapKv, random: &mut ChaCha8Rng, seed: u64) {
    let (from, to) = (random.random_range(0..24_u8), random.random_range(0..26_u8));
    let limit = random.random_range(0..8);
    let read = layered.range(&[from], &[to], limit).expect("a map in memory");
    let expected = plain.range(&[from], &[to], limit).expect("a map in memory");
    assert_eq!(read, expected, "seed {seed}: {from}..{to}, at most {limit}");
    let key = [random.random_range(0..24_u8)];
    assert_eq!(layered.get(&key), plain.get(&key), "seed {seed}: {key:?}");
}

/// A database that reads through the overlay while it is being written.
#[derive(Default)]
struct Curious {
    below: MemoryIndex,
    overlay: OnceLock<Weak<Overlay>>,
    fails: bool,
}

impl KvRead for Curious {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.below.get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        self.below.range(start, end, limit)
    }
}

impl Index for Curious {
    fn write(&self, changes: &Changes, mark: Mark) -> Result<(), IndexError> {
        if self.fails {
            return Err(IndexError::new("a broken database"));
        }
        let overlay = self.overlay.get().and_then(Weak::upgrade).expect("set by the test");
        let see_all = || {
            for (key, value) in changes {
                assert_eq!(overlay.get(key).expect("readable"), *value);
            }
            let all = overlay.range(&[0], &[255], 100).expect("readable");
            assert_eq!(all.len(), changes.values().flatten().count());
        };
        see_all();
        // Half of the batch is in the database: readers still see all of it.
        let half = changes.iter().take(changes.len() / 2);
        let half = half.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.below.write(&half, mark)?;
        see_all();
        self.below.write(changes, mark)
    }

    fn mark(&self) -> Mark {
        self.below.mark()
    }

    fn checkpoint(&self) -> Result<(), IndexError> {
        Ok(())
    }
}

#[test]
fn nothing_is_missed_while_a_layer_moves_to_the_database() {
    let index = Arc::new(Curious::default());
    let overlay = Arc::new(Overlay::new(Arc::clone(&index) as Arc<dyn Index>, false));
    index.overlay.set(Arc::downgrade(&overlay)).expect("set once");
    (0..10).for_each(|key| put(&overlay, &[key], b"value"));
    overlay.publish(mark(10));
    assert!(overlay.flush().expect("a map in memory"));
    assert_eq!(overlay.pending_entries(), 0);
    assert_eq!(index.mark(), mark(10));
    assert!(!overlay.flush().expect("nothing to do"));
}

#[test]
fn a_failing_database_costs_no_entry_and_in_the_end_the_writer_waits() {
    let index = Arc::new(Curious { fails: true, ..Curious::default() });
    let overlay = Overlay::new(index, false);
    put(&overlay, b"a", b"1");
    overlay.publish(mark(1));
    overlay.flush().expect_err("a broken database");
    put(&overlay, b"a", b"2");
    overlay.publish(mark(2));
    overlay.flush().expect_err("a broken database");
    assert_eq!(overlay.get(b"a").expect("from memory"), Some(b"2".to_vec()));
    let short = std::time::Duration::from_millis(1);
    assert!(overlay.wait_for_room(short));
    let many = u32::try_from(super::PENDING_ENTRIES_MAX).expect("a small number");
    let many = (0..many).map(|key| (key.to_be_bytes().to_vec(), Some(Vec::new()))).collect();
    overlay.add_unsynced(many);
    overlay.publish(mark(3));
    assert!(!overlay.wait_for_room(short));
}

#[test]
fn relaxed_readers_see_what_is_written_and_not_durable_yet() {
    for relaxed in [false, true] {
        let overlay = Overlay::new(Arc::new(MemoryIndex::default()), relaxed);
        put(&overlay, b"a", b"1");
        assert!(overlay.get(b"a").expect("from memory").is_none(), "it cannot be read back");
        overlay.note_written();
        assert_eq!(overlay.get(b"a").expect("from memory").is_some(), relaxed);
        put(&overlay, b"b", b"1");
        overlay.drop_unsynced();
        assert!(overlay.get(b"a").expect("from memory").is_none(), "refused after all");
        put(&overlay, b"a", b"2");
        overlay.note_written();
        overlay.publish(mark(1));
        assert!(overlay.get(b"a").expect("from memory").is_some());
    }
}
