// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cleanup --dry-run`: asks the running node which deal leases it is about to end, and why.

use std::io::{self, Write};

use serde::Serialize;

use super::{Given, running, runtime};
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
    let asked = running::ask(&config.data_dir, "GET", admin::CLEANUP);
    let leases = runtime()?.block_on(asked)?;
    Output::new(args.json.json).report(&Plan { leases })
}
