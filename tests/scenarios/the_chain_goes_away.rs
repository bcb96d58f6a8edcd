// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain dies for longer than a deal has left: reads and pins go on, deals are refused in so
//! many words, nothing is deleted. It comes back, the deal ends by its blocks, and its bytes go.

use std::fs;
use std::time::Duration;

use supernode_tests::chain::height;
use supernode_tests::eventually::eventually;
use supernode_tests::http;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Ended};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const NODES: usize = 4;
/// The deal lasts as few blocks as a development chain takes, which are 12 seconds.
const DEAL: &str = "--deal=60blocks";
const BLOCK_TIME: &str = "200ms";
/// How long finality has to have stood still: longer than the deal has left.
const OUTAGE_SECS: f64 = 14.0;
/// Far above what the deal still takes when the chain is back.
const PATIENCE: Duration = Duration::from_secs(90);

fn put(client: &Client, file: &str, more: &[&str]) -> Ended {
    let mut arguments = vec!["put", "--json", "--class=2+2", file];
    arguments.extend(more);
    client.run(arguments)
}

/// A figure that every node shows, node by node.
fn figures(network: &Network, name: &str) -> Vec<f64> {
    let figure = |page: String| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    let page = |address: &str| http::request(address, "/metrics").expect("the node answers").1;
    network.nodes.iter().map(|node| figure(page(&node.http))).collect()
}

fn slots(network: &Network) -> f64 {
    figures(network, "supernode_slots{state=\"live\"}").into_iter().sum()
}

#[test]
fn the_chain_goes_away() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let settings = [
        ("SUPERNODE_AUDIT__REORG_BUFFER_BLOCKS", "2"),
        ("SUPERNODE_AUDIT__RETRY_INTERVAL_SECS", "1s"),
        ("SUPERNODE_STORAGE__TRASH_SECS", "1s"),
    ];
    let shape = Shape { nodes: NODES, settings: &settings, block_time: BLOCK_TIME };
    let mut network = Network::start_as(PROGRAM, &shape);
    let (client, dir) = (network.client(), network.path(""));
    let (paid, pinned) = (random.bytes(200_000), random.bytes(300_000));
    let file = dir.join("object");
    let path = file.to_str().expect("ASCII").to_owned();
    fs::write(&file, &pinned).expect("an own directory");
    let pin = put(&client, &path, &[]).expect(0).json();
    let pin = pin["cid"].as_str().expect("a CID").to_owned();
    fs::write(&file, &paid).expect("an own directory");
    let report = put(&client, &path, &[DEAL]).expect(0).json();
    let cid = report["cid"].as_str().expect("a CID").to_owned();
    let expires_at = report["deal"]["expires_at"].as_u64().expect("a block");
    let all = slots(&network);

    network.kill_chain();
    let line = put(&client, &path, &[DEAL]).expect(1).stderr;
    assert!(line.contains("the chain at ") && line.contains("check chain.endpoints"), "{line}");
    assert!(!line.contains("stays reserved"), "nothing was set aside: {line}");
    let lag = "supernode_chain_finalised_lag_seconds";
    eventually("an outage that outlasts the deal", PATIENCE, || {
        figures(&network, lag).iter().all(|lag| *lag > OUTAGE_SECS).then_some(())
    });
    let unreachable = "supernode_chain_standing{standing=\"unreachable\"}";
    assert_eq!(figures(&network, unreachable), [1.0; NODES], "each node says what is wrong");
    assert_eq!(figures(&network, "supernode_chain_alarms{alarm=\"chain\"}"), [1.0; NODES]);
    assert_eq!(slots(&network), all, "nothing is deleted without the chain's word");
    client.fetch_exact(&cid, &dir, &paid);
    client.fetch_exact(&pin, &dir, &pinned);
    fs::write(&file, random.bytes(100_000)).expect("an own file");
    let late = put(&client, &path, &[]).expect(0).json();
    assert_eq!(late["slots_stored"], 4, "a pin needs no chain");

    network.restart_chain();
    let endpoint = network.endpoint();
    let left = |network: &Network| slots(network) - all;
    eventually("the end of the deal", PATIENCE, || {
        // The late pin's four are there, the deal's four are gone.
        (left(&network) == 0.0).then_some(())
    });
    assert!(height(&endpoint) >= expires_at, "not a block before its end");
    let gone = client.get(&cid, &dir.join("gone.out"));
    assert_ne!(gone.code, 0, "what is not paid for is not served");
    client.fetch_exact(&pin, &dir, &pinned);
    let shown = client.run(["deal", "show", "1", "--json"]).expect(0).json();
    assert_eq!((&shown["state"], &shown["block"]), (&"expired".into(), &expires_at.into()));
    // `dev` looks after the processes it has started; this chain is the test's own.
    network.kill_chain();
    network.stop();
}
