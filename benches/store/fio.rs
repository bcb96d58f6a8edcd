// SPDX-License-Identifier: MIT OR Apache-2.0
//! The baseline: what `fio` gets out of the disk, with the best of its own settings for the job.
//!
//! A job is run once with every engine, through the page cache and past it, before it counts; the
//! fastest setting is the contender. Files are fresh, and fio's bytes are noise as ours are. Its
//! time includes every sync, and begins after it has allocated the file.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

const ENGINES: [&str; 3] = ["psync", "io_uring", "libaio"];

/// What to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Write it from start to end, with a sync after each so many blocks, and a last one.
    Write { blocks_per_sync: u32 },
    /// Read it from start to end.
    Read,
    /// Read its blocks in random order, past the page cache.
    RandomRead,
}

/// Work for fio.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Where the file lies.
    pub directory: &'a Path,
    /// What to do.
    pub pattern: Pattern,
    /// Bytes of one operation.
    pub block_bytes: u64,
    /// Operations.
    pub block_count: u64,
    /// Operations under way at a time.
    pub depth: u32,
}

/// One way of fio to do a job.
#[derive(Debug, Clone, Copy, Serialize)]
struct Setting {
    engine: &'static str,
    direct: bool,
}

/// A job with the setting that does it fastest here.
#[derive(Debug)]
pub struct Tuned<'a> {
    job: Job<'a>,
    best: Setting,
    sweep: Vec<(Setting, f64)>,
}

/// What fio says of one run.
#[derive(Debug)]
pub struct Report(Value);

/// Whether there is a fio.
///
/// # Errors
/// Names the remedy when there is none.
pub fn find() -> Result<(), String> {
    let asked = Command::new("fio").arg("--version").output();
    let remedy = "it is the baseline of this bench: run benches/install-fio (apt-get install fio)";
    asked.map(drop).map_err(|error| format!("fio does not start ({error}); {remedy}"))
}

impl<'a> Job<'a> {
    /// Tries every setting once.
    pub fn tuned(self) -> Tuned<'a> {
        if !self.is_write() {
            let layout = Self { pattern: Pattern::Write { blocks_per_sync: 0 }, depth: 1, ..self };
            layout.run(Setting { engine: ENGINES[0], direct: true }).expect("room for fio's file");
        }
        let is_random = self.pattern == Pattern::RandomRead;
        let directs = [false, true].into_iter().filter(|direct| *direct || !is_random);
        let settings = directs.flat_map(|direct| ENGINES.map(|engine| Setting { engine, direct }));
        // An engine that this kernel forbids is no contender.
        let sweep: Vec<_> = settings
            .filter_map(|setting| Some((setting, self.run(setting)?.bytes_per_sec())))
            .collect();
        let best = sweep.iter().max_by(|left, right| left.1.total_cmp(&right.1));
        let best = best.expect("psync works everywhere").0;
        Tuned { job: self, best, sweep }
    }

    fn is_write(&self) -> bool {
        matches!(self.pattern, Pattern::Write { .. })
    }

    /// Runs fio once; `None` when it cannot.
    fn run(&self, setting: Setting) -> Option<Report> {
        let file = self.directory.join("fio.data");
        let output = self.directory.join("fio.json");
        let bytes = self.block_bytes * self.block_count;
        let mut command = Command::new("fio");
        command
            .args(["--name=baseline", "--thread", "--group_reporting", "--randrepeat=0"])
            .args(["--output-format=json", "--percentile_list=50:99"])
            .arg(format!("--output={}", output.display()))
            .arg(format!("--filename={}", file.display()))
            .arg(format!("--ioengine={}", setting.engine))
            .arg(format!("--direct={}", u8::from(setting.direct)))
            .arg(format!("--bs={}", self.block_bytes))
            .arg(format!("--size={bytes}"));
        match self.pattern {
            Pattern::Write { blocks_per_sync } => {
                // A file that is there already would be written over.
                let _ = fs::remove_file(&file);
                command.args(["--rw=write", "--end_fsync=1"]);
                command.arg(format!("--fdatasync={blocks_per_sync}"));
            }
            Pattern::Read => drop(command.arg("--rw=read")),
            Pattern::RandomRead => drop(command.arg("--rw=randread")),
        }
        // An engine that waits for each operation reaches the depth with threads.
        if setting.engine == "psync" && self.pattern == Pattern::RandomRead {
            command.arg(format!("--numjobs={}", self.depth));
            command.arg(format!("--io_size={}", bytes / u64::from(self.depth)));
        } else if setting.engine != "psync" {
            command.arg(format!("--iodepth={}", self.depth));
        }
        let ran = command.output().expect("fio was there at the start");
        let text = fs::read_to_string(output).ok().filter(|_| ran.status.success())?;
        // Remarks may stand before the report.
        let report: Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
        let side = if self.is_write() { "write" } else { "read" };
        Some(Report(report["jobs"][0][side].clone()))
    }
}

impl Tuned<'_> {
    /// Does the job once more.
    pub fn run(&self) -> Report {
        self.job.run(self.best).expect("it did in the sweep")
    }

    /// The sweep, for the record.
    pub fn raw(&self) -> Value {
        let Job { block_bytes, block_count, depth, .. } = self.job;
        let pattern = format!("{:?}", self.job.pattern);
        json!({
            "pattern": pattern, "block_bytes": block_bytes, "block_count": block_count,
            "depth": depth, "setting": self.best, "sweep_bytes_per_sec": self.sweep,
        })
    }
}

impl Report {
    /// Throughput, syncs included.
    pub fn bytes_per_sec(&self) -> f64 {
        self.0["bw_bytes"].as_f64().expect("fio reports its throughput")
    }

    /// How long the whole job took.
    pub fn secs(&self) -> f64 {
        self.0["io_bytes"].as_f64().expect("fio reports its bytes") / self.bytes_per_sec()
    }

    /// A percentile (50 or 99) of how long operations took.
    pub fn millis(&self, percentile: u8) -> f64 {
        let nanos = &self.0["clat_ns"]["percentile"][format!("{percentile}.000000")];
        nanos.as_f64().expect("fio reports percentiles") / 1e6
    }
}
