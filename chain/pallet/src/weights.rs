// SPDX-License-Identifier: MIT OR Apache-2.0
//! What calls and blocks cost, by formula.
//!
//! No benchmark has measured these figures yet: reads and writes are counted from the code at
//! their largest, and computation is charged by what dominates it (signatures, hashed bytes),
//! rounded up for a wasm runtime. A chain that includes the pallet in earnest measures them first.

use frame_support::pallet_prelude::Weight;
use frame_support::traits::Get;

use crate::pallet::Config;
use crate::types::{GroupAssignment, ProofBytes, Queue};

/// Picoseconds to dispatch anything.
const BASE: u64 = 20_000_000;
/// Picoseconds for one Ed25519 signature.
const SIGNATURE: u64 = 80_000_000;
/// Picoseconds for one byte of a proof: decoding, and a hash for every 32 bytes of path.
const PROOF_BYTE: u64 = 20_000;
/// Picoseconds for one slot of an assignment: two map look-ups and a hashed run.
const SLOT: u64 = 1_000_000;
/// Bytes that the proof of one storage read takes in a parachain's block.
const READ_PROOF: u64 = 2_048;

fn weight<T: Config>(compute: u64, reads: u64, writes: u64) -> Weight {
    let proof = reads.saturating_mul(READ_PROOF);
    Weight::from_parts(compute, proof)
        .saturating_add(T::DbWeight::get().reads_writes(reads, writes))
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Units of work that one queue has done in a block.
pub(crate) fn queue<T: Config>(queue: Queue, units: u32) -> Weight {
    // A round may bisect its way to the next group at every slot: 15 reads for 32,768 groups.
    let (reads, writes) = match queue {
        Queue::Deadlines => (6, 5),
        Queue::Expiries => (2, 6),
        Queue::Settlements => (5, 7),
        Queue::Lapses => (5, 6),
        Queue::Rounds => (21, 6),
        Queue::Tombstones | Queue::Results => (1, 3),
    };
    let units = u64::from(units);
    // The cursor, and the look that finds nothing more.
    weight::<T>(BASE, 2, 1).saturating_add(weight::<T>(
        units.saturating_mul(SLOT),
        units.saturating_mul(reads),
        units.saturating_mul(writes),
    ))
}

pub(crate) fn register_node<T: Config>() -> Weight {
    weight::<T>(BASE + SIGNATURE, 4, 4)
}

pub(crate) fn update_node<T: Config>() -> Weight {
    weight::<T>(BASE, 1, 2)
}

pub(crate) fn reserve<T: Config>() -> Weight {
    weight::<T>(BASE, 6, 6)
}

pub(crate) fn activate<T: Config>(groups: &[GroupAssignment], receipts: usize) -> Weight {
    let slots: u64 = groups.iter().map(|group| count(group.nodes.len())).sum();
    let receipts = count(receipts);
    let compute = slots.saturating_mul(SLOT).saturating_add(receipts.saturating_mul(SIGNATURE));
    let writes = count(groups.len()).saturating_add(receipts).saturating_add(9);
    weight::<T>(compute.saturating_add(BASE), receipts.saturating_add(8), writes)
}

pub(crate) fn renew<T: Config>() -> Weight {
    weight::<T>(BASE, 5, 6)
}

pub(crate) fn cancel<T: Config>() -> Weight {
    weight::<T>(BASE, 6, 8)
}

pub(crate) fn submit_proofs<T: Config>(proofs: &[(u64, ProofBytes)]) -> Weight {
    let bytes: u64 = proofs.iter().map(|(_, bytes)| count(bytes.len())).sum();
    let proofs = count(proofs.len());
    let compute = bytes.saturating_mul(PROOF_BYTE).saturating_add(proofs.saturating_mul(BASE));
    weight::<T>(
        compute.saturating_add(BASE),
        proofs.saturating_mul(5).saturating_add(1),
        proofs.saturating_mul(8),
    )
}

pub(crate) fn claim_rewards<T: Config>() -> Weight {
    weight::<T>(BASE, 4, 4)
}

pub(crate) fn set_parameters<T: Config>() -> Weight {
    weight::<T>(BASE, 0, 2)
}
