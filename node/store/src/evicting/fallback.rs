// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cache does while the disk refuses writes: keeps in memory what comes, within a bound,
//! and tries the disk again now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::TreeHasher;
use tokio::time::Instant;

use crate::error::StoreError;
use crate::metrics::bump;
use crate::reader::Shard;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 256;
/// Bytes that are hashed before others get their turn.
const PIECE_BYTES: usize = 1 << 20;

/// See the module.
pub(super) struct Fallback {
    shards: moka::future::Cache<ShardId, Shard>,
    /// When a write failed last, or was last let try; `None` while all is well.
    failed_at: Mutex<Option<Instant>>,
    probe_interval: Duration,
    degradations: AtomicU64,
}

impl Fallback {
    pub(super) fn new(bytes_max: u64, probe_interval: Duration) -> Self {
        let shards = moka::future::Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, shard: &Shard| {
                let bytes = shard.bytes.len() + shard.outboard.len() + ENTRY_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        let degradations = AtomicU64::new(0);
        Self { shards, failed_at: Mutex::new(None), probe_interval, degradations }
    }

    /// Whether writes fail.
    pub(super) fn is_degraded(&self) -> bool {
        self.failed_at.lock().is_some()
    }

    /// How often that began.
    pub(super) fn degradations(&self) -> u64 {
        self.degradations.load(Ordering::Relaxed)
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.shards.weighted_size()
    }

    /// Whether to try the disk: always while all is well, else one in an interval.
    pub(super) fn may_write(&self) -> bool {
        let mut failed_at = self.failed_at.lock();
        let Some(at) = *failed_at else { return true };
        let is_due = at.elapsed() >= self.probe_interval;
        if is_due {
            *failed_at = Some(Instant::now());
        }
        is_due
    }

    /// A write failed.
    pub(super) fn failed(&self, error: &StoreError) {
        if self.failed_at.lock().replace(Instant::now()).is_none() {
            bump(&self.degradations, 1);
            tracing::error!(%error, "the cache writes nothing to disk until that works again");
        }
    }

    /// A write worked.
    pub(super) fn worked(&self) {
        if self.failed_at.lock().take().is_some() {
            self.shards.invalidate_all();
            tracing::warn!("the cache writes to disk again");
        }
    }

    /// Keeps a shard in memory.
    pub(super) async fn keep(&self, shard: ShardId, bytes: &Bytes) -> Result<(), StoreError> {
        let mut hasher = TreeHasher::new(bytes.len() as u64);
        for piece in bytes.chunks(PIECE_BYTES) {
            hasher.update(piece);
            tokio::task::yield_now().await;
        }
        let mismatch = |reason| StoreError::BodyMismatch { reason };
        let (id, outboard) = hasher.finish().map_err(|error| mismatch(error.to_string()))?;
        if id != shard {
            return Err(mismatch(format!("the bytes hash to {id}, announced was {shard}")));
        }
        // A slice may hold more memory than its own.
        let bytes = Bytes::copy_from_slice(bytes);
        self.shards.insert(shard, Shard { bytes, outboard: outboard.into() }).await;
        Ok(())
    }

    /// A shard, if it is in memory.
    pub(super) async fn shard(&self, shard: ShardId) -> Option<Shard> {
        self.shards.get(&shard).await
    }

    /// Forgets a shard; whether it was in memory.
    pub(super) async fn remove(&self, shard: ShardId) -> bool {
        self.shards.remove(&shard).await.is_some()
    }
}
