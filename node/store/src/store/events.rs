// SPDX-License-Identifier: MIT OR Apache-2.0
//! What listeners hear of groups: each disk tells of its own, and a group whose part on one disk
//! ended is not released while another disk keeps a part.

use std::sync::Weak;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Shared, Store};
use crate::catalog::{GroupEvent, HeldGroup};

/// Commits and releases, from [`Store::events`] on.
pub struct GroupEvents {
    told: broadcast::Receiver<GroupEvent>,
    /// No handle: a store whose last one is gone tells nothing more.
    store: Weak<Shared>,
}

impl GroupEvents {
    pub(super) fn new(told: broadcast::Receiver<GroupEvent>, store: Weak<Shared>) -> Self {
        Self { told, store }
    }

    /// The next one. A group may be told as committed more than once.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] says how many a slow listener has missed, [`RecvError::Closed`] that
    /// there will be no more.
    pub async fn recv(&mut self) -> Result<GroupEvent, RecvError> {
        loop {
            let event = self.told.recv().await?;
            match event {
                GroupEvent::Released(held) if self.is_held(held).await => {}
                event => return Ok(event),
            }
        }
    }

    async fn is_held(&self, held: HeldGroup) -> bool {
        let Some(shared) = self.store.upgrade() else { return false };
        if shared.only().is_some() {
            return false;
        }
        let store = Store { shared };
        // What cannot be asked cannot be served either.
        store.has_group(held.object, held.group).await.unwrap_or(false)
    }
}
