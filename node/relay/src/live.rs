// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings as they are now. Most can be changed while the server runs; who reads them takes
//! the whole and holds on to it for one decision.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::RelayConfig;

/// Settings that change as a whole.
pub(crate) struct Live(RwLock<Arc<RelayConfig>>);

impl Live {
    pub(crate) fn new(config: RelayConfig) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(config))))
    }

    pub(crate) fn get(&self) -> Arc<RelayConfig> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn set(&self, config: RelayConfig) {
        *self.0.write() = Arc::new(config);
    }
}
