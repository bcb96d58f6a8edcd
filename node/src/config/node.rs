// SPDX-License-Identifier: MIT OR Apache-2.0
//! `supernode.toml`: one node.
//!
//! The sections `[storage]`, `[relay]` and `[dht]` are the settings of those crates, all of them:
//! every bound is a setting, and each crate checks its own. What more than one of them needs, such
//! as the network's name, is said once and filled in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supernode_audit::AuditConfig;
use supernode_chain::ChainConfig;
use supernode_dht::{DhtConfig, Mode};
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::{NODE_ADDRESSES_MAX, REGION_NAME_BYTES_MAX};
use supernode_relay::RelayConfig;
use supernode_store::{StoreConfig, StoreError};

use super::error::Invalid;
use super::layers::Settings;
use super::log::LogSection;

/// The network that nodes and clients belong to unless told otherwise.
pub const DEFAULT_NETWORK: &str = "main";

/// A node's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Where everything is kept. Relative to this file.
    pub data_dir: PathBuf,
    /// The node's key, which is its name. Relative to `data_dir`.
    pub identity_file: PathBuf,
    /// The network and this node's place in it.
    pub network: NetworkSection,
    /// What is kept, and how safely.
    pub storage: StoreConfig,
    /// The QUIC relay server.
    pub relay: RelayConfig,
    /// The libp2p endpoint.
    pub dht: DhtConfig,
    /// The chain that pays this node and challenges it.
    pub chain: ChainConfig,
    /// How challenges are answered and deals are ended.
    pub audit: AuditConfig,
    /// The registered nodes of the chain.
    pub registry: RegistrySection,
    /// Metrics and health.
    pub http: HttpSection,
    /// Logs.
    pub log: LogSection,
    /// How the node stops.
    pub shutdown: ShutdownSection,
}

/// The network and this node's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// Its name; nodes and clients of other networks are refused.
    pub name: String,
    /// Failure domain of this node, such as `EU-WEST`.
    pub region: String,
    /// Multiaddresses of nodes to start from, each ending in `/p2p/` and the peer id.
    pub bootstrap: Vec<String>,
    /// Addresses of the relay server that others are told, instead of those it listens on.
    pub advertise_quic: Vec<SocketAddr>,
    /// Multiaddresses that others are told, instead of those libp2p listens on.
    pub advertise_libp2p: Vec<String>,
}

/// The registered nodes of the chain, which are clients of class repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// How often the registry is read again.
    pub refresh_secs: u64,
    /// Nodes that are known at most; 0 reads nothing.
    pub nodes_max: usize,
}

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Where `/metrics`, `/livez` and `/readyz` are served (TCP).
    pub listen: SocketAddr,
    /// Scrapes answered at a time; more are told to come back.
    pub requests_max: usize,
}

/// How the node stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSection {
    /// How long transfers under way may take to finish.
    pub deadline_secs: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let relay = RelayConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], 9002)),
            network: DEFAULT_NETWORK.to_owned(),
            ..RelayConfig::default()
        };
        let dht = DhtConfig {
            listen: vec!["/ip4/0.0.0.0/tcp/30333".to_owned()],
            network: DEFAULT_NETWORK.to_owned(),
            mode: Mode::Server,
            ..DhtConfig::default()
        };
        Self {
            data_dir: PathBuf::from("/var/lib/supernode"),
            identity_file: PathBuf::from("identity.key"),
            network: NetworkSection::default(),
            storage: StoreConfig::default(),
            relay,
            dht,
            chain: ChainConfig::default(),
            audit: AuditConfig::default(),
            registry: RegistrySection::default(),
            http: HttpSection::default(),
            log: LogSection::at("info"),
            shutdown: ShutdownSection::default(),
        }
    }
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self {
            name: DEFAULT_NETWORK.to_owned(),
            region: "default".to_owned(),
            bootstrap: Vec::new(),
            advertise_quic: Vec::new(),
            advertise_libp2p: Vec::new(),
        }
    }
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self { refresh_secs: 600, nodes_max: 100_000 }
    }
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9102)), requests_max: 16 }
    }
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { deadline_secs: 60 }
    }
}

