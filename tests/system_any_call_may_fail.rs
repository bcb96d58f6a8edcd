// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fixed script is sent to a real node whose system calls fail one at a time: it is killed at
//! each call that writes, each fdatasync fails, and each write meets a full disk, once or from then
//! on. Whatever it acknowledged is there afterwards, and nothing wrong is.
//!
//! - Every point starts from a copy of one directory that a kill has left, most of which is
//!   released: so recovery, sealing, holes and the removal of segments are in the script too.
//! - The points are the calls that a run without faults makes. `SUPERNODE_POINTS` says how many of
//!   them are tried, a number or `all`; those tried first are of as many kinds as there are.
//! - strace counts calls by thread, and a thread may make fewer of them in another run: a point
//!   that was not reached is a run without a fault, and is counted as such.
//!
//! What strace saw is judged as well: no descriptor whose sync has failed is synced again, and no
//! record that was acknowledged lies in bytes that no sync has covered since they were written.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use supernode_client::{ClientError, Peer};
use supernode_tests::eventually::eventually;
use supernode_tests::ledger::{self, Entry, Ledger, Owed};
use supernode_tests::load::{Door, Object, Recipe};
use supernode_tests::lone::{Lone, Running};
use supernode_tests::program::Program;
use supernode_tests::random::Seeded;
use supernode_tests::segments::{Hash, Log};
use supernode_tests::strace::{self, Call, Fault};
use supernode_tests::verdict::judge;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const POINTS: usize = 50;
/// Of the points tried, at least so many in a hundred must be reached.
const REACHED_PERCENT: usize = 75;
/// A long run says how far it is after so many points.
const TOLD_EVERY: usize = 100;
/// Of what is wrong after one point, so much is shown.
const FAULTS_SHOWN: usize = 5;
/// A script that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const SHARD_BYTES: RangeInclusive<u64> = 4096..=1 << 17;
/// Those of the start fill more than a segment, of which then nothing is left.
const SHARD_BYTES_BEFORE: RangeInclusive<u64> = 1 << 16..=1 << 17;
const SETTINGS: [&str; 3] =
    ["storage.segment_bytes_max=1MiB", "storage.reserve_bytes=0", "storage.trash_secs=1h"];
/// What is released is freed at the next second.
const NO_TRASH: &str = "storage.trash_secs=0";
/// Objects in the directory that each point starts from.
const OBJECTS_BEFORE: u64 = 16;
/// The oldest that is kept. All before it are released, whose segments go; and the one after it,
/// which becomes holes.
const OLDEST_KEPT: u64 = 12;
/// Objects of the script, every third of which is released again.
const OBJECTS: u64 = 9;
/// Segments that are looked at by name; the script begins fewer, unless the disk stays full.
const SEGMENTS_MAX: u32 = 100;

/// Files that belong together, and the calls that change them.
struct Part {
    files: fn(&Path) -> Vec<PathBuf>,
    calls: &'static [&'static str],
    /// Those of the calls that change no other files.
    own_calls: &'static [&'static str],
    faults: &'static [(&'static str, &'static str)],
}

/// The log, for which a call may also fail; and all else, which a kill may leave in any state.
const PARTS: [Part; 2] = [
    Part {
        files: log_files,
        calls: &["openat", "pwritev", "fdatasync", "fsync", "fallocate", "unlink"],
        own_calls: &["pwritev", "fdatasync", "fallocate"],
        faults: &[
            ("pwritev", "error=ENOSPC"),
            ("fallocate", "error=ENOSPC"),
            ("openat", "error=ENOSPC"),
            ("fdatasync", "error=EIO"),
            ("fsync", "error=EIO"),
        ],
    },
    Part {
        files: other_files,
        calls: &["openat", "write", "pwrite64", "fsync", "sync_file_range", "ftruncate", "rename"],
        own_calls: &[],
        faults: &[],
    },
];

fn log_files(dir: &Path) -> Vec<PathBuf> {
    let segments = (1..=SEGMENTS_MAX).map(|number| dir.join(format!("{number:010}.seg")));
    segments.chain([dir.to_owned()]).collect()
}

fn other_files(dir: &Path) -> Vec<PathBuf> {
    let names = ["index", "index/db", "index/conf", "index/blobs", "lock", "node-record.sequence"];
    let new = dir.join("node-record.sequence.new");
    names.iter().map(|name| dir.join(name)).chain([new]).collect()
}

