// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room for what is put, where a cache fills the store: what is evictable gives way to what is
//! leased.
//!
//! A put claims its bytes before it looks at what is used, and gives the claim back after its
//! answer. So what is used and what is claimed together are never less than what the writer will
//! count when it plans any of these puts: where they fit, all of them fit.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use supernode_protocol::ids::NodeId;

use super::Store;
use crate::catalog::{CachedShard, State};
use crate::error::StoreError;

/// Uploads that are looked at by one read while a cache is opened.
const PAGE: usize = 1024;

/// Something that holds bytes which others may have.
pub(crate) trait Evictable: Send + Sync {
    /// Bytes that it could give.
    fn evictable_bytes(&self) -> u64;

    /// Gives so many bytes; whether there were any.
    fn give_way(self: Arc<Self>, bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

/// See the module.
#[derive(Default)]
pub(super) struct Room {
    evictable: Mutex<Option<Weak<dyn Evictable>>>,
    claimed_bytes: AtomicU64,
    /// One at a time evicts, for all who wait.
    evicting: tokio::sync::Mutex<()>,
}

/// Bytes that a put is about to add.
pub(super) struct Claim<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.room.claimed_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl Store {
    /// Whose store this is.
    pub(crate) fn node(&self) -> NodeId {
        self.shared.config.node
    }

    /// Lets something give way to puts. There is one at a time.
    pub(crate) fn attach(&self, evictable: Weak<dyn Evictable>) -> bool {
        let mut attached = self.shared.room.evictable.lock();
        let is_free = attached.as_ref().is_none_or(|other| other.strong_count() == 0);
        if is_free {
            *attached = Some(evictable);
        }
        is_free
    }

    /// All cached shards, from the oldest to the newest.
    pub(crate) async fn cached(&self) -> Result<Vec<CachedShard>, StoreError> {
        let node = self.node();
        let lanes = self.shared.all(|lane| async move {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let (page, last) = lane.cached(node, after, PAGE).await?;
                all.extend(page);
                if last.is_none() {
                    return Ok(all);
                }
                after = last;
            }
        });
        let mut all: Vec<CachedShard> = lanes.await?.into_iter().flatten().collect();
        // One that was being moved when the node stopped is on two disks.
        all.sort_unstable_by_key(|cached| cached.shard);
        all.dedup_by_key(|cached| cached.shard);
        all.sort_unstable_by_key(|cached| cached.age);
        Ok(all)
    }

    /// Claims room for a put, and has others give way if need be. The writer has the last word.
    pub(super) async fn claim_room(&self, bytes: u64) -> Claim<'_> {
        let room = &self.shared.room;
        room.claimed_bytes.fetch_add(bytes, Ordering::SeqCst);
        let claim = Claim { room, bytes };
        let attached = room.evictable.lock().clone();
        let Some(evictable) = attached.and_then(|evictable| evictable.upgrade()) else {
            return claim;
        };
        if self.shortage() > 0 {
            let _alone = room.evicting.lock().await;
            loop {
                let shortage = self.shortage();
                // What would be in vain for this put is not done.
                let most = self.capacity_bytes().saturating_add(evictable.evictable_bytes());
                let is_vain = self.used_bytes().saturating_add(bytes) > most;
                if shortage == 0 || is_vain || !Arc::clone(&evictable).give_way(shortage).await {
                    break;
                }
            }
        }
        claim
    }

    /// Bytes that are claimed and do not fit.
    fn shortage(&self) -> u64 {
        // In this order: a put that is answered in between counts twice, and never not at all.
        let claimed = self.shared.room.claimed_bytes.load(Ordering::SeqCst);
        (self.used_bytes() + claimed).saturating_sub(self.capacity_bytes())
    }

    fn used_bytes(&self) -> u64 {
        let usage = self.usage();
        usage.bytes(State::Live) + usage.bytes(State::Trash)
    }
}
