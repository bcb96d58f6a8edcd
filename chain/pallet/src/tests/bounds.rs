// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much one block does and one object takes, however much there is to do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use frame_support::assert_ok;
use hash_db::Prefix;
use sp_core::{Blake2Hasher, H256};
use sp_externalities::set_and_run_with_externalities;
use sp_io::TestExternalities;
use sp_io::hashing::twox_128;
use sp_io::storage::{get as stored, next_key};
use sp_state_machine::{Ext, OverlayedChanges, TrieBackendBuilder, TrieBackendStorage};
use sp_trie::{DBValue, PrefixedMemoryDB};

use crate::agenda::Budget;
use crate::mock::{
    AUDITS, Object, RuntimeOrigin, Supernode, System, TASKS, Test, chain, events, next_block,
    parameters, pot, reserve, run_to, small_object,
};
use crate::pallet::{
    Agenda, AuditResults, Closings, Deals, EndedDeals, Event, Groups, Holdings, NextAudit,
    OpenAudits, Reservations, Rewards,
};
use crate::types::{Parameters, Queue};
use crate::weights;

/// What one block cost.
#[derive(Debug, Default, Clone, Copy)]
struct Work {
    /// Keys it wrote.
    written: usize,
    /// Nodes of the state's tree it fetched: five to ten for every key it looked at.
    read: usize,
}

/// A chain on which `count` deals, made in one block, are audited and end together.
fn crowded(count: usize) -> TestExternalities {
    let mut chain = chain(6);
    chain.execute_with(|| {
        let object = Object::unmade(1, 1, vec![(1, vec![0])], 1 << 20);
        for _ in 0..count {
            object.deal(1, 400);
        }
    });
    chain
}

/// The state's tree, counting how often somebody fetches a node of it.
struct Counting<'a> {
    nodes: &'a PrefixedMemoryDB<Blake2Hasher>,
    fetched: AtomicUsize,
}

impl TrieBackendStorage<Blake2Hasher> for Counting<'_> {
    fn get(&self, key: &H256, prefix: Prefix<'_>) -> Result<Option<DBValue>, String> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        TrieBackendStorage::<Blake2Hasher>::get(self.nodes, key, prefix)
    }
}

/// Tries the next block on the side and counts; then runs it in earnest.
fn work(chain: &mut TestExternalities) -> Work {
    chain.commit_all().expect("no transaction is open");
    let nodes = chain.backend.backend_storage();
    let storage = Counting { nodes, fetched: AtomicUsize::new(0) };
    let backend = TrieBackendBuilder::new(storage, *chain.backend.root()).build();
    let mut overlay = OverlayedChanges::default();
    set_and_run_with_externalities(&mut Ext::new(&mut overlay, &backend, None), next_block);
    let written = overlay.changes().count();
    let read = backend.backend_storage().fetched.load(Ordering::Relaxed);
    chain.execute_with(next_block);
    Work { written, read }
}

/// The most that any of the next blocks does.
fn most_work(chain: &mut TestExternalities, blocks: u32) -> Work {
    let mut most = Work::default();
    for _ in 0..blocks {
        let Work { written, read } = work(chain);
        most = Work { written: most.written.max(written), read: most.read.max(read) };
    }
    most
}

#[test]
fn a_block_does_no_more_at_ten_thousand_deals() {
    let audited = |count: usize| {
        let mut chain = crowded(count);
        // Rounds begin in block 11 and from then on are always more than a block has room for.
        let work = most_work(&mut chain, 40);
        let opened = chain.execute_with(NextAudit::<Test>::get);
        (work, opened)
    };
    let ((few, opened_few), (many, opened_many)) = (audited(400), audited(10_000));
    println!("400 deals: {few:?}, {opened_few} audits; 10,000: {many:?}, {opened_many} audits");
    // Both chains have all the work they can take, or the comparison would say little.
    assert!(opened_few > 580 && opened_many > 580, "{opened_few} and {opened_many} audits");
    assert!(many.written * 10 <= few.written * 11, "{many:?} against {few:?}");
    // The tree is deeper by log16(25), which is less than two levels.
    assert!(many.read * 10 <= few.read * 16, "{many:?} against {few:?}");
    // Per unit of work at most seven keys, and a few for the block itself.
    let units = usize::try_from(6 * TASKS + AUDITS).expect("small");
    assert!(many.written <= 7 * units + 40, "{many:?}");
}

