// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's side of the chain: what the audit actor asks, answered by the chain client and the
//! store.
//!
//! - [`link`] stands between the actor and the chain, [`keeper`] between it and the store.
//! - [`part`] starts them for a running node.
//! - [`registered`] knows who is in the registry, without asking.
//! - [`receipts`] is what this node signs for the chain, and which deals it lets be committed.
//!
//! A node without `chain.endpoints` has none of this: it keeps pins and refuses deals.

pub mod keeper;
pub mod link;
pub mod part;
pub mod receipts;
pub mod registered;
#[cfg(test)]
mod testbed;
