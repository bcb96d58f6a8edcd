// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registry: which node belongs to whom.
//!
//! A node is bound by its own signature over both accounts and this chain's genesis, so nobody
//! can register another's node, and no signature serves twice. A node keeps its index for ever:
//! groups name nodes by it.

use alloc::vec::Vec;

use codec::Encode;
use frame_support::ensure;
use frame_system::pallet_prelude::BlockNumberFor;
use sp_core::ed25519::{Public, Signature};
use sp_io::crypto::ed25519_verify;
use sp_runtime::traits::Zero;
use sp_runtime::{DispatchError, DispatchResult};
use supernode_protocol::deal::registration_message;

use crate::pallet::{Config, Error, Event, NextNode, NodeByPeer, Nodes, Pallet};
use crate::types::{AccountOf, Addresses, NOBODY, NodeOf, Region};

/// What an owner may change about a node.
pub(crate) struct NodeTerms<T: Config> {
    pub(crate) operator: AccountOf<T>,
    pub(crate) region: Region,
    pub(crate) addresses: Addresses,
    pub(crate) capacity: u64,
}

/// Whether `peer` signed `message`.
pub(crate) fn signed_by(peer: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    ed25519_verify(&Signature::from_raw(*signature), message, &Public::from_raw(*peer))
}

impl<T: Config> Pallet<T> {
    /// The hash of the first block, which every signed message names.
    pub fn genesis() -> [u8; 32] {
        let hash = frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::zero());
        let mut genesis = [0; 32];
        genesis.iter_mut().zip(hash.as_ref()).for_each(|(byte, from)| *byte = *from);
        genesis
    }

    pub(crate) fn node(node: u32) -> Result<NodeOf<T>, DispatchError> {
        Nodes::<T>::get(node).ok_or_else(|| Error::<T>::UnknownNode.into())
    }

    pub(crate) fn do_register(
        owner: AccountOf<T>,
        peer: [u8; 32],
        signature: &[u8; 64],
        terms: NodeTerms<T>,
    ) -> DispatchResult {
        ensure!(!NodeByPeer::<T>::contains_key(peer), Error::<T>::PeerTaken);
        let accounts: (Vec<u8>, Vec<u8>) = (owner.encode(), terms.operator.encode());
        let message = registration_message(&Self::genesis(), &accounts.0, &accounts.1);
        ensure!(signed_by(&peer, &message, signature), Error::<T>::BadPeerSignature);
        let node = NextNode::<T>::get();
        ensure!(node != NOBODY, Error::<T>::Overflow);
        NextNode::<T>::put(node + 1);
        NodeByPeer::<T>::insert(peer, node);
        let NodeTerms { operator, region, addresses, capacity } = terms;
        let registered_at = frame_system::Pallet::<T>::block_number();
        let record = NodeOf::<T> {
            owner: owner.clone(),
            operator: operator.clone(),
            peer,
            region,
            addresses,
            capacity,
            registered_at,
        };
        Nodes::<T>::insert(node, record);
        Self::deposit_event(Event::NodeRegistered { node, owner, operator, peer });
        Ok(())
    }

    pub(crate) fn do_update_node(
        caller: &AccountOf<T>,
        node: u32,
        terms: NodeTerms<T>,
    ) -> DispatchResult {
        let mut record = Self::node(node)?;
        ensure!(record.owner == *caller, Error::<T>::NotOwner);
        record.operator = terms.operator;
        record.region = terms.region;
        record.addresses = terms.addresses;
        record.capacity = terms.capacity;
        Nodes::<T>::insert(node, record);
        Self::deposit_event(Event::NodeUpdated { node });
        Ok(())
    }
}
