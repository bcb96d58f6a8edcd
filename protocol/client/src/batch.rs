// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many parts in one request, in both directions.
//!
//! What is read is streamed: one part is held here at a time, checked like any other read. What
//! is over the limits of a batch is refused here, before anything is sent.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use supernode_protocol::ids::{ShardId, Slot, UploadId};
use supernode_protocol::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX};
use supernode_protocol::wire::{Ack, Part as WirePart, Request, Response};

use crate::call::Call;
use crate::client::{Client, spend, unexpected};
use crate::error::ClientError;
use crate::part::{Part, Wanted};
use crate::peer::Peer;
use crate::statistics::count;
use crate::writes::check_shard_len;

/// One shard of a batch to store.
#[derive(Debug, Clone)]
pub struct PutPart {
    /// Its position.
    pub slot: Slot,
    /// What `bytes` hash to. The node checks it.
    pub shard: ShardId,
    /// The padded bytes.
    pub bytes: Bytes,
}

/// The answers to many wants, in order. Dropping it ends the transfer on both sides.
pub struct BatchReader {
    client: Client,
    peer: Peer,
    /// What is still due; the first one is coming.
    parts: VecDeque<Part>,
    call: Option<Call>,
    /// Whether the call under way verified anything or finished a part.
    has_advanced: bool,
    resumes_left: u32,
    time_left: Duration,
    failure: Option<ClientError>,
}

impl std::fmt::Debug for BatchReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchReader").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads many shards or parts of shards in one request. Nothing is sent before the reader is
    /// asked for the first one.
    ///
    /// # Errors
    /// [`ClientError::BadRequest`] for none or more than
    /// [`BATCH_PARTS_MAX`] wants, and for any that [`Client::read_shard`] would not take.
    pub fn read_many(
        &self,
        peer: &Peer,
        wants: impl IntoIterator<Item = Wanted>,
    ) -> Result<BatchReader, ClientError> {
        let bad = |reason| ClientError::BadRequest { node: peer.node, reason };
        // One more than allowed is enough to know.
        let wants = wants.into_iter().take(BATCH_PARTS_MAX + 1);
        let parts: VecDeque<Part> = wants.map(Part::new).collect::<Result<_, _>>().map_err(bad)?;
        check_count(peer, parts.len())?;
        Ok(BatchReader {
            client: self.clone(),
            peer: peer.clone(),
            parts,
            call: None,
            has_advanced: false,
            resumes_left: self.config().resumes_max,
            time_left: self.deadline(),
            failure: None,
        })
    }

    /// Stores many shards under one upload and says of each, in order, what became of it. Those
    /// that succeeded are as durable as the node's setting says.
    ///
    /// # Errors
    /// [`ClientError::BadRequest`] for none or more than [`BATCH_PARTS_MAX`] parts, for more than
    /// [`BATCH_BYTES_MAX`] bytes in all, and for a part that [`Client::put_shard`] would not take;
    /// otherwise why nothing is known of any part.
    pub async fn put_many(
        &self,
        peer: &Peer,
        upload: UploadId,
        parts: Vec<PutPart>,
    ) -> Result<Vec<Result<Ack, ClientError>>, ClientError> {
        check_count(peer, parts.len())?;
        for part in &parts {
            check_shard_len(peer, part.bytes.len() as u64)?;
        }
        let bytes: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
        if bytes > BATCH_BYTES_MAX {
            let reason = format!("a batch of {bytes} bytes is over the limit of {BATCH_BYTES_MAX}");
            return Err(ClientError::BadRequest { node: peer.node, reason });
        }
        let announced = parts.iter().map(|part| {
            let PutPart { slot, shard, bytes } = part;
            WirePart { slot: *slot, shard: *shard, len: bytes.len() as u64 }
        });
        let request = Request::PutMany { upload, parts: announced.collect() };
        let count = parts.len();
        let body: Vec<Bytes> = parts.into_iter().map(|part| part.bytes).collect();
        let Response::StoredMany { results } = self.ask_plain(peer, &request, &body).await? else {
            return Err(unexpected(peer));
        };
        if results.len() != count {
            let reason = format!("it answers {} parts of a batch of {count}", results.len());
            return Err(ClientError::Protocol { node: peer.node, reason });
        }
        let refused = |error| ClientError::Refused { node: peer.node, error };
        Ok(results.into_iter().map(|result| result.map_err(refused)).collect())
    }
}

