// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a store should do, said as plainly as possible: no counters, no queues, no references, just
//! sets that are searched. Slow, and obviously right; everything else is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::placement::{PlacementRecord, precedence};
use supernode_protocol::signed::Signed;

use super::harness::{Action, World};
use crate::catalog::{CACHED_SLOT, DealLease, Thing, cached_upload};
use crate::record::{Body, Freed, LeaseChange, Placed, cid_of, shard_of};
use crate::sample;
use crate::segment::FoundRecord;

#[derive(Debug, Clone)]
struct Upload {
    owner: NodeId,
    slots: BTreeMap<Slot, ShardId>,
    blocks: BTreeSet<Cid>,
    used: u64,
    /// Whether it may end by resting.
    rests: bool,
}

#[derive(Debug, Clone)]
struct Group {
    slots: BTreeMap<Slot, ShardId>,
    commit: Commit,
    object_bytes: u64,
    placement: Signed<PlacementRecord>,
    leases: BTreeSet<LeaseId>,
    trashed: Option<u64>,
    span: bool,
}

#[derive(Debug, Clone)]
struct Lease {
    owner: NodeId,
    kind: LeaseKind,
    /// Running seconds count from the node's first start.
    end: Expiry,
    /// The chain has moved it.
    settled: bool,
}

/// What a record says, in the model's words.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Shard(NodeId, UploadId, Slot, ShardId, u64),
    Slot(NodeId, UploadId, Slot, ShardId),
    Block(NodeId, UploadId, Cid, u64),
    BlockRef(NodeId, UploadId, Cid),
    Commit(Box<Commit>, u64),
    Placement(Box<Signed<PlacementRecord>>),
    Span(Cid, u32),
    Renew(LeaseId, Expiry),
    End(LeaseId),
    Abandon(UploadId),
    BuryGroup(Cid, u32),
    Bury(Thing),
    /// Bytes were given back: nothing that a reader could notice.
    Reclaim,
    /// Something was said again: nothing has changed.
    Restate,
    Clock,
}

impl Fact {
    /// The fact that a record states.
    pub fn of(found: &FoundRecord) -> Self {
        let id = &found.header.id;
        let (shard, cid) = (shard_of(id), cid_of(id));
        let len = found.header.shape.payload_len;
        match &found.body {
            Body::Shard(Placed { holder, slot }) => {
                Self::Shard(holder.owner, holder.upload, *slot, shard, len)
            }
            Body::Slot(Placed { holder, slot }) => {
                Self::Slot(holder.owner, holder.upload, *slot, shard)
            }
            Body::Block(holder) => Self::Block(holder.owner, holder.upload, cid, len),
            Body::BlockRef(holder) => Self::BlockRef(holder.owner, holder.upload, cid),
            Body::Commit(body) => Self::Commit(Box::new(body.commit.clone()), body.object_bytes),
            Body::Placement(record) => Self::Placement(record.clone()),
            Body::Span(span) => Self::Span(cid, span.group),
            Body::Lease(LeaseChange::Renew { lease, expiry }) => Self::Renew(*lease, *expiry),
            Body::Lease(LeaseChange::Release { lease } | LeaseChange::Expire { lease }) => {
                Self::End(*lease)
            }
            Body::Lease(LeaseChange::Abandon { upload }) => Self::Abandon(*upload),
            Body::Tombstone(Freed::Shard) => Self::Bury(Thing::Shard(shard)),
            Body::Tombstone(Freed::Block) => Self::Bury(Thing::Block(cid)),
            Body::Tombstone(Freed::Group { group }) => Self::BuryGroup(cid, *group),
            Body::Clock { .. } => Self::Clock,
            Body::Reclaim(_) => Self::Reclaim,
            Body::ShardCopy | Body::BlockCopy | Body::Restate(_) => Self::Restate,
            other => panic!("no test writes {other:?}"),
        }
    }
}

/// A fact with its number and second.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub sequence: u64,
    pub at: u64,
    pub fact: Fact,
}

/// The whole truth.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: u64,
    pub recorded: u64,
    pub sequence_next: u64,
    things: BTreeMap<Thing, u64>,
    uploads: BTreeMap<UploadId, Upload>,
    groups: BTreeMap<(Cid, u32), Group>,
    leases: BTreeMap<LeaseId, Lease>,
    tombstones: BTreeSet<Thing>,
    /// Planned when the power went: may have survived, or not.
    pub maybe: Vec<Numbered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Live,
    Trash,
    Dead,
}

