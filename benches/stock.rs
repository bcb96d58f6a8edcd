// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real stores with real objects in them, put there under deals as a client would, and the
//! directory that they lie in.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use libp2p_identity::Keypair;
use supernode_protocol::erasure::Codec;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::{Builder, Extent, Stripe};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_store::{Durability, PutBlock, PutShard, Store, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The number of the key that clients have.
const CLIENT: u8 = 1;
/// Puts under way at a time.
const PUTS_MAX: usize = 128;
/// Stripes of a group: a full manifest page.
const STRIPES_PER_GROUP: u32 = 64;

/// Names another place for what benches write than the target directory.
const DIRECTORY_VARIABLE: &str = "SUPERNODE_BENCH_DIR";
/// Shrinks fills that take minutes, or makes them larger.
const SHARDS_VARIABLE: &str = "SUPERNODE_BENCH_SHARDS";
/// What `statfs` calls file systems in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A directory on a disk, which a temporary directory of the system may not be.
pub fn directory() -> TempDir {
    let place = std::env::var_os(DIRECTORY_VARIABLE)
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&place).expect("a place for what benches write");
    let kind = rustix::fs::statfs(&place).expect("a file system").f_type;
    assert_ne!(
        kind,
        TMPFS_MAGIC,
        "{} is in memory: name a disk in {DIRECTORY_VARIABLE}",
        place.display()
    );
    tempfile::tempdir_in(place).expect("a place that can be written to")
}

/// How many shards a large fill has: so many, unless somebody asks for another number.
pub fn shard_count(default: u32) -> u32 {
    let asked = std::env::var(SHARDS_VARIABLE).ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Settings of a store that offers the whole disk. Filling one is no part of any figure, so it
/// does not wait for the disk; the end of the store does.
pub fn filling(path: &Path) -> StoreConfig {
    StoreConfig {
        path: path.to_owned(),
        node: node_id(&key(200)),
        reserve_bytes: 0,
        durability: Durability::Relaxed,
        ..StoreConfig::default()
    }
}

/// Opens a store.
pub fn open(config: StoreConfig) -> Store {
    Store::open(config).expect("a directory of our own")
}

/// The node that clients put as.
pub fn client() -> NodeId {
    node_id(&key(CLIENT))
}

/// A key by its number.
pub fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).expect("any 32 bytes are a key")
}

/// The node that a key names.
pub fn node_id(key: &Keypair) -> NodeId {
    NodeId::from_public(&key.public()).expect("an Ed25519 key")
}

/// An object of which one node holds every shard.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Decides the bytes, and names the upload.
    pub seed: u64,
    /// Stripes.
    pub stripe_count: u32,
    /// Data and parity shards of a stripe.
    pub widths: (u16, u16),
    /// Bytes of a shard: 64 or a multiple of 4096.
    pub shard_bytes: u32,
}

/// Bytes of one slot.
pub fn shard_bytes(recipe: &Recipe, slot: Slot) -> Bytes {
    let mut bytes = vec![0; recipe.shard_bytes as usize];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&recipe.seed.to_le_bytes());
    hasher.update(&slot.stripe.to_le_bytes());
    hasher.update(&slot.index.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// One object on its way into a store.
struct Upload<'a> {
    store: &'a Store,
    key: Keypair,
    id: UploadId,
    recipe: Recipe,
}

/// Puts an object under a deal lease; returns its shards in the order of their slots.
pub async fn put(store: &Store, recipe: Recipe, lease: LeaseId, end: u64) -> Vec<ShardId> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&recipe.seed.to_le_bytes());
    let upload = Upload { store, key: key(CLIENT), id: UploadId::from_bytes(id), recipe };
    upload.perform(lease, Expiry::FinalisedHeight(end)).await
}

impl Upload<'_> {
    async fn perform(self, lease: LeaseId, expiry: Expiry) -> Vec<ShardId> {
        let caller = client();
        let mut builder = Builder::new();
        let mut pages = Vec::new();
        let mut ids = Vec::new();
        for first in (0..self.recipe.stripe_count).step_by(STRIPES_PER_GROUP as usize) {
            let end = self.recipe.stripe_count.min(first + STRIPES_PER_GROUP);
            let group = self.shards(first..end).await;
            for shards in group.chunks(self.width()) {
                pages.extend(builder.push(self.extent(shards)).expect("a valid stripe"));
            }
            ids.extend(group);
        }
        let (last, manifest) = builder.finish([0; 32]).expect("few pages");
        pages.extend(last);
        for block in pages.iter().chain([&manifest.block]) {
            let (cid, bytes) = (block.cid, block.bytes.clone());
            let put = PutBlock { caller, upload: self.id, cid, bytes };
            self.store.put_block(put).await.expect("room");
        }
        let object = manifest.block.cid;
        // Group 0 has its page in the root.
        let pages = [None].into_iter().chain(pages.iter().map(|page| Some(page.cid)));
        for (group, page) in (0..).zip(pages) {
            let stripe_first = group * STRIPES_PER_GROUP;
            let left = self.recipe.stripe_count - stripe_first;
            let commit = Commit {
                upload: self.id,
                object,
                group,
                page,
                stripe_first,
                stripe_count: left.min(STRIPES_PER_GROUP),
                terms: LeaseTerms { lease, owner: caller, kind: LeaseKind::Deal, expiry },
                placement: self.placement(object, group),
                missing: Vec::new(),
            };
            self.store.commit(caller, commit).await.expect("everything is there");
        }
        ids
    }

    fn width(&self) -> usize {
        usize::from(self.recipe.widths.0 + self.recipe.widths.1)
    }

    fn extent(&self, shards: &[ShardId]) -> Extent {
        let (data, parity) = self.recipe.widths;
        let shard_len = u64::from(self.recipe.shard_bytes);
        Extent::Stripe(Stripe {
            len: u64::from(data) * shard_len,
            codec: Codec::Leopard16High,
            data_count: data.into(),
            parity_count: parity.into(),
            shard_len,
            shards: shards.to_vec(),
        })
    }

    fn placement(&self, object: Cid, group: u32) -> Signed<PlacementRecord> {
        let writer = node_id(&self.key);
        let nodes = vec![writer];
        let body = PlacementRecord { object, group, epoch: 0, nodes, writer };
        Signed::sign(body, &self.key).expect("the writer's own key")
    }

    /// Puts the shards of some stripes, many at a time.
    async fn shards(&self, stripes: std::ops::Range<u32>) -> Vec<ShardId> {
        let (caller, upload, recipe) = (client(), self.id, self.recipe);
        let width = recipe.widths.0 + recipe.widths.1;
        let slots = stripes.flat_map(|stripe| (0..width).map(move |index| Slot { stripe, index }));
        let mut ids = Vec::new();
        let mut puts = JoinSet::new();
        for slot in slots {
            let bytes = shard_bytes(&recipe, slot);
            let shard = ShardId::of(&bytes);
            ids.push(shard);
            let store = self.store.clone();
            puts.spawn(async move {
                let mut buffer = store.buffer(bytes.len() as u64).await.expect("a possible length");
                buffer.extend(&bytes).expect("as announced");
                let put = PutShard { caller, upload, slot, shard, buffer };
                store.put_shard(put).await.expect("room");
            });
            if puts.len() >= PUTS_MAX {
                puts.join_next().await.expect("some are left").expect("a put does not panic");
            }
        }
        puts.join_all().await;
        ids
    }
}

/// The segment files of a store, the oldest first.
pub fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).expect("the store's directory").flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|name| name == "seg"));
    found.sort();
    found
}
