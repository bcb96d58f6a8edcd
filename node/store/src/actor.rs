// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage actor: a thread of its own (disk I/O blocks) that feeds the [`Writer`] from a
//! bounded mailbox, a second one that lets the index follow, and a third that gives freed bytes
//! back to the file system, one slice at a time.
//!
//! - The actor owns the writer, and with it every decision about what is written.
//! - It collects a batch: whatever is in the mailbox, and with batched durability whatever arrives
//!   within the window, which is no longer than a sync takes: where syncs are cheap, waiting for
//!   company costs more than it saves. One write, one sync, many answers.
//! - A panic ends the actor, not the process: senders and waiters get [`StoreError::Stopped`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::{Durability, StoreConfig};
use crate::disk::DirectoryLock;
use crate::error::StoreError;
use crate::index::Overlay;
use crate::reader::Reader;
use crate::writer::{Answer, Op, ReclaimJob, Reclaimed, Writer};

/// How often leases, uploads and trash are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How soon again while more is due than one look does: puts get their turn in between.
const CATCH_UP: Duration = Duration::from_millis(20);
/// How long the index may lag when nothing forces it.
const INDEX_LAG: Duration = Duration::from_millis(100);
/// How often the index is made durable: what a replay after a crash costs at most.
const CHECKPOINT: Duration = Duration::from_secs(60);
/// How long a batch waits for the index to catch up before it is refused.
const INDEX_PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked of the actor.
pub(crate) enum Message {
    /// Write something.
    Op(Op, Answer),
    /// Stop in good order; answered when all files are closed.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// What the actor's thread owns.
pub(crate) struct Actor {
    pub(crate) writer: Writer,
    pub(crate) mailbox: mpsc::Receiver<Message>,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) config: StoreConfig,
    /// Freed last, when nothing touches the directory any more.
    pub(crate) lock: Option<DirectoryLock>,
}

type Batch = Vec<(Op, Answer)>;

impl Actor {
    /// Starts the threads.
    pub(crate) fn spawn(self) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("start the store's threads", error);
        let (stop_index, stopped) = std_mpsc::sync_channel::<()>(1);
        let overlay = Arc::clone(&self.overlay);
        let index_thread = Builder::new()
            .name("store-index".to_owned())
            .spawn(move || follow(&overlay, &stopped))
            .map_err(failed)?;
        let (jobs, slices) = std_mpsc::sync_channel(1);
        let (report, results) = mpsc::channel(1);
        let reader = Arc::clone(self.writer.reader());
        let reclaim_thread = Builder::new()
            .name("store-reclaim".to_owned())
            .spawn(move || give_back(&reader, &slices, &report))
            .map_err(failed)?;
        let reclaim = Reclaim { jobs, results };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                self.supervise(&runtime, stop_index, [index_thread, reclaim_thread], reclaim)
            })
            .map_err(failed)?;
        Ok(())
    }

    fn supervise(
        mut self,
        runtime: &tokio::runtime::Runtime,
        stop_index: std_mpsc::SyncSender<()>,
        threads: [JoinHandle<()>; 2],
        reclaim: Reclaim,
    ) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let waiting = runtime.block_on(self.serve(reclaim));
            (waiting, self.writer.close())
        }));
        drop(stop_index);
        let joined = threads.into_iter().all(|thread| thread.join().is_ok());
        self.overlay.close();
        let Self { lock, mailbox, writer, .. } = self;
        // Answers that the writer still holds are dropped with it, which their waiters notice.
        drop((writer, mailbox, lock));
        match outcome {
            Ok((waiting, closed)) => {
                if let Err(error) = &closed {
                    tracing::error!(%error, "the store did not close in good order");
                }
                if let Some(waiting) = waiting {
                    let _ = waiting.send(closed);
                }
            }
            Err(_) => tracing::error!(joined, "the storage actor panicked; the store has stopped"),
        }
    }

    /// Waits for what comes next, until somebody wants to close or nobody is left.
    async fn serve(
        &mut self,
        mut reclaim: Reclaim,
    ) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let started = Instant::now();
        let base = self.writer.now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sync = interval(Duration::from_millis(self.config.sync_interval_millis));
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let unsynced = self.writer.has_unsynced();
            tokio::select! {
                biased;
                _ = sync.tick(), if unsynced => self.advance(base, started, Due::Sync),
                _ = tick.tick() => {
                    self.advance(base, started, Due::Tick);
                    if self.writer.is_behind() {
                        tick.reset_after(CATCH_UP);
                    }
                    self.give_back_more(&reclaim);
                }
                Some(done) = reclaim.results.recv() => {
                    self.advance(base, started, Due::Reclaimed(done));
                    self.give_back_more(&reclaim);
                }
                message = self.mailbox.recv() => {
                    let (batch, closing) = self.collect(message?).await;
                    self.writer.advance(base + started.elapsed().as_secs());
                    self.perform(batch);
                    if closing.is_some() {
                        return closing;
                    }
                }
            }
        }
    }

    fn advance(&mut self, base: u64, started: Instant, due: Due) {
        self.writer.advance(base + started.elapsed().as_secs());
        let outcome = match due {
            Due::Sync => self.writer.sync(),
            Due::Tick => self.writer.tick(),
            Due::Reclaimed(done) => self.writer.reclaimed(done),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the store's housekeeping failed; it goes on in a second");
        }
    }

    /// Hands the next slice of freed bytes to the thread that gives them back.
    fn give_back_more(&mut self, reclaim: &Reclaim) {
        match self.writer.reclaim() {
            Ok(Some(job)) => {
                // There is one slice at a time, so there is room; without the thread it waits.
                let _ = reclaim.jobs.try_send(job);
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "freed bytes are not given back yet"),
        }
    }

    /// A batch: everything that is there, and what comes within the window.
    async fn collect(
        &mut self,
        first: Message,
    ) -> (Batch, Option<oneshot::Sender<Result<(), StoreError>>>) {
        let window = window(&self.config, self.writer.sync_took());
        let deadline = Instant::now() + window;
        let mut batch = Batch::new();
        let mut bytes = 0;
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(Message::Op(op, answer)) => {
                    bytes += op.payload_len();
                    batch.push((op, answer));
                }
                Some(Message::Close(closing)) => return (batch, Some(closing)),
                None => return (batch, None),
            }
            if bytes >= self.config.batch_bytes_max {
                return (batch, None);
            }
            next = match self.mailbox.try_recv() {
                Ok(message) => Some(message),
                Err(_) if window.is_zero() => None,
                Err(_) => tokio::select! {
                    biased;
                    message = self.mailbox.recv() => message,
                    () = sleep_until(deadline) => None,
                },
            };
        }
    }

    fn perform(&mut self, batch: Batch) {
        if self.overlay.wait_for_room(INDEX_PATIENCE) {
            self.writer.run(batch);
            return;
        }
        let reason = "it does not follow the log any more".to_owned();
        let error = StoreError::Index { reason };
        tracing::error!(%error, refused = batch.len(), "writes are refused");
        batch.into_iter().for_each(|(_, answer)| answer(Err(error.clone())));
    }
}

