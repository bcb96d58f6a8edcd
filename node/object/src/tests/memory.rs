// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network in memory: nodes that store, refuse, fill up and die on command.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use supernode_client::{GroupAnswer, Peer, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::Commit;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{Ack, ErrorCode, HeldIndexes, LeaseEntry, Receipt};

use crate::network::{Directory, HolderError, Holders};

/// One node's contents and how it behaves.
#[derive(Default)]
pub(super) struct Node {
    pub(super) region: String,
    pub(super) dead: bool,
    /// Answers every write with this.
    pub(super) refuses: Option<ErrorCode>,
    /// Dies after so many more shards.
    pub(super) dies_after: Option<usize>,
    pub(super) fails_commits: bool,
    /// Has lost what was uploaded by the time of the commit.
    pub(super) loses_uploads: bool,
    pub(super) shards: HashMap<ShardId, Bytes>,
    pub(super) uploads: HashMap<UploadId, BTreeMap<Slot, ShardId>>,
    pub(super) blocks: HashMap<Cid, Bytes>,
    /// Blocks that came, however often the same.
    pub(super) blocks_put: usize,
    pub(super) commits: BTreeMap<(LeaseId, Cid, u32), Commit>,
    pub(super) spans: BTreeMap<(Cid, u32), SpanProof>,
    /// How long it usually takes, as clients have measured.
    pub(super) latency: Option<Duration>,
    /// Takes questions for bytes and never answers them.
    pub(super) stalls: bool,
    /// As nodes do that know no such request.
    pub(super) refuses_spans: bool,
    /// Whole shards and ranges served, in bytes.
    pub(super) served: Vec<u64>,
}

/// The network, shared by everybody who talks to it.
#[derive(Clone, Default)]
pub(super) struct Memory {
    nodes: Arc<Mutex<BTreeMap<NodeId, Node>>>,
}

impl Memory {
    /// `count` nodes, each in a region of its own.
    pub(super) fn of(count: u8) -> Self {
        let memory = Self::default();
        for number in 0..count {
            let node = Node { region: format!("R{number}"), ..Node::default() };
            memory.nodes().insert(id(number), node);
        }
        memory
    }

    pub(super) fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Node>> {
        self.nodes.lock().expect("no test panics while it holds the lock")
    }

    /// Changes one node.
    pub(super) fn with<T>(&self, number: u8, change: impl FnOnce(&mut Node) -> T) -> T {
        change(self.nodes().get_mut(&id(number)).expect("the test named an existing node"))
    }

    /// Whether a node answers questions for bytes; those of one that stalls wait for ever.
    async fn delivers(&self, peer: &Peer) {
        let stalls = self.nodes().get(&peer.node).is_some_and(|node| node.stalls);
        if stalls {
            std::future::pending().await
        }
    }

    fn on<T>(
        &self,
        peer: &Peer,
        work: impl FnOnce(&mut Node) -> Result<T, ErrorCode>,
    ) -> Result<T, HolderError> {
        let fail = |code, message: &str| HolderError {
            node: peer.node,
            code,
            message: message.to_owned(),
        };
        let mut nodes = self.nodes();
        match nodes.get_mut(&peer.node) {
            Some(node) if !node.dead => {
                work(node).map_err(|code| fail(Some(code), &code.to_string()))
            }
            _ => Err(fail(None, "unreachable")),
        }
    }
}

/// The id of node `number`.
pub(super) fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number + 1; 32])
}

impl Node {
    fn writable(&self) -> Result<(), ErrorCode> {
        self.refuses.map_or(Ok(()), Err)
    }

    fn covered(&self, object: Cid, group: u32) -> Option<&Commit> {
        self.commits.values().find(|commit| (commit.object, commit.group) == (object, group))
    }
}

impl Holders for Memory {
    fn latency(&self, node: NodeId) -> Option<Duration> {
        self.nodes().get(&node)?.latency
    }

    async fn connect(&self, peer: &Peer) -> Result<(), HolderError> {
        self.on(peer, |_| Ok(()))
    }

    async fn put_shard(&self, peer: &Peer, put: PutShard) -> Result<Ack, HolderError> {
        self.on(peer, |node| {
            node.writable()?;
            match &mut node.dies_after {
                Some(0) => {
                    node.dead = true;
                    return Err(ErrorCode::Unavailable);
                }
                Some(left) => *left -= 1,
                None => {}
            }
            if ShardId::of(&put.bytes) != put.shard {
                return Err(ErrorCode::BodyMismatch);
            }
            node.shards.insert(put.shard, put.bytes);
            node.uploads.entry(put.upload).or_default().insert(put.slot, put.shard);
            Ok(Ack { sequence: 1 })
        })
    }

