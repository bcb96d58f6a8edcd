// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a stream of bytes to encoded stripes, and to what needs no encoding.
//!
//! A stripe is read into one buffer, which becomes its data shards without a copy. Encoding and
//! hashing run on blocking threads: one makes and hashes the parity while the other hashes the
//! data, so both cores of a small machine work.

use std::io;

use bytes::Bytes;
use supernode_protocol::erasure::{Code, Encoder, ErasureError};
use supernode_protocol::geometry::shard_len;
use supernode_protocol::ids::ShardId;
use supernode_protocol::lease::LeaseKind;
use supernode_protocol::limits::{INLINE_BYTES_MAX, STRIPE_BYTES_MAX};
use supernode_protocol::manifest::Stripe;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::PutOptions;
use crate::{Class, PutError};

/// What an object is made of.
pub(super) enum Piece {
    /// Shards to be placed, of this class.
    Stripe(Class, EncodedStripe),
    /// So many zeros.
    Zeros(u64),
    /// The whole of a tiny object.
    Inline(Bytes),
}

/// A stripe and the bytes of its shards.
pub(super) struct EncodedStripe {
    pub(super) stripe: Stripe,
    pub(super) shards: Vec<Bytes>,
}

pub(super) struct Source<R> {
    reader: R,
    class: Class,
    expected_bytes: Option<u64>,
    inline_bytes_max: usize,
    replicates_small: bool,
    elides_zeros: bool,
    offset: u64,
    /// `None` only while a blocking thread has it.
    worker: Option<Worker>,
    ended: bool,
}

/// What moves to the blocking thread and back.
struct Worker {
    encoder: Encoder,
    content: blake3::Hasher,
}

impl<R: AsyncRead + Unpin + Send> Source<R> {
    pub(super) fn new(reader: R, options: &PutOptions) -> Result<Self, ErasureError> {
        let encoder = Encoder::new(options.class.code()?);
        let worker = Worker { encoder, content: blake3::Hasher::new() };
        // Shards are what a deal is paid and audited by.
        let is_deal = options.kind == LeaseKind::Deal;
        let inline_bytes_max = options.inline_bytes_max.min(INLINE_BYTES_MAX);
        Ok(Self {
            reader,
            class: options.class,
            expected_bytes: options.expected_bytes,
            inline_bytes_max: if is_deal { 0 } else { inline_bytes_max },
            replicates_small: options.replicates_small && !is_deal,
            elides_zeros: options.elides_zeros && !is_deal,
            offset: 0,
            worker: Some(worker),
            ended: false,
        })
    }

    /// BLAKE3 of everything read.
    pub(super) fn content_root(&self) -> [u8; 32] {
        let worker = self.worker.as_ref().expect("next_stripe returned, so the worker is back");
        *worker.content.finalize().as_bytes()
    }

    /// The next piece: a stripe's worth of bytes unless it is the last; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, PutError> {
        if self.ended {
            return Ok(None);
        }
        let bytes = self.read_stripe().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let is_whole = self.ended && self.offset == bytes.len() as u64;
        let is_tiny = is_whole && bytes.len() <= self.inline_bytes_max;
        let copies = is_whole && self.replicates_small;
        let class = if copies { self.class.or_copies(bytes.len() as u64) } else { self.class };
        let (code, elides_zeros) = (class.code()?, self.elides_zeros);
        let mut worker = self.worker.take().ok_or(PutError::Worker)?;
        let piece = tokio::task::spawn_blocking(move || {
            let piece = if elides_zeros && are_zeros(&bytes) {
                worker.content.update(&bytes);
                Ok(Piece::Zeros(bytes.len() as u64))
            } else if is_tiny {
                worker.content.update(&bytes);
                // A copy: the buffer has room for a stripe.
                Ok(Piece::Inline(Bytes::copy_from_slice(&bytes)))
            } else {
                worker.encode(code, bytes).map(|encoded| Piece::Stripe(class, encoded))
            };
            (worker, piece)
        });
        let (worker, piece) = piece.await.map_err(|_| PutError::Worker)?;
        self.worker = Some(worker);
        Ok(Some(piece?))
    }

    async fn read_stripe(&mut self) -> Result<Vec<u8>, PutError> {
        let full = STRIPE_BYTES_MAX;
        let data_count = self.class.data_count();
        let padded = shard_len(full, data_count) * data_count as u64;
        // Untouched pages of a large allocation cost nothing, so small objects may ask for a
        // whole stripe; the buffer never moves.
        let capacity = usize::try_from(padded).expect("a stripe fits the address space");
        let mut bytes = Vec::with_capacity(capacity);
        let mut limited = (&mut self.reader).take(full);
        let read = limited.read_to_end(&mut bytes).await;
        let source_error = |source: io::Error, read: usize| PutError::Source {
            offset: self.offset + read as u64,
            source,
        };
        read.map_err(|error| source_error(error, bytes.len()))?;
        self.offset += bytes.len() as u64;
        self.ended = (bytes.len() as u64) < full;
        match self.expected_bytes {
            Some(expected) if self.ended && self.offset < expected => {
                Err(PutError::SourceShrank { expected, actual: self.offset })
            }
            _ => Ok(bytes),
        }
    }
}

/// Ends with the first byte that is none.
fn are_zeros(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

impl Worker {
    fn encode(&mut self, code: Code, mut bytes: Vec<u8>) -> Result<EncodedStripe, ErasureError> {
        if self.encoder.code() != code {
            self.encoder = Encoder::new(code);
        }
        let len = bytes.len() as u64;
        let shard_len = shard_len(len, code.data_count());
        let shard_bytes = usize::try_from(shard_len).expect("a shard is smaller than its stripe");
        bytes.resize(shard_bytes * code.data_count(), 0);
        let mut parity = vec![vec![0; shard_bytes]; code.parity_count()];
        let Self { encoder, content } = self;
        let (data_ids, parity_ids) = std::thread::scope(|scope| {
            let data = scope.spawn(|| {
                let own = usize::try_from(len).expect("it is the length of a buffer");
                content.update(&bytes[..own]);
                bytes.chunks_exact(shard_bytes).map(ShardId::of).collect::<Vec<_>>()
            });
            let parity_ids = encoder
                .encode_stripe(&bytes, &mut parity)
                .map(|()| parity.iter().map(|shard| ShardId::of(shard)).collect::<Vec<_>>());
            (data.join().expect("hashing bytes in memory does not panic"), parity_ids)
        });
        let shards = [data_ids, parity_ids?].concat();
        let stripe = Stripe {
            len,
            codec: code.codec(),
            data_count: code.data_count(),
            parity_count: code.parity_count(),
            shard_len,
            shards,
        };
        let data = Bytes::from(bytes);
        let slices = (0..code.data_count())
            .map(|index| data.slice(index * shard_bytes..(index + 1) * shard_bytes));
        let shards = slices.chain(parity.into_iter().map(Bytes::from)).collect();
        Ok(EncodedStripe { stripe, shards })
    }
}