impl Model {
    pub fn new() -> Self {
        Self { sequence_next: 1, ..Self::default() }
    }

    fn wanted(&self, thing: Thing) -> Wanted {
        let in_group = |group: &Group| match thing {
            Thing::Shard(shard) => group.slots.values().any(|held| *held == shard),
            Thing::Block(cid) => group.commit.object == cid || group.commit.page == Some(cid),
        };
        let in_upload = |upload: &Upload| match thing {
            Thing::Shard(shard) => upload.slots.values().any(|held| *held == shard),
            Thing::Block(cid) => upload.blocks.contains(&cid),
        };
        let mut groups = self.groups.values();
        if self.uploads.values().any(in_upload)
            || groups.any(|group| group.trashed.is_none() && in_group(group))
        {
            Wanted::Live
        } else if self.groups.values().any(in_group) {
            Wanted::Trash
        } else {
            Wanted::Dead
        }
    }

    /// The fact that an action comes to, or `None` if it must be refused.
    pub fn plan(&self, world: &World, action: &Action) -> Option<Fact> {
        let may_use = |upload: &UploadId, caller: NodeId| {
            self.uploads.get(upload).is_none_or(|upload| upload.owner == caller)
        };
        match action {
            Action::PutShard { client, upload, object, group, shard } => {
                let caller = world.clients[*client].id;
                let (slot, id, bytes) = &world.objects[*object].groups[*group].shards[*shard];
                if *upload == cached_upload(*id) && caller != world.clients[0].id {
                    return None;
                }
                let known = self.things.contains_key(&Thing::Shard(*id));
                let fact = if known {
                    Fact::Slot(caller, *upload, *slot, *id)
                } else {
                    Fact::Shard(caller, *upload, *slot, *id, bytes.len() as u64)
                };
                may_use(upload, caller).then_some(fact)
            }
            Action::PutBlock { client, upload, object, group } => {
                let caller = world.clients[*client].id;
                let (cid, bytes) = world.block(*object, *group);
                let known = self.things.contains_key(&Thing::Block(cid));
                let fact = if known {
                    Fact::BlockRef(caller, *upload, cid)
                } else {
                    Fact::Block(caller, *upload, cid, bytes.len() as u64)
                };
                may_use(upload, caller).then_some(fact)
            }
            Action::Commit { client, object, group, terms } => {
                let caller = world.clients[*client].id;
                let commit = world.commit(*client, *object, *group, *terms);
                let bytes = world.objects[*object].size;
                let fits = self.fits_manifest(&commit, &world.objects[*object].groups[*group]);
                (fits && self.may_commit(caller, &commit))
                    .then(|| Fact::Commit(Box::new(commit), bytes))
            }
            Action::Place { client, object, group, epoch } => {
                let record = world.placement(*client, *object, *group, *epoch);
                let body = record.body_unverified();
                self.is_held(body.object, body.group).then(|| Fact::Placement(Box::new(record)))
            }
            Action::KeepSpan { object, group, .. } => {
                let (cid, group) = (world.objects[*object].cid, *group);
                self.is_held(cid, group).then_some(Fact::Span(cid, group))
            }
            Action::Renew { client, lease, secs } => {
                let caller = world.clients[*client].id;
                let held = self.leases.get(lease)?;
                let may = held.owner == caller && held.kind != LeaseKind::Deal;
                may.then_some(Fact::Renew(*lease, Expiry::RunningSeconds(*secs)))
            }
            Action::Release { client, lease } => {
                let caller = world.clients[*client].id;
                if let Some(held) = self.leases.get(lease) {
                    let may = held.owner == caller && held.kind != LeaseKind::Deal;
                    return may.then_some(Fact::End(*lease));
                }
                let upload = UploadId::from_bytes(*lease.as_bytes());
                let held = self.uploads.get(&upload)?;
                (held.owner == caller).then_some(Fact::Abandon(upload))
            }
            Action::MoveDeal { lease, height } => {
                let expiry = Expiry::FinalisedHeight(*height);
                self.is_deal(lease).then_some(Fact::Renew(*lease, expiry))
            }
            Action::EndDeal { lease } => self.is_deal(lease).then_some(Fact::End(*lease)),
        }
    }

