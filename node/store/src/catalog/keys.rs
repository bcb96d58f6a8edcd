// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of the map. The first byte says what a key is; the rest is fixed-width, numbers big-endian,
//! so that order in the map is order in time, stripe and group.

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};

use super::Thing;
use crate::record::Position;

/// A shard's place and references.
pub const SHARD: u8 = b'S';
/// A manifest block's place and references.
pub const BLOCK: u8 = b'B';
/// A slot of an upload, to its shard.
pub const UPLOAD_SLOT: u8 = b'u';
/// A manifest block of an upload.
pub const UPLOAD_BLOCK: u8 = b'b';
/// An open upload.
pub const UPLOAD: u8 = b'U';
/// A slot of an object, to its shard.
pub const OBJECT_SLOT: u8 = b'o';
/// A group.
pub const GROUP: u8 = b'G';
/// A group's span, to its record.
pub const SPAN: u8 = b'P';
/// A lease that covers a group, by group.
pub const COVER: u8 = b'C';
/// A group that a lease covers, by lease.
pub const LEASE_GROUP: u8 = b'g';
/// A lease.
pub const LEASE: u8 = b'l';
/// A lease that is a deal's.
pub const DEAL: u8 = b'd';
/// A lease, by owner.
pub const OWNER: u8 = b'w';
/// Something that was freed.
pub const TOMBSTONE: u8 = b'T';
/// Things that are due at some running second.
pub const QUEUE: u8 = b'X';
/// A segment's figures.
pub const SEGMENT: u8 = b's';
/// A dead record, by place.
pub const DEAD: u8 = b'H';
/// The newest segment that is gone.
pub const GONE: u8 = b'N';
/// The usage figures.
pub const USAGE: u8 = b'c';

/// Leases by their end.
pub const QUEUE_LEASE: u8 = b'l';
/// Deal leases by the finalised height they end at.
pub const QUEUE_DEAL: u8 = b'd';
/// Uploads by their last use (within a minute).
pub const QUEUE_UPLOAD: u8 = b'u';
/// Groups by when they came into the trash.
pub const QUEUE_TRASH: u8 = b't';
/// Shards and blocks without any reference, waiting for their tombstone.
pub const QUEUE_DEAD: u8 = b'f';

/// Groups that nothing but a cache lease kept, waiting for their tombstone.
pub const QUEUE_EVICTED: u8 = b'e';
/// Dead records whose blocks can be given back.
pub const QUEUE_PUNCH: u8 = b'p';

/// Concatenates the parts of a key.
fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(1 + len);
    key.push(prefix);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Place and references of a shard or block.
pub fn thing(thing: Thing) -> Vec<u8> {
    match thing {
        Thing::Shard(shard) => key(SHARD, &[shard.as_bytes()]),
        Thing::Block(cid) => key(BLOCK, &[cid.as_bytes()]),
    }
}

/// A freed shard or block.
pub fn tombstone(thing: Thing) -> Vec<u8> {
    match thing {
        Thing::Shard(shard) => key(TOMBSTONE, &[&[SHARD], shard.as_bytes()]),
        Thing::Block(cid) => key(TOMBSTONE, &[&[BLOCK], cid.as_bytes()]),
    }
}

/// A shard or block that waits for its tombstone.
pub fn queue_dead(thing: Thing) -> Vec<u8> {
    match thing {
        Thing::Shard(shard) => key(QUEUE, &[&[QUEUE_DEAD, SHARD], shard.as_bytes()]),
        Thing::Block(cid) => key(QUEUE, &[&[QUEUE_DEAD, BLOCK], cid.as_bytes()]),
    }
}

/// An upload.
pub fn upload(upload: UploadId) -> Vec<u8> {
    key(UPLOAD, &[upload.as_bytes()])
}

/// All slots of an upload.
pub fn upload_slots(upload: UploadId) -> Vec<u8> {
    key(UPLOAD_SLOT, &[upload.as_bytes()])
}

/// A slot of an upload.
pub fn upload_slot(upload: UploadId, slot: Slot) -> Vec<u8> {
    key(UPLOAD_SLOT, &[upload.as_bytes(), &slot_bytes(slot)])
}

/// All manifest blocks of an upload.
pub fn upload_blocks(upload: UploadId) -> Vec<u8> {
    key(UPLOAD_BLOCK, &[upload.as_bytes()])
}

/// A manifest block of an upload.
pub fn upload_block(upload: UploadId, cid: Cid) -> Vec<u8> {
    key(UPLOAD_BLOCK, &[upload.as_bytes(), cid.as_bytes()])
}

/// All slots of a group.
pub fn group_slots(object: Cid, group: u32) -> Vec<u8> {
    key(OBJECT_SLOT, &[object.as_bytes(), &group.to_be_bytes()])
}

/// A slot of a group.
pub fn group_slot(object: Cid, group: u32, slot: Slot) -> Vec<u8> {
    key(OBJECT_SLOT, &[object.as_bytes(), &group.to_be_bytes(), &slot_bytes(slot)])
}

/// All groups of an object.
pub fn object_groups(object: Cid) -> Vec<u8> {
    key(GROUP, &[object.as_bytes()])
}

/// A group.
pub fn group(object: Cid, group: u32) -> Vec<u8> {
    key(GROUP, &[object.as_bytes(), &group.to_be_bytes()])
}

/// A group's span.
pub fn span(object: Cid, group: u32) -> Vec<u8> {
    key(SPAN, &[object.as_bytes(), &group.to_be_bytes()])
}

/// All leases of a group.
pub fn covers(object: Cid, group: u32) -> Vec<u8> {
    key(COVER, &[object.as_bytes(), &group.to_be_bytes()])
}

