// SPDX-License-Identifier: MIT OR Apache-2.0
//! A runtime of three pallets, a network of nodes with real keys, and objects with real shards, so
//! that tests sign real receipts and send real proofs.

use codec::Encode;
use frame_support::traits::fungible::Inspect;
use frame_support::traits::{ConstU32, ConstU128, Hooks, Randomness};
use frame_support::{PalletId, assert_ok, derive_impl, parameter_types};
use sp_core::ed25519::Pair as Identity;
use sp_core::{H256, Pair};
use sp_io::TestExternalities;
use sp_io::hashing::blake2_256;
use sp_runtime::{BuildStorage, DispatchResult};
use supernode_protocol::audit::{AuditProof, drawn_chunks};
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim, registration_message};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::tree::{
    ShardEntry, ShardsRootHasher, TreeHasher, chunk_count, prove_chunk, prove_entry,
};

use crate::pallet as supernode;
use crate::types::{
    Addresses, AuditOf, GroupAssignment, NOBODY, Parameters, ParametersOf, ProofBytes, Receipt,
    Region,
};

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system = 0,
        Balances: pallet_balances = 1,
        Supernode: supernode = 10,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = frame_system::mocking::MockBlockU32<Test>;
    type AccountData = pallet_balances::AccountData<u128>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type Balance = u128;
    type ExistentialDeposit = ConstU128<DEPOSIT>;
    type AccountStore = System;
}

parameter_types! {
    pub const Pot: PalletId = PalletId(*b"supernod");
}

/// Slots visited per block in tests.
pub const AUDITS: u32 = 40;
/// Steps per queue and block in tests.
pub const TASKS: u32 = 30;
/// The existential deposit.
pub const DEPOSIT: u128 = 10;
/// What every client has at first.
pub const WEALTH: u128 = 1_000_000_000_000_000;

impl supernode::Config for Test {
    type Currency = Balances;
    type Randomness = ByBlock;
    type PalletId = Pot;
    type MaxAuditsPerBlock = ConstU32<AUDITS>;
    type MaxTasksPerBlock = ConstU32<TASKS>;
    type MaxGroups = ConstU32<1024>;
    type MaxReceipts = ConstU32<300>;
    type MaxProofs = ConstU32<64>;
}

/// Randomness that a test can repeat: the block number and the subject.
pub struct ByBlock;

impl Randomness<H256, u32> for ByBlock {
    fn random(subject: &[u8]) -> (H256, u32) {
        let now = System::block_number();
        (H256(blake2_256(&(now, subject).encode())), now)
    }
}

/// Small numbers, so that tests see every period pass.
pub fn parameters() -> ParametersOf<Test> {
    Parameters {
        price_per_gib_block: 1 << 20,
        activation_window: 10,
        duration_min: 5,
        duration_max: 1_000,
        audit_interval: 10,
        audit_window: 4,
        slots_per_round: 4,
        chunks_per_audit: 4,
        tombstone_blocks: 20,
    }
}

/// Clients are accounts 1 to 5.
pub const CLIENTS: [u64; 5] = [1, 2, 3, 4, 5];

/// The owner of a node.
pub fn owner(node: u32) -> u64 {
    100 + u64::from(node)
}

/// The operator of a node.
pub fn operator(node: u32) -> u64 {
    10_000 + u64::from(node)
}

/// The identity of a node.
pub fn identity(node: u32) -> Identity {
    Identity::from_seed(&blake2_256(&node.encode()))
}

/// A chain in block 1 with `nodes` registered nodes.
pub fn chain(nodes: u32) -> TestExternalities {
    let balances = CLIENTS.into_iter().map(|client| (client, WEALTH)).collect();
    let genesis = RuntimeGenesisConfig {
        balances: pallet_balances::GenesisConfig { balances, ..Default::default() },
        supernode: supernode::GenesisConfig { parameters: parameters() },
        ..Default::default()
    };
    let storage = genesis.build_storage().expect("a valid genesis");
    let mut chain = TestExternalities::new(storage);
    chain.execute_with(|| {
        System::set_block_number(1);
        for node in 0..nodes {
            assert_ok!(register(node));
        }
    });
    chain
}

