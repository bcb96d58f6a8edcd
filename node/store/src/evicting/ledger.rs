// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: what the cache holds, and what comes and goes right now. Decides who is let in.
//!
//! Three sums stay within the bounds together: entries, which the policy may evict; what is being
//! put, which nobody may; and what is leaving, which is on disk until its end is acknowledged.

use std::collections::HashSet;

use supernode_protocol::ids::ShardId;

use super::s3_fifo::S3Fifo;

/// A shard and its length.
pub(super) type Weighed = (ShardId, u32);

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    policy: S3Fifo<ShardId>,
    coming: Moving,
    leaving: Moving,
    bytes_max: u64,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Moving {
    shards: HashSet<ShardId>,
    bytes: u64,
}

/// What is to be done so that a shard can be put.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admit {
    /// Nothing: it is here.
    Known,
    /// Put it; its room is taken.
    Put,
    /// These have to go first. Ask again then.
    Evict(Vec<Weighed>),
    /// Others come or go. Ask again after a change.
    Wait,
}

/// What is to be done so that a shard goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Nothing: it is not here.
    Absent,
    /// It goes.
    Leave(Weighed),
    /// It comes or goes. Ask again after a change.
    Wait,
}

impl Ledger {
    /// Nothing, within bounds.
    pub(super) fn new(bytes_max: u64, entries_max: usize) -> Self {
        let (coming, leaving) = (Moving::default(), Moving::default());
        Self { policy: S3Fifo::new(), coming, leaving, bytes_max, entries_max }
    }

    /// Bytes and number of the entries, also of those that are leaving.
    pub(super) fn held(&self) -> (u64, u64) {
        let entries = self.policy.len() + self.leaving.shards.len();
        (self.policy.bytes() + self.leaving.bytes, entries as u64)
    }

    /// Bytes that could be evicted.
    pub(super) fn evictable_bytes(&self) -> u64 {
        self.policy.bytes()
    }

    /// Whether a shard is here; one that is gets a hit.
    pub(super) fn visit(&mut self, shard: &ShardId) -> bool {
        self.policy.visit(shard)
    }

    /// Whether a shard is here, which is no hit.
    pub(super) fn contains(&self, shard: &ShardId) -> bool {
        self.policy.contains(shard)
    }

    /// Adds a shard that was here before the start. They come in the order of their age.
    pub(super) fn restore(&mut self, (shard, len): Weighed) {
        self.policy.restore(shard, len);
    }

    /// What to do about a shard that wants in.
    pub(super) fn admit(&mut self, (shard, len): Weighed) -> Admit {
        if self.policy.contains(&shard) {
            return Admit::Known;
        }
        if self.coming.shards.contains(&shard) || self.leaving.shards.contains(&shard) {
            return Admit::Wait;
        }
        let victims = self.make_room(u64::from(len), 1);
        if !victims.is_empty() {
            return Admit::Evict(victims);
        }
        if !self.fits(self.leaving.bytes + u64::from(len), self.leaving.shards.len() + 1) {
            return Admit::Wait;
        }
        self.coming.add((shard, len));
        Admit::Put
    }

    /// What has to go so that the bounds hold.
    pub(super) fn surplus(&mut self) -> Vec<Weighed> {
        self.make_room(0, 0)
    }

    /// Entries of so many bytes, or all there are.
    pub(super) fn evict_bytes(&mut self, bytes: u64) -> Vec<Weighed> {
        let (mut victims, mut evicted) = (Vec::new(), 0);
        while evicted < bytes
            && let Some((shard, len)) = self.evict()
        {
            evicted += u64::from(len);
            victims.push((shard, len));
        }
        victims
    }

    /// What to do about a shard that shall go.
    pub(super) fn take(&mut self, shard: ShardId) -> Take {
        if self.coming.shards.contains(&shard) || self.leaving.shards.contains(&shard) {
            return Take::Wait;
        }
        let Some(len) = self.policy.remove(&shard) else { return Take::Absent };
        self.leaving.add((shard, len));
        Take::Leave((shard, len))
    }

    /// How a put ended.
    pub(super) fn came(&mut self, (shard, len): Weighed, is_kept: bool) {
        self.coming.remove((shard, len));
        if is_kept {
            self.policy.push(shard, len);
        }
    }

