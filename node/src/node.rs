// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running node: its parts, started in order and stopped in reverse.
//!
//! ```text
//! store ─► dht ─► relay server ─► http          start
//!   │       ├─ presence    shows the node's record, keeps it true
//!   ├───────┴─ announcer   tells which groups are held here
//!   └─ chain                answers challenges, ends deals, signs receipts, knows the registered
//!                           nodes; only where configured
//! ```
//!
//! Store and relay server do not know each other; [`crate::backend`] stands between them. The
//! small tasks are supervised and started again; when the store, the DHT or the relay server ends
//! by itself, the node stops and says so, and whoever runs it starts it afresh.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use supernode_audit::Auditor;
use supernode_dht::{Dht, DhtError};
use supernode_relay::{Relay, RelayError};
use supernode_store::{Store, StoreError};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::announcer::Announcer;
use crate::backend::{NodeBackend, OnChain};
use crate::chain::part::{ChainPart, ChainPartError};
use crate::config::NodeConfig;
use crate::http::{self, Readiness, Subject};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::presence::{Presence, PresenceError};
use crate::supervise::{Alarm, supervise};

/// What is left of the deadline for store and DHT when transfers have used up the rest.
const CLOSE_RESERVE: Duration = Duration::from_secs(5);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The DHT.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// The relay server.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The node's own record.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// Metrics, health, or the admin socket.
    #[error("{0}")]
    Http(String),
    /// The chain's part.
    #[error(transparent)]
    Chain(#[from] ChainPartError),
    /// The task that opens the store died.
    #[error("opening the store panicked; the log above says where")]
    Panicked,
}

/// What is served about a node over HTTP.
#[derive(Clone)]
struct Parts {
    config: Arc<NodeConfig>,
    store: Store,
    dht: Dht,
    relay: Relay,
    chain: Option<ChainPart>,
    started: Instant,
    stopping: CancellationToken,
    relay_ended: Arc<AtomicBool>,
}

impl Subject for Parts {
    fn readiness(&self) -> Readiness {
        let relay_listening = !self.relay_ended.load(Ordering::Relaxed);
        Readiness::of(
            self.store.is_open(),
            relay_listening,
            self.dht.ready(),
            self.stopping.is_cancelled(),
        )
    }

    fn metrics(&self) -> Metrics {
        Metrics {
            network: self.config.network.name.clone(),
            region: self.config.network.region.clone(),
            ready: self.readiness().ready,
            uptime_secs: self.started.elapsed().as_secs_f64(),
            store: self.store.metrics(),
            relay: self.relay.metrics(),
            dht: self.dht.metrics(),
            audit: self.chain.as_ref().map(ChainPart::metrics),
            registered_nodes: self.chain.as_ref().map(|chain| chain.registered().count()),
        }
    }
}

/// A running node.
pub struct Node {
    parts: Parts,
    identity: Identity,
    http: SocketAddr,
    /// Ends the supervised tasks.
    tasks_end: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    http_end: CancellationToken,
    http_task: JoinHandle<()>,
    admin_task: JoinHandle<()>,
    raised: mpsc::Receiver<String>,
}

