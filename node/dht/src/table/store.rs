// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door through which the library reads the table and writes our own records.

use std::borrow::Cow;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use super::{Kind, RecordTable, Value};
use crate::admission::VALUE_BYTES_MAX;
use crate::keys::Subject;

impl RecordStore for RecordTable {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = Box<dyn Iterator<Item = Cow<'a, ProviderRecord>> + 'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.values.get(key).map(|value| Cow::Borrowed(&value.record))
    }

    fn put(&mut self, record: Record) -> Result<()> {
        if record.value.len() > VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge);
        }
        // Filtering is on, so whatever comes this way claims to be ours; believe only the mark.
        if record.publisher != Some(self.local) {
            return Err(Error::MaxRecords);
        }
        let kind = match Subject::of(record.key.as_ref()) {
            Some(Subject::Node(_)) => Kind::Node,
            Some(Subject::Content(_)) => Kind::Manifest,
            None => return Err(Error::MaxRecords),
        };
        if let Kind::Manifest = kind
            && !self.is_own(&record.key)
        {
            if self.usage.own_manifests >= self.limits.own_manifests_max {
                return Err(Error::MaxRecords);
            }
            self.usage.own_manifests += 1;
        }
        if !self.is_own(&record.key) {
            // What somebody gave us of it stops counting as theirs.
            self.drop_value(&record.key);
        }
        self.values.insert(record.key.clone(), Value { record, kind, source: None });
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.drop_value(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.values.values().map(|value| Cow::Borrowed(&value.record)))
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.provider != self.local {
            return Err(Error::MaxProvidedKeys);
        }
        if self.own.contains(&record) {
            return Ok(());
        }
        if self.usage.own_providers >= self.limits.own_providers_max {
            return Err(Error::MaxProvidedKeys);
        }
        self.usage.own_providers += 1;
        self.own.insert(record.clone());
        // First in the list, and beyond the count for strangers: they cannot crowd us out.
        self.providers.entry(record.key.clone()).or_default().insert(0, record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.get(key).cloned().unwrap_or_default()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.own.iter().map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.drop_provider(key, provider);
    }
}

impl RecordTable {
    fn is_own(&self, key: &RecordKey) -> bool {
        self.values.get(key).is_some_and(|held| held.source.is_none())
    }
}
