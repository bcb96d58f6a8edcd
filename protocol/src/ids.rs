// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of things: fixed-width, typed, and never interchangeable.
//!
//! - [`ShardId`]: BLAKE3 of a shard's bytes (padding included).
//! - [`Cid`]: BLAKE3 of a DAG-CBOR block, shown as a CIDv1 (`dag-cbor`, `blake3-256`).
//! - [`NodeId`]: an Ed25519 public key, shown as the libp2p peer id made from it.
//! - [`UploadId`], [`LeaseId`]: 16 random bytes chosen by the writer.
//!
//! In self-describing text formats (JSON, TOML) every id is its display string; in binary
//! formats it is its bytes.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A string that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not a valid {kind}: {reason}")]
pub struct ParseIdError {
    /// What was expected, as a user would call it.
    pub kind: &'static str,
    /// The offending text, cut to a printable length.
    pub input: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ParseIdError {
    pub(crate) fn new(kind: &'static str, input: &str, reason: impl fmt::Display) -> Self {
        Self { kind, input: input.chars().take(80).collect(), reason: reason.to_string() }
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Width in bytes.
            pub const LEN: usize = $len;

            /// Takes the raw bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes exactly [`Self::LEN`] bytes, or nothing.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    return text.parse().map_err(D::Error::custom);
                }
                deserializer.deserialize_bytes(BytesVisitor::<$len>).map(Self)
            }
        }
    };
}

struct BytesVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for BytesVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exactly {N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(kind: &'static str, text: &str) -> Result<[u8; N], ParseIdError> {
    if text.len() != N * 2 || !text.is_ascii() {
        return Err(ParseIdError::new(kind, text, format_args!("expected {} hex digits", N * 2)));
    }
    let mut out = [0; N];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| {
            ParseIdError::new(kind, text, "it holds a character that is no hex digit")
        })?;
    }
    Ok(out)
}

macro_rules! hex_text {
    ($name:ident, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex($kind, text).map(Self)
            }
        }
    };
}

byte_id! {
    /// The BLAKE3 root of a shard's padded bytes: its identity on disk and on the wire.
    ShardId, 32, "shard id"
}
hex_text!(ShardId, "shard id");

impl ShardId {
    /// Hashes a whole shard. Streaming callers use [`crate::tree::TreeHasher`].
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

byte_id! {
    /// A content identifier: the BLAKE3 hash of one DAG-CBOR block, a manifest root or page.
    ///
    /// Only CIDv1 with codec `dag-cbor` (0x71) and hash `blake3-256` (0x1e) exists here, so the
    /// 32 hash bytes are the whole identity and everything else is a parse error.
    Cid, 32, "CID"
}

const CODEC_DAG_CBOR: u64 = 0x71;
const HASH_BLAKE3_256: u64 = 0x1e;

impl Cid {
    /// The CID of a block.
    pub fn of(block: &[u8]) -> Self {
        Self(*blake3::hash(block).as_bytes())
    }

    /// The general form, for encoders that know IPLD links.
    pub fn to_ipld(self) -> cid::Cid {
        let hash = cid::multihash::Multihash::wrap(HASH_BLAKE3_256, &self.0)
            .expect("32 bytes fit a 64-byte multihash");
        cid::Cid::new_v1(CODEC_DAG_CBOR, hash)
    }

    /// Accepts only the one kind of CID this network uses.
    ///
    /// # Errors
    /// Says which part (version, codec, hash) is another one.
    pub fn from_ipld(cid: &cid::Cid) -> Result<Self, ParseIdError> {
        let fail = |reason: &str| Err(ParseIdError::new("CID", &cid.to_string(), reason));
        if cid.version() != cid::Version::V1 {
            return fail("only CIDv1 is used here");
        }
        if cid.codec() != CODEC_DAG_CBOR {
            return fail("the codec must be dag-cbor (0x71)");
        }
        if cid.hash().code() != HASH_BLAKE3_256 {
            return fail("the hash must be blake3-256 (0x1e)");
        }
        Self::from_slice(cid.hash().digest())
            .ok_or(())
            .or_else(|()| fail("the hash must be 32 bytes long"))
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ipld(), f)
    }
}

impl FromStr for Cid {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        // The general parser also takes gateway paths and other multibases; one spelling is enough.
        if !text.starts_with('b') || text.len() > 128 {
            return Err(ParseIdError::new(
                "CID",
                text,
                "expected base32 text that starts with \"b\"",
            ));
        }
        let general =
            cid::Cid::try_from(text).map_err(|error| ParseIdError::new("CID", text, error))?;
        Self::from_ipld(&general)
    }
}

byte_id! {
    /// A node's or client's name: its Ed25519 public key.
    NodeId, 32, "peer id"
}

#[cfg(feature = "std")]
impl NodeId {
    /// The id of an identity key.
    ///
    /// # Errors
    /// Keys of other types than Ed25519 name no node.
    pub fn from_public(key: &libp2p_identity::PublicKey) -> Result<Self, ParseIdError> {
        key.clone()
            .try_into_ed25519()
            .map(|key| Self(key.to_bytes()))
            .map_err(|error| ParseIdError::new("peer id", &key.to_peer_id().to_string(), error))
    }

