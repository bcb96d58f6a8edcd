// SPDX-License-Identifier: MIT OR Apache-2.0
//! The map as text: what is kept and why, without places and without anything that moves by itself.
//!
//! Two dumps are equal exactly when the same things are kept for the same reasons, whatever the
//! order of writing, the number of segments, or the age of the index.

use supernode_protocol::ids::{ShardId, Slot};
use supernode_protocol::lease::Expiry;

use super::entries::{GroupEntry, Kept, LeaseState, State, UploadEntry, decode, malformed};
use super::keys::{self, KeyParts, prefix_end};
use super::query::{PAGE, group_of, thing_of};
use super::{IndexError, KvRead, Thing};

/// How one kind of entry is written.
type Line = fn(&[u8], &[u8]) -> Result<String, IndexError>;

/// All lines, sorted.
///
/// # Errors
/// When the map cannot be read.
pub fn dump_lines<K: KvRead + ?Sized>(kv: &K) -> Result<Vec<String>, IndexError> {
    let mut lines = Vec::new();
    let kinds: [(u8, Line); 9] = [
        (keys::SHARD, thing_line),
        (keys::BLOCK, thing_line),
        (keys::UPLOAD_SLOT, upload_slot_line),
        (keys::UPLOAD_BLOCK, upload_block_line),
        (keys::UPLOAD, upload_line),
        (keys::OBJECT_SLOT, object_slot_line),
        (keys::GROUP, manifest_line),
        (keys::LEASE, lease_line),
        (keys::TOMBSTONE, tombstone_line),
    ];
    for (prefix, line) in kinds {
        visit(kv, prefix, |key, value| {
            lines.push(line(key, value)?);
            Ok(())
        })?;
    }
    visit(kv, keys::SPAN, |key, _| {
        let (object, group) = group_of(key, 1)?;
        lines.push(format!("span object {object} {group}"));
        Ok(())
    })?;
    visit(kv, keys::LEASE_GROUP, |key, _| {
        let lease = KeyParts::after(key, 1).lease().ok_or_else(|| malformed(key))?;
        let (object, group) = group_of(key, 1 + 16)?;
        lines.push(format!("cover {lease} {object} {group}"));
        Ok(())
    })?;
    lines.sort_unstable();
    Ok(lines)
}

/// Visits everything under a prefix byte, page by page.
pub(crate) fn visit<K: KvRead + ?Sized>(
    kv: &K,
    prefix: u8,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut start = vec![prefix];
    let end = prefix_end(&start);
    loop {
        let pairs = kv.range(&start, &end, PAGE)?;
        let Some((last, _)) = pairs.last() else { return Ok(()) };
        start = keys::after(last);
        pairs.iter().try_for_each(|(key, value)| each(key, value))?;
    }
}

fn thing_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let kept: Kept = decode(key, value)?;
    let state = match kept.state() {
        State::Live => "live",
        State::Trash => "trash",
        State::Dead => "dead",
    };
    Ok(match thing_of(key, 0).ok_or_else(|| malformed(key))? {
        Thing::Shard(shard) => format!("shard {shard} {} {state}", kept.len),
        Thing::Block(cid) => format!("block {cid} {} {state}", kept.len),
    })
}

fn upload_slot_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let mut parts = KeyParts::after(key, 1);
    let slot = parts.upload().and_then(|upload| Some((upload, parts.slot()?)));
    let (upload, slot) = slot.ok_or_else(|| malformed(key))?;
    Ok(format!("slot upload {upload} {}", slot_text(key, slot, value)?))
}

fn object_slot_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let (object, group) = group_of(key, 1)?;
    let slot = KeyParts::after(key, 1 + 32 + 4).slot().ok_or_else(|| malformed(key))?;
    Ok(format!("slot object {object} {group} {}", slot_text(key, slot, value)?))
}

fn slot_text(key: &[u8], slot: Slot, value: &[u8]) -> Result<String, IndexError> {
    let shard = ShardId::from_slice(value).ok_or_else(|| malformed(key))?;
    Ok(format!("{} {} {shard}", slot.stripe, slot.index))
}

fn upload_block_line(key: &[u8], _: &[u8]) -> Result<String, IndexError> {
    let mut parts = KeyParts::after(key, 1);
    let block = parts.upload().and_then(|upload| Some((upload, parts.cid()?)));
    let (upload, cid) = block.ok_or_else(|| malformed(key))?;
    Ok(format!("manifest upload {upload} {cid}"))
}

fn upload_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let upload = KeyParts::after(key, 1).upload().ok_or_else(|| malformed(key))?;
    let entry: UploadEntry = decode(key, value)?;
    Ok(format!("lease {upload} upload {}", entry.owner))
}

fn manifest_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let (object, group) = group_of(key, 1)?;
    let entry: GroupEntry = decode(key, value)?;
    let page = entry.page.map_or_else(|| "root".to_owned(), |page| page.to_string());
    let state = match entry.trashed_secs {
        None => "live".to_owned(),
        Some(secs) => format!("trash {secs}"),
    };
    Ok(format!(
        "manifest object {object} {group} {page} size {} stripes {}+{} placement {} {} {state}",
        entry.object_bytes,
        entry.stripe_first,
        entry.stripe_count,
        entry.epoch,
        ShardId::from_bytes(entry.placement_hash),
    ))
}

fn lease_line(key: &[u8], value: &[u8]) -> Result<String, IndexError> {
    let lease = KeyParts::after(key, 1).lease().ok_or_else(|| malformed(key))?;
    let state: LeaseState = decode(key, value)?;
    let end = match state.expiry {
        Expiry::RunningSeconds(secs) => format!("second {secs}"),
        Expiry::FinalisedHeight(height) => format!("height {height}"),
        Expiry::Never => "never".to_owned(),
    };
    Ok(format!("lease {lease} {} {} {end}", state.kind.name(), state.owner))
}

fn tombstone_line(key: &[u8], _: &[u8]) -> Result<String, IndexError> {
    Ok(match thing_of(key, 1).ok_or_else(|| malformed(key))? {
        Thing::Shard(shard) => format!("tombstone shard {shard}"),
        Thing::Block(cid) => format!("tombstone block {cid}"),
    })
}
