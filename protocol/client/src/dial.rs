// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reaching a node: its addresses in order, the next one as soon as the one before fails or
//! hesitates, the first that proves to be the node wins; then the hello.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::NODE_ADDRESSES_MAX;
use supernode_protocol::wire::{Request, Response, encode_frame};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, read_frame};
use supernode_tls::identity::{SERVER_NAME, peer_of};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::call::{timed_out, unreachable};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::link::Welcome;
use crate::peer::Peer;

/// How long an address may hesitate before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// Characters of a node's agent that are kept.
const AGENT_CHARS_MAX: usize = 128;

/// Connects to `peer` at any of its addresses.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    peer: &Peer,
    limit: Duration,
) -> Result<Connection, ClientError> {
    let mut addresses = peer.addresses.iter().take(NODE_ADDRESSES_MAX).copied();
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    let mut next = addresses.next();
    loop {
        if let Some(address) = next.take() {
            attempts.spawn(attempt(endpoint.clone(), peer.node, address, limit));
        }
        tokio::select! {
            Some(outcome) = attempts.join_next() => match outcome {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(failure)) => failures.push(failure),
                Err(panic) => failures.push(Attempt::Failed(panic.to_string())),
            },
            () = sleep(STAGGER), if addresses.len() > 0 => {}
            else => return Err(summary(peer, failures)),
        }
        next = addresses.next();
    }
}

/// Why one address did not work.
enum Attempt {
    Failed(String),
    WrongPeer(SocketAddr, String),
}

async fn attempt(
    endpoint: Endpoint,
    node: NodeId,
    address: SocketAddr,
    limit: Duration,
) -> Result<Connection, Attempt> {
    let failed = |reason: &dyn std::fmt::Display| Attempt::Failed(format!("{address}: {reason}"));
    let connecting = endpoint.connect(address, SERVER_NAME).map_err(|error| failed(&error))?;
    let connection = timeout(limit, connecting)
        .await
        .map_err(|_| failed(&format_args!("no answer within {limit:?}")))?
        .map_err(|error| failed(&error))?;
    let reason = match peer_of(&connection) {
        Ok(actual) if actual == node => return Ok(connection),
        Ok(actual) => format!("{actual} answers there"),
        Err(error) => error.to_string(),
    };
    connection.close(CloseCode::WrongPeer.to_varint(), b"another node was meant");
    Err(Attempt::WrongPeer(address, reason))
}

fn summary(peer: &Peer, failures: Vec<Attempt>) -> ClientError {
    let node = peer.node;
    if peer.addresses.is_empty() {
        return ClientError::Unreachable { node, reason: "no address of it is known".to_owned() };
    }
    let mut reasons = Vec::new();
    for failure in failures {
        match failure {
            Attempt::WrongPeer(address, reason) => {
                return ClientError::BadPeer { node, address, reason };
            }
            Attempt::Failed(reason) => reasons.push(reason),
        }
    }
    ClientError::Unreachable { node, reason: reasons.join("; ") }
}

/// Opens the conversation on a new connection and checks who the node says it is.
pub(crate) async fn hello(
    connection: &Connection,
    node: NodeId,
    config: &ClientConfig,
) -> Result<Welcome, ClientError> {
    let limit = config.connect_timeout;
    let request = Request::Hello {
        network: config.network.clone(),
        agent: config.agent.clone(),
        capability: config.capability.as_ref().map(|grant| Bytes::from(grant.encode())),
    };
    let response = timeout(limit, ask(connection, node, &request))
        .await
        .map_err(|_| timed_out(node, "answer the hello", limit))??;
    let (record, agent, streams_max) = match response {
        Response::Welcome { node, agent, streams_max } => (*node, agent, streams_max),
        Response::Error(error) => return Err(ClientError::Refused { node, error }),
        _ => return Err(broken(node, "it answers a hello with something else")),
    };
    let lied = |reason: String| ClientError::Lied { node, what: "node record", reason };
    let body = record.verify().map_err(|error| lied(error.to_string()))?;
    body.validate().map_err(|error| lied(error.to_string()))?;
    if body.node != node {
        return Err(lied(format!("it is that of {}", body.node)));
    }
    if body.network != config.network {
        return Err(lied(format!("it is one of network {:?}", body.network)));
    }
    if streams_max == 0 {
        return Err(broken(node, "it allows no streams"));
    }
    let agent = agent.chars().take(AGENT_CHARS_MAX).collect();
    Ok(Welcome { node: record, agent, streams_max })
}

async fn ask(
    connection: &Connection,
    node: NodeId,
    request: &Request,
) -> Result<Response, ClientError> {
    let frame: Bytes = encode_frame(request).map_err(|error| broken(node, error))?;
    let (mut send, mut recv) =
        connection.open_bi().await.map_err(|error| unreachable(node, &error))?;
    // A node that refuses early may have stopped reading; its answer tells why.
    let _ = send.write_chunk(frame).await;
    let _ = send.finish();
    read_frame(&mut recv).await.map_err(|error| match error {
        FrameReadError::Read(error) => unreachable(node, &error),
        error => broken(node, error),
    })
}

fn broken(node: NodeId, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol { node, reason: reason.to_string() }
}
