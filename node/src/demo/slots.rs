// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the disks of a network, from the segment files alone.
//!
//! No index, no lock, no running node is asked. Every shard payload is read from its file and
//! hashed, so that what is counted is what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use supernode_protocol::ids::{Cid, ShardId, Slot, UploadId};
use supernode_store::record::Body;
use supernode_store::segment::file_name;
use supernode_store::{StoreError, offline};

use crate::exit::{Exit, Failure};

/// Slots of one data directory that a commit has bound to an object.
#[derive(Debug, Clone, Default)]
pub(super) struct DiskSlots {
    /// Object to its slots here.
    pub(super) committed: BTreeMap<Cid, BTreeMap<Slot, ShardId>>,
    /// Shard records whose payload hashes to their id.
    pub(super) sound_shards: BTreeSet<ShardId>,
    /// Shard records whose payload does not.
    pub(super) unsound_shards: BTreeSet<ShardId>,
}

impl DiskSlots {
    /// Slots of an object whose bytes are on this disk, as their ids say.
    pub(super) fn sound_slots(&self, object: Cid) -> u64 {
        let slots = self.committed.get(&object).into_iter().flatten();
        slots.filter(|(_, shard)| self.sound_shards.contains(*shard)).count() as u64
    }
}

/// Reads a data directory.
pub(super) fn read(data_dir: &Path) -> Result<DiskSlots, Failure> {
    let mut uploads: BTreeMap<UploadId, BTreeMap<Slot, ShardId>> = BTreeMap::new();
    let mut disk = DiskSlots::default();
    let mut payloads = Vec::new();
    offline::scan(data_dir, |found| {
        match &found.body {
            Body::Shard(placed) | Body::Slot(placed) => {
                let shard = ShardId::from_bytes(found.header.id);
                let slots = uploads.entry(placed.holder.upload).or_default();
                slots.insert(placed.slot, shard);
                if matches!(found.body, Body::Shard(_)) {
                    let at = found.at.offset;
                    let start = at + found.header.shape.payload_start(at);
                    let len = found.header.shape.payload_len;
                    payloads.push((shard, found.at.segment, start, len));
                }
            }
            Body::Commit(bound) => {
                let commit = &bound.commit;
                let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
                let slots = uploads.get(&commit.upload).into_iter().flatten();
                let bound = slots.filter(|(slot, _)| stripes.contains(&slot.stripe));
                let object = disk.committed.entry(commit.object).or_default();
                object.extend(bound.map(|(slot, shard)| (*slot, *shard)));
            }
            _ => {}
        }
        Ok::<(), StoreError>(())
    })
    .map_err(|error| Failure::of(Exit::Failed, &error))?;
    for (shard, segment, start, len) in payloads {
        let path = data_dir.join(file_name(segment));
        let sound = hash_of(&path, start, len)
            .map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
        let shards = if sound == shard { &mut disk.sound_shards } else { &mut disk.unsound_shards };
        shards.insert(shard);
    }
    Ok(disk)
}

fn hash_of(path: &Path, start: u64, len: u64) -> std::io::Result<ShardId> {
    let len = usize::try_from(len).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    File::open(path)?.read_exact_at(&mut bytes, start)?;
    Ok(ShardId::from_bytes(*blake3::hash(&bytes).as_bytes()))
}
