// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disasters with names: the chain dies, stalls, lies, or is another one.

use std::time::Duration;

use supernode_protocol::deal::{DealId, lease_of};
use supernode_protocol::ids::LeaseId;

use super::node::{Node, tight};
use super::tree::{AUDIT_WINDOW, Op};
use super::world::{BUFFER, Faults, World};
use crate::chain::{BlockHash, Height, Standing};
use crate::cleanup::Refusal;
use crate::verdict::{End, Keep, Verdict};

const DEAL: DealId = DealId(1);
const LIFE: u64 = 20;
/// The deal is reserved in block 1, committed, and activated in block 2.
const END: Height = 2 + LIFE;

struct Story {
    world: World,
    node: Node,
    lease: LeaseId,
}

impl Story {
    /// A node with one active deal, all of it final and processed.
    fn begin() -> Self {
        let world = World::new(7);
        let lease = lease_of(world.genesis().as_bytes(), DEAL);
        let mut story = Self { node: Node::start(&world, tight(), Duration::ZERO), world, lease };
        story.block(vec![Op::Reserve { window: 9 }]);
        story.world.lock().commit(DEAL);
        story.block(vec![Op::Activate { deal: DEAL, blocks: LIFE }]);
        assert_eq!(story.stored(), Some(END));
        story
    }

    /// A block that is final at once, and the node's work on it.
    fn block(&mut self, ops: Vec<Op>) {
        self.best_block(ops);
        self.finalise();
        assert!(self.node.run());
    }

    fn blocks_to(&mut self, height: Height) {
        while self.height() < height {
            self.block(Vec::new());
        }
    }

    fn best_block(&mut self, ops: Vec<Op>) {
        let mut shared = self.world.lock();
        // Unlike `grow`, never late: these stories count blocks.
        let parent = shared.tree.best;
        let (index, _) = shared.tree.build(parent, ops, false);
        shared.tree.best = index;
        shared.show();
        drop(shared);
        self.node.wait(6);
    }

    fn finalise(&mut self) {
        let mut shared = self.world.lock();
        let best = shared.tree.best().at.height;
        shared.tree.finalise(best);
        shared.show();
    }

    fn height(&self) -> Height {
        self.world.lock().tree.best().at.height
    }

    fn stored(&self) -> Option<Height> {
        self.world.lock().leases.get(&self.lease).copied()
    }

    fn show(&self) {
        self.world.lock().show();
    }
}

#[test]
fn a_deal_goes_when_the_buffer_has_passed_and_not_a_block_before() {
    let mut story = Story::begin();
    story.blocks_to(END + BUFFER - 1);
    assert_eq!(story.stored(), Some(END));
    story.blocks_to(END + BUFFER);
    assert_eq!(story.stored(), None);
    let tally = story.node.metrics().cleanup;
    assert_eq!((tally.ended_total, tally.ended_slots_total, tally.ended_bytes_total), (1, 2, 8192));
}

#[test]
fn a_finalised_cancel_moves_the_end_to_its_block() {
    let mut story = Story::begin();
    story.block(vec![Op::Cancel(DEAL)]);
    let at = story.height();
    assert_eq!(story.stored(), Some(at));
    story.blocks_to(at + BUFFER - 1);
    assert_eq!(story.stored(), Some(at));
    story.blocks_to(at + BUFFER);
    assert_eq!(story.stored(), None);
}

#[test]
fn the_chain_dies_for_longer_than_a_deal_lives_and_the_deal_was_renewed_meanwhile() {
    for renewed in [true, false] {
        let mut story = Story::begin();
        story.world.lock().faults.down = true;
        story.show();
        for step in 0..60 {
            let renewal = Op::Renew { deal: DEAL, blocks: 500 };
            let ops = if renewed && step == 3 { vec![renewal] } else { Vec::new() };
            story.block(ops);
            story.node.wait(600);
            assert_eq!(story.stored(), Some(END), "nothing ends while nobody answers");
        }
        let metrics = story.node.metrics();
        assert!(metrics.chain_alarm);
        assert_eq!(metrics.standing, Standing::Unreachable);
        story.node.restart();
        assert!(story.node.run());
        assert_eq!(story.stored(), Some(END), "nor after a restart");
        story.world.lock().faults.down = false;
        story.show();
        assert!(story.node.run());
        assert_eq!(story.stored(), renewed.then_some(END + 500));
        assert!(!story.node.metrics().chain_alarm);
    }
}

