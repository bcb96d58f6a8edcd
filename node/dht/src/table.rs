// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records this node keeps for the network, and its own. Pure: time is passed in.
//!
//! Foreign records live under quotas: one per kind and one per sender, so that a single peer can
//! fill neither the memory nor the room of others. A full table refuses; it never drops what it
//! holds before its time. Our own records are counted apart and are never refused because of
//! foreign ones. Everything foreign has an expiry, and [`RecordTable::sweep`] enforces it a bounded
//! number of records at a time.
//!
//! The library reads through [`RecordStore`](libp2p::kad::store::RecordStore), implemented in
//! `table/store.rs`; through that door it writes our own records only, because filtering is on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::{K_VALUE, ProviderRecord, Record, RecordKey};

use crate::admission::Rejection;
use crate::config::RecordLimits;

mod store;

/// Which quota a value counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A small manifest block.
    Manifest,
    /// A node record.
    Node,
}

#[derive(Debug)]
struct Value {
    record: Record,
    kind: Kind,
    // Who sent it, and whose quota it fills. Nobody: it is our own.
    source: Option<PeerId>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Value(Vec<u8>),
    Provider(Vec<u8>, PeerId),
}

/// How much of it is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Foreign manifest blocks.
    pub(crate) manifests: usize,
    /// Their bytes.
    pub(crate) manifest_bytes: usize,
    /// Foreign node records.
    pub(crate) nodes: usize,
    /// Foreign provider records.
    pub(crate) providers: usize,
    /// Our own manifest blocks.
    pub(crate) own_manifests: usize,
    /// Our own provider records.
    pub(crate) own_providers: usize,
}

/// Records of the network and of this node.
#[derive(Debug)]
pub(crate) struct RecordTable {
    local: PeerId,
    limits: RecordLimits,
    values: HashMap<RecordKey, Value>,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    own: HashSet<ProviderRecord>,
    usage: Usage,
    manifests_of: HashMap<PeerId, usize>,
    providers_of: HashMap<PeerId, usize>,
    // One entry per foreign record; one whose record was renewed goes back when it comes up.
    expiries: BinaryHeap<Reverse<(Instant, Slot)>>,
}

