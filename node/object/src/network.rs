// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the object layer needs of the network, as two traits: [`Holders`] moves bytes to and from
//! nodes that are named, [`Directory`] finds out which nodes those are. Tests put a network in
//! memory behind them; [`live`] is the real one.

pub mod live;

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use supernode_client::{GroupAnswer, Peer, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::Commit;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{Ack, ErrorCode, HeldIndexes, LeaseEntry, Receipt};

/// Why a holder did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {message}")]
pub struct HolderError {
    /// Which node.
    pub node: NodeId,
    /// Its answer; `None` when it gave none (unreachable, timed out, caught lying).
    pub code: Option<ErrorCode>,
    /// For people.
    pub message: String,
}

/// Moves bytes to and from holders. What comes back is verified against the id it was asked by,
/// and a holder that is busy is waited for as long as the implementation has patience.
pub trait Holders: Send + Sync + 'static {
    /// How long a node usually takes to begin an answer, if that was measured.
    fn latency(&self, node: NodeId) -> Option<Duration>;

    /// Opens a connection, so that later calls need not wait for one.
    fn connect(&self, peer: &Peer) -> impl Future<Output = Result<(), HolderError>> + Send;

    /// Stores a shard under an upload.
    fn put_shard(
        &self,
        peer: &Peer,
        put: PutShard,
    ) -> impl Future<Output = Result<Ack, HolderError>> + Send;

    /// Stores a manifest block under an upload.
    fn put_block(
        &self,
        peer: &Peer,
        upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> impl Future<Output = Result<Ack, HolderError>> + Send;

    /// Binds an upload to an object; says how many slots of the group the node has now.
    fn commit(
        &self,
        peer: &Peer,
        commit: Commit,
    ) -> impl Future<Output = Result<u32, HolderError>> + Send;

    /// Reads a whole shard.
    fn shard(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
    ) -> impl Future<Output = Result<Bytes, HolderError>> + Send;

    /// Reads a part of a shard.
    fn shard_range(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, HolderError>> + Send;

    /// Reads manifest and placement of a group.
    fn group(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> impl Future<Output = Result<GroupAnswer, HolderError>> + Send;

    /// Which slots of a group the node holds.
    fn held(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
    ) -> impl Future<Output = Result<Vec<(Slot, ShardId)>, HolderError>> + Send;

    /// The caller's leases, a page at a time.
    fn leases(
        &self,
        peer: &Peer,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> impl Future<Output = Result<Vec<LeaseEntry>, HolderError>> + Send;

    /// What the node signs for the chain about an object under one of the caller's deal leases.
    fn receipt(
        &self,
        peer: &Peer,
        lease: LeaseId,
        object: Cid,
        wanted: Vec<HeldIndexes>,
    ) -> impl Future<Output = Result<Receipt, HolderError>> + Send;

    /// Gives the node the proof of the span of a group that it holds.
    fn keep_span(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> impl Future<Output = Result<Ack, HolderError>> + Send;

    /// Ends a lease of the caller.
    fn release(
        &self,
        peer: &Peer,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Ack, HolderError>> + Send;
}

/// Finds nodes. Everything it says is a hint.
pub trait Directory: Send + Sync + 'static {
    /// The nodes of the network, as far as they are known.
    fn members(&self) -> impl Future<Output = Vec<NodeRecord>> + Send;

    /// Who says it holds the block of that name.
    fn providers(&self, cid: Cid) -> impl Future<Output = Vec<NodeId>> + Send;

    /// The block itself, if it is small enough to be published.
    fn block(&self, cid: Cid) -> impl Future<Output = Option<Bytes>> + Send;

    /// Where a node is.
    fn node(&self, node: NodeId) -> impl Future<Output = Option<NodeRecord>> + Send;
}

/// How to reach the node behind a record.
pub(crate) fn peer(record: &NodeRecord) -> Peer {
    Peer { node: record.node, addresses: record.quic.clone() }
}
