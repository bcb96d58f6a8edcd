// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store's settings. Plain integers, units last; the binary reads human text into them.

use std::path::{Path, PathBuf};

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::NodeId;
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::limits::SHARD_BYTES_MAX;

use crate::disk::Io;
use crate::error::StoreError;

/// How a setting says that a kind is like the rest.
const AS_NODE: &str = "as-node";

/// What an acknowledgement of a put promises. The chain's word about deals is on disk in any mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// On disk; waits up to `batch_window_millis`, but no longer than a sync takes, to share the
    /// sync. Loses nothing.
    #[default]
    Batched,
    /// On disk; does not wait for company. Loses nothing.
    Strict,
    /// Handed to the operating system. A power cut may lose the last `sync_interval_millis` of
    /// acknowledged operations; a crash of this process loses none.
    Relaxed,
    /// As `relaxed` today; promises less: a crash of this process too may lose the last
    /// `sync_interval_millis`, so that a later version may answer from memory.
    Async,
}

impl Durability {
    /// As settings have it.
    fn name(self) -> &'static str {
        match self {
            Self::Batched => "batched",
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
            Self::Async => "async",
        }
    }

    /// Whether an acknowledgement waits for the disk.
    pub fn waits_for_sync(self) -> bool {
        matches!(self, Self::Batched | Self::Strict)
    }
}

/// What the acknowledgement of a lease's commits, renewals and releases promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KindDurability {
    /// What the node's `durability` does.
    #[default]
    AsNode,
    /// This.
    Only(Durability),
}

impl KindDurability {
    fn over(self, node: Durability) -> Durability {
        match self {
            Self::AsNode => node,
            Self::Only(durability) => durability,
        }
    }
}

impl TryFrom<String> for KindDurability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == AS_NODE {
            return Ok(Self::AsNode);
        }
        let named = Durability::deserialize(text.as_str().into_deserializer());
        named.map(Self::Only).map_err(|error: serde::de::value::Error| {
            format!("{error}, or `{AS_NODE}` for what `durability` says")
        })
    }
}

impl From<KindDurability> for String {
    fn from(durability: KindDurability) -> Self {
        match durability {
            KindDurability::AsNode => AS_NODE,
            KindDurability::Only(durability) => durability.name(),
        }
        .to_owned()
    }
}

/// Durability by lease kind, where it differs from the node's. A commit that waits for the disk
/// waits for all that was put before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseDurability {
    /// Deals. What the chain says of them is on disk before it is acknowledged in any case.
    pub deal: KindDurability,
    /// Pins.
    pub pin: KindDurability,
    /// Repairs.
    pub repair: KindDurability,
    /// Cached groups.
    pub cache: KindDurability,
}

/// One disk of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Its directory, where a file system of its own is mounted.
    pub path: PathBuf,
    /// Bytes of shards offered of it; 0 takes none.
    pub capacity_bytes: u64,
}

/// How a store works. See `configs/` for the annotated example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The data directory; created if missing. Set by the binary, not in the file's store section.
    #[serde(skip)]
    pub path: PathBuf,
    /// Whose directory it is. Set by the binary from the identity.
    #[serde(skip, default = "nobody")]
    pub node: NodeId,
    /// Bytes of shards this node offers; 0 takes none.
    pub capacity_bytes: u64,
    /// Directories on disks of their own that everything is kept on, in place of the data
    /// directory and its `capacity_bytes`. Empty: the data directory alone.
    pub disks: Vec<DiskConfig>,
    /// Free space on the file system below which no shards are taken, so that there is always room
    /// to delete.
    pub reserve_bytes: u64,
    /// How segments are written; the same promises in either way.
    pub io: Io,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// The same for leases of some kinds.
    pub durability_of: LeaseDurability,
    /// How long a batched put may wait for others to share its sync; never longer than the last
    /// sync took.
    pub batch_window_millis: u64,
    /// Bytes after which a batch is written without waiting for more.
    pub batch_bytes_max: u64,
    /// How often the relaxed and async modes sync: what they may lose.
    pub sync_interval_millis: u64,
    /// Operations that may wait for the writer. One costs its buffers (bounded below) and less
    /// than 1 KiB.
    pub mailbox_messages_max: usize,
    /// Bytes of shards in flight between network and disk.
    pub buffer_bytes_max: u64,
    /// Bytes of verified shards and manifests kept in memory; 0 keeps none.
    pub cache_bytes_max: u64,
    /// Seconds that what is cached may stay unread; 0 for as long as there is room.
    pub cache_idle_secs: u64,
    /// Disk reads under way at a time. Each holds one shard in memory.
    pub reads_max: usize,
    /// A segment is sealed when the next record would make it larger.
    pub segment_bytes_max: u64,
    /// Memory the index may use for its own cache.
    pub index_cache_bytes: u64,
    /// An index whose database takes longer to open, or whose check makes no progress for so long,
    /// is given up and rebuilt.
    pub index_open_timeout_secs: u64,
    /// Percent of the log that may be of no use before it is compacted; 0 never compacts.
    pub compact_waste_percent: u8,
    /// How fast compaction copies; 0 for as fast as it goes.
    pub compact_bytes_per_sec: u64,
    /// How long what was released lies in the trash before it is freed.
    pub trash_secs: u64,
    /// Seconds of running time from the end of a scrub to the next; 0 scrubs only when asked.
    pub scrub_interval_secs: u64,
    /// How fast a scrub reads; 0 for as fast as it goes.
    pub scrub_bytes_per_sec: u64,
    /// How fast a disk that is drained is read; 0 for as fast as it goes.
    pub drain_bytes_per_sec: u64,
    /// How long an upload may rest before it is abandoned.
    pub upload_idle_secs: u64,
}

