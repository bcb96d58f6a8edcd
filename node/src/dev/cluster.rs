// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of a development network.
//!
//! Who runs in a data directory is read from its lock, not remembered: a node that was killed and
//! started again by hand is stopped like any other.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::layout::{Layout, NETWORK, NodePlan};
use super::probe;
use super::{NetworkFile, RunningChain, RunningNode};
use crate::exit::Failure;

/// What the chain's process is called among the children.
const CHAIN: &str = "chain";
/// A node that is not ready after so long will not be.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// A node that still runs so long after it was told to stop is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between looks at a process or a health page.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Variables of settings that differ from node to node: inherited, they would make all nodes one,
/// or the operator's own. Others, such as a capacity, hold for the whole network.
const OWN_SETTINGS: [&str; 8] = [
    "SUPERNODE_DATA_DIR",
    "SUPERNODE_IDENTITY_FILE",
    "SUPERNODE_NETWORK__",
    "SUPERNODE_RELAY__LISTEN",
    "SUPERNODE_RELAY__WRITERS",
    "SUPERNODE_DHT__LISTEN",
    "SUPERNODE_HTTP__LISTEN",
    "SUPERNODE_CHAIN__",
];

/// A network's processes.
pub struct Cluster {
    /// What is on disk.
    pub layout: Layout,
    children: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
}

impl Cluster {
    /// A network of which nothing runs yet.
    pub fn new(layout: Layout) -> Self {
        Self { layout, children: Vec::new() }
    }

    /// Starts every node, waits until all are ready and know each other, and writes
    /// `network.json`.
    ///
    /// # Errors
    /// When a node cannot be started or does not become ready.
    pub async fn start_all(&mut self) -> Result<NetworkFile, Failure> {
        let plans = self.layout.nodes.clone();
        // Before anything is started: a network that runs already is somebody's.
        plans.iter().try_for_each(refuse_if_held)?;
        let chain_pid = self.spawn_chain()?;
        let mut nodes = Vec::new();
        for plan in plans {
            let pid = self.spawn(&plan)?;
            nodes.push(RunningNode { plan, pid });
        }
        let known_to_each = self.layout.nodes.len();
        for node in &nodes {
            self.await_ready(&node.plan, known_to_each).await?;
        }
        self.register_all().await?;
        let network = NetworkFile {
            network: NETWORK.to_owned(),
            client_config: self.layout.client_config(),
            chain: RunningChain { plan: self.layout.chain.clone(), pid: chain_pid },
            nodes,
        };
        let path = self.layout.dir.join("network.json");
        let text = serde_json::to_string_pretty(&network).expect("plain values") + "\n";
        replace_file(&path, &text)
            .map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
        Ok(network)
    }

    /// Starts one node and returns its process id.
    ///
    /// # Errors
    /// When its data directory is in use, or the process cannot be made.
    pub fn spawn(&mut self, plan: &NodePlan) -> Result<u32, Failure> {
        refuse_if_held(plan)?;
        let log = self.layout.dir.join(&plan.name).join("node.log");
        self.spawn_process(&plan.name, &plan.command, &log)
    }

    /// Starts the chain and returns its process id.
    fn spawn_chain(&mut self) -> Result<u32, Failure> {
        let (command, log) = (self.layout.chain.command.clone(), self.layout.dir.join("chain.log"));
        self.spawn_process(CHAIN, &command, &log)
    }

    /// Puts every node into the chain's registry, once the chain answers.
    async fn register_all(&mut self) -> Result<(), Failure> {
        let log = self.layout.dir.join("chain.log");
        let registered = self.layout.chain.register(&self.layout.dir, &self.layout.nodes).await;
        registered.map_err(|failure| failure.context(format_args!("see {}", log.display())))
    }

