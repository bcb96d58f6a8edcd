// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program from outside: exit codes, what goes to stdout and what to stderr, and what it
//! leaves on disk. Nothing here needs a network beyond this machine's loopback.

mod capability;
mod config;
mod disks;
mod help;
mod init;
mod program;
mod relay;
mod run;
mod store;
mod usage;
