// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain and the store that a node sees, with faults on the way.
//!
//! What no node may do is checked where it would do it: ending a lease on an unfinalised fact,
//! sending a proof for an audit that is not open in the best block or past its deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::deal::{AuditId, DealId, deal_of, lease_of};
use supernode_protocol::ids::{Cid, LeaseId};
use tokio::sync::watch;

use super::tree::{Block, Op, Tree, proof_of, random_ops};
use crate::chain::{
    AuditFate, BlockChanges, BlockHash, BlockRef, Chain, ChainError, Challenge, DealFact, Height,
    Opinion, ProofFate, Standing, Submitted, View,
};
use crate::cursor::{Bookmark, Cursor};
use crate::keeper::{Held, Keeper, KeeperError, ProveError};
use crate::verdict::named_end;

pub(super) const BUFFER: u64 = 6;
/// Two proofs of these tests fit into a transaction, a third does not.
pub(super) const BATCH_BYTES: usize = 100;

/// What is wrong with the world.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// No endpoint answers.
    pub(super) down: bool,
    /// The endpoint says that it is another chain, and answers nonsense.
    pub(super) foreign: bool,
    /// The endpoint serves another history under the right genesis.
    pub(super) impostor: bool,
    /// One call in so many fails.
    pub(super) flaky: Option<u32>,
    /// One submission in so many is lost, or lands without our hearing of it.
    pub(super) lossy: Option<u32>,
    /// The chain goes away while it is asked for second opinions, after the last of them.
    pub(super) ill_when_asked: bool,
    /// Every submission is lost.
    pub(super) deaf: bool,
    /// The first endpoint says of all deals that they are over. Others do not.
    pub(super) liar: bool,
    /// State of blocks this far below the finalised head is gone.
    pub(super) state_kept: Option<u64>,
    /// The other endpoints do not answer.
    pub(super) others_down: bool,
}

pub(super) struct Shared {
    pub(super) tree: Tree,
    /// What an impostor serves.
    pub(super) other_tree: Tree,
    pub(super) faults: Faults,
    /// How far the other endpoint's finalised head is behind; `None` if there is none.
    pub(super) other_lag: Option<u64>,
    /// Calls until the process dies.
    pub(super) fuse: Option<u32>,
    pub(super) leases: BTreeMap<LeaseId, Height>,
    /// The end that each lease was committed with.
    pub(super) committed: BTreeMap<LeaseId, Height>,
    /// Ended leases, and whether the finalised chain knew no such deal.
    pub(super) ended: BTreeMap<LeaseId, bool>,
    pub(super) damaged: BTreeSet<DealId>,
    pub(super) cursor: Option<Cursor>,
    /// Proofs that lie in the pool.
    pub(super) pool: Vec<(AuditId, Vec<u8>)>,
    /// The height of the last attempt that did not visibly land.
    pub(super) troubled: BTreeMap<AuditId, Height>,
    /// History was skipped, so a cancel may have been missed.
    pub(super) gapped: bool,
    pub(super) submissions: u64,
    pub(super) rejections: u64,
    pub(super) rng: ChaCha8Rng,
    view: watch::Sender<View>,
}

