// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scenarios share: each scenario is one file of this crate, named like its story.
//!
//! - [`program`] runs the real program as processes and judges them by exit code and output.
//! - [`network`] is a whole network of such processes that is gone when the test is.
//! - [`process`] looks at and signals processes by their ids.
//! - [`http`] asks a node how it is; [`eventually`] waits for what it will say.
//! - [`chain`] asks a development chain by plain JSON-RPC.
//! - [`random`] makes bytes that a seed brings back.

pub mod chain;
pub mod eventually;
pub mod http;
pub mod network;
pub mod process;
pub mod program;
pub mod random;
