// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tools for a data directory that no node works in: what `supernode store …` does.
//!
//! All but [`scan`] take the directory's lock and refuse while a node runs. None changes a segment,
//! and only [`compact`] adds and removes some.
//! What needs an index brings it up to date first, exactly as a start of the node would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::catalog::{Catalog, KvRead, Thing, Usage, check, dump_lines, thing_of, visit};
use crate::catalog::{apply, keys};
use crate::config::StoreConfig;
use crate::disk::{DirectoryLock, Disk, RealDisk};
use crate::error::StoreError;
use crate::index::{MapKv, Mark, MemoryIndex, Overlay, SledOptions};
use crate::metrics::Counters;
use crate::reader::Reader;
use crate::recovery::{Layout, Recovered, Recovery, Replayed, SledSource, entry_of, replay};
use crate::scrub::{Scrub, ScrubCommand, ScrubConfig, ScrubStatus};
use crate::segment::{Damage, FoundRecord, Segments};
use crate::store::{INDEX_DIRECTORY, lock_directory};
use crate::writer::{Writer, WriterParts};

/// Where a dump takes the map from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The index, brought up to date (or rebuilt) first.
    #[default]
    Index,
    /// The segments alone; the index is not even opened.
    Log,
}

/// Figures of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// What is kept.
    pub usage: Usage,
    /// Segment files.
    pub segment_count: usize,
    /// Sequence number of the last record.
    pub last_sequence: u64,
    /// The node's running time.
    pub running_secs: u64,
    /// Whether no record is missing; while some are, nothing is freed.
    pub is_whole: bool,
    /// Why the index had to be rebuilt just now, if it had to.
    pub index_rebuilt: Option<&'static str>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// Segment files read.
    pub segment_count: usize,
    /// Records read, by kind name.
    pub records: BTreeMap<&'static str, u64>,
    /// Shards and blocks whose bytes were hashed.
    pub verified_count: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Shards and blocks that are kept and whose bytes are damaged.
    pub damaged: Vec<String>,
    /// Ranges of segments that hold no readable record.
    pub damaged_ranges: Vec<Damage>,
    /// Segments whose header is lost.
    pub bad_segments: Vec<u32>,
    /// Whole footers of segments, which say what the records say.
    pub footer_count: u64,
    /// Segments with a footer that is damaged. Nothing is lost with one: a rebuild then reads the
    /// records.
    pub damaged_footers: Vec<u32>,
    /// Torn bytes after the last record; not damage.
    pub tail_bytes: u64,
    /// Where references or figures differ from a full walk.
    pub miscounts: Vec<String>,
    /// Entries of the index that differ from the log.
    pub index_differences: u64,
    /// Why the index had to be rebuilt just now, if it had to.
    pub index_rebuilt: Option<&'static str>,
}

impl FsckReport {
    /// Whether everything that is kept can be read, and everything adds up.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.damaged_ranges.is_empty()
            && self.bad_segments.is_empty()
            && self.miscounts.is_empty()
            && self.index_differences == 0
    }
}

/// Figures from the index.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs; what a start of the node would fail with.
pub fn stats(path: &Path) -> Result<Stats, StoreError> {
    let rest = AtRest::lock(path)?;
    let recovered = rest.recover()?;
    let usage = Catalog(&*recovered.overlay).usage()?;
    let mark = recovered.replayed.mark;
    let stats = Stats {
        usage,
        segment_count: recovered.segments.numbers()?.len(),
        last_sequence: mark.sequence,
        running_secs: mark.running_secs,
        is_whole: recovered.is_whole(),
        index_rebuilt: recovered.rebuilt,
    };
    recovered.overlay.close();
    Ok(stats)
}

/// Throws the index away and builds it from the segments. Returns how many records were applied.
///
/// # Errors
/// As [`stats`].
pub fn rebuild_index(path: &Path) -> Result<u64, StoreError> {
    let rest = AtRest::lock(path)?;
    let index = rest.path.join(INDEX_DIRECTORY);
    match std::fs::remove_dir_all(&index) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io(format!("remove {}", index.display()), error));
        }
        _ => {}
    }
    let recovered = rest.recover()?;
    recovered.overlay.close();
    Ok(recovered.replayed.records)
}

