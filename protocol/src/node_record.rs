// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node record: how a node presents itself to strangers.
//!
//! Signed by the node's identity, so that whoever passes it on can at worst withhold it. Readers
//! keep the one with the highest `sequence`.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::limits::{NETWORK_NAME_BYTES_MAX, NODE_ADDRESSES_MAX, REGION_NAME_BYTES_MAX};
use crate::signed::SignedBody;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Who it is, and whose signature the record carries.
    pub node: NodeId,
    /// Rises with every change; the highest wins.
    pub sequence: u64,
    /// The network it belongs to; nodes of other networks ignore it.
    pub network: String,
    /// Failure domain, such as `EU-WEST`.
    pub region: String,
    /// Bytes it offers: its weight in placement. 0 takes no shards.
    pub capacity_bytes: u64,
    /// Where its relay server listens (UDP).
    pub quic: Vec<SocketAddr>,
    /// Multiaddresses of its libp2p endpoint, as text.
    pub libp2p: Vec<String>,
}

impl SignedBody for NodeRecord {
    const DOMAIN: &'static str = "supernode/node/1";

    fn signer(&self) -> NodeId {
        self.node
    }
}

/// A node record that breaks a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node record's {field} is out of range: {value}, at most {max}")]
pub struct NodeRecordError {
    /// Which field.
    pub field: &'static str,
    /// Its length.
    pub value: usize,
    /// The limit.
    pub max: usize,
}

/// Bytes of one multiaddress at most.
const ADDRESS_BYTES_MAX: usize = 256;

impl NodeRecord {
    /// Checks every limit that decoding cannot.
    ///
    /// # Errors
    /// Names the field that is too long.
    pub fn validate(&self) -> Result<(), NodeRecordError> {
        let longest = self.libp2p.iter().map(String::len).max().unwrap_or(0);
        [
            ("network", self.network.len(), NETWORK_NAME_BYTES_MAX),
            ("region", self.region.len(), REGION_NAME_BYTES_MAX),
            ("quic", self.quic.len(), NODE_ADDRESSES_MAX),
            ("libp2p", self.libp2p.len(), NODE_ADDRESSES_MAX),
            ("libp2p address", longest, ADDRESS_BYTES_MAX),
        ]
        .into_iter()
        .find(|(_, value, max)| value > max)
        .map_or(Ok(()), |(field, value, max)| Err(NodeRecordError { field, value, max }))
    }
}
