// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the contenders work, and how it is made quiet and cold between their turns.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise, statfs, syncfs};
use tempfile::TempDir;

use crate::stock;

/// Writing `3` to it drops the page cache; only root may.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// A directory that store and fio share.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self { root: stock::directory() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// An empty directory for a store.
    pub fn fresh(&self) -> TempDir {
        tempfile::tempdir_in(self.path()).expect("a place of our own")
    }

    /// Waits until the disk has everything, and drops it from memory.
    pub fn settle(&self) {
        syncfs(File::open(self.path()).expect("a directory")).expect("a working disk");
        forget(self.path());
        // Inodes and the file system's own blocks too, where we may.
        let _ = fs::write(DROP_CACHES, "3");
    }
}

/// Drops the pages of all files in a directory.
fn forget(path: &Path) {
    for entry in fs::read_dir(path).expect("a directory").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => forget(&entry.path()),
            _ => {
                let file = File::open(entry.path()).expect("a file of our own");
                fadvise(file, 0, None, Advice::DontNeed).expect("advice about a file is taken");
            }
        }
    }
}

/// Where figures come from, in a line.
pub fn describe() -> String {
    let place = Place::new();
    let parent = place.path().parent().expect("it was made in one").display().to_string();
    let kind = statfs(place.path()).expect("a file system").f_type;
    let caches = match fs::OpenOptions::new().write(true).open(DROP_CACHES) {
        Ok(_) => "posix_fadvise and drop_caches",
        Err(_) => "posix_fadvise alone (root may drop the file system's own, too)",
    };
    format!("stores and fio in {parent} (file system {}), made cold by {caches}", named(kind))
}

fn named(kind: i64) -> String {
    match kind {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        other => format!("{other:#x}"),
    }
}
