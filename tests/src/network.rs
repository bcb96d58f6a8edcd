// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole network on this machine: `dev` as a child, its nodes killed and started again by hand.
//!
//! Who the nodes are is read from `network.json` alone, as a stranger would. Whatever happens in a
//! test, no process of the network outlives it: `dev` is asked to stop first, and what still works
//! in the temporary directory after that is killed by its id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::eventually::{before, eventually};
use crate::http;
use crate::process::{self, Signal};
use crate::program::{Client, Guarded, Program};

/// A node or a network that is not up by then never will be.
const UP_PATIENCE: Duration = Duration::from_secs(120);
/// What was told to stop has stopped by then.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// A killed process is gone by then.
const GONE_PATIENCE: Duration = Duration::from_secs(20);
/// Last lines of a log that are shown when a test fails.
const LOG_LINES: usize = 15;

/// One node, as `network.json` has it.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node-1` and so on.
    pub name: String,
    /// Its failure domain.
    pub region: String,
    /// Its process; changes when it is restarted.
    pub pid: u32,
    /// What starts it again.
    pub command: Vec<String>,
    /// Where its segments are.
    pub data_dir: PathBuf,
    /// Its relay server.
    pub quic: String,
    /// Its libp2p endpoint, with `/p2p/` and its peer id.
    pub libp2p: String,
    /// Its metrics and health.
    pub http: String,
}

impl Node {
    fn of(value: &Value) -> Self {
        let text = |key: &str| {
            let text = value[key].as_str();
            text.unwrap_or_else(|| panic!("a node without a {key}: {value}")).to_owned()
        };
        let pid = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let words = value["command"].as_array().expect("command is a list");
        let word = |word: &Value| word.as_str().expect("of words").to_owned();
        Self {
            name: text("name"),
            region: text("region"),
            pid: pid.expect("pid is a process id"),
            command: words.iter().map(word).collect(),
            data_dir: text("data_dir").into(),
            quic: text("quic"),
            libp2p: text("libp2p"),
            http: text("http"),
        }
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        matches!(http::request(&self.http, "/readyz"), Ok((200, _)))
    }
}

/// The chain of a network, as `network.json` has it.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its JSON-RPC endpoint.
    pub endpoint: String,
    /// Its process.
    pub pid: u32,
    /// What starts it again.
    pub command: Vec<String>,
}

impl Chain {
    fn of(value: &Value) -> Self {
        let words = value["command"].as_array().expect("command is a list");
        let word = |word: &Value| word.as_str().expect("of words").to_owned();
        let pid = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Self {
            endpoint: value["endpoint"].as_str().expect("the chain has an endpoint").to_owned(),
            pid: pid.expect("pid is a process id"),
            command: words.iter().map(word).collect(),
        }
    }
}

/// How a network is started.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// How many nodes.
    pub nodes: usize,
    /// Settings of all nodes, as environment variables.
    pub settings: &'a [(&'a str, &'a str)],
    /// Time between blocks.
    pub block_time: &'a str,
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Self { nodes: 7, settings: &[], block_time: "1s" }
    }
}

/// A running network.
pub struct Network {
    /// The program that it runs, with an empty home.
    pub program: Program,
    /// Its nodes, in order.
    pub nodes: Vec<Node>,
    /// Its chain, when the network is up.
    pub chain: Option<Chain>,
    scratch: TempDir,
    dev: Guarded,
    restarted: Vec<Guarded>,
    settings: Vec<(String, String)>,
}

impl Network {
    /// Starts seven nodes of the program at `path` and waits until all are up.
    ///
    /// # Panics
    /// If they do not come up.
    pub fn start(path: &str) -> Self {
        Self::start_as(path, &Shape::default())
    }

