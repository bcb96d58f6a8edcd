// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a proof from the disk at least half as fast as reading the same chunk groups?
//!
//! Both drop each range from the page cache before they read it; and before each turn the whole
//! file is dropped, because Linux keeps a folio of which only a part is named. The baseline reads
//! the groups and nothing else: no lookup, no head of the record, no hash.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_protocol::audit::drawn_chunks;
use supernode_protocol::deal::{DealId, lease_of};
use supernode_protocol::ids::Slot;
use supernode_protocol::tree::{CHUNK_BYTES, GROUP_BYTES, chunk_count};
use supernode_store::{Durability, StoreConfig};
use tokio::runtime::Runtime;

use crate::stock::{self, Recipe};

const SHARD_BYTES: u32 = 1 << 20;
const CHUNKS: u8 = 8;
/// Large shards start on disk blocks.
const BLOCK_BYTES: usize = 4096;
const QUESTION: &str = "proofs of 8 chunks from a cold disk (Store::prove) against pread of the \
                        same 16 KiB groups after the same posix_fadvise(DONTNEED), want >= 0.5";

/// `chain.proof.cold`.
pub fn cold(scale: Scale) -> Figure {
    let (stripe_count, rounds) = scale.pick((10, 20), (1, 2));
    let directory = stock::directory();
    let runtime = Runtime::new().expect("threads");
    let recipe = Recipe { seed: 1, stripe_count, widths: (16, 4), shard_bytes: SHARD_BYTES };
    let lease = lease_of(&[0; 32], DealId(1));
    let filled = stock::open(stock::filling(directory.path()));
    let ids = runtime.block_on(async {
        let ids = stock::put(&filled, recipe, lease, 1 << 40).await;
        filled.close().await.expect("an orderly stop");
        ids
    });
    let [segment] = &stock::segments(directory.path())[..] else {
        panic!("all shards fit into one segment");
    };
    let file = File::open(segment).expect("the segment");
    let starts = payloads(&std::fs::read(segment).expect("the segment"), recipe);
    let config =
        StoreConfig { durability: Durability::Batched, ..stock::filling(directory.path()) };
    let store = stock::open(config);

    let mut proven_bytes = Vec::new();
    let prove = |round| {
        forget(&file);
        let before = disk_reads();
        let (took, ()) = timed(|| {
            runtime.block_on(async {
                for (number, id) in (0..).zip(&ids) {
                    let proofs = store.prove(*id, drawn(round, number)).await.expect("whole");
                    assert_eq!(proofs.len(), usize::from(CHUNKS));
                }
            });
        });
        proven_bytes.push(disk_reads().saturating_sub(before) / ids.len() as u64);
        ids.len() as f64 / took.as_secs_f64()
    };
    let read = |round| {
        forget(&file);
        let (took, ()) = timed(|| {
            for (number, start) in (0..).zip(&starts) {
                read_groups(&file, *start, &drawn(round, number));
            }
        });
        ids.len() as f64 / took.as_secs_f64()
    };
    let (ours, against) = interleaved(rounds, prove, read);
    runtime.block_on(store.close()).expect("an orderly stop");
    let raw = json!({
        "shards": ids.len(), "shard_bytes": SHARD_BYTES, "chunks": CHUNKS,
        "ours_rounds": ours, "against_rounds": against,
        "disk_bytes_per_proof_rounds": proven_bytes,
    });
    let both = (median(&ours), median(&against));
    Figure::new(("chain.proof.cold", QUESTION), both, "proofs/s", raw)
}

/// The chunks that an audit asks for: others in each round, and of each shard.
fn drawn(round: u32, number: u32) -> Vec<u64> {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&round.to_le_bytes());
    seed[4..8].copy_from_slice(&number.to_le_bytes());
    drawn_chunks(&seed, chunk_count(SHARD_BYTES.into()), CHUNKS).collect()
}

/// Where the payloads of shards start in a segment, in the order of their slots.
fn payloads(segment: &[u8], recipe: Recipe) -> Vec<u64> {
    let blocks = segment.chunks_exact(BLOCK_BYTES).enumerate();
    let found: HashMap<&[u8], usize> =
        blocks.map(|(number, block)| (&block[..32], number * BLOCK_BYTES)).collect();
    let (data, parity) = recipe.widths;
    let slots = (0..recipe.stripe_count)
        .flat_map(|stripe| (0..data + parity).map(move |index| Slot { stripe, index }));
    slots.map(|slot| found[&stock::shard_bytes(&recipe, slot)[..32]] as u64).collect()
}

/// Bytes that this process has had read from disks; 0 where the system does not say.
fn disk_reads() -> u64 {
    let figures = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = figures.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// Drops a whole file from the page cache.
fn forget(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).expect("advice about a file is taken");
}

fn read_groups(file: &File, start: u64, chunks: &[u64]) {
    let chunks_per_group = (GROUP_BYTES / CHUNK_BYTES) as u64;
    let groups: BTreeSet<u64> = chunks.iter().map(|chunk| chunk / chunks_per_group).collect();
    for group in groups {
        let mut bytes = vec![0; GROUP_BYTES];
        let at = start + group * GROUP_BYTES as u64;
        fadvise(file, at, NonZeroU64::new(GROUP_BYTES as u64), Advice::DontNeed)
            .expect("advice about a file is taken");
        file.read_exact_at(&mut bytes, at).expect("the group is there");
        std::hint::black_box(&bytes);
    }
}