    fn is_held(&self, object: Cid, group: u32) -> bool {
        self.groups.get(&(object, group)).is_some_and(|held| held.trashed.is_none())
    }

    fn is_deal(&self, lease: &LeaseId) -> bool {
        self.leases.get(lease).is_some_and(|lease| lease.kind == LeaseKind::Deal)
    }

    /// Groups that a lease covers.
    fn covered(&self, lease: LeaseId) -> impl Iterator<Item = (&Cid, &Group)> {
        let groups = self.groups.iter().map(|((object, _), group)| (object, group));
        groups.filter(move |(_, group)| group.leases.contains(&lease))
    }

    /// Deal leases, with all that is to be known of them.
    pub fn deals(&self) -> Vec<DealLease> {
        let deal = |(id, held): (&LeaseId, &Lease)| {
            let Expiry::FinalisedHeight(height) = held.end else { return None };
            let slots = self.covered(*id).flat_map(|(_, group)| group.slots.values());
            let (slots, bytes) = slots.fold((0, 0), |(slots, bytes), shard| {
                (slots + 1, bytes + self.things[&Thing::Shard(*shard)])
            });
            Some(DealLease {
                lease: *id,
                owner: held.owner,
                height,
                settled: held.settled,
                object: self.covered(*id).map(|(object, _)| *object).next(),
                group_count: u32::try_from(self.covered(*id).count()).expect("few groups"),
                slots,
                bytes,
            })
        };
        self.leases.iter().filter_map(deal).collect()
    }

    fn may_commit(&self, caller: NodeId, commit: &Commit) -> bool {
        let lease = self.leases.get(&commit.terms.lease);
        if lease.is_some_and(|lease| lease.owner != caller || lease.kind != commit.terms.kind) {
            return false;
        }
        let mut covered = self.covered(commit.terms.lease);
        if self.is_deal(&commit.terms.lease) && covered.any(|(other, _)| *other != commit.object) {
            return false;
        }
        let upload = self.uploads.get(&commit.upload);
        let here = self.groups.get(&(commit.object, commit.group));
        let here = here.filter(|group| group.trashed.is_none());
        let repeated = here.is_some_and(|group| group.leases.contains(&commit.terms.lease));
        match upload {
            Some(upload) if upload.owner != caller => return false,
            None if !repeated => return false,
            _ => {}
        }
        let uploaded = |cid: &Cid| upload.is_some_and(|upload| upload.blocks.contains(cid));
        let sibling = self
            .groups
            .iter()
            .any(|((object, _), group)| *object == commit.object && group.trashed.is_none());
        (uploaded(&commit.object) || sibling)
            && commit.page.as_ref().is_none_or(|page| uploaded(page) || here.is_some())
    }

    fn fits_manifest(&self, commit: &Commit, group: &sample::Group) -> bool {
        let Some(upload) = self.uploads.get(&commit.upload) else { return true };
        let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
        upload
            .slots
            .iter()
            .filter(|(slot, _)| stripes.contains(&slot.stripe))
            .all(|(slot, shard)| group.shards.iter().any(|(at, id, _)| (at, id) == (slot, shard)))
    }

    /// Everything that a tick writes.
    pub fn due(&self, upload_idle: u64, trash: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        let ended = |(id, lease): (&LeaseId, &Lease)| match lease.end {
            Expiry::RunningSeconds(end) if end <= self.now => Some((end, *id)),
            _ => None,
        };
        let mut leases: Vec<_> = self.leases.iter().filter_map(ended).collect();
        leases.sort_unstable();
        facts.extend(leases.into_iter().map(|(_, id)| Fact::End(id)));
        let idle = |upload: &Upload| upload.rests && upload.used + upload_idle <= self.now;
        let uploads = self.uploads.iter().filter(|(_, upload)| idle(upload));
        facts.extend(uploads.map(|(id, _)| Fact::Abandon(*id)));
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .filter_map(|(key, group)| Some((group.trashed?, *key)))
            .filter(|(secs, _)| secs + trash <= self.now)
            .collect();
        groups.sort_unstable();
        facts.extend(groups.into_iter().map(|(_, (object, group))| Fact::BuryGroup(object, group)));
        let dead = |thing: &&Thing| self.wanted(**thing) == Wanted::Dead;
        // Blocks before shards, as their keys are ordered.
        let (shards, blocks): (Vec<&Thing>, Vec<&Thing>) =
            self.things.keys().filter(dead).partition(|thing| matches!(thing, Thing::Shard(_)));
        facts.extend(blocks.into_iter().chain(shards).map(|thing| Fact::Bury(*thing)));
        if self.now >= self.recorded + 60 {
            facts.push(Fact::Clock);
        }
        facts
    }

