// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hedged reads: one more holder is asked when the ones before take unusually long.
//!
//! The first holder whose first group is verified wins; the calls to the others are dropped,
//! which ends them on both sides. Holders that failed are out, the rest stay in reserve for the
//! winner's reader.

use std::collections::VecDeque;
use std::time::Duration;

use supernode_protocol::wire::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, spend};
use crate::error::ClientError;
use crate::part::Wanted;
use crate::peer::Peer;
use crate::reader::ShardReader;
use crate::statistics::count;

/// How long a holder has when nothing is known about how long it usually takes.
const AFTER_UNKNOWN: Duration = Duration::from_millis(100);

/// Whom to ask, and how soon the next one.
#[derive(Debug, Clone, Copy)]
pub struct Hedge<'a> {
    /// Holders of the shard in the order of preference; those that are busy or failed lately are
    /// asked last. There are at most as many requests at a time as there are holders here.
    pub holders: &'a [Peer],
    /// How long a holder may take before the next one is asked beside it. Without it: as long as
    /// 19 of 20 of that holder's recent answers took.
    pub after: Option<Duration>,
}

type Outcome = Result<ShardReader, ClientError>;

/// Holders that are being asked, and those that are not yet.
struct Race<'a> {
    client: &'a Client,
    wanted: Wanted,
    after: Option<Duration>,
    waiting: VecDeque<Peer>,
    asked: Vec<Peer>,
    racers: JoinSet<(Peer, bool, Outcome)>,
    next_at: Instant,
}

impl Client {
    /// Reads from whichever of several holders answers first.
    ///
    /// # Errors
    /// As [`Client::read_shard`]; if no holder serves, the error of the last one that failed.
    pub async fn read_hedged(
        &self,
        hedge: Hedge<'_>,
        wanted: Wanted,
    ) -> Result<ShardReader, ClientError> {
        // Judges the request and puts the holders in order.
        let waiting = self.read_shard(hedge.holders, wanted.clone())?.into_holders();
        let first = waiting.front().expect("a reader has a holder").node;
        let race = Race {
            client: self,
            wanted,
            after: hedge.after,
            waiting,
            asked: Vec::new(),
            racers: JoinSet::new(),
            next_at: Instant::now(),
        };
        let mut time_left = self.deadline();
        let outcome = spend(&mut time_left, race.run()).await;
        let mut reader = outcome.unwrap_or_else(|| Err(self.too_late(first)))?;
        reader.time_left = time_left;
        reader.busy_left = self.busy_wait_max();
        Ok(reader)
    }
}

impl Race<'_> {
    async fn run(mut self) -> Result<ShardReader, ClientError> {
        let mut busy = Vec::new();
        self.ask_next(false)?;
        loop {
            let failure = tokio::select! {
                biased;
                Some(outcome) = self.racers.join_next() => match outcome {
                    Ok((winner, is_hedge, Ok(reader))) => {
                        return Ok(self.won(&winner, is_hedge, reader));
                    }
                    Ok((loser, _, Err(error))) => {
                        self.asked.retain(|peer| peer.node != loser.node);
                        if error.code() == Some(ErrorCode::Busy) {
                            busy.push(loser);
                        }
                        error
                    }
                    Err(panic) => ClientError::Setup { reason: panic.to_string() },
                },
                () = sleep_until(self.next_at), if !self.waiting.is_empty() => {
                    self.ask_next(true)?;
                    continue;
                }
            };
            // Somebody failed: the next one is asked at once, in its place.
            if !self.waiting.is_empty() {
                self.ask_next(false)?;
            } else if self.racers.is_empty() {
                if busy.is_empty() {
                    return Err(failure);
                }
                return self.client.read_shard(&busy, self.wanted);
            }
        }
    }

    fn ask_next(&mut self, is_hedge: bool) -> Result<(), ClientError> {
        let Some(peer) = self.waiting.pop_front() else { return Ok(()) };
        if is_hedge {
            count(&self.client.counters().hedges);
        }
        let usual = || self.client.health(peer.node).first_byte_p95.unwrap_or(AFTER_UNKNOWN);
        self.next_at = Instant::now() + self.after.unwrap_or_else(usual);
        self.asked.push(peer.clone());
        let alone = std::slice::from_ref(&peer);
        let mut reader = self.client.read_shard(alone, self.wanted.clone())?;
        // Others may serve while a busy one is waited for.
        reader.busy_left = Duration::ZERO;
        self.racers.spawn(async move {
            let outcome = reader.prime().await.map(|()| reader);
            (peer, is_hedge, outcome)
        });
        Ok(())
    }

    fn won(mut self, winner: &Peer, is_hedge: bool, mut reader: ShardReader) -> ShardReader {
        if is_hedge {
            count(&self.client.counters().hedges_won);
        }
        self.asked.retain(|peer| peer.node != winner.node);
        self.asked.extend(self.waiting);
        reader.add_holders(&self.asked);
        reader
    }
}
