// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement: which node gets which slot index of a group. Pure and deterministic.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; the logarithmic weighting is Schindler
//! and Schomaker's): every node scores `-capacity / ln(h)` for `h` drawn from
//! `BLAKE3(key, node id)`, and slots go down the ranking. A node's score depends on nobody else,
//! so that a node that leaves moves only its own slots.
//!
//! Spread comes before rank: slots are dealt one round at a time, so no node gets a second slot
//! while another that may take one has none. At most `m` slots go to one node and one region where
//! the network allows it; where it does not, the limits widen one step at a time.
//!
//! Placement only decides where new slots go. Reads follow the recorded vector.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use supernode_protocol::ids::{NodeId, ShardId};

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
    pub fn of_object(cid: supernode_protocol::ids::Cid) -> Self {
        Self(*cid.as_bytes())
    }
}

/// Nodes ranked for a key, best first; those of weight 0 are left out.
pub fn rank(key: PlacementKey, candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut scored: Vec<(f64, &Candidate)> = candidates
        .iter()
        .filter(|candidate| candidate.capacity_bytes > 0)
        .map(|candidate| (score(key, candidate), candidate))
        .collect();
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.node.cmp(&y.node)));
    scored.into_iter().map(|(_, candidate)| candidate).collect()
}

/// One node for each slot index, or `None` when no candidate has any capacity.
pub fn place(key: PlacementKey, class: Class, candidates: &[Candidate]) -> Option<Vec<NodeId>> {
    let mut dealer = Dealer::new(class, rank(key, candidates))?;
    Some((0..class.width()).map(|_| dealer.deal()).collect())
}

/// The node that should take the slots of `leaving`, given who holds the others: the best ranked
/// one that keeps the spread. `None` when nobody else is left.
pub fn replacement(
    key: PlacementKey,
    class: Class,
    vector: &[NodeId],
    leaving: NodeId,
    candidates: &[Candidate],
) -> Option<NodeId> {
    let staying: Vec<Candidate> =
        candidates.iter().filter(|candidate| candidate.node != leaving).cloned().collect();
    let mut dealer = Dealer::new(class, rank(key, &staying))?;
    for node in vector.iter().filter(|node| **node != leaving) {
        dealer.count(*node);
    }
    Some(dealer.deal())
}

/// Deals slots down a ranking under the two caps.
struct Dealer<'a> {
    ranking: Vec<&'a Candidate>,
    per_node: HashMap<NodeId, usize>,
    per_region: HashMap<&'a str, usize>,
    node_cap: usize,
    region_cap: usize,
}

impl<'a> Dealer<'a> {
    fn new(class: Class, ranking: Vec<&'a Candidate>) -> Option<Self> {
        let regions: HashSet<&str> =
            ranking.iter().map(|candidate| candidate.region.as_str()).collect();
        let node_cap = class.parity_count().max(1);
        let region_cap = node_cap.max(class.width().div_ceil(regions.len().max(1)));
        let (per_node, per_region) = (HashMap::new(), HashMap::new());
        (!ranking.is_empty()).then_some(Self {
            ranking,
            per_node,
            per_region,
            node_cap,
            region_cap,
        })
    }

    /// Notes a slot that somebody holds already.
    fn count(&mut self, node: NodeId) {
        *self.per_node.entry(node).or_default() += 1;
        if let Some(candidate) = self.ranking.iter().find(|candidate| candidate.node == node) {
            *self.per_region.entry(candidate.region.as_str()).or_default() += 1;
        }
    }

    /// The next slot's node: the least loaded one within the caps, ties by rank. When the network
    /// is too small for the caps, the least loaded one of all: even spread is what is left.
    fn deal(&mut self) -> NodeId {
        let preference = |candidate: &&&Candidate| {
            let load = self.per_node.get(&candidate.node).copied().unwrap_or(0);
            let region = self.per_region.get(candidate.region.as_str()).copied().unwrap_or(0);
            let over = load >= self.node_cap || region >= self.region_cap;
            (over, load, if over { region } else { 0 })
        };
        let chosen = self.ranking.iter().min_by_key(preference);
        let node = chosen.expect("a dealer is made with at least one candidate").node;
        self.count(node);
        node
    }
}

fn score(key: PlacementKey, candidate: &Candidate) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0);
    hasher.update(candidate.node.as_bytes());
    let draw = hasher.finalize();
    let bits = u64::from_le_bytes(
        draw.as_bytes()[..8].try_into().expect("a hash is longer than eight bytes"),
    );
    // 53 bits fill the mantissa; half a step keeps the draw off 0, whose logarithm has no value.
    let unit = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -(candidate.capacity_bytes as f64) / unit.ln()
}
