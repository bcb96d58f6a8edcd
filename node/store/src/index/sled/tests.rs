// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sled itself would not notice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::rewrite::{Copy, SLICE};
use super::{
    BLOAT_BYTES_MIN, META_KEY, Meta, SledIndex, SledOptions, WRITES_BETWEEN_LOOKS, is_bloated,
    seal, unseal,
};
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
    index.db().insert([2], b"b1234".to_vec()).expect("sound");
    assert!(index.get(&[2]).is_err());
    assert!(index.range(&[0], &[9], 10).is_err());
    assert!(index.get(&[1]).is_ok());
}

#[test]
fn what_a_fresh_database_takes_is_no_bloat() {
    // As measured at a million shards: about 5 times the content, right after it was built.
    let content = 200 << 20;
    assert!(!is_bloated(5 * content, content, BLOAT_BYTES_MIN));
    assert!(!is_bloated(8 * content, content, BLOAT_BYTES_MIN), "nor some growth by use");
    assert!(is_bloated(20 * content, content, BLOAT_BYTES_MIN));
    assert!(!is_bloated(64 << 20, 1, BLOAT_BYTES_MIN), "what is small is left alone");
    assert!(is_bloated((64 << 20) + 1, 1, BLOAT_BYTES_MIN));
}

/// Which file the database is in.
fn inode(index: &SledIndex) -> u64 {
    fs::metadata(index.options.path.join("db")).expect("its file").ino()
}

/// Writes, over and over, a few keys of many, and holds every answer against a plain map. Every
/// `copy_every` writes the database begins to be written anew. Returns how often it was.
fn churn(index: &SledIndex, model: &mut Model, writes: u64, copy_every: u64) -> usize {
    let (mut rewritten, mut before) = (0, inode(index));
    for number in 1..=writes {
        let mut draw = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let mut next = || {
            let mut bytes = [0; 2];
            draw.fill(&mut bytes);
            u16::from_le_bytes(bytes) % 6000
        };
        let mut changes = Changes::new();
        for _ in 0..20 {
            let key = [&[b'k'][..], &next().to_be_bytes()].concat();
            let value = (next() % 3 > 0).then(|| [&number.to_le_bytes()[..], &[7; 40]].concat());
            match &value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(&key)),
            }
            changes.insert(key, value);
        }
        if number % copy_every == 0 {
            begin_copy(index);
        }
        index.write(&changes, mark(number)).expect("sound");
        for (key, value) in &changes {
            assert_eq!(index.get(key).expect("sound"), *value, "write {number}");
        }
        rewritten += usize::from(before != inode(index));
        before = inode(index);
    }
    rewritten
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn begin_copy(index: &SledIndex) {
    let copy = Copy::begin(&index.options.path, index.options.cache_bytes);
    index.upkeep.lock().copy = Some(copy.expect("a sound disk"));
}

fn all(index: &SledIndex) -> Vec<(Vec<u8>, Vec<u8>)> {
    index.range(&[0], &[0xff], usize::MAX).expect("sound")
}

#[test]
fn a_database_is_written_anew_while_it_is_written_to() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("index");
    let index = open(&path).expect("a new database");
    let mut model = Model::new();
    assert_eq!(churn(&index, &mut model, 1210, 100), 12);
    assert_eq!(all(&index), model.into_iter().collect::<Vec<_>>());
    assert_eq!(index.upkeep.lock().content_bytes, content_of(&index));
    index.checkpoint().expect("a sound disk");
    let (before, mark) = (all(&index), index.mark());
    drop(index);
    // Opening compares all entries with their figures.
    let index = open(&path).expect("sound");
    assert_eq!((all(&index), index.mark()), (before, mark));
}

#[test]
fn what_has_grown_far_beyond_its_content_is_written_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut index = open(&directory.path().join("index")).expect("a new database");
    index.bloat_bytes_min = 1;
    let entry = |number: u32, value| (number.to_be_bytes().to_vec(), value);
    let many: Changes = (1..20_000).map(|number| entry(number, Some(vec![1; 50]))).collect();
    index.write(&many, mark(1)).expect("sound");
    let few: Changes = (11..20_000).map(|number| entry(number, None)).collect();
    index.write(&few, mark(2)).expect("sound");
    let (before, first) = (index.disk_bytes().expect("its file"), inode(&index));
    for number in 0..=WRITES_BETWEEN_LOOKS {
        assert_eq!(inode(&index), first, "write {number}");
        index.write(&Changes::new(), mark(3)).expect("sound");
        if inode(&index) != first {
            break;
        }
    }
    assert_ne!(inode(&index), first);
    let after = index.disk_bytes().expect("its file");
    assert!(after < before, "{before} bytes before, {after} after");
    assert_eq!(all(&index).len(), 10);
    let left: Vec<_> = fs::read_dir(directory.path()).expect("a directory").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

fn content_of(index: &SledIndex) -> u64 {
    let entries = index.db().iter().map(|pair| pair.expect("sound"));
    let entries = entries.filter(|(key, _)| key != META_KEY);
    entries.map(|(key, stored)| (key.len() + stored.len()) as u64).sum()
}

#[test]
fn a_copy_that_was_interrupted_is_gone_and_the_old_database_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("index");
    let index = open(&path).expect("a new database");
    let mut model = Model::new();
    churn(&index, &mut model, 1000, u64::MAX);
    assert!(model.len() > SLICE, "more than one slice");
    let fresh = directory.path().join("index.new");
    begin_copy(&index);
    index.write(&Changes::new(), mark(1001)).expect("sound");
    assert!(fresh.is_dir() && index.upkeep.lock().copy.is_some(), "in the middle of it");
    index.checkpoint().expect("a sound disk");
    drop(index);

    until_released(&fresh);
    let index = open(&path).expect("sound");
    assert!(!fresh.exists());
    assert_eq!(all(&index), model.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_copy_that_cannot_take_its_place_harms_nothing_and_is_tried_again_later() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("index");
    let mut index = open(&path).expect("a new database");
    let mut model = Model::new();
    churn(&index, &mut model, 100, u64::MAX);
    begin_copy(&index);
    // What is never there otherwise: a value so long that sled gives it a file of its own.
    let blob = directory.path().join("index.new/blobs/1");
    fs::write(&blob, b"a value").expect("an own directory");
    let first = inode(&index);
    index.write(&Changes::new(), mark(101)).expect("the write itself succeeds");
    assert_eq!(inode(&index), first);
    assert!(!directory.path().join("index.new").exists());
    // Nothing is left, so that any size is too much.
    index.bloat_bytes_min = 0;
    let none = std::mem::take(&mut model).into_keys().map(|key| (key, None)).collect();
    index.write(&none, mark(102)).expect("sound");
    for _ in 0..WRITES_BETWEEN_LOOKS + 2 {
        index.write(&Changes::new(), mark(102)).expect("sound");
    }
    assert_eq!(inode(&index), first, "it is not tried over and over");
    for _ in 0..WRITES_BETWEEN_LOOKS + 8 {
        index.write(&Changes::new(), mark(102)).expect("sound");
    }
    assert_ne!(inode(&index), first, "whatever was in its way may be gone");
    index.checkpoint().expect("a sound disk");
    drop(index);
    let index = open(&path).expect("sound");
    assert_eq!(all(&index), model.into_iter().collect::<Vec<_>>());
}
