// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile bytes where a holder's receipt is due.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    supernode_fuzz::frames::receipt(bytes);
});
