// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small objects, pushed to one node by the QUIC client and noted in a ledger; and read back from
//! it, judged by the ledger alone.

use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use supernode_client::{Client, ClientConfig, ClientError, Keypair, Peer, PutShard};
use supernode_protocol::erasure::Codec;
use supernode_protocol::geometry::shard_len;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::{Builder, Extent, Stripe};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::ErrorCode;

use crate::ledger::{Deed, Ledger, Owed, hex};
use crate::random::Seeded;
use crate::segments::{Hash, Name};

/// Far longer than any test: no pin ends by itself.
const PIN_SECONDS: u64 = 86_400;
/// One object in so many begins with a shard that others have too.
const SHARED_ONE_IN: u64 = 6;
/// Lengths of the shards that are shared.
const SHARED_BYTES: [u64; 4] = [4096, 12_352, 65_536, 131_072];

/// An object of one stripe, which seed and number bring back.
#[derive(Debug, Clone)]
pub struct Object {
    /// Names its upload and its lease.
    pub name: Name,
    cid: Cid,
    root: Bytes,
    shards: Vec<(ShardId, Bytes)>,
}

impl Object {
    /// Its shards and their bytes.
    pub fn shards(&self) -> &[(ShardId, Bytes)] {
        &self.shards
    }
}

/// What objects of a run are made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Decides all bytes.
    pub seed: u64,
    /// Lengths of shards.
    pub shard_bytes: RangeInclusive<u64>,
    /// Whether some objects have a shard in common.
    pub is_sharing: bool,
}

