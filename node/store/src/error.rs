// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong with a store, each with what to do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, UploadId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use crate::record::Position;

/// A failed operation of a store. Cheap to clone: one failure may answer a whole batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room for new bytes; reads, releases and renewals still work.
    #[error("no room for {wanted_bytes} more bytes: {reason}; free space or raise the capacity")]
    Full {
        /// What the request needed.
        wanted_bytes: u64,
        /// Which limit was met.
        reason: &'static str,
    },
    /// The shard is not here, or is not kept any more.
    #[error("shard {shard} is not held by this node; ask another holder")]
    ShardNotFound {
        /// Which shard.
        shard: ShardId,
    },
    /// The group is not here, or is not kept any more.
    #[error("group {group} of {object} is not held by this node; ask another holder")]
    GroupNotFound {
        /// Which object.
        object: Cid,
        /// Which of its groups.
        group: u32,
    },
    /// There is no such lease for this caller.
    #[error("there is no lease {lease} of this caller here; list yours to see what there is")]
    LeaseNotFound {
        /// Which lease.
        lease: LeaseId,
    },
    /// A lease that only the chain moves and ends.
    #[error("lease {lease} is a deal's, and deals end on chain; renew or cancel the deal there")]
    DealLease {
        /// Which lease.
        lease: LeaseId,
    },
    /// More at once than is worked on at once.
    #[error("{count} {what} at once, {max} is the most; ask for fewer at a time")]
    TooMany {
        /// What was asked for.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// It belongs to somebody else.
    #[error("{what} belongs to another owner than {caller}; only the owner may use it")]
    NotOwner {
        /// What the caller wanted to use.
        what: String,
        /// Who asked.
        caller: NodeId,
    },
    /// Nothing was uploaded under this id, or it was abandoned.
    #[error("upload {upload} is not open here; put its shards and manifest blocks first")]
    UnknownUpload {
        /// Which upload.
        upload: UploadId,
    },
    /// A commit that does not fit what was uploaded.
    #[error("the commit of group {group} of {object} does not hold: {reason}")]
    BadCommit {
        /// Which object.
        object: Cid,
        /// Which of its groups.
        group: u32,
        /// What does not fit.
        reason: String,
    },
    /// A lease whose end is not of its kind's clock, or too far away.
    #[error("a {} lease cannot end {expiry:?}: {reason}", kind.name())]
    BadExpiry {
        /// The lease's kind.
        kind: LeaseKind,
        /// What was asked for.
        expiry: Expiry,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The bytes are not what was announced.
    #[error("the body is not what was announced: {reason}; send it again")]
    BodyMismatch {
        /// What differs.
        reason: String,
    },
    /// A shard or block of a length that nothing here may have.
    #[error("{len} bytes are out of range; here a body has 1 to {max}")]
    ShardLength {
        /// What was announced.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A range outside its shard.
    #[error("bytes {offset}+{len} are not within shard {shard} of {shard_len} bytes")]
    BadRange {
        /// Which shard.
        shard: ShardId,
        /// Its length.
        shard_len: u64,
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// The disk gave back other bytes than were written. They are never served.
    #[error("{what} at {}:{} is damaged on disk; it will be repaired from other holders",
        at.segment, at.offset)]
    Damaged {
        /// Which record.
        what: String,
        /// Where.
        at: Position,
    },
    /// The index contradicts itself; the log is unharmed.
    #[error("the index is damaged ({reason}); stop the node and start it again to rebuild it")]
    Index {
        /// What was noticed.
        reason: String,
    },
    /// Another process works in this directory.
    #[error("{} is in use by process {pid}; stop it, or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it (0 if it did not say).
        pid: u32,
    },
    /// The directory belongs to another identity.
    #[error("the data directory belongs to node {found}, not to {expected}; use its own identity")]
    ForeignNode {
        /// This node.
        expected: NodeId,
        /// Whose it is.
        found: NodeId,
    },
    /// The log was written by a newer program. Nothing was changed.
    #[error("{what} is of a format this program does not know; use the newer program")]
    NewerFormat {
        /// Which file or record.
        what: String,
    },
    /// A whole segment is unreadable.
    #[error(
        "segment {segment} cannot be read: {reason}; restore it, or move it away to go on \
        without its records"
    )]
    BadSegment {
        /// Number of the segment.
        segment: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that cannot work.
    #[error("setting `{key}`: {reason}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// What is asked for may lie on a disk that cannot be reached: no word that it is not here.
    #[error("disk {} is offline, and what lies there cannot be reached; ask another holder",
        path.display())]
    Offline {
        /// The disk's directory.
        path: PathBuf,
    },
    /// A disk that cannot be emptied.
    #[error("disk {disk} cannot be drained: {reason}")]
    Drain {
        /// Which disk.
        disk: String,
        /// What stands against it.
        reason: String,
    },
    /// The store is closed or has given up.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The operating system failed an operation.
    #[error("could not {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl StoreError {
    pub(crate) fn io(action: impl Into<String>, error: io::Error) -> Self {
        Self::Io { action: action.into(), source: Arc::new(error) }
    }

    /// Whether it says that what was asked for is not here.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::ShardNotFound { .. }
                | Self::GroupNotFound { .. }
                | Self::LeaseNotFound { .. }
                | Self::UnknownUpload { .. }
        )
    }

    pub(crate) fn stopped(reason: impl Into<String>) -> Self {
        Self::Stopped { reason: reason.into() }
    }

    /// A write that failed, told apart by what the operator can do about it.
    pub(crate) fn write(wanted_bytes: u64, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { wanted_bytes, reason: "the disk is full" }
            }
            _ => Self::io("write to the log", error),
        }
    }
}
