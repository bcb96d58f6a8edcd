// SPDX-License-Identifier: MIT OR Apache-2.0
//! `store drain` asks the running node to empty a disk, and says how far it is.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use supernode_store::{DiskMetrics, DrainState, DrainStatus};

use super::{Given, running, runtime};
use crate::admin;
use crate::cli::DrainArgs;
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// How far a disk is from being empty.
#[derive(Debug, Serialize)]
struct Shown {
    disk: PathBuf,
    #[serde(flatten)]
    status: DrainStatus,
}

impl Report for Shown {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let (disk, status) = (self.disk.display(), &self.status);
        let left = output::bytes(status.left_bytes);
        match status.state {
            DrainState::Off => return writeln!(out, "{disk} is used and keeps {left}"),
            DrainState::Done => {
                return writeln!(
                    out,
                    "{disk} is drained: take it out of storage.disks, start the node again, and \
                     remove it"
                );
            }
            DrainState::Draining => {}
        }
        let moved = output::bytes(status.moved_bytes);
        write!(out, "{disk} keeps {left} in {} groups; moved {moved}", status.left_groups)?;
        match status.eta_secs.filter(|_| status.left_groups > 0) {
            Some(secs) => {
                let left = humantime::format_duration(Duration::from_secs(secs));
                writeln!(out, ", about {left} to go")?;
            }
            None => writeln!(out)?,
        }
        if status.open_uploads + status.trash_groups > 0 {
            writeln!(
                out,
                "waiting for {} open uploads and for {} groups in the trash to run out",
                status.open_uploads, status.trash_groups
            )?;
        }
        if status.damaged_slots > 0 {
            writeln!(out, "left behind: {} slots whose shards are damaged", status.damaged_slots)?;
        }
        status.error.iter().try_for_each(|error| writeln!(out, "tried again: {error}"))
    }
}

/// Does `supernode store drain`.
pub fn run(given: &Given, args: &DrainArgs) -> Result<(), Failure> {
    let data_dir = given.node_config(Vec::new())?.data_dir;
    let runtime = runtime()?;
    let asked = running::ask(&data_dir, "GET", admin::DISKS);
    let disks: Vec<DiskMetrics> = runtime.block_on(asked)?;
    let disk = find(&disks, &args.path)?;
    if let Some(reason) = &disk.offline {
        return Err(Failure::failed(format_args!("{} is offline: {reason}", disk.path.display())));
    }
    let page = format!("{}/{}/drain", admin::DISKS, disk.id);
    let (method, page) = match (args.status, args.cancel) {
        (true, _) => ("GET", page),
        (_, true) => ("POST", format!("{page}/cancel")),
        _ => ("POST", format!("{page}/start")),
    };
    let status = runtime.block_on(running::ask(&data_dir, method, &page))?;
    Output::new(args.json.json).report(&Shown { disk: disk.path.clone(), status })
}

/// The disk at a path, however that is written.
fn find<'a>(disks: &'a [DiskMetrics], path: &Path) -> Result<&'a DiskMetrics, Failure> {
    let place = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wanted = place(path);
    disks.iter().find(|disk| disk.path == path || place(&disk.path) == wanted).ok_or_else(|| {
        let known: Vec<_> = disks.iter().map(|disk| disk.path.display().to_string()).collect();
        let (path, known) = (path.display(), known.join(", "));
        Failure::usage(format_args!("{path} is no disk of this node; it has {known}"))
    })
}
