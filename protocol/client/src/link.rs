// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to one node, after both have said hello.

use std::sync::Arc;

use parking_lot::Mutex;
use quinn::Connection;
use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_tls::codes::CloseCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::call::Pace;
use crate::statistics::Counters;

/// What a node said when it was connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its own record; the signature holds and it is the node that was dialled.
    pub node: Signed<NodeRecord>,
    /// Program and version.
    pub agent: String,
    /// Requests it takes at a time on one connection.
    pub streams_max: u32,
}

/// An open connection. Dropping the last handle closes it.
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    pub(crate) welcome: Welcome,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) pace: Pace,
    pub(crate) counters: Arc<Counters>,
    pub(crate) last_used: Mutex<Instant>,
    /// Its place among the connections this client may have.
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Link {
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(crate) fn datagrams_received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done.to_varint(), b"");
    }
}
