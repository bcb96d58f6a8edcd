// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running the program under test, with an environment that this machine's settings cannot reach.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The program, not started yet.
pub fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supernode"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    finish(&mut command(arguments))
}

/// Runs a prepared command to its end.
pub fn finish(command: &mut Command) -> Ended {
    let output = command.output().expect("the program under test starts");
    Ended {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Ended {
    /// Fails unless this was a failure with `code`, told in one line that holds `parts`.
    pub fn assert_failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "a failure says nothing on stdout");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("supernode: error: "), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing: {}", self.stderr);
        }
    }

    /// Fails unless the program succeeded.
    pub fn assert_done(&self) {
        assert_eq!(self.code, 0, "{self:?}");
    }
}

/// A data directory with configuration and key, made by `init`, on ports of the loopback.
pub struct NodeDir {
    dir: TempDir,
    pub peer_id: String,
}

impl NodeDir {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data_dir = dir.path().join("node");
        let made = run(&[
            "init".as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
            "--set".as_ref(),
            "relay.listen=127.0.0.1:0".as_ref(),
            "--set".as_ref(),
            "dht.listen=/ip4/127.0.0.1/tcp/0".as_ref(),
            "--set".as_ref(),
            "dht.allow_private_addresses=true".as_ref(),
            "--set".as_ref(),
            "http.listen=127.0.0.1:0".as_ref(),
            "--set".as_ref(),
            "storage.reserve_bytes=0".as_ref(),
        ]);
        made.assert_done();
        Self { dir, peer_id: made.stdout.trim().to_owned() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("supernode.toml")
    }

    /// A command with this node's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.arg("--config").arg(self.config());
        command
    }

    /// Starts the node and waits until it is up.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        let mut child = self
            .command(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program under test starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("text");
        match serde_json::from_str(&line) {
            Ok(up) => Running { child, up },
            Err(error) => {
                let ended = child.wait_with_output().expect("it can be waited for");
                let log = String::from_utf8_lossy(&ended.stderr).into_owned();
                panic!("the node did not come up ({error}): {log}");
            }
        }
    }
}

/// A running node. Killed when dropped.
pub struct Running {
    child: Child,
    /// What it printed when it was up.
    pub up: Value,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn http(&self) -> &str {
        self.up["http"].as_str().expect("an address")
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("`kill` is on every Unix").success());
    }

    /// Waits for its end.
    pub fn ended(mut self) -> i32 {
        let status = self.child.wait().expect("it can be waited for");
        status.code().expect("it ends by itself")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names in a directory, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory that can be read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
