// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: what the log is made of.
//!
//! A record is four parts, in this order:
//!
//! ```text
//! header 96 B | meta (postcard) | outboard | zeros | payload | zeros
//! ```
//!
//! - The **header** comes first and says how long everything is, so that a scan reads 96 bytes and
//!   a little meta, and seeks over the payload. It names its segment's secret tag and its own
//!   offset: bytes inside a payload can imitate everything but those, so a scan that looks for the
//!   next header after damage never takes a client's bytes for a record, and a block that the disk
//!   put in the wrong place is no record either.
//! - The **meta** is what the index is made of. Its checksum is in the header.
//! - The **outboard** (hash tree of a shard) stands before the payload, beside the header, because
//!   a range read wants header, tree and a few groups, not the whole shard.
//! - The **payload** starts on a 4 KiB boundary from 64 KiB upward, so that it can be read and
//!   written around the page cache, and on a 64 B boundary below. It carries no checksum of its
//!   own: its BLAKE3 is the id in the header.
//!
//! A record also says how many records before it were still unsynced when it was written. So the
//! log itself tells which of its records were durable for certain: damage among those is damage,
//! and costs what it hit; anything unwhole after them is the torn end of the last write, and the
//! log ends there.
//!
//! Records start on 64 B boundaries, so a scan that lost its way has to look at few places.
//! One operation is one record: it is there or it is not, and nothing has to be undone.
//! All integers are little-endian. `docs/DATA_FORMAT.md` has the table of bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::limits::SHARD_BYTES_MAX;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use crate::buffer::FilledShard;

mod header;
mod restate;

pub use self::header::{HEADER_BYTES, Header, HeaderError, Kind};
pub(crate) use self::header::{MAGIC, read_u32, read_u64};
pub use self::restate::{CachedTold, GroupPart, LeaseTold, Restate, Trashed};

/// The version of the record format that this program writes, and the only one it reads.
pub const RECORD_VERSION: u8 = 1;
/// Records start on multiples of this.
pub const RECORD_ALIGN: u64 = 64;
/// Payloads of at least this many bytes start on a disk block.
pub const LARGE_PAYLOAD_BYTES: u64 = 64 << 10;
/// The disk block that large payloads start on.
pub const PAYLOAD_ALIGN: u64 = 4096;
/// Bytes of meta at most; twice the largest frame that a commit can arrive in.
pub const META_BYTES_MAX: u32 = 512 << 10;

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Number of the segment.
    pub segment: u32,
    /// Byte in it.
    pub offset: u64,
}

/// The upload something was written under, and whose it is.
///
/// Every record that needs an upload names its owner, so the first one of an upload opens it and
/// none depends on a neighbour that a crash may have torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The upload.
    pub upload: UploadId,
    /// The authenticated peer that opened it.
    pub owner: NodeId,
}

/// A shard's first or further position, still under its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The upload.
    pub holder: Holder,
    /// The position.
    pub slot: Slot,
}

/// A commit with the one fact about the object that listings need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBody {
    /// As the writer sent it.
    pub commit: Commit,
    /// Size of the whole object, from its manifest root.
    pub object_bytes: u64,
}

/// What happens to a lease. A commit opens one; this is the rest of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseChange {
    /// Its end moves; running seconds count from the record's own second.
    Renew {
        /// Which lease.
        lease: LeaseId,
        /// The new end.
        expiry: Expiry,
    },
    /// Its owner ended it.
    Release {
        /// Which lease.
        lease: LeaseId,
    },
    /// Its time ran out.
    Expire {
        /// Which lease.
        lease: LeaseId,
    },
    /// An upload was left alone for too long.
    Abandon {
        /// Which upload.
        upload: UploadId,
    },
}

/// What a tombstone stands on. The id is in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freed {
    /// A shard that no slot refers to any more.
    Shard,
    /// A manifest block that nothing refers to any more.
    Block,
    /// A group that lay in the trash for its time; its slots go with it.
    Group {
        /// Which group of the object.
        group: u32,
    },
}

/// What became of the bytes of dead records. The facts come before the log says them, except that
/// a segment is gone: that is said first, and then made true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reclaim {
    /// The whole disk blocks inside these records' payloads are holes.
    Punched {
        /// Dead records.
        records: Vec<Position>,
    },
    /// The dead records of a segment up to here go with it, soon.
    Cleared {
        /// The oldest segment.
        segment: u32,
        /// Records that start before this offset.
        until: u64,
    },
    /// The segments up to this one are not needed any more.
    Gone {
        /// The newest of them.
        through: u32,
    },
}

/// Bytes that are kept with a group: what its holder needs of the object's list of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which group of the object.
    pub group: u32,
    /// Opaque here.
    pub bytes: Vec<u8>,
}

