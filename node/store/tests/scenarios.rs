// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a store promises, on real files: one scenario, one file.

#[path = "../src/sample.rs"]
mod sample;

mod scenarios {
    mod an_object_comes_and_goes;
    mod support;
    mod the_index_is_a_cache;
}
