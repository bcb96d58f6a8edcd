// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that have no room say so, and go on giving back and letting go of what they have.

use std::ffi::OsStr;
use std::fs;

use supernode_tests::network::{Network, Shape};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// Each node takes one of three equal shards.
const CAPACITY: &str = "3MiB";

#[test]
fn a_full_network_refuses() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let settings = [("SUPERNODE_STORAGE__CAPACITY_BYTES", CAPACITY)];
    let network =
        Network::start_as(PROGRAM, &Shape { nodes: 3, settings: &settings, ..Shape::default() });
    let (client, dir) = (network.client(), network.path(""));
    let kept = random.bytes(2 << 20);
    let file = dir.join("object");
    let put = || client.run([OsStr::new("put"), "--class=1+2".as_ref(), file.as_os_str()]);

    fs::write(&file, &kept).expect("an own directory");
    let cid = put().expect(0).text().to_owned();
    fs::write(&file, random.bytes(2 << 20)).expect("an own file");
    let line = put().refusal(4);
    assert!(line.contains("full"), "{line}");

    client.fetch_exact(&cid, &dir, &kept);
    let listed = client.run(["ls", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().expect("a list").len(), 1, "{listed}");
    client.run(["rm", &cid]).expect(0);
    let listed = client.run(["ls", "--json"]).expect(0).json();
    assert_eq!(listed, serde_json::json!([]));
    network.stop();
}
