// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every fuzz target checks, so that its seeds can be run by an ordinary test too.
//!
//! Each function takes the fuzzer's bytes, asserts what must hold of **any** bytes, and returns
//! whether they were valid: a seed that is not valid leads the fuzzer nowhere.
//!
//! - [`frames`]: requests, answers and receipts.
//! - [`records`]: what is signed, and names as text.
//! - [`manifests`]: roots and pages.
//! - [`ranges`], [`spans`], [`audits`]: proofs. Here the bytes are an encoded case, because a
//!   fuzzer does not find a hash by chance: a case names an honest proof and one change of it,
//!   or brings a proof of its own.

pub mod audits;
pub mod frames;
pub mod manifests;
pub mod ranges;
pub mod records;
pub mod spans;

use serde::{Deserialize, Serialize};
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::TreeHasher;

/// One byte of something that is turned into another.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Flip {
    /// Which byte, counted modulo the length.
    pub at: u32,
    /// What it is combined with; 0 changes nothing.
    pub with: u8,
}

impl Flip {
    /// Turns the byte, if there is any.
    pub fn apply(self, bytes: &mut [u8]) {
        let at = usize::try_from(self.at).expect("32 bits") % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= self.with;
        }
    }
}

/// A shard with its tree.
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// All parent entries.
    pub outboard: Vec<u8>,
}

impl Shard {
    /// `len` bytes in which no two groups are equal.
    pub fn of(len: usize) -> Self {
        let bytes: Vec<u8> = (0..len).map(|at| (at ^ (at >> 7) ^ (at >> 14)) as u8).collect();
        let mut hasher = TreeHasher::new(len as u64);
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish().expect("all bytes were fed");
        Self { id, bytes, outboard }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
