// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: turns are kept, bounds hold, nothing is lost, whatever clients do.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::{Strategy, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Asked, Bounds, FOREGROUND_SHARE, Rank, Terms, Ticket, Turns, WaitedFor};

const ANY: usize = usize::MAX;

fn turns(capacity: u64, quantum: u64) -> Turns<u8> {
    Turns::new(Bounds { capacity, quantum, waiters_max: ANY })
}

fn terms(rank: Rank) -> Terms {
    Terms { rank, held_max: u64::MAX, waiters_max: ANY }
}

const FOREGROUND: Terms = Terms { rank: Rank::Foreground, held_max: u64::MAX, waiters_max: ANY };

fn line(turns: &mut Turns<u8>, key: u8, terms: Terms, cost: u64) -> Ticket {
    match turns.ask(key, terms, cost) {
        Asked::Waits(ticket) => ticket,
        other => panic!("{key} does not wait: {other:?}"),
    }
}

/// One holder of everything gives it back unit by unit; who gets each unit, in order.
fn served(turns: &mut Turns<u8>, owners: &HashMap<Ticket, u8>, count: usize) -> Vec<u8> {
    let mut order = Vec::new();
    let mut holder = 255;
    while order.len() < count {
        turns.give_back(holder, 1);
        let ticket = turns.next().expect("somebody waits");
        holder = owners[&ticket];
        order.push(holder);
        assert_eq!(turns.next(), None, "one unit is one grant");
    }
    order
}

#[test]
fn a_thousand_requests_in_line_are_one_turn() {
    let mut turns = turns(1, 1);
    assert_eq!(turns.ask(255, FOREGROUND, 1), Asked::Granted);
    let mut owners = HashMap::new();
    for _ in 0..1000 {
        owners.insert(line(&mut turns, 0, FOREGROUND, 1), 0);
    }
    for honest in 1..=3 {
        owners.insert(line(&mut turns, honest, FOREGROUND, 1), honest);
    }
    assert_eq!(served(&mut turns, &owners, 6), [0, 1, 2, 3, 0, 0]);
}

#[test]
fn a_large_request_is_paid_off_before_the_next() {
    let mut turns = turns(1, 1);
    assert_eq!(turns.ask(255, FOREGROUND, 1), Asked::Granted);
    let large = line(&mut turns, 0, FOREGROUND, 10);
    let again = line(&mut turns, 0, FOREGROUND, 1);
    let small: Vec<_> = (0..20).map(|_| line(&mut turns, 1, FOREGROUND, 1)).collect();
    turns.give_back(255, 1);
    assert_eq!(turns.next(), Some(large), "alone, it may be larger than the capacity");
    turns.give_back(0, 10);
    for ticket in &small[..10] {
        assert_eq!(turns.next(), Some(*ticket));
        turns.give_back(1, 1);
    }
    assert_eq!(turns.next(), Some(again), "ten units later they are even");
}

#[test]
fn repair_waits_for_foreground_and_gets_its_share() {
    let mut turns = turns(1, 1);
    assert_eq!(turns.ask(255, FOREGROUND, 1), Asked::Granted);
    let mut owners = HashMap::new();
    for _ in 0..100 {
        owners.insert(line(&mut turns, 9, terms(Rank::Repair), 1), 9);
        owners.insert(line(&mut turns, 0, FOREGROUND, 1), 0);
        owners.insert(line(&mut turns, 1, FOREGROUND, 1), 1);
    }
    let order = served(&mut turns, &owners, 160);
    let repairs: Vec<_> = (0..160).filter(|at| order[*at] == 9).collect();
    let every = usize::try_from(FOREGROUND_SHARE).expect("small") + 1;
    assert_eq!(repairs, (1..=10).map(|nth| nth * every - 1).collect::<Vec<_>>());
}

#[test]
fn a_client_at_its_maximum_steps_aside_and_comes_back() {
    let mut turns = turns(4, 1);
    let capped = Terms { held_max: 2, ..FOREGROUND };
    assert_eq!(turns.ask(0, capped, 2), Asked::Granted);
    let waits = line(&mut turns, 0, capped, 1);
    assert_eq!(turns.next(), None);
    assert_eq!(turns.ask(1, capped, 1), Asked::Granted, "who is at its maximum holds up nobody");
    turns.give_back(0, 2);
    assert_eq!(turns.next(), Some(waits));
    let (first, second) = (line(&mut turns, 0, capped, 2), line(&mut turns, 0, capped, 1));
    assert_eq!(turns.next(), None);
    assert_eq!(turns.abandon(first), Some(WaitedFor::Client));
    assert_eq!(turns.next(), Some(second), "what comes after it is small enough");
    assert_eq!(turns.abandon(second), None, "it was granted");
}

#[test]
fn lines_are_bounded() {
    let mut turns = Turns::new(Bounds { capacity: 1, quantum: 1, waiters_max: 3 });
    let short = Terms { waiters_max: 2, ..FOREGROUND };
    assert_eq!(turns.ask(255, short, 1), Asked::Granted);
    let first = line(&mut turns, 0, short, 1);
    line(&mut turns, 0, short, 1);
    assert_eq!(turns.ask(0, short, 1), Asked::ClientFull);
    line(&mut turns, 1, short, 1);
    assert_eq!(turns.ask(2, short, 1), Asked::Full);
    assert_eq!(turns.clients.len(), 3, "who was turned away leaves nothing behind");
    assert_eq!(turns.abandon(first), Some(WaitedFor::Room));
    line(&mut turns, 2, short, 1);
}

