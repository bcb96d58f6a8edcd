// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures that change with each record and are never counted by walking (except to check them).

use serde::{Deserialize, Serialize};
use supernode_protocol::lease::LeaseKind;

use super::{State, kind_index};

/// How many, and how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Records with bytes, by what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByState {
    /// Under a lease or an open upload.
    pub live: Tally,
    /// Released, can be revived.
    pub trash: Tally,
    /// Wanted by nobody, or written again elsewhere. Still on disk: space is not reclaimed yet.
    pub dead: Tally,
}

impl ByState {
    pub(crate) fn of(&mut self, state: State) -> &mut Tally {
        match state {
            State::Live => &mut self.live,
            State::Trash => &mut self.trash,
            State::Dead => &mut self.dead,
        }
    }
}

/// Leases of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseUsage {
    /// How many leases (for uploads: open uploads).
    pub count: u64,
    /// Slot bytes they cover; what two leases cover counts for both.
    pub bytes: u64,
}

/// What this node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Distinct shards.
    pub shards: ByState,
    /// Distinct manifest blocks.
    pub blocks: ByState,
    /// Slots of covered groups.
    pub live_slots: u64,
    /// Slots of groups in the trash.
    pub trash_slots: u64,
    /// Slots of uploads without a commit.
    pub upload_slots: u64,
    /// Covered groups.
    pub live_groups: u64,
    /// Groups in the trash.
    pub trash_groups: u64,
    /// Shards and blocks that were freed and did not come back.
    pub tombstones: u64,
    /// Leases by kind, in the order deal, upload, pin, repair, cache.
    pub leases: [LeaseUsage; 5],
    /// Records in the log.
    pub records: u64,
    /// Bytes they take.
    pub log_bytes: u64,
    /// Bytes of those that are read again: of what is kept, and of the groups' commits.
    pub needed_bytes: u64,
    /// Bytes inside them that were given back as holes.
    pub returned_bytes: u64,
    /// Bytes inside them that may be given back so.
    pub punchable_bytes: u64,
}

impl Usage {
    /// The figures of one kind of lease.
    pub fn leases_of_kind(&self, kind: LeaseKind) -> &LeaseUsage {
        &self.leases[kind_index(kind)]
    }

    pub(crate) fn leases_of_kind_mut(&mut self, kind: LeaseKind) -> &mut LeaseUsage {
        &mut self.leases[kind_index(kind)]
    }

    /// Bytes on disk that compaction would spare, and holes would not.
    pub fn waste_bytes(&self) -> u64 {
        self.log_bytes
            .saturating_sub(self.needed_bytes + self.returned_bytes + self.punchable_bytes)
    }

    /// Payload bytes in a state, shards and manifest blocks together.
    pub fn bytes(&self, state: State) -> u64 {
        let (shards, blocks) = match state {
            State::Live => (self.shards.live, self.blocks.live),
            State::Trash => (self.shards.trash, self.blocks.trash),
            State::Dead => (self.shards.dead, self.blocks.dead),
        };
        shards.bytes + blocks.bytes
    }
}
