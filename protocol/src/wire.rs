// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of the QUIC protocol `supernode-shard/1`.
//!
//! One request is one bidirectional stream: a request frame and its body, then the answer's frame
//! and its body, then both sides finish. A frame is a `u32` little-endian length and that many
//! bytes of postcard; the length is checked against [`FRAME_BYTES_MAX`] before anything is
//! allocated. Bodies are raw bytes whose length the frame before them states. The first stream of
//! a connection carries [`Request::Hello`]; nothing else is answered before it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use crate::lease::{Commit, Expiry, LeaseKind};
use crate::limits::FRAME_BYTES_MAX;
use crate::node_record::NodeRecord;
use crate::placement::PlacementRecord;
use crate::repair::Repair;
use crate::signed::Signed;
use crate::tree::SpanProof;

/// The ALPN name; its number is the protocol's version.
pub const ALPN: &[u8] = b"supernode-shard/1";

/// What a client asks. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens a connection; must come first. Answered by [`Response::Welcome`].
    Hello {
        /// The network the client means; another one is refused.
        network: String,
        /// Program and version, for logs.
        agent: String,
        /// An encoded [`crate::capability::Capability`] with its signature.
        capability: Option<Bytes>,
    },
    /// Stores one shard under an upload. Body: `len` bytes. Answered by [`Response::Stored`].
    PutShard {
        /// The upload it belongs to.
        upload: UploadId,
        /// Its position.
        slot: Slot,
        /// What the bytes must hash to.
        shard: ShardId,
        /// How many bytes follow.
        len: u64,
    },
    /// Stores a manifest root or page under an upload. Body: `len` bytes of DAG-CBOR.
    /// Answered by [`Response::Stored`].
    PutBlock {
        /// The upload it belongs to.
        upload: UploadId,
        /// What the bytes must hash to.
        cid: Cid,
        /// How many bytes follow.
        len: u64,
    },
    /// Binds an upload to an object. Answered by [`Response::Committed`].
    Commit(Box<Commit>),
    /// Reads a shard or a part of it. Answered by [`Response::Shard`] and a body.
    GetShard {
        /// Which shard.
        shard: ShardId,
        /// First byte wanted and how many; `None` reads all of it without a proof.
        range: Option<ByteRange>,
    },
    /// Reads manifest and placement of a group. Answered by [`Response::Group`] and a body.
    Group {
        /// Which object.
        object: Cid,
        /// Which group.
        group: u32,
        /// Whether the root is wanted too (a reader of a later page has it already).
        with_root: bool,
    },
    /// Which slots of a group this node holds. Answered by [`Response::Held`].
    Stat {
        /// Which object.
        object: Cid,
        /// Which group.
        group: u32,
    },
    /// Lists the caller's own leases, in id order. Answered by [`Response::Leases`].
    Leases {
        /// Continue after this entry.
        after: Option<(LeaseId, Cid, u32)>,
    },
    /// Ends one of the caller's leases. Answered by [`Response::Released`].
    Release {
        /// Which lease.
        lease: LeaseId,
    },
    /// Moves the end of one of the caller's leases. Answered by [`Response::Renewed`].
    Renew {
        /// Which lease.
        lease: LeaseId,
        /// Its new end, counted from now.
        expiry: Expiry,
    },
    /// Lists nodes this node knows, in id order. Answered by [`Response::Members`].
    Members {
        /// Continue after this node.
        after: Option<NodeId>,
    },
    /// What this node keeps. Answered by [`Response::Status`].
    Status,
    /// What the node holds of an object under the caller's deal lease, signed for the chain.
    /// Answered by [`Response::Receipt`].
    Receipt {
        /// The deal's lease.
        lease: LeaseId,
        /// Which object.
        object: Cid,
        /// The slots that the deal is to pay this node for, in group order; the receipt is for
        /// those of them that are here.
        wanted: Vec<HeldIndexes>,
    },
    /// Gives a holder of a group what it needs to prove the group's entries to the object's
    /// `shards_root`. Answered by [`Response::Stored`].
    KeepSpan {
        /// Which object.
        object: Cid,
        /// Which group.
        group: u32,
        /// What the node checks against the manifest it has.
        span: Box<SpanProof>,
    },
    /// Reads many shards or parts of shards, at most
    /// [`crate::limits::BATCH_PARTS_MAX`]. Answered by [`Response::Many`], whose body is the
    /// answers to each part, one after another, as if each had been asked for alone.
    GetMany {
        /// What is wanted, in the order of the answers.
        parts: Vec<Want>,
    },
    /// Stores many shards under one upload, at most [`crate::limits::BATCH_PARTS_MAX`] of at most
    /// [`crate::limits::BATCH_BYTES_MAX`] together. Body: their bytes, one after another.
    /// Answered by [`Response::StoredMany`].
    PutMany {
        /// The upload they belong to.
        upload: UploadId,
        /// Which shards, in the order of their bytes.
        parts: Vec<Part>,
    },
    /// Stores the manifest of a group that a holder restores slots of on this node, and lets it
    /// write the shards and the commit under [`Repair::upload`] on the same connection. Body:
    /// `root_len` bytes of the root, then `page_len` bytes of the page. Answered by
    /// [`Response::Stored`].
    Repair {
        /// The proof that it may.
        repair: Box<Repair>,
        /// Bytes of the root.
        root_len: u32,
        /// 0 for group 0, whose page is inside the root.
        page_len: u32,
    },
}

