// SPDX-License-Identifier: MIT OR Apache-2.0
//! One key, and everything that is signed with it.
//!
//! A task owns the key's nonces: it takes one [`Call`] at a time, takes the nonce from the best
//! block, signs with a mortal era, submits, and watches until the call is in a block. Nothing is
//! sent twice by itself: when the connection breaks under way the caller gets [`TxError::Unknown`]
//! and looks at the chain, because the transaction may still land. Until it does, or dies, it and
//! the next one have the same nonce: at most one of the two is ever included.

use subxt::config::substrate::AccountId32;
use subxt::config::{SubstrateConfig, SubstrateExtrinsicParamsBuilder};
use subxt::error::{BackendError, DispatchError, ExtrinsicError, RpcError, TransactionEventsError};
use subxt::events::DecodeAsEvent;
use subxt::extrinsics::ExtrinsicEvents;
use subxt::transactions::{
    SubmittableTransaction, TransactionInBlock, TransactionStatus, TransactionsClient,
};
use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::{Cid, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::Chain;
use crate::endpoint::Session;
use crate::error::{ChainError, TxError};
use crate::facts::{At, Online};
use crate::keys::SecretKey;
use crate::runtime::api;
use crate::runtime::api::runtime_types::bounded_collections::bounded_vec::BoundedVec;
use crate::runtime::api::runtime_types::supernode_pallet::types::{GroupAssignment, Receipt};
use crate::view::BlockRef;

/// Calls that may wait; most are a few kilobytes, activations of large objects a few hundred.
const MAILBOX_CALLS_MAX: usize = 16;

type InBlock = TransactionInBlock<SubstrateConfig, Online>;

/// What can be asked of the pallet.
#[derive(Debug, Clone)]
pub enum Call {
    /// Registers a node; the signer becomes its owner.
    RegisterNode {
        /// Who submits its proofs.
        operator: [u8; 32],
        /// Its identity.
        peer: NodeId,
        /// The identity's signature over the two accounts.
        signature: [u8; 64],
        /// Failure domain.
        region: String,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// Bytes it offers.
        capacity: u64,
    },
    /// Sets money aside for a deal.
    Reserve {
        /// Bytes of shards.
        bytes: u64,
        /// Blocks the deal is to last.
        duration: u32,
        /// The price per GiB and block that is accepted at most.
        max_price: u128,
    },
    /// Makes a reservation a deal.
    Activate {
        /// Which.
        deal: DealId,
        /// The object.
        object: Cid,
        /// BLAKE3 over its list of shards.
        shards_root: [u8; 32],
        /// Data shards of a stripe.
        data: u16,
        /// All shards of a stripe.
        width: u16,
        /// Who holds what.
        groups: Vec<Group>,
        /// By their own word.
        receipts: Vec<ReceiptOf>,
    },
    /// Prolongs a deal.
    Renew {
        /// Which.
        deal: DealId,
        /// By how many blocks.
        duration: u32,
        /// The price per GiB and block that is accepted at most.
        max_price: u128,
    },
    /// Ends a deal, or gives a reservation back.
    Cancel {
        /// Which.
        deal: DealId,
    },
    /// Answers challenges.
    SubmitProofs {
        /// The node that was challenged.
        node: u32,
        /// A proof for each.
        proofs: Vec<(AuditId, Vec<u8>)>,
    },
    /// Pays a node's rewards to its owner.
    ClaimRewards {
        /// Which node.
        node: u32,
    },
}

/// One group of an object, as the chain keeps it.
#[derive(Debug, Clone)]
pub struct Group {
    /// Stripes in it.
    pub stripe_count: u16,
    /// Slot index to registry index; `u32::MAX` is nobody.
    pub nodes: Vec<u32>,
}

/// A holder's receipt.
#[derive(Debug, Clone)]
pub struct ReceiptOf {
    /// The holder's registry index.
    pub node: u32,
    /// Bytes of its slots.
    pub bytes: u64,
    /// Its signature.
    pub signature: [u8; 64],
}

/// How sure a caller wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It is in a block that may still be retracted.
    InBlock,
    /// It can not be undone.
    Finalised,
}

/// A call that did what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// The block it is in.
    pub block: BlockRef,
    /// The reservation it made, if it made one.
    pub reserved: Option<DealId>,
    /// The registry index it made, if it made one.
    pub registered: Option<u32>,
    /// Money it paid out, if it did.
    pub claimed: Option<u128>,
    /// Audits whose proofs were accepted.
    pub passed: Vec<AuditId>,
    /// Audits whose proofs were rejected, and why.
    pub rejected: Vec<(AuditId, String)>,
}

struct Order {
    call: Call,
    until: Until,
    answer: oneshot::Sender<Result<Included, TxError>>,
}

