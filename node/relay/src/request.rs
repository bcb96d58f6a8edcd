// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request: read, admit, act, answer.
//!
//! - Nothing is done before the frame is whole and the request admitted.
//! - Work stops the moment the client gives up on the stream, and at the deadline.
//! - The permit is given back before the stream ends, so that a client which waits for the end
//!   and asks again always finds it free.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use supernode_protocol::wire::{ErrorCode, Request, Response, WireError, encode_frame};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, read_frame};
use tokio::time::{Instant, timeout};

use crate::admission::{Client, Permit, Rejection};
use crate::backend::Backend;
use crate::handlers;
use crate::metrics::{Reason, RequestKind};
use crate::server::Shared;

/// An answer and the bytes that follow its frame.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) body: [Bytes; 2],
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, body: [Bytes::new(), Bytes::new()] }
    }
}

/// Why a request got no answer of its own kind.
pub(crate) enum Fault {
    /// The relay server turned it away.
    Rejected(Rejection),
    /// The node behind it said no.
    Backend(WireError),
    /// The client is gone; there is nobody to answer.
    Gone,
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

/// The frame of a response. Listings are cut to fit before they get here; should one slip
/// through, the client is told instead of left waiting.
pub(crate) fn encode(response: &Response) -> Bytes {
    encode_frame(response).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer does not fit a frame");
        let error = WireError {
            code: ErrorCode::Internal,
            message: "the answer does not fit a frame".to_owned(),
            retry_after_ms: None,
        };
        encode_frame(&Response::Error(error)).expect("one short sentence fits")
    })
}

/// Serves one stream from its first byte to the acknowledgement of its last.
pub(crate) async fn serve<B: Backend>(
    shared: Arc<Shared<B>>,
    client: Arc<Client>,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let frame = timeout(shared.config.frame_timeout(), read_frame::<Request>(&mut recv)).await;
    let received = Instant::now();
    let request = match frame {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(FrameReadError::Read(_))) => Err(Fault::Gone),
        Ok(Err(error)) => Err(bad_request(error.to_string())),
        Err(_) => Err(too_slow("the request's frame did not arrive in time")),
    };
    let mut permit = None;
    let is_read = matches!(request, Ok(Request::GetShard { .. }));
    let outcome = match request {
        Ok(request) => match admit(&shared, &client, &request) {
            Ok(admitted) => {
                permit = Some(admitted);
                while_wanted(&send, run(&shared, &client, request, &mut recv)).await
            }
            Err(rejection) => Err(rejection.into()),
        },
        Err(fault) => Err(fault),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Fault::Gone) => return cut(&mut send, &mut recv, CloseCode::Cancelled),
        Err(Fault::Rejected(Rejection { reason, error })) => {
            shared.counters.rejected(reason);
            Response::Error(error).into()
        }
        Err(Fault::Backend(error)) => Response::Error(error).into(),
    };
    // Whatever of the body was not read is not wanted.
    let _ = recv.stop(CloseCode::Refused.to_varint());
    let is_error = matches!(answer.response, Response::Error(_));
    if !deliver(&shared, answer, &mut send).await {
        return cut(&mut send, &mut recv, CloseCode::Deadline);
    }
    if is_read && !is_error {
        shared.counters.retrieved(received.elapsed());
    }
    drop::<Option<Permit>>(permit);
    let _ = send.finish();
    // Stopping the node waits for this, so that no answer is lost with its connection.
    let _ = timeout(shared.config.request_timeout(0), send.stopped()).await;
}

fn admit<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: &Request,
) -> Result<Permit, Rejection> {
    if shared.stopping.is_cancelled() {
        return Err(stopping());
    }
    client.admit(RequestKind::of(request))
}

/// Drops `work` when the client no longer reads this stream, or is gone.
async fn while_wanted(
    send: &SendStream,
    work: impl Future<Output = Result<Answer, Fault>>,
) -> Result<Answer, Fault> {
    tokio::select! {
        outcome = work => outcome,
        _ = send.stopped() => Err(Fault::Gone),
    }
}

async fn run<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: Request,
    recv: &mut RecvStream,
) -> Result<Answer, Fault> {
    let body_len = match &request {
        Request::PutShard { len, .. } | Request::PutBlock { len, .. } => *len,
        _ => 0,
    };
    let limit = shared.config.request_timeout(body_len);
    timeout(limit, handlers::handle(shared, client, request, recv))
        .await
        .unwrap_or_else(|_| Err(too_slow("the request took too long")))
}

/// Writes an answer; false when the client is too slow or gone.
async fn deliver<B: Backend>(shared: &Shared<B>, answer: Answer, send: &mut SendStream) -> bool {
    let Answer { response, body: [first, second] } = answer;
    let body_len = (first.len() + second.len()) as u64;
    // The transport takes the buffers as they are; nothing is copied here.
    let mut pieces = [encode(&response), first, second];
    let limit = shared.config.request_timeout(body_len);
    match timeout(limit, send.write_all_chunks(&mut pieces)).await {
        Ok(Ok(())) => {
            shared.counters.body_bytes_sent.fetch_add(body_len, Relaxed);
            true
        }
        Ok(Err(_)) => false,
        Err(_) => {
            shared.counters.rejected(Reason::Deadline);
            false
        }
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

fn too_slow(message: &str) -> Fault {
    Rejection::new(Reason::Deadline, ErrorCode::Unavailable, message).into()
}
