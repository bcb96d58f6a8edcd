// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping long tasks alive: a task that fails or panics is started again after a growing pause;
//! one that keeps failing ends the node loudly, for whoever started it to notice.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a failed task is started again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first pause before it is; it doubles from there.
    pub pause: Duration,
    /// Starts within `window` before it is given up.
    pub starts_max: usize,
    /// Failures further apart than this are not one trouble.
    pub window: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let window = Duration::from_secs(600);
        Self { pause: Duration::from_millis(200), starts_max: 6, window }
    }
}

/// Where tasks that were given up are reported; the first report ends the node.
#[derive(Debug, Clone)]
pub struct Alarm {
    sender: mpsc::Sender<String>,
}

impl Alarm {
    /// An alarm, and where it is heard.
    pub fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { sender }, receiver)
    }

    /// Ends the node for this reason, unless it is ending for another one already.
    pub fn raise(&self, reason: String) {
        let _ = self.sender.try_send(reason);
    }
}

/// Runs what `start` makes until `cancel`, again and again if need be. A task that returns `Ok`
/// is done.
pub fn supervise<F, T>(
    name: &'static str,
    cancel: CancellationToken,
    alarm: Alarm,
    start: F,
) -> JoinHandle<()>
where
    F: FnMut() -> T + Send + 'static,
    T: Future<Output = Result<(), String>> + Send + 'static,
{
    tokio::spawn(keep_alive(name, cancel, alarm, Patience::default(), start))
}

async fn keep_alive<F, T>(
    name: &'static str,
    cancel: CancellationToken,
    alarm: Alarm,
    patience: Patience,
    mut start: F,
) where
    F: FnMut() -> T + Send + 'static,
    T: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut starts: Vec<Instant> = Vec::new();
    loop {
        let now = Instant::now();
        starts.retain(|at| now - *at < patience.window);
        starts.push(now);
        // A task of its own, so that its panic ends there.
        let mut task = AbortOnDrop(tokio::spawn(start()));
        let ended = tokio::select! {
            ended = &mut task.0 => ended,
            () = cancel.cancelled() => return,
        };
        let reason = match ended {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => "it panicked; the log above says where".to_owned(),
        };
        if starts.len() >= patience.starts_max {
            tracing::error!(task = name, %reason, "a task keeps failing and is given up");
            alarm.raise(format!("{name} keeps failing: {reason}"));
            return;
        }
        let exponent = u32::try_from(starts.len() - 1).unwrap_or(u32::MAX);
        let pause = patience.pause * 2_u32.saturating_pow(exponent);
        tracing::error!(task = name, %reason, ?pause, "a task failed and is started again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop(JoinHandle<Result<(), String>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{Alarm, Patience, keep_alive};

    const HASTY: Patience = Patience {
        pause: Duration::from_micros(1),
        starts_max: 4,
        window: Duration::from_secs(600),
    };

    #[tokio::test]
    async fn a_task_that_panics_is_started_again() {
        let (alarm, mut raised) = Alarm::new();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        let task = keep_alive("test", CancellationToken::new(), alarm, HASTY, move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 1, "the first two starts fail");
                Ok(())
            }
        });
        task.await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert!(raised.try_recv().is_err(), "no alarm");
    }

    #[tokio::test]
    async fn a_task_that_keeps_failing_raises_the_alarm() {
        let (alarm, mut raised) = Alarm::new();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        let task = keep_alive("test", CancellationToken::new(), alarm, HASTY, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Err("no disk".to_owned()) }
        });
        task.await;
        assert_eq!(raised.recv().await.as_deref(), Some("test keeps failing: no disk"));
        assert_eq!(starts.load(Ordering::Relaxed), HASTY.starts_max);
    }

    #[tokio::test]
    async fn cancelling_ends_the_task() {
        let (alarm, _raised) = Alarm::new();
        let cancel = CancellationToken::new();
        let task = keep_alive("test", cancel.clone(), alarm, HASTY, std::future::pending);
        cancel.cancel();
        task.await;
    }
}
