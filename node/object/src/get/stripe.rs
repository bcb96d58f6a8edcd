// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading one stripe: the shards that hold the wanted bytes, or any `k` of them.
//!
//! Equal shards of a stripe (zeros, replicas) are one fetch that fills all their slots. Data
//! shards on nodes that answered promptly come first; each failure brings in the next shard.
//! Fetched shards are verified on arrival, reconstructed ones against the manifest.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use supernode_client::Peer;
use supernode_protocol::erasure::{Code, Wanted, reconstruct};
use supernode_protocol::geometry::{ShardRange, shards_of_range};
use supernode_protocol::ids::{Cid, NodeId, ShardId};
use supernode_protocol::manifest::Stripe;
use tracing::debug;

use super::slice;
use crate::GetError;
use crate::locate::Holding;
use crate::network::{HolderError, Holders};

/// Reads stripes of one group.
pub(super) struct StripeReader<'a, H> {
    pub(super) holders: &'a H,
    pub(super) cid: Cid,
    pub(super) holding: &'a Holding,
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

impl<H: Holders> StripeReader<'_, H> {
    /// Bytes `range` of a stripe.
    pub(super) async fn read(
        &self,
        number: u32,
        stripe: &Stripe,
        range: Range<u64>,
    ) -> Result<StripeBytes, GetError> {
        if range != (0..stripe.len) {
            match self.read_touched(stripe, range.clone()).await {
                Ok(parts) => return Ok(StripeBytes { parts, degraded: false }),
                Err(error) => debug!(cid = %self.cid, stripe = number, %error,
                    "reading the whole stripe instead of a range"),
            }
        }
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
        let ask = |peer: Peer| {
            let bytes = part.bytes.clone();
            async move { self.holders.shard_range(&peer, shard, shard_len, bytes).await }
        };
        self.fetch(&source, ask).await
    }

    /// Any `k` shards, data shards first: slot index to bytes.
    async fn fetch_any(
        &self,
        number: u32,
        stripe: &Stripe,
    ) -> Result<Vec<Option<Bytes>>, GetError> {
        let mut waiting = self.sources(stripe);
        let mut under_way = FuturesUnordered::new();
        let mut shards = vec![None; stripe.width()];
        let (mut have, mut coming) = (0, 0);
        let mut detail = "no address of their holders is known".to_owned();
        while have < stripe.data_count {
            while have + coming < stripe.data_count
                && let Some(source) = waiting.pop_front()
            {
                coming += source.slots.len();
                under_way.push(async move {
                    let bytes = self
                        .fetch(&source, |peer| async move {
                            self.holders.shard(&peer, source.shard, stripe.shard_len).await
                        })
                        .await;
                    (source.slots, bytes)
                });
            }
            let Some((slots, outcome)) = under_way.next().await else {
                let (cid, need) = (self.cid, stripe.data_count);
                return Err(GetError::NotEnoughShards { cid, stripe: number, have, need, detail });
            };
            coming -= slots.len();
            match outcome {
                Ok(bytes) => {
                    have += slots.len();
                    slots.into_iter().for_each(|slot| shards[slot] = Some(bytes.clone()));
                }
                Err(error) => detail = error,
            }
        }
        Ok(shards)
    }

    /// Asks the shard's peers one after the other; fails with what the last one said.
    async fn fetch<F>(&self, source: &Source, ask: impl Fn(Peer) -> F) -> Result<Bytes, String>
    where
        F: Future<Output = Result<Bytes, HolderError>>,
    {
        let mut detail = format!("no address of a holder of shard {} is known", source.shard);
        for peer in &source.peers {
            let asked = match self.holding.reach(self.holders, peer.node).await {
                Ok(()) => ask(peer.clone()).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    debug!(shard = %source.shard, %error, "a holder did not deliver");
                    detail = error.to_string();
                }
            }
        }
        Err(detail)
    }

    /// The distinct shards in the order to ask for them: prompt holders before others, data
    /// before parity.
    fn sources(&self, stripe: &Stripe) -> VecDeque<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for index in 0..stripe.width() {
            let shard = stripe.shards[index];
            if !stripe.shards[..index].contains(&shard) {
                sources.push(self.source(stripe, index));
            }
        }
        let prompt = |source: &Source| {
            source.peers.first().is_some_and(|peer| self.holding.prompt.contains(&peer.node))
        };
        sources.sort_by_key(|source| !prompt(source));
        sources.into()
    }

    /// Everything known about the shard at `index`, prompt peers first.
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
        nodes.sort_by_key(|node| !self.holding.prompt.contains(node));
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
