// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random histories of calls and blocks, each step compared with the model.
//!
//! A history is its seed; the one of a failing history is printed, and `HISTORY_SEED` runs that
//! one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use frame_support::assert_ok;
use frame_support::traits::fungible::Inspect;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::mock::{
    Balances, CLIENTS, Object, RuntimeOrigin, Supernode, Test, chain, events, next_block, owner,
    parameters, pot, submit,
};
use crate::pallet::{
    Agenda, AuditResults, Closings, Deals, EndedDeals, Event, Holdings, NextDeal, OpenAudits, Owed,
    Reservations, Rewards,
};
use crate::tests::model::{Asked, Due, Model, Periods};
use crate::types::{NOBODY, Parameters, Queue};

const HISTORIES: u64 = 40;
const STEPS: usize = 400;
const NODES: u32 = 6;
/// More would make blocks carry work over, which the model does not tell; `bounds` tests that.
const DEALS_MAX: usize = 6;

struct History {
    rng: ChaCha8Rng,
    objects: Vec<Object>,
    model: Model,
    issued: u128,
    /// How often something happened, so that a history in which nothing does is noticed.
    seen: BTreeMap<&'static str, u32>,
}

/// Shapes with gaps, without parity, with many slots on a node, with an empty group.
fn objects() -> Vec<Object> {
    vec![
        Object::new(1, 2, vec![(3, vec![0, 1, 2, 3]), (1, vec![2, 3, 4, 5])], 2_048),
        Object::new(2, 1, vec![(2, vec![0])], 1_000),
        Object::new(3, 2, vec![(1, vec![5, NOBODY, 5, 1]), (0, vec![0, 1, 2, 3])], 100),
        Object::new(4, 3, vec![(1, vec![4, 3, 2])], 20_000),
        Object::new(5, 2, vec![(0, vec![1, 2, 3, 4]), (5, vec![0, 0, 1, 1])], 64),
    ]
}