    /// Gives a fact its number.
    pub fn number(&mut self, fact: Fact) -> Numbered {
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        Numbered { sequence, at: self.now, fact }
    }

    /// Makes a fact true.
    pub fn apply(&mut self, numbered: &Numbered) {
        self.now = self.now.max(numbered.at);
        self.recorded = numbered.at;
        self.sequence_next = numbered.sequence + 1;
        match &numbered.fact {
            Fact::Shard(owner, upload, slot, shard, len) => {
                self.arrive(Thing::Shard(*shard), *len);
                self.place(*upload, *owner, *slot, *shard);
            }
            Fact::Slot(owner, upload, slot, shard) => {
                if self.things.contains_key(&Thing::Shard(*shard)) {
                    self.place(*upload, *owner, *slot, *shard);
                }
            }
            Fact::Block(owner, upload, cid, len) => {
                self.arrive(Thing::Block(*cid), *len);
                self.upload(*upload, *owner).blocks.insert(*cid);
            }
            Fact::BlockRef(owner, upload, cid) => {
                if self.things.contains_key(&Thing::Block(*cid)) {
                    self.upload(*upload, *owner).blocks.insert(*cid);
                }
            }
            Fact::Commit(commit, object_bytes) => self.commit(commit, *object_bytes),
            Fact::Placement(record) => {
                let body = record.body_unverified();
                if let Some(group) = self.groups.get_mut(&(body.object, body.group)) {
                    keep_newer(&mut group.placement, record);
                }
            }
            Fact::Span(object, group) => {
                let group = self.groups.get_mut(&(*object, *group));
                group.into_iter().for_each(|group| group.span = true);
            }
            Fact::Renew(lease, expiry) => {
                let end = self.absolute(*expiry);
                if let Some(lease) = self.leases.get_mut(lease) {
                    (lease.end, lease.settled) = (end, lease.kind == LeaseKind::Deal);
                }
            }
            Fact::End(lease) => self.end(*lease),
            Fact::Abandon(upload) => drop(self.uploads.remove(upload)),
            Fact::BuryGroup(object, group) => drop(self.groups.remove(&(*object, *group))),
            Fact::Bury(thing) => {
                if self.wanted(*thing) == Wanted::Dead && self.things.remove(thing).is_some() {
                    self.tombstones.insert(*thing);
                }
            }
            Fact::Clock | Fact::Reclaim | Fact::Restate => {}
        }
    }

    fn arrive(&mut self, thing: Thing, len: u64) {
        self.things.insert(thing, len);
        self.tombstones.remove(&thing);
    }

    fn place(&mut self, id: UploadId, owner: NodeId, slot: Slot, shard: ShardId) {
        let is_new = !self.uploads.contains_key(&id);
        let upload = self.upload(id, owner);
        upload.rests &= !is_new || slot != CACHED_SLOT || id != cached_upload(shard);
        upload.slots.insert(slot, shard);
    }

    fn upload(&mut self, id: UploadId, owner: NodeId) -> &mut Upload {
        let (slots, blocks) = (BTreeMap::new(), BTreeSet::new());
        let new = Upload { owner, slots, blocks, used: self.now, rests: true };
        let upload = self.uploads.entry(id).or_insert(new);
        upload.used = self.now;
        upload
    }

    fn commit(&mut self, commit: &Commit, object_bytes: u64) {
        let group = self.groups.entry((commit.object, commit.group)).or_insert_with(|| Group {
            slots: BTreeMap::new(),
            commit: commit.clone(),
            object_bytes,
            placement: commit.placement.clone(),
            leases: BTreeSet::new(),
            trashed: None,
            span: false,
        });
        group.trashed = None;
        keep_newer(&mut group.placement, &commit.placement);
        group.leases.insert(commit.terms.lease);
        if let Some(upload) = self.uploads.get_mut(&commit.upload) {
            let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
            let moved = upload.slots.extract_if(.., |slot, _| stripes.contains(&slot.stripe));
            for (slot, shard) in moved {
                group.slots.entry(slot).or_insert(shard);
            }
            upload.blocks.remove(&commit.object);
            commit.page.as_ref().map(|page| upload.blocks.remove(page));
            if upload.slots.is_empty() && upload.blocks.is_empty() {
                self.uploads.remove(&commit.upload);
            }
        }
        let end = self.absolute(commit.terms.expiry);
        let (owner, kind, settled) = (commit.terms.owner, commit.terms.kind, false);
        let new = Lease { owner, kind, end, settled };
        let lease = self.leases.entry(commit.terms.lease).or_insert(new);
        if !lease.settled {
            lease.end = later(lease.end, end);
        }
    }

