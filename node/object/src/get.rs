// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading an object.
//!
//! Groups are opened one after the other; the parts of a group are fetched with a little
//! read-ahead and written in order, so memory stays at a few stripes whatever the object's size.
//! A range touches only the shards that hold it while they are there; a stripe that lost one is
//! read whole and reconstructed ([`stripe`]).

mod pace;
mod stripe;

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, StreamExt};
use supernode_protocol::ids::Cid;
use supernode_protocol::limits::SLICE_DEPTH_MAX;
use supernode_protocol::manifest::{Extent, GroupSpan, Page, Stripe};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use self::pace::Pace;
use self::stripe::StripeReader;
use crate::locate::Located;
use crate::network::{Directory, Holders};
use crate::{GetError, Objects, Progress};

/// Parts of a group in flight or waiting to be written: each is at most one stripe.
const READ_AHEAD: usize = 2;
/// Zeros are written in pieces of this size.
const ZEROS: &[u8] = &[0; 64 << 10];

/// How to read an object.
#[derive(Clone, Default)]
pub struct GetOptions {
    /// Which bytes; `None` reads all of them and checks the whole against the content root.
    pub range: Option<Range<u64>>,
    /// Called with bytes written so far.
    pub progress: Option<Progress>,
}

/// What became of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetReport {
    /// Size of the whole object.
    pub size: u64,
    /// Bytes written.
    pub written: u64,
    /// Stripes that had to be reconstructed.
    pub degraded_stripes: u64,
    /// Fetches that were begun because others were late.
    pub hedges: u64,
}

impl<H: Holders, D: Directory> Objects<H, D> {
    /// Writes the object's bytes, or a range of them, to `writer`. Every byte has been verified
    /// before it is written; a whole object is checked against its content root in the end.
    ///
    /// # Errors
    /// [`GetError`]; what was written before it is a correct prefix, except after
    /// [`GetError::ContentMismatch`].
    pub async fn get<W: AsyncWrite + Unpin + Send>(
        &self,
        cid: Cid,
        writer: W,
        options: GetOptions,
    ) -> Result<GetReport, GetError> {
        let located = self.locate(cid).await?;
        let size = located.root.size;
        let range = match options.range.clone() {
            None => 0..size,
            Some(range) if range.start >= size => {
                return Err(GetError::Range { cid, start: range.start, size });
            }
            Some(range) => range.start..range.end.min(size),
        };
        let whole = (range == (0..size)).then(blake3::Hasher::new);
        let mut sink = Sink {
            writer,
            content: whole,
            progress: options.progress,
            written: 0,
            degraded_stripes: 0,
            pace: Arc::default(),
        };
        self.read_range(cid, &located, range, 0, &mut sink).await?;
        sink.writer.flush().await.map_err(GetError::Output)?;
        let content = sink.content.map(|hasher| *hasher.finalize().as_bytes());
        if content.is_some_and(|content| content != located.root.content_root) {
            return Err(GetError::ContentMismatch { cid });
        }
        let Sink { written, degraded_stripes, pace, .. } = sink;
        Ok(GetReport { size, written, degraded_stripes, hedges: pace.hedges() })
    }

    async fn read_range<W: AsyncWrite + Unpin + Send>(
        &self,
        cid: Cid,
        located: &Located,
        range: Range<u64>,
        depth: usize,
        sink: &mut Sink<W>,
    ) -> Result<(), GetError> {
        let pace = Arc::clone(&sink.pace);
        for span in located.root.groups() {
            if span.bytes.start >= range.end || span.bytes.end <= range.start {
                continue;
            }
            let (page, holding) = self.open_group(cid, located, &span).await?;
            let reader = StripeReader {
                holders: &*self.holders,
                cid,
                holding: holding.as_ref().unwrap_or(&located.first),
                pace: &pace,
            };
            let parts = parts_of(&page, &span, &range);
            self.read_parts(&reader, parts, depth, sink).await?;
        }
        Ok(())
    }

    async fn read_parts<W: AsyncWrite + Unpin + Send>(
        &self,
        reader: &StripeReader<'_, H>,
        parts: Vec<Part<'_>>,
        depth: usize,
        sink: &mut Sink<W>,
    ) -> Result<(), GetError> {
        let mut waiting = parts.into_iter();
        let mut fetching = FuturesOrdered::new();
        let mut ready = VecDeque::new();
        loop {
            while fetching.len() + ready.len() < READ_AHEAD
                && let Some(part) = waiting.next()
            {
                fetching.push_back(fetch(reader, part));
            }
            let next = match ready.pop_front() {
                None => fetching.next().await,
                next => next,
            };
            let Some(part) = next else { return Ok(()) };
            let mut delivery = pin!(self.deliver(part?, depth, sink));
            // An output that takes its time must not make holders look late, nor hold them up.
            loop {
                tokio::select! {
                    biased;
                    delivered = &mut delivery => break delivered?,
                    Some(part) = fetching.next(), if !fetching.is_empty() => ready.push_back(part),
                }
            }
        }
    }

