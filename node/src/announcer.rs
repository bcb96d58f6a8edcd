// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells the DHT which groups this node holds.
//!
//! - Only a few holders of a group announce it: the first `m + 1` distinct nodes of its placement
//!   in an order that all of them compute alike, so that any `m` may vanish and one still speaks.
//! - Group 0 is announced under the object's CID, group `n` under the CID of page `n`. Roots that
//!   are small enough are published as well, so that a reader has the manifest with one lookup.
//! - At the start, and whenever events were missed, the store is paged through and all it holds is
//!   announced again: the announcements of this process are a cache of that truth.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use supernode_dht::{Dht, DhtError, VALUE_BYTES_MAX};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::manifest::{ManifestError, Page, Root};
use supernode_store::{GroupEvent, HeldGroup, Store, StoreError};
use tokio::sync::broadcast::error::RecvError;

/// Announcements on their way at a time. Each waits for a query; the DHT bounds those itself.
const UNDER_WAY_MAX: usize = 32;
/// Groups read from the store at a time. One costs less than 20 KiB.
const PAGE_ENTRIES: usize = 256;

/// Announces what `store` holds until the store closes.
pub struct Announcer {
    store: Store,
    dht: Dht,
    local: NodeId,
    /// Which groups stand behind each key: equal pages of two objects have one CID.
    keys: HashMap<Cid, BTreeSet<(Cid, u32)>>,
}

/// What there is to say about a group.
struct Statement {
    key: Cid,
    root: Option<Bytes>,
}

impl Announcer {
    /// An announcer that has said nothing yet.
    pub fn new(store: Store, dht: Dht) -> Self {
        let local = dht.local();
        Self { store, dht, local, keys: HashMap::new() }
    }

