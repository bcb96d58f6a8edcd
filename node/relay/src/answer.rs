// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers and how they are sent: a frame, and after it bytes that are read while those before
//! them are on their way. Nothing is copied: the transport takes the backend's buffers as they
//! are, at most two pieces of a shard at a time, for each of which memory was claimed before.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use quinn::{SendStream, WriteError};
use supernode_protocol::ids::ShardId;
use supernode_protocol::limits::SHARD_BYTES_MAX;
use supernode_protocol::tree::GROUP_BYTES;
use supernode_protocol::wire::{ByteRange, ErrorCode, Response, Want, WireError, encode_frame};

use crate::admission::{CHUNK_BYTES, Client, Direction, Toll};
use crate::backend::{Backend, PIECE_BYTES, ShardSource};
use crate::pace::{Pace, STEP_BYTES, TooSlow};
use crate::request::{Fault, bad_request, in_time, told};
use crate::server::Shared;

/// Shards of a batch that are opened ahead of the one that is sent.
const OPEN_AHEAD: usize = 8;

/// An answer and what follows its frame.
pub(crate) struct Answer<S> {
    pub(crate) response: Response,
    pub(crate) body: Body<S>,
}

/// What follows a frame.
pub(crate) enum Body<S> {
    Nothing,
    /// Manifest blocks.
    Blocks([Bytes; 2]),
    Shard(ShardBody<S>),
    /// A frame and a body for each.
    Many(Vec<Want>),
}

/// A part of a shard, with its proof.
pub(crate) struct ShardBody<S> {
    proof: Bytes,
    source: S,
    range: ByteRange,
}

impl<S> From<Response> for Answer<S> {
    fn from(response: Response) -> Self {
        Self { response, body: Body::Nothing }
    }
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

/// Opens a shard and says what of it will follow.
pub(crate) async fn open<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    shard: ShardId,
    range: Option<ByteRange>,
) -> Result<(Response, ShardBody<B::Source>), Fault> {
    if let Some(ByteRange { offset, len }) = range {
        let end = offset.checked_add(len).filter(|_| len > 0);
        if end.is_none_or(|end| end > SHARD_BYTES_MAX) {
            return Err(bad_request(format!("no shard has {len} bytes from byte {offset}")));
        }
        // Who is too fast is told so before the disk works for it.
        client.charge(widened_len(offset, len))?;
    }
    let wanted_bytes = range.map_or(SHARD_BYTES_MAX, |range| range.len);
    let source = shared.backend.open_shard(client.node, shard, wanted_bytes).await?;
    let shard_len = source.shard_len();
    let (range, proof) = match range {
        None => {
            client.charge(shard_len)?;
            (ByteRange { offset: 0, len: shard_len }, Bytes::new())
        }
        Some(range) => source.prove(range)?,
    };
    let proof_len = u32::try_from(proof.len()).expect("proofs are a few hundred KiB at most");
    let response = Response::Shard { shard_len, range, proof_len };
    Ok((response, ShardBody { proof, source, range }))
}

/// Bytes of the whole groups that a range touches, as far as can be said without the shard.
fn widened_len(offset: u64, len: u64) -> u64 {
    let group = GROUP_BYTES as u64;
    (offset + len).next_multiple_of(group) - offset / group * group
}

/// Sends an answer to its last byte; returns the bytes of bodies.
///
/// # Errors
/// The client is gone or too slow, or the node failed when the answer had begun.
pub(crate) async fn deliver<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    answer: Answer<B::Source>,
    send: &mut SendStream,
) -> Result<u64, Fault> {
    let pace = Pace::of(&shared.live.get());
    let mut writer = Writer { shared, client, send, pace, sent_bytes: 0 };
    let frame = encode(&answer.response);
    match answer.body {
        Body::Nothing => writer.frame(frame).await?,
        Body::Blocks(blocks) => writer.blocks(frame, blocks).await?,
        Body::Shard(body) => writer.shard(frame, body).await?,
        Body::Many(wants) => {
            writer.frame(frame).await?;
            Box::pin(writer.many(wants)).await?;
        }
    }
    Ok(writer.sent_bytes)
}

/// The sending side of one request.
struct Writer<'a, B> {
    shared: &'a Shared<B>,
    client: &'a Client,
    send: &'a mut SendStream,
    pace: Pace,
    sent_bytes: u64,
}

