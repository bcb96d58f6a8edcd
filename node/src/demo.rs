// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: the whole story on this machine, told and checked.
//!
//! - [`story`] is what happens, in order: a network, a put, a look at the disks, gets, killed
//!   nodes, restarts.
//! - [`child`] runs this same program as other people would: commands with exit codes.
//! - [`deals`] are the chapters about the chain; [`ledger`] reads its storage by plain RPC.
//! - [`slots`] looks at what is on disk, from the segment files alone.
//! - [`checks`] keeps what was claimed and whether it held.
//!
//! Nothing is believed because the code that did it says so: files are hashed here, segments are
//! read past the store, metrics come over HTTP, and exit codes from processes.

mod checks;
mod child;
mod deals;
mod ledger;
mod slots;
mod story;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use self::checks::{Check, Checks};
use self::story::Story;
use crate::cli::DemoArgs;
use crate::dev::StopSignals;
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// What the demo measured and which checks held; the content of `--json OUT`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DemoReport {
    /// Size of the real file.
    pub object_bytes: u64,
    /// The `put` command, from start to exit.
    pub put_seconds: f64,
    /// The `get` command through the eighth node.
    pub get_seconds: f64,
    /// The `get` command with two nodes dead.
    pub degraded_get_seconds: f64,
    /// Nodes killed in all.
    pub nodes_killed: u32,
    /// SHA-256 of the real file.
    pub sha256_in: String,
    /// SHA-256 of what came back.
    pub sha256_out: String,
    /// SHA-256 of what came back with two nodes dead.
    pub sha256_degraded: String,
    /// Slots of the real file found in the segments of the nodes.
    pub slots_stored: u64,
    /// Audits that the chain resolved with an accepted proof.
    pub audits_passed: u64,
    /// Audits that the chain resolved without one.
    pub audits_failed: u64,
    /// Slots of the object whose deal ended that are still in a segment.
    pub slots_after_expiry: u64,
    /// Whether the object whose deal lives on is whole, on chain, on disk and when it is got.
    pub other_object_intact: bool,
    /// What was claimed, and whether it held.
    pub checks: Vec<Check>,
}

impl Report for DemoReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = [
            ("object", output::bytes(self.object_bytes)),
            ("put", format!("{:.2} s", self.put_seconds)),
            ("get through the DHT", format!("{:.2} s", self.get_seconds)),
            ("get with two nodes dead", format!("{:.2} s", self.degraded_get_seconds)),
            ("slots on disk", self.slots_stored.to_string()),
            ("audits passed", self.audits_passed.to_string()),
            ("audits failed, of damaged bytes", self.audits_failed.to_string()),
            ("nodes killed", self.nodes_killed.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
        output::table(out, &["FIGURE", "VALUE"], &rows)?;
        writeln!(out)?;
        let rows: Vec<Vec<String>> = self
            .checks
            .iter()
            .map(|check| {
                let verdict = if check.ok { "ok" } else { "FAILED" };
                vec![verdict.to_owned(), check.name.clone(), check.detail.clone()]
            })
            .collect();
        output::table(out, &["", "CHECK", "SEEN"], &rows)
    }
}

/// Does `supernode demo`.
pub async fn run(args: &DemoArgs) -> Result<(), Failure> {
    let output = Output::new(false);
    let scratch = tempfile::Builder::new()
        .prefix("supernode-demo-")
        .tempdir()
        .map_err(|error| Failure::failed(format_args!("no temporary directory: {error}")))?;
    let mut stop = StopSignals::install()?;
    let mut story = Story::new(scratch.path(), args, output)?;
    // A signal during the story ends the children in order too.
    let told = tokio::select! {
        told = story.tell() => told,
        () = stop.next() => Err(Failure::failed("interrupted")),
    };
    story.end().await;
    let (report, checks) = story.into_report();
    output.report(&report)?;
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    told?;
    verdict(&checks)
}

fn verdict(checks: &Checks) -> Result<(), Failure> {
    let failed: Vec<&str> = checks.failed().collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format_args!("{} checks failed: {}", failed.len(), failed.join("; "))))
}

fn write_json(path: &Path, report: &DemoReport) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("plain values") + "\n";
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
}
