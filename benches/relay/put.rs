// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does a durable put over QUIC cost beside the network and beside the store?
//!
//! Each round has a new store behind a new server, and a new store for the puts without a network.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_client::PutShard;
use supernode_protocol::ids::{Slot, UploadId};
use supernode_store::{Durability, StoreConfig};

use super::server::{Server, WRITER, client, loopback_transport, peer};
use super::stage::{CACHE_BYTES, LARGE_BYTES, Load, MIB, Stage};
use crate::shards::{Shards, perform};
use crate::stock;

const PUT: &str = "durable puts of 5 MiB over QUIC, 8 in flight, against the lower of quinn's own \
                   upload and the store's durable put in the same round, want >= 0.8";

/// `relay.put`.
pub fn put(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((96, 7), (40, 5));
    let stage = Stage::hot();
    let load = Load { count, in_flight: 8 };
    let shards = Shards::new(count, LARGE_BYTES);
    let bodies: Arc<[Bytes]> =
        (0..count).map(|number| Bytes::copy_from_slice(shards.bytes(number))).collect();
    let (mut quinn, mut store) = (Vec::new(), Vec::new());
    let (ours, against) = interleaved(
        rounds,
        |_| over_quic(&stage, load, &shards, &bodies),
        |_| {
            let up = stage.mib_per_sec(load, || stage.upload(load));
            let put = into_store(&stage, load, &shards);
            quinn.push(up);
            store.push(put);
            up.min(put)
        },
    );
    let note = format!("quinn {:.0} MiB/s, store {:.0} MiB/s", median(&quinn), median(&store));
    let raw = json!({
        "requests": count, "bytes": LARGE_BYTES, "in_flight": load.in_flight,
        "quinn": stage.setting, "ours_rounds": ours, "against_rounds": against,
        "quinn_rounds": quinn, "store_rounds": store, "note": note,
    });
    Figure::new(("relay.put", PUT), (median(&ours), median(&against)), "MiB/s", raw)
}

fn over_quic(stage: &Stage, load: Load, shards: &Arc<Shards>, bodies: &Arc<[Bytes]>) -> f64 {
    let directory = stage.place.fresh();
    let relay = Server::over(directory.path(), CACHE_BYTES).start();
    let (client, peer) = stage.runtime.block_on(async {
        let (client, peer) = (client(WRITER, loopback_transport()), peer(relay.address));
        client.connect(&peer).await.expect("a server on this machine");
        (client, peer)
    });
    stage.place.settle();
    let (shards, bodies) = (Arc::clone(shards), Arc::clone(bodies));
    let put = move |number: usize| {
        let (client, peer) = (client.clone(), peer.clone());
        let slot = Slot { stripe: u32::try_from(number).expect("few shards"), index: 0 };
        let (shard, bytes) = (shards.id(number), bodies[number].clone());
        let put = PutShard { upload: UploadId::from_bytes([1; 16]), slot, shard, bytes };
        async move {
            client.put_shard(&peer, put).await.expect("room");
        }
    };
    let work = || drop(stage.runtime.block_on(perform(load.count, load.in_flight, put)));
    stage.mib_per_sec(load, work)
}

fn into_store(stage: &Stage, load: Load, shards: &Arc<Shards>) -> f64 {
    let directory = stage.place.fresh();
    let store = stock::open(StoreConfig {
        durability: Durability::Batched,
        buffer_bytes_max: CACHE_BYTES,
        ..stock::filling(directory.path())
    });
    stage.place.settle();
    let (took, ()) = timed(|| stage.runtime.block_on(shards.put_all(&store, load.in_flight)));
    stage.runtime.block_on(store.close()).expect("an orderly stop");
    shards.total_bytes() as f64 / MIB / took.as_secs_f64()
}
