// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole shards against 32 KiB columns: how fast is a full stripe encoded at 10+4? And is a
//! rebuild plan faster than the library's own decoder?
//!
//! Throughput is in bytes of data, one core.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, RateDecoder};
use supernode_benches::{run, seeded};
use supernode_protocol::erasure::{COLUMN_BYTES, Code, Codec, Encoder, RebuildPlan};

const DATA: usize = 10;
const PARITY: usize = 4;
/// A full stripe of 64 MiB, padded.
const SHARD_BYTES: usize = 6_713_344;
/// What the library's decoder likes best here: its cost per call against falling out of cache.
const DECODER_COLUMN_BYTES: usize = 256 << 10;

fn code() -> Code {
    Code::new(Codec::Leopard16High, DATA, PARITY).expect("10+4 is possible")
}

fn throughput() -> Throughput {
    Throughput::Bytes((DATA * SHARD_BYTES) as u64)
}

fn encode(criterion: &mut Criterion) {
    let stripe = seeded(DATA * SHARD_BYTES);
    let mut parity = vec![vec![0; SHARD_BYTES]; PARITY];
    let mut group = criterion.benchmark_group("encode 10+4");
    group.throughput(throughput()).sample_size(20);
    for column_bytes in [8 << 10, 16 << 10, COLUMN_BYTES, 64 << 10, SHARD_BYTES] {
        let name = if column_bytes == SHARD_BYTES { "whole shards" } else { "columns" };
        let mut encoder = Encoder::with_column_bytes(code(), column_bytes);
        group.bench_function(BenchmarkId::new(name, column_bytes), |bencher| {
            bencher.iter(|| encoder.encode_stripe(black_box(&stripe), &mut parity));
        });
    }
    group.finish();
}

fn rebuild(criterion: &mut Criterion) {
    let stripe = seeded(DATA * SHARD_BYTES);
    let mut parity = vec![vec![0; SHARD_BYTES]; PARITY];
    Encoder::new(code()).encode_stripe(&stripe, &mut parity).expect("lengths fit");
    let shards: Vec<&[u8]> =
        stripe.chunks(SHARD_BYTES).chain(parity.iter().map(Vec::as_slice)).collect();
    let mut group = criterion.benchmark_group("rebuild 10+4");
    group.throughput(throughput()).sample_size(20);
    for lost in [1, 2, 4] {
        let mut out = vec![vec![0; SHARD_BYTES]; lost];
        group.bench_function(BenchmarkId::new("plan, shards lost", lost), |bencher| {
            bencher.iter(|| rebuild_by_plan(black_box(&shards), &mut out));
        });
        assert!(out.iter().eq(&shards[..lost]), "the right bytes come back");
        group.bench_function(BenchmarkId::new("decoder, shards lost", lost), |bencher| {
            bencher.iter(|| rebuild_by_decoder(black_box(&shards), &mut out));
        });
        assert!(out.iter().eq(&shards[..lost]), "the right bytes come back");
    }
    group.finish();
}

/// The plan is made anew each time, which is the worst case.
fn rebuild_by_plan(shards: &[&[u8]], out: &mut [Vec<u8>]) {
    let available: Vec<usize> = (out.len()..DATA + out.len()).collect();
    let wanted: Vec<usize> = (0..out.len()).collect();
    let plan = RebuildPlan::new(code(), &available, &wanted).expect("ten are left");
    let sources: Vec<&[u8]> = plan.sources().iter().map(|&index| shards[index]).collect();
    plan.rebuild_into(&sources, out).expect("lengths fit");
}

fn rebuild_by_decoder(shards: &[&[u8]], out: &mut [Vec<u8>]) {
    let mut decoder =
        HighRateDecoder::new(DATA, PARITY, DECODER_COLUMN_BYTES, DefaultEngine::new(), None)
            .expect("10+4 is possible");
    for start in (0..SHARD_BYTES).step_by(DECODER_COLUMN_BYTES) {
        let column = start..(start + DECODER_COLUMN_BYTES).min(SHARD_BYTES);
        if column.len() != DECODER_COLUMN_BYTES {
            decoder.reset(DATA, PARITY, column.len()).expect("10+4 is possible");
        }
        for (index, shard) in shards.iter().enumerate().skip(out.len()).take(DATA) {
            let source = &shard[column.clone()];
            match index.checked_sub(DATA) {
                None => decoder.add_original_shard(index, source).expect("a new index"),
                Some(index) => decoder.add_recovery_shard(index, source).expect("a new index"),
            }
        }
        let result = decoder.decode().expect("ten shards");
        for (index, restored) in result.restored_original_iter() {
            out[index][column.clone()].copy_from_slice(restored);
        }
    }
}

fn main() {
    run(&[encode, rebuild]);
}
