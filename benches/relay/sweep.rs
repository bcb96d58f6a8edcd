// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of quinn's settings move most bytes here? The best of them is the baseline of the rest.
//!
//! One setting after the other is varied while the others keep the best value so far; the values
//! of one take turns, so that what the machine does meanwhile befalls all of them. The same is
//! done over a long way with a bottleneck, for the settings that only matter there.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supernode_benches::{machine, median, timed};
use supernode_tls::transport::MTU_BYTES_MAX;
use tokio::runtime::Runtime;

use super::path::Path;
use super::process::{Process, Role, own_cpu_secs};
use super::raw::{Client, Congestion, Setting};
use super::server::node_key;
use super::stage::{LARGE_BYTES, MIB};
use crate::shards::perform;

/// What the last committed sweep found.
const COMMITTED: &str = include_str!("../results/sweeps/relay.json");
const READER: &str = "somebody reads the figures";

const ROUNDS: usize = 7;
const IN_FLIGHT: usize = 4;
/// Packets for the internet, and for loopback.
const MTUS: [u16; 2] = [INTERNET_BYTES, MTU_BYTES_MAX];
const INTERNET_BYTES: u16 = 1452;
/// 400 Mbit/s over a continent, with a packet lost now and then.
const FAR: Path = Path {
    round_trip: Duration::from_millis(40),
    bytes_per_sec: 50_000_000,
    queue: Duration::from_millis(40),
    lost_per_million: 50,
};

/// A whole sweep.
#[derive(Debug, Serialize, Deserialize)]
struct Sweep {
    machine: String,
    /// What moved most bytes, the best first, for each size of packets.
    best: Vec<Setting>,
    tried: Vec<Tried>,
    /// What moved most over a long way, and all that was tried there.
    far: Option<Setting>,
    tried_far: Vec<Tried>,
}

/// One setting and what it moved.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    axis: String,
    setting: Setting,
    mib_per_sec: f64,
    /// Processor time of both sides.
    secs_per_gib: f64,
    rounds: Vec<f64>,
}

/// The fastest setting on loopback, whatever the size of its packets.
pub fn best() -> Setting {
    let sweep: Sweep = serde_json::from_str(COMMITTED).expect("what a sweep wrote");
    *sweep.best.first().expect("a sweep has a best setting")
}

/// Sweeps, prints a table, and writes it to a file.
pub fn sweep(path: Option<&str>) {
    let mut tried = Vec::new();
    let of_each = MTUS.map(|mtu_bytes_max| {
        let (fastest, all) = climb(Setting::plain(mtu_bytes_max), &AXES, None);
        tried.extend(all);
        fastest
    });
    let finals = race("packets", of_each.to_vec(), None);
    let best = finals.iter().map(|tried| tried.setting).collect();
    tried.extend(finals);
    let (far, tried_far) = climb(of_each[0], &AXES[1..5], Some(FAR));
    let sweep = Sweep { machine: machine(), best, tried, far: Some(far), tried_far };
    if let Some(path) = path {
        let file = File::create(path).expect("a file for the sweep");
        serde_json::to_writer_pretty(file, &sweep).expect("room");
    }
}

/// Varies one setting after the other; returns the best and all that were tried.
fn climb(from: Setting, axes: &[Axis], path: Option<Path>) -> (Setting, Vec<Tried>) {
    let (mut best, mut all) = (from, Vec::new());
    for (axis, values) in axes {
        let way = if path.is_some() { ", far away" } else { "" };
        writeln!(io::stdout(), "{axis}, packets of {}{way}", best.mtu_bytes_max).expect(READER);
        let tried = race(axis, values(best), path);
        best = tried.first().expect("an axis has values").setting;
        all.extend(tried);
    }
    (best, all)
}

