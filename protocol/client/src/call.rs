// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one stream.
//!
//! A [`Call`] owns both directions of its stream, one of the connection's stream permits, and the
//! clock of the request. However it is dropped (answered, failed, or because nobody waits any
//! more), both directions are closed, so that neither end keeps anything. The permit is the last
//! to go, so the server never sees more streams than it allowed.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{Request, Response, encode_frame};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, at_end, read_frame};
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::ClientError;
use crate::link::Link;
use crate::statistics::count;

/// Bytes handed to the transport, or taken from it, at a time; each must move within the
/// time-out for progress.
const STEP_BYTES: usize = 64 << 10;

/// How a call failed before its answer came.
pub(crate) enum Failure {
    /// The connection died or was found dead; a new one may serve.
    Lost(ClientError),
    /// Asking again will not help.
    Final(ClientError),
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(error) | Failure::Final(error) => error,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// For the first sign of life after a request.
    pub(crate) contact: Duration,
    /// Between two signs of progress.
    pub(crate) progress: Duration,
    /// The slowest transfer that is still waited for.
    pub(crate) bytes_per_sec_min: u64,
}

impl Pace {
    /// How long `len` bytes of a body are waited for.
    fn patience(&self, len: u64) -> Duration {
        self.progress.saturating_add(Duration::from_secs(len / self.bytes_per_sec_min))
    }
}

/// A request under way.
pub(crate) struct Call {
    send: SendStream,
    recv: RecvStream,
    link: Arc<Link>,
    /// How much longer the body that was announced is waited for. Pauses of the reader do not
    /// count: the node is not to blame for them.
    patience: Duration,
    received_bytes: u64,
    waited: Duration,
    has_ended: bool,
    // Declared last: fields are dropped in order.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_ended {
            // Either may be closed already, which is what is wanted.
            let _ = self.send.reset(CloseCode::Cancelled.to_varint());
            let _ = self.recv.stop(CloseCode::Cancelled.to_varint());
        }
    }
}

impl Call {
    /// Opens a stream as soon as one is free.
    pub(crate) async fn open(link: Arc<Link>) -> Result<Self, Failure> {
        let limit = link.pace.progress;
        let streams = Arc::clone(&link.streams);
        let permit = timeout(limit, streams.acquire_owned())
            .await
            .map_err(|_| Failure::Final(timed_out(link.node, "finish earlier requests", limit)))?
            .expect("the semaphore of a link is never closed");
        let (send, recv) = timeout(limit, link.connection.open_bi())
            .await
            .map_err(|_| Failure::Lost(timed_out(link.node, "allow another stream", limit)))?
            .map_err(|error| Failure::Lost(unreachable(link.node, &error)))?;
        Ok(Self {
            send,
            recv,
            link,
            patience: Duration::ZERO,
            received_bytes: 0,
            waited: Duration::ZERO,
            has_ended: false,
            _permit: permit,
        })
    }

    /// Whom it was put to.
    pub(crate) fn node(&self) -> NodeId {
        self.link.node
    }

    /// Bytes of body that came, and the time they were waited for.
    pub(crate) fn received(&self) -> (u64, Duration) {
        (self.received_bytes, self.waited)
    }

