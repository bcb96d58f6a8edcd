// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many connections there may be: in all, from one address prefix, of one client, half open;
//! and how many attempts a second from one prefix.
//!
//! Attempts per second are counted before anything is known about an address, so senders may be
//! forged. Those that proved their address have a bucket of their own, so that forgers of a prefix
//! keep nobody in it out; and prefixes share a fixed number of buckets, picked by a hash that
//! nobody else knows, so that no flood makes the table grow.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::{Mutex, RwLock};
use supernode_protocol::ids::NodeId;

use crate::live::Live;
use crate::metrics::{Counters, Reason};
use crate::prefix::Prefix;

/// Counts who is inside.
pub(crate) struct Doors {
    live: Arc<Live>,
    inside: Mutex<Inside>,
    attempts: RwLock<Attempts>,
    hasher: RandomState,
    counters: Arc<Counters>,
}

/// Buckets of attempts per second, 65,536 of each kind at most.
struct Attempts {
    per_sec: u32,
    anonymous: DefaultKeyedRateLimiter<u16>,
    validated: DefaultKeyedRateLimiter<u16>,
}

impl Attempts {
    fn new(per_sec: u32) -> Self {
        let quota = Quota::per_second(NonZeroU32::new(per_sec).unwrap_or(NonZeroU32::MIN));
        Self { per_sec, anonymous: RateLimiter::keyed(quota), validated: RateLimiter::keyed(quota) }
    }
}

#[derive(Default)]
struct Inside {
    connections: u32,
    handshakes: u32,
    prefixes: HashMap<Prefix, u32>,
    clients: HashMap<NodeId, u32>,
}

/// What to do with a connection attempt.
pub(crate) enum Verdict {
    /// Let it in.
    Enter(Entry),
    /// Have it prove its address first.
    Retry,
    /// Turn it away.
    Refuse(Reason),
}

impl Doors {
    pub(crate) fn new(live: Arc<Live>, counters: Arc<Counters>) -> Arc<Self> {
        let attempts = Attempts::new(live.get().handshakes_per_prefix_per_sec);
        Arc::new(Self {
            live,
            inside: Mutex::new(Inside::default()),
            attempts: RwLock::new(attempts),
            hasher: RandomState::new(),
            counters,
        })
    }

    /// Follows settings that have changed.
    pub(crate) fn reload(&self) {
        let per_sec = self.live.get().handshakes_per_prefix_per_sec;
        let mut attempts = self.attempts.write();
        if attempts.per_sec != per_sec {
            *attempts = Attempts::new(per_sec);
        }
    }

    /// Forgets the buckets of prefixes that have been away long enough.
    pub(crate) fn prune(&self) {
        let attempts = self.attempts.read();
        attempts.anonymous.retain_recent();
        attempts.validated.retain_recent();
    }

    /// Judges an attempt from `address`; `is_validated` says that it was proven by a retry.
    pub(crate) fn knock(self: &Arc<Self>, address: IpAddr, is_validated: bool) -> Verdict {
        let config = self.live.get();
        let prefix = Prefix::of(address);
        if !self.is_slow_enough(prefix, is_validated) {
            return match is_validated {
                true => Verdict::Refuse(Reason::HandshakeRate),
                false => Verdict::Retry,
            };
        }
        let mut inside = self.inside.lock();
        if inside.handshakes >= config.handshakes_max {
            return Verdict::Refuse(Reason::Handshakes);
        }
        if inside.handshakes >= config.handshakes_retry_from && !is_validated {
            return Verdict::Retry;
        }
        if inside.connections >= config.connections_max {
            return Verdict::Refuse(Reason::Connections);
        }
        let from_prefix = inside.prefixes.get(&prefix).copied().unwrap_or_default();
        if from_prefix >= config.connections_per_prefix_max {
            return Verdict::Refuse(Reason::PrefixConnections);
        }
        // Forged senders could fill the places of a prefix that is not theirs: half is all
        // they get.
        if from_prefix >= config.connections_per_prefix_max.div_ceil(2) && !is_validated {
            return Verdict::Retry;
        }
        inside.prefixes.insert(prefix, from_prefix + 1);
        inside.connections += 1;
        inside.handshakes += 1;
        self.counters.connections.fetch_add(1, Relaxed);
        let doors = Arc::clone(self);
        Verdict::Enter(Entry { doors, prefix, client: None, is_handshaking: true })
    }

    fn is_slow_enough(&self, prefix: Prefix, is_validated: bool) -> bool {
        let [high, low, ..] = self.hasher.hash_one(prefix).to_be_bytes();
        let bucket = u16::from_be_bytes([high, low]);
        let attempts = self.attempts.read();
        let limiter = if is_validated { &attempts.validated } else { &attempts.anonymous };
        limiter.check_key(&bucket).is_ok()
    }
}

/// A connection's place. Dropping it makes room.
pub(crate) struct Entry {
    doors: Arc<Doors>,
    prefix: Prefix,
    /// Who it is, once it is known and counted.
    client: Option<NodeId>,
    is_handshaking: bool,
}

