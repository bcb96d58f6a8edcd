// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities: a signed grant of a class and of rights, shown in the hello.
//!
//! A node trusts the issuers its operator lists, and the writers it lists to pass on what they
//! have themselves. A capability names who may show it, so that a stolen copy is worth nothing:
//! the client's id is proven by TLS before it is looked at.
//!
//! People hand capabilities on as **tokens**: the signed encoding in multibase's base64url.

use cid::multibase::{self, Base};
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::limits::{CAPABILITY_BYTES_MAX, NETWORK_NAME_BYTES_MAX};
use crate::signed::{Signed, SignedBody, SignedDecodeError};

/// Characters of a token at most: six bits each, after the one that names the base.
pub const TOKEN_CHARS_MAX: usize = 1 + (CAPABILITY_BYTES_MAX * 8).div_ceil(6);

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

    /// The class of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
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
    #[error("the capability was given to somebody else; ask its issuer for one for this identity")]
    Audience,
    /// It is for another network.
    #[error("the capability is for another network; ask for one for this network")]
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

/// Text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than any token has.
    #[error("it has {0} bytes, and no token has more than {TOKEN_CHARS_MAX}")]
    TooLong(usize),
    /// Not multibase's base64url.
    #[error("a token is `u` and base64url without padding")]
    Encoding,
    /// Something else in base64url.
    #[error(transparent)]
    Record(#[from] SignedDecodeError),
}

impl Signed<Capability> {
    /// The token: one line of printable characters.
    pub fn token(&self) -> String {
        multibase::encode(Base::Base64Url, self.encode())
    }

    /// Reads a token, without looking at the signature.
    ///
    /// # Errors
    /// [`TokenError`]; nothing is decoded that is longer than any token.
    pub fn from_token(token: &str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        match multibase::decode(token) {
            Ok((Base::Base64Url, bytes)) => Ok(Self::decode_unverified(&bytes)?),
            _ => Err(TokenError::Encoding),
        }
    }
}

#[cfg(test)]
mod tests {
    use cid::multibase::{self, Base};
    use libp2p_identity::Keypair;

    use super::{Capability, CapabilityError, ClientClass, Scope, TOKEN_CHARS_MAX, TokenError};
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

    #[test]
    fn a_token_is_one_line_and_has_one_spelling() {
        let issuer = Keypair::generate_ed25519();
        let grant = capability(&issuer, NodeId::from_bytes([7; 32]));
        let signed = Signed::sign(grant, &issuer).expect("own key");
        let token = signed.token();
        assert!(token.starts_with('u') && !token.contains(|c: char| !c.is_ascii_graphic()));
        assert!(token.len() <= TOKEN_CHARS_MAX);
        assert_eq!(Signed::from_token(&token), Ok(signed.clone()));
        let read = Signed::<Capability>::from_token;
        for other in [Base::Base64, Base::Base64UrlPad, Base::Base58Btc, Base::Base32Lower] {
            let spelled = multibase::encode(other, signed.encode());
            assert_eq!(read(&spelled), Err(TokenError::Encoding), "{other:?}");
        }
        for text in ["", "u!", &token[1..], &format!("{token}\n")] {
            assert_eq!(read(text), Err(TokenError::Encoding), "{text:?}");
        }
        for bytes in [&b""[..], b"something else", &signed.encode()[1..]] {
            let spelled = multibase::encode(Base::Base64Url, bytes);
            assert!(matches!(read(&spelled), Err(TokenError::Record(_))), "{bytes:?}");
        }
        let long = "u".repeat(TOKEN_CHARS_MAX + 1);
        assert_eq!(read(&long), Err(TokenError::TooLong(TOKEN_CHARS_MAX + 1)));
        let longest = multibase::encode(Base::Base64Url, [0; 1024]);
        assert_eq!(longest.len(), TOKEN_CHARS_MAX);
    }

    #[test]
    fn a_token_is_read_with_a_signature_that_does_not_hold() {
        let issuer = Keypair::generate_ed25519();
        let signed = Signed::sign(capability(&issuer, NodeId::from_bytes([7; 32])), &issuer);
        let mut bytes = signed.expect("own key").encode();
        *bytes.last_mut().expect("a signature") ^= 1;
        let token = multibase::encode(Base::Base64Url, bytes);
        let read = Signed::<Capability>::from_token(&token).expect("well formed");
        read.verify().expect_err("forged");
    }

    #[test]
    fn classes_are_found_by_their_names() {
        for class in ClientClass::ALL {
            assert_eq!(ClientClass::named(class.name()), Some(class));
        }
        assert_eq!(ClientClass::named("Relay"), None);
    }
}
