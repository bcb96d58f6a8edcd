// SPDX-License-Identifier: MIT OR Apache-2.0
//! The very program that is shipped, built here so that scenarios find it: cargo tells a test only
//! where the binaries of its own package are.

use std::process::ExitCode;

fn main() -> ExitCode {
    supernode::main()
}
