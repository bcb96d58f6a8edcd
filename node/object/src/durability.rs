// SPDX-License-Identifier: MIT OR Apache-2.0
//! What losses a stored object survives, counted from what is durable and not from what was asked.

use std::collections::HashMap;
use std::hash::Hash;

use supernode_protocol::ids::NodeId;

use crate::error::SurvivedLosses;

/// Losses that something survives, the worst stripe deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// Any so many nodes may vanish.
    pub nodes: SurvivedLosses,
    /// Any so many regions may vanish.
    pub regions: SurvivedLosses,
}

impl Durability {
    /// Of a stripe that needs `need` of the slots that `holders` keep durably, one entry a slot.
    /// A group without stripes is kept by its manifest blocks: one entry a holder, `need` 1.
    pub fn of_slots(holders: &[NodeId], need: usize, region_of: &HashMap<NodeId, String>) -> Self {
        let regions = holders.iter().map(|node| region_of.get(node).map_or("", String::as_str));
        Self { nodes: survived(holders.iter(), need), regions: survived(regions, need) }
    }

    /// The worse of two in each respect.
    pub fn worst(self, other: Self) -> Self {
        Self { nodes: self.nodes.min(other.nodes), regions: self.regions.min(other.regions) }
    }

    /// What nothing can be worse than: the start of a fold.
    pub fn unlimited() -> Self {
        let most = SurvivedLosses(Some(usize::MAX));
        Self { nodes: most, regions: most }
    }
}

/// How many of the largest domains may go before fewer than `need` slots are left.
fn survived<T: Hash + Eq>(domains: impl Iterator<Item = T>, need: usize) -> SurvivedLosses {
    let mut counts: HashMap<T, usize> = HashMap::new();
    domains.for_each(|domain| *counts.entry(domain).or_default() += 1);
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let total: usize = counts.iter().sum();
    let Some(mut spare) = total.checked_sub(need) else {
        return SurvivedLosses(None);
    };
    let losses = counts.iter().take_while(|count| match spare.checked_sub(**count) {
        Some(rest) => {
            spare = rest;
            true
        }
        None => false,
    });
    SurvivedLosses(Some(losses.count()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use supernode_protocol::ids::NodeId;

    use super::Durability;
    use crate::error::SurvivedLosses;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn losses_are_counted_from_the_largest_holder_down() {
        let regions: HashMap<_, _> = (0..14).map(|n| (node(n), format!("R{}", n % 2))).collect();
        let two_each: Vec<_> = (0..14).map(|slot| node(slot % 7)).collect();
        let durable = Durability::of_slots(&two_each, 10, &regions);
        assert_eq!(durable.nodes, SurvivedLosses(Some(2)));
        assert_eq!(durable.regions, SurvivedLosses(Some(0)));

        let one_each: Vec<_> = (0..14).map(node).collect();
        let durable = Durability::of_slots(&one_each, 10, &regions);
        assert_eq!(durable.nodes, SurvivedLosses(Some(4)));

        let nine = Durability::of_slots(&one_each[..9], 10, &regions);
        assert_eq!(nine.nodes, SurvivedLosses(None));
        let ten = Durability::of_slots(&one_each[..10], 10, &regions);
        assert_eq!(ten.nodes, SurvivedLosses(Some(0)));
        assert_eq!(ten.worst(nine).nodes, SurvivedLosses(None));

        let five_slots_on_one = [vec![node(0); 5], (1..10).map(node).collect()].concat();
        let durable = Durability::of_slots(&five_slots_on_one, 10, &regions);
        assert_eq!(durable.nodes, SurvivedLosses(Some(0)), "the loss of one takes five");
    }
}
