// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of quinn's settings move most bytes here? The best of them is the baseline of the rest.
//!
//! One setting after the other is varied while the others keep the best value so far; the values
//! of one take turns, so that what the machine does meanwhile befalls all of them.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use supernode_benches::{machine, median, timed};
use supernode_tls::transport::MTU_BYTES_MAX;
use tokio::runtime::Runtime;

use super::process::{Process, Role};
use super::raw::{Client, Congestion, Setting};
use super::server::node_key;
use super::stage::{LARGE_BYTES, MIB};
use crate::shards::perform;

/// What the last committed sweep found.
const COMMITTED: &str = include_str!("../results/sweeps/relay.json");
const READER: &str = "somebody reads the figures";

const ROUNDS: usize = 7;
const REQUESTS: usize = 32;
const IN_FLIGHT: usize = 4;
/// Packets for the internet, for large frames, and for loopback.
const MTUS: [u16; 2] = [1452, MTU_BYTES_MAX];

/// A whole sweep.
#[derive(Debug, Serialize, Deserialize)]
struct Sweep {
    machine: String,
    best: Vec<Setting>,
    tried: Vec<Tried>,
}

/// One setting and what it moved.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    axis: String,
    setting: Setting,
    mib_per_sec: f64,
    rounds: Vec<f64>,
}

/// The fastest setting for packets of this size.
pub fn best(mtu_bytes_max: u16) -> Setting {
    let sweep: Sweep = serde_json::from_str(COMMITTED).expect("what a sweep wrote");
    let found = sweep.best.into_iter().find(|setting| setting.mtu_bytes_max == mtu_bytes_max);
    found.expect("a sweep of this size of packets is committed")
}

/// Sweeps, prints a table, and writes it to a file.
pub fn sweep(path: Option<&str>) {
    let mut sweep = Sweep { machine: machine(), best: Vec::new(), tried: Vec::new() };
    for mtu_bytes_max in MTUS {
        let mut best = Setting::plain(mtu_bytes_max);
        for (axis, values) in AXES {
            writeln!(io::stdout(), "packets of {mtu_bytes_max}: {axis}").expect(READER);
            let settings = values(best);
            let tried = race(axis, settings);
            let of_best = tried.iter().max_by(|a, b| a.mib_per_sec.total_cmp(&b.mib_per_sec));
            best = of_best.expect("an axis has values").setting;
            sweep.tried.extend(tried);
        }
        sweep.best.push(best);
    }
    if let Some(path) = path {
        let file = File::create(path).expect("a file for the sweep");
        serde_json::to_writer_pretty(file, &sweep).expect("room");
    }
}

type Axis = (&'static str, fn(Setting) -> Vec<Setting>);

/// What is varied, in this order.
const AXES: [Axis; 7] = [
    ("socket buffers", |base| {
        let of = |socket_buffer_bytes| Setting { socket_buffer_bytes, ..base };
        [208 << 10, 1 << 20, 4 << 20].map(of).to_vec()
    }),
    ("windows", |base| {
        let of = |window_bytes| Setting { window_bytes, ..base };
        [None, Some(4 << 20), Some(8 << 20), Some(32 << 20)].map(of).to_vec()
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
    ("segmentation offload", |base| {
        [true, false].map(|segmentation_offload| Setting { segmentation_offload, ..base }).to_vec()
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
    rounds: Vec<f64>,
    _server: Process,
}

impl Lane {
    fn new(setting: Setting) -> Self {
        let server = Process::start(&Role::Raw(setting));
        let runtime = setting.runtime();
        let client = runtime.block_on(Client::connect(setting, &node_key(), server.address));
        Self { setting, runtime, client, rounds: Vec::new(), _server: server }
    }

    fn download(&self) {
        let client = self.client.clone();
        let get = move |_| {
            let client = client.clone();
            async move { client.download(LARGE_BYTES).await }
        };
        self.runtime.block_on(perform(REQUESTS, IN_FLIGHT, get));
    }
}

/// Lets settings take turns.
fn race(axis: &str, settings: Vec<Setting>) -> Vec<Tried> {
    let mut lanes: Vec<_> = settings.into_iter().map(Lane::new).collect();
    lanes.iter().for_each(Lane::download);
    for _ in 0..ROUNDS {
        for lane in &mut lanes {
            let (took, ()) = timed(|| lane.download());
            let mib = (REQUESTS * LARGE_BYTES) as f64 / MIB;
            lane.rounds.push(mib / took.as_secs_f64());
        }
    }
    let tried = |lane: Lane| {
        let mib_per_sec = median(&lane.rounds);
        let setting = serde_json::to_string(&lane.setting).expect("plain settings");
        writeln!(io::stdout(), "  {mib_per_sec:7.0} MiB/s  {setting}").expect(READER);
        let (axis, setting, rounds) = (axis.to_owned(), lane.setting, lane.rounds);
        Tried { axis, setting, mib_per_sec, rounds }
    };
    lanes.into_iter().map(tried).collect()
}