    /// How an eviction ended. What could not be released is still here.
    pub(super) fn left(&mut self, (shard, len): Weighed, is_gone: bool) {
        self.leaving.remove((shard, len));
        if !is_gone {
            self.policy.restore(shard, len);
        }
    }

    /// Evicts until there is room beside what is coming.
    fn make_room(&mut self, bytes: u64, entries: usize) -> Vec<Weighed> {
        let mut victims = Vec::new();
        while !self.fits(bytes, entries)
            && let Some(victim) = self.evict()
        {
            victims.push(victim);
        }
        victims
    }

    fn fits(&self, bytes: u64, entries: usize) -> bool {
        let (coming, count) = (self.coming.bytes, self.coming.shards.len());
        self.policy.bytes() + coming + bytes <= self.bytes_max
            && self.policy.len() + count + entries <= self.entries_max
    }

    fn evict(&mut self) -> Option<Weighed> {
        let victim = self.policy.evict()?;
        self.leaving.add(victim);
        Some(victim)
    }
}

impl Moving {
    fn add(&mut self, (shard, len): Weighed) {
        self.shards.insert(shard);
        self.bytes += u64::from(len);
    }

    fn remove(&mut self, (shard, len): Weighed) {
        self.shards.remove(&shard);
        self.bytes -= u64::from(len);
    }
}

#[cfg(test)]
mod tests {
    use supernode_protocol::ids::ShardId;

    use super::{Admit, Ledger, Take};

    fn shard(number: u8) -> ShardId {
        ShardId::from_bytes([number; 32])
    }

    #[test]
    fn what_leaves_and_what_comes_takes_room() {
        let mut ledger = Ledger::new(100, 10);
        for number in 0..10 {
            assert_eq!(ledger.admit((shard(number), 10)), Admit::Put);
        }
        assert_eq!(ledger.admit((shard(10), 10)), Admit::Wait, "all of it is being put");
        assert_eq!(ledger.admit((shard(0), 10)), Admit::Wait, "it is being put");
        (0..10).for_each(|number| ledger.came((shard(number), 10), true));
        assert_eq!(ledger.admit((shard(0), 10)), Admit::Known);
        let victim = (shard(0), 10);
        assert_eq!(ledger.admit((shard(10), 5)), Admit::Evict(vec![victim]));
        assert_eq!(ledger.admit((shard(10), 5)), Admit::Wait, "the room is not free yet");
        assert_eq!(ledger.admit(victim), Admit::Wait, "it is leaving");
        assert_eq!(ledger.take(victim.0), Take::Wait);
        assert_eq!(ledger.held(), (100, 10));
        ledger.left(victim, true);
        assert_eq!(ledger.admit((shard(10), 5)), Admit::Put);
        ledger.came((shard(10), 5), false);
        assert_eq!(ledger.held(), (90, 9));
        assert_eq!(ledger.take(shard(1)), Take::Leave((shard(1), 10)));
        ledger.left((shard(1), 10), false);
        assert_eq!(ledger.held(), (90, 9), "what could not be released is still here");
        assert_eq!(ledger.take(victim.0), Take::Absent);
    }

    #[test]
    fn entries_are_bounded_too() {
        let mut ledger = Ledger::new(100, 2);
        for number in 0..2 {
            assert_eq!(ledger.admit((shard(number), 1)), Admit::Put);
            ledger.came((shard(number), 1), true);
        }
        assert_eq!(ledger.admit((shard(2), 1)), Admit::Evict(vec![(shard(0), 1)]));
        ledger.left((shard(0), 1), true);
        assert_eq!(ledger.admit((shard(2), 1)), Admit::Put);
    }

    #[test]
    fn bounds_that_were_lowered_say_what_goes() {
        let mut ledger = Ledger::new(25, 10);
        (0..5).for_each(|number| ledger.restore((shard(number), 10)));
        let oldest = (0..3).map(|number| (shard(number), 10));
        assert_eq!(ledger.surplus(), oldest.collect::<Vec<_>>());
        assert_eq!(ledger.evict_bytes(1), [(shard(3), 10)]);
        assert_eq!(ledger.evictable_bytes(), 10);
    }
}
