// SPDX-License-Identifier: MIT OR Apache-2.0
//! The object layer against a network in memory: what is put comes back, whatever dies.

mod late;
mod memory;
mod shardless;
mod spans;

use std::io::{self, Cursor};
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::Keypair;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_client::{Peer, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::{Builder, Extent, Stripe};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::ErrorCode;

use self::memory::{Memory, id};
use crate::network::Holders;
use crate::{Class, ErrorKind, GetError, GetOptions, Objects, PutError, PutOptions, PutReport};
use crate::{GetReport, SlotHealth, SurvivedLosses};

const STRIPE: usize = 64 << 20;

type TestObjects = Objects<Memory, Memory>;

fn objects(memory: &Memory) -> TestObjects {
    let identity = Keypair::generate_ed25519();
    Objects::new(memory.clone(), memory.clone(), identity).expect("an Ed25519 key")
}

fn options() -> PutOptions {
    PutOptions {
        class: Class::default(),
        tolerate_nodes: 1,
        kind: LeaseKind::Pin,
        expiry: Expiry::RunningSeconds(3600),
        lease: None,
        inline_bytes_max: 0,
        replicates_small: false,
        elides_zeros: false,
        expected_bytes: None,
        progress: None,
    }
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

async fn put(objects: &TestObjects, bytes: &[u8]) -> PutReport {
    objects.put(Cursor::new(bytes), options()).await.expect("a healthy network")
}

async fn get(objects: &TestObjects, cid: Cid) -> Result<(Vec<u8>, GetReport), GetError> {
    let mut out = Vec::new();
    let report = objects.get(cid, &mut out, GetOptions::default()).await?;
    Ok((out, report))
}

#[tokio::test]
async fn sizes_at_the_edges_come_back_exactly() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    for len in [0, 1, 63, 64, 640, 641, 100_000, STRIPE, STRIPE + 1] {
        let bytes = random_bytes(len, 7);
        let report = put(&objects, &bytes).await;
        assert_eq!(report.size, len as u64);
        assert_eq!(report.content_root, *blake3::hash(&bytes).as_bytes());
        assert_eq!(report.slots_stored, report.slots_total, "{len} bytes");
        assert_eq!(report.durability.nodes, SurvivedLosses(Some(if len == 0 { 6 } else { 2 })));
        assert!(report.announced);
        let (out, read) = get(&objects, report.cid).await.expect("all holders are there");
        assert!(out == bytes, "{len} bytes differ");
        assert_eq!(read.degraded_stripes, 0);
    }
}

#[tokio::test]
async fn any_two_of_seven_nodes_may_die_and_a_third_is_a_typed_error() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let bytes = random_bytes(300_000, 1);
    let real = put(&objects, &bytes).await.cid;
    let zeros = put(&objects, &[0; 300_000]).await.cid;
    for first in 0..7 {
        for second in first + 1..7 {
            let both = [first, second];
            both.into_iter().for_each(|number| memory.with(number, |node| node.dead = true));
            let (out, _) = get(&objects, real).await.expect("ten shards are left");
            assert!(out == bytes, "nodes {first} and {second} dead");
            let third = (0..7).find(|number| !both.contains(number)).expect("seven nodes");
            memory.with(third, |node| node.dead = true);
            let error = get(&objects, real).await.expect_err("eight shards are left");
            assert!(
                matches!(error, GetError::NotEnoughShards { have: 8, need: 10, stripe: 0, .. }),
                "{error}"
            );
            let (out, _) = get(&objects, zeros).await.expect("one shard fills all slots");
            assert!(out == [0; 300_000]);
            [first, second, third]
                .into_iter()
                .for_each(|number| memory.with(number, |node| node.dead = false));
        }
    }
}