impl History {
    fn new(seed: u64) -> Self {
        let Parameters {
            price_per_gib_block: price,
            activation_window: activation,
            duration_min,
            duration_max,
            audit_interval: interval,
            audit_window: window,
            tombstone_blocks: kept,
            slots_per_round,
            ..
        } = parameters();
        let periods = Periods { activation, duration_min, duration_max, interval, window, kept };
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            objects: objects(),
            model: Model::new(periods, price, slots_per_round.into(), &CLIENTS),
            issued: Balances::total_issuance(),
            seen: BTreeMap::new(),
        }
    }

    fn saw(&mut self, what: &'static str, happened: bool) {
        *self.seen.entry(what).or_default() += u32::from(happened);
    }

    fn client(&mut self) -> u64 {
        *CLIENTS.choose(&mut self.rng).expect("some clients")
    }

    /// The owner mostly, a stranger sometimes.
    fn caller(&mut self, owner: Option<u64>) -> u64 {
        match owner {
            Some(owner) if self.rng.random_bool(0.8) => owner,
            _ => self.client(),
        }
    }

    fn any_deal(&mut self) -> Option<u64> {
        let ids: Vec<_> = self.model.deals.keys().copied().collect();
        ids.choose(&mut self.rng).copied()
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..2 => self.reserve(),
            2..5 => self.activate(),
            5 => self.renew(),
            6 => self.cancel(),
            7..11 => self.prove(),
            11 => self.claim(),
            12 => self.reprice(),
            _ => self.block(),
        }
    }

    fn reserve(&mut self) {
        if self.model.reservations.len() + self.model.deals.len() >= DEALS_MAX {
            return;
        }
        let owner = self.client();
        let object = self.objects.choose(&mut self.rng).expect("some objects");
        let bytes = match self.rng.random_range(0..8) {
            0 => 0,
            1 => object.bytes() - 1,
            2 => object.bytes(),
            _ => object.bytes() * 3,
        };
        let duration = self.rng.random_range(3..90);
        let max_price = self.rng.random_range(self.model.price / 8 * 7..self.model.price * 4);
        let origin = RuntimeOrigin::signed(owner);
        let done = Supernode::reserve(origin, bytes, duration, max_price);
        let id = NextDeal::<Test>::get();
        let told = self.model.reserve(id, owner, (bytes, duration), max_price);
        assert_eq!(done.is_ok(), told, "reserve: {done:?}");
        self.saw("reserved", told);
    }

    fn activate(&mut self) {
        let ids: Vec<_> = self.model.reservations.keys().copied().collect();
        let id = ids.choose(&mut self.rng).copied().unwrap_or(1);
        let owner = self.model.reservations.get(&id).map(|reserved| reserved.owner);
        let caller = self.caller(owner);
        let number = self.rng.random_range(0..self.objects.len());
        let object = self.objects[number].clone();
        let mut receipts = object.receipts(id);
        let forged = self.rng.random_bool(0.1);
        if forged {
            let at = self.rng.random_range(0..receipts.len());
            receipts[at].signature[self.rng.random_range(0..64)] ^= 1;
        }
        let done = object.activate_with(caller, id, receipts);
        let told = !forged && self.model.activate(id, caller, number, &object);
        assert_eq!(done.is_ok(), told, "activate {id}: {done:?}");
        self.saw("activated", told);
    }

    fn renew(&mut self) {
        let Some(id) = self.any_deal() else { return };
        let caller = self.caller(Some(self.model.deals[&id].owner));
        let duration = self.rng.random_range(3..60);
        let max_price = self.rng.random_range(self.model.price / 8 * 7..self.model.price * 4);
        let done = Supernode::renew(RuntimeOrigin::signed(caller), id, duration, max_price);
        let told = self.model.renew(id, caller, duration, max_price);
        assert_eq!(done.is_ok(), told, "renew {id}: {done:?}");
        self.saw("renewed", told);
    }

    fn cancel(&mut self) {
        if self.rng.random_bool(0.6) {
            return;
        }
        let id = self.rng.random_range(1..=NextDeal::<Test>::get().max(1));
        let owner = self.model.deals.get(&id).map(|deal| deal.owner);
        let caller = self.caller(owner);
        let done = Supernode::cancel(RuntimeOrigin::signed(caller), id);
        let told = self.model.cancel(id, caller);
        assert_eq!(done.is_ok(), told, "cancel {id}: {done:?}");
        self.saw("cancelled", told);
    }

    /// A batch of proofs by one node: its own and others' audits, honest, damaged and made up.
    fn prove(&mut self) {
        let node = self.rng.random_range(0..NODES);
        let mut batch = Vec::new();
        let mut expected = BTreeSet::new();
        for (audit, asked) in self.model.open.clone() {
            if (asked.node != node && self.rng.random_bool(0.9)) || self.rng.random_bool(0.3) {
                continue;
            }
            let record = OpenAudits::<Test>::get(asked.node, audit).expect("open in both");
            let object = self.objects.iter().find(|object| object.name == record.object);
            let mut bytes = object.expect("one of ours").proof(&record).encode();
            let honest = self.rng.random_bool(0.7);
            if !honest {
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            batch.push((audit, bytes));
            if self.model.prove(node, audit, honest) {
                expected.insert(audit);
            }
        }
        assert_ok!(submit(node, batch.clone()));
        let passed = events().into_iter().filter_map(|event| match event {
            Event::AuditPassed { audit, .. } => Some(audit),
            _ => None,
        });
        let sent: BTreeSet<_> = batch.into_iter().map(|(audit, _)| audit).collect();
        let passed: BTreeSet<_> = passed.filter(|audit| sent.contains(audit)).collect();
        assert_eq!(passed, expected);
        self.saw("passed", !passed.is_empty());
    }

    fn claim(&mut self) {
        let node = self.rng.random_range(0..NODES);
        // Holders that are being settled are not told apart from those that are.
        if !self.model.closing.is_empty() {
            return;
        }
        let reward = self.model.rewards.get(&node).copied().unwrap_or(0);
        let known = Balances::balance(&owner(node)) > 0;
        let told = reward > 0 && (known || reward >= crate::mock::DEPOSIT);
        let done = Supernode::claim_rewards(RuntimeOrigin::signed(owner(node)), node);
        assert_eq!(done.is_ok(), told, "claim of {reward} for {node}: {done:?}");
        if told {
            self.model.claim(node, owner(node));
        }
        self.saw("claimed", told);
    }

    fn reprice(&mut self) {
        let price = (1 << 20) * self.rng.random_range(1..200) / 40;
        let slots_per_round = self.rng.random_range(1..6);
        let changed = Parameters { price_per_gib_block: price, slots_per_round, ..parameters() };
        assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), changed));
        self.model.price = price;
        self.model.slots_per_round = slots_per_round.into();
    }

    fn block(&mut self) {
        let told = self.model.next_block();
        assert_eq!(next_block(), self.model.now);
        let mut done = Due::default();
        let mut visited: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for event in events() {
            match event {
                Event::AuditFailed { audit, .. } => drop(done.failed.insert(audit)),
                Event::AuditDropped { audit, .. } => drop(done.dropped.insert(audit)),
                Event::DealEnded { deal, .. } => drop(done.ended.insert(deal)),
                Event::ReservationEnded { deal, .. } => drop(done.lapsed.insert(deal)),
                Event::DealSettled { deal, refunded } => {
                    assert_eq!(refunded, self.model.settled(deal), "refund of {deal}");
                }
                Event::AuditOpened { audit, node, deal, stripe, index, deadline } => {
                    assert_eq!(deadline, self.model.now + self.model.periods.window);
                    done.rounds.insert(deal);
                    let object = &self.objects[self.model.deals[&deal].object];
                    let slot = u64::from(stripe) * u64::from(object.width) + u64::from(index);
                    visited.entry(deal).or_default().push(slot);
                    self.model.open.insert(audit, Asked { node, deal, slot, deadline });
                }
                _ => {}
            }
        }
        self.saw("failed", !done.failed.is_empty());
        self.saw("dropped", !done.dropped.is_empty());
        self.saw("ended", !done.ended.is_empty());
        self.saw("lapsed", !done.lapsed.is_empty());
        self.check_rounds(&told, &visited);
        // A round over unassigned slots alone opens nothing.
        done.rounds.clone_from(&told.rounds);
        assert_eq!(done, told, "block {}", self.model.now);
    }

    fn check_rounds(&self, told: &Due, visited: &BTreeMap<u64, Vec<u64>>) {
        assert!(visited.keys().all(|deal| told.rounds.contains(deal)), "rounds out of turn");
        for deal in &told.rounds {
            let object = &self.objects[self.model.deals[deal].object];
            let groups = object.groups.iter();
            let nodes: Vec<u32> =
                groups.flat_map(|(stripes, nodes)| nodes.repeat((*stripes).into())).collect();
            let slots = nodes.len() as u64;
            let most = slots.min(self.model.slots_per_round);
            let asked = visited.get(deal).cloned().unwrap_or_default();
            // Some start explains what was asked: the slots from there on that somebody holds.
            let fits = (0..slots).any(|start| {
                let held = (start..start + most)
                    .map(|slot| slot % slots)
                    .filter(|slot| nodes[usize::try_from(*slot).expect("small")] != NOBODY);
                held.eq(asked.iter().copied())
            });
            assert!(fits, "deal {deal}: {asked:?} of {slots} slots");
            let open = self.model.open.values().filter(|it| it.deal == *deal);
            let distinct: BTreeSet<_> = open.clone().map(|it| it.slot).collect();
            assert_eq!(distinct.len(), open.count(), "a slot has one open audit at most");
        }
    }

    fn compare(&self) {
        let model = &self.model;
        assert_eq!(Balances::total_issuance(), self.issued, "nothing is minted or burnt");
        for (account, balance) in &model.balances {
            assert_eq!(Balances::balance(account), *balance, "account {account}");
        }
        assert_eq!(pot(), model.pot());
        let reserved: u128 = Reservations::<Test>::iter_values().map(|it| it.escrow).sum();
        let living: u128 = Deals::<Test>::iter_values().map(|it| it.escrow).sum();
        let closing: u128 = Closings::<Test>::iter_values().map(|it| it.deal.escrow).sum();
        let rewards: u128 = Rewards::<Test>::iter_values().sum();
        let owed: u128 = Owed::<Test>::iter_values().sum();
        assert_eq!(pot(), reserved + living + closing + rewards + owed, "the pot is all of these");
        assert!(Reservations::<Test>::iter_keys().all(|id| model.reservations.contains_key(&id)));
        assert_eq!(Reservations::<Test>::iter().count(), model.reservations.len());
        assert_eq!(Deals::<Test>::iter().count(), model.deals.len());
        for (id, told) in &model.deals {
            let deal = Deals::<Test>::get(id).expect("it lives in both");
            assert_eq!((deal.escrow, deal.expires_at), (told.escrow, told.expires_at), "deal {id}");
            for (node, told) in &told.held {
                let held = Holdings::<Test>::get(node, id).expect("it holds in both");
                let done = (held.bytes, held.settled_at, held.passed, held.failed);
                let failed_since = told.verdicts.contains(&false);
                let told = (told.bytes, told.settled_at, told.passed, told.failed);
                assert_eq!(done, told, "node {node}, deal {id}");
                let open = usize::try_from(held.open).expect("few");
                assert_eq!(open, model.asked(*id, *node), "node {node}, deal {id}");
                assert_eq!(held.failed_since, failed_since, "node {node}, deal {id}");
            }
        }
        if model.closing.is_empty() {
            for node in 0..NODES {
                let told = model.rewards.get(&node).copied().unwrap_or(0);
                assert_eq!(Rewards::<Test>::get(node), told, "rewards of {node}");
            }
        }
        assert_eq!(Closings::<Test>::iter().count(), model.closing.len());
        assert_eq!(OpenAudits::<Test>::iter().count(), model.open.len());
        self.compare_tombstones();
    }

    fn compare_tombstones(&self) {
        let done: BTreeMap<_, _> =
            EndedDeals::<Test>::iter().map(|(id, it)| (id, (it.at, it.cancelled))).collect();
        let told = self.model.ended.iter().map(|(id, it)| (*id, (it.0, it.1)));
        assert_eq!(done, told.collect());
        let done: BTreeMap<_, _> =
            AuditResults::<Test>::iter().map(|(id, it)| (id, it.passed)).collect();
        assert_eq!(done, self.model.results.iter().map(|(id, it)| (*id, it.0)).collect());
        self.compare_agenda();
    }

    /// Nothing stays on the agenda that is not to be done.
    fn compare_agenda(&self) {
        let model = &self.model;
        let mut listed = BTreeMap::new();
        for ((queue, _, _), _) in Agenda::<Test>::iter() {
            *listed.entry(format!("{queue:?}")).or_insert(0) += 1;
        }
        for (queue, count) in [
            (Queue::Deadlines, model.open.len()),
            (Queue::Expiries, model.deals.len()),
            (Queue::Settlements, model.closing.len()),
            (Queue::Lapses, model.reservations.len()),
            (Queue::Tombstones, model.ended.len() - model.closing.len()),
            (Queue::Results, model.results.len()),
        ] {
            let queue = format!("{queue:?}");
            assert_eq!(listed.get(&queue).copied().unwrap_or(0), count, "{queue}");
        }
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u32> {
    chain(NODES).execute_with(|| {
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
            history.compare();
        }
        // Whatever is left comes to an end by itself, and all that remains is rewards.
        for _ in 0..parameters().duration_max {
            if history.model.is_over() {
                break;
            }
            history.block();
        }
        history.compare();
        assert!(history.model.is_over());
        assert_eq!(pot(), Rewards::<Test>::iter_values().sum());
        let spans = [("whole", history.model.whole), ("spoilt", history.model.spoilt)];
        history.seen.extend(spans);
        history.seen
    })
}

#[test]
fn histories_agree_with_the_model() {
    let only = env::var("HISTORY_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = only.map_or(0..HISTORIES, |seed: u64| seed..seed + 1);
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        let counts = result.unwrap_or_else(|panic| {
            println!("history {seed} failed: HISTORY_SEED={seed} runs it alone");
            resume_unwind(panic)
        });
        counts.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    println!("{seen:?}");
    if only.is_none() {
        assert!(seen.len() == 12 && seen.values().all(|count| *count > 20), "{seen:?}");
    }
}
