// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names and meaning of every metric: one snapshot of the crates' figures as Prometheus text.
//!
//! The names are a contract: dashboards and alerts lean on them. `docs/METRICS.md` lists them all,
//! and a test keeps that list equal to what is exported.

mod audit;
mod families;
mod relay;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use supernode_audit::AuditMetrics;
use supernode_dht::DhtMetrics;
use supernode_relay::RelayMetrics;
use supernode_store::{DiskMetrics, IoFigures, ScrubState, ScrubStatus, StoreMetrics};

use self::families::{Families, Labels, Observations};
use crate::cli::{REVISION, VERSION};

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bucket bounds of coding times, in seconds.
const CODING_BOUNDS_SECONDS: [f64; 10] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// All figures of a node at one moment.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The network's name.
    pub network: String,
    /// The node's region.
    pub region: String,
    /// Whether it can serve.
    pub ready: bool,
    /// Seconds since its start.
    pub uptime_secs: f64,
    /// The store's.
    pub store: StoreMetrics,
    /// The relay server's.
    pub relay: RelayMetrics,
    /// The DHT's.
    pub dht: DhtMetrics,
    /// The audit actor's, on a node with a chain.
    pub audit: Option<AuditMetrics>,
    /// Nodes of the chain's registry that are known here, on a node with a chain.
    pub registered_nodes: Option<usize>,
}

impl Metrics {
    /// The Prometheus text.
    ///
    /// # Errors
    /// When a family breaks the format, which a test excludes.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut families = Families::default();
        self.node(&mut families);
        store(&self.store, &mut families);
        disk(&self.store, &mut families);
        disks(&self.store.disks, &mut families);
        relay::families(&self.relay, &mut families);
        coding(&mut families);
        dht(&self.dht, &mut families);
        dht_work(&self.dht, &mut families);
        if let Some(metrics) = &self.audit {
            audit::families(metrics, &mut families);
        }
        if let Some(nodes) = self.registered_nodes {
            families.gauge(
                "supernode_chain_registered_nodes",
                "Nodes of the chain's registry that are known here, and so of class repair.",
                count(nodes),
            );
        }
        let mut all = families.into_inner();
        all.extend(ProcessCollector::for_self().collect());
        TextEncoder::new().encode_to_string(&all)
    }

    fn node(&self, to: &mut Families) {
        let build: Labels<'_> = &[("version", VERSION), ("revision", REVISION)];
        to.gauges("supernode_build_info", "What is running; always 1.", [(build, 1.0)]);
        let place: Labels<'_> = &[("network", &self.network), ("region", &self.region)];
        to.gauges("supernode_node_info", "Where it belongs; always 1.", [(place, 1.0)]);
        let ready = f64::from(u8::from(self.ready));
        to.gauge("supernode_ready", "1 while the node can serve, as /readyz says.", ready);
        to.gauge("supernode_uptime_seconds", "Seconds since the node's start.", self.uptime_secs);
        let depth = number(self.store.mailbox_depth);
        let dht_depth = count(self.dht.mailbox_depth);
        let mut depths =
            vec![(&[("actor", "storage")][..], depth), (&[("actor", "dht")][..], dht_depth)];
        if let Some(audit) = &self.audit {
            depths.push((&[("actor", "audit")][..], count(audit.mailbox_depth)));
        }
        to.gauges("supernode_actor_mailbox_depth", "Messages that wait for an actor.", depths);
    }
}

fn store(store: &StoreMetrics, to: &mut Families) {
    let usage = &store.usage;
    let live: Labels<'_> = &[("state", "live")];
    let trash: Labels<'_> = &[("state", "trash")];
    let dead: Labels<'_> = &[("state", "dead")];
    let upload: Labels<'_> = &[("state", "upload")];
    to.gauge("supernode_shards", "Distinct shards kept.", number(usage.shards.live.count));
    to.gauges(
        "supernode_slots",
        "Positions of objects that the shards fill.",
        [
            (live, number(usage.live_slots)),
            (trash, number(usage.trash_slots)),
            (upload, number(usage.upload_slots)),
        ],
    );
    to.gauges(
        "supernode_groups",
        "Groups of objects kept.",
        [(live, number(usage.live_groups)), (trash, number(usage.trash_groups))],
    );
    let bytes = |shards: u64, blocks: u64| number(shards) + number(blocks);
    to.gauges(
        "supernode_stored_bytes",
        "Bytes of shards and manifests: live under a lease or open upload; trash can be revived; \
         dead waits to be freed.",
        [
            (live, bytes(usage.shards.live.bytes, usage.blocks.live.bytes)),
            (trash, bytes(usage.shards.trash.bytes, usage.blocks.trash.bytes)),
            (dead, bytes(usage.shards.dead.bytes, usage.blocks.dead.bytes)),
        ],
    );
    to.gauge("supernode_capacity_bytes", "Bytes offered.", number(store.capacity_bytes));
    log(store, to);
    to.counter(
        "supernode_damaged_total",
        "Shards and blocks found damaged on disk since the start.",
        number(store.damaged),
    );
    to.gauge(
        "supernode_quarantined",
        "Shards and blocks not served because they are damaged.",
        number(store.quarantined),
    );
    scrub(&store.scrub, to);
}