fn nobody() -> NodeId {
    NodeId::from_bytes([0; 32])
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            node: nobody(),
            capacity_bytes: 100 << 30,
            disks: Vec::new(),
            reserve_bytes: 1 << 30,
            io: Io::Auto,
            durability: Durability::Batched,
            durability_of: LeaseDurability::default(),
            batch_window_millis: 2,
            batch_bytes_max: 32 << 20,
            sync_interval_millis: 200,
            mailbox_messages_max: 1024,
            buffer_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            cache_idle_secs: 0,
            reads_max: 8,
            segment_bytes_max: 1 << 30,
            index_cache_bytes: 16 << 20,
            index_open_timeout_secs: 60,
            compact_waste_percent: 40,
            compact_bytes_per_sec: 32 << 20,
            trash_secs: 24 * 3600,
            scrub_interval_secs: 14 * 24 * 3600,
            scrub_bytes_per_sec: 32 << 20,
            drain_bytes_per_sec: 64 << 20,
            upload_idle_secs: 3600,
        }
    }
}

impl StoreConfig {
    /// What an acknowledgement of a change to a lease promises.
    pub fn durability_of(&self, kind: LeaseKind) -> Durability {
        let LeaseDurability { deal, pin, repair, cache } = self.durability_of;
        let own = match kind {
            LeaseKind::Deal => deal,
            LeaseKind::Pin => pin,
            LeaseKind::Repair => repair,
            LeaseKind::Cache => cache,
            LeaseKind::Upload => KindDurability::AsNode,
        };
        own.over(self.durability)
    }

    /// Whether something is acknowledged before it is on disk, and so has to be seen before.
    pub fn acknowledges_early(&self) -> bool {
        let kinds = [LeaseKind::Deal, LeaseKind::Pin, LeaseKind::Repair, LeaseKind::Cache];
        let leases = kinds.into_iter().map(|kind| self.durability_of(kind));
        leases.chain([self.durability]).any(|durability| !durability.waits_for_sync())
    }

    /// The same for one directory.
    pub(crate) fn of_disk(&self, path: &Path, capacity_bytes: u64) -> Self {
        Self { path: path.to_owned(), capacity_bytes, disks: Vec::new(), ..self.clone() }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the setting and the remedy.
    pub fn validate(&self) -> Result<(), StoreError> {
        let bad = |key, reason: String| Err(StoreError::Config { key, reason });
        let at_least = |key, value: u64, min: u64| {
            if value >= min { Ok(()) } else { bad(key, format!("{value} is below {min}")) }
        };
        if self.path.as_os_str().is_empty() {
            return bad("data_dir", "it is empty; name a directory".to_owned());
        }
        self.validate_disks()?;
        at_least("buffer_bytes_max", self.buffer_bytes_max, SHARD_BYTES_MAX)?;
        at_least("segment_bytes_max", self.segment_bytes_max, 1 << 20)?;
        at_least("batch_bytes_max", self.batch_bytes_max, 4096)?;
        at_least("mailbox_messages_max", self.mailbox_messages_max as u64, 1)?;
        at_least("reads_max", self.reads_max as u64, 1)?;
        at_least("index_cache_bytes", self.index_cache_bytes, 1 << 20)?;
        at_least("index_open_timeout_secs", self.index_open_timeout_secs, 1)?;
        at_least("sync_interval_millis", self.sync_interval_millis, 1)?;
        at_least("upload_idle_secs", self.upload_idle_secs, 1)?;
        if self.compact_waste_percent > 90 {
            let reason = "more than 90 % would never come together; 40 is usual, 0 is never";
            return bad("compact_waste_percent", reason.to_owned());
        }
        if self.batch_window_millis > 1000 {
            let reason = "more than 1000 ms would stall every put; 2 is usual".to_owned();
            return bad("batch_window_millis", reason);
        }
        Ok(())
    }

    /// No directory twice, and none within another.
    fn validate_disks(&self) -> Result<(), StoreError> {
        let bad = |reason: String| Err(StoreError::Config { key: "disks", reason });
        for (position, DiskConfig { path, .. }) in self.disks.iter().enumerate() {
            if path.as_os_str().is_empty() {
                return bad("a path is empty; name a directory".to_owned());
            }
            let is_within =
                |other: &&DiskConfig| path.starts_with(&other.path) || other.path.starts_with(path);
            if let Some(other) = self.disks[..position].iter().find(is_within) {
                let (one, other) = (path.display(), other.path.display());
                return bad(format!("{one} and {other} are the same or one within the other"));
            }
        }
        Ok(())
    }
}
