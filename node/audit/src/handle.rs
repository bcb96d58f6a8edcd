// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: cheap to clone, all the rest of the program sees of the actor.

use std::fmt;
use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Mailbox};
use crate::chain::{BlockHash, Chain};
use crate::config::AuditConfig;
use crate::cursor::CursorFile;
use crate::duties::Duties;
use crate::error::AuditError;
use crate::jobs::Tools;
use crate::keeper::Keeper;
use crate::metrics::AuditMetrics;
use crate::verdict::Planned;

/// Leases that one plan lists at most.
const PLAN_LEASES_MAX: usize = 10_000;

pub(crate) type PlanReply = oneshot::Sender<Result<Vec<Planned>, AuditError>>;

/// What the actor can be asked for.
pub(crate) enum Message {
    Plan(usize, PlanReply),
}

/// What an actor is made of.
#[derive(Debug)]
pub struct AuditOptions<C, K> {
    /// The chain.
    pub chain: C,
    /// The store.
    pub keeper: K,
    /// The hash of block 0 of the configured chain.
    pub genesis: BlockHash,
    /// Where the last processed finalised block is kept; its directory exists.
    pub cursor_path: PathBuf,
    /// The settings.
    pub config: AuditConfig,
}

/// The audit/cleanup actor of this process. It ends with [`Auditor::stop`], or when the last
/// handle is dropped.
#[derive(Clone)]
pub struct Auditor {
    mailbox: mpsc::Sender<Message>,
    metrics: watch::Receiver<AuditMetrics>,
    cancel: CancellationToken,
    started: Instant,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditor").finish_non_exhaustive()
    }
}

impl Auditor {
    /// Reads the cursor and starts the actor. The chain need not answer yet.
    ///
    /// # Errors
    /// A setting that cannot be used, a cursor file that cannot be read or is damaged.
    pub async fn start<C: Chain, K: Keeper>(
        options: AuditOptions<C, K>,
    ) -> Result<Self, AuditError> {
        let AuditOptions { chain, keeper, genesis, cursor_path, config } = options;
        config.validate()?;
        let bookmark = CursorFile::new(cursor_path);
        let file = bookmark.clone();
        let loaded = tokio::task::spawn_blocking(move || file.load()).await;
        let cursor = loaded.map_err(|_| AuditError::Stopped)??;
        let (mailbox, inbox) = mpsc::channel(config.mailbox_messages_max);
        let (publish, metrics) = watch::channel(AuditMetrics::default());
        let cancel = CancellationToken::new();
        let started = Instant::now();
        let duties = Duties::new(&config, genesis, cursor, started.elapsed());
        let view = chain.watch();
        let tools = Tools { chain, keeper, bookmark, genesis, config };
        let mailbox_ends = Mailbox { inbox, metrics: publish };
        let actor = Actor::new(tools, duties, view, mailbox_ends, (started, cancel.clone()));
        tokio::spawn(actor.run());
        Ok(Self { mailbox, metrics, cancel, started })
    }

    /// What cleanup would end now and why, and what it keeps although its end has passed: the
    /// first `limit` leases that are due (at most 10,000), judged as they would be, nothing
    /// changed.
    ///
    /// # Errors
    /// [`AuditError::Busy`] while another plan is made, [`AuditError::Stopped`], and what the
    /// chain or the store says.
    pub async fn plan(&self, limit: usize) -> Result<Vec<Planned>, AuditError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Plan(limit.min(PLAN_LEASES_MAX), reply);
        self.mailbox.send(message).await.map_err(|_| AuditError::Stopped)?;
        answer.await.map_err(|_| AuditError::Stopped)?
    }

    /// Figures for monitoring.
    pub fn metrics(&self) -> AuditMetrics {
        let mut metrics = self.metrics.borrow().clone();
        metrics.finalised_lag = self.started.elapsed().saturating_sub(metrics.finalised_rose_at);
        metrics.mailbox_depth = self.mailbox.max_capacity() - self.mailbox.capacity();
        metrics
    }

    /// The figures and their changes; `finalised_lag` and `mailbox_depth` are as of the last one.
    pub fn watch_metrics(&self) -> watch::Receiver<AuditMetrics> {
        self.metrics.clone()
    }

    /// Ends the actor. A step that is under way is dropped where it stands, which loses nothing.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.mailbox.closed().await;
    }

    /// Resolves when the actor has ended, for whatever reason: for its supervisor.
    pub async fn stopped(&self) {
        self.mailbox.closed().await;
    }
}
