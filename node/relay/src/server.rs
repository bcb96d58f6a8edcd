// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle and the loop that owns the QUIC endpoint.
//!
//! The loop decides about connection attempts and forgets idle budgets; each connection is a task
//! and each request is one, bounded by the settings. Requests are tracked so that stopping can
//! wait for them: from the moment the token is cancelled new requests are answered `Unavailable`,
//! those under way go on, and [`Relay::stop`] waits for the last byte of theirs to be
//! acknowledged before it closes anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use libp2p_identity::Keypair;
use quinn::{Endpoint, Incoming, TokioRuntime};
use supernode_tls::codes::CloseCode;
use supernode_tls::identity::{TlsError, server_config};
use supernode_tls::transport::SettingError;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::backend::Backend;
use crate::config::RelayConfig;
use crate::connection::{self, STREAMS_AT_FIRST};
use crate::doors::{Doors, Verdict};
use crate::live::Live;
use crate::metrics::{Counters, Reason, RelayMetrics};

/// How often budgets that nobody uses are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long peers get to acknowledge that a connection is closed.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Bytes of one handshake that may be buffered before it is looked at. Without early data there
/// is nothing legitimate to buffer beyond a long hello.
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;
/// The same for all handshakes together.
const INCOMING_BUFFERS_BYTES: u64 = 8 << 20;

/// Why a relay server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A setting is out of range.
    #[error("relay setting {0}")]
    Setting(#[from] SettingError),
    /// TLS cannot be set up with this key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be used.
    #[error("cannot listen on {address} (UDP): {source}; is another node running there?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What all connections and requests share.
pub(crate) struct Shared<B> {
    pub(crate) live: Arc<Live>,
    pub(crate) backend: Arc<B>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) requests: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// A running relay server. Cloning is cheap; when the last handle goes, so does the server.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    live: Arc<Live>,
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    doors: Arc<Doors>,
    requests: TaskTracker,
    stopping: CancellationToken,
    ended: CancellationToken,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("local_addr", &self.inner.local_addr).finish_non_exhaustive()
    }
}

impl Relay {
    /// Binds the socket and starts to serve. Must be called on a tokio runtime. Cancelling
    /// `stopping` makes the server refuse new work; [`Relay::stop`] does so too and then waits.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn start<B: Backend>(
        config: RelayConfig,
        identity: &Keypair,
        backend: Arc<B>,
        stopping: CancellationToken,
    ) -> Result<Self, RelayError> {
        config.validate()?;
        let endpoint = open_endpoint(&config, identity)?;
        let address = config.listen;
        let local_addr =
            endpoint.local_addr().map_err(|source| RelayError::Bind { address, source })?;
        let counters = Arc::new(Counters::default());
        let live = Live::new(config);
        let admission = Admission::new(Arc::clone(&live), Arc::clone(&counters));
        let doors = Doors::new(Arc::clone(&live), Arc::clone(&counters));
        let requests = TaskTracker::new();
        let ended = CancellationToken::new();
        let shared = Arc::new(Shared {
            live: Arc::clone(&live),
            doors: Arc::clone(&doors),
            backend,
            admission: Arc::clone(&admission),
            counters: Arc::clone(&counters),
            requests: requests.clone(),
            stopping: stopping.clone(),
        });
        let guard = ended.clone().drop_guard();
        let acceptor = accept(shared, endpoint.clone());
        tokio::spawn(async move {
            let _guard = guard;
            acceptor.await;
        });
        tracing::info!(%local_addr, "relay server listens");
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                local_addr,
                live,
                counters,
                admission,
                doors,
                requests,
                stopping,
                ended,
            }),
        })
    }

    /// Where it listens, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// All counters as they are now.
    pub fn metrics(&self) -> RelayMetrics {
        self.inner.counters.snapshot(&self.inner.admission)
    }

    /// The settings as they are now.
    pub fn limits(&self) -> RelayConfig {
        RelayConfig::clone(&self.inner.live.get())
    }

    /// Changes every limit to that of `limits` until the next start. What is
    /// [fixed](RelayConfig::FIXED) stays as it is; requests and transfers under way go on, and
    /// those that wait go by the new limits.
    ///
    /// # Errors
    /// When a setting is out of its range; nothing has changed then.
    pub fn set_limits(&self, limits: &RelayConfig) -> Result<(), SettingError> {
        let inner = &self.inner;
        let limits = limits.with_fixed_of(&inner.live.get());
        limits.validate()?;
        inner.live.set(limits);
        inner.admission.reload();
        inner.doors.reload();
        Ok(())
    }

    /// Returns when the server accepts nothing any more: because it was stopped, or because its
    /// socket failed, which a supervisor answers with a new start.
    pub async fn ended(&self) {
        self.inner.ended.cancelled().await;
    }

    /// Refuses new work, waits up to `deadline` for requests under way, closes all connections.
    /// Returns whether every request was done.
    pub async fn stop(&self, deadline: Duration) -> bool {
        let inner = &self.inner;
        inner.stopping.cancel();
        inner.requests.close();
        let is_drained = timeout(deadline, inner.requests.wait()).await.is_ok();
        if !is_drained {
            let requests = inner.requests.len();
            tracing::warn!(requests, ?deadline, "stopping the relay server cuts requests off");
        }
        inner.endpoint.close(CloseCode::Stopping.to_varint(), b"the node stops");
        let _ = timeout(CLOSE_GRACE, inner.endpoint.wait_idle()).await;
        is_drained
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.endpoint.close(CloseCode::Stopping.to_varint(), b"the node stops");
    }
}

