// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the chain is asked: a small trait, and the facts it answers with.
//!
//! - The binary implements [`Chain`] over the chain client; tests implement it over a fork tree.
//! - [`View`] says where the chain stands and how far it may be trusted. Facts about deals and
//!   audits are always read by block hash, so that a stream that skips or repeats blocks is
//!   harmless.
//! - Heights and hashes are the only clock here; no time of day appears anywhere.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::Cid;
use tokio::sync::watch;

/// The number of a block.
pub type Height = u64;

/// The hash of a block; that of block 0 names a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// Takes the raw bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

/// A text that is not the 64 hex digits of a block hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a block hash is written as 64 hex digits")]
pub struct ParseHashError;

impl FromStr for BlockHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseHashError);
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = &text[index * 2..index * 2 + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseHashError)?;
        }
        Ok(Self(bytes))
    }
}

/// A block, named so that no other block can be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlockRef {
    /// Its number.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} ({})", self.height, self.hash)
    }
}

/// How far the chain may be trusted. Only a healthy chain ends anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// It answers, on the right genesis and runtime, and finality moves.
    Healthy,
    /// No endpoint answers, or none has answered yet.
    #[default]
    Unreachable,
    /// It answers, but its finalised head has not risen for too long.
    Stalled,
    /// Its finalised head is below what this node has already seen.
    Behind,
    /// It is another chain than the configured one.
    ForeignGenesis,
    /// Its runtime is one that this node cannot talk to.
    ForeignRuntime,
}

impl Standing {
    /// The standing's name in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unreachable => "unreachable",
            Self::Stalled => "stalled",
            Self::Behind => "behind",
            Self::ForeignGenesis => "foreign-genesis",
            Self::ForeignRuntime => "foreign-runtime",
        }
    }

    /// Whether proofs may be sent. A late or retracted answer merely fails, so finality is not
    /// needed; a chain that is not ours is never signed for.
    pub fn takes_proofs(&self) -> bool {
        matches!(self, Self::Healthy | Self::Stalled | Self::Behind)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the chain stands. Before the first answer: unreachable, with both heads zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// How far it may be trusted.
    pub standing: Standing,
    /// The newest block of the best chain.
    pub best: BlockRef,
    /// The newest finalised block.
    pub finalised: BlockRef,
}

/// An audit of a slot that this node holds. Two forks may give one id to different challenges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Its number on chain.
    pub audit: AuditId,
    /// The deal that pays for the slot.
    pub deal: DealId,
    /// The object.
    pub object: Cid,
    /// The slot's stripe, counted over the whole object.
    pub stripe: u32,
    /// The slot's index in its stripe.
    pub index: u16,
    /// What the chunks are drawn from.
    pub seed: [u8; 32],
    /// How many chunks are drawn.
    pub chunk_count: u8,
    /// The block that opened it.
    pub opened_at: Height,
    /// The last block in which a proof counts.
    pub deadline: Height,
}

/// What became of an audit, as a block knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFate {
    /// It waits for a proof.
    Open,
    /// A proof was accepted.
    Passed,
    /// Its deadline went by without one.
    Failed,
    /// The block knows no such audit: never opened on this fork, or pruned.
    Unknown,
}

/// What a block knows of a deal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DealFact {
    /// Paid for until the end of a block.
    Active {
        /// The block it ends at.
        expires_at: Height,
    },
    /// Escrow is there, the object is not yet.
    Reserved {
        /// The last block in which it may be activated.
        activates_by: Height,
    },
    /// Over, and the chain still remembers it.
    Ended {
        /// The block it ended at.
        at: Height,
        /// Its owner ended it before its time.
        cancelled: bool,
    },
    /// The block knows no such deal: never made on this fork, or pruned. This alone ends nothing.
    Unknown,
}

/// A change of a deal's end in one block. Deals of other nodes may be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealChange {
    /// The deal or reservation.
    pub deal: DealId,
    /// What it is from this block on: reserved, activated or renewed, ended. `Ended` also stands
    /// for a reservation that was cancelled or ran out, with the block it ended in.
    pub fact: DealFact,
}

/// One finalised block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockChanges {
    /// The hash of the block before it, by which following blocks notice another chain.
    pub parent: BlockHash,
    /// What happened to deals, in order.
    pub changes: Vec<DealChange>,
}

/// What another endpoint says of a deal at its own finalised head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// The endpoint, as configured.
    pub endpoint: String,
    /// Its finalised height and the fact read there; `None` if it did not answer, or not on our
    /// genesis.
    pub answer: Option<(Height, DealFact)>,
}

/// What the chain made of one proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofFate {
    /// The audit is passed, in this block of the best chain.
    Accepted,
    /// The proof was refused; the audit stays as it was.
    Rejected {
        /// The pallet's reason.
        reason: String,
    },
}

/// A submission that is in a block of the best chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The block.
    pub block: BlockRef,
    /// What became of each proof.
    pub fates: Vec<(AuditId, ProofFate)>,
}

/// Why the chain gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Nobody answered.
    #[error("the chain does not answer: {reason}; check the configured endpoints")]
    Unreachable {
        /// What the client says.
        reason: String,
    },
    /// The endpoint has dropped that state.
    #[error("block {height} is no longer kept by the endpoint; own deals are walked instead")]
    Pruned {
        /// The block asked for.
        height: Height,
    },
    /// An answer that makes no sense.
    #[error("the chain's answer on {what} cannot be used: {reason}; check its runtime version")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A transaction that is in no block.
    #[error("proofs were not taken: {reason}; check the operator account and its balance")]
    NotTaken {
        /// What the client or the chain says.
        reason: String,
    },
}

/// The chain, as this crate needs it. Every method answers within a bounded time of its own.
pub trait Chain: Clone + Send + Sync + 'static {
    /// The current view and its changes: new heads, and every change of standing. The
    /// implementation begins a broken stream again by itself.
    fn watch(&self) -> watch::Receiver<View>;

    /// The audits of this node that are open after block `at`, lowest id first, at most `limit`.
    fn open_audits(
        &self,
        at: BlockRef,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Challenge>, ChainError>> + Send;

    /// What block `at` knows of these audits, in the order asked.
    fn audit_fates(
        &self,
        audits: Vec<AuditId>,
        at: BlockRef,
    ) -> impl Future<Output = Result<Vec<AuditFate>, ChainError>> + Send;

    /// What block `at` knows of a deal.
    fn deal(
        &self,
        deal: DealId,
        at: BlockRef,
    ) -> impl Future<Output = Result<DealFact, ChainError>> + Send;

    /// The finalised block of that number; [`ChainError::Pruned`] if its hash is not kept.
    fn block_at(&self, height: Height)
    -> impl Future<Output = Result<BlockRef, ChainError>> + Send;

    /// What one finalised block did to deals; [`ChainError::Pruned`] if its state is not kept.
    fn changes(
        &self,
        at: BlockRef,
    ) -> impl Future<Output = Result<BlockChanges, ChainError>> + Send;

    /// What every other configured endpoint says of a deal, at its own finalised head: one
    /// opinion for each of them, also for those that do not answer; none if there is no other.
    fn opinions(
        &self,
        deal: DealId,
    ) -> impl Future<Output = Result<Vec<Opinion>, ChainError>> + Send;

    /// Signs and sends proofs in one transaction, and waits until it is in a block of the best
    /// chain. After an error the transaction may or may not be included later; the next call takes
    /// its nonce from the best block, so that at most one of the two is.
    fn submit(
        &self,
        proofs: Vec<(AuditId, Vec<u8>)>,
    ) -> impl Future<Output = Result<Submitted, ChainError>> + Send;
}
