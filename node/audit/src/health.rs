// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: how far the chain may be trusted, from its own standing and from what we saw of it.
//!
//! - The chain's implementation tells unreachable and foreign chains. This adds what needs memory:
//!   finality that does not move, and a finalised head below what this node has processed.
//! - Only processed blocks count. A taller chain that was shown for a while, and refused because it
//!   does not continue our history, leaves no trace.
//! - Time is the running time of the process, handed in. A wall clock that jumps changes nothing,
//!   because none is read.

use std::time::Duration;

use crate::chain::{Height, Standing, View};

/// What was seen of the chain's heads.
#[derive(Debug)]
pub(crate) struct Health {
    stall_after: Duration,
    view: View,
    processed: Option<Height>,
    rose_at: Duration,
}

impl Health {
    /// Begins at a running time, with the height that an earlier life had processed.
    pub(crate) fn new(stall_after: Duration, processed: Option<Height>, now: Duration) -> Self {
        Self { stall_after, view: View::default(), processed, rose_at: now }
    }

    /// Takes a new view.
    pub(crate) fn observe(&mut self, view: View) {
        self.view = view;
    }

    /// Takes the height of the last processed finalised block.
    pub(crate) fn processed(&mut self, height: Option<Height>, now: Duration) {
        if height > self.processed {
            self.processed = height;
            self.rose_at = now;
        }
    }

    /// The newest view.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// When a higher finalised block was last processed, in running time.
    pub(crate) fn rose_at(&self) -> Duration {
        self.rose_at
    }

    /// Whether finalised blocks have waited to be processed for as long as a stalled chain may
    /// stand: another endpoint does not confirm an end, or steps keep failing.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        let waits = self.processed.is_none_or(|processed| self.view.finalised.height > processed);
        waits && now.saturating_sub(self.rose_at) > self.stall_after
    }

    /// How far the chain may be trusted now.
    pub(crate) fn standing(&self, now: Duration) -> Standing {
        if self.view.standing != Standing::Healthy {
            return self.view.standing.clone();
        }
        let finalised = self.view.finalised.height;
        let Some(processed) = self.processed else { return Standing::Healthy };
        if finalised < processed {
            return Standing::Behind;
        }
        // A higher head that waits to be processed has moved.
        if finalised == processed && now.saturating_sub(self.rose_at) > self.stall_after {
            return Standing::Stalled;
        }
        Standing::Healthy
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Health;
    use crate::chain::{BlockHash, BlockRef, Standing, View};

    const STALL: Duration = Duration::from_secs(60);

    fn at(height: u64) -> View {
        let block = BlockRef { height, hash: BlockHash::from_bytes([7; 32]) };
        View { standing: Standing::Healthy, best: block, finalised: block }
    }

    #[test]
    fn finality_that_stands_still_is_stalled_until_it_rises() {
        let mut health = Health::new(STALL, None, Duration::ZERO);
        health.observe(at(5));
        health.processed(Some(5), Duration::from_secs(10));
        assert_eq!(health.standing(Duration::from_secs(70)), Standing::Healthy);
        health.processed(Some(5), Duration::from_secs(70));
        assert_eq!(health.standing(Duration::from_secs(71)), Standing::Stalled);
        health.observe(at(6));
        assert_eq!(health.standing(Duration::from_secs(90)), Standing::Healthy);
    }

    #[test]
    fn a_head_below_a_processed_one_is_behind_also_after_a_restart() {
        let mut health = Health::new(STALL, Some(8), Duration::ZERO);
        health.observe(at(7));
        assert_eq!(health.standing(Duration::ZERO), Standing::Behind);
        health.observe(at(8));
        assert_eq!(health.standing(Duration::ZERO), Standing::Healthy);
        health.processed(Some(9), Duration::ZERO);
        assert_eq!(health.standing(Duration::ZERO), Standing::Behind);
    }

    #[test]
    fn a_taller_chain_that_was_not_processed_leaves_no_trace() {
        let mut health = Health::new(STALL, Some(5), Duration::ZERO);
        health.observe(at(900));
        health.observe(at(6));
        assert_eq!(health.standing(Duration::from_secs(2)), Standing::Healthy);
    }

    #[test]
    fn blocks_that_wait_too_long_are_late() {
        let mut health = Health::new(STALL, Some(5), Duration::ZERO);
        health.observe(at(6));
        assert!(!health.is_late(Duration::from_secs(60)));
        assert!(health.is_late(Duration::from_secs(61)));
        health.processed(Some(6), Duration::from_secs(70));
        assert!(!health.is_late(Duration::from_secs(200)), "nothing waits");
        health.observe(at(7));
        assert!(health.is_late(Duration::from_secs(200)));
    }

    #[test]
    fn what_the_chain_says_of_itself_comes_first() {
        let mut health = Health::new(STALL, None, Duration::ZERO);
        assert_eq!(health.standing(Duration::ZERO), Standing::Unreachable);
        health.observe(View { standing: Standing::ForeignGenesis, ..at(900) });
        assert_eq!(health.standing(Duration::ZERO), Standing::ForeignGenesis);
    }
}