    /// The id behind a libp2p peer id, which for Ed25519 embeds the key itself.
    ///
    /// # Errors
    /// Peer ids that hash their key, or embed another type of key.
    pub fn from_peer_id(peer: &libp2p_identity::PeerId) -> Result<Self, ParseIdError> {
        let fail =
            |reason: &dyn fmt::Display| ParseIdError::new("peer id", &peer.to_string(), reason);
        let multihash = peer.as_ref();
        if multihash.code() != 0 {
            return Err(fail(&"it hashes its key; only Ed25519 identities are used here"));
        }
        let key = libp2p_identity::PublicKey::try_decode_protobuf(multihash.digest())
            .map_err(|error| fail(&error))?;
        Self::from_public(&key)
    }

    /// The public key, if the bytes are a point on the curve.
    ///
    /// # Errors
    /// Bytes that are no Ed25519 key.
    pub fn public_key(&self) -> Result<libp2p_identity::PublicKey, ParseIdError> {
        libp2p_identity::ed25519::PublicKey::try_from_bytes(&self.0)
            .map(libp2p_identity::PublicKey::from)
            .map_err(|_| {
                let mut text = String::new();
                let _ = fmt::Write::write_fmt(&mut text, format_args!("{self}"));
                ParseIdError::new("peer id", &text, "its bytes are no Ed25519 key")
            })
    }

    /// The libp2p name of this node.
    pub fn peer_id(&self) -> libp2p_identity::PeerId {
        // An Ed25519 peer id is the identity multihash of the key's protobuf: type 1, 32 bytes.
        let mut protobuf = [0_u8; 36];
        protobuf[..4].copy_from_slice(&[0x08, 0x01, 0x12, 0x20]);
        protobuf[4..].copy_from_slice(&self.0);
        let hash = cid::multihash::Multihash::<64>::wrap(0, &protobuf)
            .expect("36 bytes fit a 64-byte multihash");
        libp2p_identity::PeerId::from_multihash(hash).expect("identity multihash within its limit")
    }
}

#[cfg(feature = "std")]
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.peer_id(), f)
    }
}

#[cfg(feature = "std")]
impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let peer: libp2p_identity::PeerId =
            text.parse().map_err(|error| ParseIdError::new("peer id", text, error))?;
        Self::from_peer_id(&peer)
    }
}

// Without std there is no base58; the key's hex stands in for the peer id.
#[cfg(not(feature = "std"))]
hex_text!(NodeId, "peer id");

byte_id! {
    /// Names one upload: the shards written under it belong together until a commit binds them.
    UploadId, 16, "upload id"
}
hex_text!(UploadId, "upload id");

byte_id! {
    /// Names one lease. Random, so that nobody can guess another owner's.
    LeaseId, 16, "lease id"
}
hex_text!(LeaseId, "lease id");

/// A position of a shard in an object: stripes count over the whole object, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Which `Stripe` extent of the object.
    pub stripe: u32,
    /// Which of its `k + m` shards.
    pub index: u16,
}

#[cfg(test)]
mod tests {
    use super::{Cid, NodeId, ShardId};

    #[test]
    fn a_cid_is_cidv1_dag_cbor_blake3_in_base32() {
        let text = Cid::of(b"\xa0").to_string();
        assert!(text.starts_with("bafyr4i"), "{text}");
        assert_eq!(text.parse::<Cid>().expect("own output parses"), Cid::of(b"\xa0"));
    }

    #[test]
    fn other_cids_are_refused_with_the_reason() {
        let sha2 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        let error = sha2.parse::<Cid>().expect_err("dag-pb sha2-256");
        assert!(error.reason.contains("dag-cbor"), "{error}");
        for text in ["", "Qm", "/ipfs/bafy", "not-a-cid", "b", "bafyr4i!"] {
            assert!(text.parse::<Cid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_node_id_is_the_libp2p_peer_id_of_its_key() {
        let key = libp2p_identity::Keypair::generate_ed25519();
        let node = NodeId::from_public(&key.public()).expect("an Ed25519 key");
        assert_eq!(node.peer_id(), key.public().to_peer_id());
        assert_eq!(node.to_string().parse::<NodeId>().expect("own output parses"), node);
        assert_eq!(node.public_key().expect("a real key"), key.public());
    }

    #[test]
    fn ids_are_text_in_json_and_bytes_in_postcard() {
        let id = ShardId::of(b"x");
        let json = serde_json::to_string(&id).expect("plain string");
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<ShardId>(&json).expect("round trip"), id);
        let bytes = postcard::to_allocvec(&id).expect("fixed width");
        assert_eq!(bytes.len(), 33);
        assert_eq!(postcard::from_bytes::<ShardId>(&bytes).expect("round trip"), id);
        assert!(postcard::from_bytes::<ShardId>(&bytes[..20]).is_err());
    }
}
