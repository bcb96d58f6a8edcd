// SPDX-License-Identifier: MIT OR Apache-2.0
//! The development chain as its clients meet it: an unmodified subxt over a socket. One file a
//! story.
//!
//! The legacy backend is chosen on purpose: it is the one the node's client uses.

mod faults;
mod finality;
mod forks;
mod harness;
mod money;
mod restart;
mod scale;
mod storage;
