// SPDX-License-Identifier: MIT OR Apache-2.0
//! 200 random schedules: reorganisations of depth 1 to 20, retracted deals and challenges,
//! finality that stalls and jumps, renewals, cancels, lost endpoints, other chains, liars,
//! restarts in any call. The oracle is the finalised chain itself.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::deal::{DealId, deal_of};

use super::node::{Node, tight};
use super::tree::{AUDIT_WINDOW, Op};
use super::world::{Faults, Shared, World, expected};
use crate::chain::{AuditFate, DealFact, Height};

const SCHEDULES: u64 = 200;
const STEPS: usize = 150;
const BLOCK_SECS: u64 = 6;

struct Schedule {
    rng: ChaCha8Rng,
    world: World,
    node: Node,
    /// How far finality lags; `None` while it stalls.
    lag: Option<u64>,
}

/// What all schedules together did, so that none of it is silently never tried.
#[derive(Debug, Default)]
struct Seen {
    ended: u64,
    moved: u64,
    passed: u64,
    /// Leases where the finalised chain says, and those that were rightly kept longer.
    equal: u64,
    excused: u64,
    submissions: u64,
    deaths: u64,
    retracted_blocks: u64,
    walks: u64,
    refusals: u64,
    disputed: u64,
    unconfirmed: u64,
}

#[test]
fn two_hundred_schedules_end_in_the_state_of_the_finalised_chain() {
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut seen = Seen::default();
    for seed in first..first + SCHEDULES {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut seen = Seen::default();
            Schedule::new(seed).play(&mut seen);
            seen
        }));
        match outcome {
            Ok(one) => seen.add(&one),
            Err(reason) => {
                println!("schedule failed: run again with SEED={seed}");
                std::panic::resume_unwind(reason);
            }
        }
    }
    println!("{seen:?}");
    assert!(seen.ended > 500 && seen.moved > 500 && seen.walks > 50, "{seen:?}");
    assert!(seen.passed > 500 && seen.submissions > 500, "{seen:?}");
    assert!(seen.equal > 20 * seen.excused, "{seen:?}");
    assert!(seen.deaths > 200 && seen.retracted_blocks > 2000, "{seen:?}");
    assert!(seen.refusals > 20 && seen.disputed > 20 && seen.unconfirmed > 20, "{seen:?}");
}

impl Seen {
    fn add(&mut self, one: &Self) {
        self.ended += one.ended;
        self.moved += one.moved;
        self.passed += one.passed;
        self.equal += one.equal;
        self.excused += one.excused;
        self.submissions += one.submissions;
        self.deaths += one.deaths;
        self.retracted_blocks += one.retracted_blocks;
        self.walks += one.walks;
        self.refusals += one.refusals;
        self.disputed += one.disputed;
        self.unconfirmed += one.unconfirmed;
    }

    fn note(&mut self, node: &Node) {
        let metrics = node.metrics();
        self.refusals += u64::from(metrics.cleanup.refusal.is_some());
        self.disputed += metrics.cleanup.disputed;
        self.unconfirmed += metrics.cleanup.unconfirmed;
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let world = World::new(rng.random());
        world.lock().other_lag = [None, Some(0), Some(3)].choose(&mut rng).copied().flatten();
        let node = Node::start(&world, tight(), std::time::Duration::ZERO);
        Self { rng, world, node, lag: Some(2) }
    }

    fn play(mut self, seen: &mut Seen) {
        // The node has seen the right chain before anybody can show it another one.
        self.world.lock().show();
        assert!(self.node.run());
        for _ in 0..STEPS {
            self.move_chain(seen);
            self.change_faults();
            self.run_node(seen);
        }
        self.heal();
        self.compare(seen);
    }

    fn move_chain(&mut self, seen: &mut Seen) {
        let world = self.world.clone();
        let mut shared = world.lock();
        match self.rng.random_range(0..20) {
            0 => seen.retracted_blocks += self.reorganise(&mut shared),
            1 => self.lag = None,
            2..4 => self.lag = Some(self.rng.random_range(0..25)),
            _ => {}
        }
        for _ in 0..self.rng.random_range(1..4) {
            shared.grow_randomly();
        }
        self.use_chain(&mut shared);
        if let Some(lag) = self.lag {
            let height = shared.tree.best().at.height.saturating_sub(lag);
            shared.tree.finalise(height);
        }
        drop(shared);
        self.node.wait(BLOCK_SECS);
    }

    /// Drops up to 20 blocks that are not final and builds one more than that; what was in them
    /// is lost, but for some of the proofs.
    fn reorganise(&mut self, shared: &mut Shared) -> u64 {
        let best = shared.tree.best().at.height;
        let room = best - shared.tree.finalised().at.height;
        if room == 0 {
            return 0;
        }
        let depth = self.rng.random_range(1..=room.min(20));
        shared.tree.best = shared.tree.ancestor(shared.tree.best, best - depth);
        for _ in 0..=depth {
            shared.grow_randomly();
        }
        depth
    }

    /// Uploads of this node, damage and repair, and the chain that an impostor would show.
    fn use_chain(&mut self, shared: &mut Shared) {
        let deals: Vec<DealId> = shared.tree.best().ledger.deals.keys().copied().collect();
        for deal in deals {
            if self.rng.random_ratio(1, 2) {
                shared.commit(deal);
            }
            if self.rng.random_ratio(1, 60) && !shared.damaged.remove(&deal) {
                shared.damaged.insert(deal);
            }
        }
        for _ in 0..3 {
            let parent = shared.other_tree.best;
            let (index, _) = shared.other_tree.build(parent, Vec::<Op>::new(), false);
            shared.other_tree.best = index;
            shared.other_tree.finalised = index;
        }
    }

