// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters of the relay server. Plain atomics here; the binary gives them names and exports
//! them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use supernode_protocol::capability::ClientClass;
use supernode_protocol::wire::Request;

use crate::admission::{Admission, Direction};

macro_rules! labelled {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of the snapshot.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label in metrics.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labelled! {
    /// Why a connection or a request was turned away by the relay server itself.
    Reason {
        /// All permits of the node stayed taken while it waited.
        NodeBusy = "node_busy",
        /// All permits of the client, or of its address prefix, stayed taken, or its line is full.
        ClientBusy = "client_busy",
        /// All permits of strangers stayed taken.
        StrangersBusy = "strangers_busy",
        /// Too many requests wait.
        QueueFull = "queue_full",
        /// Too many bytes of bodies are in memory.
        Budget = "budget",
        /// Too many requests a second.
        RequestRate = "request_rate",
        /// Too many bytes a second.
        ByteRate = "byte_rate",
        /// The caller may not do this.
        NotAllowed = "not_allowed",
        /// A capability that is worth nothing here, or has ended.
        BadCapability = "bad_capability",
        /// A capability whose bytes are used up.
        CapabilitySpent = "capability_spent",
        /// Too many capabilities to count.
        Capabilities = "capabilities",
        /// A repair that is not proven, or a write that its proof does not cover.
        BadRepair = "bad_repair",
        /// Too many repairs to remember.
        Repairs = "repairs",
        /// The request breaks a rule.
        BadRequest = "bad_request",
        /// A body longer than any may be.
        TooLarge = "too_large",
        /// The body is not what was announced.
        BodyMismatch = "body_mismatch",
        /// The frame did not come in time, or the node was too slow.
        Deadline = "deadline",
        /// A body stood still, or went slower than any may.
        TooSlow = "too_slow",
        /// Another network.
        WrongNetwork = "wrong_network",
        /// No hello before the first request, or none at all.
        NoHello = "no_hello",
        /// Too many connections.
        Connections = "connections",
        /// Too many connections from one address prefix.
        PrefixConnections = "prefix_connections",
        /// Too many connections of one client.
        ClientConnections = "client_connections",
        /// Too many handshakes under way.
        Handshakes = "handshakes",
        /// Too many handshakes a second from one address prefix.
        HandshakeRate = "handshake_rate",
        /// The node is stopping.
        Stopping = "stopping",
    }
}

labelled! {
    /// Kinds of requests.
    RequestKind {
        /// A repeated hello, which is a mistake.
        Hello = "hello",
        /// Stores a shard.
        PutShard = "put_shard",
        /// Stores a manifest block.
        PutBlock = "put_block",
        /// Binds an upload.
        Commit = "commit",
        /// Reads a shard.
        GetShard = "get_shard",
        /// Reads manifest and placement.
        Group = "group",
        /// Asks for slots.
        Stat = "stat",
        /// Lists leases.
        Leases = "leases",
        /// Ends a lease.
        Release = "release",
        /// Prolongs a lease.
        Renew = "renew",
        /// Lists nodes.
        Members = "members",
        /// Asks for figures.
        Status = "status",
        /// Asks for a signed receipt.
        Receipt = "receipt",
        /// Hands over the proof of a group's span.
        KeepSpan = "keep_span",
        /// Reads many shards or parts of shards.
        GetMany = "get_many",
        /// Stores many shards.
        PutMany = "put_many",
        /// Proves a repair.
        Repair = "repair",
    }
}

impl RequestKind {
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Hello { .. } => Self::Hello,
            Request::PutShard { .. } => Self::PutShard,
            Request::PutBlock { .. } => Self::PutBlock,
            Request::Commit(_) => Self::Commit,
            Request::GetShard { .. } => Self::GetShard,
            Request::Group { .. } => Self::Group,
            Request::Stat { .. } => Self::Stat,
            Request::Leases { .. } => Self::Leases,
            Request::Release { .. } => Self::Release,
            Request::Renew { .. } => Self::Renew,
            Request::Members { .. } => Self::Members,
            Request::Status => Self::Status,
            Request::Receipt { .. } => Self::Receipt,
            Request::KeepSpan { .. } => Self::KeepSpan,
            Request::GetMany { .. } => Self::GetMany,
            Request::PutMany { .. } => Self::PutMany,
            Request::Repair { .. } => Self::Repair,
        }
    }

    /// Whether it changes what the node keeps, for those who may write. A repair is its own proof.
    pub(crate) fn is_write(self) -> bool {
        matches!(
            self,
            Self::PutShard
                | Self::PutBlock
                | Self::Commit
                | Self::Release
                | Self::Renew
                | Self::KeepSpan
                | Self::PutMany
        )
    }
}

/// Upper bounds of the retrieval histogram's buckets, in seconds.
pub const RETRIEVAL_BOUNDS_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram as Prometheus knows it, buckets not yet added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Observations up to each of [`RETRIEVAL_BOUNDS_SECONDS`] and above the one before; the last
    /// entry counts what is above all bounds.
    pub counts: Vec<u64>,
    /// All observations together.
    pub sum: Duration,
}