/// What is kept and why, as sorted lines without places; with `hash`, a last line with the BLAKE3
/// of all lines before it (each with its line feed).
///
/// # Errors
/// As [`stats`].
pub fn dump_map(path: &Path, source: Source, hash: bool) -> Result<Vec<String>, StoreError> {
    let rest = AtRest::lock(path)?;
    let mut lines = match source {
        Source::Index => {
            let recovered = rest.recover()?;
            let lines = dump_lines(&*recovered.overlay)?;
            recovered.overlay.close();
            lines
        }
        Source::Log => dump_lines(&rest.read_log()?.map)?,
    };
    if hash {
        let mut hasher = blake3::Hasher::new();
        for line in &lines {
            hasher.update(line.as_bytes()).update(b"\n");
        }
        lines.push(hasher.finalize().to_hex().to_string());
    }
    Ok(lines)
}

/// Reads everything and compares everything with everything else.
///
/// # Errors
/// Only when the check itself cannot be made; what it finds is in the report.
pub fn fsck(path: &Path) -> Result<FsckReport, StoreError> {
    let rest = AtRest::lock(path)?;
    let log = rest.read_log()?;
    let footers = Layout::read(&rest.segments)?.check_footers()?;
    let mut report = FsckReport {
        segment_count: log.segment_count,
        records: log.records,
        damaged_ranges: log.replayed.damage,
        bad_segments: log.bad_segments,
        tail_bytes: log.replayed.tail_bytes,
        miscounts: check(&log.map)?,
        footer_count: footers.whole,
        damaged_footers: footers.damaged,
        ..FsckReport::default()
    };
    check_dead(&log.map, &log.payload_bytes, &mut report)?;
    let recovered = rest.recover()?;
    report.index_rebuilt = recovered.rebuilt;
    report.index_differences = differences(&log.map, &*recovered.overlay)?;
    recovered.overlay.close();
    verify_all(&rest.segments, log.map, log.replayed.mark, &mut report)?;
    Ok(report)
}

/// Reads everything that is kept from the disk itself, as a running node's scrub does, and goes on
/// where an interrupted one stopped. `progress` hears of it several times a second.
///
/// # Errors
/// As [`stats`].
pub fn scrub(
    path: &Path,
    bytes_per_sec: u64,
    mut progress: impl FnMut(&ScrubStatus),
) -> Result<ScrubStatus, StoreError> {
    let rest = AtRest::lock(path)?;
    let recovered = rest.recover()?;
    let counters = Arc::new(Counters::default());
    *counters.usage.lock() = Catalog(&*recovered.overlay).usage()?;
    counters.running_secs.store(recovered.replayed.mark.running_secs, Ordering::Relaxed);
    let (segments, overlay) = (Arc::clone(&rest.segments), Arc::clone(&recovered.overlay));
    let reader = Arc::new(Reader::new(segments, overlay, Arc::clone(&counters)));
    let pace = ScrubConfig { interval_secs: 0, bytes_per_sec };
    let scrub = Scrub::spawn(reader, counters, pace, Some(rest.path.clone()))?;
    let passes = scrub.status().passes;
    scrub.command(ScrubCommand::Start);
    let status = loop {
        let status = scrub.status();
        progress(&status);
        if status.passes > passes {
            break status;
        }
        if let Some(error) = scrub.failure() {
            return Err(error);
        }
        std::thread::sleep(PROGRESS_INTERVAL);
    };
    scrub.close();
    recovered.overlay.close();
    Ok(status)
}

