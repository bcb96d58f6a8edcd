// SPDX-License-Identifier: MIT OR Apache-2.0
//! What do a million shards cost a node at its start, and how much memory do they take?
//!
//! Each start is a process of its own, this program again, with everything dropped from the page
//! cache before. A crash is a SIGKILL right after acknowledged puts.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_store::{Durability, StoreConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::fio::{Job, Pattern};
use super::growth;
use super::place::Place;
use crate::stock;

const CLEAN: &str = "opening a store of a million shards (or as stated above) after an orderly \
                     stop, cold, against fio reading as many bytes as its index has";
const CRASH: &str = "the same after a SIGKILL right after puts";
const NOINDEX: &str = "the same with the index deleted, against fio reading as many bytes as the \
                       records have beside their payloads";
const MEMORY: &str = "resident memory per shard of an open store of a million beyond that of an \
                      empty one and beside the index's cache, want <= 150";

/// Stripes of 14 shards per object of the fill.
const STRIPES: u32 = 1000;
const WIDTH: u32 = 14;
/// Objects on their way at a time.
const UPLOADS_MAX: usize = 4;
/// Stripes put right before a crash: the index has not seen all of them.
const CRASH_STRIPES: u32 = 200;
/// The first argument of a process that opens a store for this bench.
const CHILD: &str = "--open-store";
const CRASHES: &str = "crash";

/// A large store at rest.
#[derive(Debug)]
pub struct Million {
    place: Place,
    directory: TempDir,
    shards: u64,
    payload_bytes: u64,
    fill_secs: f64,
    rounds: u32,
    /// What starts after an orderly stop found, once somebody asked.
    clean: OnceCell<Vec<Opened>>,
}

/// What a process says of the store it opened.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    secs: f64,
    resident_bytes: u64,
    resident_bytes_max: u64,
    /// Why the index was not trusted, if it was not.
    rebuilt: Vec<String>,
}

impl Million {
    /// Fills a store.
    pub fn fill(scale: Scale) -> Self {
        let (shards, rounds) = scale.pick((1_000_000, 5), (56_000, 2));
        let objects = stock::shard_count(shards).div_ceil(STRIPES * WIDTH);
        let place = Place::new();
        let directory = place.fresh();
        let store = stock::open(stock::filling(directory.path()));
        let runtime = Runtime::new().expect("threads");
        let (took, usage) = timed(|| {
            runtime.block_on(async {
                let mut uploads = JoinSet::new();
                for seed in 0..u64::from(objects) {
                    if uploads.len() >= UPLOADS_MAX {
                        uploads.join_next().await.expect("some").expect("a put does not panic");
                    }
                    let store = store.clone();
                    uploads.spawn(async move { growth::put(&store, seed, STRIPES).await });
                }
                uploads.join_all().await;
                let usage = store.usage();
                store.close().await.expect("an orderly stop");
                usage
            })
        });
        let payload_bytes = usage.shards.live.bytes + usage.blocks.live.bytes;
        let (shards, fill_secs) = (usage.shards.live.count, took.as_secs_f64());
        writeln!(io::stdout(), "{shards} shards put in {fill_secs:.0} s").expect("a reader");
        let clean = OnceCell::new();
        Self { place, directory, shards, payload_bytes, fill_secs, rounds, clean }
    }

    /// `store.start.clean`.
    pub fn start_clean(&self) -> Figure {
        let index = size_of(&self.index());
        let (figure, opened) = self.start(("store.start.clean", CLEAN), index, || {});
        self.clean.get_or_init(|| opened);
        figure
    }

    /// `store.start.crash`.
    pub fn start_crash(&self) -> Figure {
        let index = size_of(&self.index());
        self.start(("store.start.crash", CRASH), index, || {
            self.open(&[CRASHES]);
        })
        .0
    }

    /// `store.start.noindex`.
    pub fn start_without_index(&self) -> Figure {
        let segments = stock::segments(self.directory.path());
        let len: u64 = segments.iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
        self.start(("store.start.noindex", NOINDEX), len - self.payload_bytes, || {
            fs::remove_dir_all(self.index()).expect("removable");
        })
        .0
    }

