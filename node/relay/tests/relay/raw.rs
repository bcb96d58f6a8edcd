// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that sends whatever bytes it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TokioRuntime};
use supernode_client::{Keypair, Transport};
use supernode_protocol::wire::{Request, Response, encode_frame};
use supernode_tls::frames::read_frame;
use supernode_tls::identity::{SERVER_NAME, client_config};

use crate::setup::{NETWORK, Setup, loopback};

pub struct Raw {
    pub connection: Connection,
    _endpoint: Endpoint,
}

impl Raw {
    /// A connection that has not said hello.
    pub async fn connect(setup: &Setup, key: &Keypair) -> Self {
        let from = loopback(0);
        let dialled = Self::dial(setup.relay.local_addr(), key, from, &Transport::default()).await;
        dialled.expect("a handshake")
    }

    /// The same from any address of loopback, to any server, with windows of any size.
    pub async fn dial(
        to: SocketAddr,
        key: &Keypair,
        from: SocketAddr,
        transport: &Transport,
    ) -> Result<Self, ConnectionError> {
        let mut client = client_config(key).expect("Ed25519");
        client.transport_config(Arc::new(transport.to_quinn(0)));
        let socket = transport.bind(from).expect("a free port").socket;
        let settings = transport.endpoint(key).expect("Ed25519");
        let endpoint =
            Endpoint::new(settings, None, socket, Arc::new(TokioRuntime)).expect("on a runtime");
        let connecting = endpoint.connect_with(client, to, SERVER_NAME).expect("a valid address");
        Ok(Self { connection: connecting.await?, _endpoint: endpoint })
    }

    /// Says hello on a connection that has not yet.
    pub async fn greet(self) -> Self {
        let response = self.ask(&hello(NETWORK), &[]).await;
        assert!(matches!(response, Response::Welcome { .. }), "{response:?}");
        self
    }

    /// The answer to a hello with a capability, on a new connection.
    pub async fn showing(setup: &Setup, key: &Keypair, capability: Vec<u8>) -> (Self, Response) {
        let raw = Self::connect(setup, key).await;
        let hello = Request::Hello {
            network: NETWORK.to_owned(),
            agent: "raw".to_owned(),
            capability: Some(capability.into()),
        };
        let response = raw.ask(&hello, &[]).await;
        (raw, response)
    }

    /// A connection on which requests are answered.
    pub async fn greeted(setup: &Setup, key: &Keypair) -> Self {
        Self::connect(setup, key).await.greet().await
    }

    pub async fn open(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.connection.open_bi().await.expect("a free stream");
        // The server may stop reading in the middle; what it answers is what counts.
        let _ = send.write_all(bytes).await;
        (send, recv)
    }

    /// Sends bytes and the end of the stream, and leaves the answer unread.
    pub async fn open_whole(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.open(bytes).await;
        let _ = send.finish();
        (send, recv)
    }

    /// Sends bytes and the end of the stream, and reads the answer's frame.
    pub async fn send(&self, bytes: &[u8]) -> Response {
        let (_send, mut recv) = self.open_whole(bytes).await;
        read_frame(&mut recv).await.expect("an answer")
    }

    pub async fn ask(&self, request: &Request, body: &[u8]) -> Response {
        self.send(&message(request, body)).await
    }
}

pub fn message(request: &Request, body: &[u8]) -> Vec<u8> {
    let frame: Bytes = encode_frame(request).expect("a short frame");
    [&frame[..], body].concat()
}

pub fn hello(network: &str) -> Request {
    Request::Hello { network: network.to_owned(), agent: "raw".to_owned(), capability: None }
}
