// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the program ends: one line on stderr and one of five exit codes.
//!
//! - [`Exit`] is the documented table; scripts rely on it, so codes are only ever added.
//! - [`Failure`] is the only error type above the libraries. Every library error becomes one here
//!   or beside the command that met it, with a code chosen by kind and never by message.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::capability::CapabilityFileError;
use crate::config::ConfigError;
use crate::identity::IdentityError;

/// What an exit code of the program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// It failed for a reason outside the command line: disk, network, too few nodes.
    Failed = 1,
    /// The command line, a setting or an identity file is wrong; nothing was attempted.
    Usage = 2,
    /// The object or record does not exist, as far as the network can tell.
    NotFound = 3,
    /// A node said no: full, over a limit, or not authorised.
    Refused = 4,
}

impl Exit {
    /// Every code with its meaning, for help texts.
    pub const TABLE: [(Self, &'static str); 5] = [
        (Self::Done, "done"),
        (Self::Failed, "failed"),
        (Self::Usage, "bad usage or config"),
        (Self::NotFound, "not found"),
        (Self::Refused, "refused (full, limit, not authorised)"),
    ];

    /// The number itself.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ends without having done its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with a message of one line that names the thing and the remedy.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: one_line(&message.to_string()) }
    }

    /// Exit code 1.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Exit code 3.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Exit code 4.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// A failure that tells an error with all its causes.
    pub fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, chain(error))
    }

    /// The same failure with what was being done in front.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self::new(self.exit, format_args!("{doing}: {}", self.message))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let exit = match error {
            IdentityError::Io { .. } => Exit::Failed,
            _ => Exit::Usage,
        };
        Self::of(exit, &error)
    }
}

impl From<CapabilityFileError> for Failure {
    fn from(error: CapabilityFileError) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

/// An error and its causes, without those that the line before already quotes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Errors from elsewhere may span lines; ours never do.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Exit, Failure, chain};

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the log")]
    struct Quiet(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the log: {0}")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn codes_are_those_of_the_table() {
        let codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(Failure::refused("full").exit.code(), 4);
    }

    #[test]
    fn causes_are_told_once() {
        let cause = || io::Error::other("disk on fire");
        assert_eq!(chain(&Quiet(cause())), "cannot read the log: disk on fire");
        assert_eq!(chain(&Quoting(cause())), "cannot read the log: disk on fire");
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::failed("first\n  second\n\n").context("doing it");
        assert_eq!(failure.to_string(), "doing it: first second");
        assert_eq!(failure.exit, Exit::Failed);
    }
}
