// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may do what, and how much of it at a time. Decides only; it does no I/O and never waits.
//!
//! - A **client** is a budget: a node on one of the lists has its own, all others share one per
//!   address prefix, because ids cost nothing and addresses do.
//! - A request holds one permit of the node and one of its client. A full pool is answered with
//!   `Busy` and a time to come back, never with silence.
//! - Rates are token buckets per client: one for requests, one for bytes of bodies, in KiB. Bytes
//!   are charged as a whole before they move, so a transfer that began is never throttled.
//! - Buckets that are full again are forgotten by [`Admission::prune`]; pools live as long as
//!   their connections.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{ErrorCode, WireError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{ClientLimits, Profile, RelayConfig};
use crate::metrics::{Counters, Reason, RequestKind};

const KIB: u64 = 1024;

/// A network that addresses are counted by: /24 in IPv4, /56 in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Prefix {
    V4([u8; 3]),
    V6([u8; 7]),
}

impl Prefix {
    pub(crate) fn of(address: IpAddr) -> Self {
        // On a socket that takes both, IPv4 addresses come dressed as IPv6.
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

/// Whose budget a request is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Budget {
    Node(NodeId),
    Prefix(Prefix),
}

/// A request or connection that was turned away, and what the client is told.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: Reason,
    pub(crate) error: WireError,
}

impl Rejection {
    pub(crate) fn new(reason: Reason, code: ErrorCode, message: impl Into<String>) -> Self {
        let error = WireError { code, message: message.into(), retry_after_ms: None };
        Self { reason, error }
    }

    fn busy(reason: Reason, message: &str, after: Duration) -> Self {
        // A wait of no time would be a request to spin.
        // Rounded up: who comes a part of a millisecond early is refused once more.
        let millis = after.as_nanos().div_ceil(1_000_000);
        let millis = u32::try_from(millis).unwrap_or(u32::MAX).max(1);
        let message = message.to_owned();
        let retry_after_ms = Some(millis);
        Self { reason, error: WireError { code: ErrorCode::Busy, message, retry_after_ms } }
    }
}

/// Token buckets of one class of clients.
struct Rates {
    limits: ClientLimits,
    requests: DefaultKeyedRateLimiter<Budget>,
    kibs: DefaultKeyedRateLimiter<Budget>,
}

impl Rates {
    fn new(limits: &ClientLimits) -> Self {
        let kib = |bytes: u64| u32::try_from(bytes / KIB).unwrap_or(u32::MAX);
        let limiter = |per_second: u32, burst: u32| {
            let cells = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
            RateLimiter::keyed(Quota::per_second(cells(per_second)).allow_burst(cells(burst)))
        };
        Self {
            limits: limits.clone(),
            requests: limiter(limits.requests_per_sec, limits.requests_burst),
            kibs: limiter(kib(limits.bytes_per_sec), kib(limits.burst_bytes)),
        }
    }

    fn prune(&self) {
        for limiter in [&self.requests, &self.kibs] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The permits of one budget and the connections that use it.
struct Pool {
    permits: Arc<Semaphore>,
    connections: usize,
}

/// All budgets of the node.
pub(crate) struct Admission {
    profile: Profile,
    writers: BTreeSet<NodeId>,
    readers: BTreeSet<NodeId>,
    retry_after: Duration,
    node_permits: Arc<Semaphore>,
    known: Rates,
    strangers: Rates,
    pools: Mutex<HashMap<Budget, Pool>>,
    clock: DefaultClock,
    counters: Arc<Counters>,
}

impl Admission {
    pub(crate) fn new(config: &RelayConfig, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            profile: config.profile,
            writers: config.writers.clone(),
            readers: config.readers.clone(),
            retry_after: Duration::from_millis(u64::from(config.retry_after_ms)),
            node_permits: Arc::new(Semaphore::new(permits(config.requests_max))),
            known: Rates::new(&config.known),
            strangers: Rates::new(&config.strangers),
            pools: Mutex::new(HashMap::new()),
            clock: DefaultClock::default(),
            counters,
        })
    }

    /// The client behind a new connection, or why it may not even read.
    pub(crate) fn client(
        self: &Arc<Self>,
        node: NodeId,
        address: IpAddr,
    ) -> Result<Client, Rejection> {
        let may_write = self.writers.contains(&node);
        let is_known = may_write || self.readers.contains(&node);
        if self.profile == Profile::Private && !is_known {
            let message = "this node serves only clients on its lists";
            return Err(Rejection::new(Reason::NotAllowed, ErrorCode::Refused, message));
        }
        let budget =
            if is_known { Budget::Node(node) } else { Budget::Prefix(Prefix::of(address)) };
        let requests_max = self.rates(&budget).limits.requests_max;
        let mut pools = self.pools.lock();
        let pool = pools.entry(budget).or_insert_with(|| Pool {
            permits: Arc::new(Semaphore::new(permits(requests_max))),
            connections: 0,
        });
        pool.connections += 1;
        let permits = Arc::clone(&pool.permits);
        drop(pools);
        Ok(Client { node, may_write, budget, permits, admission: Arc::clone(self) })
    }

