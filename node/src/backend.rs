// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the relay server asks of this node, answered by store and DHT.
//!
//! Failures are told apart for the client by what it can do about them. What it may not know (whose
//! lease an id is) and what it cannot use (which file failed) stays here, in the log.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use supernode_dht::Dht;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::limits::LISTING_ENTRIES_MAX;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{Ack, ByteRange, ErrorCode, LeaseEntry, NodeStatus, WireError};
use supernode_relay::{Backend, GroupRead, RangeRead, ShardPlace, ShardSink};
use supernode_store::{PutBlock, PutShard, ShardBuffer, Store, StoreError};
use tokio::sync::watch;

/// The node's own record, as it is now.
pub type OwnRecord = watch::Receiver<Arc<Signed<NodeRecord>>>;

/// Store and DHT as the relay server sees them.
pub struct NodeBackend {
    store: Store,
    dht: Dht,
    record: OwnRecord,
    started: Instant,
}

impl NodeBackend {
    /// A backend over parts that run.
    pub fn new(store: Store, dht: Dht, record: OwnRecord) -> Self {
        Self { store, dht, record, started: Instant::now() }
    }
}

/// A shard on its way into the store.
pub struct StoreSink {
    store: Store,
    caller: NodeId,
    buffer: ShardBuffer,
}

impl ShardSink for StoreSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.buffer.extend(bytes).map_err(told)
    }

    async fn finish(self, place: ShardPlace) -> Result<Ack, WireError> {
        let ShardPlace { upload, slot, shard } = place;
        let put = PutShard { caller: self.caller, upload, slot, shard, buffer: self.buffer };
        self.store.put_shard(put).await.map_err(told)
    }
}

impl Backend for NodeBackend {
    type Sink = StoreSink;

    async fn begin_put(&self, caller: NodeId, len: u64) -> Result<StoreSink, WireError> {
        let buffer = self.store.buffer(len).await.map_err(told)?;
        Ok(StoreSink { store: self.store.clone(), caller, buffer })
    }

