// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may do what, and how much of it at a time.
//!
//! - A client is of the highest **class** that somebody gives it: a list, a capability, the node
//!   behind. Whom nobody vouches for is a stranger, and shares one budget with its address prefix,
//!   because ids cost nothing and addresses do; all strangers share one more.
//! - A request pays its rate, and then waits in its client's line for a **permit**, briefly. A line
//!   that is full, and a wait that is over, are answered with `Busy` and a time to come back, never
//!   with silence.
//! - Who may **write** is on the list of writers, or holds a capability for it, or has proven that
//!   it repairs, and then as the owner whose lease that is.
//! - A body pays its **byte rate** before it moves. What is longer than a burst pays the rest as it
//!   goes: a transfer that began is slowed, and never cut.
//! - The memory of bodies in flight is one **budget** of bytes, taken in turns.
//! - Buckets that are full again are forgotten by [`Admission::prune`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::{NodeId, UploadId};
use supernode_protocol::lease::Commit;
use supernode_protocol::repair::{Allowed, Repair};
use supernode_protocol::wire::{ErrorCode, Part, Request, WireError};
use tokio::time::{Instant, sleep};

use crate::config::{Profile, RelayConfig};
use crate::gate::{ByteClaim, Gate, GateClaim, Key, NoRoom};
use crate::grants::{Grant, Meter, Meters, Over, judge};
use crate::live::Live;
use crate::metrics::{Counters, Reason, RequestKind};
use crate::pace::Link;
use crate::prefix::Prefix;
use crate::rates::{Rates, TooFast};
use crate::repairs::Repairs;
use crate::turns::{Bounds, Rank, Terms, WaitedFor};
use crate::turnstile::Denied;

/// A turn at the budget. Bodies are claimed in pieces of this.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

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

    pub(crate) fn busy(reason: Reason, message: &str, after: Duration) -> Self {
        // A wait of no time would be a request to spin.
        // Rounded up: who comes a part of a millisecond early is refused once more.
        let millis = after.as_nanos().div_ceil(1_000_000);
        let millis = u32::try_from(millis).unwrap_or(u32::MAX).max(1);
        let message = message.to_owned();
        let retry_after_ms = Some(millis);
        Self { reason, error: WireError { code: ErrorCode::Busy, message, retry_after_ms } }
    }
}

impl From<Over> for Rejection {
    fn from(over: Over) -> Self {
        let reason = match over {
            Over::Expired => Reason::BadCapability,
            Over::Spent => Reason::CapabilitySpent,
        };
        Self::new(reason, ErrorCode::Refused, over.to_string())
    }
}

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the client.
    Egress,
    /// From it.
    Ingress,
}

/// All limits of the node and what is left of them.
pub(crate) struct Admission {
    live: Arc<Live>,
    rates: RwLock<Arc<Rates>>,
    permits: Gate,
    budget: Gate,
    egress: Link,
    ingress: Link,
    meters: Mutex<Meters>,
    repairs: Mutex<Repairs>,
    counters: Arc<Counters>,
}

impl Admission {
    pub(crate) fn new(live: Arc<Live>, counters: Arc<Counters>) -> Arc<Self> {
        let config = live.get();
        let (permits, budget) = (permit_bounds(&config), budget_bounds(&config));
        Arc::new(Self {
            live,
            rates: RwLock::new(Arc::new(Rates::new(&config))),
            permits: Gate::new(permits.0, permits.1),
            budget: Gate::new(budget.0, budget.1),
            egress: Link::new(config.egress_bytes_per_sec_max),
            ingress: Link::new(config.ingress_bytes_per_sec_max),
            meters: Mutex::new(Meters::default()),
            repairs: Mutex::new(Repairs::default()),
            counters,
        })
    }

    /// Follows settings that have changed.
    pub(crate) fn reload(&self) {
        let config = self.live.get();
        let (permits, budget) = (permit_bounds(&config), budget_bounds(&config));
        self.permits.set_bounds(permits.0, permits.1);
        self.budget.set_bounds(budget.0, budget.1);
        self.egress.set_rate(config.egress_bytes_per_sec_max);
        self.ingress.set_rate(config.ingress_bytes_per_sec_max);
        let mut rates = self.rates.write();
        // New buckets are full ones; who changes something else makes no presents.
        if !rates.is_of(&config) {
            *rates = Arc::new(Rates::new(&config));
        }
    }

