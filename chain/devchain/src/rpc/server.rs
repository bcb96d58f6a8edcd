// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets: one accept loop per listener, WebSocket and HTTP on the same port.
//!
//! The server library would accept for us, but then nobody could refuse or cut a connection. Every
//! connection holds one permit until its stream is gone, upgraded to a WebSocket or not.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use jsonrpsee::Methods;
use jsonrpsee::server::middleware::rpc::RpcServiceBuilder;
use jsonrpsee::server::{
    BatchRequestConfig, RandomStringIdProvider, ServerConfig, StopHandle,
    serve_with_graceful_shutdown,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::rpc::faults::{Gate, Guard, RESPONSE_BYTES_MAX};

/// Wait so long after a failed accept; it fails when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Characters of a subscription's name.
const SUBSCRIPTION_ID_CHARS: usize = 16;

/// How much one listener does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Open connections; one more is closed at once. A connection costs some 100 KiB.
    pub connections_max: u32,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection_max: u32,
    /// Requests worked on at a time; further ones wait their turn.
    pub requests_max: usize,
    /// Bytes of one request. A transaction fills at most a block, and is sent as hex.
    pub request_bytes_max: u32,
    /// Answers that wait for a client to read; then the connection is not served further.
    pub answers_max: u32,
    /// Requests in one batch.
    pub batch_max: u32,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            subscriptions_per_connection_max: 1024,
            requests_max: 64,
            request_bytes_max: 12 << 20,
            answers_max: 256,
            batch_max: 64,
        }
    }
}

/// What one listener serves.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) methods: Methods,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: RpcLimits,
    pub(crate) library_stop: StopHandle,
    pub(crate) stopping: CancellationToken,
}

impl Listener {
    /// Accepts until told to stop.
    pub(crate) async fn run(self) {
        let permits = Arc::new(Semaphore::new(self.limits.connections_max as usize));
        loop {
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, &permits),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an RPC connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, permits: &Arc<Semaphore>) {
        let Some(cut) = self.gate.connect() else { return };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "closed an RPC connection: there are too many");
            return;
        };
        // Answers are small and somebody waits for each.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let gate = self.gate.clone();
        let guard_cut = cut.clone();
        let middleware = RpcServiceBuilder::new()
            .layer_fn(move |service| Guard::new(service, gate.clone(), guard_cut.clone()));
        let service = jsonrpsee::server::Server::builder()
            .set_config(self.config())
            .set_rpc_middleware(middleware)
            .to_service_builder()
            .build(self.methods.clone(), self.library_stop.clone());
        let stream = CutStream { stream, cut: Box::pin(cut.cancelled_owned()), _permit: permit };
        let stopped = self.library_stop.clone().shutdown();
        tokio::spawn(async move {
            if let Err(error) = serve_with_graceful_shutdown(stream, service, stopped).await {
                tracing::debug!(%peer, %error, "an RPC connection ended");
            }
        });
    }

    fn config(&self) -> ServerConfig {
        let response_bytes_max = u32::try_from(RESPONSE_BYTES_MAX).expect("it is a small constant");
        ServerConfig::builder()
            .max_request_body_size(self.limits.request_bytes_max)
            .max_response_body_size(response_bytes_max)
            .max_connections(self.limits.connections_max)
            .max_subscriptions_per_connection(self.limits.subscriptions_per_connection_max)
            .set_message_buffer_capacity(self.limits.answers_max)
            .set_batch_request_config(BatchRequestConfig::Limit(self.limits.batch_max))
            .set_id_provider(RandomStringIdProvider::new(SUBSCRIPTION_ID_CHARS))
            .build()
    }
}

/// A stream that breaks when it is told to, whoever holds it.
struct CutStream {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl CutStream {
    /// Ready with an error once the stream is cut; registers for that moment otherwise.
    fn check(&mut self, context: &mut TaskContext<'_>) -> Poll<io::Error> {
        self.cut.as_mut().poll(context).map(|()| io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.check(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.check(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
