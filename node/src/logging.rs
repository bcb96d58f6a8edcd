// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs: `tracing` to stderr, for people on a terminal, as JSON lines otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::log::{LogFormat, LogSection};
use crate::exit::Failure;

/// Installs the subscriber of this process. Only the first call in a process counts.
///
/// # Errors
/// When the filter means nothing.
pub fn install(section: &LogSection) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(&section.filter)
        .map_err(|error| Failure::usage(format_args!("log.filter: {error}")))?;
    let terminal = io::stderr().is_terminal();
    let human = match section.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(human && terminal && std::env::var_os("NO_COLOR").is_none());
    // A second subscriber is refused; whoever installed the first one wanted it (tests do).
    let _ = if human {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    Ok(())
}