#[tokio::test]
async fn a_node_that_dies_during_a_put_is_replaced_and_the_page_ends() {
    // Placement is deterministic, so a rehearsal on an equal network says who gets a slot.
    let bytes = random_bytes(STRIPE, 5).repeat(3);
    let rehearsal = objects(&Memory::of(15));
    let report = put(&rehearsal, &bytes[..STRIPE]).await;
    let victim = rehearsal.stat(report.cid).await.expect("it is there").groups[0].placement[6];
    let number = (0..15).find(|number| id(*number) == victim).expect("one of the fifteen");

    let memory = Memory::of(15);
    memory.with(number, |node| node.dies_after = Some(1));
    let objects = objects(&memory);
    let report = put(&objects, &bytes).await;
    assert!(memory.with(number, |node| node.dead), "it died in the second stripe");
    let (out, read) = get(&objects, report.cid).await.expect("one shard of a stripe is lost");
    assert!(out == bytes);
    assert_eq!(read.degraded_stripes, 1, "the first stripe's slot died with its node");
    let stat = objects.stat(report.cid).await.expect("the object is there");
    assert_eq!(stat.groups.len(), 2, "the vector changed after the first stripe");
    assert!(!stat.groups[1].placement.contains(&victim));
    let missing = [Slot { stripe: 0, index: 6 }];
    assert_eq!(report.missing, missing);
    let told = memory.nodes().values().any(|node| {
        node.commits.values().any(|commit| commit.group == 0 && commit.missing == missing)
    });
    assert!(told, "the commit hands the missing slot over");
}

#[tokio::test]
async fn refusals_say_what_they_are_and_leave_nothing() {
    for (code, kind) in [
        (ErrorCode::Full, ErrorKind::Refused),
        (ErrorCode::Refused, ErrorKind::Refused),
        (ErrorCode::Unavailable, ErrorKind::Failed),
    ] {
        let memory = Memory::of(7);
        (0..7).for_each(|number| memory.with(number, |node| node.refuses = Some(code)));
        let outcome = objects(&memory).put(Cursor::new(b"x"), options()).await;
        let error = outcome.expect_err("everybody refuses");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let memory = Memory::of(0);
    let outcome = objects(&memory).put(Cursor::new(b"x"), options()).await;
    assert!(matches!(outcome, Err(PutError::NoNodes { .. })));
}

#[tokio::test]
async fn one_full_node_is_replaced_by_others() {
    let memory = Memory::of(7);
    memory.with(2, |node| node.refuses = Some(ErrorCode::Full));
    let objects = objects(&memory);
    let bytes = random_bytes(50_000, 3);
    let report = put(&objects, &bytes).await;
    assert_eq!(report.slots_stored, 14);
    assert_eq!(report.durability.nodes, SurvivedLosses(Some(1)), "three slots on some nodes");
    let (out, _) = get(&objects, report.cid).await.expect("six nodes hold it");
    assert!(out == bytes);
}

#[tokio::test]
async fn a_node_that_takes_one_of_its_two_slots_and_dies_is_replaced_for_both() {
    for number in 0..7 {
        let memory = Memory::of(7);
        memory.with(number, |node| node.dies_after = Some(1));
        let objects = objects(&memory);
        let bytes = random_bytes(50_000, 11);
        let report = put(&objects, &bytes).await;
        assert_eq!(report.slots_stored, 14);
        let stat = objects.stat(report.cid).await.expect("six nodes hold it");
        assert!(stat.groups[0].missing.is_empty(), "what was counted is there: {stat:?}");
        assert_eq!(stat.durability, report.durability);
    }
}

#[tokio::test]
async fn holders_that_lost_the_upload_do_not_count() {
    let memory = Memory::of(7);
    (0..7).for_each(|number| memory.with(number, |node| node.loses_uploads = number < 3));
    let objects = objects(&memory);
    let error = objects.put(Cursor::new(b"x"), options()).await.expect_err("8 of 14 slots");
    let survives = SurvivedLosses(None);
    assert!(matches!(error, PutError::NotDurable { survives: s, .. } if s == survives), "{error}");
    assert!(memory.nodes().values().all(|node| node.commits.is_empty()), "all are released");
}

#[tokio::test]
async fn an_endless_source_is_not_read_when_nobody_takes_it() {
    let memory = Memory::of(7);
    (0..7).for_each(|number| memory.with(number, |node| node.refuses = Some(ErrorCode::Refused)));
    let error = objects(&memory).put(tokio::io::repeat(7), options()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn too_few_commits_fail_the_put_and_release_what_was_committed() {
    let memory = Memory::of(7);
    (0..2).for_each(|number| memory.with(number, |node| node.fails_commits = true));
    let objects = objects(&memory);
    let error = objects.put(Cursor::new(b"x"), options()).await.expect_err("ten slots are left");
    let survives = SurvivedLosses(Some(0));
    assert!(matches!(error, PutError::NotDurable { survives: s, wanted: 1, .. } if s == survives));
    assert!(memory.nodes().values().all(|node| node.commits.is_empty()));

    let satisfied = PutOptions { tolerate_nodes: 0, ..options() };
    let report = objects.put(Cursor::new(b"x"), satisfied).await.expect("0 losses is survived");
    assert_eq!((report.slots_stored, report.missing.len()), (10, 4));
}

#[tokio::test]
async fn a_source_that_shrinks_or_fails_is_named() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let expecting = PutOptions { expected_bytes: Some(10), ..options() };
    let error = objects.put(Cursor::new(b"short"), expecting).await.expect_err("5 of 10 bytes");
    assert!(matches!(error, PutError::SourceShrank { expected: 10, actual: 5 }), "{error}");
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(Bytes::from_static(b"abc")),
        Err(io::Error::other("the disk is gone")),
    ]));
    let error = objects.put(broken, options()).await.expect_err("the source fails");
    assert!(matches!(error, PutError::Source { offset: 3, .. }), "{error}");
    assert!(memory.nodes().values().all(|node| node.commits.is_empty()));
}

