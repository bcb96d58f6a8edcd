// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of what QUIC can move does a get reach, and what does it cost the server?

use serde_json::{Value, json};
use supernode_benches::{Figure, Scale, interleaved, median};

use super::stage::{CACHE_BYTES, LARGE_BYTES, Load, MIB, Stage};
use crate::fio::{Job, Pattern};

const HOT: &str = "5 MiB shards from the hot cache, verified by the client, 4 in flight, against \
                   quinn's own bulk transfer with the best of its settings, want >= 0.85";
const DEFAULT: &str = "the same with a node's default settings of QUIC";
const COUNT: &str = "the same as relay.get.hot, the client only counts bytes, want >= 0.95";
const COLD: &str = "5 MiB shards from a cold disk, verified by the client, 8 in flight, against \
                    the lower of fio's random reads and quinn in the same round, want >= 0.85";
const SMALL: &str = "gets of 4 KiB shards, 64 in flight, against an echo of 4 KiB over streams of \
                     quinn alone, want >= 0.7";
const CPU: &str = "processor time of the server's process per GiB that a client only counts, \
                   against that of quinn's server, want <= 1.15";

const SMALL_BYTES: usize = 4096;
const COLD_DEPTH: u32 = 8;

/// What a round of large gets is, and how many there are.
pub fn load(scale: Scale) -> (Load, u32) {
    let (count, rounds) = scale.pick((160, 9), (32, 5));
    (Load { count, in_flight: 4 }, rounds)
}

fn raw(stage: &Stage, load: Load, ours: &[f64], against: &[f64]) -> Value {
    json!({
        "requests": load.count, "bytes": stage.shard_bytes, "in_flight": load.in_flight,
        "quinn": stage.setting, "ours_rounds": ours, "against_rounds": against,
    })
}

/// `relay.get.hot`.
pub fn hot(scale: Scale) -> Figure {
    verified(("relay.get.hot", HOT), &Stage::hot(), scale)
}

/// `relay.get.hot.default`.
pub fn hot_by_default(scale: Scale) -> Figure {
    verified(("relay.get.hot.default", DEFAULT), &Stage::hot_by_default(), scale)
}

fn verified(question: (&'static str, &'static str), stage: &Stage, scale: Scale) -> Figure {
    let (load, rounds) = load(scale);
    let (ours, against) = interleaved(
        rounds,
        |round| stage.mib_per_sec(load, || drop(stage.verified(load, round))),
        |_| stage.mib_per_sec(load, || stage.download(load)),
    );
    let raw = raw(stage, load, &ours, &against);
    Figure::new(question, (median(&ours), median(&against)), "MiB/s", raw)
}

/// `relay.get.count`.
pub fn count(scale: Scale) -> Figure {
    let (stage, (load, rounds)) = (Stage::hot(), load(scale));
    let (ours, against) = interleaved(
        rounds,
        |_| stage.mib_per_sec(load, || stage.counted(load)),
        |_| stage.mib_per_sec(load, || stage.download(load)),
    );
    let raw = raw(&stage, load, &ours, &against);
    Figure::new(("relay.get.count", COUNT), (median(&ours), median(&against)), "MiB/s", raw)
}

/// `relay.get.cold`.
pub fn cold(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((160, 7), (40, 5));
    let stage = Stage::new((count, LARGE_BYTES), 0);
    let load = Load { count, in_flight: COLD_DEPTH as usize };
    let job = Job {
        directory: stage.place.path(),
        pattern: Pattern::RandomRead,
        block_bytes: LARGE_BYTES as u64,
        block_count: count as u64,
        depth: COLD_DEPTH,
    };
    let fio = job.tuned();
    let (mut disk, mut quinn) = (Vec::new(), Vec::new());
    let (ours, against) = interleaved(
        rounds,
        |round| {
            stage.place.settle();
            stage.mib_per_sec(load, || drop(stage.verified(load, round)))
        },
        |_| {
            stage.place.settle();
            let read = fio.run().bytes_per_sec() / MIB;
            let moved = stage.mib_per_sec(load, || stage.download(load));
            disk.push(read);
            quinn.push(moved);
            read.min(moved)
        },
    );
    let mut raw = raw(&stage, load, &ours, &against);
    raw["disk_rounds"] = json!(disk);
    raw["quinn_rounds"] = json!(quinn);
    raw["fio"] = fio.raw();
    let (disk, quinn) = (median(&disk), median(&quinn));
    raw["note"] = json!(format!("disk {disk:.0} MiB/s, quinn {quinn:.0} MiB/s"));
    Figure::new(("relay.get.cold", COLD), (median(&ours), median(&against)), "MiB/s", raw)
}

/// `relay.small`.
pub fn small(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((40_000, 9), (6000, 5));
    let stage = Stage::new((1024, SMALL_BYTES), CACHE_BYTES);
    let load = Load { count, in_flight: 64 };
    let per_sec = |mib_per_sec: f64| mib_per_sec * MIB / SMALL_BYTES as f64;
    let (ours, against) = interleaved(
        rounds,
        |round| per_sec(stage.mib_per_sec(load, || drop(stage.verified(load, round)))),
        |_| per_sec(stage.mib_per_sec(load, || stage.echo(load))),
    );
    let raw = raw(&stage, load, &ours, &against);
    Figure::new(("relay.small", SMALL), (median(&ours), median(&against)), "gets/s", raw)
}

/// `relay.cpu`.
pub fn cpu(scale: Scale) -> Figure {
    let (stage, (load, rounds)) = (Stage::hot(), load(scale));
    let gib = (load.count * LARGE_BYTES) as f64 / (1 << 30) as f64;
    let (ours, against) = interleaved(
        rounds,
        |_| {
            let before = stage.relay.cpu_secs();
            stage.counted(load);
            (stage.relay.cpu_secs() - before) / gib
        },
        |_| {
            let before = stage.raw.cpu_secs();
            stage.download(load);
            (stage.raw.cpu_secs() - before) / gib
        },
    );
    let raw = raw(&stage, load, &ours, &against);
    Figure::new(("relay.cpu", CPU), (median(&ours), median(&against)), "s/GiB", raw)
}
