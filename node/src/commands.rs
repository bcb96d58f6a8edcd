// SPDX-License-Identifier: MIT OR Apache-2.0
//! One module per family of commands. Each function does one command: it loads what settings it
//! needs, does the work, and ends in a report on stdout or a failure.

mod capability;
mod chain;
mod cleanup;
mod deal;
mod drain;
mod get;
mod init;
mod leases;
mod network;
mod onchain;
mod put;
pub(crate) mod registry;
mod relay;
mod run;
mod running;
mod scrub;
mod stat;
mod status;
mod store;

use std::path::{Path, PathBuf};

use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command, NetworkFlags, PeerCommand};
use crate::config::{self, ClientConfig, Kind, NodeConfig, Overlay, layers};
use crate::exit::Failure;
use crate::{demo, dev, logging};

/// What stands on the command line for every command.
#[derive(Debug)]
pub struct Given {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--set`, in order.
    pub set: Vec<Overlay>,
}

impl Given {
    /// Which kind of configuration was named; if none was, which one this machine has.
    fn kind(&self) -> Result<Kind, Failure> {
        let client = || config::client_config_paths().iter().any(|path| path.exists());
        match &self.config {
            Some(path) => Ok(Kind::of(&layers::read_file(path)?)),
            None if Path::new(config::NODE_CONFIG_PATH).exists() && !client() => Ok(Kind::Node),
            None => Ok(Kind::Client),
        }
    }

    /// A node's settings; `flags` win over all else. Logging starts with them.
    fn node_config(&self, flags: Vec<Overlay>) -> Result<NodeConfig, Failure> {
        let flags = self.set.iter().cloned().chain(flags).collect();
        let usual = [PathBuf::from(config::NODE_CONFIG_PATH)];
        let node: NodeConfig = config::load(self.config.as_deref(), &usual, flags)?;
        logging::install(&node.log)?;
        Ok(node)
    }

    /// A client's settings; `flags` and `network` win over all else. Logging starts with them.
    fn client_config(
        &self,
        network: &NetworkFlags,
        flags: Vec<Overlay>,
    ) -> Result<ClientConfig, Failure> {
        let mut flags: Vec<Overlay> = self.set.iter().cloned().chain(flags).collect();
        if !network.bootstrap.is_empty() {
            let addresses = network.bootstrap.join(",");
            flags.push(Overlay::flag("network.bootstrap", addresses, "--bootstrap"));
        }
        if let Some(name) = &network.network {
            flags.push(Overlay::flag("network.name", name, "--network"));
        }
        if let Some(path) = &network.identity {
            let path = path.to_str().ok_or_else(|| Failure::usage("--identity must be UTF-8"))?;
            flags.push(Overlay::flag("identity_file", path, "--identity"));
        }
        let usual = config::client_config_paths();
        let client: ClientConfig = config::load(self.config.as_deref(), &usual, flags)?;
        logging::install(&client.log)?;
        Ok(client)
    }
}

/// Does what the command line asks for.
///
/// # Errors
/// Whatever stopped it, with the exit code that belongs to it.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let given = Given { config: cli.config, set: cli.set.iter().map(Overlay::from).collect() };
    match cli.command {
        Command::Init(args) => init::run(given, &args),
        Command::Run(args) => run::run(&given, &args),
        Command::Put(args) => put::run(&given, &args),
        Command::Get(args) => get::run(&given, &args),
        Command::Stat(args) => stat::run(&given, &args),
        Command::Ls(args) => leases::list(&given, &args),
        Command::Rm(args) => leases::remove(&given, &args),
        Command::Status(args) => status::run(&given, &args),
        Command::Peer(args) => match args.command {
            PeerCommand::List(args) => status::peers(&given, &args),
        },
        Command::Capability(args) => capability::run(&given, &args.command),
        Command::Deal(args) => deal::run(&given, &args.command),
        Command::Audit(args) => deal::audits(&given, &args.command),
        Command::Node(args) => registry::run(&given, &args.command),
        Command::Rewards(args) => registry::rewards(&given, &args.command),
        Command::Cleanup(args) => cleanup::run(&given, &args),
        Command::Chain(args) => chain::run(&given, &args.command),
        Command::Scrub(args) => scrub::run(&given, args.command),
        Command::Relay(args) => relay::run(&given, args.command),
        Command::Store(args) => store::run(&given, &args.command),
        Command::Dev(args) => runtime()?.block_on(dev::run(&args)),
        Command::Demo(args) => runtime()?.block_on(demo::run(&args)),
    }
}

/// The runtime of one command.
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("the runtime cannot start: {error}")))
}
