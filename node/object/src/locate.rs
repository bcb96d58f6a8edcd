// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a CID to the manifest and to the nodes that hold each group.
//!
//! The DHT, the block it may carry and the members already known are asked at the same time; the
//! first answer that hashes to the CID wins. Whoever answers also names the group's holders. None
//! of it is trusted: blocks are hashed, placements are signed hints that reading verifies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use supernode_client::{GroupAnswer, Peer};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::manifest::{GroupSpan, Page, Root};
use supernode_protocol::node_record::NodeRecord;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};

use crate::network::{Directory, HolderError, Holders, peer};
use crate::{GetError, Objects};

/// An object that nobody has shown after so long is reported as not found.
pub const LOCATE_TIMEOUT: Duration = Duration::from_secs(8);
/// Pause between rounds of asking.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// Members asked directly, next to the nodes that the DHT names. A small network is covered whole.
const MEMBERS_ASKED_MAX: usize = 32;
/// Nodes that have not connected within this time are tried after all others.
const PROMPT: Duration = Duration::from_millis(400);

/// An object's root and where its first group is.
pub(crate) struct Located {
    pub(crate) root: Root,
    pub(crate) first: Holding,
}

/// Who holds a group: slot index to node, with addresses.
pub(crate) struct Holding {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) records: BTreeMap<NodeId, NodeRecord>,
    /// Nodes that answered at once; they are asked first.
    pub(crate) prompt: BTreeSet<NodeId>,
    /// What became of the others, once somebody had to ask: node to why it does not answer.
    late: OnceCell<BTreeMap<NodeId, HolderError>>,
}

impl Holding {
    pub(crate) fn peer(&self, node: NodeId) -> Option<Peer> {
        self.records.get(&node).map(peer)
    }

    /// Fails for a node that cannot be reached. Those that did not answer at once are all given
    /// their time together and once, whoever asks: dead nodes cost a group one time-out.
    pub(crate) async fn reach<H: Holders>(
        &self,
        holders: &H,
        node: NodeId,
    ) -> Result<(), HolderError> {
        if self.prompt.contains(&node) {
            return Ok(());
        }
        let connect_rest = || async {
            let rest = self.records.values().filter(|record| !self.prompt.contains(&record.node));
            let peers: Vec<Peer> = rest.map(peer).collect();
            let attempts = join_all(peers.iter().map(|peer| holders.connect(peer))).await;
            let failed = attempts.into_iter().filter_map(Result::err);
            failed.map(|error| (error.node, error)).collect()
        };
        let late = self.late.get_or_init(connect_rest).await;
        late.get(&node).cloned().map_or(Ok(()), Err)
    }
}

/// What asking around for one group found out.
struct Search {
    answer: Option<GroupAnswer>,
    /// Nodes that were said to have it.
    named: BTreeSet<NodeId>,
    detail: String,
}

