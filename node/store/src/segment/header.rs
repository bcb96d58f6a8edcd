// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first two disk blocks of a segment.

use supernode_protocol::ids::NodeId;

use super::{FooterPlace, Predecessor, SEGMENT_VERSION};
use crate::record::{read_u32, read_u64};

/// Bytes before the first record.
pub const SEGMENT_HEADER_BYTES: usize = 8192;
/// The header is there twice, once per disk block.
const COPIES: [usize; 2] = [0, 4096];
const COPY_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"SNSEGMNT";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The version of its format, on which depends what may be in it.
    pub version: u32,
    /// Its number, which is its name.
    pub number: u32,
    /// The secret that its records repeat.
    pub tag: u64,
    /// Whose disk this is.
    pub node: NodeId,
    /// Records in it have at least this number.
    pub first_sequence: u64,
    /// The segment before it, and where that one ends.
    pub previous: Predecessor,
}

/// Bytes that are no segment header this program can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// Neither copy is whole.
    #[error("no segment header, or a damaged one")]
    Invalid,
    /// Whole, and from the future.
    #[error("segment format {version} is not known to this program")]
    Unknown {
        /// The version it states.
        version: u32,
    },
}

impl SegmentHeader {
    /// Both blocks.
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = [0; COPY_BYTES];
        let mut put = |at: usize, part: &[u8]| copy[at..at + part.len()].copy_from_slice(part);
        put(0, &MAGIC);
        put(8, &self.version.to_le_bytes());
        put(12, &self.number.to_le_bytes());
        put(16, &self.tag.to_le_bytes());
        put(24, self.node.as_bytes());
        put(56, &self.first_sequence.to_le_bytes());
        put(64, &self.previous.end.to_le_bytes());
        put(72, &self.previous.number.to_le_bytes());
        if let Some(footer) = self.previous.footer {
            put(76, &footer.offset.to_le_bytes());
            put(84, &footer.len.to_le_bytes());
            put(92, &footer.crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&copy[..124]);
        copy[124..].copy_from_slice(&crc.to_le_bytes());
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        for at in COPIES {
            block[at..at + COPY_BYTES].copy_from_slice(&copy);
        }
        block
    }

    /// Reads the blocks; one good copy is enough.
    ///
    /// # Errors
    /// [`SegmentHeaderError::Unknown`] only when the checksum of the copy holds.
    pub fn decode(block: &[u8]) -> Result<Self, SegmentHeaderError> {
        let mut outcome = Err(SegmentHeaderError::Invalid);
        for at in COPIES {
            let Some(copy) = block.get(at..at + COPY_BYTES) else { break };
            match Self::decode_copy(copy) {
                Err(SegmentHeaderError::Invalid) => {}
                whole => {
                    outcome = whole;
                    break;
                }
            }
        }
        outcome
    }

    /// How many copies in these blocks are not this header.
    pub fn damaged_copies(&self, blocks: &[u8]) -> u64 {
        let is_whole = |at: &usize| {
            let copy = blocks.get(*at..at + COPY_BYTES);
            copy.and_then(|copy| Self::decode_copy(copy).ok()) == Some(*self)
        };
        COPIES.iter().filter(|at| !is_whole(at)).count() as u64
    }

    fn decode_copy(copy: &[u8]) -> Result<Self, SegmentHeaderError> {
        if copy[..8] != MAGIC || crc32c::crc32c(&copy[..124]) != read_u32(copy, 124) {
            return Err(SegmentHeaderError::Invalid);
        }
        let version = read_u32(copy, 8);
        if !(1..=SEGMENT_VERSION).contains(&version) {
            return Err(SegmentHeaderError::Unknown { version });
        }
        let node = NodeId::from_slice(&copy[24..56]).ok_or(SegmentHeaderError::Invalid)?;
        let footer = FooterPlace {
            offset: read_u64(copy, 76),
            len: read_u64(copy, 84),
            crc: read_u32(copy, 92),
        };
        Ok(Self {
            version,
            number: read_u32(copy, 12),
            tag: read_u64(copy, 16),
            node,
            first_sequence: read_u64(copy, 56),
            previous: Predecessor {
                end: read_u64(copy, 64),
                number: read_u32(copy, 72),
                footer: Some(footer).filter(|footer| version >= 2 && footer.offset > 0),
            },
        })
    }
}
