// SPDX-License-Identifier: MIT OR Apache-2.0
//! A deal lease ends when the chain says so: no peer moves it, no clock of this machine does.

use bytes::Bytes;
use supernode_protocol::ids::{LeaseId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_store::offline::fsck;
use supernode_store::{Store, StoreError};

use super::freed_bytes_come_back::{is_on_disk, until, without_trash};
use super::support::{assert_readable, config, open, put, upload};
use crate::sample::{Client, Object, Recipe, Terms, object};

fn deal(number: u8, height: u64) -> Terms {
    Terms {
        kind: LeaseKind::Deal,
        expiry: Expiry::FinalisedHeight(height),
        ..Terms::pin(number, number)
    }
}

async fn due(store: &Store, height: u64) -> Vec<LeaseId> {
    let due = store.deals_due(height, None, 10).await.expect("index");
    due.into_iter().map(|deal| deal.lease).collect()
}

#[tokio::test]
async fn deals_are_listed_due_moved_and_ended_by_height() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let first = object(Recipe { group_count: 2, stripe_count: 3, ..Recipe::small(1) });
    let second = object(Recipe::small(2));
    let (late, early, pin) = (deal(1, 500), deal(2, 90), Terms::pin(3, 3));
    put(&store, &client, &first, late).await.expect("put");
    put(&store, &client, &second, early).await.expect("put");
    put(&store, &client, &second, pin).await.expect("put");

    let deals = store.deals(None, 10).await.expect("index");
    assert_eq!(deals.len(), 2, "a pin is no deal");
    assert_eq!((deals[0].lease, deals[0].height, deals[0].settled), (late.lease, 500, false));
    assert_eq!(deals[0].object, Some(first.cid));
    assert_eq!((deals[0].slots, deals[0].bytes, deals[0].group_count), (18, 18 * 320, 2));
    assert_eq!(store.deals(Some(late.lease), 10).await.expect("index")[0].lease, early.lease);
    assert_eq!(due(&store, 89).await, []);
    assert_eq!(due(&store, 90).await, [early.lease]);
    assert_eq!(due(&store, u64::MAX).await, [early.lease, late.lease], "the earliest first");

    // The chain moves both ways; a commit does not move what the chain has moved.
    assert!(store.move_deal(early.lease, 700).await.expect("a deal"));
    assert!(!store.move_deal(early.lease, 700).await.expect("a deal"), "said already");
    assert!(store.move_deal(late.lease, 40).await.expect("a deal"));
    assert_eq!(due(&store, 600).await, [late.lease]);
    let later = Terms { expiry: Expiry::FinalisedHeight(9_000), ..late };
    store.commit(client.id, first.commit(&client, 0, later)).await.expect("a repeat works");
    assert_eq!(due(&store, 40).await, [late.lease]);
    let refused = store.move_deal(pin.lease, 1).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound { .. })), "{refused:?}");
    let refused = store.end_deal(pin.lease).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound { .. })), "{refused:?}");

    store.end_deal(late.lease).await.expect("a deal");
    store.end_deal(early.lease).await.expect("a deal");
    assert_eq!(store.deals(None, 10).await.expect("index"), []);
    assert_eq!(due(&store, u64::MAX).await, []);
    assert_eq!(store.usage().live_groups, 1, "the pin keeps what it shares");
    assert_eq!(store.usage().trash_slots, 18);
    assert_readable(&store, &second).await;
    store.close().await.expect("an orderly stop");
    let report = fsck(directory.path()).expect("a check");
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn a_writer_extends_its_deal_only_until_the_chain_has_spoken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe::small(1));
    put(&store, &client, &object, deal(1, 10)).await.expect("put");
    store.commit(client.id, object.commit(&client, 0, deal(1, 20))).await.expect("resumed");
    assert_eq!(due(&store, 19).await, []);
    let lease = deal(1, 0).lease;
    let refused = store.renew(client.id, lease, Expiry::FinalisedHeight(30)).await;
    assert!(matches!(refused, Err(StoreError::DealLease { .. })), "{refused:?}");
    let refused = store.release(client.id, lease).await;
    assert!(matches!(refused, Err(StoreError::DealLease { .. })), "{refused:?}");
    let refused = store.release(Client::new(2).id, lease).await;
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    assert_readable(&store, &object).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_slot_of_a_deal_is_found_by_lease_object_and_position() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let recipe = Recipe { group_count: 3, stripe_count: 2, ..Recipe::small(1) };
    let (ours, other) = (object(recipe), object(Recipe { seed: 2, ..recipe }));
    let terms = deal(1, 10);
    upload(&store, &client, &ours, terms.upload).await.expect("put");
    // Group 1 is somebody else's.
    for group in [0, 2] {
        store.commit(client.id, ours.commit(&client, group, terms)).await.expect("committed");
    }
    put(&store, &client, &other, deal(2, 10)).await.expect("put");
    for (number, group) in ours.groups.iter().enumerate() {
        for (slot, shard, bytes) in &group.shards {
            let found = store.slot(terms.lease, ours.cid, *slot).await.expect("index");
            if number == 1 {
                assert_eq!(found, None);
                continue;
            }
            let found = found.expect("held");
            assert_eq!((found.shard, found.shard_len), (*shard, bytes.len() as u64));
            assert_eq!(found.group as usize, number);
        }
    }
    let slot = Slot { stripe: 0, index: 0 };
    for (lease, cid, slot) in [
        (terms.lease, other.cid, slot),
        (deal(9, 0).lease, ours.cid, slot),
        (terms.lease, ours.cid, Slot { stripe: 6, index: 0 }),
        (terms.lease, ours.cid, Slot { stripe: u32::MAX, index: 0 }),
        (terms.lease, ours.cid, Slot { stripe: 0, index: 3 }),
    ] {
        assert_eq!(store.slot(lease, cid, slot).await.expect("index"), None, "{slot:?}");
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_span_is_kept_with_its_group_and_goes_with_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = config(directory.path());
    let store = open(config.clone()).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe { group_count: 2, ..Recipe::small(1) });
    put(&store, &client, &object, deal(1, 10)).await.expect("put");
    assert_eq!(store.span(object.cid, 1).await.expect("index"), None);
    let (first, second) = (Bytes::from(vec![1; 16 << 10]), Bytes::from_static(b"newer"));
    store.keep_span(object.cid, 1, first.clone()).await.expect("held");
    assert_eq!(store.span(object.cid, 1).await.expect("index"), Some(first));
    store.keep_span(object.cid, 1, second.clone()).await.expect("held");
    let refused = store.keep_span(object.cid, 2, second.clone()).await;
    assert!(matches!(refused, Err(StoreError::GroupNotFound { .. })), "{refused:?}");
    let refused = store.keep_span(object.cid, 1, vec![0; (16 << 10) + 1].into()).await;
    assert!(matches!(refused, Err(StoreError::TooMany { .. })), "{refused:?}");
    store.close().await.expect("an orderly stop");

    let store = open(config).await.expect("the same store");
    assert_eq!(store.span(object.cid, 1).await.expect("index"), Some(second));
    assert_eq!(store.span(object.cid, 0).await.expect("index"), None);
    store.end_deal(deal(1, 10).lease).await.expect("a deal");
    assert_eq!(store.span(object.cid, 1).await.expect("index"), None, "not held any more");
    store.close().await.expect("an orderly stop");
}

