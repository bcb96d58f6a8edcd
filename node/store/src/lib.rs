// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durable records on this machine's disks.
//!
//! The **log** is the truth: append-only [`segment`]s of self-describing [`record`]s. What the log
//! means is a pure state machine, the [`catalog`]. The [`index`] is the catalog's map on disk, a
//! cache that can be lost at any time. One [`writer`] decides and appends; [`reader`]s work beside
//! it and verify every byte. [`Store`] is the handle to all of it, [`offline`] the tools for a
//! directory at rest.
//!
//! ```text
//! Store ──messages──► actor ─► writer ─► log (segments) ─► disk
//!   │                            └─────► overlay ─(lazily)─► index
//!   └──reads──► cache ─► reader ─► overlay / index, segments
//! ```
//!
//! Commit order: write, fdatasync, publish, acknowledge; the index follows. What is not on disk is
//! never acknowledged (unless a relaxed durability was asked for), and what was acknowledged is
//! never forgotten. `docs/DATA_FORMAT.md` describes every byte.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted-bugs is for tests that notice them; release builds must not contain it");

mod actor;
pub mod buffer;
pub mod catalog;
mod config;
pub mod disk;
mod error;
pub mod evicting;
mod idle;
pub mod index;
mod metrics;
pub mod offline;
mod planted;
pub mod reader;
pub mod record;
pub mod recovery;
#[cfg(test)]
mod sample;
mod scrub;
pub mod segment;
mod store;
pub mod writer;

pub use self::buffer::ShardBuffer;
pub use self::catalog::{DealLease, DealSlot, GroupEvent, HeldGroup, Tally, Thing, Usage};
pub use self::config::{DiskConfig, Durability, KindDurability, LeaseDurability, StoreConfig};
pub use self::disk::{Io, IoChoice};
pub use self::error::StoreError;
pub use self::metrics::{DiskMetrics, IoFigures, StoreMetrics};
pub use self::reader::{RangeRead, Shard};
pub use self::scrub::{ScrubCommand, ScrubState, ScrubStatus};
pub use self::store::{
    Announcement, DrainState, DrainStatus, GroupEvents, GroupRead, OpenShard, PIECE_BYTES, Place,
    PutBlock, PutShard, Store, lock_holder,
};
