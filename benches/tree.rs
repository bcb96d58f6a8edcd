// SPDX-License-Identifier: MIT OR Apache-2.0
//! `TreeHasher` against `blake3::Hasher`: what does the outboard cost, and what does verifying
//! with it?

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use supernode_benches::{run, seeded};
use supernode_protocol::tree::{TreeHasher, prove_chunk, range_proof, verify_chunk, verify_range};

/// A shard of a full stripe at 10+4.
const SHARD_BYTES: usize = 6_713_344;

fn hash(criterion: &mut Criterion) {
    let shard = seeded(SHARD_BYTES);
    let mut group = criterion.benchmark_group("hash a shard");
    group.throughput(Throughput::Bytes(shard.len() as u64)).sample_size(50);
    // Whole, as a network hands it over, and cut where it suits nobody.
    for slice_bytes in [shard.len(), 64 << 10, 10_007] {
        group.bench_function(BenchmarkId::new("blake3::Hasher", slice_bytes), |bencher| {
            bencher.iter(|| {
                let mut hasher = blake3::Hasher::new();
                for slice in black_box(&shard).chunks(slice_bytes) {
                    hasher.update(slice);
                }
                hasher.finalize()
            });
        });
        group.bench_function(BenchmarkId::new("TreeHasher", slice_bytes), |bencher| {
            bencher.iter(|| {
                let mut hasher = TreeHasher::new(shard.len() as u64);
                for slice in black_box(&shard).chunks(slice_bytes) {
                    hasher.update(slice);
                }
                hasher.finish()
            });
        });
    }
    group.finish();
}

fn verify(criterion: &mut Criterion) {
    let shard = seeded(SHARD_BYTES);
    let len = shard.len() as u64;
    let mut hasher = TreeHasher::new(len);
    hasher.update(&shard);
    let (id, outboard) = hasher.finish().expect("the length is right");

    let mut group = criterion.benchmark_group("verify a range");
    for bytes in [16 << 10, 1 << 20, shard.len()] {
        let proof = range_proof(&outboard, len, 0..bytes as u64).expect("within");
        group.throughput(Throughput::Bytes(bytes as u64)).sample_size(50);
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| {
                verify_range(&id, len, 0..bytes as u64, black_box(&proof), &shard[..bytes])
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("audit a chunk");
    group.bench_function("prove", |bencher| {
        bencher.iter(|| prove_chunk(black_box(&shard[..16 << 10]), &outboard, len, 7));
    });
    let proof = prove_chunk(&shard[..16 << 10], &outboard, len, 7).expect("it exists");
    group.bench_function("verify", |bencher| {
        bencher.iter(|| verify_chunk(&id, len, 7, black_box(&proof)));
    });
    group.finish();
}

fn main() {
    run(&[hash, verify]);
}
