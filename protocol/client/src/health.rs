// SPDX-License-Identifier: MIT OR Apache-2.0
//! How nodes have been doing, as far as this client saw.
//!
//! - A node that failed is avoided for a time that doubles with every further failure and is over
//!   with its first answer. Being avoided only means that others are asked first.
//! - Times and rates are smoothed; the last first-byte times are kept, because a hedge wants to
//!   know what is unusually late for this node.
//! - The table is bounded in two generations: when the younger one is full it becomes the older
//!   one, and what nobody asked for since is forgotten. No step looks at every node.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use supernode_protocol::ids::NodeId;
use tokio::time::Instant;

/// For how long a node is avoided after its first failure in a row.
const AVOID_MIN: Duration = Duration::from_millis(250);
/// And after many.
const AVOID_MAX: Duration = Duration::from_secs(30);
/// First-byte times that are kept of a node.
const SAMPLES: usize = 32;
/// Fewer say nothing about what is unusual.
const SAMPLES_MIN: usize = 8;
/// A new measurement counts for one part in this many.
const SMOOTHING: u32 = 8;

/// How a node has been doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Failures since the node last answered: not reached, too slow, broke off, lied.
    pub failures_in_a_row: u32,
    /// For how long others are asked before it.
    pub avoided_for: Duration,
    /// For how long it asked to be left alone.
    pub busy_for: Duration,
    /// From a request for bytes to the head of its answer, smoothed.
    pub first_byte: Option<Duration>,
    /// The time that 19 of 20 of its recent first bytes kept to, once there are 8 of them.
    pub first_byte_p95: Option<Duration>,
    /// Bytes per second of its bodies while they were waited for, smoothed.
    pub bytes_per_sec: Option<u64>,
}

impl Health {
    /// Whether others should be asked first.
    pub(crate) fn is_ready(&self) -> bool {
        self.avoided_for.is_zero() && self.busy_for.is_zero()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures_in_a_row: u32,
    failed_at: Option<Instant>,
    avoided_until: Option<Instant>,
    busy_until: Option<Instant>,
    first_byte: Option<Duration>,
    bytes_per_sec: Option<u64>,
    /// The last first-byte times, in a ring.
    samples: [Duration; SAMPLES],
    sample_count: usize,
}

impl Record {
    fn answered(&mut self) {
        self.failures_in_a_row = 0;
        self.avoided_until = None;
    }

    /// Failures within a moment count once: all who waited for one dial fail with it.
    fn failed(&mut self, now: Instant) {
        if self.failed_at.is_some_and(|at| now < at + AVOID_MIN) && self.failures_in_a_row > 0 {
            return;
        }
        self.failed_at = Some(now);
        let doublings = self.failures_in_a_row.min(16);
        let avoid = AVOID_MIN.saturating_mul(1 << doublings).min(AVOID_MAX);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.avoided_until = Some(now + avoid);
    }

    fn first_byte(&mut self, took: Duration) {
        self.first_byte =
            Some(self.first_byte.map_or(took, |old| (old * (SMOOTHING - 1) + took) / SMOOTHING));
        self.samples[self.sample_count % SAMPLES] = took;
        self.sample_count += 1;
    }

    fn delivered(&mut self, bytes_per_sec: u64) {
        let (old_weight, all) = (u128::from(SMOOTHING - 1), u128::from(SMOOTHING));
        self.bytes_per_sec = Some(self.bytes_per_sec.map_or(bytes_per_sec, |old| {
            let sum = u128::from(old) * old_weight + u128::from(bytes_per_sec);
            u64::try_from(sum / all).unwrap_or(u64::MAX)
        }));
    }

    fn p95(&self) -> Option<Duration> {
        let count = self.sample_count.min(SAMPLES);
        let mut recent = self.samples;
        let recent = &mut recent[..count];
        recent.sort_unstable();
        (count >= SAMPLES_MIN).then(|| recent[(count * 95).div_ceil(100) - 1])
    }

    fn at(&self, now: Instant) -> Health {
        let left = |until: Option<Instant>| {
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
        };
        Health {
            failures_in_a_row: self.failures_in_a_row,
            avoided_for: left(self.avoided_until),
            busy_for: left(self.busy_until),
            first_byte: self.first_byte,
            first_byte_p95: self.p95(),
            bytes_per_sec: self.bytes_per_sec,
        }
    }
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<NodeId, Record>,
    old: HashMap<NodeId, Record>,
}

/// The health of the nodes used most recently.
#[derive(Debug)]
pub(crate) struct Nodes {
    generation_max: usize,
    generations: Mutex<Generations>,
}

impl Nodes {
    /// Remembers `nodes_max` nodes at most.
    pub(crate) fn new(nodes_max: usize) -> Self {
        Self { generation_max: nodes_max.div_ceil(2), generations: Mutex::default() }
    }

    pub(crate) fn health(&self, node: NodeId, now: Instant) -> Health {
        let generations = self.generations.lock();
        let record = generations.young.get(&node).or_else(|| generations.old.get(&node));
        record.map(|record| record.at(now)).unwrap_or_default()
    }

