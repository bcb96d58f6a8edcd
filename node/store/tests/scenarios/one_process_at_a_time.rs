// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data directory has one user, and belongs to one node.

use std::process::{Command, Stdio};

use supernode_store::offline::{Source, dump_map, fsck, rebuild_index, stats};
use supernode_store::{StoreConfig, StoreError};

use super::support::{config, open};
use crate::sample::{Client, Recipe, Terms, object};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_is_told_who_has_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(config(path)).await.expect("a new store");
    let own = std::process::id();
    let refusals = [
        open(config(path)).await.map(drop),
        stats(path).map(drop),
        fsck(path).map(drop),
        rebuild_index(path).map(drop),
        dump_map(path, Source::Log, false).map(drop),
    ];
    for refused in refusals {
        assert!(
            matches!(&refused, Err(StoreError::Locked { pid, .. }) if *pid == own),
            "{refused:?}"
        );
    }
    // Another process is kept out as well: `flock` from the system's tools.
    let lock = path.join("lock");
    let other = Command::new("flock")
        .args(["--nonblock", "--conflict-exit-code", "7"])
        .arg(&lock)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if let Ok(status) = other {
        assert_eq!(status.code(), Some(7));
    }
    store.close().await.expect("an orderly stop");
    stats(path).expect("free again");
    let again = store.close().await;
    assert!(matches!(again, Err(StoreError::Stopped { .. })), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(config(path)).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe::small(1));
    super::support::put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    store.close().await.expect("an orderly stop");
    let other = StoreConfig { node: client.id, ..config(path) };
    let refused = open(other).await.map(drop);
    assert!(matches!(refused, Err(StoreError::ForeignNode { .. })), "{refused:?}");
    stats(path).expect("tools work whoever owns it");
}
