// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node in memory. It can hold requests until told to go on, and it can lie.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::{Bytes, BytesMut};
use supernode_client::Keypair;
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::{SpanProof, TreeHasher, align_to_groups, range_proof};
use supernode_protocol::wire::{
    Ack, ByteRange, ErrorCode, HeldIndexes, LeaseEntry, NodeStatus, Receipt, WireError,
};
use supernode_relay::{Backend, GroupRead, PIECE_BYTES, ShardPlace, ShardSink, ShardSource};
use tokio::sync::watch;

use crate::setup::{NETWORK, record_of};

/// What a node may be told to get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    FlippedByte,
    FlippedProof,
    ShortShard,
    WrongShardLen,
    ShiftedRange,
    FlippedRoot,
    ForgedPlacement,
    PlacementOfAnother,
    ForgedMember,
    /// Pieces of a shard from this one on cannot be read.
    NoPieceFrom(u64),
}

#[derive(Default)]
pub struct Content {
    pub shards: HashMap<ShardId, Bytes>,
    pub slots: BTreeMap<(UploadId, Slot), ShardId>,
    pub blocks: HashMap<Cid, Bytes>,
    pub commits: BTreeMap<(Cid, u32), Commit>,
    pub spans: BTreeMap<(Cid, u32), SpanProof>,
    /// As whom shards, blocks and commits came.
    pub callers: Vec<NodeId>,
}

pub struct MemoryBackend {
    pub content: Arc<parking_lot::Mutex<Content>>,
    pub lie: parking_lot::Mutex<Option<Lie>>,
    /// Puts that got as far as a sink.
    pub begun: AtomicU64,
    /// What the node knows every client to be.
    pub class: parking_lot::Mutex<Option<ClientClass>>,
    /// Who asked for leases, in order.
    pub lessees: parking_lot::Mutex<Vec<NodeId>>,
    /// Requests for the status or for leases inside the backend now.
    pub inside: watch::Sender<usize>,
    /// Whether those are held.
    pub is_held: watch::Sender<bool>,
    record: Signed<NodeRecord>,
    sequence: Arc<AtomicU64>,
}

impl MemoryBackend {
    pub fn new(key: &Keypair) -> Self {
        Self {
            content: Arc::default(),
            lie: parking_lot::Mutex::new(None),
            begun: AtomicU64::new(0),
            class: parking_lot::Mutex::default(),
            lessees: parking_lot::Mutex::default(),
            inside: watch::Sender::new(0),
            is_held: watch::Sender::new(false),
            record: record_of(key, NETWORK),
            sequence: Arc::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        let content = self.content.lock();
        content.shards.is_empty() && content.slots.is_empty() && content.blocks.is_empty()
    }

    /// Returns once `count` requests are held inside.
    pub async fn inside(&self, count: usize) {
        self.inside
            .subscribe()
            .wait_for(|inside| *inside == count)
            .await
            .expect("the backend lives");
    }

    async fn hold(&self) {
        let _visit = Visit::new(&self.inside);
        self.is_held.subscribe().wait_for(|is_held| !is_held).await.expect("the backend lives");
    }

    fn lies(&self, lie: Lie) -> bool {
        *self.lie.lock() == Some(lie)
    }

    fn ack(&self) -> Ack {
        Ack { sequence: self.sequence.fetch_add(1, SeqCst) }
    }
}

pub fn error(code: ErrorCode) -> WireError {
    WireError { code, message: "by the backend".to_owned(), retry_after_ms: None }
}

fn flip(bytes: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.freeze()
}

pub struct MemorySink {
    bytes: BytesMut,
    content: Arc<parking_lot::Mutex<Content>>,
    sequence: Arc<AtomicU64>,
}

impl ShardSink for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self, place: ShardPlace) -> Result<Ack, WireError> {
        let bytes = self.bytes.freeze();
        if ShardId::of(&bytes) != place.shard {
            return Err(error(ErrorCode::BodyMismatch));
        }
        let mut content = self.content.lock();
        content.shards.insert(place.shard, bytes);
        content.slots.insert((place.upload, place.slot), place.shard);
        Ok(Ack { sequence: self.sequence.fetch_add(1, SeqCst) })
    }
}

pub struct MemorySource {
    bytes: Bytes,
    lie: Option<Lie>,
}