    /// The client behind a new connection, or why it may not even read. `class` is what the node
    /// behind says of it.
    pub(crate) fn client(
        self: &Arc<Self>,
        node: NodeId,
        address: IpAddr,
        capability: Option<&[u8]>,
        class: Option<ClientClass>,
    ) -> Result<Client, Rejection> {
        let config = self.live.get();
        let listed = config.listed_class(node);
        let grant = capability
            .map(|encoded| self.grant(&config, node, encoded, unix_seconds()))
            .transpose()?;
        let may_read_by_grant = grant.as_ref().is_some_and(|grant| grant.scope.read);
        if config.profile == Profile::Private && listed.is_none() && !may_read_by_grant {
            let message = "this node serves only clients on its lists";
            return Err(Rejection::new(Reason::NotAllowed, ErrorCode::Refused, message));
        }
        let granted = grant.as_ref().map(|grant| grant.class);
        let class = listed.max(granted).max(class).unwrap_or(ClientClass::Stranger);
        let key = match class {
            ClientClass::Stranger => Key::Prefix(Prefix::of(address)),
            _ => Key::Node(node),
        };
        let may_write_by_grant = grant.as_ref().is_some_and(|grant| grant.scope.write);
        Ok(Client {
            node,
            class,
            key,
            may_write: config.writers.contains(&node) || may_write_by_grant,
            meter: grant.map(|grant| grant.meter),
            admission: Arc::clone(self),
        })
    }

    fn grant(
        &self,
        config: &RelayConfig,
        node: NodeId,
        encoded: &[u8],
        now: u64,
    ) -> Result<Grant, Rejection> {
        let grants_max = |issuer| config.grants_max(issuer);
        let judged = judge(encoded, node, &config.network, now, grants_max).map_err(|error| {
            Rejection::new(Reason::BadCapability, ErrorCode::Refused, error.to_string())
        })?;
        let meters_max = usize::try_from(config.capabilities_max).unwrap_or(usize::MAX);
        self.meters.lock().open(&judged, now, meters_max).ok_or_else(|| {
            let message = "this node counts as many capabilities as it can";
            Rejection::busy(Reason::Capabilities, message, config.retry_after())
        })
    }

    /// Forgets the buckets of clients that have been away long enough, and what has ended.
    pub(crate) fn prune(&self) {
        self.rates().prune();
        self.meters.lock().prune(unix_seconds());
        self.repairs.lock().prune(Instant::now());
    }

    /// Permits that are held.
    pub(crate) fn requests_inflight(&self) -> u64 {
        self.permits.held()
    }

    /// Permits of the whole node that are free.
    pub(crate) fn permits_free(&self) -> u64 {
        self.permits.free()
    }

    /// Requests that wait for a permit.
    pub(crate) fn requests_waiting(&self) -> usize {
        self.permits.waiting()
    }

    /// Bytes of bodies in memory.
    pub(crate) fn body_bytes_in_flight(&self) -> u64 {
        self.budget.held()
    }

    /// Transfers that wait for memory.
    pub(crate) fn budget_waiting(&self) -> usize {
        self.budget.waiting()
    }

    /// Transfers that wait for the node's own rate.
    pub(crate) fn link_waiting(&self) -> usize {
        self.egress.waiting() + self.ingress.waiting()
    }

    /// Capabilities whose bytes are counted.
    pub(crate) fn capabilities(&self) -> usize {
        self.meters.lock().len()
    }

    /// Repairs that are proven and not committed.
    pub(crate) fn repairs(&self) -> usize {
        self.repairs.lock().len()
    }

    fn rates(&self) -> Arc<Rates> {
        Arc::clone(&self.rates.read())
    }
}

/// Of requests: for all clients, and for all strangers.
fn permit_bounds(config: &RelayConfig) -> (Bounds, Bounds) {
    let bounds = |requests_max: u32, queue_max: u32| Bounds {
        capacity: u64::from(requests_max),
        quantum: 1,
        waiters_max: usize::try_from(queue_max).unwrap_or(usize::MAX),
    };
    let strangers = &config.all_strangers;
    let all = bounds(config.requests_max, config.queue_total_max);
    (all, bounds(strangers.requests_max, strangers.queue_max))
}

/// Of bytes, as above. A request waits for one piece at a time, so that permits bound the lines.
fn budget_bounds(config: &RelayConfig) -> (Bounds, Bounds) {
    let bounds =
        |capacity| Bounds { capacity, quantum: CHUNK_BYTES as u64, waiters_max: usize::MAX };
    (bounds(config.body_bytes_in_flight_max), bounds(config.all_strangers.in_flight_bytes_max))
}

fn no_writer() -> Rejection {
    let message = "this node takes writes from its own list of writers only";
    Rejection::new(Reason::NotAllowed, ErrorCode::Refused, message)
}

