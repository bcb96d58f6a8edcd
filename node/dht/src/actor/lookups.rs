// SPDX-License-Identifier: MIT OR Apache-2.0
//! Queries under way: for callers, for the member table, for publications, for walks.
//!
//! Answers are checked like arriving records; a false one is counted and passed over. A query ends
//! as soon as its question is answered: a manifest with the first true block, a node record with
//! the one its node gives itself. A node record from others may be old, so a better one is waited
//! for a little while.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::kad::{
    self, GetProvidersOk, GetRecordError, GetRecordOk, PeerRecord, QueryId, QueryResult,
};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use tokio::sync::mpsc;

use crate::actor::{Actor, answer};
use crate::admission;
use crate::error::DhtError;
use crate::handle::Reply;
use crate::keys::{content_key, node_key, node_of};
use crate::schedule::{Item, Outcome};

/// Lookups for the member table at the same time; they take no room of callers.
const MEMBER_LOOKUPS_MAX: usize = 8;
/// How long a better node record is waited for.
const NODE_SETTLE: Duration = Duration::from_millis(750);

type NodeReply = Reply<Option<Signed<NodeRecord>>>;

enum Purpose {
    Providers { cid: Cid, sink: mpsc::Sender<Result<NodeId, DhtError>>, found: HashSet<NodeId> },
    Manifest { cid: Cid, reply: Option<Reply<Option<Bytes>>> },
    Node { node: NodeId, best: Option<Signed<NodeRecord>>, reply: Option<NodeReply> },
    Publication { item: Item, reach: usize },
    Walk,
}

/// All queries under way.
#[derive(Default)]
pub(super) struct Lookups {
    queries: HashMap<QueryId, Purpose>,
    settling: Vec<(Instant, QueryId)>,
    callers: usize,
    members: usize,
    publications: usize,
}

impl Lookups {
    /// Lookups of callers.
    pub(super) fn running(&self) -> usize {
        self.callers
    }

    pub(super) fn publications(&self) -> usize {
        self.publications
    }

    pub(super) fn publish(&mut self, id: QueryId, item: Item, reach: usize) {
        self.insert(id, Purpose::Publication { item, reach });
    }

    pub(super) fn walk(&mut self, id: QueryId) {
        self.insert(id, Purpose::Walk);
    }

    fn insert(&mut self, id: QueryId, purpose: Purpose) {
        if let Some(count) = self.count_of(&purpose) {
            *count += 1;
        }
        self.queries.insert(id, purpose);
    }

    fn count_of(&mut self, purpose: &Purpose) -> Option<&mut usize> {
        match purpose {
            Purpose::Node { reply: None, .. } => Some(&mut self.members),
            Purpose::Providers { .. } | Purpose::Manifest { .. } | Purpose::Node { .. } => {
                Some(&mut self.callers)
            }
            Purpose::Publication { .. } => Some(&mut self.publications),
            Purpose::Walk => None,
        }
    }

    pub(super) fn next_settle(&self) -> Option<Instant> {
        self.settling.iter().map(|(at, _)| *at).min()
    }

    fn abandoned(&self) -> Vec<QueryId> {
        let abandoned = |purpose: &Purpose| match purpose {
            Purpose::Providers { sink, .. } => sink.is_closed(),
            Purpose::Manifest { reply, .. } => reply.as_ref().is_some_and(Reply::is_closed),
            Purpose::Node { reply, .. } => reply.as_ref().is_some_and(Reply::is_closed),
            Purpose::Publication { .. } | Purpose::Walk => false,
        };
        let queries = self.queries.iter().filter(|(_, purpose)| abandoned(purpose));
        queries.map(|(id, _)| *id).collect()
    }

    fn settle(&mut self, id: QueryId, at: Instant) {
        if !self.settling.iter().any(|(_, settling)| *settling == id) {
            self.settling.push((at, id));
        }
    }

