// SPDX-License-Identifier: MIT OR Apache-2.0
//! `put --deal`: reserve, upload, activate, as one step.
//!
//! The failure story is one: money is set aside first, and whatever happens after that is told
//! together with the deal's number, the block until which it can be taken up again (`--resume`),
//! and how to have the money back at once (`deal cancel`). Where nobody knows whether a
//! transaction landed, the advice is to look first. Holders drop an upload whose deal does
//! not begin by then, and the chain gives the money back by itself.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use supernode_chain::{
    Account, BlockRef, Call, Chain, Deal, DealState, Group, ReceiptOf, Reservation, SecretKey,
    TxError, Until,
};
use supernode_object::{Assignment, Class, PutOptions, PutReport};
use supernode_protocol::deal::{DealId, lease_of};
use supernode_protocol::geometry;
use supernode_protocol::ids::{Cid, LeaseId, NodeId};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_protocol::limits::STRIPE_BYTES_MAX;

use super::super::network::Network;
use super::super::onchain::{blocks, open, price_cap};
use crate::cli::PutArgs;
use crate::config::ClientConfig;
use crate::exit::Failure;
use crate::output::Output;

/// Stands for nobody in the chain's vectors.
const NOBODY: u32 = u32::MAX;

/// What the command line wants of the chain.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// A new deal.
    New {
        /// Blocks it lasts.
        duration: u32,
        /// What it may cost at most.
        cost_max: Option<u128>,
    },
    /// A reservation that is there already.
    Resume {
        /// Which.
        deal: DealId,
    },
}

impl Wanted {
    /// What the arguments say; `None` for a put without the chain.
    pub fn of(args: &PutArgs, config: &ClientConfig) -> Result<Option<Self>, Failure> {
        Ok(match (&args.deal, args.resume) {
            (Some(duration), _) => Some(Self::New {
                duration: blocks(duration, &config.chain)?,
                cost_max: args.max_price,
            }),
            (None, Some(deal)) => Some(Self::Resume { deal }),
            (None, None) => None,
        })
    }
}

/// The deal that a put made, for its report.
#[derive(Debug, Clone, Serialize)]
pub struct MadeDeal {
    /// Its number.
    pub deal: DealId,
    /// The block it ends in.
    pub expires_at: u64,
    /// Bytes of shards it pays for.
    pub bytes: u64,
    /// What is left of the money set aside for it, in the chain's smallest unit.
    pub escrow: String,
    /// Holders that signed.
    pub holders: usize,
    /// Holders that did not; the deal does not pay for what they hold.
    pub without_receipt: Vec<NodeId>,
}

/// A reservation under way to becoming a deal.
pub struct Pending {
    chain: Chain,
    account: Account,
    reservation: Reservation,
    /// An activation was sent, and nobody knows whether it landed.
    may_run: Cell<bool>,
}

/// What a put with a deal begins with.
pub enum Begun {
    /// Upload, then activate.
    Pending(Box<Pending>),
    /// The deal runs already.
    Active(Deal),
}

impl Pending {
    /// Reserves, or finds the reservation again.
    ///
    /// # Errors
    /// When the chain refuses, or the reservation does not fit.
    pub async fn begin(
        config: &ClientConfig,
        wanted: &Wanted,
        size: Option<u64>,
        class: Class,
        output: Output,
    ) -> Result<Begun, Failure> {
        let size = size.ok_or_else(|| {
            Failure::usage("a deal is made for a known number of bytes; put a file, not a pipe")
        })?;
        let bytes = shard_bytes(size, class).ok_or_else(|| {
            Failure::usage("an empty object has nothing that a deal could pay for")
        })?;
        let chain = open(&config.chain).await?;
        let account = Account::start(chain.clone(), SecretKey::read(&config.chain.key_file)?);
        let (deal, block) = match wanted {
            Wanted::New { duration, cost_max } => {
                reserve(&account, bytes, *duration, *cost_max).await?
            }
            Wanted::Resume { deal } => (*deal, chain.at_best().await?.block()),
        };
        let state = async { chain.at(block).await?.deal(deal).await };
        let state = state.await.map_err(|error| {
            Failure::from(error).context(format_args!(
                "deal {deal} is reserved and cannot be looked at; go on with --resume {deal}"
            ))
        })?;
        let reservation = match fit(state, deal, account.id(), bytes)? {
            Fit::Reserved(reservation) => reservation,
            Fit::Active(active) => return Ok(Begun::Active(active)),
        };
        if !output.is_json() {
            output.talk(format_args!(
                "deal {deal} is reserved until block {}: {} set aside; if this put is interrupted, \
                 go on with --resume {deal}",
                reservation.activates_by, reservation.escrow
            ));
        }
        Ok(Begun::Pending(Box::new(Self {
            chain,
            account,
            reservation,
            may_run: Cell::new(false),
        })))
    }