fn uncovered(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::BadRepair, ErrorCode::Refused, message)
}

/// Seconds since the Unix epoch; a clock before it makes nothing valid for longer.
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(u64::MAX, |since| since.as_secs())
}

/// An authenticated client, one per connection.
pub(crate) struct Client {
    pub(crate) node: NodeId,
    class: ClientClass,
    key: Key,
    may_write: bool,
    meter: Option<Arc<Meter>>,
    admission: Arc<Admission>,
}

impl Client {
    /// A permit for one request, in turn, or why there is none.
    pub(crate) async fn admit(&self, request: &Request) -> Result<Permit, Rejection> {
        let kind = RequestKind::of(request);
        // Whether a repair covers the request is looked at with its fields; here, before any of it
        // costs anything, that there is one.
        if kind.is_write() && !self.may_write && self.repair_of(request).is_none() {
            return Err(no_writer());
        }
        if let Some(meter) = &self.meter {
            meter.check(unix_seconds())?;
        }
        let admission = &self.admission;
        admission.rates().request(self.class, self.key).map_err(|TooFast(wait)| {
            Rejection::busy(Reason::RequestRate, "too many requests a second", wait)
        })?;
        let config = admission.live.get();
        let limits = config.class.of(self.class);
        let terms = Terms {
            rank: self.rank(),
            held_max: u64::from(limits.requests_max),
            waiters_max: usize::try_from(limits.queue_max).unwrap_or(usize::MAX),
        };
        let until = Instant::now() + config.queue_wait();
        let claim =
            admission.permits.claim(self.key, terms, 1, until).await.map_err(|no_room| {
                let (reason, message) = no_permit(no_room);
                Rejection::busy(reason, message, config.retry_after())
            })?;
        admission.counters.admitted(kind, self.class);
        Ok(Permit { _claim: claim })
    }

    /// As whom the client stores these shards: as itself, or as the owner whose lease it repairs.
    pub(crate) fn puts_as(
        &self,
        upload: UploadId,
        mut parts: impl Iterator<Item = Part>,
    ) -> Result<NodeId, Rejection> {
        let Some(allowed) = self.repair(upload) else { return self.writes_as() };
        if parts.all(|Part { slot, shard, len }| allowed.is_shard(slot, shard, len)) {
            return Ok(allowed.owner());
        }
        Err(uncovered("the repair that was proven gives this node no such shard at that slot"))
    }

    /// As whom the client commits. The repair that this ends is forgotten with [`Self::repaired`].
    pub(crate) fn commits_as(&self, commit: &Commit) -> Result<NodeId, Rejection> {
        let Some(allowed) = self.repair(commit.upload) else { return self.writes_as() };
        if allowed.is_commit(commit) {
            return Ok(allowed.owner());
        }
        Err(uncovered("the commit is not that of the repair that was proven"))
    }

    /// Judges a repair by everything but its manifest; returns as whom it writes.
    pub(crate) fn judge(&self, repair: &Repair, node: NodeId) -> Result<NodeId, Rejection> {
        let owner = repair.terms.owner;
        if !self.admission.live.get().writers.contains(&owner) {
            return Err(uncovered("the lease's owner is not on this node's list of writers"));
        }
        repair.check(self.node, node).map_err(|error| uncovered(error.to_string()))?;
        Ok(owner)
    }

    /// Lets the client write what it has proven.
    pub(crate) fn begin_repair(&self, allowed: Allowed) -> Result<(), Rejection> {
        let config = self.admission.live.get();
        let slots_max = usize::try_from(config.repair_slots_max).unwrap_or(usize::MAX);
        let mut repairs = self.admission.repairs.lock();
        if repairs.begin(self.node, allowed, slots_max, Instant::now()) {
            return Ok(());
        }
        let message = "this node remembers as many repairs as it can";
        Err(Rejection::busy(Reason::Repairs, message, config.retry_after()))
    }

    /// The client has committed.
    pub(crate) fn repaired(&self, upload: UploadId) {
        self.admission.repairs.lock().end(self.node, upload);
    }

    fn writes_as(&self) -> Result<NodeId, Rejection> {
        if self.may_write { Ok(self.node) } else { Err(no_writer()) }
    }

    fn repair_of(&self, request: &Request) -> Option<Arc<Allowed>> {
        match request {
            Request::PutShard { upload, .. } | Request::PutMany { upload, .. } => {
                self.repair(*upload)
            }
            Request::Commit(commit) => self.repair(commit.upload),
            _ => None,
        }
    }

    fn repair(&self, upload: UploadId) -> Option<Arc<Allowed>> {
        self.admission.repairs.lock().find(self.node, upload, Instant::now())
    }

