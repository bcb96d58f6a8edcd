// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom to ask, and where.

use std::net::SocketAddr;

use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;

/// A node and where its relay server may listen. The addresses are hints: whoever answers there
/// must prove to be the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub node: NodeId,
    /// UDP addresses to try, the most promising first; not needed while it is connected.
    pub addresses: Vec<SocketAddr>,
}

impl From<&NodeRecord> for Peer {
    fn from(record: &NodeRecord) -> Self {
        Self { node: record.node, addresses: record.quic.clone() }
    }
}
