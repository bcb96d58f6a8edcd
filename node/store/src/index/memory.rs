// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps in memory: for dumps and checks of a log, and for tests.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Changes, Index, Mark};
use crate::catalog::{IndexError, Kv, KvRead, Pairs};

/// The plainest map there is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MapKv(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl KvRead for MapKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        if start >= end {
            return Ok(Pairs::new());
        }
        let range = self
            .0
            .range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl Kv for MapKv {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(&key);
    }
}

/// An index that lives as long as its process.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: Mutex<(MapKv, Mark)>,
}

impl MemoryIndex {
    /// An index over a finished map.
    pub fn over(map: MapKv, mark: Mark) -> Self {
        Self { state: Mutex::new((map, mark)) }
    }

    /// A copy: what a snapshot of the database's files would hold.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { state: Mutex::new(self.state.lock().clone()) }
    }
}

impl KvRead for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.state.lock().0.get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Pairs, IndexError> {
        self.state.lock().0.range(start, end, limit)
    }
}

impl Index for MemoryIndex {
    fn write(&self, changes: &Changes, mark: Mark) -> Result<(), IndexError> {
        let mut state = self.state.lock();
        for (key, value) in changes {
            match value {
                Some(value) => state.0.put(key.clone(), value.clone()),
                None => state.0.delete(key.clone()),
            }
        }
        state.1 = mark;
        Ok(())
    }

    fn mark(&self) -> Mark {
        self.state.lock().1
    }

    fn checkpoint(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
