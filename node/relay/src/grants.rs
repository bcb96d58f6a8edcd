// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: what a capability is worth here, and how much of it is left.
//!
//! - It counts if its signature holds, it is for this client on this network, it has not ended,
//!   and its issuer is trusted: an issuer on the list for everything, a writer for what it has
//!   itself, which is writing and classes up to its own.
//! - Its bytes are counted per capability, on all connections together, until it ends: coming back
//!   does not fill it up again. The table is bounded, and what has ended makes room.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use supernode_protocol::capability::{Capability, CapabilityError, ClientClass, Scope};
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::CAPABILITY_BYTES_MAX;
use supernode_protocol::signed::{Signed, SignedDecodeError};

/// Why a capability is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("the capability has {0} bytes; none has more than {CAPABILITY_BYTES_MAX}")]
    TooLong(usize),
    #[error("the capability cannot be read: {0}")]
    Unreadable(#[from] SignedDecodeError),
    #[error(transparent)]
    Worthless(#[from] CapabilityError),
    #[error("the capability's issuer {0} is not trusted by this node")]
    Issuer(NodeId),
    #[error("the capability grants more than its issuer has here: class {0} at most")]
    TooHigh(&'static str),
}

/// Why bytes can not be moved under a capability any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Over {
    #[error("the capability has expired; ask its issuer for a new one")]
    Expired,
    #[error("the bytes of the capability are used up; ask its issuer for a new one")]
    Spent,
}

/// A capability that counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    capability: Capability,
    /// BLAKE3 of its canonical encoding: written in another way it is the same.
    digest: [u8; 32],
}

/// Reads a capability and judges it. `grants_max` is the highest class that an issuer may give
/// here, if any.
pub(crate) fn judge(
    encoded: &[u8],
    shown_by: NodeId,
    network: &str,
    now: u64,
    grants_max: impl FnOnce(NodeId) -> Option<ClientClass>,
) -> Result<Judged, GrantError> {
    if encoded.len() > CAPABILITY_BYTES_MAX {
        return Err(GrantError::TooLong(encoded.len()));
    }
    let signed = Signed::<Capability>::decode(encoded)?;
    // Decoding has checked the signature.
    let capability = signed.body_unverified();
    capability.check(shown_by, network, now)?;
    match grants_max(capability.issuer) {
        None => Err(GrantError::Issuer(capability.issuer)),
        Some(class) if capability.class > class => Err(GrantError::TooHigh(class.name())),
        Some(_) => {
            let digest = *blake3::hash(&signed.encode()).as_bytes();
            Ok(Judged { capability: capability.clone(), digest })
        }
    }
}

/// What is left of a capability.
#[derive(Debug)]
pub(crate) struct Meter {
    expires_at: u64,
    left_bytes: AtomicU64,
}

impl Meter {
    pub(crate) fn check(&self, now: u64) -> Result<(), Over> {
        if now >= self.expires_at { Err(Over::Expired) } else { Ok(()) }
    }

    /// Takes the bytes of a body, all or none.
    pub(crate) fn take(&self, bytes: u64, now: u64) -> Result<(), Over> {
        self.check(now)?;
        let take = |left: u64| left.checked_sub(bytes);
        self.left_bytes.fetch_update(Relaxed, Relaxed, take).map(drop).map_err(|_| Over::Spent)
    }
}

/// What a capability gives to a connection.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) class: ClientClass,
    pub(crate) scope: Scope,
    pub(crate) meter: Arc<Meter>,
}

/// The meters of all capabilities that were shown and have not ended.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    by_digest: HashMap<[u8; 32], Arc<Meter>>,
    by_expiry: BTreeSet<(u64, [u8; 32])>,
}

impl Meters {
    /// The grant of a judged capability; `None` if the table has `meters_max` already.
    pub(crate) fn open(&mut self, judged: &Judged, now: u64, meters_max: usize) -> Option<Grant> {
        self.prune(now);
        let digest = judged.digest;
        let Capability { class, scope, expires_at, bytes, .. } = judged.capability;
        let meter = match self.by_digest.get(&digest) {
            Some(meter) => Arc::clone(meter),
            None if self.by_digest.len() >= meters_max => return None,
            None => {
                let meter = Arc::new(Meter { expires_at, left_bytes: AtomicU64::new(bytes) });
                self.by_digest.insert(digest, Arc::clone(&meter));
                self.by_expiry.insert((expires_at, digest));
                meter
            }
        };
        Some(Grant { class, scope, meter })
    }

