// SPDX-License-Identifier: MIT OR Apache-2.0
//! `store …`: looking at, checking and mending the data directory of a stopped node, and emptying a
//! disk of one that runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use supernode_store::offline::{self, CompactReport, FsckReport, Source, Stats};
use supernode_store::{Io, IoChoice, StoreError, Usage};

use super::{Given, drain, scrub};
use crate::cli::{DumpMapArgs, MapSource, StoreCommand, StoreDirArgs};
use crate::config::NodeConfig;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, Report};

/// Does `supernode store …`.
pub fn run(given: &Given, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Stats(args) => stats(given, args),
        StoreCommand::Fsck(args) => fsck(given, args),
        StoreCommand::Scrub(args) => scrub::offline(&directory(given, &args.dir)?, args),
        StoreCommand::RebuildIndex(args) => rebuild_index(given, args),
        StoreCommand::Compact(args) => compact(given, args),
        StoreCommand::DumpMap(args) => dump_map(given, args),
        StoreCommand::Drain(args) => drain::run(given, args),
    }
}

/// What a store leaves in its directory, even one that nothing was ever put into.
const MARKS: [&str; 2] = ["lock", "index"];

/// The directory that is meant. One without any trace of a store was never a node's, and looking
/// at it must not make it one.
fn directory(given: &Given, args: &StoreDirArgs) -> Result<PathBuf, Failure> {
    let path = match &args.data_dir {
        Some(path) => path.clone(),
        None => own_directory(given.node_config(Vec::new())?)?,
    };
    let shown = path.display();
    let entries = fs::read_dir(&path)
        .map_err(|error| Failure::usage(format_args!("data directory {shown}: {error}")))?;
    let is_mark = |name: &OsStr| {
        Path::new(name).extension().is_some_and(|extension| extension == "seg")
            || MARKS.iter().any(|mark| name == *mark)
    };
    if !entries.flatten().any(|entry| is_mark(&entry.file_name())) {
        return Err(Failure::usage(format_args!(
            "{shown} holds no segments (*.seg) and no index; name a node's data directory"
        )));
    }
    Ok(path)
}

/// Where a configured node keeps everything, if that is one place.
fn own_directory(config: NodeConfig) -> Result<PathBuf, Failure> {
    let disks: Vec<_> = config.storage.disks.iter().map(|disk| disk.path.display()).collect();
    if disks.is_empty() {
        return Ok(config.data_dir);
    }
    Err(Failure::usage(format_args!(
        "this node keeps its records on several disks, each a store of its own; name one of them \
         with --data-dir: {}",
        disks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )))
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Config { .. } => Exit::Usage,
            StoreError::Full { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        Self::of(exit, &error)
    }
}

/// What a directory keeps.
#[derive(Debug, Serialize)]
struct Kept {
    segment_count: usize,
    last_sequence: u64,
    running_secs: u64,
    is_whole: bool,
    index_rebuilt: Option<&'static str>,
    /// What `storage.io = "auto"` has measured here.
    io: Option<IoChoice>,
    usage: Usage,
}

impl Kept {
    fn of(stats: Stats, io: Option<IoChoice>) -> Self {
        let Stats { usage, segment_count, last_sequence, running_secs, .. } = stats;
        let Stats { is_whole, index_rebuilt, .. } = stats;
        Self { segment_count, last_sequence, running_secs, is_whole, index_rebuilt, io, usage }
    }
}

impl Report for Kept {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let usage = &self.usage;
        let row = |name: &str, count: u64, bytes: u64| {
            vec![name.to_owned(), count.to_string(), output::bytes(bytes)]
        };
        let (shards, blocks) = (&usage.shards, &usage.blocks);
        let rows = [
            row("live shards", shards.live.count, shards.live.bytes),
            row("shards in the trash", shards.trash.count, shards.trash.bytes),
            row("dead shards", shards.dead.count, shards.dead.bytes),
            row("live manifest blocks", blocks.live.count, blocks.live.bytes),
            row("blocks in the trash", blocks.trash.count, blocks.trash.bytes),
            row("dead blocks", blocks.dead.count, blocks.dead.bytes),
            row("records", usage.records, usage.log_bytes),
        ];
        output::table(out, &["WHAT", "COUNT", "BYTES"], &rows)?;
        writeln!(out)?;
        let counts = [
            ("live slots", usage.live_slots),
            ("slots in the trash", usage.trash_slots),
            ("slots of uploads", usage.upload_slots),
            ("live groups", usage.live_groups),
            ("segments", self.segment_count as u64),
            ("last sequence", self.last_sequence),
            ("running seconds", self.running_secs),
        ];
        counts.iter().try_for_each(|(name, count)| writeln!(out, "{name:<20}  {count}"))?;
        if let Some(io) = self.io {
            let name = if io.io == Io::Direct { "direct" } else { "buffered" };
            let buffered = output::bytes(io.buffered_bytes_per_sec);
            let direct = output::bytes(io.direct_bytes_per_sec);
            writeln!(out, "writes         {name}: {buffered}/s buffered, {direct}/s direct")?;
        }
        if !self.is_whole {
            writeln!(out, "records are missing: nothing is freed; run `supernode store fsck`")?;
        }
        Ok(())
    }
}