impl<B: Backend> Writer<'_, B> {
    async fn frame(&mut self, frame: Bytes) -> Result<(), Fault> {
        written(self.pace.keep(0, self.send.write_chunk(frame)).await)
    }

    async fn body(&mut self, toll: &mut Toll<'_>, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let step = bytes.split_to(bytes.len().min(STEP_BYTES));
            let step_bytes = step.len() as u64;
            toll.pay(step_bytes).await;
            written(self.pace.keep(step_bytes, self.send.write_chunk(step)).await)?;
            toll.moved(step_bytes);
            self.sent_bytes += step_bytes;
        }
        Ok(())
    }

    /// Sends what takes the place of an answer whose first bytes are not to be had.
    async fn refusal(&mut self, fault: Fault) -> Result<(), Fault> {
        let error = told(self.shared, fault)?;
        self.frame(encode(&Response::Error(error))).await
    }

    async fn blocks(&mut self, frame: Bytes, blocks: [Bytes; 2]) -> Result<(), Fault> {
        let client = self.client;
        let total = blocks.iter().map(|block| block.len() as u64).sum();
        let mut toll = client.toll(Direction::Egress, total);
        let mut due = Some(frame);
        for mut block in blocks {
            while !block.is_empty() {
                let chunk = block.split_to(block.len().min(CHUNK_BYTES));
                let wait = claim_wait(self.shared, due.is_some());
                let claim = client.claim(chunk.len() as u64, wait).await;
                match (claim, due.take()) {
                    (Ok(claim), frame) => {
                        if let Some(frame) = frame {
                            self.frame(frame).await?;
                        }
                        self.body(&mut toll, claim.wrap(chunk)).await?;
                    }
                    (Err(rejection), Some(_)) => return self.refusal(rejection.into()).await,
                    (Err(rejection), None) => return Err(rejection.into()),
                }
            }
        }
        match due {
            Some(frame) => self.frame(frame).await,
            None => Ok(()),
        }
    }

    /// Sends a frame and a part of a shard, of which a piece is read while the one before it is
    /// sent. The frame waits for the first piece: what cannot be read is an error and no cut.
    async fn shard(&mut self, frame: Bytes, body: ShardBody<B::Source>) -> Result<(), Fault> {
        let ShardBody { proof, source, range } = body;
        let (shared, client) = (self.shared, self.client);
        let mut toll = client.toll(Direction::Egress, range.len + proof.len() as u64);
        let mut rest = range;
        let first = read(shared, client, &source, cut_piece(&mut rest), true).await;
        let mut piece = match first {
            Ok(piece) => piece,
            Err(fault) => return self.refusal(fault).await,
        };
        self.frame(frame).await?;
        self.body(&mut toll, proof).await?;
        while rest.len > 0 {
            let next = read(shared, client, &source, cut_piece(&mut rest), false);
            // A client that is gone is not waited for: what it holds may be what is waited for.
            let ((), next) = tokio::try_join!(self.body(&mut toll, piece), next)?;
            piece = next;
        }
        self.body(&mut toll, piece).await
    }

    /// Sends a frame and its body for each part. Parts are opened ahead of their turn, so that many
    /// small shards do not wait for the disk one after another; they are read when it is theirs.
    async fn many(&mut self, wants: Vec<Want>) -> Result<(), Fault> {
        let (shared, client) = (self.shared, self.client);
        let open = |want: Want| in_time(shared, open(shared, client, want.shard, want.range));
        let mut opened = stream::iter(wants).map(open).buffered(OPEN_AHEAD);
        while let Some(part) = opened.next().await {
            match part {
                Ok((response, body)) => self.shard(encode(&response), body).await?,
                Err(fault) => self.refusal(fault).await?,
            }
        }
        Ok(())
    }
}

/// Reads a piece of a shard into memory that was claimed for it.
async fn read<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    source: &B::Source,
    piece: ByteRange,
    is_first: bool,
) -> Result<Bytes, Fault> {
    let claim = client.claim(piece.len, claim_wait(shared, is_first)).await?;
    let bytes = in_time(shared, source.read(piece)).await?;
    Ok(claim.wrap(bytes))
}

/// How long an answer waits for memory: a client that was answered nothing yet can go elsewhere.
fn claim_wait<B>(shared: &Shared<B>, is_first: bool) -> Duration {
    let config = shared.live.get();
    if is_first { config.queue_wait() } else { config.request_timeout() }
}

/// Takes the next piece off the front of a range.
fn cut_piece(rest: &mut ByteRange) -> ByteRange {
    let piece = ByteRange { offset: rest.offset, len: rest.len.min(PIECE_BYTES) };
    *rest = ByteRange { offset: rest.offset + piece.len, len: rest.len - piece.len };
    piece
}

fn written(outcome: Result<Result<(), WriteError>, TooSlow>) -> Result<(), Fault> {
    outcome?.map_err(|_| Fault::Gone)
}
