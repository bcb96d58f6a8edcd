// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading one stripe: the shards that hold the wanted bytes, or any `k` of them.
//!
//! Equal shards of a stripe (zeros, replicas) are one fetch that fills all their slots. Data
//! shards on nodes that answered promptly come first; each shard that fails or is late ([`Pace`])
//! brings in the next, and whatever comes first is taken. Fetched shards are verified on arrival,
//! reconstructed ones against the manifest.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, FutureExt, select, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use supernode_client::Peer;
use supernode_protocol::erasure::{Code, Wanted, reconstruct};
use supernode_protocol::geometry::{ShardRange, shards_of_range};
use supernode_protocol::ids::{Cid, NodeId, ShardId};
use supernode_protocol::manifest::Stripe;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::pace::{Pace, Size};
use super::slice;
use crate::GetError;
use crate::locate::Holding;
use crate::network::{HolderError, Holders};

/// Reads stripes of one group.
pub(super) struct StripeReader<'a, H> {
    pub(super) holders: &'a H,
    pub(super) cid: Cid,
    pub(super) holding: &'a Holding,
    pub(super) pace: &'a Pace,
}

/// Bytes of a stripe in order.
pub(super) struct StripeBytes {
    pub(super) parts: Vec<Bytes>,
    pub(super) degraded: bool,
}

/// One distinct shard: which slots it fills and who should have it.
struct Source {
    shard: ShardId,
    slots: Vec<usize>,
    peers: Vec<Peer>,
}

/// A shard that is being fetched and not late yet.
struct OnTime {
    shard: ShardId,
    slot_count: usize,
    started: Instant,
}

