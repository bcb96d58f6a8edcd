// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is there: connections, identification, bootstrap, probes, walks.

use std::time::{Duration, Instant};

use libp2p::kad::{K_VALUE, RoutingUpdate};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, ping};
use supernode_protocol::ids::NodeId;

use crate::actor::Actor;
use crate::behaviour::ProtocolsEvent;
use crate::keys::{identify_protocol, kad_protocol, node_of};
use crate::members::Request;

/// Requests of the member table served in one step.
const MEMBER_REQUESTS_MAX: usize = 16;
/// Wait before the first walk after a new peer appeared.
const WALK_WAIT: Duration = Duration::from_secs(1);

/// When the network is walked again in search of nodes we do not know.
///
/// Nodes that join at the same instant may each ask before their common neighbour knows the other.
/// So walks start a second after a new peer of a small network appeared, and the waits double from
/// there up to the configured interval. One walk is one lookup, of our own neighbourhood and of a
/// random place in turn: the library walks all distances by itself when its table is nearly empty.
#[derive(Debug)]
pub(super) struct Walk {
    longest: Duration,
    wait: Duration,
    due: Instant,
    running: bool,
    count: u64,
}

impl Walk {
    pub(super) fn new(longest: Duration, now: Instant) -> Self {
        Self { longest, wait: WALK_WAIT, due: now + WALK_WAIT, running: false, count: 0 }
    }

    fn hurry(&mut self, now: Instant) {
        self.wait = WALK_WAIT;
        self.due = self.due.min(now + WALK_WAIT);
    }

    /// The number of the walk to start now, if one is due.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.running || self.due > now {
            return None;
        }
        self.running = true;
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(self.longest);
        self.count += 1;
        Some(self.count - 1)
    }

    pub(super) fn finished(&mut self) {
        self.running = false;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }
}

impl Actor {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<ProtocolsEvent>, now: Instant) {
        match event {
            SwarmEvent::Behaviour(ProtocolsEvent::Kad(event)) => self.on_kad(event, now),
            SwarmEvent::Behaviour(ProtocolsEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.on_identified(peer_id, &info, now),
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(ping::Event {
                peer,
                connection,
                result: Err(ping::Failure::Timeout | ping::Failure::Other { .. }),
            })) => {
                // The close waits for the other side, so a peer that stands still is reported as
                // closed much later or never. It is in doubt from now on.
                self.swarm.close_connection(connection);
                if let Some(node) = node_of(&peer) {
                    self.members.silent(node, now);
                }
            }
            SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                self.probes.remove(&connection_id);
                self.seed_dials.remove(&connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                let idle = matches!(cause, Some(ConnectionError::KeepAliveTimeout));
                if let Some(node) = node_of(&peer_id) {
                    self.members.disconnected(node, idle, now);
                }
                self.seeds.lost(&peer_id, now);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(node) = self.probes.remove(&connection_id) {
                    self.on_probe_error(node, &error, now);
                }
                if let Some(peer) = self.seed_dials.remove(&connection_id) {
                    tracing::debug!(%peer, %error, "bootstrap peer not reached");
                    self.seeds.lost(&peer, now);
                }
            }
            _ => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: &identify::Info, now: Instant) {
        if info.protocol_version != identify_protocol(&self.config.network) {
            self.turn_away(peer, &info.protocol_version, now);
            return;
        }
        let Some(node) = node_of(&peer) else { return };
        let kad = kad_protocol(&self.config.network);
        if !info.protocols.iter().any(|protocol| protocol.as_ref() == kad) {
            // A client: it may ask, and is nobody's neighbour.
            if self.members.remove(node) {
                self.swarm.behaviour_mut().kad.remove_peer(&peer);
            }
            return;
        }
        let mut addresses = self.rule.keep(&peer, &info.listen_addrs);
        if addresses.is_empty() {
            addresses = self.seeds.addresses(&peer).to_vec();
        }
        if addresses.is_empty() {
            tracing::debug!(%peer, "it shows no address that may be dialled; left out");
            return;
        }
        self.welcome(peer, addresses, now);
    }

