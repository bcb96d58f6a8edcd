// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement properties: caps, spread, stability.

use std::collections::{HashMap, HashSet};
use std::thread;

use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};
use supernode_protocol::ids::NodeId;

use super::{Candidate, Candidates, PlacementKey};
use crate::class::Class;

fn candidate(number: u16, region: u8, capacity_bytes: u64) -> Candidate {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_le_bytes());
    Candidate { node: NodeId::from_bytes(id), region: format!("R{region}"), capacity_bytes }
}

fn key(seed: u64) -> PlacementKey {
    PlacementKey(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

fn candidates(nodes: &[Candidate]) -> Candidates {
    nodes.iter().cloned().collect()
}

fn placed(seed: u64, class: Class, nodes: &[Candidate]) -> Option<Vec<NodeId>> {
    candidates(nodes).place(key(seed), class)
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
        let vector = placed(seed, Class::default(), &nodes).expect("there are nodes");
        let per_node = counts(vector.iter());
        assert_eq!(per_node.len(), 7);
        assert!(per_node.values().all(|count| *count == 2), "{per_node:?}");
    }
}

#[test]
fn nodes_without_capacity_take_nothing() {
    let nodes = [candidate(1, 0, 0), candidate(2, 0, 1)];
    let vector = placed(0, Class::default(), &nodes).expect("one node is left");
    assert!(vector.iter().all(|node| *node == nodes[1].node));
    assert_eq!(placed(0, Class::default(), &nodes[..1]), None);
}

#[test]
fn slots_follow_capacity() {
    let nodes: Vec<_> = (0..100_u16).map(|n| candidate(n, 0, if n < 50 { 1 } else { 3 })).collect();
    let class = Class::new(1, 0).expect("one shard");
    let large = (0..4000)
        .filter_map(|seed| placed(seed, class, &nodes))
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
        let vector = placed(seed, class, &nodes).expect("there are nodes");
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
        prop_assert_eq!(placed(seed, class, &nodes), placed(seed, class, &reversed));
    }

    #[test]
    fn a_node_that_leaves_does_not_reorder_the_others(nodes in network(), seed in any::<u64>()) {
        let mut left = candidates(&nodes);
        let ranking = left.rank(key(seed), usize::MAX);
        left.remove(nodes[0].node);
        let expected: Vec<_> =
            ranking.into_iter().filter(|node| *node != nodes[0].node).collect();
        prop_assert_eq!(left.rank(key(seed), usize::MAX), &expected[..]);
        let fewer = candidates(&nodes[1..]);
        prop_assert_eq!(fewer.rank(key(seed), usize::MAX), expected);
        prop_assert_eq!(
            left.place(key(seed), Class::default()),
            fewer.place(key(seed), Class::default())
        );
    }

    #[test]
    fn only_slots_of_nodes_that_left_move(
        nodes in network(), seed in any::<u64>(),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let class = Class::default();
        let vector = placed(seed, class, &nodes).expect("there are nodes");
        let gone: HashSet<NodeId> = gone.iter().map(|index| *index.get(&vector)).collect();
        let mut left = candidates(&nodes);
        gone.iter().for_each(|node| left.remove(*node));
        let staying: Vec<_> =
            vector.iter().map(|node| (!gone.contains(node)).then_some(*node)).collect();
        let Some(filled) = left.fill(key(seed), class, &staying) else {
            prop_assert_eq!(left.rank(key(seed), 1).len(), 0);
            return Ok(());
        };
        for (before, after) in vector.iter().zip(&filled) {
            prop_assert!(!gone.contains(after));
            prop_assert!(before == after || gone.contains(before), "a slot moved that need not");
        }
        // As spread out as if it had been placed anew, wherever the regions leave room for that.
        if nodes.len() > class.width() + 20 && left.region_count() > 4 {
            prop_assert_eq!(filled.iter().collect::<HashSet<_>>().len(), class.width());
        }
    }

    #[test]
    fn the_best_are_the_same_however_many_are_asked_for(
        seed in any::<u64>(), count in 0..300_usize,
    ) {
        let nodes: Vec<_> = (0..250_u16).map(|n| candidate(n, 0, 1 + u64::from(n % 7))).collect();
        let all = candidates(&nodes).rank(key(seed), usize::MAX);
        prop_assert_eq!(all.len(), 250);
        let some = candidates(&nodes).rank(key(seed), count);
        prop_assert_eq!(&some[..], &all[..count.min(250)]);
    }
}

/// Slots of each of 1,000 equal nodes after 100,000 groups of one stripe.
#[test]
fn equal_nodes_get_equal_shares() {
    const GROUPS: u64 = 100_000;
    const THREADS: usize = 4;
    let nodes: Vec<_> = (0..1000_u16).map(|n| candidate(n, (n % 20) as u8, 1 << 40)).collect();
    let (all, class) = (candidates(&nodes), Class::default());
    let deal = |thread: usize| {
        let mut slots: HashMap<NodeId, u32> = HashMap::new();
        for seed in (0..GROUPS).skip(thread).step_by(THREADS) {
            let vector = all.place(key(seed), class).expect("there are nodes");
            vector.into_iter().for_each(|node| *slots.entry(node).or_default() += 1);
        }
        slots
    };
    let dealt: Vec<HashMap<NodeId, u32>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || deal(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let slots = |node: &NodeId| dealt.iter().filter_map(|slots| slots.get(node)).sum::<u32>();
    let mean = GROUPS as f64 * class.width() as f64 / nodes.len() as f64;
    let deviations = nodes.iter().map(|it| f64::from(slots(&it.node)) / mean - 1.0);
    let rms = (deviations.clone().map(|it| it * it).sum::<f64>() / nodes.len() as f64).sqrt();
    let most = deviations.map(f64::abs).fold(0.0, f64::max);
    println!("root mean square deviation {rms:.4}, largest {most:.4}");
    assert!(rms <= 0.03, "{rms}");
    assert!(most <= 0.12, "{most}");
}
