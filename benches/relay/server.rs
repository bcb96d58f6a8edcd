// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay server under test: over a real store, with limits that none of the figures is about
//! set out of the way, and the clients that talk to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::Keypair;
use serde::{Deserialize, Serialize};
use supernode_client::{Client, ClientConfig, Peer, Wanted};
use supernode_protocol::ids::{NodeId, ShardId};
use supernode_relay::{Classes, ClientLimits, Members, Relay, RelayConfig};
use supernode_store::{Durability, Store, StoreConfig};
use supernode_tls::transport::Transport;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::backend::StoreBackend;
use super::process::{Process, Role};
use super::sweep;
use crate::shards::Shards;
use crate::stock;

/// The network of the bench.
pub const NETWORK: &str = "bench";
/// Clients that the server knows, by number.
const CLIENTS_MAX: u8 = 120;
/// The number of the node's own key.
const NODE: u8 = 200;
/// Connections and handshakes that the server takes.
const CONNECTIONS_MAX: u32 = 1 << 15;

/// What a relay server is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// Where its store lies.
    pub directory: PathBuf,
    /// Bytes of hot shards it keeps in memory.
    pub cache_bytes: u64,
    /// Settings of QUIC.
    pub transport: Transport,
    /// Whether clients on a list have the limits that they have by default, or hardly any.
    pub is_limited: bool,
}

impl Server {
    /// A server over the store in a directory, which speaks to loopback only.
    pub fn over(directory: &Path, cache_bytes: u64) -> Self {
        let (directory, transport) = (directory.to_owned(), loopback_transport());
        Self { directory, cache_bytes, transport, is_limited: false }
    }

    /// Its store.
    pub fn open(&self) -> Store {
        stock::open(StoreConfig {
            durability: Durability::Batched,
            cache_bytes_max: self.cache_bytes,
            buffer_bytes_max: 256 << 20,
            ..stock::filling(&self.directory)
        })
    }

    /// Starts it in a process of its own.
    pub fn start(self) -> Process {
        Process::start(&Role::Relay(self))
    }
}

/// Transport settings for peers that are all on this machine: what is best for quinn alone.
pub fn loopback_transport() -> Transport {
    sweep::best().for_relay()
}

/// An address of this machine.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The key of the node under test.
pub fn node_key() -> Keypair {
    stock::key(NODE)
}

/// The id of a key.
pub fn node_id(key: &Keypair) -> NodeId {
    stock::node_id(key)
}

/// The node at an address.
pub fn peer(address: SocketAddr) -> Peer {
    Peer { node: node_id(&node_key()), addresses: vec![address] }
}

/// Starts a relay server on the current runtime.
pub fn serve(role: &Server, store: Store) -> Relay {
    let config = config(role.transport.clone(), role.is_limited);
    let backend = Arc::new(StoreBackend::new(store, &node_key()));
    Relay::start(config, &node_key(), backend, CancellationToken::new()).expect("a free port")
}

fn config(transport: Transport, is_limited: bool) -> RelayConfig {
    let known = ClientLimits {
        requests_max: 4096,
        queue_max: 4096,
        in_flight_bytes_max: 256 << 20,
        requests_per_sec: 1 << 24,
        requests_burst: 1 << 24,
        bytes_per_sec: 256 << 30,
        burst_bytes: 256 << 30,
    };
    let class = match is_limited {
        true => Classes::default(),
        // Strangers are as by default.
        false => Classes { gateway: known.clone(), relay: known, ..Classes::default() },
    };
    RelayConfig {
        listen: loopback(0),
        network: NETWORK.to_owned(),
        class,
        writers: [stock::client()].into(),
        members: Members {
            relay: (2..CLIENTS_MAX).map(|number| node_id(&stock::key(number))).collect(),
            ..Members::default()
        },
        connections_max: CONNECTIONS_MAX,
        connections_per_client_max: CONNECTIONS_MAX,
        connections_per_prefix_max: CONNECTIONS_MAX,
        handshakes_per_prefix_per_sec: 1 << 20,
        handshakes_max: CONNECTIONS_MAX,
        handshakes_retry_from: CONNECTIONS_MAX,
        incoming_max: CONNECTIONS_MAX,
        transport,
        ..RelayConfig::default()
    }
}

/// A client of the library, with the key of a number. Must be made on a runtime.
pub fn client(number: u8, transport: Transport) -> Client {
    let mut config = ClientConfig::new(stock::key(number), NETWORK);
    config.bind = loopback(0);
    config.idle_timeout = Duration::from_secs(transport.idle_timeout_secs);
    // A busy machine is slow, not broken.
    config.connect_timeout = Duration::from_secs(60);
    config.request_timeout = Duration::from_secs(60);
    config.transport = transport;
    Client::new(config).expect("a free port of loopback")
}

/// Gets a shard of so many bytes, piece by piece, as whoever passes it on; the client comes back
/// whenever the node is busy, when it says so.
pub async fn get(client: &Client, peer: &Peer, shard: ShardId, len: u64) {
    let wanted = Wanted::whole(shard, len);
    let reader = client.read_shard(std::slice::from_ref(peer), wanted);
    let (mut reader, mut got) = (reader.expect("a shard within the limits"), 0);
    while let Some(bytes) = reader.next().await.expect("a shard that is there") {
        got += bytes.len() as u64;
    }
    assert_eq!(got, len, "all bytes come");
}

/// The number of the client that may write.
pub const WRITER: u8 = 1;

/// Fills a store in a directory and closes it.
pub fn fill(runtime: &Runtime, directory: &Path, shards: &Arc<Shards>) {
    let store = stock::open(stock::filling(directory));
    runtime.block_on(async {
        shards.put_all(&store, 8).await;
        store.close().await.expect("an orderly stop");
    });
}
