// SPDX-License-Identifier: MIT OR Apache-2.0
//! One put under way: who may hold what, and where each slot went.
//!
//! A group has one placement vector. When a node fails while a stripe is sent, another takes over
//! its slot indexes: if the group has no earlier stripe, in place; otherwise the manifest's page
//! ends before this stripe and a new group starts with the new vector, so that every recorded
//! vector stays true for every stripe under it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use supernode_client::{Peer, PutShard};
use supernode_protocol::ids::{LeaseId, NodeId, Slot, UploadId};
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::manifest::{Block, Builder, Extent};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::tree::ShardsTree;
use supernode_protocol::wire::ErrorCode;
use tracing::{debug, info};

use super::source::{EncodedStripe, Piece};
use super::{PlacedGroup, PutOptions};
use crate::Durability;
use crate::network::{Directory, HolderError, Holders, peer};
use crate::placement::{Candidate, Candidates, PlacementKey};
use crate::{Class, Objects, PutError};

/// Nodes looked at beyond a group's width, so that dead ones can be replaced before it starts.
const SPARE_CANDIDATES: usize = 32;

/// A group: which nodes, which stripes, what is missing.
pub(super) struct Group {
    pub(super) vector: Vec<NodeId>,
    pub(super) stripe_first: u32,
    pub(super) stripe_count: u32,
    /// Bytes of one slot index over these stripes.
    index_bytes: u64,
    /// Slots that no node took.
    pub(super) missing: Vec<Slot>,
    /// The page's block, for groups whose page is one.
    pub(super) page: Option<Block>,
    key: PlacementKey,
}

impl Group {
    pub(super) fn placed(self) -> PlacedGroup {
        let Self { vector, stripe_first, stripe_count, index_bytes, .. } = self;
        PlacedGroup { stripe_first, stripe_count, vector, index_bytes }
    }
}

pub(super) struct Session<'a, H, D> {
    pub(super) objects: &'a Objects<H, D>,
    pub(super) options: &'a PutOptions,
    pub(super) upload: UploadId,
    pub(super) lease: LeaseId,
    pub(super) builder: Builder,
    pub(super) groups: Vec<Group>,
    /// Everybody who may hold something, by id.
    pub(super) members: BTreeMap<NodeId, NodeRecord>,
    /// Those of them that have not failed during this put.
    candidates: Candidates,
    /// The others, and how they failed. They get nothing more.
    pub(super) failed: HashMap<NodeId, HolderError>,
    /// The list of shards so far, for the proofs that holders need when a chain audits them.
    pub(super) list: Option<ShardsTree>,
    connected: HashSet<NodeId>,
    /// Who has the manifest blocks of the last group already, if that has no shards.
    pub(super) given: HashSet<NodeId>,
    /// What stripes have, as far as there are any.
    pub(super) class: Class,
    pub(super) stripe_count: u32,
    /// Zeros at the end that the manifest has yet to note.
    zeros: u64,
}

impl<'a, H: Holders, D: Directory> Session<'a, H, D> {
    pub(super) async fn open(
        objects: &'a Objects<H, D>,
        options: &'a PutOptions,
    ) -> Result<Self, PutError> {
        let members = objects.directory.members().await;
        let members: BTreeMap<_, _> =
            members.into_iter().map(|record| (record.node, record)).collect();
        let candidates: Candidates = members.values().map(candidate).collect();
        if candidates.is_empty() {
            return Err(PutError::NoNodes { detail: format!("{} known", members.len()) });
        }
        Ok(Self {
            objects,
            options,
            upload: UploadId::from_bytes(rand::random()),
            lease: options.lease.unwrap_or_else(|| LeaseId::from_bytes(rand::random())),
            builder: Builder::new(),
            groups: Vec::new(),
            members,
            candidates,
            failed: HashMap::new(),
            list: (options.kind == LeaseKind::Deal).then(ShardsTree::new),
            connected: HashSet::new(),
            given: HashSet::new(),
            class: options.class,
            stripe_count: 0,
            zeros: 0,
        })
    }

