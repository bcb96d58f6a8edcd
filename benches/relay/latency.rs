// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long does one get take: alone, among a hundred clients, and beside clients that mean harm?

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_client::Client;

use super::attack::{Attack, HOG_REQUESTS, SLOW_READERS};
use super::process::{Process, Role, threads};
use super::server::{Server, client, fill, get, loopback_transport, peer};
use super::stage::{CACHE_BYTES, Load, MIB, Stage};
use crate::place::Place;
use crate::shards::{Shards, perform};

const SEVEN: &str = "one 7 MB shard from a cold disk to a client of the relay class, one at a \
                     time: P99 over all, against 140 ms, want <= 1.0";
const HUNDRED: &str = "100 clients at once, each dials and gets 7 MiB of its own from a cold disk: \
                       total time against 5 s, want <= 1.0";
const ATTACKED: &str = "P99 of gets of 256 KiB, 8 in flight, with one hog of 1,000 requests and \
                        200 slow readers at nice 19, against the quiet P99 of the same run, \
                        want <= 2.0";

/// 7 MB in whole disk blocks.
const SEVEN_BYTES: usize = 1710 * 4096;
const SEVEN_MILLIS: f64 = 140.0;
const CLIENTS: u8 = 100;
const CLIENT_BYTES: usize = 7 << 20;
const TOGETHER_SECS: f64 = 5.0;
/// What all bodies in flight may take of a node's memory.
const BUDGET_BYTES: f64 = (256 << 20) as f64;
const HONEST_BYTES: usize = 256 << 10;

/// `relay.7mb`.
pub fn seven(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((100, 7), (40, 5));
    let stage = Stage::new((count, SEVEN_BYTES), 0);
    let load = Load { count, in_flight: 1 };
    let mut pooled = Vec::new();
    let ours: Vec<_> = (0..rounds)
        .map(|round| {
            stage.place.settle();
            let mut took = millis(&stage.verified(load, round));
            pooled.extend_from_slice(&took);
            percentile(&mut took, 99)
        })
        .collect();
    let p50 = percentile(&mut pooled, 50);
    let raw = json!({
        "shards": count, "bytes": SEVEN_BYTES, "gets": pooled.len(), "ours_rounds": ours,
        "note": format!("P50 {p50:.1} ms"),
    });
    let p99 = percentile(&mut pooled, 99);
    Figure::new(("relay.7mb", SEVEN), (p99, SEVEN_MILLIS), "ms", raw)
}

/// `relay.100`.
pub fn hundred(scale: Scale) -> Figure {
    let rounds = scale.pick(7, 5);
    let (place, runtime) = (Place::new(), threads());
    let directory = place.fresh();
    let shards = Shards::new(CLIENTS.into(), CLIENT_BYTES);
    fill(&runtime, directory.path(), &shards);
    let (mut jain, mut grown) = (Vec::new(), Vec::new());
    let mut ours = Vec::new();
    for _ in 0..rounds {
        let relay = Server::over(directory.path(), 0).start();
        place.settle();
        let before = relay.resident_bytes();
        let clients: Vec<_> = runtime.block_on(async {
            (2..2 + CLIENTS).map(|number| client(number, loopback_transport())).collect()
        });
        let (took, each) = timed(|| runtime.block_on(together(&clients, &shards, &relay)));
        ours.push(took.as_secs_f64());
        jain.push(fairness(&each));
        grown.push((relay.resident_bytes_max() - before) as f64);
    }
    let (fair, peak) = (median(&jain), median(&grown));
    let note = format!(
        "Jain's fairness {fair:.3} (want >= 0.95); the server grew by {:.0} MiB at most, {:.2} of \
         a byte budget of {:.0} MiB (want <= 1)",
        peak / MIB,
        peak / BUDGET_BYTES,
        BUDGET_BYTES / MIB
    );
    let raw = json!({
        "clients": CLIENTS, "bytes": CLIENT_BYTES, "ours_rounds": ours, "jain_rounds": jain,
        "grown_bytes_rounds": grown, "note": note,
    });
    Figure::new(("relay.100", HUNDRED), (median(&ours), TOGETHER_SECS), "s", raw)
}

/// Every client gets its shard; returns how long each took.
async fn together(clients: &[Client], shards: &Arc<Shards>, relay: &Process) -> Vec<Duration> {
    let (clients, peer): (Arc<[Client]>, _) = (clients.into(), peer(relay.address));
    let shards = Arc::clone(shards);
    let one = move |number: usize| {
        let (client, peer, id) = (clients[number].clone(), peer.clone(), shards.id(number));
        async move {
            get(&client, &peer, id, CLIENT_BYTES as u64).await;
        }
    };
    perform(CLIENTS.into(), CLIENTS.into(), one).await
}

/// Jain's index of the rates of some clients that moved equal amounts: 1 when all are equal, 1 / n
/// when one had everything.
fn fairness(took: &[Duration]) -> f64 {
    let rates = took.iter().map(|took| 1.0 / took.as_secs_f64());
    let (sum, squares) =
        rates.fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
    sum * sum / (took.len() as f64 * squares)
}

/// `relay.p99.attacked`.
pub fn attacked(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((2000, 7), (400, 5));
    // With the limits that are to protect the honest.
    let stage = Stage::limited((64, HONEST_BYTES), CACHE_BYTES);
    let load = Load { count, in_flight: 8 };
    let victim: Vec<_> = (0..stage.shards.count()).map(|number| stage.shards.id(number)).collect();
    let (ours, against) = interleaved(
        rounds,
        |round| {
            let attack = Attack { target: stage.relay.address, shards: victim.clone() };
            let _attackers = Process::start(&Role::Attack(attack));
            percentile(&mut millis(&stage.verified(load, round)), 99)
        },
        |round| percentile(&mut millis(&stage.verified(load, round)), 99),
    );
    let raw = json!({
        "gets": count, "bytes": HONEST_BYTES, "in_flight": load.in_flight,
        "hog_requests": HOG_REQUESTS, "slow_readers": SLOW_READERS,
        "ours_rounds": ours, "against_rounds": against,
    });
    Figure::new(("relay.p99.attacked", ATTACKED), (median(&ours), median(&against)), "ms", raw)
}

fn millis(took: &[Duration]) -> Vec<f64> {
    took.iter().map(|took| took.as_secs_f64() * 1e3).collect()
}

/// The value that so many percent of some do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100) - 1]
}