fn stats(given: &Given, args: &StoreDirArgs) -> Result<(), Failure> {
    let directory = directory(given, args)?;
    let kept = Kept::of(offline::stats(&directory)?, IoChoice::remembered(&directory));
    Output::new(args.json.json).report(&kept)
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Checked {
    clean: bool,
    segment_count: usize,
    records: BTreeMap<&'static str, u64>,
    verified_count: u64,
    verified_bytes: u64,
    damaged: Vec<String>,
    damaged_ranges: Vec<String>,
    bad_segments: Vec<u32>,
    footer_count: u64,
    damaged_footers: Vec<u32>,
    tail_bytes: u64,
    miscounts: Vec<String>,
    index_differences: u64,
    index_rebuilt: Option<&'static str>,
}

impl From<FsckReport> for Checked {
    fn from(report: FsckReport) -> Self {
        Self {
            clean: report.is_clean(),
            segment_count: report.segment_count,
            records: report.records,
            verified_count: report.verified_count,
            verified_bytes: report.verified_bytes,
            damaged: report.damaged,
            damaged_ranges: report.damaged_ranges.iter().map(|it| format!("{it:?}")).collect(),
            bad_segments: report.bad_segments,
            footer_count: report.footer_count,
            damaged_footers: report.damaged_footers,
            tail_bytes: report.tail_bytes,
            miscounts: report.miscounts,
            index_differences: report.index_differences,
            index_rebuilt: report.index_rebuilt,
        }
    }
}

impl Checked {
    /// Every finding in words.
    fn findings(&self) -> Vec<String> {
        let mut findings = self.damaged.clone();
        findings.extend(self.damaged_ranges.iter().map(|range| format!("unreadable: {range}")));
        findings.extend(self.bad_segments.iter().map(|number| format!("segment {number} is lost")));
        findings.extend(self.miscounts.iter().cloned());
        if self.index_differences > 0 {
            let differences = self.index_differences;
            findings.push(format!(
                "{differences} entries of the index differ from the log; run rebuild-index"
            ));
        }
        findings
    }
}

impl Report for Checked {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for finding in self.findings() {
            writeln!(out, "{finding}")?;
        }
        for number in &self.damaged_footers {
            writeln!(
                out,
                "the footer of segment {number} is damaged; nothing is lost, as a rebuild reads \
                 the records instead"
            )?;
        }
        let verdict = if self.clean { "clean" } else { "damaged" };
        writeln!(
            out,
            "{verdict}: {} segments, {} footers, {} records, {} shards and blocks verified ({})",
            self.segment_count,
            self.footer_count,
            self.records.values().sum::<u64>(),
            self.verified_count,
            output::bytes(self.verified_bytes),
        )
    }
}

fn fsck(given: &Given, args: &StoreDirArgs) -> Result<(), Failure> {
    let checked = Checked::from(offline::fsck(&directory(given, args)?)?);
    Output::new(args.json.json).report(&checked)?;
    match checked.findings().len() {
        _ if checked.clean => Ok(()),
        count => Err(Failure::failed(format_args!(
            "{count} findings; what other holders have will be repaired from them"
        ))),
    }
}

/// What a rebuild did.
#[derive(Debug, Serialize)]
struct Rebuilt {
    records: u64,
}

impl Report for Rebuilt {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "index rebuilt from {} records", self.records)
    }
}

fn rebuild_index(given: &Given, args: &StoreDirArgs) -> Result<(), Failure> {
    let records = offline::rebuild_index(&directory(given, args)?)?;
    Output::new(args.json.json).report(&Rebuilt { records })
}

/// What compaction came to.
#[derive(Debug, Serialize)]
struct Compacted {
    complete: bool,
    is_whole: bool,
    segments_before: usize,
    segments_after: usize,
    log_bytes_before: u64,
    log_bytes_after: u64,
    copied_bytes: u64,
}

impl From<CompactReport> for Compacted {
    fn from(report: CompactReport) -> Self {
        Self {
            complete: report.is_complete,
            is_whole: report.is_whole,
            segments_before: report.segment_count.0,
            segments_after: report.segment_count.1,
            log_bytes_before: report.log_bytes.0,
            log_bytes_after: report.log_bytes.1,
            copied_bytes: report.copied_bytes,
        }
    }
}

impl Report for Compacted {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "the log: {} in {} segments, before {} in {}; {} copied",
            output::bytes(self.log_bytes_after),
            self.segments_after,
            output::bytes(self.log_bytes_before),
            self.segments_before,
            output::bytes(self.copied_bytes),
        )?;
        if !self.complete && self.is_whole {
            let keeps = "some segments stay: open uploads keep theirs until they end";
            writeln!(out, "{keeps}, damaged shards until they are repaired")?;
        }
        Ok(())
    }
}

fn compact(given: &Given, args: &StoreDirArgs) -> Result<(), Failure> {
    let output = Output::new(args.json.json);
    let mut told = 0;
    let report = offline::compact(&directory(given, args)?, |report| {
        // A line for each GiB: this may take as long as the disk is large.
        let gib = report.copied_bytes >> 30;
        if gib > told {
            told = gib;
            let bytes = output::bytes(report.copied_bytes);
            output.talk(format_args!("{bytes} copied, {} segments", report.segment_count.1));
        }
    })?;
    output.report(&Compacted::from(report))?;
    if report.is_whole {
        Ok(())
    } else {
        let reason = "records are missing: nothing is freed; run `supernode store fsck`";
        Err(Failure::failed(reason))
    }
}

/// The map in lines; with a hash, that is the last one.
#[derive(Debug, Serialize)]
struct Dump {
    lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl Report for Dump {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.lines.iter().chain(&self.hash).try_for_each(|line| writeln!(out, "{line}"))
    }
}

fn dump_map(given: &Given, args: &DumpMapArgs) -> Result<(), Failure> {
    let source = match args.from {
        MapSource::Index => Source::Index,
        MapSource::Log => Source::Log,
    };
    let mut lines = offline::dump_map(&directory(given, &args.dir)?, source, args.hash)?;
    let hash = if args.hash { lines.pop() } else { None };
    Output::new(args.dir.json.json).report(&Dump { lines, hash })
}
