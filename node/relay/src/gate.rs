// SPDX-License-Identifier: MIT OR Apache-2.0
//! A resource of the node with a share for all strangers: two turnstiles, one after the other.
//!
//! - A stranger first takes its turn among strangers, whose turnstile has room for their share,
//!   and then among all clients. However many prefixes there are, they hold that share at most.
//! - The memory of bodies in flight is such a resource of bytes. Its claims ([`ByteClaim`]) travel
//!   with the bytes into the transport and end when the transport lets go of them, which is when
//!   they were acknowledged or their stream was reset. That may be inside the transport's own
//!   lock; giving back takes no other lock and waits for nobody.

use std::sync::Arc;

use bytes::Bytes;
use supernode_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::prefix::Prefix;
use crate::turns::{Bounds, Terms};
use crate::turnstile::{Claim, Denied, Turnstile};

/// Whom a limit is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A client of a class of its own.
    Node(NodeId),
    /// All strangers of an address prefix.
    Prefix(Prefix),
}

impl Key {
    pub(crate) fn is_stranger(self) -> bool {
        matches!(self, Self::Prefix(_))
    }
}

/// Why there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// For strangers.
    AmongStrangers(Denied),
    /// For anybody.
    AmongAll(Denied),
}

/// A resource that all clients take in turns, strangers only up to their share.
pub(crate) struct Gate {
    all: Arc<Turnstile<Key>>,
    strangers: Arc<Turnstile<Key>>,
}

impl Gate {
    pub(crate) fn new(all: Bounds, strangers: Bounds) -> Self {
        Self { all: Turnstile::new(all), strangers: Turnstile::new(strangers) }
    }

    pub(crate) fn set_bounds(&self, all: Bounds, strangers: Bounds) {
        self.all.set_bounds(all);
        self.strangers.set_bounds(strangers);
    }

    /// Takes `cost` units for a client, in turn; waits until `until` at most.
    pub(crate) async fn claim(
        &self,
        key: Key,
        terms: Terms,
        cost: u64,
        until: Instant,
    ) -> Result<GateClaim, NoRoom> {
        let as_stranger = if key.is_stranger() {
            let claim = self.strangers.claim(key, terms, cost, until).await;
            Some(claim.map_err(NoRoom::AmongStrangers)?)
        } else {
            None
        };
        let claim = self.all.claim(key, terms, cost, until).await.map_err(NoRoom::AmongAll)?;
        Ok(GateClaim { _claim: claim, _as_stranger: as_stranger })
    }

    pub(crate) fn held(&self) -> u64 {
        self.all.held()
    }

    pub(crate) fn free(&self) -> u64 {
        self.all.free()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.all.waiting() + self.strangers.waiting()
    }
}

/// Units that are held. Dropping it gives them back.
pub(crate) struct GateClaim {
    _claim: Claim<Key>,
    _as_stranger: Option<Claim<Key>>,
}

/// Bytes of memory that are spoken for. Dropping it gives them back.
pub(crate) struct ByteClaim(pub(crate) GateClaim);

impl ByteClaim {
    /// The same bytes, which hold the claim for as long as anybody holds a part of them.
    pub(crate) fn wrap(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Claimed { bytes, _claim: self.0 })
    }
}

struct Claimed {
    bytes: Bytes,
    _claim: GateClaim,
}

impl AsRef<[u8]> for Claimed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use supernode_protocol::ids::NodeId;
    use tokio::time::Instant;

    use super::{ByteClaim, Gate, Key, NoRoom};
    use crate::prefix::Prefix;
    use crate::turns::{Bounds, Rank, Terms, WaitedFor};
    use crate::turnstile::Denied;

    const TERMS: Terms = Terms { rank: Rank::Foreground, held_max: 8, waiters_max: 9 };

    fn gate() -> Gate {
        let all = Bounds { capacity: 10, quantum: 1, waiters_max: 9 };
        Gate::new(all, Bounds { capacity: 6, ..all })
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_hold_their_share_and_no_more() {
        let gate = gate();
        let until = Instant::now() + Duration::from_secs(1);
        let stranger = |net| Key::Prefix(Prefix::V4([192, 0, net]));
        let _one = gate.claim(stranger(1), TERMS, 5, until).await.expect("free");
        let denied = gate.claim(stranger(2), TERMS, 2, until).await.err();
        assert_eq!(denied, Some(NoRoom::AmongStrangers(Denied::TimedOut(WaitedFor::Room))));
        let until = Instant::now() + Duration::from_secs(1);
        let known = Key::Node(NodeId::from_bytes([1; 32]));
        let _known = gate.claim(known, TERMS, 5, until).await.expect("room for others");
        let denied = gate.claim(stranger(2), TERMS, 1, until).await.err();
        assert_eq!(denied, Some(NoRoom::AmongAll(Denied::TimedOut(WaitedFor::Room))));
        assert_eq!((gate.held(), gate.free(), gate.waiting()), (10, 0, 0));
    }

    #[tokio::test]
    async fn a_claim_lives_as_long_as_any_part_of_its_bytes() {
        let gate = gate();
        let known = Key::Node(NodeId::from_bytes([1; 32]));
        let until = Instant::now() + Duration::from_secs(1);
        let claim = gate.claim(known, TERMS, 5, until).await.expect("free");
        let source = Bytes::from_static(b"shard");
        let mut wrapped = ByteClaim(claim).wrap(source.clone());
        assert_eq!((&wrapped[..], wrapped.as_ptr()), (&source[..], source.as_ptr()), "no copy");
        let part = wrapped.split_to(2);
        drop(wrapped);
        assert_eq!(gate.held(), 5);
        drop(part);
        assert_eq!(gate.held(), 0);
    }
}
