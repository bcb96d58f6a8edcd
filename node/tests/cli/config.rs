// SPDX-License-Identifier: MIT OR Apache-2.0
//! A configuration that cannot be used is exit code 2, and the line says where and what to write.

use std::fs;

use crate::program::{command, finish, run};

/// Runs a node with a configuration that is only this text.
fn run_with(text: &str) -> crate::program::Ended {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("supernode.toml");
    fs::write(&path, text).expect("own directory");
    finish(command(&["run", "--config"]).arg(&path))
}

#[test]
fn an_unknown_key_is_named_with_line_and_remedy() {
    let ended = run_with("data_dir = \"d\"\n[storage]\ncapacty_bytes = \"1GiB\"\n");
    let parts = ["supernode.toml: line 3, column 1", "storage.capacty_bytes", "`capacity_bytes`"];
    ended.assert_failed(2, &parts);
}

#[test]
fn a_bad_unit_is_named_with_line_and_remedy() {
    let ended = run_with("[storage]\ncapacity_bytes = \"1XB\"\n");
    ended.assert_failed(2, &["line 2, column 18", "storage.capacity_bytes", "\"1XB\"", "MiB"]);
    let ended = run_with("[shutdown]\ndeadline_secs = \"soon\"\n");
    ended.assert_failed(2, &["line 2", "shutdown.deadline_secs", "\"90s\""]);
}

#[test]
fn text_that_is_no_toml_is_named_with_its_line() {
    run_with("data_dir = \"d\"\n[storage\n").assert_failed(2, &["line 2"]);
    run_with("data_dir = \"a\"\ndata_dir = \"b\"\n").assert_failed(2, &["line 2", "data_dir"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ended = run(&["run", "--config", "/nowhere/supernode.toml"]);
    ended.assert_failed(2, &["/nowhere/supernode.toml", "supernode init"]);
}

#[test]
fn environment_and_flags_are_named_as_they_were_written() {
    let mut from_env = command(&["run"]);
    from_env.env("SUPERNODE_STORAGE__CAPACITY_BYTES", "lots");
    finish(&mut from_env).assert_failed(2, &["SUPERNODE_STORAGE__CAPACITY_BYTES", "\"lots\""]);
    let ended = run(&["run", "--set", "relay.wirters=x"]);
    ended.assert_failed(2, &["--set relay.wirters=x", "`writers`"]);
}

#[test]
fn a_clients_configuration_is_checked_the_same_way() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("client.toml");
    fs::write(&path, "[put]\nclass = \"ten and four\"\n").expect("own directory");
    let ended = finish(command(&["ls", "--config"]).arg(&path));
    ended.assert_failed(2, &["client.toml: line 2, column 9", "put.class", "10+4"]);
}