/// One thing that is wanted of [`Request::GetMany`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Which shard.
    pub shard: ShardId,
    /// As in [`Request::GetShard`].
    pub range: Option<ByteRange>,
}

/// One shard of [`Request::PutMany`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its position.
    pub slot: Slot,
    /// What its bytes must hash to.
    pub shard: ShardId,
    /// How many bytes it has.
    pub len: u64,
}

/// A part of a shard: `len` bytes from `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes wanted, at least 1.
    pub len: u64,
}

/// What a server answers. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The request failed; nothing was changed.
    Error(WireError),
    /// The connection is open.
    Welcome {
        /// The server's own record.
        node: Box<Signed<NodeRecord>>,
        /// Program and version, for logs.
        agent: String,
        /// Requests this connection may have under way.
        streams_max: u32,
    },
    /// The bytes are as durable as the node's setting says.
    Stored(Ack),
    /// The commit is durable.
    Committed {
        /// The durable record that acknowledges it.
        ack: Ack,
        /// Slots of the group this node now counts under the object.
        slot_count: u32,
    },
    /// Body: `proof_len` bytes of hash-tree parents, then `range.len` bytes of the shard.
    Shard {
        /// The shard's whole length.
        shard_len: u64,
        /// What follows: the wanted range widened to chunk groups, or the whole shard.
        range: ByteRange,
        /// Bytes of proof before the data; 0 for whole shards.
        proof_len: u32,
    },
    /// Body: `root_len` bytes of the manifest root, then `page_len` bytes of the group's page.
    Group {
        /// 0 when the root was not asked for.
        root_len: u32,
        /// 0 for group 0, whose page is inside the root.
        page_len: u32,
        /// The newest placement this node has.
        placement: Box<Signed<PlacementRecord>>,
    },
    /// Slots of a group held here.
    Held {
        /// Position and bytes of each.
        slots: Vec<(Slot, ShardId)>,
    },
    /// A page of the caller's leases.
    Leases {
        /// Entries in `(lease, object, group)` order; only an empty page means the end, because
        /// one may be cut short to fit its frame.
        entries: Vec<LeaseEntry>,
    },
    /// The lease is over; what nothing else covers goes to the trash.
    Released(Ack),
    /// The lease ends later now.
    Renewed(Ack),
    /// A page of known nodes.
    Members {
        /// In id order; only an empty page means the end, as above.
        nodes: Vec<Signed<NodeRecord>>,
    },
    /// Figures of this node.
    Status(NodeStatus),
    /// The holder's word for the chain.
    Receipt(Receipt),
    /// Body: `parts` times a frame, which is [`Response::Shard`] or [`Response::Error`], and its
    /// body. An error is of that part alone.
    Many {
        /// How many parts were asked for.
        parts: u32,
    },
    /// What became of each part, in order. An error is of that part alone; the others are stored.
    StoredMany {
        /// As durable as the node's setting says, or why not.
        results: Vec<Result<Ack, WireError>>,
    },
}