impl Node {
    /// Starts every part in order. When one fails, those before it are stopped again.
    ///
    /// # Errors
    /// What the part says.
    pub async fn start(config: NodeConfig, identity: Identity) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let settings = config.store(identity.node);
        let opened = tokio::task::spawn_blocking(move || Store::open(settings)).await;
        let store = opened.map_err(|_| StartError::Panicked)??;
        match Self::start_above(&config, identity, &store).await {
            Ok(node) => Ok(node),
            Err(error) => {
                if let Err(error) = store.close().await {
                    tracing::warn!(%error, "the store did not close");
                }
                Err(error)
            }
        }
    }

    async fn start_above(
        config: &Arc<NodeConfig>,
        identity: Identity,
        store: &Store,
    ) -> Result<Self, StartError> {
        let dht = Dht::start(config.dht(), identity.keypair.clone()).await?;
        let started = Self::start_servers(config, identity, store, &dht).await;
        if started.is_err() {
            dht.stop().await;
        }
        started
    }

    async fn start_servers(
        config: &Arc<NodeConfig>,
        identity: Identity,
        store: &Store,
        dht: &Dht,
    ) -> Result<Self, StartError> {
        let presence =
            Presence::new(identity.clone(), Arc::clone(config), store.clone(), dht.clone())?;
        let chain = ChainPart::start(config, identity.node, store).await?;
        let on_chain = chain.as_ref().map(|part| OnChain {
            notary: part.notary(&identity.keypair, identity.node),
            registered: part.registered(),
        });
        let backend = NodeBackend::new(store.clone(), dht.clone(), presence.record(), on_chain);
        let stopping = CancellationToken::new();
        let relay =
            Relay::start(config.relay(), &identity.keypair, Arc::new(backend), stopping.clone())?;
        let parts = Parts {
            config: Arc::clone(config),
            store: store.clone(),
            dht: dht.clone(),
            relay,
            chain,
            started: Instant::now(),
            stopping,
            relay_ended: Arc::new(AtomicBool::new(false)),
        };
        let listeners = async {
            let admin = admin::bind(&config.data_dir)?;
            Ok::<_, String>((http::bind(config.http.listen).await?, admin))
        };
        match listeners.await {
            Ok(listeners) => Ok(Self::assemble(parts, identity, presence, listeners)),
            Err(error) => {
                parts.relay.stop(Duration::ZERO).await;
                Err(StartError::Http(error))
            }
        }
    }

    fn assemble(
        parts: Parts,
        identity: Identity,
        presence: Presence,
        (listener, admin): (TcpListener, (UnixListener, PathBuf)),
    ) -> Self {
        let (alarm, raised) = Alarm::new();
        let tasks_end = CancellationToken::new();
        let quic = parts.relay.local_addr();
        let announced = (parts.store.clone(), parts.dht.clone());
        let mut tasks = vec![
            supervise("presence", tasks_end.clone(), alarm.clone(), move || {
                presence.clone().run(quic)
            }),
            supervise("announcer", tasks_end.clone(), alarm.clone(), move || {
                let (store, dht) = announced.clone();
                Announcer::new(store, dht).run()
            }),
            watch(&parts, tasks_end.clone(), alarm.clone()),
        ];
        if let Some(chain) = &parts.chain {
            let registry = chain.registry().clone();
            let run = move || registry.clone().run();
            tasks.push(supervise("registry", tasks_end.clone(), alarm.clone(), run));
        }
        let http = listener.local_addr().unwrap_or(parts.config.http.listen);
        let http_end = CancellationToken::new();
        let served =
            http::serve(listener, parts.clone(), parts.config.http.requests_max, http_end.clone());
        let administered = admin::Administered {
            config: Arc::clone(&parts.config),
            store: parts.store.clone(),
            relay: parts.relay.clone(),
            auditor: parts.chain.as_ref().map(|part| part.auditor().clone()),
        };
        let administered = admin::serve(admin, administered, http_end.clone());
        let raise = |alarm: Alarm, outcome: Result<(), String>| {
            if let Err(error) = outcome {
                alarm.raise(error);
            }
        };
        let admin_alarm = alarm.clone();
        let http_task = tokio::spawn(async move { raise(alarm, served.await) });
        let admin_task = tokio::spawn(async move { raise(admin_alarm, administered.await) });
        Self { parts, identity, http, tasks_end, tasks, http_end, http_task, admin_task, raised }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the relay server listens.
    pub fn quic(&self) -> SocketAddr {
        self.parts.relay.local_addr()
    }

    /// Where libp2p listens.
    ///
    /// # Errors
    /// When the DHT has ended.
    pub async fn libp2p(&self) -> Result<Vec<String>, DhtError> {
        self.parts.dht.listen_addresses().await
    }

    /// Where metrics and health are served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Waits until a part has ended by itself, and says which.
    pub async fn failed(&mut self) -> String {
        match self.raised.recv().await {
            Some(reason) => reason,
            // Every task that could raise the alarm is gone, and none of them ends by itself.
            None => "all tasks of the node have ended".to_owned(),
        }
    }

    /// Stops every part in reverse order; transfers under way may finish within `deadline`.
    /// Returns whether all of them did.
    ///
    /// # Errors
    /// When the store could not mark its log as orderly ended; nothing acknowledged is lost.
    pub async fn stop(self, deadline: Duration) -> Result<bool, StoreError> {
        let until = Instant::now() + deadline;
        self.parts.stopping.cancel();
        self.http_end.cancel();
        // A scraper that keeps its connection open must not hold up the rest.
        let pages = async { futures::join!(self.http_task, self.admin_task) };
        if tokio::time::timeout(Duration::from_secs(1), pages).await.is_err() {
            tracing::debug!("an HTTP connection was cut off");
        }
        let drain = until.saturating_duration_since(Instant::now()).saturating_sub(CLOSE_RESERVE);
        let is_drained = self.parts.relay.stop(drain).await;
        self.tasks_end.cancel();
        for task in self.tasks {
            // Supervisors do not panic, and end with their token.
            let _ = task.await;
        }
        if let Some(chain) = &self.parts.chain {
            chain.auditor().stop().await;
        }
        self.parts.dht.stop().await;
        self.parts.store.close().await?;
        Ok(is_drained)
    }
}

/// Raises the alarm when the DHT or the relay server ends by itself.
fn watch(parts: &Parts, end: CancellationToken, alarm: Alarm) -> JoinHandle<()> {
    let auditor = parts.chain.as_ref().map(|part| part.auditor().clone());
    let (store, dht, relay) = (parts.store.clone(), parts.dht.clone(), parts.relay.clone());
    let (stopping, relay_ended) = (parts.stopping.clone(), Arc::clone(&parts.relay_ended));
    tokio::spawn(async move {
        let reason = tokio::select! {
            () = store.ended() => "the store has ended by itself; the log says why",
            () = dht.stopped() => "the DHT has ended by itself; the log says why",
            () = relay.ended() => {
                relay_ended.store(true, Ordering::Relaxed);
                "the relay server has ended by itself; the log says why"
            }
            () = audit_ended(auditor) => "the audit actor has ended by itself; the log says why",
            () = end.cancelled() => return,
        };
        if !stopping.is_cancelled() {
            alarm.raise(reason.to_owned());
        }
    })
}

/// Never, on a node without a chain.
async fn audit_ended(auditor: Option<Auditor>) {
    match auditor {
        Some(auditor) => auditor.stopped().await,
        None => std::future::pending().await,
    }
}