#[tokio::test]
async fn a_range_touches_only_the_shards_that_hold_it() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let bytes = random_bytes(1_000_000, 9);
    let report = put(&objects, &bytes).await;
    for range in [0..1, 99_999..100_001, 500_000..700_000, 999_999..1_000_000, 10..5_000_000] {
        memory.nodes().values_mut().for_each(|node| node.served.clear());
        let mut out = Vec::new();
        let options = GetOptions { range: Some(range.clone()), progress: None };
        let read = objects.get(report.cid, &mut out, options).await.expect("healthy");
        let end = usize::try_from(range.end).expect("small").min(bytes.len());
        let start = usize::try_from(range.start).expect("small");
        assert!(out == bytes[start..end], "{range:?}");
        assert_eq!(read.written, (end - start) as u64);
        let served: u64 = memory.nodes().values().flat_map(|node| node.served.clone()).sum();
        assert_eq!(served, (end - start) as u64, "{range:?} fetched no byte more");
    }
    let past = GetOptions { range: Some(1_000_000..1_000_001), progress: None };
    let error = objects.get(report.cid, Vec::new(), past).await.expect_err("past the end");
    assert_eq!(error.kind(), ErrorKind::Usage);

    memory.with(0, |node| node.dead = true);
    memory.with(1, |node| node.dead = true);
    let mut out = Vec::new();
    let options = GetOptions { range: Some(0..1_000_000), progress: None };
    objects.get(report.cid, &mut out, options).await.expect("degraded ranges are read too");
    assert!(out == bytes);
}

#[tokio::test]
async fn an_unknown_cid_is_not_found_and_a_dead_network_is_unreachable() {
    let memory = Memory::of(7);
    let objects = objects(&memory).with_locate_timeout(Duration::from_millis(300));
    let error = get(&objects, Cid::of(b"nobody put this")).await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let cid = put(&objects, b"known").await.cid;
    (0..7).for_each(|number| memory.with(number, |node| node.dead = true));
    let error = get(&objects, cid).await.expect_err("nobody answers");
    assert!(matches!(error, GetError::Unreachable { holder_count: 7, .. }), "{error}");
}

