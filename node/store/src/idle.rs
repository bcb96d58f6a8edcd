// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that nobody uses, kept for the next who needs about as much: fresh memory costs about as
//! much as reading into it.
//!
//! - Blocks are of sizes that are powers of two, and what was used last is used first, so that a
//!   few blocks serve whatever comes.
//! - What nobody needed for a whole period is given back. Without that a pool is sooner or later
//!   as large as it may get, because it has what the busiest moment of every size needed.
//! - It is looked at when something is taken or put back, so it needs no task. Memory is freed
//!   after the lock is.

use std::mem::take;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The smallest block.
const BLOCK_BYTES_MIN: usize = 8 << 10;
/// One for each power of two that a `usize` has.
const CLASSES: usize = usize::BITS as usize;
/// How long a block may lie idle, and half as long at least.
const PERIOD: Duration = Duration::from_secs(10);

/// The pool.
#[derive(Debug)]
pub(crate) struct Idle {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    classes: [Class; CLASSES],
    bytes: usize,
    period_end: Instant,
}

/// Blocks of one size.
#[derive(Debug, Default)]
struct Class {
    /// What was put back last is at the end.
    blocks: Vec<Vec<u8>>,
    /// The fewest that were here in this period: so many were not needed.
    fewest: usize,
}

impl Idle {
    /// A pool that keeps at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let classes = std::array::from_fn(|_| Class::default());
        let kept = Kept { classes, bytes: 0, period_end: Instant::now() + PERIOD };
        Self { bytes_max, kept: Mutex::new(kept) }
    }

    /// How large a block for `wanted` bytes is to be, so that it fits in here later.
    pub(crate) fn block_bytes(wanted: usize) -> usize {
        wanted.max(BLOCK_BYTES_MIN).next_power_of_two()
    }

    /// A block with room for `wanted` bytes, if there is one. What is in it is anybody's guess.
    pub(crate) fn take(&self, wanted: usize) -> Option<Vec<u8>> {
        self.take_at(wanted, Instant::now())
    }

    /// Keeps a block, if it is of a size that is kept and there is room.
    pub(crate) fn put(&self, block: Vec<u8>) {
        self.put_at(block, Instant::now());
    }

    fn take_at(&self, wanted: usize, now: Instant) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        let unneeded = kept.sweep(now);
        let class = kept.class(Self::block_bytes(wanted));
        let block = class.blocks.pop();
        class.fewest = class.fewest.min(class.blocks.len());
        kept.bytes -= block.as_ref().map_or(0, Vec::capacity);
        drop(kept);
        drop(unneeded);
        block
    }

    fn put_at(&self, block: Vec<u8>, now: Instant) {
        let bytes = block.capacity();
        if !bytes.is_power_of_two() || bytes < BLOCK_BYTES_MIN {
            return;
        }
        let mut kept = self.kept.lock();
        let unneeded = kept.sweep(now);
        let refused = if kept.bytes + bytes <= self.bytes_max {
            kept.bytes += bytes;
            kept.class(bytes).blocks.push(block);
            None
        } else {
            Some(block)
        };
        drop(kept);
        drop((unneeded, refused));
    }

    /// Bytes that lie idle.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}

impl Kept {
    fn class(&mut self, block_bytes: usize) -> &mut Class {
        &mut self.classes[block_bytes.trailing_zeros() as usize]
    }

    /// Takes out what was not needed in the period that is over, the longest idle first.
    fn sweep(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if now < self.period_end {
            return Vec::new();
        }
        self.period_end = now + PERIOD;
        let mut unneeded = Vec::new();
        for class in &mut self.classes {
            unneeded.extend(class.blocks.drain(..take(&mut class.fewest)));
            class.fewest = class.blocks.len();
        }
        self.bytes -= unneeded.iter().map(Vec::capacity).sum::<usize>();
        unneeded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Idle, PERIOD};

    fn block(bytes: usize) -> Vec<u8> {
        Vec::with_capacity(Idle::block_bytes(bytes))
    }

    #[test]
    fn a_block_serves_who_needs_about_as_much() {
        let pool = Idle::new(1 << 20);
        let first = block(100_000);
        let at = first.as_ptr();
        pool.put(first);
        assert_eq!(pool.bytes(), 128 << 10);
        assert!(pool.take(60_000).is_none(), "half of it would be wasted");
        assert!(pool.take(140_000).is_none(), "it is too short");
        let again = pool.take(70_000).expect("it is there");
        assert_eq!((again.as_ptr(), again.capacity()), (at, 128 << 10));
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn there_is_a_bound_and_odd_sizes_are_not_kept() {
        let pool = Idle::new(100_000);
        for _ in 0..5 {
            pool.put(block(20_000));
        }
        assert_eq!(pool.bytes(), 3 * (32 << 10));
        let pool = Idle::new(100_000);
        pool.put(Vec::with_capacity(20_000));
        pool.put(Vec::new());
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn what_nobody_needs_for_a_period_is_given_back() {
        let pool = Idle::new(1 << 20);
        let start = Instant::now();
        let blocks: Vec<_> = (0..8).map(|_| block(8192)).collect();
        blocks.into_iter().for_each(|block| pool.put_at(block, start));
        // The period in which they came shows nothing of what is needed.
        let mut now = start + PERIOD;
        let three: Vec<_> = (0..3).map(|_| pool.take_at(8192, now).expect("idle")).collect();
        assert_eq!(pool.bytes(), 5 * 8192);
        three.into_iter().for_each(|block| pool.put_at(block, now));
        assert_eq!(pool.bytes(), 8 * 8192);
        now += PERIOD;
        let one = pool.take_at(8192, now).expect("idle");
        pool.put_at(one, now);
        assert_eq!(pool.bytes(), 3 * 8192, "three were needed at a time");
        now += PERIOD;
        assert!(pool.take_at(1 << 20, now).is_none());
        assert_eq!(pool.bytes(), 8192, "one was");
        now += PERIOD;
        assert!(pool.take_at(1 << 20, now).is_none());
        assert_eq!(pool.bytes(), 0);
    }
}
