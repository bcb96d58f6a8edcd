// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cleanup --dry-run`: asks the running node which deal leases it is about to end, and why.

use std::io::{self, Write};

use serde::Serialize;

use super::{Given, runtime};
use crate::admin::{self, PlannedLease};
use crate::cli::CleanupArgs;
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// The plan.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Plan {
    leases: Vec<PlannedLease>,
}

impl Report for Plan {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |lease: &PlannedLease| {
            let deal = lease.deal.map_or_else(|| lease.lease.to_string(), |deal| deal.to_string());
            let what = if lease.goes { "goes" } else { "stays" };
            let (slots, bytes) = (lease.slots.to_string(), output::bytes(lease.bytes));
            vec![
                deal,
                what.to_owned(),
                slots,
                bytes,
                lease.ends_at.to_string(),
                lease.reason.clone(),
            ]
        };
        let rows: Vec<_> = self.leases.iter().map(row).collect();
        output::table(out, &["DEAL", "PLAN", "SLOTS", "BYTES", "END", "WHY"], &rows)
    }
}

/// Does `supernode cleanup --dry-run`.
pub fn run(given: &Given, args: &CleanupArgs) -> Result<(), Failure> {
    let config = given.node_config(Vec::new())?;
    let data_dir = &config.data_dir;
    let asked = runtime()?.block_on(admin::ask(data_dir, "GET", admin::CLEANUP));
    let (status, body) = asked.map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            return Failure::failed("the node does not get its answers from the chain in time");
        }
        Failure::failed(format_args!(
            "no node answers in {} ({error}); start it with `supernode run`",
            data_dir.display()
        ))
    })?;
    if status != 200 {
        return Err(Failure::failed(body));
    }
    let leases = serde_json::from_str(&body).map_err(|error| {
        Failure::failed(format_args!("the node's plan cannot be read: {error}"))
    })?;
    Output::new(args.json.json).report(&Plan { leases })
}