/// What the bytes on disk and the index over them come to.
fn log(store: &StoreMetrics, to: &mut Families) {
    let usage = &store.usage;
    to.gauge("supernode_log_bytes", "Bytes of all segments.", number(usage.log_bytes));
    to.gauge(
        "supernode_index_pending",
        "Changes not in the index yet.",
        number(store.index_pending),
    );
    let rebuilds: Vec<_> = store
        .index_rebuilds
        .iter()
        .map(|(reason, times)| ([("reason", *reason)], *times))
        .collect();
    to.counters(
        "supernode_index_rebuilds_total",
        "Times the index was made anew from the log.",
        rebuilds.iter().map(|(labels, times)| (&labels[..], number(*times))),
    );
    to.counter(
        "supernode_reclaimed_bytes_total",
        "Bytes given back to the file system.",
        number(store.reclaimed_bytes),
    );
    to.gauge(
        "supernode_log_waste_bytes",
        "Bytes of the log that compaction would spare.",
        number(usage.waste_bytes()),
    );
    to.counter(
        "supernode_compacted_bytes_total",
        "Bytes of shards and manifests that compaction copied.",
        number(store.compacted_bytes),
    );
}

fn scrub(scrub: &ScrubStatus, to: &mut Families) {
    to.gauge(
        "supernode_scrub_running",
        "1 while a scrub reads.",
        if scrub.state == ScrubState::Running { 1.0 } else { 0.0 },
    );
    to.counter("supernode_scrub_passes_total", "Whole scrubs.", number(scrub.passes));
    to.gauge(
        "supernode_scrub_finished_seconds",
        "The node's running time when the last whole scrub ended; 0 for never.",
        number(scrub.finished_secs),
    );
    let bytes = [
        (&[("state", "passed")], number(scrub.passed_bytes)),
        (&[("state", "all")], number(scrub.total_bytes)),
    ];
    let bytes = bytes.iter().map(|(labels, value)| (&labels[..], *value));
    to.gauges(
        "supernode_scrub_bytes",
        "Bytes of the log that this scrub has passed, and all.",
        bytes,
    );
    let findings = [
        (&[("what", "damaged")], number(scrub.damaged)),
        (&[("what", "unreadable")], number(scrub.unreadable)),
    ];
    let findings = findings.iter().map(|(labels, value)| (&labels[..], *value));
    to.gauges("supernode_scrub_findings", "What this scrub, or the last one, found.", findings);
}

fn disk(store: &StoreMetrics, to: &mut Families) {
    let ops = [("read", store.read), ("write", store.write), ("sync", store.sync)];
    let labels = ops.map(|(op, _)| [("op", op)]);
    let of = |figure: fn(&IoFigures) -> u64| {
        labels.iter().zip(&ops).map(move |(labels, (_, io))| (&labels[..], number(figure(io))))
    };
    let moved = of(|io| io.bytes).take(2);
    to.counters("supernode_disk_io_bytes_total", "Bytes read from and written to disk.", moved);
    to.counters("supernode_disk_ios_total", "Reads, writes and syncs.", of(|io| io.ios));
    to.counters("supernode_disk_errors_total", "Those that failed.", of(|io| io.errors));
    to.gauge("supernode_disk_free_bytes", "Free on the file system.", number(store.free_bytes));
    to.counters(
        "supernode_cache_requests_total",
        "Reads of the hot-shard cache.",
        [
            (&[("result", "hit")][..], number(store.cache_hits)),
            (&[("result", "miss")][..], number(store.cache_misses)),
        ],
    );
    to.counter(
        "supernode_cache_evictions_total",
        "Entries that made room for others.",
        number(store.cache_evictions),
    );
    to.gauge("supernode_cache_bytes", "Bytes in the cache.", number(store.cache_bytes));
    to.counter("supernode_batches_total", "Batches that shared a sync.", number(store.batches));
    to.counter(
        "supernode_batch_records_total",
        "Records in those batches.",
        number(store.batch_records),
    );
    to.gauge(
        "supernode_buffer_free_bytes",
        "Memory left for shards on their way to the disk.",
        number(store.buffer_free_bytes),
    );
}

