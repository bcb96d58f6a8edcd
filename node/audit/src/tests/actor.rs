// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actor itself: its handle, its figures, its end, and the cursor it leaves.

use std::path::Path;

use supernode_protocol::deal::{DealId, lease_of};

use super::tree::Op;
use super::world::{BUFFER, World};
use crate::config::AuditConfig;
use crate::error::AuditError;
use crate::handle::{AuditOptions, Auditor};
use crate::metrics::AuditMetrics;

async fn start(world: &World, directory: &Path) -> Result<Auditor, AuditError> {
    let options = AuditOptions {
        chain: world.clone(),
        keeper: world.clone(),
        genesis: world.genesis(),
        cursor_path: directory.join("audit.cursor"),
        config: AuditConfig::default(),
    };
    Auditor::start(options).await
}

fn block(world: &World, ops: Vec<Op>) {
    let mut shared = world.lock();
    let parent = shared.tree.best;
    let (index, _) = shared.tree.build(parent, ops, false);
    shared.tree.best = index;
    let height = shared.tree.best().at.height;
    shared.tree.finalise(height);
    shared.show();
}

async fn until(auditor: &Auditor, reached: impl FnMut(&AuditMetrics) -> bool) {
    auditor.watch_metrics().wait_for(reached).await.expect("the actor lives");
}

#[tokio::test]
async fn a_deal_lives_is_audited_and_ends_over_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let world = World::new(3);
    let deal = DealId(1);
    let lease = lease_of(world.genesis().as_bytes(), deal);
    block(&world, vec![Op::Reserve { window: 9 }]);
    world.lock().commit(deal);
    block(&world, vec![Op::Activate { deal, blocks: 10 }, Op::Challenge { deal }]);
    let auditor = start(&world, directory.path()).await.expect("started");
    until(&auditor, |it| it.audits.slack_last_blocks.is_some()).await;
    block(&world, Vec::new());
    until(&auditor, |it| it.audits.passed_total == 1 && it.cleanup.deals.active == 1).await;
    assert!(!auditor.metrics().chain_alarm);
    assert_eq!(auditor.metrics().mailbox_depth, 0);
    assert_eq!(auditor.plan(10).await.expect("a plan"), []);
    auditor.stop().await;
    assert!(matches!(auditor.plan(10).await, Err(AuditError::Stopped)));

    for _ in 0..10 + BUFFER {
        block(&world, Vec::new());
    }
    assert!(world.lock().leases.contains_key(&lease));
    let auditor = start(&world, directory.path()).await.expect("started again");
    until(&auditor, |it| it.cleanup.ended_total == 1).await;
    assert!(!world.lock().leases.contains_key(&lease));
    assert_eq!(auditor.metrics().cleanup.walks_total, 0, "it went on where it had stopped");
    auditor.stop().await;
    auditor.stopped().await;
}

#[tokio::test]
async fn a_chain_that_never_answered_raises_the_alarm_and_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let world = World::new(4);
    world.lock().faults.down = true;
    let auditor = start(&world, directory.path()).await.expect("started");
    until(&auditor, |it| it.chain_alarm).await;
    assert_eq!(auditor.plan(10).await.expect("a plan"), []);
    block(&world, Vec::new());
    world.lock().faults.down = false;
    block(&world, Vec::new());
    until(&auditor, |it| !it.chain_alarm && it.cleanup.processed == Some(2)).await;
    auditor.stop().await;
}

#[tokio::test]
async fn a_damaged_cursor_is_named_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("audit.cursor"), "nonsense").expect("written");
    let world = World::new(5);
    let error = start(&world, directory.path()).await.expect_err("damaged");
    assert!(error.to_string().contains("audit.cursor"), "{error}");
}

#[tokio::test]
async fn the_actor_ends_with_its_last_handle() {
    let directory = tempfile::tempdir().expect("a directory");
    let world = World::new(6);
    let auditor = start(&world, directory.path()).await.expect("started");
    let mut metrics = auditor.watch_metrics();
    drop(auditor);
    while metrics.changed().await.is_ok() {}
}
