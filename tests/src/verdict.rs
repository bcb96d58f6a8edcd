// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ledger held against the segments: is everything acknowledged there, and nothing wrong?
//!
//! - Each acknowledgement names a record; the log must have it, saying the same. It may lack it
//!   only where the oldest segments went, and then for an object that somebody asked to release, or
//!   of which compaction says the same again.
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
    let restated = Restated::of(log);
    for entry in entries {
        if let Some(sequence) = entry.acked {
            verdict.acked += 1;
            verdict.look_for(&entry.deed, sequence, &owed, log, &restated);
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

    fn look_for(
        &mut self,
        deed: &Deed,
        sequence: u64,
        owed: &Owed,
        log: &Log,
        restated: &Restated<'_>,
    ) {
        let is_kept = owed.kept.contains(&deed.name());
        match log.record(sequence) {
            Some(record) if says(&record.word, deed) => {}
            Some(record) => {
                let word = &record.word;
                self.wrong.push(format!("record {sequence} is {word:?}, acknowledged: {deed:?}"));
            }
            None if sequence < log.first && (!is_kept || restated.says(deed, owed)) => {}
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
                Word::Restated { object, slots, leases } => {
                    let is_asked = |lease: &Name| asked.commits.contains(&(*lease, *object));
                    // In the trash nothing covers it any more.
                    let is_slot = |(index, shard): &(u64, Hash)| {
                        let of = |lease: &Name| asked.slots.contains(&(*lease, *index, *shard));
                        leases.is_empty() || leases.iter().any(of)
                    };
                    leases.iter().all(is_asked) && slots.iter().all(is_slot)
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

/// What compaction says again: of objects, and of the leases that cover them.
#[derive(Default)]
struct Restated<'l> {
    slots: HashSet<(&'l Hash, u64, &'l Hash)>,
    covers: HashSet<(&'l Hash, &'l Name)>,
}

impl<'l> Restated<'l> {
    fn of(log: &'l Log) -> Self {
        let mut restated = Self::default();
        for record in &log.records {
            let Word::Restated { object, slots, leases } = &record.word else { continue };
            restated.slots.extend(slots.iter().map(|(index, shard)| (object, *index, shard)));
            restated.covers.extend(leases.iter().map(|lease| (object, lease)));
        }
        restated
    }

    /// Whether it is said again what was acknowledged of an object that was committed.
    fn says(&self, deed: &Deed, owed: &Owed) -> bool {
        let name = deed.name();
        let Some(object) = owed.commits.get(&name) else { return false };
        self.covers.contains(&(object, &name))
            && match deed {
                Deed::Put { index, shard, .. } => {
                    self.slots.contains(&(object, u64::from(*index), shard))
                }
                Deed::Root { cid, .. } | Deed::Commit { cid, .. } => cid == object,
                Deed::Release { .. } => false,
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Verdict, judge};
    use crate::ledger::{Deed, Entry};
    use crate::segments::{Log, Payload, Record, Word};

    const NAME: [u8; 16] = [7; 16];

    /// A log of one object of one shard in a file, and the ledger that fits it.
    fn sample(file: &Path) -> (Vec<Entry>, Log) {
        fs::write(file, b"shardroot").expect("a temporary file");
        let (shard, cid) = (*blake3::hash(b"shard").as_bytes(), *blake3::hash(b"root").as_bytes());
        let deeds = [
            Deed::Put { name: NAME, index: 0, shard, len: 5 },
            Deed::Root { name: NAME, cid },
            Deed::Commit { name: NAME, cid },
        ];
        let words = [
            Word::Slot { upload: NAME, stripe: 0, index: 0, shard },
            Word::Block { upload: NAME, cid },
            Word::Commit { upload: NAME, object: cid, lease: NAME },
        ];
        let path = || file.to_owned();
        let record = |word| Record { word, path: path(), start: 0, end: 9 };
        let payloads = [
            (shard, Payload { path: path(), start: 0, len: 5 }),
            (cid, Payload { path: path(), start: 5, len: 4 }),
        ];
        let records = words.map(record).to_vec();
        let log = Log { first: 10, records, payloads: payloads.into() };
        let entries = deeds.into_iter().zip(10..);
        (entries.map(|(deed, at)| Entry { deed, acked: Some(at) }).collect(), log)
    }

    fn verdict(change: impl FnOnce(&mut Vec<Entry>, &mut Log)) -> Verdict {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let (mut entries, mut log) = sample(file.path());
        change(&mut entries, &mut log);
        judge(&entries, &log).expect("the file can be read")
    }

    fn counts(change: impl FnOnce(&mut Vec<Entry>, &mut Log)) -> (usize, usize) {
        let Verdict { lost, wrong, .. } = verdict(change);
        (lost.len(), wrong.len())
    }

    #[test]
    fn a_log_that_fits_is_clean() {
        let verdict = verdict(|_, _| {});
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acked, verdict.hashed), (3, 2));
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        assert_eq!(counts(|_, log| drop(log.records.pop())), (1, 0), "the newest record");
        assert_eq!(counts(|_, log| log.first += 1), (1, 2), "the oldest, and all others move");
        let lose = |log: &mut Log| log.payloads.retain(|_, payload| payload.len == 4);
        assert_eq!(counts(|_, log| lose(log)), (1, 0), "a shard's bytes");
        let unasked = |entries: &mut Vec<Entry>| entries[0].acked = None;
        assert_eq!(counts(|entries, log| (unasked(entries), lose(log)).1), (0, 0));
    }

    #[test]
    fn what_compaction_says_again_stands_for_what_it_removed() {
        let compact = |log: &mut Log, change: fn(&mut Word)| {
            let (object, shard) = match &log.records[..] {
                [Record { word: Word::Slot { shard, .. }, .. }, _, commit] => match &commit.word {
                    Word::Commit { object, .. } => (*object, *shard),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            let slots = vec![(0, shard)];
            let mut word = Word::Restated { object, slots, leases: vec![NAME] };
            change(&mut word);
            log.records.truncate(1);
            log.records[0].word = word;
            log.first = 20;
        };
        assert_eq!(counts(|_, log| compact(log, |_| {})), (0, 0));
        let uncovered = |word: &mut Word| {
            if let Word::Restated { leases, .. } = word {
                leases.clear();
            }
        };
        assert_eq!(counts(|_, log| compact(log, uncovered)), (3, 0), "nothing keeps it");
        let without_slots = |word: &mut Word| {
            if let Word::Restated { slots, .. } = word {
                slots.clear();
            }
        };
        assert_eq!(counts(|_, log| compact(log, without_slots)), (1, 0), "its only slot");
    }

    #[test]
    fn other_bytes_and_other_words_are_wrong() {
        let spoil = |log: &Log| fs::write(&log.records[0].path, b"sharDroot").expect("a file");
        assert_eq!(counts(|_, log| spoil(log)), (0, 1));
        assert_eq!(counts(|entries, _| entries.truncate(2)), (0, 1), "a commit out of nowhere");
        let end = Word::Ended { name: NAME };
        assert_eq!(counts(|_, log| log.records[2].word = end.clone()), (0, 2));
        let release = Entry { deed: Deed::Release { name: NAME }, acked: None };
        assert_eq!(counts(|entries, _| entries.push(release)), (0, 0));
    }
}
