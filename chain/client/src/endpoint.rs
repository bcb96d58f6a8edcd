// SPDX-License-Identifier: MIT OR Apache-2.0
//! One endpoint: a connection that is made again whenever it breaks, and what was seen over it.
//!
//! A task owns the connection. After each connect it checks genesis and runtime, then looks at the
//! heads whenever a stream says that there is a new one, and at every heartbeat in case none
//! does. A runtime that changes under way is checked again before the next head is shown.

use std::sync::Arc;
use std::time::Duration;

use subxt::OnlineClient;
use subxt::backend::LegacyBackend;
use subxt::config::substrate::{H256, SubstrateConfig};
use subxt::config::{Header as _, RpcConfigFor};
use subxt::rpcs::client::RpcClient;
use subxt::rpcs::methods::legacy::{LegacyRpcMethods, NumberOrHex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

use crate::config::ChainConfig;
use crate::error::ChainError;
use crate::facts::At;
use crate::runtime;
use crate::view::{BlockRef, Standing, View};

/// Pause before the first new attempt; doubles up to the heartbeat.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// How Substrate says that it does not keep a block's state (any more).
const STATE_GONE: [&str; 3] =
    ["State already discarded", "UnknownBlock", "not found in the database"];

pub(crate) type Methods = LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>;

/// A connection to the right chain with the right runtime.
pub(crate) struct Session {
    pub(crate) url: String,
    pub(crate) client: OnlineClient<SubstrateConfig>,
    pub(crate) rpc: Methods,
    pub(crate) request_timeout: Duration,
}

/// See the module. Dropping it ends the task.
pub(crate) struct Endpoint {
    url: String,
    view: watch::Receiver<View>,
    session: watch::Receiver<Option<Arc<Session>>>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

impl Endpoint {
    /// Ends the task, and with it the connection.
    pub(crate) fn close(&self) {
        self.task.abort();
    }

    pub(crate) fn start(url: &str, genesis: [u8; 32], config: &ChainConfig) -> Self {
        let (view, view_seen) = watch::channel(View::unreachable("not tried yet"));
        let (session, session_seen) = watch::channel(None);
        let follower = Follower {
            url: url.to_owned(),
            shown: shown(url),
            genesis,
            config: config.clone(),
            view,
            session,
            spec_checked: None,
        };
        let task = tokio::spawn(follower.run());
        Self { url: shown(url), view: view_seen, session: session_seen, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    pub(crate) fn session(&self) -> Result<Arc<Session>, ChainError> {
        let session = self.session.borrow().clone();
        session.ok_or_else(|| self.view.borrow().refusal(&self.url))
    }

    pub(crate) async fn at(&self, block: BlockRef) -> Result<At, ChainError> {
        At::open(self.session()?, block).await
    }

    pub(crate) async fn block_at(&self, height: u64) -> Result<BlockRef, ChainError> {
        let session = self.session()?;
        let number = NumberOrHex::Number(height);
        let hash = session.ask(session.rpc.chain_get_block_hash(Some(number))).await?;
        let hash = hash.ok_or_else(|| session.no_such_block(height))?;
        Ok(BlockRef { height, hash: hash.0 })
    }
}

impl Session {
    /// Waits for an answer, not for ever.
    pub(crate) async fn ask<T, E: std::fmt::Display>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ChainError> {
        match timeout(self.request_timeout, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => {
                let secs = self.request_timeout.as_secs();
                Err(self.unreachable(format!("no answer within {secs} s")))
            }
        }
    }

    /// The next item of a listing that is read page by page.
    pub(crate) async fn next<T, E: std::fmt::Display>(
        &self,
        item: impl Future<Output = Option<Result<T, E>>>,
    ) -> Result<Option<T>, ChainError> {
        self.ask(async { item.await.transpose() }).await
    }

    /// A node that has dropped old state says so in words, not by a code of its own.
    fn failed(&self, reason: &str) -> ChainError {
        let is_pruned = STATE_GONE.iter().any(|words| reason.contains(words));
        if is_pruned { self.no_such_block(reason) } else { self.unreachable(reason.to_owned()) }
    }

    pub(crate) fn unreachable(&self, reason: String) -> ChainError {
        ChainError::Unreachable { endpoint: self.url.clone(), reason }
    }

    pub(crate) fn malformed(
        &self,
        what: &'static str,
        reason: impl std::fmt::Display,
    ) -> ChainError {
        ChainError::Malformed { endpoint: self.url.clone(), what, reason: reason.to_string() }
    }

    pub(crate) fn no_such_block(&self, block: impl std::fmt::Display) -> ChainError {
        ChainError::NoSuchBlock { endpoint: self.url.clone(), block: block.to_string() }
    }

    async fn head(&self, hash: H256) -> Result<BlockRef, ChainError> {
        let header = self.ask(self.rpc.chain_get_header(Some(hash))).await?;
        let header = header.ok_or_else(|| self.no_such_block(hash))?;
        Ok(BlockRef { height: header.number(), hash: hash.0 })
    }
}

struct Follower {
    /// As configured; may hold a secret.
    url: String,
    shown: String,
    genesis: [u8; 32],
    config: ChainConfig,
    view: watch::Sender<View>,
    session: watch::Sender<Option<Arc<Session>>>,
    /// The runtime version that was found to be one we know.
    spec_checked: Option<u32>,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = RECONNECT_PAUSE;
        loop {
            let Err(error) = self.follow(&mut pause).await;
            self.spec_checked = None;
            self.session.send_replace(None);
            let view = match error {
                ChainError::ForeignGenesis { found, .. } => View {
                    standing: Standing::ForeignGenesis { found },
                    best: None,
                    finalised: None,
                },
                ChainError::ForeignRuntime { reason, .. } => View {
                    standing: Standing::ForeignRuntime { reason },
                    best: None,
                    finalised: None,
                },
                ChainError::Unreachable { reason, .. } => View::unreachable(reason),
                other => View::unreachable(other.to_string()),
            };
            if self.view.borrow().standing != view.standing {
                let standing = &view.standing;
                tracing::warn!(endpoint = self.shown, ?standing, "the chain is lost");
            }
            self.view.send_replace(view);
            sleep(pause).await;
            pause = (pause * 2).min(self.config.heartbeat());
        }
    }

    /// Follows one connection until it breaks or turns out to be the wrong one.
    async fn follow(
        &mut self,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, ChainError> {
        let session = Arc::new(self.connect().await?);
        let rpc = &session.rpc;
        let mut best = session.ask(rpc.chain_subscribe_new_heads()).await?;
        let mut finalised = session.ask(rpc.chain_subscribe_finalized_heads()).await?;
        let mut heartbeat = interval(self.config.heartbeat());
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {}
                head = best.next() => ended(&session, head)?,
                head = finalised.next() => ended(&session, head)?,
            }
            let view = self.look(&session).await?;
            if self.session.borrow().is_none() {
                tracing::info!(endpoint = self.shown, "the chain is connected");
                self.session.send_replace(Some(Arc::clone(&session)));
                *pause = RECONNECT_PAUSE;
            }
            self.view.send_if_modified(|current| {
                let is_new = *current != view;
                *current = view;
                is_new
            });
        }
    }

    async fn connect(&self) -> Result<Session, ChainError> {
        let request_timeout = self.config.request_timeout();
        let failed =
            |reason: String| ChainError::Unreachable { endpoint: self.shown.clone(), reason };
        let connected = timeout(request_timeout, RpcClient::from_url(&self.url)).await;
        let client = connected
            .map_err(|_| failed(format!("no connection within {} s", request_timeout.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        let rpc = Methods::new(client.clone());
        let found = timeout(request_timeout, rpc.genesis_hash()).await;
        let found = found
            .map_err(|_| failed("it does not name its genesis".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if found.0 != self.genesis {
            return Err(ChainError::ForeignGenesis {
                endpoint: self.shown.clone(),
                found: found.0,
            });
        }
        let config = SubstrateConfig::builder().set_genesis_hash(found).build();
        let backend = LegacyBackend::builder().build(client);
        let online = OnlineClient::from_backend_with_config(config, Arc::new(backend)).await;
        let client = online.map_err(|error| failed(error.to_string()))?;
        Ok(Session { url: self.shown.clone(), client, rpc, request_timeout })
    }

    /// Both heads as they are now, from a runtime that is known.
    async fn look(&mut self, session: &Arc<Session>) -> Result<View, ChainError> {
        let rpc = &session.rpc;
        let finalised = session.ask(rpc.chain_get_finalized_head()).await?;
        let finalised = session.head(finalised).await?;
        let best = session.ask(rpc.chain_get_block_hash(None)).await?;
        let best = best.ok_or_else(|| session.no_such_block("best"))?;
        let best = session.head(best).await?;
        self.check_runtime(session, best).await?;
        let (best, finalised) = (Some(best), Some(finalised));
        Ok(View { standing: Standing::Connected, best, finalised })
    }

    async fn check_runtime(
        &mut self,
        session: &Arc<Session>,
        block: BlockRef,
    ) -> Result<(), ChainError> {
        let at = At::open(Arc::clone(session), block).await?;
        if self.spec_checked != Some(at.spec_version()) {
            runtime::check(&at.metadata()).map_err(|reason| ChainError::ForeignRuntime {
                endpoint: self.shown.clone(),
                reason,
            })?;
            self.spec_checked = Some(at.spec_version());
        }
        Ok(())
    }
}

/// An address without what may be secret in it: user, path and query.
pub(crate) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

fn ended<T>(
    session: &Session,
    head: Option<Result<T, subxt::rpcs::Error>>,
) -> Result<(), ChainError> {
    match head {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(session.unreachable(error.to_string())),
        None => Err(session.unreachable("the stream of heads ended".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (url, expected) in [
            ("wss://chain.example/v2/KEY?apikey=KEY", "wss://chain.example"),
            ("wss://user:KEY@chain.example:443#KEY", "wss://chain.example:443"),
            ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
