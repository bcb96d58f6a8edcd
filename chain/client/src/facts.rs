// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a block says about nodes, deals, audits and money.

use std::fmt::Display;
use std::sync::Arc;

use subxt::client::{ClientAtBlock, OnlineClientAtBlockImpl};
use subxt::config::substrate::AccountId32;
use subxt::config::substrate::{H256, SubstrateConfig};
use subxt::metadata::ArcMetadata;
use subxt::transactions::TransactionsClient;
use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::{Cid, NodeId};

use crate::endpoint::Session;
use crate::error::ChainError;
use crate::runtime::api;
use crate::runtime::api::supernode::storage as stored;
use crate::types::{
    Audit, AuditResult, Deal, DealEvent, DealState, Ended, Holding, Node, Reservation,
};
use crate::view::BlockRef;

/// Entries read of one listing at most: what a person asks for fits, a loop does not.
const ENTRIES_MAX: usize = 100_000;

pub(crate) type Online = OnlineClientAtBlockImpl<SubstrateConfig>;
type Client = ClientAtBlock<SubstrateConfig, Online>;

/// One block of one endpoint.
pub struct At {
    session: Arc<Session>,
    client: Client,
    block: BlockRef,
}

/// Reads one value of a map, or `None`. A macro because each address has types of its own.
macro_rules! value {
    ($at:expr, $what:literal, $address:expr, $key:expr) => {{
        let storage = $at.client.storage();
        match $at.session.ask(storage.try_fetch($address, $key)).await? {
            Some(value) => {
                Some(value.decode().map_err(|error| $at.session.malformed($what, error))?)
            }
            None => None,
        }
    }};
}

/// Reads at most `$max` entries of a map below a prefix, page by page, and tells whether those are
/// all; `$entry` makes an item of the key's parts and the value.
macro_rules! entries {
    ($at:expr, $what:literal, $address:expr, $prefix:expr, $max:expr, $entry:expr) => {{
        let storage = $at.client.storage();
        let malformed = |error: &dyn Display| $at.session.malformed($what, error);
        let mut found = $at.session.ask(storage.iter($address, $prefix)).await?;
        let (mut entries, mut is_whole) = (Vec::new(), true);
        while let Some(pair) = $at.session.next(found.next()).await? {
            if entries.len() >= $max {
                is_whole = false;
                break;
            }
            let key = pair.key().map_err(|error| malformed(&error))?;
            let key = key.decode().map_err(|error| malformed(&error))?;
            let value = pair.value().decode().map_err(|error| malformed(&error))?;
            entries.push($entry(key, value));
        }
        (entries, is_whole)
    }};
}

/// Reads a map below a prefix for people: what does not fit is left out, and the log says so.
macro_rules! listing {
    ($at:expr, $what:literal, $address:expr, $prefix:expr, $entry:expr) => {{
        let (entries, is_whole) = entries!($at, $what, $address, $prefix, ENTRIES_MAX, $entry);
        if !is_whole {
            tracing::warn!(what = $what, read = ENTRIES_MAX, "a listing is cut short");
        }
        entries
    }};
}

impl At {
    pub(crate) async fn open(session: Arc<Session>, block: BlockRef) -> Result<Self, ChainError> {
        let at = session.client.at_block_hash_and_number(H256(block.hash), block.height);
        let client = session.ask(at).await?;
        Ok(Self { session, client, block })
    }

    /// Which block.
    pub fn block(&self) -> BlockRef {
        self.block
    }

    /// Transactions that live from this block on.
    pub(crate) fn tx(&self) -> TransactionsClient<SubstrateConfig, Online> {
        self.client.tx()
    }

    pub(crate) fn spec_version(&self) -> u32 {
        self.client.spec_version()
    }

    pub(crate) fn metadata(&self) -> ArcMetadata {
        self.client.metadata()
    }

