// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the relay server needs from the node behind it. The binary implements it over the store,
//! the node table and its counters; tests implement it over a map.
//!
//! The caller's id is proven by TLS. Whether the caller may write at all was decided before; that
//! a lease is the caller's own is for the backend to check. Errors go to the client as they are,
//! so they must not tell what the caller may not know (absent and forbidden look alike). Futures
//! are dropped when the client goes away or the request's time is over.

use std::future::Future;

use bytes::Bytes;
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{
    Ack, ByteRange, HeldIndexes, LeaseEntry, NodeStatus, Receipt, WireError,
};

/// Where a shard that arrives belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardPlace {
    /// The upload.
    pub upload: UploadId,
    /// The position in its object.
    pub slot: Slot,
    /// What the bytes must hash to.
    pub shard: ShardId,
}

/// Manifest blocks and placement of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRead {
    /// The root block, if it was asked for.
    pub root: Option<Bytes>,
    /// The page block, except for group 0.
    pub page: Option<Bytes>,
    /// The newest placement at hand.
    pub placement: Signed<PlacementRecord>,
}

/// Takes the bytes of one shard as they arrive. Dropping it before [`ShardSink::finish`] leaves
/// no trace.
pub trait ShardSink: Send + 'static {
    /// Appends; never more in all than was announced.
    ///
    /// # Errors
    /// When the bytes cannot be kept; the put then fails with it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), WireError>;

    /// All announced bytes came. Checks that they hash to `place.shard`, stores them, and returns
    /// when they are as durable as the node's setting says.
    ///
    /// # Errors
    /// `BodyMismatch` for other bytes; otherwise why they cannot be kept.
    fn finish(self, place: ShardPlace) -> impl Future<Output = Result<Ack, WireError>> + Send;
}

/// A shard that is open for reading. Reading it needs memory for the part that is read only.
pub trait ShardSource: Send + Sync + 'static {
    /// Bytes of the whole shard.
    fn shard_len(&self) -> u64;

    /// A range widened to whole groups, and the hash-tree parents that prove it.
    ///
    /// # Errors
    /// `BadRequest` for a range that is not within the shard.
    fn prove(&self, range: ByteRange) -> Result<(ByteRange, Bytes), WireError>;

    /// The verified bytes of a range of whole groups, or up to the shard's end. It is asked for
    /// [`PIECE_BYTES`] at most.
    fn read(&self, range: ByteRange) -> impl Future<Output = Result<Bytes, WireError>> + Send;
}

/// What is read of a shard, and held in memory of it, at a time.
pub const PIECE_BYTES: u64 = 1 << 20;

/// The node behind a relay server.
pub trait Backend: Send + Sync + 'static {
    /// Takes a shard's bytes.
    type Sink: ShardSink;
    /// Gives a shard's bytes.
    type Source: ShardSource;

    /// What this node knows a client to be, such as a registered node that repairs, besides lists
    /// and capabilities. An id alone proves nothing: it costs nothing. Asked once a connection.
    fn class_of(&self, caller: NodeId) -> Option<ClientClass>;

    /// Makes room for a shard of `len` bytes, which is within the limits. May wait for a buffer.
    fn begin_put(
        &self,
        caller: NodeId,
        len: u64,
    ) -> impl Future<Output = Result<Self::Sink, WireError>> + Send;

    /// Stores a manifest block that hashes to `cid` (checked before).
    fn put_block(
        &self,
        caller: NodeId,
        upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> impl Future<Output = Result<Ack, WireError>> + Send;

    /// Binds an upload to an object; returns the record and the slots now counted.
    fn commit(
        &self,
        caller: NodeId,
        commit: Commit,
    ) -> impl Future<Output = Result<(Ack, u32), WireError>> + Send;

    /// Ends one of the caller's leases.
    fn release(
        &self,
        caller: NodeId,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Ack, WireError>> + Send;

    /// Moves the end of one of the caller's leases.
    fn renew(
        &self,
        caller: NodeId,
        lease: LeaseId,
        expiry: Expiry,
    ) -> impl Future<Output = Result<Ack, WireError>> + Send;

    /// Opens a shard, of which `wanted_bytes` or so will be read.
    fn open_shard(
        &self,
        caller: NodeId,
        shard: ShardId,
        wanted_bytes: u64,
    ) -> impl Future<Output = Result<Self::Source, WireError>> + Send;

    /// Manifest blocks and placement of a group.
    fn group(
        &self,
        caller: NodeId,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> impl Future<Output = Result<GroupRead, WireError>> + Send;

    /// Slots of a group that are held here.
    fn held(
        &self,
        caller: NodeId,
        object: Cid,
        group: u32,
    ) -> impl Future<Output = Result<Vec<(Slot, ShardId)>, WireError>> + Send;

    /// The caller's own leases after an entry, in order, a page at most.
    fn leases(
        &self,
        caller: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> impl Future<Output = Result<Vec<LeaseEntry>, WireError>> + Send;

    /// Known nodes after an id, in order, a page at most.
    fn members(
        &self,
        after: Option<NodeId>,
    ) -> impl Future<Output = Result<Vec<Signed<NodeRecord>>, WireError>> + Send;

    /// This node's own record, as it is now.
    fn node_record(&self) -> Signed<NodeRecord>;

    /// What this node signs for the chain about an object under one of the caller's deal leases.
    fn receipt(
        &self,
        caller: NodeId,
        lease: LeaseId,
        object: Cid,
        wanted: Vec<HeldIndexes>,
    ) -> impl Future<Output = Result<Receipt, WireError>> + Send;

    /// Keeps the proof of the span of a group that this node holds, for audits. Only its size is
    /// checked before: the manifest that says whether it is right is the backend's.
    fn keep_span(
        &self,
        caller: NodeId,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> impl Future<Output = Result<Ack, WireError>> + Send;

    /// What this node keeps.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, WireError>> + Send;
}