    /// Sends a request and its body, the pieces one after another, and waits for the frame of
    /// the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        body: &[Bytes],
    ) -> Result<Response, Failure> {
        let frame = encode_frame(request).map_err(|error| {
            Failure::Final(ClientError::BadRequest { node: self.node(), reason: error.to_string() })
        })?;
        count(&self.link.counters.requests);
        self.send_all(frame, body).await?;
        // What the transport has taken may still have most of its way to go.
        let body_bytes = body.iter().map(|piece| piece.len() as u64).sum();
        let by = Instant::now() + self.link.pace.patience(body_bytes);
        let answer = read_frame::<Response>(&mut self.recv);
        match while_alive(answer, self.send.stopped(), &self.link, "answer", by).await? {
            Ok(Response::Error(error)) => {
                Err(Failure::Final(ClientError::Refused { node: self.link.node, error }))
            }
            Ok(response) => Ok(response),
            Err(error) => Err(self.frame_failure(error)),
        }
    }

    /// A node that refuses early stops reading; its answer says why, so that is not an error here.
    async fn send_all(&mut self, frame: Bytes, body: &[Bytes]) -> Result<(), Failure> {
        let body_bytes = body.iter().map(|piece| piece.len() as u64).sum();
        let end = Instant::now() + self.link.pace.patience(body_bytes);
        if !self.send_piece(frame, end).await? {
            return Ok(());
        }
        for piece in body {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                let step = rest.split_to(rest.len().min(STEP_BYTES));
                let sent_bytes = step.len() as u64;
                if !self.send_piece(step, end).await? {
                    return Ok(());
                }
                self.link.counters.body_bytes_sent.fetch_add(sent_bytes, Relaxed);
            }
        }
        // Stopped meanwhile: again the answer tells.
        let _ = self.send.finish();
        Ok(())
    }

    /// Hands one piece to the transport; false when the node wants no more.
    async fn send_piece(&mut self, piece: Bytes, end: Instant) -> Result<bool, Failure> {
        let by = end.min(Instant::now() + self.link.pace.progress);
        let write = self.send.write_chunk(piece);
        match while_alive(write, pending::<()>(), &self.link, "take the request", by).await? {
            Ok(()) => Ok(true),
            Err(WriteError::Stopped(_)) => Ok(false),
            Err(error) => Err(Failure::Lost(unreachable(self.node(), &error))),
        }
    }

    /// Reads the frame of the next answer in a body of several.
    pub(crate) async fn next_frame(&mut self) -> Result<Response, ClientError> {
        let limit = self.link.pace.progress;
        match timeout(limit, read_frame::<Response>(&mut self.recv)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.frame_failure(error).into()),
            Err(_) => Err(timed_out(self.node(), "send the next part", limit)),
        }
    }

    fn frame_failure(&self, error: FrameReadError) -> Failure {
        let node = self.node();
        match error {
            FrameReadError::Read(error @ ReadError::ConnectionLost(_)) => {
                Failure::Lost(unreachable(node, &error))
            }
            FrameReadError::Read(error) => Failure::Final(self.read_failure(error)),
            error @ (FrameReadError::Frame(_) | FrameReadError::Truncated) => {
                Failure::Final(ClientError::Protocol { node, reason: error.to_string() })
            }
        }
    }

    fn read_failure(&self, error: ReadError) -> ClientError {
        let node = self.node();
        match error {
            // A node that cuts a stream may be slow, stopping or broken, but it has not lied.
            ReadError::ConnectionLost(_) | ReadError::Reset(_) => unreachable(node, &error),
            error => ClientError::Protocol { node, reason: error.to_string() },
        }
    }

    /// Announces a body of `len` bytes, a length the caller has checked.
    pub(crate) fn expect_body(&mut self, len: u64) {
        self.patience = self.link.pace.patience(len);
    }

    /// Reads on until `into` has `end` bytes. Memory grows as bytes come. Dropping the future
    /// loses nothing: what came is in `into`.
    pub(crate) async fn fill(
        &mut self,
        into: &mut BytesMut,
        end: usize,
    ) -> Result<(), ClientError> {
        while into.len() < end {
            let had = into.len();
            let limit = self.link.pace.progress;
            let started = Instant::now();
            let step = read_step(&mut self.recv, into, end.min(had.saturating_add(STEP_BYTES)));
            let outcome = timeout_at(started + limit.min(self.patience), step).await;
            let waited = started.elapsed();
            self.waited += waited;
            self.patience = self.patience.saturating_sub(waited);
            let arrived = (into.len() - had) as u64;
            self.received_bytes += arrived;
            self.link.counters.body_bytes_received.fetch_add(arrived, Relaxed);
            match outcome {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    let reason = "the body ended before the length it announced".to_owned();
                    return Err(ClientError::Lied { node: self.node(), what: "length", reason });
                }
                Ok(Err(error)) => return Err(self.read_failure(error)),
                Err(_) => return Err(timed_out(self.node(), "send the body", limit)),
            }
        }
        Ok(())
    }

    /// Confirms that the answer is complete and closes the stream.
    pub(crate) async fn end(mut self) -> Result<(), ClientError> {
        let limit = self.link.pace.progress;
        match timeout(limit, at_end(&mut self.recv)).await {
            Ok(Ok(true)) => {
                self.has_ended = true;
                Ok(())
            }
            Ok(Ok(false)) => {
                let reason = "bytes follow its answer".to_owned();
                Err(ClientError::Protocol { node: self.node(), reason })
            }
            Ok(Err(error)) => Err(self.read_failure(error)),
            Err(_) => Err(timed_out(self.node(), "end its answer", limit)),
        }
    }
}

