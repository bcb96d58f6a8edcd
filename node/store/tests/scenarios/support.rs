// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store in a temporary directory, and whole objects put into it.

use std::path::Path;

use bytes::Bytes;
use supernode_protocol::ids::{NodeId, ShardId, Slot, UploadId};
use supernode_protocol::wire::Ack;
use supernode_store::{Io, PutBlock, PutShard, Store, StoreConfig, StoreError};

use crate::sample::{Client, Object, Terms};

/// The node all tests run as.
pub fn node() -> NodeId {
    Client::new(200).id
}

/// Settings for tests: no room is kept free, so that any machine will do.
pub fn config(path: &Path) -> StoreConfig {
    StoreConfig {
        path: path.to_owned(),
        node: node(),
        io: Io::Buffered,
        reserve_bytes: 0,
        batch_window_millis: 0,
        segment_bytes_max: 1 << 20,
        ..StoreConfig::default()
    }
}

/// Opens a store the way the binary does.
pub async fn open(config: StoreConfig) -> Result<Store, StoreError> {
    tokio::task::spawn_blocking(move || Store::open(config)).await.expect("opening does not panic")
}

/// Puts one shard.
pub async fn put_shard(
    store: &Store,
    client: &Client,
    upload: UploadId,
    slot: Slot,
    bytes: &[u8],
) -> Result<Ack, StoreError> {
    let mut buffer = store.buffer(bytes.len() as u64).await?;
    for piece in bytes.chunks(100_000) {
        buffer.extend(piece)?;
    }
    let shard = ShardId::of(bytes);
    store.put_shard(PutShard { caller: client.id, upload, slot, shard, buffer }).await
}

/// Uploads all blocks and shards of an object.
pub async fn upload(
    store: &Store,
    client: &Client,
    object: &Object,
    upload: UploadId,
) -> Result<(), StoreError> {
    let block =
        |cid, bytes: &Bytes| PutBlock { caller: client.id, upload, cid, bytes: bytes.clone() };
    for group in &object.groups {
        for (slot, _, bytes) in &group.shards {
            put_shard(store, client, upload, *slot, bytes).await?;
        }
        if let Some((cid, bytes)) = &group.page {
            store.put_block(block(*cid, bytes)).await?;
        }
    }
    store.put_block(block(object.cid, &object.root)).await?;
    Ok(())
}

/// Uploads and commits an object; returns how many slots are held of each group.
pub async fn put(
    store: &Store,
    client: &Client,
    object: &Object,
    terms: Terms,
) -> Result<Vec<u32>, StoreError> {
    upload(store, client, object, terms.upload).await?;
    let mut counts = Vec::new();
    for group in 0..u32::try_from(object.groups.len()).expect("few groups") {
        let commit = object.commit(client, group, terms);
        counts.push(store.commit(client.id, commit).await?.1);
    }
    Ok(counts)
}

/// Every shard of an object reads back exactly, whole and in part.
pub async fn assert_readable(store: &Store, object: &Object) {
    for group in &object.groups {
        for (slot, id, bytes) in &group.shards {
            let shard = store.shard(*id).await.unwrap_or_else(|error| panic!("{slot:?}: {error}"));
            assert_eq!(shard.bytes, bytes, "{slot:?}");
        }
    }
}
