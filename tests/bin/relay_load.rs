// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients at one node for minutes: `relay-load PROGRAM CONNECTIONS ACTIVE MINUTES` prints a
//! line every ten seconds, of the node's memory and of what was done, and fails when a byte is
//! wrong, a request is refused that is not busy, a permit or connection is left behind, or memory
//! grows. `SUPERNODE_TEST_SEED` replays what is stored and read.

use std::env;
use std::error::Error;
use std::io;
use std::time::Duration;

use supernode_tests::random::Seeded;
use supernode_tests::rush::Rush;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [program, connections, active, minutes] = &arguments[..] else {
        return Err("relay-load PROGRAM CONNECTIONS ACTIVE MINUTES".into());
    };
    let rush = Rush {
        connections: connections.parse()?,
        active: active.parse()?,
        time: Duration::from_secs_f64(minutes.parse::<f64>()? * 60.0),
        look_every: Duration::from_secs(10),
        seed: Seeded::new().seed,
    };
    let dir = tempfile::Builder::new().prefix("supernode-load-").tempdir()?;
    rush.run(program, dir.path(), &mut io::stdout())
}