    /// Puts the upload under the reservation's lease.
    pub fn cover(&self, options: PutOptions) -> PutOptions {
        PutOptions {
            kind: LeaseKind::Deal,
            expiry: Expiry::FinalisedHeight(self.reservation.activates_by),
            lease: Some(self.lease()),
            ..options
        }
    }

    fn lease(&self) -> LeaseId {
        lease_of(&self.chain.genesis(), self.reservation.deal)
    }

    /// Collects receipts and activates the deal.
    ///
    /// # Errors
    /// When holders or the chain refuse.
    pub async fn activate(
        &self,
        network: &Network,
        report: &PutReport,
        class: Class,
    ) -> Result<MadeDeal, Failure> {
        let deal = self.reservation.deal;
        let assignment = network.objects.assignment(report, self.chain.genesis(), deal).await;
        let call = self.call(report.cid, &assignment, class).await?;
        let activated = self.account.submit(call, Until::Finalised).await;
        let block = activated.map_err(|error| self.not_known_to_run(error))?.block;
        let state = async { self.chain.at(block).await?.deal(deal).await };
        match state.await.map_err(|error| self.not_known_to_run(TxError::from(error)))? {
            DealState::Active(active) => Ok(MadeDeal {
                deal,
                expires_at: active.expires_at,
                bytes: active.bytes,
                escrow: active.escrow.to_string(),
                holders: assignment.receipts.len(),
                without_receipt: assignment.without_receipt.iter().map(|it| it.0).collect(),
            }),
            _ => Err(self.not_known_to_run(TxError::Unknown {
                reason: "it was activated and its block does not show it".to_owned(),
            })),
        }
    }

    /// A failure after which the deal may run all the same.
    fn not_known_to_run(&self, error: TxError) -> Failure {
        let may_run = !matches!(error, TxError::Refused { .. } | TxError::NotAccepted { .. });
        self.may_run.set(may_run);
        error.into()
    }

    async fn call(
        &self,
        object: Cid,
        assignment: &Assignment,
        class: Class,
    ) -> Result<Call, Failure> {
        let at = self.chain.at_best().await?;
        let signers: BTreeSet<NodeId> = assignment.receipts.iter().map(|it| it.node).collect();
        let mut indexes = BTreeMap::new();
        for node in signers {
            let registered = at.node_of(node).await?.ok_or_else(|| {
                Failure::failed(format_args!(
                    "holder {node} is not in the chain's registry and cannot be paid; its operator \
                     has to run `supernode node register`"
                ))
            })?;
            indexes.insert(node, registered.index);
        }
        let index = |node: &Option<NodeId>| {
            node.and_then(|node| indexes.get(&node).copied()).unwrap_or(NOBODY)
        };
        let groups = assignment.groups.iter().map(|group| Group {
            stripe_count: u16::try_from(group.stripe_count).unwrap_or(u16::MAX),
            nodes: group.nodes.iter().map(index).collect(),
        });
        let receipts = assignment.receipts.iter().map(|receipt| ReceiptOf {
            node: indexes[&receipt.node],
            bytes: receipt.bytes,
            signature: receipt.signature,
        });
        let count = |count: usize| u16::try_from(count).expect("a stripe has at most 256 shards");
        Ok(Call::Activate {
            deal: self.reservation.deal,
            object,
            shards_root: assignment.shards_root,
            data: count(class.data_count()),
            width: count(class.data_count() + class.parity_count()),
            groups: groups.collect(),
            receipts: receipts.collect(),
        })
    }

