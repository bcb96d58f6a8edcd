// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong between a caller and this actor.

use std::path::PathBuf;

use crate::chain::ChainError;
use crate::config::AuditConfigError;
use crate::keeper::KeeperError;

/// Errors of starting and asking the actor.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] AuditConfigError),
    /// The cursor file could not be read or written.
    #[error("the cursor file {} cannot be used: {source}", path.display())]
    CursorIo {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The cursor file holds something else.
    #[error(
        "the cursor file {} is damaged: {reason}; remove it, and all own deals are \
         compared with the chain once", path.display()
    )]
    CursorDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The chain gave no answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store gave no answer.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// Another plan is being made.
    #[error("a cleanup plan is already being made; ask again when it is done")]
    Busy,
    /// The actor has ended.
    #[error("the audit actor has stopped; restart the node")]
    Stopped,
}