/// A holder's signed word that it keeps what a deal will pay it for.
///
/// The signature is over [`crate::deal::ReceiptClaim::message`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The object's list of shards, as the holder read it from the manifest.
    pub shards_root: [u8; 32],
    /// Bytes of all slots in `held`.
    pub bytes: u64,
    /// Which slots, in group order.
    pub held: Vec<HeldIndexes>,
    /// Ed25519, by the holder's identity.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

/// Slot indexes of one group that a holder has for every stripe of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldIndexes {
    /// The group.
    pub group: u32,
    /// Its first stripe, counted over the whole object.
    pub stripe_first: u32,
    /// How many stripes it has.
    pub stripe_count: u32,
    /// In ascending order.
    pub indexes: Vec<u16>,
}

/// Names the durable record behind an acknowledgement: a ledger can be checked against the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ack {
    /// Sequence number of the record in the node's log.
    pub sequence: u64,
}

/// One group that one lease of the caller covers on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The lease.
    pub lease: LeaseId,
    /// Why it is kept.
    pub kind: LeaseKind,
    /// What is left of it, in its own clock.
    pub remaining: Expiry,
    /// The object.
    pub object: Cid,
    /// The group.
    pub group: u32,
    /// Size of the whole object.
    pub object_bytes: u64,
}

/// What a node keeps, all from counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Distinct shards.
    pub shard_count: u64,
    /// Slots they fill.
    pub slot_count: u64,
    /// Bytes under a live lease.
    pub live_bytes: u64,
    /// Bytes it offers in all.
    pub capacity_bytes: u64,
    /// Seconds since its start.
    pub uptime_secs: u64,
}

/// A failure told to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WireError {
    /// What kind; decides whether to retry and the exit code.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// When to come back, for [`ErrorCode::Busy`].
    pub retry_after_ms: Option<u32>,
}

/// Kinds of failure. Variants are only ever added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// A limit is reached; come back after `retry_after_ms`.
    Busy,
    /// Not here, or not for this caller.
    NotFound,
    /// The caller may not do this.
    Refused,
    /// No room for new bytes.
    Full,
    /// The request breaks a rule of the protocol.
    BadRequest,
    /// The body is not what its hash or length said.
    BodyMismatch,
    /// The node serves another network.
    WrongNetwork,
    /// The node is stopping or not ready; another one may serve.
    Unavailable,
    /// The node failed; its log knows more.
    Internal,
}

impl core::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::NotFound => "not found",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::BadRequest => "bad request",
            Self::BodyMismatch => "body mismatch",
            Self::WrongNetwork => "wrong network",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal error",
        })
    }
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over the limit; nothing was allocated.
    #[error("a frame of {len} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong {
        /// What the peer announced.
        len: u64,
    },
    /// The bytes decode to nothing known.
    #[error("the frame is malformed or of a newer version")]
    Malformed,
}

/// Bytes of the length before each frame.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// Encodes a frame with its length.
///
/// # Errors
/// [`FrameError::TooLong`] when a listing was not paged as it should be.
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Bytes, FrameError> {
    let body = postcard::to_allocvec(message).map_err(|_| FrameError::Malformed)?;
    let len = frame_len(body.len() as u64)?;
    let prefix = u32::try_from(len).expect("the frame limit is below 4 GiB");
    let mut frame = BytesMut::with_capacity(FRAME_PREFIX_BYTES + len);
    frame.put_u32_le(prefix);
    frame.put_slice(&body);
    Ok(frame.freeze())
}

/// Reads the length before a frame, refusing what is over the limit.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn decode_prefix(prefix: [u8; FRAME_PREFIX_BYTES]) -> Result<usize, FrameError> {
    frame_len(u64::from(u32::from_le_bytes(prefix)))
}

/// Decodes the bytes of one frame, all of them.
///
/// # Errors
/// [`FrameError::Malformed`], also for trailing bytes.
pub fn decode_frame<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

fn frame_len(len: u64) -> Result<usize, FrameError> {
    usize::try_from(len)
        .ok()
        .filter(|len| *len <= FRAME_BYTES_MAX)
        .ok_or(FrameError::TooLong { len })
}