    /// Starts again and again, each time after `before`.
    fn start(
        &self,
        question: (&'static str, &'static str),
        bytes: u64,
        before: impl Fn(),
    ) -> (Figure, Vec<Opened>) {
        let block_bytes = 1 << 20;
        let fio = Job {
            directory: self.place.path(),
            pattern: Pattern::Read,
            block_bytes,
            block_count: bytes.div_ceil(block_bytes),
            depth: 16,
        };
        let fio = fio.tuned();
        let mut opened = Vec::new();
        let (ours, against) = interleaved(
            self.rounds,
            |_| {
                before();
                let fresh = self.open(&[]);
                let secs = fresh.secs;
                opened.push(fresh);
                secs
            },
            |_| {
                self.place.settle();
                fio.run().secs()
            },
        );
        let raw = json!({
            "shards": self.shards, "fill_secs": self.fill_secs, "bytes": bytes,
            "opened_rounds": opened, "ours_rounds": ours, "against_rounds": against,
            "fio": fio.raw(),
        });
        (Figure::new(question, (median(&ours), median(&against)), "s", raw), opened)
    }

    /// `store.memory`.
    pub fn memory(&self) -> Figure {
        let cache = StoreConfig::default().index_cache_bytes;
        let directory = self.place.fresh();
        let full = self.clean.get_or_init(|| (0..self.rounds).map(|_| self.open(&[])).collect());
        let empty: Vec<_> =
            (0..self.rounds).map(|_| open(&self.place, directory.path(), &[])).collect();
        let [full, empty] = [full, &empty].map(|starts| {
            starts.iter().map(|start| start.resident_bytes as f64).collect::<Vec<_>>()
        });
        let ours = (median(&full) - median(&empty) - cache as f64) / self.shards as f64;
        let raw = json!({
            "shards": self.shards, "index_cache_bytes": cache,
            "resident_bytes_rounds": full, "resident_bytes_empty_rounds": empty,
        });
        Figure::new(("store.memory", MEMORY), (ours, 150.0), "bytes/shard", raw)
    }

    fn open(&self, arguments: &[&str]) -> Opened {
        open(&self.place, self.directory.path(), arguments)
    }

    fn index(&self) -> std::path::PathBuf {
        self.directory.path().join("index")
    }
}

/// Bytes that a directory takes on the disk.
fn size_of(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata().expect("a file of our own") {
        metadata if metadata.is_dir() => size_of(&entry.path()),
        metadata => metadata.blocks() * 512,
    };
    entries.map(bytes).sum()
}

/// Has another process open a store, cold.
fn open(place: &Place, path: &Path, arguments: &[&str]) -> Opened {
    place.settle();
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    let output = command.arg(CHILD).arg(path).args(arguments).output().expect("it starts again");
    let (status, crashes) = (output.status, arguments.contains(&CRASHES));
    assert!(if crashes { status.signal() == Some(9) } else { status.success() }, "{output:?}");
    serde_json::from_slice(&output.stdout).expect("what a child says")
}

/// Whether this process is one that opens a store and no more; it has done so then.
pub fn child() -> bool {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [flag, path, rest @ ..] = &arguments[..] else { return false };
    if flag != CHILD {
        return false;
    }
    let config = StoreConfig {
        durability: Durability::Batched,
        cache_bytes_max: 0,
        // However long it takes is what is asked here.
        index_open_timeout_secs: 3600,
        ..stock::filling(Path::new(path))
    };
    let (took, store) = timed(|| stock::open(config));
    let opened = Opened {
        secs: took.as_secs_f64(),
        resident_bytes: status_bytes("VmRSS:"),
        resident_bytes_max: status_bytes("VmHWM:"),
        rebuilt: store.metrics().index_rebuilds.into_keys().map(str::to_owned).collect(),
    };
    let line = serde_json::to_string(&opened).expect("plain figures");
    writeln!(io::stdout(), "{line}").expect("the parent listens");
    let runtime = Runtime::new().expect("threads");
    runtime.block_on(async {
        if rest.iter().any(|argument| argument == CRASHES) {
            let seed = u64::from(std::process::id());
            growth::put(&store, u64::MAX - seed, CRASH_STRIPES).await;
            kill_process(getpid(), Signal::KILL).expect("a process may end itself");
        }
        store.close().await.expect("an orderly stop");
    });
    true
}

/// A size that the system states of this process.
fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a known line");
    let kib = line.trim().strip_suffix(" kB").and_then(|figure| figure.parse::<u64>().ok());
    kib.expect("a figure in kB") << 10
}
