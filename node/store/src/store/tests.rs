// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a move between lanes relies on, in moments that no clock would hit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use supernode_protocol::ids::{LeaseId, ShardId, UploadId};
use tokio::task::yield_now;
use tokio::time::{interval, timeout};

use super::{Place, PutBlock, PutShard, Store};
use crate::config::StoreConfig;
use crate::disk::SimDisk;
use crate::error::StoreError;
use crate::index::{Index, MemoryIndex, OpenFailure};
use crate::recovery::IndexSource;
use crate::sample::{Client, Object, Recipe, Terms, object};
use crate::writer::Op;

/// An index in memory: a start makes it anew from the log.
struct NoIndex;

impl IndexSource for NoIndex {
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure> {
        Ok(Arc::new(MemoryIndex::default()))
    }

    fn discard(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A store on two simulated disks, of which the second takes so much.
fn two_lanes(second_bytes: u64) -> Store {
    let config = StoreConfig {
        path: "a".into(),
        node: Client::new(200).id,
        batch_window_millis: 0,
        ..StoreConfig::default()
    };
    let place = |path: &'static str, seed, capacity_bytes| Place {
        path: Path::new(path),
        capacity_bytes,
        disk: Arc::new(SimDisk::new(seed)),
        index: &NoIndex,
        lock: None,
    };
    let places = vec![place("a", 1, 1 << 30), place("b", 2, second_bytes)];
    Store::open_on_all(config, places).expect("two new disks")
}

async fn put(store: &Store, client: &Client, object: &Object, terms: Terms) {
    let (caller, upload) = (client.id, terms.upload);
    for (slot, shard, bytes) in &object.groups[0].shards {
        let mut buffer = store.buffer(bytes.len() as u64).await.expect("room");
        buffer.extend(bytes).expect("as long as announced");
        let (slot, shard): (_, ShardId) = (*slot, *shard);
        store.put_shard(PutShard { caller, upload, slot, shard, buffer }).await.expect("room");
    }
    let root = PutBlock { caller, upload, cid: object.cid, bytes: object.root.clone() };
    store.put_block(root).await.expect("room");
    store.commit(client.id, object.commit(client, 0, terms)).await.expect("it fits");
}

#[tokio::test]
async fn what_moves_while_it_is_looked_for_is_found() {
    let store = two_lanes(0);
    let (shared, asked) = (&store.shared, AtomicUsize::new(0));
    let found = shared.first(|_| async {
        // Both say no, each when it is on the other one.
        if asked.fetch_add(1, Ordering::Relaxed) < 2 {
            shared.moves.fetch_add(1, Ordering::SeqCst);
            return Ok(None);
        }
        Ok(Some(()))
    });
    assert_eq!(found.await.expect("no lane fails"), Some(()));
    let nothing = shared.first(|_| async { Ok(None::<()>) }).await;
    assert_eq!(nothing.expect("no lane fails"), None, "nobody looks for ever");
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_lane_that_is_drained_lists_before_those_it_is_moved_to() {
    let store = two_lanes(0);
    let shared = &store.shared;
    shared.lanes[1].set_draining(true);
    let told = Mutex::new(Vec::new());
    let each = shared.each(|lane| {
        let (told, is_draining) = (&told, lane.is_draining());
        async move {
            for _ in 0..if is_draining { 5 } else { 0 } {
                yield_now().await;
            }
            told.lock().push(is_draining);
            Ok(())
        }
    });
    assert_eq!(each.await.expect("no lane fails").len(), 2);
    assert_eq!(*told.lock(), [true, false]);
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_lease_is_not_forsaken_with_more_than_was_moved() {
    let store = two_lanes(0);
    let (client, lane) = (Client::new(1), &store.shared.lanes[0]);
    let (first, second) = (object(Recipe::small(1)), object(Recipe::small(2)));
    put(&store, &client, &first, Terms::pin(1, 1)).await;
    let lease: LeaseId = Terms::pin(1, 1).lease;
    let moved = lane.groups_under(lease).await.expect("index").expect("it is here");
    assert_eq!(moved, [(first.cid, 0, 3)]);
    let forsake = |groups: &[_]| {
        lane.perform(Op::Forsake { lease, groups: groups.iter().copied().collect() })
    };
    let fewer = forsake(&[(first.cid, 0, 2)]).await;
    assert!(matches!(fewer, Err(StoreError::BadCommit { .. })), "a slot came: {fewer:?}");
    let again = Terms { upload: UploadId::from_bytes([2; 16]), ..Terms::pin(2, 1) };
    put(&store, &client, &second, again).await;
    let other = forsake(&moved).await;
    assert!(matches!(other, Err(StoreError::BadCommit { .. })), "a group came: {other:?}");
    let all = lane.groups_under(lease).await.expect("index").expect("it is here");
    let buried = lane.perform(Op::Bury { object: first.cid, group: 0 }).await;
    assert!(matches!(buried, Err(StoreError::GroupNotFound { .. })), "it is kept: {buried:?}");
    forsake(&all).await.expect("all of it");
    assert_eq!(store.usage().trash_groups, 2);
    lane.perform(Op::Bury { object: first.cid, group: 0 }).await.expect("it is in the trash");
    assert_eq!(store.usage().trash_groups, 1);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_cancelled_has_ended() {
    let store = two_lanes(1 << 30);
    let (client, object) = (Client::new(1), object(Recipe::small(1)));
    put(&store, &client, &object, Terms::pin(1, 1)).await;
    let mut lanes = store.shared.lanes.iter();
    let from = Arc::clone(lanes.find(|lane| lane.usage().live_groups > 0).expect("one has it"));
    // It copies everything, and then waits for the change that began before.
    let change = store.shared.grace.begin().await;
    store.drain(&from.name()).await.expect("there is room elsewhere");
    let mut tick = interval(Duration::from_millis(5));
    while !store.shared.grace.is_awaited(&change) {
        tick.tick().await;
    }
    assert_eq!(store.drain_status(&from.name()).expect("it is there").moved_bytes, 3 * 320);
    let mut cancelling = tokio::spawn({
        let (store, name) = (store.clone(), from.name());
        async move { store.cancel_drain(&name).await }
    });
    let early = timeout(Duration::from_millis(300), &mut cancelling).await;
    assert!(early.is_err(), "it is under way");
    assert!(from.is_draining(), "and nothing is put there meanwhile");
    drop(change);
    cancelling.await.expect("no panic").expect("it is there");
    assert!(!from.is_draining());
    assert_eq!(from.usage().live_groups, 1, "it keeps what it had");
    assert_eq!(store.held(object.cid, 0).await.expect("index").len(), 3);
    store.close().await.expect("an orderly stop");
}
