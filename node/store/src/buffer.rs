// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where shards wait between network and disk: bounded, aligned, hashed on arrival, never copied.
//!
//! - The pool owns the byte budget (`buffer_bytes_max`). A buffer takes its share before it exists
//!   and gives it back when it is dropped, wherever that happens; who comes too late waits. So the
//!   memory of all shards in flight is bounded however many clients push.
//! - A [`ShardBuffer`] is filled by the relay while bytes arrive and hashes them as they pass:
//!   when the last byte is there, id and hash tree are too.
//! - The bytes start on a disk block, and the writer hands this very memory to the kernel.

use std::sync::Arc;

use supernode_protocol::ids::ShardId;
use supernode_protocol::limits::SHARD_BYTES_MAX;
use supernode_protocol::tree::TreeHasher;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::StoreError;
use crate::idle::Idle;
use crate::record::{PAYLOAD_ALIGN, to_len};

/// Bytes that one permit of the budget stands for.
const PERMIT_BYTES: u64 = 4096;

/// The budget, and freed memory kept for the next shard of about the same size.
#[derive(Debug, Clone)]
pub(crate) struct BufferPool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
struct PoolShared {
    budget: Arc<Semaphore>,
    bytes_max: u64,
    idle: Idle,
}

impl BufferPool {
    /// A pool whose buffers together hold at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let permits = to_len(bytes_max / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        let budget = Arc::new(Semaphore::new(permits));
        // A quarter of the budget covers the usual ebb and flow.
        let idle = Idle::new(to_len(bytes_max / 4));
        Self { shared: Arc::new(PoolShared { budget, bytes_max, idle }) }
    }

    /// Waits for room and hands out an empty buffer for exactly `len` bytes.
    pub(crate) async fn take(&self, len: u64) -> Result<ShardBuffer, StoreError> {
        if len == 0 || len > SHARD_BYTES_MAX || len > self.shared.bytes_max {
            let max = SHARD_BYTES_MAX.min(self.shared.bytes_max);
            return Err(StoreError::ShardLength { len, max });
        }
        let permits = u32::try_from(len.div_ceil(PERMIT_BYTES)).expect("64 MiB in 4 KiB steps");
        let budget = Arc::clone(&self.shared.budget);
        let permit = budget
            .acquire_many_owned(permits)
            .await
            .map_err(|_| StoreError::stopped("it is closing"))?;
        let wanted = to_len(len + PAYLOAD_ALIGN);
        let fresh = || Vec::with_capacity(Idle::block_bytes(wanted));
        let block = self.shared.idle.take(wanted).unwrap_or_else(fresh);
        Ok(ShardBuffer::new(block, len, permit, Arc::clone(&self.shared)))
    }

    /// Bytes not handed out.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.shared.budget.available_permits() as u64 * PERMIT_BYTES
    }

    /// Wakes everybody who waits for room; they get an error.
    pub(crate) fn close(&self) {
        self.shared.budget.close();
    }
}

/// A buffer for one shard, hashed as it fills.
pub struct ShardBuffer {
    memory: Memory,
    hasher: TreeHasher,
    len: u64,
}

/// Aligned memory that returns to its pool.
#[derive(Debug)]
struct Memory {
    block: Vec<u8>,
    /// Where the first disk block within `block` starts.
    start: usize,
    pool: Arc<PoolShared>,
    _permit: OwnedSemaphorePermit,
}

impl ShardBuffer {
    fn new(
        mut block: Vec<u8>,
        len: u64,
        permit: OwnedSemaphorePermit,
        pool: Arc<PoolShared>,
    ) -> Self {
        block.clear();
        let start = block.as_ptr().align_offset(to_len(PAYLOAD_ALIGN));
        // An allocator that cannot tell (none we know) costs alignment, not correctness.
        let start = if start < to_len(PAYLOAD_ALIGN) { start } else { 0 };
        block.resize(start, 0);
        let memory = Memory { block, start, pool, _permit: permit };
        Self { memory, hasher: TreeHasher::new(len), len }
    }

