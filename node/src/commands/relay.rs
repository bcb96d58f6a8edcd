// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relay limits` shows and changes the limits of a running node's relay server.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Given, running, runtime};
use crate::admin;
use crate::cli::RelayCommand;
use crate::exit::Failure;
use crate::output::{Output, Report};

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Shown(Map<String, Value>);

impl Report for Shown {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        lines("relay", &self.0, out)
    }
}

/// One line for each setting, as `--set` takes it.
fn lines(prefix: &str, table: &Map<String, Value>, out: &mut dyn Write) -> io::Result<()> {
    table.iter().try_for_each(|(key, value)| match value {
        Value::Object(inner) => lines(&format!("{prefix}.{key}"), inner, out),
        value => writeln!(out, "{prefix}.{key}={value}"),
    })
}

/// Does `supernode relay limits`.
pub fn run(given: &Given, command: RelayCommand) -> Result<(), Failure> {
    let RelayCommand::Limits(args) = command;
    // Loading judges what was given as it would be judged in the configuration.
    let data_dir = given.node_config(Vec::new())?.data_dir;
    let is_of_relay = |key: &str| key.starts_with("relay.");
    let changes: Vec<(&str, &str)> = given
        .set
        .iter()
        .filter(|overlay| is_of_relay(&overlay.key))
        .map(|overlay| (overlay.key.as_str(), overlay.value.as_str()))
        .collect();
    let limits = runtime()?.block_on(async {
        match changes.is_empty() {
            true => running::ask(&data_dir, "GET", admin::RELAY_LIMITS).await,
            false => running::tell(&data_dir, admin::RELAY_LIMITS, &changes).await,
        }
    })?;
    Output::new(args.json.json).report(&Shown(limits))
}
