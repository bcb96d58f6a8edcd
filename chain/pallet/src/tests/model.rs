// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pallet as slowly as it can be told: prices as one number per block, settlements as sums
//! over blocks, due times as searches through everything. It shares no arithmetic and no data
//! structure with the pallet; what both say must be equal.

use std::collections::{BTreeMap, BTreeSet};

use crate::mock::{Object, WEALTH};

/// Bytes in a GiB.
const GIB: u128 = 1 << 30;

/// The periods that histories run with; they do not change.
#[derive(Clone, Copy)]
pub struct Periods {
    pub activation: u32,
    pub duration_min: u32,
    pub duration_max: u32,
    pub interval: u32,
    pub window: u32,
    pub kept: u32,
}

pub struct Reserved {
    pub owner: u64,
    pub bytes: u64,
    pub duration: u32,
    pub escrow: u128,
    price: u128,
    pub activates_by: u32,
}

#[derive(Clone)]
pub struct Held {
    pub bytes: u64,
    pub settled_at: u32,
    pub passed: u32,
    pub failed: u32,
    /// The verdicts since it was last settled, in their order.
    pub verdicts: Vec<bool>,
}

#[derive(Clone)]
pub struct Living {
    pub owner: u64,
    /// Which of the history's objects.
    pub object: usize,
    bytes: u64,
    activated_at: u32,
    pub expires_at: u32,
    pub escrow: u128,
    /// The price of every block since it was activated; the last one goes on.
    prices: Vec<u128>,
    pub held: BTreeMap<u32, Held>,
    next_round: u32,
}

#[derive(Clone)]
pub struct Asked {
    pub node: u32,
    pub deal: u64,
    pub slot: u64,
    pub deadline: u32,
}

/// Everything that a history has made.
pub struct Model {
    pub periods: Periods,
    pub now: u32,
    pub price: u128,
    pub slots_per_round: u64,
    pub balances: BTreeMap<u64, u128>,
    pub reservations: BTreeMap<u64, Reserved>,
    pub deals: BTreeMap<u64, Living>,
    /// Ended deals, with the block they are paid up to, until the pallet says they are settled.
    pub closing: BTreeMap<u64, (Living, u32)>,
    /// Tombstones: end, whether cancelled, and when they go.
    pub ended: BTreeMap<u64, (u32, bool, u32)>,
    pub open: BTreeMap<u64, Asked>,
    pub results: BTreeMap<u64, (bool, u32)>,
    pub rewards: BTreeMap<u32, u128>,
    /// Spans that were paid after several audits, and those that one failure of several spoilt.
    pub whole: u32,
    pub spoilt: u32,
}

/// What a block does by itself, in the model's eyes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub failed: BTreeSet<u64>,
    pub dropped: BTreeSet<u64>,
    pub ended: BTreeSet<u64>,
    pub lapsed: BTreeSet<u64>,
    /// Deals whose round is opened.
    pub rounds: BTreeSet<u64>,
}

fn cost(bytes: u64, blocks: u32, price: u128) -> u128 {
    (u128::from(bytes) * u128::from(blocks) * price).div_ceil(GIB)
}

impl Living {
    /// What a GiB earns from block `from` to block `to`, summed block by block.
    fn earned(&self, from: u32, to: u32) -> u128 {
        let last = *self.prices.last().expect("it has a price from the start");
        (from..to)
            .map(|block| {
                let at = (block - self.activated_at) as usize;
                self.prices.get(at).copied().unwrap_or(last)
            })
            .sum()
    }

    /// Sets the price of this block and all that follow.
    fn reprice(&mut self, now: u32, price: u128) {
        let last = *self.prices.last().expect("it has a price from the start");
        self.prices.resize((now - self.activated_at) as usize, last);
        self.prices.push(price);
    }

    fn settle(&mut self, node: u32, to: u32) -> u128 {
        let held = self.held[&node].clone();
        let amount = u128::from(held.bytes) * self.earned(held.settled_at, to) / GIB;
        assert!(amount <= self.escrow, "the escrow always suffices");
        self.escrow -= amount;
        self.lose(node, to);
        amount
    }

    /// Starts the node's next span at `to`, without pay for the last one.
    fn lose(&mut self, node: u32, to: u32) {
        let held = self.held.get_mut(&node).expect("it holds");
        held.settled_at = to;
        held.verdicts.clear();
    }
}

