// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the shards of one get take to come, and so when one of them is late.
//!
//! Who is late is not given up: something else that serves as well is fetched beside it, and the
//! first to come is taken. Late is what takes half as long again as 19 of 20 did lately, so that a
//! healthy network is hardly ever asked for more than it has to send. Before enough is known, slow
//! links get the time that they need. A node that was late is asked after all others until it
//! delivers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use supernode_protocol::ids::NodeId;

/// Times that are kept.
const SAMPLES: usize = 64;
/// Fewer say nothing about what is unusual.
const SAMPLES_MIN: usize = 8;
/// How long a fetch may take when nothing is known about how long it usually does, and how fast it
/// has to be beyond that.
const UNKNOWN: Duration = Duration::from_millis(500);
const UNKNOWN_BYTES_PER_SEC: u32 = 1 << 20;
/// Nothing is late before.
const PATIENCE_MIN: Duration = Duration::from_millis(50);

/// What is fetched; the two have little to do with each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    /// A whole shard.
    Whole,
    /// Some bytes of one.
    Part,
}

/// Recent times, in a ring.
#[derive(Debug, Default)]
struct Times {
    recent: Vec<Duration>,
    next: usize,
}

impl Times {
    fn note(&mut self, took: Duration) {
        if self.recent.len() < SAMPLES {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
            self.next = (self.next + 1) % SAMPLES;
        }
    }

    fn patience(&self, len: u64) -> Duration {
        if self.recent.len() < SAMPLES_MIN {
            return UNKNOWN + Duration::from_secs(len) / UNKNOWN_BYTES_PER_SEC;
        }
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let p95 = sorted[(sorted.len() * 95).div_ceil(100) - 1];
        (p95 * 3 / 2).max(PATIENCE_MIN)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    wholes: Mutex<Times>,
    parts: Mutex<Times>,
    late: Mutex<HashSet<NodeId>>,
    hedges: AtomicU64,
}

impl Pace {
    fn of(&self, size: Size) -> &Mutex<Times> {
        match size {
            Size::Whole => &self.wholes,
            Size::Part => &self.parts,
        }
    }

    /// A fetch has come to its good end.
    pub(super) fn delivered(&self, node: NodeId, size: Size, took: Duration) {
        self.late.lock().remove(&node);
        self.of(size).lock().note(took);
    }

    /// How long a fetch of so many bytes may take before it is late.
    pub(super) fn patience(&self, size: Size, len: u64) -> Duration {
        self.of(size).lock().patience(len)
    }

    /// A node has taken longer than that.
    pub(super) fn is_late(&self, node: NodeId) {
        self.late.lock().insert(node);
    }

    /// Whether a node was late and has not delivered since.
    pub(super) fn was_late(&self, node: NodeId) -> bool {
        self.late.lock().contains(&node)
    }

    /// Something was fetched because something else is late.
    pub(super) fn count_hedge(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(super) fn hedges(&self) -> u64 {
        self.hedges.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supernode_protocol::ids::NodeId;

    use super::{PATIENCE_MIN, Pace, SAMPLES, SAMPLES_MIN, Size, UNKNOWN};

    const MILLI: Duration = Duration::from_millis(1);
    const NODE: NodeId = NodeId::from_bytes([1; 32]);

    #[test]
    fn late_is_what_takes_half_as_long_again_as_others_did_lately() {
        let pace = Pace::default();
        let took = |size, took| pace.delivered(NODE, size, took);
        (1..SAMPLES_MIN).for_each(|_| took(Size::Whole, 300 * MILLI));
        assert_eq!(pace.patience(Size::Whole, 0), UNKNOWN, "too few to tell");
        let slow = pace.patience(Size::Whole, 7 << 20);
        assert_eq!(slow, UNKNOWN + 7000 * MILLI, "a slow link is not late");
        took(Size::Whole, 300 * MILLI);
        assert_eq!(pace.patience(Size::Whole, 7 << 20), 450 * MILLI);
        assert_eq!(pace.patience(Size::Part, 0), UNKNOWN, "of these nothing is known");

        // Three of 64 are no rule, four are.
        (0..SAMPLES - 3).for_each(|_| took(Size::Whole, 100 * MILLI));
        (0..3).for_each(|_| took(Size::Whole, 900 * MILLI));
        assert_eq!(pace.patience(Size::Whole, 0), 150 * MILLI);
        took(Size::Whole, 900 * MILLI);
        assert_eq!(pace.patience(Size::Whole, 0), 1350 * MILLI);

        (0..SAMPLES).for_each(|_| took(Size::Part, MILLI));
        assert_eq!(pace.patience(Size::Part, 1 << 20), PATIENCE_MIN, "nothing is late before");
    }

    #[test]
    fn a_node_is_late_until_it_delivers() {
        let pace = Pace::default();
        assert!(!pace.was_late(NODE));
        pace.is_late(NODE);
        assert!(pace.was_late(NODE));
        pace.delivered(NODE, Size::Part, MILLI);
        assert!(!pace.was_late(NODE));
    }
}