#[test]
fn the_chain_dies_at_the_deadline_of_an_audit() {
    let mut story = Story::begin();
    story.world.lock().faults.deaf = true;
    story.block(vec![Op::Renew { deal: DEAL, blocks: 500 }, Op::Challenge { deal: DEAL }]);
    let deadline = story.height() + AUDIT_WINDOW;
    story.blocks_to(deadline - 5);
    let metrics = story.node.metrics();
    assert!(metrics.deadline_alarm() && !metrics.chain_alarm, "{metrics:?}");
    assert!(metrics.audits.submission_failures_total > 5, "it keeps trying: {metrics:?}");
    story.world.lock().faults.down = true;
    story.show();
    story.blocks_to(deadline + 2);
    assert!(story.node.metrics().chain_alarm);
    let sent = story.world.lock().submissions;
    story.world.lock().faults = Faults::default();
    story.show();
    assert!(story.node.run());
    assert_eq!(story.world.lock().submissions, sent, "nothing is sent after the deadline");
    let tally = story.node.metrics().audits;
    assert_eq!((tally.late_total, tally.open, tally.pressing), (1, 0, 0));
}

#[test]
fn an_audit_is_still_won_when_the_chain_comes_back_in_its_last_blocks() {
    let mut story = Story::begin();
    story.block(vec![Op::Renew { deal: DEAL, blocks: 500 }]);
    story.world.lock().faults.down = true;
    story.show();
    story.block(vec![Op::Challenge { deal: DEAL }]);
    let deadline = story.height() + AUDIT_WINDOW;
    story.blocks_to(deadline - 2);
    story.world.lock().faults = Faults::default();
    story.world.lock().damaged.insert(DEAL);
    story.show();
    assert!(story.node.run());
    let metrics = story.node.metrics();
    assert!(metrics.deadline_alarm() && metrics.unprovable_alarm(), "{metrics:?}");
    story.world.lock().damaged.clear();
    story.node.restart();
    assert!(story.node.run());
    story.block(Vec::new());
    let tally = story.node.metrics().audits;
    assert_eq!((tally.passed_total, tally.open, tally.pressing), (1, 0, 0));
    assert_eq!(tally.slack_last_blocks, Some(1));
}

#[test]
fn finality_stalls_for_a_thousand_blocks_and_then_jumps() {
    let mut story = Story::begin();
    for _ in 0..1000 {
        story.best_block(Vec::new());
        assert!(story.node.run());
    }
    let metrics = story.node.metrics();
    assert_eq!((metrics.standing, metrics.chain_alarm), (Standing::Stalled, true));
    assert_eq!(story.stored(), Some(END), "expired in the best chain, which counts for nothing");
    story.finalise();
    assert!(story.node.run());
    assert_eq!(story.stored(), None);
    let metrics = story.node.metrics();
    assert_eq!((metrics.standing, metrics.chain_alarm), (Standing::Healthy, false));
}

#[test]
fn another_history_under_the_same_genesis_ends_nothing() {
    for (height, kept) in [(3, None), (900, None), (900, Some(2))] {
        let mut story = Story::begin();
        {
            let mut shared = story.world.lock();
            for _ in 0..height {
                let parent = shared.other_tree.best;
                let (index, _) = shared.other_tree.build(parent, Vec::new(), false);
                shared.other_tree.best = index;
                shared.other_tree.finalised = index;
            }
            shared.faults.impostor = true;
            shared.faults.state_kept = kept;
        }
        story.show();
        assert!(story.node.run());
        story.node.wait(60);
        assert!(story.node.run());
        let metrics = story.node.metrics();
        assert_eq!(metrics.cleanup.refusal, Some(Refusal::HistoryDiffers), "{height} {kept:?}");
        assert!(metrics.chain_alarm);
        assert_eq!(story.stored(), Some(END));
        story.world.lock().faults = Faults::default();
        story.show();
        story.blocks_to(END + BUFFER);
        assert_eq!(story.stored(), None, "the right chain is followed again");
        assert!(!story.node.metrics().chain_alarm);
    }
}

