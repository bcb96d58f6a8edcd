// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: one answer made of several disks' answers.
//!
//! Listings go on behind a cursor. Each disk gives its first `limit` entries behind it, in order;
//! so the first `limit` of all of them together are among those.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use supernode_protocol::ids::Cid;
use supernode_protocol::lease::Expiry;
use supernode_protocol::placement::precedence;
use supernode_protocol::wire::LeaseEntry;

use super::Announcement;
use crate::catalog::{ByState, DealLease, LeaseUsage, Tally, Usage};
use crate::metrics::{IoFigures, StoreMetrics};
use crate::scrub::{ScrubState, ScrubStatus};

/// The first `limit` of several listings by key; what has one key is made one.
fn listing<K: Ord, T>(
    parts: Vec<Vec<T>>,
    limit: usize,
    key: impl Fn(&T) -> K,
    join: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut merged: BTreeMap<K, T> = BTreeMap::new();
    for entry in parts.into_iter().flatten() {
        let key = key(&entry);
        let entry = match merged.remove(&key) {
            Some(other) => join(other, entry),
            None => entry,
        };
        merged.insert(key, entry);
    }
    merged.into_values().take(limit).collect()
}

/// Groups that leases cover, in `(lease, object, group)` order.
pub(super) fn leases(parts: Vec<Vec<LeaseEntry>>, limit: usize) -> Vec<LeaseEntry> {
    let remaining = |entry: &LeaseEntry| match entry.remaining {
        Expiry::RunningSeconds(end) | Expiry::FinalisedHeight(end) => end,
        Expiry::Never => u64::MAX,
    };
    // What is promised is what holds on every disk.
    let join = |a: LeaseEntry, b: LeaseEntry| if remaining(&b) < remaining(&a) { b } else { a };
    listing(parts, limit, |entry| (entry.lease, entry.object, entry.group), join)
}

/// Groups to announce, in `(object, group)` order.
pub(super) fn announcements(parts: Vec<Vec<Announcement>>, limit: usize) -> Vec<Announcement> {
    let join = |a: Announcement, b: Announcement| {
        if precedence(&b.placement, &a.placement).is_gt() { b } else { a }
    };
    listing(parts, limit, |entry: &Announcement| (entry.object, entry.group), join)
}

/// Deals in the order of their leases.
pub(super) fn deals(parts: Vec<Vec<DealLease>>, limit: usize) -> Vec<DealLease> {
    listing(parts, limit, |deal| deal.lease, join_deals)
}

/// Deals in the order of `(end, lease)`. One that disks end differently is listed at each end: it
/// was being moved when a disk or the node stopped, and will be moved again.
pub(super) fn deals_due(parts: Vec<Vec<DealLease>>, limit: usize) -> Vec<DealLease> {
    listing(parts, limit, |deal| (deal.height, deal.lease), join_deals)
}

/// One deal of what several disks have of it. It is settled once it is so everywhere. Groups count
/// on each disk that has a part of them, and what is being moved, and so is on two disks, counts
/// twice.
fn join_deals(a: DealLease, b: DealLease) -> DealLease {
    let (slots, bytes) = (a.slots + b.slots, a.bytes + b.bytes);
    let group_count = a.group_count.saturating_add(b.group_count);
    let object: Option<Cid> = a.object.or(b.object);
    let open = |deal: &DealLease| (Reverse(deal.settled), deal.height);
    let leading = if open(&b) > open(&a) { b } else { a };
    DealLease { object, group_count, slots, bytes, ..leading }
}

/// One deal.
pub(super) fn deal(parts: Vec<Option<DealLease>>) -> Option<DealLease> {
    parts.into_iter().flatten().reduce(join_deals)
}

/// Sums; an exhaustive pattern, so that no figure is forgotten.
pub(super) fn usage(total: Usage, part: &Usage) -> Usage {
    let Usage {
        shards,
        blocks,
        live_slots,
        trash_slots,
        upload_slots,
        live_groups,
        trash_groups,
        tombstones,
        leases,
        records,
        log_bytes,
        needed_bytes,
        returned_bytes,
        punchable_bytes,
    } = part;
    let mut kinds = total.leases;
    for (kind, LeaseUsage { count, bytes }) in kinds.iter_mut().zip(leases) {
        kind.count += count;
        kind.bytes += bytes;
    }
    Usage {
        shards: by_state(total.shards, shards),
        blocks: by_state(total.blocks, blocks),
        live_slots: total.live_slots + live_slots,
        trash_slots: total.trash_slots + trash_slots,
        upload_slots: total.upload_slots + upload_slots,
        live_groups: total.live_groups + live_groups,
        trash_groups: total.trash_groups + trash_groups,
        tombstones: total.tombstones + tombstones,
        leases: kinds,
        records: total.records + records,
        log_bytes: total.log_bytes + log_bytes,
        needed_bytes: total.needed_bytes + needed_bytes,
        returned_bytes: total.returned_bytes + returned_bytes,
        punchable_bytes: total.punchable_bytes + punchable_bytes,
    }
}

fn by_state(total: ByState, part: &ByState) -> ByState {
    let sum = |a: Tally, b: Tally| Tally { count: a.count + b.count, bytes: a.bytes + b.bytes };
    ByState {
        live: sum(total.live, part.live),
        trash: sum(total.trash, part.trash),
        dead: sum(total.dead, part.dead),
    }
}

