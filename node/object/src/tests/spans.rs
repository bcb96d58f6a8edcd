// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holders of a deal with several groups get what ties their group to the object's list of shards.

use std::io::Cursor;

use bytes::Bytes;
use supernode_protocol::ids::NodeId;
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::manifest::{Page, Root};
use supernode_protocol::tree::{ShardEntry, prove_entry_in_span, verify_entry, verify_span};

use super::memory::{Memory, Node, id};
use super::{STRIPE, TestObjects, objects, options, put, random_bytes};
use crate::{PutOptions, PutReport};

const NODES: u8 = 17;

/// The numbers of the nodes that hold slots 6, 7 and 8 of what starts with `stripe`. Placement is
/// deterministic, so a rehearsal on an equal network says who they are.
async fn holders(stripe: &[u8]) -> [u8; 3] {
    let report = put(&objects(&Memory::of(NODES)), stripe).await;
    let number = |node: NodeId| (0..NODES).find(|number| id(*number) == node);
    [6, 7, 8].map(|slot: usize| number(report.groups[0].vector[slot]).expect("one of them"))
}

async fn put_as(objects: &TestObjects, kind: LeaseKind, bytes: &[u8]) -> PutReport {
    let options = PutOptions { kind, ..options() };
    objects.put(Cursor::new(bytes), options).await.expect("enough nodes stay")
}

/// The object's root and a group's page, as one of the group's holders has them.
fn manifest(node: &Node, report: &PutReport, group: u32) -> (Root, Page) {
    let block = |cid| -> &Bytes { node.blocks.get(cid).expect("stored before the commit") };
    let root = Root::decode(block(&report.cid)).expect("a valid root");
    let commit = &node.commits[&(report.lease, report.cid, group)];
    let page = match &commit.page {
        Some(page) => root.open_page(group, block(page)).expect("its page"),
        None => root.page_0.clone(),
    };
    (root, page)
}

#[tokio::test]
async fn each_holder_of_a_deal_of_several_groups_can_prove_its_slots() {
    let bytes = random_bytes(STRIPE, 5).repeat(2);
    let [first, second, stubborn] = holders(&bytes[..STRIPE]).await;
    let memory = Memory::of(NODES);
    memory.with(first, |node| node.dies_after = Some(1));
    memory.with(second, |node| node.dies_after = Some(2));
    memory.with(stubborn, |node| node.refuses_spans = true);
    let bytes = [bytes, vec![7]].concat();
    let report = put_as(&objects(&memory), LeaseKind::Deal, &bytes).await;
    assert_eq!(report.groups.len(), 3, "the vector changed after the first and second stripe");

    let nodes = memory.nodes();
    for (group, placed) in (0_u32..).zip(&report.groups) {
        for holder in &placed.vector {
            let node = &nodes[holder];
            let span = node.spans.get(&(report.cid, group));
            if node.dead || node.refuses_spans {
                assert_eq!(span, None, "{holder} took nothing");
                continue;
            }
            let span = span.expect("a holder got its span");
            let (root, page) = manifest(node, &report, group);
            let entries: Vec<ShardEntry> = page.entries().collect();
            let (slots, before) = (root.slot_count(), root.slots_before(group).expect("exists"));
            let verdict = verify_span(&root.shards_root, slots, before, &entries, span);
            assert_eq!(verdict, Ok(()), "group {group}");
            for (slot, entry) in (before..).zip(&entries) {
                let proof = prove_entry_in_span(slots, before, &entries, span, slot);
                let proof = proof.expect("the span was verified");
                let verdict = verify_entry(&report.shards_root, slots, slot, entry, &proof);
                assert_eq!(verdict, Ok(()), "slot {slot}");
            }
        }
    }
    let kept = nodes.values().map(|node| node.spans.len()).sum::<usize>();
    assert_eq!(kept, 11 + 12 + 13, "dead and stubborn holders, and nobody else, have none");
}

#[tokio::test]
async fn one_group_and_a_pin_need_no_span() {
    let memory = Memory::of(NODES);
    let report = put_as(&objects(&memory), LeaseKind::Deal, &random_bytes(100_000, 1)).await;
    assert_eq!(report.groups.len(), 1);

    let bytes = [random_bytes(STRIPE, 5), vec![7]].concat();
    let [victim, ..] = holders(&bytes[..STRIPE]).await;
    memory.with(victim, |node| node.dies_after = Some(1));
    let report = put_as(&objects(&memory), LeaseKind::Pin, &bytes).await;
    assert_eq!(report.groups.len(), 2);
    assert!(memory.nodes().values().all(|node| node.spans.is_empty()));
}