    /// Runs until the store closes.
    ///
    /// # Errors
    /// When the store cannot be read or the DHT has ended.
    pub async fn run(mut self) -> Result<(), String> {
        let mut events = self.store.events();
        self.announce_all().await?;
        let mut under_way = FuturesUnordered::new();
        loop {
            let event = tokio::select! {
                event = events.recv(), if under_way.len() < UNDER_WAY_MAX => event,
                Some(()) = under_way.next() => continue,
            };
            match event {
                Ok(GroupEvent::Committed(held)) => {
                    if let Some(statement) = self.statement(held).await? {
                        under_way.push(announce(self.dht.clone(), statement));
                    }
                }
                Ok(GroupEvent::Released(held)) => self.withdraw(held).await?,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "announcing all groups again after a burst of changes");
                    self.announce_all().await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Goes through the whole store.
    async fn announce_all(&mut self) -> Result<(), String> {
        let mut after = None;
        loop {
            let page = self.store.announcements(after, PAGE_ENTRIES).await;
            let page = page.map_err(|error| error.to_string())?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some((last.object, last.group));
            let mut keys = Vec::new();
            for entry in page {
                let held = HeldGroup { object: entry.object, group: entry.group, page: entry.page };
                if let Some(statement) = self.statement(held).await? {
                    keys.push(statement.key);
                    if let Some(root) = statement.root {
                        let published = self.dht.publish_manifest(statement.key, root).await;
                        note(statement.key, published);
                    }
                }
            }
            match self.dht.announce_stored(keys).await {
                Err(DhtError::Stopped) => return Err(DhtError::Stopped.to_string()),
                Err(error) => tracing::warn!(%error, "not every group held here is announced"),
                Ok(()) => {}
            }
        }
    }

    /// What this node has to say about a group, if it is one of those that speak for it.
    async fn statement(&mut self, held: HeldGroup) -> Result<Option<Statement>, String> {
        let HeldGroup { object, group, page } = held;
        let read = match self.store.group(object, group).await {
            Ok(read) => read,
            Err(error @ StoreError::Stopped { .. }) => return Err(error.to_string()),
            // Released since: nothing to announce.
            Err(StoreError::GroupNotFound { .. }) => return Ok(None),
            // One unreadable group is no reason to be silent about the others.
            Err(error) => {
                tracing::warn!(%object, group, %error, "a group cannot be read to be announced");
                return Ok(None);
            }
        };
        let speaker_count = match speaker_count(&read.root, read.page.as_deref()) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%object, group, %error, "a manifest held here cannot be read");
                return Ok(None);
            }
        };
        let nodes = &read.placement.body_unverified().nodes;
        if !speakers(object, group, nodes, speaker_count).contains(&self.local) {
            return Ok(None);
        }
        let key = page.unwrap_or(object);
        self.keys.entry(key).or_default().insert((object, group));
        let root = (group == 0 && read.root.len() <= VALUE_BYTES_MAX).then_some(read.root);
        Ok(Some(Statement { key, root }))
    }

    async fn withdraw(&mut self, held: HeldGroup) -> Result<(), String> {
        let key = held.page.unwrap_or(held.object);
        if let Some(groups) = self.keys.get_mut(&key) {
            groups.remove(&(held.object, held.group));
            if groups.is_empty() {
                self.keys.remove(&key);
                self.dht.withdraw(key).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

async fn announce(dht: Dht, statement: Statement) {
    let Statement { key, root } = statement;
    let publish = async {
        if let Some(root) = root {
            note(key, dht.publish_manifest(key, root).await);
        }
    };
    let (announced, ()) = futures::join!(dht.announce(key), publish);
    note(key, announced);
}

/// A full table is the operator's business; what nobody took is tried again by the DHT itself.
fn note(key: Cid, outcome: Result<(), DhtError>) {
    match outcome {
        Ok(()) => {}
        Err(error @ DhtError::Full { .. }) => tracing::warn!(%key, %error, "cannot be announced"),
        Err(error) => tracing::debug!(%key, %error, "not announced yet"),
    }
}

/// How many holders of a group speak for it: one more than may be lost. Without stripes any one of
/// them has all of it, so all of them do.
fn speaker_count(root: &[u8], page: Option<&[u8]>) -> Result<usize, ManifestError> {
    let page = match page {
        Some(page) => Page::decode(page)?,
        None => Root::decode(root)?.page_0,
    };
    let losses = page.stripes().map(|stripe| stripe.parity_count).max();
    Ok(losses.map_or(usize::MAX, |losses| losses + 1))
}

/// The first `count` distinct nodes of a placement in rendezvous order for the group.
fn speakers(object: Cid, group: u32, nodes: &[NodeId], count: usize) -> Vec<NodeId> {
    let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
    let mut ranked: Vec<([u8; 32], NodeId)> = distinct
        .into_iter()
        .map(|node| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(object.as_bytes());
            hasher.update(&group.to_le_bytes());
            hasher.update(node.as_bytes());
            (*hasher.finalize().as_bytes(), node)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use supernode_protocol::erasure::Codec;
    use supernode_protocol::ids::{Cid, NodeId, ShardId};
    use supernode_protocol::manifest::{Builder, Extent, Stripe};

    use super::{speaker_count, speakers};

    fn nodes(count: u8) -> Vec<NodeId> {
        (0..count).map(|byte| NodeId::from_bytes([byte; 32])).collect()
    }

    #[test]
    fn every_holder_names_the_same_speakers() {
        let placement = nodes(7);
        let mut doubled: Vec<NodeId> = placement.iter().rev().copied().collect();
        doubled.extend(&placement);
        let object = Cid::of(b"o");
        let speaking = speakers(object, 0, &placement, 5);
        assert_eq!(speaking, speakers(object, 0, &doubled, 5));
        assert_eq!(speaking.len(), 5);
        assert_eq!(speaking.iter().collect::<BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn fewer_holders_than_speakers_all_speak() {
        assert_eq!(speakers(Cid::of(b"o"), 0, &nodes(3), 5).len(), 3);
    }

    #[test]
    fn as_many_speak_as_may_be_lost_and_one_more() {
        let of = |extent| {
            let mut builder = Builder::new();
            builder.push(extent).expect("a valid extent");
            let (_, manifest) = builder.finish([0; 32]).expect("a manifest");
            speaker_count(&manifest.block.bytes, None).expect("its root")
        };
        let stripe = Stripe {
            len: 1,
            codec: Codec::default_for(1, 2),
            data_count: 1,
            parity_count: 2,
            shard_len: 64,
            shards: vec![ShardId::of(b"shard"); 3],
        };
        assert_eq!(of(Extent::Stripe(stripe)), 3);
        let inline = of(Extent::Inline { bytes: Bytes::from_static(b"all of it") });
        assert_eq!(speakers(Cid::of(b"o"), 0, &nodes(14), inline).len(), 14, "any of them will do");
    }

    #[test]
    fn the_work_is_spread_over_groups() {
        let placement = nodes(14);
        let firsts: BTreeSet<NodeId> = (0..64)
            .filter_map(|group| speakers(Cid::of(b"o"), group, &placement, 1).first().copied())
            .collect();
        assert!(firsts.len() > 7, "{} of 14 nodes ever speak", firsts.len());
    }
}