/// What compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Segment files before and after.
    pub segment_count: (usize, usize),
    /// Bytes of the log before and after, without its holes.
    pub log_bytes: (u64, u64),
    /// Bytes of shards and blocks that were copied.
    pub copied_bytes: u64,
    /// Whether all segments that were there are gone. Open uploads keep theirs until they end, and
    /// damaged shards until they are repaired.
    pub is_complete: bool,
    /// Whether no record is missing; while some are, nothing is freed.
    pub is_whole: bool,
}

/// Writes everything that is kept anew and removes the segments it was in. `progress` hears of it
/// after each slice. It may be cut short anywhere.
///
/// # Errors
/// As [`stats`], and when there is no room for copies.
pub fn compact(
    path: &Path,
    mut progress: impl FnMut(&CompactReport),
) -> Result<CompactReport, StoreError> {
    let rest = AtRest::lock(path)?;
    let recovered = rest.recover()?;
    let overlay = Arc::clone(&recovered.overlay);
    let mut report = CompactReport { is_whole: recovered.is_whole(), ..CompactReport::default() };
    let (files, bytes) = extent(&rest, &overlay)?;
    (report.segment_count, report.log_bytes) = ((files, files), (bytes, bytes));
    let newest = recovered.replayed.mark.segment;
    if newest == 0 || !report.is_whole {
        overlay.close();
        return Ok(report);
    }
    let counters = Arc::new(Counters::default());
    let config = StoreConfig {
        node: rest.segments.segment(newest)?.header.node,
        reserve_bytes: 0,
        compact_bytes_per_sec: 0,
        // Periods are for the node, which knows its settings.
        trash_secs: u64::MAX,
        upload_idle_secs: u64::MAX,
        ..StoreConfig::default()
    };
    let segments = Arc::clone(&recovered.segments);
    let reader = Arc::new(Reader::new(segments, Arc::clone(&overlay), Arc::clone(&counters)));
    let on_event = Box::new(drop);
    let parts = WriterParts { config, reader, counters: Arc::clone(&counters), on_event };
    let mut writer = Writer::new(parts, &recovered)?;
    writer.tick()?;
    writer.compact()?;
    loop {
        overlay.flush()?;
        let before = writer.sequence_next();
        let Some(job) = writer.reclaim()? else {
            // A segment with much that is dead takes several looks to be cleared.
            if writer.sequence_next() > before {
                continue;
            }
            break;
        };
        let done = job.run(writer.reader());
        writer.reclaimed(done)?;
        (report.segment_count.1, report.log_bytes.1) = extent(&rest, &overlay)?;
        report.copied_bytes = counters.compacted_bytes.load(Ordering::Relaxed);
        progress(&report);
    }
    report.is_complete = !writer.is_compacting();
    writer.close()?;
    overlay.close();
    Ok(report)
}

/// Segment files, and bytes of the log without its holes.
fn extent(rest: &AtRest, overlay: &Overlay) -> Result<(usize, u64), StoreError> {
    let usage = Catalog(overlay).usage()?;
    Ok((rest.segments.numbers()?.len(), usage.log_bytes.saturating_sub(usage.returned_bytes)))
}

/// Visits all records of a directory in order, read-only and without the lock, also while a node
/// works in it: the newest records may then be missing.
///
/// # Errors
/// What `visit` returns, or unreadable segments.
pub fn scan(
    path: &Path,
    mut visit: impl FnMut(FoundRecord) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let segments = Segments::new(Arc::new(RealDisk::new(path)));
    let layout = Layout::read(&segments)?.without_footers();
    replay(&layout, Mark::default(), |found, _| visit(found)).map(drop)
}

/// How often a scrub tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A directory of which this process has the lock.
struct AtRest {
    path: std::path::PathBuf,
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    _lock: DirectoryLock,
}

/// What the segments alone say.
struct LogContent {
    map: MapKv,
    replayed: Replayed,
    records: BTreeMap<&'static str, u64>,
    /// Bytes of all shards and blocks ever written, by segment.
    payload_bytes: BTreeMap<u32, u64>,
    segment_count: usize,
    bad_segments: Vec<u32>,
}

