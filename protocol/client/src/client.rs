// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: connecting, asking, and which answer belongs to which question.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, TokioRuntime};
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_tls::identity::client_config;
use supernode_tls::transport::{BoundSocket, Transport};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::call::{Call, Failure, timed_out};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::health::Health;
use crate::link::{Link, Welcome};
use crate::peer::Peer;
use crate::pool::Pool;
use crate::statistics::{Counters, Statistics, count};

/// When a busy node that does not say is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// And one that says at once: a node must not make its clients spin.
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(5);
/// Dials under way at a time while nodes are connected ahead of need.
const WARM_DIALS_MAX: usize = 32;

/// Talks to any number of nodes over pooled connections. Cloning is cheap and shares the pool.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
    deadline: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Opens the socket. Nobody is dialled yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Setup`]: a setting out of range, a key that is no Ed25519 key, or a local
    /// address that cannot be bound.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate().map_err(|error| setup(&error))?;
        NodeId::from_public(&config.identity.public()).map_err(|error| setup(&error))?;
        let mut transport = config.transport.clone();
        transport.idle_timeout_secs = config.idle_timeout.as_secs();
        let mut quic = client_config(&config.identity).map_err(|error| setup(&error))?;
        // A node opens no streams towards a client.
        quic.transport_config(Arc::new(transport.to_quinn(0)));
        let bound = bind(&transport, config.bind).map_err(|error| setup(&error))?;
        if bound.is_clipped {
            let granted_bytes = bound.buffer_bytes;
            tracing::debug!(granted_bytes, "the kernel clipped the socket buffers");
        }
        let settings = transport.endpoint(&config.identity).map_err(|error| setup(&error))?;
        let mut endpoint = Endpoint::new(settings, None, bound.socket, Arc::new(TokioRuntime))
            .map_err(|error| setup(&error))?;
        endpoint.set_default_client_config(quic);
        Ok(Self { deadline: config.deadline, pool: Pool::new(endpoint, config) })
    }

    /// The same client, whose calls through this handle may take `deadline` in all.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { pool: Arc::clone(&self.pool), deadline }
    }

    /// Connects, or finds the connection there is, and returns what the node said of itself.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::BadPeer`] when somebody else answers there.
    pub async fn connect(&self, peer: &Peer) -> Result<Welcome, ClientError> {
        let link = async { Ok(self.pool.link(peer).await?.link.welcome.clone()) };
        self.in_time(peer, link).await
    }

    /// Connects to `peers` ahead of need, a few at a time, and returns how many are connected.
    /// Those that failed lately are left alone.
    pub async fn warm(&self, peers: &[Peer]) -> usize {
        let mut dials = JoinSet::new();
        let mut connected = 0;
        for peer in peers.iter().filter(|peer| self.health(peer.node).avoided_for.is_zero()) {
            if dials.len() >= WARM_DIALS_MAX {
                connected += usize::from(matches!(dials.join_next().await, Some(Ok(true))));
            }
            let (client, peer) = (self.clone(), peer.clone());
            dials.spawn(async move { client.connect(&peer).await.is_ok() });
        }
        while let Some(outcome) = dials.join_next().await {
            connected += usize::from(matches!(outcome, Ok(true)));
        }
        connected
    }

    /// How a node has been doing. All zero for one that was never used, or not for long.
    pub fn health(&self, node: NodeId) -> Health {
        self.pool.nodes.health(node, Instant::now())
    }

    /// What this client has done so far, through all its handles.
    pub fn statistics(&self) -> Statistics {
        self.pool.counters.snapshot()
    }

    /// Connections that are open now.
    pub fn connection_count(&self) -> usize {
        self.pool.connection_count()
    }

    /// Closes every connection and tells the nodes. Requests under way fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.pool.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.pool.counters
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Does `work` for a call to `peer` within the deadline, and remembers how it failed.
    pub(crate) async fn in_time<T>(
        &self,
        peer: &Peer,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match timeout(self.deadline, work).await {
            Ok(outcome) => outcome.inspect_err(|error| self.note(error)),
            Err(_) => Err(self.too_late(peer.node)),
        }
    }

    /// Says, and remembers, that `node` let a call's deadline pass.
    pub(crate) fn too_late(&self, node: NodeId) -> ClientError {
        let error = timed_out(node, "serve the call before its deadline", self.deadline);
        self.note(&error);
        error
    }

    /// Remembers a failure for the health of the node it is about.
    pub(crate) fn note(&self, error: &ClientError) {
        if matches!(error, ClientError::Lied { .. }) {
            count(&self.pool.counters.lies);
        }
        let (Some(node), now) = (error.node(), Instant::now()) else { return };
        if let Some(pause) = busy_pause(error) {
            self.pool.nodes.busy(node, now + pause);
        } else if error.is_failure() {
            self.pool.nodes.failed(node, now);
        }
    }

    /// Sends a request and reads the frame of its answer. A busy node is asked again when it
    /// wants to be, as long as `busy_wait_max` and the deadline allow.
    pub(crate) async fn ask(
        &self,
        peer: &Peer,
        request: &Request,
        body: &[Bytes],
    ) -> Result<(Call, Response), ClientError> {
        let give_up = Instant::now() + self.busy_wait_max();
        loop {
            let outcome = self.ask_once(peer, request, body).await;
            let Err(error) = outcome else { return outcome };
            let Some(pause) = busy_pause(&error) else { return Err(error) };
            let again = Instant::now() + jittered(pause);
            if again > give_up {
                return Err(error);
            }
            self.note(&error);
            sleep_until(again).await;
            count(&self.pool.counters.retries);
        }
    }

    /// How long a call may wait for busy nodes. Waiting beyond the deadline would be in vain.
    pub(crate) fn busy_wait_max(&self) -> Duration {
        self.pool.config.busy_wait_max.min(self.deadline)
    }

    /// As [`Client::ask`], without waiting for a busy node. A pooled connection that proves dead
    /// is replaced once.
    pub(crate) async fn ask_once(
        &self,
        peer: &Peer,
        request: &Request,
        body: &[Bytes],
    ) -> Result<(Call, Response), ClientError> {
        let lease = self.pool.link(peer).await?;
        let dead = match self.exchange(&lease.link, request, body).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Lost(error)) if !lease.is_fresh => {
                tracing::debug!(node = %peer.node, %error, "pooled connection was dead");
                lease.link
            }
            Err(failure) => return Err(failure.into()),
        };
        self.pool.forget(&dead);
        drop(dead);
        count(&self.pool.counters.retries);
        let lease = self.pool.link(peer).await?;
        Ok(self.exchange(&lease.link, request, body).await?)
    }

    async fn exchange(
        &self,
        link: &Arc<Link>,
        request: &Request,
        body: &[Bytes],
    ) -> Result<(Call, Response), Failure> {
        let mut call = Call::open(Arc::clone(link)).await?;
        let asked = Instant::now();
        let outcome = call.exchange(request, body).await;
        let is_read = matches!(request, Request::GetShard { .. } | Request::GetMany { .. });
        match outcome {
            Ok(response) => {
                self.pool.nodes.answered(link.node, is_read.then(|| asked.elapsed()));
                Ok((call, response))
            }
            Err(failure) => {
                // A refusal is an answer too; one that blames the node is noted as a failure.
                if matches!(failure, Failure::Final(ClientError::Refused { .. })) {
                    self.pool.nodes.answered(link.node, None);
                }
                Err(failure)
            }
        }
    }

    /// As [`Client::ask`], for answers without a body: the stream is over when this returns.
    pub(crate) async fn ask_plain(
        &self,
        peer: &Peer,
        request: &Request,
        body: &[Bytes],
    ) -> Result<Response, ClientError> {
        let work = async {
            let (call, response) = self.ask(peer, request, body).await?;
            call.end().await?;
            Ok(response)
        };
        self.in_time(peer, work).await
    }

    /// Ends a call whose body is complete, and remembers how fast it came.
    pub(crate) async fn end(&self, call: Call) -> Result<(), ClientError> {
        let (bytes, waited) = call.received();
        if bytes > 0 {
            self.pool.nodes.delivered(call.node(), bytes, waited);
        }
        call.end().await
    }
}