/// Registers a node with its own key.
pub fn register(node: u32) -> DispatchResult {
    let message = registration_message(
        &Supernode::genesis(),
        &owner(node).encode(),
        &operator(node).encode(),
    );
    let identity = identity(node);
    Supernode::register_node(
        RuntimeOrigin::signed(owner(node)),
        operator(node),
        identity.public().0,
        identity.sign(&message).0,
        region("EU-WEST"),
        Addresses::default(),
        1 << 40,
    )
}

/// A region by name.
pub fn region(name: &str) -> Region {
    name.as_bytes().to_vec().try_into().expect("a short name")
}

/// Begins the next block and returns its number.
pub fn next_block() -> u32 {
    let now = System::block_number() + 1;
    System::reset_events();
    System::set_block_number(now);
    Supernode::on_initialize(now);
    now
}

/// Goes on to a block.
pub fn run_to(block: u32) {
    while System::block_number() < block {
        next_block();
    }
}

/// The pallet's events since the block began.
pub fn events() -> Vec<supernode::Event<Test>> {
    let ours = |record: frame_system::EventRecord<RuntimeEvent, H256>| match record.event {
        RuntimeEvent::Supernode(event) => Some(event),
        _ => None,
    };
    System::events().into_iter().filter_map(ours).collect()
}

/// What the pot holds beyond its deposit.
pub fn pot() -> u128 {
    Balances::balance(&Supernode::pot()) - DEPOSIT
}

/// An object whose shards are real, and where they lie.
#[derive(Clone)]
pub struct Object {
    pub name: [u8; 32],
    pub data: u16,
    pub width: u16,
    pub groups: Vec<(u16, Vec<u32>)>,
    shard_len: u64,
    shards: Vec<Shard>,
    entries: Vec<ShardEntry>,
}

#[derive(Clone)]
struct Shard {
    bytes: Vec<u8>,
    outboard: Vec<u8>,
}

impl Object {
    /// Makes shards of `shard_len` bytes for all slots of `groups`.
    pub fn new(seed: u64, data: u16, groups: Vec<(u16, Vec<u32>)>, shard_len: usize) -> Self {
        let mut object = Self::unmade(seed, data, groups, shard_len as u64);
        let stripes: u64 = object.groups.iter().map(|(stripes, _)| u64::from(*stripes)).sum();
        for slot in 0..stripes * u64::from(object.width) {
            let mut bytes = vec![0; shard_len];
            let start = blake2_256(&(seed, slot).encode());
            bytes.iter_mut().zip(start.iter().cycle()).for_each(|(byte, from)| *byte = *from);
            let mut hasher = TreeHasher::new(shard_len as u64);
            hasher.update(&bytes);
            let (id, outboard) = hasher.finish().expect("the announced length");
            object.shards.push(Shard { bytes, outboard });
            object.entries.push(ShardEntry { id, shard_len: shard_len as u64 });
        }
        object
    }

    /// The same without its bytes, for those who never prove anything.
    pub fn unmade(seed: u64, data: u16, groups: Vec<(u16, Vec<u32>)>, shard_len: u64) -> Self {
        let width = u16::try_from(groups[0].1.len()).expect("a width");
        let (shards, entries) = (Vec::new(), Vec::new());
        Self { name: blake2_256(&seed.encode()), data, width, groups, shard_len, shards, entries }
    }

    pub fn shards_root(&self) -> [u8; 32] {
        let mut root = ShardsRootHasher::new();
        self.entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
        root.finish()
    }

