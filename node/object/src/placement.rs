// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement: which node gets which slot index of a group. Pure and deterministic.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; the logarithmic weighting is Schindler
//! and Schomaker's): every node scores `-capacity / ln(h)` for `h` drawn from a hash of key and
//! node id, and slots go down the ranking. A node's score depends on nobody else, so that a node
//! that leaves moves only its own slots.
//!
//! Spread comes before rank: slots are dealt one round at a time, so no node gets a second slot
//! while another that may take one has none. At most `m` slots go to one node and one region where
//! the network allows it; where it does not, the limits widen one step at a time.
//!
//! Whoever cannot take anything (no free space, no answer) is left out before anything is hashed.
//! Of a large network only the best ranked nodes are ever put in order, so that a decision costs
//! one hash and one logarithm a node.
//!
//! Placement only decides where new slots go. Reads follow the recorded vector.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use supernode_protocol::ids::{Cid, NodeId, ShardId};
use twox_hash::XxHash3_64;

use crate::class::Class;

/// A node that may take slots, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Failure domain.
    pub region: String,
    /// Weight; 0 takes nothing.
    pub capacity_bytes: u64,
}

/// What a group's slots are hashed under: known before the first byte is sent, and the same for
/// equal content, so that equal content lands on equal nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementKey([u8; 32]);

impl PlacementKey {
    /// The key of a group whose first stripe has these shards.
    pub fn of_stripe(shards: &[ShardId]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for shard in shards {
            hasher.update(shard.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of a group without a stripe: the object's CID.
    pub fn of_object(cid: Cid) -> Self {
        Self(*cid.as_bytes())
    }
}

/// The nodes that may take slots, ready to be ranked for one group after another.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    entries: Vec<Entry>,
    /// How many of them each region has.
    regions: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    node: NodeId,
    region: usize,
    weight: f64,
}

impl FromIterator<Candidate> for Candidates {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Self {
        let mut it = Self::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for Candidate { node, region, capacity_bytes } in candidates {
            if capacity_bytes == 0 {
                continue;
            }
            let next = numbers.len();
            let region = *numbers.entry(region).or_insert(next);
            if region == next {
                it.regions.push(0);
            }
            it.regions[region] += 1;
            it.entries.push(Entry { node, region, weight: capacity_bytes as f64 });
        }
        it
    }
}

impl Candidates {
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Leaves out a node that cannot take slots any more.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(position) = self.entries.iter().position(|entry| entry.node == node) {
            let entry = self.entries.swap_remove(position);
            self.regions[entry.region] -= 1;
        }
    }

    /// The best ranked nodes for a key, best first, `count` of them at most.
    pub fn rank(&self, key: PlacementKey, count: usize) -> Vec<NodeId> {
        let mut ranking = Ranking::new(key, &self.entries);
        (0..count).map_while(|position| ranking.at(position)).map(|entry| entry.node).collect()
    }

    /// One node for each slot index, or `None` when there is no candidate.
    pub fn place(&self, key: PlacementKey, class: Class) -> Option<Vec<NodeId>> {
        self.fill(key, class, &vec![None; class.width()])
    }

    /// The vector with a node for every index that has none, given who has the others. `None` when
    /// there is no candidate.
    pub fn fill(
        &self,
        key: PlacementKey,
        class: Class,
        vector: &[Option<NodeId>],
    ) -> Option<Vec<NodeId>> {
        if self.is_empty() {
            return None;
        }
        let mut dealer = Dealer::new(key, class, self);
        dealer.count_staying(vector);
        Some(vector.iter().map(|node| node.unwrap_or_else(|| dealer.deal())).collect())
    }

    fn region_count(&self) -> usize {
        self.regions.iter().filter(|count| **count > 0).count()
    }
}

/// Deals slots down a ranking under the two caps.
struct Dealer<'a> {
    ranking: Ranking<'a>,
    per_node: HashMap<NodeId, usize>,
    per_region: Vec<usize>,
    node_cap: usize,
    region_cap: usize,
    /// The round: whoever has so many slots may get another one in it.
    round: usize,
    /// How far down the ranking the round is.
    position: usize,
}