/// All counters at one moment. Counters of a pair may be a moment apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayMetrics {
    /// Requests that hold a permit now: `supernode_relay_inflight_requests`.
    pub requests_inflight: u64,
    /// Permits of the whole node that are free now.
    pub permits_free: u64,
    /// Requests that wait for a permit now.
    pub requests_waiting: u64,
    /// Bytes of bodies in memory now: `supernode_relay_in_flight_bytes`.
    pub body_bytes_in_flight: u64,
    /// Transfers that wait for such memory now.
    pub budget_waiting: u64,
    /// Transfers that wait for their turn at the node's own rate now.
    pub link_waiting: u64,
    /// Capabilities whose bytes are counted now.
    pub capabilities: u64,
    /// Repairs that are proven and not committed now.
    pub repairs: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections ever opened.
    pub connections_total: u64,
    /// Connection attempts that had to prove their address first.
    pub retries_total: u64,
    /// Requests that were admitted, by kind.
    pub requests_total: Vec<(RequestKind, u64)>,
    /// The same by class of client.
    pub class_requests_total: Vec<(ClientClass, u64)>,
    /// Bytes of bodies moved in both directions, by class of client.
    pub class_bytes_total: Vec<(ClientClass, u64)>,
    /// How long bodies waited for a rate, all together.
    pub paced: Duration,
    /// What was turned away: `supernode_relay_rejected_total{reason}`.
    pub rejected_total: Vec<(Reason, u64)>,
    /// Bytes of bodies received.
    pub body_bytes_received: u64,
    /// Bytes of bodies sent.
    pub body_bytes_sent: u64,
    /// From a read's frame to its last byte handed to the transport:
    /// `supernode_shard_retrieval_seconds`.
    pub shard_retrieval: Histogram,
}

impl RelayMetrics {
    /// How often something was turned away for `reason`.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.rejected_total.iter().find(|(each, _)| *each == reason).map_or(0, |(_, count)| *count)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) retries: AtomicU64,
    body_bytes_received: AtomicU64,
    body_bytes_sent: AtomicU64,
    requests: [AtomicU64; RequestKind::ALL.len()],
    class_requests: [AtomicU64; ClientClass::ALL.len()],
    class_bytes: [AtomicU64; ClientClass::ALL.len()],
    paced_nanos: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    retrieval_counts: [AtomicU64; RETRIEVAL_BOUNDS_SECONDS.len() + 1],
    retrieval_nanos: AtomicU64,
}

impl Counters {
    /// A request got its permit.
    pub(crate) fn admitted(&self, kind: RequestKind, class: ClientClass) {
        self.requests[kind as usize].fetch_add(1, Relaxed);
        self.class_requests[class as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn moved(&self, direction: Direction, class: ClientClass, bytes: u64) {
        let counter = match direction {
            Direction::Egress => &self.body_bytes_sent,
            Direction::Ingress => &self.body_bytes_received,
        };
        counter.fetch_add(bytes, Relaxed);
        self.class_bytes[class as usize].fetch_add(bytes, Relaxed);
    }

    pub(crate) fn paced(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.paced_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejected[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn retrieved(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = RETRIEVAL_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.retrieval_counts[bucket].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.retrieval_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn snapshot(&self, admission: &Admission) -> RelayMetrics {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let by_class = |counters: &[AtomicU64]| {
            ClientClass::ALL.iter().zip(counters).map(|(class, it)| (*class, load(it))).collect()
        };
        RelayMetrics {
            requests_inflight: admission.requests_inflight(),
            permits_free: admission.permits_free(),
            requests_waiting: admission.requests_waiting() as u64,
            body_bytes_in_flight: admission.body_bytes_in_flight(),
            budget_waiting: admission.budget_waiting() as u64,
            link_waiting: admission.link_waiting() as u64,
            capabilities: admission.capabilities() as u64,
            repairs: admission.repairs() as u64,
            connections: load(&self.connections),
            connections_total: load(&self.connections_total),
            retries_total: load(&self.retries),
            class_requests_total: by_class(&self.class_requests),
            class_bytes_total: by_class(&self.class_bytes),
            paced: Duration::from_nanos(load(&self.paced_nanos)),
            requests_total: RequestKind::ALL
                .iter()
                .map(|kind| (*kind, load(&self.requests[*kind as usize])))
                .collect(),
            rejected_total: Reason::ALL
                .iter()
                .map(|reason| (*reason, load(&self.rejected[*reason as usize])))
                .collect(),
            body_bytes_received: load(&self.body_bytes_received),
            body_bytes_sent: load(&self.body_bytes_sent),
            shard_retrieval: Histogram {
                counts: self.retrieval_counts.iter().map(load).collect(),
                sum: Duration::from_nanos(load(&self.retrieval_nanos)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Counters, Reason, RelayMetrics};
    use crate::admission::Admission;
    use crate::config::RelayConfig;
    use crate::live::Live;

    fn snapshot(counters: Counters) -> RelayMetrics {
        let counters = Arc::new(counters);
        let live = Live::new(RelayConfig::default());
        counters.snapshot(&Admission::new(live, Arc::clone(&counters)))
    }

    #[test]
    fn observations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let counters = Counters::default();
        for millis in [1, 2, 100, 60_000] {
            counters.retrieved(Duration::from_millis(millis));
        }
        let histogram = snapshot(counters).shard_retrieval;
        assert_eq!(histogram.counts, [0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(histogram.sum, Duration::from_millis(60_103));
    }

    #[test]
    fn each_reason_has_a_counter_and_a_label_of_its_own() {
        let counters = Counters::default();
        counters.rejected(Reason::Stopping);
        let snapshot = snapshot(counters);
        assert_eq!(snapshot.rejected(Reason::Stopping), 1);
        assert_eq!(snapshot.rejected(Reason::NodeBusy), 0);
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
