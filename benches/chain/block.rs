// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does a finalised block cost a node with 10,000 deals what it costs one with 100?
//!
//! The actor runs as in a node, over a store on disk and a chain in memory. Each block renews a
//! few deals of this node and more of others; nothing is due. The store does not wait for the
//! disk, which would hide everything else, and the cursor lies in memory where that can be had.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use supernode_audit::{
    AuditConfig, AuditFate, AuditOptions, Auditor, BlockChanges, BlockHash, BlockRef, Chain,
    ChainError, Challenge, DealChange, DealFact, Height, Held, Keeper, KeeperError, Opinion,
    ProveError, Standing, Submitted, View,
};
use supernode_benches::{Figure, Scale, interleaved, median};
use supernode_protocol::deal::{AuditId, DealId, lease_of};
use supernode_protocol::ids::LeaseId;
use supernode_store::{DealLease, Store, StoreConfig, StoreError};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::stock::{self, Recipe};

const GENESIS: [u8; 32] = [7; 32];
/// Deals of this node that a block renews.
const OWN_CHANGES: u64 = 4;
/// Deals of other nodes that it renews.
const OTHER_CHANGES: u64 = 12;
const LIFETIME: Height = 1_000_000;
const QUESTION: &str = "a finalised block processed by the audit actor over a store with 10000 \
                        deals against one with 100, want <= 1.5";

/// `chain.block.10k`.
pub fn many_deals(scale: Scale) -> Figure {
    let (many, few, rounds, blocks) = scale.pick((10_000, 100, 30, 50), (100, 10, 2, 3));
    let runtime = Runtime::new().expect("threads");
    let mut rigs = [many, few].map(|deals| runtime.block_on(Rig::start(deals)));
    let (ours, against) = {
        let [many, few] = &mut rigs;
        interleaved(
            rounds,
            |_| runtime.block_on(many.micros_per_block(blocks)),
            |_| runtime.block_on(few.micros_per_block(blocks)),
        )
    };
    for rig in rigs {
        runtime.block_on(rig.stop());
    }
    let raw = json!({
        "deals": [many, few], "blocks_per_round": blocks,
        "own_changes": OWN_CHANGES, "other_changes": OTHER_CHANGES,
        "ours_rounds": ours, "against_rounds": against,
    });
    let both = (median(&ours), median(&against));
    Figure::new(("chain.block.10k", QUESTION), both, "us/block", raw)
}

/// A node with so many deals, and its chain.
struct Rig {
    chain: Ledger,
    store: Store,
    auditor: Auditor,
    _directories: [TempDir; 2],
}

impl Rig {
    async fn start(deals: u64) -> Self {
        let directory = stock::directory();
        let store = stock::open(StoreConfig {
            mailbox_messages_max: 4096,
            ..stock::filling(directory.path())
        });
        let chain = Ledger::new(deals);
        for deal in 0..deals {
            let recipe = Recipe { seed: deal, stripe_count: 1, widths: (2, 1), shard_bytes: 64 };
            stock::put(&store, recipe, lease_of(&GENESIS, DealId(deal)), LIFETIME).await;
        }
        let cursor = cursor_directory();
        let auditor = Auditor::start(AuditOptions {
            chain: chain.clone(),
            keeper: Leases(store.clone()),
            genesis: BlockHash::from_bytes(GENESIS),
            cursor_path: cursor.path().join("audit.cursor"),
            config: AuditConfig::default(),
        });
        let auditor = auditor.await.expect("started");
        let rig = Self { chain, store, auditor, _directories: [directory, cursor] };
        // The first walk and the first count are the work of a start, not of a block.
        rig.chain.grow();
        rig.until(|cleanup| cleanup.deals.active == deals).await;
        rig
    }

    async fn until(&self, mut reached: impl FnMut(&supernode_audit::CleanupTally) -> bool) {
        let mut metrics = self.auditor.watch_metrics();
        metrics.wait_for(|it| reached(&it.cleanup)).await.expect("the actor lives");
    }

    /// Blocks one after another, each when the one before it is processed. The passes over what is
    /// due and what is counted come between, before the next block is.
    async fn micros_per_block(&mut self, blocks: u32) -> f64 {
        let started = Instant::now();
        for _ in 0..blocks {
            let height = self.chain.grow();
            self.until(|cleanup| cleanup.processed == Some(height)).await;
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(blocks)
    }

    async fn stop(self) {
        let moved = self.auditor.metrics().cleanup.moved_total;
        assert!(moved >= OWN_CHANGES, "the blocks moved nothing");
        self.auditor.stop().await;
        self.store.close().await.expect("an orderly stop");
    }
}

/// Where a sync costs nothing, if there is such a place.
fn cursor_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).unwrap_or_else(|_| stock::directory())
}

