// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client lists what it keeps, lets go of it, and looks at objects, nodes and the network; each
//! as text and as JSON.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use supernode_tests::eventually::eventually;
use supernode_tests::http;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Program};

/// Far above what a scrub of one object takes.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");

#[test]
fn what_is_kept_can_be_looked_at() {
    let mut network = Network::start_as(PROGRAM, &Shape { nodes: 3, ..Shape::default() });
    let client = network.client();
    the_nodes(&network, &client);
    assert_eq!(list(&client), json!([]));

    let file = network.path("object");
    fs::write(&file, vec![5; 300_000]).expect("an own directory");
    let words = ["put".as_ref(), "--class=2+1".as_ref(), "--lease=90m".as_ref(), file.as_os_str()];
    let cid = client.run::<&OsStr>(words).expect(0).text().to_owned();
    the_object(&client, &cid);
    the_pin(&network, &client, &cid);
    the_scrub(&network);

    network.kill(&[2]);
    let silent = client.run(["status", "--json"]).expect(1);
    assert_eq!(silent.json()["ok"], false);
    let said = silent.stderr.lines().collect::<Vec<_>>();
    let peer = network.nodes[2].libp2p.rsplit('/').next().expect("it ends in a peer id");
    assert!(said.len() == 1 && said[0].contains(peer), "the silent one is named: {said:?}");
    network.stop();
}

fn the_nodes(network: &Network, client: &Client) {
    let status = client.run(["status", "--json"]).expect(0).json();
    assert_eq!(status["ok"], true);
    let answers = status["nodes"].as_array().expect("a list");
    assert_eq!(answers.len(), 3);
    for (answer, node) in answers.iter().zip(&network.nodes) {
        assert_eq!((&answer["answers"], &answer["region"]), (&json!(true), &json!(node.region)));
        assert_eq!(answer["address"], json!(node.libp2p));
        assert_eq!(answer["status"]["shard_count"], 0);
        assert_eq!(answer["status"]["capacity_bytes"], 100_u64 << 30);
    }
    let text = client.run(["status"]).expect(0);
    assert_eq!(text.text().lines().count(), 4, "a header and three nodes: {}", text.text());
    let own = network.nodes[1].data_dir.with_file_name("supernode.toml");
    let own = network.program.run([
        "status".as_ref(),
        "--json".as_ref(),
        "--config".as_ref(),
        own.as_os_str(),
    ]);
    let own = own.expect(0).json();
    assert_eq!((&own["ok"], own["nodes"].as_array().map(Vec::len)), (&json!(true), Some(1)));

    let peers = client.run(["peer", "list", "--json"]).expect(0).json();
    let peers = peers.as_array().expect("a list");
    let quic = |peer: &Value| peer["quic"][0].as_str().expect("an address").to_owned();
    let listed: BTreeSet<String> = peers.iter().map(quic).collect();
    assert_eq!(listed, network.nodes.iter().map(|node| node.quic.clone()).collect());
    assert_eq!(client.run(["peer", "list"]).expect(0).text().lines().count(), 4);
}

/// A running node reads everything it keeps when it is asked to.
fn the_scrub(network: &Network) {
    let config = network.nodes[0].data_dir.with_file_name("supernode.toml");
    let scrub = |command: &str| {
        let words = ["scrub", command, "--json", "--config"].map(OsStr::new);
        network.program.run(words.into_iter().chain([config.as_os_str()])).expect(0).json()
    };
    assert_eq!(scrub("status")["passes"], 0);
    assert_eq!(scrub("pause")["state"], "paused");
    assert_eq!(scrub("start")["state"], "running");
    let done = eventually("a whole scrub", PATIENCE, || {
        Some(scrub("status")).filter(|status| status["passes"] == 1)
    });
    // One shard and the manifest.
    assert_eq!((&done["verified"], &done["damaged"]), (&json!(2), &json!(0)), "{done}");
    let page = http::request(&network.nodes[0].http, "/metrics").expect("the node answers").1;
    assert!(page.contains("supernode_scrub_passes_total 1\n"), "{page}");
}

fn the_object(client: &Client, cid: &str) {
    let stat = client.run(["stat", cid, "--json"]).expect(0).json();
    assert_eq!((&stat["cid"], &stat["size"]), (&json!(cid), &json!(300_000)));
    assert_eq!((&stat["slots_total"], &stat["slots_healthy"]), (&json!(3), &json!(3)));
    let slots = stat["slots"].as_array().expect("a list");
    for (index, slot) in slots.iter().enumerate() {
        assert_eq!((&slot["stripe"], &slot["index"]), (&json!(0), &json!(index)));
        assert_eq!(
            (&slot["health"], &slot["holder"]),
            (&json!("healthy"), &stat["groups"][0]["placement"][index])
        );
    }
    assert_eq!(slots.len(), 3);
    assert_eq!((&stat["survives_nodes"], &stat["missing"]), (&json!(1), &json!([])));
    let groups = stat["groups"].as_array().expect("a list");
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["placement"].as_array().map(Vec::len), Some(3));
    let held = groups[0]["held"].as_object().expect("slots by node");
    assert!(held.len() == 3 && held.values().all(|slots| *slots == 1), "{held:?}");
    assert!(client.run(["stat", cid]).expect(0).text().contains("slots healthy     3 of 3"));
}

fn the_pin(network: &Network, client: &Client, cid: &str) {
    let listed = list(client);
    let pins = listed.as_array().expect("a list");
    assert_eq!(pins.len(), 1, "{listed}");
    let pin = &pins[0];
    assert_eq!(
        (&pin["cid"], &pin["size"], &pin["kind"]),
        (&json!(cid), &json!(300_000), &json!("pin"))
    );
    assert_eq!(pin["holders"].as_array().map(Vec::len), Some(3));
    let text = client.run(["ls"]).expect(0);
    assert!(text.text().contains(cid) && text.text().contains("in 1h "), "{}", text.text());
    // Pins are their owner's business.
    let other = other_client(network);
    assert_eq!(list(&other), json!([]));
    other.run(["rm", cid]).refusal(3);

    let removed = client.run(["rm", cid, "--json"]).expect(0).json();
    assert_eq!((&removed["cid"], &removed["failed"]), (&json!(cid), &json!([])));
    assert_eq!(removed["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(list(client), json!([]));
    assert!(client.run(["rm", cid]).refusal(3).contains(cid));
}

fn list(client: &Client) -> Value {
    client.run(["ls", "--json"]).expect(0).json()
}

fn other_client(network: &Network) -> Client {
    let program: &Program = &network.program;
    let config = network.path("other.toml");
    let address = format!("network.bootstrap={}", network.nodes[0].libp2p);
    let words = ["init", "--client", "--set", "network.name=dev", "--set", &address, "--config"];
    let words = words.iter().map(OsStr::new).chain([config.as_os_str()]);
    program.run(words).expect(0);
    Client::new(program.clone(), config)
}
