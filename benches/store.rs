// SPDX-License-Identifier: MIT OR Apache-2.0
//! How near does the store come to its disk and its memory, and does its cost stay the same as it
//! grows?
//!
//! `cargo bench -p supernode-benches --bench store -- [--json OUT] [--quick] store.put` asks for
//! some of the figures. The baseline is `fio` (`benches/install-fio`) in the same directory,
//! `SUPERNODE_BENCH_DIR`; with `--features peers` other stores are baselines too (RocksDB wants
//! a C++ compiler and libclang). `SUPERNODE_BENCH_SHARDS` shrinks the fill of a million shards.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::process::ExitCode;

use supernode_benches::answer;

mod stock;

mod store {
    pub mod fio;
    #[cfg(feature = "foyer")]
    pub mod foyer;
    pub mod get;
    pub mod growth;
    pub mod place;
    pub mod put;
    #[cfg(feature = "rocksdb")]
    pub mod rocksdb;
    pub mod shards;
    pub mod start;
}

use self::store::start::{Million, child};
use self::store::{fio, get, growth, place, put};

fn main() -> ExitCode {
    if child() {
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = fio::find() {
        writeln!(io::stderr(), "error: {reason}").expect("somebody reads errors");
        return ExitCode::FAILURE;
    }
    writeln!(io::stdout(), "{}", place::describe()).expect("somebody reads the figures");
    // Filled once, by whoever asks first.
    let latencies = OnceCell::new();
    let million = OnceCell::new();
    let latencies = |scale| latencies.get_or_init(|| get::Latencies::measure(scale));
    let million = |scale| million.get_or_init(|| Million::fill(scale));
    answer(&[
        ("store.put.5m", &put::large),
        ("store.put.64k", &put::small),
        #[cfg(feature = "rocksdb")]
        ("store.put.rocksdb", &store::rocksdb::put),
        #[cfg(feature = "foyer")]
        ("store.put.foyer", &store::foyer::put),
        ("store.get.cold.5m", &get::cold_large),
        ("store.get.cold.64k", &get::cold_small),
        ("store.get.hot.5m", &get::hot),
        ("store.get.latency.p50", &|scale| latencies(scale).p50()),
        ("store.get.latency.p99", &|scale| latencies(scale).p99()),
        ("store.usage", &growth::usage),
        ("store.grow", &growth::grow),
        ("store.start.clean", &|scale| million(scale).start_clean()),
        ("store.start.crash", &|scale| million(scale).start_crash()),
        ("store.start.noindex", &|scale| million(scale).start_without_index()),
        ("store.memory", &|scale| million(scale).memory()),
    ]);
    ExitCode::SUCCESS
}
