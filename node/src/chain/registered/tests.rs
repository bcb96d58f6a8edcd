// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is registered on a real chain is known without asking, for as long as that is so.

use libp2p_identity::Keypair;
use supernode_devchain::Faults;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Arc, HashSet, NodeId, Registered, RegistryReader, RegistrySection};
use crate::chain::testbed::{PATIENCE, Testbed};

const STRANGER: NodeId = NodeId::from_bytes([9; 32]);

/// Registers the node of this seed.
async fn register(bed: &Testbed, seed: u8) -> NodeId {
    bed.register(&Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a key")).await
}

/// A reader that reads each second.
fn reader_of(bed: &Testbed, nodes_max: usize) -> RegistryReader {
    RegistryReader::new(bed.link.clone(), RegistrySection { refresh_secs: 1, nodes_max })
}

/// What is known, once it is so; each reading is looked at.
async fn once(known: &mut Registered, is_so: impl Fn(&HashSet<NodeId>) -> bool) {
    let seen = timeout(PATIENCE, known.0.wait_for(|known: &Arc<_>| is_so(known))).await;
    seen.expect("in time").expect("the reader runs");
}

fn run(reader: &RegistryReader) -> JoinHandle<Result<(), String>> {
    tokio::spawn(reader.clone().run())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_follows_the_registry_and_outlasts_the_chain() {
    let bed = Testbed::start(|_| {}).await;
    let first = register(&bed, 1).await;
    let reader = reader_of(&bed, 100);
    let mut known = reader.registered();
    assert!(!known.contains(first), "nobody before the first reading");
    let task = run(&reader);
    once(&mut known, |known| *known == [first].into()).await;
    let second = register(&bed, 2).await;
    once(&mut known, |known| *known == [first, second].into()).await;

    // Somebody who is not in the registry any more is gone with the next reading.
    reader.replace(vec![first, second, STRANGER]);
    assert!(known.contains(STRANGER));
    once(&mut known, |known| !known.contains(&STRANGER)).await;
    assert!(known.contains(first) && known.contains(second) && known.count() == 2);

    let faults = Faults { refuse_connections: true, ..Faults::default() };
    bed.chain.set_faults(0, faults);
    let mut view = bed.link.view();
    let lost = timeout(PATIENCE, view.wait_for(|view| view.finalised.is_none())).await;
    lost.expect("in time").expect("the client runs");
    assert!(known.contains(first) && known.contains(second), "as last known");
    assert!(!task.is_finished());
    bed.link.close();
    let ended = timeout(PATIENCE, task).await.expect("in time").expect("no panic");
    ended.expect_err("nobody is left to ask");
    bed.chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_a_stranger() {
    let bed = Testbed::start(|_| {}).await;
    for seed in 1..=3 {
        register(&bed, seed).await;
    }
    let reader = reader_of(&bed, 2);
    assert_eq!(reader.read().await, Ok(false), "one was left out");
    assert_eq!(reader.registered().count(), 2);
    let reader = reader_of(&bed, 3);
    assert_eq!(reader.read().await, Ok(true), "exactly as many as fit");
    assert_eq!(reader.registered().count(), 3);
    let reader = reader_of(&bed, 0);
    assert_eq!(reader.clone().run().await, Ok(()), "switched off");
    assert_eq!(reader.registered().count(), 0);
    bed.stop().await;
}
