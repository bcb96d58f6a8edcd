// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole of this crate against a fork tree: random schedules, named disasters, the actor.
//!
//! - [`tree`]: blocks with forks, and in each the deals and audits as a pallet keeps them.
//! - [`world`]: the chain and the store that a node sees, with faults, and with the rules that no
//!   node may break checked at every call.
//! - [`node`]: a node that is driven job by job and can die between any two calls.

mod actor;
mod named;
mod node;
mod schedules;
mod tree;
mod world;
