// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of a cache, like those of the store: atomics inside, a plain snapshot outside.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Admission;
use crate::metrics::bump;

/// A snapshot of everything countable. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardCacheStats {
    /// The bound.
    pub bytes_max: u64,
    /// Bytes in the cache.
    pub bytes: u64,
    /// Shards in the cache.
    pub entries: u64,
    /// Reads that found their shard.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Shards written.
    pub admissions: u64,
    /// Their bytes.
    pub admitted_bytes: u64,
    /// Shards that were offered and neither written nor known.
    pub refusals: u64,
    /// Shards that made room for others.
    pub evictions: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Bytes in memory only, because the disk refuses writes.
    pub memory_bytes: u64,
    /// Whether it does.
    pub is_degraded: bool,
    /// How often that began.
    pub degradations: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    admissions: AtomicU64,
    admitted_bytes: AtomicU64,
    refusals: AtomicU64,
    evictions: AtomicU64,
    evicted_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn count_read(&self, is_hit: bool) {
        bump(if is_hit { &self.hits } else { &self.misses }, 1);
    }

    pub(super) fn count_admission(&self, admission: Admission, len: u64) {
        match admission {
            Admission::Kept => {
                bump(&self.admissions, 1);
                bump(&self.admitted_bytes, len);
            }
            Admission::Known => {}
            _ => bump(&self.refusals, 1),
        }
    }

    pub(super) fn count_evictions(&self, lengths: &[u32]) {
        bump(&self.evictions, lengths.len() as u64);
        bump(&self.evicted_bytes, lengths.iter().map(|len| u64::from(*len)).sum());
    }

    /// The counters; what others own is filled in by the caller.
    pub(super) fn snapshot(&self) -> ShardCacheStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShardCacheStats {
            hits: load(&self.hits),
            misses: load(&self.misses),
            admissions: load(&self.admissions),
            admitted_bytes: load(&self.admitted_bytes),
            refusals: load(&self.refusals),
            evictions: load(&self.evictions),
            evicted_bytes: load(&self.evicted_bytes),
            ..ShardCacheStats::default()
        }
    }
}
