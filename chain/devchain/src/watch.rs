// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who wants to hear what becomes of a transaction.
//!
//! The statuses and their spelling are those of Substrate's transaction pool. A watcher that does
//! not read is dropped, it never makes the author wait.

use std::collections::HashMap;

use serde::Serialize;
use sp_core::H256;
use tokio::sync::mpsc;

use crate::runtime::BlockNumber;
use crate::tree::Head;

/// Statuses a watcher may be behind; a transaction goes through a handful, reorganisations add
/// some.
pub(crate) const STATUSES_MAX: usize = 64;

/// A transaction in a block that does not become final within so many blocks is no longer watched.
const FINALITY_TIMEOUT_BLOCKS: BlockNumber = 512;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    /// Its nonce is ahead.
    Future,
    /// The next block may have it.
    Ready,
    /// It is in this block of the best chain.
    InBlock(H256),
    /// The block it was in does not count any more.
    Retracted(H256),
    /// Finality did not come in time.
    FinalityTimeout(H256),
    /// It is in this block for good.
    Finalized(H256),
    /// Another transaction took its place.
    Usurped(H256),
    /// The pool let go of it.
    Dropped,
    /// It cannot apply any more.
    Invalid,
}

impl Status {
    fn is_last(self) -> bool {
        matches!(
            self,
            Self::FinalityTimeout(_)
                | Self::Finalized(_)
                | Self::Usurped(_)
                | Self::Dropped
                | Self::Invalid
        )
    }
}

struct Watch {
    sender: mpsc::Sender<Status>,
    included: Option<Head>,
}

/// All watchers, by transaction.
#[derive(Default)]
pub(crate) struct Watches {
    by_transaction: HashMap<H256, Watch>,
}

impl Watches {
    /// Begins to report on a transaction. The pool knows a transaction once, so does this.
    pub(crate) fn begin(&mut self, transaction: H256, sender: mpsc::Sender<Status>) {
        self.by_transaction.insert(transaction, Watch { sender, included: None });
    }

    /// Reports a status.
    pub(crate) fn tell(&mut self, transaction: &H256, status: Status) {
        let Some(watch) = self.by_transaction.get_mut(transaction) else { return };
        if let Status::Retracted(_) = status {
            watch.included = None;
        }
        let gone = watch.sender.try_send(status).is_err();
        if gone || status.is_last() {
            self.by_transaction.remove(transaction);
        }
    }

    /// Reports that a block of the best chain has a transaction.
    pub(crate) fn included(&mut self, transaction: &H256, block: Head) {
        if let Some(watch) = self.by_transaction.get_mut(transaction) {
            watch.included = Some(block);
        }
        self.tell(transaction, Status::InBlock(block.hash));
    }

    /// Reports on everything that became final, and gives up on what waits for it too long.
    pub(crate) fn finalised(&mut self, blocks: &[Head], best: BlockNumber) {
        let verdict = |included: &Head| {
            if blocks.contains(included) {
                Some(Status::Finalized(included.hash))
            } else if included.number.saturating_add(FINALITY_TIMEOUT_BLOCKS) <= best {
                Some(Status::FinalityTimeout(included.hash))
            } else {
                None
            }
        };
        let told: Vec<_> = self
            .by_transaction
            .iter()
            .filter_map(|(hash, watch)| Some((*hash, verdict(watch.included.as_ref()?)?)))
            .collect();
        for (hash, status) in told {
            self.tell(&hash, status);
        }
    }
}
