// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which arriving records are true. Pure: bytes in, verdict out.
//!
//! Everything a peer sends is assumed forged until it proves itself: a manifest block by its hash,
//! a node record by its signature. What cannot prove itself (a provider record) must come from the
//! peer it speaks of. Whether there is room is decided later, by the table.

use bytes::Bytes;
use libp2p::PeerId;
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::{Signed, SignedDecodeError};

use crate::keys::{Subject, node_of};

/// Bytes of a value record at most. With 20 peers beside it, it fits a 16 KiB packet.
pub const VALUE_BYTES_MAX: usize = 8 << 10;

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// The key has none of the forms this DHT knows.
    Key,
    /// The value is longer than [`VALUE_BYTES_MAX`].
    Oversize,
    /// The block does not hash to the CID it came under.
    Hash,
    /// Not the encoding of a node record, or one that breaks a limit.
    Malformed,
    /// The node record is not signed by the node it names.
    Signature,
    /// The node record belongs to another network.
    Network,
    /// The record speaks of another node than the one that sent it.
    Source,
    /// A newer or different node record with this sequence is known.
    Rollback,
    /// The sender holds as many records here as one peer may.
    PeerQuota,
    /// No room for more records of this kind.
    Full,
}

impl Rejection {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::Oversize,
        Self::Hash,
        Self::Malformed,
        Self::Signature,
        Self::Network,
        Self::Source,
        Self::Rollback,
        Self::PeerQuota,
        Self::Full,
    ];

    /// The name of the reason in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Oversize => "oversize",
            Self::Hash => "hash",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Network => "network",
            Self::Source => "source",
            Self::Rollback => "rollback",
            Self::PeerQuota => "peer_quota",
            Self::Full => "full",
        }
    }
}

/// A value that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proven {
    /// A block that hashes to this CID.
    Manifest(Cid),
    /// A node record signed by its node.
    Node(Signed<NodeRecord>),
}

/// Judges a value record that `source` wants stored here.
///
/// Node records are taken from the node itself only: so nobody can replay somebody's older record,
/// and one peer can hold one.
pub(crate) fn arriving_value(
    key: &[u8],
    value: &[u8],
    source: &PeerId,
    network: &str,
) -> Result<Proven, Rejection> {
    match Subject::of(key).ok_or(Rejection::Key)? {
        Subject::Content(cid) => manifest(cid, value).map(|()| Proven::Manifest(cid)),
        Subject::Node(node) => {
            let record = node_record(node, value, network)?;
            if node_of(source) != Some(node) {
                return Err(Rejection::Source);
            }
            Ok(Proven::Node(record))
        }
    }
}

/// Judges a provider record. The swarm has already dropped those whose sender names another peer.
pub(crate) fn arriving_provider(key: &[u8], provider: &PeerId) -> Result<Cid, Rejection> {
    let Some(Subject::Content(cid)) = Subject::of(key) else { return Err(Rejection::Key) };
    node_of(provider).map(|_| cid).ok_or(Rejection::Source)
}

/// Checks a block found under `cid`.
pub(crate) fn manifest(cid: Cid, value: &[u8]) -> Result<(), Rejection> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Rejection::Oversize);
    }
    if Cid::of(value) != cid {
        return Err(Rejection::Hash);
    }
    Ok(())
}

/// Checks a block found under `cid` and keeps it.
pub(crate) fn found_manifest(cid: Cid, value: Vec<u8>) -> Result<Bytes, Rejection> {
    manifest(cid, &value).map(|()| Bytes::from(value))
}

/// Checks a record found under the key of `node`, whoever passed it on.
pub(crate) fn node_record(
    node: NodeId,
    value: &[u8],
    network: &str,
) -> Result<Signed<NodeRecord>, Rejection> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Rejection::Oversize);
    }
    let record = Signed::<NodeRecord>::decode(value).map_err(|error| match error {
        SignedDecodeError::Malformed { .. } => Rejection::Malformed,
        SignedDecodeError::Signature(_) => Rejection::Signature,
    })?;
    let body = record.body_unverified();
    if body.node != node {
        return Err(Rejection::Signature);
    }
    if body.network != network {
        return Err(Rejection::Network);
    }
    body.validate().map_err(|_| Rejection::Malformed)?;
    Ok(record)
}

/// Whether `new` may take the place of `held`: a higher sequence, or the very same record again.
pub(crate) fn succeeds(held: &Signed<NodeRecord>, new: &Signed<NodeRecord>) -> bool {
    new == held || new.body_unverified().sequence > held.body_unverified().sequence
}

#[cfg(test)]
mod tests;
