// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of a development network: identities, ports and configurations.
//!
//! ```text
//! DIR/client.toml client.key      what clients of this network use
//! DIR/chain.key                   the account that pays for deals
//! DIR/chain/ chain-genesis.json   the development chain and how it begins
//! DIR/chain.log                   what it says
//! DIR/network.json                who the nodes are; written when all of them are up
//! DIR/node-1/supernode.toml       one directory a node
//! DIR/node-1/node.log             what it says
//! DIR/node-1/data/                its data directory
//! ```
//!
//! Ports are picked among free ones when the directory is made and kept from then on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use supernode_chain::SecretKey;
use supernode_protocol::ids::NodeId;

use super::chain::{ChainPlan, Pace};
use super::ports;
use crate::config::layers::Settings;
use crate::config::{self, ClientConfig, NodeConfig, Overlay, template};
use crate::exit::Failure;
use crate::identity::Identity;

/// The regions of a development network, in order; further nodes start over.
pub const REGIONS: [&str; 7] =
    ["NA-WEST", "NA-EAST", "EU-WEST", "EU-EAST", "APAC", "LATAM", "MENA"];
/// The name of a development network.
pub const NETWORK: &str = "dev";
/// What each node offers.
const CAPACITY: &str = "100GiB";

/// One node, as it stays over restarts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodePlan {
    /// `node-1` and so on.
    pub name: String,
    /// Its failure domain.
    pub region: String,
    /// Its key's name.
    pub peer_id: NodeId,
    /// The program and its arguments: what to run to start it again.
    pub command: Vec<String>,
    /// Where its segments are.
    pub data_dir: PathBuf,
    /// Address of its relay server (UDP).
    pub quic: String,
    /// Multiaddress of its libp2p endpoint.
    pub libp2p: String,
    /// Address of its metrics and health (TCP).
    pub http: String,
}

/// A development network on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// The nodes, in order.
    pub nodes: Vec<NodePlan>,
    /// The chain that they serve.
    pub chain: ChainPlan,
    pace: Pace,
    program: PathBuf,
}

/// What is particular about a node that is added.
pub struct NodeTraits<'a> {
    /// Its name and its directory's.
    pub name: String,
    /// Its failure domain.
    pub region: &'a str,
    /// What it offers, with a unit.
    pub capacity: &'a str,
    /// Who may write to it.
    pub writers: &'a [NodeId],
}