/// Commits a hand-made manifest on every node, as no honest put would write it.
async fn plant(
    objects: &TestObjects,
    memory: &Memory,
    extents: Vec<Extent>,
    content: &[u8],
) -> Cid {
    let mut builder = Builder::new();
    for extent in extents {
        builder.push(extent).expect("a valid extent");
    }
    let (_, manifest) = builder.finish(*blake3::hash(content).as_bytes()).expect("one page");
    let placement = PlacementRecord {
        object: manifest.block.cid,
        group: 0,
        epoch: 0,
        nodes: (0..7).cycle().take(14).map(id).collect(),
        writer: objects.owner,
    };
    let upload = UploadId::from_bytes([9; 16]);
    let commit = Commit {
        upload,
        object: manifest.block.cid,
        group: 0,
        page: None,
        stripe_first: 0,
        stripe_count: 0,
        terms: LeaseTerms {
            lease: LeaseId::from_bytes([9; 16]),
            owner: objects.owner,
            kind: LeaseKind::Pin,
            expiry: Expiry::Never,
        },
        placement: Signed::sign(placement, &objects.identity).expect("own key"),
        missing: Vec::new(),
    };
    for number in 0..7 {
        let peer = Peer { node: id(number), addresses: Vec::new() };
        let block = manifest.block.clone();
        memory.put_block(&peer, upload, block.cid, block.bytes).await.expect("alive");
        memory.commit(&peer, commit.clone()).await.expect("alive");
    }
    manifest.block.cid
}

#[tokio::test]
async fn zero_inline_and_slice_extents_are_read() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let source = random_bytes(200_000, 4);
    let other = put(&objects, &source).await.cid;
    let content = [vec![0; 70_000], b"tiny".to_vec(), source[1000..101_000].to_vec()].concat();
    let extents = vec![
        Extent::Zero { len: 70_000 },
        Extent::Inline { bytes: Bytes::from_static(b"tiny") },
        Extent::Slice { cid: other, offset: 1000, len: 100_000 },
    ];
    let cid = plant(&objects, &memory, extents.clone(), &content).await;
    let (out, _) = get(&objects, cid).await.expect("all parts exist");
    assert!(out == content);
    let mut out = Vec::new();
    let options = GetOptions { range: Some(69_999..70_100), progress: None };
    objects.get(cid, &mut out, options).await.expect("a range over all three kinds");
    assert!(out == content[69_999..70_100]);

    let lie = plant(&objects, &memory, extents, b"something else").await;
    let error = get(&objects, lie).await.expect_err("the content root is another");
    assert!(matches!(error, GetError::ContentMismatch { .. }), "{error}");

    let nested =
        plant(&objects, &memory, vec![Extent::Slice { cid, offset: 0, len: 1 }], b"").await;
    let past = vec![Extent::Slice { cid: nested, offset: 0, len: 2 }];
    let past = plant(&objects, &memory, past, b"").await;
    assert!(matches!(get(&objects, past).await, Err(GetError::Range { .. })));
}