    /// The nodes that hold something, in ascending order.
    pub fn holders(&self) -> Vec<u32> {
        let all = self.groups.iter().flat_map(|(_, nodes)| nodes).copied();
        let mut holders: Vec<_> = all.filter(|node| *node != NOBODY).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Slots and bytes of one node.
    pub fn held(&self, node: u32) -> (u32, u64) {
        let of_group = |(stripes, nodes): &(u16, Vec<u32>)| {
            let indexes = nodes.iter().filter(|other| **other == node).count();
            u32::from(*stripes) * u32::try_from(indexes).expect("a width")
        };
        let slots: u32 = self.groups.iter().map(of_group).sum();
        (slots, u64::from(slots) * self.shard_len)
    }

    /// Bytes of all slots that somebody holds.
    pub fn bytes(&self) -> u64 {
        self.holders().into_iter().map(|node| self.held(node).1).sum()
    }

    /// What `node` honestly claims for `deal`.
    pub fn claim(&self, deal: u64, node: u32) -> ReceiptClaim {
        let mut digest = HeldDigest::new();
        let mut stripe_first = 0;
        for (group, (stripes, nodes)) in (0..).zip(&self.groups) {
            for (index, _) in (0..).zip(nodes).filter(|(_, other)| **other == node) {
                digest.push(group, stripe_first, (*stripes).into(), index);
            }
            stripe_first += u32::from(*stripes);
        }
        ReceiptClaim {
            genesis: Supernode::genesis(),
            deal: DealId(deal),
            object: Cid::from_bytes(self.name),
            shards_root: self.shards_root(),
            width: self.width,
            stripe_count: stripe_first,
            node: NodeId::from_bytes(identity(node).public().0),
            bytes: self.held(node).1,
            held: digest.finish(),
        }
    }

    pub fn receipt(&self, deal: u64, node: u32) -> Receipt {
        let claim = self.claim(deal, node);
        let signature = identity(node).sign(&claim.message()).0;
        Receipt { node, bytes: claim.bytes, signature }
    }

    pub fn receipts(&self, deal: u64) -> Vec<Receipt> {
        self.holders().into_iter().map(|node| self.receipt(deal, node)).collect()
    }

    pub fn assignments(&self) -> Vec<GroupAssignment> {
        let assignment = |(stripe_count, nodes): &(u16, Vec<u32>)| GroupAssignment {
            stripe_count: *stripe_count,
            nodes: nodes.clone().try_into().expect("a width"),
        };
        self.groups.iter().map(assignment).collect()
    }

    /// Activates with these receipts.
    pub fn activate_with(&self, client: u64, deal: u64, receipts: Vec<Receipt>) -> DispatchResult {
        Supernode::activate(
            RuntimeOrigin::signed(client),
            deal,
            self.name,
            self.shards_root(),
            self.data,
            self.width,
            self.assignments().try_into().expect("few groups"),
            receipts.try_into().expect("few receipts"),
        )
    }

    pub fn activate(&self, client: u64, deal: u64) -> DispatchResult {
        self.activate_with(client, deal, self.receipts(deal))
    }

    /// Reserves and activates in this block; returns the deal.
    pub fn deal(&self, client: u64, duration: u32) -> u64 {
        let deal = reserve(client, self.bytes(), duration);
        assert_ok!(self.activate(client, deal));
        deal
    }

    /// The honest answer to an audit.
    pub fn proof(&self, audit: &AuditOf<Test>) -> AuditProof {
        self.proof_of(audit.stripe, audit.index, &audit.seed, audit.chunk_count)
    }

    /// The proof that a seed would ask for of a slot.
    pub fn proof_of(&self, stripe: u32, index: u16, seed: &[u8; 32], chunks: u8) -> AuditProof {
        let slot = stripe as usize * usize::from(self.width) + usize::from(index);
        let (shard, entry, len) = (&self.shards[slot], self.entries[slot], self.shard_len);
        let show = |chunk: u64| {
            let start = usize::try_from(chunk / 16 * 16_384).expect("small");
            let end = shard.bytes.len().min(start + 16_384);
            prove_chunk(&shard.bytes[start..end], &shard.outboard, len, chunk).expect("it exists")
        };
        let chunks = drawn_chunks(seed, chunk_count(len), chunks).map(show).collect();
        AuditProof { entry, place: prove_entry(&self.entries, slot).expect("it exists"), chunks }
    }
}

/// Reserves in this block; returns the id.
pub fn reserve(client: u64, bytes: u64, duration: u32) -> u64 {
    assert_ok!(Supernode::reserve(RuntimeOrigin::signed(client), bytes, duration, u128::MAX));
    supernode::NextDeal::<Test>::get()
}

/// Sends proofs by the node's operator.
pub fn submit(node: u32, proofs: Vec<(u64, Vec<u8>)>) -> DispatchResult {
    let bounded = |bytes: Vec<u8>| ProofBytes::try_from(bytes).expect("a short proof");
    let proofs: Vec<_> = proofs.into_iter().map(|(audit, bytes)| (audit, bounded(bytes))).collect();
    Supernode::submit_proofs(
        RuntimeOrigin::signed(operator(node)),
        node,
        proofs.try_into().expect("few proofs"),
    )
}

/// Four stripes in two groups over nodes 0 to 5, two of four shards enough: a small object.
pub fn small_object(seed: u64) -> Object {
    Object::new(seed, 2, vec![(3, vec![0, 1, 2, 3]), (1, vec![2, 3, 4, 5])], 2048)
}