    /// Takes the next bytes of the shard.
    ///
    /// # Errors
    /// [`StoreError::BodyMismatch`] if more come than the buffer was made for.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.remaining() {
            let reason = format!("more than the announced {} bytes came", self.len);
            return Err(StoreError::BodyMismatch { reason });
        }
        self.hasher.update(bytes);
        self.memory.block.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that still have to come.
    pub fn remaining(&self) -> u64 {
        self.len - self.filled()
    }

    /// Bytes that it was made for.
    pub fn capacity(&self) -> u64 {
        self.len
    }

    fn filled(&self) -> u64 {
        (self.memory.block.len() - self.memory.start) as u64
    }

    /// The finished shard, if it is the one that was announced.
    pub(crate) fn finish(self, shard: ShardId) -> Result<FilledShard, StoreError> {
        let missing = self.remaining();
        if missing > 0 {
            let reason = format!("{missing} of {} announced bytes are missing", self.len);
            return Err(StoreError::BodyMismatch { reason });
        }
        let (id, outboard) = self
            .hasher
            .finish()
            .map_err(|error| StoreError::BodyMismatch { reason: error.to_string() })?;
        if id != shard {
            let reason = format!("the bytes hash to {id}, announced was {shard}");
            return Err(StoreError::BodyMismatch { reason });
        }
        Ok(FilledShard { memory: Arc::new(self.memory), outboard: outboard.into() })
    }
}

impl std::fmt::Debug for ShardBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.pool.idle.put(std::mem::take(&mut self.block));
    }
}

/// A whole shard whose bytes hash to its id, with its hash tree. Clones are the same memory.
#[derive(Debug, Clone)]
pub struct FilledShard {
    memory: Arc<Memory>,
    outboard: Arc<[u8]>,
}

impl FilledShard {
    /// The shard.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.block[self.memory.start..]
    }

    /// Its hash tree.
    pub fn outboard(&self) -> &[u8] {
        &self.outboard
    }
}

#[cfg(test)]
impl FilledShard {
    /// A shard without a pool behind it, for tests that have no runtime.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let pool = BufferPool::new(SHARD_BYTES_MAX);
        let budget = Arc::clone(&pool.shared.budget);
        let permit = budget.try_acquire_many_owned(1).expect("an empty pool");
        let len = bytes.len() as u64;
        let mut buffer = ShardBuffer::new(Vec::new(), len, permit, pool.shared);
        buffer.extend(bytes).expect("made for these bytes");
        buffer.finish(ShardId::of(bytes)).expect("whole")
    }
}

#[cfg(test)]
mod tests {
    use supernode_protocol::ids::ShardId;

    use super::BufferPool;
    use crate::error::StoreError;

    #[tokio::test]
    async fn bytes_start_on_a_disk_block_and_hash_to_the_shard() {
        let pool = BufferPool::new(1 << 20);
        let bytes = vec![7; 100_000];
        for _ in 0..3 {
            let mut buffer = pool.take(100_000).await.expect("within the budget");
            buffer.extend(&bytes[..1000]).expect("fits");
            buffer.extend(&bytes[1000..]).expect("fits");
            let shard = buffer.finish(ShardId::of(&bytes)).expect("the announced bytes");
            assert_eq!(shard.bytes(), bytes);
            assert_eq!(shard.bytes().as_ptr().align_offset(4096), 0);
        }
        assert_eq!(pool.free_bytes(), 1 << 20);
    }

    #[tokio::test]
    async fn too_many_too_few_and_other_bytes_are_refused() {
        let pool = BufferPool::new(1 << 20);
        let id = ShardId::of(b"abcd");
        let mut buffer = pool.take(4).await.expect("within the budget");
        assert!(matches!(buffer.extend(b"abcde"), Err(StoreError::BodyMismatch { .. })));
        buffer.extend(b"abc").expect("fits");
        assert!(matches!(buffer.finish(id), Err(StoreError::BodyMismatch { .. })));
        let mut buffer = pool.take(4).await.expect("within the budget");
        buffer.extend(b"abce").expect("fits");
        assert!(matches!(buffer.finish(id), Err(StoreError::BodyMismatch { .. })));
        for len in [0, (64 << 20) + 1, (1 << 20) + 1] {
            assert!(matches!(pool.take(len).await, Err(StoreError::ShardLength { .. })), "{len}");
        }
    }

    #[tokio::test]
    async fn who_comes_too_late_waits_for_room() {
        let pool = BufferPool::new(8192);
        let first = pool.take(8192).await.expect("the whole budget");
        let mut second = Box::pin(pool.take(4096));
        assert!(futures_poll(&mut second).await.is_none(), "no room yet");
        drop(first);
        second.await.expect("room now");
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            use std::task::Poll;
            match std::pin::Pin::new(&mut *future).poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }
}
