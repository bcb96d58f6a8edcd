// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may register and change a node.

use codec::Encode;
use frame_support::{assert_noop, assert_ok};
use sp_core::Pair;
use sp_runtime::DispatchResult;
use supernode_protocol::deal::registration_message;

use crate::mock::{
    RuntimeOrigin, Supernode, System, Test, chain, identity, operator, owner, region, register,
};
use crate::pallet::{Error, NextNode, NodeByPeer, Nodes};
use crate::types::{Addresses, Parameters};

/// Registers node 0 by `signer` with what its identity signed.
fn register_signed(signer: u64, operator: u64, message: &[u8]) -> DispatchResult {
    Supernode::register_node(
        RuntimeOrigin::signed(signer),
        operator,
        identity(0).public().0,
        identity(0).sign(message).0,
        region("EU-WEST"),
        Addresses::default(),
        7,
    )
}

#[test]
fn a_node_is_bound_by_its_own_signature() {
    chain(0).execute_with(|| {
        let genesis = Supernode::genesis();
        assert_ne!(genesis, [0; 32], "the first block has a hash");
        let (owner, operator) = (owner(0), operator(0));
        let message = |genesis, owner: u64, operator: u64| {
            registration_message(&genesis, &owner.encode(), &operator.encode())
        };
        let honest = message(genesis, owner, operator);
        for forged in [
            message([1; 32], owner, operator),
            message(genesis, owner + 1, operator),
            message(genesis, owner, operator + 1),
            message(genesis, operator, owner),
        ] {
            let refused = register_signed(owner, operator, &forged);
            assert_noop!(refused, Error::<Test>::BadPeerSignature);
        }
        // A copy of the honest signature makes nobody else its owner.
        let stolen = register_signed(owner + 1, operator, &honest);
        assert_noop!(stolen, Error::<Test>::BadPeerSignature);
        assert_ok!(register_signed(owner, operator, &honest));
        assert_noop!(register_signed(owner, operator, &honest), Error::<Test>::PeerTaken);
        let node = Nodes::<Test>::get(0).expect("it is registered");
        assert_eq!((node.owner, node.operator, node.capacity), (owner, operator, 7));
        assert_eq!((node.registered_at, NextNode::<Test>::get()), (System::block_number(), 1));
        assert_eq!(NodeByPeer::<Test>::get(node.peer), Some(0));
    });
}

#[test]
fn only_its_owner_changes_a_node() {
    chain(2).execute_with(|| {
        let update = |signer, node, operator| {
            let origin = RuntimeOrigin::signed(signer);
            let addresses = Addresses::default();
            Supernode::update_node(origin, node, operator, region("AP"), addresses, 5)
        };
        assert_noop!(update(owner(1), 0, 9), Error::<Test>::NotOwner);
        assert_noop!(update(operator(0), 0, 9), Error::<Test>::NotOwner);
        assert_noop!(update(owner(0), 2, 9), Error::<Test>::UnknownNode);
        assert_ok!(update(owner(0), 0, 9));
        let node = Nodes::<Test>::get(0).expect("it is registered");
        assert_eq!((node.operator, node.region, node.capacity), (9, region("AP"), 5));
        assert_eq!(node.peer, identity(0).public().0);
    });
}

#[test]
fn a_node_registers_once_and_parameters_are_for_root() {
    chain(1).execute_with(|| {
        assert_noop!(register(0), Error::<Test>::PeerTaken);
        let valid = crate::mock::parameters();
        let signed = Supernode::set_parameters(RuntimeOrigin::signed(1), valid.clone());
        assert_noop!(signed, sp_runtime::DispatchError::BadOrigin);
        for broken in [
            Parameters { activation_window: 0, ..valid.clone() },
            Parameters { duration_min: 0, ..valid.clone() },
            Parameters { duration_max: 4, ..valid.clone() },
            Parameters { audit_window: 0, ..valid.clone() },
            Parameters { audit_window: 10, ..valid.clone() },
            Parameters { slots_per_round: 0, ..valid.clone() },
            Parameters { chunks_per_audit: 0, ..valid.clone() },
            Parameters { chunks_per_audit: 33, ..valid.clone() },
            Parameters { tombstone_blocks: 0, ..valid.clone() },
        ] {
            let refused = Supernode::set_parameters(RuntimeOrigin::root(), broken);
            assert_noop!(refused, Error::<Test>::BadParameters);
        }
        assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), valid));
    });
}

#[test]
fn the_default_parameters_make_sense() {
    assert!(Parameters::<u128, u32>::default().are_valid());
}
