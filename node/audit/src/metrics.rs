// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the actor tells about itself: a plain snapshot after every step.

use std::time::Duration;

use crate::audits::AuditTally;
use crate::chain::Standing;
use crate::cleanup::CleanupTally;

/// Figures at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditMetrics {
    /// How far the chain may be trusted; only a healthy one ends deals.
    pub standing: Standing,
    /// The chain is not healthy, or its history is not the one that was processed.
    pub chain_alarm: bool,
    /// Audits by result, their slack and their alarms.
    pub audits: AuditTally,
    /// Deals by state, and what was moved and ended.
    pub cleanup: CleanupTally,
    /// How long ago the finalised head last rose, by running time.
    pub finalised_lag: Duration,
    /// Messages waiting for the actor.
    pub mailbox_depth: usize,
    /// When the finalised head last rose, in running time of the actor.
    pub(crate) finalised_rose_at: Duration,
}

impl AuditMetrics {
    /// Audits of this node by result, as in `supernode_audits_total{result}`.
    pub fn results(&self) -> [(&'static str, u64); 4] {
        [
            ("passed", self.audits.passed_total),
            ("failed", self.audits.failed_total),
            ("late", self.audits.late_total),
            ("unprovable", self.audits.unprovable_total),
        ]
    }

    /// Open audits that have little of their window left: the alarm of missed deadlines.
    pub fn deadline_alarm(&self) -> bool {
        self.audits.pressing > 0
    }

    /// Open audits that this node cannot prove: the alarm of lost bytes.
    pub fn unprovable_alarm(&self) -> bool {
        self.audits.unprovable > 0
    }
}