/// A record's meaning, apart from its id and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A shard's bytes and its first slot. Id: the shard.
    Shard(Placed),
    /// One more slot of a shard that is on this disk already. Id: the shard.
    Slot(Placed),
    /// A manifest root or page. Id: its CID.
    Block(Holder),
    /// A manifest block that is here already, wanted by one more upload. Id: its CID.
    BlockRef(Holder),
    /// Binds an upload's slots to an object. Id: the object.
    Commit(Box<CommitBody>),
    /// A placement record that arrived after its commit. Id: the object.
    Placement(Box<Signed<PlacementRecord>>),
    /// The life of a lease. Id: the lease's or upload's 16 bytes, then zeros.
    Lease(LeaseChange),
    /// Something is gone and stays gone. Id: what it was.
    Tombstone(Freed),
    /// The node's running time goes on. Id: zeros.
    Clock {
        /// Whether this is the last word of an orderly stop: all before it is durable.
        stopped: bool,
    },
    /// Bytes of dead records were given back. Id: zeros.
    Reclaim(Reclaim),
    /// Kept with a group, and gone with it; a later one replaces it. Id: the object.
    Span(Span),
    /// A shard that is kept, moved here from an older segment. Id: the shard.
    ShardCopy,
    /// A manifest block that is kept, moved here from an older segment. Id: its CID.
    BlockCopy,
    /// What is so already, said again so that an older segment need not. Id: the object, or the
    /// lease's 16 bytes, then zeros.
    Restate(Restate),
    /// Reserved for volumes: read as what it is, never written yet.
    Journal(Vec<u8>),
}

impl Body {
    /// The kind byte of the header.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Shard(_) => Kind::Shard,
            Self::Slot(_) => Kind::Slot,
            Self::Block(_) => Kind::Block,
            Self::BlockRef(_) => Kind::BlockRef,
            Self::Commit(_) => Kind::Commit,
            Self::Placement(_) => Kind::Placement,
            Self::Lease(_) => Kind::Lease,
            Self::Tombstone(_) => Kind::Tombstone,
            Self::Clock { .. } => Kind::Clock,
            Self::Reclaim(_) => Kind::Reclaim,
            Self::Span(_) => Kind::Span,
            Self::ShardCopy => Kind::ShardCopy,
            Self::BlockCopy => Kind::BlockCopy,
            Self::Restate(_) => Kind::Restate,
            Self::Journal(_) => Kind::Journal,
        }
    }

    /// The meta part.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = match self {
            Self::Shard(placed) | Self::Slot(placed) => postcard::to_allocvec(placed),
            Self::Block(holder) | Self::BlockRef(holder) => postcard::to_allocvec(holder),
            Self::Commit(body) => postcard::to_allocvec(body),
            Self::Placement(record) => postcard::to_allocvec(record),
            Self::Lease(change) => postcard::to_allocvec(change),
            Self::Tombstone(freed) => postcard::to_allocvec(freed),
            Self::Clock { stopped } => postcard::to_allocvec(stopped),
            Self::Reclaim(reclaim) => postcard::to_allocvec(reclaim),
            Self::Span(span) => postcard::to_allocvec(span),
            Self::ShardCopy | Self::BlockCopy => Ok(Vec::new()),
            Self::Restate(restate) => postcard::to_allocvec(restate),
            Self::Journal(meta) => Ok(meta.clone()),
        };
        encoded.expect("a value in memory has an encoding")
    }

    /// Reads the meta part of a record of this kind; trailing bytes are an error.
    pub fn decode(kind: Kind, meta: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Shard => Self::Shard(exactly(meta)?),
            Kind::Slot => Self::Slot(exactly(meta)?),
            Kind::Block => Self::Block(exactly(meta)?),
            Kind::BlockRef => Self::BlockRef(exactly(meta)?),
            Kind::Commit => Self::Commit(exactly(meta)?),
            Kind::Placement => Self::Placement(exactly(meta)?),
            Kind::Lease => Self::Lease(exactly(meta)?),
            Kind::Tombstone => Self::Tombstone(exactly(meta)?),
            Kind::Clock => Self::Clock { stopped: exactly(meta)? },
            Kind::Reclaim => Self::Reclaim(exactly(meta)?),
            Kind::Span => Self::Span(exactly(meta)?),
            Kind::ShardCopy => meta.is_empty().then_some(Self::ShardCopy)?,
            Kind::BlockCopy => meta.is_empty().then_some(Self::BlockCopy)?,
            Kind::Restate => Self::Restate(exactly(meta)?),
            Kind::Journal => Self::Journal(meta.to_vec()),
        })
    }
}

fn exactly<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// Bytes that go into the log without being copied.
#[derive(Debug)]
pub enum Payload {
    /// Most records have none.
    None,
    /// A shard in its pooled buffer, with its hash tree.
    Shard(FilledShard),
    /// A manifest block.
    Block(Bytes),
    /// A shard or block that was read back, with its hash tree if it has one.
    Copy {
        /// The shard or block.
        bytes: Bytes,
        /// Its hash tree.
        outboard: Bytes,
    },
}

