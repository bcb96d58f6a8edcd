// SPDX-License-Identifier: MIT OR Apache-2.0
//! `node` and `rewards`: this node's place on the chain, and what it has earned there.

use std::io::{self, Write};

use serde::Serialize;
use supernode_chain::{Account, Call, Chain, Node, SecretKey, Until, address};
use supernode_protocol::deal::registration_message;
use supernode_protocol::ids::NodeId;

use super::Given;
use super::onchain::{account, with_chain};
use crate::cli::{NodeCommand, NodeRegisterArgs, NodeShowArgs, RewardsCommand, RewardsNodeArgs};
use crate::config::NodeConfig;
use crate::exit::Failure;
use crate::identity::Identity;
use crate::output::{self, Output, Report};

/// One entry of the registry.
#[derive(Debug, Serialize)]
struct Registered {
    index: u32,
    peer_id: NodeId,
    owner: String,
    operator: String,
    region: String,
    addresses: Vec<String>,
    capacity_bytes: u64,
    registered_at: u64,
}

impl From<Node> for Registered {
    fn from(node: Node) -> Self {
        Self {
            index: node.index,
            peer_id: node.peer,
            owner: address(node.owner),
            operator: address(node.operator),
            region: node.region,
            addresses: node.addresses,
            capacity_bytes: node.capacity,
            registered_at: node.registered_at,
        }
    }
}

impl Report for Registered {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "index     {}", self.index)?;
        writeln!(out, "peer id   {}", self.peer_id)?;
        writeln!(out, "owner     {}", self.owner)?;
        writeln!(out, "operator  {}", self.operator)?;
        writeln!(out, "region    {}", self.region)?;
        writeln!(out, "capacity  {}", output::bytes(self.capacity_bytes))?;
        writeln!(out, "since     block {}", self.registered_at)?;
        self.addresses.iter().try_for_each(|address| writeln!(out, "address   {address}"))
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Registry {
    nodes: Vec<Registered>,
}

impl Report for Registry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |node: &Registered| {
            let capacity = output::bytes(node.capacity_bytes);
            vec![node.index.to_string(), node.peer_id.to_string(), node.region.clone(), capacity]
        };
        let rows: Vec<_> = self.nodes.iter().map(row).collect();
        output::table(out, &["INDEX", "PEER ID", "REGION", "CAPACITY"], &rows)
    }
}

/// Does `supernode node …`.
pub fn run(given: &Given, command: &NodeCommand) -> Result<(), Failure> {
    let config = given.node_config(Vec::new())?;
    match command {
        NodeCommand::Register(args) => register(&config, args),
        NodeCommand::Show(args) => show(&config, args),
    }
}

fn register(config: &NodeConfig, args: &NodeRegisterArgs) -> Result<(), Failure> {
    let owner = args.owner_key.as_deref().map(SecretKey::read).transpose()?;
    let entry = with_chain(&config.chain, async |chain: Chain| {
        register_on(&chain, config, owner).await.map(Registered::from)
    })?;
    Output::new(args.json.json).report(&entry)
}

/// Puts the node of a configuration into the registry, unless it is there already. Without an
/// owner's key the operator owns it.
///
/// # Errors
/// When a key cannot be read, or the chain refuses.
pub async fn register_on(
    chain: &Chain,
    config: &NodeConfig,
    owner: Option<SecretKey>,
) -> Result<Node, Failure> {
    let identity = Identity::load(&config.identity_path())?;
    if let Some(node) = chain.at_best().await?.node_of(identity.node).await? {
        return Ok(node);
    }
    let operator = SecretKey::read(&config.chain_key_path())?;
    let owner = owner.unwrap_or_else(|| operator.clone());
    let message = registration_message(&chain.genesis(), &owner.account(), &operator.account());
    let signature = identity.keypair.sign(&message).ok();
    let signature = signature.and_then(|it| <[u8; 64]>::try_from(it).ok());
    let signature = signature.ok_or_else(|| Failure::usage("the node's key cannot sign"))?;
    let call = Call::RegisterNode {
        operator: operator.account(),
        peer: identity.node,
        signature,
        region: config.network.region.clone(),
        addresses: addresses(config),
        capacity: config.storage.capacity_bytes,
    };
    Account::start(chain.clone(), owner).submit(call, Until::Finalised).await?;
    own_entry(chain, identity.node).await
}