/// How long to leave a node alone that says it is busy.
fn busy_pause(error: &ClientError) -> Option<Duration> {
    let is_busy = error.code() == Some(ErrorCode::Busy);
    is_busy.then(|| error.retry_after().unwrap_or(BUSY_PAUSE).max(BUSY_PAUSE_MIN))
}

/// Does `work` in the time that is left, and takes from that what it took; nothing if the time
/// is over.
pub(crate) async fn spend<T>(left: &mut Duration, work: impl Future<Output = T>) -> Option<T> {
    let started = Instant::now();
    let outcome = timeout(*left, work).await.ok();
    *left = left.saturating_sub(started.elapsed());
    outcome
}

/// `pause` and up to half as much again, so that those who were told the same come apart.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // The standard library's hasher is keyed at random for every instance.
    let chance = u32::try_from(RandomState::new().hash_one(()) % 1024).expect("below 1024");
    pause + pause * chance / 2048
}

/// A node that answers a question with the answer to another one.
pub(crate) fn unexpected(peer: &Peer) -> ClientError {
    ClientError::Protocol {
        node: peer.node,
        reason: "the answer is of another kind than the request".to_owned(),
    }
}

fn setup(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Setup { reason: error.to_string() }
}

/// Binds `address`; where the system has no IPv6, any IPv4 address stands in for any IPv6 one.
fn bind(transport: &Transport, address: SocketAddr) -> std::io::Result<BoundSocket> {
    let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    match transport.bind(address) {
        Err(error) if is_any_v6 => {
            tracing::debug!(%error, "no IPv6 socket, using IPv4");
            transport.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supernode_protocol::ids::NodeId;
    use supernode_protocol::wire::{ErrorCode, WireError};

    use super::{BUSY_PAUSE, BUSY_PAUSE_MIN, ClientError, busy_pause, jittered};

    fn refused(code: ErrorCode, retry_after_ms: Option<u32>) -> ClientError {
        let error = WireError { code, message: String::new(), retry_after_ms };
        ClientError::Refused { node: NodeId::from_bytes([1; 32]), error }
    }

    #[test]
    fn a_busy_node_is_left_alone_for_as_long_as_it_says_and_never_not_at_all() {
        let pause = |retry_after_ms| busy_pause(&refused(ErrorCode::Busy, retry_after_ms));
        assert_eq!(pause(Some(700)), Some(Duration::from_millis(700)));
        assert_eq!(pause(Some(0)), Some(BUSY_PAUSE_MIN));
        assert_eq!(pause(None), Some(BUSY_PAUSE));
        assert_eq!(busy_pause(&refused(ErrorCode::Full, Some(700))), None);
    }

    #[test]
    fn jitter_adds_up_to_a_half_and_differs() {
        let pause = Duration::from_secs(1);
        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|some| (pause..=pause * 3 / 2).contains(some)), "{pauses:?}");
        assert!(pauses.iter().any(|some| *some != pauses[0]), "no two clients differ");
        // The longest wait that a node can name.
        assert!(jittered(Duration::from_millis(u64::from(u32::MAX))) > Duration::from_secs(1));
    }
}