impl RecordTable {
    pub(crate) fn new(local: PeerId, limits: RecordLimits) -> Self {
        Self {
            local,
            limits,
            values: HashMap::new(),
            providers: HashMap::new(),
            own: HashSet::new(),
            usage: Usage::default(),
            manifests_of: HashMap::new(),
            providers_of: HashMap::new(),
            expiries: BinaryHeap::new(),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Distinct keys that have providers.
    pub(crate) fn provider_keys(&self) -> usize {
        self.providers.len()
    }

    /// The bytes held under `key`, expired or not.
    pub(crate) fn value(&self, key: &RecordKey) -> Option<&[u8]> {
        self.values.get(key).map(|value| value.record.value.as_slice())
    }

    /// Keeps a proven foreign value, or renews one that is held.
    pub(crate) fn admit_value(
        &mut self,
        kind: Kind,
        source: PeerId,
        mut record: Record,
        expires: Instant,
    ) -> Result<(), Rejection> {
        // Who claims to have published it proves nothing and must not come back to us as ours.
        record.publisher = None;
        record.expires = Some(record.expires.map_or(expires, |at| at.min(expires)));
        if let Some(held) = self.values.get_mut(&record.key) {
            if held.source.is_some() {
                // Under one key a manifest cannot differ; of node records the newer replaces.
                record.expires = record.expires.max(held.record.expires);
                held.record = record;
            }
            return Ok(());
        }
        self.room_for_value(kind, &source, record.value.len())?;
        if let Kind::Manifest = kind {
            self.usage.manifests += 1;
            self.usage.manifest_bytes += record.value.len();
            *self.manifests_of.entry(source).or_default() += 1;
        } else {
            self.usage.nodes += 1;
        }
        let at = record.expires.unwrap_or(expires);
        self.expiries.push(Reverse((at, Slot::Value(record.key.to_vec()))));
        self.values.insert(record.key.clone(), Value { record, kind, source: Some(source) });
        Ok(())
    }

    fn room_for_value(&self, kind: Kind, source: &PeerId, bytes: usize) -> Result<(), Rejection> {
        if let Kind::Node = kind {
            // A node record comes from its own node only, so one per peer is all there can be.
            let full = self.usage.nodes >= self.limits.node_records_max;
            return if full { Err(Rejection::Full) } else { Ok(()) };
        }
        let of_source = self.manifests_of.get(source).copied().unwrap_or(0);
        if of_source >= self.limits.manifests_per_peer_max {
            return Err(Rejection::PeerQuota);
        }
        let bytes_after = self.usage.manifest_bytes.saturating_add(bytes);
        if self.usage.manifests >= self.limits.manifests_max
            || bytes_after > self.limits.manifest_bytes_max
        {
            return Err(Rejection::Full);
        }
        Ok(())
    }

    /// Keeps a provider record that came from its provider, or renews one that is held.
    pub(crate) fn admit_provider(
        &mut self,
        mut record: ProviderRecord,
        expires: Instant,
    ) -> Result<(), Rejection> {
        record.expires = Some(record.expires.map_or(expires, |at| at.min(expires)));
        let known = self.providers.get_mut(&record.key);
        let count = known.as_ref().map_or(0, |list| list.len());
        let held = known.and_then(|list| list.iter_mut().find(|p| p.provider == record.provider));
        if let Some(held) = held {
            *held = record;
            return Ok(());
        }
        let of_peer = self.providers_of.get(&record.provider).copied().unwrap_or(0);
        if of_peer >= self.limits.providers_per_peer_max {
            return Err(Rejection::PeerQuota);
        }
        if self.usage.providers >= self.limits.providers_max || count >= K_VALUE.get() {
            return Err(Rejection::Full);
        }
        self.usage.providers += 1;
        *self.providers_of.entry(record.provider).or_default() += 1;
        let slot = Slot::Provider(record.key.to_vec(), record.provider);
        self.expiries.push(Reverse((record.expires.unwrap_or(expires), slot)));
        self.providers.entry(record.key.clone()).or_default().push(record);
        Ok(())
    }

    /// Drops up to `max` records whose time is over; says whether more may be waiting.
    pub(crate) fn sweep(&mut self, now: Instant, max: usize) -> bool {
        for _ in 0..max {
            if self.next_expiry().is_none_or(|at| at > now) {
                return false;
            }
            let Some(Reverse((_, slot))) = self.expiries.pop() else { return false };
            match self.expiry_of(&slot) {
                Some(at) if at > now => self.expiries.push(Reverse((at, slot))),
                Some(_) => self.drop_slot(slot),
                None => {}
            }
        }
        true
    }

    /// When the next record may be over.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.peek().map(|Reverse((at, _))| *at)
    }

    fn expiry_of(&self, slot: &Slot) -> Option<Instant> {
        match slot {
            Slot::Value(key) => {
                let value = self.values.get(&RecordKey::from(key.clone()))?;
                value.source.and(value.record.expires)
            }
            Slot::Provider(key, peer) => {
                let list = self.providers.get(&RecordKey::from(key.clone()))?;
                list.iter().find(|record| record.provider == *peer)?.expires
            }
        }
    }

    fn drop_slot(&mut self, slot: Slot) {
        match slot {
            Slot::Value(key) => self.drop_value(&RecordKey::from(key)),
            Slot::Provider(key, peer) => self.drop_provider(&RecordKey::from(key), &peer),
        }
    }

    fn drop_value(&mut self, key: &RecordKey) {
        let Some(value) = self.values.remove(key) else { return };
        match (value.kind, value.source) {
            (Kind::Manifest, Some(source)) => {
                self.usage.manifests -= 1;
                self.usage.manifest_bytes -= value.record.value.len();
                lower(&mut self.manifests_of, &source);
            }
            (Kind::Manifest, None) => self.usage.own_manifests -= 1,
            (Kind::Node, Some(_)) => self.usage.nodes -= 1,
            (Kind::Node, None) => {}
        }
    }

    fn drop_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        let Some(list) = self.providers.get_mut(key) else { return };
        let Some(at) = list.iter().position(|record| record.provider == *peer) else { return };
        let record = list.swap_remove(at);
        if list.is_empty() {
            self.providers.remove(key);
        }
        if *peer == self.local {
            self.own.remove(&record);
            self.usage.own_providers -= 1;
        } else {
            self.usage.providers -= 1;
            lower(&mut self.providers_of, peer);
        }
    }
}

fn lower(counts: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(count) = counts.get_mut(peer) {
        *count -= 1;
        if *count == 0 {
            counts.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests;
