// SPDX-License-Identifier: MIT OR Apache-2.0
//! The asking and the effects: one bounded step, from a decision to what came of it.
//!
//! A job holds no state of its own. It may be dropped at any await: what it had done by then is
//! found again, on the chain or in the store, by the next one.

use std::io;

use supernode_protocol::deal::{AuditId, DealId};

use crate::audits::Answered;
use crate::chain::{AuditFate, BlockHash, BlockRef, Chain, ChainError, Challenge};
use crate::cleanup::{Task, TaskDone};
use crate::config::AuditConfig;
use crate::cursor::{Bookmark, Cursor};
use crate::error::AuditError;
use crate::keeper::{Keeper, KeeperError};
use crate::verdict::{Keep, Planned};

mod answer;
mod clean;

/// Everything a job works with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tools<C, K, B> {
    pub(crate) chain: C,
    pub(crate) keeper: K,
    pub(crate) bookmark: B,
    pub(crate) genesis: BlockHash,
    pub(crate) config: AuditConfig,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Read the open audits of a best block.
    Survey(BlockRef),
    /// Prove and submit.
    Answer(Vec<Challenge>),
    /// Read what a finalised block says of audits.
    Fates(Vec<AuditId>, BlockRef),
    /// A step of cleanup.
    Clean(Task),
    /// What would go and why, at most so many leases.
    Plan(Ground, usize),
}

/// What a plan stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Leases are judged at this processed block.
    Firm(BlockRef),
    /// Nothing is judged, for this reason; what is due at this height is listed.
    Infirm(BlockRef, Keep),
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Done {
    Surveyed(BlockRef, Result<Vec<Challenge>, ChainError>),
    Answered(Answered),
    Fates(BlockRef, Result<Vec<(AuditId, AuditFate)>, ChainError>),
    Cleaned(Result<TaskDone, String>),
    Planned(Result<Vec<Planned>, AuditError>),
}

/// Why a step of cleanup failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(
        "{endpoint} does not confirm the end of deal {deal} yet; see to that endpoint, or take it \
         out of the configuration"
    )]
    Unconfirmed { endpoint: String, deal: DealId },
    #[error("the cursor could not be saved: {0}; make room in the data directory")]
    Cursor(#[from] io::Error),
}

impl<C: Chain, K: Keeper, B: Bookmark> Tools<C, K, B> {
    /// Does one job.
    pub(crate) async fn perform(self, job: Job) -> Done {
        match job {
            Job::Survey(at) => {
                let open = self.chain.open_audits(at, self.config.open_audits_max).await;
                Done::Surveyed(at, open)
            }
            Job::Answer(batch) => Done::Answered(self.answer(batch).await),
            Job::Fates(audits, at) => {
                let fates = self.chain.audit_fates(audits.clone(), at).await;
                Done::Fates(at, fates.map(|fates| audits.into_iter().zip(fates).collect()))
            }
            Job::Clean(task) => {
                Done::Cleaned(self.clean(task).await.map_err(|error| error.to_string()))
            }
            Job::Plan(ground, limit) => Done::Planned(self.plan(ground, limit).await),
        }
    }

    async fn save(&self, block: BlockRef) -> Result<(), io::Error> {
        self.bookmark.save(Cursor { genesis: self.genesis, block }).await
    }
}
