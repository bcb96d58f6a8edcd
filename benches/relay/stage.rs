// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay server and quinn alone, each in a process of its own, and a client of each here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::Keypair;
use supernode_benches::timed;
use supernode_client::{Client, Peer};
use supernode_tls::transport::Transport;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::counter::{Counter, endpoint};
use super::process::{Process, Role, threads};
use super::raw::{self, Setting};
use super::server::{Server, WRITER, client, fill, get, loopback_transport, peer};
use super::sweep;
use crate::place::Place;
use crate::shards::{Shards, perform};
use crate::stock;

/// Bytes of a MiB.
pub const MIB: f64 = (1 << 20) as f64;
/// The size of shards that most figures are about.
pub const LARGE_BYTES: usize = 5 << 20;
/// A cache that holds every shard of a hot stage.
pub const CACHE_BYTES: u64 = 256 << 20;

/// How much is asked for in a round.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests.
    pub count: usize,
    /// Requests under way at a time, on one connection.
    pub in_flight: usize,
}

/// Both servers and their clients.
#[derive(Debug)]
pub struct Stage {
    /// The relay server's process.
    pub relay: Process,
    /// quinn's.
    pub raw: Process,
    /// What the relay server's clients run on.
    pub runtime: Runtime,
    /// What is in the store.
    pub shards: Arc<Shards>,
    /// Bytes of each shard.
    pub shard_bytes: usize,
    /// quinn's setting.
    pub setting: Setting,
    /// Where the store lies.
    pub place: Place,
    raw_runtime: Runtime,
    raw_client: raw::Client,
    client: Client,
    counter: Counter,
    peer: Peer,
    _directory: TempDir,
}

impl Stage {
    /// So many shards in a store, behind a server that keeps so many bytes of them in memory. Both
    /// servers have the settings that are best for quinn alone.
    pub fn new(shards: (usize, usize), cache_bytes: u64) -> Self {
        Self::with(shards, sweep::best(), |directory| Server::over(directory, cache_bytes))
    }

    /// The same with the limits that a node has by default.
    pub fn limited(shards: (usize, usize), cache_bytes: u64) -> Self {
        Self::with(shards, sweep::best(), |directory| Server {
            is_limited: true,
            ..Server::over(directory, cache_bytes)
        })
    }

    /// The same with a setting of quinn's and a relay server over a directory.
    fn with(
        (count, shard_bytes): (usize, usize),
        setting: Setting,
        server: impl FnOnce(&Path) -> Server,
    ) -> Self {
        let place = Place::new();
        let directory = place.fresh();
        let shards = Shards::new(count, shard_bytes);
        let runtime = threads();
        fill(&runtime, directory.path(), &shards);
        let server = server(directory.path());
        let (cache_bytes, transport) = (server.cache_bytes, server.transport.clone());
        let relay = server.start();
        let raw = Process::start(&Role::Raw(setting));
        let raw_runtime = setting.runtime();
        let key: Keypair = stock::key(WRITER);
        let raw_client = raw_runtime.block_on(raw::Client::connect(setting, &key, raw.address));
        let peer = peer(relay.address);
        let (client, counter) = runtime.block_on(async {
            let client = client(WRITER, transport.clone());
            let endpoint = endpoint(&key, [127, 0, 0, 1].into(), &transport);
            let counter = Counter::connect(&endpoint, relay.address).await;
            (client, counter.expect("the server takes a client it knows"))
        });
        let stage = Self {
            relay,
            raw,
            runtime,
            shards,
            shard_bytes,
            setting,
            place,
            raw_runtime,
            raw_client,
            client,
            counter,
            peer,
            _directory: directory,
        };
        stage.warm(cache_bytes);
        stage
    }

    /// Large shards in the cache.
    pub fn hot() -> Self {
        Self::new((12, LARGE_BYTES), CACHE_BYTES)
    }

    /// The same with a node's own defaults; quinn has its best all the same.
    pub fn hot_by_default() -> Self {
        let transport = Transport {
            idle_timeout_secs: loopback_transport().idle_timeout_secs,
            ..Transport::default()
        };
        Self::with((12, LARGE_BYTES), sweep::best(), |directory| Server {
            transport,
            ..Server::over(directory, CACHE_BYTES)
        })
    }

    /// Fills caches and windows, and has the path's size found.
    fn warm(&self, cache_bytes: u64) {
        let count = if cache_bytes > 0 { self.shards.count() } else { 4 };
        let load = Load { count: count.max(4), in_flight: 4 };
        self.verified(load, 0);
        self.counted(load);
        self.download(load);
    }

    /// Gets shards as the library does, checked; each once in a random order, then again.
    pub fn verified(&self, load: Load, round: u32) -> Vec<Duration> {
        let order: Arc<[usize]> = self.shards.shuffled(round).into();
        let (client, peer, shards) =
            (self.client.clone(), self.peer.clone(), Arc::clone(&self.shards));
        let len = self.shard_bytes as u64;
        let one = move |turn: usize| {
            let (client, peer) = (client.clone(), peer.clone());
            let id = shards.id(order[turn % order.len()]);
            async move { get(&client, &peer, id, len).await }
        };
        self.runtime.block_on(perform(load.count, load.in_flight, one))
    }

    /// Gets shards and only counts their bytes.
    pub fn counted(&self, load: Load) {
        let (counter, shards) = (self.counter.clone(), Arc::clone(&self.shards));
        let len = self.shard_bytes;
        let get = move |turn: usize| {
            let (counter, id) = (counter.clone(), shards.id(turn % shards.count()));
            async move { counter.get(id, len).await }
        };
        self.runtime.block_on(perform(load.count, load.in_flight, get));
    }

    /// Gets as many bytes from quinn alone.
    pub fn download(&self, load: Load) {
        let (client, len) = (self.raw_client.clone(), self.shard_bytes);
        let get = move |_| {
            let client = client.clone();
            async move { client.download(len).await }
        };
        self.raw_runtime.block_on(perform(load.count, load.in_flight, get));
    }

    /// Sends as many bytes to quinn alone.
    pub fn upload(&self, load: Load) {
        let (client, len) = (self.raw_client.clone(), self.shard_bytes);
        let put = move |_| {
            let client = client.clone();
            async move { client.upload(len).await }
        };
        self.raw_runtime.block_on(perform(load.count, load.in_flight, put));
    }

    /// Sends as many bytes to quinn alone and gets them back.
    pub fn echo(&self, load: Load) {
        let (client, len) = (self.raw_client.clone(), self.shard_bytes);
        let echo = move |_| {
            let client = client.clone();
            async move { client.echo(len).await }
        };
        self.raw_runtime.block_on(perform(load.count, load.in_flight, echo));
    }

    /// MiB per second of something that moves a load.
    pub fn mib_per_sec(&self, load: Load, work: impl FnOnce()) -> f64 {
        let (took, ()) = timed(work);
        (load.count * self.shard_bytes) as f64 / MIB / took.as_secs_f64()
    }
}
