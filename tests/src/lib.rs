// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scenarios share: each scenario is one file of this crate, named like its story.
//!
//! - [`program`] runs the real program as processes and judges them by exit code and output.
//! - [`network`] is a whole network of such processes that is gone when the test is.
//! - [`process`] looks at and signals processes by their ids.
//! - [`http`] asks a node how it is; [`eventually`] waits for what it will say.
//! - [`chain`] asks a development chain by plain JSON-RPC.
//! - [`random`] makes bytes that a seed brings back.
//! - [`lone`] is one node alone; [`load`] writes to it and reads back, and notes in a [`ledger`]
//!   what was acknowledged. At a [`desk`] many write at once, in a [`rush`] many come at once.
//! - [`segments`] reads a data directory with no code of the node's; [`verdict`] holds the ledger
//!   against it.

pub mod chain;
pub mod desk;
pub mod eventually;
pub mod http;
pub mod ledger;
pub mod load;
pub mod lone;
pub mod network;
pub mod process;
pub mod program;
pub mod random;
pub mod rush;
pub mod segments;
pub mod strace;
pub mod verdict;
