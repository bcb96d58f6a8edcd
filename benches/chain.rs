// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does it cost a node to follow a chain: proofs from the disk, their bytes and their
//! verification, a finalised block with many deals, and a deal that ends?
//!
//! `cargo bench -p supernode-benches --bench chain -- [--json OUT] [--quick] chain.verify` asks for
//! one of the figures. `SUPERNODE_BENCH_SHARDS` shrinks the expiry, which takes minutes.

use supernode_benches::answer;

mod stock;

mod chain {
    pub mod block;
    pub mod expire;
    pub mod proof;
    pub mod verify;
}

fn main() {
    answer(&[
        ("chain.proof.cold", &chain::proof::cold),
        ("chain.proof.bytes", &chain::verify::bytes),
        ("chain.verify", &chain::verify::rate),
        ("chain.block.10k", &chain::block::many_deals),
        ("chain.expire.140k", &chain::expire::expiry),
    ]);
}
