// SPDX-License-Identifier: MIT OR Apache-2.0
//! 64 writers push objects at a node that is killed at any moment, again and again, in the same
//! directory: nothing that was acknowledged is lost, and nothing wrong is ever there.
//!
//! A ledger outside the directory says what was acknowledged. After each kill the segments are held
//! against it by a reader of their own, and after each restart the node itself is asked.
//! `SUPERNODE_KILLS` sets how many kills there are, `SUPERNODE_TEST_SEED` what happens in them. A
//! kill tests what the program does, not what the disk does: the system's cache survives it.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use supernode_client::Peer;
use supernode_tests::desk::Desk;
use supernode_tests::ledger::{self, Deed, Entry, Ledger, Owed};
use supernode_tests::load::{Door, Recipe};
use supernode_tests::lone::Lone;
use supernode_tests::program::Program;
use supernode_tests::random::Seeded;
use supernode_tests::segments::{Hash, Log, Record, Word};
use supernode_tests::verdict::judge;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const KILLS: u64 = 30;
const WRITERS: usize = 64;
/// Connections that they share.
const DOORS: usize = 8;
const SHARD_BYTES: RangeInclusive<u64> = 4096..=1 << 20;
/// Most kills come within this time of load; every fifth within three times that.
const MOMENT_MILLIS: u64 = 450;
/// One restart in so many is killed too, within this time of its beginning.
const NESTED_ONE_IN: u64 = 4;
const NESTED_MILLIS: u64 = 150;
/// Older shards that are read back after each restart, besides all new ones.
const SAMPLE: usize = 32;
/// A long run says how far it is after so many kills.
const TOLD_EVERY: u64 = 100;
/// Small segments that are compacted early, and nothing stays in the trash: bytes are given back
/// all the time.
const SETTINGS: [&str; 4] = [
    "storage.segment_bytes_max=4MiB",
    "storage.compact_waste_percent=5",
    "storage.trash_secs=0",
    "storage.reserve_bytes=0",
];

/// A test's running figures.
#[derive(Debug, Default)]
struct Figures {
    kills: u64,
    nested: u64,
    read_back: usize,
    slowest_start: Duration,
    /// Groups that compaction had said again, over all looks at the segments.
    restated: usize,
}

/// One node, and those who write to it.
struct Story {
    runtime: Runtime,
    node: Lone,
    desk: Arc<Desk>,
    ledger: Arc<Ledger>,
    ledger_path: PathBuf,
    random: Seeded,
    figures: Figures,
    /// Entries of the ledger that were read back before.
    seen: usize,
}

impl Story {
    /// Starts the node, kills it under load, and looks at what it left.
    fn round(&mut self) {
        let mut process = self.node.start(&[], &[]);
        if self.random.below(NESTED_ONE_IN) == 0 {
            let moment = Duration::from_millis(self.random.below(NESTED_MILLIS));
            assert!(process.lasts(moment), "a node that starts does not end by itself");
            process.kill();
            self.figures.nested += 1;
            process = self.node.start(&[], &[]);
        }
        let begun = Instant::now();
        let peer = process.up().expect("the node comes up after a kill");
        self.figures.slowest_start = self.figures.slowest_start.max(begun.elapsed());
        self.read_back(&peer, false);

        let wide = if self.random.below(5) == 0 { 3 } else { 1 };
        let moment = Duration::from_millis(1 + self.random.below(MOMENT_MILLIS * wide));
        let mut writers = self.runtime.block_on(self.let_write(&peer, moment));
        process.kill();
        self.figures.kills += 1;
        self.runtime.block_on(writers.shutdown());
        self.look_at_segments();
    }

    /// Lets all writers write for so long. None of them may end in that time.
    async fn let_write(&self, peer: &Peer, moment: Duration) -> JoinSet<String> {
        let door = |_| Door::new(peer, &self.node.writer, &self.ledger);
        let doors: Vec<Door> = (0..DOORS).map(door).collect();
        let mut writers = self.desk.open(&doors).await;
        let ended = tokio::time::timeout(moment, writers.join_next()).await;
        assert!(ended.is_err(), "a writer was refused under load: {ended:?}");
        writers
    }

