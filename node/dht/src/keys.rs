// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of the DHT and names of its protocols: what a stranger needs to speak to it.
//!
//! | what | key | value |
//! |---|---|---|
//! | who holds an object or page | `01 71 1e 20` + 32 bytes of its CID | provider records |
//! | a small manifest block | the same | the block itself; its BLAKE3 is the key |
//! | a node record | `00 24 08 01 12 20` + 32 bytes of the node id | a signed `NodeRecord` |
//!
//! The prefixes are those of a binary CIDv1 (dag-cbor, blake3-256) and of a binary Ed25519 peer id,
//! so a key says by itself what it is. A node record lies under the peer id of its node on purpose:
//! Kademlia hashes keys and peer ids alike, hence the node itself is the closest peer to its own
//! record, and looking the record up asks it first.

use libp2p::PeerId;
use libp2p::kad::RecordKey;
use supernode_protocol::ids::{Cid, NodeId};

const CID_PREFIX: [u8; 4] = [0x01, 0x71, 0x1e, 0x20];
const NODE_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// What a key of this DHT names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// An object or a page of its manifest.
    Content(Cid),
    /// A node.
    Node(NodeId),
}

impl Subject {
    /// Reads a key, or nothing if it has neither form.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        if let Some(hash) = key.strip_prefix(&CID_PREFIX) {
            return Cid::from_slice(hash).map(Self::Content);
        }
        key.strip_prefix(&NODE_PREFIX).and_then(NodeId::from_slice).map(Self::Node)
    }
}

/// The key of provider records and of the manifest block of `cid`.
pub(crate) fn content_key(cid: Cid) -> RecordKey {
    RecordKey::from([&CID_PREFIX[..], cid.as_bytes()].concat())
}

/// The key of the record of `node`.
pub(crate) fn node_key(node: NodeId) -> RecordKey {
    RecordKey::from([&NODE_PREFIX[..], node.as_bytes()].concat())
}

/// The node behind a peer id; other keys than Ed25519 name nobody here.
pub(crate) fn node_of(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id(peer).ok()
}

/// The Kademlia protocol of a network. Nodes of other networks do not even negotiate it.
pub fn kad_protocol(network: &str) -> String {
    format!("/supernode/{network}/kad/1")
}

/// What identify shows as protocol version; peers that show another one are disconnected.
pub fn identify_protocol(network: &str) -> String {
    format!("/supernode/{network}/1")
}

#[cfg(test)]
mod tests {
    use libp2p::kad::KBucketKey;
    use supernode_protocol::ids::Cid;

    use super::{Subject, content_key, node_key, node_of};

    #[test]
    fn keys_say_what_they_are() {
        let cid = Cid::of(b"block");
        let key = content_key(cid);
        assert_eq!(Subject::of(key.as_ref()), Some(Subject::Content(cid)));
        assert_eq!(key.to_vec(), cid.to_ipld().to_bytes());
        for cut in [0, 4, 35] {
            assert_eq!(Subject::of(&key.to_vec()[..cut]), None, "{cut} bytes");
        }
        let long = [key.to_vec(), vec![0]].concat();
        assert_eq!(Subject::of(&long), None);
    }

    #[test]
    fn a_node_is_the_closest_peer_to_its_own_record() {
        let peer = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
        let node = node_of(&peer).expect("an Ed25519 peer id");
        let key = node_key(node);
        assert_eq!(Subject::of(key.as_ref()), Some(Subject::Node(node)));
        assert_eq!(key.to_vec(), peer.to_bytes());
        let zero = KBucketKey::from(peer).distance(&KBucketKey::from(peer));
        assert_eq!(KBucketKey::new(key).distance(&KBucketKey::from(peer)), zero);
    }
}