/// A call of one part that fails in one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    part: usize,
    fault: Fault,
}

/// What came of a point.
struct Outcome {
    calls: Vec<Call>,
    is_reached: bool,
    /// What is not as it should be.
    faults: Vec<String>,
}

struct Stage {
    runtime: Runtime,
    scratch: TempDir,
    seed: u64,
    node: Lone,
    ledger: PathBuf,
}

impl Stage {
    /// Makes the directory that every point starts from.
    fn set(seed: u64) -> Self {
        let scratch = tempfile::Builder::new().prefix("supernode-test-").tempdir();
        let scratch = scratch.expect("a temporary directory");
        let program = Program::new(PROGRAM, &scratch.path().join("home"));
        let node = Lone::init(&program, &scratch.path().join("start"), &SETTINGS);
        let runtime = Runtime::new().expect("a runtime");
        let ledger = scratch.path().join("start.ledger");
        let stage = Self { runtime, scratch, seed, node, ledger };
        let mut process = stage.node.start(&[], &[]);
        let peer = process.up().expect("a new node comes up");
        stage.runtime.block_on(async {
            let door = Door::new(&peer, &stage.node.writer, &Arc::new(Ledger::open(&stage.ledger)));
            for number in 0..OBJECTS_BEFORE {
                door.store(&stage.object(number)).await.expect("nothing fails yet");
            }
            for number in (0..OLDEST_KEPT).chain([OLDEST_KEPT + 1]) {
                door.release(stage.object(number).name).await.expect("nothing fails yet");
            }
        });
        process.kill();
        stage.begin_to_free();
        stage
    }

    /// Lets the node bury what was released, until it is about to remove the first segment: each
    /// point then has that and the holes before it, however fast the machine is.
    fn begin_to_free(&self) {
        let (call, what) = ("unlink".to_owned(), "signal=KILL");
        let fault = Fault { call, what, when: 1, is_lasting: false };
        let log = self.scratch.path().join("start.strace");
        let words = strace::words(&log, &["unlink"], &log_files(self.node.dir()), Some(&fault));
        let mut process = self.node.start(&words, &[NO_TRASH]);
        eventually("the first segment to go", PATIENCE, || process.status());
    }

    fn object(&self, number: u64) -> Object {
        let is_sharing = number >= OBJECTS_BEFORE;
        let shard_bytes = if is_sharing { SHARD_BYTES } else { SHARD_BYTES_BEFORE };
        Recipe { seed: self.seed, shard_bytes, is_sharing }.object(number)
    }

    /// Runs the script on a copy of the directory, and looks at everything afterwards.
    fn run(&self, part: usize, fault: Option<&Fault>) -> Outcome {
        let dir = self.scratch.path().join("point");
        let node = self.node.copied_to(&dir);
        let ledger = self.scratch.path().join("point.ledger");
        fs::copy(&self.ledger, &ledger).expect("an own directory");
        let first = ledger::read(&ledger).len();

        let log = self.scratch.path().join("point.strace");
        let Part { files, calls, own_calls, .. } = &PARTS[part];
        let looked_at: Vec<&str> = calls.iter().copied().chain(["close"]).collect();
        // A full disk takes more segments than anybody can name; then all files are looked at.
        let is_own = fault.is_some_and(|fault| own_calls.contains(&&*fault.call));
        let files = if is_own { Vec::new() } else { files(&dir) };
        let words = strace::words(&log, &looked_at, &files, fault);
        let mut process = node.start(&words, &[NO_TRASH]);
        let mut faults = Vec::new();
        match process.up() {
            Some(peer) => faults.extend(self.play(&mut process, &node, &peer, &ledger)),
            None => drop(eventually("the end of strace", PATIENCE, || process.status())),
        }
        let has_died = process.status().is_some();
        process.kill();

        let calls = strace::calls(&fs::read_to_string(&log).expect("strace has a log"));
        let is_injected = calls.iter().any(Call::is_injected);
        let is_reached = fault.is_some_and(|fault| is_injected || fault.is_kill() && has_died);
        faults.extend(synced_again(&calls));
        faults.extend(self.look(&node, &ledger, |entries, log| {
            let is_seen = |path: &Path| is_own || files.iter().any(|file| file == path);
            never_synced(&calls, &entries[first..], log, is_seen)
        }));
        faults.extend(self.go_on(&node, &ledger));
        fs::remove_dir_all(&dir).expect("an own directory");
        Outcome { calls, is_reached, faults }
    }

