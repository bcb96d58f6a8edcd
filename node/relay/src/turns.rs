// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: who goes next when a resource has no room for everybody who wants it.
//!
//! - **Clients take turns**, not requests: deficit round robin. A turn is worth a quantum; what a
//!   client takes beyond it is a debt that its next turns pay off. Nothing is saved up: who stops
//!   waiting loses what is left of its turn, and keeps its debt while it holds something.
//! - **The bound.** While a client that owes nothing waits, each of the other clients that waited
//!   before it gets at most a quantum and one cost more. How many requests they have in line does
//!   not matter, and who comes later stands behind.
//! - **Two ranks.** Foreground goes before repair. While both wait, repair is granted one unit for
//!   every [`FOREGROUND_SHARE`] of foreground, so that it is slowed and never starved.
//! - **A client at its own maximum** steps aside until it gives something back and holds up nobody.
//! - What costs more than a maximum or the whole capacity is granted alone: to a client that holds
//!   nothing, or out of a resource that nobody uses.
//!
//! Every operation is O(1) amortised over the quanta granted; requests that were abandoned are
//! swept out when they outnumber those that wait.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Units of foreground for each unit of repair while both wait.
pub(crate) const FOREGROUND_SHARE: i64 = 15;

/// Abandoned entries that are not worth a sweep.
const SWEEP_FROM: usize = 16;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Somebody waits for it.
    Foreground,
    /// It can wait.
    Repair,
}

/// What the resource has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Units that may be held at a time.
    pub(crate) capacity: u64,
    /// Units that a turn is worth.
    pub(crate) quantum: u64,
    /// Requests that may wait, of all clients.
    pub(crate) waiters_max: usize,
}

/// What one client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// When it goes.
    pub(crate) rank: Rank,
    /// Units it may hold at a time.
    pub(crate) held_max: u64,
    /// Requests of it that may wait.
    pub(crate) waiters_max: usize,
}

/// Names a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It holds its units now.
    Granted,
    /// It waits; [`Turns::next`] will name it.
    Waits(Ticket),
    /// The client has too many in line.
    ClientFull,
    /// All clients together have.
    Full,
}

/// What an abandoned request had waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitedFor {
    /// Its client was at its own maximum.
    Client,
    /// The resource had no room.
    Room,
}

struct Client {
    terms: Terms,
    held: u64,
    /// Units left of its turn; below zero, what it owes.
    balance: i64,
    /// Requests in line, with some that were abandoned.
    queue: VecDeque<(Ticket, u64)>,
    /// Those of them that wait.
    waiting: usize,
    /// Its place in the ring of its rank. Whoever leaves and comes back has another one.
    place: Option<u64>,
}

impl Client {
    /// Leaves the ring; what is left of a turn is lost.
    fn leave(&mut self) {
        self.place = None;
        self.balance = self.balance.min(0);
    }

    fn may_hold(&self, cost: u64) -> bool {
        self.held == 0 || self.held.saturating_add(cost) <= self.terms.held_max
    }
}

/// Clients of one rank that wait for room, in the order of their turns.
struct Ring<K> {
    /// With places that were left.
    places: VecDeque<(K, u64)>,
    /// Whether the first of them has been given its quantum.
    is_turn_open: bool,
}

impl<K: Copy> Ring<K> {
    /// Ends the turn of the first client.
    fn next(&mut self) {
        self.places.pop_front();
        self.is_turn_open = false;
    }

    fn new() -> Self {
        Self { places: VecDeque::new(), is_turn_open: false }
    }
}

