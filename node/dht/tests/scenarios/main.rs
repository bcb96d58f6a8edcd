// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several nodes on loopback in one process, and attackers that speak the protocol.

mod attacker;
mod eventually;
mod network;

mod dead_nodes_leave;
mod floods_are_bounded;
mod forged_records;
mod frozen_node;
mod identity_and_sequence;
mod late_client;
mod networks_do_not_mix;
mod start_in_any_order;
mod stop_and_errors;
mod withdraw;
