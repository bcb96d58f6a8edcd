// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at what is kept, and ending it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::future::join_all;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_protocol::manifest::{Page, Root};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::wire::{ErrorCode, LeaseEntry};
use tracing::debug;

use crate::locate::Holding;
use crate::network::{Directory, HolderError, Holders, peer};
use crate::{Durability, GetError, Objects};

/// An object as its holders describe it.
#[derive(Debug, Clone)]
pub struct ObjectStat {
    /// Its manifest root.
    pub root: Root,
    /// Group by group, in order.
    pub groups: Vec<GroupStat>,
    /// Losses it survives now, counted from what holders say they hold.
    pub durability: Durability,
}

/// One group: who should hold what, and who says it does.
#[derive(Debug, Clone)]
pub struct GroupStat {
    /// Its number.
    pub group: u32,
    /// Its manifest page.
    pub page: Page,
    /// Slot index to node, as recorded.
    pub placement: Vec<NodeId>,
    /// Slots that are held, by node; nodes that did not answer are absent.
    pub held: BTreeMap<NodeId, Vec<(Slot, ShardId)>>,
    /// Every slot, in order.
    pub slots: Vec<SlotStat>,
    /// Slots that no answering node holds.
    pub missing: Vec<Slot>,
}

/// One slot: what belongs there, and whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStat {
    /// Which.
    pub slot: Slot,
    /// What belongs there.
    pub shard: ShardId,
    /// Who holds it, as recorded; nobody where the record is too short for the stripe.
    pub holder: Option<NodeId>,
    /// Whether it is held.
    pub health: SlotHealth,
}

/// Whether a slot is held, as far as holders say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotHealth {
    /// By the recorded holder.
    Healthy,
    /// By another holder of the group.
    Elsewhere(NodeId),
    /// The recorded holder answers and does not hold it, nor does another.
    Missing,
    /// The recorded holder does not answer, and no other holds it.
    Unknown,
}

/// An object that a lease of the caller keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The object.
    pub cid: Cid,
    /// Its bytes.
    pub size: u64,
    /// The lease.
    pub lease: LeaseId,
    /// Why it is kept.
    pub kind: LeaseKind,
    /// The soonest end any holder named.
    pub remaining: Expiry,
    /// Nodes that keep some of it under this lease.
    pub holders: BTreeSet<NodeId>,
}

/// What became of a release.
#[derive(Debug, Clone, Default)]
pub struct ReleaseReport {
    /// Leases that ended.
    pub leases: BTreeSet<LeaseId>,
    /// Nodes that ended them.
    pub released: BTreeSet<NodeId>,
    /// Nodes that could not be asked or did not agree: their leases end when they expire.
    pub failed: Vec<HolderError>,
}

impl<H: Holders, D: Directory> Objects<H, D> {
    /// Describes an object and asks every holder what it really has.
    ///
    /// # Errors
    /// When the object cannot be found or its manifest cannot be read.
    pub async fn stat(&self, cid: Cid) -> Result<ObjectStat, GetError> {
        let located = self.locate(cid).await?;
        let region_of = self.regions().await;
        let mut stat = ObjectStat {
            groups: Vec::new(),
            durability: Durability::unlimited(),
            root: located.root.clone(),
        };
        for span in located.root.groups() {
            let (page, holding) = self.open_group(cid, &located, &span).await?;
            let holding = holding.as_ref().unwrap_or(&located.first);
            let held = self.ask_held(cid, span.group, holding).await;
            let mut group = GroupStat {
                group: span.group,
                page,
                placement: holding.nodes.clone(),
                held,
                slots: Vec::new(),
                missing: Vec::new(),
            };
            let durability = group.examine(span.stripe_first, &region_of);
            stat.durability = stat.durability.worst(durability);
            stat.groups.push(group);
        }
        Ok(stat)
    }

    async fn regions(&self) -> HashMap<NodeId, String> {
        let members = self.directory.members().await;
        members.into_iter().map(|record| (record.node, record.region)).collect()
    }

    async fn ask_held(
        &self,
        cid: Cid,
        group: u32,
        holding: &Holding,
    ) -> BTreeMap<NodeId, Vec<(Slot, ShardId)>> {
        let questions = holding.records.values().map(|record| async move {
            (record.node, self.holders.held(&peer(record), cid, group).await)
        });
        let answers = join_all(questions).await.into_iter();
        answers
            .filter_map(|(node, answer)| match answer {
                Ok(slots) => Some((node, slots)),
                Err(error) => {
                    debug!(%node, %error, "a holder did not say what it holds");
                    None
                }
            })
            .collect()
    }

    /// Objects that leases of this key keep, as the nodes that answer list them.
    pub async fn list(&self) -> Vec<ListedObject> {
        let members = self.directory.members().await;
        let listings = join_all(members.iter().map(|record| self.leases_on(record))).await;
        let mut objects: BTreeMap<(Cid, LeaseId), ListedObject> = BTreeMap::new();
        for (record, entries) in members.iter().zip(listings) {
            for entry in entries.unwrap_or_default() {
                let listed = objects.entry((entry.object, entry.lease)).or_insert(ListedObject {
                    cid: entry.object,
                    size: entry.object_bytes,
                    lease: entry.lease,
                    kind: entry.kind,
                    remaining: entry.remaining,
                    holders: BTreeSet::new(),
                });
                listed.holders.insert(record.node);
                listed.remaining = sooner(listed.remaining, entry.remaining);
            }
        }
        objects.into_values().collect()
    }