impl<H: Holders> StripeReader<'_, H> {
    /// Bytes `range` of a stripe.
    pub(super) async fn read(
        &self,
        number: u32,
        stripe: &Stripe,
        range: Range<u64>,
    ) -> Result<StripeBytes, GetError> {
        let whole = pin!(self.read_whole(number, stripe, range.clone()));
        if range == (0..stripe.len) {
            return whole.await;
        }
        let healthy = |parts| StripeBytes { parts, degraded: false };
        let patience = self.pace.patience(Size::Part, range.end - range.start);
        let mut touched = pin!(self.read_touched(stripe, range));
        let in_time = match timeout(patience, &mut touched).await {
            Ok(outcome) => Some(outcome),
            // Whoever has a copy of the only shard is asked for the range itself.
            Err(_) if self.sources(stripe).len() == 1 => Some(touched.as_mut().await),
            Err(_) => None,
        };
        match in_time {
            Some(Ok(parts)) => return Ok(healthy(parts)),
            Some(Err(error)) => {
                debug!(cid = %self.cid, stripe = number, %error,
                    "reading the whole stripe instead of a range");
                return whole.await;
            }
            None => self.pace.count_hedge(),
        }
        match select(touched, whole).await {
            Either::Left((Ok(parts), _)) => Ok(healthy(parts)),
            Either::Left((Err(_), whole)) => whole.await,
            Either::Right((Ok(bytes), _)) => Ok(bytes),
            Either::Right((Err(error), touched)) => touched.await.map(healthy).map_err(|_| error),
        }
    }

    /// Any `k` shards, and of them the bytes that are wanted.
    async fn read_whole(
        &self,
        number: u32,
        stripe: &Stripe,
        range: Range<u64>,
    ) -> Result<StripeBytes, GetError> {
        let mut shards = self.fetch_any(number, stripe).await?;
        let degraded = shards[..stripe.data_count].iter().any(Option::is_none);
        if degraded {
            shards = self.rebuild(number, stripe, shards).await?;
        }
        let parts = shards_of_range(range, stripe.shard_len)
            .map(|part| {
                let shard = shards[part.index].as_ref().expect("all data shards are there now");
                slice(shard, &part.bytes)
            })
            .collect();
        Ok(StripeBytes { parts, degraded })
    }

    /// Only the shards, and of those only the bytes, that a range touches.
    async fn read_touched(&self, stripe: &Stripe, range: Range<u64>) -> Result<Vec<Bytes>, String> {
        let fetches: Vec<BoxFuture<'_, Result<Bytes, String>>> =
            shards_of_range(range, stripe.shard_len)
                .map(|part| self.fetch_part(stripe, part).boxed())
                .collect();
        try_join_all(fetches).await
    }

    async fn fetch_part(&self, stripe: &Stripe, part: ShardRange) -> Result<Bytes, String> {
        let source = self.source(stripe, part.index);
        let (shard, shard_len) = (source.shard, stripe.shard_len);
        let len = part.bytes.end - part.bytes.start;
        let ask = |peer: Peer| {
            let bytes = part.bytes.clone();
            async move { self.holders.shard_range(&peer, shard, shard_len, bytes).await }
        };
        self.fetch(&source, (Size::Part, len), ask).await
    }

    /// Any `k` shards, data shards first: slot index to bytes.
    async fn fetch_any(
        &self,
        number: u32,
        stripe: &Stripe,
    ) -> Result<Vec<Option<Bytes>>, GetError> {
        let mut waiting = self.sources(stripe);
        let mut under_way = FuturesUnordered::new();
        let mut on_time: VecDeque<OnTime> = VecDeque::new();
        let mut shards = vec![None; stripe.width()];
        let mut have = 0;
        let mut detail = "no address of their holders is known".to_owned();
        while have < stripe.data_count {
            let coming = |on_time: &VecDeque<OnTime>| -> usize {
                on_time.iter().map(|fetch| fetch.slot_count).sum()
            };
            while have + coming(&on_time) < stripe.data_count
                && let Some(source) = waiting.pop_front()
            {
                let (shard, slot_count) = (source.shard, source.slots.len());
                on_time.push_back(OnTime { shard, slot_count, started: Instant::now() });
                under_way.push(self.fetch_whole(source, stripe.shard_len));
            }
            let oldest = on_time.front().map(|fetch| fetch.started).unwrap_or_else(Instant::now);
            let late_at = oldest + self.pace.patience(Size::Whole, stripe.shard_len);
            tokio::select! {
                biased;
                fetched = under_way.next() => {
                    let Some((source, outcome)) = fetched else {
                        let (cid, need) = (self.cid, stripe.data_count);
                        let stripe = number;
                        return Err(GetError::NotEnoughShards { cid, stripe, have, need, detail });
                    };
                    on_time.retain(|fetch| fetch.shard != source.shard);
                    match outcome {
                        Ok(bytes) => {
                            have += source.slots.len();
                            let slots = source.slots.into_iter();
                            slots.for_each(|slot| shards[slot] = Some(bytes.clone()));
                        }
                        Err(error) => detail = error,
                    }
                }
                () = sleep_until(late_at), if !on_time.is_empty() && !waiting.is_empty() => {
                    let late = on_time.pop_front().expect("looked at above");
                    debug!(cid = %self.cid, shard = %late.shard, "a shard is late");
                    self.pace.count_hedge();
                }
            }
        }
        Ok(shards)
    }

    async fn fetch_whole(&self, source: Source, shard_len: u64) -> (Source, Result<Bytes, String>) {
        let shard = source.shard;
        let ask = |peer| async move { self.holders.shard(&peer, shard, shard_len).await };
        let outcome = self.fetch(&source, (Size::Whole, shard_len), ask).await;
        (source, outcome)
    }

    /// Asks the shard's peers, another one when one fails or is late; fails with what the last one
    /// said.
    async fn fetch<F>(
        &self,
        source: &Source,
        (size, len): (Size, u64),
        ask: impl Fn(Peer) -> F,
    ) -> Result<Bytes, String>
    where
        F: Future<Output = Result<Bytes, HolderError>>,
    {
        let mut detail = format!("no address of a holder of shard {} is known", source.shard);
        let mut waiting = source.peers.iter();
        let mut asked = FuturesUnordered::new();
        let mut is_late = false;
        loop {
            if let Some(peer) = waiting.next() {
                if is_late {
                    self.pace.count_hedge();
                }
                asked.push(self.ask(peer, (size, len), &ask));
            }
            let late_at = Instant::now() + self.pace.patience(size, len);
            is_late = tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(Ok(bytes)) => return Ok(bytes),
                    Some(Err(error)) => {
                        debug!(shard = %source.shard, %error, "a holder did not deliver");
                        detail = error.to_string();
                        false
                    }
                    None => return Err(detail),
                },
                () = sleep_until(late_at), if waiting.len() > 0 => true,
            };
        }
    }

    async fn ask<F>(
        &self,
        peer: &Peer,
        (size, len): (Size, u64),
        ask: impl Fn(Peer) -> F,
    ) -> Result<Bytes, HolderError>
    where
        F: Future<Output = Result<Bytes, HolderError>>,
    {
        let started = Instant::now();
        let mut answer = pin!(async {
            self.holding.reach(self.holders, peer.node).await?;
            ask(peer.clone()).await
        });
        let answer = match timeout(self.pace.patience(size, len), &mut answer).await {
            Ok(in_time) => in_time,
            Err(_) => {
                self.pace.is_late(peer.node);
                answer.await
            }
        };
        let bytes = answer?;
        self.pace.delivered(peer.node, size, started.elapsed());
        Ok(bytes)
    }

    /// The distinct shards in the order to ask for them: those with a holder that is prompt and not
    /// late before others, data before parity.
    fn sources(&self, stripe: &Stripe) -> VecDeque<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for index in 0..stripe.width() {
            let shard = stripe.shards[index];
            if !stripe.shards[..index].contains(&shard) {
                sources.push(self.source(stripe, index));
            }
        }
        let is_ready =
            |source: &Source| source.peers.first().is_some_and(|peer| self.is_ready(peer.node));
        sources.sort_by_cached_key(|source| !is_ready(source));
        sources.into()
    }

    fn is_ready(&self, node: NodeId) -> bool {
        self.holding.prompt.contains(&node) && !self.pace.was_late(node)
    }

    /// Everything known about the shard at `index`: first the peers that are ready, of these those
    /// that answer soonest, and then those of which that is not known.
    fn source(&self, stripe: &Stripe, index: usize) -> Source {
        let shard = stripe.shards[index];
        let slots: Vec<usize> =
            (0..stripe.width()).filter(|slot| stripe.shards[*slot] == shard).collect();
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in slots.iter().filter_map(|slot| self.holding.nodes.get(*slot)) {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
        nodes.sort_by_cached_key(|node| {
            let latency = self.holders.latency(*node).unwrap_or(Duration::MAX);
            (!self.is_ready(*node), latency)
        });
        let peers = nodes.into_iter().filter_map(|node| self.holding.peer(node)).collect();
        Source { shard, slots, peers }
    }

    /// Makes the missing data shards and checks each against the manifest.
    async fn rebuild(
        &self,
        number: u32,
        stripe: &Stripe,
        mut shards: Vec<Option<Bytes>>,
    ) -> Result<Vec<Option<Bytes>>, GetError> {
        let inconsistent = GetError::Inconsistent { cid: self.cid, stripe: number };
        let ids = stripe.shards[..stripe.data_count].to_vec();
        let Ok(code) = Code::new(stripe.codec, stripe.data_count, stripe.parity_count) else {
            return Err(inconsistent);
        };
        let rebuilt = tokio::task::spawn_blocking(move || {
            let lost: Vec<usize> =
                (0..ids.len()).filter(|index| shards[*index].is_none()).collect();
            reconstruct(code, &mut shards, Wanted::Data).ok()?;
            let holds = |index: &usize| {
                shards[*index].as_ref().is_some_and(|bytes| ShardId::of(bytes) == ids[*index])
            };
            lost.iter().all(holds).then_some(shards)
        });
        rebuilt.await.map_err(|_| GetError::Worker)?.ok_or(inconsistent)
    }
}