/// Each disk by itself, named by its directory.
fn disks(disks: &[DiskMetrics], to: &mut Families) {
    let names: Vec<String> = disks.iter().map(|disk| disk.path.display().to_string()).collect();
    let labels: Vec<_> = names.iter().map(|name| [("disk", name.as_str())]).collect();
    let of = |figure: fn(&DiskMetrics) -> f64| {
        labels.iter().zip(disks).map(move |(labels, disk)| (&labels[..], figure(disk)))
    };
    to.gauges(
        "supernode_store_disk_online",
        "1 while a disk's records can be reached.",
        of(|disk| if disk.offline.is_none() { 1.0 } else { 0.0 }),
    );
    to.gauges(
        "supernode_store_disk_capacity_bytes",
        "Bytes offered of a disk.",
        of(|disk| number(disk.capacity_bytes)),
    );
    to.gauges(
        "supernode_store_disk_used_bytes",
        "Bytes of shards and manifests on a disk that count as used.",
        of(|disk| number(disk.used_bytes)),
    );
    to.gauges(
        "supernode_store_disk_free_bytes",
        "Free on a disk's file system.",
        of(|disk| number(disk.free_bytes)),
    );
}

/// The time to code stripes.
fn coding(to: &mut Families) {
    // A node moves shards and codes none; the first to do so here is repair.
    let none = Observations {
        bounds: &CODING_BOUNDS_SECONDS,
        counts: &[0; CODING_BOUNDS_SECONDS.len() + 1],
        sum: 0.0,
    };
    to.histograms(
        "supernode_erasure_coding_seconds",
        "Time to code one stripe in this process.",
        [(&[("op", "encode")][..], none), (&[("op", "decode")][..], none)],
    );
}

fn dht(dht: &DhtMetrics, to: &mut Families) {
    to.gauge("supernode_dht_connected_peers", "Peers connected.", count(dht.connected_peers));
    to.gauge(
        "supernode_dht_routing_peers",
        "Peers of this network that are believed alive.",
        count(dht.routing_peers),
    );
    to.gauge("supernode_dht_members", "Nodes with a verified record.", count(dht.members));
    let kept =
        [("manifest", dht.manifests), ("node", dht.node_records), ("provider", dht.providers)]
            .map(|(kind, records)| ([("kind", kind)], records));
    to.gauges(
        "supernode_dht_records",
        "Records kept for others.",
        kept.iter().map(|(labels, records)| (&labels[..], count(*records))),
    );
    to.gauge(
        "supernode_dht_announced",
        "Objects and pages this node announces.",
        count(dht.announced),
    );
    to.gauge(
        "supernode_dht_published_manifests",
        "Manifest roots this node publishes.",
        count(dht.published_manifests),
    );
    to.gauge("supernode_dht_lookups", "Lookups running.", count(dht.lookups));
}

fn dht_work(dht: &DhtMetrics, to: &mut Families) {
    to.counter("supernode_dht_lookups_total", "Lookups started.", number(dht.lookups_total));
    to.counter(
        "supernode_dht_lookup_timeouts_total",
        "Lookups that did not end in time.",
        number(dht.lookup_timeouts_total),
    );
    to.counter(
        "supernode_dht_publications_total",
        "Own records that went out.",
        number(dht.publications_total),
    );
    to.counter(
        "supernode_dht_publication_failures_total",
        "Own records that nobody took; they are tried again.",
        number(dht.publication_failures_total),
    );
    to.counter(
        "supernode_dht_requests_total",
        "Requests of peers answered.",
        number(dht.requests_total),
    );
    to.counter(
        "supernode_dht_records_accepted_total",
        "Records of peers stored or renewed.",
        number(dht.records_accepted_total),
    );
    let rejected: Vec<_> =
        dht.rejections().map(|(reason, times)| ([("reason", reason.name())], times)).collect();
    to.counters(
        "supernode_dht_records_rejected_total",
        "Records of peers not stored.",
        rejected.iter().map(|(labels, times)| (&labels[..], number(*times))),
    );
    to.counter(
        "supernode_dht_other_network_total",
        "Peers turned away because they belong to another network.",
        number(dht.other_network_total),
    );
}

/// Prometheus numbers are floats: exact up to 2^53, which no counter here reaches.
fn number(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
