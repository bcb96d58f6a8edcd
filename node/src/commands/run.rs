// SPDX-License-Identifier: MIT OR Apache-2.0
//! `run`: a node until it is told to stop.
//!
//! SIGTERM and SIGINT drain and stop; a second one stops at once, which loses nothing that was
//! acknowledged.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use supernode_protocol::ids::NodeId;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Given, runtime};
use crate::cli::RunArgs;
use crate::config::{NodeConfig, Overlay};
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::node::{Node, StartError};
use crate::output::{Output, Report};

/// The variable by which TLS libraries write their session keys to a file.
const KEY_LOG_VARIABLE: &str = "SSLKEYLOGFILE";

/// A node that is up, as `--json` tells it.
#[derive(Debug, Serialize)]
struct Up {
    peer_id: NodeId,
    quic: SocketAddr,
    libp2p: Vec<String>,
    http: SocketAddr,
}

impl Report for Up {
    /// People read the log instead.
    fn human(&self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// Does `supernode run`.
pub fn run(given: &Given, args: &RunArgs) -> Result<(), Failure> {
    refuse_key_log()?;
    let mut flags = Vec::new();
    if let Some(dir) = &args.data_dir {
        let dir = dir.to_str().ok_or_else(|| Failure::usage("--data-dir must be UTF-8"))?;
        flags.push(Overlay::flag("data_dir", dir, "--data-dir"));
    }
    let config = given.node_config(flags)?;
    let identity = Identity::load(&config.identity_path())?;
    let runtime = runtime()?;
    let done = runtime.block_on(serve(config, identity, Output::new(args.json.json)));
    // Whatever still blocks a thread after an orderly stop is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

/// Keys of other people's sessions do not belong in a file.
fn refuse_key_log() -> Result<(), Failure> {
    match env::var_os(KEY_LOG_VARIABLE) {
        Some(path) if !path.is_empty() => Err(Failure::usage(format_args!(
            "{KEY_LOG_VARIABLE} is set, which would write every session's keys to {}; unset it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

async fn serve(config: NodeConfig, identity: Identity, output: Output) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let deadline = config.shutdown_deadline();
    let mut node = tokio::select! {
        node = Node::start(config, identity) => node.map_err(start_failed)?,
        name = signals.next() => {
            tracing::info!(signal = name, "told to stop while starting");
            return Ok(());
        }
    };
    let libp2p = node.libp2p().await.map_err(|error| Failure::of(Exit::Failed, &error))?;
    let up = Up { peer_id: node.identity().node, quic: node.quic(), libp2p, http: node.http() };
    tracing::info!(
        peer_id = %up.peer_id, quic = %up.quic, libp2p = ?up.libp2p, http = %up.http, "node is up"
    );
    if output.is_json() {
        output.report(&up)?;
    }
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, ?deadline, "stopping; a second signal stops at once");
            None
        }
        reason = node.failed() => Some(reason),
    };
    tokio::select! {
        stopped = node.stop(deadline) => {
            let drained = stopped.map_err(|error| Failure::of(Exit::Failed, &error))?;
            tracing::info!(drained, "node has stopped");
        }
        name = signals.next() => {
            return Err(Failure::failed(format_args!("stopped at once by a second {name}")));
        }
    }
    match failed {
        None => Ok(()),
        Some(reason) => Err(Failure::failed(reason)),
    }
}

fn start_failed(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Dht(supernode_dht::DhtError::Config(_)) => Exit::Usage,
        StartError::Store(supernode_store::StoreError::Config { .. }) => Exit::Usage,
        StartError::Relay(supernode_relay::RelayError::Setting(_)) => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::of(exit, &error)
}

/// The signals that stop a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::failed(format_args!("signals cannot be handled: {error}"))
            })
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