/// How long a batch waits for company, in the milliseconds that timers know: nobody is kept waiting
/// for longer than the sync takes that would be shared.
fn window(config: &StoreConfig, sync_took: Duration) -> Duration {
    match config.durability {
        Durability::Batched => {
            let sync_millis = u64::try_from(sync_took.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(config.batch_window_millis.min(sync_millis))
        }
        Durability::Strict | Durability::Relaxed | Durability::Async => Duration::ZERO,
    }
}

/// What a timer asks for.
enum Due {
    Sync,
    Tick,
    Reclaimed(Reclaimed),
}

/// The actor's end of the thread that gives bytes back.
struct Reclaim {
    jobs: std_mpsc::SyncSender<ReclaimJob>,
    results: mpsc::Receiver<Reclaimed>,
}

/// Runs slices until the actor is gone.
fn give_back(
    reader: &Reader,
    slices: &std_mpsc::Receiver<ReclaimJob>,
    report: &mpsc::Sender<Reclaimed>,
) {
    while let Ok(job) = slices.recv() {
        if report.blocking_send(job.run(reader)).is_err() {
            return;
        }
    }
}

/// Lets the index follow until the sender is gone.
fn follow(overlay: &Overlay, stopped: &std_mpsc::Receiver<()>) {
    let mut checkpointed = std::time::Instant::now();
    let mut written_since = false;
    while let Err(std_mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(INDEX_LAG) {
        match overlay.flush() {
            Ok(wrote) => written_since |= wrote,
            // Everything is in the log; reads are answered from memory as long as there is room.
            Err(error) => tracing::error!(%error, "the index cannot be written"),
        }
        if written_since && checkpointed.elapsed() >= CHECKPOINT {
            let outcome = overlay.index().and_then(|index| index.checkpoint());
            if let Err(error) = outcome {
                tracing::error!(%error, "the index cannot be made durable");
            }
            checkpointed = std::time::Instant::now();
            written_since = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::window;
    use crate::config::{Durability, StoreConfig};

    #[test]
    fn nobody_waits_longer_than_a_sync_takes() {
        let config = StoreConfig { batch_window_millis: 2, ..StoreConfig::default() };
        let of = |durability| StoreConfig { durability, ..config.clone() };
        let window = |config: &StoreConfig, micros| {
            window(config, Duration::from_micros(micros)).as_millis()
        };
        for (micros, millis) in [(0, 0), (206, 0), (999, 0), (1500, 1), (2000, 2), (9000, 2)] {
            assert_eq!(window(&config, micros), millis, "a sync of {micros} us");
        }
        assert_eq!(window(&of(Durability::Strict), 9000), 0);
        assert_eq!(window(&of(Durability::Relaxed), 9000), 0);
    }
}
