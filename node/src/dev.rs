// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dev`: a network on this machine that stays up.
//!
//! - [`layout`] decides, once per directory, who the nodes are and where they listen, and writes
//!   their configurations, `client.toml` and `network.json`. A directory that has them is used as
//!   it is, so a network can be stopped and started again.
//! - [`chain`] decides how the network's chain begins and at which pace everything lives.
//! - [`cluster`] runs the chain and each node as a process of its own, waits until they are ready,
//!   and stops whatever runs in the directories, by whomever it was started.
//! - [`probe`] looks at nodes from outside, over HTTP.
//!
//! A node that dies is reported and left dead: what happens then is what people come here to see.

pub mod chain;
pub mod cluster;
pub mod layout;
mod ports;
pub mod probe;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::chain::{ChainPlan, Pace};
use self::cluster::Cluster;
use self::layout::{Layout, NodePlan};
use crate::cli::DevArgs;
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// What `dev` says once everything is up, which is also what `network.json` holds.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkFile {
    /// The network's name.
    pub network: String,
    /// What `--config` of the client commands takes.
    pub client_config: PathBuf,
    /// The chain.
    pub chain: RunningChain,
    /// The nodes, in order.
    pub nodes: Vec<RunningNode>,
}

/// The chain of `network.json`.
#[derive(Debug, Clone, Serialize)]
pub struct RunningChain {
    /// Everything that does not change when it is restarted.
    #[serde(flatten)]
    pub plan: ChainPlan,
    /// Its process.
    pub pid: u32,
}

/// One node of `network.json`.
#[derive(Debug, Clone, Serialize)]
pub struct RunningNode {
    /// Everything that does not change when it is restarted.
    #[serde(flatten)]
    pub plan: NodePlan,
    /// Its process.
    pub pid: u32,
}

impl Report for NetworkFile {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| {
                let plan = &node.plan;
                let columns = [&plan.name, &plan.region, &plan.quic, &plan.http];
                let mut row: Vec<String> = columns.into_iter().cloned().collect();
                row.push(node.pid.to_string());
                row
            })
            .collect();
        output::table(out, &["NODE", "REGION", "QUIC", "HTTP", "PID"], &rows)?;
        writeln!(out, "chain at {}, PID {}", self.chain.plan.endpoint, self.chain.pid)
    }
}

/// Does `supernode dev`.
pub async fn run(args: &DevArgs) -> Result<(), Failure> {
    let output = Output::new(args.json.json);
    // Listening for signals first: from here on a Ctrl-C stops what has been started.
    let mut stop = StopSignals::install()?;
    let pace = Pace::people(args.block_time);
    output.talk(format_args!("pace of a new network: {}", pace.told()));
    let layout = Layout::open(&args.dir, args.nodes, pace)?;
    let mut cluster = Cluster::new(layout);
    let started = tokio::select! {
        started = cluster.start_all() => started.map(Some),
        () = stop.next() => Ok(None),
    };
    let up = match started {
        Ok(Some(network)) => {
            let dir = args.dir.display();
            output
                .report(&network)
                .map(|()| {
                    output.talk(format_args!(
                        "the network is up; try: supernode --config {dir}/client.toml put FILE"
                    ))
                })
                .map(|()| output.talk("Ctrl-C stops it"))
        }
        Ok(None) => Ok(()),
        Err(failure) => {
            cluster.stop_started().await;
            return Err(failure);
        }
    };
    if up.is_ok() {
        loop {
            tokio::select! {
                name = cluster.next_exit() => {
                    output.talk(format_args!(
                        "{name} has ended and stays so; network.json says how to start it"
                    ));
                }
                () = stop.next() => break,
            }
        }
    }
    output.talk("stopping the nodes");
    cluster.stop_all().await;
    up
}

/// Ctrl-C, SIGTERM and a terminal that goes away: nodes are in groups of their own and would stay.
pub struct StopSignals([Signal; 3]);

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn install() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::failed(format_args!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