    /// Sends the script until its end or the node's.
    fn play(
        &self,
        process: &mut Running,
        node: &Lone,
        peer: &Peer,
        ledger: &Path,
    ) -> Option<String> {
        let objects = OBJECTS_BEFORE..OBJECTS_BEFORE + OBJECTS;
        let objects: Vec<Object> = objects.map(|number| self.object(number)).collect();
        let old = self.object(OLDEST_KEPT);
        let door = {
            let _inside = self.runtime.enter();
            Door::new(peer, &node.writer, &Arc::new(Ledger::open(ledger)))
        };
        let script = self.runtime.spawn(script(door, objects, old));
        eventually("the end of the script", PATIENCE, || {
            (script.is_finished() || process.status().is_some()).then_some(())
        });
        if process.status().is_some() {
            script.abort();
            return None;
        }
        self.runtime.block_on(script).expect("the script does not panic")
    }

    /// Holds the ledger against the segments.
    fn look(
        &self,
        node: &Lone,
        ledger: &Path,
        more: impl FnOnce(&[Entry], &Log) -> Vec<String>,
    ) -> Vec<String> {
        let entries = ledger::read(ledger);
        let log = match Log::read(node.dir()) {
            Ok(log) => log,
            Err(fault) => return vec![fault],
        };
        let verdict = judge(&entries, &log).expect("payloads can be read");
        let mut faults = more(&entries, &log);
        faults.extend(verdict.lost.into_iter().map(|lost| format!("lost: {lost}")));
        faults.extend(verdict.wrong.into_iter().map(|wrong| format!("wrong: {wrong}")));
        faults
    }

    /// Starts the node without faults: it gives back what it owes, takes more, and stops in order.
    fn go_on(&self, node: &Lone, ledger: &Path) -> Vec<String> {
        let mut process = node.start(&[], &[]);
        let Some(peer) = process.up() else {
            return vec![format!("it does not start again: {}", process.last_word())];
        };
        let faults = self.runtime.block_on(async {
            let door = Door::new(&peer, &node.writer, &Arc::new(Ledger::open(ledger)));
            let owed = Owed::of(&ledger::read(ledger));
            let shards: Vec<Hash> = owed.shards.keys().copied().collect();
            let mut faults = door.read_pins(&owed).await;
            faults.extend(door.read_shards(&owed, &shards).await);
            let later = self.object(OBJECTS_BEFORE + OBJECTS);
            if let Err(error) = door.store(&later).await {
                faults.push(format!("it takes nothing any more: {error}"));
            }
            door.close().await;
            faults
        });
        process.stop();
        let after = self.look(node, ledger, |_, _| Vec::new());
        faults.into_iter().chain(after).collect()
    }

    /// All calls of a run without faults, each with all that may happen to it.
    fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for (part, Part { calls, faults, .. }) in PARTS.iter().enumerate() {
            let outcome = self.run(part, None);
            assert_eq!(outcome.faults, [""; 0], "without any fault");
            let mut counts: HashMap<(u32, &str), usize> = HashMap::new();
            for call in &outcome.calls {
                *counts.entry((call.thread, &call.name)).or_default() += 1;
            }
            for call in *calls {
                let counts = counts.iter().filter(|((_, name), _)| name == call);
                let count = counts.map(|(_, count)| *count).max().unwrap_or(0);
                assert!(part > 0 || count > 0, "the script makes no {call}");
                let errors = faults.iter().filter(|(name, _)| name == call);
                let kinds = errors.flat_map(|(_, what)| [(*what, false), (*what, true)]);
                for (what, is_lasting) in kinds.chain([("signal=KILL", false)]) {
                    let call = (*call).to_owned();
                    let fault = |when| Fault { call: call.clone(), what, when, is_lasting };
                    points.extend((1..=count).map(|when| Point { part, fault: fault(when) }));
                }
            }
        }
        points
    }
}

/// Stores objects, and releases some of them and one of the old ones. What the node refuses is left
/// out; without a node there is no end. Says what is wrong with the end.
async fn script(door: Door, objects: Vec<Object>, old: Object) -> Option<String> {
    for (at, object) in objects.iter().enumerate() {
        let stored = door.store(object).await;
        let released = match at % 3 {
            0 => door.release(object.name).await.map(drop),
            1 if at == 4 => door.release(old.name).await.map(drop),
            _ => Ok(()),
        };
        let failed = [stored, released].into_iter().filter_map(Result::err);
        if let Some(error) = failed.into_iter().find(|error| error.code().is_none()) {
            return Some(unanswered(&error));
        }
    }
    door.close().await;
    None
}

