// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nodes that are believed alive, and what they say of themselves. Pure: time is passed in.
//!
//! - A peer enters when a live connection has shown that it serves our Kademlia protocol. Records
//!   alone never let anybody in: they outlive their nodes.
//! - Its node record is looked up at once, again with growing waits while there is none, and once
//!   per refresh interval after that.
//! - A lost connection starts probes (dials). Two in a row that fail remove the peer. A connection
//!   that was merely idle is probed at the next refresh.
//! - The table is bounded; when it is full, newcomers are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;

use crate::admission::succeeds;

/// Probes that may fail before a peer is given up.
const PROBES_MAX: u32 = 2;
/// Wait between two probes of one peer.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// A probe nobody reported on counts as failed after this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// First wait before a record that was not there is looked up again; doubles.
const LOOKUP_WAIT: Duration = Duration::from_millis(500);
const LOOKUP_WAIT_MAX: Duration = Duration::from_secs(30);
/// Wait before a lookup there was no room for is asked for again.
const LOOKUP_DEFERRAL: Duration = Duration::from_millis(100);

/// What the table asks its owner to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Dial this peer and report.
    Probe(NodeId, Vec<Multiaddr>),
    /// Look its node record up.
    Lookup(NodeId),
    /// It is gone: drop it from the routing table as well.
    Forget(NodeId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// A connection is open. `wake` is the next lookup.
    Open,
    /// No connection, and no doubt. `wake` is the next probe.
    Idle,
    /// `failures` probes failed; one is under way if `pending`. `wake` is the next or its timeout.
    Doubtful { failures: u32, pending: bool },
}

#[derive(Debug)]
struct Peer {
    link: Link,
    addresses: Vec<Multiaddr>,
    record: Option<Signed<NodeRecord>>,
    lookups: u32,
    wake: Instant,
}

/// The member table.
#[derive(Debug)]
pub(crate) struct Members {
    count_max: usize,
    refresh: Duration,
    peers: BTreeMap<NodeId, Peer>,
    timers: BTreeSet<(Instant, NodeId)>,
    changed: bool,
}

impl Members {
    pub(crate) fn new(count_max: usize, refresh: Duration) -> Self {
        Self { count_max, refresh, peers: BTreeMap::new(), timers: BTreeSet::new(), changed: false }
    }

    /// A connection to `node` shows that it serves our protocol. Says whether it is new here.
    pub(crate) fn identified(
        &mut self,
        node: NodeId,
        addresses: Vec<Multiaddr>,
        now: Instant,
    ) -> bool {
        if let Some(peer) = self.peers.get_mut(&node) {
            if !addresses.is_empty() {
                peer.addresses = addresses;
            }
            if peer.link != Link::Open {
                peer.link = Link::Open;
                // It may have restarted with another record.
                peer.lookups = 0;
                self.set_wake(node, now);
            }
            return false;
        }
        if self.peers.len() >= self.count_max {
            return false;
        }
        let peer = Peer { link: Link::Open, addresses, record: None, lookups: 0, wake: now };
        self.peers.insert(node, peer);
        self.timers.insert((now, node));
        true
    }

