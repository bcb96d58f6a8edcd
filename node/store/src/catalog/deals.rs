// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deal leases: what the chain's clock ends. Two ways in: all of them by lease, and those that are
//! due by finalised height, so that a sweep costs what is due and not what is kept.

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_protocol::limits::PAGE_EXTENTS_MAX;

use super::entries::malformed;
use super::keys::{self, KeyParts, prefix_end};
use super::query::PAGE;
use super::{Catalog, IndexError, KvRead, Thing};

/// A deal lease and what it covers here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DealLease {
    /// The lease; deal and lease id follow from each other.
    pub lease: LeaseId,
    /// Who opened it.
    pub owner: NodeId,
    /// The finalised height it ends at.
    pub height: u64,
    /// Whether that height is the chain's word; before, it is the writer's.
    pub settled: bool,
    /// The object it covers; a deal pays for one.
    pub object: Option<Cid>,
    /// Groups of it; one that lies on several disks counts on each.
    pub group_count: u32,
    /// Slots that are here of them.
    pub slots: u64,
    /// Bytes of these, each slot counted.
    pub bytes: u64,
}

/// A slot of a deal that is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealSlot {
    /// The object's group.
    pub group: u32,
    /// The shard in it.
    pub shard: ShardId,
    /// Its length.
    pub shard_len: u64,
}

impl<K: KvRead + ?Sized> Catalog<'_, K> {
    /// Deal leases in order, after `after`.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn deals(
        &self,
        after: Option<LeaseId>,
        limit: usize,
    ) -> Result<Vec<DealLease>, IndexError> {
        let start = after.map_or(vec![keys::DEAL], |lease| keys::after(&keys::deal(lease)));
        let pairs = self.0.range(&start, &prefix_end(&[keys::DEAL]), limit)?;
        let lease = |key: &[u8]| KeyParts::after(key, 1).lease().ok_or_else(|| malformed(key));
        let leases = pairs.iter().map(|(key, _)| lease(key));
        self.described(leases)
    }

    /// Deal leases that end at `height` or before, in the order of `(end, lease)`, after one such
    /// pair.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn deals_due(
        &self,
        height: u64,
        after: Option<(u64, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<DealLease>, IndexError> {
        let (first, end) = keys::queue_until(keys::QUEUE_DEAL, height);
        let start = after.map_or(first, |(end, lease)| keys::after(&keys::queue_deal(end, lease)));
        // Whoever goes on after the last that is due asks for nothing.
        let pairs = if start < end { self.0.range(&start, &end, limit)? } else { Vec::new() };
        let lease = |key: &[u8]| KeyParts::after(key, 2 + 8).lease().ok_or_else(|| malformed(key));
        self.described(pairs.iter().map(|(key, _)| lease(key)))
    }

    /// Groups of an object that a lease covers here, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn leased_groups(&self, lease: LeaseId, object: Cid) -> Result<Vec<u32>, IndexError> {
        let mut start = keys::lease_group(lease, object, 0);
        let prefix = start[..start.len() - size_of::<u32>()].to_vec();
        let end = prefix_end(&prefix);
        let mut groups = Vec::new();
        loop {
            let pairs = self.0.range(&start, &end, PAGE)?;
            let Some((last, _)) = pairs.last() else { return Ok(groups) };
            start = keys::after(last);
            for (key, _) in &pairs {
                let group = KeyParts::after(key, prefix.len()).u32();
                groups.push(group.ok_or_else(|| malformed(key))?);
            }
        }
    }

    fn described(
        &self,
        leases: impl Iterator<Item = Result<LeaseId, IndexError>>,
    ) -> Result<Vec<DealLease>, IndexError> {
        let mut deals = Vec::new();
        for lease in leases {
            deals.extend(self.deal(lease?)?);
        }
        Ok(deals)
    }

    /// One deal lease.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn deal(&self, lease: LeaseId) -> Result<Option<DealLease>, IndexError> {
        let state = self.lease(lease)?.filter(|state| state.kind == LeaseKind::Deal);
        let Some(state) = state else { return Ok(None) };
        let Expiry::FinalisedHeight(height) = state.expiry else { return Ok(None) };
        let first = self.lease_groups(lease, None, 1)?.pop();
        Ok(Some(DealLease {
            lease,
            owner: state.owner,
            height,
            settled: state.is_settled(),
            object: first.map(|(object, _)| object),
            group_count: state.group_count,
            slots: state.slots.count,
            bytes: state.slots.bytes,
        }))
    }

    /// What is here of one slot of an object that a lease covers.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn leased_slot(
        &self,
        lease: LeaseId,
        object: Cid,
        slot: Slot,
    ) -> Result<Option<DealSlot>, IndexError> {
        // A page holds a limited number of stripes, so no earlier group can hold this one.
        let first = slot.stripe / u32::try_from(PAGE_EXTENTS_MAX).expect("a small number");
        let mut start = keys::lease_group(lease, object, first);
        let prefix = start[..start.len() - size_of::<u32>()].to_vec();
        let end = prefix_end(&prefix);
        loop {
            let pairs = self.0.range(&start, &end, PAGE)?;
            let Some((last, _)) = pairs.last() else { return Ok(None) };
            start = keys::after(last);
            for (key, _) in &pairs {
                let number = KeyParts::after(key, prefix.len()).u32();
                let number = number.ok_or_else(|| malformed(key))?;
                let Some(group) = self.group(object, number)? else { continue };
                if slot.stripe < group.stripe_first {
                    return Ok(None);
                }
                if slot.stripe - group.stripe_first < group.stripe_count {
                    return self.slot_of_group(object, number, slot);
                }
            }
        }
    }

    fn slot_of_group(
        &self,
        object: Cid,
        group: u32,
        slot: Slot,
    ) -> Result<Option<DealSlot>, IndexError> {
        let key = keys::group_slot(object, group, slot);
        let Some(value) = self.0.get(&key)? else { return Ok(None) };
        let shard = ShardId::from_slice(&value).ok_or_else(|| malformed(&key))?;
        let kept = self.kept(Thing::Shard(shard))?;
        Ok(kept.map(|kept| DealSlot { group, shard, shard_len: kept.len }))
    }
}
