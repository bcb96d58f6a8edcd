// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proofs of ranges: honest ones, the same with one change, and made-up ones.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    supernode_fuzz::ranges::judge(bytes);
});
