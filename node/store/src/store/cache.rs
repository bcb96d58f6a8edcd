// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hot shards and manifests in memory: verified bytes only, weighed by bytes, loaded once however
//! many wait for them.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use moka::notification::RemovalCause;
use supernode_protocol::ids::{Cid, ShardId};

use crate::catalog::Thing;
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::metrics::{Counters, bump};
use crate::reader::{Shard, ShardTree, Way};

use super::lane::Lane;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 256;
/// Shards that were read lately of which is known that they were.
const SEEN_MAX: u64 = 1 << 16;
/// The part of the cache that one shard may take.
const SHARD_SHARE: u64 = 8;

#[derive(Clone)]
enum Cached {
    Shard(Shard),
    Block(Bytes),
}

impl Cached {
    fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Shard(shard) => shard.bytes.len() + shard.outboard.len(),
            Self::Block(bytes) => bytes.len(),
        };
        u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Cache {
    entries: moka::future::Cache<Thing, Cached>,
    /// Who was read lately: what is wanted but once takes nothing else's place.
    seen: moka::future::Cache<ShardId, ()>,
    bytes_max: u64,
    counters: Arc<Counters>,
}

/// A shard that was opened.
pub(super) enum Found {
    /// In memory.
    Whole(Shard),
    /// On a disk.
    Tree(ShardTree, Arc<Lane>),
}

/// Why a load brought nothing to keep.
#[derive(Clone)]
enum Miss {
    /// Not an error to the loader, but nothing that lasts.
    Absent,
    Failed(StoreError),
    /// It is read piece by piece.
    Long(ShardTree, Arc<Lane>),
}

impl Miss {
    fn is_absence(&self) -> bool {
        matches!(self, Self::Absent | Self::Failed(StoreError::ShardNotFound { .. }))
    }

    fn is_long(&self) -> bool {
        matches!(self, Self::Long(..))
    }
}

/// Runs a load that has not run yet.
async fn once(
    load: &mut Option<impl Future<Output = Result<Cached, Miss>>>,
) -> Result<Cached, Miss> {
    match load.take() {
        Some(load) => load.await,
        None => Err(Miss::Absent),
    }
}

