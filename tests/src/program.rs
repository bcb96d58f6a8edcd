// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real program as processes of its own, judged by exit code and output.
//!
//! Each command runs with an environment of three variables, so that neither settings nor keys of
//! whoever runs the tests reach it, and is killed when the test gives up on it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::eventually::eventually;

/// A command of a test that has not ended by then never will.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// All that it wrote to stdout.
    pub stdout: Vec<u8>,
    /// All that it wrote to stderr.
    pub stderr: String,
    /// From start to exit.
    pub elapsed: Duration,
}

impl Ended {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// If it is another one; shows what was said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { code: seen, stderr, elapsed, .. } = &self;
        assert_eq!(*seen, code, "exit code after {elapsed:?}; it said: {stderr}");
        self
    }

    /// Asserts that it failed with this code, without a word on stdout and with one line on stderr,
    /// and gives that line.
    ///
    /// # Panics
    /// If it ended otherwise.
    #[track_caller]
    pub fn refusal(self, code: i32) -> String {
        let ended = self.expect(code);
        assert!(ended.stdout.is_empty(), "stdout is data: {}", ended.text());
        let lines = ended.stderr.lines().count();
        assert_eq!(lines, 1, "an error is one line: {}", ended.stderr);
        let line = ended.stderr.trim_end().strip_prefix("supernode: error: ");
        line.unwrap_or_else(|| panic!("no error: {}", ended.stderr)).to_owned()
    }

    /// stdout as text, without the line end.
    ///
    /// # Panics
    /// If it is no text.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text was asked for").trim_end()
    }

    /// stdout as the one JSON document that it must be.
    ///
    /// # Panics
    /// If it is something else.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The program under test and the home directory of whoever runs it.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    home: PathBuf,
}

impl Program {
    /// The program at `path` (`env!("CARGO_BIN_EXE_supernode-under-test")`), run by somebody whose
    /// home is `home`.
    ///
    /// # Panics
    /// If the home cannot be made.
    pub fn new(path: &str, home: &Path) -> Self {
        fs::create_dir_all(home).expect("a home in a temporary directory");
        Self { path: path.into(), home: home.to_owned() }
    }

    /// A command of the program, to be changed before it is run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).env_clear().env("HOME", &self.home).stdin(Stdio::null());
        let kept = ["PATH", "TMPDIR"].map(|name| (name, env::var_os(name)));
        command.envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Runs a command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        run(&mut self.command(arguments))
    }
}

/// The program with a client's configuration.
#[derive(Debug, Clone)]
pub struct Client {
    program: Program,
    config: PathBuf,
}

impl Client {
    /// Commands with `--config CONFIG`.
    pub fn new(program: Program, config: PathBuf) -> Self {
        Self { program, config }
    }

    /// A command, to be changed before it is run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program.command([OsStr::new("--config"), self.config.as_os_str()]);
        command.args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        run(&mut self.command(arguments))
    }

    /// Puts a file and gives its CID.
    ///
    /// # Panics
    /// If that fails, or stdout has anything but the CID.
    #[track_caller]
    pub fn put(&self, file: &Path) -> String {
        let ended = self.run([OsStr::new("put"), file.as_os_str()]).expect(0);
        let cid = ended.text();
        assert!(cid.starts_with("bafyr4i") && !cid.contains(char::is_whitespace), "{cid}");
        cid.to_owned()
    }

    /// Puts these bytes by way of a file in `dir`.
    ///
    /// # Panics
    /// As [`Client::put`].
    #[track_caller]
    pub fn put_bytes(&self, dir: &Path, bytes: &[u8]) -> String {
        let file = dir.join("put.in");
        fs::write(&file, bytes).expect("a temporary file");
        self.put(&file)
    }

    /// Runs `get CID -o OUTPUT`.
    pub fn get(&self, cid: &str, output: &Path) -> Ended {
        self.run([OsStr::new("get"), OsStr::new(cid), OsStr::new("-o"), output.as_os_str()])
    }

    /// Fetches an object by way of a file in `dir` and asserts that it is these bytes.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn fetch_exact(&self, cid: &str, dir: &Path, bytes: &[u8]) {
        let output = dir.join("get.out");
        self.get(cid, &output).expect(0);
        let got = fs::read(&output).expect("get has made the file");
        assert_eq!(got.len(), bytes.len(), "size of {cid}");
        // Not assert_eq: nobody wants to read megabytes.
        assert!(got == bytes, "{cid} came back with other bytes");
        fs::remove_file(&output).expect("an own file");
    }
}

/// A process that ends with the test at the latest.
#[derive(Debug)]
pub struct Guarded(Child);

impl Guarded {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The process itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        eventually("the end of a process", patience, || self.status())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both only say that it has ended already, which is what was wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end. stdout and stderr go through files: a pipe that nobody reads would
/// stop it.
///
/// # Panics
/// If it cannot be started or does not end.
#[track_caller]
pub fn run(command: &mut Command) -> Ended {
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    let duplicate = |file: &File| file.try_clone().expect("a second descriptor");
    command.stdout(duplicate(&stdout)).stderr(duplicate(&stderr));
    let begun = Instant::now();
    let mut child = Guarded::spawn(command);
    let status = child.wait(PATIENCE);
    let elapsed = begun.elapsed();
    let stderr = String::from_utf8_lossy(&content(&mut stderr)).into_owned();
    Ended { code: status.code().unwrap_or(-1), stdout: content(&mut stdout), stderr, elapsed }
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file can be read again");
    file.read_to_end(&mut bytes).expect("a temporary file can be read");
    bytes
}
