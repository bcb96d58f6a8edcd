// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was asked of a node and what it acknowledged: a file to which each line is only ever
//! appended, before the request is sent and after its answer has come.
//!
//! It lies outside the node's directory, and who judges reads the file rather than any memory of
//! the writers. A deed without an acknowledgement may have been done, and may not.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::segments::{Hash, Name};

/// One thing asked of a node. An object has one stripe, and one name for its upload and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A shard under an upload.
    Put {
        /// The object's.
        name: Name,
        /// Its place in the stripe.
        index: u16,
        /// Its own name.
        shard: Hash,
        /// Its bytes.
        len: u64,
    },
    /// A manifest root under an upload.
    Root {
        /// The object's.
        name: Name,
        /// The root's own name, and the object's on the network.
        cid: Hash,
    },
    /// The upload becomes an object that a pin keeps.
    Commit {
        /// The object's.
        name: Name,
        /// The root's.
        cid: Hash,
    },
    /// The pin ends, or the upload where there is none yet.
    Release {
        /// The object's.
        name: Name,
    },
}

impl Deed {
    /// Which object it is about.
    pub fn name(&self) -> Name {
        match self {
            Self::Put { name, .. }
            | Self::Root { name, .. }
            | Self::Commit { name, .. }
            | Self::Release { name } => *name,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Put { name, index, shard, len } => {
                format!("put {} {index} {} {len}", hex(name), hex(shard))
            }
            Self::Root { name, cid } => format!("root {} {}", hex(name), hex(cid)),
            Self::Commit { name, cid } => format!("commit {} {}", hex(name), hex(cid)),
            Self::Release { name } => format!("release {}", hex(name)),
        }
    }

    fn parse(words: &[&str]) -> Option<Self> {
        Some(match *words {
            ["put", name, index, shard, len] => {
                let (index, len) = (index.parse().ok()?, len.parse().ok()?);
                Self::Put { name: bytes(name)?, index, shard: bytes(shard)?, len }
            }
            ["root", name, cid] => Self::Root { name: bytes(name)?, cid: bytes(cid)? },
            ["commit", name, cid] => Self::Commit { name: bytes(name)?, cid: bytes(cid)? },
            ["release", name] => Self::Release { name: bytes(name)? },
            _ => return None,
        })
    }
}

/// A deed and the number of the record that the node named when it acknowledged it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was asked.
    pub deed: Deed,
    /// The node's word.
    pub acked: Option<u64>,
}

/// The file, being written.
#[derive(Debug)]
pub struct Ledger {
    open: Mutex<(File, usize)>,
    /// Whether each line is on the disk before anybody goes on.
    is_synced: bool,
}

impl Ledger {
    /// Goes on with a ledger, or begins one.
    ///
    /// # Panics
    /// If the file cannot be opened, or is no ledger.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.expect("a ledger in a temporary directory");
        Self { open: Mutex::new((file, read(path).len())), is_synced: false }
    }

    /// The same for a system that may lose its memory.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub fn synced(path: &Path) -> Self {
        Self { is_synced: true, ..Self::open(path) }
    }

    /// Notes what is about to be asked; the number is for [`Self::acked`].
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn asked(&self, deed: &Deed) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut open.0, &format!("ask {}", deed.text()));
        open.1 += 1;
        open.1 - 1
    }

    /// Notes that it was acknowledged.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn acked(&self, number: usize, sequence: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut open.0, &format!("ack {number} {sequence}"));
    }

    fn write(&self, file: &mut File, line: &str) {
        writeln!(file, "{line}").expect("the ledger takes a line");
        if self.is_synced {
            file.sync_data().expect("the ledger is kept");
        }
    }
}

/// What a ledger says, in the order of asking.
///
/// # Panics
/// If the file cannot be read, or is no ledger.
pub fn read(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).expect("the ledger can be read");
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match &words[..] {
            ["ask", deed @ ..] => {
                let deed = Deed::parse(deed).unwrap_or_else(|| panic!("no deed: {line}"));
                entries.push(Entry { deed, acked: None });
            }
            ["ack", number, sequence] => {
                let number: usize = number.parse().expect("acks name an entry");
                entries[number].acked = Some(sequence.parse().expect("acks name a record"));
            }
            _ => panic!("no line of a ledger: {line}"),
        }
    }
    entries
}

/// What a node owes by a ledger.
#[derive(Debug, Default)]
pub struct Owed {
    /// Objects of which everything acknowledged must be there: nobody asked to release them.
    pub kept: HashSet<Name>,
    /// Objects whose release was acknowledged.
    pub released: HashSet<Name>,
    /// Acknowledged commits of what is kept, with their object.
    pub commits: HashMap<Name, Hash>,
    /// All shards that were ever sent, with their length and whether they must be there.
    pub shards: HashMap<Hash, (u64, bool)>,
}

impl Owed {
    /// Sums a ledger up.
    pub fn of(entries: &[Entry]) -> Self {
        let mut owed = Self::default();
        owed.kept.extend(entries.iter().map(|it| it.deed.name()));
        for entry in entries {
            if let Deed::Release { name } = entry.deed {
                owed.kept.remove(&name);
                if entry.acked.is_some() {
                    owed.released.insert(name);
                }
            }
        }
        for Entry { deed, acked } in entries {
            let is_owed = acked.is_some() && owed.kept.contains(&deed.name());
            match deed {
                Deed::Put { shard, len, .. } => {
                    owed.shards.entry(*shard).or_insert((*len, false)).1 |= is_owed;
                }
                Deed::Commit { name, cid } if is_owed => {
                    owed.commits.insert(*name, *cid);
                }
                _ => {}
            }
        }
        owed
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes more text");
        text
    })
}

fn bytes<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let digits = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes?.try_into().ok()
}
