// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failures of the object layer, and which exit code each means.

use std::io;

use supernode_protocol::erasure::ErasureError;
use supernode_protocol::ids::Cid;
use supernode_protocol::manifest::{BuildError, ManifestError};
use supernode_protocol::signed::SignatureError;

/// What a failure means for the caller; the command line turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It did not work; trying again may help.
    Failed,
    /// What was asked makes no sense.
    Usage,
    /// The thing does not exist as far as anybody knows.
    NotFound,
    /// The network or a node said no: full, over a limit, not authorised.
    Refused,
}

/// An object that could not be stored. Whatever was sent ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The source failed while it was read.
    #[error("cannot read the source after {offset} bytes: {source}")]
    Source {
        /// Bytes read before.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The source ended before the length it was said to have.
    #[error("the source ended after {actual} of {expected} bytes; it changed while it was read")]
    SourceShrank {
        /// Its length when the put began.
        expected: u64,
        /// Bytes read.
        actual: u64,
    },
    /// Nobody to store on.
    #[error(
        "no node of the network takes shards ({detail}); check `peer list` and the bootstrap \
         addresses"
    )]
    NoNodes {
        /// What is known about those there are.
        detail: String,
    },
    /// Nodes that were asked have no room left.
    #[error("the network is full: {detail}; add capacity or remove objects")]
    Full {
        /// What the last node said.
        detail: String,
    },
    /// Nodes do not take writes from this key.
    #[error(
        "not authorised to write: {detail}; have this key added to the nodes' writers, or a \
         capability signed for it"
    )]
    NotAuthorised {
        /// What the last node said.
        detail: String,
    },
    /// Too few holders are left to keep the promise.
    #[error(
        "what could be stored survives the loss of {survives} nodes, and {wanted} are wanted \
         (put.tolerate_nodes): {detail}"
    )]
    NotDurable {
        /// Node losses it would survive; `None` when it could not even be read back now.
        survives: SurvivedLosses,
        /// What was asked for.
        wanted: usize,
        /// What the last failing node said.
        detail: String,
    },
    /// The object is too large for one manifest.
    #[error(transparent)]
    Manifest(#[from] BuildError),
    /// The class has no code.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// The client's key cannot sign.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A worker thread died.
    #[error("the encoder stopped unexpectedly; this is a bug, please report it")]
    Worker,
}

/// How many losses something survives: none at all when it is not even complete now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SurvivedLosses(pub Option<usize>);

impl std::fmt::Display for SurvivedLosses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(count) => write!(f, "{count}"),
            None => f.write_str("not even 0"),
        }
    }
}

impl PutError {
    /// What the failure means for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } | Self::NotAuthorised { .. } => ErrorKind::Refused,
            Self::Erasure(_) => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }
}

/// An object that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Nobody announces it and no node that was asked has it.
    #[error("{cid} is not known to the network; check the CID, or whether its pin has ended")]
    NotFound {
        /// The object.
        cid: Cid,
    },
    /// It exists, and none of its holders answers.
    #[error("{cid} exists, but none of its {holder_count} known holders answers: {detail}")]
    Unreachable {
        /// The object.
        cid: Cid,
        /// Nodes tried.
        holder_count: usize,
        /// What the last one said.
        detail: String,
    },
    /// Fewer than `k` shards could be fetched.
    #[error(
        "stripe {stripe} of {cid} cannot be read: {have} of the {need} shards it needs are \
         reachable ({detail})"
    )]
    NotEnoughShards {
        /// The object.
        cid: Cid,
        /// The stripe.
        stripe: u32,
        /// Shards fetched.
        have: usize,
        /// `k`.
        need: usize,
        /// What the last failing holder said.
        detail: String,
    },
    /// Shards that match their ids but are no codeword. Nothing can repair it.
    #[error("stripe {stripe} of {cid} is inconsistent: its shards never were one stripe")]
    Inconsistent {
        /// The object.
        cid: Cid,
        /// The stripe.
        stripe: u32,
    },
    /// All shards are as promised, and yet not the bytes that the manifest names.
    #[error("the bytes of {cid} do not hash to its content root; whoever stored it lied")]
    ContentMismatch {
        /// The object.
        cid: Cid,
    },
    /// A block of the manifest breaks a rule.
    #[error("the manifest of {cid} is not valid: {source}")]
    Manifest {
        /// The object.
        cid: Cid,
        /// The rule.
        source: ManifestError,
    },
    /// Objects that are made of objects that are made of objects.
    #[error("{cid} is nested deeper than slices may lead")]
    TooDeep {
        /// The object at the limit.
        cid: Cid,
    },
    /// A range that starts at or after the end.
    #[error("the range starts at byte {start}, {cid} has {size} bytes")]
    Range {
        /// The object.
        cid: Cid,
        /// First byte asked for.
        start: u64,
        /// Its size.
        size: u64,
    },
    /// The sink failed.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// A worker thread died.
    #[error("the decoder stopped unexpectedly; this is a bug, please report it")]
    Worker,
}

impl GetError {
    /// What the failure means for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Range { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }
}