impl Model {
    pub fn new(periods: Periods, price: u128, slots_per_round: u64, clients: &[u64]) -> Self {
        Self {
            periods,
            now: 1,
            price,
            slots_per_round,
            balances: clients.iter().map(|client| (*client, WEALTH)).collect(),
            reservations: BTreeMap::new(),
            deals: BTreeMap::new(),
            closing: BTreeMap::new(),
            ended: BTreeMap::new(),
            open: BTreeMap::new(),
            results: BTreeMap::new(),
            rewards: BTreeMap::new(),
            whole: 0,
            spoilt: 0,
        }
    }

    fn balance(&mut self, account: u64) -> &mut u128 {
        self.balances.entry(account).or_default()
    }

    fn suits(&self, duration: u32, max_price: u128) -> bool {
        let Periods { duration_min, duration_max, .. } = self.periods;
        (duration_min..=duration_max).contains(&duration) && self.price <= max_price
    }

    pub fn reserve(&mut self, id: u64, owner: u64, ask: (u64, u32), max_price: u128) -> bool {
        let (bytes, duration) = ask;
        if bytes == 0 || !self.suits(duration, max_price) {
            return false;
        }
        let (price, activates_by) = (self.price, self.now + self.periods.activation);
        let escrow = cost(bytes, duration, price);
        *self.balance(owner) -= escrow;
        let reserved = Reserved { owner, bytes, duration, escrow, price, activates_by };
        self.reservations.insert(id, reserved);
        true
    }

    pub fn activate(&mut self, id: u64, caller: u64, number: usize, object: &Object) -> bool {
        let now = self.now;
        let Some(reserved) = self.reservations.get(&id) else { return false };
        let bytes = object.bytes();
        if reserved.owner != caller || now > reserved.activates_by || bytes > reserved.bytes {
            return false;
        }
        let Some(reserved) = self.reservations.remove(&id) else { return false };
        let escrow = cost(bytes, reserved.duration, reserved.price);
        *self.balance(caller) += reserved.escrow - escrow;
        let hold = |node| {
            let bytes = object.held(node).1;
            (node, Held { bytes, settled_at: now, passed: 0, failed: 0, verdicts: Vec::new() })
        };
        let deal = Living {
            owner: caller,
            object: number,
            bytes,
            activated_at: now,
            expires_at: now + reserved.duration,
            escrow,
            prices: vec![reserved.price],
            held: object.holders().into_iter().map(hold).collect(),
            next_round: now + self.periods.interval,
        };
        self.deals.insert(id, deal);
        true
    }

    pub fn renew(&mut self, id: u64, caller: u64, duration: u32, max_price: u128) -> bool {
        let (now, price, max) = (self.now, self.price, self.periods.duration_max);
        let suits = self.suits(duration, max_price);
        let Some(deal) = self.deals.get_mut(&id) else { return false };
        let fits = deal.expires_at + duration - now <= max;
        if deal.owner != caller || !suits || !fits {
            return false;
        }
        let added = cost(deal.bytes, duration, price);
        let left = deal.expires_at - now;
        let old = deal.earned(now, now + 1);
        let paid = old * u128::from(left) + price * u128::from(duration);
        deal.reprice(now, paid / u128::from(left + duration));
        deal.escrow += added;
        deal.expires_at += duration;
        *self.balance(caller) -= added;
        true
    }

    pub fn cancel(&mut self, id: u64, caller: u64) -> bool {
        let now = self.now;
        if let Some(reserved) = self.reservations.get(&id) {
            if reserved.owner != caller {
                return false;
            }
            self.give_back(id);
            return true;
        }
        if self.deals.get(&id).is_none_or(|deal| deal.owner != caller) {
            return false;
        }
        self.end(id, now, true);
        true
    }

    fn give_back(&mut self, id: u64) {
        let reserved = self.reservations.remove(&id).expect("it is there");
        *self.balance(reserved.owner) += reserved.escrow;
    }

    fn end(&mut self, id: u64, at: u32, cancelled: bool) {
        let deal = self.deals.remove(&id).expect("it lives");
        self.ended.insert(id, (at, cancelled, at + self.periods.kept));
        self.closing.insert(id, (deal, at));
    }

    /// The pallet says that everybody was paid; returns what goes back to the owner.
    pub fn settled(&mut self, id: u64) -> u128 {
        let (mut deal, at) = self.closing.remove(&id).expect("it was closing");
        for node in deal.held.keys().copied().collect::<Vec<_>>() {
            if deal.held[&node].verdicts.contains(&false) {
                continue;
            }
            let amount = deal.settle(node, at);
            *self.rewards.entry(node).or_default() += amount;
        }
        *self.balance(deal.owner) += deal.escrow;
        deal.escrow
    }

