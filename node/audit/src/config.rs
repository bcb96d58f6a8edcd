// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the audit/cleanup actor and their limits.

use serde::{Deserialize, Serialize};

/// All settings. Periods that gate destruction are counted in finalised blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// A deal lease ends this many finalised blocks after its deal.
    pub reorg_buffer_blocks: u64,
    /// Finality that has not moved for this long is stalled, and nothing ends.
    pub stall_after_secs: u64,
    /// An open audit raises the alarm when at most this share of its window is left.
    pub alarm_window_percent: u8,
    /// Proofs in one transaction at most.
    pub batch_proofs_max: usize,
    /// Their bytes together; a single larger proof still goes, alone.
    pub batch_bytes_max: usize,
    /// Open audits looked at in one block, oldest first. One costs about 200 bytes.
    pub open_audits_max: usize,
    /// A submission that failed is repeated after this many blocks, or with the next block when
    /// the alarm is on.
    pub answer_retry_blocks: u64,
    /// A proof that could not be made, or was refused, is tried again after this many blocks.
    pub unprovable_retry_blocks: u64,
    /// Finalised blocks followed in one step.
    pub blocks_per_step_max: u64,
    /// Missed blocks that are followed one by one; beyond it, own deals are walked once.
    pub catch_up_blocks_max: u64,
    /// Deal leases judged in one step.
    pub leases_per_step_max: usize,
    /// Deal leases counted per finalised block, for the figures.
    pub census_leases_max: usize,
    /// What failed is tried again after this, or when the chain moves.
    pub retry_interval_secs: u64,
    /// Messages waiting for the actor. One costs less than 100 bytes.
    pub mailbox_messages_max: usize,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            reorg_buffer_blocks: 6,
            stall_after_secs: 300,
            alarm_window_percent: 25,
            batch_proofs_max: 16,
            batch_bytes_max: 1 << 20,
            open_audits_max: 4096,
            answer_retry_blocks: 2,
            unprovable_retry_blocks: 5,
            blocks_per_step_max: 64,
            catch_up_blocks_max: 10_000,
            leases_per_step_max: 256,
            census_leases_max: 64,
            retry_interval_secs: 5,
            mailbox_messages_max: 64,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit setting {field} is not usable: {reason}")]
pub struct AuditConfigError {
    /// Its name, as in the configuration file.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub reason: &'static str,
}

impl AuditConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first one that cannot be used, and the remedy.
    pub fn validate(&self) -> Result<(), AuditConfigError> {
        let positive = [
            ("stall_after_secs", self.stall_after_secs),
            ("answer_retry_blocks", self.answer_retry_blocks),
            ("unprovable_retry_blocks", self.unprovable_retry_blocks),
            ("blocks_per_step_max", self.blocks_per_step_max),
            ("retry_interval_secs", self.retry_interval_secs),
            ("batch_proofs_max", self.batch_proofs_max as u64),
            ("batch_bytes_max", self.batch_bytes_max as u64),
            ("open_audits_max", self.open_audits_max as u64),
            ("leases_per_step_max", self.leases_per_step_max as u64),
            ("census_leases_max", self.census_leases_max as u64),
            ("mailbox_messages_max", self.mailbox_messages_max as u64),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(AuditConfigError { field, reason: "it must be at least 1" });
        }
        if self.alarm_window_percent > 100 {
            let reason = "it is a share of the window: use 0 to 100";
            return Err(AuditConfigError { field: "alarm_window_percent", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::AuditConfig;

    #[test]
    fn the_defaults_are_usable_and_zeros_are_named() {
        AuditConfig::default().validate().expect("defaults");
        let config = AuditConfig { batch_proofs_max: 0, ..AuditConfig::default() };
        let error = config.validate().expect_err("nothing could be sent");
        assert_eq!(error.field, "batch_proofs_max");
        let config = AuditConfig { alarm_window_percent: 101, ..AuditConfig::default() };
        let error = config.validate().expect_err("more than the whole");
        assert_eq!(error.field, "alarm_window_percent");
    }
}
