// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the relay server asks of this node, answered by store and DHT.
//!
//! Failures are told apart for the client by what it can do about them. What it may not know (whose
//! lease an id is) and what it cannot use (which file failed) stays here, in the log.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use supernode_dht::Dht;
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::limits::LISTING_ENTRIES_MAX;
use supernode_protocol::manifest::{ManifestError, Root};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::{SpanProof, verify_span};
use supernode_protocol::wire::{
    Ack, ByteRange, ErrorCode, HeldIndexes, LeaseEntry, NodeStatus, Receipt, WireError,
};
use supernode_relay::{Backend, GroupRead, ShardPlace, ShardSink, ShardSource};
use supernode_store::{
    GroupRead as StoredGroup, OpenShard, PutBlock, PutShard, ShardBuffer, Store, StoreError,
};
use tokio::sync::watch;

use crate::chain::receipts::Notary;
use crate::chain::registered::Registered;

/// The node's own record, as it is now.
pub type OwnRecord = watch::Receiver<Arc<Signed<NodeRecord>>>;

/// Store and DHT as the relay server sees them.
pub struct NodeBackend {
    store: Store,
    dht: Dht,
    record: OwnRecord,
    /// `None` on a node without a chain.
    chain: Option<OnChain>,
    started: Instant,
}

/// What a node with a chain can do besides.
pub struct OnChain {
    /// Signs receipts and lets deals in.
    pub notary: Notary,
    /// Knows the nodes of the registry.
    pub registered: Registered,
}

impl NodeBackend {
    /// A backend over parts that run.
    pub fn new(store: Store, dht: Dht, record: OwnRecord, chain: Option<OnChain>) -> Self {
        Self { store, dht, record, chain, started: Instant::now() }
    }

    fn notary(&self) -> Result<&Notary, WireError> {
        self.chain.as_ref().map(|chain| &chain.notary).ok_or_else(|| {
            let message = "this node serves no chain; put without a deal".to_owned();
            WireError { code: ErrorCode::Refused, message, retry_after_ms: None }
        })
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

/// A shard on its way out of the store.
pub struct StoreSource(OpenShard);

impl ShardSource for StoreSource {
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

impl Backend for NodeBackend {
    type Sink = StoreSink;
    type Source = StoreSource;

    /// Whoever the chain's registry names repairs. A member of the DHT is whoever says so, which
    /// proves nothing.
    fn class_of(&self, caller: NodeId) -> Option<ClientClass> {
        let chain = self.chain.as_ref()?;
        chain.registered.contains(caller).then_some(ClientClass::Repair)
    }

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
        if commit.terms.kind == LeaseKind::Deal {
            self.notary()?.admit(&self.store, caller, &commit).await?;
        } else if self.chain.as_ref().is_some_and(|it| it.notary.is_deals(commit.terms.lease)) {
            let message = "this lease id belongs to a deal of the chain; choose another".to_owned();
            return Err(WireError { code: ErrorCode::Refused, message, retry_after_ms: None });
        }
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

    async fn open_shard(
        &self,
        _caller: NodeId,
        shard: ShardId,
        wanted_bytes: u64,
    ) -> Result<StoreSource, WireError> {
        self.store.open_shard(shard, wanted_bytes).await.map(StoreSource).map_err(told)
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

    async fn receipt(
        &self,
        caller: NodeId,
        lease: LeaseId,
        object: Cid,
        wanted: Vec<HeldIndexes>,
    ) -> Result<Receipt, WireError> {
        let notary = self.notary()?;
        let deal = self.store.deal(lease).await.map_err(told)?;
        // Only its owner learns that a lease is here.
        deal.filter(|deal| deal.owner == caller)
            .ok_or_else(|| told(StoreError::LeaseNotFound { lease }))?;
        notary.receipt(&self.store, (lease, object), &wanted).await
    }

    async fn keep_span(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> Result<Ack, WireError> {
        let read = self.store.group(object, group).await.map_err(told)?;
        check_span(group, &read, &span)?;
        self.store.keep_span(object, group, span.encode().into()).await.map_err(told)
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
pub(crate) fn told(error: StoreError) -> WireError {
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
        | StoreError::TooMany { .. }
        | StoreError::BadRange { .. } => tell(ErrorCode::BadRequest, error.to_string()),
        StoreError::DealLease { .. } => tell(ErrorCode::Refused, error.to_string()),
        StoreError::BodyMismatch { .. } => tell(ErrorCode::BodyMismatch, error.to_string()),
        StoreError::Stopped { .. } => {
            tell(ErrorCode::Unavailable, "the node is stopping; ask another holder".to_owned())
        }
        StoreError::Offline { .. } => {
            let message = "a disk of this node is offline; ask another holder".to_owned();
            tell(ErrorCode::Unavailable, message)
        }
        other => {
            tracing::error!(error = %other, "a request failed in the store");
            tell(ErrorCode::Internal, "the node's disk failed; ask another holder".to_owned())
        }
    }
}

/// Checks a span proof against the manifest that is here.
fn check_span(group: u32, read: &StoredGroup, span: &SpanProof) -> Result<(), WireError> {
    let broken = |error: ManifestError| {
        tracing::error!(group, %error, "a manifest on disk cannot be read");
        let message = "the node's manifest cannot be read".to_owned();
        WireError { code: ErrorCode::Internal, message, retry_after_ms: None }
    };
    let root = Root::decode(&read.root).map_err(broken)?;
    let page = match &read.page {
        Some(block) => root.open_page(group, block).map_err(broken)?,
        None => root.page_0.clone(),
    };
    let first = root.slots_before(group).ok_or(ManifestError::NoSuchGroup { group });
    let first = first.map_err(broken)?;
    let entries: Vec<_> = page.entries().collect();
    verify_span(&root.shards_root, root.slot_count(), first, &entries, span).map_err(|error| {
        WireError { code: ErrorCode::BadRequest, message: error.to_string(), retry_after_ms: None }
    })
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
        let offline = told(StoreError::Offline { path: "/secret".into() });
        assert_eq!(offline.code, ErrorCode::Unavailable, "what a disk would have is not absent");
        assert!(!offline.message.contains("secret"), "{offline}");
    }
}
