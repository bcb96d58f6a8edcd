// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that keep cached shards: they do not end by resting, and are the node's alone.

use supernode_protocol::ids::LeaseId;

use super::harness::{Action, IndexFate, Lab};
use crate::catalog::{State, Thing, cached_upload};
use crate::error::StoreError;
use crate::sample::Terms;

#[test]
fn a_cached_shard_rests_as_long_as_it_likes_and_goes_when_it_is_evicted() {
    let mut lab = Lab::new(1);
    let (_, shard, _) = lab.world.objects[0].groups[0].shards[0];
    let upload = cached_upload(shard);
    // Another shard in the same place of an upload of the node's own is no cached one.
    let put = |upload, object| Action::PutShard { client: 0, upload, object, group: 0, shard: 0 };
    let idle = Terms::pin(7, 7).upload;
    lab.run(&[put(upload, 0), put(idle, 2)]);
    let node = lab.config.node;
    let cached = |lab: &Lab| {
        let found = lab.reader.catalog().cached(node, None, 10).expect("a sound index").0;
        found.into_iter().map(|cached| cached.shard).collect::<Vec<_>>()
    };
    assert_eq!(cached(&lab), [shard], "not what is under another upload of its own");
    for fate in [IndexFate::Kept, IndexFate::Lost] {
        lab.tick(lab.config.upload_idle_secs + 100);
        lab.restart(true, fate);
        assert_eq!(cached(&lab), [shard], "{fate:?}");
        assert!(lab.reader.catalog().upload(idle).expect("a sound index").is_none());
    }
    lab.run(&[Action::Release { client: 0, lease: LeaseId::from_bytes(*upload.as_bytes()) }]);
    assert_eq!(cached(&lab), []);
    lab.tick(1);
    let kept = lab.reader.catalog().kept(Thing::Shard(shard)).expect("a sound index");
    assert!(kept.is_none_or(|kept| kept.state() == State::Dead));
    lab.restart(true, IndexFate::Lost);
    assert_eq!(cached(&lab), []);
    lab.compare();
}

#[test]
fn a_peer_cannot_open_an_upload_that_never_ends() {
    let mut lab = Lab::new(2);
    let (_, shard, _) = lab.world.objects[0].groups[0].shards[0];
    let upload = cached_upload(shard);
    let put = |client, object| Action::PutShard { client, upload, object, group: 0, shard: 0 };
    let refused = lab.perform(&[put(1, 0)]).remove(0).lock().take().expect("an answer");
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    // With another shard it can, and then that upload ends by resting like any other, although
    // the shard it is named after is refused all the same.
    lab.run(&[put(1, 2), put(1, 0)]);
    assert!(lab.reader.catalog().upload(upload).expect("a sound index").is_some());
    lab.tick(lab.config.upload_idle_secs);
    assert!(lab.reader.catalog().upload(upload).expect("a sound index").is_none());
    lab.run(&[put(0, 0)]);
    lab.tick(lab.config.upload_idle_secs);
    assert!(lab.reader.catalog().upload(upload).expect("a sound index").is_some());
    lab.compare();
}
