// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of the map: small, and bounded in width. Whatever is larger (placements, missing slots)
//! stays in the log, and the value says where.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::{IndexError, Tally, Thing};
use crate::record::{PAYLOAD_ALIGN, Position, RECORD_ALIGN};

/// Whether bytes are wanted, and how much longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Under a lease or an open upload.
    Live,
    /// Released; can still be revived.
    Trash,
    /// Wanted by nobody.
    Dead,
}

/// Where a shard or block is, and who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its record.
    pub at: Position,
    /// Bytes from there to its payload.
    pub payload_start: u64,
    /// Bytes of payload.
    pub len: u64,
    /// References from uploads and covered groups.
    pub live: u32,
    /// References from groups in the trash.
    pub trash: u32,
    /// The segment of its first record since it was last freed.
    pub begun: u32,
}

impl Kept {
    /// Bytes that its record takes in its segment.
    pub fn record_len(&self) -> u64 {
        (self.payload_start + self.len).next_multiple_of(RECORD_ALIGN)
    }

    /// What its references make of it.
    pub fn state(&self) -> State {
        match (self.live, self.trash) {
            (0, 0) => State::Dead,
            (0, _) => State::Trash,
            _ => State::Live,
        }
    }
}

/// An upload that still holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadEntry {
    /// Who opened it.
    pub owner: NodeId,
    /// When it was last used.
    pub used_secs: u64,
    /// Its place in the queue; `None` if it may rest as long as it likes.
    pub queued_secs: Option<u64>,
    /// Slots it holds.
    pub slot_count: u32,
    /// Their bytes.
    pub slot_bytes: u64,
    /// Manifest blocks it holds.
    pub block_count: u32,
    /// The oldest segment with a record that made it what it is.
    pub begun: u32,
}

/// A group that this node keeps a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The newest record with all of a commit's facts: a commit, or what compaction made of it.
    pub commit: Position,
    /// Bytes it takes.
    pub commit_len: u64,
    /// The record (commit or placement) whose placement has precedence.
    pub placement: Position,
    /// That placement's epoch.
    pub epoch: u64,
    /// BLAKE3 of that placement's encoding.
    pub placement_hash: [u8; 32],
    /// The page's block, if it is not in the root.
    pub page: Option<Cid>,
    /// Whether it counts among the references of its root and of its page: not while a replay
    /// has yet to come to their record.
    pub refers: (bool, bool),
    /// Size of the whole object.
    pub object_bytes: u64,
    /// The group's first stripe.
    pub stripe_first: u32,
    /// Its stripes.
    pub stripe_count: u32,
    /// Leases that cover it.
    pub lease_count: u32,
    /// Slots held here.
    pub slot_count: u32,
    /// Their bytes, each slot counted.
    pub slot_bytes: u64,
    /// When its last lease ended, if none is left.
    pub trashed_secs: Option<u64>,
    /// Whether that was a cache lease: then it does not wait in the trash.
    pub evicted: bool,
    /// The oldest segment with a record that made it what it is.
    pub begun: u32,
}

impl GroupEntry {
    /// A live group that has nothing yet, first spoken of by the record at `at`.
    pub(super) fn empty(at: Position, begun: u32) -> Self {
        Self {
            commit: at,
            commit_len: 0,
            placement: at,
            epoch: 0,
            placement_hash: [0; 32],
            page: None,
            refers: (false, false),
            object_bytes: 0,
            stripe_first: 0,
            stripe_count: 0,
            lease_count: 0,
            slot_count: 0,
            slot_bytes: 0,
            trashed_secs: None,
            evicted: false,
            begun,
        }
    }
}

/// A lease. Running seconds are absolute here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// Who may renew and release it.
    pub owner: NodeId,
    /// Why it keeps what it keeps.
    pub kind: LeaseKind,
    /// When it ends; running seconds since the node's first start.
    pub expiry: Expiry,
    /// The running second it was opened in.
    pub created_secs: u64,
    /// Groups it covers here.
    pub group_count: u32,
    /// Their slots that are here, and the bytes of these.
    pub slots: Tally,
    /// Whether its end was moved since. Of a deal lease only the chain moves it.
    pub moved: bool,
    /// The segment of the commit that opened it.
    pub begun: u32,
}

/// What a segment holds, and whether it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Its records.
    pub records: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Things, uploads, groups and leases that live and were begun in it.
    pub anchors: u64,
    /// Bytes of records that are read again: of shards, blocks and commits.
    pub needed: u64,
    /// Payload bytes of its dead records that do not count as dead any more.
    pub returned: u64,
}

/// A record whose bytes nobody will ever want again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRecord {
    /// Whose bytes these were.
    pub thing: Thing,
    /// Bytes from the record's start to its payload.
    pub payload_start: u64,
    /// Bytes of payload.
    pub len: u64,
    /// Whether the whole blocks in the payload are a hole.
    pub punched: bool,
}

impl DeadRecord {
    /// The whole disk blocks of the payload of a record at `offset`: start and length.
    pub fn hole(&self, offset: u64) -> Option<(u64, u64)> {
        let payload = offset + self.payload_start;
        let start = payload.next_multiple_of(PAYLOAD_ALIGN);
        let end = (payload + self.len) / PAYLOAD_ALIGN * PAYLOAD_ALIGN;
        (start < end).then(|| (start, end - start))
    }

    /// Bytes that still count as dead.
    pub fn dead_bytes(&self, offset: u64) -> u64 {
        let hole = self.hole(offset).filter(|_| self.punched);
        self.len - hole.map_or(0, |(_, len)| len)
    }
}

impl LeaseState {
    /// Whether the chain has said when this (deal) lease ends.
    pub fn is_settled(&self) -> bool {
        self.kind == LeaseKind::Deal && self.moved
    }
}

/// Writes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("a value in memory has an encoding")
}

/// Reads a value; what does not decode is index damage that its checksum missed.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, IndexError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(malformed(key)),
    }
}

/// An entry that cannot be read.
pub(super) fn malformed(key: &[u8]) -> IndexError {
    let kind = key.first().map_or('?', |byte| char::from(*byte));
    IndexError::new(format!("an entry of kind {kind:?} does not decode"))
}