/// Sums of what is counted on each disk. What the disks share, and the list of them, is kept.
pub(super) fn metrics(total: StoreMetrics, part: StoreMetrics) -> StoreMetrics {
    let mut index_rebuilds = total.index_rebuilds;
    for (reason, times) in part.index_rebuilds {
        *index_rebuilds.entry(reason).or_default() += times;
    }
    StoreMetrics {
        usage: usage(total.usage, &part.usage),
        capacity_bytes: total.capacity_bytes.saturating_add(part.capacity_bytes),
        free_bytes: total.free_bytes.saturating_add(part.free_bytes),
        read: figures(total.read, part.read),
        write: figures(total.write, part.write),
        sync: figures(total.sync, part.sync),
        mailbox_depth: total.mailbox_depth + part.mailbox_depth,
        batches: total.batches + part.batches,
        batch_records: total.batch_records + part.batch_records,
        batch_bytes: total.batch_bytes + part.batch_bytes,
        index_rebuilds,
        index_pending: total.index_pending + part.index_pending,
        damaged: total.damaged + part.damaged,
        quarantined: total.quarantined + part.quarantined,
        reclaimed_bytes: total.reclaimed_bytes + part.reclaimed_bytes,
        reclaimed_segments: total.reclaimed_segments + part.reclaimed_segments,
        compacted_bytes: total.compacted_bytes + part.compacted_bytes,
        damaged_ranges: total.damaged_ranges + part.damaged_ranges,
        running_secs: total.running_secs.max(part.running_secs),
        ..total
    }
}

fn figures(a: IoFigures, b: IoFigures) -> IoFigures {
    IoFigures { ios: a.ios + b.ios, bytes: a.bytes + b.bytes, errors: a.errors + b.errors }
}

/// One scrub of several. It has made a whole pass when each of them has.
pub(super) fn scrub(parts: impl Iterator<Item = ScrubStatus>) -> ScrubStatus {
    parts
        .reduce(|a, b| ScrubStatus {
            state: match (a.state, b.state) {
                (ScrubState::Running, _) | (_, ScrubState::Running) => ScrubState::Running,
                (ScrubState::Paused, _) | (_, ScrubState::Paused) => ScrubState::Paused,
                (ScrubState::Waiting, ScrubState::Waiting) => ScrubState::Waiting,
            },
            started_secs: a.started_secs.min(b.started_secs),
            finished_secs: a.finished_secs.min(b.finished_secs),
            passes: a.passes.min(b.passes),
            passed_bytes: a.passed_bytes + b.passed_bytes,
            total_bytes: a.total_bytes + b.total_bytes,
            records: a.records + b.records,
            verified: a.verified + b.verified,
            verified_bytes: a.verified_bytes + b.verified_bytes,
            damaged: a.damaged + b.damaged,
            unreadable: a.unreadable + b.unreadable,
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use supernode_protocol::ids::{Cid, LeaseId, NodeId};

    use super::{deal, deals, deals_due};
    use crate::catalog::DealLease;

    fn a_deal(lease: u8, height: u64, settled: bool) -> DealLease {
        DealLease {
            lease: LeaseId::from_bytes([lease; 16]),
            owner: NodeId::from_bytes([9; 32]),
            height,
            settled,
            object: Some(Cid::of(b"object")),
            group_count: 1,
            slots: 2,
            bytes: 30,
        }
    }

    #[test]
    fn pages_of_several_disks_are_pages_of_their_union() {
        let all: Vec<Vec<u8>> = vec![vec![1, 3, 4, 8, 9], vec![2, 3, 5], vec![], vec![9]];
        let mut listed = Vec::new();
        loop {
            let after = listed.last().copied().unwrap_or(0);
            let page = |disk: &Vec<u8>| {
                let behind = disk.iter().filter(|lease| **lease > after).take(2);
                behind.map(|lease| a_deal(*lease, 5, false)).collect()
            };
            let page = deals(all.iter().map(page).collect(), 2);
            if page.is_empty() {
                break;
            }
            listed.extend(page.iter().map(|deal| deal.lease.as_bytes()[0]));
        }
        assert_eq!(listed, [1, 2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn what_disks_have_of_one_deal_is_summed() {
        let both = deal(vec![Some(a_deal(1, 5, true)), None, Some(a_deal(1, 5, true))]);
        let both = both.expect("two disks have it");
        assert_eq!((both.group_count, both.slots, both.bytes, both.settled), (2, 4, 60, true));
        assert_eq!(deal(vec![None, None]), None);
    }

    #[test]
    fn a_deal_is_settled_where_every_disk_has_heard_the_chain() {
        let (moved, old) = (a_deal(1, 3, true), a_deal(1, 9, false));
        for parts in [[moved.clone(), old.clone()], [old.clone(), moved.clone()]] {
            let one = deal(parts.clone().map(Some).to_vec()).expect("two disks have it");
            assert_eq!((one.height, one.settled), (9, false));
            let due = deals_due(parts.map(|part| vec![part]).to_vec(), 10);
            let ends: Vec<u64> = due.iter().map(|deal| deal.height).collect();
            assert_eq!(ends, [3, 9], "each end is due by itself");
        }
    }
}