    /// Ends every lease of this key that covers the object, on every node that answers.
    ///
    /// # Errors
    /// [`GetError::NotFound`] when no node that answers has such a lease.
    pub async fn release(&self, cid: Cid) -> Result<ReleaseReport, GetError> {
        let members = self.directory.members().await;
        let releases = join_all(members.iter().map(|record| self.release_on(record, cid))).await;
        let mut report = ReleaseReport::default();
        for (record, outcome) in members.iter().zip(releases) {
            match outcome {
                Ok(leases) if leases.is_empty() => {}
                Ok(leases) => {
                    report.released.insert(record.node);
                    report.leases.extend(leases);
                }
                Err(error) => report.failed.push(error),
            }
        }
        if report.leases.is_empty() {
            return Err(match report.failed.first() {
                None => GetError::NotFound { cid },
                Some(error) => GetError::Unreachable {
                    cid,
                    holder_count: report.failed.len(),
                    detail: error.to_string(),
                },
            });
        }
        Ok(report)
    }

    async fn release_on(
        &self,
        record: &NodeRecord,
        cid: Cid,
    ) -> Result<BTreeSet<LeaseId>, HolderError> {
        let entries = self.leases_on(record).await?;
        let leases: BTreeSet<LeaseId> =
            entries.iter().filter(|entry| entry.object == cid).map(|entry| entry.lease).collect();
        for lease in &leases {
            match self.holders.release(&peer(record), *lease).await {
                Ok(_) => {}
                // Somebody else ended it in between, which is what was wanted.
                Err(error) if error.code == Some(ErrorCode::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(leases)
    }

    /// All leases of this key on one node.
    async fn leases_on(&self, record: &NodeRecord) -> Result<Vec<LeaseEntry>, HolderError> {
        let peer = peer(record);
        let mut entries: Vec<LeaseEntry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| (entry.lease, entry.object, entry.group));
            let page = self.holders.leases(&peer, after).await?;
            let advances = page.first().is_none_or(|first| {
                after.is_none_or(|after| (first.lease, first.object, first.group) > after)
            });
            // Only an empty page ends a listing: a full frame may hold fewer than the limit. A node
            // that repeats itself must not keep us here for ever.
            if page.is_empty() || !advances {
                return Ok(entries);
            }
            entries.extend(page);
        }
    }
}

impl GroupStat {
    /// Looks at every slot and says what losses the group survives.
    fn examine(&mut self, stripe_first: u32, region_of: &HashMap<NodeId, String>) -> Durability {
        let keepers: Vec<NodeId> = self.held.keys().copied().collect();
        let mut holders_of: HashMap<(Slot, ShardId), Vec<NodeId>> = HashMap::new();
        for (node, slots) in &self.held {
            slots.iter().for_each(|held| holders_of.entry(*held).or_default().push(*node));
        }
        let mut durability = Durability::of_slots(&keepers, 1, region_of);
        for (stripe, number) in self.page.stripes().zip(stripe_first..) {
            let mut kept = Vec::new();
            for (index, shard) in (0_u16..).zip(&stripe.shards) {
                let (slot, shard) = (Slot { stripe: number, index }, *shard);
                // What is recorded is only what somebody has shown.
                let holder = self.placement.get(usize::from(index)).copied();
                let answers = holder.is_some_and(|holder| self.held.contains_key(&holder));
                let held_by = holders_of.get(&(slot, shard)).map_or(&[][..], Vec::as_slice);
                let recorded = held_by.iter().find(|node| Some(**node) == holder);
                let health = match held_by.first() {
                    Some(_) if recorded.is_some() => SlotHealth::Healthy,
                    Some(other) => SlotHealth::Elsewhere(*other),
                    None if answers => SlotHealth::Missing,
                    None => SlotHealth::Unknown,
                };
                match recorded.or(held_by.first()) {
                    Some(node) => kept.push(*node),
                    None => self.missing.push(slot),
                }
                self.slots.push(SlotStat { slot, shard, holder, health });
            }
            durability =
                durability.worst(Durability::of_slots(&kept, stripe.data_count, region_of));
        }
        durability
    }
}

/// The earlier of two ends in the same clock.
fn sooner(a: Expiry, b: Expiry) -> Expiry {
    match (a, b) {
        (Expiry::RunningSeconds(a), Expiry::RunningSeconds(b)) => Expiry::RunningSeconds(a.min(b)),
        (Expiry::FinalisedHeight(a), Expiry::FinalisedHeight(b)) => {
            Expiry::FinalisedHeight(a.min(b))
        }
        (Expiry::Never, other) => other,
        (first, _) => first,
    }
}