    fn change_faults(&mut self) {
        let mut shared = self.world.lock();
        let others = shared.other_lag.is_some();
        let rng = &mut self.rng;
        if rng.random_ratio(1, 3) {
            shared.faults = Faults {
                down: rng.random_ratio(1, 6),
                foreign: rng.random_ratio(1, 12),
                impostor: rng.random_ratio(1, 12),
                flaky: rng.random_ratio(1, 5).then_some(6),
                lossy: rng.random_ratio(1, 4).then_some(2),
                deaf: false,
                ill_when_asked: rng.random_ratio(1, 30),
                liar: others && rng.random_ratio(1, 8),
                state_kept: rng.random_ratio(1, 10).then_some(5),
                others_down: rng.random_ratio(1, 6),
            };
        }
        // One lie at a time, or the second opinion would come from the liar's friends.
        if shared.faults.impostor {
            shared.faults.liar = false;
        }
        shared.show();
    }

    fn run_node(&mut self, seen: &mut Seen) {
        match self.rng.random_range(0..12) {
            0 => return,
            1 => self.node.restart(),
            2 => self.node.wait(400),
            3 | 4 => {
                let calls = self.rng.random_range(0..40);
                self.world.lock().fuse = Some(calls);
            }
            _ => {}
        }
        let alive = self.node.run();
        seen.deaths += u64::from(!alive);
        seen.note(&self.node);
        self.world.lock().fuse = None;
        if alive {
            self.assert_answered();
        }
    }

    /// After an undisturbed run nothing is open that could have been proved, but for what failed
    /// so shortly ago that it is not tried again yet.
    fn assert_answered(&self) {
        let shared = self.world.lock();
        let Faults { down, foreign, impostor, flaky, .. } = shared.faults;
        if down || foreign || impostor || flaky.is_some() {
            return;
        }
        let best = shared.tree.best().at.height;
        for challenge in shared.open_for_us() {
            let tried = shared.troubled.get(&challenge.audit);
            let resting = tried.is_some_and(|tried| best < tried + 6);
            assert!(
                resting || best >= challenge.deadline,
                "audit {} is open at {best} and was not answered: {challenge:?}",
                challenge.audit
            );
        }
    }

    /// All is well again, and the chain goes on until everything is final.
    fn heal(&mut self) {
        let blocks = AUDIT_WINDOW + 10;
        for _ in 0..blocks {
            let mut shared = self.world.lock();
            shared.faults = Faults::default();
            shared.other_lag = shared.other_lag.map(|_| 0);
            shared.grow(Vec::new());
            let best = shared.tree.best().at.height;
            shared.tree.finalise(best);
            shared.show();
            drop(shared);
            self.node.wait(BLOCK_SECS);
            assert!(self.node.run());
        }
    }

    /// The node's leases are those of the finalised chain.
    fn compare(&self, seen: &mut Seen) {
        let metrics = self.node.metrics();
        let shared = self.world.lock();
        let processed = shared.cursor.map(|cursor| cursor.block);
        assert_eq!(processed, Some(shared.tree.finalised().at), "all is processed");
        assert!(!metrics.chain_alarm, "{metrics:?}");
        for lease in shared.committed.keys() {
            let (is, should) = (shared.leases.get(lease).copied(), expected(&shared, *lease));
            let deal = deal_of(shared.tree.genesis().as_bytes(), *lease);
            // What leaves no tombstone is confirmed by nobody, and what was skipped is not seen.
            let history = &shared.tree.finalised().ledger.activated;
            let traceless = deal.is_none_or(|deal| !history.contains(&deal));
            let unseen = shared.gapped || (shared.other_lag.is_some() && traceless);
            let kept_longer = unseen && later(is, should);
            // Rightly ended when there was no such deal, or only the stored end to go by.
            let absent = shared.ended.get(lease) == Some(&true);
            seen.equal += u64::from(is == should);
            seen.excused += u64::from(is != should);
            if is.is_none() && (absent || (shared.gapped && traceless)) {
                continue;
            }
            assert!(is == should || kept_longer, "{deal:?} is {is:?} and should be {should:?}");
        }
        let ledger = &shared.tree.finalised().ledger;
        let passed = ledger.fates.values().filter(|fate| **fate == AuditFate::Passed);
        seen.passed += passed.count() as u64;
        seen.ended += shared.ended.len() as u64;
        seen.moved += metrics.cleanup.moved_total;
        seen.walks += metrics.cleanup.walks_total;
        seen.submissions += shared.submissions;
        let live = ledger.history.values().filter(|it| !matches!(it, DealFact::Ended { .. }));
        assert_eq!(live.count(), ledger.deals.values().filter(|it| is_live(it)).count());
    }
}

fn is_live(fact: &DealFact) -> bool {
    matches!(fact, DealFact::Active { .. } | DealFact::Reserved { .. })
}

fn later(is: Option<Height>, should: Option<Height>) -> bool {
    match (is, should) {
        (Some(_), None) => true,
        (Some(is), Some(should)) => is > should,
        (None, _) => false,
    }
}
