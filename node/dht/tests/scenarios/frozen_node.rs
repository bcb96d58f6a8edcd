// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that stands still with its connections open: queries get past it, and it leaves.

use std::sync::mpsc;

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig, DhtError};
use supernode_protocol::ids::Cid;

use crate::eventually;
use crate::network::{address, server, start, start_as};

fn watchful(bootstrap: &[String]) -> DhtConfig {
    DhtConfig { ping_interval_secs: 1, lookups_max: 1, ..server(bootstrap) }
}

/// A node on a thread of its own that stands still from the first message on the channel until the
/// second.
fn freezable(config: DhtConfig) -> (Dht, mpsc::SyncSender<()>) {
    let (handle, started) = mpsc::sync_channel(1);
    let (freeze, frozen) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let dht = start_as(config, Keypair::generate_ed25519()).await;
            handle.send(dht.clone()).expect("the test waits");
            let wait = tokio::task::spawn_blocking(move || {
                let _ = frozen.recv();
                frozen
            });
            let frozen = wait.await.expect("no panic");
            // Blocks the only thread that drives the node.
            let _ = frozen.recv();
            drop(dht);
        });
    });
    (started.recv().expect("it starts"), freeze)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_get_past_a_node_that_stands_still_and_it_leaves() {
    let first = start(watchful(&[])).await;
    let bootstrap = [address(&first).await];
    let second = start(watchful(&bootstrap)).await;
    let (third, freeze) = freezable(watchful(&bootstrap));
    eventually::members(&[&first, &second, &third], 3).await;
    let cid = Cid::of(b"held");
    second.announce(cid).await.expect("a server");

    freeze.send(()).expect("it runs");
    assert_eq!(first.providers(cid).await, Ok(vec![second.local()]));

    // A question that has no answer must ask everybody, the frozen one included, and still ends.
    let unknown = Cid::of(b"unknown");
    let (slow, refused) = tokio::join!(biased; first.providers(unknown), first.manifest(unknown));
    assert_eq!(slow, Ok(vec![]));
    assert_eq!(refused, Err(DhtError::Busy { limit: 1 }));

    eventually::members(&[&first, &second], 2).await;
    freeze.send(()).expect("it is still there");
}