    fn take_settled(&mut self, now: Instant) -> Vec<QueryId> {
        let (due, later) = self.settling.drain(..).partition(|(at, _)| *at <= now);
        self.settling = later;
        let due: Vec<(Instant, QueryId)> = due;
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn remove(&mut self, id: QueryId) -> Option<Purpose> {
        let purpose = self.queries.remove(&id)?;
        self.settling.retain(|(_, settling)| *settling != id);
        if let Some(count) = self.count_of(&purpose) {
            *count -= 1;
        }
        Some(purpose)
    }
}

impl Actor {
    pub(super) fn look_up_providers(
        &mut self,
        cid: Cid,
        sink: mpsc::Sender<Result<NodeId, DhtError>>,
        now: Instant,
    ) {
        if let Err(busy) = self.admit_lookup(now) {
            let _ = sink.try_send(Err(busy));
            return;
        }
        let id = self.swarm.behaviour_mut().kad.get_providers(content_key(cid));
        let found = HashSet::new();
        self.lookups.insert(id, Purpose::Providers { cid, sink, found });
    }

    pub(super) fn look_up_manifest(&mut self, cid: Cid, reply: Reply<Option<Bytes>>, now: Instant) {
        let table = self.swarm.behaviour_mut().kad.store_mut();
        if let Some(held) = table.value(&content_key(cid)) {
            let block = admission::found_manifest(cid, held.to_vec());
            return answer(reply, Ok(block.ok()));
        }
        if let Err(busy) = self.admit_lookup(now) {
            return answer(reply, Err(busy));
        }
        let id = self.swarm.behaviour_mut().kad.get_record(content_key(cid));
        self.lookups.insert(id, Purpose::Manifest { cid, reply: Some(reply) });
    }

    pub(super) fn look_up_node(&mut self, node: NodeId, reply: NodeReply, now: Instant) {
        if let Err(busy) = self.admit_lookup(now) {
            return answer(reply, Err(busy));
        }
        self.ask_for_node(node, Some(reply));
    }

    /// Looks a record up for the member table, to which every answer goes anyway. Says whether
    /// there was room for it.
    pub(super) fn look_up_member(&mut self, node: NodeId) -> bool {
        let room = self.lookups.members < MEMBER_LOOKUPS_MAX;
        if room {
            self.ask_for_node(node, None);
        }
        room
    }

    fn ask_for_node(&mut self, node: NodeId, reply: Option<NodeReply>) {
        let id = self.swarm.behaviour_mut().kad.get_record(node_key(node));
        self.lookups.insert(id, Purpose::Node { node, best: None, reply });
    }

    fn admit_lookup(&mut self, now: Instant) -> Result<(), DhtError> {
        let limit = self.config.lookups_max;
        if self.lookups.running() >= limit {
            // Queries nobody waits for any more make room.
            for id in self.lookups.abandoned() {
                self.finish(id, now);
            }
        }
        if self.lookups.running() >= limit {
            return Err(DhtError::Busy { limit });
        }
        self.metrics.lookups_total += 1;
        Ok(())
    }

    /// Asks the network for our own record, to learn whether it knows a newer one.
    pub(super) fn check_own_record(&mut self) {
        if self.own_check_due && self.members.len() > 0 {
            self.own_check_due = !self.look_up_member(self.local);
        }
    }

    pub(super) fn on_kad(&mut self, event: kad::Event, now: Instant) {
        match event {
            kad::Event::InboundRequest { request } => self.on_request(request, now),
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_progress(id, result, step.last, now);
            }
            _ => {}
        }
    }

