// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of blocks: in each the deals and audits of a small pallet, and the changes it made.
//!
//! Every block keeps its whole ledger, so any block can be asked. Ids are given out per fork, as a
//! real chain does: two forks use one id for different things.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::Cid;

use crate::chain::{
    AuditFate, BlockHash, BlockRef, Challenge, DealChange, DealFact, Height, ProofFate,
};

/// How long an ended deal is remembered.
const TOMBSTONE_BLOCKS: u64 = 60;
pub(super) const AUDIT_WINDOW: u64 = 24;

/// What one block knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) deals: BTreeMap<DealId, DealFact>,
    /// Every deal there ever was on this fork, also pruned ones.
    pub(super) history: BTreeMap<DealId, DealFact>,
    /// Deals that ever were active: only those leave a tombstone.
    pub(super) activated: BTreeSet<DealId>,
    pub(super) open: BTreeMap<AuditId, Challenge>,
    pub(super) fates: BTreeMap<AuditId, AuditFate>,
    deals_made: u64,
    audits_made: u64,
}

/// What a block is asked to do.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Reserve { window: u64 },
    Activate { deal: DealId, blocks: u64 },
    Renew { deal: DealId, blocks: u64 },
    Cancel(DealId),
    Challenge { deal: DealId },
    Prove(AuditId, Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) at: BlockRef,
    pub(super) parent: usize,
    pub(super) ledger: Ledger,
    pub(super) changes: Vec<DealChange>,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) blocks: Vec<Block>,
    pub(super) best: usize,
    pub(super) finalised: usize,
    salt: u8,
}

impl Tree {
    pub(super) fn new(salt: u8) -> Self {
        let at = BlockRef { height: 0, hash: hash_of(salt, 0) };
        let ledger = Ledger::default();
        let genesis = Block { at, parent: 0, ledger, changes: Vec::new() };
        Self { blocks: vec![genesis], best: 0, finalised: 0, salt }
    }

    pub(super) fn genesis(&self) -> BlockHash {
        self.blocks[0].at.hash
    }

    pub(super) fn best(&self) -> &Block {
        &self.blocks[self.best]
    }

    pub(super) fn finalised(&self) -> &Block {
        &self.blocks[self.finalised]
    }

    pub(super) fn block(&self, at: BlockRef) -> Option<&Block> {
        self.blocks.iter().rev().find(|block| block.at == at)
    }

    /// The ancestor of block `from` at a height.
    pub(super) fn ancestor(&self, from: usize, height: Height) -> usize {
        let mut index = from;
        while self.blocks[index].at.height > height {
            index = self.blocks[index].parent;
        }
        index
    }

    /// Builds a block on `parent`, and says what became of the proofs in it.
    pub(super) fn build(
        &mut self,
        parent: usize,
        ops: Vec<Op>,
        late_sweep: bool,
    ) -> (usize, Vec<(AuditId, ProofFate)>) {
        let index = self.blocks.len();
        let height = self.blocks[parent].at.height + 1;
        let at = BlockRef { height, hash: hash_of(self.salt, index) };
        let mut build = Building {
            at,
            ledger: self.blocks[parent].ledger.clone(),
            changes: Vec::new(),
            fates: Vec::new(),
        };
        if !late_sweep {
            build.sweep();
        }
        ops.into_iter().for_each(|op| build.apply(op));
        let Building { ledger, changes, fates, .. } = build;
        self.blocks.push(Block { at, parent, ledger, changes });
        (index, fates)
    }

    /// Finalises an ancestor of the best block (or itself), never going back.
    pub(super) fn finalise(&mut self, height: Height) {
        let height = height.min(self.best().at.height);
        if height > self.finalised().at.height {
            self.finalised = self.ancestor(self.best, height);
        }
    }
}

fn hash_of(salt: u8, index: usize) -> BlockHash {
    let mut bytes = [salt; 32];
    bytes[..8].copy_from_slice(&(index as u64).to_le_bytes());
    BlockHash::from_bytes(bytes)
}

struct Building {
    at: BlockRef,
    ledger: Ledger,
    changes: Vec<DealChange>,
    fates: Vec<(AuditId, ProofFate)>,
}

impl Building {
    fn change(&mut self, deal: DealId, fact: DealFact) {
        self.ledger.history.insert(deal, fact);
        self.changes.push(DealChange { deal, fact });
    }

    /// What is due by height: reservations, deals, deadlines, tombstones.
    fn sweep(&mut self) {
        let height = self.at.height;
        for (deal, fact) in self.ledger.deals.clone() {
            match fact {
                DealFact::Reserved { activates_by } if activates_by < height => {
                    self.ledger.deals.remove(&deal);
                    self.change(deal, DealFact::Ended { at: height, cancelled: false });
                }
                DealFact::Active { expires_at } if expires_at <= height => {
                    self.end(deal, expires_at, false);
                }
                DealFact::Ended { at, .. } if at + TOMBSTONE_BLOCKS < height => {
                    self.ledger.deals.remove(&deal);
                }
                _ => {}
            }
        }
        let late = self.ledger.open.values().filter(|it| it.deadline < height);
        for audit in late.map(|it| it.audit).collect::<Vec<_>>() {
            self.ledger.open.remove(&audit);
            self.ledger.fates.insert(audit, AuditFate::Failed);
        }
    }

