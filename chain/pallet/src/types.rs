// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the pallet stores and what its calls take: records without behaviour that touches state.
//!
//! A node is its index in the registry, counted from 0, and [`NOBODY`] is nobody. Deals and
//! audits are counted from 1; a reservation and the deal it becomes share one id. An object is
//! the 32 BLAKE3 bytes of its CID. Slot `s` of an object is stripe `s / width`, index
//! `s % width`.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::BoundedVec;
use frame_support::traits::ConstU32;
use frame_support::traits::fungible::Inspect;
use frame_system::pallet_prelude::BlockNumberFor;
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use supernode_protocol::limits::{
    AUDIT_PROOF_BYTES_MAX, CHUNKS_PER_AUDIT_MAX, NODE_ADDRESSES_MAX, REGION_NAME_BYTES_MAX,
    STRIPE_WIDTH_MAX,
};

use crate::pallet::Config;

/// Stands where no node holds the slot.
pub const NOBODY: u32 = u32::MAX;

/// Longest region name, in bytes.
pub const REGION_BYTES: u32 = bound(REGION_NAME_BYTES_MAX);
/// Longest address, in bytes.
pub const ADDRESS_BYTES: u32 = 256;
/// Most addresses of one node: those of its relay and those of its libp2p endpoint.
pub const ADDRESSES: u32 = 2 * bound(NODE_ADDRESSES_MAX);
/// Widest stripe.
pub const WIDTH: u32 = bound(STRIPE_WIDTH_MAX);
/// Longest audit proof, in bytes.
pub const PROOF_BYTES: u32 = bound(AUDIT_PROOF_BYTES_MAX);

/// A limit of the protocol as the length of a bounded vector; checked when compiling.
#[allow(clippy::cast_possible_truncation, reason = "asserted, and there is no const `try_from`")]
const fn bound(limit: usize) -> u32 {
    assert!(limit <= u32::MAX as usize);
    limit as u32
}

/// Name of a failure domain, such as `EU-WEST`.
pub type Region = BoundedVec<u8, ConstU32<REGION_BYTES>>;
/// Multiaddresses of a node, as text.
pub type Addresses = BoundedVec<BoundedVec<u8, ConstU32<ADDRESS_BYTES>>, ConstU32<ADDRESSES>>;
/// Slot index to node, [`NOBODY`] where the slot is not assigned.
pub type Assignment = BoundedVec<u32, ConstU32<WIDTH>>;
/// One encoded `supernode_protocol::audit::AuditProof`.
pub type ProofBytes = BoundedVec<u8, ConstU32<PROOF_BYTES>>;

/// The chain's accounts.
pub type AccountOf<T> = <T as frame_system::Config>::AccountId;
/// The chain's money.
pub type BalanceOf<T> = <<T as Config>::Currency as Inspect<AccountOf<T>>>::Balance;
/// [`Node`] on this chain.
pub type NodeOf<T> = Node<AccountOf<T>, BlockNumberFor<T>>;
/// [`Parameters`] on this chain.
pub type ParametersOf<T> = Parameters<BalanceOf<T>, BlockNumberFor<T>>;
/// [`Reservation`] on this chain.
pub type ReservationOf<T> = Reservation<AccountOf<T>, BalanceOf<T>, BlockNumberFor<T>>;
/// [`Deal`] on this chain.
pub type DealOf<T> = Deal<AccountOf<T>, BalanceOf<T>, BlockNumberFor<T>>;
/// [`Closing`] on this chain.
pub type ClosingOf<T> = Closing<AccountOf<T>, BalanceOf<T>, BlockNumberFor<T>>;
/// [`EndedDeal`] on this chain.
pub type EndedDealOf<T> = EndedDeal<AccountOf<T>, BlockNumberFor<T>>;
/// [`Holding`] on this chain.
pub type HoldingOf<T> = Holding<BlockNumberFor<T>>;
/// [`Audit`] on this chain.
pub type AuditOf<T> = Audit<BlockNumberFor<T>>;
/// [`AuditResult`] on this chain.
pub type AuditResultOf<T> = AuditResult<BlockNumberFor<T>>;

