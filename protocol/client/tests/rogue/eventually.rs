// SPDX-License-Identifier: MIT OR Apache-2.0
//! Letting time pass where time itself is what a test is about: a stated pause, a slow answer.

use std::time::Duration;

/// Returns after `span`. Never to wait for something to happen: that is what events are for.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}
