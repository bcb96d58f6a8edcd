// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scenarios share: each scenario is one file of this crate, named like its story.

pub mod eventually;
