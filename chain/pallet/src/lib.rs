// SPDX-License-Identifier: MIT OR Apache-2.0
//! The FRAME pallet: a registry of nodes, deals that pay for kept objects, audits that show they
//! are kept, and rewards.
//!
//! - [`pallet`]: storage, calls, events and errors: the interface. Calls check the origin and
//!   hand over to one of the modules below.
//! - `registry`: nodes, their owners and operators.
//! - `deals`: reservation, deal, tombstone.
//! - `audits`: rounds, proofs, deadlines.
//! - `money`: prices, escrow, rewards; where every unit of the pot is accounted for.
//! - `agenda`: what comes due at a block, with a cap per block and carry-over.
//! - [`types`]: the records.
//!
//! The chain verifies caps and receipts. It never computes where shards go and never keeps a list
//! of them: an object is its `shards_root` and, for every 64 stripes, one vector of node indexes.
//!
//! A runtime gives the pot (the account of `PalletId`) an existential deposit at genesis; the
//! pallet's own genesis does that.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod agenda;
mod audits;
mod deals;
mod money;
mod registry;
pub mod types;
mod weights;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use self::pallet::{Call, Config, Error, Event, GenesisConfig, Pallet};

/// The interface: storage, calls, events, errors.
#[allow(
    clippy::cast_possible_truncation,
    clippy::too_many_arguments,
    reason = "the macro casts the indexes of variants, and a call's arguments are its interface"
)]
#[frame_support::pallet]
pub mod pallet {
    use frame_support::PalletId;
    use frame_support::pallet_prelude::{
        Blake2_128Concat, BoundedVec, BuildGenesisConfig, DispatchResult, Get, Hooks, Identity,
        NMapKey, OptionQuery, StorageDoubleMap, StorageMap, StorageNMap, StorageValue,
        StorageVersion, Twox64Concat, ValueQuery, Weight, ensure,
    };
    use frame_support::traits::Randomness;
    use frame_support::traits::fungible::{Inspect, Mutate};
    use frame_system::pallet_prelude::{BlockNumberFor, OriginFor};
    use frame_system::{ensure_root, ensure_signed};

    use crate::deals::Content;
    use crate::registry::NodeTerms;
    use crate::types::{
        AccountOf, Addresses, AuditOf, AuditResultOf, BalanceOf, ClosingOf, DealOf, EndedDealOf,
        Group, GroupAssignment, HoldingOf, NodeOf, OrderedId, ParametersOf, ProofBytes, Queue,
        Receipt, Region, Rejection, ReservationOf,
    };
    use crate::weights;

    /// The layout of everything below; rises with every change that needs a migration.
    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    /// Registry, deals, audits and rewards of a storage network.
    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    /// What a runtime decides.
    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {
        /// The money that deals are paid in.
        type Currency: Inspect<Self::AccountId> + Mutate<Self::AccountId>;
        /// Where audits are drawn from. Whoever can foresee it can prepare for its audits.
        type Randomness: Randomness<Self::Hash, BlockNumberFor<Self>>;
        /// Names the account that holds escrow and rewards.
        #[pallet::constant]
        type PalletId: Get<PalletId>;
        /// Slots that all rounds of audits visit in one block at most.
        #[pallet::constant]
        type MaxAuditsPerBlock: Get<u32>;
        /// Steps that each other queue takes in one block at most.
        #[pallet::constant]
        type MaxTasksPerBlock: Get<u32>;
        /// Groups of one deal at most.
        #[pallet::constant]
        type MaxGroups: Get<u32>;
        /// Holders of one deal at most.
        #[pallet::constant]
        type MaxReceipts: Get<u32>;
        /// Proofs in one call at most.
        #[pallet::constant]
        type MaxProofs: Get<u32>;
    }

    /// Prices and periods.
    #[pallet::storage]
    pub type Parameters<T: Config> = StorageValue<_, ParametersOf<T>, ValueQuery>;

