// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actor: owner of the duties and of the jobs under way.
//!
//! - `select` waits for the first of: the end, a job that is done, a new view of the chain, a
//!   message, a tick (for what was to be retried, and for finality that stands still).
//! - `apply` decides on it and never awaits.
//! - Jobs run beside each other inside this task: one per lane, and one plan.

use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, View};
use crate::cursor::Bookmark;
use crate::duties::Duties;
use crate::error::AuditError;
use crate::handle::{Message, PlanReply};
use crate::jobs::{Done, Job, Tools};
use crate::keeper::Keeper;
use crate::metrics::AuditMetrics;

/// The actor's ends of the channels it shares with the handles.
pub(crate) struct Mailbox {
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) metrics: watch::Sender<AuditMetrics>,
}

enum Event {
    Done(Box<Done>),
    View(View),
    Message(Message),
    Tick,
    End,
}

pub(crate) struct Actor<C, K, B> {
    tools: Tools<C, K, B>,
    duties: Duties,
    view: watch::Receiver<View>,
    /// The chain's side of `view` is gone; it will not change again.
    chain_gone: bool,
    mailbox: Mailbox,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    planning: Option<PlanReply>,
    started: Instant,
    tick: Interval,
    cancel: CancellationToken,
}

impl<C: Chain, K: Keeper, B: Bookmark> Actor<C, K, B> {
    pub(crate) fn new(
        tools: Tools<C, K, B>,
        duties: Duties,
        mut view: watch::Receiver<View>,
        mailbox: Mailbox,
        (started, cancel): (Instant, CancellationToken),
    ) -> Self {
        let mut tick = interval(Duration::from_secs(tools.config.retry_interval_secs));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What the chain said before we came is news to us.
        view.mark_changed();
        Self {
            tools,
            duties,
            view,
            chain_gone: false,
            mailbox,
            jobs: FuturesUnordered::new(),
            planning: None,
            started,
            tick,
            cancel,
        }
    }

    pub(crate) async fn run(mut self) {
        tracing::info!(genesis = %self.tools.genesis, "audit actor started");
        loop {
            let event = self.select().await;
            if matches!(event, Event::End) {
                break;
            }
            self.apply(event);
        }
        tracing::info!("audit actor stopped");
    }

    /// Waits for the next thing to decide on.
    async fn select(&mut self) -> Event {
        tokio::select! {
            () = self.cancel.cancelled() => Event::End,
            Some(done) = self.jobs.next(), if !self.jobs.is_empty() => Event::Done(Box::new(done)),
            changed = self.view.changed(), if !self.chain_gone => match changed {
                Ok(()) => Event::View(self.view.borrow_and_update().clone()),
                Err(_) => {
                    self.chain_gone = true;
                    Event::View(View::default())
                }
            },
            message = self.mailbox.inbox.recv() => message.map_or(Event::End, Event::Message),
            _ = self.tick.tick() => Event::Tick,
        }
    }

    fn apply(&mut self, event: Event) {
        let now = self.started.elapsed();
        match event {
            Event::Done(done) => self.on_done(*done, now),
            Event::View(view) => self.duties.observe(view),
            Event::Message(Message::Plan(limit, reply)) => self.on_plan(limit, reply, now),
            Event::Tick | Event::End => {}
        }
        while let Some(job) = self.duties.next_job(now) {
            self.begin(job);
        }
        self.publish(now);
    }

    fn on_done(&mut self, done: Done, now: Duration) {
        match done {
            Done::Planned(plan) => {
                if let Some(reply) = self.planning.take() {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(plan);
                }
            }
            done => self.duties.apply(done, now),
        }
    }

    fn on_plan(&mut self, limit: usize, reply: PlanReply, now: Duration) {
        if self.planning.is_some() {
            let _ = reply.send(Err(AuditError::Busy));
            return;
        }
        self.planning = Some(reply);
        self.begin(Job::Plan(self.duties.ground(now), limit));
    }

    fn begin(&mut self, job: Job) {
        self.jobs.push(Box::pin(self.tools.clone().perform(job)));
    }

    fn publish(&mut self, now: Duration) {
        let mut fresh = self.duties.metrics(now);
        self.mailbox.metrics.send_if_modified(|published| {
            // The lag grows by itself; the handle reckons it from when the head rose.
            fresh.finalised_lag = published.finalised_lag;
            let changed = *published != fresh;
            *published = fresh;
            changed
        });
    }
}
