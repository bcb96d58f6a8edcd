// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ls` and `rm`: what this client's key keeps on the network, and ending it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use supernode_object::ListedObject;
use supernode_protocol::ids::{Cid, LeaseId, NodeId};
use supernode_protocol::lease::{Expiry, LeaseKind};

use super::Given;
use super::network::{Needs, with_network};
use crate::cli::{LsArgs, RmArgs};
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// One object that this key keeps.
#[derive(Debug, Serialize)]
struct Kept {
    cid: Cid,
    size: u64,
    lease: LeaseId,
    kind: LeaseKind,
    remaining: Expiry,
    holders: BTreeSet<NodeId>,
}

/// All of them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Listing {
    objects: Vec<Kept>,
}

impl From<ListedObject> for Kept {
    fn from(listed: ListedObject) -> Self {
        let ListedObject { cid, size, lease, kind, remaining, holders } = listed;
        Self { cid, size, lease, kind, remaining, holders }
    }
}

impl Report for Listing {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = self
            .objects
            .iter()
            .map(|kept| {
                let size = output::bytes(kept.size);
                let ends = ends(kept.remaining);
                let holders = kept.holders.len().to_string();
                vec![kept.cid.to_string(), size, kept.kind.name().to_owned(), ends, holders]
            })
            .collect();
        output::table(out, &["CID", "SIZE", "KIND", "ENDS", "HOLDERS"], &rows)
    }
}

fn ends(expiry: Expiry) -> String {
    match expiry {
        Expiry::RunningSeconds(seconds) => {
            // Finer than an hour is noise in a listing of pins that last for days.
            let rounded = if seconds > 7200 { seconds / 3600 * 3600 } else { seconds };
            format!("in {}", humantime::format_duration(Duration::from_secs(rounded)))
        }
        Expiry::FinalisedHeight(height) => format!("at block {height}"),
        Expiry::Never => "when evicted".to_owned(),
    }
}

/// What became of `rm`.
#[derive(Debug, Serialize)]
struct Removed {
    cid: Cid,
    leases: BTreeSet<LeaseId>,
    nodes: BTreeSet<NodeId>,
    failed: Vec<FailedNode>,
}

/// A node that did not take part.
#[derive(Debug, Serialize)]
struct FailedNode {
    node: NodeId,
    reason: String,
}

impl Report for Removed {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.cid)
    }
}

/// Does `supernode ls`.
pub fn list(given: &Given, args: &LsArgs) -> Result<(), Failure> {
    let config = given.client_config(&args.network, Vec::new())?;
    let objects = with_network(&config, Needs::OwnKey, async |network| {
        network.ready().await?;
        Ok(network.objects.list().await)
    })?;
    let objects = objects.into_iter().map(Kept::from).collect();
    Output::new(args.json.json).report(&Listing { objects })
}

/// Does `supernode rm`.
pub fn remove(given: &Given, args: &RmArgs) -> Result<(), Failure> {
    let config = given.client_config(&args.network, Vec::new())?;
    let output = Output::new(args.json.json);
    let released = with_network(&config, Needs::OwnKey, async |network| {
        network.ready().await?;
        Ok(network.objects.release(args.cid).await?)
    })?;
    let failed: Vec<FailedNode> = released
        .failed
        .into_iter()
        .map(|error| FailedNode { node: error.node, reason: error.message })
        .collect();
    let removed =
        Removed { cid: args.cid, leases: released.leases, nodes: released.released, failed };
    output.report(&removed)?;
    for failed in &removed.failed {
        let FailedNode { node, reason } = failed;
        output.talk(format_args!("{node} keeps it until the pin ends by itself: {reason}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use supernode_protocol::lease::Expiry;

    use super::ends;

    #[test]
    fn ends_read_well() {
        assert_eq!(ends(Expiry::RunningSeconds(30 * 24 * 3600 - 17)), "in 29days 23h");
        assert_eq!(ends(Expiry::RunningSeconds(90)), "in 1m 30s");
        assert_eq!(ends(Expiry::FinalisedHeight(7)), "at block 7");
    }
}
