// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of this program as processes of their own, judged by exit code and output.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::timeout;

use crate::dev::cluster::without_settings;
use crate::exit::Failure;

/// A command that has not ended by then never will.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How a command ended.
pub(super) struct Ended {
    /// Its exit code; -1 if a signal ended it.
    pub(super) code: i32,
    /// What it printed, without the line end.
    pub(super) stdout: String,
    /// The last line it said.
    pub(super) said: String,
    /// From start to exit.
    pub(super) seconds: f64,
}

/// Runs client commands with one configuration, as somebody with an empty home.
#[derive(Clone)]
pub(super) struct Client {
    program: PathBuf,
    config: PathBuf,
    home: PathBuf,
}

impl Client {
    pub(super) fn new(program: &Path, config: &Path, home: &Path) -> Self {
        Self { program: program.into(), config: config.into(), home: home.into() }
    }

    /// Runs `supernode --config CONFIG ARGUMENTS...`.
    pub(super) async fn run<A: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Ended, Failure> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        without_settings(&mut command, &["SUPERNODE_"]);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments.into_iter().map(Into::into))
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(TIMEOUT, command.output())
            .await
            .map_err(|_| Failure::failed("a command of the demo did not end in time"))?
            .map_err(|error| Failure::failed(format_args!("cannot run a command: {error}")))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        Ok(Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
            said: stderr.lines().last().unwrap_or_default().to_owned(),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}