    /// Forgets what has ended.
    pub(crate) fn prune(&mut self, now: u64) {
        while self.by_expiry.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            if let Some((_, digest)) = self.by_expiry.pop_first() {
                self.by_digest.remove(&digest);
            }
        }
    }

    /// How many are counted.
    pub(crate) fn len(&self) -> usize {
        self.by_digest.len()
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;
    use supernode_protocol::capability::{Capability, CapabilityError, ClientClass, Scope};
    use supernode_protocol::ids::NodeId;
    use supernode_protocol::signed::Signed;

    use super::{GrantError, Judged, Meters, Over, judge};

    const READER: NodeId = NodeId::from_bytes([7; 32]);

    fn capability(issuer: &Keypair, class: ClientClass) -> Capability {
        Capability {
            issuer: NodeId::from_public(&issuer.public()).expect("Ed25519"),
            audience: READER,
            network: "main".to_owned(),
            class,
            scope: Scope { read: true, write: false },
            bytes: 100,
            expires_at: 1000,
        }
    }

    fn judged(
        class: ClientClass,
        grants_max: Option<ClientClass>,
        damage: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Judged, GrantError> {
        let issuer = Keypair::generate_ed25519();
        let signed = Signed::sign(capability(&issuer, class), &issuer).expect("own key");
        let mut encoded = signed.encode();
        damage(&mut encoded);
        judge(&encoded, READER, "main", 999, |_| grants_max)
    }

    #[test]
    fn it_counts_as_far_as_its_issuer_is_trusted() {
        let all = Some(ClientClass::Operator);
        judged(ClientClass::Operator, all, |_| {}).expect("an issuer grants everything");
        let gateway = Some(ClientClass::Gateway);
        judged(ClientClass::Gateway, gateway, |_| {}).expect("a writer, what it has");
        let error = judged(ClientClass::Operator, gateway, |_| {});
        assert_eq!(error, Err(GrantError::TooHigh("gateway")));
        let error = judged(ClientClass::Relay, None, |_| {});
        assert!(matches!(error, Err(GrantError::Issuer(_))), "{error:?}");
    }

    #[test]
    fn what_is_wrong_with_it_is_told() {
        let all = Some(ClientClass::Operator);
        let relay = ClientClass::Relay;
        let error = judged(relay, all, |bytes| bytes.resize(1025, 0));
        assert_eq!(error, Err(GrantError::TooLong(1025)));
        let error = judged(relay, all, |bytes| bytes.push(0));
        assert!(matches!(error, Err(GrantError::Unreadable(_))), "{error:?}");
        let error = judged(relay, all, |bytes| *bytes.last_mut().expect("some") ^= 1);
        assert!(matches!(error, Err(GrantError::Unreadable(_))), "{error:?}");
        let issuer = Keypair::generate_ed25519();
        let signed = Signed::sign(capability(&issuer, relay), &issuer).expect("own key");
        let judge = |network, now| {
            let judged = judge(&signed.encode(), READER, network, now, |_| all);
            judged.expect_err("worth nothing")
        };
        assert_eq!(judge("main", 1000), CapabilityError::Expired.into());
        assert_eq!(judge("other", 999), CapabilityError::Network.into());
    }

    #[test]
    fn coming_back_does_not_fill_it_up_and_ending_makes_room() {
        let issuer = Keypair::generate_ed25519();
        let capability = capability(&issuer, ClientClass::Relay);
        let first = Judged { capability: capability.clone(), digest: [1; 32] };
        let mut meters = Meters::default();
        let grant = meters.open(&first, 0, 1).expect("room");
        assert_eq!(grant.meter.take(60, 0), Ok(()));
        let again = meters.open(&first, 0, 1).expect("known");
        assert_eq!(again.meter.take(60, 0), Err(Over::Spent), "all or none");
        assert_eq!(again.meter.take(40, 999), Ok(()));
        assert_eq!(again.meter.take(0, 1000), Err(Over::Expired), "also under a connection");
        let capability = Capability { expires_at: 2000, ..capability };
        let second = Judged { capability, digest: [2; 32] };
        assert!(meters.open(&second, 999, 1).is_none(), "the table is full");
        assert!(meters.open(&second, 1000, 1).is_some());
        assert_eq!(meters.len(), 1);
    }

    #[test]
    fn written_in_another_way_it_is_the_same() {
        let issuer = Keypair::generate_ed25519();
        let signed = Signed::sign(capability(&issuer, ClientClass::Relay), &issuer).expect("own");
        let operator = |_| Some(ClientClass::Operator);
        let judge = |encoded: &[u8]| judge(encoded, READER, "main", 0, operator);
        let mut encoded = signed.encode();
        let once = judge(&encoded).expect("as signed");
        // The length of the network's name, in two bytes where one is enough.
        assert_eq!(encoded[66], 4);
        encoded.splice(66..67, [0x84, 0x00]);
        let twice = judge(&encoded).map(|judged| judged.digest);
        assert!(twice.is_err() || twice == Ok(once.digest), "a second meter: {twice:?}");
    }
}
