// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cache mode: a store's room, as far as it is not leased, filled with whatever was asked for.
//!
//! - [`ShardCache`] owns what is in the cache: a bounded ledger in memory, and behind it one upload
//!   per shard in the [`Store`], owned by the node itself (`catalog/cached.rs`). So cached shards
//!   share segments, index, verification and reclaim with everything else.
//! - An insert evicts until the shard fits, before it is written. Evicting releases the cache's own
//!   reference and no other: what is leased as well stays.
//! - What is leased has precedence: a put that finds the store's capacity used up has the cache
//!   give way first.
//! - Nobody is dropped when the disk is slow: inserts wait for the store's byte budget and for the
//!   writer. An insert that has begun is finished even if its caller leaves.
//! - When the disk refuses writes the cache is *degraded*: it answers what it can from disk and
//!   memory, and keeps in memory what comes. A full disk is no failure; it evicts.
//!
//! Which shard goes is S3-FIFO's choice (`evicting/s3_fifo.rs`, and `evicting/simulation.rs` for
//! why). What it knows of hits is lost with a restart, the order of insertion is not.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use supernode_protocol::ids::ShardId;
//! use supernode_store::evicting::{Admission, ShardCache, ShardCacheConfig};
//! use supernode_store::{Store, StoreConfig};
//!
//! let store = Store::open(StoreConfig { path: "cache".into(), ..StoreConfig::default() })?;
//! let config = ShardCacheConfig { bytes_max: 10 << 30, ..ShardCacheConfig::default() };
//! let cache = ShardCache::open(store, config).await?;
//!
//! let bytes = Bytes::from_static(b"as a holder sent them");
//! let shard = ShardId::of(&bytes);
//! assert_eq!(cache.insert(shard, bytes).await?, Admission::Kept);
//! assert!(cache.get(shard).await.is_some());
//! # Ok(())
//! # }
//! ```

use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{LeaseId, ShardId};
use supernode_protocol::limits::SHARD_BYTES_MAX;
use supernode_protocol::wire::ByteRange;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::buffer::FilledShard;
use crate::catalog::{CACHED_SLOT, cached_upload};
use crate::error::StoreError;
use crate::reader::{RangeRead, Shard, cut};
use crate::record::{Holder, Placed};
use crate::store::{Evictable, Store};

mod fallback;
mod ledger;
mod s3_fifo;
#[cfg(test)]
mod simulation;
mod stats;

use self::fallback::Fallback;
use self::ledger::{Admit, Ledger, Take, Weighed};
pub use self::s3_fifo::ENTRY_BYTES_MAX;
use self::stats::Counters;
pub use self::stats::ShardCacheStats;

/// One shard takes at most one part in this many of a cache: a larger one would evict too many
/// others for what it is worth.
pub const SHARD_SHARE: u64 = 16;

/// How long evicted bytes may be on their way back to a full disk before more are evicted for it.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// One part in this many of the cache is evicted at least when the disk is full.
const FULL_DISK_SHARE: u64 = 256;

/// Bytes that are hashed before others get their turn.
const PIECE_BYTES: usize = 1 << 20;

/// How a cache works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShardCacheConfig {
    /// Bytes of shards in the cache. What is evicted takes space until its blocks are given back, a
    /// second or two later, so leave room for that and for what is leased.
    pub bytes_max: u64,
    /// Shards in the cache. Each costs up to [`ENTRY_BYTES_MAX`] bytes of memory.
    pub entries_max: usize,
    /// Memory for what comes while the disk refuses writes; 0 keeps none of it.
    pub memory_bytes_max: u64,
    /// How often a write is tried while the disk refuses them.
    pub probe_interval_secs: u64,
}

impl Default for ShardCacheConfig {
    fn default() -> Self {
        Self {
            bytes_max: 10 << 30,
            entries_max: 1 << 20,
            memory_bytes_max: 64 << 20,
            probe_interval_secs: 5,
        }
    }
}

impl ShardCacheConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the setting and the remedy.
    pub fn validate(&self) -> Result<(), StoreError> {
        let at_least = |key, value: u64, min: u64| {
            let reason = || format!("{value} is below {min}");
            (value >= min).then_some(()).ok_or_else(|| StoreError::Config { key, reason: reason() })
        };
        at_least("bytes_max", self.bytes_max, SHARD_SHARE)?;
        at_least("entries_max", self.entries_max as u64, 1)
    }
}

