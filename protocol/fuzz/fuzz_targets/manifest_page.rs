// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile bytes where a page of a manifest is due.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    supernode_fuzz::manifests::page(bytes);
});