impl MemorySource {
    fn lies(&self, lie: Lie) -> bool {
        self.lie == Some(lie)
    }
}

impl ShardSource for MemorySource {
    fn shard_len(&self) -> u64 {
        let len = self.bytes.len() as u64;
        match self.lie {
            Some(Lie::WrongShardLen) => len + 64,
            Some(Lie::ShortShard) => len - 1,
            _ => len,
        }
    }

    fn prove(&self, range: ByteRange) -> Result<(ByteRange, Bytes), WireError> {
        let len = self.bytes.len() as u64;
        let mut hasher = TreeHasher::new(len);
        hasher.update(&self.bytes);
        let (_, outboard) = hasher.finish().expect("all bytes were fed");
        let wanted = range.offset..range.offset + range.len;
        let mut aligned =
            align_to_groups(wanted.clone(), len).map_err(|_| error(ErrorCode::BadRequest))?;
        let proof = Bytes::from(range_proof(&outboard, len, wanted).expect("checked above"));
        if self.lies(Lie::ShiftedRange) {
            aligned.start += 1;
        }
        let range = ByteRange { offset: aligned.start, len: aligned.end - aligned.start };
        Ok((range, if self.lies(Lie::FlippedProof) { flip(&proof) } else { proof }))
    }

    async fn read(&self, range: ByteRange) -> Result<Bytes, WireError> {
        if let Some(Lie::NoPieceFrom(first)) = self.lie
            && range.offset / PIECE_BYTES >= first
        {
            return Err(error(ErrorCode::Internal));
        }
        let place = |at: u64| usize::try_from(at).expect("in memory");
        let end = place(range.offset + range.len).min(self.bytes.len());
        let bytes = self.bytes.slice(place(range.offset)..end);
        Ok(if self.lies(Lie::FlippedByte) { flip(&bytes) } else { bytes })
    }
}

/// Counts a request in and, whatever becomes of it, out.
struct Visit<'a>(&'a watch::Sender<usize>);

impl<'a> Visit<'a> {
    fn new(inside: &'a watch::Sender<usize>) -> Self {
        inside.send_modify(|inside| *inside += 1);
        Self(inside)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|inside| *inside -= 1);
    }
}

impl Backend for MemoryBackend {
    type Sink = MemorySink;
    type Source = MemorySource;

    fn class_of(&self, _caller: NodeId) -> Option<ClientClass> {
        *self.class.lock()
    }

    async fn begin_put(&self, caller: NodeId, _len: u64) -> Result<MemorySink, WireError> {
        self.begun.fetch_add(1, SeqCst);
        self.content.lock().callers.push(caller);
        let (content, sequence) = (Arc::clone(&self.content), Arc::clone(&self.sequence));
        Ok(MemorySink { bytes: BytesMut::new(), content, sequence })
    }

