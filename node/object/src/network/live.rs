// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real network: holders over QUIC, the directory over the DHT and the nodes themselves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use supernode_client::{Client, ClientError, GroupAnswer, Peer, PutShard};
use supernode_dht::Dht;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::Commit;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{Ack, HeldIndexes, LeaseEntry, Receipt};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::{Directory, HolderError, Holders, peer};

/// Nodes asked for their member lists; they are asked at the same time and agree soon.
const MEMBER_SOURCES: usize = 3;
/// How long a client that has just joined waits for the first node record.
const FIRST_MEMBER_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between looks at an empty member table.
const FIRST_MEMBER_PAUSE: Duration = Duration::from_millis(50);
/// What a node has not listed of its members within this time is left out.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);
/// Pages of a member list followed at most: half a million nodes.
const MEMBER_PAGES_MAX: usize = 1024;

fn failed(peer: &Peer) -> impl Fn(ClientError) -> HolderError {
    let node = peer.node;
    move |error| HolderError { node, code: error.code(), message: error.to_string() }
}

impl Holders for Client {
    fn latency(&self, node: NodeId) -> Option<Duration> {
        self.health(node).first_byte
    }

    async fn connect(&self, peer: &Peer) -> Result<(), HolderError> {
        Client::connect(self, peer).await.map(|_| ()).map_err(failed(peer))
    }

    async fn put_shard(&self, peer: &Peer, put: PutShard) -> Result<Ack, HolderError> {
        Client::put_shard(self, peer, put).await.map_err(failed(peer))
    }

    async fn put_block(
        &self,
        peer: &Peer,
        upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> Result<Ack, HolderError> {
        Client::put_block(self, peer, upload, cid, bytes).await.map_err(failed(peer))
    }

    async fn commit(&self, peer: &Peer, commit: Commit) -> Result<u32, HolderError> {
        Client::commit(self, peer, commit).await.map(|done| done.slot_count).map_err(failed(peer))
    }

    async fn shard(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
    ) -> Result<Bytes, HolderError> {
        Client::shard(self, peer, shard, shard_len).await.map_err(failed(peer))
    }

    async fn shard_range(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
        range: Range<u64>,
    ) -> Result<Bytes, HolderError> {
        Client::shard_range(self, peer, shard, shard_len, range).await.map_err(failed(peer))
    }

    async fn group(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupAnswer, HolderError> {
        Client::group(self, peer, object, group, with_root).await.map_err(failed(peer))
    }

    async fn held(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
    ) -> Result<Vec<(Slot, ShardId)>, HolderError> {
        Client::stat(self, peer, object, group).await.map_err(failed(peer))
    }

    async fn leases(
        &self,
        peer: &Peer,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, HolderError> {
        Client::leases(self, peer, after).await.map_err(failed(peer))
    }

    async fn receipt(
        &self,
        peer: &Peer,
        lease: LeaseId,
        object: Cid,
        wanted: Vec<HeldIndexes>,
    ) -> Result<Receipt, HolderError> {
        Client::receipt(self, peer, lease, object, wanted).await.map_err(failed(peer))
    }

    async fn keep_span(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> Result<Ack, HolderError> {
        Client::keep_span(self, peer, object, group, span).await.map_err(failed(peer))
    }

    async fn release(&self, peer: &Peer, lease: LeaseId) -> Result<Ack, HolderError> {
        Client::release(self, peer, lease).await.map_err(failed(peer))
    }
}

/// Finds nodes through the DHT, and members by asking nodes for the ones they know.
#[derive(Clone)]
pub struct LiveDirectory {
    dht: Dht,
    client: Client,
}

impl LiveDirectory {
    /// A directory over a DHT that has been started, in client or server mode.
    pub fn new(dht: Dht, client: Client) -> Self {
        Self { dht, client }
    }

    /// The records in our own table; right after joining, waits for the first.
    async fn known(&self) -> Vec<NodeRecord> {
        let give_up = Instant::now() + FIRST_MEMBER_PATIENCE;
        loop {
            let known = self.dht.members();
            if !known.is_empty() || Instant::now() >= give_up {
                return known.iter().map(|record| record.body_unverified().clone()).collect();
            }
            sleep(FIRST_MEMBER_PAUSE).await;
        }
    }

    async fn members_of(&self, record: &NodeRecord) -> Vec<Signed<NodeRecord>> {
        let mut members: Vec<Signed<NodeRecord>> = Vec::new();
        let give_up = Instant::now() + MEMBERS_TIMEOUT;
        for _ in 0..MEMBER_PAGES_MAX {
            let after = members.last().map(|member| member.body_unverified().node);
            match timeout_at(give_up, self.client.members(&peer(record), after)).await {
                // Only an empty page ends a listing: a full frame may hold fewer than the limit.
                Ok(Ok(page)) if page.is_empty() => break,
                Ok(Ok(page)) => members.extend(page),
                Ok(Err(error)) => {
                    debug!(node = %record.node, %error, "a node did not list its members");
                    break;
                }
                Err(_) => break,
            }
        }
        members
    }
}

impl Directory for LiveDirectory {
    async fn members(&self) -> Vec<NodeRecord> {
        let known = self.known().await;
        let sources = known.iter().take(MEMBER_SOURCES);
        let listed = join_all(sources.map(|record| self.members_of(record))).await;
        let mut members: BTreeMap<NodeId, NodeRecord> =
            known.into_iter().map(|record| (record.node, record)).collect();
        for record in listed.into_iter().flatten() {
            let record = record.body_unverified();
            let newer = members.get(&record.node).is_none_or(|old| old.sequence < record.sequence);
            if newer {
                members.insert(record.node, record.clone());
            }
        }
        members.into_values().collect()
    }

    async fn providers(&self, cid: Cid) -> Vec<NodeId> {
        self.dht.providers(cid).await.unwrap_or_else(|error| {
            debug!(%cid, %error, "the provider lookup failed");
            Vec::new()
        })
    }

    async fn block(&self, cid: Cid) -> Option<Bytes> {
        self.dht.manifest(cid).await.unwrap_or_else(|error| {
            debug!(%cid, %error, "the block lookup failed");
            None
        })
    }

    async fn node(&self, node: NodeId) -> Option<NodeRecord> {
        match self.dht.node(node).await {
            Ok(record) => record.map(|record| record.body_unverified().clone()),
            Err(error) => {
                debug!(%node, %error, "the node lookup failed");
                None
            }
        }
    }
}