fn open_endpoint(config: &RelayConfig, identity: &Keypair) -> Result<Endpoint, RelayError> {
    let address = config.listen;
    let transport = &config.transport;
    let mut server = server_config(identity)?;
    let streams = STREAMS_AT_FIRST.min(config.streams_per_connection_max);
    server
        .transport_config(Arc::new(transport.to_quinn(streams)))
        .migration(config.migration)
        .max_incoming(usize::try_from(config.incoming_max).unwrap_or(usize::MAX))
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    let settings = transport.endpoint(identity)?;
    let bind = |source| RelayError::Bind { address, source };
    let bound = transport.bind(address).map_err(bind)?;
    if bound.is_clipped {
        tracing::warn!(
            wanted_bytes = transport.socket_buffer_bytes,
            granted_bytes = bound.buffer_bytes,
            "the kernel clipped the UDP buffers; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Endpoint::new(settings, Some(server), bound.socket, Arc::new(TokioRuntime)).map_err(bind)
}

/// Looks at every connection attempt until the endpoint closes.
async fn accept<B: Backend>(shared: Arc<Shared<B>>, endpoint: Endpoint) {
    let mut prune = interval(PRUNE_EVERY);
    prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, incoming),
                None => break,
            },
            _ = prune.tick() => {
                shared.admission.prune();
                shared.doors.prune();
            }
        }
    }
    if !shared.stopping.is_cancelled() {
        tracing::error!("the relay server's socket failed");
    }
}

fn admit<B: Backend>(shared: &Arc<Shared<B>>, incoming: Incoming) {
    let address = incoming.remote_address();
    if shared.stopping.is_cancelled() {
        shared.counters.rejected(Reason::Stopping);
        incoming.refuse();
        return;
    }
    match shared.doors.knock(address.ip(), incoming.remote_address_validated()) {
        Verdict::Enter(entry) => {
            tokio::spawn(connection::serve(Arc::clone(shared), incoming, entry));
        }
        Verdict::Retry => {
            shared.counters.retries.fetch_add(1, Relaxed);
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
        }
        Verdict::Refuse(reason) => {
            tracing::debug!(%address, reason = reason.label(), "refused a connection");
            shared.counters.rejected(reason);
            incoming.refuse();
        }
    }
}
