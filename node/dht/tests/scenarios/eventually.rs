// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place that waits. Everything that can be watched is watched; only questions to the
//! network are asked again until the deadline.

use std::time::Duration;

use supernode_dht::{Dht, DhtMetrics};
use tokio::time::{Instant, sleep, timeout};

/// Far above what any step needs, so that a loaded machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the node's figures fulfil `wanted`.
pub(crate) async fn figures(dht: &Dht, what: &str, wanted: impl FnMut(&DhtMetrics) -> bool) {
    let mut watch = dht.watch_metrics();
    let end = timeout(PATIENCE, watch.wait_for(wanted)).await;
    assert!(matches!(end, Ok(Ok(_))), "{what}: {:?}", dht.metrics());
}

/// Waits until each node knows exactly `count` members.
pub(crate) async fn members(nodes: &[&Dht], count: usize) {
    for dht in nodes {
        let mut watch = dht.watch_members();
        let end = timeout(PATIENCE, watch.wait_for(|members| members.len() == count)).await;
        let have = dht.members().len();
        assert!(matches!(end, Ok(Ok(_))), "{:?} knows {have} of {count}", dht.local());
    }
}

/// Asks again and again until the answer is `wanted`.
pub(crate) async fn answer<T, F>(
    what: &str,
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) where
    T: std::fmt::Debug,
    F: Future<Output = T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = ask().await;
        if wanted(&last) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: still {last:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
