// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters of the relay server. Plain atomics here; the binary gives them names and exports
//! them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use supernode_protocol::wire::Request;

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
        /// All permits of the node are taken.
        NodeBusy = "node_busy",
        /// All permits of the client, or of its address prefix, are taken.
        ClientBusy = "client_busy",
        /// Too many requests a second.
        RequestRate = "request_rate",
        /// Too many bytes a second.
        ByteRate = "byte_rate",
        /// The caller may not do this.
        NotAllowed = "not_allowed",
        /// The request breaks a rule.
        BadRequest = "bad_request",
        /// A body longer than any may be.
        TooLarge = "too_large",
        /// The body is not what was announced.
        BodyMismatch = "body_mismatch",
        /// The client was too slow, or the node was.
        Deadline = "deadline",
        /// Another network.
        WrongNetwork = "wrong_network",
        /// No hello before the first request, or none at all.
        NoHello = "no_hello",
        /// Too many connections.
        Connections = "connections",
        /// Too many connections from one address prefix.
        PrefixConnections = "prefix_connections",
        /// Too many handshakes under way.
        Handshakes = "handshakes",
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
        }
    }

    /// Whether it changes what the node keeps.
    pub(crate) fn is_write(self) -> bool {
        matches!(
            self,
            Self::PutShard
                | Self::PutBlock
                | Self::Commit
                | Self::Release
                | Self::Renew
                | Self::KeepSpan
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
    /// Connections open now.
    pub connections: u64,
    /// Connections ever opened.
    pub connections_total: u64,
    /// Requests that were admitted, by kind.
    pub requests_total: Vec<(RequestKind, u64)>,
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
    pub(crate) requests_inflight: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) body_bytes_received: AtomicU64,
    pub(crate) body_bytes_sent: AtomicU64,
    requests: [AtomicU64; RequestKind::ALL.len()],
    rejected: [AtomicU64; Reason::ALL.len()],
    retrieval_counts: [AtomicU64; RETRIEVAL_BOUNDS_SECONDS.len() + 1],
    retrieval_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn admitted(&self, kind: RequestKind) {
        self.requests[kind as usize].fetch_add(1, Relaxed);
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

    pub(crate) fn snapshot(&self, permits_free: usize) -> RelayMetrics {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        RelayMetrics {
            requests_inflight: load(&self.requests_inflight),
            permits_free: permits_free as u64,
            connections: load(&self.connections),
            connections_total: load(&self.connections_total),
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
    use std::time::Duration;

    use super::{Counters, Reason};

    #[test]
    fn observations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let counters = Counters::default();
        for millis in [1, 2, 100, 60_000] {
            counters.retrieved(Duration::from_millis(millis));
        }
        let histogram = counters.snapshot(0).shard_retrieval;
        assert_eq!(histogram.counts, [0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(histogram.sum, Duration::from_millis(60_103));
    }

    #[test]
    fn each_reason_has_a_counter_and_a_label_of_its_own() {
        let counters = Counters::default();
        counters.rejected(Reason::Stopping);
        let snapshot = counters.snapshot(0);
        assert_eq!(snapshot.rejected(Reason::Stopping), 1);
        assert_eq!(snapshot.rejected(Reason::NodeBusy), 0);
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
