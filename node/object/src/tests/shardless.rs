// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that are too small to be cut, and zeros that nobody stores.

use std::io::{self, Cursor};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::limits::{INLINE_BYTES_MAX, PAGE_EXTENTS_MAX};
use supernode_protocol::manifest::Extent;
use supernode_protocol::wire::ErrorCode;
use tokio_util::io::StreamReader;

use super::memory::Memory;
use super::{STRIPE, TestObjects, get, objects, options, random_bytes};
use crate::{Class, GetOptions, PutOptions, SurvivedLosses};

/// Two shards a stripe, so that stripes cost little.
fn thin() -> PutOptions {
    let class = Class::new(1, 1).expect("two copies");
    PutOptions { class, inline_bytes_max: 1000, elides_zeros: true, ..options() }
}

/// Puts, gets all and the ranges around every stripe's border, and looks at the manifest.
async fn extents(objects: &TestObjects, bytes: &[u8], options: PutOptions) -> Vec<Extent> {
    let report = objects.put(Cursor::new(bytes), options).await.expect("a healthy network");
    assert_eq!(report.size, bytes.len() as u64);
    let (out, _) = get(objects, report.cid).await.expect("all holders are there");
    assert!(out == bytes, "{} bytes differ", bytes.len());
    for border in (0..=bytes.len()).step_by(STRIPE) {
        let (start, end) = (border.saturating_sub(3), (border + 3).min(bytes.len()));
        let range = Some(start as u64..end as u64);
        let mut out = Vec::new();
        let options = GetOptions { range, progress: None };
        objects.get(report.cid, &mut out, options).await.expect("a part of it");
        assert!(out == bytes[start..end], "{start}..{end} differ");
    }
    let stat = objects.stat(report.cid).await.expect("it is there");
    assert_eq!(stat.durability, report.durability);
    assert_eq!(stat.groups.len(), 1 + stat.root.pages.len());
    stat.root.page_0.extents
}

fn shard_count(memory: &Memory) -> usize {
    memory.nodes().values().map(|node| node.shards.len()).sum()
}

#[tokio::test]
async fn a_tiny_object_lies_in_its_manifest_on_every_holder() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let wide = PutOptions { inline_bytes_max: 1000, ..options() };
    let bytes = random_bytes(1000, 1);
    let inline = extents(&objects, &bytes, wide.clone()).await;
    assert_eq!(inline, [Extent::Inline { bytes: bytes.into() }]);
    assert_eq!(shard_count(&memory), 0);
    let report = objects.put(Cursor::new(b"x"), wide.clone()).await.expect("healthy");
    assert_eq!((report.slots_total, report.durability.nodes), (0, SurvivedLosses(Some(6))));
    assert_eq!(report.groups[0].vector.len(), 14);

    let more = extents(&objects, &random_bytes(1001, 1), wide.clone()).await;
    assert!(matches!(more[..], [Extent::Stripe(_)]), "{more:?}");
    let boundless = PutOptions { inline_bytes_max: usize::MAX, ..wide.clone() };
    let most = extents(&objects, &random_bytes(INLINE_BYTES_MAX, 1), boundless.clone()).await;
    assert!(matches!(most[..], [Extent::Inline { .. }]), "{most:?}");
    let over = extents(&objects, &random_bytes(INLINE_BYTES_MAX + 1, 1), boundless).await;
    assert!(matches!(over[..], [Extent::Stripe(_)]), "{over:?}");
    // A chain pays for shards and audits them.
    let deal = PutOptions { kind: LeaseKind::Deal, ..wide };
    let report = objects.put(Cursor::new(b"x"), deal).await.expect("healthy");
    assert_eq!(report.slots_total, 14);
}

#[tokio::test]
async fn holders_that_refuse_a_tiny_object_are_replaced() {
    let memory = Memory::of(20);
    let objects = objects(&memory);
    let tiny = PutOptions { inline_bytes_max: 1000, ..options() };
    // Who would hold it, on an equal network.
    let report = objects.put(Cursor::new(b"tiny"), tiny.clone()).await.expect("healthy");
    let memory = Memory::of(20);
    for holder in &report.groups[0].vector[..12] {
        memory.nodes().get_mut(holder).expect("one of them").refuses = Some(ErrorCode::Full);
    }
    let objects = super::objects(&memory);
    let again = objects.put(Cursor::new(b"tiny"), tiny).await.expect("eight nodes have room");
    assert_eq!(again.durability.nodes, SurvivedLosses(Some(7)));
    assert_eq!(again.groups[0].vector.len(), 14);
    let blocks: usize = memory.nodes().values().map(|node| node.blocks_put).sum();
    assert_eq!(blocks, 8, "each holder gets it once");
    let (out, _) = get(&objects, again.cid).await.expect("its holders are there");
    assert_eq!(out, b"tiny");
}