#[test]
fn a_cursor_of_another_genesis_ends_nothing() {
    let mut story = Story::begin();
    {
        let mut shared = story.world.lock();
        let cursor = shared.cursor.as_mut().expect("it has processed blocks");
        cursor.genesis = BlockHash::from_bytes([5; 32]);
    }
    story.node.restart();
    story.blocks_to(END + 50);
    let metrics = story.node.metrics();
    assert_eq!(metrics.cleanup.refusal, Some(Refusal::OtherGenesis));
    assert_eq!((story.stored(), metrics.chain_alarm), (Some(END), true));
}

#[test]
fn a_lease_of_another_chain_is_never_touched() {
    let mut story = Story::begin();
    let other = lease_of(&[0xee; 32], DEAL);
    story.world.lock().leases.insert(other, 3);
    story.blocks_to(END + 50);
    assert_eq!(story.world.lock().leases.get(&other), Some(&3));
    assert_eq!(story.node.metrics().cleanup.deals.other_chain, 1);
    let plan = story.node.plan();
    assert_eq!(plan.len(), 1);
    assert_eq!(plan[0].verdict, Verdict::Keep(Keep::OtherChain));
}

#[test]
fn one_endpoint_alone_ends_nothing_that_another_still_knows() {
    let mut story = Story::begin();
    story.world.lock().other_lag = Some(0);
    story.world.lock().faults.liar = true;
    // A new node believes the first endpoint about everything, and still ends nothing.
    story.world.lock().cursor = None;
    story.node.restart();
    story.blocks_to(END - 1);
    assert_eq!(story.stored(), Some(END));
    story.world.lock().faults.liar = false;
    story.blocks_to(END + BUFFER);
    assert_eq!(story.stored(), None);
}

#[test]
fn a_silent_endpoint_is_waited_for_though_the_chain_stands_still() {
    let mut story = Story::begin();
    story.world.lock().other_lag = Some(0);
    story.world.lock().faults.others_down = true;
    story.blocks_to(END + BUFFER);
    assert_eq!(story.stored(), Some(END));
    assert_eq!(story.node.metrics().cleanup.unconfirmed, 1);
    let plan = story.node.plan();
    let endpoint = "ws://other".to_owned();
    assert_eq!(plan[0].verdict, Verdict::Keep(Keep::Unconfirmed { endpoint }));
    story.world.lock().faults.others_down = false;
    story.node.wait(5);
    assert!(story.node.run());
    assert_eq!(story.stored(), None);
}

#[test]
fn a_chain_that_falls_ill_while_it_is_asked_ends_nothing() {
    let mut story = Story::begin();
    story.world.lock().faults.ill_when_asked = true;
    story.blocks_to(END + BUFFER);
    assert!(story.world.lock().faults.down, "it was asked, and answered");
    assert_eq!(story.stored(), Some(END));
    story.world.lock().faults = Faults::default();
    story.show();
    assert!(story.node.run());
    assert_eq!(story.stored(), None);
}

#[test]
fn a_plan_says_what_then_happens_and_changes_nothing() {
    let mut story = Story::begin();
    story.blocks_to(END + BUFFER - 1);
    assert_eq!(story.node.plan(), []);
    // The node is kept from acting on the last block, but not from following it.
    story.world.lock().other_lag = Some(0);
    story.world.lock().faults.others_down = true;
    story.blocks_to(END + BUFFER);
    story.world.lock().faults.others_down = false;
    let plan = story.node.plan();
    assert_eq!(plan.len(), 1);
    assert_eq!((plan[0].deal, plan[0].moves_to), (Some(DEAL), None));
    assert_eq!(plan[0].verdict, Verdict::End(End::Expired));
    assert_eq!((plan[0].held.slots, plan[0].held.bytes), (2, 8192));
    assert_eq!(story.stored(), Some(END), "a plan changes nothing");
    story.world.lock().faults.down = true;
    story.show();
    assert!(story.node.run());
    let untrusted = Verdict::Keep(Keep::Untrusted(Standing::Unreachable));
    assert_eq!(story.node.plan()[0].verdict, untrusted);
    story.world.lock().faults.down = false;
    story.show();
    assert!(story.node.run());
    assert_eq!(story.stored(), None);
}
