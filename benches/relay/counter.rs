// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of the protocol that believes everything: it counts the bytes of answers and drops
//! them. What it cannot do for want of checks, the server has done without them too.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use libp2p_identity::Keypair;
use quinn::{Connection, Endpoint, RecvStream, TokioRuntime};
use supernode_protocol::ids::ShardId;
use supernode_protocol::wire::{Request, Response, encode_frame};
use supernode_tls::frames::read_frame;
use supernode_tls::identity::{SERVER_NAME, client_config};
use supernode_tls::transport::Transport;

use super::raw;
use super::server::NETWORK;

/// A socket of a client at an address of loopback. Must be made on a runtime.
pub fn endpoint(key: &Keypair, address: Ipv4Addr, transport: &Transport) -> Endpoint {
    let bound = transport.bind(SocketAddr::from((address, 0))).expect("a free port of loopback");
    let settings = transport.endpoint(key).expect("an Ed25519 key");
    let mut endpoint = Endpoint::new(settings, None, bound.socket, Arc::new(TokioRuntime))
        .expect("a socket of our own");
    let mut client = client_config(key).expect("an Ed25519 key");
    client.transport_config(Arc::new(transport.to_quinn(0)));
    endpoint.set_default_client_config(client);
    endpoint
}

/// A connection that has said hello.
#[derive(Debug, Clone)]
pub struct Counter {
    connection: Connection,
}

impl Counter {
    /// Connects; `None` when the server does not want that.
    pub async fn connect(endpoint: &Endpoint, server: SocketAddr) -> Option<Self> {
        let connection = endpoint.connect(server, SERVER_NAME).ok()?.await.ok()?;
        let counter = Self { connection };
        let (network, agent) = (NETWORK.to_owned(), "supernode-benches".to_owned());
        match counter.ask(&Request::Hello { network, agent, capability: None }).await? {
            (Response::Welcome { .. }, _) => Some(counter),
            _ => None,
        }
    }

    /// Asks for a shard; the stream that its bytes come from, or `None` when it is not answered
    /// with one.
    pub async fn open(&self, shard: ShardId) -> Option<RecvStream> {
        match self.ask(&Request::GetShard { shard, range: None }).await? {
            (Response::Shard { .. }, recv) => Some(recv),
            _ => None,
        }
    }

    /// Gets a shard of so many bytes.
    pub async fn get(&self, shard: ShardId, len: usize) {
        let mut recv = self.open(shard).await.expect("a shard that is there");
        assert_eq!(raw::count(&mut recv).await, len, "all bytes come");
    }

    /// Whether it can still be used.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    async fn ask(&self, request: &Request) -> Option<(Response, RecvStream)> {
        let (mut send, mut recv) = self.connection.open_bi().await.ok()?;
        send.write_chunk(encode_frame(request).expect("a small request")).await.ok()?;
        send.finish().ok()?;
        let response = read_frame(&mut recv).await.ok()?;
        Some((response, recv))
    }
}