    fn end(&mut self, deal: DealId, at: Height, cancelled: bool) {
        let fact = DealFact::Ended { at, cancelled };
        self.ledger.deals.insert(deal, fact);
        self.change(deal, fact);
        self.ledger.open.retain(|_, challenge| challenge.deal != deal);
    }

    fn apply(&mut self, op: Op) {
        let height = self.at.height;
        match op {
            Op::Reserve { window } => {
                self.ledger.deals_made += 1;
                let deal = DealId(self.ledger.deals_made);
                let fact = DealFact::Reserved { activates_by: height + window };
                self.ledger.deals.insert(deal, fact);
                self.change(deal, fact);
            }
            Op::Activate { deal, blocks } => self.activate(deal, blocks),
            Op::Renew { deal, blocks } => self.renew(deal, blocks),
            Op::Cancel(deal) => match self.ledger.deals.get(&deal) {
                Some(DealFact::Active { .. }) => self.end(deal, height, true),
                Some(DealFact::Reserved { .. }) => {
                    self.ledger.deals.remove(&deal);
                    self.change(deal, DealFact::Ended { at: height, cancelled: true });
                }
                _ => {}
            },
            Op::Challenge { deal } => self.challenge(deal),
            Op::Prove(audit, proof) => {
                let fate = self.judge(audit, &proof);
                self.fates.push((audit, fate));
            }
        }
    }

    fn activate(&mut self, deal: DealId, blocks: u64) {
        let height = self.at.height;
        let fact = self.ledger.deals.get(&deal).copied();
        if let Some(DealFact::Reserved { activates_by }) = fact
            && height <= activates_by
        {
            let fact = DealFact::Active { expires_at: height + blocks };
            self.ledger.activated.insert(deal);
            self.ledger.deals.insert(deal, fact);
            self.change(deal, fact);
        }
    }

    fn renew(&mut self, deal: DealId, blocks: u64) {
        let height = self.at.height;
        let fact = self.ledger.deals.get(&deal).copied();
        if let Some(DealFact::Active { expires_at }) = fact
            && height < expires_at
        {
            let fact = DealFact::Active { expires_at: expires_at + blocks };
            self.ledger.deals.insert(deal, fact);
            self.change(deal, fact);
        }
    }

    fn challenge(&mut self, deal: DealId) {
        let fact = self.ledger.deals.get(&deal);
        let Some(DealFact::Active { .. }) = fact else { return };
        self.ledger.audits_made += 1;
        let audit = AuditId(self.ledger.audits_made);
        let challenge = Challenge {
            audit,
            deal,
            object: Cid::from_bytes([1; 32]),
            stripe: 0,
            index: 0,
            // Drawn from the block, so another fork's proof is no proof here.
            seed: *self.at.hash.as_bytes(),
            chunk_count: 1,
            opened_at: self.at.height,
            deadline: self.at.height + AUDIT_WINDOW,
        };
        self.ledger.open.insert(audit, challenge);
    }

    fn judge(&mut self, audit: AuditId, proof: &[u8]) -> ProofFate {
        let refuse = |reason: &str| ProofFate::Rejected { reason: reason.to_owned() };
        let Some(challenge) = self.ledger.open.get(&audit) else { return refuse("not open") };
        if self.at.height > challenge.deadline {
            return refuse("late");
        }
        if proof != proof_of(challenge) {
            return refuse("wrong");
        }
        self.ledger.open.remove(&audit);
        let before = self.ledger.fates.insert(audit, AuditFate::Passed);
        assert_eq!(before, None, "audit {audit} is settled twice on one chain");
        ProofFate::Accepted
    }
}

/// The one proof that is accepted.
pub(super) fn proof_of(challenge: &Challenge) -> Vec<u8> {
    let mut proof = challenge.seed.to_vec();
    proof.extend_from_slice(&challenge.audit.0.to_le_bytes());
    proof
}

/// Something that users of the chain might do in a block on `ledger`.
pub(super) fn random_ops(ledger: &Ledger, rng: &mut ChaCha8Rng) -> Vec<Op> {
    let mut ops = Vec::new();
    if rng.random_ratio(1, 4) {
        ops.push(Op::Reserve { window: rng.random_range(2..15) });
    }
    for (deal, fact) in &ledger.deals {
        let deal = *deal;
        match fact {
            DealFact::Reserved { .. } if rng.random_ratio(1, 4) => {
                ops.push(Op::Activate { deal, blocks: rng.random_range(5..80) });
            }
            DealFact::Reserved { .. } if rng.random_ratio(1, 25) => ops.push(Op::Cancel(deal)),
            DealFact::Active { .. } => match rng.random_range(0..40) {
                0 => ops.push(Op::Renew { deal, blocks: rng.random_range(1..60) }),
                1 => ops.push(Op::Cancel(deal)),
                2..6 => ops.push(Op::Challenge { deal }),
                _ => {}
            },
            _ => {}
        }
    }
    ops
}
