// SPDX-License-Identifier: MIT OR Apache-2.0
//! One GiB goes in through a pipe and comes out through one. Neither client ever holds it: its
//! peak memory is read from outside while it runs.

use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use supernode_tests::eventually::eventually;
use supernode_tests::network::Network;
use supernode_tests::process;
use supernode_tests::program::{Guarded, PATIENCE};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const OBJECT_BYTES: u64 = 1 << 30;
const CLIENT_MEMORY_MAX: u64 = 512 << 20;
const CHUNK_BYTES: usize = 1 << 20;

#[test]
fn a_gibibyte_from_a_pipe() {
    let seed = Seeded::new().seed;
    println!("seed {seed}");
    let network = Network::start(PROGRAM);

    let mut command = network.client().command(["put", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut put = Guarded::spawn(&mut command);
    let mut stdin = put.child().stdin.take().expect("it has a pipe");
    let feeding = thread::spawn(move || {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        for _ in 0..OBJECT_BYTES / CHUNK_BYTES as u64 {
            generator.fill_bytes(&mut chunk);
            hasher.update(&chunk);
            stdin.write_all(&chunk).expect("put reads to the end");
        }
        hasher.finalize()
    });
    let peak = peak_memory(&mut put);
    let digest = feeding.join().expect("the feeder does not panic");
    let mut cid = String::new();
    let mut stdout = put.child().stdout.take().expect("it has a pipe");
    stdout.read_to_string(&mut cid).expect("a CID");
    println!("put: {} MiB at the peak, {cid}", peak >> 20);
    assert!(peak <= CLIENT_MEMORY_MAX, "put took {peak} bytes of memory");

    let mut command = network.client().command(["get", cid.trim_end()]);
    let mut get = Guarded::spawn(command.stdout(Stdio::piped()));
    let mut stdout = get.child().stdout.take().expect("it has a pipe");
    let draining = thread::spawn(move || {
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match stdout.read(&mut chunk).expect("get writes to the end") {
                0 => return hasher.finalize(),
                count => hasher.update(&chunk[..count]),
            }
        }
    });
    let peak = peak_memory(&mut get);
    println!("get: {} MiB at the peak", peak >> 20);
    assert!(draining.join().expect("the reader does not panic") == digest, "other bytes");
    assert!(peak <= CLIENT_MEMORY_MAX, "get took {peak} bytes of memory");
    network.stop();
}

/// Watches a process to its end, which has to be a good one.
fn peak_memory(child: &mut Guarded) -> u64 {
    let (pid, mut peak) = (child.pid(), 0);
    let status = eventually("a gibibyte to pass", PATIENCE * 2, || {
        peak = process::peak_memory_bytes(pid).unwrap_or(0).max(peak);
        child.status()
    });
    assert_eq!(status.code(), Some(0));
    assert!(peak > 0, "it was never seen");
    peak
}
