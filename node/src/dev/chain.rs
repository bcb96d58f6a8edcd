// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain of a development network: how it begins, at which pace it and the nodes live, and the
//! registration of the nodes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use supernode_chain::{Chain, ChainConfig};
use supernode_devchain::{Genesis, Parameters};

use super::layout::{NodePlan, failed};
use crate::commands::registry;
use crate::config::{self, NodeConfig};
use crate::exit::Failure;

/// What each account of the network owns at the beginning, in the chain's smallest unit.
const ENDOWMENT: u128 = 1_000_000_000_000_000_000;
/// Blocks by which finality lags, so that a network never takes best for final.
const FINALITY_LAG: u32 = 2;
/// A chain that does not answer after so long will not.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes that share a disk would measure each other.
const SHARED_DISK: (&str, &str) = ("storage.io", "buffered");

/// The periods of a development network: a chain's days in seconds.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Time between blocks.
    pub block_time: Duration,
    /// Periods of the pallet, in blocks.
    pub parameters: Parameters,
    /// Settings of every node that differ from the defaults.
    pub node_settings: &'static [(&'static str, &'static str)],
}

impl Pace {
    /// For people who try things out: a round of audits each 30 blocks.
    pub fn people(block_time: Duration) -> Self {
        Self {
            block_time,
            parameters: Parameters {
                activation_window: 600,
                duration_min: 60,
                audit_interval: 30,
                audit_window: 20,
                tombstone_blocks: 3600,
                ..Parameters::default()
            },
            node_settings: &[
                ("audit.reorg_buffer_blocks", "6"),
                ("audit.stall_after_secs", "30s"),
                ("chain.heartbeat_secs", "2s"),
                ("registry.refresh_secs", "5s"),
                ("storage.trash_secs", "1m"),
                SHARED_DISK,
            ],
        }
    }

    /// For the demo: every slot is drawn in every round, and a deal is over within a minute.
    pub fn demo() -> Self {
        Self {
            block_time: Duration::from_millis(250),
            parameters: Parameters {
                activation_window: 400,
                duration_min: 48,
                audit_interval: 24,
                audit_window: 16,
                slots_per_round: 4096,
                tombstone_blocks: 4000,
                ..Parameters::default()
            },
            node_settings: &[
                ("audit.reorg_buffer_blocks", "6"),
                ("audit.stall_after_secs", "10s"),
                ("audit.retry_interval_secs", "1s"),
                ("chain.heartbeat_secs", "1s"),
                ("registry.refresh_secs", "1s"),
                ("storage.trash_secs", "1s"),
                SHARED_DISK,
                ("dht.provider_ttl_secs", "40s"),
                ("dht.republish_interval_secs", "10s"),
            ],
        }
    }

    /// The time between blocks as settings have it.
    pub(super) fn block_time(&self) -> String {
        humantime::format_duration(self.block_time).to_string()
    }

    /// The periods as one line for people.
    pub fn told(&self) -> String {
        let Parameters {
            activation_window, audit_interval, audit_window, tombstone_blocks, ..
        } = &self.parameters;
        let settings: Vec<String> =
            self.node_settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!(
            "a block each {}, finality {FINALITY_LAG} behind; in blocks: activation within \
             {activation_window}, audits each {audit_interval} with a window of {audit_window}, \
             tombstones for {tombstone_blocks}; nodes: {}",
            self.block_time(),
            settings.join(", ")
        )
    }
}

/// The chain, as it stays over restarts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChainPlan {
    /// Its JSON-RPC endpoint.
    pub endpoint: String,
    /// Hash of block 0.
    pub genesis: String,
    /// Where its state is.
    pub dir: PathBuf,
    /// The program and its arguments: what to run to start it again.
    pub command: Vec<String>,
}

/// What only the command that starts it knows, kept beside the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    block_time: String,
}

impl ChainPlan {
    /// A new chain on which `accounts` own something; it will listen on `port`.
    pub(super) fn create(
        dir: &Path,
        program: &Path,
        pace: &Pace,
        accounts: &[[u8; 32]],
        port: u16,
    ) -> Result<Self, Failure> {
        let genesis = Genesis {
            balances: accounts.iter().map(|account| ((*account).into(), ENDOWMENT)).collect(),
            parameters: pace.parameters.clone(),
            ..Genesis::default()
        };
        let hash = supernode_devchain::genesis_hash(&genesis)
            .map_err(|error| Failure::failed(format_args!("the chain cannot begin: {error}")))?;
        let text = serde_json::to_string_pretty(&genesis).expect("a genesis is plain data") + "\n";
        let path = dir.join("chain-genesis.json");
        fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        let begun = Begun { block_time: pace.block_time() };
        let path = dir.join("chain-pace.json");
        let text = serde_json::to_string(&begun).expect("plain data") + "\n";
        fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let genesis = format!("0x{}", blake3::Hash::from_bytes(hash.0).to_hex());
        Ok(Self::plan(dir, program, &begun, listen, genesis))
    }

    /// The chain that a network's clients know.
    pub(super) fn reopen(dir: &Path, program: &Path, known: &ChainConfig) -> Result<Self, Failure> {
        let path = dir.join("chain-pace.json");
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        let unusable = |problem: String| {
            Failure::usage(format_args!(
                "{} holds no network of this version ({problem}); choose another directory",
                dir.display()
            ))
        };
        let begun = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        let endpoint = known.endpoints.first();
        let listen = endpoint.and_then(|url| url.strip_prefix("ws://")?.parse().ok());
        let listen = listen.ok_or_else(|| unusable("client.toml names no chain".to_owned()))?;
        Ok(Self::plan(dir, program, &begun, listen, known.genesis.clone()))
    }

    fn plan(
        dir: &Path,
        program: &Path,
        begun: &Begun,
        listen: SocketAddr,
        genesis: String,
    ) -> Self {
        let (state, begins) = (dir.join("chain"), dir.join("chain-genesis.json"));
        let words = [
            program.display().to_string(),
            "chain".into(),
            "dev".into(),
            "--dir".into(),
            state.display().to_string(),
            "--genesis".into(),
            begins.display().to_string(),
            "--listen".into(),
            listen.to_string(),
            "--block-time".into(),
            begun.block_time.clone(),
            "--finality-lag".into(),
            FINALITY_LAG.to_string(),
        ];
        Self { endpoint: format!("ws://{listen}"), genesis, dir: state, command: words.to_vec() }
    }

    /// Waits until the chain answers and every node is in its registry.
    ///
    /// # Errors
    /// When it does not answer, or refuses a node.
    pub async fn register(&self, dir: &Path, nodes: &[NodePlan]) -> Result<(), Failure> {
        let config = ChainConfig {
            endpoints: vec![self.endpoint.clone()],
            genesis: self.genesis.clone(),
            heartbeat_secs: 1,
            ..ChainConfig::default()
        };
        let chain = Chain::start(config).map_err(Failure::usage)?;
        chain.ready(READY_TIMEOUT).await?;
        let registrations = nodes.iter().map(|plan| async {
            let path = dir.join(&plan.name).join("supernode.toml");
            let node: NodeConfig = config::load(Some(&path), &[], Vec::new())?;
            registry::register_on(&chain, &node, None).await
        });
        let registered = try_join_all(registrations).await;
        chain.close();
        registered.map(drop)
    }
}