#[test]
fn deals_that_end_together_end_in_order_and_in_parts() {
    let count = 2_000;
    let mut chain = crowded(count);
    chain.execute_with(|| {
        // Nobody answers; with audits this rare nothing else happens.
        run_to(400);
    });
    let mut ended = Vec::new();
    let mut blocks = 0;
    while ended.len() < count {
        let Work { written, .. } = work(&mut chain);
        assert!(written <= 7 * usize::try_from(6 * TASKS + AUDITS).expect("small") + 40);
        let of_block = chain.execute_with(|| {
            let ended = events().into_iter().filter_map(|event| match event {
                Event::DealEnded { deal, at: 401, cancelled: false } => Some(deal),
                _ => None,
            });
            ended.collect::<Vec<_>>()
        });
        assert!((1..=TASKS as usize).contains(&of_block.len()), "{}", of_block.len());
        ended.extend(of_block);
        blocks += 1;
        assert!(blocks < 500, "{} of {count} ended", ended.len());
    }
    assert_eq!(ended, (1..=count as u64).collect::<Vec<_>>(), "in the order they were due");
    chain.execute_with(|| {
        let mut left = 1_000;
        while Closings::<Test>::iter().next().is_some() && left > 0 {
            next_block();
            left -= 1;
        }
        assert_eq!(Deals::<Test>::iter().count() + Closings::<Test>::iter().count(), 0);
        assert_eq!(Groups::<Test>::iter().count() + Holdings::<Test>::iter().count(), 0);
        assert_eq!(pot(), Rewards::<Test>::iter_values().sum(), "all escrow is spent or returned");
    });
}

#[test]
fn the_smallest_budget_gets_on() {
    chain(6).execute_with(|| {
        next_block();
        let object = small_object(1);
        let audited = object.deal(1, 500);
        let ended = object.deal(1, 500);
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), ended));
        System::set_block_number(12);
        // One step at a time: two groups, or four slots, and the ten blocks that have passed.
        for _ in 0..14 {
            Supernode::serve(Queue::Settlements, 12, &mut Budget::new(1));
            Supernode::serve(Queue::Rounds, 12, &mut Budget::new(1));
        }
        assert!(!Closings::<Test>::contains_key(ended));
        assert_eq!(NextAudit::<Test>::get(), 4);
        assert!(Deals::<Test>::get(audited).expect("it lives").round.is_none());
    });
}

#[test]
fn what_a_block_has_no_room_for_comes_first_in_the_next() {
    chain(1).execute_with(|| {
        let first: Vec<_> = (0..50).map(|_| reserve(1, 1, 5)).collect();
        run_to(2);
        let second: Vec<_> = (0..20).map(|_| reserve(1, 1, 5)).collect();
        run_to(11);
        assert_eq!(Reservations::<Test>::iter().count(), 70);
        let mut lapsed = Vec::new();
        for _ in 0..4 {
            next_block();
            let of_block = events().into_iter().filter_map(|event| match event {
                Event::ReservationEnded { deal, .. } => Some(deal),
                _ => None,
            });
            let of_block: Vec<_> = of_block.collect();
            assert!(of_block.len() <= TASKS as usize);
            lapsed.extend(of_block);
        }
        assert_eq!(lapsed, [first, second].concat());
    });
}

