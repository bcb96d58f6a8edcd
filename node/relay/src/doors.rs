// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many connections there may be: in all, from one address prefix, and half open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::admission::Prefix;
use crate::config::RelayConfig;
use crate::metrics::{Counters, Reason};

/// Counts who is inside.
pub(crate) struct Doors {
    connections_max: u32,
    connections_per_prefix_max: u32,
    handshakes_max: u32,
    handshakes_retry_from: u32,
    inside: Mutex<Inside>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Inside {
    connections: u32,
    handshakes: u32,
    prefixes: HashMap<Prefix, u32>,
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
    pub(crate) fn new(config: &RelayConfig, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            connections_max: config.connections_max,
            connections_per_prefix_max: config.connections_per_prefix_max,
            handshakes_max: config.handshakes_max,
            handshakes_retry_from: config.handshakes_retry_from,
            inside: Mutex::new(Inside::default()),
            counters,
        })
    }

    /// Judges an attempt from `address`; `is_validated` says that it was proven by a retry.
    pub(crate) fn knock(self: &Arc<Self>, address: IpAddr, is_validated: bool) -> Verdict {
        let prefix = Prefix::of(address);
        let mut inside = self.inside.lock();
        if inside.handshakes >= self.handshakes_max {
            return Verdict::Refuse(Reason::Handshakes);
        }
        if inside.handshakes >= self.handshakes_retry_from && !is_validated {
            return Verdict::Retry;
        }
        if inside.connections >= self.connections_max {
            return Verdict::Refuse(Reason::Connections);
        }
        let from_prefix = inside.prefixes.entry(prefix).or_default();
        if *from_prefix >= self.connections_per_prefix_max {
            return Verdict::Refuse(Reason::PrefixConnections);
        }
        // Forged senders could fill the places of a prefix that is not theirs: half is all
        // they get.
        if *from_prefix >= self.connections_per_prefix_max.div_ceil(2) && !is_validated {
            return Verdict::Retry;
        }
        *from_prefix += 1;
        inside.connections += 1;
        inside.handshakes += 1;
        self.counters.connections.fetch_add(1, Relaxed);
        Verdict::Enter(Entry { doors: Arc::clone(self), prefix, is_handshaking: true })
    }
}

/// A connection's place. Dropping it makes room.
pub(crate) struct Entry {
    doors: Arc<Doors>,
    prefix: Prefix,
    is_handshaking: bool,
}

impl Entry {
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
        if let Some(count) = inside.prefixes.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                inside.prefixes.remove(&self.prefix);
            }
        }
        self.doors.counters.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::{Doors, Entry, Verdict};
    use crate::config::RelayConfig;
    use crate::metrics::{Counters, Reason};

    fn doors() -> Arc<Doors> {
        let config = RelayConfig {
            connections_max: 3,
            connections_per_prefix_max: 2,
            handshakes_max: 4,
            handshakes_retry_from: 3,
            ..RelayConfig::default()
        };
        Doors::new(&config, Arc::new(Counters::default()))
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
