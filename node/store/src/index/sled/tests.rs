// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sled itself would not notice.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{META_KEY, Meta, SledIndex, SledOptions, is_bloated, seal, unseal};
use crate::catalog::KvRead;
use crate::index::{Changes, Index, Mark};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until nobody has the database any more: sled lets go of its file in threads of its own.
fn until_released(path: &Path) {
    let Ok(file) = File::open(path.join("db")) else { return };
    let begun = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(begun.elapsed() < PATIENCE, "somebody still has {}", path.display());
        std::thread::yield_now();
    }
}

fn open(path: &Path) -> Result<SledIndex, super::OpenFailure> {
    until_released(path);
    let timeout = Duration::from_secs(60);
    SledIndex::open(&SledOptions { path: path.to_owned(), cache_bytes: 1 << 20, timeout })
}

fn mark(sequence: u64) -> Mark {
    Mark { sequence, ..Mark::default() }
}

/// Writes two batches; the second changes and removes entries of the first.
fn fill(path: &Path) {
    let index = open(path).expect("a new database");
    let set = |key: u8, value: &str| (vec![key], Some(value.into()));
    index.write(&Changes::from([set(1, "a"), set(2, "b"), set(3, "c")]), mark(3)).expect("sound");
    let second = Changes::from([set(1, "A"), (vec![3], None)]);
    index.write(&second, mark(5)).expect("sound");
    index.checkpoint().expect("a sound disk");
}

/// Does something to the database without the index knowing.
fn tamper(path: &Path, change: impl Fn(&sled::Db)) {
    until_released(path);
    let db = sled::open(path).expect("a sound database");
    change(&db);
    db.flush().expect("a sound disk");
}

#[test]
fn what_was_written_is_there_with_its_mark() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let index = open(directory.path()).expect("sound");
    assert_eq!(index.mark(), mark(5));
    assert_eq!(index.get(&[1]).expect("sound"), Some(b"A".to_vec()));
    assert_eq!(index.get(&[3]).expect("sound"), None);
    assert_eq!(index.range(&[0], &[9], 10).expect("sound").len(), 2, "the figures are no entry");
}

/// Makes the database one of the format before this.
fn age(db: &sled::Db) {
    let stored = db.get(META_KEY).expect("sound").expect("figures");
    let figures = unseal(META_KEY, &stored).expect("their checksum holds");
    let mut meta: Meta = postcard::from_bytes(figures).expect("figures");
    meta.format -= 1;
    let figures = postcard::to_allocvec(&meta).expect("plain figures have an encoding");
    db.insert(META_KEY, seal(META_KEY, &figures)).expect("sound");
}

#[test]
fn an_entry_that_is_lost_stale_foreign_or_damaged_is_noticed() {
    type Change = fn(&sled::Db);
    let changes: [(&str, Change, &str); 7] = [
        ("lost", |db| drop(db.remove([2]).expect("sound")), "content"),
        ("stale", |db| drop(db.insert([1], seal(&[1], b"a")).expect("sound")), "content"),
        ("come back", |db| drop(db.insert([3], seal(&[3], b"c")).expect("sound")), "content"),
        ("damaged", |db| drop(db.insert([2], b"b1234".to_vec()).expect("sound")), "checksum"),
        ("moved", |db| drop(db.insert([2], seal(&[9], b"b")).expect("sound")), "checksum"),
        ("without figures", |db| drop(db.remove(META_KEY).expect("sound")), "meta"),
        ("of an older format", age, "format"),
    ];
    for (what, change, reason) in changes {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fill(directory.path());
        tamper(directory.path(), change);
        let failure = open(directory.path()).err().unwrap_or_else(|| panic!("{what}: unnoticed"));
        assert_eq!(failure.reason, reason, "{what}");
    }
}

#[test]
fn a_value_that_rots_later_is_an_error_not_an_answer() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fill(directory.path());
    let index = open(directory.path()).expect("sound");
    index.db.insert([2], b"b1234".to_vec()).expect("sound");
    assert!(index.get(&[2]).is_err());
    assert!(index.range(&[0], &[9], 10).is_err());
    assert!(index.get(&[1]).is_ok());
}

#[test]
fn what_a_fresh_database_takes_is_no_bloat() {
    // As measured at a million shards: about 5 times the content, right after it was built.
    let content = 200 << 20;
    assert!(!is_bloated(5 * content, content));
    assert!(!is_bloated(8 * content, content), "nor some growth by use");
    assert!(is_bloated(20 * content, content));
    assert!(!is_bloated(64 << 20, 1), "what is small is left alone");
    assert!(is_bloated((64 << 20) + 1, 1));
}