/// What governance decides. A change counts from the next event on: what a reservation or an
/// open audit was promised stays.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
    Serialize,
    Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Parameters<Balance, BlockNumber> {
    /// Smallest units for 1 GiB (of shards, so parity counts) kept for one block.
    pub price_per_gib_block: Balance,
    /// Blocks from a reservation to the last block in which it can be activated.
    pub activation_window: BlockNumber,
    /// Fewest blocks that a deal or a renewal is made for.
    pub duration_min: BlockNumber,
    /// Most blocks that a deal may have before it when it is made or renewed.
    pub duration_max: BlockNumber,
    /// Blocks from the end of one round of audits over a deal to the next; longer than the window.
    pub audit_interval: BlockNumber,
    /// Blocks from the opening of an audit to the last block in which its proof counts.
    pub audit_window: BlockNumber,
    /// Slots of a deal that one round visits.
    pub slots_per_round: u32,
    /// Chunks that one audit asks for.
    pub chunks_per_audit: u8,
    /// Blocks for which results of audits and tombstones of deals are kept.
    pub tombstone_blocks: BlockNumber,
}

impl<Balance: From<u32>, BlockNumber: From<u32>> Default for Parameters<Balance, BlockNumber> {
    /// Sized for blocks of six seconds: an hour to upload, an hour to prove, a round per day.
    fn default() -> Self {
        Self {
            price_per_gib_block: 1_000_u32.into(),
            activation_window: 600.into(),
            duration_min: 100.into(),
            duration_max: 26_280_000.into(),
            audit_interval: 14_400.into(),
            audit_window: 600.into(),
            slots_per_round: 14,
            chunks_per_audit: 8,
            tombstone_blocks: 100_800.into(),
        }
    }
}

impl<Balance, BlockNumber: PartialOrd + From<u32>> Parameters<Balance, BlockNumber> {
    /// Whether the values make sense together.
    pub fn are_valid(&self) -> bool {
        let one = BlockNumber::from(1);
        self.activation_window >= one
            && self.duration_min >= one
            && self.duration_min <= self.duration_max
            && self.audit_window >= one
            && self.audit_window < self.audit_interval
            && self.slots_per_round >= 1
            && (1..=CHUNKS_PER_AUDIT_MAX).contains(&self.chunks_per_audit)
            && self.tombstone_blocks >= one
    }
}

/// A storage node, its two accounts and where it is found.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Node<AccountId, BlockNumber> {
    /// Decides about the node and is paid.
    pub owner: AccountId,
    /// Sends proofs and pays their fees.
    pub operator: AccountId,
    /// The node's Ed25519 public key, which is its peer id.
    pub peer: [u8; 32],
    /// Its failure domain.
    pub region: Region,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Bytes it offers: its weight in placement.
    pub capacity: u64,
    /// When it was registered.
    pub registered_at: BlockNumber,
}

/// Money set aside for an object that is being uploaded.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Reservation<AccountId, Balance, BlockNumber> {
    /// Who pays and may activate, renew and cancel.
    pub owner: AccountId,
    /// Bytes of shards that may be activated.
    pub bytes: u64,
    /// Blocks the deal will live.
    pub duration: BlockNumber,
    /// What was set aside.
    pub escrow: Balance,
    /// Price per GiB and block, fixed here.
    pub price: Balance,
    /// Last block in which it can be activated.
    pub activates_by: BlockNumber,
}

