// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the disks of a network, from the segment files alone.
//!
//! No index, no lock, no running node is asked. Every shard payload is read from its file and
//! hashed, so that what is counted is what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use supernode_protocol::ids::{Cid, ShardId, Slot, UploadId};
use supernode_protocol::tree::CHUNK_BYTES;
use supernode_store::record::{Body, Freed};
use supernode_store::segment::file_name;
use supernode_store::{StoreError, offline};

use crate::exit::{Exit, Failure};

/// What file systems give back.
const BLOCK_BYTES: u64 = 4096;

/// Slots of one data directory that a commit has bound to an object.
#[derive(Debug, Clone, Default)]
pub(super) struct DiskSlots {
    /// Object to its slots here.
    pub(super) committed: BTreeMap<Cid, BTreeMap<Slot, ShardId>>,
    /// Shard records whose payload hashes to their id.
    pub(super) sound_shards: BTreeSet<ShardId>,
    /// Shard records whose payload does not.
    pub(super) unsound_shards: BTreeSet<ShardId>,
    /// Where the newest record of each shard has its payload.
    pub(super) payloads: BTreeMap<ShardId, Payload>,
}

/// Bytes in a segment file.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    path: PathBuf,
    start: u64,
    len: u64,
}

impl Payload {
    /// Changes one byte in every audited chunk, past whoever has the file open.
    pub(super) fn damage(&self) -> std::io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        for chunk in (self.start..self.start + self.len).step_by(CHUNK_BYTES) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, chunk)?;
            file.write_all_at(&[byte[0] ^ 0xff], chunk)?;
        }
        file.sync_all()
    }

    /// Whether the file system keeps none of these bytes: the file is gone, or has a hole there.
    pub(super) fn is_hole(&self) -> std::io::Result<bool> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        // What is less than a block at either end may stay.
        let start = self.start.next_multiple_of(BLOCK_BYTES);
        let end = (self.start + self.len) / BLOCK_BYTES * BLOCK_BYTES;
        match seek(&file, SeekFrom::Data(start)) {
            Ok(data) => Ok(data >= end),
            Err(Errno::NXIO) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskSlots {
    /// The payloads of an object's slots here.
    pub(super) fn payloads_of(&self, object: Cid) -> Vec<(Slot, Payload)> {
        let slots = self.committed.get(&object).into_iter().flatten();
        let payload = |shard: &ShardId| self.payloads.get(shard).cloned();
        slots.filter_map(|(slot, shard)| Some((*slot, payload(shard)?))).collect()
    }

    /// Slots of an object whose bytes are on this disk, as their ids say.
    pub(super) fn sound_slots(&self, object: Cid) -> u64 {
        let slots = self.committed.get(&object).into_iter().flatten();
        slots.filter(|(_, shard)| self.sound_shards.contains(*shard)).count() as u64
    }
}

/// Slots of an object that a log still names, whatever became of their bytes.
pub(super) fn named(data_dir: &Path, object: Cid) -> Result<u64, Failure> {
    let disk = scan(data_dir)?;
    Ok(disk.committed.get(&object).map_or(0, |slots| slots.len()) as u64)
}

/// Reads a data directory and hashes every payload in it.
pub(super) fn read(data_dir: &Path) -> Result<DiskSlots, Failure> {
    let mut disk = scan(data_dir)?;
    for (shard, Payload { path, start, len }) in &disk.payloads {
        let sound = hash_of(path, *start, *len)
            .map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
        let is_sound = sound == *shard;
        let shards = if is_sound { &mut disk.sound_shards } else { &mut disk.unsound_shards };
        shards.insert(*shard);
    }
    Ok(disk)
}

fn scan(data_dir: &Path) -> Result<DiskSlots, Failure> {
    let mut uploads: BTreeMap<UploadId, BTreeMap<Slot, ShardId>> = BTreeMap::new();
    let mut disk = DiskSlots::default();
    let mut payloads: BTreeMap<ShardId, Payload> = BTreeMap::new();
    let mut groups = BTreeMap::new();
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
                    let path = data_dir.join(file_name(found.at.segment));
                    payloads.insert(shard, Payload { path, start, len });
                }
            }
            Body::Tombstone(Freed::Group { group }) => {
                let object = Cid::from_bytes(found.header.id);
                let stripes = groups.remove(&(object, *group)).unwrap_or(0..0);
                if let Some(slots) = disk.committed.get_mut(&object) {
                    slots.retain(|slot, _| !stripes.contains(&slot.stripe));
                }
            }
            Body::Tombstone(Freed::Shard) => {
                let shard = ShardId::from_bytes(found.header.id);
                payloads.remove(&shard);
            }
            Body::Commit(bound) => {
                let commit = &bound.commit;
                let stripes = commit.stripe_first..commit.stripe_first + commit.stripe_count;
                groups.insert((commit.object, commit.group), stripes.clone());
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
    disk.payloads = payloads;
    Ok(disk)
}

fn hash_of(path: &Path, start: u64, len: u64) -> std::io::Result<ShardId> {
    let len = usize::try_from(len).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    File::open(path)?.read_exact_at(&mut bytes, start)?;
    Ok(ShardId::from_bytes(*blake3::hash(&bytes).as_bytes()))
}
