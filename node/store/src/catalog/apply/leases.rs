// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of leases: opened by a commit, moved, ended. Each clock has its own queue; a lease
//! without a clock is in none.

use supernode_protocol::ids::{Cid, LeaseId};
use supernode_protocol::lease::{Expiry, LeaseKind, LeaseTerms};

use super::Change;
use crate::catalog::entries::{GroupEntry, LeaseState, encode};
use crate::catalog::query::PAGE;
use crate::catalog::{Event, GroupEvent, HeldGroup, IndexError, Kv, Tally, keys};
use crate::record::{LeaseTold, Trashed};

impl<K: Kv> Change<'_, K> {
    pub(super) fn cover(
        &mut self,
        terms: &LeaseTerms,
        object: Cid,
        number: u32,
        group: &mut GroupEntry,
    ) -> Result<(), IndexError> {
        let id = terms.lease;
        let mut lease = match self.query().lease(id)? {
            Some(lease) => lease,
            None => self.open_lease(&self.told(terms))?,
        };
        let asked = absolute(terms.expiry, self.entry.running_secs);
        // Once the chain has said when a deal ends, a writer's word counts no more.
        if !lease.is_settled() && is_later(asked, lease.expiry) {
            self.requeue(id, lease.expiry, asked);
            lease.expiry = asked;
        }
        self.extend_cover(id, &mut lease, object, number, group)?;
        self.kv.put(keys::lease(id), encode(&lease));
        Ok(())
    }

    /// Has a lease cover a group, if it does not yet.
    pub(super) fn extend_cover(
        &mut self,
        id: LeaseId,
        lease: &mut LeaseState,
        object: Cid,
        number: u32,
        group: &mut GroupEntry,
    ) -> Result<(), IndexError> {
        if self.kv.get(&keys::cover(object, number, id))?.is_some() {
            return Ok(());
        }
        self.kv.put(keys::cover(object, number, id), Vec::new());
        self.kv.put(keys::lease_group(id, object, number), Vec::new());
        group.lease_count += 1;
        lease.group_count += 1;
        lease.slots.count += u64::from(group.slot_count);
        lease.slots.bytes += group.slot_bytes;
        self.usage.leases_of_kind_mut(lease.kind).bytes += group.slot_bytes;
        Ok(())
    }

    /// Adds slots that are new in a group to the leases that cover it already.
    pub(super) fn grow_leases(
        &mut self,
        object: Cid,
        number: u32,
        added: Tally,
    ) -> Result<(), IndexError> {
        for id in self.query().leases_of_group(object, number)? {
            let Some(mut lease) = self.query().lease(id)? else { continue };
            lease.slots.count += added.count;
            lease.slots.bytes += added.bytes;
            self.usage.leases_of_kind_mut(lease.kind).bytes += added.bytes;
            self.kv.put(keys::lease(id), encode(&lease));
        }
        Ok(())
    }

    /// A lease as its first commit has it.
    fn told(&self, terms: &LeaseTerms) -> LeaseTold {
        let LeaseTerms { lease, owner, kind, .. } = *terms;
        let created_secs = self.entry.running_secs;
        let expiry = absolute(terms.expiry, created_secs);
        LeaseTold { lease, owner, kind, expiry, created_secs, moved: false }
    }

    pub(super) fn open_lease(&mut self, told: &LeaseTold) -> Result<LeaseState, IndexError> {
        let LeaseTold { lease, owner, kind, expiry, created_secs, moved } = *told;
        if let Some(queued) = queue_key(lease, expiry) {
            self.kv.put(queued, Vec::new());
        }
        if kind == LeaseKind::Deal {
            self.kv.put(keys::deal(lease), Vec::new());
        }
        self.kv.put(keys::owner_lease(owner, lease), Vec::new());
        self.usage.leases_of_kind_mut(kind).count += 1;
        let begun = self.entry.at.segment;
        self.anchor(begun)?;
        let (group_count, slots) = (0, Tally::default());
        Ok(LeaseState { owner, kind, expiry, created_secs, group_count, slots, moved, begun })
    }

    pub(super) fn requeue(&mut self, lease: LeaseId, old: Expiry, new: Expiry) {
        if let Some(queued) = queue_key(lease, old) {
            self.kv.delete(queued);
        }
        if let Some(queued) = queue_key(lease, new) {
            self.kv.put(queued, Vec::new());
        }
    }

    pub(super) fn renew(&mut self, id: LeaseId, expiry: Expiry) -> Result<(), IndexError> {
        let Some(mut lease) = self.query().lease(id)? else { return Ok(()) };
        let expiry = absolute(expiry, self.entry.running_secs);
        self.requeue(id, lease.expiry, expiry);
        (lease.expiry, lease.moved) = (expiry, true);
        self.kv.put(keys::lease(id), encode(&lease));
        Ok(())
    }

    pub(super) fn end_lease(&mut self, id: LeaseId) -> Result<(), IndexError> {
        let Some(lease) = self.query().lease(id)? else { return Ok(()) };
        loop {
            let groups = self.query().lease_groups(id, None, PAGE)?;
            if groups.is_empty() {
                break;
            }
            for (object, number) in groups {
                self.uncover(id, lease.kind, object, number)?;
            }
        }
        if let Some(queued) = queue_key(id, lease.expiry) {
            self.kv.delete(queued);
        }
        if lease.kind == LeaseKind::Deal {
            self.kv.delete(keys::deal(id));
        }
        self.kv.delete(keys::owner_lease(lease.owner, id));
        self.kv.delete(keys::lease(id));
        self.usage.leases_of_kind_mut(lease.kind).count -= 1;
        self.release_anchor(lease.begun)
    }

    fn uncover(
        &mut self,
        id: LeaseId,
        kind: LeaseKind,
        object: Cid,
        number: u32,
    ) -> Result<(), IndexError> {
        self.kv.delete(keys::cover(object, number, id));
        self.kv.delete(keys::lease_group(id, object, number));
        let Some(mut group) = self.query().group(object, number)? else { return Ok(()) };
        let usage = self.usage.leases_of_kind_mut(kind);
        usage.bytes = usage.bytes.saturating_sub(group.slot_bytes);
        group.lease_count = group.lease_count.saturating_sub(1);
        if group.lease_count > 0 {
            self.kv.put(keys::group(object, number), encode(&group));
            return Ok(());
        }
        let held = HeldGroup { object, group: number, page: group.page };
        self.events.push(Event::Group(GroupEvent::Released(held)));
        let trashed = Trashed { secs: self.entry.running_secs, evicted: kind == LeaseKind::Cache };
        self.trash(object, number, group, trashed)
    }
}

/// Where a lease with this end waits for it.
fn queue_key(lease: LeaseId, expiry: Expiry) -> Option<Vec<u8>> {
    match expiry {
        Expiry::RunningSeconds(secs) => Some(keys::queue_lease(secs, lease)),
        Expiry::FinalisedHeight(height) => Some(keys::queue_deal(height, lease)),
        Expiry::Never => None,
    }
}

fn absolute(expiry: Expiry, now: u64) -> Expiry {
    match expiry {
        Expiry::RunningSeconds(secs) => Expiry::RunningSeconds(now.saturating_add(secs)),
        other => other,
    }
}

fn is_later(a: Expiry, b: Expiry) -> bool {
    match (a, b) {
        (Expiry::RunningSeconds(a), Expiry::RunningSeconds(b))
        | (Expiry::FinalisedHeight(a), Expiry::FinalisedHeight(b)) => a > b,
        _ => false,
    }
}
