// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bit rot in a segment: a typed error, never other bytes, and the next put heals it.

use std::fs;
use std::path::{Path, PathBuf};

use supernode_protocol::wire::ByteRange;
use supernode_store::StoreError;
use supernode_store::offline::fsck;

use super::support::{config, open, put, put_shard};
use crate::sample::{Client, Recipe, Terms, object};

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "seg");
    entries.map(|entry| entry.path()).filter(is_segment).collect()
}

/// Flips one bit in the middle of these bytes, wherever they are on disk.
pub fn rot(path: &Path, bytes: &[u8]) {
    for segment in segments(path) {
        let mut content = fs::read(&segment).expect("a segment");
        let found = content.windows(64).position(|window| window == &bytes[..64]);
        if let Some(found) = found {
            content[found + bytes.len() / 2] ^= 1;
            fs::write(&segment, content).expect("writable");
            return;
        }
    }
    panic!("the bytes are not on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_shard_is_an_error_until_it_is_put_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let client = Client::new(1);
    let object = object(Recipe { stripe_bytes: 200_000, ..Recipe::small(5) });
    let store = open(config(path)).await.expect("a new store");
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    store.close().await.expect("an orderly stop");
    let (slot, id, bytes) = &object.groups[0].shards[1];
    rot(path, bytes);

    let report = fsck(path).expect("a check");
    assert!(!report.is_clean());
    assert_eq!(report.damaged.len(), 1, "{:?}", report.damaged);

    let store = open(config(path)).await.expect("damage does not keep a node down");
    let middle = ByteRange { offset: bytes.len() as u64 / 2, len: 1 };
    let start = ByteRange { offset: 0, len: 1 };
    let partial = store.shard_range(*id, start).await.expect("another group is sound");
    assert_eq!(partial.bytes[0], bytes[0]);
    for _ in 0..2 {
        let whole = store.shard(*id).await;
        assert!(matches!(whole, Err(StoreError::Damaged { .. })), "{whole:?}");
    }
    let part = store.shard_range(*id, middle).await;
    assert!(matches!(part, Err(StoreError::Damaged { .. })), "{part:?}");
    assert_eq!((store.metrics().damaged, store.metrics().quarantined), (1, 1));
    for (_, other, bytes) in object.groups[0].shards.iter().filter(|(_, other, _)| other != id) {
        assert_eq!(store.shard(*other).await.expect("sound").bytes, bytes);
    }

    // Adopting the record that is here would lose the shard: the put must write it anew.
    put_shard(&store, &client, Terms::pin(2, 2).upload, *slot, bytes).await.expect("put");
    assert_eq!(store.shard(*id).await.expect("healed").bytes, bytes);
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_in_the_trash_is_revived_by_the_next_put() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let client = Client::new(1);
    let object = object(Recipe { zeros: true, widths: (10, 4), ..Recipe::small(6) });
    let store = open(config(directory.path())).await.expect("a new store");
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    let bytes = store.metrics().write.bytes;
    store.release(client.id, Terms::pin(1, 1).lease).await.expect("its own lease");
    let id = object.groups[0].shards[0].1;
    assert!(store.shard(id).await.is_err());
    assert_eq!(put(&store, &client, &object, Terms::pin(2, 2)).await.expect("put"), [14]);
    assert!(store.shard(id).await.is_ok());
    let usage = store.usage();
    assert_eq!((usage.shards.live.count, usage.shards.dead.count, usage.live_slots), (1, 0, 14));
    assert!(store.metrics().write.bytes < bytes * 2 + 4096, "the bytes were not written again");
    store.close().await.expect("an orderly stop");
}