impl AtRest {
    fn lock(path: &Path) -> Result<Self, StoreError> {
        let lock = lock_directory(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(path));
        let segments = Arc::new(Segments::new(Arc::clone(&disk)));
        Ok(Self { path: path.to_owned(), disk, segments, _lock: lock })
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        let defaults = StoreConfig::default();
        let index = SledSource {
            options: SledOptions {
                path: self.path.join(INDEX_DIRECTORY),
                cache_bytes: defaults.index_cache_bytes,
                timeout: Duration::from_secs(defaults.index_open_timeout_secs),
            },
        };
        let disk = Arc::clone(&self.disk);
        Recovery { disk, node: None, index: &index, relaxed: false }.run()
    }

    fn read_log(&self) -> Result<LogContent, StoreError> {
        // What a tool holds other things against is read from where it is true.
        let layout = Layout::read(&self.segments)?.without_footers();
        let mut map = MapKv::default();
        let mut records = BTreeMap::new();
        let mut payload_bytes: BTreeMap<u32, u64> = BTreeMap::new();
        let replayed = replay(&layout, Mark::default(), |found, _| {
            let kind = found.header.kind;
            *records.entry(kind.name()).or_insert(0) += 1;
            if kind.is_shard() || kind.is_block() {
                *payload_bytes.entry(found.at.segment).or_default() +=
                    found.header.shape.payload_len;
            }
            apply(&mut map, &entry_of(&found))?;
            Ok(())
        })?;
        let bad_segments = layout.bad_segments().iter().map(|(number, _)| *number).collect();
        let segment_count = layout.segment_count();
        Ok(LogContent { map, replayed, records, payload_bytes, segment_count, bad_segments })
    }
}

/// What the segments that are needed hold is live, in the trash, dead, or given back.
fn check_dead(
    map: &MapKv,
    payload_bytes: &BTreeMap<u32, u64>,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let catalog = Catalog(map);
    let usage = catalog.usage()?;
    let gone = catalog.gone_through()?;
    let here = payload_bytes.iter().filter(|(number, _)| **number > gone);
    let (mut payload_bytes, mut returned) = (0, 0);
    for (number, bytes) in here {
        payload_bytes += bytes;
        returned += catalog.segment(*number)?.returned;
    }
    let tallies = [usage.shards, usage.blocks];
    let counted: u64 =
        tallies.iter().map(|by| by.live.bytes + by.trash.bytes + by.dead.bytes).sum();
    let counted = counted + returned;
    if counted != payload_bytes {
        let text = format!("figures cover {counted} bytes, the log holds {payload_bytes}");
        report.miscounts.push(text);
    }
    Ok(())
}

/// Entries that are not in both maps with the same value.
fn differences<K: KvRead + ?Sized>(log: &MapKv, index: &K) -> Result<u64, StoreError> {
    let mut rest = log.0.clone();
    let mut differences = 0;
    for prefix in 0..=u8::MAX {
        visit(index, prefix, |key, value| {
            differences += u64::from(rest.remove(key).as_deref() != Some(value));
            Ok(())
        })?;
    }
    Ok(differences + rest.len() as u64)
}

fn verify_all(
    segments: &Arc<Segments>,
    map: MapKv,
    mark: Mark,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let mut things: Vec<Thing> = Vec::new();
    for prefix in [keys::SHARD, keys::BLOCK] {
        visit(&map, prefix, |key, _| {
            things.extend(thing_of(key, 0));
            Ok(())
        })?;
    }
    let overlay = Arc::new(Overlay::new(Arc::new(MemoryIndex::over(map, mark)), false));
    let counters = Arc::new(Counters::default());
    let reader = Reader::new(Arc::clone(segments), overlay, counters);
    for thing in things {
        let Some(kept) = reader.catalog().kept(thing)? else { continue };
        match reader.verify(thing, &kept) {
            Ok(()) => {
                report.verified_count += 1;
                report.verified_bytes += kept.len;
            }
            Err(error) => report.damaged.push(error.to_string()),
        }
    }
    Ok(())
}
