// SPDX-License-Identifier: MIT OR Apache-2.0
//! 200 clients store and read at one node for half a minute, each from an address prefix of its
//! own: every byte is right, every permit comes back, memory stays where it is.
//!
//! `relay-load` is the same for as many and as long as one likes.

use std::io;
use std::time::Duration;

use supernode_tests::random::Seeded;
use supernode_tests::rush::Rush;

#[test]
fn two_hundred_clients_are_served_and_leave_nothing_behind() {
    let dir = tempfile::Builder::new().prefix("supernode-test-").tempdir();
    let dir = dir.expect("a temporary directory");
    let rush = Rush {
        connections: 200,
        active: 64,
        time: Duration::from_secs(30),
        look_every: Duration::from_secs(1),
        seed: Seeded::new().seed,
    };
    let program = env!("CARGO_BIN_EXE_supernode-under-test");
    rush.run(program, dir.path(), &mut io::stdout()).expect("no fault");
}
