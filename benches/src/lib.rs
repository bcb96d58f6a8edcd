// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benches share: their input, and how they report. Each bench beside this folder asks
//! one question and says in its first line which.

use criterion::Criterion;

/// Bytes that no compressor or branch predictor likes, the same in every run.
pub fn seeded(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"benches").finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs benches with criterion's own command line.
pub fn run(benches: &[fn(&mut Criterion)]) {
    let mut criterion = Criterion::default().configure_from_args();
    for bench in benches {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
