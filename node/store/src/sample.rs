// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small objects for tests, whole in every respect but the code: shards are random, or all equal,
//! because the store neither encodes nor decodes.

use bytes::Bytes;
use libp2p_identity::Keypair;
use supernode_protocol::erasure::Codec;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::{Builder, Extent, Stripe};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

/// A client with a key.
pub struct Client {
    /// Its key.
    pub key: Keypair,
    /// Its name.
    pub id: NodeId,
}

impl Client {
    /// The client with this number, always the same.
    pub fn new(number: u8) -> Self {
        let key = Keypair::ed25519_from_bytes([number; 32]).expect("any 32 bytes are a key");
        let id = NodeId::from_public(&key.public()).expect("an Ed25519 key");
        Self { key, id }
    }
}

/// An object's manifest and shards.
pub struct Object {
    /// Its name.
    pub cid: Cid,
    /// Its manifest root.
    pub root: Bytes,
    /// Its size.
    pub size: u64,
    /// Its groups.
    pub groups: Vec<Group>,
}

/// One group of an object.
pub struct Group {
    /// The page's block, if it is not in the root.
    pub page: Option<(Cid, Bytes)>,
    /// First stripe.
    pub stripe_first: u32,
    /// All shards, by slot.
    pub shards: Vec<(Slot, ShardId, Bytes)>,
}

/// What an object is made of.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Decides the bytes.
    pub seed: u64,
    /// Groups, each with the same number of stripes.
    pub group_count: u32,
    /// Stripes of a group.
    pub stripe_count: u32,
    /// Data and parity shards of a stripe.
    pub widths: (usize, usize),
    /// Object bytes of a stripe.
    pub stripe_bytes: u64,
    /// Whether all bytes are zero, and so all shards equal.
    pub zeros: bool,
}

impl Recipe {
    /// One group, one stripe of 2 + 1 small shards.
    pub fn small(seed: u64) -> Self {
        Self {
            seed,
            group_count: 1,
            stripe_count: 1,
            widths: (2, 1),
            stripe_bytes: 640,
            zeros: false,
        }
    }
}

/// Bytes that follow from a seed.
pub fn bytes_of(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Makes an object.
pub fn object(recipe: Recipe) -> Object {
    let (data_count, parity_count) = recipe.widths;
    let shard_len = supernode_protocol::geometry::shard_len(recipe.stripe_bytes, data_count);
    let len = usize::try_from(shard_len).expect("a test's shard is small");
    let mut builder = Builder::new();
    let mut groups = Vec::new();
    let mut pages = Vec::new();
    let mut stripe = 0;
    for _ in 0..recipe.group_count {
        let stripe_first = stripe;
        let mut shards = Vec::new();
        for _ in 0..recipe.stripe_count {
            let mut ids = Vec::new();
            for index in 0..u16::try_from(data_count + parity_count).expect("at most 256") {
                let seed = recipe.seed << 32 | u64::from(stripe) << 16 | u64::from(index);
                let zeros = || Bytes::from(vec![0; len]);
                let bytes = if recipe.zeros { zeros() } else { bytes_of(seed, len) };
                let id = ShardId::of(&bytes);
                ids.push(id);
                shards.push((Slot { stripe, index }, id, bytes));
            }
            let extent = Extent::Stripe(Stripe {
                len: recipe.stripe_bytes,
                codec: Codec::Leopard16High,
                data_count,
                parity_count,
                shard_len,
                shards: ids,
            });
            pages.extend(builder.push(extent).expect("a valid stripe"));
            stripe += 1;
        }
        pages.extend(builder.end_page().expect("few pages"));
        groups.push(Group { page: None, stripe_first, shards });
    }
    let content = blake3::hash(&recipe.seed.to_le_bytes());
    let (last, manifest) = builder.finish(*content.as_bytes()).expect("a valid object");
    pages.extend(last);
    // Group 0 has its page in the root.
    for (group, page) in groups.iter_mut().skip(1).zip(pages) {
        group.page = Some((page.cid, page.bytes));
    }
    let size = manifest.root.size;
    Object { cid: manifest.block.cid, root: manifest.block.bytes, size, groups }
}

/// How to commit a group.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The upload.
    pub upload: UploadId,
    /// The lease.
    pub lease: LeaseId,
    /// Its end.
    pub expiry: Expiry,
    /// Its kind.
    pub kind: LeaseKind,
    /// Epoch of the placement.
    pub epoch: u64,
}

impl Terms {
    /// A pin of a day, with ids made from two numbers.
    pub fn pin(upload: u8, lease: u8) -> Self {
        Self {
            upload: UploadId::from_bytes([upload; 16]),
            lease: LeaseId::from_bytes([lease; 16]),
            expiry: Expiry::RunningSeconds(86_400),
            kind: LeaseKind::Pin,
            epoch: 0,
        }
    }
}

impl Object {
    /// The commit of one group.
    pub fn commit(&self, client: &Client, group: u32, terms: Terms) -> Commit {
        let part = &self.groups[usize::try_from(group).expect("few groups")];
        let stripes = part.shards.iter().map(|(slot, ..)| slot.stripe + 1).max();
        Commit {
            upload: terms.upload,
            object: self.cid,
            group,
            page: part.page.as_ref().map(|(cid, _)| *cid),
            stripe_first: part.stripe_first,
            stripe_count: stripes.map_or(0, |end| end - part.stripe_first),
            terms: LeaseTerms {
                lease: terms.lease,
                owner: client.id,
                kind: terms.kind,
                expiry: terms.expiry,
            },
            placement: self.placement(client, group, terms.epoch),
            missing: Vec::new(),
        }
    }

    /// A placement of one group.
    pub fn placement(&self, client: &Client, group: u32, epoch: u64) -> Signed<PlacementRecord> {
        let nodes = vec![client.id];
        let body = PlacementRecord { object: self.cid, group, epoch, nodes, writer: client.id };
        Signed::sign(body, &client.key).expect("the client's own key")
    }
}
