// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client on no list is refused. Whoever the nodes trust signs a capability for it; its
//! configuration shows it, and it puts and reads back, until the bytes of the grant are used up.
//! And a node of the chain's registry is a client of class repair, with no list and no capability.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use supernode_tests::eventually::eventually;
use supernode_tests::http;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Program};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const NODES: usize = 3;
/// What a node moves under the grant. Each one holds a whole copy of an object of class 1+2.
const GRANTED_BYTES: &str = "400kB";
/// Fits, once in and once out again.
const FIRST_BYTES: usize = 150_000;
/// More than any node has left after the first one came in.
const SECOND_BYTES: usize = 300_000;
/// A development network reads its registry every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the development network with a key of its own, and who it is.
struct Person {
    client: Client,
    config: PathBuf,
    peer_id: String,
}

impl Person {
    fn new(program: &Program, dir: &Path) -> Self {
        let config = dir.join("client.toml");
        let mut init = program.command(["init", "--client", "--set", "network.name=dev"]);
        let made = supernode_tests::program::run(init.arg("--config").arg(&config)).expect(0);
        let peer_id = made.text().to_owned();
        Self { client: Client::new(program.clone(), config.clone()), config, peer_id }
    }

    /// Writes a setting into the configuration that is there with another value.
    fn set(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).expect("it was made");
        assert_eq!(text.matches(from).count(), 1, "{from} stands there once");
        fs::write(&self.config, text.replacen(from, to, 1)).expect("an own file");
    }
}

fn put(person: &Person, dir: &Path, bytes: &[u8]) -> supernode_tests::program::Ended {
    let file = dir.join("object");
    fs::write(&file, bytes).expect("an own directory");
    person.client.run(["put", "--class=1+2", file.to_str().expect("ASCII")])
}

fn figure(network: &Network, node: usize, name: &str) -> u64 {
    let page = http::metrics(&network.nodes[node].http).expect("the node answers");
    page.value(name).expect("it is exported").parse().expect("a count")
}

#[test]
fn a_capability_opens_the_door() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let dir = scratch.path();
    let program = Program::new(PROGRAM, &dir.join("home"));
    let issuer = Person::new(&program, &dir.join("issuer"));
    let person = Person::new(&program, &dir.join("person"));
    let settings = [
        ("SUPERNODE_RELAY__ISSUERS", issuer.peer_id.as_str()),
        ("SUPERNODE_LOG__FILTER", "debug,supernode_relay=trace"),
    ];
    let shape = Shape { nodes: NODES, settings: &settings, ..Shape::default() };
    let network = Network::start_as(PROGRAM, &shape);
    let address = &network.nodes[0].libp2p;
    person.set("bootstrap = []", &format!("bootstrap = [{address:?}]"));

    let first = random.bytes(FIRST_BYTES);
    let line = put(&person, dir, &first).refusal(4);
    assert!(line.contains("not authorised") && line.contains("capability"), "{line}");

    let sign = ["capability", "sign", "--class=gateway", "--read", "--write", "--expires=1h"];
    let audience = format!("--audience={}", person.peer_id);
    let bytes = format!("--bytes={GRANTED_BYTES}");
    let made = issuer.client.run(sign.iter().copied().chain([&*audience, &*bytes])).expect(0);
    let token = made.text().to_owned();
    fs::write(dir.join("person/grant"), &token).expect("an own directory");
    person.set("capability_file = \"\"", "capability_file = \"grant\"");

    let cid = put(&person, dir, &first).expect(0).text().to_owned();
    person.client.fetch_exact(&cid, dir, &first);
    let line = put(&person, dir, &random.bytes(SECOND_BYTES)).refusal(4);
    assert!(line.contains("the bytes of the capability are used up"), "{line}");
    let spent = "supernode_relay_rejected_total{reason=\"capability_spent\"}";
    let spent: u64 = (0..NODES).map(|node| figure(&network, node, spent)).sum();
    assert!(spent > 0, "the nodes count it");
    // What is left opens the same door as before: without the grant it is closed again.
    person.set("capability_file = \"grant\"", "capability_file = \"\"");
    let line = put(&person, dir, &first).refusal(4);
    assert!(line.contains("list of writers"), "{line}");

    a_registered_node_is_known(&network);
    for node in &network.nodes {
        let log = node.data_dir.with_file_name("node.log");
        let log = fs::read_to_string(log).expect("it has a log");
        assert!(log.contains("\"DEBUG\""), "the log tells all it knows");
        assert!(!log.contains(&token), "{} has the token in its log", node.name);
    }
    network.stop();
}

/// `status` asks a node with that node's own key, which is on no list.
fn a_registered_node_is_known(network: &Network) {
    let node = &network.nodes[1];
    let known = "supernode_chain_registered_nodes";
    eventually("the registry to be read", PATIENCE, || {
        (figure(network, 1, known) == NODES as u64).then_some(())
    });
    let repair = "supernode_relay_class_requests_total{class=\"repair\"}";
    let before = figure(network, 1, repair);
    let config = node.data_dir.with_file_name("supernode.toml");
    let status = ["status", "--config", config.to_str().expect("ASCII")];
    network.program.run(status).expect(0);
    assert!(figure(network, 1, repair) > before, "a registered node repairs");
}
