// SPDX-License-Identifier: MIT OR Apache-2.0
//! All twenty-one pairs of seven nodes, each killed in one instant, with an object of 300 MB.

use supernode_tests::network::Network;
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const OBJECT_BYTES: usize = 300_000_000;

#[test]
fn every_pair_of_nodes_may_die() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let bytes = random.bytes(OBJECT_BYTES);
    let mut network = Network::start(PROGRAM);
    let client = network.client();
    let cid = client.put_bytes(&network.path(""), &bytes);
    let mut pairs = 0;
    for first in 0..7 {
        for second in first + 1..7 {
            println!("without {first} and {second}");
            network.kill(&[first, second]);
            client.fetch_exact(&cid, &network.path(""), &bytes);
            network.restart_all(&[first, second]);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 21);
    network.stop();
}
