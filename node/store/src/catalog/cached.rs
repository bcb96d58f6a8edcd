// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shards that the node keeps of its own accord, until it wants their room.
//!
//! A cached shard is slot 0 of an upload of its own, which the node itself owns and whose id
//! follows from the shard's. Such an upload does not end by resting, so it is in no queue;
//! abandoning it evicts the shard. To everything else it is an upload like any other: the shard
//! stays as long as something else refers to it too, and what nothing refers to is buried and
//! reclaimed. Only compaction knows it apart, because it has to move what does not end.

use supernode_protocol::ids::{NodeId, ShardId, Slot, UploadId};

use super::entries::{UploadEntry, decode, malformed};
use super::keys::{self, KeyParts};
use super::query::PAGE;
use super::{Catalog, IndexError, KvRead, Thing};
use crate::record::Position;

/// Separates ids of these uploads from all other hashes.
const CONTEXT: &str = "supernode 2026 upload of a cached shard";

/// The position of a cached shard in its upload.
pub const CACHED_SLOT: Slot = Slot { stripe: 0, index: 0 };

/// The upload that keeps a cached shard.
pub fn cached_upload(shard: ShardId) -> UploadId {
    let mut id = [0; UploadId::LEN];
    blake3::Hasher::new_derive_key(CONTEXT).update(shard.as_bytes()).finalize_xof().fill(&mut id);
    UploadId::from_bytes(id)
}

/// A shard in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedShard {
    /// Which.
    pub shard: ShardId,
    /// Its length.
    pub len: u64,
    /// The running second in which it came, and where its bytes are: sorts by age.
    pub age: (u64, Position),
}

/// A cached shard, with its upload.
type CachedUpload = (UploadId, UploadEntry, ShardId);

impl<K: KvRead + ?Sized> Catalog<'_, K> {
    /// The shard that an upload caches, if that is what it is for.
    pub fn cached_by(
        &self,
        upload: UploadId,
        entry: &UploadEntry,
    ) -> Result<Option<ShardId>, IndexError> {
        if entry.queued_secs.is_some() {
            return Ok(None);
        }
        let slot = self.0.get(&keys::upload_slot(upload, CACHED_SLOT))?;
        Ok(slot.and_then(|value| ShardId::from_slice(&value)))
    }

    /// Cached shards whose uploads were begun in a segment or before it, after an upload: the next
    /// `limit`. Walks over all uploads.
    pub fn cached_begun(
        &self,
        through: u32,
        mut after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<CachedUpload>, IndexError> {
        let mut begun = Vec::new();
        while begun.len() < limit {
            let page = self.uploads(after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (upload, entry) in page {
                if entry.begun > through || begun.len() == limit {
                    continue;
                }
                if let Some(shard) = self.cached_by(upload, &entry)? {
                    begun.push((upload, entry, shard));
                }
            }
        }
        Ok(begun)
    }

    /// The next `limit` uploads after one.
    fn uploads(
        &self,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<(UploadId, UploadEntry)>, IndexError> {
        let start = after.map_or(vec![keys::UPLOAD], |upload| keys::after(&keys::upload(upload)));
        let pairs = self.0.range(&start, &keys::prefix_end(&[keys::UPLOAD]), limit)?;
        let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let upload = KeyParts::after(key, 1).upload().ok_or_else(|| malformed(key))?;
            Ok((upload, decode(key, value)?))
        };
        pairs.iter().map(parse).collect()
    }

    /// Cached shards of a node among the next `limit` uploads after one, and the last of these;
    /// `None` behind the end.
    pub fn cached(
        &self,
        node: NodeId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<(Vec<CachedShard>, Option<UploadId>), IndexError> {
        let mut cached = Vec::new();
        let page = self.uploads(after, limit)?;
        let last = page.last().map(|(upload, _)| *upload);
        for (upload, entry) in page {
            if entry.owner != node {
                continue;
            }
            let Some(shard) = self.cached_by(upload, &entry)? else { continue };
            let Some(kept) = self.kept(Thing::Shard(shard))? else { continue };
            cached.push(CachedShard { shard, len: kept.len, age: (entry.used_secs, kept.at) });
        }
        Ok((cached, last))
    }
}