    async fn put_block(
        &self,
        caller: NodeId,
        _upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> Result<Ack, WireError> {
        let mut content = self.content.lock();
        content.blocks.insert(cid, bytes);
        content.callers.push(caller);
        drop(content);
        Ok(self.ack())
    }

    async fn commit(&self, caller: NodeId, commit: Commit) -> Result<(Ack, u32), WireError> {
        if commit.terms.owner != caller {
            return Err(error(ErrorCode::Refused));
        }
        let mut content = self.content.lock();
        content.callers.push(caller);
        let slots = content.slots.keys().filter(|(upload, _)| *upload == commit.upload).count();
        content.commits.insert((commit.object, commit.group), commit);
        Ok((self.ack(), u32::try_from(slots).expect("few")))
    }

    async fn receipt(
        &self,
        _caller: NodeId,
        _lease: LeaseId,
        _object: Cid,
        _wanted: Vec<HeldIndexes>,
    ) -> Result<Receipt, WireError> {
        Err(error(ErrorCode::NotFound))
    }

    async fn keep_span(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> Result<Ack, WireError> {
        let mut content = self.content.lock();
        if !content.commits.contains_key(&(object, group)) {
            return Err(error(ErrorCode::NotFound));
        }
        content.spans.insert((object, group), span);
        Ok(self.ack())
    }

    async fn release(&self, caller: NodeId, lease: LeaseId) -> Result<Ack, WireError> {
        let mut content = self.content.lock();
        let before = content.commits.len();
        content
            .commits
            .retain(|_, commit| commit.terms.lease != lease || commit.terms.owner != caller);
        if content.commits.len() == before {
            Err(error(ErrorCode::NotFound))
        } else {
            Ok(self.ack())
        }
    }

    async fn renew(
        &self,
        caller: NodeId,
        lease: LeaseId,
        expiry: Expiry,
    ) -> Result<Ack, WireError> {
        let mut content = self.content.lock();
        let mine = content
            .commits
            .values_mut()
            .find(|commit| commit.terms.lease == lease && commit.terms.owner == caller);
        mine.ok_or_else(|| error(ErrorCode::NotFound))?.terms.expiry = expiry;
        Ok(self.ack())
    }

    async fn open_shard(
        &self,
        _caller: NodeId,
        shard: ShardId,
        _wanted_bytes: u64,
    ) -> Result<MemorySource, WireError> {
        let bytes = self.content.lock().shards.get(&shard).cloned();
        let bytes = bytes.ok_or_else(|| error(ErrorCode::NotFound))?;
        Ok(MemorySource { bytes, lie: *self.lie.lock() })
    }

    async fn group(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupRead, WireError> {
        let content = self.content.lock();
        let commit = content.commits.get(&(object, group));
        let commit = commit.ok_or_else(|| error(ErrorCode::NotFound))?;
        let root = content.blocks.get(&object).filter(|_| with_root).cloned();
        if root.is_none() && with_root {
            return Err(error(ErrorCode::NotFound));
        }
        let root = if self.lies(Lie::FlippedRoot) { root.map(|root| flip(&root)) } else { root };
        let placement = match *self.lie.lock() {
            Some(Lie::ForgedPlacement) => forged(&commit.placement),
            Some(Lie::PlacementOfAnother) => {
                let other = Keypair::generate_ed25519();
                crate::setup::commit_of(&other, Cid::of(b"another object")).placement
            }
            _ => commit.placement.clone(),
        };
        Ok(GroupRead { root, page: None, placement })
    }

    async fn held(
        &self,
        _caller: NodeId,
        object: Cid,
        group: u32,
    ) -> Result<Vec<(Slot, ShardId)>, WireError> {
        let content = self.content.lock();
        let commit = content.commits.get(&(object, group));
        let upload = commit.ok_or_else(|| error(ErrorCode::NotFound))?.upload;
        let of_upload = content.slots.iter().filter(|((each, _), _)| *each == upload);
        Ok(of_upload.map(|((_, slot), shard)| (*slot, *shard)).collect())
    }

    async fn leases(
        &self,
        caller: NodeId,
        _after: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, WireError> {
        self.lessees.lock().push(caller);
        self.hold().await;
        let content = self.content.lock();
        let mine = content.commits.values().filter(|commit| commit.terms.owner == caller);
        Ok(mine
            .map(|commit| LeaseEntry {
                lease: commit.terms.lease,
                kind: commit.terms.kind,
                remaining: commit.terms.expiry,
                object: commit.object,
                group: commit.group,
                object_bytes: 1,
            })
            .collect())
    }

    async fn members(&self, _after: Option<NodeId>) -> Result<Vec<Signed<NodeRecord>>, WireError> {
        let mut nodes = vec![self.record.clone()];
        if self.lies(Lie::ForgedMember) {
            nodes.push(forged(&self.record));
        }
        Ok(nodes)
    }

    fn node_record(&self) -> Signed<NodeRecord> {
        self.record.clone()
    }

    async fn status(&self) -> Result<NodeStatus, WireError> {
        self.hold().await;
        let shard_count = self.content.lock().shards.len() as u64;
        Ok(NodeStatus {
            shard_count,
            slot_count: shard_count,
            live_bytes: 0,
            capacity_bytes: 1 << 40,
            uptime_secs: 1,
        })
    }
}

/// The same record with one bit of its signature turned.
fn forged<T: supernode_protocol::signed::SignedBody>(record: &Signed<T>) -> Signed<T> {
    let mut bytes = record.encode();
    *bytes.last_mut().expect("a signature") ^= 1;
    unchecked(&bytes)
}

fn unchecked<T: supernode_protocol::signed::SignedBody>(bytes: &[u8]) -> Signed<T> {
    supernode_protocol::wire::decode_frame(bytes).expect("still well formed")
}
