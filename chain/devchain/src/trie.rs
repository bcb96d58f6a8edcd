// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nodes of all state tries there ever were, by hash.
//!
//! States of neighbouring blocks share almost all their nodes. A block adds the handful it changed
//! to the log, nothing is ever removed, and every historic state stays readable at no cost but the
//! file's length. In memory is only where each node lies; its bytes come from the page cache.

use std::collections::HashMap;
use std::sync::Arc;

use hash_db::Prefix;
use parking_lot::RwLock;
use sp_core::H256;
use sp_runtime::traits::{BlakeTwo256, Hash as HashT};
use sp_state_machine::{BackendTransaction, TrieBackend, TrieBackendBuilder, TrieBackendStorage};

use crate::log::{Log, Span};

/// The one node of an empty trie, which is never written.
const NULL_NODE: [u8; 1] = [0];

/// Reads nodes by hash.
pub(crate) struct Nodes {
    log: Arc<Log>,
    places: RwLock<HashMap<H256, Span>>,
    empty_root: H256,
}

/// A node that is not written yet: its hash and its bytes.
pub(crate) type NewNode = (H256, Vec<u8>);

/// A state to read from or to build on.
pub(crate) type State<'a> = TrieBackend<&'a Nodes, BlakeTwo256>;

impl Nodes {
    /// A store over the nodes that opening the log has found.
    pub(crate) fn new(log: Arc<Log>, places: HashMap<H256, Span>) -> Self {
        Self { log, places: RwLock::new(places), empty_root: BlakeTwo256::hash(&NULL_NODE) }
    }

    /// The state with this root. Reading fails if its nodes are not here.
    pub(crate) fn state(&self, root: H256) -> State<'_> {
        TrieBackendBuilder::new(self, root).build()
    }

    /// The state without a key.
    pub(crate) fn empty_state(&self) -> State<'_> {
        self.state(self.empty_root)
    }

    /// The nodes a transaction adds that are not here yet.
    pub(crate) fn additions(
        &self,
        mut transaction: BackendTransaction<BlakeTwo256>,
    ) -> Vec<NewNode> {
        let places = self.places.read();
        transaction
            .drain()
            .into_iter()
            .filter(|(_, (_, references))| *references > 0)
            .map(|(key, (node, _))| {
                // The key is the node's position and then its hash; only the hash matters here.
                (H256::from_slice(&key[key.len() - H256::len_bytes()..]), node)
            })
            .filter(|(hash, _)| !places.contains_key(hash))
            .collect()
    }

    /// Remembers where nodes were written.
    pub(crate) fn insert(&self, nodes: impl IntoIterator<Item = (H256, Span)>) {
        self.places.write().extend(nodes);
    }

    /// How many nodes there are.
    pub(crate) fn count(&self) -> usize {
        self.places.read().len()
    }
}

impl TrieBackendStorage<BlakeTwo256> for Nodes {
    fn get(&self, key: &H256, _position: Prefix<'_>) -> Result<Option<Vec<u8>>, String> {
        if *key == self.empty_root {
            return Ok(Some(NULL_NODE.to_vec()));
        }
        let place = self.places.read().get(key).copied();
        place.map(|span| self.log.read(span).map_err(|error| error.to_string())).transpose()
    }
}
