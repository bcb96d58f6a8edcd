// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for the changes that are under way, without holding up those that begin meanwhile.
//!
//! A change asks every lane that knows what is changed. One that began before a lane came to know
//! it may have passed that lane by; whoever moves things between lanes lets such changes end, and
//! looks again at what they changed.

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// See the module.
#[derive(Default)]
pub(super) struct Grace {
    current: Mutex<Arc<RwLock<()>>>,
}

impl Grace {
    /// Begins a change; it ends with what is returned.
    pub(super) async fn begin(&self) -> OwnedRwLockReadGuard<()> {
        let current = Arc::clone(&self.current.lock());
        current.read_owned().await
    }

    /// Returns when every change that had begun has ended.
    pub(super) async fn wait(&self) {
        let begun = mem::take(&mut *self.current.lock());
        drop(begun.write().await);
    }

    /// Whether somebody waits for a change.
    #[cfg(test)]
    pub(super) fn is_awaited(&self, change: &OwnedRwLockReadGuard<()>) -> bool {
        !Arc::ptr_eq(OwnedRwLockReadGuard::rwlock(change), &self.current.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::yield_now;

    use super::Grace;

    #[tokio::test]
    async fn only_changes_that_had_begun_are_waited_for() {
        let grace = Arc::new(Grace::default());
        let early = grace.begin().await;
        let waiting = tokio::spawn({
            let grace = Arc::clone(&grace);
            async move { grace.wait().await }
        });
        // One turn, in which it takes note of who has begun.
        yield_now().await;
        let late = grace.begin().await;
        yield_now().await;
        assert!(!waiting.is_finished(), "the early one is under way");
        drop(early);
        waiting.await.expect("no panic, and no waiting for the late one");
        drop(late);
    }
}
