// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 96 bytes before every record.

use super::{RECORD_VERSION, Shape};

/// Bytes of a record header.
pub const HEADER_BYTES: usize = 96;

/// `SNRC` begins every record.
pub(crate) const MAGIC: [u8; 4] = *b"SNRC";

/// What a record is. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A shard's bytes and its first slot.
    Shard = 1,
    /// One more slot of a shard.
    Slot = 2,
    /// A manifest block.
    Block = 3,
    /// A manifest block wanted by one more upload.
    BlockRef = 4,
    /// Binds an upload to an object.
    Commit = 5,
    /// A newer placement.
    Placement = 6,
    /// A change of a lease.
    Lease = 7,
    /// Something was freed.
    Tombstone = 8,
    /// Running time.
    Clock = 9,
    /// Bytes were given back.
    Reclaim = 10,
    /// What a group's holder keeps of the object's list of shards.
    Span = 11,
    /// A shard that is kept, moved here from an older segment.
    ShardCopy = 12,
    /// A manifest block that is kept, moved here from an older segment.
    BlockCopy = 13,
    /// What is so already, said again so that an older segment need not.
    Restate = 14,
    /// Reserved for volumes.
    Journal = 15,
}

impl Kind {
    /// All kinds, by number.
    pub const ALL: [Self; 15] = [
        Self::Shard,
        Self::Slot,
        Self::Block,
        Self::BlockRef,
        Self::Commit,
        Self::Placement,
        Self::Lease,
        Self::Tombstone,
        Self::Clock,
        Self::Reclaim,
        Self::Span,
        Self::ShardCopy,
        Self::BlockCopy,
        Self::Restate,
        Self::Journal,
    ];

    /// The kind's number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether its payload is a shard.
    pub fn is_shard(self) -> bool {
        matches!(self, Self::Shard | Self::ShardCopy)
    }

    /// Whether its payload is a manifest block.
    pub fn is_block(self) -> bool {
        matches!(self, Self::Block | Self::BlockCopy)
    }

    /// The kind's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Slot => "slot",
            Self::Block => "block",
            Self::BlockRef => "block-ref",
            Self::Commit => "commit",
            Self::Placement => "placement",
            Self::Lease => "lease",
            Self::Tombstone => "tombstone",
            Self::Clock => "clock",
            Self::Reclaim => "reclaim",
            Self::Span => "span",
            Self::ShardCopy => "shard-copy",
            Self::BlockCopy => "block-copy",
            Self::Restate => "restate",
            Self::Journal => "journal",
        }
    }
}

/// A record's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub kind: Kind,
    /// The tag of the segment it was written to.
    pub tag: u64,
    /// Where in that segment it was written.
    pub offset: u64,
    /// Its number in the log.
    pub sequence: u64,
    /// The node's running second when it was written. 32 bits on disk: 136 years.
    pub running_secs: u64,
    /// How many records right before it were not known to be durable when it was written.
    pub unsynced: u32,
    /// How long its parts are.
    pub shape: Shape,
    /// What it is about.
    pub id: [u8; 32],
    /// CRC32C of the meta.
    pub meta_crc: u32,
}

/// Bytes that are no header this program can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no record here, or its header is damaged.
    #[error("no record header, or a damaged one")]
    Invalid,
    /// It is whole, and of a version or kind from the future.
    #[error("record version {version}, kind {kind} is not known to this program")]
    Unknown {
        /// Format version.
        version: u8,
        /// Kind number.
        kind: u8,
    },
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &MAGIC);
        put(4, &[RECORD_VERSION, self.kind.number()]);
        put(8, &self.tag.to_le_bytes());
        put(16, &self.offset.to_le_bytes());
        put(24, &self.sequence.to_le_bytes());
        let running_secs = u32::try_from(self.running_secs).unwrap_or(u32::MAX);
        put(32, &running_secs.to_le_bytes());
        put(36, &self.unsynced.to_le_bytes());
        put(40, &self.shape.meta_len.to_le_bytes());
        put(44, &self.shape.outboard_len.to_le_bytes());
        put(48, &self.shape.payload_len.to_le_bytes());
        put(56, &self.id);
        put(88, &self.meta_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; `bytes` may be longer.
    ///
    /// # Errors
    /// [`HeaderError::Unknown`] only when the checksum holds, so damage never looks like a newer
    /// format.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(HeaderError::Invalid)?;
        if bytes[..4] != MAGIC || crc32c::crc32c(&bytes[..92]) != read_u32(bytes, 92) {
            return Err(HeaderError::Invalid);
        }
        let (version, number) = (bytes[4], bytes[5]);
        let kind = Kind::from_number(number).filter(|_| version == RECORD_VERSION);
        let kind = kind.ok_or(HeaderError::Unknown { version, kind: number })?;
        let shape = Shape {
            meta_len: read_u32(bytes, 40),
            outboard_len: read_u32(bytes, 44),
            payload_len: read_u64(bytes, 48),
        };
        if bytes[6..8] != [0, 0] || !shape.is_sane() {
            return Err(HeaderError::Invalid);
        }
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[56..88]);
        Ok(Self {
            kind,
            tag: read_u64(bytes, 8),
            offset: read_u64(bytes, 16),
            sequence: read_u64(bytes, 24),
            running_secs: u64::from(read_u32(bytes, 32)),
            unsynced: read_u32(bytes, 36),
            shape,
            id,
            meta_crc: read_u32(bytes, 88),
        })
    }

    /// The newest record that was durable for certain when this one was written.
    pub fn durable_before(&self) -> u64 {
        self.sequence.saturating_sub(1 + u64::from(self.unsynced))
    }

    /// Reads a header that must stand at `offset` of the segment with this tag.
    ///
    /// # Errors
    /// Also [`HeaderError::Invalid`] for a whole header that belongs elsewhere.
    pub fn decode_at(bytes: &[u8], tag: u64, offset: u64) -> Result<Self, HeaderError> {
        // A foreign header of an unknown kind must not stop a scan: check where it belongs first.
        if bytes.len() >= HEADER_BYTES && (read_u64(bytes, 8), read_u64(bytes, 16)) != (tag, offset)
        {
            return Err(HeaderError::Invalid);
        }
        Self::decode(bytes)
    }
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four"))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight"))
}
