// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to look at deal leases.

use std::cell::Cell;

use supernode_protocol::ids::LeaseId;
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::harness::{Lab, World};
use crate::catalog::{Catalog, IndexError, KvRead, Pairs};
use crate::sample::Terms;

/// Counts the entries that are read.
struct Counting<'k, K> {
    kv: &'k K,
    entries: Cell<usize>,
}

impl<K: KvRead> KvRead for Counting<'_, K> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.entries.update(|entries| entries + 1);
        self.kv.get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        let pairs = self.kv.range(start, end, limit)?;
        self.entries.update(|entries| entries + pairs.len());
        Ok(pairs)
    }
}

/// Puts all groups of an object under a deal lease.
fn deal(lab: &mut Lab, number: u8, object: usize) {
    let (kind, expiry) = (LeaseKind::Deal, Expiry::FinalisedHeight(u64::from(number)));
    let terms = Terms { kind, expiry, ..Terms::pin(number, number) };
    for group in 0..lab.world.objects[object].groups.len() {
        let put = lab.world.whole_group(0, object, group, terms);
        lab.perform(&put);
    }
}

#[test]
fn listing_a_deal_costs_the_same_whatever_it_covers() {
    let mut lab = Lab::new(1);
    let groups = |world: &World, object: usize| world.objects[object].groups.len();
    assert_eq!((groups(&lab.world, 0), groups(&lab.world, 1)), (1, 2));
    deal(&mut lab, 1, 0);
    deal(&mut lab, 2, 1);
    let overlay = &**lab.reader.overlay();
    let cost = |look: &dyn Fn(&Catalog<'_, Counting<'_, _>>)| {
        let counting = Counting { kv: overlay, entries: Cell::new(0) };
        look(&Catalog(&counting));
        counting.entries.get()
    };
    let one = |number| LeaseId::from_bytes([number; 16]);
    let small = cost(&|catalog| {
        let deal = catalog.deal(one(1)).expect("a sound index").expect("a deal");
        assert_eq!((deal.group_count, deal.slots), (1, 3));
    });
    let large = cost(&|catalog| {
        let deal = catalog.deal(one(2)).expect("a sound index").expect("a deal");
        assert_eq!((deal.group_count, deal.slots), (2, 6));
    });
    assert_eq!(small, large);
    let due = cost(&|catalog| {
        assert_eq!(catalog.deals_due(9, None, 9).expect("a sound index").len(), 2);
    });
    assert_eq!(due, 2 + small + large, "the queue and the leases");
}
