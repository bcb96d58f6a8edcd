// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node at full load for hours: does it grow? `soak PROGRAM MINUTES` prints a line a minute, of
//! what the system says of the process and of what the node says of its store, and fails when
//! resident memory grows by a mebibyte an hour or more after the first twenty minutes, when file
//! descriptors do, or when a writer is refused or anything read back is not what was put.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use supernode_tests::desk::Desk;
use supernode_tests::http;
use supernode_tests::ledger::{self, Ledger, Owed};
use supernode_tests::load::{Door, Recipe};
use supernode_tests::lone::{Lone, Running};
use supernode_tests::process::resident_bytes;
use supernode_tests::program::Program;
use supernode_tests::random::Seeded;
use supernode_tests::segments::{Hash, Log};
use supernode_tests::verdict::judge;
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval};

const SETTINGS: [&str; 4] = [
    "storage.segment_bytes_max=64MiB",
    "storage.compact_waste_percent=10",
    "storage.trash_secs=0",
    "storage.reserve_bytes=0",
];
const WRITERS: usize = 64;
const DOORS: usize = 8;
/// Minutes until pools, caches and the allocator have what they will ever have.
const WARM_MINUTES: usize = 20;
const SLOPE_BYTES_PER_HOUR: f64 = 1_048_576.0;
/// Seconds of a minute whose mean is its resident memory: what is in flight differs from one to the
/// next by more than a node may grow in an hour.
const LOOKS: u64 = 60;
/// Minutes between two times that so many shards are read back.
const READ_EVERY: usize = 10;
const SAMPLE: usize = 2000;

/// One line of the table.
struct Minute {
    resident_bytes: u64,
    descriptors: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [program, minutes] = &arguments[..] else {
        return Err("soak PROGRAM MINUTES".into());
    };
    let dir = tempfile::Builder::new().prefix("supernode-soak-").tempdir()?;
    let program = Program::new(program, &dir.path().join("home"));
    let node = Lone::init(&program, &dir.path().join("node"), &SETTINGS);
    let mut random = Seeded::new();
    let mut out = io::stdout();
    writeln!(out, "seed {}", random.seed)?;
    writeln!(out, "minute resident_bytes descriptors files_bytes {}", METRICS.join(" "))?;

    let mut process = node.start(&[], &[]);
    let peer = process.up().ok_or("the node does not start")?;
    let ledger_path = dir.path().join("ledger");
    let ledger = Arc::new(Ledger::open(&ledger_path));
    let recipe = Recipe { seed: random.seed, shard_bytes: 4096..=1 << 20, is_sharing: true };
    let desk = Desk::new(recipe, WRITERS, 0);
    let minutes: usize = minutes.parse()?;
    let seen = Runtime::new()?.block_on(async {
        let doors: Vec<Door> =
            (0..DOORS).map(|_| Door::new(&peer, &node.writer, &ledger)).collect();
        let mut writers = desk.open(&doors).await;
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        let mut seen = Vec::new();
        for number in 1..=minutes {
            let mut resident = 0;
            for _ in 0..LOOKS {
                tokio::select! {
                    _ = tick.tick() => {}
                    ended = writers.join_next() => {
                        return Err(format!("a writer was refused: {ended:?}"));
                    }
                }
                resident += resident_bytes(process.pid()).ok_or("the node has ended")?;
            }
            if number % READ_EVERY == 0 {
                read_back(&ledger_path, &doors[0], &mut random).await?;
            }
            let minute = look(&process, node.dir(), resident / LOOKS, number);
            seen.push(minute.map_err(|error| error.to_string())?);
        }
        writers.shutdown().await;
        Ok(seen)
    })?;
    process.stop();
    let verdict = judge(&ledger::read(&ledger_path), &Log::read(node.dir())?)?;
    writeln!(out, "{} lost, {} wrong", verdict.lost.len(), verdict.wrong.len())?;
    judge_growth(&seen, &mut out)?;
    if verdict.is_clean() { Ok(()) } else { Err(format!("{verdict:#?}").into()) }
}

/// Reads some of what was put; all of it is held against the segments at the end.
async fn read_back(ledger: &Path, door: &Door, random: &mut Seeded) -> Result<(), String> {
    let owed = Owed::of(&ledger::read(ledger));
    let mut shards: Vec<Hash> = random.shuffled(owed.shards.keys().copied().collect());
    shards.truncate(SAMPLE);
    let mut suspects = Vec::new();
    for shard in shards {
        if !door.read_shards(&owed, &[shard]).await.is_empty() {
            suspects.push(shard);
        }
    }
    // The writers went on: what is owed to this moment was owed when it was read, the rest may
    // have been released before it was.
    let now = Owed::of(&ledger::read(ledger));
    let mut faults = Vec::new();
    for shard in suspects {
        let (_, is_owed) = now.shards[&shard];
        match is_owed {
            true => faults.push(format!("shard {} was not read back", ledger::hex(&shard))),
            false => faults.extend(door.read_shards(&now, &[shard]).await),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("{faults:#?}")) }
}

/// What the node says of its store.
const METRICS: [&str; 5] = [
    "supernode_reclaimed_bytes_total",
    "supernode_shards",
    "supernode_log_bytes",
    "supernode_log_waste_bytes",
    "supernode_index_pending",
];

/// Looks at the process from outside, asks the node for its figures, and prints a line.
fn look(
    process: &Running,
    dir: &Path,
    resident_bytes: u64,
    number: usize,
) -> Result<Minute, Box<dyn Error>> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid()))?.count();
    let files: u64 =
        fs::read_dir(dir)?.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
    let page = http::metrics(process.http())?;
    let metrics: Vec<&str> = METRICS.iter().map(|name| page.value(name).unwrap_or("?")).collect();
    let line = format!("{number} {resident_bytes} {descriptors} {files}");
    writeln!(io::stdout(), "{line} {}", metrics.join(" "))?;
    Ok(Minute { resident_bytes, descriptors })
}

/// Fits a line through what came after the warm-up.
fn judge_growth(seen: &[Minute], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let warm = seen.get(WARM_MINUTES..).unwrap_or_default();
    let slope_of = |value: fn(&Minute) -> f64| {
        let count = f64::from(u32::try_from(warm.len()).unwrap_or(u32::MAX));
        let mean_x = (count - 1.0) / 2.0;
        let mean_y = warm.iter().map(value).sum::<f64>() / count;
        let numbered = (0..).map(f64::from).zip(warm);
        let (above, below) = numbered.fold((0.0, 0.0), |(above, below), (x, minute)| {
            (above + (x - mean_x) * (value(minute) - mean_y), below + (x - mean_x).powi(2))
        });
        above / below * 60.0
    };
    if warm.len() < 2 {
        writeln!(out, "too short to say whether it grows")?;
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let memory = slope_of(|minute| minute.resident_bytes as f64);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let descriptors = slope_of(|minute| minute.descriptors as f64);
    writeln!(out, "per hour: {memory:.0} bytes of memory, {descriptors:.2} descriptors")?;
    if memory >= SLOPE_BYTES_PER_HOUR || descriptors >= 1.0 {
        return Err("it grows".into());
    }
    Ok(())
}
