// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ledger held against the segments: is everything acknowledged there, and nothing wrong?
//!
//! - Each acknowledgement names a record; the log must have it, saying the same. It may lack it only
//!   where the oldest segments went, and then for an object that somebody asked to release.
//! - What is kept has its bytes, and they hash to their names. So have all bytes that are not dead.
//! - Nothing is in the log that nobody asked for; no pin is ended that nobody released.

use std::collections::HashSet;

use crate::ledger::{Deed, Entry, Owed, hex};
use crate::segments::{GONE_GROUP, Hash, Log, Name, Word};

/// What came of the comparison.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Acknowledged, and not there.
    pub lost: Vec<String>,
    /// There, and not what it should be.
    pub wrong: Vec<String>,
    /// Acknowledgements that were looked at.
    pub acked: usize,
    /// Payloads that were hashed.
    pub hashed: usize,
}

/// Compares the two.
///
/// # Errors
/// When a payload cannot be read at all.
pub fn judge(entries: &[Entry], log: &Log) -> Result<Verdict, String> {
    let owed = Owed::of(entries);
    let mut verdict = Verdict::default();
    for entry in entries {
        if let Some(sequence) = entry.acked {
            verdict.acked += 1;
            verdict.look_for(&entry.deed, sequence, &owed, log);
        }
    }
    verdict.look_at_records(entries, &owed, log);
    for (id, payload) in &log.payloads {
        verdict.hashed += 1;
        if !payload.is(id)? {
            verdict.wrong.push(format!("the bytes at {payload:?} are not {}", hex(id)));
        }
    }
    Ok(verdict)
}

impl Verdict {
    /// Whether nothing is lost and nothing wrong.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_empty()
    }

    fn look_for(&mut self, deed: &Deed, sequence: u64, owed: &Owed, log: &Log) {
        let is_kept = owed.kept.contains(&deed.name());
        match log.record(sequence) {
            Some(record) if says(&record.word, deed) => {}
            Some(record) => {
                let word = &record.word;
                self.wrong.push(format!("record {sequence} is {word:?}, acknowledged: {deed:?}"));
            }
            None if sequence < log.first && !is_kept => {}
            None => self.lost.push(format!("record {sequence} of {deed:?}")),
        }
        let bytes = match deed {
            Deed::Put { shard, len, .. } => Some((shard, Some(*len))),
            Deed::Root { cid, .. } => Some((cid, None)),
            Deed::Commit { .. } | Deed::Release { .. } => None,
        };
        if let Some((id, len)) = bytes.filter(|_| is_kept) {
            match log.payloads.get(id) {
                None => self.lost.push(format!("the bytes of {deed:?}")),
                Some(found) if len.is_some_and(|len| len != found.len) => {
                    self.wrong.push(format!("{deed:?} has {} bytes", found.len));
                }
                Some(_) => {}
            }
        }
    }

    /// The other way round: whether somebody asked for what the log says.
    fn look_at_records(&mut self, entries: &[Entry], owed: &Owed, log: &Log) {
        let asked = Asked::of(entries);
        let kept: HashSet<&Hash> = owed.commits.values().collect();
        for record in &log.records {
            let is_fair = match &record.word {
                Word::Slot { upload, stripe: 0, index, shard } => {
                    asked.slots.contains(&(*upload, *index, *shard))
                }
                Word::Slot { .. } => false,
                Word::Block { upload, cid } => asked.roots.contains(&(*upload, *cid)),
                Word::Commit { upload, object, lease } => {
                    upload == lease && asked.commits.contains(&(*upload, *object))
                }
                Word::Ended { name } => asked.releases.contains(name),
                Word::Gone { id, what: GONE_GROUP } => !kept.contains(id),
                Word::Gone { .. } | Word::Other => true,
            };
            if !is_fair {
                self.wrong.push(format!("nobody asked for {record:?}"));
            }
        }
    }
}

/// Everything that was asked, acknowledged or not.
#[derive(Default)]
struct Asked {
    slots: HashSet<(Name, u64, Hash)>,
    roots: HashSet<(Name, Hash)>,
    commits: HashSet<(Name, Hash)>,
    releases: HashSet<Name>,
}

impl Asked {
    fn of(entries: &[Entry]) -> Self {
        let mut asked = Self::default();
        for entry in entries {
            let _is_new = match entry.deed {
                Deed::Put { name, index, shard, .. } => {
                    asked.slots.insert((name, u64::from(index), shard))
                }
                Deed::Root { name, cid } => asked.roots.insert((name, cid)),
                Deed::Commit { name, cid } => asked.commits.insert((name, cid)),
                Deed::Release { name } => asked.releases.insert(name),
            };
        }
        asked
    }
}

/// Whether a record is the one of a deed.
fn says(word: &Word, deed: &Deed) -> bool {
    match (word, deed) {
        (
            Word::Slot { upload, stripe, index, shard },
            Deed::Put { name, index: at, shard: id, .. },
        ) => (upload, *stripe, *index, shard) == (name, 0, u64::from(*at), id),
        (Word::Block { upload, cid }, Deed::Root { name, cid: id }) => (upload, cid) == (name, id),
        (Word::Commit { upload, object, lease }, Deed::Commit { name, cid }) => {
            (upload, lease, object) == (name, name, cid)
        }
        (Word::Ended { name }, Deed::Release { name: released }) => name == released,
        _ => false,
    }
}