    fn spawn_process(&mut self, name: &str, words: &[String], log: &Path) -> Result<u32, Failure> {
        let context = |error: std::io::Error| Failure::failed(format_args!("{name}: {error}"));
        let log = OpenOptions::new().create(true).append(true).open(log).map_err(context)?;
        let (program, arguments) = words.split_first().expect("a plan names its program");
        let mut command = Command::new(program);
        without_settings(&mut command, &OWN_SETTINGS);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(context)?)
            .stderr(log)
            // A group of its own, so that Ctrl-C reaches us and we stop it in order.
            .process_group(0)
            .spawn()
            .map_err(context)?;
        let pid = child.id().expect("it has not been waited for");
        self.children.push(Running { name: name.to_owned(), child });
        Ok(pid)
    }

    /// Waits until a node is ready and knows `known` nodes, itself included.
    ///
    /// # Errors
    /// When it ends before, or takes too long; names its log.
    pub async fn await_ready(&mut self, plan: &NodePlan, known: usize) -> Result<(), Failure> {
        let give_up = Instant::now() + READY_TIMEOUT;
        let log = self.layout.dir.join(&plan.name).join("node.log");
        loop {
            if probe::is_ready(&plan.http).await && knows(plan, known).await {
                return Ok(());
            }
            let ended = self
                .children
                .iter_mut()
                .rfind(|running| running.name == plan.name)
                .and_then(|running| running.child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(Failure::failed(format_args!(
                    "{} ended ({status}) before it was ready; see {}",
                    plan.name,
                    log.display()
                )));
            }
            if Instant::now() >= give_up {
                return Err(Failure::failed(format_args!(
                    "{} is not ready after {} s; see {}",
                    plan.name,
                    READY_TIMEOUT.as_secs(),
                    log.display()
                )));
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Waits until one of the processes started here ends; returns whose it was.
    pub async fn next_exit(&mut self) -> String {
        if self.children.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.children.iter_mut().map(|running| Box::pin(running.child.wait()));
        let (_, position, _) = select_all(waits).await;
        self.children.swap_remove(position).name
    }

    /// Kills nodes in one instant, without a word to them, and waits until they are gone.
    pub async fn kill(&mut self, plans: &[NodePlan]) {
        let pids: Vec<Pid> =
            plans.iter().filter_map(|plan| holder(&plan.data_dir)).filter_map(pid).collect();
        for pid in pids {
            send(pid, Signal::KILL);
        }
        for plan in plans {
            await_free(&plan.data_dir, STOP_TIMEOUT).await;
        }
        self.reap(plans).await;
    }

    /// Stops everything that runs in the network's directories.
    pub async fn stop_all(&mut self) {
        let plans = self.layout.nodes.clone();
        join_all(plans.iter().map(|plan| stop(&plan.data_dir))).await;
        self.reap(&plans).await;
        self.stop_chain().await;
    }

    /// Stops the chain, if it was started here.
    async fn stop_chain(&mut self) {
        let Some(position) = self.children.iter().position(|running| running.name == CHAIN) else {
            return;
        };
        let mut chain = self.children.swap_remove(position).child;
        if let Some(pid) = chain.id().and_then(pid) {
            send(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, chain.wait()).await.is_err() {
            warn!("the chain did not stop in time and is killed");
            // It is waited for by the runtime.
            let _ = chain.start_kill();
        }
    }

    /// Stops the nodes that were started here and leaves others alone.
    pub async fn stop_started(&mut self) {
        let ours = |plan: &&NodePlan| self.children.iter().any(|child| child.name == plan.name);
        let plans: Vec<NodePlan> = self.layout.nodes.iter().filter(ours).cloned().collect();
        join_all(plans.iter().map(|plan| stop(&plan.data_dir))).await;
        self.reap(&plans).await;
        self.stop_chain().await;
    }

    /// Collects children that have ended, so that none stays a zombie.
    async fn reap(&mut self, plans: &[NodePlan]) {
        let (ended, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.children)
            .into_iter()
            .partition(|running| plans.iter().any(|plan| plan.name == running.name));
        self.children = rest;
        for mut running in ended {
            // Started and not yet at its lock: nobody else can tell it to stop.
            let _ = running.child.start_kill();
            if let Err(error) = running.child.wait().await {
                warn!(name = running.name, %error, "cannot wait for a node");
            }
        }
    }
}

/// Takes settings whose names start like one of `prefixes` out of a child's environment, where
/// they would outrank the file it is given.
pub fn without_settings(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let is_one = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(is_one) {
            command.env_remove(name);
        }
    }
}

fn refuse_if_held(plan: &NodePlan) -> Result<(), Failure> {
    match holder(&plan.data_dir) {
        None => Ok(()),
        Some(pid) => Err(Failure::failed(format_args!(
            "{} is in use by process {pid}; stop it, or choose another directory",
            plan.data_dir.display()
        ))),
    }
}

/// Whether the node has found `known` members of the network.
async fn knows(plan: &NodePlan, known: usize) -> bool {
    let members = probe::metric(&plan.http, "supernode_dht_members").await;
    members.is_some_and(|members| members >= known as f64)
}

async fn stop(data_dir: &Path) {
    let Some(running) = holder(data_dir).and_then(pid) else {
        return;
    };
    send(running, Signal::TERM);
    if !await_free(data_dir, STOP_TIMEOUT).await {
        warn!(data_dir = %data_dir.display(), "a node did not stop in time and is killed");
        send(running, Signal::KILL);
        await_free(data_dir, STOP_TIMEOUT).await;
    }
    // The lock is let go a moment before the process ends.
    if !until(STOP_TIMEOUT, || has_ended(running)).await {
        warn!(?running, "a node let go of its directory and still runs");
    }
}

/// Waits until nobody holds the directory; false when somebody still does at the deadline.
async fn await_free(data_dir: &Path, patience: Duration) -> bool {
    until(patience, || holder(data_dir).is_none()).await
}

/// Whether a process is gone, or waits only for its parent to notice.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state is the first field after the name, which is in parentheses and may hold any.
    stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// Looks until something holds; false when it still does not at the deadline.
async fn until(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let give_up = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= give_up {
            return false;
        }
        sleep(LOOK_PAUSE).await;
    }
    true
}

/// The process that runs in a data directory.
fn holder(data_dir: &Path) -> Option<u32> {
    supernode_store::lock_holder(data_dir).unwrap_or_else(|error| {
        warn!(data_dir = %data_dir.display(), %error, "cannot look at the lock");
        None
    })
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself a moment ago, which is what was wanted.
    if let Err(error) = kill_process(pid, signal) {
        warn!(?pid, %error, "cannot signal a node");
    }
}

fn replace_file(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("json.new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}
