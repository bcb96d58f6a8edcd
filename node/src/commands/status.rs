// SPDX-License-Identifier: MIT OR Apache-2.0
//! `status` and `peer list`: how nodes are, and which there are.
//!
//! With a node's configuration `status` asks that node; with a client's, every bootstrap node. It
//! succeeds only when all of them answer.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use supernode_client::Peer;
use supernode_object::network::Directory;
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::NodeStatus;
use supernode_store::DiskMetrics;
use tokio::time::{Instant, timeout};

use super::network::{Needs, Network, quic_client, with_network};
use super::{Given, running, runtime};
use crate::admin;
use crate::cli::{PeerListArgs, StatusArgs};
use crate::config::{Kind, NodeConfig};
use crate::exit::Failure;
use crate::identity::Identity;
use crate::output::{self, Output, Report};

/// How long a node may take to be found and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between attempts within that time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);

/// One node that was asked.
#[derive(Debug, Serialize)]
struct Answer {
    peer_id: NodeId,
    /// As configured.
    address: String,
    answers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<NodeStatus>,
    /// Those of this machine's own node, if it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disks: Vec<DiskMetrics>,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Answers {
    ok: bool,
    nodes: Vec<Answer>,
}

impl Answers {
    fn new(nodes: Vec<Answer>) -> Self {
        Self { ok: nodes.iter().all(|node| node.answers), nodes }
    }

    /// The failure that those who do not answer amount to.
    fn verdict(&self) -> Result<(), Failure> {
        let silent: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| !node.answers)
            .map(|node| {
                let reason = node.error.as_deref().unwrap_or("no answer");
                format!("{} at {} ({reason})", node.peer_id, node.address)
            })
            .collect();
        match silent.len() {
            0 => Ok(()),
            count => Err(Failure::failed(format_args!(
                "{count} of {} nodes do not answer: {}",
                self.nodes.len(),
                silent.join("; ")
            ))),
        }
    }
}

impl Report for Answers {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| {
                let mut row = vec![node.peer_id.to_string()];
                row.push(node.region.clone().unwrap_or_default());
                match &node.status {
                    None => row.push("no answer".to_owned()),
                    Some(status) => row.extend([
                        "up".to_owned(),
                        status.shard_count.to_string(),
                        status.slot_count.to_string(),
                        output::bytes(status.live_bytes),
                        output::bytes(status.capacity_bytes),
                        humantime::format_duration(Duration::from_secs(status.uptime_secs))
                            .to_string(),
                    ]),
                }
                row
            })
            .collect();
        let header = ["NODE", "REGION", "STATE", "SHARDS", "SLOTS", "LIVE", "CAPACITY", "UPTIME"];
        output::table(out, &header, &rows)?;
        self.nodes.iter().try_for_each(|node| disks(&node.disks, out))
    }
}

