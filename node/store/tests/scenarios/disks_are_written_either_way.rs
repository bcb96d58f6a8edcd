// SPDX-License-Identifier: MIT OR Apache-2.0
//! Through the page cache or past it: the same directory, the same promises, by turns.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use supernode_protocol::ids::{ShardId, Slot, UploadId};
use supernode_store::offline::{Source, dump_map, fsck};
use supernode_store::{Io, Store, StoreConfig};

use super::support::{config, open, put_shard};
use crate::sample::{Client, bytes_of};

/// Around every boundary that matters: records, disk blocks, payloads that start on one, vectors.
const LENGTHS: [usize; 10] =
    [1, 63, 64, 4095, 4096, 65_535, 65_536, 65_537, (1 << 20) + 13, 3 << 20];

fn settings(path: &Path, io: Io) -> StoreConfig {
    StoreConfig { io, segment_bytes_max: 1 << 30, ..config(path) }
}

/// A directory on a disk: not every system's temporary files can be written past the page cache.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

async fn put_all(store: &Store, round: u16) {
    let upload = UploadId::from_bytes([1; 16]);
    let shards = LENGTHS.iter().zip(0..).map(|(len, index)| async move {
        let bytes = bytes_of(u64::from(round) * 100 + u64::from(index), *len);
        let slot = Slot { stripe: round.into(), index };
        put_shard(store, &Client::new(1), upload, slot, &bytes).await.expect("there is room");
        ShardId::of(&bytes)
    });
    // One after the other and then together: each as a write of its own, and many in one.
    for shard in shards {
        let id = shard.await;
        store.shard(id).await.expect("what is acknowledged can be read");
    }
    let upload = UploadId::from_bytes([2; 16]);
    let together = (0..64_u16).map(|index| {
        let (store, slot) = (store.clone(), Slot { stripe: round.into(), index });
        tokio::spawn(async move {
            let bytes = bytes_of(
                (1 << 20) + u64::from(round) * 1000 + u64::from(index),
                1000 * (1 + usize::from(index)),
            );
            put_shard(&store, &Client::new(1), upload, slot, &bytes).await.expect("there is room");
        })
    });
    for put in together.collect::<Vec<_>>() {
        put.await.expect("no panic");
    }
}

async fn assert_all(store: &Store, rounds: u16) {
    for round in 0..rounds {
        for (len, index) in LENGTHS.iter().zip(0_u16..) {
            let bytes = bytes_of(u64::from(round) * 100 + u64::from(index), *len);
            let read = store.shard(ShardId::of(&bytes)).await;
            assert_eq!(read.expect("it is here").bytes, bytes, "{len} bytes of round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_way_continues_what_the_other_began() {
    let directory = directory();
    let path = directory.path();
    let segment = path.join("0000000001.seg");
    for (round, io) in (0..).zip([Io::Direct, Io::Buffered, Io::Direct, Io::Direct, Io::Buffered]) {
        let store = open(settings(path, io)).await.expect("this disk can be written so");
        put_all(&store, round).await;
        let open_file = fs::metadata(&segment).expect("it is written to");
        assert!(open_file.blocks() * 512 > open_file.len() + (1 << 20), "space is set aside");
        assert_all(&store, round + 1).await;
        store.close().await.expect("an orderly stop");
        let closed = fs::metadata(&segment).expect("it stays");
        assert!(closed.blocks() * 512 <= closed.len() + (64 << 10), "and given back: {closed:?}");
        let report = fsck(path).expect("at rest");
        assert!(report.is_clean(), "{report:?}");
        assert!(!path.join("0000000002.seg").exists(), "after an orderly stop the log goes on");
    }
    let log = dump_map(path, Source::Log, true).expect("at rest");
    assert_eq!(log, dump_map(path, Source::Index, true).expect("at rest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_past_the_cache_outlives_the_process() {
    let directory = directory();
    let store = open(settings(directory.path(), Io::Direct)).await.expect("a new store");
    put_all(&store, 0).await;
    // What a killed process leaves: the files as they are at this moment, space set aside and all.
    let killed = self::directory();
    for entry in fs::read_dir(directory.path()).expect("it is there").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "seg") {
            fs::copy(entry.path(), killed.path().join(entry.file_name())).expect("there is room");
        }
    }
    let again = open(settings(killed.path(), Io::Direct)).await.expect("it starts");
    assert_all(&again, 1).await;
    put_all(&again, 1).await;
    assert_all(&again, 2).await;
    again.close().await.expect("an orderly stop");
    assert!(fsck(killed.path()).expect("at rest").is_clean());
    store.close().await.expect("an orderly stop");
}