impl Recipe {
    /// The object of this number, always the same.
    pub fn object(&self, number: u64) -> Object {
        let seed = self.seed;
        let mut random = Seeded::with(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let is_shared = random.below(SHARED_ONE_IN) == 0 && self.is_sharing;
        let shared = is_shared.then(|| random.index(SHARED_BYTES.len()));
        let (data_count, parity_count) = (random.index(3) + 1, random.index(2));
        let wanted = random.magnitude(&self.shard_bytes);
        let len = shard_len(shared.map_or(wanted, |which| SHARED_BYTES[which]), 1);
        let mut shards = Vec::new();
        for index in 0..data_count + parity_count {
            let label = match shared {
                Some(which) if index == 0 => format!("shared {seed} {which}"),
                _ => format!("own {seed} {number} {index}"),
            };
            let bytes = filled(&label, len);
            shards.push((ShardId::of(&bytes), bytes));
        }
        let mut builder = Builder::new();
        let extent = Extent::Stripe(Stripe {
            len: len * data_count as u64,
            codec: Codec::Leopard16High,
            data_count,
            parity_count,
            shard_len: len,
            shards: shards.iter().map(|(id, _)| *id).collect(),
        });
        let page = builder.push(extent).expect("a valid stripe");
        assert!(page.is_none(), "one stripe fits the first page");
        // Objects of one shared shard each are different objects all the same.
        let content = blake3::hash(format!("{seed} {number}").as_bytes());
        let (_, manifest) = builder.finish(*content.as_bytes()).expect("a valid object");
        let mut name = Name::default();
        name[..8].copy_from_slice(&seed.to_be_bytes());
        name[8..].copy_from_slice(&number.to_be_bytes());
        Object { name, cid: manifest.block.cid, root: manifest.block.bytes, shards }
    }
}

/// Bytes that follow from a label, as fast as they can be hashed.
fn filled(label: &str, len: u64) -> Bytes {
    let mut bytes = vec![0; usize::try_from(len).expect("a shard fits into memory")];
    let mut hasher = blake3::Hasher::new();
    hasher.update(label.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// A connection to the node, and what is noted of its use. Cloning shares both.
#[derive(Debug, Clone)]
pub struct Door {
    client: Client,
    peer: Peer,
    key: Keypair,
    ledger: Arc<Ledger>,
}

impl Door {
    /// A client with a connection of its own. Must be called on a tokio runtime.
    ///
    /// # Panics
    /// If it has no socket.
    pub fn new(peer: &Peer, key: &Keypair, ledger: &Arc<Ledger>) -> Self {
        Self::with(peer, key, ledger, |_| {})
    }

    /// The same with other settings.
    ///
    /// # Panics
    /// If they make no client.
    pub fn with(
        peer: &Peer,
        key: &Keypair,
        ledger: &Arc<Ledger>,
        change: impl FnOnce(&mut ClientConfig),
    ) -> Self {
        let mut config = ClientConfig::new(key.clone(), "main");
        change(&mut config);
        let client = Client::new(config).expect("a socket");
        let (peer, key, ledger) = (peer.clone(), key.clone(), Arc::clone(ledger));
        Self { client, peer, key, ledger }
    }

    /// Connects, so that what follows is met by a server that is ready.
    ///
    /// # Errors
    /// What the node or the connection says.
    pub async fn knock(&self) -> Result<(), ClientError> {
        self.client.connect(&self.peer).await.map(drop)
    }

    /// Uploads an object and commits it. May be repeated.
    ///
    /// # Errors
    /// What the node or the connection says.
    pub async fn store(&self, object: &Object) -> Result<(), ClientError> {
        let name = object.name;
        let upload = UploadId::from_bytes(name);
        for (index, (shard, bytes)) in (0..).zip(&object.shards) {
            let len = bytes.len() as u64;
            let asked = self.asked(&Deed::Put { name, index, shard: *shard.as_bytes(), len });
            let slot = Slot { stripe: 0, index };
            let put = PutShard { upload, slot, shard: *shard, bytes: bytes.clone() };
            let ack = self.client.put_shard(&self.peer, put).await?;
            self.ledger.acked(asked, ack.sequence);
        }
        let cid = *object.cid.as_bytes();
        let asked = self.asked(&Deed::Root { name, cid });
        let put = self.client.put_block(&self.peer, upload, object.cid, object.root.clone());
        self.ledger.acked(asked, put.await?.sequence);
        let asked = self.asked(&Deed::Commit { name, cid });
        let committed = self.client.commit(&self.peer, self.commit(object)).await?;
        self.ledger.acked(asked, committed.ack.sequence);
        Ok(())
    }

    /// Releases an object, or what was uploaded of it. Whether there was anything to release.
    ///
    /// # Errors
    /// What the node or the connection says.
    pub async fn release(&self, name: Name) -> Result<bool, ClientError> {
        let asked = self.asked(&Deed::Release { name });
        match self.client.release(&self.peer, LeaseId::from_bytes(name)).await {
            Ok(ack) => {
                self.ledger.acked(asked, ack.sequence);
                Ok(true)
            }
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn asked(&self, deed: &Deed) -> usize {
        self.ledger.asked(deed)
    }

    fn commit(&self, object: &Object) -> Commit {
        let owner = NodeId::from_public(&self.key.public()).expect("an Ed25519 key");
        let placement = PlacementRecord {
            object: object.cid,
            group: 0,
            epoch: 0,
            nodes: vec![self.peer.node; object.shards.len()],
            writer: owner,
        };
        Commit {
            upload: UploadId::from_bytes(object.name),
            object: object.cid,
            group: 0,
            page: None,
            stripe_first: 0,
            stripe_count: 1,
            terms: LeaseTerms {
                lease: LeaseId::from_bytes(object.name),
                owner,
                kind: LeaseKind::Pin,
                expiry: Expiry::RunningSeconds(PIN_SECONDS),
            },
            placement: Signed::sign(placement, &self.key).expect("the writer's own key"),
            missing: Vec::new(),
        }
    }

    /// Reads a shard, or a part of it, as the client gives it.
    ///
    /// # Errors
    /// What the node or the connection says.
    pub async fn read(
        &self,
        shard: ShardId,
        len: u64,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, ClientError> {
        match range {
            None => self.client.shard(&self.peer, shard, len).await,
            Some(range) => self.client.shard_range(&self.peer, shard, len, range).await,
        }
    }

    /// Asks for shards by what the ledger knows of them; says what is lost or wrong. A shard that
    /// need not be there is either whole or not found.
    pub async fn read_shards(&self, owed: &Owed, shards: &[Hash]) -> Vec<String> {
        let mut faults = Vec::new();
        for id in shards {
            let (len, is_owed) = owed.shards[id];
            let read = self.client.shard(&self.peer, ShardId::from_bytes(*id), len).await;
            match read {
                // Hashed once more: the client is the node's own library.
                Ok(bytes) if *blake3::hash(&bytes).as_bytes() == *id => {}
                Ok(_) => faults.push(format!("shard {} came back with other bytes", hex(id))),
                Err(error) if !is_owed && error.code() == Some(ErrorCode::NotFound) => {}
                Err(error) => faults.push(format!("shard {}: {error}", hex(id))),
            }
        }
        faults
    }

    /// Asks for every pin the node has; says what is missing, and what is there again.
    pub async fn read_pins(&self, owed: &Owed) -> Vec<String> {
        let mut faults = Vec::new();
        let mut pins: HashSet<Name> = HashSet::new();
        let mut after = None;
        loop {
            let page = match self.client.leases(&self.peer, after).await {
                Ok(page) => page,
                Err(error) => return vec![format!("the list of pins: {error}")],
            };
            let Some(last) = page.last() else { break };
            after = Some((last.lease, last.object, last.group));
            let pinned = page.iter().filter(|entry| entry.kind == LeaseKind::Pin);
            pins.extend(pinned.map(|entry| *entry.lease.as_bytes()));
        }
        let missing = owed.commits.keys().filter(|name| !pins.contains(*name));
        faults.extend(missing.map(|name| format!("the pin of {} is lost", hex(name))));
        let back = pins.intersection(&owed.released);
        faults.extend(back.map(|name| format!("the pin of {} is back", hex(name))));
        faults
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.client.close().await;
    }
}
