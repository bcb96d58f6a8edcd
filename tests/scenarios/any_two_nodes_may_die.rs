// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network of seven loses any two nodes at once and gives back every byte; it loses three and
//! says so. `dev` leaves the dead dead, and Ctrl-C stops also those that were revived by hand.

use std::fs;
use std::time::Duration;

use supernode_tests::eventually::eventually;
use supernode_tests::network::Network;
use supernode_tests::process;
use supernode_tests::program::run;
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// Two stripes, the second one short.
const OBJECT_BYTES: usize = (100 << 20) + 4097;
/// Pairs of the twenty-one that this tier has time for; `tests/system_any_pair.rs` takes all.
const PAIRS: usize = 3;
/// With too few nodes left, a get has to say so within this time.
const ERROR_WITHIN: Duration = Duration::from_secs(30);
/// How long `dev` may take to notice that a node has ended.
const NOTICE_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn any_two_nodes_may_die_and_three_are_a_typed_error() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let bytes = random.bytes(OBJECT_BYTES);
    let mut network = Network::start(PROGRAM);
    let cid = network.client().put_bytes(&network.path(""), &bytes);

    a_stranger_needs_one_address(&network, &cid, &bytes);
    let pairs = (0..7).flat_map(|a| (a + 1..7).map(move |b| [a, b])).collect();
    let mut sampled = random.shuffled::<[usize; 2]>(pairs);
    sampled.truncate(PAIRS);
    for pair in &sampled {
        println!("without {pair:?}");
        network.kill(pair);
        network.client().fetch_exact(&cid, &network.path(""), &bytes);
        the_dead_stay_dead(&network, pair);
        network.restart_all(pair);
    }
    // The revived ones hold what they held: without them, eight of fourteen shards would be left.
    let revived = sampled[PAIRS - 1];
    let others: Vec<usize> = (0..7).filter(|node| !revived.contains(node)).collect();
    network.kill(&others[..2]);
    network.client().fetch_exact(&cid, &network.path(""), &bytes);

    network.kill(&others[2..3]);
    three_are_too_many(&network, &cid);
    network.stop();
}

/// Somebody with an empty home, who knows one node and the CID.
fn a_stranger_needs_one_address(network: &Network, cid: &str, bytes: &[u8]) {
    let output = network.path("stranger.out");
    let mut command = network.program.command(["get", cid, "--network", "dev", "--bootstrap"]);
    command.arg(&network.nodes[4].libp2p).arg("-o").arg(&output);
    run(&mut command).expect(0);
    assert!(fs::read(&output).expect("get has made the file") == bytes, "other bytes");
}

fn the_dead_stay_dead(network: &Network, pair: &[usize]) {
    for position in pair {
        let node = &network.nodes[*position];
        let notice = format!("{} has ended and stays so", node.name);
        eventually(&notice, NOTICE_WITHIN, || network.talk().contains(&notice).then_some(()));
        let runs = process::working_in(&node.data_dir.with_file_name("supernode.toml"));
        assert!(runs.is_empty(), "{} was killed and runs again", node.name);
    }
}

fn three_are_too_many(network: &Network, cid: &str) {
    let output = network.path("lost.out");
    let ended = network.client().get(cid, &output);
    assert!(ended.elapsed < ERROR_WITHIN, "a typed error within the deadline: {ended:?}");
    let line = ended.refusal(1);
    assert!(line.contains(cid), "the error names the object: {line}");
    network.client().run(["get", cid, "--verify"]).refusal(1);
    assert!(!output.exists(), "no file where there are no bytes");
    let left = fs::read_dir(network.path("")).expect("an own directory").flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".supernode"));
    assert_eq!(left.count(), 0, "nothing half done is left behind");
}