impl Payload {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Shard(shard) => shard.bytes(),
            Self::Block(bytes) | Self::Copy { bytes, .. } => bytes,
        }
    }

    fn outboard(&self) -> &[u8] {
        match self {
            Self::Shard(shard) => shard.outboard(),
            Self::Copy { outboard, .. } => outboard,
            Self::None | Self::Block(_) => &[],
        }
    }
}

/// A record that has no place yet.
#[derive(Debug)]
pub struct Draft {
    /// Its number in the log.
    pub sequence: u64,
    /// The node's running second.
    pub running_secs: u64,
    /// The newest record that is durable for certain.
    pub durable: u64,
    /// What it is about.
    pub id: [u8; 32],
    /// What it says.
    pub body: Body,
    /// The bytes it carries.
    pub payload: Payload,
}

/// Lengths of a record's parts, and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of meta.
    pub meta_len: u32,
    /// Bytes of outboard.
    pub outboard_len: u32,
    /// Bytes of payload.
    pub payload_len: u64,
}

impl Shape {
    /// Bytes from the start of a record at `offset` to its payload (or to where one would be).
    pub fn payload_start(&self, offset: u64) -> u64 {
        let end = offset + HEADER_BYTES as u64 + u64::from(self.meta_len);
        let end = end + u64::from(self.outboard_len);
        let large = self.payload_len >= LARGE_PAYLOAD_BYTES;
        let align = if large { PAYLOAD_ALIGN } else { RECORD_ALIGN };
        end.next_multiple_of(align) - offset
    }

    /// Bytes from the start of a record at `offset` to where the next one may start.
    pub fn record_len(&self, offset: u64) -> u64 {
        (self.payload_start(offset) + self.payload_len).next_multiple_of(RECORD_ALIGN)
    }

    /// Whether any record may look like this.
    pub fn is_sane(&self) -> bool {
        let tree_bytes_max = SHARD_BYTES_MAX / 64;
        self.meta_len <= META_BYTES_MAX
            && self.payload_len <= SHARD_BYTES_MAX
            && u64::from(self.outboard_len) <= tree_bytes_max
    }
}

/// A record as it goes to disk: its head in one piece, and the payload where it is.
#[derive(Debug)]
pub struct Encoded {
    /// What `head` begins with.
    pub header: Header,
    /// Header, meta, outboard and the zeros before the payload.
    pub head: Vec<u8>,
    /// Zeros after the payload.
    pub tail_len: usize,
}

impl Draft {
    /// Lengths of the record's parts, for a meta that is encoded already.
    fn shape_with(&self, meta: &[u8]) -> Shape {
        let narrow = |len: usize| u32::try_from(len).expect("bounded by the caller's limits");
        Shape {
            meta_len: narrow(meta.len()),
            outboard_len: narrow(self.payload.outboard().len()),
            payload_len: self.payload.bytes().len() as u64,
        }
    }

    /// Lengths of the record's parts.
    pub fn shape(&self) -> Shape {
        self.shape_with(&self.body.encode())
    }

    /// Encodes all but the payload for a place in a segment.
    pub fn encode(&self, tag: u64, offset: u64) -> Encoded {
        let meta = self.body.encode();
        let shape = self.shape_with(&meta);
        let header = Header {
            kind: self.body.kind(),
            tag,
            offset,
            sequence: self.sequence,
            running_secs: self.running_secs,
            unsynced: u32::try_from((self.sequence - 1).saturating_sub(self.durable))
                .unwrap_or(u32::MAX),
            shape,
            id: self.id,
            meta_crc: crc32c::crc32c(&meta),
        };
        let start = to_len(shape.payload_start(offset));
        let mut head = Vec::with_capacity(start);
        head.extend_from_slice(&header.encode());
        head.extend_from_slice(&meta);
        head.extend_from_slice(self.payload.outboard());
        head.resize(start, 0);
        let tail = shape.record_len(offset) - shape.payload_start(offset) - shape.payload_len;
        Encoded { header, head, tail_len: to_len(tail) }
    }
}

/// The id field of a record about a lease or an upload.
pub fn short_id(bytes: &[u8; 16]) -> [u8; 32] {
    let mut id = [0; 32];
    id[..16].copy_from_slice(bytes);
    id
}

/// The id field of a record, as the shard it names.
pub fn shard_of(id: &[u8; 32]) -> ShardId {
    ShardId::from_bytes(*id)
}

/// The id field of a record, as the block or object it names.
pub fn cid_of(id: &[u8; 32]) -> Cid {
    Cid::from_bytes(*id)
}

/// A length that is known to be far below any address space.
pub(crate) fn to_len(len: u64) -> usize {
    usize::try_from(len).expect("lengths of records fit the address space")
}

#[cfg(test)]
mod tests;