    async fn put_block(
        &self,
        peer: &Peer,
        _upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> Result<Ack, HolderError> {
        self.on(peer, |node| {
            node.writable()?;
            node.blocks.insert(cid, bytes);
            node.blocks_put += 1;
            Ok(Ack { sequence: 1 })
        })
    }

    async fn commit(&self, peer: &Peer, commit: Commit) -> Result<u32, HolderError> {
        self.on(peer, |node| {
            node.writable()?;
            if node.fails_commits {
                return Err(ErrorCode::Internal);
            }
            if !node.blocks.contains_key(&commit.object) {
                return Err(ErrorCode::BadRequest);
            }
            if node.loses_uploads {
                node.uploads.clear();
            }
            let key = (commit.terms.lease, commit.object, commit.group);
            let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
            let slots = node.uploads.get(&commit.upload).into_iter().flatten();
            let count = slots.filter(|(slot, _)| stripes.contains(&slot.stripe)).count();
            node.commits.insert(key, commit);
            Ok(u32::try_from(count).expect("tests are small"))
        })
    }

    async fn shard(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
    ) -> Result<Bytes, HolderError> {
        self.delivers(peer).await;
        self.on(peer, |node| {
            let bytes = node.shards.get(&shard).cloned().ok_or(ErrorCode::NotFound)?;
            assert_eq!(bytes.len() as u64, shard_len, "the manifest states the length");
            node.served.push(shard_len);
            Ok(bytes)
        })
    }

    async fn shard_range(
        &self,
        peer: &Peer,
        shard: ShardId,
        _shard_len: u64,
        range: Range<u64>,
    ) -> Result<Bytes, HolderError> {
        self.delivers(peer).await;
        self.on(peer, |node| {
            let bytes = node.shards.get(&shard).cloned().ok_or(ErrorCode::NotFound)?;
            node.served.push(range.end - range.start);
            Ok(crate::get::slice(&bytes, &range))
        })
    }

    async fn group(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupAnswer, HolderError> {
        self.on(peer, |node| {
            let commit = node.covered(object, group).ok_or(ErrorCode::NotFound)?;
            Ok(GroupAnswer {
                root: with_root.then(|| node.blocks[&object].clone()),
                page: commit.page.map(|page| node.blocks[&page].clone()),
                placement: commit.placement.clone(),
            })
        })
    }

    async fn held(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
    ) -> Result<Vec<(Slot, ShardId)>, HolderError> {
        self.on(peer, |node| {
            let commit = node.covered(object, group).ok_or(ErrorCode::NotFound)?;
            let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
            let slots = node.uploads.get(&commit.upload).into_iter().flatten();
            Ok(slots
                .filter(|(slot, shard)| {
                    stripes.contains(&slot.stripe) && node.shards.contains_key(shard)
                })
                .map(|(slot, shard)| (*slot, *shard))
                .collect())
        })
    }

    async fn leases(
        &self,
        peer: &Peer,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, HolderError> {
        self.on(peer, |node| {
            let entries = node.commits.iter().filter(|(key, _)| after.is_none_or(|a| **key > a));
            Ok(entries
                .map(|((lease, object, group), commit)| LeaseEntry {
                    lease: *lease,
                    kind: commit.terms.kind,
                    remaining: commit.terms.expiry,
                    object: *object,
                    group: *group,
                    object_bytes: 0,
                })
                .collect())
        })
    }

    async fn receipt(
        &self,
        peer: &Peer,
        _lease: LeaseId,
        _object: Cid,
        _wanted: Vec<HeldIndexes>,
    ) -> Result<Receipt, HolderError> {
        // Nodes in memory have names and no keys; who checks receipts has tests of its own.
        self.on(peer, |_| Err(ErrorCode::Refused))
    }

    async fn keep_span(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> Result<Ack, HolderError> {
        self.on(peer, |node| {
            if node.refuses_spans {
                return Err(ErrorCode::BadRequest);
            }
            node.covered(object, group).ok_or(ErrorCode::NotFound)?;
            node.spans.insert((object, group), span);
            Ok(Ack { sequence: 1 })
        })
    }

    async fn release(&self, peer: &Peer, lease: LeaseId) -> Result<Ack, HolderError> {
        self.on(peer, |node| {
            let before = node.commits.len();
            node.commits.retain(|(held, _, _), _| *held != lease);
            if node.commits.len() == before {
                return Err(ErrorCode::NotFound);
            }
            Ok(Ack { sequence: 1 })
        })
    }
}

impl Directory for Memory {
    async fn members(&self) -> Vec<NodeRecord> {
        let nodes = self.nodes();
        let record = |(node, contents): (&NodeId, &Node)| NodeRecord {
            node: *node,
            sequence: 1,
            network: "test".to_owned(),
            region: contents.region.clone(),
            capacity_bytes: 1 << 40,
            quic: Vec::new(),
            libp2p: Vec::new(),
        };
        nodes.iter().map(record).collect()
    }

    async fn providers(&self, cid: Cid) -> Vec<NodeId> {
        // Provider records outlive their nodes, so dead ones are named too.
        let nodes = self.nodes();
        let names = |node: &Node| {
            node.commits
                .values()
                .any(|commit| commit.page.map_or(commit.object == cid, |page| page == cid))
        };
        let providers: BTreeSet<NodeId> =
            nodes.iter().filter(|(_, node)| names(node)).map(|(id, _)| *id).collect();
        providers.into_iter().collect()
    }

    async fn block(&self, _cid: Cid) -> Option<Bytes> {
        None
    }

    async fn node(&self, node: NodeId) -> Option<NodeRecord> {
        self.members().await.into_iter().find(|record| record.node == node)
    }
}