/// An object that is kept and paid for. It lives in every block before `expires_at`.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Deal<AccountId, Balance, BlockNumber> {
    /// Who pays and may renew and cancel.
    pub owner: AccountId,
    /// The object.
    pub object: [u8; 32],
    /// The root over its shards, against which audits are judged.
    pub shards_root: [u8; 32],
    /// Shards of a stripe that give it back.
    pub data: u16,
    /// Shards of a stripe.
    pub width: u16,
    /// Stripes of the object.
    pub stripe_count: u32,
    /// Groups of the object, each with its record in `Groups`.
    pub group_count: u32,
    /// Bytes of all shards that somebody holds.
    pub bytes: u64,
    /// Price per GiB and block since `priced_at`; a renewal blends the two prices.
    pub price: Balance,
    /// Since when the price is in force.
    pub priced_at: BlockNumber,
    /// What a GiB kept since `activated_at` had earned at `priced_at`.
    pub accrued: u128,
    /// When it began.
    pub activated_at: BlockNumber,
    /// The first block in which it no longer lives.
    pub expires_at: BlockNumber,
    /// Money not yet credited to anybody.
    pub escrow: Balance,
    /// The round of audits that is being opened, if one is.
    pub round: Option<Round>,
}

impl<AccountId, Balance, BlockNumber> Deal<AccountId, Balance, BlockNumber> {
    /// Slots of the object, assigned or not.
    pub fn slot_count(&self) -> u64 {
        u64::from(self.stripe_count) * u64::from(self.width)
    }

    /// The number of a slot in the object.
    pub fn slot(&self, stripe: u32, index: u16) -> u64 {
        u64::from(stripe) * u64::from(self.width) + u64::from(index)
    }

    /// The stripe of a slot, if the object has that slot.
    pub fn stripe_of(&self, slot: u64) -> u32 {
        u32::try_from(slot / u64::from(self.width.max(1))).unwrap_or(u32::MAX)
    }

    /// The index of a slot in its stripe.
    pub fn index_of(&self, slot: u64) -> u16 {
        u16::try_from(slot % u64::from(self.width.max(1))).expect("below a width of 16 bits")
    }
}

/// How far a round of audits has come. It waits here when a block has no room for all of it.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Round {
    /// The slot that is visited next.
    pub slot: u64,
    /// The group it belongs to.
    pub group: u32,
    /// Slots still to visit.
    pub left: u64,
}

/// A deal that has ended and whose holders are being paid, some in each block.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Closing<AccountId, Balance, BlockNumber> {
    /// The deal as it was.
    pub deal: Deal<AccountId, Balance, BlockNumber>,
    /// When it ended; nobody is paid beyond.
    pub ended_at: BlockNumber,
    /// The group whose holders are settled next.
    pub group: u32,
}

/// The tombstone of a deal.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct EndedDeal<AccountId, BlockNumber> {
    /// Who paid.
    pub owner: AccountId,
    /// The object.
    pub object: [u8; 32],
    /// The first block in which it no longer lived.
    pub at: BlockNumber,
    /// Whether its owner ended it early.
    pub cancelled: bool,
}

/// Consecutive stripes that lie on the same nodes.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Group {
    /// Its first stripe, counted over the object.
    pub stripe_first: u32,
    /// Its stripes; 0 for a page without any.
    pub stripe_count: u16,
    /// Who holds which slot of each of them.
    pub nodes: Assignment,
}

impl Group {
    /// Whether a stripe of the object lies in this group.
    pub fn holds(&self, stripe: u32) -> bool {
        stripe.checked_sub(self.stripe_first).is_some_and(|at| at < self.stripe_count.into())
    }
}

/// What one node keeps for one deal, and until when that is paid.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Holding<BlockNumber> {
    /// Bytes of its shards, by its receipt.
    pub bytes: u64,
    /// Its slots.
    pub slots: u32,
    /// Until when it is paid, or has forfeited its pay.
    pub settled_at: BlockNumber,
    /// What a GiB of the deal had earned then.
    pub settled_mark: u128,
    /// Audits passed.
    pub passed: u32,
    /// Audits failed.
    pub failed: u32,
    /// Audits that are open. Those that are dropped with the deal stay counted: nothing is decided
    /// by them.
    pub open: u32,
    /// Whether an audit has failed since `settled_at`.
    pub failed_since: bool,
}

