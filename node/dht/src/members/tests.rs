// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is in the member table and for how long, under an injected clock.

use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;

use super::{
    LOOKUP_DEFERRAL, LOOKUP_WAIT, LOOKUP_WAIT_MAX, Members, PROBE_TIMEOUT, PROBE_WAIT, Request,
};

const REFRESH: Duration = Duration::from_secs(300);

fn signed(key: &Keypair, sequence: u64) -> Signed<NodeRecord> {
    let body = NodeRecord {
        node: NodeId::from_public(&key.public()).expect("an Ed25519 key"),
        sequence,
        network: "test".into(),
        region: "MENA".into(),
        capacity_bytes: 0,
        quic: vec![],
        libp2p: vec![],
    };
    Signed::sign(body, key).expect("own key")
}

fn one_member(now: Instant) -> (Members, NodeId, Keypair) {
    let key = Keypair::generate_ed25519();
    let node = NodeId::from_public(&key.public()).expect("an Ed25519 key");
    let mut members = Members::new(8, REFRESH);
    assert!(members.identified(node, vec![], now));
    (members, node, key)
}

fn probe(node: NodeId) -> Vec<Request> {
    vec![Request::Probe(node, vec![])]
}

#[test]
fn a_record_is_looked_up_until_it_is_there_and_then_refreshed() {
    let mut now = Instant::now();
    let (mut members, node, key) = one_member(now);
    let mut waits = vec![];
    for _ in 0..10 {
        assert_eq!(members.poll(now, 8), [Request::Lookup(node)]);
        let next = members.next_wake().expect("a timer");
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits[..2], [LOOKUP_WAIT, LOOKUP_WAIT * 2]);
    assert_eq!(waits[9], LOOKUP_WAIT_MAX);
    assert_eq!(members.records().count(), 0);
    assert!(members.offer(&signed(&key, 1), now));
    assert!(members.take_changed());
    assert_eq!(members.records().count(), 1);
    let next = members.next_wake().expect("a timer") - now;
    assert!(next > REFRESH * 3 / 4 - Duration::from_secs(1) && next <= REFRESH);
}

#[test]
fn records_only_move_forward_and_strangers_have_none() {
    let now = Instant::now();
    let (mut members, node, key) = one_member(now);
    assert!(members.offer(&signed(&key, 5), now));
    assert!(members.offer(&signed(&key, 5), now), "the same again");
    assert!(!members.offer(&signed(&key, 4), now));
    assert!(members.offer(&signed(&key, 6), now));
    let held = members.record(&node).expect("a record");
    assert_eq!(held.body_unverified().sequence, 6);
    assert!(!members.offer(&signed(&Keypair::generate_ed25519(), 1), now));
}

#[test]
fn a_dead_peer_leaves_after_two_failed_probes() {
    let now = Instant::now();
    let (mut members, node, key) = one_member(now);
    members.offer(&signed(&key, 1), now);
    members.take_changed();
    members.disconnected(node, false, now);
    assert_eq!(members.poll(now, 8), probe(node));
    assert!(members.poll(now, 8).is_empty(), "under way");
    members.probe_failed(node, now);
    assert!(members.poll(now, 8).is_empty());
    let later = now + PROBE_WAIT;
    assert_eq!(members.poll(later, 8), probe(node));
    assert_eq!(members.records().count(), 1, "still in doubt");
    members.probe_failed(node, later);
    assert_eq!(members.poll(later, 8), [Request::Forget(node)]);
    assert!(members.take_changed());
    assert_eq!((members.len(), members.next_wake()), (0, None));
    assert!(members.identified(node, vec![], later), "it may come back");
}

#[test]
fn a_peer_that_answers_a_probe_stays() {
    let now = Instant::now();
    let (mut members, node, key) = one_member(now);
    members.offer(&signed(&key, 1), now);
    members.disconnected(node, false, now);
    assert_eq!(members.poll(now, 8), probe(node));
    assert!(!members.identified(node, vec![], now));
    assert_eq!(members.poll(now, 8), [Request::Lookup(node)], "it may have restarted");
    members.probe_failed(node, now);
    assert!(members.poll(now + PROBE_WAIT, 8).len() <= 1);
    assert_eq!(members.len(), 1, "a late report of an old probe changes nothing");
}

#[test]
fn silence_counts_as_failure() {
    let now = Instant::now();
    let (mut members, node, _) = one_member(now);
    members.disconnected(node, false, now);
    assert_eq!(members.poll(now, 8), probe(node));
    assert_eq!(members.poll(now + PROBE_TIMEOUT, 8), probe(node));
    assert_eq!(members.poll(now + PROBE_TIMEOUT * 2, 8), [Request::Forget(node)]);
}

#[test]
fn probes_that_could_not_be_made_prove_nothing() {
    let mut now = Instant::now();
    let (mut members, node, _) = one_member(now);
    members.disconnected(node, false, now);
    for _ in 0..10 {
        assert_eq!(members.poll(now, 8), probe(node));
        members.probe_deferred(node, now);
        now += PROBE_WAIT;
    }
    assert_eq!(members.len(), 1);
}

#[test]
fn idle_peers_are_probed_at_the_next_refresh() {
    let now = Instant::now();
    let (mut members, node, _) = one_member(now);
    members.disconnected(node, true, now);
    assert!(members.poll(now + REFRESH / 2, 8).is_empty());
    assert_eq!(members.poll(now + REFRESH, 8), probe(node));
}

#[test]
fn the_table_is_bounded_and_so_is_the_work_per_poll() {
    let now = Instant::now();
    let mut members = Members::new(5, REFRESH);
    let entered = (0..9).filter(|n| members.identified(NodeId::from_bytes([*n; 32]), vec![], now));
    assert_eq!(entered.count(), 5);
    assert_eq!(members.poll(now, 3).len(), 3);
    assert_eq!(members.poll(now, 3).len(), 2);
}

#[test]
fn several_silent_connections_start_one_row_of_probes() {
    let now = Instant::now();
    let (mut members, node, _) = one_member(now);
    members.silent(node, now);
    assert_eq!(members.poll(now, 8), probe(node));
    members.probe_failed(node, now);
    members.silent(node, now);
    assert!(members.poll(now, 8).is_empty());
    assert_eq!(members.poll(now + PROBE_WAIT, 8), probe(node));
    members.probe_failed(node, now + PROBE_WAIT);
    assert_eq!(members.poll(now + PROBE_WAIT, 8), [Request::Forget(node)]);
}

#[test]
fn lookups_there_was_no_room_for_do_not_slow_the_row() {
    let mut now = Instant::now();
    let (mut members, node, _) = one_member(now);
    for _ in 0..10 {
        assert_eq!(members.poll(now, 8), [Request::Lookup(node)]);
        members.lookup_deferred(node, now);
        assert_eq!(members.next_wake(), Some(now + LOOKUP_DEFERRAL));
        now += LOOKUP_DEFERRAL;
    }
    assert_eq!(members.poll(now, 8), [Request::Lookup(node)]);
    assert_eq!(members.next_wake(), Some(now + LOOKUP_WAIT));
}
