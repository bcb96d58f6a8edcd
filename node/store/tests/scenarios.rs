// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a store promises, on real files: one scenario, one file.

#[path = "../src/sample.rs"]
mod sample;

mod scenarios {
    mod a_disk_dies;
    mod a_disk_is_drained;
    mod an_object_comes_and_goes;
    mod anything_may_rot;
    mod damage_is_never_served;
    mod deals_end_on_chain;
    mod disks_are_written_either_way;
    mod failing_disk;
    mod freed_bytes_come_back;
    mod long_shards_are_read_in_pieces;
    mod many_at_once;
    mod old_directories_open;
    mod one_process_at_a_time;
    mod proofs_come_from_the_disk;
    mod several_disks_are_one_store;
    mod support;
    mod the_cache_loses_power;
    mod the_cache_makes_room;
    mod the_cache_outlives_its_disk;
    mod the_index_is_a_cache;
    mod the_log_is_compacted;
    mod the_scrub_finds_all;
}
