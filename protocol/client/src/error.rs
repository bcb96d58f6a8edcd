// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a request did not succeed, and whose fault it was.

use std::net::SocketAddr;
use std::time::Duration;

use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{ErrorCode, WireError};

/// A failed request. It can be shared: all who waited for one dial get the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The client itself could not be made or is closed.
    #[error("the client cannot work: {reason}")]
    Setup {
        /// What to change.
        reason: String,
    },
    /// No connection, or it was lost.
    #[error("node {node} cannot be reached: {reason}; try another holder")]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// What was met, for every address tried.
        reason: String,
    },
    /// The node is connected and does not get on.
    #[error("node {node} took longer than {limit:?} to {step}; try another holder")]
    Timeout {
        /// Which node.
        node: NodeId,
        /// What it should have done.
        step: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The node answered with an error.
    #[error("node {node} refused: {error}")]
    Refused {
        /// Which node.
        node: NodeId,
        /// Its answer.
        error: WireError,
    },
    /// Somebody else answers at the node's address.
    #[error("node {node} is not at {address}: {reason}; its address record is stale or forged")]
    BadPeer {
        /// Who was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// Who answered instead, or why it cannot be told.
        reason: String,
    },
    /// The node sent bytes that are not what their hash, length or signature says.
    #[error("node {node} sent a wrong {what}: {reason}; nothing of it was used")]
    Lied {
        /// Which node.
        node: NodeId,
        /// What was wrong.
        what: &'static str,
        /// How it was noticed.
        reason: String,
    },
    /// The node broke a rule of the protocol, or speaks a newer one.
    #[error("node {node} broke the protocol: {reason}")]
    Protocol {
        /// Which node.
        node: NodeId,
        /// Which rule.
        reason: String,
    },
    /// What was asked for cannot be asked; nothing was sent.
    #[error("the request to node {node} makes no sense: {reason}")]
    BadRequest {
        /// Which node.
        node: NodeId,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The node it is about; the client's own troubles are about none.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Setup { .. } => None,
            Self::Unreachable { node, .. }
            | Self::Timeout { node, .. }
            | Self::Refused { node, .. }
            | Self::BadPeer { node, .. }
            | Self::Lied { node, .. }
            | Self::Protocol { node, .. }
            | Self::BadRequest { node, .. } => Some(*node),
        }
    }

    /// Whether the same request may succeed at the same node later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Refused { error, .. } => {
                matches!(error.code, ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::Internal)
            }
            Self::Setup { .. }
            | Self::BadPeer { .. }
            | Self::Lied { .. }
            | Self::Protocol { .. }
            | Self::BadRequest { .. } => false,
        }
    }

    /// Whether the node did not do what a healthy and honest node does.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::BadPeer { .. }
            | Self::Lied { .. }
            | Self::Protocol { .. } => true,
            Self::Refused { error, .. } => {
                matches!(error.code, ErrorCode::Unavailable | ErrorCode::Internal)
            }
            Self::Setup { .. } | Self::BadRequest { .. } => false,
        }
    }

    /// What kind of refusal, if the node answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// When a busy node wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { error, .. } => {
                error.retry_after_ms.map(|millis| Duration::from_millis(u64::from(millis)))
            }
            _ => None,
        }
    }
}
