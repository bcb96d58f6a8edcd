// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay server's figures: who is served, who waits, who is turned away and why.

use supernode_relay::{RETRIEVAL_BOUNDS_SECONDS, RelayMetrics};

use super::families::{Families, Observations};
use super::number;

/// Adds every family of the relay server.
pub(super) fn families(relay: &RelayMetrics, to: &mut Families) {
    requests(relay, to);
    limits(relay, to);
    bytes(relay, to);
}

fn requests(relay: &RelayMetrics, to: &mut Families) {
    to.gauge(
        "supernode_relay_inflight_requests",
        "Requests under way.",
        number(relay.requests_inflight),
    );
    to.gauge(
        "supernode_relay_free_permits",
        "Requests it has room for.",
        number(relay.permits_free),
    );
    to.gauge("supernode_relay_connections", "Connections open.", number(relay.connections));
    to.counter(
        "supernode_relay_connections_total",
        "Connections ever opened.",
        number(relay.connections_total),
    );
    to.counter(
        "supernode_relay_retries_total",
        "Connection attempts that had to prove their address first.",
        number(relay.retries_total),
    );
    let kinds = relay.requests_total.iter().map(|(kind, times)| (kind.label(), *times));
    counted(to, "supernode_relay_requests_total", "Requests admitted.", "kind", kinds);
    let reasons = relay.rejected_total.iter().map(|(reason, times)| (reason.label(), *times));
    counted(
        to,
        "supernode_relay_rejected_total",
        "Requests and connections turned away, and streams cut.",
        "reason",
        reasons,
    );
    let classes = relay.class_requests_total.iter().map(|(class, times)| (class.name(), *times));
    counted(
        to,
        "supernode_relay_class_requests_total",
        "Requests admitted, by class of client.",
        "class",
        classes,
    );
}

fn limits(relay: &RelayMetrics, to: &mut Families) {
    to.gauges(
        "supernode_relay_waiting",
        "Who waits for a turn: requests for a permit, transfers for memory or for the node's rate.",
        [
            (&[("for", "permit")][..], number(relay.requests_waiting)),
            (&[("for", "memory")][..], number(relay.budget_waiting)),
            (&[("for", "rate")][..], number(relay.link_waiting)),
        ],
    );
    to.gauge(
        "supernode_relay_in_flight_bytes",
        "Bytes of bodies in memory: on their way in, or sent and not acknowledged.",
        number(relay.body_bytes_in_flight),
    );
    to.gauge(
        "supernode_relay_capabilities",
        "Capabilities whose bytes are counted.",
        number(relay.capabilities),
    );
    to.gauge(
        "supernode_relay_repairs",
        "Repairs that other holders have proven and not committed yet.",
        number(relay.repairs),
    );
    to.counter(
        "supernode_relay_paced_seconds_total",
        "How long transfers waited for a rate, all together.",
        relay.paced.as_secs_f64(),
    );
}

fn bytes(relay: &RelayMetrics, to: &mut Families) {
    to.counters(
        "supernode_relay_body_bytes_total",
        "Bytes of shards and manifests moved over the network.",
        [
            (&[("direction", "received")][..], number(relay.body_bytes_received)),
            (&[("direction", "sent")][..], number(relay.body_bytes_sent)),
        ],
    );
    let classes = relay.class_bytes_total.iter().map(|(class, bytes)| (class.name(), *bytes));
    counted(
        to,
        "supernode_relay_class_bytes_total",
        "The same, both directions together, by class of client.",
        "class",
        classes,
    );
    let observed = Observations {
        bounds: &RETRIEVAL_BOUNDS_SECONDS,
        counts: &relay.shard_retrieval.counts,
        sum: relay.shard_retrieval.sum.as_secs_f64(),
    };
    to.histograms(
        "supernode_shard_retrieval_seconds",
        "From a read's request to its last byte handed to the transport.",
        [(&[][..], observed)],
    );
}

/// A counter with one label.
fn counted(
    to: &mut Families,
    name: &str,
    about: &str,
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) {
    let counts: Vec<_> = counts.map(|(value, count)| ([(label, value)], count)).collect();
    let samples = counts.iter().map(|(labels, count)| (&labels[..], number(*count)));
    to.counters(name, about, samples);
}