impl Entry {
    /// Counts the connection as one of this client's; false if it has too many.
    pub(crate) fn identify(&mut self, node: NodeId) -> bool {
        let connections_max = self.doors.live.get().connections_per_client_max;
        let mut inside = self.doors.inside.lock();
        let connections = inside.clients.entry(node).or_default();
        if self.client.is_none() && *connections < connections_max {
            *connections += 1;
            self.client = Some(node);
        }
        self.client == Some(node)
    }

    /// The client said hello.
    pub(crate) fn established(&mut self) {
        if std::mem::take(&mut self.is_handshaking) {
            self.doors.inside.lock().handshakes -= 1;
            self.doors.counters.connections_total.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock();
        inside.connections -= 1;
        if self.is_handshaking {
            inside.handshakes -= 1;
        }
        let Inside { prefixes, clients, .. } = &mut *inside;
        count_down(prefixes, &self.prefix);
        if let Some(client) = &self.client {
            count_down(clients, client);
        }
        self.doors.counters.connections.fetch_sub(1, Relaxed);
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use supernode_protocol::ids::NodeId;

    use super::{Doors, Entry, Verdict};
    use crate::config::RelayConfig;
    use crate::live::Live;
    use crate::metrics::{Counters, Reason};

    fn doors() -> Arc<Doors> {
        let config = RelayConfig {
            connections_max: 3,
            connections_per_prefix_max: 2,
            connections_per_client_max: 1,
            handshakes_max: 4,
            handshakes_retry_from: 3,
            handshakes_per_prefix_per_sec: 5,
            ..RelayConfig::default()
        };
        Doors::new(Live::new(config), Arc::new(Counters::default()))
    }

    fn address(net: u8, host: u8) -> IpAddr {
        IpAddr::from(Ipv4Addr::new(192, 0, net, host))
    }

    fn enter(doors: &Arc<Doors>, address: IpAddr) -> Entry {
        match doors.knock(address, true) {
            Verdict::Enter(entry) => entry,
            Verdict::Retry => panic!("sent away to retry"),
            Verdict::Refuse(reason) => panic!("refused: {reason:?}"),
        }
    }

    fn refusal(doors: &Arc<Doors>, address: IpAddr) -> Reason {
        match doors.knock(address, true) {
            Verdict::Refuse(reason) => reason,
            Verdict::Enter(_) | Verdict::Retry => panic!("not refused"),
        }
    }

    #[test]
    fn one_prefix_cannot_take_all_places_and_leaving_makes_room() {
        let doors = doors();
        let first = enter(&doors, address(1, 1));
        let _second = enter(&doors, IpAddr::from(Ipv4Addr::new(192, 0, 1, 2).to_ipv6_mapped()));
        assert_eq!(refusal(&doors, address(1, 3)), Reason::PrefixConnections);
        let _third = enter(&doors, address(2, 1));
        assert_eq!(refusal(&doors, address(3, 1)), Reason::Connections);
        drop(first);
        let _fourth = enter(&doors, address(1, 3));
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let doors = doors();
        let (mut first, mut second) = (enter(&doors, address(1, 1)), enter(&doors, address(2, 1)));
        let node = |byte| NodeId::from_bytes([byte; 32]);
        assert!(first.identify(node(1)));
        assert!(!second.identify(node(1)), "one is all it may have");
        assert!(second.identify(node(2)));
        drop(first);
        let mut third = enter(&doors, address(3, 1));
        assert!(third.identify(node(1)));
        drop((second, third));
        assert!(doors.inside.lock().clients.is_empty(), "nobody is remembered");
    }

    #[test]
    fn forged_attempts_from_a_prefix_keep_nobody_in_it_out() {
        let doors = doors();
        for _ in 0..1000 {
            drop(doors.knock(address(1, 1), false));
        }
        assert!(matches!(doors.knock(address(1, 2), false), Verdict::Retry));
        for _ in 0..5 {
            drop(enter(&doors, address(1, 2)));
        }
        let mut refused = (0..50).filter_map(|_| match doors.knock(address(1, 2), true) {
            Verdict::Refuse(reason) => Some(reason),
            Verdict::Enter(_) | Verdict::Retry => None,
        });
        assert_eq!(refused.next(), Some(Reason::HandshakeRate));
    }

    #[test]
    fn forged_senders_cannot_fill_the_places_of_a_prefix() {
        let doors = doors();
        let Verdict::Enter(_first) = doors.knock(address(1, 1), false) else { panic!("empty") };
        assert!(matches!(doors.knock(address(1, 2), false), Verdict::Retry));
        assert!(matches!(doors.knock(address(2, 1), false), Verdict::Enter(_)));
        let _second = enter(&doors, address(1, 2));
    }

    #[test]
    fn many_half_open_connections_make_strangers_prove_their_address() {
        let doors = doors();
        let mut entries: Vec<_> = (1..=3).map(|net| enter(&doors, address(net, 1))).collect();
        assert!(matches!(doors.knock(address(4, 1), false), Verdict::Retry));
        for entry in &mut entries {
            entry.established();
            entry.established();
        }
        assert_eq!(refusal(&doors, address(4, 1)), Reason::Connections);
        entries.clear();
        assert!(matches!(doors.knock(address(4, 1), false), Verdict::Enter(_)));
    }
}