impl<H: Holders, D: Directory> Objects<H, D> {
    /// Finds an object by its CID alone.
    pub(crate) async fn locate(&self, cid: Cid) -> Result<Located, GetError> {
        let give_up = Instant::now() + self.locate_timeout;
        loop {
            let search = self.search_until(give_up, cid, (cid, 0), &BTreeSet::new()).await;
            if let Some(answer) = search.answer {
                let block = answer.root.unwrap_or_default();
                let root =
                    Root::decode(&block).map_err(|source| GetError::Manifest { cid, source })?;
                let first = self.holding(answer.placement.body_unverified().nodes.clone()).await;
                return Ok(Located { root, first });
            }
            if Instant::now() + ROUND_PAUSE >= give_up {
                let published = self.directory.block(cid).await.is_some();
                return Err(match search.named.len() {
                    0 if !published => GetError::NotFound { cid },
                    holder_count => {
                        GetError::Unreachable { cid, holder_count, detail: search.detail }
                    }
                });
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Page and holders of one group of a located object.
    pub(crate) async fn open_group(
        &self,
        cid: Cid,
        located: &Located,
        span: &GroupSpan,
    ) -> Result<(Page, Option<Holding>), GetError> {
        let Some(page_cid) = span.page else {
            return Ok((located.root.page_0.clone(), None));
        };
        let give_up = Instant::now() + self.locate_timeout;
        loop {
            // A group's holders overlap with the first group's more often than not.
            let hints = located.first.nodes.iter().copied().collect();
            let search = self.search_until(give_up, page_cid, (cid, span.group), &hints).await;
            if let Some(answer) = search.answer {
                let block = answer.page.unwrap_or_default();
                let page = located
                    .root
                    .open_page(span.group, &block)
                    .map_err(|source| GetError::Manifest { cid, source })?;
                let nodes = answer.placement.body_unverified().nodes.clone();
                return Ok((page, Some(self.holding(nodes).await)));
            }
            if Instant::now() + ROUND_PAUSE >= give_up {
                let holder_count = search.named.len();
                return Err(GetError::Unreachable { cid, holder_count, detail: search.detail });
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// One round of asking, cut off at `give_up`: a node that stalls must not hold the rest up.
    async fn search_until(
        &self,
        give_up: Instant,
        key: Cid,
        group: (Cid, u32),
        hints: &BTreeSet<NodeId>,
    ) -> Search {
        let search = timeout_at(give_up, self.search(key, group, hints)).await;
        search.unwrap_or_else(|_| Search {
            answer: None,
            named: hints.clone(),
            detail: "those asked did not answer in time".to_owned(),
        })
    }

    /// Asks everybody who may know a group of an object, which is announced under `key`.
    async fn search(
        &self,
        key: Cid,
        (object, group): (Cid, u32),
        hints: &BTreeSet<NodeId>,
    ) -> Search {
        let (providers, members) =
            futures::join!(self.directory.providers(key), self.directory.members());
        let named: BTreeSet<NodeId> = providers.into_iter().chain(hints.iter().copied()).collect();
        let mut records: BTreeMap<NodeId, NodeRecord> = members
            .into_iter()
            .take(MEMBERS_ASKED_MAX)
            .map(|record| (record.node, record))
            .collect();
        let unknown = named.iter().filter(|node| !records.contains_key(node));
        let found = join_all(unknown.map(|node| self.directory.node(*node))).await;
        records.extend(found.into_iter().flatten().map(|record| (record.node, record)));

        let with_root = group == 0;
        let mut questions: FuturesUnordered<_> = records
            .into_values()
            .map(|record| async move {
                let peer = peer(&record);
                self.holders.group(&peer, object, group, with_root).await
            })
            .collect();
        let mut detail = "no address of them is known".to_owned();
        while let Some(answer) = questions.next().await {
            match answer {
                // The block that was asked for, and not just any: roots are checked on arrival.
                Ok(answer)
                    if answer.root.is_some()
                        || answer.page.as_deref().is_some_and(|page| Cid::of(page) == key) =>
                {
                    return Search { answer: Some(answer), named, detail };
                }
                Ok(_) => {}
                Err(error) if named.contains(&error.node) => detail = error.to_string(),
                Err(_) => {}
            }
        }
        Search { answer: None, named, detail }
    }

    /// Looks up the nodes of a placement and opens connections to all of them at once.
    pub(crate) async fn holding(&self, nodes: Vec<NodeId>) -> Holding {
        let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let lookups = distinct.into_iter().map(|node| async move {
            let record = self.directory.node(node).await?;
            let peer = peer(&record);
            let connect = timeout(PROMPT, self.holders.connect(&peer)).await;
            Some((record, connect.is_ok_and(|outcome| outcome.is_ok())))
        });
        let (records, prompt) = (BTreeMap::new(), BTreeSet::new());
        let mut holding = Holding { nodes, records, prompt, late: OnceCell::new() };
        for (record, prompt) in join_all(lookups).await.into_iter().flatten() {
            if prompt {
                holding.prompt.insert(record.node);
            }
            holding.records.insert(record.node, record);
        }
        holding
    }
}