    /// Gives the number of the oldest record that is left.
    fn look_at_segments(&mut self) -> u64 {
        let entries = ledger::read(&self.ledger_path);
        let log = Log::read(self.node.dir()).expect("segments as the format says");
        let verdict = judge(&entries, &log).expect("payloads can be read");
        assert!(verdict.is_clean(), "{:?}: {verdict:#?}", self.figures);
        let is_restated = |record: &&Record| matches!(record.word, Word::Restated { .. });
        self.figures.restated += log.records.iter().filter(is_restated).count();
        log.first
    }

    /// Asks the node for all that is new, and some or all of what is older.
    fn read_back(&mut self, peer: &Peer, all: bool) {
        let entries = ledger::read(&self.ledger_path);
        let owed = Owed::of(&entries);
        let (older, newer) = entries.split_at(if all { 0 } else { self.seen });
        let mut wanted = shards(newer);
        let mut sample = self.random.shuffled(shards(older));
        sample.truncate(SAMPLE);
        wanted.extend(sample);
        self.figures.read_back += wanted.len();
        self.seen = entries.len();
        let faults = self.runtime.block_on(async {
            let door = Door::new(peer, &self.node.writer, &self.ledger);
            let mut faults = door.read_pins(&owed).await;
            faults.extend(door.read_shards(&owed, &wanted).await);
            door.close().await;
            faults
        });
        assert!(faults.is_empty(), "{:?}: {faults:#?}", self.figures);
    }
}

/// The shards that were sent, each once.
fn shards(entries: &[Entry]) -> Vec<Hash> {
    let mut shards: Vec<Hash> = entries
        .iter()
        .filter_map(|entry| match entry.deed {
            Deed::Put { shard, .. } => Some(shard),
            _ => None,
        })
        .collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

fn story(dir: &Path, random: Seeded) -> Story {
    let program = Program::new(PROGRAM, &dir.join("home"));
    let node = Lone::init(&program, &dir.join("node"), &SETTINGS);
    let recipe = Recipe { seed: random.seed, shard_bytes: SHARD_BYTES, is_sharing: true };
    let ledger_path = dir.join("ledger");
    let ledger = Arc::new(Ledger::open(&ledger_path));
    let desk = Desk::new(recipe, WRITERS, 0);
    let runtime = Runtime::new().expect("a runtime");
    let figures = Figures::default();
    Story { runtime, node, desk, ledger, ledger_path, random, figures, seen: 0 }
}

#[test]
fn kills_under_load_lose_nothing() {
    let kills = env::var("SUPERNODE_KILLS").ok();
    let kills = kills.map_or(KILLS, |text| text.parse().expect("SUPERNODE_KILLS is a number"));
    let dir = tempfile::Builder::new().prefix("supernode-test-").tempdir();
    let dir = dir.expect("a temporary directory");
    let random = Seeded::new();
    println!("seed {}", random.seed);
    let mut story = story(dir.path(), random);
    for kill in 1..=kills {
        story.round();
        if kill % TOLD_EVERY == 0 {
            println!("{:?}", story.figures);
        }
    }
    // On a busy machine little is written between two kills, and nothing has to be compacted yet.
    while kills >= KILLS && story.figures.restated == 0 && story.figures.kills < 4 * kills {
        story.round();
    }

    let mut process = story.node.start(&[], &[]);
    let peer = process.up().expect("the node comes up");
    story.read_back(&peer, true);
    process.stop();
    let oldest = story.look_at_segments();
    let entries = ledger::read(&story.ledger_path);
    let acked = entries.iter().filter(|entry| entry.acked.is_some()).count();
    let bytes: u64 = fs::read_dir(story.node.dir())
        .expect("an own directory")
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    println!(
        "{:?}; {acked} of {} requests were acknowledged, {bytes} bytes of files are left, from \
         record {oldest} on",
        story.figures,
        entries.len()
    );
    let released = Owed::of(&entries).released.len();
    assert!(acked as u64 > kills * 10 && released > 0, "kills came before anything was done");
    assert!(story.figures.restated > 0 || kills < KILLS, "nothing was compacted");
}