    fn welcome(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        let Some(node) = node_of(&peer) else { return };
        let kad = &mut self.swarm.behaviour_mut().kad;
        for address in &addresses {
            if kad.add_address(&peer, address.clone()) == RoutingUpdate::Failed {
                tracing::debug!(%peer, %address, "no room in its bucket");
            }
        }
        if self.members.identified(node, addresses, now) {
            let known = self.members.len();
            tracing::debug!(%peer, known, "new peer");
            self.schedule.peers_grew(known, now);
            if known <= K_VALUE.get() {
                self.walk.hurry(now);
            }
        }
        self.seeds.reached(&peer);
    }

    fn turn_away(&mut self, peer: PeerId, version: &str, now: Instant) {
        self.metrics.other_network_total += 1;
        if self.seeds.foreign(&peer) {
            let shown: String = version.chars().take(100).collect();
            tracing::warn!(%peer, shown, "a bootstrap peer belongs to another network");
        }
        // The error means that it is gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
        self.seeds.lost(&peer, now);
    }

    pub(super) fn dial_seeds(&mut self, now: Instant) {
        for (peer, addresses) in self.seeds.take_due(now) {
            let options = DialOpts::peer_id(peer).addresses(addresses).build();
            let id = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => {
                    self.seed_dials.insert(id, peer);
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "bootstrap peer not dialled");
                    self.seeds.lost(&peer, now);
                }
            }
        }
    }

    pub(super) fn serve_members(&mut self, now: Instant) {
        for request in self.members.poll(now, MEMBER_REQUESTS_MAX) {
            match request {
                Request::Probe(node, addresses) => {
                    // Also beside a connection, which may never end its closing, and beside the
                    // dial of a query, whose end says nothing about our addresses.
                    let options = DialOpts::peer_id(node.peer_id())
                        .condition(PeerCondition::Always)
                        .addresses(addresses)
                        .build();
                    let id = options.connection_id();
                    match self.swarm.dial(options) {
                        Ok(()) => {
                            self.probes.insert(id, node);
                        }
                        Err(error) => self.on_probe_error(node, &error, now),
                    }
                }
                Request::Lookup(node) => {
                    if !self.look_up_member(node) {
                        self.members.lookup_deferred(node, now);
                    }
                }
                Request::Forget(node) => {
                    tracing::info!(%node, "a node is gone");
                    let peer = node.peer_id();
                    self.swarm.behaviour_mut().kad.remove_peer(&peer);
                    self.seeds.lost(&peer, now);
                }
            }
        }
    }

    fn on_probe_error(&mut self, node: NodeId, error: &DialError, now: Instant) {
        match error {
            // Our own limits forbid it, or the connection is not needed any more.
            DialError::DialPeerConditionFalse(_)
            | DialError::Denied { .. }
            | DialError::Aborted => self.members.probe_deferred(node, now),
            DialError::LocalPeerId { .. }
            | DialError::NoAddresses
            | DialError::WrongPeerId { .. }
            | DialError::Transport(_) => self.members.probe_failed(node, now),
        }
    }

    pub(super) fn walk_network(&mut self, now: Instant) {
        if self.members.len() == 0 {
            return;
        }
        if let Some(number) = self.walk.take(now) {
            let own = *self.swarm.local_peer_id();
            let target = if number.is_multiple_of(2) { own } else { PeerId::random() };
            let id = self.swarm.behaviour_mut().kad.get_closest_peers(target);
            self.lookups.walk(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{WALK_WAIT, Walk};

    #[test]
    fn walks_start_quickly_slow_down_and_start_anew() {
        let mut now = Instant::now();
        let mut walk = Walk::new(Duration::from_secs(60), now);
        assert_eq!(walk.take(now), None);
        let mut waits = vec![];
        for number in 0..12 {
            let due = walk.next_due().expect("none is running");
            waits.push(due - now);
            now = due;
            assert_eq!(walk.take(now), Some(number));
            let later = now + Duration::from_secs(600);
            assert_eq!(walk.take(later), None, "one at a time");
            walk.finished();
        }
        assert_eq!(waits[..3], [WALK_WAIT, WALK_WAIT, WALK_WAIT * 2]);
        assert_eq!(waits[11], Duration::from_secs(60));
        walk.hurry(now);
        assert_eq!(walk.next_due(), Some(now + WALK_WAIT));
    }
}