#[tokio::test]
async fn shards_that_are_no_codeword_are_inconsistent_not_wrong_bytes() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    // Fourteen unrelated shards, each exactly what its id says.
    let shards: Vec<Bytes> = (0..14).map(|seed| Bytes::from(random_bytes(64, seed))).collect();
    let stripe = Stripe {
        len: 640,
        codec: supernode_protocol::erasure::Codec::default_for(10, 4),
        data_count: 10,
        parity_count: 4,
        shard_len: 64,
        shards: shards.iter().map(|shard| ShardId::of(shard)).collect(),
    };
    for (index, bytes) in (0_u16..).zip(&shards).skip(1) {
        let holder = u8::try_from(index % 7).expect("small");
        let peer = Peer { node: id(holder), addresses: Vec::new() };
        let slot = Slot { stripe: 0, index };
        let upload = UploadId::from_bytes([1; 16]);
        let put = PutShard { upload, slot, shard: ShardId::of(bytes), bytes: bytes.clone() };
        memory.put_shard(&peer, put).await.expect("alive");
    }
    let cid = plant(&objects, &memory, vec![Extent::Stripe(stripe)], b"").await;
    let error = get(&objects, cid).await.expect_err("the first shard cannot be rebuilt");
    assert!(matches!(error, GetError::Inconsistent { stripe: 0, .. }), "{error}");
}

#[tokio::test]
async fn stat_says_of_every_slot_whether_it_is_where_it_should_be() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let report = put(&objects, &random_bytes(1000, 6)).await;
    let vector = &report.groups[0].vector;
    let healthy = objects.stat(report.cid).await.expect("it is there").groups.remove(0).slots;
    assert!(healthy.iter().all(|slot| slot.health == SlotHealth::Healthy));
    let holders: Vec<NodeId> = healthy.iter().filter_map(|slot| slot.holder).collect();
    assert_eq!(holders, *vector);

    // The first holder is gone, another has lost a shard, and a third has given one away.
    let gone = vector[0];
    let others: Vec<usize> = (0..14).filter(|index| vector[*index] != gone).collect();
    let (lost, moved) = (others[0], others[1]);
    let to = *vector.iter().find(|node| ![gone, vector[moved]].contains(node)).expect("seven");
    {
        let mut nodes = memory.nodes();
        nodes.get_mut(&gone).expect("a node").dead = true;
        nodes.get_mut(&vector[lost]).expect("a node").shards.remove(&healthy[lost].shard);
        let from = nodes.get_mut(&vector[moved]).expect("a node");
        let bytes = from.shards.remove(&healthy[moved].shard).expect("its shard");
        let upload = *from.uploads.keys().next().expect("its upload");
        let node = nodes.get_mut(&to).expect("a node");
        node.shards.insert(healthy[moved].shard, bytes);
        let slots = node.uploads.get_mut(&upload).expect("of the same put");
        slots.insert(healthy[moved].slot, healthy[moved].shard);
    }
    let stat = objects.stat(report.cid).await.expect("six nodes answer");
    for (index, slot) in stat.groups[0].slots.iter().enumerate() {
        let health = match index {
            _ if vector[index] == gone => SlotHealth::Unknown,
            _ if index == lost => SlotHealth::Missing,
            _ if index == moved => SlotHealth::Elsewhere(to),
            _ => SlotHealth::Healthy,
        };
        assert_eq!(slot.health, health, "index {index}");
    }
    assert_eq!(stat.groups[0].missing.len(), 3);
}

#[tokio::test]
async fn stat_list_and_release_agree_with_what_nodes_hold() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let report = put(&objects, &random_bytes(1000, 2)).await;
    let stat = objects.stat(report.cid).await.expect("it is there");
    assert_eq!(stat.durability, report.durability);
    assert!(stat.groups[0].missing.is_empty());

    memory.with(4, |node| node.dead = true);
    let stat = objects.stat(report.cid).await.expect("six nodes answer");
    assert_eq!(stat.groups[0].missing.len(), 2);
    assert_eq!(stat.durability.nodes, SurvivedLosses(Some(1)));
    memory.with(4, |node| node.dead = false);

    let listed = objects.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].cid, listed[0].holders.len()), (report.cid, 7));
    let released = objects.release(report.cid).await.expect("own lease");
    assert_eq!((released.leases.len(), released.released.len()), (1, 7));
    assert!(objects.list().await.is_empty());
    let again = objects.release(report.cid).await.expect_err("it is gone");
    assert_eq!(again.kind(), ErrorKind::NotFound);
}
