// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does a connection cost that says hello and then nothing?

use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median};
use supernode_tls::transport::Transport;
use tokio::runtime::Runtime;

use super::counter::{Counter, endpoint};
use super::process::{Process, Role, threads};
use super::raw::{self, Setting};
use super::server::{Server, loopback_transport};
use crate::place::Place;
use crate::stock;

const IDLE: &str = "memory of the server's process per idle connection, at 10,000 of them (1,000 \
                    in a quick run), against quinn's own + 60 KiB, want <= 1.0";
const ALLOWANCE_KIB: f64 = 60.0;
/// Packets as on the internet.
const MTU_BYTES: u16 = 1452;
/// Sockets of clients, each of a network of its own, that dial at a time.
const SOCKETS: u8 = 8;
/// The number of the first one's key.
const FIRST: u8 = 2;

/// `relay.idle`.
pub fn idle(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((10_000, 5), (1000, 5));
    let (place, runtime) = (Place::new(), threads());
    let setting = Setting::plain(MTU_BYTES);
    let mut quinn = Vec::new();
    let (ours, against) = interleaved(
        rounds,
        |_| relay(&place, &runtime, count),
        |_| {
            let kib = alone(setting, &runtime, count);
            quinn.push(kib);
            kib + ALLOWANCE_KIB
        },
    );
    let note = format!("quinn's own {:.1} KiB", median(&quinn));
    let raw = json!({
        "connections": count, "quinn": setting, "quinn_rounds": quinn,
        "ours_rounds": ours, "against_rounds": against, "note": note,
    });
    Figure::new(("relay.idle", IDLE), (median(&ours), median(&against)), "KiB", raw)
}

fn relay(place: &Place, runtime: &Runtime, count: usize) -> f64 {
    let directory = place.fresh();
    let transport = Transport { mtu_bytes_max: MTU_BYTES, ..loopback_transport() };
    let mut server = Server::over(directory.path(), 0);
    server.transport = transport.clone();
    let process = server.start();
    let target = process.address;
    let dial = async |number: u8, count: usize| {
        let key = stock::key(FIRST + number);
        let endpoint = endpoint(&key, [127, 1, number, 1].into(), &transport);
        let mut counters = Vec::new();
        for _ in 0..count {
            let counter = Counter::connect(&endpoint, target).await;
            counters.push(counter.expect("a place for every connection"));
        }
        counters
    };
    per_connection(runtime, &process, count, dial)
}

fn alone(setting: Setting, runtime: &Runtime, count: usize) -> f64 {
    let process = Process::start(&Role::Raw(setting));
    let target = process.address;
    let dial = async |number: u8, count: usize| {
        let key = stock::key(FIRST + number);
        raw::Client::connect_many(setting, &key, target, count).await
    };
    per_connection(runtime, &process, count, dial)
}

/// KiB that a server's process grows by with each of so many connections.
fn per_connection<T>(
    runtime: &Runtime,
    process: &Process,
    count: usize,
    dial: impl AsyncFn(u8, usize) -> Vec<T>,
) -> f64 {
    runtime.block_on(async {
        // What the first connection brings to life is not counted.
        let _first = dial(SOCKETS, 1).await;
        let before = process.resident_bytes();
        let mut open = Vec::new();
        for number in 0..SOCKETS {
            open.push(dial(number, count / usize::from(SOCKETS)).await);
        }
        (process.resident_bytes() - before) as f64 / 1024.0 / count as f64
    })
}