    /// The registry, by index.
    #[pallet::storage]
    pub type Nodes<T: Config> = StorageMap<_, Twox64Concat, u32, NodeOf<T>, OptionQuery>;

    /// The index of a node, by its peer key.
    #[pallet::storage]
    pub type NodeByPeer<T: Config> = StorageMap<_, Blake2_128Concat, [u8; 32], u32, OptionQuery>;

    /// Nodes registered, and so the index of the next one.
    #[pallet::storage]
    pub type NextNode<T: Config> = StorageValue<_, u32, ValueQuery>;

    /// Reservations, by the id that the deal will have.
    #[pallet::storage]
    pub type Reservations<T: Config> =
        StorageMap<_, Twox64Concat, u64, ReservationOf<T>, OptionQuery>;

    /// Deals that have not been seen to end.
    #[pallet::storage]
    pub type Deals<T: Config> = StorageMap<_, Twox64Concat, u64, DealOf<T>, OptionQuery>;

    /// Deals that have ended and whose holders are not all paid.
    #[pallet::storage]
    pub type Closings<T: Config> = StorageMap<_, Twox64Concat, u64, ClosingOf<T>, OptionQuery>;

    /// Tombstones of deals, kept for a while.
    #[pallet::storage]
    pub type EndedDeals<T: Config> = StorageMap<_, Twox64Concat, u64, EndedDealOf<T>, OptionQuery>;

    /// The last id given to a reservation.
    #[pallet::storage]
    pub type NextDeal<T: Config> = StorageValue<_, u64, ValueQuery>;

    /// Who holds what, by deal and group.
    #[pallet::storage]
    pub type Groups<T: Config> =
        StorageDoubleMap<_, Twox64Concat, u64, Twox64Concat, u32, Group, OptionQuery>;

    /// What a node keeps, by node and deal.
    #[pallet::storage]
    pub type Holdings<T: Config> =
        StorageDoubleMap<_, Twox64Concat, u32, Twox64Concat, u64, HoldingOf<T>, OptionQuery>;

    /// Audits that wait for a proof, by node and audit.
    #[pallet::storage]
    pub type OpenAudits<T: Config> =
        StorageDoubleMap<_, Twox64Concat, u32, Twox64Concat, u64, AuditOf<T>, OptionQuery>;

    /// How audits ended, kept for a while.
    #[pallet::storage]
    pub type AuditResults<T: Config> =
        StorageMap<_, Twox64Concat, u64, AuditResultOf<T>, OptionQuery>;

    /// The last id given to an audit.
    #[pallet::storage]
    pub type NextAudit<T: Config> = StorageValue<_, u64, ValueQuery>;

    /// What nodes have earned and not claimed.
    #[pallet::storage]
    pub type Rewards<T: Config> = StorageMap<_, Twox64Concat, u32, BalanceOf<T>, ValueQuery>;

    /// Refunds that their accounts could not take, paid with the next refund.
    #[pallet::storage]
    pub type Owed<T: Config> =
        StorageMap<_, Blake2_128Concat, AccountOf<T>, BalanceOf<T>, ValueQuery>;

    /// What comes due, by queue, block and id. The value is the node where the task is a node's.
    #[pallet::storage]
    pub type Agenda<T: Config> = StorageNMap<
        _,
        (
            NMapKey<Twox64Concat, Queue>,
            NMapKey<Twox64Concat, BlockNumberFor<T>>,
            NMapKey<Identity, OrderedId>,
        ),
        u32,
        OptionQuery,
    >;

    /// The earliest block of each queue that may still have tasks.
    #[pallet::storage]
    pub type Cursors<T: Config> =
        StorageMap<_, Twox64Concat, Queue, BlockNumberFor<T>, OptionQuery>;

