// SPDX-License-Identifier: MIT OR Apache-2.0
//! Streaming reads: verified bytes in order, from one holder after another if need be.
//!
//! - Bytes are handed out only after they were checked, 16 KiB at a time; a lie is found in the
//!   group it is told in.
//! - At most one batch is held here, and the transport's window holds back the rest: who does not
//!   read is not sent more.
//! - A transfer that is cut goes on from the last verified group. A holder is asked again only if
//!   it got further the time before, and never after a lie.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use supernode_protocol::wire::{ErrorCode, Request};
use tokio::time::{Instant, sleep_until};

use crate::call::Call;
use crate::client::{Client, jittered, spend};
use crate::error::ClientError;
use crate::part::{BATCH_BYTES, Part, Wanted};
use crate::peer::Peer;
use crate::statistics::count;

/// A read under way. Dropping it ends the transfer on both sides.
pub struct ShardReader {
    client: Client,
    /// Whom to ask; the first one is being asked.
    holders: VecDeque<Peer>,
    part: Part,
    call: Option<Call>,
    /// Whether the call under way verified anything.
    has_advanced: bool,
    resumes_left: u32,
    /// All holders that are left are busy until then.
    paused_until: Option<Instant>,
    /// How much longer busy holders are waited for.
    pub(crate) busy_left: Duration,
    /// What is left of the deadline.
    pub(crate) time_left: Duration,
    failure: Option<ClientError>,
}

impl std::fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardReader").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts to read from the first of `holders` that serves; the others take over when it
    /// fails. Holders that are busy or failed lately are asked last. Nothing is sent before the
    /// reader is asked for bytes.
    ///
    /// # Errors
    /// [`ClientError::BadRequest`] for bytes that are not within the shard, or a shard over the
    /// limit; [`ClientError::Setup`] without a holder.
    pub fn read_shard(&self, holders: &[Peer], wanted: Wanted) -> Result<ShardReader, ClientError> {
        let Some(first) = holders.first() else {
            return Err(ClientError::Setup { reason: "no holder is known".to_owned() });
        };
        let part = Part::new(wanted)
            .map_err(|reason| ClientError::BadRequest { node: first.node, reason })?;
        let mut reader = ShardReader {
            client: self.clone(),
            holders: VecDeque::new(),
            part,
            call: None,
            has_advanced: false,
            resumes_left: self.config().resumes_max,
            paused_until: None,
            busy_left: self.busy_wait_max(),
            time_left: self.deadline(),
            failure: None,
        };
        reader.add_holders(holders);
        Ok(reader)
    }
}

impl ShardReader {
    /// The next verified bytes, in order; nothing once all that was wanted has come. The future
    /// may be dropped and asked for anew without losing a byte.
    ///
    /// # Errors
    /// Any [`ClientError`], of the last holder that was asked. What was verified before it is
    /// handed out first. A reader that failed has ended and keeps saying so.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.fill(BATCH_BYTES).await?;
        let bytes = self.part.take();
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// All bytes that are still to come, in one piece.
    ///
    /// # Errors
    /// As [`ShardReader::next`]; nothing is handed out then.
    pub async fn rest(mut self) -> Result<Bytes, ClientError> {
        self.fill(usize::MAX).await?;
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(self.part.take()),
        }
    }

    /// Verifies the first group, so that it is known that the holder serves.
    pub(crate) async fn prime(&mut self) -> Result<(), ClientError> {
        self.fill(1).await
    }

    /// Whom it would ask, in this order.
    pub(crate) fn into_holders(self) -> VecDeque<Peer> {
        self.holders
    }

    /// More holders to fall back on, the ready ones first.
    pub(crate) fn add_holders(&mut self, holders: &[Peer]) {
        let is_ready = |peer: &&Peer| self.client.health(peer.node).is_ready();
        let (ready, others): (Vec<_>, Vec<_>) = holders.iter().partition(is_ready);
        self.holders.extend(ready.into_iter().chain(others).cloned());
    }

    /// Waits until `bytes_min` bytes are verified or none are left to come. An error is kept for
    /// later if there is something to hand out before it.
    async fn fill(&mut self, bytes_min: usize) -> Result<(), ClientError> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        self.part.reserve(bytes_min.max(BATCH_BYTES));
        let mut time_left = self.time_left;
        let outcome = spend(&mut time_left, self.advance(bytes_min)).await;
        self.time_left = time_left;
        let error = match outcome {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => error,
            None => {
                let holder = self.holders.front().expect("the one that was waited for");
                self.client.too_late(holder.node)
            }
        };
        self.call = None;
        self.part.interrupt();
        self.failure = Some(error.clone());
        if self.part.verified_bytes() > 0 { Ok(()) } else { Err(error) }
    }

    async fn advance(&mut self, bytes_min: usize) -> Result<(), ClientError> {
        loop {
            let is_enough = self.part.verified_bytes() >= bytes_min || self.part.is_complete();
            // A call that is not over yet ends with the part.
            if is_enough && !(self.part.is_complete() && self.call.is_some()) {
                return Ok(());
            }
            if let Err(error) = self.step().await {
                self.recover(error)?;
            }
        }
    }

    /// Opens a call, or verifies one more group, or ends the call.
    async fn step(&mut self) -> Result<(), ClientError> {
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
            count(&self.client.counters().retries);
        }
        let Some(call) = &mut self.call else {
            let holder = self.holders.front().expect("the last one is never taken out");
            let want = self.part.want();
            let request = Request::GetShard { shard: want.shard, range: want.range };
            self.has_advanced = false;
            let (mut call, response) = self.client.ask_once(holder, &request, &[]).await?;
            self.part.begin(&response, &mut call).await?;
            self.call = Some(call);
            return Ok(());
        };
        if self.part.is_complete() {
            let call = self.call.take().expect("looked at above");
            return self.client.end(call).await;
        }
        self.part.advance(call).await?;
        self.has_advanced = true;
        Ok(())
    }

    /// Chooses who is asked next after a failure, or gives up with it.
    fn recover(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.client.note(&error);
        self.call = None;
        self.part.interrupt();
        if self.part.is_complete() {
            // Only the end of the answer was missing; whether it is lost or wrong matters.
            return if error.retryable() { Ok(()) } else { Err(error) };
        }
        let is_busy = error.code() == Some(ErrorCode::Busy);
        let failed = self.holders.pop_front().expect("the one that was asked");
        if is_busy || (error.retryable() && self.has_advanced && self.resumes_left > 0) {
            self.holders.push_back(failed);
        }
        if self.holders.is_empty() {
            return Err(error);
        }
        if self.part.has_progress() {
            count(&self.client.counters().resumes);
        }
        if is_busy {
            return self.choose_least_busy(error);
        }
        self.resumes_left = self.resumes_left.saturating_sub(1);
        Ok(())
    }

    /// Puts the holder first that is soonest to serve; waits for it if it is busy too.
    fn choose_least_busy(&mut self, error: ClientError) -> Result<(), ClientError> {
        let busy_for = |holder: &Peer| self.client.health(holder.node).busy_for;
        let soonest = self.holders.iter().enumerate().min_by_key(|(_, holder)| busy_for(holder));
        let (place, wait) = soonest
            .map(|(place, holder)| (place, busy_for(holder)))
            .expect("the holder that is busy was kept");
        self.holders.rotate_left(place);
        if wait.is_zero() {
            return Ok(());
        }
        let pause = jittered(wait);
        if pause > self.busy_left {
            return Err(error);
        }
        self.busy_left -= pause;
        self.paused_until = Some(Instant::now() + pause);
        Ok(())
    }
}