/// Chain, store and cursor file of one node.
#[derive(Clone)]
pub(super) struct World {
    shared: Arc<Mutex<Shared>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let shared = Shared {
            tree: Tree::new(0),
            other_tree: Tree::new(9),
            faults: Faults::default(),
            other_lag: None,
            fuse: None,
            leases: BTreeMap::new(),
            committed: BTreeMap::new(),
            ended: BTreeMap::new(),
            damaged: BTreeSet::new(),
            cursor: None,
            pool: Vec::new(),
            troubled: BTreeMap::new(),
            gapped: false,
            submissions: 0,
            rejections: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            view: watch::Sender::new(View::default()),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        // A broken rule panics with the lock held; the first panic is the one to read.
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn genesis(&self) -> BlockHash {
        self.lock().tree.genesis()
    }

    /// One call: the process may die in it, the endpoint may not answer.
    async fn call(&self, remote: bool) -> Result<(), ChainError> {
        let (dies, fails) = {
            let mut shared = self.lock();
            let dies = match &mut shared.fuse {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            let flaky = shared.faults.flaky;
            let flakes = flaky.is_some_and(|one_in| shared.rng.random_ratio(1, one_in));
            (dies, remote && (shared.faults.down || flakes))
        };
        if dies {
            return pending().await;
        }
        if fails {
            return Err(ChainError::Unreachable { reason: "the test says so".to_owned() });
        }
        Ok(())
    }
}

impl Shared {
    fn served(&self) -> &Tree {
        if self.faults.impostor { &self.other_tree } else { &self.tree }
    }

    fn block(&self, at: BlockRef) -> Result<&Block, ChainError> {
        let reason = || format!("{at} is not known");
        self.served()
            .block(at)
            .ok_or_else(|| ChainError::Answer { what: "a block", reason: reason() })
    }

    /// Tells the node what it can see.
    pub(super) fn show(&mut self) {
        let standing = match &self.faults {
            faults if faults.down => Standing::Unreachable,
            faults if faults.foreign => Standing::ForeignGenesis,
            _ => Standing::Healthy,
        };
        let (best, finalised) = (self.served().best().at, self.served().finalised().at);
        let old = self.view.borrow().clone();
        let fresh = if standing == Standing::Unreachable {
            View { standing, ..old.clone() }
        } else {
            View { standing, best, finalised }
        };
        if fresh != old {
            self.view.send_replace(fresh);
        }
    }

    /// A new best block with these operations and what lies in the pool.
    pub(super) fn grow(&mut self, mut ops: Vec<Op>) -> Vec<(AuditId, ProofFate)> {
        ops.extend(self.pool.drain(..).map(|(audit, proof)| Op::Prove(audit, proof)));
        let late = self.rng.random_ratio(1, 20);
        let (index, fates) = self.tree.build(self.tree.best, ops, late);
        self.tree.best = index;
        fates
    }

    /// A new best block with what users might do.
    pub(super) fn grow_randomly(&mut self) {
        let ops = random_ops(&self.tree.best().ledger, &mut self.rng);
        self.grow(ops);
    }

    /// Uploads for a reservation that the best block knows: the lease runs to its last block.
    pub(super) fn commit(&mut self, deal: DealId) {
        let lease = lease_of(self.tree.genesis().as_bytes(), deal);
        let fact = self.tree.best().ledger.deals.get(&deal);
        if let Some(DealFact::Reserved { activates_by }) = fact
            && !self.leases.contains_key(&lease)
        {
            self.leases.insert(lease, *activates_by);
            self.committed.insert(lease, *activates_by);
            self.ended.remove(&lease);
        }
    }

    /// The rule of contract 5, told by the true finalised chain and what was committed.
    /// True if the chain knows no such deal.
    fn assert_may_end(&self, lease: LeaseId) -> bool {
        let finalised = self.tree.finalised();
        let deal = deal_of(self.tree.genesis().as_bytes(), lease);
        let deal = deal.expect("a lease of another chain was ended");
        let fact = finalised.ledger.history.get(&deal);
        let end = match fact {
            None => self.committed[&lease],
            // Without a tombstone the stored end may be all that is left to go by.
            Some(DealFact::Ended { at, .. }) if !finalised.ledger.activated.contains(&deal) => {
                self.leases[&lease].min(*at)
            }
            Some(DealFact::Ended { at, .. }) => *at,
            Some(live) => panic!("deal {deal} was ended while the finalised chain says {live:?}"),
        };
        let height = finalised.at.height;
        assert!(end + BUFFER <= height, "deal {deal} was ended at {height}, its end is {end}");
        fact.is_none()
    }

    /// Holdings of this node that are open in the best block.
    fn challenges(&self, block: &Block) -> Vec<Challenge> {
        let genesis = self.tree.genesis();
        let ours = |challenge: &&Challenge| {
            self.committed.contains_key(&lease_of(genesis.as_bytes(), challenge.deal))
        };
        block.ledger.open.values().filter(ours).cloned().collect()
    }

    pub(super) fn open_for_us(&self) -> Vec<Challenge> {
        self.challenges(self.tree.best())
    }

    fn held(&self, lease: LeaseId, height: Height) -> Held {
        Held { lease, height, objects: vec![Cid::from_bytes([1; 32])], slots: 2, bytes: 8192 }
    }
}

impl Chain for World {
    fn watch(&self) -> watch::Receiver<View> {
        self.lock().view.subscribe()
    }

    async fn open_audits(&self, at: BlockRef, limit: usize) -> Result<Vec<Challenge>, ChainError> {
        self.call(true).await?;
        let shared = self.lock();
        let mut open = shared.challenges(shared.block(at)?);
        open.truncate(limit);
        Ok(open)
    }

    async fn audit_fates(
        &self,
        audits: Vec<AuditId>,
        at: BlockRef,
    ) -> Result<Vec<AuditFate>, ChainError> {
        self.call(true).await?;
        let shared = self.lock();
        let ledger = &shared.block(at)?.ledger;
        let fate = |audit: &AuditId| match ledger.fates.get(audit) {
            Some(fate) => *fate,
            None if ledger.open.contains_key(audit) => AuditFate::Open,
            None => AuditFate::Unknown,
        };
        Ok(audits.iter().map(fate).collect())
    }

    async fn deal(&self, deal: DealId, at: BlockRef) -> Result<DealFact, ChainError> {
        self.call(true).await?;
        let shared = self.lock();
        if shared.faults.liar {
            return Ok(DealFact::Ended { at: 1, cancelled: true });
        }
        let known = shared.block(at)?.ledger.deals.get(&deal);
        Ok(known.copied().unwrap_or(DealFact::Unknown))
    }

    async fn block_at(&self, height: Height) -> Result<BlockRef, ChainError> {
        self.call(true).await?;
        let mut shared = self.lock();
        // A processed block is looked up again only before blocks after it are skipped.
        let processed = shared.cursor.is_some_and(|cursor| cursor.block.height == height);
        shared.gapped |= processed;
        let tree = shared.served();
        let block = &tree.blocks[tree.ancestor(tree.finalised, height)];
        if block.at.height == height {
            return Ok(block.at);
        }
        let reason = format!("block {height} is not final");
        Err(ChainError::Answer { what: "a block", reason })
    }

    async fn changes(&self, at: BlockRef) -> Result<BlockChanges, ChainError> {
        self.call(true).await?;
        let mut shared = self.lock();
        let head = shared.served().finalised().at.height;
        if shared.faults.state_kept.is_some_and(|kept| at.height + kept < head) {
            shared.gapped = true;
            return Err(ChainError::Pruned { height: at.height });
        }
        let block = shared.block(at)?;
        let parent = shared.served().blocks[block.parent].at.hash;
        Ok(BlockChanges { parent, changes: block.changes.clone() })
    }

    async fn opinions(&self, deal: DealId) -> Result<Vec<Opinion>, ChainError> {
        self.call(true).await?;
        let mut shared = self.lock();
        if shared.faults.ill_when_asked {
            shared.faults.down = true;
            shared.show();
        }
        let Some(lag) = shared.other_lag else { return Ok(Vec::new()) };
        let tree = shared.served();
        let height = tree.finalised().at.height.saturating_sub(lag);
        let block = &tree.blocks[tree.ancestor(tree.finalised, height)];
        let fact = block.ledger.deals.get(&deal).copied().unwrap_or(DealFact::Unknown);
        let answer = (!shared.faults.others_down).then_some((height, fact));
        Ok(vec![Opinion { endpoint: "ws://other".to_owned(), answer }])
    }

    async fn submit(&self, proofs: Vec<(AuditId, Vec<u8>)>) -> Result<Submitted, ChainError> {
        let reached = self.call(true).await;
        let submitted = {
            let mut shared = self.lock();
            let height = shared.tree.best().at.height;
            if reached.is_err() || shared.faults.impostor {
                shared.troubled.extend(proofs.iter().map(|(audit, _)| (*audit, height)));
            }
            reached.and_then(|()| shared.take_submission(proofs))
        };
        // It is in a block by now, and the process may still die before it hears of it.
        self.call(false).await?;
        submitted
    }
}

impl Shared {
    fn take_submission(
        &mut self,
        proofs: Vec<(AuditId, Vec<u8>)>,
    ) -> Result<Submitted, ChainError> {
        assert!(!self.faults.foreign, "a transaction was signed for another chain");
        let lost = || ChainError::NotTaken { reason: "the test says so".to_owned() };
        if self.faults.impostor {
            return Err(lost());
        }
        self.submissions += 1;
        let bytes: usize = proofs.iter().map(|(_, proof)| proof.len()).sum();
        assert!(bytes <= BATCH_BYTES || proofs.len() == 1, "{bytes} bytes in one transaction");
        let height = self.tree.best().at.height;
        for (audit, _) in &proofs {
            let open = self.tree.best().ledger.open.get(audit);
            let challenge = open.unwrap_or_else(|| panic!("audit {audit} is not open: sent again"));
            assert!(height < challenge.deadline, "audit {audit} was answered too late");
        }
        let audits: Vec<AuditId> = proofs.iter().map(|(audit, _)| *audit).collect();
        let lossy = self.faults.lossy.is_some_and(|one_in| self.rng.random_ratio(1, one_in));
        let way = match lossy {
            _ if self.faults.deaf => 0,
            true => self.rng.random_range(0..3),
            false => 3,
        };
        if way < 3 {
            self.troubled.extend(audits.iter().map(|audit| (*audit, height)));
        }
        match way {
            0 => return Err(lost()),
            1 => {
                self.pool = proofs;
                return Err(lost());
            }
            _ => {}
        }
        // A transaction of the same nonce takes the place of one that waits.
        self.pool.clear();
        let ops = proofs.into_iter().map(|(audit, proof)| Op::Prove(audit, proof)).collect();
        let fates = self.grow(ops);
        let refused = fates.iter().filter(|(_, fate)| *fate != ProofFate::Accepted);
        self.rejections += refused.count() as u64;
        self.show();
        let block = self.tree.best().at;
        if way == 2 { Err(lost()) } else { Ok(Submitted { block, fates }) }
    }
}

impl Keeper for World {
    async fn deals(&self, after: Option<LeaseId>, limit: usize) -> Result<Vec<Held>, KeeperError> {
        let _ = self.call(false).await;
        let shared = self.lock();
        let all = shared.leases.iter().filter(|(lease, _)| after.is_none_or(|it| **lease > it));
        Ok(all.take(limit).map(|(lease, height)| shared.held(*lease, *height)).collect())
    }

    async fn deals_due(
        &self,
        height: Height,
        after: Option<(Height, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<Held>, KeeperError> {
        let _ = self.call(false).await;
        let shared = self.lock();
        let queue: BTreeSet<(Height, LeaseId)> =
            shared.leases.iter().map(|(lease, end)| (*end, *lease)).collect();
        let due = queue.into_iter().take_while(|(end, _)| *end <= height);
        let due = due.filter(|position| after.is_none_or(|it| *position > it));
        Ok(due.take(limit).map(|(end, lease)| shared.held(lease, end)).collect())
    }

    async fn stored_end(&self, lease: LeaseId) -> Result<Option<Height>, KeeperError> {
        let _ = self.call(false).await;
        Ok(self.lock().leases.get(&lease).copied())
    }

    async fn move_deal(&self, lease: LeaseId, height: Height) -> Result<(), KeeperError> {
        let _ = self.call(false).await;
        let mut shared = self.lock();
        if let Some(end) = shared.leases.get_mut(&lease) {
            *end = height;
        }
        Ok(())
    }

    async fn end_deal(&self, lease: LeaseId) -> Result<(), KeeperError> {
        let _ = self.call(false).await;
        let mut shared = self.lock();
        let absent = shared.assert_may_end(lease);
        shared.leases.remove(&lease);
        shared.ended.insert(lease, absent);
        Ok(())
    }

    async fn prove(&self, challenge: Challenge) -> Result<Vec<u8>, ProveError> {
        let _ = self.call(false).await;
        let mut shared = self.lock();
        let lease = lease_of(shared.tree.genesis().as_bytes(), challenge.deal);
        let reason = "the test says so".to_owned();
        let height = shared.tree.best().at.height;
        if !shared.leases.contains_key(&lease) {
            shared.troubled.insert(challenge.audit, height);
            return Err(ProveError::Absent { reason });
        }
        if shared.damaged.contains(&challenge.deal) {
            shared.troubled.insert(challenge.audit, height);
            return Err(ProveError::Damaged { reason });
        }
        Ok(proof_of(&challenge))
    }
}

impl Bookmark for World {
    async fn save(&self, cursor: Cursor) -> io::Result<()> {
        let _ = self.call(false).await;
        self.lock().cursor = Some(cursor);
        Ok(())
    }
}

/// Where a lease should be by the finalised chain: its stored end, or gone.
pub(super) fn expected(shared: &Shared, lease: LeaseId) -> Option<Height> {
    let finalised = shared.tree.finalised();
    let deal = deal_of(shared.tree.genesis().as_bytes(), lease).expect("a lease of this chain");
    let fact = finalised.ledger.history.get(&deal).copied().unwrap_or(DealFact::Unknown);
    let end = named_end(fact).unwrap_or(shared.committed[&lease]);
    let live = matches!(fact, DealFact::Active { .. } | DealFact::Reserved { .. });
    (live || end + BUFFER > finalised.at.height).then_some(end)
}