/// A chain that never forks, whose blocks renew deals in turn.
#[derive(Clone)]
struct Ledger {
    shared: Arc<Mutex<Deals>>,
    view: watch::Sender<View>,
}

struct Deals {
    own: u64,
    /// Ends that were moved; the others are as they were at first.
    ends: BTreeMap<u64, Height>,
}

impl Ledger {
    fn new(own: u64) -> Self {
        let (view, _) = watch::channel(View::default());
        Self { shared: Arc::new(Mutex::new(Deals { own, ends: BTreeMap::new() })), view }
    }

    fn lock(&self) -> MutexGuard<'_, Deals> {
        self.shared.lock().expect("nobody panics with it")
    }

    /// Adds a finalised block.
    fn grow(&self) -> Height {
        let block = block(self.view.borrow().finalised.height + 1);
        let mut deals = self.lock();
        for change in changes(deals.own, block.height) {
            deals.ends.insert(change.deal.0, LIFETIME + block.height);
        }
        drop(deals);
        let standing = Standing::Healthy;
        self.view.send_replace(View { standing, best: block, finalised: block });
        block.height
    }
}

fn block(height: Height) -> BlockRef {
    let hash = *blake3::hash(&height.to_le_bytes()).as_bytes();
    BlockRef { height, hash: BlockHash::from_bytes(hash) }
}

fn changes(own: u64, height: Height) -> Vec<DealChange> {
    let ours = (0..OWN_CHANGES).map(|turn| (height * OWN_CHANGES + turn) % own);
    let others = (0..OTHER_CHANGES).map(|turn| u64::MAX - height * OTHER_CHANGES - turn);
    let fact = DealFact::Active { expires_at: LIFETIME + height };
    ours.chain(others).map(|deal| DealChange { deal: DealId(deal), fact }).collect()
}

impl Chain for Ledger {
    fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    async fn open_audits(&self, _: BlockRef, _: usize) -> Result<Vec<Challenge>, ChainError> {
        Ok(Vec::new())
    }

    async fn audit_fates(
        &self,
        audits: Vec<AuditId>,
        _: BlockRef,
    ) -> Result<Vec<AuditFate>, ChainError> {
        Ok(vec![AuditFate::Unknown; audits.len()])
    }

    async fn deal(&self, deal: DealId, _: BlockRef) -> Result<DealFact, ChainError> {
        let expires_at = self.lock().ends.get(&deal.0).copied().unwrap_or(LIFETIME);
        Ok(DealFact::Active { expires_at })
    }

    async fn block_at(&self, height: Height) -> Result<BlockRef, ChainError> {
        Ok(block(height))
    }

    async fn changes(&self, at: BlockRef) -> Result<BlockChanges, ChainError> {
        let parent = block(at.height - 1).hash;
        Ok(BlockChanges { parent, changes: changes(self.lock().own, at.height) })
    }

    async fn opinions(&self, _: DealId) -> Result<Vec<Opinion>, ChainError> {
        Ok(Vec::new())
    }

    async fn submit(&self, _: Vec<(AuditId, Vec<u8>)>) -> Result<Submitted, ChainError> {
        Err(ChainError::NotTaken { reason: "nothing is asked here".to_owned() })
    }
}

/// The deal leases of a store. Nothing is proven here.
#[derive(Clone)]
struct Leases(Store);

impl Keeper for Leases {
    async fn deals(&self, after: Option<LeaseId>, limit: usize) -> Result<Vec<Held>, KeeperError> {
        let deals = self.0.deals(after, limit).await.map_err(failed)?;
        Ok(deals.into_iter().map(held).collect())
    }

    async fn deals_due(
        &self,
        height: Height,
        after: Option<(Height, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<Held>, KeeperError> {
        let deals = self.0.deals_due(height, after, limit).await.map_err(failed)?;
        Ok(deals.into_iter().map(held).collect())
    }

    async fn stored_end(&self, lease: LeaseId) -> Result<Option<Height>, KeeperError> {
        self.0.deal_end(lease).await.map_err(failed)
    }

    async fn move_deal(&self, lease: LeaseId, height: Height) -> Result<(), KeeperError> {
        self.0.move_deal(lease, height).await.map(drop).map_err(failed)
    }

    async fn end_deal(&self, lease: LeaseId) -> Result<(), KeeperError> {
        self.0.end_deal(lease).await.map(drop).map_err(failed)
    }

    async fn prove(&self, _: Challenge) -> Result<Vec<u8>, ProveError> {
        Err(ProveError::Failed { reason: "nothing is asked here".to_owned() })
    }
}

fn held(deal: DealLease) -> Held {
    let DealLease { lease, height, object, slots, bytes, .. } = deal;
    Held { lease, height, objects: object.into_iter().collect(), slots, bytes }
}

fn failed(error: StoreError) -> KeeperError {
    KeeperError { operation: "use the store", reason: error.to_string() }
}