/// What became of a shard that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is in the cache, as durable as the store's `durability` says.
    Kept,
    /// It was there already.
    Known,
    /// The disk refuses writes; it is in memory as long as there is room.
    InMemory,
    /// It takes more than its share of the cache ([`SHARD_SHARE`]).
    TooLarge {
        /// The most that is admitted.
        bytes_max: u64,
    },
    /// The store has no room that the cache could free at once.
    NoRoom,
    /// A peer has an upload under the id that the shard would be cached under.
    Taken,
}

/// A bounded cache of shards in a store. Clones are the same cache.
#[derive(Clone)]
pub struct ShardCache {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    config: ShardCacheConfig,
    ledger: Mutex<Ledger>,
    /// Something came or went.
    changed: Notify,
    fallback: Fallback,
    counters: Counters,
    /// When the disk was last found full, and something evicted for it.
    shrunk_at: Mutex<Option<Instant>>,
}

impl ShardCache {
    /// Opens the cache in a store, with what it held before. Reads the index once: three entries
    /// per cached shard, and one per upload of a peer.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a setting, or if the store has a cache already; what the index
    /// says.
    pub async fn open(store: Store, config: ShardCacheConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let mut ledger = Ledger::new(config.bytes_max, config.entries_max);
        for cached in store.cached().await? {
            ledger.restore((cached.shard, to_u32(cached.len)));
        }
        let probe_interval = Duration::from_secs(config.probe_interval_secs);
        let inner = Arc::new(Inner {
            store,
            config,
            ledger: Mutex::new(ledger),
            changed: Notify::new(),
            fallback: Fallback::new(config.memory_bytes_max, probe_interval),
            counters: Counters::default(),
            shrunk_at: Mutex::new(None),
        });
        let attached: Weak<dyn Evictable> = Arc::<Inner>::downgrade(&inner);
        if !inner.store.attach(attached) {
            let reason = "the store has a cache already; use that one".to_owned();
            return Err(StoreError::Config { key: "cache", reason });
        }
        let surplus = inner.ledger.lock().surplus();
        inner.evict(surplus).await?;
        Ok(Self { inner })
    }

    /// A shard, verified, if it is in the cache. What the store keeps for others only is the
    /// store's to serve.
    pub async fn get(&self, shard: ShardId) -> Option<Shard> {
        let inner = &self.inner;
        let found = match inner.visit(shard) {
            true => inner.found(shard, inner.store.shard(shard).await).await,
            false => None,
        };
        let found = match found {
            Some(found) => Some(found),
            None => inner.fallback.shard(shard).await,
        };
        inner.counters.count_read(found.is_some());
        found
    }

    /// A part of a shard, widened to whole groups, with its proof; both verified.
    ///
    /// # Errors
    /// [`StoreError::BadRange`].
    pub async fn range(
        &self,
        shard: ShardId,
        range: ByteRange,
    ) -> Result<Option<RangeRead>, StoreError> {
        let inner = &self.inner;
        let found = match inner.visit(shard) {
            true => match inner.store.shard_range(shard, range).await {
                Err(error @ StoreError::BadRange { .. }) => return Err(error),
                outcome => inner.found(shard, outcome).await,
            },
            false => None,
        };
        let found = match found {
            Some(found) => Some(found),
            None => match inner.fallback.shard(shard).await {
                Some(whole) => Some(cut(shard, &whole, range)?),
                None => None,
            },
        };
        inner.counters.count_read(found.is_some());
        Ok(found)
    }

