// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain as a node and its people see it, over Substrate's JSON-RPC.
//!
//! - [`Chain`] follows the heads of every configured endpoint and answers questions about one block
//!   at a time ([`At`]). The first endpoint is the one that is worked with; the others are asked
//!   whether they agree before anything is destroyed.
//! - An endpoint counts only while it serves the configured genesis and a runtime whose pallet is,
//!   type by type, the one this program was built for ([`runtime`]). Otherwise the standing says
//!   so, nothing is read and nothing is signed; everything that needs no chain goes on.
//! - [`Account`] owns one key and its nonces: transactions of a key are signed one after the
//!   other, mortal, and what became of them is read from the block they are in.
//!
//! The legacy JSON-RPC backend is chosen on purpose: every Substrate node and our development chain
//! speak it, and it needs no state on the server that a reconnect would lose. Streams of heads are
//! only ever a reason to look: what is acted on is read by block hash, so a stream that broke, or
//! one that lies, costs time and nothing else.

mod account;
mod config;
mod endpoint;
mod error;
mod facts;
mod keys;
pub mod runtime;
mod types;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

pub use self::account::{Account, Call, Group, Included, ReceiptOf, Until};
pub use self::config::{ChainConfig, ConfigError};
pub use self::error::{ChainError, TxError};
pub use self::facts::At;
pub use self::keys::{KeyError, SecretKey, address};
pub use self::types::{
    Audit, AuditResult, Deal, DealEvent, DealState, Ended, Holding, Node, Reservation,
};
pub use self::view::{BlockRef, Standing, View};

use self::endpoint::{Endpoint, Session};

/// The configured chain. Cheap to clone; its connections end with the last clone.
#[derive(Clone)]
pub struct Chain {
    shared: Arc<Shared>,
}

struct Shared {
    config: ChainConfig,
    genesis: [u8; 32],
    endpoints: Vec<Endpoint>,
}

impl Chain {
    /// Begins to follow every endpoint. Returns at once; [`Chain::view`] tells how it goes.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn start(config: ChainConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let genesis = config.genesis_hash()?;
        let endpoints = config.endpoints.iter().map(|url| Endpoint::start(url, genesis, &config));
        let endpoints = endpoints.collect();
        Ok(Self { shared: Arc::new(Shared { config, genesis, endpoints }) })
    }

    /// The hash of block 0, as configured.
    pub fn genesis(&self) -> [u8; 32] {
        self.shared.genesis
    }

    /// Heads and standing of the first endpoint, whenever they change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.primary().view()
    }

    /// Heads and standing of all endpoints, in configured order.
    pub fn views(&self) -> Vec<(String, View)> {
        let view =
            |endpoint: &Endpoint| (endpoint.url().to_owned(), endpoint.view().borrow().clone());
        self.shared.endpoints.iter().map(view).collect()
    }

    /// Waits until the first endpoint is usable.
    ///
    /// # Errors
    /// At once for a foreign chain; [`ChainError::Unreachable`] when the time is over.
    pub async fn ready(&self, patience: Duration) -> Result<View, ChainError> {
        let mut view = self.view();
        let usable = async {
            loop {
                let now = view.borrow_and_update().clone();
                match now.standing {
                    Standing::Connected => return Ok(now),
                    Standing::ForeignGenesis { .. } | Standing::ForeignRuntime { .. } => {
                        return Err(now.refusal(self.primary().url()));
                    }
                    Standing::Unreachable { .. } => {}
                }
                if view.changed().await.is_err() {
                    return Err(now.refusal(self.primary().url()));
                }
            }
        };
        match timeout(patience, usable).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.view().borrow().refusal(self.primary().url())),
        }
    }

    /// Waits until every endpoint has shown its heads or been found wanting, or the time is over.
    pub async fn settled(&self, patience: Duration) {
        let all = async {
            for endpoint in &self.shared.endpoints {
                let mut view = endpoint.view();
                let settled = |view: &View| !matches!(view.standing, Standing::Unreachable { .. });
                // An endpoint whose task has ended stays as it is.
                let _ = view.wait_for(settled).await;
            }
        };
        // Those that are not reachable by then are shown as that.
        let _ = timeout(patience, all).await;
    }

    /// Questions about one block, asked of the first endpoint.
    ///
    /// # Errors
    /// When it cannot be used now or does not know the block.
    pub async fn at(&self, block: BlockRef) -> Result<At, ChainError> {
        self.primary().at(block).await
    }

    /// Questions about the newest finalised block of the first endpoint.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub async fn at_finalised(&self) -> Result<At, ChainError> {
        let head = self.view().borrow().finalised;
        self.at(head.ok_or_else(|| self.refusal())?).await
    }

    /// Questions about the best block of the first endpoint.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub async fn at_best(&self) -> Result<At, ChainError> {
        let head = self.view().borrow().best;
        self.at(head.ok_or_else(|| self.refusal())?).await
    }

    /// Questions about each other endpoint's own newest finalised block.
    pub async fn others(&self) -> Vec<(String, Result<At, ChainError>)> {
        let mut others = Vec::new();
        for endpoint in self.shared.endpoints.iter().skip(1) {
            let head = endpoint.view().borrow().finalised;
            let at = match head {
                Some(head) => endpoint.at(head).await,
                None => Err(endpoint.view().borrow().refusal(endpoint.url())),
            };
            others.push((endpoint.url().to_owned(), at));
        }
        others
    }

    /// The block at a height, as the first endpoint's best chain has it.
    ///
    /// # Errors
    /// [`ChainError::NoSuchBlock`] when it has none.
    pub async fn block_at(&self, height: u64) -> Result<BlockRef, ChainError> {
        self.primary().block_at(height).await
    }

    pub(crate) fn session(&self) -> Result<Arc<Session>, ChainError> {
        self.primary().session()
    }

    fn primary(&self) -> &Endpoint {
        self.shared.endpoints.first().expect("a configuration without endpoints is refused")
    }

    /// Ends all connections, for every clone. Without it they end with the last of them.
    pub fn close(&self) {
        self.shared.endpoints.iter().for_each(Endpoint::close);
    }

    fn refusal(&self) -> ChainError {
        self.view().borrow().refusal(self.primary().url())
    }

    fn config(&self) -> &ChainConfig {
        &self.shared.config
    }
}