impl Layout {
    /// The network in `dir`, made there if there is none yet; `pace` is for a new one.
    ///
    /// # Errors
    /// When the directory cannot be used, or holds a network of another size.
    pub fn open(dir: &Path, node_count: usize, pace: Pace) -> Result<Self, Failure> {
        if node_count == 0 {
            return Err(Failure::usage("a network has at least one node; leave out --nodes for 7"));
        }
        make_dir(dir)?;
        let dir = fs::canonicalize(dir).map_err(|error| failed(dir, &error))?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format_args!("cannot find this program: {error}")))?;
        let chain = ChainPlan::default();
        let mut layout = Self { dir, nodes: Vec::new(), chain, pace, program };
        if layout.dir.join("client.toml").exists() {
            layout.reopen(node_count)?;
        } else {
            layout.create(node_count)?;
        }
        Ok(layout)
    }

    /// What clients of the network use.
    pub fn client_config(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// Adds a node that knows `bootstrap`; it is started separately.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn add_node(
        &mut self,
        traits: &NodeTraits<'_>,
        bootstrap: &[String],
    ) -> Result<NodePlan, Failure> {
        let (identity, _) = self.make_node_dir(&traits.name)?;
        let ports = Ports::take(&mut ports::free(Ports::COUNT)?.into_iter());
        let plan = self.plan(traits, identity.node, ports);
        self.write_node(&plan, traits, bootstrap)?;
        self.nodes.push(plan.clone());
        Ok(plan)
    }

    /// Writes a client's configuration with a key of its own.
    ///
    /// # Errors
    /// When a file cannot be written or the key exists already.
    pub fn add_client(
        &self,
        dir: &Path,
        bootstrap: &[String],
    ) -> Result<(PathBuf, NodeId), Failure> {
        make_dir(dir)?;
        let identity = Identity::create(&dir.join("client.key"))?;
        let values = [
            Overlay::flag("identity_file", "client.key", "dev"),
            Overlay::flag("network.name", NETWORK, "dev"),
            Overlay::flag("network.bootstrap", bootstrap.join(","), "dev"),
        ];
        let path = dir.join("client.toml");
        write_settings::<ClientConfig>(&path, template::CLIENT, &values)?;
        Ok((path, identity.node))
    }

    fn create(&mut self, node_count: usize) -> Result<(), Failure> {
        let client = Identity::create(&self.dir.join("client.key"))?;
        let payer = SecretKey::generate(&self.dir.join("chain.key"))?;
        let mut accounts = vec![payer.account()];
        // One for the chain.
        let count =
            u16::try_from(node_count).ok().and_then(|nodes| nodes.checked_mul(Ports::COUNT));
        let count = count.and_then(|ports| ports.checked_add(1)).ok_or_else(|| {
            Failure::usage(format_args!(
                "{node_count} nodes are more than one machine has ports for"
            ))
        })?;
        let mut free = ports::free(count)?.into_iter();
        let mut made = Vec::new();
        for number in 1..=node_count {
            let name = format!("node-{number}");
            let (identity, operator) = self.make_node_dir(&name)?;
            accounts.push(operator.account());
            made.push((name, identity.node, Ports::take(&mut free)));
        }
        let port = free.next().expect("one was asked for");
        self.chain = ChainPlan::create(&self.dir, &self.program, &self.pace, &accounts, port)?;
        let writers = [client.node];
        for ((name, node, ports), region) in made.into_iter().zip(REGIONS.iter().cycle()) {
            let traits = NodeTraits { name, region, capacity: CAPACITY, writers: &writers };
            let plan = self.plan(&traits, node, ports);
            self.nodes.push(plan);
        }
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.libp2p.clone()).collect();
        for plan in &self.nodes {
            let others: Vec<String> =
                addresses.iter().filter(|address| **address != plan.libp2p).cloned().collect();
            let (name, region) = (plan.name.clone(), plan.region.as_str());
            let traits = NodeTraits { name, region, capacity: CAPACITY, writers: &writers };
            self.write_node(plan, &traits, &others)?;
        }
        let values = [
            Overlay::flag("identity_file", "client.key", "dev"),
            Overlay::flag("network.name", NETWORK, "dev"),
            Overlay::flag("network.bootstrap", addresses.join(","), "dev"),
            Overlay::flag("chain.endpoints", &self.chain.endpoint, "dev"),
            Overlay::flag("chain.genesis", &self.chain.genesis, "dev"),
            Overlay::flag("chain.block_millis", self.pace.block_time(), "dev"),
        ];
        // Written last: its presence says that the directory is complete.
        write_settings::<ClientConfig>(&self.client_config(), template::CLIENT, &values)
    }

    fn reopen(&mut self, node_count: usize) -> Result<(), Failure> {
        let client: ClientConfig = config::load(Some(&self.client_config()), &[], Vec::new())?;
        self.chain = ChainPlan::reopen(&self.dir, &self.program, &client.chain)?;
        for number in 1.. {
            let name = format!("node-{number}");
            let path = self.dir.join(&name).join("supernode.toml");
            if !path.exists() {
                break;
            }
            let node: NodeConfig = config::load(Some(&path), &[], Vec::new())?;
            let identity = Identity::load(&node.identity_path())?;
            let ports = Ports {
                quic: node.relay.listen.port(),
                libp2p: tcp_port(&node.dht.listen).ok_or_else(|| {
                    Failure::usage(format_args!("{}: dht.listen has no TCP port", path.display()))
                })?,
                http: node.http.listen.port(),
            };
            let region = node.network.region.clone();
            let traits = NodeTraits { name, region: &region, capacity: CAPACITY, writers: &[] };
            let plan = self.plan(&traits, identity.node, ports);
            self.nodes.push(plan);
        }
        if self.nodes.len() == node_count {
            return Ok(());
        }
        Err(Failure::usage(format_args!(
            "{} holds a network of {} nodes; say --nodes {} or choose another directory",
            self.dir.display(),
            self.nodes.len(),
            self.nodes.len()
        )))
    }

    fn make_node_dir(&self, name: &str) -> Result<(Identity, SecretKey), Failure> {
        let data_dir = self.dir.join(name).join("data");
        make_dir(&data_dir)?;
        let identity = Identity::create(&data_dir.join("identity.key"))?;
        Ok((identity, SecretKey::generate(&data_dir.join("chain.key"))?))
    }

    fn plan(&self, traits: &NodeTraits<'_>, node: NodeId, ports: Ports) -> NodePlan {
        let dir = self.dir.join(&traits.name);
        let config = dir.join("supernode.toml");
        let program = self.program.display().to_string();
        NodePlan {
            name: traits.name.clone(),
            region: traits.region.to_owned(),
            peer_id: node,
            command: vec![program, "run".into(), "--config".into(), config.display().to_string()],
            data_dir: dir.join("data"),
            quic: format!("127.0.0.1:{}", ports.quic),
            libp2p: format!("/ip4/127.0.0.1/tcp/{}/p2p/{node}", ports.libp2p),
            http: format!("127.0.0.1:{}", ports.http),
        }
    }

    fn write_node(
        &self,
        plan: &NodePlan,
        traits: &NodeTraits<'_>,
        bootstrap: &[String],
    ) -> Result<(), Failure> {
        let listen = plan.libp2p.split("/p2p/").next().unwrap_or_default();
        let writers: Vec<String> = traits.writers.iter().map(NodeId::to_string).collect();
        let values = [
            ("data_dir", "data".to_owned()),
            ("network.name", NETWORK.to_owned()),
            ("network.region", traits.region.to_owned()),
            ("network.bootstrap", bootstrap.join(",")),
            ("storage.capacity_bytes", traits.capacity.to_owned()),
            ("relay.listen", plan.quic.clone()),
            ("relay.writers", writers.join(",")),
            ("dht.listen", listen.to_owned()),
            ("dht.allow_private_addresses", "true".to_owned()),
            ("http.listen", plan.http.clone()),
            ("chain.endpoints", self.chain.endpoint.clone()),
            ("chain.genesis", self.chain.genesis.clone()),
            ("chain.block_millis", self.pace.block_time()),
        ];
        let paced = self.pace.node_settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let values: Vec<Overlay> = values
            .into_iter()
            .chain(paced)
            .map(|(key, value)| Overlay::flag(key, value, "dev"))
            .collect();
        let path = self.dir.join(&plan.name).join("supernode.toml");
        write_settings::<NodeConfig>(&path, template::NODE, &values)
    }
}

/// The ports of one node.
struct Ports {
    quic: u16,
    libp2p: u16,
    http: u16,
}

impl Ports {
    const COUNT: u16 = 3;

    /// The first ones of `free`.
    fn take(free: &mut impl Iterator<Item = u16>) -> Self {
        let mut next = || free.next().expect("as many were asked for as are taken");
        Self { quic: next(), libp2p: next(), http: next() }
    }
}

/// The port of the first TCP multiaddress.
fn tcp_port(listen: &[String]) -> Option<u16> {
    let mut parts = listen.first()?.split('/');
    parts.find(|part| *part == "tcp")?;
    parts.next()?.parse().ok()
}

fn write_settings<T: Settings>(
    path: &Path,
    example: &str,
    values: &[Overlay],
) -> Result<(), Failure> {
    let text = template::fill::<T>(example, values)?;
    fs::write(path, text).map_err(|error| failed(path, &error))
}

pub(super) fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| failed(dir, &error))
}

pub(super) fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{}: {error}", path.display()))
}
