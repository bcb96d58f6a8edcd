// SPDX-License-Identifier: MIT OR Apache-2.0
//! `init` makes a node that runs, and never takes anything away.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{NodeDir, command, finish, names};

#[test]
fn init_makes_configuration_and_key_and_prints_the_peer_id() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = dir.path().join("node");
    let made = finish(command(&["init", "--data-dir"]).arg(&node));
    made.assert_done();
    assert!(made.stdout.starts_with("12D3KooW"), "{}", made.stdout);
    assert_eq!(made.stdout.lines().count(), 1, "stdout is the peer id: {}", made.stdout);
    assert!(made.stderr.contains("back up"), "{}", made.stderr);
    assert_eq!(names(&node), ["identity.key", "supernode.toml"]);
    let mode = fs::metadata(node.join("identity.key")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let config = fs::read_to_string(node.join("supernode.toml")).expect("made");
    assert!(config.contains("data_dir = \".\""), "{config}");
    assert!(config.lines().filter(|line| line.starts_with('#')).count() > 50, "it explains");
}

#[test]
fn init_refuses_what_is_there_and_never_replaces_a_key() {
    let node = NodeDir::new();
    let key = fs::read(node.path().join("identity.key")).expect("made");
    let again = finish(command(&["init", "--data-dir"]).arg(node.path()));
    again.assert_failed(2, &["supernode.toml exists", "--force"]);
    fs::remove_file(node.config()).expect("own directory");
    let again = finish(command(&["init", "--data-dir"]).arg(node.path()));
    again.assert_failed(2, &["is not empty", "--force"]);
    let forced = finish(command(&["init", "--force", "--json", "--data-dir"]).arg(node.path()));
    forced.assert_done();
    let made: serde_json::Value = serde_json::from_str(&forced.stdout).expect("JSON");
    assert_eq!(made["peer_id"].as_str(), Some(node.peer_id.as_str()));
    assert_eq!(made["identity_created"], false);
    assert_eq!(fs::read(node.path().join("identity.key")).expect("kept"), key);
}

#[test]
fn settings_given_to_init_are_in_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = dir.path().join("node");
    let mut init = command(&["init", "--set", "network.region=APAC", "--data-dir"]);
    finish(init.arg(&node)).assert_done();
    let config = fs::read_to_string(node.join("supernode.toml")).expect("made");
    assert!(config.contains("region = \"APAC\""), "{config}");
    let other = dir.path().join("other");
    let mut init = command(&["init", "--set", "network.regoin=APAC", "--data-dir"]);
    finish(init.arg(&other)).assert_failed(2, &["`region`"]);
    assert!(!other.exists(), "nothing is left behind");
}

#[test]
fn init_makes_a_client_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("client.toml");
    let made = finish(command(&["init", "--client", "--config"]).arg(&config));
    made.assert_done();
    assert_eq!(names(dir.path()), ["client.key", "client.toml"]);
    // The key is found beside the file, wherever the command runs.
    let ls = finish(command(&["ls", "--config"]).arg(&config).current_dir("/"));
    ls.assert_failed(2, &["--bootstrap"]);
}

#[test]
fn a_key_that_others_can_read_stops_the_node() {
    let node = NodeDir::new();
    let key = node.path().join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("own file");
    let ended = finish(&mut node.command(&["run"]));
    let key = key.display().to_string();
    ended.assert_failed(2, &[&key, "mode 0644", &format!("chmod 600 {key}")]);
}

#[test]
fn a_node_without_a_key_does_not_make_one_up() {
    let node = NodeDir::new();
    fs::remove_file(node.path().join("identity.key")).expect("own file");
    finish(&mut node.command(&["run"])).assert_failed(2, &["identity.key", "supernode init"]);
    assert_eq!(names(&node.path()), ["supernode.toml"]);
}
