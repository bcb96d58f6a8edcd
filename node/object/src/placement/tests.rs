// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement properties: caps, spread, stability.

use std::collections::{HashMap, HashSet};

use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};
use supernode_protocol::ids::NodeId;

use super::{Candidate, PlacementKey, place, rank, replacement};
use crate::class::Class;

fn candidate(number: u16, region: u8, capacity_bytes: u64) -> Candidate {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_le_bytes());
    Candidate { node: NodeId::from_bytes(id), region: format!("R{region}"), capacity_bytes }
}

fn key(seed: u64) -> PlacementKey {
    PlacementKey(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

fn counts<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

#[test]
fn seven_nodes_in_seven_regions_hold_two_slots_each() {
    let nodes: Vec<_> = (0..7_u8).map(|n| candidate(u16::from(n), n, 1 << 40)).collect();
    for seed in 0..50 {
        let vector = place(key(seed), Class::default(), &nodes).expect("there are nodes");
        let per_node = counts(vector.iter());
        assert_eq!(per_node.len(), 7);
        assert!(per_node.values().all(|count| *count == 2), "{per_node:?}");
    }
}

#[test]
fn nodes_without_capacity_take_nothing() {
    let nodes = [candidate(1, 0, 0), candidate(2, 0, 1)];
    let vector = place(key(0), Class::default(), &nodes).expect("one node is left");
    assert!(vector.iter().all(|node| *node == nodes[1].node));
    assert_eq!(place(key(0), Class::default(), &nodes[..1]), None);
}

#[test]
fn slots_follow_capacity() {
    let nodes: Vec<_> = (0..100_u16).map(|n| candidate(n, 0, if n < 50 { 1 } else { 3 })).collect();
    let class = Class::new(1, 0).expect("one shard");
    let large = (0..4000)
        .filter_map(|seed| place(key(seed), class, &nodes))
        .filter(|vector| vector[0].as_bytes()[0] >= 50)
        .count();
    // Three quarters of the weight; four standard deviations of 4,000 draws are 110.
    assert!((2890..=3110).contains(&large), "{large} of 4000");
}

fn network() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec((0..5_u8, 1..1000_u64), 1..60).prop_map(|nodes| {
        let numbered = nodes.into_iter().zip(0_u16..);
        numbered.map(|((region, capacity), number)| candidate(number, region, capacity)).collect()
    })
}

proptest! {
    #[test]
    fn caps_hold_wherever_the_network_allows_them(
        nodes in network(), seed in any::<u64>(), k in 1..12_usize, m in 0..6_usize,
    ) {
        let class = Class::new(k, m).expect("within limits");
        let vector = place(key(seed), class, &nodes).expect("there are nodes");
        prop_assert_eq!(vector.len(), class.width());
        let regions: HashMap<_, _> =
            nodes.iter().map(|node| (node.node, node.region.as_str())).collect();
        let region_sizes = counts(regions.values());
        let cap = m.max(1);
        let region_cap = cap.max(class.width().div_ceil(region_sizes.len()));
        // One slot a node under the region cap: if that is room enough, nobody gets a second.
        let room: usize = region_sizes.values().map(|size| (*size).min(region_cap)).sum();
        if room >= class.width() {
            prop_assert_eq!(vector.iter().collect::<HashSet<_>>().len(), class.width());
            let per_region = counts(vector.iter().map(|node| regions[node]));
            prop_assert!(per_region.values().all(|count| *count <= region_cap));
        }
        let room: usize = region_sizes.values().map(|size| (size * cap).min(region_cap)).sum();
        if room >= class.width() {
            prop_assert!(counts(vector.iter()).values().all(|count| *count <= cap));
        }
    }

    #[test]
    fn placement_does_not_depend_on_the_order_of_the_members(
        nodes in network(), seed in any::<u64>(),
    ) {
        let mut reversed = nodes.clone();
        reversed.reverse();
        let class = Class::default();
        prop_assert_eq!(place(key(seed), class, &nodes), place(key(seed), class, &reversed));
    }

    #[test]
    fn a_node_that_leaves_does_not_reorder_the_others(nodes in network(), seed in any::<u64>()) {
        let ranking: Vec<_> = rank(key(seed), &nodes).into_iter().map(|c| c.node).collect();
        let rest: Vec<_> = rank(key(seed), &nodes[1..]).into_iter().map(|c| c.node).collect();
        let expected: Vec<_> =
            ranking.into_iter().filter(|node| *node != nodes[0].node).collect();
        prop_assert_eq!(rest, expected);
    }

    #[test]
    fn a_replacement_is_another_node_and_keeps_the_spread(
        nodes in network(), seed in any::<u64>(),
    ) {
        let class = Class::default();
        let vector = place(key(seed), class, &nodes).expect("there are nodes");
        let leaving = vector[0];
        match replacement(key(seed), class, &vector, leaving, &nodes) {
            None => prop_assert_eq!(nodes.len(), 1),
            Some(node) => {
                prop_assert!(node != leaving);
                if nodes.len() > class.width() + 20 {
                    prop_assert!(!vector.contains(&node));
                }
            }
        }
    }
}
