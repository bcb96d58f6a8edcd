// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: taking in those of others, publishing our own.

use std::time::Instant;

use bytes::Bytes;
use libp2p::kad::store::{Error as StoreError, RecordStore};
use libp2p::kad::{InboundRequest, ProviderRecord, Quorum, Record};
use libp2p::{Multiaddr, PeerId};
use supernode_protocol::ids::Cid;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;

use crate::actor::Actor;
use crate::admission::{self, Proven, Rejection, VALUE_BYTES_MAX};
use crate::error::DhtError;
use crate::handle::Reply;
use crate::keys::{content_key, node_key};
use crate::schedule::{Item, Outcome};
use crate::table::Kind;

impl Actor {
    pub(super) fn on_request(&mut self, request: InboundRequest, now: Instant) {
        self.metrics.requests_total += 1;
        let verdict = match request {
            InboundRequest::PutRecord { source, record: Some(record), .. } => {
                self.take_value(source, record, now)
            }
            InboundRequest::AddProvider { record: Some(record) } => self.take_provider(record, now),
            _ => return,
        };
        match verdict {
            Ok(()) => self.metrics.records_accepted_total += 1,
            Err(reason) => {
                tracing::debug!(reason = reason.name(), "record refused");
                self.metrics.reject(reason);
            }
        }
    }

    fn take_value(
        &mut self,
        source: PeerId,
        record: Record,
        now: Instant,
    ) -> Result<(), Rejection> {
        let expires = now + self.config.ttl();
        let network = &self.config.network;
        let proven =
            admission::arriving_value(record.key.as_ref(), &record.value, &source, network)?;
        let table = self.swarm.behaviour_mut().kad.store_mut();
        match proven {
            Proven::Manifest(_) => table.admit_value(Kind::Manifest, source, record, expires),
            Proven::Node(new) => {
                let held = table.value(&record.key);
                let held = held.and_then(|bytes| Signed::<NodeRecord>::decode(bytes).ok());
                let known = self.members.record(&new.body_unverified().node);
                if !held.iter().chain(known).all(|old| admission::succeeds(old, &new)) {
                    return Err(Rejection::Rollback);
                }
                table.admit_value(Kind::Node, source, record, expires)?;
                self.members.offer(&new, now);
                Ok(())
            }
        }
    }

    fn take_provider(&mut self, mut record: ProviderRecord, now: Instant) -> Result<(), Rejection> {
        admission::arriving_provider(record.key.as_ref(), &record.provider)?;
        record.addresses = self.rule.keep(&record.provider, &record.addresses);
        let expires = now + self.config.ttl();
        self.swarm.behaviour_mut().kad.store_mut().admit_provider(record, expires)
    }

    pub(super) fn present(&mut self, record: NodeRecord, now: Instant) -> Result<(), DhtError> {
        let foreign = |field, given: &dyn ToString, own: &dyn ToString| {
            let (given, own) = (given.to_string(), own.to_string());
            Err(DhtError::ForeignRecord { field, given, own })
        };
        if record.node != self.local {
            return foreign("node", &record.node, &self.local);
        }
        if record.network != self.config.network {
            return foreign("network", &record.network, &self.config.network);
        }
        record.validate()?;
        let addresses = record
            .libp2p
            .iter()
            .map(|text| text.parse().map_err(|_| DhtError::RecordAddress { address: text.clone() }))
            .collect::<Result<Vec<Multiaddr>, _>>()?;
        let given = record.sequence;
        let signed = Signed::sign(record, &self.identity)?;
        if let Some(held) = self.own.as_ref().filter(|held| !admission::succeeds(held, &signed)) {
            let current = held.body_unverified().sequence;
            return Err(DhtError::StaleSequence { given, current });
        }
        self.keep_own(signed.encode())?;
        self.show_addresses(&addresses);
        self.own = Some(signed);
        self.own_check_due = true;
        self.metrics.newer_own_sequence = self.metrics.newer_own_sequence.filter(|n| *n > given);
        self.members.set_changed();
        self.schedule.refresh(Item::Node, now);
        Ok(())
    }

    fn keep_own(&mut self, value: Vec<u8>) -> Result<(), DhtError> {
        let size = value.len();
        let record = self.own_record(Item::Node, value);
        self.swarm
            .behaviour_mut()
            .kad
            .store_mut()
            .put(record)
            .map_err(|_| DhtError::ManifestTooLarge { size, max: VALUE_BYTES_MAX })
    }

    /// What we present as our addresses goes into our provider records, too.
    fn show_addresses(&mut self, addresses: &[Multiaddr]) {
        let shown: Vec<_> = self.swarm.external_addresses().cloned().collect();
        for old in shown.iter().filter(|old| !addresses.contains(old)) {
            self.swarm.remove_external_address(old);
        }
        for new in addresses.iter().filter(|new| self.rule.allows(new)) {
            self.swarm.add_external_address(new.clone());
        }
    }

