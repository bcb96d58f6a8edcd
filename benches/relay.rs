// SPDX-License-Identifier: MIT OR Apache-2.0
//! How near does the relay server come to QUIC, to its disk and to its store, and what do its
//! clients feel of each other?
//!
//! `cargo bench -p supernode-benches --bench relay -- [--json OUT] [--quick] relay.get` asks for
//! some of the figures. Servers run in processes of their own, on loopback, over stores in
//! `SUPERNODE_BENCH_DIR`. The baselines are quinn alone with the best of its settings, `fio`
//! (`benches/install-fio`), nginx with curl (`benches/install-nginx`), and with `--features peers`
//! iroh-blobs. `--sweep [OUT]` finds quinn's best settings again; what it wrote last is
//! `benches/results/sweeps/relay.json`.

use std::io::{self, Write};
use std::process::ExitCode;

use supernode_benches::{Question, answer};

#[expect(dead_code, reason = "other benches fill stores with whole objects")]
mod stock;

#[expect(dead_code, reason = "the store's bench asks fio for more")]
#[path = "store/fio.rs"]
mod fio;
#[path = "store/place.rs"]
mod place;
#[expect(dead_code, reason = "the store's bench reads without a network")]
#[path = "store/shards.rs"]
mod shards;

mod relay {
    pub mod attack;
    pub mod backend;
    pub mod counter;
    pub mod get;
    pub mod https;
    pub mod idle;
    #[cfg(feature = "iroh")]
    pub mod iroh;
    pub mod latency;
    pub mod path;
    pub mod process;
    pub mod put;
    pub mod raw;
    pub mod server;
    pub mod stage;
    pub mod sweep;
}

use self::relay::process::child;
use self::relay::sweep::sweep;
use self::relay::{get, https, idle, latency, put};

const READER: &str = "somebody reads the figures";

fn main() -> ExitCode {
    if child() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--sweep") {
        sweep(arguments.get(at + 1).map(String::as_str).filter(|path| !path.starts_with('-')));
        return ExitCode::SUCCESS;
    }
    let mut questions: Vec<Question<'_>> = vec![
        ("relay.get.hot", &get::hot),
        ("relay.get.hot.default", &get::hot_by_default),
        ("relay.get.count", &get::count),
        ("relay.get.cold", &get::cold),
        ("relay.put", &put::put),
        ("relay.small", &get::small),
        ("relay.cpu", &get::cpu),
        ("relay.7mb", &latency::seven),
        ("relay.100", &latency::hundred),
        ("relay.p99.attacked", &latency::attacked),
        ("relay.idle", &idle::idle),
        ("relay.get.https", &https::get),
        #[cfg(feature = "iroh")]
        ("relay.get.iroh", &relay::iroh::get),
    ];
    // Who has not got a baseline still gets the other figures.
    for (id, found) in [("relay.get.cold", fio::find()), ("relay.get.https", https::find())] {
        if let Err(reason) = found {
            writeln!(io::stderr(), "{id} is left out: {reason}").expect(READER);
            questions.retain(|question| question.0 != id);
        }
    }
    writeln!(io::stdout(), "{}", place::describe()).expect(READER);
    answer(&questions);
    ExitCode::SUCCESS
}
