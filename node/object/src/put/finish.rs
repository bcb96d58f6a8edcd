// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a put: manifest, commits, and an honest account of what is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use supernode_protocol::ids::{Cid, NodeId, Slot};
use supernode_protocol::lease::{Commit, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::Manifest;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::ErrorCode;
use tokio::time::Instant;
use tracing::{info, warn};

use super::session::{Group, Session};
use super::{PutError, PutReport};
use crate::Durability;
use crate::network::{Directory, HolderError, Holders, peer};
use crate::placement::PlacementKey;

/// How long a put waits for the DHT to lead to its object before it returns anyway.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between looks at the DHT.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(100);

impl<H: Holders, D: Directory> Session<'_, H, D> {
    pub(super) async fn finish(mut self, content_root: [u8; 32]) -> Result<PutReport, PutError> {
        self.note_zeros()?;
        let builder = std::mem::take(&mut self.builder);
        let (last, manifest) = builder.finish(content_root)?;
        // A last group without a stripe is placed by the object's name, which it has only now.
        if self.groups.len() <= manifest.root.pages.len() {
            let key = PlacementKey::of_object(manifest.block.cid);
            let vector = self.choose(key).await?;
            self.start_group(key, vector);
        }
        if let Some(page) = last {
            self.keep_page(page);
        }
        self.hand_out_blocks(&manifest).await?;
        let commits = self.commit_all(&manifest).await?;
        let account = self.account(&commits);
        let wanted = self.options.tolerate_nodes;
        if account.durability.nodes.0.is_none_or(|survived| survived < wanted) {
            self.release_everywhere().await;
            return Err(self.not_durable(account.durability));
        }
        let announced = self.await_announcement(manifest.block.cid).await;
        Ok(PutReport {
            cid: manifest.block.cid,
            lease: self.lease,
            size: manifest.root.size,
            content_root,
            class: self.class,
            stripe_count: self.stripe_count,
            slots_total: manifest.root.slot_count(),
            slots_stored: manifest.root.slot_count() - account.missing.len() as u64,
            missing: account.missing,
            durability: account.durability,
            shards_root: manifest.root.shards_root,
            groups: self.groups.into_iter().map(Group::placed).collect(),
            announced,
        })
    }

    /// A group without shards has met none of its holders yet: they get its blocks before anybody
    /// commits, and those that do not take them are replaced as long as there are others.
    async fn hand_out_blocks(&mut self, manifest: &Manifest) -> Result<(), PutError> {
        let is_shardless = |group: &Group| group.stripe_count == 0;
        while self.groups.last().is_some_and(is_shardless) {
            let mut has_failed = false;
            for (node, outcome) in self.give_blocks(manifest).await {
                match outcome {
                    Ok(()) => drop(self.given.insert(node)),
                    Err(error) => {
                        has_failed = true;
                        self.fail(error);
                    }
                }
            }
            let mut vector = self.groups.last().expect("looked at above").vector.clone();
            if !has_failed {
                break;
            }
            if !self.reassign(&mut vector) {
                // Without a single copy there is nothing to commit.
                let nothing = Durability::of_slots(&[], 1, &HashMap::new());
                let has_any = !self.given.is_empty();
                return if has_any { Ok(()) } else { Err(self.not_durable(nothing)) };
            }
            self.groups.last_mut().expect("looked at above").vector = vector;
        }
        Ok(())
    }

    async fn give_blocks(&self, manifest: &Manifest) -> Vec<(NodeId, Result<(), HolderError>)> {
        let group = self.groups.last().expect("every object has one");
        let new: BTreeSet<NodeId> = group.vector.iter().copied().collect();
        let new = new.into_iter().filter(|node| !self.given.contains(node));
        let gifts =
            new.map(|node| async move { (node, self.put_blocks(node, group, manifest).await) });
        join_all(gifts).await
    }

    async fn put_blocks(
        &self,
        node: NodeId,
        group: &Group,
        manifest: &Manifest,
    ) -> Result<(), HolderError> {
        let peer = peer(&self.members[&node]);
        for block in [Some(&manifest.block), group.page.as_ref()].into_iter().flatten() {
            let (cid, bytes) = (block.cid, block.bytes.clone());
            self.objects.holders.put_block(&peer, self.upload, cid, bytes).await?;
        }
        Ok(())
    }

    /// Commits every group on each of its holders; says which holders have which group durably.
    async fn commit_all(&mut self, manifest: &Manifest) -> Result<Vec<BTreeSet<NodeId>>, PutError> {
        let mut committed = Vec::new();
        for (position, number) in (0..self.groups.len()).zip(0_u32..) {
            let outcomes = self.commit_group(position, number, manifest).await?;
            let mut durable = BTreeSet::new();
            for (node, outcome) in outcomes {
                match outcome {
                    Ok(()) => {
                        durable.insert(node);
                    }
                    Err(error) => {
                        info!(%node, error = %error.message, "a holder did not commit");
                        self.fail(error);
                    }
                }
            }
            self.hand_out_span(position, number, manifest.block.cid, &durable).await;
            committed.push(durable);
        }
        Ok(committed)
    }

    /// Gives each holder of a group what ties the group's page to `shards_root`. Only a deal is
    /// audited, and the page of an only group is the whole list. A holder that refuses it keeps
    /// its shards all the same and loses only the reward, so the put does not fail with it.
    async fn hand_out_span(
        &self,
        position: usize,
        number: u32,
        object: Cid,
        durable: &BTreeSet<NodeId>,
    ) {
        let list = self.list.as_ref().filter(|_| self.groups.len() > 1);
        let Some(span) = list.and_then(|list| list.span(position)) else { return };
        let (span, holders) = (&span, &self.objects.holders);
        let gifts = durable.iter().map(|node| async move {
            let peer = peer(&self.members[node]);
            let kept = holders.keep_span(&peer, object, number, span.clone()).await;
            if let Err(error) = kept {
                warn!(%node, group = number, error = %error.message, "a holder keeps no proof of \
                      its group's span and cannot answer audits of it");
            }
        });
        join_all(gifts).await;
    }

    async fn commit_group(
        &self,
        position: usize,
        number: u32,
        manifest: &Manifest,
    ) -> Result<Vec<(NodeId, Result<(), HolderError>)>, PutError> {
        let group = &self.groups[position];
        let commit = self.commit_of(group, number, manifest.block.cid)?;
        let holders: BTreeSet<NodeId> = group.vector.iter().copied().collect();
        let attempts = holders.into_iter().map(|node| {
            let commit = commit.clone();
            async move { (node, self.commit_on(node, group, manifest, commit).await) }
        });
        Ok(join_all(attempts).await)
    }

    fn commit_of(&self, group: &Group, number: u32, object: Cid) -> Result<Commit, PutError> {
        let placement = PlacementRecord {
            object,
            group: number,
            epoch: 0,
            nodes: group.vector.clone(),
            writer: self.objects.owner,
        };
        Ok(Commit {
            upload: self.upload,
            object,
            group: number,
            page: group.page.as_ref().map(|page| page.cid),
            stripe_first: group.stripe_first,
            stripe_count: group.stripe_count,
            terms: LeaseTerms {
                lease: self.lease,
                owner: self.objects.owner,
                kind: self.options.kind,
                expiry: self.options.expiry,
            },
            placement: Signed::sign(placement, &self.objects.identity)?,
            missing: self.known_missing(group),
        })
    }

    /// Slots that nobody took, and those whose node has failed since: what the leader is told.
    fn known_missing(&self, group: &Group) -> Vec<Slot> {
        let mut missing: BTreeSet<Slot> = group.missing.iter().copied().collect();
        for (index, _) in
            (0_u16..).zip(&group.vector).filter(|(_, node)| self.failed.contains_key(node))
        {
            let stripes = group.stripe_first..group.stripe_first + group.stripe_count;
            missing.extend(stripes.map(|stripe| Slot { stripe, index }));
        }
        missing.into_iter().collect()
    }

    async fn commit_on(
        &self,
        node: NodeId,
        group: &Group,
        manifest: &Manifest,
        commit: Commit,
    ) -> Result<(), HolderError> {
        if group.stripe_count > 0 || !self.given.contains(&node) {
            self.put_blocks(node, group, manifest).await?;
        }
        let expected = self.slots_on(node, &commit);
        let held = self.objects.holders.commit(&peer(&self.members[&node]), commit).await?;
        if held < expected {
            let message = format!("it committed {held} of the {expected} slots it was sent");
            return Err(HolderError { node, code: None, message });
        }
        Ok(())
    }

    /// Slots of the group that the node must have when it commits.
    fn slots_on(&self, node: NodeId, commit: &Commit) -> u32 {
        let nodes = &commit.placement.body_unverified().nodes;
        let is_its = |index: u16| nodes.get(usize::from(index)) == Some(&node);
        let indexes = nodes.iter().filter(|holder| **holder == node).count();
        let sent = u32::try_from(indexes).expect("at most 256 shards") * commit.stripe_count;
        let missing = commit.missing.iter().filter(|slot| is_its(slot.index)).count();
        sent.saturating_sub(u32::try_from(missing).expect("at most 64 stripes of 256 shards"))
    }

    fn account(&self, committed: &[BTreeSet<NodeId>]) -> Account {
        let region_of: HashMap<NodeId, String> =
            self.members.values().map(|record| (record.node, record.region.clone())).collect();
        let mut account = Account { durability: Durability::unlimited(), missing: Vec::new() };
        for (group, durable) in self.groups.iter().zip(committed) {
            let keepers: Vec<NodeId> = durable.iter().copied().collect();
            account.note(Durability::of_slots(&keepers, 1, &region_of));
            let unsent: HashSet<Slot> = group.missing.iter().copied().collect();
            for stripe in group.stripe_first..group.stripe_first + group.stripe_count {
                let slots = (0_u16..).zip(&group.vector);
                let (kept, lost): (Vec<_>, Vec<_>) = slots
                    .map(|(index, node)| (Slot { stripe, index }, *node))
                    .partition(|(slot, node)| durable.contains(node) && !unsent.contains(slot));
                let kept: Vec<NodeId> = kept.into_iter().map(|(_, node)| node).collect();
                let need = self.class.data_count();
                account.note(Durability::of_slots(&kept, need, &region_of));
                account.missing.extend(lost.into_iter().map(|(slot, _)| slot));
            }
        }
        account
    }

    pub(super) fn not_durable(&self, durability: Durability) -> PutError {
        match self.refusal() {
            refusal @ (PutError::Full { .. } | PutError::NotAuthorised { .. }) => refusal,
            _ => {
                let last = self.failed.values().next();
                let small = "the network has too few nodes".to_owned();
                PutError::NotDurable {
                    survives: durability.nodes,
                    wanted: self.options.tolerate_nodes,
                    detail: last.map_or(small, HolderError::to_string),
                }
            }
        }
    }

    /// A put that failed leaves no lease behind: it is released on every node that was asked to
    /// commit, also on those whose answer never came. A deal's lease is the chain's to end, which
    /// it does with the reservation.
    async fn release_everywhere(&self) {
        if self.options.kind == LeaseKind::Deal {
            return;
        }
        let asked = self.groups.iter().flat_map(|group| &group.vector);
        let nodes: BTreeMap<_, _> = asked.map(|node| (*node, &self.members[node])).collect();
        let releases = nodes.into_values().map(|record| async move {
            let peer = peer(record);
            let released = self.objects.holders.release(&peer, self.lease).await;
            // Who takes no writes from this key keeps nothing for it either.
            let is_clean = [Some(ErrorCode::NotFound), Some(ErrorCode::Refused)];
            if let Err(error) = released
                && !is_clean.contains(&error.code)
            {
                warn!(node = %record.node, error = %error.message, "a lease of a failed put stays \
                      until it expires");
            }
        });
        join_all(releases).await;
    }

    async fn await_announcement(&self, cid: Cid) -> bool {
        let give_up = Instant::now() + ANNOUNCE_PATIENCE;
        while self.objects.directory.providers(cid).await.is_empty() {
            if Instant::now() >= give_up {
                return false;
            }
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
        }
        true
    }
}

/// What is durable, and what is not.
struct Account {
    durability: Durability,
    missing: Vec<Slot>,
}

impl Account {
    fn note(&mut self, durability: Durability) {
        self.durability = self.durability.worst(durability);
    }
}