    fn on_progress(&mut self, id: QueryId, result: QueryResult, last: bool, now: Instant) {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                self.found_providers(id, &providers, now);
            }
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer, record }))) => {
                self.found_record(id, peer, record.value, now);
            }
            QueryResult::GetProviders(Err(_))
            | QueryResult::GetRecord(Err(GetRecordError::Timeout { .. })) => {
                self.timed_out(id, now)
            }
            QueryResult::StartProviding(Ok(_)) | QueryResult::PutRecord(Ok(_)) => {
                self.publication_ended(id, true, now);
            }
            QueryResult::StartProviding(Err(_)) | QueryResult::PutRecord(Err(_)) => {
                self.publication_ended(id, false, now);
            }
            _ if last => self.ended(id, None, now),
            _ => {}
        }
    }

    fn found_providers(&mut self, id: QueryId, providers: &HashSet<PeerId>, now: Instant) {
        let max = self.config.providers_per_lookup_max;
        let Some(Purpose::Providers { sink, found, .. }) = self.lookups.queries.get_mut(&id) else {
            return;
        };
        for node in providers.iter().filter_map(node_of) {
            if found.len() < max && found.insert(node) {
                // There is room for all; an error means that nobody listens any more.
                let _ = sink.try_send(Ok(node));
            }
        }
        if found.len() >= max || sink.is_closed() {
            self.finish(id, now);
        }
    }

    fn found_record(&mut self, id: QueryId, peer: Option<PeerId>, value: Vec<u8>, now: Instant) {
        match self.lookups.queries.get_mut(&id) {
            Some(Purpose::Manifest { cid, reply }) => {
                match admission::found_manifest(*cid, value) {
                    Ok(block) => {
                        reply_to(reply.take(), Ok(Some(block)));
                        self.finish(id, now);
                    }
                    Err(reason) => self.metrics.reject(reason),
                }
            }
            Some(Purpose::Node { node, best, .. }) => {
                let node = *node;
                let record = match admission::node_record(node, &value, &self.config.network) {
                    Ok(record) => record,
                    Err(reason) => return self.metrics.reject(reason),
                };
                if best.as_ref().is_none_or(|held| admission::succeeds(held, &record)) {
                    *best = Some(record);
                }
                if peer.is_some_and(|peer| node_of(&peer) == Some(node)) {
                    self.finish(id, now);
                } else {
                    self.lookups.settle(id, now + NODE_SETTLE);
                }
            }
            _ => {}
        }
    }

    pub(super) fn settle_lookups(&mut self, now: Instant) {
        for id in self.lookups.take_settled(now) {
            self.finish(id, now);
        }
    }

    /// The question is answered; the library ends the query, with a last event or without.
    fn finish(&mut self, id: QueryId, now: Instant) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
            query.finish();
        }
        self.ended(id, None, now);
    }

    fn timed_out(&mut self, id: QueryId, now: Instant) {
        self.metrics.lookup_timeouts_total += 1;
        let seconds = self.config.query_timeout_secs;
        let what = match self.lookups.queries.get(&id) {
            Some(Purpose::Providers { cid, .. } | Purpose::Manifest { cid, .. }) => cid.to_string(),
            Some(Purpose::Node { node, .. }) => node.to_string(),
            _ => return,
        };
        self.ended(id, Some(DhtError::Timeout { what, seconds }), now);
    }

    fn ended(&mut self, id: QueryId, error: Option<DhtError>, now: Instant) {
        match self.lookups.remove(id) {
            Some(Purpose::Providers { sink, .. }) => {
                if let Some(error) = error {
                    let _ = sink.try_send(Err(error));
                }
            }
            Some(Purpose::Manifest { reply: Some(reply), .. }) => {
                answer(reply, error.map_or(Ok(None), Err));
            }
            Some(Purpose::Node { node, best, reply }) => {
                self.learned(node, best.as_ref(), now);
                let result = match (best, error) {
                    (None, Some(error)) => Err(error),
                    (best, _) => Ok(best),
                };
                reply_to(reply, result);
            }
            Some(Purpose::Walk) => self.walk.finished(),
            _ => {}
        }
    }

    fn learned(&mut self, node: NodeId, record: Option<&Signed<NodeRecord>>, now: Instant) {
        let Some(record) = record else { return };
        if node != self.local {
            self.members.offer(record, now);
            return;
        }
        let seen = record.body_unverified().sequence;
        let ours = self.own.as_ref().map_or(0, |own| own.body_unverified().sequence);
        if seen > ours {
            tracing::warn!(seen, ours, "the network knows a newer record of this node");
            self.metrics.newer_own_sequence = Some(seen);
        }
    }

    fn publication_ended(&mut self, id: QueryId, taken: bool, now: Instant) {
        let Some(Purpose::Publication { item, reach }) = self.lookups.remove(id) else { return };
        let known = self.members.len();
        let outcome = if taken { Outcome::Published { reach, known } } else { Outcome::Failed };
        self.published(item, outcome, now);
    }
}

/// Answers whoever asked, if somebody did.
fn reply_to<T>(reply: Option<Reply<T>>, result: Result<T, DhtError>) {
    if let Some(reply) = reply {
        answer(reply, result);
    }
}