    /// Offers a shard. Waits while the disk is slower than what comes, and evicts before it writes.
    ///
    /// The store's `buffer_bytes_max` bounds the copies that wait here; the bytes that callers hold
    /// meanwhile are theirs to bound.
    ///
    /// # Errors
    /// [`StoreError::BodyMismatch`] if the bytes are not the shard's, [`StoreError::ShardLength`].
    pub async fn insert(&self, shard: ShardId, bytes: Bytes) -> Result<Admission, StoreError> {
        let (inner, len) = (&self.inner, bytes.len() as u64);
        if len == 0 || len > SHARD_BYTES_MAX {
            return Err(StoreError::ShardLength { len, max: SHARD_BYTES_MAX });
        }
        let bytes_max = inner.config.bytes_max / SHARD_SHARE;
        let admission = if len > bytes_max {
            Admission::TooLarge { bytes_max }
        } else if inner.ledger.lock().contains(&shard) {
            Admission::Known
        } else if inner.fallback.may_write() {
            match self.put(shard, &bytes).await {
                Err(error) => self.make_do(shard, &bytes, error).await?,
                Ok(admission) => admission,
            }
        } else {
            inner.fallback.keep(shard, &bytes).await?;
            Admission::InMemory
        };
        inner.counters.count_admission(admission, len);
        Ok(admission)
    }

    /// Lets go of a shard; whether it was here.
    ///
    /// # Errors
    /// When that could not be written. Then it is still here.
    pub async fn remove(&self, shard: ShardId) -> Result<bool, StoreError> {
        let was_in_memory = self.inner.fallback.remove(shard).await;
        let inner = Arc::clone(&self.inner);
        let was_here = finish(async move { inner.remove(shard).await }).await?;
        Ok(was_here || was_in_memory)
    }

    /// Everything countable.
    pub fn stats(&self) -> ShardCacheStats {
        let inner = &self.inner;
        let (bytes, entries) = inner.ledger.lock().held();
        ShardCacheStats {
            bytes_max: inner.config.bytes_max,
            bytes,
            entries,
            memory_bytes: inner.fallback.bytes(),
            is_degraded: inner.fallback.is_degraded(),
            degradations: inner.fallback.degradations(),
            ..inner.counters.snapshot()
        }
    }

    async fn put(&self, shard: ShardId, bytes: &Bytes) -> Result<Admission, StoreError> {
        let mut buffer = self.inner.store.buffer(bytes.len() as u64).await?;
        for piece in bytes.chunks(PIECE_BYTES) {
            buffer.extend(piece)?;
            tokio::task::yield_now().await;
        }
        // Nobody is evicted for bytes that are not what they were said to be.
        let filled = buffer.finish(shard)?;
        let inner = Arc::clone(&self.inner);
        finish(async move { inner.admit(shard, filled).await }).await
    }

    /// What can be done about a shard that the store did not take.
    async fn make_do(
        &self,
        shard: ShardId,
        bytes: &Bytes,
        error: StoreError,
    ) -> Result<Admission, StoreError> {
        let shrunk = match error {
            StoreError::Full { wanted_bytes, .. } => {
                let inner = Arc::clone(&self.inner);
                finish(async move { inner.shrink(wanted_bytes).await }).await
            }
            other => Err(other),
        };
        let Err(error) = shrunk else { return Ok(Admission::NoRoom) };
        match error {
            StoreError::Full { .. } => Ok(Admission::NoRoom),
            StoreError::NotOwner { .. } => Ok(Admission::Taken),
            StoreError::Io { .. }
            | StoreError::Stopped { .. }
            | StoreError::Index { .. }
            | StoreError::Offline { .. } => {
                self.inner.fallback.failed(&error);
                self.inner.fallback.keep(shard, bytes).await?;
                Ok(Admission::InMemory)
            }
            other => Err(other),
        }
    }
}

/// Runs what must not end half done, also if its caller leaves.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let task = tokio::spawn(work);
    task.await.unwrap_or_else(|_| Err(StoreError::stopped("the cache panicked")))
}

impl Inner {
    fn visit(&self, shard: ShardId) -> bool {
        self.ledger.lock().visit(&shard)
    }

    /// What a read brought. What turns out to be lost or damaged leaves the cache.
    async fn found<T>(
        self: &Arc<Self>,
        shard: ShardId,
        outcome: Result<T, StoreError>,
    ) -> Option<T> {
        let error = match outcome {
            Ok(found) => return Some(found),
            Err(error) => error,
        };
        if let StoreError::ShardNotFound { .. } | StoreError::Damaged { .. } = error {
            let inner = Arc::clone(self);
            if let Err(error) = finish(async move { inner.remove(shard).await }).await {
                tracing::warn!(%shard, %error, "a lost shard is still counted as cached");
            }
        } else {
            tracing::debug!(%shard, %error, "a cached shard cannot be read");
        }
        None
    }

