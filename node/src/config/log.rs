// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `[log]` section, which nodes and clients share.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::error::Invalid;

/// What is logged and how it looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// A level, or levels by module, such as `info,supernode_dht=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

impl LogSection {
    /// Everything from a level on, formatted by where it goes.
    pub fn at(filter: &str) -> Self {
        Self { filter: filter.to_owned(), format: LogFormat::Auto }
    }

    /// Checks that the filter means something.
    ///
    /// # Errors
    /// Quotes what the filter's parser objects to.
    pub fn validate(&self) -> Result<(), Invalid> {
        match EnvFilter::builder().parse(&self.filter) {
            Ok(_) => Ok(()),
            Err(error) => Err(Invalid::new(
                "log.filter",
                format_args!(
                    "{:?} is no filter ({error}); write a level such as \"info\", or \
                     \"info,supernode_dht=debug\"",
                    self.filter
                ),
            )),
        }
    }
}
