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
use crate::reader::Shard;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 256;

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
    counters: Arc<Counters>,
}

/// Why a load brought nothing: absent is not an error to the loader, but must not be cached.
#[derive(Debug, Clone)]
enum Miss {
    Absent,
    Failed(StoreError),
}

impl Miss {
    fn is_absence(&self) -> bool {
        matches!(self, Self::Absent | Self::Failed(StoreError::ShardNotFound { .. }))
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
        Self { entries, counters }
    }

    /// A shard, from memory or loaded.
    pub(super) async fn shard(
        &self,
        shard: ShardId,
        load: impl Future<Output = Result<Shard, StoreError>>,
    ) -> Result<Shard, StoreError> {
        let load = async { load.await.map(Cached::Shard).map_err(Miss::Failed) };
        match self.load(Thing::Shard(shard), load).await {
            Ok(Cached::Shard(loaded)) => Ok(loaded),
            Ok(Cached::Block(_)) | Err(Miss::Absent) => Err(StoreError::ShardNotFound { shard }),
            Err(Miss::Failed(error)) => Err(error),
        }
    }

    /// A manifest block, from memory or loaded.
    pub(super) async fn block(
        &self,
        cid: Cid,
        load: impl Future<Output = Result<Option<Bytes>, StoreError>>,
    ) -> Result<Option<Bytes>, StoreError> {
        let load = async {
            match load.await {
                Ok(Some(bytes)) => Ok(Cached::Block(bytes)),
                Ok(None) => Err(Miss::Absent),
                Err(error) => Err(Miss::Failed(error)),
            }
        };
        match self.load(Thing::Block(cid), load).await {
            Ok(Cached::Block(bytes)) => Ok(Some(bytes)),
            Ok(Cached::Shard(_)) | Err(Miss::Absent) => Ok(None),
            Err(Miss::Failed(error)) => Err(error),
        }
    }

    /// A shard, if it is in memory.
    pub(super) async fn cached_shard(&self, shard: ShardId) -> Option<Shard> {
        match self.entries.get(&Thing::Shard(shard)).await {
            Some(Cached::Shard(cached)) => {
                bump(&self.counters.cache_hits, 1);
                Some(cached)
            }
            _ => {
                bump(&self.counters.cache_misses, 1);
                None
            }
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

    async fn load(
        &self,
        thing: Thing,
        load: impl Future<Output = Result<Cached, Miss>>,
    ) -> Result<Cached, Miss> {
        let mut load = Some(load);
        let mut outcome = self.entries.try_get_with(thing, once(&mut load)).await;
        // A load that somebody began before this read may have missed what was put since. The next
        // one, whosever it is, begins now.
        if load.is_some() && outcome.as_ref().is_err_and(|miss| miss.is_absence()) {
            outcome = self.entries.try_get_with(thing, once(&mut load)).await;
        }
        let counter = match load {
            None => &self.counters.cache_misses,
            Some(_) => &self.counters.cache_hits,
        };
        bump(counter, 1);
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
