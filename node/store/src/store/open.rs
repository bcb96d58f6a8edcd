// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shards that are read piece by piece, so that a reader of any shard needs memory for a piece.
//!
//! What is hot comes from memory. Of the rest, what fits one piece is read whole and kept in the
//! cache; a longer shard is read from its disk piece by piece, each verified by the shard's hash
//! tree, and only when it is wanted again soon is it loaded whole, once for all who wait.

use std::sync::Arc;

use bytes::Bytes;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::GROUP_BYTES;
use supernode_protocol::wire::ByteRange;

use super::cache::Found;
use super::lane::Lane;
use super::{Shared, Store};
use crate::error::StoreError;
use crate::reader::{Opened, RangeRead, ShardTree, Way};

/// What is read at a time of a shard that is not in memory.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Who wants less than a group of the hash tree wants a few bytes.
const FEW_BYTES: u64 = GROUP_BYTES as u64;

/// A shard that can be read.
#[derive(Clone)]
pub struct OpenShard {
    tree: ShardTree,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Memory(Bytes),
    Disk { store: Store, lane: Arc<Lane> },
}

impl std::fmt::Debug for OpenShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenShard").field("shard", &self.tree.shard).finish_non_exhaustive()
    }
}

impl OpenShard {
    /// Bytes of the whole shard.
    pub fn shard_len(&self) -> u64 {
        self.tree.len
    }

    /// A range widened to whole groups, and the parents of the hash tree that prove it.
    ///
    /// # Errors
    /// [`StoreError::BadRange`].
    pub fn prove(&self, range: ByteRange) -> Result<(ByteRange, Bytes), StoreError> {
        self.tree.prove(range)
    }

    /// The bytes of a range of whole groups (or up to the shard's end), verified. They are read at
    /// once: who reads long shards asks for [`PIECE_BYTES`] at a time.
    ///
    /// # Errors
    /// [`StoreError::BadRange`], [`StoreError::Damaged`], or [`StoreError::ShardNotFound`] if it
    /// was released meanwhile.
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        match &self.source {
            Source::Memory(bytes) => self.tree.slice(bytes, range),
            // A large future; see the cache.
            Source::Disk { store, lane } => Box::pin(self.read_from(store, lane, range)).await,
        }
    }

    async fn read_from(
        &self,
        store: &Store,
        lane: &Lane,
        range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        match lane.shard_piece(self.tree.clone(), range).await {
            // It may have been moved to another disk.
            Err(StoreError::ShardNotFound { .. } | StoreError::Offline { .. }) => {
                store.shared.piece(&self.tree, range).await
            }
            outcome => store.shared.judge(lane, outcome),
        }
    }
}

impl Store {
    /// Opens a shard to read about `wanted_bytes` of it.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`], [`StoreError::Offline`].
    pub async fn open_shard(
        &self,
        shard: ShardId,
        wanted_bytes: u64,
    ) -> Result<OpenShard, StoreError> {
        let shared = &self.shared;
        let cache = &shared.company.cache;
        let load = async || {
            let way = if wanted_bytes < FEW_BYTES { Way::Once } else { cache.way(shard).await };
            let whole_max = match wanted_bytes {
                // For a few bytes no long shard is read.
                ..FEW_BYTES => 0,
                PIECE_BYTES.. if way == Way::Kept => cache.shard_bytes_max().max(PIECE_BYTES),
                _ => PIECE_BYTES,
            };
            let found = shared.first(|lane| async move {
                let opened = lane.open_shard(shard, whole_max, way).await?;
                Ok(Some((Arc::clone(lane), opened)))
            });
            let (lane, opened) = found.await?.ok_or(StoreError::ShardNotFound { shard })?;
            Ok(match opened {
                Opened::Whole(whole) => Found::Whole(whole),
                Opened::Tree(tree) => Found::Tree(tree, lane),
            })
        };
        Ok(match cache.open(shard, load).await? {
            Found::Whole(whole) => {
                let len = whole.bytes.len() as u64;
                let tree = ShardTree { shard, len, outboard: whole.outboard };
                OpenShard { tree, source: Source::Memory(whole.bytes) }
            }
            Found::Tree(tree, lane) => {
                OpenShard { tree, source: Source::Disk { store: self.clone(), lane } }
            }
        })
    }

    /// A part of a shard, widened to whole groups, with its proof; both verified.
    ///
    /// # Errors
    /// As [`Self::open_shard`], and [`StoreError::BadRange`].
    pub async fn shard_range(
        &self,
        shard: ShardId,
        range: ByteRange,
    ) -> Result<RangeRead, StoreError> {
        let open = self.open_shard(shard, range.len).await?;
        let (range, proof) = open.prove(range)?;
        let bytes = open.read(range).await?;
        Ok(RangeRead { shard_len: open.shard_len(), range, proof, bytes })
    }
}

impl Shared {
    async fn piece(&self, tree: &ShardTree, range: ByteRange) -> Result<Bytes, StoreError> {
        let found = self.first(|lane| async move {
            let bytes = lane.shard_piece(tree.clone(), range).await?;
            Ok(Some(bytes))
        });
        found.await?.ok_or(StoreError::ShardNotFound { shard: tree.shard })
    }
}
