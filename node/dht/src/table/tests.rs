// SPDX-License-Identifier: MIT OR Apache-2.0
//! Quotas, renewal and expiry under an injected clock.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use supernode_protocol::ids::{Cid, NodeId};

use super::{Kind, RecordTable, Usage};
use crate::admission::Rejection;
use crate::config::RecordLimits;
use crate::keys::{content_key, node_key};

const TTL: Duration = Duration::from_secs(60);

fn limits() -> RecordLimits {
    RecordLimits {
        manifests_max: 4,
        manifest_bytes_max: 40,
        manifests_per_peer_max: 2,
        node_records_max: 2,
        providers_max: 6,
        providers_per_peer_max: 3,
        own_providers_max: 2,
        own_manifests_max: 2,
    }
}

fn table() -> (PeerId, RecordTable) {
    let local = PeerId::random();
    (local, RecordTable::new(local, limits()))
}

fn key(number: u8) -> RecordKey {
    content_key(Cid::of(&[number]))
}

fn provide(number: u8, provider: PeerId) -> ProviderRecord {
    ProviderRecord::new(key(number), provider, vec![])
}

fn value(number: u8, bytes: usize) -> Record {
    Record::new(key(number), vec![number; bytes])
}

#[test]
fn one_peer_cannot_take_the_room_of_others() {
    let (_, mut table) = table();
    let (flood, honest) = (PeerId::random(), PeerId::random());
    let expires = Instant::now() + TTL;
    let taken: Vec<_> =
        (0..100).filter(|n| table.admit_provider(provide(*n, flood), expires).is_ok()).collect();
    assert_eq!(taken, [0, 1, 2]);
    assert_eq!(table.admit_provider(provide(9, flood), expires), Err(Rejection::PeerQuota));
    assert_eq!(table.admit_provider(provide(9, honest), expires), Ok(()));
    assert_eq!(table.admit_provider(provide(2, flood), expires), Ok(()), "renewal needs no room");

    for n in 0..2 {
        assert_eq!(table.admit_value(Kind::Manifest, flood, value(n, 8), expires), Ok(()));
    }
    let third = table.admit_value(Kind::Manifest, flood, value(3, 8), expires);
    assert_eq!(third, Err(Rejection::PeerQuota));
    assert_eq!(table.admit_value(Kind::Manifest, honest, value(3, 8), expires), Ok(()));
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_holds() {
    let (_, mut table) = table();
    let expires = Instant::now() + TTL;
    for n in 0..6 {
        assert_eq!(table.admit_provider(provide(n, PeerId::random()), expires), Ok(()));
    }
    let late = table.admit_provider(provide(7, PeerId::random()), expires);
    assert_eq!(late, Err(Rejection::Full));
    assert!((0..6).all(|n| table.providers(&key(n)).len() == 1));

    for n in 0..2 {
        let peer = PeerId::random();
        assert_eq!(table.admit_value(Kind::Manifest, peer, value(n, 20), expires), Ok(()));
    }
    let bytes = table.admit_value(Kind::Manifest, PeerId::random(), value(3, 1), expires);
    assert_eq!(bytes, Err(Rejection::Full), "bytes are bounded too");
}

#[test]
fn node_records_have_a_room_of_their_own() {
    let (_, mut table) = table();
    let expires = Instant::now() + TTL;
    for n in 0..4 {
        let peer = PeerId::random();
        table.admit_value(Kind::Manifest, peer, value(n, 1), expires).expect("room");
    }
    let node = |n: u8| Record::new(node_key(NodeId::from_bytes([n; 32])), vec![n]);
    for n in 0..2 {
        assert_eq!(table.admit_value(Kind::Node, PeerId::random(), node(n), expires), Ok(()));
    }
    let third = table.admit_value(Kind::Node, PeerId::random(), node(3), expires);
    assert_eq!(third, Err(Rejection::Full));
}

#[test]
fn our_own_records_are_never_crowded_out() {
    let (local, mut table) = table();
    let expires = Instant::now() + TTL;
    for _ in 0..6 {
        table.admit_provider(provide(1, PeerId::random()), expires).expect("room");
    }
    assert!(table.add_provider(provide(1, local)).is_ok());
    assert!(table.add_provider(provide(2, local)).is_ok());
    assert!(table.add_provider(provide(2, local)).is_ok(), "again is the same");
    assert!(table.add_provider(provide(3, local)).is_err(), "its own limit holds");
    assert_eq!(table.providers(&key(1))[0].provider, local, "first in the answer");
    assert_eq!(table.provided().count(), 2);
    table.remove_provider(&key(1), &local);
    assert_eq!(table.provided().count(), 1);
    assert!(table.add_provider(provide(3, local)).is_ok());
    assert!(table.add_provider(provide(4, PeerId::random())).is_err(), "filtering is not bypassed");
    assert!(table.put(value(1, 1)).is_err(), "filtering is not bypassed");
}

#[test]
fn an_own_manifest_replaces_what_others_gave() {
    let (local, mut table) = table();
    let expires = Instant::now() + TTL;
    table.admit_value(Kind::Manifest, PeerId::random(), value(1, 8), expires).expect("room");
    let own = Record { publisher: Some(local), ..value(1, 8) };
    table.put(own.clone()).expect("own room");
    table.put(own).expect("again");
    let expected = Usage { own_manifests: 1, ..Usage::default() };
    assert_eq!(table.usage(), expected);
    table.admit_value(Kind::Manifest, PeerId::random(), value(1, 8), expires).expect("held");
    assert!(!table.sweep(expires + TTL, 100));
    assert!(table.value(&key(1)).is_some(), "own records have no expiry");
    table.remove(&key(1));
    assert_eq!(table.usage(), Usage::default());
}

#[test]
fn records_end_when_their_time_is_over_and_free_their_quota() {
    let (_, mut table) = table();
    let start = Instant::now();
    let peer = PeerId::random();
    for n in 0..3 {
        table.admit_provider(provide(n, peer), start + TTL).expect("room");
    }
    table.admit_value(Kind::Manifest, peer, value(1, 8), start + TTL).expect("room");
    table.admit_provider(provide(1, peer), start + TTL * 2).expect("renewed");
    assert!(!table.sweep(start + TTL - Duration::from_millis(1), 100));
    assert_eq!(table.usage().providers, 3);
    assert!(table.sweep(start + TTL, 2), "bounded work, more is waiting");
    assert!(!table.sweep(start + TTL, 100));
    assert_eq!(table.usage(), Usage { providers: 1, ..Usage::default() });
    assert_eq!(table.providers(&key(1)).len(), 1, "the renewed one stays");
    assert_eq!(table.next_expiry(), Some(start + TTL * 2));
    assert!(!table.sweep(start + TTL * 2, 100));
    assert_eq!(table.usage(), Usage::default());
    assert!(table.providers_of.is_empty() && table.manifests_of.is_empty());
    assert_eq!(table.next_expiry(), None);
}

#[test]
fn a_sender_can_shorten_the_life_of_a_record_and_never_extend_it() {
    let (_, mut table) = table();
    let start = Instant::now();
    let mut record = value(1, 8);
    record.expires = Some(start + TTL * 100);
    table.admit_value(Kind::Manifest, PeerId::random(), record, start + TTL).expect("room");
    table.sweep(start + TTL, 10);
    assert_eq!(table.usage(), Usage::default());
}
