// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other processes of a bench: the program starts itself again in a role, so that what a server
//! uses can be told from what a client does. A process in a role says one line when it is ready,
//! and ends when its standard input does: it never outlives the bench.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::attack::{self, Attack};
#[cfg(feature = "iroh")]
use super::iroh;
use super::raw::{self, Setting};
use super::server::{self, Server};

/// The first argument of a process in a role.
const ROLE: &str = "--role";
/// Nanoseconds of a tick of the kernel's accounts, which all Linux machines have in common.
const TICK_NANOS: u64 = 10_000_000;

/// What a process is for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    /// A relay server over a store.
    Relay(Server),
    /// quinn alone.
    Raw(Setting),
    /// Clients that nobody wants.
    Attack(Attack),
    /// A server of iroh's.
    #[cfg(feature = "iroh")]
    Iroh(iroh::Blobs),
}

/// Another process in a role. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it listens, if it is a server.
    pub address: SocketAddr,
}

impl Process {
    /// Starts one and waits until it is ready.
    pub fn start(role: &Role) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        let role = serde_json::to_string(role).expect("plain settings");
        let mut command = Command::new(program);
        command.args([ROLE, &role]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts again");
        let stdin = child.stdin.take();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe of our own");
        let address = line.trim().parse();
        let address =
            address.expect("a process in a role says where it listens, or dies saying why");
        Self { child, stdin, address }
    }

    /// Seconds of processor time it has used.
    pub fn cpu_secs(&self) -> f64 {
        cpu_secs(&self.read("stat"))
    }

    /// Bytes of it that are in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most bytes of it that ever were.
    pub fn resident_bytes_max(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("the kernel's form") * 1024
    }

    fn read(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(path).expect("a child that lives")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Seconds of processor time that this process has used.
pub fn own_cpu_secs() -> f64 {
    cpu_secs(&fs::read_to_string("/proc/self/stat").expect("a process lives that asks"))
}

/// Seconds of processor time in what the kernel says of a process.
fn cpu_secs(stat: &str) -> f64 {
    // The name stands in parentheses and may contain anything.
    let (_, fields) = stat.rsplit_once(')').expect("the kernel's form");
    let ticks = |field: usize| fields.split_whitespace().nth(field)?.parse::<u64>().ok();
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    (ticks.expect("the kernel's form") * TICK_NANOS) as f64 / 1e9
}

/// Whether this process is one in a role; it has played it then.
pub fn child() -> bool {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [flag, role, ..] = &arguments[..] else { return false };
    if flag != ROLE {
        return false;
    }
    match serde_json::from_str(role).expect("what the bench wrote") {
        Role::Raw(setting) => play(setting.runtime(), || {
            (raw::serve(setting, &server::node_key(), server::loopback(0)), ())
        }),
        Role::Relay(role) => {
            let store = role.open();
            play(threads(), || {
                let relay = server::serve(&role, store);
                (relay.local_addr(), relay)
            });
        }
        #[cfg(feature = "iroh")]
        Role::Iroh(blobs) => {
            let runtime = threads();
            let served = runtime.block_on(iroh::serve(&blobs));
            play(runtime, || served);
        }
        Role::Attack(attack) => play(threads(), || (attack.target, attack::begin(&attack))),
    }
    true
}

/// A runtime as a node has one.
pub fn threads() -> Runtime {
    Runtime::new().expect("threads")
}

/// Starts something, tells its address, and keeps it until the end of standard input.
fn play<T>(runtime: Runtime, start: impl FnOnce() -> (SocketAddr, T)) {
    let (address, _kept) = {
        let _inside = runtime.enter();
        start()
    };
    writeln!(io::stdout(), "{address}").expect("the bench listens");
    // A runtime of one thread runs only while something blocks on it.
    runtime.block_on(async {
        let waits = tokio::task::spawn_blocking(|| io::stdin().lines().for_each(drop));
        waits.await.expect("reading does not panic");
    });
    runtime.shutdown_background();
}
