// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end for each lease, after a start on several disks.
//!
//! A renewal that was acknowledged while a disk was offline has not reached that disk. So of the
//! ends that disks know of one lease the latest holds: it is renewed on the others, and until that
//! is done no lease ends anywhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use supernode_protocol::ids::LeaseId;
use supernode_protocol::lease::Expiry;

use super::{Shared, Store};
use crate::error::StoreError;
use crate::writer::Op;

/// Disks write the time down so often; ends differ by this much after a crash.
const SLACK_SECS: u64 = 5;

/// Leases must end some time, however many are renewed meanwhile.
const PASSES_MAX: usize = 16;

/// Lets leases end again, whatever happens.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Store {
    /// Has a thread of its own do it; the store serves meanwhile.
    pub(super) fn level_ends(&self) -> Result<(), StoreError> {
        let held = Held(Arc::clone(&self.shared.company.holds_ends));
        if self.shared.lanes.len() < 2 {
            return Ok(());
        }
        let failed = |error| StoreError::io("start a thread that looks at leases", error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let shared = Arc::downgrade(&self.shared);
        let run = move || {
            let _held = held;
            let Some(shared) = shared.upgrade() else { return };
            let leveled = runtime.block_on(async {
                // Somebody may have renewed a lease in the middle of a pass.
                for _ in 0..PASSES_MAX {
                    if !shared.level_ends().await? {
                        break;
                    }
                }
                Ok::<(), StoreError>(())
            });
            if let Err(error) = leveled {
                tracing::warn!(%error, "leases may end earlier on one disk than on another");
            }
            // A read that it left at a disk that hangs must not hold up its end.
            runtime.shutdown_background();
        };
        Builder::new().name("store-leases".to_owned()).spawn(run).map_err(failed)?;
        Ok(())
    }
}

impl Shared {
    /// One pass; says whether any disk had to be told a later end.
    async fn level_ends(&self) -> Result<bool, StoreError> {
        let mut is_any_told = false;
        let known = self.each(|lane| lane.running_leases()).await?;
        let mut latest: HashMap<LeaseId, u64> = HashMap::new();
        for (lease, _, left) in known.iter().flat_map(|(_, leases)| leases) {
            let longest = latest.entry(*lease).or_default();
            *longest = (*longest).max(*left);
        }
        for (lane, leases) in known {
            for (lease, caller, left) in leases {
                let Some(longest) = latest.get(&lease) else { continue };
                if left + SLACK_SECS >= *longest {
                    continue;
                }
                let expiry = Expiry::RunningSeconds(*longest);
                match lane.perform(Op::Renew { caller, lease, expiry }).await {
                    Ok(_) => is_any_told = true,
                    // Somebody has ended it meanwhile.
                    Err(StoreError::LeaseNotFound { .. }) => {}
                    Err(error @ StoreError::Stopped { .. }) => return Err(error),
                    Err(StoreError::Offline { .. }) => break,
                    Err(error) => tracing::warn!(%lease, %error, "a renewal was not made good"),
                }
            }
        }
        Ok(is_any_told)
    }
}