fn unanswered(error: &ClientError) -> String {
    format!("the node lives and does not answer: {error}")
}

/// Syncs of a descriptor after one of them failed: the system forgets what it could not write, so
/// a second one that succeeds says nothing.
fn synced_again(calls: &[Call]) -> Vec<String> {
    let mut failed: HashMap<&str, &Call> = HashMap::new();
    let mut faults = Vec::new();
    for call in calls {
        if call.name == "close" {
            failed.remove(call.file());
        } else if call.is_sync() {
            if let Some(first) = failed.get(call.file()) {
                faults.push(format!("{call:?} repeats {first:?}"));
            }
            if call.has_failed() {
                failed.insert(call.file(), call);
            }
        }
    }
    faults
}

/// Acknowledged records that lie in bytes of which no sync has told since they were written that
/// they are on the disk.
fn never_synced(
    calls: &[Call],
    acked: &[Entry],
    log: &Log,
    is_seen: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let mut waiting: HashMap<PathBuf, Vec<Range<u64>>> = HashMap::new();
    let mut synced: HashMap<PathBuf, Vec<Range<u64>>> = HashMap::new();
    for call in calls {
        let Some(path) = call.path() else { continue };
        if let Some(written) = call.written() {
            waiting.entry(path).or_default().push(written);
        } else if call.is_sync() {
            let told = waiting.remove(&path).unwrap_or_default();
            if !call.has_failed() {
                synced.entry(path).or_default().extend(told);
            }
        }
    }
    let sequences = acked.iter().filter_map(|entry| entry.acked);
    let records = sequences.filter_map(|sequence| log.record(sequence));
    let records = records.filter(|record| is_seen(&record.path));
    let is_synced = |path: &Path, bytes: Range<u64>| {
        let told = synced.get(path).map(Vec::as_slice).unwrap_or_default();
        told.iter().any(|told| told.start <= bytes.start && bytes.end <= told.end)
    };
    let never = records.filter(|record| !is_synced(&record.path, record.start..record.end));
    never.map(|record| format!("acknowledged and never synced: {record:?}")).collect()
}

/// As many as are wanted, of as many kinds as there are.
fn chosen(points: Vec<Point>, random: &mut Seeded) -> Vec<Point> {
    let wanted = env::var("SUPERNODE_POINTS").ok();
    let wanted = match wanted.as_deref() {
        None => POINTS,
        Some("all") => points.len(),
        Some(text) => text.parse().expect("SUPERNODE_POINTS is a number or `all`"),
    };
    let mut ranks: BTreeMap<(usize, String, &str, bool), usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Point)> = random
        .shuffled(points)
        .into_iter()
        .map(|point| {
            let Fault { call, what, is_lasting, .. } = &point.fault;
            let rank = ranks.entry((point.part, call.clone(), what, *is_lasting)).or_default();
            *rank += 1;
            (*rank, point)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, point)| point).take(wanted).collect()
}

#[test]
fn whatever_call_fails_nothing_is_lost() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let stage = Stage::set(random.seed);
    let points = stage.points();
    let all = points.len();
    let tried = chosen(points, &mut random);
    let (mut reached, mut bad) = (0, Vec::new());
    for (at, point) in tried.iter().enumerate() {
        if at > 0 && at % TOLD_EVERY == 0 {
            println!("{at} of {} points, {reached} of them reached", tried.len());
        }
        let outcome = stage.run(point.part, Some(&point.fault));
        reached += usize::from(outcome.is_reached);
        if !outcome.is_reached {
            println!("not reached: {point:?}");
        }
        if !outcome.faults.is_empty() {
            let some = &outcome.faults[..outcome.faults.len().min(FAULTS_SHOWN)];
            println!("{point:?}: {} faults: {some:#?}", outcome.faults.len());
            bad.push(point);
        }
    }
    println!("{} of {all} points tried, {reached} of them reached", tried.len());
    assert!(bad.is_empty(), "{} of {} points: {bad:#?}", bad.len(), tried.len());
    let enough = tried.len() * REACHED_PERCENT / 100;
    assert!(reached >= enough, "{reached} points were reached, {enough} at least should be");
}