    /// Appends a piece to the manifest; sends its shards before, if it has any.
    pub(super) async fn append(&mut self, piece: Piece) -> Result<(), PutError> {
        match piece {
            Piece::Stripe(class, encoded) => {
                self.note_zeros()?;
                self.class = class;
                self.place(encoded).await?;
            }
            Piece::Inline(bytes) => self.note(Extent::Inline { bytes })?,
            Piece::Zeros(count) => self.zeros += count,
        }
        if let Some(progress) = &self.options.progress {
            progress(self.builder.size() + self.zeros);
        }
        Ok(())
    }

    /// Writes the zeros so far into the manifest, however many stripes they would fill. A group
    /// gets its vector from its first stripe, so it has none yet if this is its first extent.
    pub(super) fn note_zeros(&mut self) -> Result<(), PutError> {
        match std::mem::take(&mut self.zeros) {
            0 => Ok(()),
            len => self.note(Extent::Zero { len }),
        }
    }

    fn note(&mut self, extent: Extent) -> Result<(), PutError> {
        if let Some(page) = self.builder.push(extent)? {
            self.keep_page(page);
        }
        Ok(())
    }

    /// Sends a stripe's shards and appends it to the manifest.
    async fn place(&mut self, encoded: EncodedStripe) -> Result<(), PutError> {
        let key = PlacementKey::of_stripe(&encoded.stripe.shards);
        if self.builder.next_group() == self.groups.len() {
            let vector = self.choose(key).await?;
            self.start_group(key, vector);
        }
        let stripe = self.stripe_count;
        let mut unsent: Vec<u16> = (0..).take(encoded.shards.len()).collect();
        let mut vector = self.current().vector.clone();
        loop {
            let failures = self.send(stripe, &vector, &unsent, &encoded).await;
            if failures.is_empty() {
                unsent.clear();
                break;
            }
            unsent = failures.iter().map(|(index, _)| *index).collect();
            for (_, error) in failures {
                info!(node = %error.node, error = %error.message, "a node takes no more shards");
                self.fail(error);
            }
            let before = vector.clone();
            if !self.reassign(&mut vector) {
                break;
            }
            // What a failed node had already taken of this stripe its replacement needs too.
            let moved = (0..).zip(before.iter().zip(&vector)).filter(|(_, (old, new))| old != new);
            unsent.extend(moved.map(|(index, _)| index));
            unsent.sort_unstable();
            unsent.dedup();
        }
        // Fewer than `k` are of no use to anybody: no need to read the rest of the source.
        if unsent.len() > self.class.parity_count() {
            let nothing = Durability::of_slots(&[], 1, &HashMap::new());
            return Err(self.not_durable(nothing));
        }
        self.adopt_vector(key, vector)?;
        let missing = unsent.into_iter().map(|index| Slot { stripe, index });
        let group = self.current();
        group.missing.extend(missing);
        group.stripe_count += 1;
        group.index_bytes += encoded.stripe.shard_len;
        self.stripe_count += 1;
        if let Some(list) = &mut self.list {
            let stripe = &encoded.stripe;
            stripe.shards.iter().for_each(|shard| list.push(*shard, stripe.shard_len));
        }
        self.note(Extent::Stripe(encoded.stripe))
    }

    /// Nodes for a new group, each of them reached a moment ago.
    pub(super) async fn choose(&mut self, key: PlacementKey) -> Result<Vec<NodeId>, PutError> {
        let class = self.class;
        loop {
            let near = self.candidates.rank(key, class.width() + SPARE_CANDIDATES);
            let unknown = near.into_iter().filter(|node| !self.connected.contains(node));
            let unknown: Vec<Peer> = unknown.map(|node| peer(&self.members[&node])).collect();
            self.reach(&unknown).await;
            let vector = self.candidates.place(key, class).ok_or_else(|| self.refusal())?;
            if vector.iter().all(|node| self.connected.contains(node)) {
                return Ok(vector);
            }
        }
    }

    /// Connects to peers at the same time; those that do not answer are out of this put.
    async fn reach(&mut self, peers: &[Peer]) {
        let holders = &self.objects.holders;
        let attempts = peers.iter().map(|peer| async move { (peer, holders.connect(peer).await) });
        for (peer, outcome) in join_all(attempts).await {
            match outcome {
                Ok(()) => {
                    self.connected.insert(peer.node);
                }
                Err(error) => {
                    debug!(node = %peer.node, error = %error.message, "left out of placement");
                    self.fail(error);
                }
            }
        }
    }

