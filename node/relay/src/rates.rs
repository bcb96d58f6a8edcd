// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast clients may go: token buckets of requests and of bytes, per client and, for strangers,
//! one pair more that they all share.
//!
//! A stranger pays its prefix first and all strangers' share after it, so that a prefix which is
//! over its own rate takes nothing from the others.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, QuantaInstant};
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, InsufficientCapacity, NotUntil, Quota,
    RateLimiter,
};
use supernode_protocol::capability::ClientClass;

use crate::config::{ClientLimits, RelayConfig};
use crate::gate::Key;

/// Bytes are counted in these: the buckets have 32 bits.
const KIB: u64 = 1024;

/// How long until there is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast(pub(crate) Duration);

/// Buckets of one class.
struct OfClass {
    limits: ClientLimits,
    requests: DefaultKeyedRateLimiter<Key>,
    kibs: DefaultKeyedRateLimiter<Key>,
}

impl OfClass {
    fn new(limits: &ClientLimits) -> Self {
        Self {
            limits: limits.clone(),
            requests: RateLimiter::keyed(requests(limits)),
            kibs: RateLimiter::keyed(kibs(limits)),
        }
    }
}

/// All buckets, as the settings were when they were made.
pub(crate) struct Rates {
    classes: [OfClass; ClientClass::ALL.len()],
    all_strangers: ClientLimits,
    strangers_requests: DefaultDirectRateLimiter,
    strangers_kibs: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(config: &RelayConfig) -> Self {
        let strangers = &config.all_strangers;
        Self {
            classes: ClientClass::ALL.map(|class| OfClass::new(config.class.of(class))),
            all_strangers: strangers.clone(),
            strangers_requests: RateLimiter::direct(requests(strangers)),
            strangers_kibs: RateLimiter::direct(kibs(strangers)),
            clock: DefaultClock::default(),
        }
    }

    /// Whether these are the buckets of `config`.
    pub(crate) fn is_of(&self, config: &RelayConfig) -> bool {
        let mut classes = ClientClass::ALL.iter().zip(&self.classes);
        classes.all(|(class, made)| made.limits == *config.class.of(*class))
            && self.all_strangers == config.all_strangers
    }

    /// Charges one request.
    pub(crate) fn request(&self, class: ClientClass, key: Key) -> Result<(), TooFast> {
        self.classes[class as usize].requests.check_key(&key).map_err(|it| self.wait(&it))?;
        if key.is_stranger() {
            self.strangers_requests.check().map_err(|it| self.wait(&it))?;
        }
        Ok(())
    }

    /// Charges bytes, at most [`Self::piece_bytes_max`].
    pub(crate) fn bytes(&self, class: ClientClass, key: Key, bytes: u64) -> Result<(), TooFast> {
        let Some(kib) = cells(bytes.div_ceil(KIB)) else { return Ok(()) };
        self.judged(self.classes[class as usize].kibs.check_key_n(&key, kib))?;
        if key.is_stranger() {
            self.judged(self.strangers_kibs.check_n(kib))?;
        }
        Ok(())
    }

    /// Bytes that can be charged at once.
    pub(crate) fn piece_bytes_max(&self, class: ClientClass, key: Key) -> u64 {
        let own = self.classes[class as usize].limits.burst_bytes;
        let bytes = if key.is_stranger() { own.min(self.all_strangers.burst_bytes) } else { own };
        bytes / KIB * KIB
    }

    /// Forgets the buckets of clients that have been away long enough.
    pub(crate) fn prune(&self) {
        for class in &self.classes {
            for limiter in [&class.requests, &class.kibs] {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
    }

    fn judged(
        &self,
        verdict: Result<Result<(), NotUntil<QuantaInstant>>, InsufficientCapacity>,
    ) -> Result<(), TooFast> {
        verdict.expect("a piece is at most a burst").map_err(|verdict| self.wait(&verdict))
    }

    fn wait(&self, verdict: &NotUntil<QuantaInstant>) -> TooFast {
        TooFast(verdict.wait_time_from(self.clock.now()))
    }
}

fn requests(limits: &ClientLimits) -> Quota {
    quota(u64::from(limits.requests_per_sec), u64::from(limits.requests_burst))
}

fn kibs(limits: &ClientLimits) -> Quota {
    quota(limits.bytes_per_sec / KIB, limits.burst_bytes / KIB)
}

fn quota(per_second: u64, burst: u64) -> Quota {
    let cells = |count| cells(count).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(cells(per_second)).allow_burst(cells(burst))
}

fn cells(count: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supernode_protocol::capability::ClientClass;

    use super::{Rates, TooFast};
    use crate::config::RelayConfig;
    use crate::gate::Key;
    use crate::prefix::Prefix;

    const MIB: u64 = 1 << 20;

    fn stranger(net: u8) -> Key {
        Key::Prefix(Prefix::V4([192, 0, net]))
    }

    #[test]
    fn a_prefix_over_its_rate_takes_nothing_from_the_others() {
        let mut config = RelayConfig::default();
        config.class.stranger.bytes_per_sec = MIB;
        config.class.stranger.burst_bytes = 8 * MIB;
        config.all_strangers.bytes_per_sec = MIB;
        config.all_strangers.burst_bytes = 16 * MIB;
        let rates = Rates::new(&config);
        let charge = |net, mib| rates.bytes(ClientClass::Stranger, stranger(net), mib * MIB);
        assert_eq!(charge(1, 8), Ok(()));
        for _ in 0..100 {
            let TooFast(wait) = charge(1, 8).expect_err("its own rate");
            assert!(wait > Duration::from_secs(6) && wait <= Duration::from_secs(8), "{wait:?}");
        }
        assert_eq!(charge(2, 8), Ok(()), "the hundred attempts cost the others nothing");
        assert!(charge(3, 8).is_err(), "sixteen of all strangers together");
        assert_eq!(rates.piece_bytes_max(ClientClass::Stranger, stranger(1)), 8 * MIB);
    }

    #[test]
    fn buckets_belong_to_the_limits_they_were_made_of() {
        let mut config = RelayConfig::default();
        let rates = Rates::new(&config);
        assert!(rates.is_of(&config));
        config.requests_max = 1;
        assert!(rates.is_of(&config), "no rate has changed");
        config.class.operator.requests_burst = 1;
        assert!(!rates.is_of(&config));
    }
}
