// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every story needs: a chain with funded keys, a client of it, nodes with identities, an
//! object whose shards are real, and a look at blocks and pool that does not use the client.

use libp2p_identity::Keypair;
use serde_json::Value;
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::rpc_params;
use supernode_chain::{
    Account, BlockRef, Call, Chain, ChainConfig, Group, ReceiptOf, SecretKey, Until,
};
use supernode_devchain::{DevChain, Genesis, Head, Options, Seal};
use supernode_protocol::audit::{AuditProof, drawn_chunks};
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim, registration_message};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::tree::{
    ShardEntry, ShardsRootHasher, TreeHasher, chunk_count, prove_chunk, prove_entry,
};

use super::eventually::{PATIENCE, soon};

/// Keys with money, by the number that their seed repeats.
pub const CLIENT: u8 = 1;
pub const NODE_OWNER: u8 = 2;
pub const OPERATOR: u8 = 3;
pub const STRANGER: u8 = 4;
/// A key that owns nothing.
pub const BEGGAR: u8 = 5;

/// What each of them owns at first.
pub const WEALTH: u128 = 1_000_000_000_000;
/// Smallest units for a GiB and a block: one for a KiB.
pub const PRICE: u128 = 1 << 20;
/// Blocks to prove in, and between two rounds of audits.
pub const AUDIT_WINDOW: u32 = 12;
pub const AUDIT_INTERVAL: u32 = 16;

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32]).expect("a seed like any other")
}

/// Short periods, so that a story sees them pass.
pub fn genesis() -> Genesis {
    let mut genesis = Genesis::default();
    for number in [CLIENT, NODE_OWNER, OPERATOR, STRANGER] {
        genesis.balances.push((key(number).account().into(), WEALTH));
    }
    genesis.parameters.price_per_gib_block = PRICE;
    genesis.parameters.activation_window = 40;
    genesis.parameters.duration_min = 5;
    genesis.parameters.audit_window = AUDIT_WINDOW;
    genesis.parameters.audit_interval = AUDIT_INTERVAL;
    genesis
}

/// Blocks are made by hand, and finality is two behind.
pub fn by_hand() -> Options {
    Options { seal: Seal::Manual, genesis: Some(genesis()), ..Options::default() }
}

/// A block for each transaction, final at once.
pub fn instant() -> Options {
    Options { seal: Seal::Instant, finality_lag: 0, ..by_hand() }
}

