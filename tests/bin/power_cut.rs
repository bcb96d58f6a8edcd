// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three parts of a power cut that `tests/power-cut` plays: making a node's directory, writing
//! to it in a system that will be cut off, and judging in another system what is left.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use supernode_tests::desk::Desk;
use supernode_tests::ledger::{self, Ledger, Owed};
use supernode_tests::load::{Door, Recipe};
use supernode_tests::lone::Lone;
use supernode_tests::program::Program;
use supernode_tests::segments::{Hash, Log};
use supernode_tests::verdict::judge;
use tokio::runtime::Runtime;

/// Small segments, and nothing stays in the trash: bytes are given back all the time.
const SETTINGS: [&str; 3] =
    ["storage.segment_bytes_max=16MiB", "storage.trash_secs=0", "storage.reserve_bytes=0"];
const WRITERS: usize = 16;
const DOORS: usize = 2;
/// More objects than one life of a system sees.
const OBJECTS_A_LIFE: u64 = 1 << 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["init", program, home, dir] => {
            Lone::init(&Program::new(program, Path::new(home)), Path::new(dir), &SETTINGS);
            Ok(())
        }
        ["write", program, home, dir, ledger, seed, life] => {
            let node = Lone::at(&Program::new(program, Path::new(home)), Path::new(dir));
            write(&node, Path::new(ledger), seed.parse()?, life.parse()?)
        }
        ["judge", program, home, dir, ledger] => {
            let node = Lone::at(&Program::new(program, Path::new(home)), Path::new(dir));
            look(&node, Path::new(ledger))
        }
        _ => Err("power-cut init|write|judge PROGRAM HOME DIR [LEDGER [SEED LIFE]]".into()),
    }
}

/// Writes until the lights go out.
fn write(node: &Lone, ledger: &Path, seed: u64, life: u64) -> Result<(), Box<dyn Error>> {
    let mut process = node.start(&[], &[]);
    let peer = process.up().ok_or("the node does not start")?;
    let ledger = Arc::new(Ledger::synced(ledger));
    let recipe = Recipe { seed, shard_bytes: 4096..=1 << 18, is_sharing: true };
    let desk = Desk::new(recipe, WRITERS, life * OBJECTS_A_LIFE);
    let ended = Runtime::new()?.block_on(async {
        let doors: Vec<Door> =
            (0..DOORS).map(|_| Door::new(&peer, &node.writer, &ledger)).collect();
        desk.open(&doors).await.join_next().await
    });
    Err(format!("a writer was refused: {ended:?}").into())
}

/// Holds the ledger against the segments, then against what the node itself gives back.
fn look(node: &Lone, ledger: &Path) -> Result<(), Box<dyn Error>> {
    let entries = ledger::read(ledger);
    let owed = Owed::of(&entries);
    let verdict = judge(&entries, &Log::read(node.dir())?)?;
    let mut process = node.start(&[], &[]);
    let peer = process.up().ok_or("the node does not start")?;
    let shards: Vec<Hash> = owed.shards.keys().copied().collect();
    let faults = Runtime::new()?.block_on(async {
        let door = Door::new(&peer, &node.writer, &Arc::new(Ledger::open(ledger)));
        let mut faults = door.read_pins(&owed).await;
        faults.extend(door.read_shards(&owed, &shards).await);
        door.close().await;
        faults
    });
    // Not stopped in order: the next life begins with what a crash left.
    process.kill();
    let (lost, wrong) = (verdict.lost.len(), verdict.wrong.len());
    writeln!(
        io::stdout(),
        "acked {} hashed {} read {} lost {lost} wrong {wrong} faults {}",
        verdict.acked,
        verdict.hashed,
        shards.len(),
        faults.len()
    )?;
    if verdict.is_clean() && faults.is_empty() {
        return Ok(());
    }
    Err(format!("{verdict:#?} {faults:#?}").into())
}