/// Waits for `work` until `by`, and less long for a node that is gone, or that has acknowledged
/// all and makes no progress then.
///
/// A live node acknowledges what it is sent at once, however long it takes to answer, and what is
/// not acknowledged is sent again and again. So as long as `acknowledged` is not done, a contact
/// time without a single packet means that the connection is dead. It is closed here, so that
/// nobody else waits for it. A quarter more is waited before that verdict, because it may have
/// been this process that stood still, with the packets waiting in its socket.
async fn while_alive<T, A>(
    work: impl Future<Output = T>,
    acknowledged: impl Future<Output = A>,
    link: &Link,
    step: &'static str,
    mut by: Instant,
) -> Result<T, Failure> {
    let (mut work, mut acknowledged) = (std::pin::pin!(work), std::pin::pin!(acknowledged));
    let Pace { contact, progress, .. } = link.pace;
    let mut heard = link.datagrams_received();
    let mut is_suspect = false;
    loop {
        let patience = if is_suspect { contact / 4 } else { contact };
        let check = Instant::now() + patience;
        if check >= by {
            break;
        }
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            _ = &mut acknowledged => {
                by = by.min(Instant::now() + progress);
                break;
            }
            () = sleep_until(check) => {}
        }
        let hears = link.datagrams_received();
        if hears == heard && is_suspect {
            link.connection.close(CloseCode::Deadline.to_varint(), b"no sign of life");
            return Err(Failure::Lost(timed_out(link.node, "acknowledge a request", contact)));
        }
        is_suspect = hears == heard;
        heard = hears;
    }
    timeout_at(by, work).await.map_err(|_| Failure::Final(timed_out(link.node, step, progress)))
}

/// Reads on until `into` has `end` bytes; false when the stream ends before. Everything that is
/// there is copied in one go: each look at a stream takes the lock of its connection, which the
/// connection needs for every packet.
async fn read_step(
    recv: &mut RecvStream,
    into: &mut BytesMut,
    end: usize,
) -> Result<bool, ReadError> {
    while into.len() < end {
        let left = end - into.len();
        let read = recv.read_buf(&mut (&mut *into).limit(left)).await;
        match read.map_err(|error| error.downcast::<ReadError>()) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Ok(error)) => return Err(error),
            Err(Err(_)) => return Err(ReadError::ClosedStream),
        }
    }
    Ok(true)
}

pub(crate) fn unreachable(node: NodeId, error: &dyn std::error::Error) -> ClientError {
    // The transport's errors say "connection lost" and keep the reason in their source.
    let reason = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    ClientError::Unreachable { node, reason }
}

pub(crate) fn timed_out(node: NodeId, step: &'static str, limit: Duration) -> ClientError {
    ClientError::Timeout { node, step, limit }
}
