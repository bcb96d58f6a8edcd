// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that nobody wants, in a process of the lowest priority: one that keeps a thousand
//! requests under way and reads all it gets, and many, each from a network of its own, that take
//! one byte per second of what they asked for.
//!
//! Whatever the server does to them, they try again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use rustix::process::nice;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::ShardId;
use supernode_tls::transport::Transport;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::counter::{Counter, endpoint};
use super::server::loopback_transport;
use crate::stock;

/// Requests that the hog has under way.
pub const HOG_REQUESTS: usize = 1000;
/// Clients that hardly read.
pub const SLOW_READERS: u8 = 200;

/// Requests of one of the hog's connections.
const STREAMS: usize = 50;
/// The number of the hog's key, which the server knows.
const HOG: u8 = 110;
/// Of the first slow reader's, which it does not.
const SLOW: u8 = 0;
const LOWEST_PRIORITY: i32 = 19;
/// How often a slow reader takes a byte, and how soon anybody turned away comes back.
const SLOW_EVERY: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// Whom to attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attack {
    /// The server.
    pub target: SocketAddr,
    /// Shards it has.
    pub shards: Vec<ShardId>,
}

/// Starts all of them; they go on until what is returned is dropped. Must be called on a runtime.
pub fn begin(attack: &Attack) -> JoinSet<()> {
    nice(LOWEST_PRIORITY).expect("anybody may be nicer");
    let mut attackers = JoinSet::new();
    let shards: Arc<[ShardId]> = attack.shards.as_slice().into();
    let hog = endpoint(&stock::key(HOG), Ipv4Addr::new(127, 1, 0, 1), &loopback_transport());
    for _ in 0..HOG_REQUESTS / STREAMS {
        attackers.spawn(hog_on(hog.clone(), attack.target, Arc::clone(&shards)));
    }
    // A byte is all they have room for, as far as QUIC's smallest windows go.
    let narrow = Transport {
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 64 << 10,
        ..loopback_transport()
    };
    for number in 0..SLOW_READERS {
        let key = libp2p_identity::Keypair::generate_ed25519();
        let slow = endpoint(&key, Ipv4Addr::new(127, 2, SLOW + number, 1), &narrow);
        let shard = shards[usize::from(number) % shards.len()];
        attackers.spawn(read_slowly(slow, attack.target, shard));
    }
    attackers
}

/// One connection of the hog.
async fn hog_on(endpoint: Endpoint, target: SocketAddr, shards: Arc<[ShardId]>) {
    let mut again = interval(RETRY_EVERY);
    loop {
        again.tick().await;
        let Some(counter) = Counter::connect(&endpoint, target).await else { continue };
        let mut streams = JoinSet::new();
        for first in 0..STREAMS {
            let (counter, shards) = (counter.clone(), Arc::clone(&shards));
            streams.spawn(async move {
                let mut again = interval(RETRY_EVERY);
                for turn in first.. {
                    match counter.open(shards[turn % shards.len()]).await {
                        Some(mut recv) => {
                            while let Ok(Some(_)) = recv.read_chunk(usize::MAX, true).await {}
                        }
                        None if counter.is_open() => drop(again.tick().await),
                        None => return,
                    }
                }
            });
        }
        streams.join_all().await;
    }
}

async fn read_slowly(endpoint: Endpoint, target: SocketAddr, shard: ShardId) {
    let mut byte = interval(SLOW_EVERY);
    loop {
        byte.tick().await;
        let Some(counter) = Counter::connect(&endpoint, target).await else { continue };
        while let Some(mut recv) = counter.open(shard).await {
            while let Ok(Some(_)) = recv.read_chunk(1, true).await {
                byte.tick().await;
            }
        }
    }
}
