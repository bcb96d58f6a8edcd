// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watermarks: how full a disk is, told in the log whenever that changes, so that an operator hears
//! of it before clients do. Nothing is slowed down on the way there: a put is taken or refused.

use super::Writer;
use crate::catalog::{Catalog, IndexError, State};

/// Percent of the capacity from which on it is nearly full.
const NEAR_PERCENT: u64 = 90;

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fill {
    /// Everything is taken.
    Roomy,
    /// Most of the capacity is used, or there is little above the reserve.
    Near,
    /// Shards are refused.
    Full,
}

impl Fill {
    /// Of so many bytes offered and used, and of so many free on the file system, some of which are
    /// kept free. A node that offers nothing is never full.
    fn of((used, capacity): (u64, u64), (free, reserve): (u64, u64)) -> Self {
        if capacity == 0 {
            Self::Roomy
        } else if used >= capacity || free <= reserve {
            Self::Full
        } else if used / 100 >= capacity / 100 * NEAR_PERCENT / 100 || free / 2 < reserve {
            Self::Near
        } else {
            Self::Roomy
        }
    }
}

impl Writer {
    /// Says so when the disk has become fuller, or emptier again.
    pub(super) fn tell_fill(&mut self) -> Result<(), IndexError> {
        let usage = Catalog(&self.overlay.stage()).usage()?;
        let used_bytes = usage.bytes(State::Live) + usage.bytes(State::Trash);
        let (capacity_bytes, free_bytes) = (self.config.capacity_bytes, self.free_bytes);
        let space = (free_bytes, self.config.reserve_bytes);
        let fill = Fill::of((used_bytes, capacity_bytes), space);
        if fill == self.fill {
            return Ok(());
        }
        let path = self.config.path.display();
        match fill {
            Fill::Roomy => tracing::info!(%path, used_bytes, free_bytes, "there is room again"),
            Fill::Near => {
                tracing::warn!(%path, used_bytes, capacity_bytes, free_bytes, "nearly full");
            }
            Fill::Full => tracing::error!(
                %path, used_bytes, capacity_bytes, free_bytes,
                "full: shards are refused until something ends or the capacity is raised"
            ),
        }
        self.fill = fill;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Fill;

    const GIB: u64 = 1 << 30;

    #[test]
    fn it_is_told_by_what_runs_out_first() {
        let roomy = (100 * GIB, GIB);
        assert_eq!(Fill::of((0, 100 * GIB), roomy), Fill::Roomy);
        assert_eq!(Fill::of((89 * GIB, 100 * GIB), roomy), Fill::Roomy);
        assert_eq!(Fill::of((91 * GIB, 100 * GIB), roomy), Fill::Near);
        assert_eq!(Fill::of((100 * GIB, 100 * GIB), roomy), Fill::Full);
        assert_eq!(Fill::of((0, 100 * GIB), (2 * GIB - 2, GIB)), Fill::Near);
        assert_eq!(Fill::of((0, 100 * GIB), (GIB, GIB)), Fill::Full);
        assert_eq!(Fill::of((0, 0), (0, GIB)), Fill::Roomy);
        assert_eq!(Fill::of((u64::MAX / 2, u64::MAX), (u64::MAX, 0)), Fill::Roomy);
    }
}
