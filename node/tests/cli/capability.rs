// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities are signed, shown and named in a client's configuration; what no node would take is
//! refused with the flag or the file that is to blame.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ended, NodeDir, command, finish, run};

const AUDIENCE: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
/// What makes a capability good; each test changes some of it.
const GOOD: [&str; 8] =
    ["--class", "relay", "--bytes", "10GiB", "--expires", "30d", "--audience", AUDIENCE];

/// A client's directory with a key of its own.
struct ClientDir {
    dir: TempDir,
    peer_id: String,
}

impl ClientDir {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("client.toml");
        let made = finish(command(&["init", "--client", "--config"]).arg(&config));
        made.assert_done();
        Self { dir, peer_id: made.stdout.trim().to_owned() }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("client.toml")
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        finish(command(arguments).arg("--config").arg(self.config()))
    }

    /// Signs what is good, with more arguments.
    fn sign(&self, more: &[&str]) -> Ended {
        let mut arguments = vec!["capability", "sign"];
        arguments.extend(GOOD.iter().chain(more));
        self.run(&arguments)
    }
}

fn shown(token: &str) -> Value {
    let ended = run(&["capability", "show", "--json", token]);
    ended.assert_done();
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn what_was_signed_is_shown() {
    let client = ClientDir::new();
    let made = client.sign(&["--read"]);
    made.assert_done();
    let token = made.stdout.trim();
    assert!(token.starts_with('u') && made.stdout.lines().count() == 1, "{}", made.stdout);
    assert!(made.stderr.contains(&client.peer_id) && made.stderr.contains("relay.writers"));
    let said = shown(token);
    assert_eq!(said["issuer"], client.peer_id.as_str());
    assert_eq!(said["audience"], AUDIENCE);
    assert_eq!((&said["network"], &said["class"]), (&"main".into(), &"relay".into()));
    assert_eq!(said["scope"], serde_json::json!({ "read": true, "write": false }));
    assert_eq!(said["bytes"], 10_u64 << 30);
    assert_eq!((&said["is_expired"], &said["is_signature_valid"]), (&false.into(), &true.into()));

    let file = client.dir.path().join("grant");
    fs::write(&file, &made.stdout).expect("own directory");
    let told = finish(command(&["capability", "show"]).arg(&file));
    told.assert_done();
    for part in [client.peer_id.as_str(), AUDIENCE, "10.0 GiB", "read\n", "signature  holds"] {
        assert!(told.stdout.contains(part), "{part:?} is missing: {}", told.stdout);
    }

    let json = client.sign(&["--write", "--json", "--set", "network.name=other"]);
    json.assert_done();
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let said = shown(json["token"].as_str().expect("a token"));
    assert_eq!((&said["network"], &json["network"]), (&"other".into(), &"other".into()));
    assert_eq!(said["scope"], serde_json::json!({ "read": false, "write": true }));
    let days = said["expires_at"].as_u64().expect("a time");
    assert_eq!(Some(days), json["expires_at"].as_u64());
}

#[test]
fn a_node_signs_with_its_own_key_as_far_as_its_lists_go() {
    let node = NodeDir::new();
    let sign = |class: &str, list: Option<&str>| {
        let mut command = node.command(&["capability", "sign", "--read", "--audience", AUDIENCE]);
        command.args(["--bytes", "1MiB", "--expires", "1h", "--class", class]);
        command.args(list.iter().flat_map(|list| ["--set", list]));
        finish(&mut command)
    };
    let made = sign("operator", None);
    made.assert_done();
    assert_eq!(shown(made.stdout.trim())["issuer"], node.peer_id.as_str());
    assert!(!made.stderr.contains("relay.writers"), "no writer grants that: {}", made.stderr);
    let writer = format!("relay.writers={}", node.peer_id);
    sign("operator", Some(&writer)).assert_failed(2, &["--class operator", "gateway"]);
    sign("gateway", Some(&writer)).assert_done();
    let issuer = format!("relay.issuers={}", node.peer_id);
    sign("operator", Some(&issuer)).assert_done();
}

#[test]
fn what_no_node_would_take_is_refused_by_its_flag() {
    let client = ClientDir::new();
    client.sign(&[]).assert_failed(2, &["--read", "--write"]);
    let changed = |flag: &str, value: &str| {
        let mut arguments = vec!["capability", "sign", "--read"];
        let good = GOOD.chunks(2).filter(|pair| pair[0] != flag);
        arguments.extend(good.flatten().chain(&[flag, value]));
        client.run(&arguments)
    };
    changed("--class", "relay").assert_done();
    for (flag, value, remedy) in [
        ("--bytes", "0", "10GiB"),
        ("--bytes", "lots", "MiB"),
        ("--expires", "0s", "at once"),
        ("--expires", "999ms", "at once"),
        ("--expires", "soon", "30d"),
        ("--expires", "18446744073709551615s", "later than any clock"),
        ("--class", "king", "operator"),
        ("--audience", "me", "peer id"),
    ] {
        changed(flag, value).assert_failed(2, &[flag, remedy]);
    }
    let nobody = finish(command(&["capability", "sign", "--read"]).args(GOOD));
    nobody.assert_failed(2, &["identity_file", "init --client"]);
}

#[test]
fn what_is_no_token_is_told_apart_from_one_that_was_changed() {
    let client = ClientDir::new();
    let token = client.sign(&["--read"]).stdout.trim().to_owned();
    run(&["capability", "show", "nonsense"]).assert_failed(2, &["no token", "no file"]);
    run(&["capability", "show", "/nowhere/grant"]).assert_failed(2, &["/nowhere/grant"]);
    run(&["capability", "show", &token[1..]]).assert_failed(2, &["no token"]);
    // The first character of the signature's own 64 bytes, well away from either end.
    let place = token.len() - 40;
    let other = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &token[..place], &token[place + 1..]);
    let ended = run(&["capability", "show", "--json", &forged]);
    assert_eq!(ended.code, 4, "{ended:?}");
    let said: Value = serde_json::from_str(&ended.stdout).expect("it is shown all the same");
    assert_eq!(said["is_signature_valid"], false);
    assert!(ended.stderr.contains(&client.peer_id), "{}", ended.stderr);
}