    /// Ends the connections to the chain.
    pub fn close(&self) {
        self.chain.close();
    }

    /// What to do after a failure, in one sentence.
    pub fn story(&self, path: &Path) -> String {
        let Reservation { deal, activates_by, .. } = self.reservation;
        if self.may_run.get() {
            return format!(
                "deal {deal} may run: look with `supernode deal show {deal}`; if it is only \
                 reserved, go on with `supernode put {} --resume {deal}`",
                path.display()
            );
        }
        format!(
            "deal {deal} stays reserved until block {activates_by}: go on with `supernode put {} \
             --resume {deal}`, or have the money back with `supernode deal cancel {deal}`",
            path.display()
        )
    }
}

/// Makes a reservation; its number, and the finalised block it is in.
async fn reserve(
    account: &Account,
    bytes: u64,
    duration: u32,
    cost_max: Option<u128>,
) -> Result<(DealId, BlockRef), Failure> {
    let max_price = price_cap(cost_max, bytes, duration);
    let call = Call::Reserve { bytes, duration, max_price };
    let reserved = account.submit(call, Until::Finalised).await;
    let included = reserved.map_err(not_known_to_be_reserved)?;
    let deal = included.reserved.ok_or_else(|| {
        Failure::failed("the chain took the reservation and does not say its number")
    })?;
    Ok((deal, included.block))
}

/// What a put may go on with.
enum Fit {
    Reserved(Reservation),
    Active(Deal),
}

/// Judges a deal id for a put of this account that needs so many bytes of shards.
fn fit(state: DealState, deal: DealId, owner: [u8; 32], bytes: u64) -> Result<Fit, Failure> {
    if state.owner().is_some_and(|actual| actual != owner) {
        return Err(Failure::refused(format_args!("deal {deal} belongs to another account")));
    }
    match state {
        DealState::Reserved(it) if it.bytes < bytes => Err(Failure::usage(format_args!(
            "reservation {deal} is for {} bytes of shards and this file has {bytes}; `deal cancel \
             {deal}` gives its money back",
            it.bytes
        ))),
        DealState::Reserved(reservation) => Ok(Fit::Reserved(reservation)),
        DealState::Active(active) => Ok(Fit::Active(active)),
        DealState::Ended(_) | DealState::Unknown => Err(Failure::not_found(format_args!(
            "there is no reservation {deal} (any more); put with --deal to make one"
        ))),
    }
}

/// A reservation that may have been made.
fn not_known_to_be_reserved(error: TxError) -> Failure {
    let is_unknown = matches!(error, TxError::Unknown { .. });
    let failure = Failure::from(error);
    if is_unknown {
        failure.context("money may be set aside (`supernode deal list` tells; --resume goes on)")
    } else {
        failure
    }
}

/// Bytes of all shards of an object; `None` if it has none.
fn shard_bytes(size: u64, class: Class) -> Option<u64> {
    let width = (class.data_count() + class.parity_count()) as u64;
    let of = |len: u64| geometry::shard_len(len, class.data_count()) * width;
    let (full, rest) = (size / STRIPE_BYTES_MAX, size % STRIPE_BYTES_MAX);
    let last = if rest == 0 { 0 } else { of(rest) };
    (size > 0).then(|| full * of(STRIPE_BYTES_MAX) + last)
}

#[cfg(test)]
mod tests {
    use supernode_object::Class;

    use super::shard_bytes;

    #[test]
    fn a_reservation_covers_every_shard_of_every_stripe() {
        let class = Class::default();
        assert_eq!(shard_bytes(0, class), None);
        assert_eq!(shard_bytes(1, class), Some(14 * 64));
        let full = 14 * 6_713_344;
        assert_eq!(shard_bytes(64 << 20, class), Some(full));
        assert_eq!(shard_bytes((64 << 20) + 1, class), Some(full + 14 * 64));
        assert_eq!(shard_bytes(3 << 26, class), Some(3 * full));
    }
}
