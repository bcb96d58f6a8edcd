// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `supernode` program. Everything it does is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    supernode::main()
}