    /// Makes room for a shard and puts it.
    async fn admit(&self, shard: ShardId, filled: FilledShard) -> Result<Admission, StoreError> {
        let weighed = (shard, to_u32(filled.bytes().len() as u64));
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let admit = self.ledger.lock().admit(weighed);
            match admit {
                Admit::Known => return Ok(Admission::Known),
                Admit::Put => break,
                Admit::Evict(victims) => drop(self.evict(victims).await?),
                Admit::Wait => changed.await,
            }
        }
        let holder = Holder { upload: cached_upload(shard), owner: self.store.node() };
        let placed = Placed { holder, slot: CACHED_SLOT };
        let outcome = self.store.put_filled(placed, shard, filled).await;
        self.ledger.lock().came(weighed, outcome.is_ok());
        self.changed.notify_waiters();
        outcome?;
        self.fallback.worked();
        Ok(Admission::Kept)
    }

    /// Frees bytes of a full disk, unless some are on their way already: they come back with the
    /// reclaim, and until then the disk is as full as before.
    async fn shrink(&self, bytes: u64) -> Result<(), StoreError> {
        {
            let mut shrunk_at = self.shrunk_at.lock();
            if shrunk_at.is_some_and(|at| at.elapsed() < RECLAIM_PATIENCE) {
                return Ok(());
            }
            *shrunk_at = Some(Instant::now());
        }
        let bytes = bytes.max(self.config.bytes_max / FULL_DISK_SHARE);
        let victims = self.ledger.lock().evict_bytes(bytes);
        self.evict(victims).await.map(drop)
    }

    async fn remove(&self, shard: ShardId) -> Result<bool, StoreError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let take = self.ledger.lock().take(shard);
            match take {
                Take::Absent => return Ok(false),
                Take::Leave(weighed) => return self.release(vec![weighed]).await.map(|_| true),
                Take::Wait => changed.await,
            }
        }
    }

    /// Releases victims; whether there were any.
    async fn evict(&self, victims: Vec<Weighed>) -> Result<bool, StoreError> {
        let bytes = self.release(victims).await?;
        self.counters.count_evictions(&bytes);
        Ok(!bytes.is_empty())
    }

    /// Ends the uploads of shards that are leaving; the lengths of those that went. All of them are
    /// tried.
    async fn release(&self, leaving: Vec<Weighed>) -> Result<Vec<u32>, StoreError> {
        let mut releases = JoinSet::new();
        for (shard, len) in leaving {
            let (store, node) = (self.store.clone(), self.store.node());
            let lease = LeaseId::from_bytes(*cached_upload(shard).as_bytes());
            releases.spawn(async move { ((shard, len), store.release(node, lease).await) });
        }
        let (mut gone, mut failed) = (Vec::new(), None);
        while let Some(joined) = releases.join_next().await {
            let (weighed, outcome) =
                joined.map_err(|_| StoreError::stopped("a release panicked"))?;
            let error = outcome.err();
            // One that is not there is gone, and one whose disk is not comes back with it.
            let is_gone = |error: &StoreError| {
                matches!(error, StoreError::LeaseNotFound { .. } | StoreError::Offline { .. })
            };
            let error = error.filter(|error| !is_gone(error));
            self.ledger.lock().left(weighed, error.is_none());
            match error {
                None => gone.push(weighed.1),
                Some(error) => failed = Some(error),
            }
        }
        self.changed.notify_waiters();
        failed.map_or(Ok(gone), Err)
    }
}

impl Evictable for Inner {
    fn evictable_bytes(&self) -> u64 {
        self.ledger.lock().evictable_bytes()
    }

    fn give_way(self: Arc<Self>, bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let evicted = finish(async move {
            let victims = self.ledger.lock().evict_bytes(bytes);
            self.evict(victims).await
        });
        Box::pin(async move {
            evicted.await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the cache cannot give way");
                false
            })
        })
    }
}

fn to_u32(len: u64) -> u32 {
    u32::try_from(len).expect("a shard has 64 MiB at most")
}