/// A handle to the one owner of a key. The task ends with the last handle.
#[derive(Clone)]
pub struct Account {
    id: [u8; 32],
    orders: mpsc::Sender<Order>,
}

impl Account {
    /// Takes charge of a key.
    pub fn start(chain: Chain, key: SecretKey) -> Self {
        let (orders, received) = mpsc::channel(MAILBOX_CALLS_MAX);
        let id = key.account();
        tokio::spawn(Owner { chain, key }.run(received));
        Self { id, orders }
    }

    /// The account's public key.
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// Signs a call, submits it, and waits until it is in a block or has failed.
    ///
    /// # Errors
    /// [`TxError`]; after [`TxError::Unknown`] only the chain knows.
    pub async fn submit(&self, call: Call, until: Until) -> Result<Included, TxError> {
        let (answer, outcome) = oneshot::channel();
        let order = Order { call, until, answer };
        self.orders.send(order).await.map_err(|_| TxError::Stopped)?;
        outcome.await.unwrap_or(Err(TxError::Stopped))
    }
}

struct Owner {
    chain: Chain,
    key: SecretKey,
}

impl Owner {
    async fn run(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { call, until, mut answer }) = orders.recv().await {
            // Who left before it was signed does not want it any more.
            if answer.is_closed() {
                continue;
            }
            let work = self.perform(&call, until);
            tokio::select! {
                outcome = work => drop(answer.send(outcome)),
                () = answer.closed() => {}
            }
        }
    }

    async fn perform(&self, call: &Call, until: Until) -> Result<Included, TxError> {
        let session = self.chain.session()?;
        let nonce = self.nonce(&session).await?;
        let begin = self.era_begin().await?;
        let signed = self.sign(begin.tx(), call, nonce).await?;
        let submitted = timeout(session.request_timeout, signed.submit_and_watch()).await;
        let mut progress =
            submitted.map_err(|_| unknown("the node did not answer"))?.map_err(not_taken)?;
        let patience = self.chain.config().inclusion_timeout();
        let wanted = async {
            loop {
                match progress.next().await {
                    Some(Ok(TransactionStatus::InBestBlock(block))) if until == Until::InBlock => {
                        return Ok(block);
                    }
                    Some(Ok(TransactionStatus::InFinalizedBlock(block))) => return Ok(block),
                    Some(Ok(TransactionStatus::Invalid { message })) => {
                        return Err(TxError::NotAccepted { reason: message });
                    }
                    Some(Ok(
                        TransactionStatus::Dropped { message }
                        | TransactionStatus::Error { message },
                    )) => return Err(unknown(message)),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(unknown(error)),
                    None => return Err(unknown("the node stopped telling")),
                }
            }
        };
        let secs = patience.as_secs();
        let block = timeout(patience, wanted)
            .await
            .map_err(|_| unknown(format!("it was in no block for {secs} s")))??;
        let read = timeout(session.request_timeout, included(&block)).await;
        read.map_err(|_| unknown("its block could not be read"))?
    }

    /// The block from which a transaction's life is counted. A finalised one cannot be retracted,
    /// the transaction with it; but where finality stands still, its era would be over.
    async fn era_begin(&self) -> Result<At, ChainError> {
        let (best, finalised) = {
            let view = self.chain.view();
            let view = view.borrow();
            view.best.zip(view.finalised).ok_or_else(|| self.chain.refusal())?
        };
        let oldest = best.height.saturating_sub(self.chain.config().mortal_blocks / 2);
        let begin = match finalised {
            recent if recent.height >= oldest => recent,
            _ => self.chain.block_at(oldest).await?,
        };
        self.chain.at(begin).await
    }

    /// The account's nonce at the node's best block, whatever waits in its pool.
    async fn nonce(&self, session: &Session) -> Result<u64, ChainError> {
        let account = self.key.account();
        let asked = session.rpc.state_call("AccountNonceApi_account_nonce", Some(&account), None);
        let answer = session.ask(asked).await?;
        match *answer.as_slice() {
            [a, b, c, d] => Ok(u32::from_le_bytes([a, b, c, d]).into()),
            [a, b, c, d, e, f, g, h] => Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => Err(session.malformed("a nonce", format!("{} bytes", answer.len()))),
        }
    }

    async fn sign(
        &self,
        mut tx: TransactionsClient<SubstrateConfig, Online>,
        call: &Call,
        nonce: u64,
    ) -> Result<SubmittableTransaction<SubstrateConfig, Online>, TxError> {
        let params = SubstrateExtrinsicParamsBuilder::<SubstrateConfig>::new()
            .mortal(self.chain.config().mortal_blocks)
            .nonce(nonce)
            .build();
        let (pair, calls) = (self.key.pair(), api::tx().supernode());
        let signed = match call.clone() {
            Call::RegisterNode { operator, peer, signature, region, addresses, capacity } => {
                let addresses = addresses.into_iter().map(|it| bounded(it.into_bytes())).collect();
                let call = calls.register_node(
                    AccountId32(operator),
                    *peer.as_bytes(),
                    signature,
                    bounded(region.into_bytes()),
                    bounded(addresses),
                    capacity,
                );
                tx.create_signed(&call, pair, params).await
            }
            Call::Reserve { bytes, duration, max_price } => {
                let call = calls.reserve(bytes, duration, max_price);
                tx.create_signed(&call, pair, params).await
            }
            Call::Activate { deal, object, shards_root, data, width, groups, receipts } => {
                let groups = bounded(groups.into_iter().map(group_input).collect());
                let receipts = bounded(receipts.into_iter().map(receipt_input).collect());
                let object = *object.as_bytes();
                let call =
                    calls.activate(deal.0, object, shards_root, data, width, groups, receipts);
                tx.create_signed(&call, pair, params).await
            }
            Call::Renew { deal, duration, max_price } => {
                let call = calls.renew(deal.0, duration, max_price);
                tx.create_signed(&call, pair, params).await
            }
            Call::Cancel { deal } => tx.create_signed(&calls.cancel(deal.0), pair, params).await,
            Call::SubmitProofs { node, proofs } => {
                let proofs = proofs.into_iter().map(|(audit, proof)| (audit.0, bounded(proof)));
                let call = calls.submit_proofs(node, bounded(proofs.collect()));
                tx.create_signed(&call, pair, params).await
            }
            Call::ClaimRewards { node } => {
                tx.create_signed(&calls.claim_rewards(node), pair, params).await
            }
        };
        signed.map_err(|error| TxError::NotAccepted { reason: error.to_string() })
    }
}

