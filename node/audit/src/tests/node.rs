// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that is driven job by job, without a runtime and without a clock, and that can die in
//! any call.

use std::time::Duration;

use futures::FutureExt;
use rand::Rng;

use super::world::{BATCH_BYTES, BUFFER, World};
use crate::chain::Chain;
use crate::config::AuditConfig;
use crate::duties::Duties;
use crate::jobs::{Done, Job, Tools};
use crate::metrics::AuditMetrics;
use crate::verdict::Planned;

/// Jobs of one run. A node that needs more does not come to rest.
const JOBS_MAX: usize = 5000;

pub(super) struct Node {
    pub(super) world: World,
    pub(super) now: Duration,
    tools: Tools<World, World, World>,
    duties: Duties,
    view: tokio::sync::watch::Receiver<crate::chain::View>,
}

/// Settings small enough that every bound is met.
pub(super) fn tight() -> AuditConfig {
    AuditConfig {
        reorg_buffer_blocks: BUFFER,
        batch_proofs_max: 3,
        batch_bytes_max: BATCH_BYTES,
        open_audits_max: 40,
        blocks_per_step_max: 7,
        catch_up_blocks_max: 30,
        leases_per_step_max: 3,
        census_leases_max: 2,
        ..AuditConfig::default()
    }
}

impl Node {
    pub(super) fn start(world: &World, config: AuditConfig, now: Duration) -> Self {
        let cursor = world.lock().cursor;
        let genesis = world.genesis();
        let duties = Duties::new(&config, genesis, cursor, now);
        let (chain, keeper, bookmark) = (world.clone(), world.clone(), world.clone());
        let mut view = world.watch();
        view.mark_changed();
        let tools = Tools { chain, keeper, bookmark, genesis, config };
        Self { world: world.clone(), now, tools, duties, view }
    }

    /// Dies and comes back.
    pub(super) fn restart(&mut self) {
        *self = Self::start(&self.world, self.tools.config.clone(), self.now);
    }

    /// Works until there is nothing to do, or until the fuse burns down in some call: then the
    /// node is started again, and false is returned.
    pub(super) fn run(&mut self) -> bool {
        let mut waiting: Vec<Job> = Vec::new();
        for _ in 0..JOBS_MAX {
            if self.view.has_changed().expect("the world lives on") {
                let view = self.view.borrow_and_update().clone();
                self.duties.observe(view);
            }
            while let Some(job) = self.duties.next_job(self.now) {
                waiting.push(job);
            }
            if waiting.is_empty() {
                return true;
            }
            let pick = self.world.lock().rng.random_range(0..waiting.len());
            let job = waiting.swap_remove(pick);
            match self.tools.clone().perform(job).now_or_never() {
                Some(done) => self.duties.apply(done, self.now),
                None => {
                    self.world.lock().fuse = None;
                    self.restart();
                    return false;
                }
            }
        }
        panic!("the node does not come to rest");
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn metrics(&self) -> AuditMetrics {
        self.duties.metrics(self.now)
    }

    pub(super) fn plan(&self) -> Vec<Planned> {
        let job = Job::Plan(self.duties.ground(self.now), 100);
        match self.tools.clone().perform(job).now_or_never() {
            Some(Done::Planned(plan)) => plan.expect("a plan"),
            other => panic!("no plan: {other:?}"),
        }
    }
}