#[tokio::test]
async fn a_small_object_is_kept_as_copies() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let small = PutOptions { inline_bytes_max: 10, replicates_small: true, ..options() };
    for (len, class, slots) in
        [(10, "10+4", 0), (11, "1+4", 5), (2304, "1+4", 5), (2305, "10+4", 14)]
    {
        let bytes = random_bytes(len, 3);
        let report = objects.put(Cursor::new(&bytes), small.clone()).await.expect("healthy");
        assert_eq!((report.class.to_string().as_str(), report.slots_total), (class, slots));
        let survives = if slots == 5 {
            4
        } else if slots == 14 {
            2
        } else {
            6
        };
        assert_eq!(report.durability.nodes, SurvivedLosses(Some(survives)), "{len} bytes");
        extents(&objects, &bytes, small.clone()).await;
    }
    let deal = PutOptions { kind: LeaseKind::Deal, ..small };
    let report = objects.put(Cursor::new(b"eleven bytes"), deal).await.expect("healthy");
    assert_eq!(report.slots_total, 14, "its price is that of its class");
}

#[tokio::test]
async fn zeros_are_noted_wherever_they_are_and_stored_nowhere() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    let zeros = |len: usize| Extent::Zero { len: len as u64 };
    assert_eq!(extents(&objects, &[0; 10], thin()).await, [zeros(10)]);
    let three = vec![0; 2 * STRIPE + 5];
    assert_eq!(extents(&objects, &three, thin()).await, [zeros(three.len())], "one extent");
    assert_eq!(shard_count(&memory), 0);

    // A stripe with one other byte, at either end, is a stripe.
    let mut bytes = vec![0; 5 * STRIPE];
    bytes[STRIPE] = 1;
    bytes[4 * STRIPE - 1] = 1;
    let mixed = extents(&objects, &bytes, thin()).await;
    let [first, Extent::Stripe(_), middle, Extent::Stripe(_), last] = &mixed[..] else {
        panic!("{mixed:?}");
    };
    assert_eq!([first, middle, last], [&zeros(STRIPE); 3]);

    let kept = extents(&objects, &three, PutOptions { elides_zeros: false, ..thin() }).await;
    assert_eq!(kept.len(), 3);
    let deal = PutOptions { kind: LeaseKind::Deal, ..thin() };
    let report = objects.put(Cursor::new(&three), deal).await.expect("healthy");
    assert_eq!(report.slots_total, 6);
}

#[tokio::test]
async fn a_last_group_of_zeros_alone_is_placed_by_the_objects_name() {
    let memory = Memory::of(7);
    let objects = objects(&memory);
    // Zeros and a stripe in turn until the first page is full, and zeros after it.
    let stripes = PAGE_EXTENTS_MAX as u64 + 1;
    let source = stream::iter(0..stripes).map(|number| {
        let byte = u8::try_from(number % 2).expect("0 or 1");
        Ok::<_, io::Error>(Bytes::from(vec![byte; STRIPE]))
    });
    let report = objects.put(StreamReader::new(source), thin()).await.expect("healthy");
    assert_eq!(report.size, stripes * STRIPE as u64);
    let groups: Vec<(u32, u32)> =
        report.groups.iter().map(|group| (group.stripe_first, group.stripe_count)).collect();
    assert_eq!(groups, [(0, 32), (32, 0)]);
    let page = {
        let nodes = memory.nodes();
        let mut commits = nodes.values().flat_map(|node| node.commits.values());
        let last = commits.find(|commit| commit.group == 1).expect("the last group is committed");
        assert_eq!(last.placement.body_unverified().nodes, report.groups[1].vector);
        last.page.expect("a page of its own")
    };
    assert_ne!(page, report.cid);

    let border = (stripes - 1) * STRIPE as u64;
    let mut out = Vec::new();
    let options = GetOptions { range: Some(border - 2..border + 3), progress: None };
    objects.get(report.cid, &mut out, options).await.expect("both groups are there");
    assert_eq!(out, [1, 1, 0, 0, 0]);
}