    /// Whether a proof, honest or not, is accepted now.
    pub fn prove(&mut self, node: u32, audit: u64, honest: bool) -> bool {
        let now = self.now;
        let Some(asked) = self.open.get(&audit) else { return false };
        if asked.node != node || now > asked.deadline || !honest {
            return false;
        }
        let id = asked.deal;
        let Some(deal) = self.deals.get_mut(&id) else { return false };
        let held = deal.held.get_mut(&node).expect("it holds");
        held.passed += 1;
        held.verdicts.push(true);
        self.open.remove(&audit);
        self.results.insert(audit, (true, now + self.periods.kept));
        self.decide(id, node);
        true
    }

    /// Audits of a node for a deal that are open.
    pub fn asked(&self, deal: u64, node: u32) -> usize {
        self.open.values().filter(|asked| (asked.deal, asked.node) == (deal, node)).count()
    }

    /// Pays a node for its last span, or does not, if nothing is open any more.
    fn decide(&mut self, id: u64, node: u32) {
        if self.asked(id, node) > 0 {
            return;
        }
        let now = self.now;
        let deal = self.deals.get_mut(&id).expect("it lives");
        let verdicts = &deal.held[&node].verdicts;
        let (all, none) = (!verdicts.contains(&false), !verdicts.contains(&true));
        self.whole += u32::from(all && verdicts.len() > 1);
        self.spoilt += u32::from(!all && !none);
        if all {
            let amount = deal.settle(node, now);
            *self.rewards.entry(node).or_default() += amount;
        } else {
            deal.lose(node, now);
        }
    }

    pub fn claim(&mut self, node: u32, to: u64) -> bool {
        let reward = self.rewards.remove(&node).unwrap_or(0);
        *self.balance(to) += reward;
        reward > 0
    }

    /// Begins a block; says what the pallet must do in it.
    pub fn next_block(&mut self) -> Due {
        self.now += 1;
        let now = self.now;
        let mut due = Due::default();
        let missed: Vec<_> =
            self.open.iter().filter(|(_, asked)| asked.deadline < now).map(|(id, _)| *id).collect();
        for audit in missed {
            if self.miss(audit) {
                due.failed.insert(audit);
            } else {
                due.dropped.insert(audit);
            }
        }
        let over = self.deals.iter().filter(|(_, deal)| deal.expires_at <= now);
        due.ended = over.map(|(id, _)| *id).collect();
        for id in &due.ended {
            self.end(*id, self.deals[id].expires_at, false);
        }
        let lapsed = self.reservations.iter().filter(|(_, it)| it.activates_by < now);
        due.lapsed = lapsed.map(|(id, _)| *id).collect();
        due.lapsed.iter().for_each(|id| self.give_back(*id));
        for (id, deal) in &mut self.deals {
            if deal.next_round == now {
                deal.next_round += self.periods.interval;
                if now + self.periods.window < deal.expires_at {
                    due.rounds.insert(*id);
                }
            }
        }
        self.ended.retain(|id, (_, _, gone)| *gone > now || self.closing.contains_key(id));
        self.results.retain(|_, (_, gone)| *gone > now);
        due
    }

    /// An audit whose time is over; whether that is a failure.
    fn miss(&mut self, audit: u64) -> bool {
        let asked = self.open.remove(&audit).expect("it was open");
        let Some(deal) = self.deals.get_mut(&asked.deal) else { return false };
        let held = deal.held.get_mut(&asked.node).expect("it holds");
        held.failed += 1;
        held.verdicts.push(false);
        self.results.insert(audit, (false, self.now + self.periods.kept));
        self.decide(asked.deal, asked.node);
        true
    }

    /// Whether nothing is kept for anybody any more.
    pub fn is_over(&self) -> bool {
        self.reservations.is_empty() && self.deals.is_empty() && self.closing.is_empty()
    }

    /// All money that the pot must hold.
    pub fn pot(&self) -> u128 {
        let reserved: u128 = self.reservations.values().map(|it| it.escrow).sum();
        let living: u128 = self.deals.values().map(|deal| deal.escrow).sum();
        let closing: u128 = self.closing.values().map(|(deal, _)| deal.escrow).sum();
        reserved + living + closing + self.rewards.values().sum::<u128>()
    }
}