impl Cache {
    pub(super) fn new(config: &StoreConfig, counters: Arc<Counters>) -> Self {
        let evictions = Arc::clone(&counters);
        let mut entries = moka::future::Cache::builder().max_capacity(config.cache_bytes_max);
        if config.cache_idle_secs > 0 {
            entries = entries.time_to_idle(Duration::from_secs(config.cache_idle_secs));
        }
        let entries = entries
            .weigher(|_, cached: &Cached| cached.weight())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    bump(&evictions.cache_evictions, 1);
                }
            })
            .build();
        let seen = moka::future::Cache::new(SEEN_MAX);
        Self { entries, seen, bytes_max: config.cache_bytes_max, counters }
    }

    /// How a shard is to be read, now that it is wanted: what was wanted lately is hot.
    pub(super) async fn way(&self, shard: ShardId) -> Way {
        if self.bytes_max == 0 {
            return Way::Once;
        }
        if self.seen.get(&shard).await.is_some() {
            return Way::Kept;
        }
        self.seen.insert(shard, ()).await;
        Way::Once
    }

    /// How long a hot shard may be to be loaded whole.
    pub(super) fn shard_bytes_max(&self) -> u64 {
        self.bytes_max / SHARD_SHARE
    }

    /// A shard, from memory or opened; what is loaded whole stays.
    pub(super) async fn open<F: Future<Output = Result<Found, StoreError>>>(
        &self,
        shard: ShardId,
        load: impl FnOnce() -> F,
    ) -> Result<Found, StoreError> {
        let load = async || match load().await {
            Ok(Found::Whole(whole)) => Ok(Cached::Shard(whole)),
            Ok(Found::Tree(tree, lane)) => Err(Miss::Long(tree, lane)),
            Err(error) => Err(Miss::Failed(error)),
        };
        match self.load(Thing::Shard(shard), true, load).await {
            Ok(Cached::Shard(whole)) => Ok(Found::Whole(whole)),
            Err(Miss::Long(tree, lane)) => Ok(Found::Tree(tree, lane)),
            Ok(Cached::Block(_)) | Err(Miss::Absent) => Err(StoreError::ShardNotFound { shard }),
            Err(Miss::Failed(error)) => Err(error),
        }
    }

    /// A shard, from memory or loaded.
    pub(super) async fn shard<F: Future<Output = Result<Shard, StoreError>>>(
        &self,
        shard: ShardId,
        load: impl FnOnce() -> F,
    ) -> Result<Shard, StoreError> {
        let load = async || load().await.map(Cached::Shard).map_err(Miss::Failed);
        match self.load(Thing::Shard(shard), false, load).await {
            Ok(Cached::Shard(loaded)) => Ok(loaded),
            Err(Miss::Failed(error)) => Err(error),
            Ok(Cached::Block(_)) | Err(Miss::Absent | Miss::Long(..)) => {
                Err(StoreError::ShardNotFound { shard })
            }
        }
    }

    /// A manifest block, from memory or loaded.
    pub(super) async fn block<F: Future<Output = Result<Option<Bytes>, StoreError>>>(
        &self,
        cid: Cid,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Bytes>, StoreError> {
        let load = async || match load().await {
            Ok(Some(bytes)) => Ok(Cached::Block(bytes)),
            Ok(None) => Err(Miss::Absent),
            Err(error) => Err(Miss::Failed(error)),
        };
        match self.load(Thing::Block(cid), false, load).await {
            Ok(Cached::Block(bytes)) => Ok(Some(bytes)),
            Ok(Cached::Shard(_)) | Err(Miss::Absent | Miss::Long(..)) => Ok(None),
            Err(Miss::Failed(error)) => Err(error),
        }
    }

    /// Drops what nobody wants any more.
    pub(super) fn forget(&self, thing: Thing) {
        wait_for(self.entries.invalidate(&thing));
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// From memory or by `load`, which runs once for all who wait. `may_be_long` says whether the
    /// caller can use a shard that somebody else opened to read piece by piece.
    async fn load<F: Future<Output = Result<Cached, Miss>>>(
        &self,
        thing: Thing,
        may_be_long: bool,
        load: impl FnOnce() -> F,
    ) -> Result<Cached, Miss> {
        if let Some(cached) = self.entries.get(&thing).await {
            bump(&self.counters.cache_hits, 1);
            return Ok(cached);
        }
        // Loading is a large future. Whoever asks is spared moving it about with their own unless
        // there is something to load.
        Box::pin(self.load_once(thing, may_be_long, load())).await
    }

    async fn load_once(
        &self,
        thing: Thing,
        may_be_long: bool,
        load: impl Future<Output = Result<Cached, Miss>>,
    ) -> Result<Cached, Miss> {
        let mut load = Some(load);
        let mut outcome = self.entries.try_get_with(thing, once(&mut load)).await;
        // A load that somebody began before this read may have missed what was put since. The next
        // one, whosever it is, begins now.
        if load.is_some() && outcome.as_ref().is_err_and(|miss| miss.is_absence()) {
            outcome = self.entries.try_get_with(thing, once(&mut load)).await;
        }
        let is_useless = |miss: &Arc<Miss>| !may_be_long && miss.is_long();
        while load.is_some() && outcome.as_ref().is_err_and(is_useless) {
            outcome = self.entries.try_get_with(thing, once(&mut load)).await;
        }
        let is_hit = load.is_some() && !outcome.as_ref().is_err_and(|miss| miss.is_long());
        let counters = &self.counters;
        bump(if is_hit { &counters.cache_hits } else { &counters.cache_misses }, 1);
        outcome.map_err(Arc::unwrap_or_clone)
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Finishes a future on the writer's thread, which is no runtime worker and may block.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
