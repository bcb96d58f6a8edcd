// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad usage is exit code 2 and one line; help and version are answers, not errors.

use crate::program::{command, finish, run};

const CID: &str = "bafyr4ibaobjqdbhsaum7rqxzsmzjqg7jcjjljfkoyrvrvnr4h4xwhbnq3e";

#[test]
fn help_and_version_succeed_on_stdout() {
    let help = run(&["--help"]);
    help.assert_done();
    for part in ["Exit codes:", "9002/udp", "SUPERNODE_SECTION__KEY", "rebuild-index", "put"] {
        let store = run(&["store", "--help"]).stdout;
        assert!(help.stdout.contains(part) || store.contains(part), "{part}");
    }
    let version = run(&["--version"]);
    version.assert_done();
    assert!(version.stdout.starts_with("supernode 0."), "{}", version.stdout);
}

#[test]
fn bad_usage_is_one_line_and_exit_code_2() {
    run::<&str>(&[]).assert_failed(2, &["no command", "--help"]);
    run(&["gte"]).assert_failed(2, &["gte"]);
    run(&["run", "--no-such-flag"]).assert_failed(2, &["--no-such-flag"]);
    run(&["put"]).assert_failed(2, &["FILE"]);
    run(&["get", CID, "--range", "9-3"]).assert_failed(2, &["9-3", "before"]);
    run(&["store", "dump-map", "--from", "memory"]).assert_failed(2, &["memory", "index", "log"]);
}

#[test]
fn a_cid_that_is_none_is_exit_code_2() {
    let sha2 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
    for command in ["get", "stat", "rm"] {
        run(&[command, "nonsense"]).assert_failed(2, &["nonsense", "CID"]);
        run(&[command, sha2]).assert_failed(2, &["dag-cbor"]);
    }
}

#[test]
fn commands_of_the_network_want_a_way_into_it() {
    for command in [vec!["ls"], vec!["status"], vec!["peer", "list"], vec!["put", "/dev/null"]] {
        run(&command).assert_failed(2, &["--bootstrap", "client.toml"]);
    }
}

#[test]
fn what_belongs_to_somebody_wants_a_key() {
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let bootstrap = format!("/ip4/127.0.0.1/tcp/9/p2p/{peer}");
    for arguments in [vec!["put", "/dev/null"], vec!["ls"]] {
        let mut command = command(&arguments);
        finish(command.args(["--bootstrap", &bootstrap])).assert_failed(2, &["init --client"]);
    }
}

#[test]
fn nobody_there_is_a_failure_within_seconds() {
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    // Port 9 (discard) is served by nobody; the dial is refused at once.
    let bootstrap = format!("/ip4/127.0.0.1/tcp/9/p2p/{peer}");
    let cid = run(&["get", "x"]);
    cid.assert_failed(2, &["x"]);
    let object = "bafyr4i".to_owned() + &"a".repeat(52);
    run(&["get", &object, "--bootstrap", &bootstrap]).assert_failed(1, &["bootstrap"]);
    let status = run(&["status", "--json", "--bootstrap", &bootstrap]);
    assert_eq!(status.code, 1, "{status:?}");
    let answers: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(answers["ok"], false);
    assert_eq!(answers["nodes"][0]["answers"], false);
    assert!(status.stderr.contains(peer), "{}", status.stderr);
}

#[test]
fn a_place_that_cannot_be_written_is_said_before_the_network_is_asked() {
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let bootstrap = format!("/ip4/127.0.0.1/tcp/9/p2p/{peer}");
    let object = "bafyr4i".to_owned() + &"a".repeat(52);
    let get = ["get", &object, "--bootstrap", &bootstrap, "-o"];
    finish(command(&get).arg("/")).assert_failed(2, &["/", "directory"]);
    finish(command(&get).arg("/nowhere/at/all")).assert_failed(1, &["/nowhere/at/all"]);
}
