// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holders that take a question and never answer it. Time is the test's own, so what is waited for
//! costs nothing and can be measured exactly.

use std::time::Duration;

use supernode_protocol::ids::{Cid, NodeId};
use tokio::time::timeout;

use super::memory::{Memory, id};
use super::{TestObjects, objects, options, random_bytes};
use crate::{Class, GetOptions, GetReport, PutOptions};

/// What a get may take that waits for a late holder once, but not for its end.
const SOON: Duration = Duration::from_secs(2);

/// An object of one stripe, and who holds each index of it.
async fn stored(objects: &TestObjects, class: Class, bytes: &[u8]) -> (Cid, Vec<NodeId>) {
    let options = PutOptions { class, ..options() };
    let report = objects.put(bytes, options).await.expect("a healthy network");
    (report.cid, report.groups[0].vector.clone())
}

/// Gets a range, or everything, and checks it.
async fn exact(
    objects: &TestObjects,
    cid: Cid,
    bytes: &[u8],
    range: Option<std::ops::Range<usize>>,
) -> GetReport {
    let mut out = Vec::new();
    let wanted = range.clone().unwrap_or(0..bytes.len());
    let range = range.map(|range| range.start as u64..range.end as u64);
    let options = GetOptions { range, progress: None };
    let report = timeout(SOON, objects.get(cid, &mut out, options)).await.expect("in time");
    let report = report.expect("enough holders answer");
    assert!(out == bytes[wanted], "the bytes that were put");
    report
}

fn stall(memory: &Memory, node: NodeId) {
    let number = (0..7).find(|number| id(*number) == node).expect("one of the seven");
    memory.with(number, |node| node.stalls = true);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_come_is_replaced_by_another() {
    let memory = Memory::of(7);
    let (objects, bytes) = (objects(&memory), random_bytes(500_000, 1));
    let (cid, vector) = stored(&objects, Class::default(), &bytes).await;
    let healthy = exact(&objects, cid, &bytes, None).await;
    assert_eq!((healthy.hedges, healthy.degraded_stripes), (0, 0));

    stall(&memory, vector[0]);
    let slots = vector[..10].iter().filter(|node| **node == vector[0]).count();
    let read = exact(&objects, cid, &bytes, None).await;
    assert_eq!((read.hedges, read.degraded_stripes), (slots as u64, 1), "one for each slot");
    // A range of its first shard: nobody else has that, so any ten shards have to do. The holder
    // is known to be late by then.
    let read = exact(&objects, cid, &bytes, Some(100..200)).await;
    assert_eq!((read.hedges, read.degraded_stripes), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_does_not_come_is_replaced_by_another() {
    let memory = Memory::of(7);
    let (objects, bytes) = (objects(&memory), random_bytes(5000, 2));
    let class = Class::new(1, 2).expect("three copies");
    let (cid, vector) = stored(&objects, class, &bytes).await;
    stall(&memory, vector[0]);
    stall(&memory, vector[1]);
    for (range, served) in [(None, 5056), (Some(10..20), 10)] {
        memory.nodes().values_mut().for_each(|node| node.served.clear());
        let read = exact(&objects, cid, &bytes, range.clone()).await;
        assert_eq!((read.hedges, read.degraded_stripes), (2, 0), "{range:?}");
        assert_eq!(memory.nodes()[&vector[2]].served, [served], "what was asked for, once");
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_soonest_is_asked_first() {
    let memory = Memory::of(7);
    let (objects, bytes) = (objects(&memory), random_bytes(5000, 3));
    let class = Class::new(1, 2).expect("three copies");
    let (cid, vector) = stored(&objects, class, &bytes).await;
    // Of the one in the middle nothing is known.
    for (place, latency) in [(0, 30), (2, 20)] {
        let number = (0..7).find(|number| id(*number) == vector[place]).expect("of the seven");
        memory.with(number, |node| node.latency = Some(Duration::from_millis(latency)));
    }
    exact(&objects, cid, &bytes, None).await;
    assert_eq!(memory.nodes()[&vector[2]].served, [5056]);
}