    /// Starts a network of another shape.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_as(path: &str, shape: &Shape<'_>) -> Self {
        let scratch = tempfile::Builder::new().prefix("supernode-test-").tempdir();
        let scratch = scratch.expect("a temporary directory");
        let program = Program::new(path, &scratch.path().join("home"));
        let count = shape.nodes.to_string();
        let dir = scratch.path().join("dev");
        let mut command = program.command(["dev", "--json", "--nodes", &count, "--dir"]);
        command.arg(&dir).args(["--block-time", shape.block_time]);
        command.envs(shape.settings.iter().copied());
        command.stdout(create(&scratch.path().join("dev.out")));
        command.stderr(create(&scratch.path().join("dev.err")));
        let dev = Guarded::spawn(&mut command);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let settings = shape.settings.iter().map(owned).collect();
        let (nodes, restarted, chain) = (Vec::new(), Vec::new(), None);
        let mut network = Self { program, nodes, chain, scratch, dev, restarted, settings };
        network.await_up();
        network
    }

    /// `dev` says in one JSON document, when all are up, what `network.json` says as well.
    fn await_up(&mut self) {
        let said = eventually("the network", UP_PATIENCE, || {
            if let Some(status) = self.dev.status() {
                panic!("dev ended with {status} instead of starting a network");
            }
            let said = fs::read_to_string(self.path("dev.out")).expect("dev has a stdout");
            said.ends_with('\n').then_some(said)
        });
        let said: Value = serde_json::from_str(&said).expect("stdout is one JSON document");
        let file = fs::read_to_string(self.dir().join("network.json")).expect("it is written");
        let file: Value = serde_json::from_str(&file).expect("it is JSON");
        assert_eq!(said, file, "stdout and network.json say the same");
        self.nodes =
            file["nodes"].as_array().expect("nodes is a list").iter().map(Node::of).collect();
        self.chain = Some(Chain::of(&file["chain"]));
    }

    /// The network's own directory.
    pub fn dir(&self) -> PathBuf {
        self.path("dev")
    }

    /// A path in the temporary directory around it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Whoever may write to the network.
    pub fn client(&self) -> Client {
        Client::new(self.program.clone(), self.dir().join("client.toml"))
    }

    /// What `dev` has said to people so far.
    ///
    /// # Panics
    /// If its stderr cannot be read.
    pub fn talk(&self) -> String {
        fs::read_to_string(self.path("dev.err")).expect("dev has a stderr")
    }

    /// Kills nodes in one instant, without a word to them.
    ///
    /// # Panics
    /// If they do not die.
    pub fn kill(&mut self, positions: &[usize]) {
        for position in positions {
            process::signal(self.nodes[*position].pid, Signal::KILL);
        }
        for position in positions {
            self.await_gone(self.nodes[*position].pid);
        }
    }

    /// Stops one node in order and waits until it has.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop_node(&mut self, position: usize) {
        let pid = self.nodes[position].pid;
        process::signal(pid, Signal::TERM);
        self.await_gone(pid);
    }

    fn await_gone(&mut self, pid: u32) {
        eventually("the end of a node", GONE_PATIENCE, || {
            // Those started by hand are children of this process, which has to collect them.
            self.restarted.retain_mut(|child| child.status().is_none());
            (!process::is_known(pid)).then_some(())
        });
    }

    /// Starts a node by hand with its `command`, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart(&mut self, position: usize) {
        self.restart_with(position, &[]);
    }

    /// Starts nodes by hand, all at once, and waits until they are ready.
    ///
    /// # Panics
    /// If they do not become ready.
    pub fn restart_all(&mut self, positions: &[usize]) {
        self.restart_all_with(positions, &[]);
    }

    /// Starts nodes by hand, all at once and with more settings, and waits until they are ready.
    ///
    /// # Panics
    /// If they do not become ready.
    pub fn restart_all_with(&mut self, positions: &[usize], settings: &[(&str, &str)]) {
        positions.iter().for_each(|position| self.spawn_node(*position, settings));
        positions.iter().for_each(|position| self.await_ready(*position));
    }

    /// Starts a node by hand with more settings, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart_with(&mut self, position: usize, settings: &[(&str, &str)]) {
        self.spawn_node(position, settings);
        self.await_ready(position);
    }

    /// The chain's JSON-RPC endpoint.
    ///
    /// # Panics
    /// Not in a network that is up.
    pub fn endpoint(&self) -> String {
        self.chain.as_ref().expect("the network is up").endpoint.clone()
    }

    /// Kills the chain's process, without a word to it.
    ///
    /// # Panics
    /// If it does not die.
    pub fn kill_chain(&mut self) {
        let pid = self.chain.as_ref().expect("the network is up").pid;
        process::signal(pid, Signal::KILL);
        self.await_gone(pid);
    }

    /// Starts the chain by hand with its `command`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart_chain(&mut self) {
        let chain = self.chain.as_mut().expect("the network is up");
        let (program, arguments) = chain.command.split_first().expect("a command has a program");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::null());
        let log = create(&self.scratch.path().join("chain.log"));
        command.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let child = Guarded::spawn(&mut command);
        chain.pid = child.pid();
        self.restarted.push(child);
    }

    fn spawn_node(&mut self, position: usize, settings: &[(&str, &str)]) {
        let node = &mut self.nodes[position];
        let (program, arguments) = node.command.split_first().expect("a command has a program");
        let log = node.data_dir.with_file_name("node.log");
        let log = OpenOptions::new().append(true).open(log).expect("the node has a log");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command.envs(settings.iter().copied());
        command.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let child = Guarded::spawn(&mut command);
        node.pid = child.pid();
        self.restarted.push(child);
    }

    fn await_ready(&mut self, position: usize) {
        let pid = self.nodes[position].pid;
        eventually("a restarted node", UP_PATIENCE, || {
            assert!(process::is_running(pid), "node {position} has ended instead");
            self.nodes[position].is_ready().then_some(())
        });
    }

    /// Stops the network as Ctrl-C does.
    ///
    /// # Panics
    /// If `dev` fails, or leaves anything running.
    pub fn stop(mut self) {
        process::signal(self.dev.pid(), Signal::INT);
        let status = self.dev.wait(STOP_PATIENCE);
        assert_eq!(status.code(), Some(0), "dev stops in order: {}", self.talk());
        let left = process::working_in(self.scratch.path()).into_iter();
        let left: Vec<String> = left.map(process::arguments).collect();
        assert!(left.is_empty(), "dev has ended and left running: {left:?}");
        self.restarted.retain_mut(|child| child.status().is_none());
        assert!(self.restarted.is_empty(), "a node that was restarted by hand still runs");
    }

    /// What the processes said last, for whoever looks at a failed test.
    fn tell(&self) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        let logs = self.nodes.iter().map(|node| node.data_dir.with_file_name("node.log"));
        for path in [self.path("dev.err")].into_iter().chain(logs) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            writeln!(stderr, "--- {}\n{}", path.display(), last.join("\n"))?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // With stderr gone there is nobody to tell.
            let _ = self.tell();
        }
        if self.dev.status().is_none() {
            process::signal(self.dev.pid(), Signal::TERM);
            let _ = before(STOP_PATIENCE, || self.dev.status());
        }
        for pid in process::working_in(self.scratch.path()) {
            process::signal(pid, Signal::KILL);
        }
        // The directory goes next, and must not be written to meanwhile.
        self.restarted.clear();
        let _ = before(GONE_PATIENCE, || {
            process::working_in(self.scratch.path()).is_empty().then_some(())
        });
    }
}

fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
