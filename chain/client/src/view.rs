// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known about an endpoint right now.

use crate::error::ChainError;

/// A block by height and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Its number.
    pub height: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Whether an endpoint may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It answers, with the right chain and runtime.
    Connected,
    /// It does not answer.
    Unreachable {
        /// What was tried last.
        reason: String,
    },
    /// It serves another chain.
    ForeignGenesis {
        /// The hash of its block 0.
        found: [u8; 32],
    },
    /// It serves the right chain with a pallet that is not the one this program knows.
    ForeignRuntime {
        /// What differs.
        reason: String,
    },
}

/// Heads and standing of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Whether it may be believed.
    pub standing: Standing,
    /// Its best block, as long as it is connected.
    pub best: Option<BlockRef>,
    /// Its newest finalised block, as long as it is connected.
    pub finalised: Option<BlockRef>,
}

impl View {
    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        let standing = Standing::Unreachable { reason: reason.into() };
        Self { standing, best: None, finalised: None }
    }

    /// Why an endpoint that looks like this is not asked anything.
    pub(crate) fn refusal(&self, url: &str) -> ChainError {
        let endpoint = url.to_owned();
        match &self.standing {
            Standing::Connected => {
                let reason = "it has shown no block yet".to_owned();
                ChainError::Unreachable { endpoint, reason }
            }
            Standing::Unreachable { reason } => {
                ChainError::Unreachable { endpoint, reason: reason.clone() }
            }
            Standing::ForeignGenesis { found } => {
                ChainError::ForeignGenesis { endpoint, found: *found }
            }
            Standing::ForeignRuntime { reason } => {
                ChainError::ForeignRuntime { endpoint, reason: reason.clone() }
            }
        }
    }
}
