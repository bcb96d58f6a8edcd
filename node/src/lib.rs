// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `supernode` program as a library, so that tests build the very same program.
//!
//! - [`cli`] names commands and flags, [`config`] loads settings, [`identity`] keys.
//! - [`commands`] does what was asked for; each ends in a report or a [`exit::Failure`].
//! - [`node`] composes the parts of a running node; [`backend`] stands between its store and its
//!   relay server, [`presence`] and [`announcer`] tell the network of it, [`supervise`] keeps them
//!   alive, [`http`], [`admin`] and [`metrics`] tell the operator.
//! - [`chain`] is the node's side of the chain: proofs, receipts, deals that end.
//! - [`dev`] runs a network on this machine, [`demo`] tells and checks the story on one.
//! - [`output`] is the only place that prints.

#[cfg(all(feature = "fault-injection", not(debug_assertions)))]
compile_error!("fault-injection plants faults on purpose; release builds must not contain it");

pub mod admin;
pub mod announcer;
pub mod backend;
pub mod capability;
pub mod chain;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod dev;
pub mod exit;
pub mod http;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod output;
pub mod presence;
pub mod supervise;

use std::env;
use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

use crate::cli::Parsed;
use crate::exit::Exit;

/// The C library's allocator keeps what is freed in an arena of each thread, in pieces: a node at
/// full load grew by 40 MiB an hour with it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Runs the program on this process's command line.
pub fn main() -> ExitCode {
    // Every TLS user of the process takes this provider; one that is there already is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = cli::parse(env::args_os()).and_then(|parsed| match parsed {
        Parsed::Run(cli) => commands::execute(*cli),
        Parsed::Text(text) => {
            output::help(&text);
            Ok(())
        }
    });
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            output::failure(&failure);
            failure.exit.into()
        }
    }
}