    /// Where a chain with this pallet begins.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Prices and periods.
        pub parameters: ParametersOf<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            assert!(self.parameters.are_valid(), "genesis parameters contradict each other");
            Parameters::<T>::put(&self.parameters);
            Pallet::<T>::fund_pot();
        }
    }

    /// What happened. Ids of deals and audits count from 1, nodes are indexes of the registry.
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A node has joined the registry.
        NodeRegistered {
            /// Its index from now on.
            node: u32,
            /// Who decides about it and is paid.
            owner: T::AccountId,
            /// Who sends its proofs.
            operator: T::AccountId,
            /// Its peer key.
            peer: [u8; 32],
        },
        /// A node's operator, region, addresses or capacity were set anew: read `Nodes`.
        NodeUpdated {
            /// The node.
            node: u32,
        },
        /// Money was set aside. Upload, collect receipts and activate in time.
        Reserved {
            /// The id that the deal will have.
            deal: u64,
            /// Who pays.
            owner: T::AccountId,
            /// Bytes of shards that may be activated.
            bytes: u64,
            /// What was set aside.
            escrow: BalanceOf<T>,
            /// Last block in which it can be activated.
            activates_by: BlockNumberFor<T>,
        },
        /// A reservation was cancelled or not activated in time.
        ReservationEnded {
            /// Its id.
            deal: u64,
            /// What its owner got back.
            refunded: BalanceOf<T>,
        },
        /// An object is kept and paid for from now on.
        DealActivated {
            /// The deal.
            deal: u64,
            /// Who pays.
            owner: T::AccountId,
            /// The object.
            object: [u8; 32],
            /// The first block in which it no longer lives, unless renewed.
            expires_at: BlockNumberFor<T>,
            /// What was reserved and not needed.
            refunded: BalanceOf<T>,
        },
        /// A deal lives longer.
        DealRenewed {
            /// The deal.
            deal: u64,
            /// The first block in which it no longer lives.
            expires_at: BlockNumberFor<T>,
        },
        /// A deal is over; its holders may forget the object once this is final.
        DealEnded {
            /// The deal.
            deal: u64,
            /// The first block in which it no longer lived.
            at: BlockNumberFor<T>,
            /// Whether its owner ended it early.
            cancelled: bool,
        },
        /// All holders of an ended deal were credited.
        DealSettled {
            /// The deal.
            deal: u64,
            /// What its owner got back.
            refunded: BalanceOf<T>,
        },
        /// The tombstone of a deal is gone; only old blocks still know it.
        DealPruned {
            /// The deal.
            deal: u64,
        },
        /// A node must prove a slot: its operator calls `submit_proofs`.
        AuditOpened {
            /// The audit.
            audit: u64,
            /// Who is asked.
            node: u32,
            /// For which deal.
            deal: u64,
            /// The stripe of the slot.
            stripe: u32,
            /// The index of the slot.
            index: u16,
            /// The last block in which a proof counts.
            deadline: BlockNumberFor<T>,
        },
        /// A valid proof came in time.
        AuditPassed {
            /// The audit.
            audit: u64,
            /// Who proved.
            node: u32,
            /// For which deal.
            deal: u64,
        },
        /// No valid proof came in time; the node's pay for its holding since it was last settled is
        /// forfeited when no other audit of the holding is open.
        AuditFailed {
            /// The audit.
            audit: u64,
            /// Who failed.
            node: u32,
            /// For which deal.
            deal: u64,
        },
        /// The deal ended before the audit's deadline; nobody gains or loses by it.
        AuditDropped {
            /// The audit.
            audit: u64,
            /// Who was asked.
            node: u32,
            /// For which deal.
            deal: u64,
        },
        /// A proof was not accepted. Until its deadline the audit can still be answered.
        ProofRejected {
            /// The audit.
            audit: u64,
            /// Who sent it.
            node: u32,
            /// What is wrong with it, and what to do.
            reason: Rejection,
        },
        /// A node's rewards were paid out.
        RewardsClaimed {
            /// The node.
            node: u32,
            /// Its owner.
            to: T::AccountId,
            /// How much.
            amount: BalanceOf<T>,
        },
        /// Prices or periods changed: read `Parameters`.
        ParametersSet,
    }

    /// Why a call was refused.
    #[pallet::error]
    pub enum Error<T> {
        /// The registry has no node of this index: read `NextNode`, indexes are below it.
        UnknownNode,
        /// Only the node's owner may do this: sign with the account in `Nodes`, or, for a
        /// deal or reservation, with the account that made it.
        NotOwner,
        /// Only the node's operator may send its proofs: sign with the operator in `Nodes`.
        NotOperator,
        /// This peer key is registered already: read its index from `NodeByPeer`.
        PeerTaken,
        /// The peer key did not sign this registration: sign owner, operator and this chain's
        /// genesis with the node's identity.
        BadPeerSignature,
        /// There is no reservation of this id: it was activated, cancelled or has lapsed.
        UnknownReservation,
        /// The reservation was not activated in time: its money comes back, reserve again.
        ReservationLapsed,
        /// There is no deal of this id: read `EndedDeals` for those that have ended.
        UnknownDeal,
        /// The deal has ended: make a new one.
        DealOver,
        /// Nothing is to be kept: name at least one byte.
        NoBytes,
        /// Shorter than `duration_min`, or ending more than `duration_max` ahead.
        DurationOutOfRange,
        /// The current price is above `max_price`: read `Parameters` and decide anew.
        PriceTooHigh,
        /// The account cannot pay the escrow and keep its existential deposit: fund it.
        NotEnoughMoney,
        /// A number left its range: ask for less or for a shorter time.
        Overflow,
        /// Width is 1 to 256, data at most width, and every group names width slots.
        BadWidth,
        /// A group has at most 64 stripes and the object at least one.
        BadStripeCount,
        /// A group names fewer holders than it takes to read it back: upload more first.
        TooFewHolders,
        /// A node holds more slots of a group than may be lost: spread the slots.
        TooManySlotsOnNode,
        /// A holder has given no receipt: send exactly one for each.
        MissingReceipt,
        /// A receipt of a node that holds nothing, or a second one: send exactly one for each.
        UnexpectedReceipt,
        /// A receipt's signature does not hold for this deal, object, assignment and chain: ask
        /// the node for a new one.
        BadReceipt,
        /// The receipts speak of more bytes than were reserved: reserve what the shards take.
        MoreThanReserved,
        /// The node has no rewards: they come with passed audits and ended deals.
        NothingToClaim,
        /// The parameters contradict each other: windows are at least 1 and shorter than the
        /// interval, the shortest duration is no longer than the longest, chunks are 1 to 32.
        BadParameters,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(now: BlockNumberFor<T>) -> Weight {
            Self::work(now)
        }

        fn integrity_test() {
            // A block that is found empty counts as a step too; with fewer steps than this a
            // queue that has fallen behind might never catch up.
            assert!(T::MaxAuditsPerBlock::get() >= 4, "MaxAuditsPerBlock must be at least 4");
            assert!(T::MaxTasksPerBlock::get() >= 4, "MaxTasksPerBlock must be at least 4");
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Registers a node. The signer becomes its owner; `signature` is the node's own over
        /// `registration_message` of the protocol.
        #[pallet::call_index(0)]
        #[pallet::weight(weights::register_node::<T>())]
        pub fn register_node(
            origin: OriginFor<T>,
            operator: T::AccountId,
            peer: [u8; 32],
            signature: [u8; 64],
            region: Region,
            addresses: Addresses,
            capacity: u64,
        ) -> DispatchResult {
            let owner = ensure_signed(origin)?;
            let terms = NodeTerms { operator, region, addresses, capacity };
            Self::do_register(owner, peer, &signature, terms)
        }

        /// Replaces what a node's owner may change.
        #[pallet::call_index(1)]
        #[pallet::weight(weights::update_node::<T>())]
        pub fn update_node(
            origin: OriginFor<T>,
            node: u32,
            operator: T::AccountId,
            region: Region,
            addresses: Addresses,
            capacity: u64,
        ) -> DispatchResult {
            let owner = ensure_signed(origin)?;
            Self::do_update_node(&owner, node, NodeTerms { operator, region, addresses, capacity })
        }

        /// Sets money aside for `bytes` of shards (parity included) and `duration` blocks, if the
        /// price per GiB and block is at most `max_price`.
        #[pallet::call_index(2)]
        #[pallet::weight(weights::reserve::<T>())]
        pub fn reserve(
            origin: OriginFor<T>,
            bytes: u64,
            duration: BlockNumberFor<T>,
            max_price: BalanceOf<T>,
        ) -> DispatchResult {
            Self::do_reserve(ensure_signed(origin)?, bytes, duration, max_price)
        }

        /// Turns a reservation into a deal, by one receipt of every holder. What is not needed of
        /// the escrow comes back.
        #[pallet::call_index(3)]
        #[pallet::weight(weights::activate::<T>(groups, receipts.len()))]
        pub fn activate(
            origin: OriginFor<T>,
            deal: u64,
            object: [u8; 32],
            shards_root: [u8; 32],
            data: u16,
            width: u16,
            groups: BoundedVec<GroupAssignment, T::MaxGroups>,
            receipts: BoundedVec<Receipt, T::MaxReceipts>,
        ) -> DispatchResult {
            let owner = ensure_signed(origin)?;
            let content = Content { object, shards_root, data, width };
            Self::do_activate(&owner, deal, &content, groups.into_inner(), &receipts)
        }

        /// Adds `duration` blocks to a deal at the current price, if that is at most `max_price`.
        #[pallet::call_index(4)]
        #[pallet::weight(weights::renew::<T>())]
        pub fn renew(
            origin: OriginFor<T>,
            deal: u64,
            duration: BlockNumberFor<T>,
            max_price: BalanceOf<T>,
        ) -> DispatchResult {
            Self::do_renew(&ensure_signed(origin)?, deal, duration, max_price)
        }

        /// Ends a reservation or a deal now. Holders are paid up to this block, the rest comes
        /// back.
        #[pallet::call_index(5)]
        #[pallet::weight(weights::cancel::<T>())]
        pub fn cancel(origin: OriginFor<T>, deal: u64) -> DispatchResult {
            Self::do_cancel(&ensure_signed(origin)?, deal)
        }

        /// Answers audits of one node. Each proof is judged by itself: look at the events.
        #[pallet::call_index(6)]
        #[pallet::weight(weights::submit_proofs::<T>(proofs))]
        pub fn submit_proofs(
            origin: OriginFor<T>,
            node: u32,
            proofs: BoundedVec<(u64, ProofBytes), T::MaxProofs>,
        ) -> DispatchResult {
            Self::do_submit(&ensure_signed(origin)?, node, proofs)
        }

        /// Pays a node's rewards to its owner. Its operator may ask for it too.
        #[pallet::call_index(7)]
        #[pallet::weight(weights::claim_rewards::<T>())]
        pub fn claim_rewards(origin: OriginFor<T>, node: u32) -> DispatchResult {
            Self::do_claim(node, &ensure_signed(origin)?)
        }

        /// Sets prices and periods; by governance only.
        #[pallet::call_index(8)]
        #[pallet::weight(weights::set_parameters::<T>())]
        pub fn set_parameters(origin: OriginFor<T>, parameters: ParametersOf<T>) -> DispatchResult {
            ensure_root(origin)?;
            ensure!(parameters.are_valid(), Error::<T>::BadParameters);
            Parameters::<T>::put(parameters);
            Self::deposit_event(Event::ParametersSet);
            Ok(())
        }
    }
}