    async fn deliver<W: AsyncWrite + Unpin + Send>(
        &self,
        part: Fetched,
        depth: usize,
        sink: &mut Sink<W>,
    ) -> Result<(), GetError> {
        match part {
            Fetched::Bytes { parts, degraded } => {
                sink.degraded_stripes += u64::from(degraded);
                for bytes in parts {
                    sink.write(&bytes).await?;
                }
                Ok(())
            }
            Fetched::Zeros(count) => sink.write_zeros(count).await,
            Fetched::Slice { cid, bytes } => self.read_slice(cid, bytes, depth + 1, sink).await,
        }
    }

    /// A part of another object. Boxed, because objects nest.
    fn read_slice<'a, W: AsyncWrite + Unpin + Send>(
        &'a self,
        cid: Cid,
        bytes: Range<u64>,
        depth: usize,
        sink: &'a mut Sink<W>,
    ) -> BoxFuture<'a, Result<(), GetError>> {
        async move {
            if depth > SLICE_DEPTH_MAX {
                return Err(GetError::TooDeep { cid });
            }
            let located = self.locate(cid).await?;
            if bytes.end > located.root.size {
                let size = located.root.size;
                return Err(GetError::Range { cid, start: bytes.end, size });
            }
            self.read_range(cid, &located, bytes, depth, sink).await
        }
        .boxed()
    }
}

/// What has to be fetched for one extent.
enum Part<'a> {
    Stripe { number: u32, stripe: &'a Stripe, bytes: Range<u64> },
    Inline(Bytes),
    Zeros(u64),
    Slice { cid: Cid, bytes: Range<u64> },
}

enum Fetched {
    Bytes { parts: Vec<Bytes>, degraded: bool },
    Zeros(u64),
    Slice { cid: Cid, bytes: Range<u64> },
}

async fn fetch<H: Holders>(
    reader: &StripeReader<'_, H>,
    part: Part<'_>,
) -> Result<Fetched, GetError> {
    Ok(match part {
        Part::Stripe { number, stripe, bytes } => {
            let read = reader.read(number, stripe, bytes).await?;
            Fetched::Bytes { parts: read.parts, degraded: read.degraded }
        }
        Part::Inline(bytes) => Fetched::Bytes { parts: vec![bytes], degraded: false },
        Part::Zeros(count) => Fetched::Zeros(count),
        Part::Slice { cid, bytes } => Fetched::Slice { cid, bytes },
    })
}

/// The parts of a page that `range` of the object touches, in order.
fn parts_of<'a>(page: &'a Page, span: &GroupSpan, range: &Range<u64>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut start = span.bytes.start;
    let mut stripe_number = span.stripe_first;
    for extent in &page.extents {
        let end = start + extent.len();
        let wanted = range.start.max(start)..range.end.min(end);
        if !wanted.is_empty() {
            let local = wanted.start - start..wanted.end - start;
            parts.push(match extent {
                Extent::Stripe(stripe) => {
                    Part::Stripe { number: stripe_number, stripe, bytes: local }
                }
                Extent::Zero { .. } => Part::Zeros(local.end - local.start),
                Extent::Inline { bytes } => Part::Inline(slice(bytes, &local)),
                Extent::Slice { cid, offset, .. } => {
                    Part::Slice { cid: *cid, bytes: offset + local.start..offset + local.end }
                }
            });
        }
        stripe_number += u32::from(matches!(extent, Extent::Stripe(_)));
        start = end;
    }
    parts
}

/// A range of bytes in memory.
pub(crate) fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let position = |offset| usize::try_from(offset).expect("the range is of bytes in memory");
    bytes.slice(position(range.start)..position(range.end))
}

/// Where verified bytes go.
struct Sink<W> {
    writer: W,
    /// Hashes the output of whole objects.
    content: Option<blake3::Hasher>,
    progress: Option<Progress>,
    written: u64,
    degraded_stripes: u64,
    pace: Arc<Pace>,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        if let Some(content) = &mut self.content {
            content.update(bytes);
        }
        self.writer.write_all(bytes).await.map_err(GetError::Output)?;
        self.written += bytes.len() as u64;
        if let Some(progress) = &self.progress {
            progress(self.written);
        }
        Ok(())
    }

    async fn write_zeros(&mut self, count: u64) -> Result<(), GetError> {
        let mut left = count;
        while left > 0 {
            let piece = left.min(ZEROS.len() as u64);
            self.write(&ZEROS[..usize::try_from(piece).expect("at most 64 KiB")]).await?;
            left -= piece;
        }
        Ok(())
    }
}
