// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node of nothing but a store. Shards go in and out exactly as on a whole node; what needs a
//! DHT, a chain or manifests is refused.

use bytes::Bytes;
use libp2p_identity::Keypair;
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{
    Ack, ByteRange, ErrorCode, HeldIndexes, LeaseEntry, NodeStatus, Receipt, WireError,
};
use supernode_relay::{Backend, GroupRead, ShardPlace, ShardSink, ShardSource};
use supernode_store::{OpenShard, PutShard, ShardBuffer, Store, StoreError};

use super::server::{NETWORK, loopback, node_id};

/// Serves shards from a store.
pub struct StoreBackend {
    store: Store,
    record: Signed<NodeRecord>,
}

impl StoreBackend {
    /// Of the node with this key.
    pub fn new(store: Store, key: &Keypair) -> Self {
        let record = NodeRecord {
            node: node_id(key),
            sequence: 1,
            network: NETWORK.to_owned(),
            region: "EU-WEST".to_owned(),
            capacity_bytes: 1 << 40,
            quic: vec![loopback(1)],
            libp2p: Vec::new(),
        };
        Self { store, record: Signed::sign(record, key).expect("the node's own key") }
    }
}

/// A shard on its way into the store.
pub struct Sink {
    store: Store,
    caller: NodeId,
    buffer: ShardBuffer,
}

impl ShardSink for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.buffer.extend(bytes).map_err(told)
    }

    async fn finish(self, place: ShardPlace) -> Result<Ack, WireError> {
        let ShardPlace { upload, slot, shard } = place;
        let put = PutShard { caller: self.caller, upload, slot, shard, buffer: self.buffer };
        self.store.put_shard(put).await.map_err(told)
    }
}

/// A shard on its way out of the store.
pub struct Source(OpenShard);

impl ShardSource for Source {
    fn shard_len(&self) -> u64 {
        self.0.shard_len()
    }

    fn prove(&self, range: ByteRange) -> Result<(ByteRange, Bytes), WireError> {
        self.0.prove(range).map_err(told)
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, WireError> {
        self.0.read(range).await.map_err(told)
    }
}

impl Backend for StoreBackend {
    type Sink = Sink;
    type Source = Source;

    fn class_of(&self, _: NodeId) -> Option<ClientClass> {
        None
    }

    async fn begin_put(&self, caller: NodeId, len: u64) -> Result<Sink, WireError> {
        let buffer = self.store.buffer(len).await.map_err(told)?;
        Ok(Sink { store: self.store.clone(), caller, buffer })
    }

    async fn put_block(&self, _: NodeId, _: UploadId, _: Cid, _: Bytes) -> Result<Ack, WireError> {
        Err(refused())
    }

    async fn commit(&self, _: NodeId, _: Commit) -> Result<(Ack, u32), WireError> {
        Err(refused())
    }

    async fn release(&self, _: NodeId, _: LeaseId) -> Result<Ack, WireError> {
        Err(refused())
    }

    async fn renew(&self, _: NodeId, _: LeaseId, _: Expiry) -> Result<Ack, WireError> {
        Err(refused())
    }

    async fn open_shard(
        &self,
        _: NodeId,
        shard: ShardId,
        wanted_bytes: u64,
    ) -> Result<Source, WireError> {
        self.store.open_shard(shard, wanted_bytes).await.map(Source).map_err(told)
    }

    async fn group(&self, _: NodeId, _: Cid, _: u32, _: bool) -> Result<GroupRead, WireError> {
        Err(refused())
    }

    async fn held(&self, _: NodeId, _: Cid, _: u32) -> Result<Vec<(Slot, ShardId)>, WireError> {
        Err(refused())
    }

    async fn leases(
        &self,
        _: NodeId,
        _: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, WireError> {
        Err(refused())
    }

    async fn members(&self, _: Option<NodeId>) -> Result<Vec<Signed<NodeRecord>>, WireError> {
        Err(refused())
    }

    fn node_record(&self) -> Signed<NodeRecord> {
        self.record.clone()
    }

    async fn receipt(
        &self,
        _: NodeId,
        _: LeaseId,
        _: Cid,
        _: Vec<HeldIndexes>,
    ) -> Result<Receipt, WireError> {
        Err(refused())
    }

    async fn keep_span(&self, _: NodeId, _: Cid, _: u32, _: SpanProof) -> Result<Ack, WireError> {
        Err(refused())
    }

    async fn status(&self) -> Result<NodeStatus, WireError> {
        Err(refused())
    }
}

fn refused() -> WireError {
    let message = "this node has shards only".to_owned();
    WireError { code: ErrorCode::Refused, message, retry_after_ms: None }
}

fn told(error: StoreError) -> WireError {
    WireError { code: ErrorCode::Internal, message: error.to_string(), retry_after_ms: None }
}
