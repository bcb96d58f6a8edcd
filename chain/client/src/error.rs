// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failures: of looking at the chain, and of changing it.

use std::fmt;

/// A question that got no answer worth believing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No answer.
    #[error("the chain at {endpoint} cannot be reached: {reason}; check chain.endpoints")]
    Unreachable {
        /// Which endpoint.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// Another chain.
    #[error(
        "the endpoint {endpoint} serves another chain, of genesis {}; nothing is believed and \
         nothing is signed: check chain.endpoints and chain.genesis",
        Hex(found)
    )]
    ForeignGenesis {
        /// Which endpoint.
        endpoint: String,
        /// The hash of its block 0.
        found: [u8; 32],
    },
    /// Another pallet.
    #[error(
        "the runtime at {endpoint} is not one this program knows: {reason}; nothing is signed \
         until the program is updated"
    )]
    ForeignRuntime {
        /// Which endpoint.
        endpoint: String,
        /// What differs.
        reason: String,
    },
    /// A block that the endpoint does not have (any more).
    #[error("the endpoint {endpoint} has no block {block}")]
    NoSuchBlock {
        /// Which endpoint.
        endpoint: String,
        /// Height or hash.
        block: String,
    },
    /// An answer that does not decode.
    #[error("the endpoint {endpoint} answered with something else than {what}: {reason}")]
    Malformed {
        /// Which endpoint.
        endpoint: String,
        /// What was asked for.
        what: &'static str,
        /// What was wrong with it.
        reason: String,
    },
}

/// A transaction that did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Nothing was sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is in a block and the runtime said no.
    #[error("the chain refused: {reason}")]
    Refused {
        /// The pallet's error, with its advice.
        reason: String,
    },
    /// It never got into the pool.
    #[error("the transaction was not accepted: {reason}")]
    NotAccepted {
        /// What the node said.
        reason: String,
    },
    /// Nobody knows whether it is, or will be, in a block: look before it is sent again.
    #[error(
        "what became of the transaction is not known: {reason}; look at the chain before \
             trying again"
    )]
    Unknown {
        /// Why.
        reason: String,
    },
    /// The owner of the key has stopped.
    #[error("the account has stopped")]
    Stopped,
}

/// Bytes as people write hashes.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
