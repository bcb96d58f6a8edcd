// SPDX-License-Identifier: MIT OR Apache-2.0
//! A secret with a pattern of its own is an operator's and a client's key. Whatever fails with it,
//! it is in no log, on no metrics page and in no output.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use supernode_tests::eventually::eventually;
use supernode_tests::http;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// Not a pattern that anything else has.
const CANARY: [u8; 32] = *b"canary-seed-that-never-is-shown!";
/// A node reconnects within a heartbeat or a few.
const PATIENCE: Duration = Duration::from_secs(60);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ways in which bytes get into text, whole and in part.
fn spellings() -> Vec<String> {
    let mut found = Vec::new();
    for bytes in [&CANARY[..], &CANARY[..16], &CANARY[16..]] {
        let (listed, digits) = (format!("{bytes:?}"), hex(bytes));
        found.push(digits.to_uppercase());
        found.push(digits);
        found.push(listed.trim_matches(['[', ']']).to_owned());
        found.push(String::from_utf8_lossy(bytes).into_owned());
    }
    found
}

#[track_caller]
fn assert_hidden(place: &str, text: &str) {
    for spelling in spellings() {
        assert!(!text.contains(&spelling), "{place} shows the secret as {spelling}");
    }
}

fn write_key(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("an own file");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("an own file");
}

/// Runs what fails with this key, and looks at all that is said.
fn fails(client: &Client, arguments: &[&str]) -> String {
    let ended = client.run(arguments);
    assert_ne!(ended.code, 0, "{arguments:?} works: {}", ended.text());
    assert_hidden(&arguments.join(" "), &ended.stderr);
    assert_hidden(&arguments.join(" "), ended.text());
    ended.stderr
}

#[test]
fn secrets_stay_secret() {
    assert_eq!(hex(&CANARY).len(), 64);
    let settings =
        [("SUPERNODE_LOG__FILTER", "debug,supernode_chain=trace,jsonrpsee=trace,subxt=trace")];
    let mut network =
        Network::start_as(PROGRAM, &Shape { nodes: 3, settings: &settings, ..Shape::default() });
    let secret = format!("0x{}\n", hex(&CANARY));

    // The operator's: a node that runs with it, and one that cannot.
    network.stop_node(0);
    let operator = network.nodes[0].data_dir.join("chain.key");
    assert!(operator.exists(), "the key is where the story changes it");
    write_key(&operator, &secret, 0o600);
    network.restart(0);
    let connected = "supernode_chain_standing{standing=\"healthy\"} 1";
    let page = eventually("a node with the canary for a key", PATIENCE, || {
        let page = http::request(&network.nodes[0].http, "/metrics").ok()?.1;
        page.contains(connected).then_some(page)
    });
    assert_hidden("the metrics page", &page);

    // The client's: an account that owns nothing, then files that are no key.
    let (client, dir) = (network.client(), network.dir());
    let (file, key) = (network.path("object"), dir.join("chain.key"));
    fs::write(&file, [7; 1000]).expect("an own directory");
    let file = file.to_str().expect("ASCII");
    let put = ["put", "--class=1+2", "--deal=100blocks", file];
    write_key(&key, &secret, 0o600);
    for arguments in [&put[..], &["deal", "cancel", "1"], &["deal", "renew", "1", "100blocks"]] {
        fails(&client, arguments);
    }
    write_key(&key, &secret, 0o644);
    assert!(fails(&client, &put).contains("chmod 600"));
    for spoiled in
        [format!("{}zz", hex(&CANARY)), hex(&CANARY[..31]), "canary-seed-that".to_owned()]
    {
        write_key(&key, &spoiled, 0o600);
        assert!(fails(&client, &put).contains("holds no key"));
    }

    let talk = network.talk();
    assert_hidden("dev", &talk);
    let logs = network.nodes.iter().map(|node| node.data_dir.with_file_name("node.log"));
    for path in logs.chain([dir.join("chain.log")]) {
        let text = fs::read_to_string(&path).expect("it has a log");
        assert_hidden(&path.display().to_string(), &text);
    }
    let log = fs::read_to_string(network.nodes[0].data_dir.with_file_name("node.log"));
    assert!(log.expect("it has a log").contains("\"TRACE\""), "the log tells all it knows");
    network.stop();
}