/// One line for each disk of a node that has several.
fn disks(disks: &[DiskMetrics], out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<Vec<String>> = disks
        .iter()
        .map(|disk| {
            let state = match &disk.offline {
                Some(reason) => format!("OFFLINE: {reason}"),
                None => "online".to_owned(),
            };
            let [used, capacity, free] =
                [disk.used_bytes, disk.capacity_bytes, disk.free_bytes].map(output::bytes);
            vec![disk.path.display().to_string(), used, capacity, free, state]
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    output::table(out, &["DISK", "USED", "CAPACITY", "FREE", "STATE"], &rows)
}

/// Does `supernode status`.
pub fn run(given: &Given, args: &StatusArgs) -> Result<(), Failure> {
    let output = Output::new(args.json.json);
    let answers = match given.kind()? {
        Kind::Node => own_node(&given.node_config(Vec::new())?)?,
        Kind::Client => {
            let config = given.client_config(&args.network, Vec::new())?;
            let bootstrap = config.network.bootstrap.clone();
            with_network(&config, Needs::AnyKey, async |network| {
                Ok(Answers::new(
                    join_all(bootstrap.iter().map(|address| ask_bootstrap(&network, address)))
                        .await,
                ))
            })?
        }
    };
    output.report(&answers)?;
    answers.verdict()
}

/// Asks the node of a configuration on this machine, as that node: its owner holds its key.
fn own_node(config: &NodeConfig) -> Result<Answers, Failure> {
    let identity = Identity::load(&config.identity_path())?;
    let address = dialled(config.relay.listen);
    if address.port() == 0 {
        return Err(Failure::usage("relay.listen has no fixed port, so the node cannot be found"));
    }
    let peer = Peer { node: identity.node, addresses: vec![address] };
    let runtime = runtime()?;
    let asked: Result<_, Failure> = runtime.block_on(async {
        let client = quic_client(&identity, &config.network.name, None)?;
        let status = timeout(ANSWER_TIMEOUT, client.status(&peer)).await;
        client.close().await;
        let status = match status {
            Ok(status) => status.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {ANSWER_TIMEOUT:?}")),
        };
        Ok((status, own_disks(config).await))
    });
    runtime.shutdown_background();
    let region = Some(config.network.region.clone());
    let (status, disks) = asked?;
    let answer = answer(identity.node, address.to_string(), region, status);
    Ok(Answers::new(vec![Answer { disks, ..answer }]))
}

/// The disks of the node on this machine, if it has several. Where the admin socket does not
/// answer, the node's own answer says enough.
async fn own_disks(config: &NodeConfig) -> Vec<DiskMetrics> {
    if config.storage.disks.is_empty() {
        return Vec::new();
    }
    running::ask(&config.data_dir, "GET", admin::DISKS).await.unwrap_or_default()
}

/// Where to dial a socket of this machine.
fn dialled(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    SocketAddr::new(host, listen.port())
}

async fn ask_bootstrap(network: &Network, address: &str) -> Answer {
    let node = address.rsplit('/').next().unwrap_or_default().parse::<NodeId>();
    let node = node.expect("the configuration was checked: it ends in a peer id");
    let until = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let (region, status) = match timeout(ANSWER_TIMEOUT, ask(network, node)).await {
            Ok((region, status)) => (region, status),
            Err(_) => (None, Err(format!("no answer within {ANSWER_TIMEOUT:?}"))),
        };
        if status.is_ok() || Instant::now() + ATTEMPT_PAUSE >= until {
            return answer(node, address.to_owned(), region, status);
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

/// Finds a node's addresses and asks it how it is.
async fn ask(network: &Network, node: NodeId) -> (Option<String>, Result<NodeStatus, String>) {
    let record = match network.dht.node(node).await {
        Ok(Some(record)) => record,
        Ok(None) => return (None, Err("the DHT has no record of it".to_owned())),
        Err(error) => return (None, Err(error.to_string())),
    };
    let record = record.body_unverified();
    let status = network.client.status(&Peer::from(record)).await;
    (Some(record.region.clone()), status.map_err(|error| error.to_string()))
}

fn answer(
    peer_id: NodeId,
    address: String,
    region: Option<String>,
    status: Result<NodeStatus, String>,
) -> Answer {
    let (status, error) = match status {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let disks = Vec::new();
    Answer { peer_id, address, answers: status.is_some(), error, region, status, disks }
}

/// One node of the network.
#[derive(Debug, Serialize)]
struct Member {
    peer_id: NodeId,
    region: String,
    capacity_bytes: u64,
    quic: Vec<SocketAddr>,
    libp2p: Vec<String>,
    sequence: u64,
}

/// All that can be found.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Members {
    nodes: Vec<Member>,
}

impl Report for Members {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| {
                let capacity = output::bytes(node.capacity_bytes);
                let quic = node.quic.first().map(SocketAddr::to_string).unwrap_or_default();
                vec![node.peer_id.to_string(), node.region.clone(), capacity, quic]
            })
            .collect();
        output::table(out, &["NODE", "REGION", "CAPACITY", "QUIC"], &rows)
    }
}

/// Does `supernode peer list`.
pub fn peers(given: &Given, args: &PeerListArgs) -> Result<(), Failure> {
    let config = given.client_config(&args.network, Vec::new())?;
    let members = with_network(&config, Needs::AnyKey, async |network| {
        network.ready().await?;
        Ok(network.directory.members().await)
    })?;
    let nodes = members
        .into_iter()
        .map(|record| Member {
            peer_id: record.node,
            region: record.region,
            capacity_bytes: record.capacity_bytes,
            quic: record.quic,
            libp2p: record.libp2p,
            sequence: record.sequence,
        })
        .collect();
    Output::new(args.json.json).report(&Members { nodes })
}

#[cfg(test)]
mod tests {
    use supernode_protocol::ids::NodeId;
    use supernode_protocol::wire::NodeStatus;

    use super::{Answers, answer, dialled};
    use crate::exit::Exit;

    fn up(byte: u8) -> super::Answer {
        let status = NodeStatus {
            shard_count: 1,
            slot_count: 2,
            live_bytes: 3,
            capacity_bytes: 4,
            uptime_secs: 5,
        };
        answer(NodeId::from_bytes([byte; 32]), "address".to_owned(), None, Ok(status))
    }

    #[test]
    fn one_silent_node_fails_the_command_and_is_named() {
        assert_eq!(Answers::new(vec![up(1), up(2)]).verdict(), Ok(()));
        let node = NodeId::from_bytes([3; 32]);
        let silent = answer(node, "/ip4/1.2.3.4".to_owned(), None, Err("refused".to_owned()));
        let failure = Answers::new(vec![up(1), silent]).verdict().expect_err("one is silent");
        assert_eq!(failure.exit, Exit::Failed);
        let text = failure.to_string();
        assert!(text.contains("1 of 2") && text.contains("/ip4/1.2.3.4 (refused)"), "{text}");
    }

    #[test]
    fn a_socket_for_all_is_dialled_on_the_loopback() {
        let dial = |text: &str| dialled(text.parse().expect("an address")).to_string();
        assert_eq!(dial("0.0.0.0:9002"), "127.0.0.1:9002");
        assert_eq!(dial("[::]:9002"), "[::1]:9002");
        assert_eq!(dial("192.0.2.1:9002"), "192.0.2.1:9002");
    }
}
