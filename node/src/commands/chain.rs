// SPDX-License-Identifier: MIT OR Apache-2.0
//! `chain`: a development chain, keys for transactions, and how the configured endpoints are.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use supernode_chain::{BlockRef, Chain, SecretKey, Standing};
use supernode_devchain::{DevChain, Genesis, Options, Seal};

use super::network::interrupted;
use super::{Given, runtime};
use crate::cli::{ChainCommand, ChainDevArgs, ChainKeyArgs, ChainStatusArgs, NetworkFlags};
use crate::config::Kind;
use crate::config::log::LogSection;
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::{Output, Report};

/// How long endpoints get to show their heads.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Does `supernode chain …`.
pub fn run(given: &Given, command: &ChainCommand) -> Result<(), Failure> {
    match command {
        ChainCommand::Dev(args) => runtime()?.block_on(dev(args)),
        ChainCommand::Key(args) => key(args),
        ChainCommand::Status(args) => status(given, args),
    }
}

/// A chain that runs.
#[derive(Debug, Serialize)]
struct Running {
    endpoint: String,
    genesis: String,
    dir: Option<PathBuf>,
}

impl Report for Running {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "endpoint  {}", self.endpoint)?;
        writeln!(out, "genesis   {}", self.genesis)
    }
}

async fn dev(args: &ChainDevArgs) -> Result<(), Failure> {
    logging::install(&LogSection::at("info"))?;
    let genesis = args.genesis.as_deref().map(read_genesis).transpose()?;
    let seal = match args.instant {
        true => Seal::Instant,
        false => Seal::Every(args.block_time),
    };
    let options = Options {
        dir: args.dir.clone(),
        listen: vec![args.listen],
        seal,
        finality_lag: args.finality_lag,
        genesis,
        controls: args.control,
        ..Options::default()
    };
    let chain =
        DevChain::start(options).await.map_err(|error| Failure::of(Exit::Failed, &error))?;
    let running = Running {
        endpoint: chain.url(),
        genesis: hex(chain.genesis_hash().0),
        dir: args.dir.clone(),
    };
    Output::new(args.json.json).report(&running)?;
    let signal = interrupted().await;
    tracing::info!(signal, "the chain stops");
    chain.stop().await;
    Ok(())
}

fn read_genesis(path: &Path) -> Result<Genesis, Failure> {
    let bad = |problem: String| Failure::usage(format_args!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
}

/// A key that was made.
#[derive(Debug, Serialize)]
struct Made {
    file: PathBuf,
    account: String,
}

impl Report for Made {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.account)
    }
}

fn key(args: &ChainKeyArgs) -> Result<(), Failure> {
    let key = SecretKey::generate(&args.file)?;
    Output::new(args.json.json).report(&Made { file: args.file.clone(), account: key.address() })
}

/// One endpoint.
#[derive(Debug, Serialize)]
struct EndpointLine {
    endpoint: String,
    standing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalised: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Endpoints {
    endpoints: Vec<EndpointLine>,
}

impl Report for Endpoints {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.endpoints {
            let height = |it: Option<u64>| it.map_or_else(|| "-".to_owned(), |it| it.to_string());
            let (best, finalised) = (height(line.best), height(line.finalised));
            let EndpointLine { endpoint, standing, .. } = line;
            writeln!(out, "{endpoint}  {standing}  best {best}, finalised {finalised}")?;
        }
        Ok(())
    }
}

fn status(given: &Given, args: &ChainStatusArgs) -> Result<(), Failure> {
    let config = match given.kind()? {
        Kind::Node => given.node_config(Vec::new())?.chain,
        Kind::Client => given.client_config(&NetworkFlags::default(), Vec::new())?.chain,
    };
    if !config.is_configured() {
        return Err(Failure::usage(
            "no chain is configured; name chain.endpoints and chain.genesis",
        ));
    }
    let runtime = runtime()?;
    let views = runtime.block_on(async {
        let chain = Chain::start(config).map_err(|error| Failure::of(Exit::Usage, &error))?;
        chain.settled(LOOK_PATIENCE).await;
        Ok::<_, Failure>(chain.views())
    })?;
    runtime.shutdown_background();
    let height = |block: Option<BlockRef>| block.map(|block| block.height);
    let all_connected = views.iter().all(|(_, view)| view.standing == Standing::Connected);
    let endpoints = views.into_iter().map(|(endpoint, view)| EndpointLine {
        endpoint,
        standing: told(&view.standing),
        best: height(view.best),
        finalised: height(view.finalised),
    });
    Output::new(args.json.json).report(&Endpoints { endpoints: endpoints.collect() })?;
    if all_connected {
        Ok(())
    } else {
        Err(Failure::failed("not every endpoint may be believed; nothing is deleted meanwhile"))
    }
}

fn told(standing: &Standing) -> String {
    match standing {
        Standing::Connected => "connected".to_owned(),
        Standing::Unreachable { reason } => format!("unreachable: {reason}"),
        Standing::ForeignGenesis { found } => format!("another chain, of genesis {}", hex(*found)),
        Standing::ForeignRuntime { reason } => format!("another runtime: {reason}"),
    }
}

fn hex(bytes: [u8; 32]) -> String {
    format!("0x{}", blake3::Hash::from_bytes(bytes).to_hex())
}