/// Where others find this node, as far as its configuration says.
fn addresses(config: &NodeConfig) -> Vec<String> {
    let network = &config.network;
    let quic = match network.advertise_quic.is_empty() {
        true => vec![config.relay.listen],
        false => network.advertise_quic.clone(),
    };
    let named = quic.iter().filter(|it| !it.ip().is_unspecified()).map(|address| {
        let family = if address.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{family}/{}/udp/{}/quic-v1", address.ip(), address.port())
    });
    let libp2p = match network.advertise_libp2p.is_empty() {
        true => &config.dht.listen,
        false => &network.advertise_libp2p,
    };
    let reachable = libp2p.iter().filter(|it| !it.contains("/0.0.0.0/") && !it.contains("/::/"));
    named.chain(reachable.cloned()).collect()
}

fn show(config: &NodeConfig, args: &NodeShowArgs) -> Result<(), Failure> {
    let output = Output::new(args.json.json);
    if args.all {
        let mut nodes = with_chain(&config.chain, async |chain: Chain| {
            Ok(chain.at_best().await?.nodes().await?)
        })?;
        nodes.sort_by_key(|node| node.index);
        return output
            .report(&Registry { nodes: nodes.into_iter().map(Registered::from).collect() });
    }
    let node = Identity::load(&config.identity_path())?.node;
    let entry = with_chain(&config.chain, async |chain: Chain| own_entry(&chain, node).await)?;
    output.report(&Registered::from(entry))
}

async fn own_entry(chain: &Chain, node: NodeId) -> Result<Node, Failure> {
    chain.at_best().await?.node_of(node).await?.ok_or_else(|| {
        Failure::not_found(format_args!(
            "node {node} is not registered; `supernode node register` does that"
        ))
    })
}

/// What a node has earned.
#[derive(Debug, Serialize)]
struct Earned {
    node: u32,
    /// In the chain's smallest unit.
    rewards: String,
    claimed: bool,
    deals: Vec<DealEarning>,
}

#[derive(Debug, Serialize)]
struct DealEarning {
    deal: u64,
    bytes: u64,
    slots: u32,
    audits_passed: u32,
    audits_failed: u32,
    paid_until: u64,
}

impl Report for Earned {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let what = if self.claimed { "claimed" } else { "rewards" };
        writeln!(out, "node     {}", self.node)?;
        writeln!(out, "{what}  {}", self.rewards)?;
        for deal in &self.deals {
            writeln!(
                out,
                "deal {}: {} in {} slots, {} audits passed, {} failed, paid until block {}",
                deal.deal,
                output::bytes(deal.bytes),
                deal.slots,
                deal.audits_passed,
                deal.audits_failed,
                deal.paid_until
            )?;
        }
        Ok(())
    }
}

/// Does `supernode rewards …`.
pub fn rewards(given: &Given, command: &RewardsCommand) -> Result<(), Failure> {
    let config = given.node_config(Vec::new())?;
    match command {
        RewardsCommand::Show(args) => show_rewards(&config, args),
        RewardsCommand::Claim(args) => claim(&config, args),
    }
}

fn show_rewards(config: &NodeConfig, args: &RewardsNodeArgs) -> Result<(), Failure> {
    let node = Identity::load(&config.identity_path())?.node;
    let earned = with_chain(&config.chain, async |chain: Chain| {
        let index = own_entry(&chain, node).await?.index;
        let at = chain.at_best().await?;
        let deals = at.holdings(index).await?.into_iter().map(|holding| DealEarning {
            deal: holding.deal.0,
            bytes: holding.bytes,
            slots: holding.slots,
            audits_passed: holding.passed,
            audits_failed: holding.failed,
            paid_until: holding.settled_at,
        });
        let rewards = at.rewards(index).await?.to_string();
        Ok(Earned { node: index, rewards, claimed: false, deals: deals.collect() })
    })?;
    Output::new(args.json.json).report(&earned)
}

fn claim(config: &NodeConfig, args: &RewardsNodeArgs) -> Result<(), Failure> {
    let node = Identity::load(&config.identity_path())?.node;
    let earned = with_chain(&config.chain, async |chain: Chain| {
        let index = own_entry(&chain, node).await?.index;
        let account = account(&chain, &config.chain_key_path())?;
        let included = account.submit(Call::ClaimRewards { node: index }, Until::Finalised).await?;
        let rewards = included.claimed.unwrap_or_default().to_string();
        Ok(Earned { node: index, rewards, claimed: true, deals: Vec::new() })
    })?;
    Output::new(args.json.json).report(&earned)
}