/// What a block says about the transaction it holds.
async fn included(block: &InBlock) -> Result<Included, TxError> {
    let events = block.wait_for_success().await.map_err(|error| match error {
        TransactionEventsError::ExtrinsicFailed(error) => refused(&error),
        other => unknown(other),
    })?;
    let at = block.at().await.map_err(unknown)?;
    let block = BlockRef { height: at.block_number(), hash: at.block_hash().0 };
    told(&events, block)
}

fn told(events: &ExtrinsicEvents<SubstrateConfig>, block: BlockRef) -> Result<Included, TxError> {
    use api::supernode::events::{
        AuditPassed, NodeRegistered, ProofRejected, Reserved, RewardsClaimed,
    };
    let mut included = Included {
        block,
        reserved: first(events, |it: Reserved| DealId(it.deal))?,
        registered: first(events, |it: NodeRegistered| it.node)?,
        claimed: first(events, |it: RewardsClaimed| it.amount)?,
        passed: Vec::new(),
        rejected: Vec::new(),
    };
    for event in events.find::<AuditPassed>() {
        included.passed.push(AuditId(event.map_err(unknown)?.audit));
    }
    for event in events.find::<ProofRejected>() {
        let event = event.map_err(unknown)?;
        included.rejected.push((AuditId(event.audit), format!("{:?}", event.reason)));
    }
    Ok(included)
}

/// What the first event of a kind says, if there is one.
fn first<E: DecodeAsEvent, T>(
    events: &ExtrinsicEvents<SubstrateConfig>,
    take: impl Fn(E) -> T,
) -> Result<Option<T>, TxError> {
    events.find_first::<E>().transpose().map(|event| event.map(take)).map_err(unknown)
}

/// The pallet's error with its documentation, which tells the remedy.
fn refused(error: &DispatchError) -> TxError {
    let reason = match error {
        DispatchError::Module(module) => module.details().ok().map(|details| {
            let docs = details.variant.docs.join(" ");
            format!("{} ({})", docs.trim(), details.variant.name)
        }),
        _ => None,
    };
    TxError::Refused { reason: reason.unwrap_or_else(|| error.to_string()) }
}

fn unknown(reason: impl ToString) -> TxError {
    TxError::Unknown { reason: reason.to_string() }
}

/// Only a node's answer says that it took no transaction; what left on a connection that then
/// broke may have arrived.
fn not_taken(error: ExtrinsicError) -> TxError {
    match error {
        ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(
            answer @ subxt::rpcs::Error::User(_),
        ))) => TxError::NotAccepted { reason: answer.to_string() },
        other => unknown(other),
    }
}

fn bounded<T>(items: Vec<T>) -> BoundedVec<T> {
    BoundedVec(items)
}

fn group_input(group: Group) -> GroupAssignment {
    let Group { stripe_count, nodes } = group;
    GroupAssignment { stripe_count, nodes: bounded(nodes) }
}

fn receipt_input(receipt: ReceiptOf) -> Receipt {
    let ReceiptOf { node, bytes, signature } = receipt;
    Receipt { node, bytes, signature }
}