impl<BlockNumber> Holding<BlockNumber> {
    /// Counts an audit that passed or failed; says whether it was the last open one.
    pub(crate) fn resolve(&mut self, passed: bool) -> bool {
        let count = if passed { &mut self.passed } else { &mut self.failed };
        *count = count.saturating_add(1);
        self.failed_since |= !passed;
        self.open = self.open.saturating_sub(1);
        self.open == 0
    }
}

/// An audit that waits for its proof.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Audit<BlockNumber> {
    /// The deal.
    pub deal: u64,
    /// Its object.
    pub object: [u8; 32],
    /// The stripe of the slot asked for.
    pub stripe: u32,
    /// The index of the slot asked for.
    pub index: u16,
    /// What the chunks are drawn from.
    pub seed: [u8; 32],
    /// How many chunks are to be shown.
    pub chunk_count: u8,
    /// When it was opened.
    pub opened_at: BlockNumber,
    /// The last block in which a proof counts.
    pub deadline: BlockNumber,
}

/// How an audit ended.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct AuditResult<BlockNumber> {
    /// Who was asked.
    pub node: u32,
    /// For which deal.
    pub deal: u64,
    /// The stripe of the slot.
    pub stripe: u32,
    /// The index of the slot.
    pub index: u16,
    /// Whether a valid proof came in time.
    pub passed: bool,
    /// When it was opened.
    pub opened_at: BlockNumber,
    /// When the proof was accepted, or its absence noticed.
    pub resolved_at: BlockNumber,
}

/// Why a proof was not accepted. The audit stays open until its deadline.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum Rejection {
    /// This node has no open audit of this id: it was answered, missed, or is another node's.
    NotOpen,
    /// The deadline has passed: nothing more can be done for this audit.
    Late,
    /// The deal has ended: the audit will be dropped, nobody loses anything.
    DealEnded,
    /// The bytes are no proof: encode `AuditProof` of the protocol's version.
    Malformed,
    /// The entry does not lead to the deal's `shards_root`: prove the slot that was asked for.
    WrongEntry,
    /// A chunk is missing or does not lead to the shard: show the drawn chunks as stored.
    WrongChunks,
}

/// One group as `activate` takes it; its first stripe follows from those before.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct GroupAssignment {
    /// Its stripes; 0 for a page without any.
    pub stripe_count: u16,
    /// Who holds which slot of each of them.
    pub nodes: Assignment,
}

/// A holder's word that its part is durable.
#[derive(
    Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Receipt {
    /// The holder.
    pub node: u32,
    /// Bytes of all shards it holds of the object.
    pub bytes: u64,
    /// Its identity's signature over `ReceiptClaim::message` of the protocol.
    pub signature: [u8; 64],
}

/// What comes due at a block. Each queue has its own cap per block and its own carry-over.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum Queue {
    /// Audits whose deadline has passed.
    Deadlines,
    /// Deals that end.
    Expiries,
    /// Ended deals whose holders are settled, group by group.
    Settlements,
    /// Reservations that were not activated in time.
    Lapses,
    /// Deals that are audited.
    Rounds,
    /// Tombstones of deals that are old enough.
    Tombstones,
    /// Results of audits that are old enough.
    Results,
}

impl Queue {
    /// Every queue, in the order in which a block serves them: who has missed a deadline is
    /// noticed before a deal pays out.
    pub const ALL: [Self; 7] = [
        Self::Deadlines,
        Self::Expiries,
        Self::Settlements,
        Self::Lapses,
        Self::Rounds,
        Self::Tombstones,
        Self::Results,
    ];
}

/// An id as a key whose order is that of the numbers, which storage then iterates in.
pub type OrderedId = [u8; 8];