    async fn put_block(
        &self,
        caller: NodeId,
        upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> Result<Ack, WireError> {
        self.store.put_block(PutBlock { caller, upload, cid, bytes }).await.map_err(told)
    }

    async fn commit(&self, caller: NodeId, commit: Commit) -> Result<(Ack, u32), WireError> {
        self.store.commit(caller, commit).await.map_err(told)
    }

    async fn release(&self, caller: NodeId, lease: LeaseId) -> Result<Ack, WireError> {
        self.store.release(caller, lease).await.map_err(told)
    }

    async fn renew(
        &self,
        caller: NodeId,
        lease: LeaseId,
        expiry: Expiry,
    ) -> Result<Ack, WireError> {
        self.store.renew(caller, lease, expiry).await.map_err(told)
    }

    async fn shard(&self, _caller: NodeId, shard: ShardId) -> Result<Bytes, WireError> {
        self.store.shard(shard).await.map(|shard| shard.bytes).map_err(told)
    }

    async fn shard_range(
        &self,
        _caller: NodeId,
        shard: ShardId,
        range: ByteRange,
    ) -> Result<RangeRead, WireError> {
        let read = self.store.shard_range(shard, range).await.map_err(told)?;
        let supernode_store::RangeRead { shard_len, range, proof, bytes } = read;
        Ok(RangeRead { shard_len, range, proof, bytes })
    }

    async fn group(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupRead, WireError> {
        let read = self.store.group(object, group).await.map_err(told)?;
        let root = with_root.then_some(read.root);
        Ok(GroupRead { root, page: read.page, placement: read.placement })
    }

    async fn held(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
    ) -> Result<Vec<(Slot, ShardId)>, WireError> {
        self.store.held(object, group).await.map_err(told)
    }

    async fn leases(
        &self,
        caller: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, WireError> {
        self.store.leases_of(caller, after, LISTING_ENTRIES_MAX).await.map_err(told)
    }

    async fn members(&self, after: Option<NodeId>) -> Result<Vec<Signed<NodeRecord>>, WireError> {
        let mut members = self.dht.members();
        let first = match after {
            Some(after) => members.partition_point(|member| member.body_unverified().node <= after),
            None => 0,
        };
        let last = members.len().min(first + LISTING_ENTRIES_MAX);
        Ok(members.drain(first..last).collect())
    }

    fn node_record(&self) -> Signed<NodeRecord> {
        Signed::clone(&self.record.borrow())
    }

    async fn status(&self) -> Result<NodeStatus, WireError> {
        let usage = self.store.usage();
        Ok(NodeStatus {
            shard_count: usage.shards.live.count,
            slot_count: usage.live_slots,
            live_bytes: usage.shards.live.bytes,
            capacity_bytes: self.store.capacity_bytes(),
            uptime_secs: self.started.elapsed().as_secs(),
        })
    }
}

/// A failure of the store as the client is told it.
fn told(error: StoreError) -> WireError {
    let tell = |code, message: String| WireError { code, message, retry_after_ms: None };
    match error {
        StoreError::Full { .. } => tell(ErrorCode::Full, error.to_string()),
        StoreError::ShardNotFound { .. } | StoreError::GroupNotFound { .. } => {
            tell(ErrorCode::NotFound, error.to_string())
        }
        // One answer for all three: an id is no way to find out what others have here.
        StoreError::LeaseNotFound { .. }
        | StoreError::NotOwner { .. }
        | StoreError::UnknownUpload { .. } => {
            let message = "there is no such lease or upload of this caller here".to_owned();
            tell(ErrorCode::NotFound, message)
        }
        StoreError::BadCommit { .. }
        | StoreError::BadExpiry { .. }
        | StoreError::ShardLength { .. }
        | StoreError::BadRange { .. } => tell(ErrorCode::BadRequest, error.to_string()),
        StoreError::BodyMismatch { .. } => tell(ErrorCode::BodyMismatch, error.to_string()),
        StoreError::Stopped { .. } => {
            tell(ErrorCode::Unavailable, "the node is stopping; ask another holder".to_owned())
        }
        other => {
            tracing::error!(error = %other, "a request failed in the store");
            tell(ErrorCode::Internal, "the node's disk failed; ask another holder".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use supernode_protocol::ids::{LeaseId, NodeId, ShardId, UploadId};
    use supernode_protocol::wire::ErrorCode;
    use supernode_store::StoreError;

    use super::told;

    #[test]
    fn what_is_not_the_callers_looks_like_what_is_not_there() {
        let node = NodeId::from_bytes([1; 32]);
        let absent = told(StoreError::LeaseNotFound { lease: LeaseId::from_bytes([2; 16]) });
        let foreign = told(StoreError::NotOwner { what: "lease 02".to_owned(), caller: node });
        let upload = told(StoreError::UnknownUpload { upload: UploadId::from_bytes([3; 16]) });
        assert_eq!(absent, foreign);
        assert_eq!(absent, upload);
        assert_eq!(absent.code, ErrorCode::NotFound);
    }

    #[test]
    fn paths_and_causes_stay_on_the_node() {
        let source = Arc::new(io::Error::other("secret disk"));
        let error = told(StoreError::Io { action: "read /secret/0001.seg".to_owned(), source });
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(!error.message.contains("secret"), "{error}");
    }

    #[test]
    fn codes_follow_what_the_client_can_do() {
        let full = StoreError::Full { wanted_bytes: 1, reason: "capacity" };
        assert_eq!(told(full).code, ErrorCode::Full);
        let shard = ShardId::from_bytes([4; 32]);
        assert_eq!(told(StoreError::ShardNotFound { shard }).code, ErrorCode::NotFound);
        let stopped = StoreError::Stopped { reason: "closed".to_owned() };
        assert_eq!(told(stopped).code, ErrorCode::Unavailable);
    }
}