    /// Sends the `unsent` shards to their nodes, all at once; returns those that failed.
    async fn send(
        &self,
        stripe: u32,
        vector: &[NodeId],
        unsent: &[u16],
        encoded: &EncodedStripe,
    ) -> Vec<(u16, HolderError)> {
        let sends = unsent.iter().map(|index| {
            let position = usize::from(*index);
            let put = PutShard {
                upload: self.upload,
                slot: Slot { stripe, index: *index },
                shard: encoded.stripe.shards[position],
                bytes: encoded.shards[position].clone(),
            };
            async move { (*index, self.send_slot(vector[position], put).await) }
        });
        let mut sends: FuturesUnordered<_> = sends.collect();
        let mut failures = Vec::new();
        while let Some((index, outcome)) = sends.next().await {
            failures.extend(outcome.err().map(|error| (index, error)));
        }
        failures
    }

    async fn send_slot(&self, node: NodeId, put: PutShard) -> Result<(), HolderError> {
        let peer = peer(&self.members[&node]);
        self.objects.holders.put_shard(&peer, put).await.map(|_| ())
    }

    /// Replaces failed nodes in the vector by others; false when nobody else is left.
    pub(super) fn reassign(&self, vector: &mut [NodeId]) -> bool {
        let key = self.groups.last().expect("a group is being filled").key;
        let is_left = |node: &NodeId| (!self.failed.contains_key(node)).then_some(*node);
        let left: Vec<Option<NodeId>> = vector.iter().map(is_left).collect();
        let Some(filled) = self.candidates.fill(key, self.class, &left) else {
            return false;
        };
        vector.copy_from_slice(&filled);
        true
    }

    /// Leaves a node out of the rest of this put.
    pub(super) fn fail(&mut self, error: HolderError) {
        self.candidates.remove(error.node);
        self.failed.insert(error.node, error);
    }

    /// Makes `vector` the current group's, or starts a group with it if that has stripes already.
    fn adopt_vector(&mut self, key: PlacementKey, vector: Vec<NodeId>) -> Result<(), PutError> {
        let group = self.current();
        if group.vector == vector {
            return Ok(());
        }
        if group.stripe_count == 0 {
            group.vector = vector;
            return Ok(());
        }
        if let Some(page) = self.builder.end_page()? {
            self.keep_page(page);
        }
        self.start_group(key, vector);
        Ok(())
    }

    pub(super) fn start_group(&mut self, key: PlacementKey, vector: Vec<NodeId>) {
        if let Some(list) = &mut self.list {
            list.start_group();
        }
        self.groups.push(Group {
            vector,
            stripe_first: self.stripe_count,
            stripe_count: 0,
            index_bytes: 0,
            missing: Vec::new(),
            page: None,
            key,
        });
    }

    /// Pages come out of the builder in order; page 0 never does.
    pub(super) fn keep_page(&mut self, page: Block) {
        let waiting = self.groups.iter_mut().skip(1).find(|group| group.page.is_none());
        waiting.expect("every page has a group").page = Some(page);
    }

    fn current(&mut self) -> &mut Group {
        self.groups.last_mut().expect("a group is started before its first stripe")
    }

    /// Why nobody takes anything: the most telling answer among those that failed.
    pub(super) fn refusal(&self) -> PutError {
        let with = |code| self.failed.values().find(|error| error.code == Some(code));
        if let Some(error) = with(ErrorCode::Refused) {
            return PutError::NotAuthorised { detail: error.to_string() };
        }
        if let Some(error) = with(ErrorCode::Full) {
            return PutError::Full { detail: error.to_string() };
        }
        let last = self.failed.values().next();
        PutError::NoNodes {
            detail: last.map_or_else(|| "it has none".to_owned(), HolderError::to_string),
        }
    }
}

fn candidate(record: &NodeRecord) -> Candidate {
    let NodeRecord { node, region, capacity_bytes, .. } = record;
    Candidate { node: *node, region: region.clone(), capacity_bytes: *capacity_bytes }
}
