// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does it cost to decide where an object goes, and how even is the outcome?
//!
//! `cargo bench -p supernode-benches --bench objects -- [--json OUT] [--quick] objects.place` asks
//! for some of the figures.

use supernode_benches::answer;

mod objects {
    pub mod place;
}

fn main() {
    answer(&[
        ("objects.place", &objects::place::cost),
        ("objects.place.fill", &objects::place::fill),
    ]);
}