    /// Requests this client may have under way, on all its connections.
    pub(crate) fn requests_max(&self) -> u32 {
        self.admission.live.get().class.of(self.class).requests_max
    }

    /// Charges a body before it moves: the whole of it, or its first burst, after which a [`Toll`]
    /// goes on.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Rejection> {
        let rates = self.admission.rates();
        let piece = bytes.min(rates.piece_bytes_max(self.class, self.key));
        rates.bytes(self.class, self.key, piece).map_err(|TooFast(wait)| {
            Rejection::busy(Reason::ByteRate, "too many bytes a second", wait)
        })?;
        if let Some(meter) = &self.meter {
            meter.take(bytes, unix_seconds())?;
        }
        Ok(())
    }

    /// How a body that was [charged](Self::charge) moves on.
    pub(crate) fn toll(&self, direction: Direction, bytes: u64) -> Toll<'_> {
        let paid_bytes = bytes.min(self.admission.rates().piece_bytes_max(self.class, self.key));
        Toll { client: self, direction, paid_bytes, unpaid_bytes: bytes - paid_bytes }
    }

    /// Memory for bytes of a body, at most one [`CHUNK_BYTES`] if it is sent; in turn.
    pub(crate) async fn claim(&self, bytes: u64, wait: Duration) -> Result<ByteClaim, Rejection> {
        let config = self.admission.live.get();
        let held_max = config.class.of(self.class).in_flight_bytes_max;
        let terms = Terms { rank: self.rank(), held_max, waiters_max: usize::MAX };
        let until = Instant::now() + wait;
        let claim = self.admission.budget.claim(self.key, terms, bytes, until).await;
        claim.map(ByteClaim).map_err(|_| {
            let message = "this node has too many bytes in flight";
            Rejection::busy(Reason::Budget, message, config.retry_after())
        })
    }

    fn rank(&self) -> Rank {
        match self.class {
            ClientClass::Repair => Rank::Repair,
            _ => Rank::Foreground,
        }
    }
}

fn no_permit(no_room: NoRoom) -> (Reason, &'static str) {
    match no_room {
        NoRoom::AmongStrangers(Denied::ClientFull | Denied::TimedOut(WaitedFor::Client))
        | NoRoom::AmongAll(Denied::ClientFull | Denied::TimedOut(WaitedFor::Client)) => {
            (Reason::ClientBusy, "this client has too many requests under way")
        }
        NoRoom::AmongStrangers(_) => {
            (Reason::StrangersBusy, "strangers have too many requests under way here")
        }
        NoRoom::AmongAll(Denied::Full) => {
            (Reason::QueueFull, "too many requests wait for this node")
        }
        NoRoom::AmongAll(Denied::TimedOut(WaitedFor::Room)) => {
            (Reason::NodeBusy, "this node has too many requests under way")
        }
    }
}

/// What a body pays on its way.
pub(crate) struct Toll<'a> {
    client: &'a Client,
    direction: Direction,
    /// Bytes that were charged and have not moved.
    paid_bytes: u64,
    /// Bytes of the body that were not.
    unpaid_bytes: u64,
}

impl Toll<'_> {
    /// Returns when the next `bytes` may move.
    pub(crate) async fn pay(&mut self, bytes: u64) {
        let begun = Instant::now();
        let Self { client, direction, .. } = *self;
        let admission = &client.admission;
        while self.paid_bytes < bytes && self.unpaid_bytes > 0 {
            let rates = admission.rates();
            let piece = self.unpaid_bytes.min(rates.piece_bytes_max(client.class, client.key));
            match rates.bytes(client.class, client.key, piece) {
                Ok(()) => {
                    self.paid_bytes += piece;
                    self.unpaid_bytes -= piece;
                }
                Err(TooFast(wait)) => sleep(wait).await,
            }
        }
        self.paid_bytes = self.paid_bytes.saturating_sub(bytes);
        let link = match direction {
            Direction::Egress => &admission.egress,
            Direction::Ingress => &admission.ingress,
        };
        let terms = Terms { rank: client.rank(), held_max: u64::MAX, waiters_max: usize::MAX };
        link.pass(client.key, terms, bytes).await;
        admission.counters.paced(begun.elapsed());
    }

    /// Counts bytes that moved.
    pub(crate) fn moved(&self, bytes: u64) {
        self.client.admission.counters.moved(self.direction, self.client.class, bytes);
    }
}

/// The right to work on one request. Dropping it gives the right back.
pub(crate) struct Permit {
    _claim: GateClaim,
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