fn listed(client: &ClientDir, file: &Path) -> Ended {
    let bootstrap = format!("network.bootstrap=/ip4/127.0.0.1/tcp/9/p2p/{AUDIENCE}");
    let mut command = command(&["ls", "--set", &bootstrap, "--config"]);
    command.arg(client.config());
    finish(command.arg("--set").arg(format!("capability_file={}", file.display())))
}

#[test]
fn a_client_starts_with_a_capability_of_its_own_only() {
    let (issuer, client) = (ClientDir::new(), ClientDir::new());
    let file = client.dir.path().join("grant");
    let path = file.display().to_string();
    listed(&client, &file).assert_failed(2, &[&path, "capability sign"]);
    fs::write(&file, "nothing of use").expect("own directory");
    listed(&client, &file).assert_failed(2, &[&path, "no capability"]);

    let signed = |audience: &str, network: &str| {
        let set = format!("network.name={network}");
        let mut arguments = vec!["capability", "sign", "--read", "--set", &set];
        arguments.extend(&GOOD[..6]);
        arguments.extend(["--audience", audience]);
        let made = issuer.run(&arguments);
        made.assert_done();
        fs::write(&file, &made.stdout).expect("own directory");
        made.stdout.trim().to_owned()
    };
    let token = signed(AUDIENCE, "main");
    let foreign = listed(&client, &file);
    foreign.assert_failed(2, &[&path, "somebody else", "ask its issuer"]);
    assert!(!foreign.stderr.contains(&token[1..40]), "the token is shown: {}", foreign.stderr);
    signed(&client.peer_id, "other");
    listed(&client, &file).assert_failed(2, &[&path, "another network"]);
    signed(&client.peer_id, "main");
    let good = listed(&client, &file);
    assert!(!good.stderr.contains(&path) && good.code == 1, "nobody is there: {good:?}");

    let bootstrap = format!("/ip4/127.0.0.1/tcp/9/p2p/{AUDIENCE}");
    let keyless = ["peer", "list", "--bootstrap", &bootstrap, "--set"];
    let mut keyless = command(&keyless);
    finish(keyless.arg(format!("capability_file={path}")))
        .assert_failed(2, &[&path, "identity_file"]);
}
