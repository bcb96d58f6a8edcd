// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shard longer than a piece: read piece by piece, loaded once when it is wanted again, and never
//! believed.

use std::fs;

use futures::future::join_all;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::verify_range;
use supernode_protocol::wire::ByteRange;
use supernode_store::{PIECE_BYTES, Store, StoreConfig, StoreError};

use super::support::{config, open, put};
use crate::sample::{Client, Object, Recipe, Terms, object};

/// Shards of two and a half pieces.
const STRIPE_BYTES: u64 = 5 * PIECE_BYTES;

async fn put_long(store: &Store) -> Object {
    let recipe = Recipe { stripe_count: 1, ..Recipe::small(1) };
    let object = object(Recipe { stripe_bytes: STRIPE_BYTES, ..recipe });
    put(store, &Client::new(1), &object, Terms::pin(1, 1)).await.expect("put");
    object
}

fn settings(path: &std::path::Path) -> StoreConfig {
    StoreConfig { segment_bytes_max: 64 << 20, ..config(path) }
}

/// A future of an answer from memory at most.
const FUTURE_BYTES_MAX: usize = 2048;

/// Reads a shard as the relay does.
async fn read_in_pieces(store: &Store, shard: ShardId) -> Result<Vec<u8>, StoreError> {
    let open = store.open_shard(shard, u64::MAX).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < open.shard_len() {
        let offset = bytes.len() as u64;
        let len = PIECE_BYTES.min(open.shard_len() - offset);
        bytes.extend_from_slice(&open.read(ByteRange { offset, len }).await?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn pieces_make_the_shard_and_what_is_wanted_again_is_loaded_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(settings(directory.path())).await.expect("a new store");
    let object = put_long(&store).await;
    let shard = object.groups[0].shards[0].1;
    let first = read_in_pieces(&store, shard).await.expect("from the disk");
    assert_eq!(ShardId::of(&first), shard);
    assert_eq!(store.metrics().cache_bytes, 0, "what is wanted once takes no place");

    let all = join_all((0..16).map(|_| read_in_pieces(&store, shard))).await;
    assert!(all.iter().all(|bytes| bytes.as_ref().is_ok_and(|bytes| *bytes == first)));
    let metrics = store.metrics();
    assert_eq!((metrics.cache_misses, metrics.cache_hits), (2, 15), "one load for all who wait");
}

/// Whoever asks moves these about with futures of their own, in and out of tasks.
#[tokio::test]
async fn what_is_asked_of_memory_is_a_small_future() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(settings(directory.path())).await.expect("a new store");
    let object = put_long(&store).await;
    let shard = object.groups[0].shards[0].1;
    let opening = store.open_shard(shard, 1);
    assert!(size_of_val(&opening) <= FUTURE_BYTES_MAX, "opening: {}", size_of_val(&opening));
    let open = opening.await.expect("opened");
    let reading = open.read(ByteRange { offset: 0, len: PIECE_BYTES });
    assert!(size_of_val(&reading) <= FUTURE_BYTES_MAX, "reading: {}", size_of_val(&reading));
    reading.await.expect("read");
    let whole = store.shard(shard);
    assert!(size_of_val(&whole) <= FUTURE_BYTES_MAX, "the whole: {}", size_of_val(&whole));
    whole.await.expect("read");
}

#[tokio::test]
async fn a_few_bytes_of_it_come_with_their_proof_and_leave_the_cache_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(settings(directory.path())).await.expect("a new store");
    let object = put_long(&store).await;
    let shard = object.groups[0].shards[1].1;
    for offset in [0, PIECE_BYTES - 1, 2 * PIECE_BYTES + 7] {
        let read = store.shard_range(shard, ByteRange { offset, len: 100 }).await.expect("a range");
        let span = read.range.offset..read.range.offset + read.range.len;
        verify_range(&shard, read.shard_len, span, &read.proof, &read.bytes).expect("proven");
    }
    assert_eq!(store.metrics().cache_bytes, 0);
    let open = store.open_shard(shard, 1).await.expect("opened");
    for range in [(1, 100), (0, u64::MAX), (u64::MAX, 1), (0, 0)] {
        let range = ByteRange { offset: range.0, len: range.1 };
        let refused = open.read(range).await;
        assert!(matches!(refused, Err(StoreError::BadRange { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_damaged_piece_is_never_handed_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(settings(directory.path())).await.expect("a new store");
    let object = put_long(&store).await;
    let shard = object.groups[0].shards[2].1;
    let open = store.open_shard(shard, u64::MAX).await.expect("opened");
    let mut pieces = Vec::new();
    for offset in [0, PIECE_BYTES] {
        pieces.push(open.read(ByteRange { offset, len: PIECE_BYTES }).await.expect("whole"));
    }
    damage(directory.path(), &pieces[1]);
    open.read(ByteRange { offset: 0, len: PIECE_BYTES }).await.expect("before the damage");
    let range = ByteRange { offset: PIECE_BYTES, len: PIECE_BYTES };
    let error = open.read(range).await.expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let error = store.open_shard(shard, u64::MAX).await.expect_err("set aside");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Flips a bit in the middle of a piece, wherever it is on disk.
fn damage(directory: &std::path::Path, piece: &[u8]) {
    for entry in fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = fs::read(&path).expect("a segment");
        let starts = bytes.windows(64).position(|window| window == &piece[..64]);
        if let Some(start) = starts {
            bytes[start + piece.len() / 2] ^= 1;
            fs::write(&path, bytes).expect("a segment");
            return;
        }
    }
    panic!("the piece is in no segment");
}