    /// It answered; `first_byte` is how long that took, if it was asked for bytes.
    pub(crate) fn answered(&self, node: NodeId, first_byte: Option<Duration>) {
        self.change(node, |record| {
            record.answered();
            if let Some(took) = first_byte {
                record.first_byte(took);
            }
        });
    }

    pub(crate) fn failed(&self, node: NodeId, now: Instant) {
        self.change(node, |record| record.failed(now));
    }

    pub(crate) fn busy(&self, node: NodeId, until: Instant) {
        self.change(node, |record| record.busy_until = Some(until));
    }

    /// `bytes` of a body came while `waited` was spent on them.
    pub(crate) fn delivered(&self, node: NodeId, bytes: u64, waited: Duration) {
        let nanos = waited.as_nanos().max(1);
        let rate = u128::from(bytes) * 1_000_000_000 / nanos;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.change(node, |record| record.delivered(rate));
    }

    fn change(&self, node: NodeId, change: impl FnOnce(&mut Record)) {
        let mut generations = self.generations.lock();
        let Generations { young, old } = &mut *generations;
        let mut forgotten = HashMap::new();
        if !young.contains_key(&node) {
            let known = old.remove(&node).unwrap_or_default();
            if young.len() >= self.generation_max {
                forgotten = std::mem::replace(old, std::mem::take(young));
            }
            young.insert(node, known);
        }
        if let Some(record) = young.get_mut(&node) {
            change(record);
        }
        drop(generations);
        drop(forgotten);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supernode_protocol::ids::NodeId;
    use tokio::time::Instant;

    use super::{AVOID_MAX, AVOID_MIN, Nodes};

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn a_node_that_fails_is_avoided_for_longer_each_time_until_it_answers() {
        let (nodes, mut now) = (Nodes::new(10), Instant::now());
        assert!(nodes.health(node(1), now).is_ready());
        for expected in [AVOID_MIN, AVOID_MIN * 2, AVOID_MIN * 4] {
            now += AVOID_MIN;
            nodes.failed(node(1), now);
            nodes.failed(node(1), now + AVOID_MIN / 2);
            assert_eq!(nodes.health(node(1), now).avoided_for, expected, "counted once");
        }
        assert!(nodes.health(node(1), now + AVOID_MIN * 4).is_ready(), "time heals");
        for _ in 0..100 {
            now += AVOID_MIN;
            nodes.failed(node(1), now);
        }
        assert_eq!(nodes.health(node(1), now).avoided_for, AVOID_MAX);
        assert_eq!(nodes.health(node(1), now).failures_in_a_row, 103);
        nodes.answered(node(1), None);
        assert!(nodes.health(node(1), now).is_ready());
        nodes.busy(node(1), now + AVOID_MIN);
        assert_eq!(nodes.health(node(1), now).busy_for, AVOID_MIN);
        assert!(!nodes.health(node(1), now).is_ready());
    }

    #[test]
    fn what_is_late_is_told_from_the_last_samples() {
        let (nodes, now) = (Nodes::new(10), Instant::now());
        let millis = Duration::from_millis;
        for sample in 1..=7 {
            nodes.answered(node(1), Some(millis(sample)));
            assert_eq!(nodes.health(node(1), now).first_byte_p95, None);
        }
        for sample in 8..=100 {
            nodes.answered(node(1), Some(millis(sample)));
        }
        // The last 32 are 69 to 100; the 31st of them has 19 of 20 below it.
        assert_eq!(nodes.health(node(1), now).first_byte_p95, Some(millis(99)));
        let smooth = nodes.health(node(1), now).first_byte.expect("measured");
        assert!((millis(80)..millis(100)).contains(&smooth), "{smooth:?}");
    }

    #[test]
    fn rates_are_smoothed_and_survive_any_number() {
        let (nodes, now) = (Nodes::new(10), Instant::now());
        nodes.delivered(node(1), 1000, Duration::from_secs(1));
        assert_eq!(nodes.health(node(1), now).bytes_per_sec, Some(1000));
        nodes.delivered(node(1), 9000, Duration::from_secs(1));
        assert_eq!(nodes.health(node(1), now).bytes_per_sec, Some(2000));
        nodes.delivered(node(1), u64::MAX, Duration::ZERO);
        assert!(nodes.health(node(1), now).bytes_per_sec > Some(1 << 60));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_whom_it_hears_of() {
        let (nodes, now) = (Nodes::new(4), Instant::now());
        nodes.failed(node(0), now);
        for number in 1..100 {
            nodes.failed(node(number), now);
            nodes.answered(node(0), Some(Duration::from_millis(1)));
            let generations = nodes.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= 4);
        }
        assert_eq!(nodes.health(node(0), now).first_byte, Some(Duration::from_millis(1)));
        assert_eq!(nodes.health(node(1), now).failures_in_a_row, 0, "forgotten");
    }
}