type Axis = (&'static str, fn(Setting) -> Vec<Setting>);

/// What is varied, in this order.
const AXES: [Axis; 6] = [
    ("segmentation offload", |base| {
        [true, false].map(|segmentation_offload| Setting { segmentation_offload, ..base }).to_vec()
    }),
    ("socket buffers and windows", |base| {
        // What is in flight should fit into the receiver's socket, so these belong together.
        let buffers = [208 << 10, 1 << 20, 4 << 20];
        let windows = [None, Some(256 << 10), Some(1 << 20), Some(4 << 20)];
        let of = |socket_buffer_bytes: u32| {
            windows.map(|window_bytes| Setting { socket_buffer_bytes, window_bytes, ..base })
        };
        buffers.map(of).concat()
    }),
    ("congestion control", |base| {
        let of = |congestion| Setting { congestion, ..base };
        [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr].map(of).to_vec()
    }),
    ("initial window", |base| {
        let of = |initial_window_bytes| Setting { initial_window_bytes, ..base };
        [None, Some(256 << 10), Some(2 << 20)].map(of).to_vec()
    }),
    ("acknowledgements", |base| {
        let of = |unacknowledged_packets_max| Setting { unacknowledged_packets_max, ..base };
        [None, Some(3), Some(9), Some(24)].map(of).to_vec()
    }),
    ("threads", |base| {
        [true, false].map(|has_many_threads| Setting { has_many_threads, ..base }).to_vec()
    }),
];

/// A server and a client of one setting.
struct Lane {
    setting: Setting,
    runtime: Runtime,
    client: Client,
    requests: usize,
    rounds: Vec<f64>,
    cpu_secs: f64,
    server: Process,
}

impl Lane {
    fn new(setting: Setting, path: Option<Path>) -> Self {
        let server = Process::start(&Role::Raw(setting));
        let address = path.map_or(server.address, |path| path.open(server.address));
        let requests = if path.is_some() { 8 } else { 24 };
        let runtime = setting.runtime();
        let client = runtime.block_on(Client::connect(setting, &node_key(), address));
        Self { setting, runtime, client, requests, rounds: Vec::new(), cpu_secs: 0.0, server }
    }

    fn download(&self) {
        let client = self.client.clone();
        let get = move |_| {
            let client = client.clone();
            async move { client.download(LARGE_BYTES).await }
        };
        self.runtime.block_on(perform(self.requests, IN_FLIGHT, get));
    }

    fn mib(&self) -> f64 {
        (self.requests * LARGE_BYTES) as f64 / MIB
    }

    fn round(&mut self) {
        let cpu_secs = || own_cpu_secs() + self.server.cpu_secs();
        let before = cpu_secs();
        let (took, ()) = timed(|| self.download());
        let spent = cpu_secs() - before;
        self.cpu_secs += spent;
        self.rounds.push(self.mib() / took.as_secs_f64());
    }

    fn end(self, axis: &str) -> Tried {
        let gib = self.mib() * ROUNDS as f64 / 1024.0;
        Tried {
            axis: axis.to_owned(),
            setting: self.setting,
            mib_per_sec: median(&self.rounds),
            secs_per_gib: self.cpu_secs / gib,
            rounds: self.rounds,
        }
    }
}

/// Lets settings take turns; the fastest comes first.
fn race(axis: &str, settings: Vec<Setting>, path: Option<Path>) -> Vec<Tried> {
    let mut lanes: Vec<_> = settings.into_iter().map(|setting| Lane::new(setting, path)).collect();
    // The first packets find the path's size, over a long way its rate, too.
    lanes.iter().for_each(Lane::download);
    for _ in 0..ROUNDS {
        lanes.iter_mut().for_each(Lane::round);
        // Nobody always comes after the same one.
        lanes.rotate_left(1);
    }
    let mut tried: Vec<_> = lanes.into_iter().map(|lane| lane.end(axis)).collect();
    tried.sort_by(|a, b| b.mib_per_sec.total_cmp(&a.mib_per_sec));
    for Tried { setting, mib_per_sec, secs_per_gib, .. } in &tried {
        let setting = serde_json::to_string(setting).expect("plain settings");
        writeln!(io::stdout(), "  {mib_per_sec:6.0} MiB/s {secs_per_gib:5.2} s/GiB  {setting}")
            .expect(READER);
    }
    tried
}