#[test]
fn abandoned_requests_leave_nothing_behind() {
    let mut turns = turns(1, 1);
    assert_eq!(turns.ask(255, FOREGROUND, 1), Asked::Granted);
    let stays = line(&mut turns, 0, FOREGROUND, 1);
    for key in 0..200 {
        for _ in 0..50 {
            let ticket = line(&mut turns, key, FOREGROUND, 1);
            assert!(turns.abandon(ticket).is_some());
        }
    }
    let kept: usize = turns.clients.values().map(|client| client.queue.len()).sum();
    assert!(kept < 100, "{kept} requests are kept");
    let places = turns.foreground.places.len();
    assert!(places < 50, "{places} places are kept");
    assert!(turns.clients.len() < 50, "{} clients are kept", turns.clients.len());
    turns.give_back(255, 1);
    assert_eq!(turns.next(), Some(stays));
    turns.give_back(0, 1);
    assert_eq!((turns.next(), turns.held(), turns.waiting()), (None, 0, 0));
    assert!(turns.clients.is_empty());
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Ask { key: u8, cost: u64 },
    GiveBack(usize),
    Abandon(usize),
    Capacity(u64),
}

const COST_MAX: u64 = 9;

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0..8u8, 1..=COST_MAX).prop_map(|(key, cost)| Deed::Ask { key, cost }),
        4 => (0..1000usize).prop_map(Deed::GiveBack),
        1 => (0..1000usize).prop_map(Deed::Abandon),
        1 => (1..20u64).prop_map(Deed::Capacity),
    ]
}

/// Of each client: 6 and 7 repair, the odd ones have a maximum of their own.
fn terms_of(key: u8) -> Terms {
    let rank = if key >= 6 { Rank::Repair } else { Rank::Foreground };
    let held_max = if key % 2 == 1 { 7 } else { u64::MAX };
    Terms { rank, held_max, waiters_max: 40 }
}

struct Waiter {
    key: u8,
    cost: u64,
    /// Units that others of its rank may get before it; `None` if no bound was promised.
    bound: Option<u64>,
    overtaken: u64,
}

struct World {
    turns: Turns<u8>,
    quantum: u64,
    held: Vec<(u8, u64)>,
    waiters: BTreeMap<Ticket, Waiter>,
}

impl World {
    fn ask(&mut self, key: u8, cost: u64) {
        let terms = terms_of(key);
        let known = self.turns.clients.get(&key);
        let owes = known.is_some_and(|client| client.balance < 0);
        let is_first = known.is_none_or(|client| client.waiting == 0);
        let is_promised = !owes && is_first && terms.held_max == u64::MAX;
        let of_rank = |waiter: &&Waiter| terms_of(waiter.key).rank == terms.rank;
        let mut others: Vec<u8> =
            self.waiters.values().filter(of_rank).map(|waiter| waiter.key).collect();
        others.sort_unstable();
        others.dedup();
        let bound = is_promised.then_some(others.len() as u64 * (self.quantum + COST_MAX));
        match self.turns.ask(key, terms, cost) {
            Asked::Granted => self.held.push((key, cost)),
            Asked::Waits(ticket) => {
                let waiter = Waiter { key, cost, bound, overtaken: 0 };
                self.waiters.insert(ticket, waiter);
            }
            Asked::ClientFull | Asked::Full => {}
        }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Ask { key, cost } => self.ask(key, cost),
            Deed::GiveBack(nth) if !self.held.is_empty() => {
                let (key, cost) = self.held.swap_remove(nth % self.held.len());
                self.turns.give_back(key, cost);
            }
            Deed::Abandon(nth) if !self.waiters.is_empty() => {
                let ticket = *self.waiters.keys().nth(nth % self.waiters.len()).expect("some");
                self.waiters.remove(&ticket);
                assert!(self.turns.abandon(ticket).is_some(), "it waits");
            }
            Deed::Capacity(capacity) => {
                let bounds = Bounds { capacity, ..self.turns.bounds };
                self.turns.set_bounds(bounds);
            }
            Deed::GiveBack(_) | Deed::Abandon(_) => {}
        }
    }

    fn grant_all(&mut self) {
        while let Some(ticket) = self.turns.next() {
            let granted = self.waiters.remove(&ticket).expect("each ticket is granted once");
            let rank = terms_of(granted.key).rank;
            if let Some(bound) = granted.bound {
                assert!(granted.overtaken <= bound, "{} > {bound}", granted.overtaken);
            }
            for waiter in self.waiters.values_mut() {
                if waiter.key != granted.key && terms_of(waiter.key).rank == rank {
                    waiter.overtaken += granted.cost;
                }
            }
            let alone = self.held.is_empty();
            self.held.push((granted.key, granted.cost));
            let sum: u64 = self.held.iter().map(|(_, cost)| cost).sum();
            assert!(alone || sum <= self.turns.bounds.capacity, "{sum} units are held");
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_overtaken_beyond_the_bound_and_nothing_is_lost(
        quantum in 1..12u64,
        capacity in 1..20u64,
        deeds in prop::collection::vec(deed(), 1..400),
    ) {
        let mut world = World {
            turns: turns(capacity, quantum),
            quantum,
            held: Vec::new(),
            waiters: BTreeMap::new(),
        };
        for deed in deeds {
            world.act(deed);
            world.grant_all();
            let sum: u64 = world.held.iter().map(|(_, cost)| cost).sum();
            prop_assert_eq!(world.turns.held(), sum);
            prop_assert_eq!(world.turns.waiting(), world.waiters.len());
            let is_idle = world.turns.held() == 0 && !world.waiters.is_empty();
            prop_assert!(!is_idle, "nothing is held and somebody waits");
        }
        while let Some((key, cost)) = world.held.pop() {
            world.turns.give_back(key, cost);
            world.grant_all();
        }
        prop_assert!(world.waiters.is_empty(), "all were served in the end");
        prop_assert!(world.turns.clients.is_empty(), "nobody is remembered");
    }
}
