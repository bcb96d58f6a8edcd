// SPDX-License-Identifier: MIT OR Apache-2.0
//! `scrub …` asks the running node; `store scrub` reads a stopped one's directory.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use supernode_store::{ScrubState, ScrubStatus, offline};

use super::{Given, running, runtime};
use crate::admin;
use crate::cli::{ScrubAction, StoreScrubArgs};
use crate::exit::Failure;
use crate::output::{self, Output, Report};

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Shown(ScrubStatus);

impl Report for Shown {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let status = &self.0;
        let state = match status.state {
            ScrubState::Waiting => "waiting",
            ScrubState::Running => "running",
            ScrubState::Paused => "paused",
        };
        writeln!(
            out,
            "{state}: passed {} of {}, verified {} shards and blocks ({})",
            output::bytes(status.passed_bytes),
            output::bytes(status.total_bytes),
            status.verified,
            output::bytes(status.verified_bytes),
        )?;
        writeln!(out, "found: {} damaged, {} unreadable", status.damaged, status.unreadable)?;
        match status.passes {
            0 => writeln!(out, "no whole scrub yet"),
            passes => writeln!(
                out,
                "whole scrubs: {passes}, the last one ended at second {} of its running time",
                status.finished_secs
            ),
        }
    }
}

/// Does `supernode scrub …`.
pub fn run(given: &Given, action: ScrubAction) -> Result<(), Failure> {
    let (method, command, flags) = match action {
        ScrubAction::Status(flags) => ("GET", "", flags),
        ScrubAction::Start(flags) => ("POST", "/start", flags),
        ScrubAction::Pause(flags) => ("POST", "/pause", flags),
        ScrubAction::Resume(flags) => ("POST", "/resume", flags),
    };
    let data_dir = given.node_config(Vec::new())?.data_dir;
    let page = format!("{}{command}", admin::SCRUB);
    let status = runtime()?.block_on(running::ask(&data_dir, method, &page))?;
    Output::new(flags.json.json).report(&Shown(status))
}

/// Does `supernode store scrub`.
pub fn offline(directory: &Path, args: &StoreScrubArgs) -> Result<(), Failure> {
    let output = Output::new(args.dir.json.json);
    let mut told = 0;
    let rate = u64::from(args.rate) << 20;
    let status = offline::scrub(directory, rate, |status| {
        let percent = status.passed_bytes.saturating_mul(100).checked_div(status.total_bytes);
        if let Some(tenth) = percent.map(|percent| percent / 10).filter(|tenth| *tenth > told) {
            told = tenth;
            output.talk(format_args!("{} %", tenth * 10));
        }
    })?;
    output.report(&Shown(status))?;
    match status.damaged + status.unreadable {
        0 => Ok(()),
        count => Err(Failure::failed(format_args!(
            "{count} findings; `supernode store fsck` names them"
        ))),
    }
}