pub async fn start(options: Options) -> DevChain {
    DevChain::start(options).await.expect("the options are good")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Settings for these endpoints, with the shortest heartbeat there is.
pub fn config(genesis: [u8; 32], endpoints: &[String]) -> ChainConfig {
    ChainConfig {
        endpoints: endpoints.to_vec(),
        genesis: format!("0x{}", hex(&genesis)),
        request_timeout_secs: 20,
        heartbeat_secs: 1,
        ..ChainConfig::default()
    }
}

/// The addresses of all listeners, as a client writes them.
pub fn urls(chain: &DevChain) -> Vec<String> {
    chain.addresses().iter().map(|address| format!("ws://{address}")).collect()
}

pub fn config_of(chain: &DevChain) -> ChainConfig {
    config(chain.genesis_hash().0, &urls(chain))
}

/// A client that is connected.
pub async fn connect(config: ChainConfig) -> Chain {
    let client = Chain::start(config).expect("the settings are good");
    client.ready(PATIENCE).await.expect("the chain is there");
    client
}

pub fn block_of(head: Head) -> BlockRef {
    BlockRef { height: head.number.into(), hash: head.hash.0 }
}

async fn ask(chain: &DevChain, method: &str, params: Option<Value>) -> Value {
    let rpc = soon("a connection", RpcClient::from_insecure_url(chain.url())).await;
    let rpc = rpc.expect("the chain listens");
    let params = params.map_or(rpc_params![], |value| rpc_params![value]);
    soon("an answer", rpc.request(method, params)).await.expect("an honest listener")
}

/// Transactions that wait.
pub async fn pending(chain: &DevChain) -> usize {
    let pending = ask(chain, "author_pendingExtrinsics", None).await;
    pending.as_array().expect("a list").len()
}

/// Signed transactions in the blocks of the best chain, in order.
pub async fn landed(chain: &DevChain) -> Vec<String> {
    let mut found = Vec::new();
    for height in 1..=chain.best().number {
        let hash = ask(chain, "chain_getBlockHash", Some(height.into())).await;
        let block = ask(chain, "chain_getBlock", Some(hash)).await;
        let all = block["block"]["extrinsics"].as_array().expect("a list").clone();
        found.extend(
            all.iter().filter_map(Value::as_str).filter(|it| is_signed(it)).map(str::to_owned),
        );
    }
    found
}

/// Behind the length (1, 2 or 4 bytes by its two lowest bits) stands a byte whose highest bit says
/// that a signature follows.
fn is_signed(extrinsic: &str) -> bool {
    let digits = extrinsic.trim_start_matches("0x");
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("it is hex");
    let length_bytes = match byte(0) & 0b11 {
        0 => 1,
        1 => 2,
        _ => 4,
    };
    byte(length_bytes) & 0x80 != 0
}

/// A reservation that anybody with money gets.
pub fn reserve(bytes: u64) -> Call {
    Call::Reserve { bytes, duration: 100, max_price: PRICE }
}

/// The identity of a node.
pub fn identity(node: u8) -> Keypair {
    Keypair::ed25519_from_bytes([0x40 + node; 32]).expect("any 32 bytes are a key")
}

pub fn peer(node: u8) -> NodeId {
    NodeId::from_public(&identity(node).public()).expect("an Ed25519 key")
}

fn sign(node: u8, message: &[u8]) -> [u8; 64] {
    let signature = identity(node).sign(message).expect("a key signs");
    signature.try_into().expect("an Ed25519 signature")
}

/// What registers a node under [`NODE_OWNER`] and [`OPERATOR`].
pub fn registration(genesis: [u8; 32], node: u8) -> Call {
    let (owner, operator) = (key(NODE_OWNER).account(), key(OPERATOR).account());
    Call::RegisterNode {
        operator,
        peer: peer(node),
        signature: sign(node, &registration_message(&genesis, &owner, &operator)),
        region: "EU-WEST".to_owned(),
        addresses: vec!["/ip4/127.0.0.1/udp/9002".to_owned()],
        capacity: 1 << 40,
    }
}

/// Registers nodes 0 and up; their indexes on a new chain are the same numbers.
pub async fn register(client: &Chain, count: u8) {
    let owner = Account::start(client.clone(), key(NODE_OWNER));
    for node in 0..count {
        let call = registration(client.genesis(), node);
        let done = soon("a registration", owner.submit(call, Until::InBlock)).await;
        assert_eq!(done.expect("it is signed").registered, Some(node.into()));
    }
}

/// One stripe over as many nodes as it has shards; half of them are enough.
pub struct Object {
    pub cid: Cid,
    shards: Vec<(Vec<u8>, Vec<u8>)>,
    entries: Vec<ShardEntry>,
}

impl Object {
    pub fn new(width: u8, shard_len: usize) -> Self {
        let mut object =
            Self { cid: Cid::from_bytes([0x0b; 32]), shards: Vec::new(), entries: Vec::new() };
        for index in 0..width {
            let bytes: Vec<u8> = (0..251).cycle().skip(index.into()).take(shard_len).collect();
            let mut hasher = TreeHasher::new(shard_len as u64);
            hasher.update(&bytes);
            let (id, outboard) = hasher.finish().expect("the announced length");
            object.shards.push((bytes, outboard));
            object.entries.push(ShardEntry { id, shard_len: shard_len as u64 });
        }
        object
    }

    pub fn shard_len(&self) -> u64 {
        self.entries[0].shard_len
    }

    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.shard_len).sum()
    }

    pub fn shards_root(&self) -> [u8; 32] {
        let mut root = ShardsRootHasher::new();
        self.entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
        root.finish()
    }

    fn receipt(&self, genesis: [u8; 32], deal: DealId, node: u8) -> ReceiptOf {
        let mut held = HeldDigest::new();
        held.push(0, 0, 1, node.into());
        let claim = ReceiptClaim {
            genesis,
            deal,
            object: self.cid,
            shards_root: self.shards_root(),
            width: u16::try_from(self.entries.len()).expect("few shards"),
            stripe_count: 1,
            node: peer(node),
            bytes: self.shard_len(),
            held: held.finish(),
        };
        let signature = sign(node, &claim.message());
        ReceiptOf { node: node.into(), bytes: claim.bytes, signature }
    }

    /// The call that makes a deal of a reservation, shard `n` with node `n`.
    pub fn activation(&self, genesis: [u8; 32], deal: DealId) -> Call {
        let width = u8::try_from(self.entries.len()).expect("few shards");
        let nodes = (0..width).map(u32::from).collect();
        Call::Activate {
            deal,
            object: self.cid,
            shards_root: self.shards_root(),
            data: u16::from(width / 2),
            width: width.into(),
            groups: vec![Group { stripe_count: 1, nodes }],
            receipts: (0..width).map(|node| self.receipt(genesis, deal, node)).collect(),
        }
    }

    /// The honest answer to an audit.
    pub fn proof(&self, audit: &supernode_chain::Audit) -> Vec<u8> {
        assert_eq!((audit.object, audit.stripe), (self.cid, 0), "it is about this object");
        let slot = usize::from(audit.index);
        let (bytes, outboard) = &self.shards[slot];
        let len = self.shard_len();
        let show = |chunk: u64| {
            let start = usize::try_from(chunk / 16 * 16_384).expect("small");
            let end = bytes.len().min(start + 16_384);
            prove_chunk(&bytes[start..end], outboard, len, chunk).expect("it exists")
        };
        let chunks = drawn_chunks(&audit.seed, chunk_count(len), audit.chunk_count);
        let chunks = chunks.map(show).collect();
        let place = prove_entry(&self.entries, slot).expect("it exists");
        AuditProof { entry: self.entries[slot], place, chunks }.encode()
    }
}