/// A resource, who holds it, and who waits for it.
pub(crate) struct Turns<K> {
    bounds: Bounds,
    held: u64,
    clients: HashMap<K, Client>,
    foreground: Ring<K>,
    repair: Ring<K>,
    /// Foreground granted while repair waited, less [`FOREGROUND_SHARE`] times the repair granted.
    ahead: i64,
    tickets: HashMap<Ticket, K>,
    number_next: u64,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: 0,
            clients: HashMap::new(),
            foreground: Ring::new(),
            repair: Ring::new(),
            ahead: 0,
            tickets: HashMap::new(),
            number_next: 0,
        }
    }

    /// Changes what there is; what is held and who waits stays.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Units that are held.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Units that are not.
    pub(crate) fn free(&self) -> u64 {
        self.bounds.capacity.saturating_sub(self.held)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.tickets.len()
    }

    /// Takes `cost` units for a client, or puts it in line.
    pub(crate) fn ask(&mut self, key: K, terms: Terms, cost: u64) -> Asked {
        let is_alone = self.front(Rank::Foreground).is_none() && self.front(Rank::Repair).is_none();
        let has_room = is_alone && self.has_room(cost);
        let client = self.clients.entry(key).or_insert_with(|| Client {
            terms,
            held: 0,
            balance: 0,
            queue: VecDeque::new(),
            waiting: 0,
            place: None,
        });
        // A rank is that of the whole line.
        let rank = if client.waiting == 0 { terms.rank } else { client.terms.rank };
        client.terms = Terms { rank, ..terms };
        if has_room && client.waiting == 0 && client.may_hold(cost) {
            client.held += cost;
            self.held += cost;
            return Asked::Granted;
        }
        let is_client_full = client.waiting >= terms.waiters_max;
        if is_client_full || self.tickets.len() >= self.bounds.waiters_max {
            self.forget_idle(key);
            return if is_client_full { Asked::ClientFull } else { Asked::Full };
        }
        let ticket = Ticket(self.number_next);
        self.number_next += 1;
        client.queue.push_back((ticket, cost));
        client.waiting += 1;
        self.tickets.insert(ticket, key);
        self.line_up(key);
        Asked::Waits(ticket)
    }

    /// Grants the next request that may go. To be called until there is none, after every change.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        let foreground = self.front(Rank::Foreground);
        let repair = self.front(Rank::Repair);
        let quantum = signed(self.bounds.quantum);
        let is_repair_due = self.ahead >= FOREGROUND_SHARE.saturating_mul(quantum);
        let (rank, (key, cost)) = match (foreground, repair) {
            (None, None) => return None,
            (Some(_), Some(repair)) if is_repair_due => (Rank::Repair, repair),
            (Some(foreground), _) => (Rank::Foreground, foreground),
            (None, Some(repair)) => (Rank::Repair, repair),
        };
        if !self.has_room(cost) {
            return None;
        }
        match rank {
            Rank::Foreground if repair.is_some() => {
                self.ahead = self.ahead.saturating_add(signed(cost));
            }
            Rank::Repair if foreground.is_some() => {
                let due = FOREGROUND_SHARE.saturating_mul(signed(cost));
                self.ahead = self.ahead.saturating_sub(due);
            }
            _ => {}
        }
        let client = self.clients.get_mut(&key).expect("who is in a ring is a client");
        let (ticket, _) = client.queue.pop_front().expect("it was just seen");
        client.waiting -= 1;
        client.balance = client.balance.saturating_sub(signed(cost));
        client.held += cost;
        self.held += cost;
        self.tickets.remove(&ticket);
        Some(ticket)
    }

    /// Takes back what a client holds.
    pub(crate) fn give_back(&mut self, key: K, cost: u64) {
        self.held -= cost;
        let client = self.clients.get_mut(&key).expect("who holds something is a client");
        client.held -= cost;
        self.line_up(key);
        self.forget_idle(key);
    }

    /// Takes a request out of the line and says what it waited for; nothing if it does not wait,
    /// so that what it was granted must be given back.
    pub(crate) fn abandon(&mut self, ticket: Ticket) -> Option<WaitedFor> {
        let key = self.tickets.remove(&ticket)?;
        let client = self.clients.get_mut(&key).expect("who waits is a client");
        client.waiting -= 1;
        let waited_for = if client.place.is_some() { WaitedFor::Room } else { WaitedFor::Client };
        if client.waiting == 0 {
            client.queue.clear();
            client.leave();
        } else if client.queue.len() > 2 * client.waiting + SWEEP_FROM {
            client.queue.retain(|(ticket, _)| self.tickets.contains_key(ticket));
        }
        // What comes after it may be small enough.
        self.line_up(key);
        self.forget_idle(key);
        let place_count = self.foreground.places.len() + self.repair.places.len();
        if place_count > 2 * self.tickets.len() + SWEEP_FROM {
            self.sweep();
        }
        Some(waited_for)
    }

    fn has_room(&self, cost: u64) -> bool {
        self.held == 0 || self.held.saturating_add(cost) <= self.bounds.capacity
    }

    /// Whose turn it is in a rank and what its next request costs.
    fn front(&mut self, rank: Rank) -> Option<(K, u64)> {
        let ring = match rank {
            Rank::Foreground => &mut self.foreground,
            Rank::Repair => &mut self.repair,
        };
        let quantum = signed(self.bounds.quantum.max(1));
        while let Some(&(key, place)) = ring.places.front() {
            let client = self.clients.get_mut(&key).filter(|client| client.place == Some(place));
            let Some(client) = client else {
                ring.next();
                continue;
            };
            let is_abandoned = |it: &mut (Ticket, u64)| !self.tickets.contains_key(&it.0);
            while client.queue.pop_front_if(is_abandoned).is_some() {}
            let cost = client.queue.front().map(|(_, cost)| *cost);
            let Some(cost) = cost.filter(|cost| client.may_hold(*cost)) else {
                // It waits for nothing, or for itself: giving back brings it into the ring again.
                client.leave();
                ring.next();
                continue;
            };
            if !ring.is_turn_open {
                client.balance = client.balance.saturating_add(quantum).min(quantum);
                ring.is_turn_open = true;
            }
            if client.balance > 0 {
                return Some((key, cost));
            }
            ring.next();
            ring.places.push_back((key, place));
        }
        if rank == Rank::Repair {
            // Foreground that went while no repair waited is nothing to make up for.
            self.ahead = self.ahead.min(0);
        }
        None
    }

    /// Puts a client with something in line at the end of its ring, unless it is in it.
    fn line_up(&mut self, key: K) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.waiting == 0 || client.place.is_some() {
            return;
        }
        let place = self.number_next;
        self.number_next += 1;
        client.place = Some(place);
        match client.terms.rank {
            Rank::Foreground => self.foreground.places.push_back((key, place)),
            Rank::Repair => self.repair.places.push_back((key, place)),
        }
    }

    fn forget_idle(&mut self, key: K) {
        if self.clients.get(&key).is_some_and(|client| client.held == 0 && client.waiting == 0) {
            self.clients.remove(&key);
        }
    }

    /// Takes places that were left out of the rings.
    fn sweep(&mut self) {
        for ring in [&mut self.foreground, &mut self.repair] {
            let first = ring.places.front().copied();
            ring.places.retain(|(key, place)| {
                self.clients.get(key).is_some_and(|client| client.place == Some(*place))
            });
            ring.is_turn_open &= ring.places.front().copied() == first;
        }
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