/// One lease of a group.
pub fn cover(object: Cid, group: u32, lease: LeaseId) -> Vec<u8> {
    key(COVER, &[object.as_bytes(), &group.to_be_bytes(), lease.as_bytes()])
}

/// All groups of a lease.
pub fn lease_groups(lease: LeaseId) -> Vec<u8> {
    key(LEASE_GROUP, &[lease.as_bytes()])
}

/// One group of a lease.
pub fn lease_group(lease: LeaseId, object: Cid, group: u32) -> Vec<u8> {
    key(LEASE_GROUP, &[lease.as_bytes(), object.as_bytes(), &group.to_be_bytes()])
}

/// A lease.
pub fn lease(lease: LeaseId) -> Vec<u8> {
    key(LEASE, &[lease.as_bytes()])
}

/// All leases of an owner.
pub fn owner(owner: NodeId) -> Vec<u8> {
    key(OWNER, &[owner.as_bytes()])
}

/// One lease of an owner.
pub fn owner_lease(owner: NodeId, lease: LeaseId) -> Vec<u8> {
    key(OWNER, &[owner.as_bytes(), lease.as_bytes()])
}

/// A lease by its end.
pub fn queue_lease(end_secs: u64, lease: LeaseId) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_LEASE], &end_secs.to_be_bytes(), lease.as_bytes()])
}

/// A deal lease.
pub fn deal(lease: LeaseId) -> Vec<u8> {
    key(DEAL, &[lease.as_bytes()])
}

/// A deal lease by its end.
pub fn queue_deal(height: u64, lease: LeaseId) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_DEAL], &height.to_be_bytes(), lease.as_bytes()])
}

/// An upload by its use.
pub fn queue_upload(used_secs: u64, upload: UploadId) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_UPLOAD], &used_secs.to_be_bytes(), upload.as_bytes()])
}

/// A group by when it came into the trash.
pub fn queue_trash(trashed_secs: u64, object: Cid, group: u32) -> Vec<u8> {
    let secs = trashed_secs.to_be_bytes();
    key(QUEUE, &[&[QUEUE_TRASH], &secs, object.as_bytes(), &group.to_be_bytes()])
}

/// A group that waits for nothing but its tombstone.
pub fn queue_evicted(object: Cid, group: u32) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_EVICTED], object.as_bytes(), &group.to_be_bytes()])
}

/// Dead records of a segment whose blocks can be given back.
pub fn queue_punches(segment: u32) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_PUNCH], &segment.to_be_bytes()])
}

/// A dead record whose blocks can be given back.
pub fn queue_punch(at: Position) -> Vec<u8> {
    key(QUEUE, &[&[QUEUE_PUNCH], &at.segment.to_be_bytes(), &at.offset.to_be_bytes()])
}

/// A dead record.
pub fn dead(at: Position) -> Vec<u8> {
    key(DEAD, &[&at.segment.to_be_bytes(), &at.offset.to_be_bytes()])
}

/// A segment's figures.
pub fn segment(number: u32) -> Vec<u8> {
    key(SEGMENT, &[&number.to_be_bytes()])
}

/// The newest segment that is gone.
pub fn gone() -> Vec<u8> {
    vec![GONE]
}

/// The keys of a queue up to and including a running second: start and end.
pub fn queue_until(queue: u8, secs: u64) -> (Vec<u8>, Vec<u8>) {
    let end = match secs.checked_add(1) {
        Some(next) => key(QUEUE, &[&[queue], &next.to_be_bytes()]),
        None => prefix_end(&[QUEUE, queue]),
    };
    (vec![QUEUE, queue], end)
}

/// The usage figures.
pub fn usage() -> Vec<u8> {
    vec![USAGE]
}

/// The first key that does not begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All ones: nothing in this map begins like that, so any high key will do.
    vec![u8::MAX; prefix.len() + 1]
}

/// The first key after `key`.
pub fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn slot_bytes(slot: Slot) -> [u8; 6] {
    let mut bytes = [0; 6];
    bytes[..4].copy_from_slice(&slot.stripe.to_be_bytes());
    bytes[4..].copy_from_slice(&slot.index.to_be_bytes());
    bytes
}

/// Takes ids and numbers off the end of a key whose kind is known.
pub struct KeyParts<'a>(&'a [u8]);

impl<'a> KeyParts<'a> {
    /// The parts after `prefix_len` bytes.
    pub fn after(key: &'a [u8], prefix_len: usize) -> Self {
        Self(key.get(prefix_len..).unwrap_or_default())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next 32 bytes as a CID.
    pub fn cid(&mut self) -> Option<Cid> {
        self.take().map(Cid::from_bytes)
    }

    /// The next 32 bytes as a shard id.
    pub fn shard(&mut self) -> Option<ShardId> {
        self.take().map(ShardId::from_bytes)
    }

    /// The next 16 bytes as a lease id.
    pub fn lease(&mut self) -> Option<LeaseId> {
        self.take().map(LeaseId::from_bytes)
    }

    /// The next 16 bytes as an upload id.
    pub fn upload(&mut self) -> Option<UploadId> {
        self.take().map(UploadId::from_bytes)
    }

    /// The next 8 bytes as a number.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// The next 4 bytes as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    /// The next 12 bytes as a place in the log.
    pub fn position(&mut self) -> Option<Position> {
        let segment = self.u32()?;
        Some(Position { segment, offset: self.u64()? })
    }

    /// The next 6 bytes as a slot.
    pub fn slot(&mut self) -> Option<Slot> {
        let stripe = self.u32()?;
        let index = u16::from_be_bytes(self.take()?);
        Some(Slot { stripe, index })
    }
}