    /// The hash of the block before.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn parent(&self) -> Result<[u8; 32], ChainError> {
        let header = self.session.ask(self.client.block_header()).await?;
        Ok(header.parent_hash.0)
    }

    /// The registered node of a network identity.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn node_of(&self, peer: NodeId) -> Result<Option<Node>, ChainError> {
        let address = api::storage().supernode().node_by_peer();
        match value!(self, "a node's index", address, (*peer.as_bytes(),)) {
            Some(index) => self.node(index).await,
            None => Ok(None),
        }
    }

    /// The node at a place in the registry.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn node(&self, index: u32) -> Result<Option<Node>, ChainError> {
        let address = api::storage().supernode().nodes();
        let node = value!(self, "a node", address, (index,));
        Ok(node.map(|found| node_at(index, found)))
    }

    /// All registered nodes, in no particular order.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn nodes(&self) -> Result<Vec<Node>, ChainError> {
        let address = api::storage().supernode().nodes();
        Ok(listing!(self, "nodes", address, (), |(index,), found| node_at(index, found)))
    }

    /// The network identities of registered nodes, in no particular order, `count_max` at most;
    /// and whether those are all.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn peers(&self, count_max: usize) -> Result<(Vec<NodeId>, bool), ChainError> {
        let address = api::storage().supernode().node_by_peer();
        let peer = |(peer,): ([u8; 32],), _: u32| NodeId::from_bytes(peer);
        Ok(entries!(self, "registered nodes", address, (), count_max, peer))
    }

    /// What became of a deal.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn deal(&self, deal: DealId) -> Result<DealState, ChainError> {
        let storage = api::storage().supernode();
        if let Some(found) = value!(self, "a deal", storage.deals(), (deal.0,)) {
            return Ok(active(deal.0, found));
        }
        let reservation = value!(self, "a reservation", storage.reservations(), (deal.0,));
        if let Some(found) = reservation {
            return Ok(reserved(deal.0, found));
        }
        let over = value!(self, "an ended deal", storage.ended_deals(), (deal.0,));
        Ok(over.map_or(DealState::Unknown, |found| ended(deal.0, found)))
    }

    /// Every reservation, running and remembered deal, by id.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn deals(&self) -> Result<Vec<DealState>, ChainError> {
        let storage = api::storage().supernode();
        let mut deals =
            listing!(self, "reservations", storage.reservations(), (), |(id,), it| reserved(
                id, it
            ));
        deals.extend(listing!(self, "deals", storage.deals(), (), |(id,), it| active(id, it)));
        deals.extend(listing!(self, "ended deals", storage.ended_deals(), (), |(id,), it| {
            ended(id, it)
        }));
        deals.sort_by_key(DealState::id);
        Ok(deals)
    }

    /// What a node keeps, deal by deal.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn holdings(&self, node: u32) -> Result<Vec<Holding>, ChainError> {
        let address = api::storage().supernode().holdings();
        let entry = |(_, deal): (u32, u64), found: stored::holdings::Output| Holding {
            deal: DealId(deal),
            bytes: found.bytes,
            slots: found.slots,
            settled_at: found.settled_at.into(),
            passed: found.passed,
            failed: found.failed,
        };
        Ok(listing!(self, "holdings", address, (node,), entry))
    }

    /// Whether a node holds something of a running deal.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn holds(&self, node: u32, deal: DealId) -> Result<bool, ChainError> {
        let address = api::storage().supernode().holdings();
        Ok(value!(self, "a holding", address, (node, deal.0)).is_some())
    }

    /// Challenges that wait for a node's proof.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn open_audits(&self, node: u32) -> Result<Vec<Audit>, ChainError> {
        let address = api::storage().supernode().open_audits();
        let mut audits = listing!(self, "open audits", address, (node,), open_audit);
        audits.sort_by_key(|audit| audit.audit);
        Ok(audits)
    }

    /// Challenges that wait for the proof of any node.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn all_open_audits(&self) -> Result<Vec<Audit>, ChainError> {
        let address = api::storage().supernode().open_audits();
        Ok(listing!(self, "open audits", address, (), open_audit))
    }

    /// Whether an audit of a node waits for its proof.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn is_open(&self, node: u32, audit: AuditId) -> Result<bool, ChainError> {
        let address = api::storage().supernode().open_audits();
        Ok(value!(self, "an open audit", address, (node, audit.0)).is_some())
    }

    /// What became of an audit; `None` while it is open, and after the chain has forgotten it.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn audit_result(&self, audit: AuditId) -> Result<Option<AuditResult>, ChainError> {
        let address = api::storage().supernode().audit_results();
        let found = value!(self, "an audit's result", address, (audit.0,));
        Ok(found.map(|found| result(audit.0, found)))
    }

    /// Every audit that the chain still remembers, by id.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn audit_results(&self) -> Result<Vec<AuditResult>, ChainError> {
        let address = api::storage().supernode().audit_results();
        let mut results =
            listing!(self, "audits' results", address, (), |(id,), found| result(id, found));
        results.sort_by_key(|result| result.audit);
        Ok(results)
    }

    /// What a node has earned and not claimed.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn rewards(&self, node: u32) -> Result<u128, ChainError> {
        let address = api::storage().supernode().rewards();
        Ok(value!(self, "rewards", address, (node,)).unwrap_or_default())
    }

    /// Proofs that one call may carry on this chain.
    ///
    /// # Errors
    /// When the runtime does not say.
    pub fn proofs_max(&self) -> Result<usize, ChainError> {
        let constant = self.client.constants().entry(api::constants().supernode().max_proofs());
        let count = constant.map_err(|error| self.session.malformed("MaxProofs", error))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// What an account can spend.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn balance(&self, account: [u8; 32]) -> Result<u128, ChainError> {
        let address = api::storage().system().account();
        let found = value!(self, "a balance", address, (AccountId32(account),));
        Ok(found.map_or(0, |account| account.data.free))
    }

    /// What this block did to deals.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn deal_events(&self) -> Result<Vec<DealEvent>, ChainError> {
        use api::supernode::events::{
            DealActivated, DealEnded, DealRenewed, ReservationEnded, Reserved,
        };
        let height = self.block.height;
        let events = self.session.ask(self.client.events().fetch()).await?;
        let malformed = |error| self.session.malformed("an event", error);
        let mut found = Vec::new();
        for event in events.iter() {
            let event = event.map_err(malformed)?;
            if event.pallet_name() != crate::runtime::PALLET {
                continue;
            }
            if let Some(it) = event.decode_fields_as::<Reserved>() {
                let Reserved { deal, activates_by, .. } = it.map_err(malformed)?;
                let (deal, activates_by) = (DealId(deal), activates_by.into());
                found.push(DealEvent::Reserved { deal, activates_by });
            } else if let Some(it) = event.decode_fields_as::<DealActivated>() {
                let DealActivated { deal, expires_at, .. } = it.map_err(malformed)?;
                let (deal, expires_at) = (DealId(deal), expires_at.into());
                found.push(DealEvent::Activated { deal, expires_at });
            } else if let Some(it) = event.decode_fields_as::<DealRenewed>() {
                let DealRenewed { deal, expires_at, .. } = it.map_err(malformed)?;
                let (deal, expires_at) = (DealId(deal), expires_at.into());
                found.push(DealEvent::Renewed { deal, expires_at });
            } else if let Some(it) = event.decode_fields_as::<DealEnded>() {
                let DealEnded { deal, at, cancelled, .. } = it.map_err(malformed)?;
                found.push(DealEvent::Ended { deal: DealId(deal), at: at.into(), cancelled });
            } else if let Some(it) = event.decode_fields_as::<ReservationEnded>() {
                let ReservationEnded { deal, .. } = it.map_err(malformed)?;
                let (deal, at) = (DealId(deal), height);
                found.push(DealEvent::Ended { deal, at, cancelled: true });
            }
        }
        Ok(found)
    }
}

