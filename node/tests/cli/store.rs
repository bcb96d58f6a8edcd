// SPDX-License-Identifier: MIT OR Apache-2.0
//! The offline commands on the directory of a node that has stopped.

use std::ffi::OsStr;
use std::fs;

use crate::program::{Ended, NodeDir, command, finish, names};

fn store(node: &NodeDir, arguments: &[&str]) -> Ended {
    let mut all = vec!["store"];
    all.extend(arguments);
    finish(command(&all).arg("--data-dir").arg(node.path()))
}

/// A directory in which a node has worked.
fn used() -> NodeDir {
    let node = NodeDir::new();
    let running = node.start(&[]);
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    node
}

#[test]
fn a_sound_directory_is_clean_and_counted() {
    let node = used();
    let fsck = store(&node, &["fsck", "--json"]);
    fsck.assert_done();
    let report: serde_json::Value = serde_json::from_str(&fsck.stdout).expect("JSON");
    assert_eq!(report["clean"], true, "{report}");
    let stats = store(&node, &["stats", "--json"]);
    stats.assert_done();
    let stats: serde_json::Value = serde_json::from_str(&stats.stdout).expect("JSON");
    assert_eq!(stats["usage"]["live_slots"], 0, "{stats}");
    store(&node, &["rebuild-index"]).assert_done();
}

#[test]
fn the_map_survives_the_loss_of_all_but_the_log() {
    let node = used();
    let before = store(&node, &["dump-map", "--hash"]);
    before.assert_done();
    let hash = before.stdout.lines().last().expect("the hash").to_owned();
    assert_eq!(hash.len(), 64, "{hash}");
    for name in names(&node.path()) {
        let path = node.path().join(&name);
        if path.extension() == Some(OsStr::new("seg")) || name == "lock" {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path).expect("own directory");
        } else {
            fs::remove_file(&path).expect("own file");
        }
    }
    let from_log = store(&node, &["dump-map", "--hash", "--from", "log"]);
    let from_index = store(&node, &["dump-map", "--hash"]);
    assert_eq!(from_log.stdout.lines().last(), Some(hash.as_str()));
    assert_eq!(from_index.stdout.lines().last(), Some(hash.as_str()));
}

#[test]
fn a_directory_that_was_never_a_nodes_is_bad_usage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for sub in ["stats", "fsck", "rebuild-index", "dump-map"] {
        let ended = finish(command(&["store", sub, "--data-dir"]).arg(dir.path()));
        ended.assert_failed(2, &["no segments"]);
        let nowhere = dir.path().join("nowhere");
        let ended = finish(command(&["store", sub, "--data-dir"]).arg(nowhere));
        ended.assert_failed(2, &["nowhere"]);
    }
    assert_eq!(names(dir.path()), Vec::<String>::new(), "looking leaves nothing behind");
}
