// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configured bootstrap peers: dialled until they answer, and again when they are lost. Pure:
//! time is passed in.
//!
//! Nodes of one network often start at the same instant, so the first attempts come quickly and
//! are spread by the peer's id; then the waits double up to a quarter of a minute.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(15);
/// A dial nobody reported on counts as failed after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Seed {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    // The next dial. None while it is connected.
    due: Option<Instant>,
    failures: u32,
    foreign: bool,
}

/// All bootstrap peers but ourselves.
#[derive(Debug)]
pub(crate) struct Seeds {
    seeds: Vec<Seed>,
    answered: bool,
}

impl Seeds {
    /// Addresses must end with the peer they lead to; `local` is left out.
    pub(crate) fn new(local: &PeerId, configured: &[(PeerId, Multiaddr)], now: Instant) -> Self {
        let mut seeds: Vec<Seed> = Vec::new();
        for (peer, address) in configured.iter().filter(|(peer, _)| peer != local) {
            if let Some(seed) = seeds.iter_mut().find(|seed| seed.peer == *peer) {
                seed.addresses.push(address.clone());
            } else {
                let addresses = vec![address.clone()];
                seeds.push(Seed {
                    peer: *peer,
                    addresses,
                    due: Some(now),
                    failures: 0,
                    foreign: false,
                });
            }
        }
        Self { answered: seeds.is_empty(), seeds }
    }

    /// Whether one of them has answered since the start, or there is none.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    /// Whom to dial now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self.seeds.iter_mut().filter(|seed| seed.due.is_some_and(|due| due <= now));
        due.map(|seed| {
            seed.due = Some(now + DIAL_TIMEOUT);
            (seed.peer, seed.addresses.clone())
        })
        .collect()
    }

    /// The peer answered as a server of our network.
    pub(crate) fn reached(&mut self, peer: &PeerId) {
        if let Some(seed) = self.seeds.iter_mut().find(|seed| seed.peer == *peer) {
            seed.due = None;
            seed.failures = 0;
            self.answered = true;
        }
    }

    /// The peer cannot be dialled, is not ours, or was lost.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(seed) = self.seeds.iter_mut().find(|seed| seed.peer == *peer) {
            let wait = (WAIT * 2_u32.pow(seed.failures.min(10))).min(WAIT_MAX);
            let last = seed.peer.to_bytes().last().copied().unwrap_or(0);
            seed.failures = seed.failures.saturating_add(1);
            seed.due = Some(now + wait + wait / 4 * u32::from(last) / 256);
        }
    }

    /// The peer belongs to another network. Says so the first time only.
    pub(crate) fn foreign(&mut self, peer: &PeerId) -> bool {
        let seed = self.seeds.iter_mut().find(|seed| seed.peer == *peer);
        seed.is_some_and(|seed| !std::mem::replace(&mut seed.foreign, true))
    }

    /// The configured addresses of a bootstrap peer.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        let seed = self.seeds.iter().find(|seed| seed.peer == *peer);
        seed.map_or(&[], |seed| &seed.addresses)
    }

    /// When the next dial is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.seeds.iter().filter_map(|seed| seed.due).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use libp2p::{Multiaddr, PeerId};

    use super::{DIAL_TIMEOUT, Seeds, WAIT, WAIT_MAX};

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a multiaddress")
    }

    #[test]
    fn nobody_to_ask_means_ready() {
        let local = PeerId::random();
        let now = Instant::now();
        assert!(Seeds::new(&local, &[], now).answered());
        let mut only_self = Seeds::new(&local, &[(local, address(1))], now);
        assert!(only_self.answered());
        assert!(only_self.take_due(now).is_empty());
    }

    #[test]
    fn peers_that_are_not_up_are_dialled_again_ever_more_slowly() {
        let peer = PeerId::random();
        let mut now = Instant::now();
        let configured = [(peer, address(1)), (peer, address(2))];
        let mut seeds = Seeds::new(&PeerId::random(), &configured, now);
        let mut waits = vec![];
        for _ in 0..12 {
            let due = seeds.take_due(now);
            assert_eq!(due, [(peer, vec![address(1), address(2)])]);
            assert!(seeds.take_due(now).is_empty(), "under way");
            seeds.lost(&peer, now);
            let next = seeds.next_due().expect("scheduled");
            waits.push(next - now);
            now = next;
        }
        assert!(waits[0] >= WAIT && waits[0] <= WAIT * 5 / 4);
        assert!(waits.is_sorted());
        assert!(waits[11] >= WAIT_MAX && waits[11] <= WAIT_MAX * 5 / 4);
        assert!(!seeds.answered());
        seeds.take_due(now);
        assert_eq!(seeds.next_due(), Some(now + DIAL_TIMEOUT), "a silent dial is not for ever");
    }

    #[test]
    fn one_answer_makes_ready_and_a_lost_peer_is_dialled_again() {
        let (first, second) = (PeerId::random(), PeerId::random());
        let now = Instant::now();
        let configured = [(first, address(1)), (second, address(2))];
        let mut seeds = Seeds::new(&PeerId::random(), &configured, now);
        assert_eq!(seeds.take_due(now).len(), 2);
        seeds.reached(&PeerId::random());
        assert!(!seeds.answered());
        seeds.reached(&second);
        assert!(seeds.answered());
        seeds.reached(&first);
        assert_eq!(seeds.next_due(), None);
        seeds.lost(&first, now);
        assert!(seeds.answered(), "once ready, always ready");
        assert_eq!(seeds.take_due(now + Duration::from_secs(1)).len(), 1);
    }
}
