// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: connecting, asking, and which answer belongs to which question.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Endpoint, TokioRuntime};
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{Request, Response};
use supernode_tls::identity::client_config;
use supernode_tls::transport::{BoundSocket, Transport};

use crate::call::{Call, Failure};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::link::Welcome;
use crate::peer::Peer;
use crate::pool::Pool;

/// Talks to any number of nodes over pooled connections. Cloning is cheap and shares the pool.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
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
        Ok(Self { pool: Pool::new(endpoint, config) })
    }

    /// Connects, or finds the connection there is, and returns what the node said of itself.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::BadPeer`] when somebody else answers there.
    pub async fn connect(&self, peer: &Peer) -> Result<Welcome, ClientError> {
        Ok(self.pool.link(peer).await?.link.welcome.clone())
    }

    /// Connections that are open now.
    pub fn connection_count(&self) -> usize {
        self.pool.connection_count()
    }

    /// Closes every connection and tells the nodes. Requests under way fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn network(&self) -> &str {
        self.pool.network()
    }

    /// Sends a request and reads the frame of its answer. A pooled connection that proves dead
    /// is replaced once.
    pub(crate) async fn ask(
        &self,
        peer: &Peer,
        request: &Request,
        body: Bytes,
    ) -> Result<(Call, Response), ClientError> {
        let lease = self.pool.link(peer).await?;
        let dead = match exchange(&lease.link, request, body.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Lost(error)) if !lease.is_fresh => {
                tracing::debug!(node = %peer.node, %error, "pooled connection was dead");
                lease.link
            }
            Err(failure) => return Err(failure.into()),
        };
        self.pool.forget(&dead);
        drop(dead);
        let lease = self.pool.link(peer).await?;
        Ok(exchange(&lease.link, request, body).await?)
    }

    /// As [`Client::ask`], for answers without a body: the stream is over when this returns.
    pub(crate) async fn ask_plain(
        &self,
        peer: &Peer,
        request: &Request,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let (call, response) = self.ask(peer, request, body).await?;
        call.end().await?;
        Ok(response)
    }
}

async fn exchange(
    link: &Arc<crate::link::Link>,
    request: &Request,
    body: Bytes,
) -> Result<(Call, Response), Failure> {
    let mut call = Call::open(Arc::clone(link)).await?;
    let response = call.exchange(request, body).await?;
    Ok((call, response))
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
