// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a body moves: paid for, in turns when the node's own rate is capped, and never so slowly
//! that it keeps others out.
//!
//! - A body moves in steps of at most [`STEP_BYTES`]. The node waits before a step until the
//!   client's rate allows it and until its turn on the [`Link`] has come; none of that counts
//!   against the client.
//! - Each step must then be done within the grace and the time it needs at the slowest rate, in
//!   either direction. A peer that moves a byte a second is cut after the first.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use tokio::time::{Instant, sleep, timeout};

use crate::config::RelayConfig;
use crate::gate::Key;
use crate::turns::{Bounds, Terms};
use crate::turnstile::Turnstile;

/// Bytes that move at a time.
pub(crate) const STEP_BYTES: usize = 256 << 10;

/// Somebody who waited too long.
const AGES: Duration = Duration::from_secs(24 * 3600);

/// The peer did not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

/// How slow a peer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    grace: Duration,
    bytes_per_sec_min: u64,
}

impl Pace {
    pub(crate) fn of(config: &RelayConfig) -> Self {
        Self {
            grace: Duration::from_millis(config.progress_grace_ms),
            bytes_per_sec_min: config.body_bytes_per_sec_min,
        }
    }

    /// How long `bytes` may take.
    pub(crate) fn limit(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_sec_min);
        self.grace.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Waits for work that moves `bytes`, as long as they may take.
    pub(crate) async fn keep<T>(
        self,
        bytes: u64,
        work: impl Future<Output = T>,
    ) -> Result<T, TooSlow> {
        timeout(self.limit(bytes), work).await.map_err(|_| TooSlow)
    }
}

/// The node's own rate in one direction, if it is capped, shared out in turns.
///
/// One step at a time holds the turnstile until the bucket has enough for it; all others wait for
/// their turn, so that nobody who came later or asks more often passes them.
pub(crate) struct Link {
    bucket: RwLock<Option<Arc<Bucket>>>,
    turnstile: Arc<Turnstile<Key>>,
}

struct Bucket {
    bytes_per_sec: u64,
    kibs: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

const STEP_KIB: u32 = 256;

impl Link {
    pub(crate) fn new(bytes_per_sec_max: u64) -> Self {
        let bounds = Bounds { capacity: 1, quantum: STEP_BYTES as u64, waiters_max: usize::MAX };
        let link = Self { bucket: RwLock::new(None), turnstile: Turnstile::new(bounds) };
        link.set_rate(bytes_per_sec_max);
        link
    }

    /// Changes the rate; 0 for none.
    pub(crate) fn set_rate(&self, bytes_per_sec: u64) {
        let mut bucket = self.bucket.write();
        if bucket.as_ref().map_or(0, |bucket| bucket.bytes_per_sec) == bytes_per_sec {
            return;
        }
        *bucket = (bytes_per_sec > 0).then(|| {
            let kibs = u32::try_from(bytes_per_sec / 1024).ok().and_then(NonZeroU32::new);
            let burst = NonZeroU32::new(STEP_KIB).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(kibs.unwrap_or(NonZeroU32::MIN)).allow_burst(burst);
            let kibs = RateLimiter::direct(quota);
            Arc::new(Bucket { bytes_per_sec, kibs, clock: DefaultClock::default() })
        });
    }

    /// Returns when a step of `bytes` may move.
    pub(crate) async fn pass(&self, key: Key, terms: Terms, bytes: u64) {
        if self.bucket.read().is_none() {
            return;
        }
        // Each request waits for one step at a time; the permits bound the line.
        let terms = Terms { held_max: u64::MAX, waiters_max: usize::MAX, ..terms };
        let turn = self.turnstile.claim(key, terms, bytes.max(1), Instant::now() + AGES).await;
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(STEP_KIB).min(STEP_KIB);
        let Some(kib) = NonZeroU32::new(kib) else { return };
        loop {
            // Read again: it may be changed while somebody waits.
            let Some(bucket) = self.bucket.read().clone() else { return };
            let Ok(Err(verdict)) = bucket.kibs.check_n(kib) else { return drop(turn) };
            sleep(verdict.wait_time_from(bucket.clock.now())).await;
        }
    }

    /// Steps that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.turnstile.waiting()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Pace, TooSlow};
    use crate::config::RelayConfig;

    #[tokio::test(start_paused = true)]
    async fn a_step_has_the_grace_and_its_time_at_the_slowest_rate() {
        let config = RelayConfig {
            progress_grace_ms: 500,
            body_bytes_per_sec_min: 1000,
            ..RelayConfig::default()
        };
        let pace = Pace::of(&config);
        assert_eq!(pace.limit(0), Duration::from_millis(500));
        assert_eq!(pace.limit(2500), Duration::from_secs(3));
        let begun = Instant::now();
        assert_eq!(pace.keep(2500, std::future::pending::<()>()).await, Err(TooSlow));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert_eq!(pace.keep(2500, std::future::ready(7)).await, Ok(7));
    }
}
