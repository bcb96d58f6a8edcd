// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain as the audit actor sees it, over the chain client and this node's operator account.
//!
//! The actor knows heights and facts; that this node has a place in the registry is known here. It
//! is looked up by the node's key, at the block that is asked about, and remembered.
//!
//! A running deal that names nothing of this node is unknown to it: what was committed for it stays
//! no longer than the reservation. A lease covers whole groups, so slots of a group that the deal
//! does not name stay as long as those that it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use supernode_audit::{
    AuditFate, BlockChanges, BlockHash, BlockRef, ChainError, Challenge, DealChange, DealFact,
    Height, Opinion, ProofFate, Standing, Submitted, View,
};
use supernode_chain::{Account, At, Call, Chain, DealEvent, DealState, TxError, Until};
use supernode_protocol::deal::{AuditId, DealId, lease_of};
use supernode_protocol::ids::NodeId;
use supernode_store::Store;
use tokio::sync::watch;

/// Stands for "not looked up yet"; no registry is that large.
const UNKNOWN_INDEX: u32 = u32::MAX;

/// See the module.
#[derive(Clone)]
pub struct ChainLink {
    chain: Chain,
    account: Account,
    node: NodeId,
    store: Store,
    index: Arc<AtomicU32>,
    view: watch::Receiver<View>,
}

impl ChainLink {
    /// A link for the node of this key; `account` is its operator.
    pub fn new(chain: Chain, account: Account, node: NodeId, store: Store) -> Self {
        let view = translated(chain.view());
        let index = Arc::new(AtomicU32::new(UNKNOWN_INDEX));
        Self { chain, account, node, store, index, view }
    }

    async fn at(&self, block: BlockRef) -> Result<At, ChainError> {
        let BlockRef { height, hash } = block;
        let hash = *hash.as_bytes();
        let at = self.chain.at(supernode_chain::BlockRef { height, hash }).await;
        at.map_err(|error| failed(error, height))
    }

    /// What a block knows of a deal, as far as it concerns this node.
    async fn fact_at(
        &self,
        at: &At,
        deal: DealId,
    ) -> Result<DealFact, supernode_chain::ChainError> {
        let state = at.deal(deal).await?;
        if let DealState::Active(_) = state {
            let node = at.node_of(self.node).await?;
            let holds = match node {
                Some(node) => at.holds(node.index, deal).await?,
                None => false,
            };
            if !holds {
                return Ok(DealFact::Unknown);
            }
        }
        Ok(fact(state))
    }

    /// Whether a lease of this deal is here; if that cannot be told, it is looked at.
    async fn is_kept(&self, deal: DealId) -> bool {
        let lease = lease_of(&self.chain.genesis(), deal);
        self.store.deal_end(lease).await.map_or(true, |end| end.is_some())
    }

    /// This node's place in the registry; `None` while it is not registered.
    async fn index(&self, at: &At) -> Result<Option<u32>, ChainError> {
        match self.index.load(Ordering::Relaxed) {
            UNKNOWN_INDEX => {}
            index => return Ok(Some(index)),
        }
        let height = at.block().height;
        let found = at.node_of(self.node).await.map_err(|error| failed(error, height))?;
        // A registration may still be retracted; only a finalised one is remembered.
        let is_finalised = height <= self.view.borrow().finalised.height;
        if let Some(node) = found.as_ref().filter(|_| is_finalised) {
            self.index.store(node.index, Ordering::Relaxed);
        }
        Ok(found.map(|node| node.index))
    }
}

impl supernode_audit::Chain for ChainLink {
    fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    async fn open_audits(&self, at: BlockRef, limit: usize) -> Result<Vec<Challenge>, ChainError> {
        let height = at.height;
        let at = self.at(at).await?;
        let Some(index) = self.index(&at).await? else { return Ok(Vec::new()) };
        let audits = at.open_audits(index).await.map_err(|error| failed(error, height))?;
        let challenges = audits.into_iter().take(limit).map(|audit| Challenge {
            audit: audit.audit,
            deal: audit.deal,
            object: audit.object,
            stripe: audit.stripe,
            index: audit.index,
            seed: audit.seed,
            chunk_count: audit.chunk_count,
            opened_at: audit.opened_at,
            deadline: audit.deadline,
        });
        Ok(challenges.collect())
    }

    async fn audit_fates(
        &self,
        audits: Vec<AuditId>,
        at: BlockRef,
    ) -> Result<Vec<AuditFate>, ChainError> {
        let height = at.height;
        let at = self.at(at).await?;
        let index = self.index(&at).await?;
        let mut fates = Vec::with_capacity(audits.len());
        for audit in audits {
            let result = at.audit_result(audit).await.map_err(|error| failed(error, height))?;
            let fate = match (result, index) {
                (Some(result), _) if result.passed => AuditFate::Passed,
                (Some(_), _) => AuditFate::Failed,
                (None, None) => AuditFate::Unknown,
                (None, Some(index)) => {
                    let open = at.is_open(index, audit).await;
                    let open = open.map_err(|error| failed(error, height))?;
                    if open { AuditFate::Open } else { AuditFate::Unknown }
                }
            };
            fates.push(fate);
        }
        Ok(fates)
    }

    async fn deal(&self, deal: DealId, at: BlockRef) -> Result<DealFact, ChainError> {
        let height = at.height;
        let at = self.at(at).await?;
        self.fact_at(&at, deal).await.map_err(|error| failed(error, height))
    }

    async fn block_at(&self, height: Height) -> Result<BlockRef, ChainError> {
        let block = self.chain.block_at(height).await.map_err(|error| failed(error, height))?;
        Ok(block_ref(block))
    }