impl Settings for NodeConfig {
    const HIDDEN: &'static [(&'static str, &'static str)] = &[
        ("relay.network", "network.name"),
        ("relay.agent", "nothing; it names this program"),
        ("dht.network", "network.name"),
        ("dht.bootstrap", "network.bootstrap"),
        ("dht.mode", "nothing; a node is always a server"),
    ];

    fn validate(&self) -> Result<(), Invalid> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Invalid::new("data_dir", "is empty; name a directory"));
        }
        let region = &self.network.region;
        if region.is_empty() || region.len() > REGION_NAME_BYTES_MAX {
            let problem =
                format!("must have 1 to {REGION_NAME_BYTES_MAX} bytes, as in \"EU-WEST\"");
            return Err(Invalid::new("network.region", problem));
        }
        self.network.validate_addresses()?;
        if self.registry.refresh_secs == 0 {
            return Err(Invalid::new("registry.refresh_secs", "must be at least 1s"));
        }
        if self.http.requests_max == 0 {
            return Err(Invalid::new("http.requests_max", "must be at least 1"));
        }
        self.log.validate()?;
        self.chain.validate().map_err(chain_invalid)?;
        self.audit
            .validate()
            .map_err(|error| Invalid::new(format!("audit.{}", error.field), error.reason))?;
        let nobody = NodeId::from_bytes([0; NodeId::LEN]);
        self.store(nobody).validate().map_err(|error| match error {
            StoreError::Config { key: "data_dir", reason } => Invalid::new("data_dir", reason),
            StoreError::Config { key, reason } => Invalid::new(format!("storage.{key}"), reason),
            other => Invalid::new("storage", other),
        })?;
        self.dht().validate().map_err(|error| match error.field {
            "network" => Invalid::new("network.name", error.reason),
            "bootstrap" => Invalid::new("network.bootstrap", error.reason),
            field => Invalid::new(format!("dht.{field}"), error.reason),
        })?;
        self.relay().validate().map_err(|error| {
            let problem = format!("{} is out of range; write {}", error.value, error.rule);
            Invalid::new(self.relay_key(error.setting), problem)
        })
    }

    fn resolve_paths(&mut self, directory: &Path) {
        // Through its components, because nobody can make a directory `node/.`.
        self.data_dir = directory.join(&self.data_dir).components().collect();
        for disk in &mut self.storage.disks {
            disk.path = directory.join(&disk.path).components().collect();
        }
    }
}

impl NetworkSection {
    fn validate_addresses(&self) -> Result<(), Invalid> {
        let counts = [
            ("network.advertise_quic", self.advertise_quic.len()),
            ("network.advertise_libp2p", self.advertise_libp2p.len()),
        ];
        if let Some((key, count)) = counts.into_iter().find(|(_, it)| *it > NODE_ADDRESSES_MAX) {
            let problem = format!("has {count} addresses; at most {NODE_ADDRESSES_MAX} are told");
            return Err(Invalid::new(key, problem));
        }
        let unusable = |address: &&SocketAddr| address.ip().is_unspecified() || address.port() == 0;
        match self.advertise_quic.iter().find(unusable) {
            Some(address) => {
                let problem = format!("{address} reaches nobody; name what others dial");
                Err(Invalid::new("network.advertise_quic", problem))
            }
            None => Ok(()),
        }
    }
}

impl NodeConfig {
    /// Where the node's key is.
    pub fn identity_path(&self) -> PathBuf {
        self.data_dir.join(&self.identity_file)
    }

    /// The store's settings, complete.
    pub fn store(&self, node: NodeId) -> StoreConfig {
        StoreConfig { path: self.data_dir.clone(), node, ..self.storage.clone() }
    }

    /// The relay server's settings, complete.
    pub fn relay(&self) -> RelayConfig {
        let agent = concat!("supernode/", env!("CARGO_PKG_VERSION")).to_owned();
        RelayConfig { network: self.network.name.clone(), agent, ..self.relay.clone() }
    }

    /// The DHT's settings, complete.
    pub fn dht(&self) -> DhtConfig {
        DhtConfig {
            network: self.network.name.clone(),
            bootstrap: self.network.bootstrap.clone(),
            mode: Mode::Server,
            ..self.dht.clone()
        }
    }

    /// Where the key is that signs this node's transactions.
    pub fn chain_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.chain.key_file)
    }

    /// How long stopping may take.
    pub fn shutdown_deadline(&self) -> Duration {
        Duration::from_secs(self.shutdown.deadline_secs)
    }

    /// The dotted key of a relay setting, which may be in one of its inner sections. Those of a
    /// class come with theirs.
    fn relay_key(&self, setting: &str) -> String {
        let relay = toml::Table::try_from(&self.relay).expect("settings are tables");
        let inner = relay.iter().find(|(_, value)| value.get(setting).is_some());
        match inner {
            _ if relay.contains_key(setting) || setting.contains('.') => {
                format!("relay.{setting}")
            }
            Some((section, _)) => format!("relay.{section}.{setting}"),
            None => "relay".to_owned(),
        }
    }
}

/// A bad setting of the chain, as a setting of the whole.
pub(super) fn chain_invalid(error: supernode_chain::ConfigError) -> Invalid {
    Invalid::new(format!("chain.{}", error.key), error.problem)
}
