// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exported names are those of the list that operators read, and the text is well-formed.

use std::collections::BTreeMap;
use std::time::Duration;

use supernode_audit::AuditMetrics;
use supernode_dht::DhtMetrics;
use supernode_protocol::capability::ClientClass;
use supernode_relay::{Histogram, RETRIEVAL_BOUNDS_SECONDS, Reason, RelayMetrics, RequestKind};
use supernode_store::{DiskMetrics, StoreMetrics};

use super::Metrics;

const LIST: &str = include_str!("../../../docs/METRICS.md");

impl Metrics {
    /// Figures in which every family has a sample.
    pub(crate) fn example() -> Self {
        let mut counts = vec![0; RETRIEVAL_BOUNDS_SECONDS.len() + 1];
        counts[1] = 3;
        counts[4] = 2;
        let mut audit = AuditMetrics::default();
        (audit.audits.slack_last_blocks, audit.audits.slack_min_blocks) = (Some(7), Some(3));
        Self {
            network: "main".to_owned(),
            region: "EU-WEST".to_owned(),
            ready: true,
            uptime_secs: 12.5,
            store: StoreMetrics {
                index_rebuilds: [("missing", 1)].into_iter().collect(),
                mailbox_depth: 4,
                disks: vec![DiskMetrics {
                    id: "01".to_owned(),
                    path: "/mnt/a".into(),
                    offline: None,
                    capacity_bytes: 1 << 40,
                    used_bytes: 5,
                    free_bytes: 9,
                }],
                ..StoreMetrics::default()
            },
            relay: RelayMetrics {
                requests_inflight: 2,
                permits_free: 1022,
                requests_waiting: 3,
                body_bytes_in_flight: 1 << 20,
                budget_waiting: 1,
                link_waiting: 0,
                capabilities: 5,
                repairs: 2,
                connections: 1,
                connections_total: 9,
                retries_total: 1,
                class_requests_total: ClientClass::ALL.iter().map(|class| (*class, 2)).collect(),
                class_bytes_total: ClientClass::ALL.iter().map(|class| (*class, 30)).collect(),
                paced: Duration::from_millis(1500),
                requests_total: RequestKind::ALL.iter().map(|kind| (*kind, 1)).collect(),
                rejected_total: Reason::ALL.iter().map(|reason| (*reason, 0)).collect(),
                body_bytes_received: 10,
                body_bytes_sent: 20,
                shard_retrieval: Histogram { counts, sum: Duration::from_millis(40) },
            },
            dht: DhtMetrics::default(),
            audit: Some(audit),
            registered_nodes: Some(3),
        }
    }
}

fn exported() -> BTreeMap<String, String> {
    let text = Metrics::example().text().expect("well-formed families");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

fn listed() -> BTreeMap<String, String> {
    let rows = LIST.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let name = cells.next()?.trim_matches('`').split('{').next()?.to_owned();
        Some((name, cells.next()?.to_owned()))
    })
    .collect()
}

#[test]
fn the_list_names_what_is_exported() {
    let mut exported = exported();
    exported.retain(|name, _| name.starts_with("supernode_"));
    assert_eq!(listed(), exported);
}

#[test]
fn labels_are_listed_with_their_names() {
    let text = Metrics::example().text().expect("well-formed families");
    for row in LIST.lines().filter(|line| line.starts_with("| `")) {
        let name = row.split('`').nth(1).expect("a name in backticks");
        let Some((family, labels)) = name.trim_end_matches('}').split_once('{') else { continue };
        for label in labels.split(',').map(str::trim) {
            let sample = text.lines().find(|line| line.starts_with(&format!("{family}{{")));
            let sample = sample.or_else(|| {
                text.lines().find(|line| line.starts_with(&format!("{family}_bucket{{")))
            });
            let found = sample.is_some_and(|line| line.contains(&format!("{label}=\"")));
            assert!(found, "{family} has no label {label}");
        }
    }
}

#[test]
fn buckets_add_up() {
    let text = Metrics::example().text().expect("well-formed families");
    for line in [
        "supernode_shard_retrieval_seconds_bucket{le=\"0.0005\"} 0",
        "supernode_shard_retrieval_seconds_bucket{le=\"0.001\"} 3",
        "supernode_shard_retrieval_seconds_bucket{le=\"0.01\"} 5",
        "supernode_shard_retrieval_seconds_bucket{le=\"+Inf\"} 5",
        "supernode_shard_retrieval_seconds_count 5",
        "supernode_shard_retrieval_seconds_sum 0.04",
        "supernode_actor_mailbox_depth{actor=\"storage\"} 4",
        "supernode_audit_slack_blocks{of=\"least\"} 3",
        "supernode_relay_waiting{for=\"permit\"} 3",
        "supernode_relay_class_bytes_total{class=\"repair\"} 30",
        "supernode_relay_paced_seconds_total 1.5",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn the_process_is_measured() {
    assert!(exported().contains_key("process_resident_memory_bytes"));
}