    async fn changes(&self, at: BlockRef) -> Result<BlockChanges, ChainError> {
        let height = at.height;
        let at = self.at(at).await?;
        let parent = at.parent().await.map_err(|error| failed(error, height))?;
        let events = at.deal_events().await.map_err(|error| failed(error, height))?;
        let mut changes = Vec::new();
        for event in events {
            let change = change(event);
            if let DealFact::Active { .. } = change.fact
                && self.is_kept(change.deal).await
                && self.fact_at(&at, change.deal).await.map_err(|error| failed(error, height))?
                    == DealFact::Unknown
            {
                tracing::warn!(deal = %change.deal, "a deal was activated without this node");
                continue;
            }
            changes.push(change);
        }
        Ok(BlockChanges { parent: BlockHash::from_bytes(parent), changes })
    }

    async fn opinions(&self, deal: DealId) -> Result<Vec<Opinion>, ChainError> {
        let mut opinions = Vec::new();
        for (endpoint, at) in self.chain.others().await {
            let answer = match at {
                Ok(at) => self.fact_at(&at, deal).await.map(|fact| (at.block().height, fact)),
                Err(error) => Err(error),
            };
            if let Err(error) = &answer {
                tracing::warn!(endpoint, %error, "an endpoint has no opinion");
            }
            opinions.push(Opinion { endpoint, answer: answer.ok() });
        }
        Ok(opinions)
    }

    async fn submit(&self, proofs: Vec<(AuditId, Vec<u8>)>) -> Result<Submitted, ChainError> {
        let best = self.chain.at_best().await.map_err(|error| failed(error, 0))?;
        let node = self.index(&best).await?.ok_or_else(|| ChainError::NotTaken {
            reason: "this node is not registered".to_owned(),
        })?;
        // Refused proofs cost their fee each time; another key's are always refused.
        let registered =
            best.node(node).await.map_err(|error| failed(error, best.block().height))?;
        if registered.is_none_or(|it| it.operator != self.account.id()) {
            let reason = "the operator key is not the one this node is registered with".to_owned();
            return Err(ChainError::NotTaken { reason });
        }
        // The rest of a batch that is too large for this chain comes with the next one.
        let count_max = best.proofs_max().map_err(|error| failed(error, 0))?;
        let proofs: Vec<_> = proofs.into_iter().take(count_max).collect();
        let asked: Vec<AuditId> = proofs.iter().map(|(audit, _)| *audit).collect();
        let call = Call::SubmitProofs { node, proofs };
        let included = self.account.submit(call, Until::InBlock).await.map_err(not_taken)?;
        let reason = |audit: &AuditId| {
            let rejected = included.rejected.iter().find(|(rejected, _)| rejected == audit);
            rejected.map_or_else(|| "the chain says no word of it".to_owned(), |it| it.1.clone())
        };
        let fates = asked.into_iter().map(|audit| {
            let fate = if included.passed.contains(&audit) {
                ProofFate::Accepted
            } else {
                ProofFate::Rejected { reason: reason(&audit) }
            };
            (audit, fate)
        });
        Ok(Submitted { block: block_ref(included.block), fates: fates.collect() })
    }
}

/// The client's view in the actor's terms, for as long as somebody listens.
fn translated(mut source: watch::Receiver<supernode_chain::View>) -> watch::Receiver<View> {
    let (sender, receiver) = watch::channel(view(&source.borrow_and_update()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = source.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sender.send_replace(view(&source.borrow_and_update()));
                }
            }
        }
    });
    receiver
}

fn view(of: &supernode_chain::View) -> View {
    let standing = match of.standing {
        supernode_chain::Standing::Connected => Standing::Healthy,
        supernode_chain::Standing::Unreachable { .. } => Standing::Unreachable,
        supernode_chain::Standing::ForeignGenesis { .. } => Standing::ForeignGenesis,
        supernode_chain::Standing::ForeignRuntime { .. } => Standing::ForeignRuntime,
    };
    match (of.best, of.finalised) {
        (Some(best), Some(finalised)) => {
            View { standing, best: block_ref(best), finalised: block_ref(finalised) }
        }
        _ => View { standing, ..View::default() },
    }
}

fn block_ref(block: supernode_chain::BlockRef) -> BlockRef {
    BlockRef { height: block.height, hash: BlockHash::from_bytes(block.hash) }
}

fn fact(state: DealState) -> DealFact {
    match state {
        DealState::Reserved(it) => DealFact::Reserved { activates_by: it.activates_by },
        DealState::Active(it) => DealFact::Active { expires_at: it.expires_at },
        DealState::Ended(it) => DealFact::Ended { at: it.at, cancelled: it.cancelled },
        DealState::Unknown => DealFact::Unknown,
    }
}

fn change(event: DealEvent) -> DealChange {
    match event {
        DealEvent::Reserved { deal, activates_by } => {
            DealChange { deal, fact: DealFact::Reserved { activates_by } }
        }
        DealEvent::Activated { deal, expires_at } | DealEvent::Renewed { deal, expires_at } => {
            DealChange { deal, fact: DealFact::Active { expires_at } }
        }
        DealEvent::Ended { deal, at, cancelled } => {
            DealChange { deal, fact: DealFact::Ended { at, cancelled } }
        }
    }
}

fn failed(error: supernode_chain::ChainError, height: Height) -> ChainError {
    match error {
        supernode_chain::ChainError::NoSuchBlock { .. } => ChainError::Pruned { height },
        supernode_chain::ChainError::Malformed { what, reason, .. } => {
            ChainError::Answer { what, reason }
        }
        other => ChainError::Unreachable { reason: other.to_string() },
    }
}

fn not_taken(error: TxError) -> ChainError {
    ChainError::NotTaken { reason: error.to_string() }
}
