// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one stream.
//!
//! A [`Call`] owns both directions of its stream, one of the connection's stream permits, and the
//! clock of the request. However it is dropped (answered, failed, or because nobody waits any
//! more), both directions are closed, so that neither end keeps anything. The permit is the last
//! to go, so the server never sees more streams than it allowed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use supernode_protocol::ids::NodeId;
use supernode_protocol::wire::{Request, Response, encode_frame};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, at_end, read_frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::ClientError;
use crate::link::Link;

/// Bytes handed to the transport, or taken from it, at a time; each must move within the
/// time-out for progress.
const STEP_BYTES: usize = 256 << 10;

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
    /// When a transfer of `len` bytes that starts now must be over.
    fn transfer_end(&self, len: u64) -> Instant {
        Instant::now() + self.progress + Duration::from_secs(len / self.bytes_per_sec_min)
    }
}

/// A request under way.
pub(crate) struct Call {
    send: SendStream,
    recv: RecvStream,
    link: Arc<Link>,
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
        Ok(Self { send, recv, link, has_ended: false, _permit: permit })
    }

    fn node(&self) -> NodeId {
        self.link.node
    }

    /// Sends a request and its body, and waits for the frame of the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        body: Bytes,
    ) -> Result<Response, Failure> {
        let frame = encode_frame(request).map_err(|error| {
            Failure::Final(ClientError::BadRequest { node: self.node(), reason: error.to_string() })
        })?;
        self.send_all(frame, body).await?;
        let by = Instant::now() + self.link.pace.progress;
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
    async fn send_all(&mut self, frame: Bytes, mut body: Bytes) -> Result<(), Failure> {
        let end = self.link.pace.transfer_end(body.len() as u64);
        let mut piece = frame;
        loop {
            let by = end.min(Instant::now() + self.link.pace.progress);
            let write = self.send.write_chunk(piece);
            match while_alive(write, pending::<()>(), &self.link, "take the request", by).await? {
                Ok(()) => {}
                Err(WriteError::Stopped(_)) => return Ok(()),
                Err(error) => return Err(Failure::Lost(unreachable(self.node(), &error))),
            }
            if body.is_empty() {
                break;
            }
            piece = body.split_to(body.len().min(STEP_BYTES));
        }
        // Stopped meanwhile: again the answer tells.
        let _ = self.send.finish();
        Ok(())
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
        let given_up = [CloseCode::Deadline, CloseCode::Stopping].map(CloseCode::to_varint);
        match error {
            ReadError::ConnectionLost(_) => unreachable(node, &error),
            ReadError::Reset(code) if given_up.contains(&code) => unreachable(node, &error),
            error => ClientError::Protocol { node, reason: error.to_string() },
        }
    }

    /// Starts reading a body of `len` bytes, a length the caller has checked.
    pub(crate) fn body(&mut self, len: u64) -> Body<'_> {
        let end = self.link.pace.transfer_end(len);
        Body { call: self, end }
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

/// Waits for `work` until `by`, and less long for a node that is gone.
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
    by: Instant,
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
            _ = &mut acknowledged => break,
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

/// The body of an answer, read in order.
pub(crate) struct Body<'a> {
    call: &'a mut Call,
    end: Instant,
}

impl Body<'_> {
    /// Reads exactly `len` further bytes onto the end of `into`. Memory grows as bytes come.
    pub(crate) async fn append(
        &mut self,
        into: &mut BytesMut,
        len: usize,
    ) -> Result<(), ClientError> {
        let mut missing = len;
        while missing > 0 {
            let chunk = self.chunk(missing).await?;
            into.extend_from_slice(&chunk);
            missing -= chunk.len();
        }
        Ok(())
    }

    async fn chunk(&mut self, bytes_max: usize) -> Result<Bytes, ClientError> {
        let limit = self.call.link.pace.progress;
        let by = (Instant::now() + limit).min(self.end);
        let node = self.call.node();
        match timeout_at(by, self.call.recv.read_chunk(bytes_max.min(STEP_BYTES), true)).await {
            Ok(Ok(Some(chunk))) => Ok(chunk.bytes),
            Ok(Ok(None)) => Err(ClientError::Lied {
                node,
                what: "length",
                reason: "the body ended before the length it announced".to_owned(),
            }),
            Ok(Err(error)) => Err(self.call.read_failure(error)),
            Err(_) => Err(timed_out(node, "send the body", limit)),
        }
    }
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
