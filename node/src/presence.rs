// SPDX-License-Identifier: MIT OR Apache-2.0
//! This node's own record: what it says of itself, signed, under a number that only rises.
//!
//! - The number is kept in the data directory and raised before a record is shown to anybody, so
//!   that a restart never repeats one. If the network knows a higher one (the directory came from
//!   a backup), the next record goes above that.
//! - Addresses are those that were configured to be told, or else those the sockets really have,
//!   asked again from time to time, because interfaces come and go.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use supernode_dht::Dht;
use supernode_protocol::limits::NODE_ADDRESSES_MAX;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::{SignatureError, Signed};
use supernode_store::Store;
use tokio::sync::watch;

use crate::backend::OwnRecord;
use crate::config::NodeConfig;
use crate::identity::Identity;

/// The file in the data directory that holds the last number used.
const SEQUENCE_FILE: &str = "node-record.sequence";
/// How often the sockets are asked for their addresses.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same right after the start, while interfaces are still being found.
const SETTLE: Duration = Duration::from_millis(250);
/// Looks at that shorter pace.
const SETTLE_LOOKS: u32 = 8;

/// A record that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The number could not be kept.
    #[error("cannot keep the node record's number in {path}: {source}")]
    Sequence {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} holds no number; remove it and the next record takes one from the network")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The key cannot sign.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// Keeps the record true and shown.
#[derive(Clone)]
pub struct Presence {
    identity: Identity,
    config: Arc<NodeConfig>,
    store: Store,
    dht: Dht,
    sender: watch::Sender<Arc<Signed<NodeRecord>>>,
}

impl Presence {
    /// Makes the first record of this process. Nobody is shown it yet.
    ///
    /// # Errors
    /// When the number cannot be raised and kept.
    pub fn new(
        identity: Identity,
        config: Arc<NodeConfig>,
        store: Store,
        dht: Dht,
    ) -> Result<Self, PresenceError> {
        let sequence = raise(&config.data_dir, 0)?;
        let offered = store.capacity_bytes();
        let record = body(&identity, &config, offered, (config.relay.listen, &[]), sequence);
        let signed = Signed::sign(record, &identity.keypair)?;
        let (sender, _) = watch::channel(Arc::new(signed));
        Ok(Self { identity, config, store, dht, sender })
    }

    /// The record and its changes.
    pub fn record(&self) -> OwnRecord {
        self.sender.subscribe()
    }

