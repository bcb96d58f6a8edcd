// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does iroh-blobs do with the same shards?
//!
//! Its store is in memory, its transport as it comes, and so is ours. Its client checks every chunk
//! group on the way and collects the bytes, as ours does.

use std::net::SocketAddr;

use bytes::Bytes;
use iroh::endpoint::presets::Minimal;
use iroh::endpoint::{Connection, Endpoint};
use iroh::protocol::Router;
use iroh::{EndpointAddr, SecretKey};
use iroh_blobs::get::request::get_blob;
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::{ALPN, BlobsProtocol, Hash};
use serde::{Deserialize, Serialize};
use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median};

use super::get::load;
use super::process::{Process, Role, threads};
use super::stage::{Load, Stage};
use crate::shards::{Shards, perform};

const IROH: &str = "relay.get.hot.default's load, against iroh-blobs from its \
                    memory store, want >= 1.2";
const SERVER: [u8; 32] = [201; 32];
const CLIENT: [u8; 32] = [202; 32];

/// What an iroh server is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Blobs {
    /// How many shards it has, the first of the stage's.
    pub count: usize,
    /// Bytes of each.
    pub shard_bytes: usize,
}

/// Starts a server with all shards in memory. Must be awaited on its runtime.
pub async fn serve(blobs: &Blobs) -> (SocketAddr, Router) {
    let endpoint = endpoint(SERVER).await;
    let store = MemStore::new();
    let shards = Shards::new(blobs.count, blobs.shard_bytes);
    for number in 0..shards.count() {
        store.add_bytes(Bytes::copy_from_slice(shards.bytes(number))).await.expect("room");
    }
    let address = *endpoint.bound_sockets().first().expect("it is bound");
    let protocol = BlobsProtocol::new(&store, None);
    (address, Router::builder(endpoint).accept(ALPN, protocol).spawn())
}

async fn endpoint(key: [u8; 32]) -> Endpoint {
    let builder = Endpoint::builder(Minimal).secret_key(SecretKey::from_bytes(&key));
    let builder = builder.clear_ip_transports().bind_addr("127.0.0.1:0").expect("an address");
    builder.bind().await.expect("a free port")
}

async fn connect(server: SocketAddr) -> (Endpoint, Connection) {
    let endpoint = endpoint(CLIENT).await;
    let id = SecretKey::from_bytes(&SERVER).public();
    let address = EndpointAddr::new(id).with_ip_addr(server);
    let connection = endpoint.connect(address, ALPN).await.expect("a server on this machine");
    (endpoint, connection)
}

/// `relay.get.iroh`.
pub fn get(scale: Scale) -> Figure {
    let (stage, (load, rounds)) = (Stage::hot_by_default(), load(scale));
    let (count, shard_bytes) = (stage.shards.count(), stage.shard_bytes);
    let server = Process::start(&Role::Iroh(Blobs { count, shard_bytes }));
    let runtime = threads();
    let (_endpoint, connection) = runtime.block_on(connect(server.address));
    let download = |load: Load| {
        let (connection, shards) = (connection.clone(), stage.shards.clone());
        let get = move |turn: usize| {
            let hash = Hash::from_bytes(*shards.id(turn % count).as_bytes());
            let blob = get_blob(connection.clone(), hash);
            async move {
                let bytes = blob.bytes().await.expect("a shard that is there");
                assert_eq!(bytes.len(), shard_bytes, "all bytes come");
            }
        };
        drop(runtime.block_on(perform(load.count, load.in_flight, get)));
    };
    download(Load { count, in_flight: load.in_flight });
    let (ours, against) = interleaved(
        rounds,
        |round| stage.mib_per_sec(load, || drop(stage.verified(load, round))),
        |_| stage.mib_per_sec(load, || download(load)),
    );
    let raw = json!({
        "requests": load.count, "bytes": shard_bytes, "in_flight": load.in_flight,
        "ours_rounds": ours, "against_rounds": against,
    });
    Figure::new(("relay.get.iroh", IROH), (median(&ours), median(&against)), "MiB/s", raw)
}