/// Every slot of an object is, or is not, found under a deal's lease.
async fn assert_slots(store: &Store, terms: Terms, object: &Object, held: bool) {
    for (slot, shard, _) in object.groups.iter().flat_map(|group| &group.shards) {
        let found = store.slot(terms.lease, object.cid, *slot).await.expect("index");
        assert_eq!(found.map(|it| it.shard), held.then_some(*shard), "{slot:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_two_deals_share_stay_until_the_second_ends() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(without_trash(path)).await.expect("a new store");
    let client = Client::new(1);
    let recipe = Recipe { stripe_count: 4, stripe_bytes: 384 << 10, ..Recipe::small(1) };
    let (shared, marker) = (object(recipe), object(Recipe { seed: 2, ..recipe }));
    let (first, second, third) = (deal(1, 10), deal(2, 20), deal(3, 10));
    put(&store, &client, &shared, first).await.expect("put");
    let once = store.usage().shards.live.bytes;
    put(&store, &client, &shared, second).await.expect("put");
    put(&store, &client, &marker, third).await.expect("put");
    assert_eq!(store.usage().shards.live.bytes, 2 * once, "shared bytes are kept once");
    assert_slots(&store, first, &shared, true).await;
    assert_slots(&store, second, &shared, true).await;

    // The marker goes after the first deal: when its bytes are freed, a sweep has seen both.
    store.end_deal(first.lease).await.expect("a deal");
    store.end_deal(third.lease).await.expect("a deal");
    until("the marker's holes", &store, |store| store.metrics().reclaimed_bytes >= once).await;
    assert_slots(&store, first, &shared, false).await;
    assert_slots(&store, second, &shared, true).await;
    assert_slots(&store, third, &marker, false).await;
    assert_eq!((store.usage().shards.live.bytes, store.usage().shards.dead.bytes), (once, 0));
    assert_eq!(store.metrics().reclaimed_bytes, once, "the marker's and nothing else");
    assert_readable(&store, &shared).await;
    let shards = |object: &Object| object.groups[0].shards.clone();
    assert!(shards(&shared).iter().all(|(_, _, bytes)| is_on_disk(path, bytes)));
    assert!(!shards(&marker).iter().any(|(_, _, bytes)| is_on_disk(path, bytes)));
    assert_eq!(due(&store, u64::MAX).await, [second.lease]);

    store.end_deal(second.lease).await.expect("a deal");
    until("all holes", &store, |store| store.metrics().reclaimed_bytes >= 2 * once).await;
    assert_slots(&store, second, &shared, false).await;
    for (_, shard, bytes) in shards(&shared) {
        let gone = store.shard(shard).await;
        assert!(matches!(gone, Err(StoreError::ShardNotFound { .. })), "{:?}", gone.err());
        assert!(!is_on_disk(path, &bytes), "it reads as zeros");
    }
    assert_eq!((store.usage().shards.live.bytes, store.usage().live_groups), (0, 0));
    store.close().await.expect("an orderly stop");
    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_shards_of_two_objects_stay_until_the_second_deal_ends() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(without_trash(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    // All shards of both are the same zeros: one record, and two names with leases of their own.
    let zeros = Recipe { stripe_bytes: 384 << 10, zeros: true, ..Recipe::small(1) };
    let (one, other) = (object(zeros), object(Recipe { seed: 2, ..zeros }));
    assert_ne!(one.cid, other.cid);
    let (first, second, third) = (deal(1, 10), deal(2, 20), deal(3, 10));
    put(&store, &client, &one, first).await.expect("put");
    put(&store, &client, &other, second).await.expect("put");
    let marker = object(Recipe { zeros: false, seed: 3, ..zeros });
    put(&store, &client, &marker, third).await.expect("put");
    store.end_deal(first.lease).await.expect("a deal");
    store.end_deal(third.lease).await.expect("a deal");
    let bytes = 3 * (192_u64 << 10);
    until("the marker's holes", &store, |store| store.metrics().reclaimed_bytes >= bytes).await;
    assert_slots(&store, first, &one, false).await;
    assert_slots(&store, second, &other, true).await;
    assert_readable(&store, &other).await;
    store.end_deal(second.lease).await.expect("a deal");
    until("all holes", &store, |store| store.usage().shards.live.bytes == 0).await;
    let (_, shard, _) = other.groups[0].shards[0];
    let gone = store.shard(shard).await;
    assert!(matches!(gone, Err(StoreError::ShardNotFound { .. })), "{:?}", gone.err());
    store.close().await.expect("an orderly stop");
}