    fn absolute(&self, expiry: Expiry) -> Expiry {
        match expiry {
            Expiry::RunningSeconds(secs) => Expiry::RunningSeconds(self.now + secs),
            other => other,
        }
    }

    fn end(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        for group in self.groups.values_mut() {
            if group.leases.remove(&lease) && group.leases.is_empty() {
                group.trashed = Some(self.now);
            }
        }
    }

    /// The store wrote of its own accord up to here; nothing that is kept has changed.
    pub fn follow(&mut self, sequence_next: u64, recorded: u64) {
        (self.sequence_next, self.recorded) = (sequence_next, recorded);
    }

    /// What a dump of a store in this state says. Tombstones leave with their segments, which the
    /// model knows nothing of: it has all of them.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (thing, len) in &self.things {
            let state = match self.wanted(*thing) {
                Wanted::Live => "live",
                Wanted::Trash => "trash",
                Wanted::Dead => "dead",
            };
            lines.push(format!("{} {len} {state}", name(thing)));
        }
        lines.extend(self.tombstones.iter().map(|thing| format!("tombstone {}", name(thing))));
        for (id, upload) in &self.uploads {
            lines.push(format!("lease {id} upload {}", upload.owner));
            for (Slot { stripe, index }, shard) in &upload.slots {
                lines.push(format!("slot upload {id} {stripe} {index} {shard}"));
            }
            lines.extend(upload.blocks.iter().map(|cid| format!("manifest upload {id} {cid}")));
        }
        for (id, Lease { owner, kind, end, .. }) in &self.leases {
            let end = match end {
                Expiry::RunningSeconds(second) => format!("second {second}"),
                Expiry::FinalisedHeight(height) => format!("height {height}"),
                Expiry::Never => "never".to_owned(),
            };
            lines.push(format!("lease {id} {} {owner} {end}", kind.name()));
        }
        for ((object, number), group) in &self.groups {
            lines.push(group.line(object, *number));
            for (Slot { stripe, index }, shard) in &group.slots {
                lines.push(format!("slot object {object} {number} {stripe} {index} {shard}"));
            }
            lines.extend(group.span.then(|| format!("span object {object} {number}")));
            let covers =
                group.leases.iter().map(|lease| format!("cover {lease} {object} {number}"));
            lines.extend(covers);
        }
        lines.sort_unstable();
        lines
    }
}

impl Group {
    fn line(&self, object: &Cid, number: u32) -> String {
        let Commit { page, stripe_first, stripe_count, .. } = &self.commit;
        let page = page.map_or("root".to_owned(), |page| page.to_string());
        let hash = blake3::hash(&self.placement.encode()).to_hex();
        let epoch = self.placement.body_unverified().epoch;
        let state = self.trashed.map_or("live".to_owned(), |secs| format!("trash {secs}"));
        let size = self.object_bytes;
        format!(
            "manifest object {object} {number} {page} size {size} \
             stripes {stripe_first}+{stripe_count} placement {epoch} {hash} {state}"
        )
    }
}

fn name(thing: &Thing) -> String {
    match thing {
        Thing::Shard(shard) => format!("shard {shard}"),
        Thing::Block(cid) => format!("block {cid}"),
    }
}

/// The later of two ends by the same clock.
fn later(held: Expiry, other: Expiry) -> Expiry {
    match (held, other) {
        (Expiry::RunningSeconds(a), Expiry::RunningSeconds(b)) => Expiry::RunningSeconds(a.max(b)),
        (Expiry::FinalisedHeight(a), Expiry::FinalisedHeight(b)) => {
            Expiry::FinalisedHeight(a.max(b))
        }
        _ => held,
    }
}

fn keep_newer(held: &mut Signed<PlacementRecord>, other: &Signed<PlacementRecord>) {
    if precedence(other, held).is_gt() {
        *held = other.clone();
    }
}