    fn rates(&self, budget: &Budget) -> &Rates {
        match budget {
            Budget::Node(_) => &self.known,
            Budget::Prefix(_) => &self.strangers,
        }
    }

    /// Forgets the buckets of clients that have been away long enough.
    pub(crate) fn prune(&self) {
        self.known.prune();
        self.strangers.prune();
    }

    /// Permits of the whole node that are free.
    pub(crate) fn permits_free(&self) -> usize {
        self.node_permits.available_permits()
    }

    fn wait_for(&self, verdict: &NotUntil<governor::clock::QuantaInstant>) -> Duration {
        verdict.wait_time_from(self.clock.now())
    }
}

fn permits(count: u32) -> usize {
    usize::try_from(count).map_or(Semaphore::MAX_PERMITS, |count| count.min(Semaphore::MAX_PERMITS))
}

/// An authenticated client, one per connection.
pub(crate) struct Client {
    pub(crate) node: NodeId,
    may_write: bool,
    budget: Budget,
    permits: Arc<Semaphore>,
    admission: Arc<Admission>,
}

impl Client {
    /// A permit for one request, or why there is none.
    pub(crate) fn admit(&self, kind: RequestKind) -> Result<Permit, Rejection> {
        if kind.is_write() && !self.may_write {
            let message = "this node takes writes from its own list of writers only";
            return Err(Rejection::new(Reason::NotAllowed, ErrorCode::Refused, message));
        }
        let admission = &self.admission;
        admission.rates(&self.budget).requests.check_key(&self.budget).map_err(|verdict| {
            let message = "too many requests a second";
            Rejection::busy(Reason::RequestRate, message, admission.wait_for(&verdict))
        })?;
        let of_client = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = "this client has too many requests under way";
            Rejection::busy(Reason::ClientBusy, message, admission.retry_after)
        })?;
        let of_node = Arc::clone(&admission.node_permits).try_acquire_owned().map_err(|_| {
            let message = "this node has too many requests under way";
            Rejection::busy(Reason::NodeBusy, message, admission.retry_after)
        })?;
        admission.counters.requests_inflight.fetch_add(1, Relaxed);
        admission.counters.admitted(kind);
        Ok(Permit {
            counters: Arc::clone(&admission.counters),
            _of_client: of_client,
            _of_node: of_node,
        })
    }

    /// Requests this client may have under way, on all its connections.
    pub(crate) fn requests_max(&self) -> u32 {
        self.admission.rates(&self.budget).limits.requests_max
    }

    /// Charges the bytes of a body before they move.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Rejection> {
        let rates = self.admission.rates(&self.budget);
        let burst_kib = rates.limits.burst_bytes / KIB;
        let kib = u32::try_from(bytes.div_ceil(KIB).min(burst_kib)).unwrap_or(u32::MAX);
        let Some(cells) = NonZeroU32::new(kib) else { return Ok(()) };
        match rates.kibs.check_key_n(&self.budget, cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(verdict)) => {
                let wait = self.admission.wait_for(&verdict);
                Err(Rejection::busy(Reason::ByteRate, "too many bytes a second", wait))
            }
            Err(_) => Err(Rejection::new(
                Reason::ByteRate,
                ErrorCode::Internal,
                "the node's burst_bytes is below one request",
            )),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut pools = self.admission.pools.lock();
        if let Some(pool) = pools.get_mut(&self.budget) {
            pool.connections -= 1;
            if pool.connections == 0 {
                pools.remove(&self.budget);
            }
        }
    }
}

/// The right to work on one request. Dropping it gives the right back.
pub(crate) struct Permit {
    counters: Arc<Counters>,
    _of_client: OwnedSemaphorePermit,
    _of_node: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counters.requests_inflight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Reason, Rejection};

    #[test]
    fn a_wait_is_never_told_too_short() {
        let told = |nanos| {
            let after = Duration::from_nanos(nanos);
            Rejection::busy(Reason::RequestRate, "", after).error.retry_after_ms
        };
        assert_eq!([0, 1_000_000, 1_000_001].map(told), [Some(1), Some(1), Some(2)]);
    }
}
