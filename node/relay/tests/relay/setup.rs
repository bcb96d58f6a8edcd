// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay server on a free port of loopback, clients for it, and objects to send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use supernode_client::{Client, ClientConfig, Keypair, Peer, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_relay::{Relay, RelayConfig};
use tokio_util::sync::CancellationToken;

use crate::backend::MemoryBackend;

pub const NETWORK: &str = "test";
pub const UPLOAD: UploadId = UploadId::from_bytes([7; 16]);

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub fn id_of(key: &Keypair) -> NodeId {
    NodeId::from_public(&key.public()).expect("Ed25519")
}

pub fn record_of(key: &Keypair, network: &str) -> Signed<NodeRecord> {
    let record = NodeRecord {
        node: id_of(key),
        sequence: 1,
        network: network.to_owned(),
        region: "EU-WEST".to_owned(),
        capacity_bytes: 1 << 40,
        quic: vec![loopback(1)],
        libp2p: Vec::new(),
    };
    Signed::sign(record, key).expect("own key")
}

pub struct Setup {
    pub relay: Relay,
    pub backend: Arc<MemoryBackend>,
    pub node_key: Keypair,
    pub writer_key: Keypair,
}

impl Setup {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let node_key = Keypair::generate_ed25519();
        let writer_key = Keypair::generate_ed25519();
        let backend = Arc::new(MemoryBackend::new(&node_key));
        let config = config(&writer_key, change);
        let relay = Relay::start(config, &node_key, Arc::clone(&backend), CancellationToken::new())
            .expect("a free port of loopback");
        Self { relay, backend, node_key, writer_key }
    }

    pub fn peer(&self) -> Peer {
        Peer { node: id_of(&self.node_key), addresses: vec![self.relay.local_addr()] }
    }

    pub fn writer(&self) -> Client {
        client(&self.writer_key, |_| {})
    }

    /// A stranger from an address of loopback.
    pub fn stranger_at(&self, address: [u8; 4]) -> Client {
        client(&Keypair::generate_ed25519(), |config| {
            config.bind = SocketAddr::from((address, 0));
        })
    }

    pub fn stranger(&self) -> Client {
        client(&Keypair::generate_ed25519(), |_| {})
    }
}

pub fn config(writer: &Keypair, change: impl FnOnce(&mut RelayConfig)) -> RelayConfig {
    let mut config = RelayConfig {
        listen: loopback(0),
        network: NETWORK.to_owned(),
        writers: [id_of(writer)].into(),
        ..RelayConfig::default()
    };
    change(&mut config);
    config
}

pub fn client(key: &Keypair, change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = ClientConfig::new(key.clone(), NETWORK);
    config.bind = loopback(0);
    // Tests want to see the answer, not how long it is waited for.
    config.busy_wait_max = Duration::ZERO;
    change(&mut config);
    Client::new(config).expect("a free port of loopback")
}

/// Bytes that differ everywhere, so that a shifted or repeated group shows.
pub fn bytes_of(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"shard").finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}

pub fn put_of(bytes: &Bytes) -> PutShard {
    let slot = Slot { stripe: 0, index: 0 };
    PutShard { upload: UPLOAD, slot, shard: ShardId::of(bytes), bytes: bytes.clone() }
}

pub fn commit_of(key: &Keypair, object: Cid) -> Commit {
    let owner = id_of(key);
    let placement =
        PlacementRecord { object, group: 0, epoch: 0, nodes: vec![owner], writer: owner };
    Commit {
        upload: UPLOAD,
        object,
        group: 0,
        page: None,
        stripe_first: 0,
        stripe_count: 1,
        terms: LeaseTerms {
            lease: LeaseId::from_bytes([9; 16]),
            owner,
            kind: LeaseKind::Pin,
            expiry: Expiry::RunningSeconds(3600),
        },
        placement: Signed::sign(placement, key).expect("own key"),
        missing: Vec::new(),
    }
}

/// A number that a run of the tests may set, and says.
#[expect(clippy::print_stdout, reason = "a test that fails shows how to repeat it")]
pub fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    let number = text.map_or(default, |text| text.parse().expect("a number"));
    println!("{name}={number}");
    number
}

/// Waits until `holds`, for things that end soon but without telling.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while !holds() {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
        panic!("it never came to this: {what}");
    }
}