    /// The last connection to `node` closed; `idle` if only for lack of use.
    pub(crate) fn disconnected(&mut self, node: NodeId, idle: bool, now: Instant) {
        let refresh = self.refresh_of(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if idle {
            peer.link = Link::Idle;
            self.set_wake(node, now + refresh);
        } else {
            peer.link = Link::Doubtful { failures: 0, pending: false };
            self.set_wake(node, now);
        }
    }

    /// An open connection to `node` no longer answers.
    pub(crate) fn silent(&mut self, node: NodeId, now: Instant) {
        let open = self.peers.get(&node).is_some_and(|peer| peer.link == Link::Open);
        if open {
            self.disconnected(node, false, now);
        }
    }

    /// A probe of `node` failed.
    pub(crate) fn probe_failed(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if let Link::Doubtful { failures, .. } = peer.link {
            peer.link = Link::Doubtful { failures: failures + 1, pending: false };
            // The last failure needs no wait: the next poll forgets the peer.
            let wait = if failures + 1 < PROBES_MAX { PROBE_WAIT } else { Duration::ZERO };
            self.set_wake(node, now + wait);
        }
    }

    /// A probe could not be made for reasons that say nothing about `node`.
    pub(crate) fn probe_deferred(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if let Link::Doubtful { failures, .. } = peer.link {
            peer.link = Link::Doubtful { failures, pending: false };
            self.set_wake(node, now + PROBE_WAIT);
        }
    }

    /// There was no room for the lookup of `node` right now.
    pub(crate) fn lookup_deferred(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if let Link::Open = peer.link {
            peer.lookups = peer.lookups.saturating_sub(1);
            self.set_wake(node, now + LOOKUP_DEFERRAL);
        }
    }

    /// Removes a peer that no longer belongs here.
    pub(crate) fn remove(&mut self, node: NodeId) -> bool {
        let Some(peer) = self.peers.remove(&node) else { return false };
        self.timers.remove(&(peer.wake, node));
        self.changed |= peer.record.is_some();
        true
    }

    /// Takes a proven record, if it is of a member and no step back. Says whether it is held now.
    pub(crate) fn offer(&mut self, record: &Signed<NodeRecord>, now: Instant) -> bool {
        let node = record.body_unverified().node;
        let refresh = self.refresh_of(node);
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if peer.record.as_ref().is_some_and(|held| !succeeds(held, record)) {
            return false;
        }
        if peer.record.as_ref() != Some(record) {
            peer.record = Some(record.clone());
            self.changed = true;
        }
        peer.lookups = 0;
        if peer.link == Link::Open {
            self.set_wake(node, now + refresh);
        }
        true
    }

    /// What is to be done by now, at most `max` requests.
    pub(crate) fn poll(&mut self, now: Instant, max: usize) -> Vec<Request> {
        let due: Vec<_> = self
            .timers
            .iter()
            .take_while(|(wake, _)| *wake <= now)
            .take(max)
            .map(|(_, node)| *node)
            .collect();
        due.into_iter().filter_map(|node| self.wake(node, now)).collect()
    }

    fn wake(&mut self, node: NodeId, now: Instant) -> Option<Request> {
        let refresh = self.refresh_of(node);
        let peer = self.peers.get_mut(&node)?;
        let (request, wait) = match peer.link {
            Link::Open => {
                let wait = match peer.record {
                    Some(_) => refresh,
                    None => (LOOKUP_WAIT * 2_u32.pow(peer.lookups.min(8))).min(LOOKUP_WAIT_MAX),
                };
                peer.lookups = peer.lookups.saturating_add(1);
                (Request::Lookup(node), wait)
            }
            Link::Doubtful { failures, pending } => {
                let failures = failures + u32::from(pending);
                if failures >= PROBES_MAX {
                    self.remove(node);
                    return Some(Request::Forget(node));
                }
                peer.link = Link::Doubtful { failures, pending: true };
                (Request::Probe(node, peer.addresses.clone()), PROBE_TIMEOUT)
            }
            Link::Idle => {
                peer.link = Link::Doubtful { failures: 0, pending: true };
                (Request::Probe(node, peer.addresses.clone()), PROBE_TIMEOUT)
            }
        };
        self.set_wake(node, now + wait);
        Some(request)
    }

    /// When [`Members::poll`] has something to do.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timers.first().map(|(wake, _)| *wake)
    }

    /// The record of a member.
    pub(crate) fn record(&self, node: &NodeId) -> Option<&Signed<NodeRecord>> {
        self.peers.get(node)?.record.as_ref()
    }

    /// All records, in the order of their node ids.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Signed<NodeRecord>> {
        self.peers.values().filter_map(|peer| peer.record.as_ref())
    }

    /// Peers in the table, with and without a record.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The list the records are part of changed for another reason: our own record.
    pub(crate) fn set_changed(&mut self) {
        self.changed = true;
    }

    /// Whether [`Members::records`] changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn set_wake(&mut self, node: NodeId, at: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            self.timers.remove(&(peer.wake, node));
            peer.wake = at;
            self.timers.insert((at, node));
        }
    }

    /// The interval, shortened by up to a quarter as the node's id says, so that they drift apart.
    fn refresh_of(&self, node: NodeId) -> Duration {
        self.refresh - self.refresh / 4 * u32::from(node.as_bytes()[31]) / 256
    }
}

#[cfg(test)]
mod tests;