impl<'a> Dealer<'a> {
    fn new(key: PlacementKey, class: Class, candidates: &'a Candidates) -> Self {
        let node_cap = class.parity_count().max(1);
        let region_cap = node_cap.max(class.width().div_ceil(candidates.region_count().max(1)));
        Self {
            ranking: Ranking::new(key, &candidates.entries),
            per_node: HashMap::with_capacity(class.width()),
            per_region: vec![0; candidates.regions.len()],
            node_cap,
            region_cap,
            round: 0,
            position: 0,
        }
    }

    /// Notes the slots that somebody has already.
    fn count_staying(&mut self, vector: &[Option<NodeId>]) {
        for node in vector.iter().flatten() {
            *self.per_node.entry(*node).or_default() += 1;
        }
        if self.per_node.is_empty() {
            return;
        }
        for entry in self.ranking.entries {
            self.per_region[entry.region] += self.load(entry);
        }
    }

    /// The next slot's node: the least loaded one within the caps, ties by rank. When the network
    /// is too small for the caps, the least loaded one of all: even spread is what is left.
    fn deal(&mut self) -> NodeId {
        while self.round < self.node_cap {
            while let Some(entry) = self.ranking.at(self.position) {
                self.position += 1;
                // Who has more gets its turn in a later round. A region that is full stays so.
                if self.load(entry) == self.round && self.per_region[entry.region] < self.region_cap
                {
                    return self.give(entry);
                }
            }
            (self.round, self.position) = (self.round + 1, 0);
        }
        let entries = (0..self.ranking.len()).filter_map(|position| self.ranking.at(position));
        let entries: Vec<&Entry> = entries.collect();
        let chosen =
            entries.into_iter().min_by_key(|it| (self.load(it), self.per_region[it.region]));
        self.give(chosen.expect("a dealer is made with at least one candidate"))
    }

    fn give(&mut self, entry: &Entry) -> NodeId {
        *self.per_node.entry(entry.node).or_default() += 1;
        self.per_region[entry.region] += 1;
        entry.node
    }

    fn load(&self, entry: &Entry) -> usize {
        self.per_node.get(&entry.node).copied().unwrap_or(0)
    }
}

/// Candidates by score, put in order as far as somebody looks.
struct Ranking<'a> {
    entries: &'a [Entry],
    /// Score and position of each entry; the first `sorted` are in order and the best.
    scored: Vec<(f64, usize)>,
    sorted: usize,
}

/// How many are put in order first; then as many again as there are.
const SORTED_FIRST: usize = 64;

impl<'a> Ranking<'a> {
    fn new(key: PlacementKey, entries: &'a [Entry]) -> Self {
        let scored = entries.iter().map(|entry| score(key, entry)).zip(0..).collect();
        Self { entries, scored, sorted: 0 }
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry at a rank.
    fn at(&mut self, rank: usize) -> Option<&'a Entry> {
        while rank >= self.sorted && self.sorted < self.scored.len() {
            self.sort_more();
        }
        self.scored.get(rank).map(|(_, position)| &self.entries[*position])
    }

    fn sort_more(&mut self) {
        let entries = self.entries;
        let better = |(a, x): &(f64, usize), (b, y): &(f64, usize)| {
            b.total_cmp(a).then_with(|| entries[*x].node.cmp(&entries[*y].node))
        };
        let rest = &mut self.scored[self.sorted..];
        let count = self.sorted.max(SORTED_FIRST).min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count, better);
        }
        rest[..count].sort_unstable_by(better);
        self.sorted += count;
    }
}

fn score(key: PlacementKey, entry: &Entry) -> f64 {
    let mut drawn_from = [0; 64];
    drawn_from[..32].copy_from_slice(&key.0);
    drawn_from[32..].copy_from_slice(entry.node.as_bytes());
    let bits = XxHash3_64::oneshot(&drawn_from);
    // 53 bits fill the mantissa; half a step keeps the draw off 0, whose logarithm has no value.
    let unit = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -entry.weight / unit.ln()
}
