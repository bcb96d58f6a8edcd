// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node alone, without a chain and without others: a directory, and the process that works in
//! it for as long as a test lets it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use supernode_client::{Keypair, Peer};
use supernode_protocol::ids::NodeId;

use crate::eventually::before;
use crate::process::{self, Signal};
use crate::program::{Guarded, Program};

/// A node that has not gone by then never will.
const GONE_PATIENCE: Duration = Duration::from_secs(30);
/// The only settings that do not come from the caller: ports that nobody else has.
const PORTS: [&str; 4] = [
    "relay.listen=127.0.0.1:0",
    "dht.listen=/ip4/127.0.0.1/tcp/0",
    "http.listen=127.0.0.1:0",
    "dht.allow_private_addresses=true",
];

/// A node's directory, and who may write to it.
#[derive(Debug)]
pub struct Lone {
    program: Program,
    dir: PathBuf,
    /// The key of the one writer, the same for all nodes.
    pub writer: Keypair,
}

/// Its process.
#[derive(Debug)]
pub struct Running {
    process: Guarded,
    dir: PathBuf,
    /// Where it answers HTTP, once it is up.
    http: String,
    /// Whether `process` is another program, of which the node is a child.
    is_wrapped: bool,
}

impl Lone {
    /// Makes the directory, with these settings (`section.key=value`).
    ///
    /// # Panics
    /// If the program does not.
    pub fn init(program: &Program, dir: &Path, settings: &[&str]) -> Self {
        let node = Self::at(program, dir);
        let writer = &node.writer;
        let name = NodeId::from_public(&writer.public()).expect("an Ed25519 key");
        let mut command = program.command(["init", "--data-dir"]);
        command.arg(dir).args(["--set", &format!("relay.writers={name}")]);
        command.args(PORTS.iter().chain(settings).flat_map(|setting| ["--set", setting]));
        crate::program::run(&mut command).expect(0);
        node
    }

    /// A directory that was made before.
    pub fn at(program: &Program, dir: &Path) -> Self {
        let writer = Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key");
        Self { program: program.clone(), dir: dir.to_owned(), writer }
    }

    /// The same node in a copy of its directory. It must not run.
    ///
    /// # Panics
    /// If there is something already.
    pub fn copied_to(&self, dir: &Path) -> Self {
        copy(&self.dir, dir);
        Self::at(&self.program, dir)
    }

    /// Where its segments are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts its process, by way of another program where there are words of one; and with more
    /// settings.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, wrapper: &[String], settings: &[&str]) -> Running {
        let node = self.program.command(["run", "--json", "--config"]);
        let mut command = match wrapper.split_first() {
            None => node,
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(node.get_program()).args(node.get_args());
                command.env_clear().stdin(Stdio::null());
                let set = node.get_envs().filter_map(|(name, value)| Some((name, value?)));
                command.envs(set);
                command
            }
        };
        command.arg(self.dir.join("supernode.toml"));
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let talk = File::options().create(true).append(true).open(self.dir.join("node.log"));
        command.stdout(Stdio::piped()).stderr(talk.expect("an own directory"));
        let (process, dir) = (Guarded::spawn(&mut command), self.dir.clone());
        Running { process, dir, http: String::new(), is_wrapped: !wrapper.is_empty() }
    }
}

impl Running {
    /// Waits until it is up and says where; nothing if it ends before.
    ///
    /// # Panics
    /// If it says something else. Not to be asked twice.
    pub fn up(&mut self) -> Option<Peer> {
        let stdout = self.process.child().stdout.take().expect("asked for once");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        // A process that is killed while it speaks ends the line early.
        let said: Value = serde_json::from_str(line.strip_suffix('\n')?).expect("JSON");
        let text = |key: &str| said[key].as_str().expect("a node that is up says who and where");
        let quic: SocketAddr = text("quic").parse().expect("an address");
        text("http").clone_into(&mut self.http);
        Some(Peer { node: text("peer_id").parse().expect("an id"), addresses: vec![quic] })
    }

    /// Its process id. One that is wrapped has another.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it answers HTTP, once it is up.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The last line that it has said for people.
    ///
    /// # Panics
    /// If it has no log.
    pub fn last_word(&self) -> String {
        let talk = fs::read_to_string(self.dir.join("node.log")).expect("it has a log");
        talk.lines().next_back().unwrap_or_default().to_owned()
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// Lets it run for so long; whether it is still there then.
    pub fn lasts(&mut self, time: Duration) -> bool {
        before(time, || self.status()).is_none()
    }

    /// Kills it without a word.
    ///
    /// # Panics
    /// If it does not die.
    pub fn kill(mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to stop in good order.
    ///
    /// # Panics
    /// If it does not, or says that it could not.
    pub fn stop(mut self) {
        let status = self.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "an orderly stop; {} says why", self.dir.display());
    }

    /// Who wraps the node ends when all of the node has: by then its files are free.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.nodes().into_iter().for_each(|pid| process::signal(pid, signal));
        self.process.wait(GONE_PATIENCE)
    }

    /// The node's process. One that is wrapped is found by its arguments, which it has only a
    /// moment after its start.
    fn nodes(&self) -> Vec<u32> {
        if !self.is_wrapped {
            return vec![self.process.pid()];
        }
        let mut pids = process::working_in(&self.dir);
        pids.retain(|pid| ![self.process.pid(), std::process::id()].contains(pid));
        pids
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The guard ends a wrapper, and not what that has started.
        if self.is_wrapped {
            self.nodes().into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("an own directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("the system knows");
        if kind.is_dir() {
            copy(&from, &to);
        } else if kind.is_file() {
            fs::copy(&from, &to).expect("there is room");
        }
    }
}