#[test]
fn a_round_that_is_too_large_for_a_block_goes_on_where_it_stopped() {
    chain(6).execute_with(|| {
        let everything = Parameters { slots_per_round: 1_000, ..parameters() };
        assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), everything));
        let groups = vec![(10, vec![0, 1, 2, 3]), (0, vec![0, 1, 2, 3]), (15, vec![2, 3, 4, 5])];
        let deal = Object::unmade(1, 2, groups, 64).deal(1, 500);
        run_to(11);
        let mut asked = Vec::new();
        for _ in 0..3 {
            let before = asked.len();
            for event in events() {
                if let Event::AuditOpened { stripe, index, node, .. } = event {
                    let base = if stripe < 10 { 0 } else { 2 };
                    assert_eq!(node, base + u32::from(index), "stripe {stripe}");
                    asked.push(stripe * 4 + u32::from(index));
                }
            }
            assert!(asked.len() - before <= AUDITS as usize);
            next_block();
        }
        let expected: Vec<_> = (0..100).map(|step| (asked[0] + step) % 100).collect();
        assert_eq!(asked, expected, "every slot once, in order, over three blocks");
        assert!(Deals::<Test>::get(deal).expect("it lives").round.is_none());
    });
}

#[test]
fn everything_is_forgotten_in_the_end() {
    chain(6).execute_with(|| {
        for seed in 0..10 {
            small_object(seed).deal(1, 40);
            reserve(2, 100, 5);
        }
        run_to(200);
        assert_eq!(Deals::<Test>::iter().count() + Reservations::<Test>::iter().count(), 0);
        assert_eq!(Groups::<Test>::iter().count() + Holdings::<Test>::iter().count(), 0);
        assert_eq!(OpenAudits::<Test>::iter().count(), 0);
        assert_eq!(AuditResults::<Test>::iter().count() + EndedDeals::<Test>::iter().count(), 0);
        assert_eq!(Agenda::<Test>::iter().count(), 0, "nothing is left to do");
        assert!(NextAudit::<Test>::get() > 30, "there was something to forget");
    });
}

/// Bytes of all keys and values of the pallet.
fn stored_bytes() -> usize {
    let prefix = twox_128(b"Supernode").to_vec();
    let mut key = prefix.clone();
    let mut bytes = 0;
    while let Some(next) = next_key(&key).filter(|next| next.starts_with(&prefix)) {
        bytes += next.len() + stored(&next).map_or(0, |value| value.len());
        key = next;
    }
    bytes
}

#[test]
fn an_object_of_two_tebibytes_takes_less_than_100_kib() {
    chain(40).execute_with(|| {
        // 512 groups of 64 stripes of 64 MiB, 10 and 4, each group on other nodes.
        let nodes = |group: u32| (0..14).map(|index| (group * 7 + index) % 40).collect();
        let groups: Vec<_> = (0..512).map(|group| (64, nodes(group))).collect();
        let object = Object::unmade(1, 10, groups, 6_713_344);
        assert_eq!(object.bytes(), 512 * 64 * 14 * 6_713_344);
        assert_eq!(object.holders().len(), 40);
        let deal = reserve(1, object.bytes(), 5);
        let before = stored_bytes();
        assert_ok!(object.activate(1, deal));
        let grown = stored_bytes() - before;
        println!("2 TiB on 40 nodes take {grown} bytes, keys included");
        assert!(grown < 100 << 10, "{grown} bytes");
        assert!(grown > 512 * 14 * 4, "the vectors are there");
        assert_eq!(Deals::<Test>::get(deal).expect("it is made").stripe_count, 512 * 64);
    });
}

#[test]
fn weights_grow_with_what_is_done() {
    for queue in Queue::ALL {
        let (none, all) = (weights::queue::<Test>(queue, 0), weights::queue::<Test>(queue, TASKS));
        assert!(all.ref_time() > none.ref_time(), "{queue:?}");
        assert!(all.proof_size() > none.proof_size(), "{queue:?}");
    }
    let kinds: BTreeSet<_> = Queue::ALL.into_iter().map(|queue| format!("{queue:?}")).collect();
    assert_eq!(kinds.len(), 7, "every queue is served once");
}
