// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: the TLS handshake, the hello, then a task for every request.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, read_frame};
use supernode_tls::identity::peer_of;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Client, Rejection};
use crate::answer;
use crate::backend::Backend;
use crate::doors::Entry;
use crate::metrics::Reason;
use crate::request;
use crate::server::Shared;

/// Characters of a client's agent that are logged.
const AGENT_CHARS_MAX: usize = 128;

/// Streams that a client may have open before it has shown that it uses more.
pub(crate) const STREAMS_AT_FIRST: u32 = 4;

/// How many streams a client may have open: twice as many as it ever had at a time. The transport
/// keeps for each of them as much memory as the largest backlog of any stream before it has taken,
/// and uses them in turn however few are open.
struct Streams {
    /// Shared with everybody who serves one.
    open: Arc<()>,
    allowed: u32,
}

impl Streams {
    fn new(streams_max: u32) -> Self {
        Self { open: Arc::new(()), allowed: STREAMS_AT_FIRST.min(streams_max) }
    }

    /// Another one is open until what is returned is dropped.
    fn enter(&mut self, connection: &Connection, streams_max: u32) -> Arc<()> {
        let stream = Arc::clone(&self.open);
        let open = u32::try_from(Arc::strong_count(&self.open) - 1).unwrap_or(u32::MAX);
        let wanted = open.saturating_mul(2).min(streams_max);
        if wanted > self.allowed {
            self.allowed = wanted;
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(wanted));
        }
        stream
    }
}

/// Serves a connection from its first packet to its end.
pub(crate) async fn serve<B: Backend>(
    shared: Arc<Shared<B>>,
    incoming: Incoming,
    mut entry: Entry,
) {
    let address = incoming.remote_address();
    let hello_by = Instant::now() + shared.live.get().hello_timeout();
    let Some((connection, node)) = handshake(&shared, incoming, hello_by).await else { return };
    let greeting = timeout_at(hello_by, greet(&shared, &connection, &mut entry, node)).await;
    let client = match greeting {
        Ok(Some(client)) => Arc::new(client),
        Ok(None) => return connection.close(CloseCode::Refused.to_varint(), b"refused"),
        Err(_) => {
            shared.counters.rejected(Reason::NoHello);
            return connection.close(CloseCode::Deadline.to_varint(), b"no hello came");
        }
    };
    entry.established();
    let streams_max = shared.live.get().streams_per_connection_max;
    let mut streams = Streams::new(streams_max);
    loop {
        match connection.accept_bi().await {
            Ok((send, recv)) => {
                let stream = streams.enter(&connection, streams_max);
                let task = request::serve(Arc::clone(&shared), Arc::clone(&client), send, recv);
                shared.requests.spawn(async move {
                    task.await;
                    drop(stream);
                });
            }
            Err(reason) => {
                tracing::debug!(%address, %node, %reason, "connection ended");
                return;
            }
        }
    }
}

async fn handshake<B: Backend>(
    shared: &Shared<B>,
    incoming: Incoming,
    by: Instant,
) -> Option<(Connection, NodeId)> {
    let address = incoming.remote_address();
    let connecting = incoming.accept().ok()?;
    let connection = match timeout_at(by, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "handshake failed");
            return None;
        }
        Err(_) => {
            shared.counters.rejected(Reason::NoHello);
            return None;
        }
    };
    match peer_of(&connection) {
        Ok(node) => Some((connection, node)),
        Err(error) => {
            tracing::debug!(%address, %error, "client without an identity");
            connection.close(CloseCode::Protocol.to_varint(), b"an Ed25519 identity is needed");
            None
        }
    }
}

/// Answers streams until one says a proper hello. Every other request is refused.
async fn greet<B: Backend>(
    shared: &Shared<B>,
    connection: &Connection,
    entry: &mut Entry,
    node: NodeId,
) -> Option<Client> {
    let address = connection.remote_address();
    loop {
        let (mut send, mut recv) = connection.accept_bi().await.ok()?;
        let rejection = match read_frame::<Request>(&mut recv).await {
            Ok(Request::Hello { network, agent, capability }) => {
                let shown =
                    Shown { node, address, network: &network, capability: capability.as_deref() };
                match judge(shared, entry, &shown) {
                    Ok(client) => {
                        let agent: String = agent.chars().take(AGENT_CHARS_MAX).collect();
                        tracing::debug!(%address, %node, agent, "client connected");
                        welcome(shared, &client, send).await?;
                        return Some(client);
                    }
                    Err(rejection) => {
                        refuse(shared, &rejection, &mut send, &mut recv).await;
                        // The refusal must arrive before the connection closes.
                        let _ = send.stopped().await;
                        return None;
                    }
                }
            }
            Ok(_) => Rejection::new(
                Reason::NoHello,
                ErrorCode::BadRequest,
                "the first request of a connection must be a hello",
            ),
            Err(FrameReadError::Read(_)) => continue,
            Err(error) => {
                Rejection::new(Reason::BadRequest, ErrorCode::BadRequest, error.to_string())
            }
        };
        refuse(shared, &rejection, &mut send, &mut recv).await;
    }
}

/// What a client says of itself, and what its packets say.
struct Shown<'a> {
    node: NodeId,
    address: SocketAddr,
    network: &'a str,
    capability: Option<&'a [u8]>,
}

fn judge<B: Backend>(
    shared: &Shared<B>,
    entry: &mut Entry,
    shown: &Shown<'_>,
) -> Result<Client, Rejection> {
    let config = shared.live.get();
    if shared.stopping.is_cancelled() {
        return Err(request::stopping());
    }
    if shown.network != config.network {
        let message = format!("this node serves network {:?}", config.network);
        return Err(Rejection::new(Reason::WrongNetwork, ErrorCode::WrongNetwork, message));
    }
    if !entry.identify(shown.node) {
        let message = "this client has too many connections to this node";
        return Err(Rejection::busy(Reason::ClientConnections, message, config.retry_after()));
    }
    let class = shared.backend.class_of(shown.node);
    shared.admission.client(shown.node, shown.address.ip(), shown.capability, class)
}

async fn welcome<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    mut send: SendStream,
) -> Option<()> {
    let config = shared.live.get();
    let response = Response::Welcome {
        node: Box::new(shared.backend.node_record()),
        agent: config.agent.clone(),
        streams_max: config.streams_per_connection_max.min(client.requests_max()),
    };
    send.write_chunk(answer::encode(&response)).await.ok()?;
    send.finish().ok()
}

async fn refuse<B: Backend>(
    shared: &Shared<B>,
    rejection: &Rejection,
    send: &mut SendStream,
    recv: &mut RecvStream,
) {
    shared.counters.rejected(rejection.reason);
    let response = Response::Error(rejection.error.clone());
    // A client that is gone needs no answer.
    let _ = send.write_chunk(answer::encode(&response)).await;
    let _ = send.finish();
    let _ = recv.stop(CloseCode::Refused.to_varint());
}