fn node_at(index: u32, found: stored::nodes::Output) -> Node {
    Node {
        index,
        owner: found.owner.0,
        operator: found.operator.0,
        peer: NodeId::from_bytes(found.peer),
        region: text(found.region.0),
        addresses: found.addresses.0.into_iter().map(|address| text(address.0)).collect(),
        capacity: found.capacity,
        registered_at: found.registered_at.into(),
    }
}

fn reserved(deal: u64, found: stored::reservations::Output) -> DealState {
    DealState::Reserved(Reservation {
        deal: DealId(deal),
        owner: found.owner.0,
        bytes: found.bytes,
        duration: found.duration.into(),
        escrow: found.escrow,
        activates_by: found.activates_by.into(),
    })
}

fn active(deal: u64, found: stored::deals::Output) -> DealState {
    DealState::Active(Deal {
        deal: DealId(deal),
        owner: found.owner.0,
        object: Cid::from_bytes(found.object),
        shards_root: found.shards_root,
        data: found.data,
        width: found.width,
        stripe_count: found.stripe_count,
        group_count: found.group_count,
        bytes: found.bytes,
        activated_at: found.activated_at.into(),
        expires_at: found.expires_at.into(),
        escrow: found.escrow,
    })
}

fn ended(deal: u64, found: stored::ended_deals::Output) -> DealState {
    DealState::Ended(Ended {
        deal: DealId(deal),
        owner: found.owner.0,
        object: Cid::from_bytes(found.object),
        at: found.at.into(),
        cancelled: found.cancelled,
    })
}

fn open_audit((node, audit): (u32, u64), found: stored::open_audits::Output) -> Audit {
    Audit {
        audit: AuditId(audit),
        node,
        deal: DealId(found.deal),
        object: Cid::from_bytes(found.object),
        stripe: found.stripe,
        index: found.index,
        seed: found.seed,
        chunk_count: found.chunk_count,
        opened_at: found.opened_at.into(),
        deadline: found.deadline.into(),
    }
}

fn result(audit: u64, found: stored::audit_results::Output) -> AuditResult {
    AuditResult {
        audit: AuditId(audit),
        node: found.node,
        deal: DealId(found.deal),
        stripe: found.stripe,
        index: found.index,
        passed: found.passed,
        opened_at: found.opened_at.into(),
        resolved_at: found.resolved_at.into(),
    }
}

/// Text that anybody may have written: what is not UTF-8 is shown as such.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
