// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pallet's tests, one file per part of the story.

mod audits;
mod bounds;
mod deals;
mod ending;
mod histories;
mod model;
mod registry;
mod story;
