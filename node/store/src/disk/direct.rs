// SPDX-License-Identifier: MIT OR Apache-2.0
//! Appends past the system's page cache (`O_DIRECT`), which takes whole blocks from aligned memory.
//!
//! - Parts that lie on block boundaries, in the file and in memory, are written from where they
//!   are: whole blocks of a shard's payload.
//! - The rest (record heads, hash trees, odd ends, small shards) goes through one aligned buffer,
//!   in the same call.
//! - The block in which the last append ended is remembered: the next one begins with its bytes,
//!   which are thus written once more, the same. The file is a whole number of blocks until
//!   somebody cuts the zeros at its end.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::BLOCK_BYTES;
use super::real::write_all_at;
use crate::record::to_len;

/// Memory kept between appends; what a large append of odd pieces took beyond it is given back.
const KEPT_BYTES: usize = 4 << 20;

/// The writing end of one file.
#[derive(Debug)]
pub(super) struct DirectWriter {
    file: File,
    /// Where `tail` starts.
    tail_start: u64,
    /// The bytes of the last block, when the last append did not fill it.
    tail: Vec<u8>,
    buffer: Vec<u8>,
}

/// Where whole blocks of a write come from.
#[derive(Debug, PartialEq, Eq)]
enum Run<'a> {
    Aligned(&'a [u8]),
    /// A range of the buffer.
    Buffered(Range<usize>),
}

impl DirectWriter {
    /// Takes a file that was opened with `O_DIRECT`.
    pub(super) fn new(file: File) -> Self {
        Self { file, tail_start: 0, tail: Vec::new(), buffer: Vec::new() }
    }

    /// Writes all `parts` from `offset`; zeros follow up to the end of a block. `read` gives bytes
    /// that are there already.
    ///
    /// # Errors
    /// What the file says. Of the bytes before `offset` none is changed.
    pub(super) fn write_at(
        &mut self,
        offset: u64,
        parts: &[&[u8]],
        read: impl FnOnce(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = offset / BLOCK_BYTES * BLOCK_BYTES;
        let lead_len = to_len(offset - start);
        // Taken, so that after an error nothing is remembered that may not be there.
        let mut lead = std::mem::take(&mut self.tail);
        if self.tail_start != start || lead.len() < lead_len {
            lead.resize(lead_len, 0);
            read(start, &mut lead)?;
        }
        lead.truncate(lead_len);
        let pieces = pieces(&lead, parts);
        let (runs, base) = gather(&pieces, &mut self.buffer);
        let copied = &self.buffer[base..];
        let blocks: Vec<&[u8]> = runs
            .iter()
            .map(|run| match run {
                Run::Aligned(bytes) => bytes,
                Run::Buffered(range) => &copied[range.clone()],
            })
            .collect();
        write_all_at(&self.file, start, &blocks)?;
        let end = offset + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let odd_len = to_len(end % BLOCK_BYTES);
        self.tail_start = end - odd_len as u64;
        if odd_len > 0 {
            // What does not fill a block was copied, last of all.
            self.tail = copied[copied.len() - to_len(BLOCK_BYTES)..][..odd_len].to_vec();
        }
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// A stretch of bytes, and whether it can be written from where it is.
type Piece<'a> = (&'a [u8], bool);

/// Cuts a write into stretches of whole aligned blocks and what has to be copied.
fn pieces<'a>(lead: &'a [u8], parts: &[&'a [u8]]) -> Vec<Piece<'a>> {
    let block = to_len(BLOCK_BYTES);
    let mut pieces = vec![(lead, false)];
    let mut at = lead.len();
    for part in parts {
        let gap = at.next_multiple_of(block) - at;
        let whole = part.len().saturating_sub(gap) / block * block;
        let is_aligned = whole > 0 && part[gap..].as_ptr().addr().is_multiple_of(block);
        if is_aligned {
            let (before, rest) = part.split_at(gap);
            let (blocks, after) = rest.split_at(whole);
            pieces.extend([(before, false), (blocks, true), (after, false)]);
        } else {
            pieces.push((part, false));
        }
        at += part.len();
    }
    pieces
}

/// Copies what has to be copied into aligned memory; gives the blocks in order, and where in the
/// buffer the first of its own begins.
fn gather<'a>(pieces: &[Piece<'a>], buffer: &mut Vec<u8>) -> (Vec<Run<'a>>, usize) {
    let block = to_len(BLOCK_BYTES);
    let copied: usize = pieces.iter().filter(|(_, in_place)| !in_place).map(|it| it.0.len()).sum();
    buffer.clear();
    // Where the memory starts must not change while it fills.
    buffer.reserve(copied + 2 * block);
    let base = buffer.as_ptr().align_offset(block);
    buffer.resize(base, 0);
    let mut runs = Vec::new();
    let mut first = base;
    let mut close = |buffer: &Vec<u8>, runs: &mut Vec<Run<'a>>| {
        if buffer.len() > first {
            runs.push(Run::Buffered(first - base..buffer.len() - base));
            first = buffer.len();
        }
    };
    for (bytes, in_place) in pieces {
        if *in_place {
            close(buffer, &mut runs);
            runs.push(Run::Aligned(bytes));
        } else {
            buffer.extend_from_slice(bytes);
        }
    }
    buffer.resize(base + (buffer.len() - base).next_multiple_of(block), 0);
    close(buffer, &mut runs);
    (runs, base)
}

#[cfg(test)]
mod tests {
    use super::{Run, gather, pieces};

    /// Memory that begins on a block.
    struct Aligned {
        bytes: Vec<u8>,
        start: usize,
    }

    impl Aligned {
        fn new(len: usize, fill: impl Fn(usize) -> u8) -> Self {
            let mut bytes: Vec<u8> = Vec::with_capacity(len + 4096);
            let start = bytes.as_ptr().align_offset(4096);
            bytes.resize(start, 0);
            bytes.extend((0..len).map(fill));
            Self { bytes, start }
        }

        fn slice(&self) -> &[u8] {
            &self.bytes[self.start..]
        }
    }

    #[test]
    fn whole_blocks_are_not_copied() {
        let payload = Aligned::new(3 * 4096 + 100, |at| u8::try_from(at % 251).expect("small"));
        let (head, next) = ([1; 100], [2; 64]);
        let zeros = [0; 4096 - 150];
        let lead = [3; 50];
        let pieces = pieces(&lead, &[&head, &zeros, payload.slice(), &next]);
        let mut buffer = Vec::new();
        let (runs, base) = gather(&pieces, &mut buffer);
        let [Run::Buffered(first), Run::Aligned(blocks), Run::Buffered(last)] = &runs[..] else {
            panic!("{runs:?}");
        };
        assert_eq!(blocks.as_ptr(), payload.slice().as_ptr(), "in place");
        assert_eq!((first.clone(), blocks.len(), last.clone()), (0..4096, 3 * 4096, 4096..8192));
        let copied = &buffer[base..];
        assert_eq!((&copied[..50], &copied[50..150]), (&lead[..], &head[..]));
        assert_eq!(
            (&copied[4096..4196], &copied[4196..4260]),
            (&payload.slice()[12288..], &next[..])
        );
        assert!(copied[4260..].iter().all(|byte| *byte == 0) && copied.len() == 8192);
    }
}
