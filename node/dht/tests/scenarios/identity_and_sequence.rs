// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node says of itself: sequences rise, changes spread, lost sequences are noticed.

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig, DhtError};
use supernode_protocol::ids::Cid;
use supernode_protocol::node_record::NodeRecord;

use crate::eventually;
use crate::network::{address, network, record, server, start, start_as};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_higher_sequence_replaces_our_record() {
    let key = Keypair::generate_ed25519();
    let node = start_as(server(&[]), key.clone()).await;
    node.present(record(&key, 5)).await.expect("higher");
    node.present(record(&key, 5)).await.expect("the same again");
    let stale = DhtError::StaleSequence { given: 4, current: 5 };
    assert_eq!(node.present(record(&key, 4)).await, Err(stale));
    let twin = NodeRecord { capacity_bytes: 1, ..record(&key, 5) };
    let stale = DhtError::StaleSequence { given: 5, current: 5 };
    assert_eq!(node.present(twin).await, Err(stale));

    let other = record(&Keypair::generate_ed25519(), 9);
    assert!(matches!(node.present(other).await, Err(DhtError::ForeignRecord { .. })));
    let elsewhere = NodeRecord { network: "elsewhere".into(), ..record(&key, 9) };
    assert!(matches!(node.present(elsewhere).await, Err(DhtError::ForeignRecord { .. })));
    let crowded = NodeRecord { libp2p: vec!["/ip4/8.8.8.8/tcp/1".into(); 9], ..record(&key, 9) };
    assert!(matches!(node.present(crowded).await, Err(DhtError::Record(_))));
    let broken = NodeRecord { libp2p: vec!["8.8.8.8:1".into()], ..record(&key, 9) };
    assert!(matches!(node.present(broken).await, Err(DhtError::RecordAddress { .. })));
    assert_eq!(node.members()[0].body_unverified().sequence, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_reaches_everybody() {
    let nodes = network(3).await;
    let key = Keypair::generate_ed25519();
    let changing = start_as(server(&[address(&nodes[0]).await]), key.clone()).await;
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, 4).await;
    let changed = NodeRecord { capacity_bytes: 77, ..record(&key, 2) };
    changing.present(changed).await.expect("higher");
    for node in &nodes {
        let ask = || node.node(changing.local());
        let wanted = |answer: &Result<Option<_>, _>| match answer {
            Ok(Some(record)) => {
                let record: &supernode_protocol::signed::Signed<NodeRecord> = record;
                record.body_unverified().capacity_bytes == 77
            }
            Ok(None) | Err::<_, DhtError>(_) => false,
        };
        eventually::answer("the new capacity", ask, wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_sequence_is_told() {
    let nodes = network(3).await;
    let bootstrap = [address(&nodes[0]).await];
    let key = Keypair::generate_ed25519();
    let before = Dht::start(server(&bootstrap), key.clone()).await.expect("a free port");
    before.present(record(&key, 40)).await.expect("a first record");
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, 4).await;
    for node in &nodes {
        eventually::figures(node, "it keeps the record", |m| m.node_records == 3).await;
    }
    before.stop().await;
    eventually::members(&all, 3).await;

    let restored = start_as(server(&bootstrap), key.clone()).await;
    eventually::figures(&restored, "told", |m| m.newer_own_sequence == Some(40)).await;
    restored.present(record(&key, 41)).await.expect("higher");
    assert_eq!(restored.metrics().newer_own_sequence, None);
    for node in &nodes {
        let mut watch = node.watch_members();
        let newest = |list: &supernode_dht::MemberList| {
            list.iter().any(|m| m.body_unverified().sequence == 41)
        };
        let end = tokio::time::timeout(eventually::PATIENCE, watch.wait_for(newest)).await;
        assert!(matches!(end, Ok(Ok(_))), "{:?}", node.members());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_limits_are_errors_that_name_the_setting() {
    let mut config: DhtConfig = server(&[]);
    config.records.own_providers_max = 2;
    let node = start(config).await;
    let cids: Vec<_> = (0_u8..3).map(|n| Cid::of(&[n])).collect();
    node.announce_stored(cids[..2].to_vec()).await.expect("room");
    let full = DhtError::Full { limit: 2, setting: "records.own_providers_max" };
    assert_eq!(node.announce(cids[2]).await, Err(full));
    node.withdraw(cids[0]).await.expect("it runs");
    node.announce(cids[2]).await.expect("room again");

    let long = bytes::Bytes::from(vec![0; supernode_dht::VALUE_BYTES_MAX + 1]);
    let too_large = node.publish_manifest(Cid::of(&long), long.clone()).await;
    assert!(matches!(too_large, Err(DhtError::ManifestTooLarge { .. })));
    let other = node.publish_manifest(cids[0], long.slice(..9)).await;
    assert!(matches!(other, Err(DhtError::ManifestHash { .. })));
}
