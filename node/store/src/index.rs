// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index: the catalog's map on disk. A cache of the log that may be lost at any time.
//!
//! - [`Index`] is all the store asks of a database; [`SledIndex`] and [`MemoryIndex`] provide it.
//! - Each write carries the [`Mark`] up to which the log is applied, and the two are atomic: after
//!   any crash the index is the map as of its mark, and a replay from there completes it.
//! - [`Overlay`] holds what is acknowledged but not yet in the database, so that the database
//!   follows lazily and no reader misses anything meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::{IndexError, KvRead};

mod memory;
mod overlay;
mod sled;

pub use self::memory::{MapKv, MemoryIndex};
pub use self::overlay::{Overlay, PENDING_ENTRIES_MAX, Staged};
pub use self::sled::{OpenFailure, SledIndex, SledOptions};

/// Changes to the map; `None` removes a key.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How far an index has followed the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// The last record applied; 0 for none.
    pub sequence: u64,
    /// The segment it is in.
    pub segment: u32,
    /// That segment's tag, which ties the index to this very log.
    pub tag: u64,
    /// Where the next record may start.
    pub end: u64,
    /// The running second of that record.
    pub running_secs: u64,
    /// Whether that record is the last word of an orderly stop.
    pub stopped: bool,
    /// Whether records up to there could not be read: what is kept may look as if nobody wants it.
    pub lossy: bool,
}

/// A database that can be rebuilt.
pub trait Index: KvRead + Send + Sync {
    /// Applies changes and the new mark, both or neither.
    fn write(&self, changes: &Changes, mark: Mark) -> Result<(), IndexError>;

    /// The mark of the last write.
    fn mark(&self) -> Mark;

    /// Makes everything written so far durable.
    fn checkpoint(&self) -> Result<(), IndexError>;
}
