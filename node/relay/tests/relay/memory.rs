// SPDX-License-Identifier: MIT OR Apache-2.0
//! The largest allocation of a test, counted by the allocator of this test binary.
//!
//! A test has a runtime of one thread, its own: client, server and both ends of QUIC run on it, so
//! what a thread allocated is what one test did, whatever others do beside it.

use std::alloc::System;
use std::cell::Cell;
use std::sync::Once;

use tracking_allocator::{AllocationGroupId, AllocationRegistry, AllocationTracker, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

static WATCHED: Once = Once::new();

thread_local! {
    static LARGEST_BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Watch;

impl AllocationTracker for Watch {
    fn allocated(&self, _at: usize, bytes: usize, _with_header: usize, _group: AllocationGroupId) {
        // A thread that is ending has no counter any more.
        let _ = LARGEST_BYTES.try_with(|largest| largest.set(largest.get().max(bytes)));
    }

    fn deallocated(
        &self,
        _at: usize,
        _bytes: usize,
        _with_header: usize,
        _from: AllocationGroupId,
        _now: AllocationGroupId,
    ) {
    }
}

/// Bytes of the largest single allocation of this thread while `work` was done.
pub async fn largest_during<T>(work: impl Future<Output = T>) -> (T, usize) {
    WATCHED.call_once(|| {
        AllocationRegistry::set_global_tracker(Watch).expect("there is one tracker");
        AllocationRegistry::enable_tracking();
    });
    LARGEST_BYTES.set(0);
    let outcome = work.await;
    (outcome, LARGEST_BYTES.get())
}

#[tokio::test]
async fn the_largest_allocation_of_this_thread_is_seen() {
    let (kept, largest) = largest_during(async { vec![1_u8; 123_456] }).await;
    assert_eq!(largest, kept.len());
    let (_, largest) = largest_during(async {}).await;
    assert_eq!(largest, 0);
}
