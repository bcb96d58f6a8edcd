// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for a turn: [`Turns`] with tasks.
//!
//! A claim is a guard: dropping it gives back what it holds and lets the next ones in. A task that
//! stops waiting, at any point, leaves the line; if it was granted in that moment, what it was
//! granted goes to the next. The lock is held for bookkeeping only, never while anybody waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::turns::{Asked, Bounds, Terms, Ticket, Turns, WaitedFor};

/// Why a claim was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The client has too many requests in line.
    ClientFull,
    /// All clients together have.
    Full,
    /// It waited as long as it wanted to.
    TimedOut(WaitedFor),
}

/// A resource that is taken in turns.
pub(crate) struct Turnstile<K: Copy + Eq + Hash> {
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    turns: Turns<K>,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl<K: Copy + Eq + Hash> Turnstile<K> {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let inner = Inner { turns: Turns::new(bounds), waiting: HashMap::new() };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Takes `cost` units for a client, in turn; waits until `until` at most.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        key: K,
        terms: Terms,
        cost: u64,
        until: Instant,
    ) -> Result<Claim<K>, Denied> {
        let (mut place, granted) = {
            let mut inner = self.inner.lock();
            match inner.turns.ask(key, terms, cost) {
                Asked::Granted => {
                    return Ok(Claim { turnstile: Arc::clone(self), key, cost });
                }
                Asked::ClientFull => return Err(Denied::ClientFull),
                Asked::Full => return Err(Denied::Full),
                Asked::Waits(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    inner.waiting.insert(ticket, grant);
                    let turnstile = Arc::clone(self);
                    (Place { turnstile, ticket: Some(ticket), key, cost }, granted)
                }
            }
        };
        // Somebody may have to make way for the new one, or it may go at once.
        self.change(|_| ());
        match timeout_at(until, granted).await {
            Ok(_) => Ok(place.granted()),
            Err(_) => place.leave().map_err(Denied::TimedOut),
        }
    }

    /// Changes what there is.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.change(|turns| turns.set_bounds(bounds));
    }

    /// Units that are held.
    pub(crate) fn held(&self) -> u64 {
        self.inner.lock().turns.held()
    }

    /// Units that are not.
    pub(crate) fn free(&self) -> u64 {
        self.inner.lock().turns.free()
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.lock().turns.waiting()
    }

    /// Changes something and tells those that may go then.
    fn change<T>(&self, change: impl FnOnce(&mut Turns<K>) -> T) -> T {
        let mut granted = Vec::new();
        let mut inner = self.inner.lock();
        let outcome = change(&mut inner.turns);
        while let Some(ticket) = inner.turns.next() {
            granted.extend(inner.waiting.remove(&ticket));
        }
        drop(inner);
        for grant in granted {
            // Who has just left gives it back itself.
            let _ = grant.send(());
        }
        outcome
    }
}

/// A task's place in the line. Dropping it leaves the line.
struct Place<K: Copy + Eq + Hash> {
    turnstile: Arc<Turnstile<K>>,
    /// `None` once it was left.
    ticket: Option<Ticket>,
    key: K,
    cost: u64,
}

impl<K: Copy + Eq + Hash> Place<K> {
    fn granted(&mut self) -> Claim<K> {
        self.ticket = None;
        Claim { turnstile: Arc::clone(&self.turnstile), key: self.key, cost: self.cost }
    }

    /// Leaves the line; with a claim if it was granted in this moment.
    fn leave(&mut self) -> Result<Claim<K>, WaitedFor> {
        let Some(ticket) = self.ticket.take() else { return Err(WaitedFor::Room) };
        self.turnstile.inner.lock().waiting.remove(&ticket);
        match self.turnstile.change(|turns| turns.abandon(ticket)) {
            Some(waited_for) => Err(waited_for),
            None => Ok(self.granted()),
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// Units that are held. Dropping it gives them back.
pub(crate) struct Claim<K: Copy + Eq + Hash> {
    turnstile: Arc<Turnstile<K>>,
    key: K,
    cost: u64,
}

impl<K: Copy + Eq + Hash> Drop for Claim<K> {
    fn drop(&mut self) {
        self.turnstile.change(|turns| turns.give_back(self.key, self.cost));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Claim, Denied, Turnstile};
    use crate::turns::{Bounds, Rank, Terms, WaitedFor};

    const TERMS: Terms = Terms { rank: Rank::Foreground, held_max: 2, waiters_max: 9 };

    fn turnstile(capacity: u64) -> Arc<Turnstile<u8>> {
        Turnstile::new(Bounds { capacity, quantum: 1, waiters_max: 10 })
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_claim_that_is_dropped_lets_the_next_one_in() {
        let turnstile = turnstile(1);
        let first = turnstile.claim(0, TERMS, 1, later()).await.expect("free");
        let mut second = pin!(turnstile.claim(1, TERMS, 1, later()));
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!((turnstile.held(), turnstile.waiting(), turnstile.free()), (1, 1, 0));
        drop(first);
        let second = second.await.expect("its turn");
        assert_eq!((turnstile.held(), turnstile.waiting()), (1, 0));
        drop(second);
        assert_eq!(turnstile.free(), 1);
    }

    #[tokio::test]
    async fn a_waiter_that_is_dropped_loses_no_permit_whenever_it_goes() {
        let turnstile = turnstile(1);
        let first = turnstile.claim(0, TERMS, 1, later()).await.expect("free");
        let mut last = pin!(turnstile.claim(3, TERMS, 1, later()));
        {
            // One goes while it waits, one after it was granted and before it knows.
            let mut waits = pin!(turnstile.claim(1, TERMS, 1, later()));
            assert!(poll(waits.as_mut()).is_pending());
        }
        assert_eq!(turnstile.waiting(), 0);
        {
            let mut granted = pin!(turnstile.claim(2, TERMS, 1, later()));
            assert!(poll(granted.as_mut()).is_pending());
            assert!(poll(last.as_mut()).is_pending());
            drop(first);
            assert_eq!((turnstile.held(), turnstile.waiting()), (1, 1));
        }
        let last: Claim<u8> = last.await.expect("woken by the one that left");
        drop(last);
        assert_eq!((turnstile.held(), turnstile.waiting()), (0, 0));
        assert!(turnstile.inner.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_long_enough_is_told_what_for() {
        let turnstile = turnstile(3);
        let soon = || Instant::now() + Duration::from_millis(5);
        let _own = turnstile.claim(0, TERMS, 2, later()).await.expect("free");
        let denied = turnstile.claim(0, TERMS, 1, soon()).await.err();
        assert_eq!(denied, Some(Denied::TimedOut(WaitedFor::Client)));
        let _rest = turnstile.claim(1, TERMS, 1, later()).await.expect("free");
        let denied = turnstile.claim(2, TERMS, 1, soon()).await.err();
        assert_eq!(denied, Some(Denied::TimedOut(WaitedFor::Room)));
        assert_eq!(turnstile.waiting(), 0);
        let none = Terms { waiters_max: 0, ..TERMS };
        let denied = turnstile.claim(2, none, 1, soon()).await.err();
        assert_eq!(denied, Some(Denied::ClientFull));
    }

    #[tokio::test]
    async fn more_room_lets_waiters_in() {
        let turnstile = turnstile(1);
        let _first = turnstile.claim(0, TERMS, 1, later()).await.expect("free");
        let mut second = pin!(turnstile.claim(1, TERMS, 1, later()));
        assert!(poll(second.as_mut()).is_pending());
        turnstile.set_bounds(Bounds { capacity: 2, quantum: 1, waiters_max: 10 });
        assert!(poll(second.as_mut()).is_ready());
    }
}
