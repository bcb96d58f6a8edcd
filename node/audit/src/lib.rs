// SPDX-License-Identifier: MIT OR Apache-2.0
//! The audit/cleanup actor: answers the chain's challenges, and ends what deals no longer pay for.
//!
//! - [`Chain`] and [`Keeper`] are all it sees of the chain and the store; the binary implements
//!   them, and nobody else moves or ends deal leases.
//! - Decisions are pure and take heights and running time as arguments: `audits` (which
//!   challenges are answered now), `verdict` (whether a lease goes), `cleanup` (what is done
//!   next, and how far the finalised chain has been processed), `health` (how far the chain may
//!   be trusted), `duties` (all of them together).
//! - `jobs` does the asking and the effects, one bounded step at a time, so that a crash between
//!   any two of them repeats work and loses none.
//! - `actor` waits; `handle` is what the program holds of it.
//!
//! What is retracted by a reorganisation costs a transaction at most. What is destroyed waits for
//! finality, the reorg buffer, a healthy chain and the word of every configured endpoint.

mod actor;
mod audits;
mod chain;
mod cleanup;
mod config;
mod cursor;
mod duties;
mod error;
mod handle;
mod health;
mod jobs;
mod keeper;
mod metrics;
mod verdict;

#[cfg(test)]
mod tests;

pub use audits::AuditTally;
pub use chain::{
    AuditFate, BlockChanges, BlockHash, BlockRef, Chain, ChainError, Challenge, DealChange,
    DealFact, Height, Opinion, ParseHashError, ProofFate, Standing, Submitted, View,
};
pub use cleanup::{CleanupTally, DealCounts, Refusal};
pub use config::{AuditConfig, AuditConfigError};
pub use error::AuditError;
pub use handle::{AuditOptions, Auditor};
pub use keeper::{Held, Keeper, KeeperError, ProveError};
pub use metrics::AuditMetrics;
pub use verdict::{End, Keep, Planned, Verdict};
