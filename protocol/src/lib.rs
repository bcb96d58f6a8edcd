// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two machines must agree on, and nothing else.
//!
//! - [`ids`]: names of shards, objects, nodes, leases; each says what it is the hash of.
//! - [`limits`]: every bound a peer can run into, in one place.
//! - [`geometry`]: how bytes of an object map to stripes, shards and offsets.
//! - [`tree`]: BLAKE3 hash trees with stored outboards: verified ranges and proofs of chunks.
//! - [`audit`]: what a chain asks of a holder and how the answer is judged.
//! - [`deal`]: what chain and nodes must write alike about a deal: lease ids, signed messages.
//! - [`erasure`]: the codes, always applied in cache-sized columns.
//! - [`manifest`]: the immutable description of an object; its hash is the object's CID.
//! - [`placement`], [`node_record`]: the two mutable, signed records.
//! - [`lease`]: why bytes are kept and until when.
//! - [`repair`]: how a holder proves that it may restore slots on another node.
//! - [`capability`]: a signed grant of a class and of rights.
//! - [`wire`]: frames of the QUIC protocol.
//!
//! This crate is pure: it does no I/O, reads no clock and starts no task. Without the default
//! feature `std` only [`ids`], [`limits`], [`geometry`], [`tree`], [`audit`] and [`deal`] remain,
//! which is what an on-chain verifier needs.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod audit;
pub mod deal;
pub mod geometry;
pub mod ids;
pub mod limits;
pub mod tree;

#[cfg(feature = "std")]
pub mod capability;
#[cfg(feature = "std")]
pub mod erasure;
#[cfg(feature = "std")]
pub mod lease;
#[cfg(feature = "std")]
pub mod manifest;
#[cfg(feature = "std")]
pub mod node_record;
#[cfg(feature = "std")]
pub mod placement;
#[cfg(feature = "std")]
pub mod repair;
#[cfg(feature = "std")]
pub mod signed;
#[cfg(feature = "std")]
pub mod wire;
