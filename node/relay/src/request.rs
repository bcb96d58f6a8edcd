// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request: read, admit, act, answer.
//!
//! - Nothing is done before the frame is whole and the request admitted.
//! - Work stops the moment the client gives up on the stream, and at the deadline. Bodies have no
//!   deadline: they must go on, in either direction, or the stream is cut.
//! - The permit is given back before the stream ends, so that a client which waits for the end
//!   and asks again always finds it free.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use supernode_protocol::wire::{ErrorCode, Request, Response, WireError};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, read_frame};
use tokio::time::{Instant, timeout};

use crate::admission::{Client, Permit, Rejection};
use crate::answer::{self, Answer};
use crate::backend::Backend;
use crate::handlers;
use crate::metrics::Reason;
use crate::pace::{Pace, TooSlow};
use crate::server::Shared;

/// Why a request got no answer of its own kind.
pub(crate) enum Fault {
    /// The relay server turned it away.
    Rejected(Rejection),
    /// The node behind it said no.
    Backend(WireError),
    /// The client is gone; there is nobody to answer.
    Gone,
    /// The client does not keep up; it is cut.
    TooSlow,
}

impl From<TooSlow> for Fault {
    fn from(_: TooSlow) -> Self {
        Self::TooSlow
    }
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Backend(error)
    }
}

/// What a stopping node answers.
pub(crate) fn stopping() -> Rejection {
    Rejection::new(Reason::Stopping, ErrorCode::Unavailable, "this node is stopping")
}

/// Serves one stream from its first byte to the acknowledgement of its last.
pub(crate) async fn serve<B: Backend>(
    shared: Arc<Shared<B>>,
    client: Arc<Client>,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    match respond(&shared, &client, &mut send, &mut recv).await {
        Ok(sent_bytes) => {
            let _ = send.finish();
            // Stopping the node waits for this, so that no answer is lost with its connection.
            let pace = Pace::of(&shared.live.get());
            if pace.keep(sent_bytes, send.stopped()).await.is_err() {
                shared.counters.rejected(Reason::TooSlow);
                let _ = send.reset(CloseCode::Deadline.to_varint());
            }
        }
        Err(Fault::TooSlow) => {
            shared.counters.rejected(Reason::TooSlow);
            cut(&mut send, &mut recv, CloseCode::Deadline);
        }
        Err(Fault::Gone) => cut(&mut send, &mut recv, CloseCode::Cancelled),
        // What was met before an answer began was told; in the middle of a body there is no other
        // answer any more.
        Err(Fault::Rejected(Rejection { reason, .. })) => {
            shared.counters.rejected(reason);
            cut(&mut send, &mut recv, CloseCode::Failed);
        }
        Err(Fault::Backend(_)) => cut(&mut send, &mut recv, CloseCode::Failed),
    }
}

/// Reads, admits, acts and answers; returns how many bytes of body went out. The permit is back
/// when it returns.
async fn respond<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<u64, Fault> {
    let frame = timeout(shared.live.get().frame_timeout(), read_frame::<Request>(recv)).await;
    let received = Instant::now();
    let mut permit = None;
    let mut is_read = false;
    let outcome = match frame {
        Ok(Ok(request)) => {
            is_read = matches!(request, Request::GetShard { .. });
            let work = pin!(async {
                permit = Some(admit(shared, client, &request).await?);
                run(shared, client, request, recv).await
            });
            while_wanted(send.stopped(), work).await
        }
        Ok(Err(FrameReadError::Read(_))) => Err(Fault::Gone),
        Ok(Err(error)) => Err(bad_request(error.to_string())),
        Err(_) => Err(too_late("the request's frame did not arrive in time")),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(fault) => Response::Error(told(shared, fault)?).into(),
    };
    // Whatever of the body was not read is not wanted.
    let _ = recv.stop(CloseCode::Refused.to_varint());
    let gone = send.stopped();
    let work = pin!(answer::deliver(shared, client, answer, send));
    let sent_bytes = while_wanted(gone, work).await?;
    if is_read && sent_bytes > 0 {
        shared.counters.retrieved(received.elapsed());
    }
    drop::<Option<Permit>>(permit);
    Ok(sent_bytes)
}

/// What a fault is told as, if there is anybody to tell.
pub(crate) fn told<B>(shared: &Shared<B>, fault: Fault) -> Result<WireError, Fault> {
    match fault {
        Fault::Rejected(Rejection { reason, error }) => {
            shared.counters.rejected(reason);
            Ok(error)
        }
        Fault::Backend(error) => Ok(error),
        Fault::Gone | Fault::TooSlow => Err(fault),
    }
}

async fn admit<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: &Request,
) -> Result<Permit, Rejection> {
    if shared.stopping.is_cancelled() {
        return Err(stopping());
    }
    client.admit(request).await
}

/// Drops `work` when the client no longer reads this stream, or is gone.
///
/// Whoever waits for memory or a rate must notice: a waiting task keeps its connection alive, and
/// with it what others of that connection hold. Work comes pinned, so that it is not moved about.
async fn while_wanted<T>(
    gone: impl Future,
    work: Pin<&mut impl Future<Output = Result<T, Fault>>>,
) -> Result<T, Fault> {
    tokio::select! {
        biased;
        outcome = work => outcome,
        _ = gone => Err(Fault::Gone),
    }
}

async fn run<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: Request,
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    match request {
        // Their bodies take as long as they need; what is behind them has the deadline.
        Request::PutShard { .. }
        | Request::PutBlock { .. }
        | Request::PutMany { .. }
        | Request::Repair { .. } => handlers::handle(shared, client, request, recv).await,
        _ => in_time(shared, handlers::handle(shared, client, request, recv)).await,
    }
}

/// Waits for work of the node itself, as long as a request may take.
pub(crate) async fn in_time<B, T, E: Into<Fault>>(
    shared: &Shared<B>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    let limit = shared.live.get().request_timeout();
    match timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => Err(too_late("the request took too long")),
    }
}

fn cut(send: &mut SendStream, recv: &mut RecvStream, code: CloseCode) {
    // Either may be closed already.
    let _ = send.reset(code.to_varint());
    let _ = recv.stop(code.to_varint());
}

pub(crate) fn bad_request(message: impl Into<String>) -> Fault {
    Rejection::new(Reason::BadRequest, ErrorCode::BadRequest, message).into()
}

fn too_late(message: &str) -> Fault {
    Rejection::new(Reason::Deadline, ErrorCode::Unavailable, message).into()
}