impl BatchReader {
    /// The bytes of the next part, verified; nothing after the last one. An error that the node
    /// answered is of that part alone. Any other one ends the batch: every part that is left gets
    /// it. The future may be dropped and asked for anew without losing a part.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        if self.parts.is_empty() {
            return None;
        }
        if self.failure.is_none() {
            let mut time_left = self.time_left;
            let outcome = spend(&mut time_left, self.advance()).await;
            self.time_left = time_left;
            self.failure = Some(match outcome {
                Some(Ok(part)) => return Some(part),
                Some(Err(error)) => error,
                None => self.client.too_late(self.peer.node),
            });
            self.call = None;
        }
        self.parts.pop_front();
        self.failure.clone().map(Err)
    }

    /// The next part, or its own error; an error outside is of the whole batch.
    async fn advance(&mut self) -> Result<Result<Bytes, ClientError>, ClientError> {
        loop {
            let error = match self.step().await {
                Ok(None) => continue,
                Ok(Some(part)) => return Ok(part),
                Err(error) => error,
            };
            self.client.note(&error);
            self.call = None;
            if let Some(part) = self.parts.front_mut() {
                part.interrupt();
            }
            if !error.retryable() || !self.has_advanced || self.resumes_left == 0 {
                return Err(error);
            }
            self.resumes_left -= 1;
            count(&self.client.counters().resumes);
        }
    }

    /// Opens the call, or the next part of its answer, or verifies one more group. Frames are
    /// read with the call taken out: if the future is dropped inside one, the call goes with it
    /// and what is due is asked for again.
    async fn step(&mut self) -> Result<Option<Result<Bytes, ClientError>>, ClientError> {
        let is_last = self.parts.len() == 1;
        let part = self.parts.front_mut().expect("asked for only while a part is due");
        if part.is_complete() {
            if is_last && let Some(call) = self.call.take() {
                self.client.end(call).await?;
            }
            let bytes = part.take();
            self.parts.pop_front();
            return Ok(Some(Ok(bytes)));
        }
        let Some(mut call) = self.call.take() else {
            self.call = Some(self.open().await?);
            return Ok(None);
        };
        if part.has_begun() {
            part.advance(self.call.insert(call)).await?;
            self.has_advanced = true;
            return Ok(None);
        }
        let response = call.next_frame().await?;
        if let Response::Error(error) = response {
            self.parts.pop_front();
            self.has_advanced = true;
            self.call = (!is_last).then_some(call);
            return Ok(Some(Err(ClientError::Refused { node: self.peer.node, error })));
        }
        part.begin(&response, &mut call).await?;
        part.reserve(usize::MAX);
        self.call = Some(call);
        Ok(None)
    }

    async fn open(&mut self) -> Result<Call, ClientError> {
        if let Some(part) = self.parts.front_mut() {
            part.interrupt();
        }
        self.has_advanced = false;
        let wants: Vec<_> = self.parts.iter().map(Part::want).collect();
        let due = u32::try_from(wants.len()).expect("a batch is small");
        let request = Request::GetMany { parts: wants };
        let (call, response) = self.client.ask(&self.peer, &request, &[]).await?;
        match response {
            Response::Many { parts } if parts == due => Ok(call),
            Response::Many { parts } => {
                let reason = format!("it answers {parts} parts of a batch of {due}");
                Err(ClientError::Protocol { node: self.peer.node, reason })
            }
            _ => Err(unexpected(&self.peer)),
        }
    }
}

fn check_count(peer: &Peer, count: usize) -> Result<(), ClientError> {
    if (1..=BATCH_PARTS_MAX).contains(&count) {
        return Ok(());
    }
    let reason = format!("a batch has 1 to {BATCH_PARTS_MAX} parts");
    Err(ClientError::BadRequest { node: peer.node, reason })
}