    fn own_record(&self, item: Item, value: Vec<u8>) -> Record {
        let key = match item {
            Item::Node => node_key(self.local),
            Item::Provider(cid) | Item::Manifest(cid) => content_key(cid),
        };
        Record { key, value, publisher: Some(*self.swarm.local_peer_id()), expires: None }
    }

    pub(super) fn announce(&mut self, cid: Cid, reply: Reply<()>, now: Instant) {
        match self.keep_provider(cid) {
            Ok(()) => {
                self.schedule.add(Item::Provider(cid), now);
                self.wait_for(Item::Provider(cid), reply);
            }
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    pub(super) fn announce_stored(&mut self, cids: &[Cid], now: Instant) -> Result<(), DhtError> {
        for cid in cids {
            self.keep_provider(*cid)?;
            self.schedule.add_spread(Item::Provider(*cid), now);
        }
        Ok(())
    }

    fn keep_provider(&mut self, cid: Cid) -> Result<(), DhtError> {
        let local = *self.swarm.local_peer_id();
        // Without addresses: the library fills in the current ones with each answer.
        let record = ProviderRecord::new(content_key(cid), local, vec![]);
        let limit = self.config.records.own_providers_max;
        self.swarm
            .behaviour_mut()
            .kad
            .store_mut()
            .add_provider(record)
            .map_err(|_| DhtError::Full { limit, setting: "records.own_providers_max" })
    }

    pub(super) fn publish_manifest(
        &mut self,
        cid: Cid,
        block: &Bytes,
        reply: Reply<()>,
        now: Instant,
    ) {
        let limit = self.config.records.own_manifests_max;
        let record = self.own_record(Item::Manifest(cid), block.to_vec());
        match self.swarm.behaviour_mut().kad.store_mut().put(record) {
            Ok(()) => {
                self.schedule.add(Item::Manifest(cid), now);
                self.wait_for(Item::Manifest(cid), reply);
            }
            Err(StoreError::ValueTooLarge) => {
                let size = block.len();
                self.answer(reply, Err(DhtError::ManifestTooLarge { size, max: VALUE_BYTES_MAX }));
            }
            Err(_) => {
                let setting = "records.own_manifests_max";
                self.answer(reply, Err(DhtError::Full { limit, setting }));
            }
        }
    }

    pub(super) fn withdraw(&mut self, cid: Cid) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.stop_providing(&content_key(cid));
        kad.remove_record(&content_key(cid));
        for item in [Item::Provider(cid), Item::Manifest(cid)] {
            self.schedule.remove(item);
            self.release(item);
        }
    }

    /// Lets the caller wait for the first publication, unless there is nothing to wait for.
    fn wait_for(&mut self, item: Item, reply: Reply<()>) {
        if self.schedule.is_published(item) || self.members.len() == 0 {
            self.answer(reply, Ok(()));
        } else {
            self.waiting.entry(item).or_default().push(reply);
        }
    }

    fn release(&mut self, item: Item) {
        for reply in self.waiting.remove(&item).unwrap_or_default() {
            self.answer(reply, Ok(()));
        }
    }

    pub(super) fn publish_due(&mut self, now: Instant) {
        let known = self.members.len();
        if known == 0 {
            // Nobody to tell; a new peer makes everything that is waiting go out.
            return;
        }
        let room = self.config.publications_max.saturating_sub(self.lookups.publications());
        for item in self.schedule.take_due(now, room) {
            if !self.start_publication(item, known) {
                self.published(item, Outcome::Failed, now);
            }
        }
    }

    fn start_publication(&mut self, item: Item, reach: usize) -> bool {
        let value = match item {
            Item::Node => self.own.as_ref().map(Signed::encode),
            Item::Provider(_) => None,
            Item::Manifest(cid) => {
                let table = self.swarm.behaviour_mut().kad.store_mut();
                table.value(&content_key(cid)).map(<[u8]>::to_vec)
            }
        };
        let started = match (item, value) {
            (Item::Provider(cid), _) => {
                self.swarm.behaviour_mut().kad.start_providing(content_key(cid)).ok()
            }
            (Item::Node | Item::Manifest(_), Some(value)) => {
                let record = self.own_record(item, value);
                self.swarm.behaviour_mut().kad.put_record(record, Quorum::One).ok()
            }
            (Item::Node | Item::Manifest(_), None) => None,
        };
        if let Some(id) = started {
            self.lookups.publish(id, item, reach);
        }
        started.is_some()
    }

    pub(super) fn published(&mut self, item: Item, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Published { .. } => self.metrics.publications_total += 1,
            Outcome::Failed => self.metrics.publication_failures_total += 1,
        }
        self.schedule.finished(item, outcome, now);
        self.release(item);
    }
}