    /// Shows the record and keeps it true while the DHT runs. `quic` is where the relay server
    /// really listens.
    ///
    /// # Errors
    /// When the number cannot be kept, or the DHT has ended.
    pub async fn run(self, quic: SocketAddr) -> Result<(), String> {
        let mut figures = self.dht.watch_metrics();
        let mut looks = 0_u32;
        loop {
            let newer = figures.borrow_and_update().newer_own_sequence;
            self.refresh(quic, newer).await.map_err(|error| error.to_string())?;
            let pause = if looks < SETTLE_LOOKS { SETTLE } else { CHECK_EVERY };
            looks = looks.saturating_add(1);
            let behind = |current: u64| {
                move |figures: &supernode_dht::DhtMetrics| {
                    figures.newer_own_sequence.is_some_and(|newer| newer > current)
                }
            };
            let current = self.sender.borrow().body_unverified().sequence;
            tokio::select! {
                changed = figures.wait_for(behind(current)) => {
                    changed.map_err(|_| "the DHT has ended".to_owned())?;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Presents the record, a new one if something changed or the network knows a higher number.
    async fn refresh(&self, quic: SocketAddr, newer: Option<u64>) -> Result<(), anyhow::Error> {
        let listening = self.dht.listen_addresses().await?;
        let current = self.sender.borrow().body_unverified().clone();
        let (offered, heard) = (self.store.capacity_bytes(), (quic, &listening[..]));
        let wanted = body(&self.identity, &self.config, offered, heard, current.sequence);
        let overtaken = newer.filter(|newer| *newer >= current.sequence);
        if wanted != current || overtaken.is_some_and(|newer| newer > current.sequence) {
            let sequence = raise(&self.config.data_dir, overtaken.unwrap_or(0))?;
            let record = NodeRecord { sequence, ..wanted };
            if record.quic.is_empty() {
                tracing::warn!(
                    "no public address was found: others cannot reach this node; set \
                     network.advertise_quic, or dht.allow_private_addresses on a closed network"
                );
            }
            tracing::info!(sequence, quic = ?record.quic, libp2p = ?record.libp2p, "node record");
            let signed = Signed::sign(record, &self.identity.keypair)?;
            self.sender.send_replace(Arc::new(signed));
        }
        let record = self.sender.borrow().body_unverified().clone();
        self.dht.present(record).await?;
        Ok(())
    }
}

fn body(
    identity: &Identity,
    config: &NodeConfig,
    capacity_bytes: u64,
    (quic, listening): (SocketAddr, &[String]),
    sequence: u64,
) -> NodeRecord {
    let private = config.dht.allow_private_addresses;
    let network = &config.network;
    let found = hosts(listening, private);
    let quic = match network.advertise_quic.as_slice() {
        [] => quic_addresses(quic, &found, private),
        told => told.to_vec(),
    };
    let libp2p = match network.advertise_libp2p.as_slice() {
        [] => found.iter().map(|(_, address)| address.clone()).collect(),
        told => told.to_vec(),
    };
    NodeRecord {
        node: identity.node,
        sequence,
        network: network.name.clone(),
        region: network.region.clone(),
        capacity_bytes,
        quic: quic.into_iter().take(NODE_ADDRESSES_MAX).collect(),
        libp2p: libp2p.into_iter().take(NODE_ADDRESSES_MAX).collect(),
    }
}

/// The hosts in multiaddresses that others may be told, the most public first.
fn hosts(listening: &[String], private: bool) -> Vec<(IpAddr, String)> {
    let mut hosts: Vec<(IpAddr, String)> = listening
        .iter()
        .filter_map(|address| {
            let host = address.split('/').nth(2)?.parse::<IpAddr>().ok()?;
            (private || reach(host) == Reach::Public).then(|| (host, address.clone()))
        })
        .collect();
    hosts.sort_by_key(|(host, _)| reach(*host));
    hosts
}

/// Where a QUIC socket can be reached, given the hosts that this machine has.
fn quic_addresses(
    listen: SocketAddr,
    found: &[(IpAddr, String)],
    private: bool,
) -> Vec<SocketAddr> {
    if listen.port() == 0 {
        return Vec::new();
    }
    if !listen.ip().is_unspecified() {
        let told = private || reach(listen.ip()) == Reach::Public;
        return if told { vec![listen] } else { Vec::new() };
    }
    let mut seen = BTreeSet::new();
    let same_family = found.iter().filter(|(host, _)| listen.is_ipv6() || host.is_ipv4());
    same_family
        .filter(|(host, _)| seen.insert(*host))
        .map(|(host, _)| SocketAddr::new(*host, listen.port()))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Public,
    Private,
    Machine,
}

fn reach(host: IpAddr) -> Reach {
    match host.to_canonical() {
        host if host.is_loopback() => Reach::Machine,
        IpAddr::V4(host) if host.is_private() || host.is_link_local() => Reach::Private,
        IpAddr::V6(host) if host.is_unique_local() || host.is_unicast_link_local() => {
            Reach::Private
        }
        _ => Reach::Public,
    }
}

/// Raises the kept number above itself and above `floor`, durably, and returns it.
fn raise(data_dir: &Path, floor: u64) -> Result<u64, PresenceError> {
    let path = data_dir.join(SEQUENCE_FILE);
    let kept = match fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.trim().parse::<u64>();
            number.map_err(|_| PresenceError::Malformed { path: path.clone() })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(PresenceError::Sequence { path, source }),
    };
    let next = kept.max(floor).saturating_add(1);
    let write = || {
        let fresh = path.with_extension("sequence.new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{next}")?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(|source| PresenceError::Sequence { path: path.clone(), source })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;

    use super::{PresenceError, SEQUENCE_FILE, hosts, quic_addresses, raise};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("a socket address")
    }

    fn listening() -> Vec<String> {
        [
            "/ip4/127.0.0.1/tcp/1/p2p/X",
            "/ip4/10.0.0.5/tcp/1",
            "/ip4/8.8.4.4/tcp/1",
            "/ip6/::1/tcp/1",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn the_number_rises_over_restarts_and_above_what_the_network_knows() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(raise(dir.path(), 0).expect("a fresh directory"), 1);
        assert_eq!(raise(dir.path(), 0).expect("raised"), 2);
        assert_eq!(raise(dir.path(), 40).expect("raised"), 41);
        assert_eq!(raise(dir.path(), 7).expect("raised"), 42);
        fs::write(dir.path().join(SEQUENCE_FILE), "many").expect("own directory");
        let error = raise(dir.path(), 0).expect_err("no number");
        assert!(matches!(error, PresenceError::Malformed { .. }), "{error}");
    }

    #[test]
    fn an_unspecified_address_becomes_those_of_the_machine_the_public_ones_first() {
        let all = hosts(&listening(), true);
        let v4 = quic_addresses(address("0.0.0.0:9002"), &all, true);
        let expected = ["8.8.4.4:9002", "10.0.0.5:9002", "127.0.0.1:9002"].map(address);
        assert_eq!(v4, expected);
        let both = quic_addresses(address("[::]:9002"), &all, true);
        assert_eq!(both.len(), 4);
    }

    #[test]
    fn private_addresses_are_told_only_on_closed_networks() {
        let public = hosts(&listening(), false);
        assert_eq!(
            quic_addresses(address("0.0.0.0:9002"), &public, false),
            [address("8.8.4.4:9002")]
        );
        assert_eq!(quic_addresses(address("127.0.0.1:9002"), &public, false), []);
        let local = address("127.0.0.1:9002");
        assert_eq!(quic_addresses(local, &[], true), [local]);
        assert_eq!(quic_addresses(address("127.0.0.1:0"), &[], true), []);
    }
}
