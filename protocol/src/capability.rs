// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities: a signed grant of a class and of rights, shown in the hello.
//!
//! A node trusts the issuers its operator lists, and the writers it lists to pass on what they
//! have themselves. A capability names who may show it, so that a stolen copy is worth nothing:
//! the client's id is proven by TLS before it is looked at.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::limits::NETWORK_NAME_BYTES_MAX;
use crate::signed::SignedBody;

/// What a client is to a node; each class has limits of its own there.
///
/// The order is that of rank: whoever has several grants is of the highest class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientClass {
    /// Nobody vouches for it; it shares a budget with its address prefix.
    Stranger,
    /// Restores redundancy; served when nobody else waits.
    Repair,
    /// An edge cache that serves shards again.
    Relay,
    /// A front door of the network: S3, volumes, the object commands.
    Gateway,
    /// Runs the node.
    Operator,
}

impl ClientClass {
    /// Every class, in the order of rank.
    pub const ALL: [Self; 5] =
        [Self::Stranger, Self::Repair, Self::Relay, Self::Gateway, Self::Operator];

    /// The class's name in settings, metrics and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Repair => "repair",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
        }
    }
}

/// What the holder of a capability may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Read shards, manifests and listings.
    pub read: bool,
    /// Store, commit, and manage leases of its own.
    pub write: bool,
}

/// A grant by `issuer` to `audience`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Who vouches, and signs.
    pub issuer: NodeId,
    /// Who may show it.
    pub audience: NodeId,
    /// The network it is for.
    pub network: String,
    /// What the audience is to be treated as.
    pub class: ClientClass,
    /// What it may do.
    pub scope: Scope,
    /// Bytes of bodies, both directions together, that one node moves under it in all.
    pub bytes: u64,
    /// Seconds since the Unix epoch from which on it is worth nothing.
    pub expires_at: u64,
}

impl SignedBody for Capability {
    const DOMAIN: &'static str = "supernode/capability/1";

    fn signer(&self) -> NodeId {
        self.issuer
    }
}

/// Why a capability whose signature holds is worth nothing here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Somebody else shows it.
    #[error("the capability was given to somebody else")]
    Audience,
    /// It is for another network.
    #[error("the capability is for another network")]
    Network,
    /// It has ended.
    #[error("the capability has expired; ask its issuer for a new one")]
    Expired,
}

impl Capability {
    /// Checks what the signature does not say: who shows it, where and when.
    ///
    /// # Errors
    /// [`CapabilityError`].
    pub fn check(&self, shown_by: NodeId, network: &str, now: u64) -> Result<(), CapabilityError> {
        if self.audience != shown_by {
            return Err(CapabilityError::Audience);
        }
        if self.network.len() > NETWORK_NAME_BYTES_MAX || self.network != network {
            return Err(CapabilityError::Network);
        }
        if now >= self.expires_at {
            return Err(CapabilityError::Expired);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::{Capability, CapabilityError, ClientClass, Scope};
    use crate::ids::NodeId;
    use crate::signed::Signed;

    fn capability(issuer: &Keypair, audience: NodeId) -> Capability {
        Capability {
            issuer: NodeId::from_public(&issuer.public()).expect("Ed25519"),
            audience,
            network: "main".to_owned(),
            class: ClientClass::Relay,
            scope: Scope { read: true, write: false },
            bytes: 1 << 40,
            expires_at: 1000,
        }
    }

    #[test]
    fn it_is_worth_something_to_its_audience_on_its_network_until_it_ends() {
        let audience = NodeId::from_bytes([7; 32]);
        let grant = capability(&Keypair::generate_ed25519(), audience);
        assert_eq!(grant.check(audience, "main", 999), Ok(()));
        let thief = NodeId::from_bytes([8; 32]);
        assert_eq!(grant.check(thief, "main", 999), Err(CapabilityError::Audience));
        assert_eq!(grant.check(audience, "test", 999), Err(CapabilityError::Network));
        assert_eq!(grant.check(audience, "main", 1000), Err(CapabilityError::Expired));
    }

    #[test]
    fn a_changed_grant_has_no_signature() {
        let issuer = Keypair::generate_ed25519();
        let grant = capability(&issuer, NodeId::from_bytes([7; 32]));
        let mut bytes = Signed::sign(grant, &issuer).expect("own key").encode();
        Signed::<Capability>::decode(&bytes).expect("as signed");
        // The class is the byte after two ids and the network's name, each with its length.
        let class = 33 + 33 + 5;
        assert_eq!(bytes[class], 2, "a relay");
        bytes[class] = 4;
        Signed::<Capability>::decode(&bytes).expect_err("a raised class");
    }
}
