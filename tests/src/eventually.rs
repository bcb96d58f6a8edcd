// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for another process, whose events a test cannot subscribe to: poll until it happened,
//! with a deadline that fails loudly. The only place in tests that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Short against every deadline in use, long against the cost of a probe.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` until it gives a value, and returns that.
///
/// `what` completes the sentence "waited in vain for ...".
///
/// # Panics
/// If `probe` gives nothing until `deadline` has passed.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, probe: impl FnMut() -> Option<T>) -> T {
    let value = before(deadline, probe);
    value.unwrap_or_else(|| panic!("waited in vain for {what}, {deadline:?} long"))
}

/// The same for those that can go on without: nothing when the deadline has passed.
pub fn before<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        // Asked before the clock is read, so that a slow machine gets its last probe.
        let value = probe();
        if value.is_some() || started.elapsed() >= deadline {
            return value;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Returns after `span`, for those who were told when to come back. Never to wait for something
/// to happen.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::eventually;

    #[test]
    fn the_first_value_ends_the_wait() {
        let mut probes = 0;
        let value = eventually("three probes", Duration::from_secs(60), || {
            probes += 1;
            (probes == 3).then_some("there")
        });
        assert_eq!((value, probes), ("there", 3));
    }

    #[test]
    #[should_panic(expected = "waited in vain for rain")]
    fn the_deadline_ends_it_too() {
        eventually::<()>("rain", Duration::ZERO, || None);
    }
}
