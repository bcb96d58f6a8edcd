// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place that waits. What can be watched is watched; only questions over a socket are asked
//! again until the deadline.

use std::fmt::Debug;
use std::time::Duration;

use supernode_chain::{Chain, View};
use tokio::time::{Instant, sleep, timeout};

/// Far above what any step needs, so that a loaded machine fails nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test if `work` does not end.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until the first endpoint looks as `wanted`.
pub async fn view(chain: &Chain, what: &str, wanted: impl FnMut(&View) -> bool) -> View {
    let mut watch = chain.view();
    match timeout(PATIENCE, watch.wait_for(wanted)).await {
        Ok(Ok(view)) => view.clone(),
        other => panic!("{what}: {other:?}, the view is {:?}", chain.view().borrow()),
    }
}

/// Asks again and again until the answer is `wanted`, and returns it.
pub async fn answer<T, F>(what: &str, mut ask: impl FnMut() -> F, wanted: impl Fn(&T) -> bool) -> T
where
    T: Debug,
    F: Future<Output = T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = ask().await;
        if wanted(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "{what}: still {last:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
