// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client against nodes whose every answer is scripted: broken ones, liars, slow ones, and
//! ones that die. One file per story; the scripted node is in `node.rs`.

mod answers;
mod batches;
mod busy;
mod eventually;
mod health;
mod hedges;
mod lies;
mod node;
mod resumes;
mod settings;
