// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory for reads: it begins on a disk block and has whole blocks around what is wanted, so that
//! the disk can fill it without a copy; and a pool of it.

use std::io;
use std::sync::Arc;

use super::{BLOCK_BYTES, DiskFile};
use crate::idle::Idle;
use crate::record::to_len;

/// Less than this is not worth keeping.
const POOLED_BYTES_MIN: usize = 64 << 10;
/// Memory that waits for the next read at most; half of it may never have been touched.
const IDLE_BYTES_MAX: usize = 64 << 20;

/// Bytes of a file, in memory of whole blocks.
pub(crate) struct Block {
    memory: Vec<u8>,
    /// Where the first block begins in `memory`.
    base: usize,
    /// Bytes of whole blocks.
    span: usize,
    /// Where what is wanted begins in the blocks, and how much it is.
    lead: usize,
    len: usize,
    pool: Option<Blocks>,
}

impl Block {
    /// Memory of its own for a range of a file.
    pub(crate) fn new(offset: u64, len: usize) -> Self {
        Self::within(Vec::new(), offset, len, None)
    }

    fn within(mut memory: Vec<u8>, offset: u64, len: usize, pool: Option<Blocks>) -> Self {
        let block = to_len(BLOCK_BYTES);
        let lead = to_len(offset % BLOCK_BYTES);
        let span = (lead + len).next_multiple_of(block);
        if memory.len() < span + block {
            memory = vec![0; span + block];
        }
        let base = memory.as_ptr().align_offset(block);
        // An allocator that cannot tell (none we know) costs a copy, not correctness.
        let base = if base < block { base } else { 0 };
        Self { memory, base, span, lead, len, pool }
    }

    /// Reads the range that starts at `offset`, what is around it in its blocks included.
    ///
    /// # Errors
    /// What the file says; [`io::ErrorKind::UnexpectedEof`] if it ends before the range does.
    pub(crate) fn fill_once(&mut self, file: &dyn DiskFile, offset: u64) -> io::Result<()> {
        let blocks = &mut self.memory[self.base..self.base + self.span];
        let filled = file.read_once_at(offset - self.lead as u64, blocks)?;
        if filled >= self.lead + self.len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.base + self.lead..][..self.len]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.put_back(std::mem::take(&mut self.memory));
        }
    }
}

/// Memory of blocks that nobody reads any more.
#[derive(Clone)]
pub(crate) struct Blocks {
    idle: Arc<Idle>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { idle: Arc::new(Idle::new(IDLE_BYTES_MAX)) }
    }
}

impl Blocks {
    /// Memory for a range of a file, which goes back to the pool.
    pub(crate) fn take(&self, offset: u64, len: usize) -> Block {
        let memory = if len < POOLED_BYTES_MIN {
            Vec::new()
        } else {
            // What is around it in its blocks, and where the first block begins.
            let wanted = len + 3 * to_len(BLOCK_BYTES);
            self.idle.take(wanted).unwrap_or_else(|| vec![0; Idle::block_bytes(wanted)])
        };
        Block::within(memory, offset, len, Some(self.clone()))
    }

    fn put_back(&self, memory: Vec<u8>) {
        if memory.len() >= POOLED_BYTES_MIN {
            self.idle.put(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Blocks};

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = Blocks::default();
        let first = pool.take(0, 1 << 20);
        let at = first.memory.as_ptr();
        drop(first);
        let second = pool.take(100, 2_000_000);
        assert_eq!((second.memory.as_ptr(), second.as_ref().len()), (at, 2_000_000));
        let many: Vec<_> = (0..64).map(|_| pool.take(0, 1 << 20)).collect();
        drop((second, many));
        assert_eq!(pool.idle.bytes(), 64 << 20);
    }

    #[test]
    fn blocks_are_whole_around_what_is_wanted() {
        for (offset, len, span) in [(0, 1, 4096), (4095, 2, 8192), (8192, 4096, 4096)] {
            let block = Block::new(offset, len);
            let blocks = &block.memory[block.base..];
            assert_eq!(blocks.as_ptr().align_offset(4096), 0);
            assert_eq!((block.span, block.as_ref().len()), (span, len));
        }
    }
}
