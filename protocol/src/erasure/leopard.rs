// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two rates of Leopard over GF(2^16), as `reed-solomon-simd` defines them.
//!
//! A 64-byte block holds 32 field elements: element `i` has its low byte at `i` and its high byte
//! at `32 + i`. Both directions are linear and treat every element position alike. Where counts
//! round up to the same power of two, the two rates make the same parity.

use std::ops::Range;

use reed_solomon_simd::engine::{DefaultEngine, Engine, GfElement, tables};
use reed_solomon_simd::rate::{HighRate, LowRate, Rate, RateDecoder, RateEncoder};

use super::encode::ColumnEncoder;
use super::rebuild::{ColumnRebuilder, PIECE_BYTES};
use super::{BLOCK_BYTES, Code};

pub(super) type High = HighRate<DefaultEngine>;
pub(super) type Low = LowRate<DefaultEngine>;

const CHECKED: &str = "widths, counts and lengths were checked when the code and call were made";
const ELEMENTS_PER_BLOCK: usize = BLOCK_BYTES / 2;

/// Encodes columns with the library's transforms, in one work space.
pub(super) struct LeopardEncoder<R: Rate<DefaultEngine>> {
    code: Code,
    encoder: R::RateEncoder,
    column_bytes: usize,
}

impl<R: Rate<DefaultEngine>> LeopardEncoder<R> {
    /// For a code with parity.
    pub(super) fn new(code: Code) -> Self {
        let (k, m) = (code.data_count(), code.parity_count());
        let encoder = R::encoder(k, m, BLOCK_BYTES, DefaultEngine::new(), None).expect(CHECKED);
        Self { code, encoder, column_bytes: BLOCK_BYTES }
    }
}

impl<R: Rate<DefaultEngine>> ColumnEncoder for LeopardEncoder<R>
where
    R::RateEncoder: Send,
{
    fn encode_column(
        &mut self,
        data: &[&[u8]],
        column: Range<usize>,
        parity: &mut dyn FnMut(usize, &[u8]),
    ) {
        if self.column_bytes != column.len() {
            let (k, m) = (self.code.data_count(), self.code.parity_count());
            self.encoder.reset(k, m, column.len()).expect(CHECKED);
            self.column_bytes = column.len();
        }
        for shard in data {
            self.encoder.add_original_shard(&shard[column.clone()]).expect(CHECKED);
        }
        let result = self.encoder.encode().expect(CHECKED);
        for (index, bytes) in result.recovery_iter().enumerate() {
            parity(index, bytes);
        }
    }
}

/// What a source contributes to a wanted shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    Zero,
    One,
    /// The logarithm of any other element.
    Log(GfElement),
}

/// The rows of the matrix that turns the sources into the wanted shards.
pub(super) struct LeopardMatrix {
    rows: Vec<Vec<Factor>>,
    engine: DefaultEngine,
}

impl LeopardMatrix {
    /// Reads the matrix off the library: source number `c` is given a one at element `c` and
    /// zeros elsewhere, so that element `c` of a wanted shard is the factor of source `c`.
    pub(super) fn new<R: Rate<DefaultEngine>>(
        code: Code,
        sources: &[usize],
        wanted: &[usize],
    ) -> Self {
        let bytes = sources.len().div_ceil(ELEMENTS_PER_BLOCK) * BLOCK_BYTES;
        let unit = |position: usize| {
            let mut shard = vec![0; bytes];
            shard[low_byte_of(position)] = 1;
            shard
        };
        let mut shards = vec![Vec::new(); code.width()];
        for (position, &index) in sources.iter().enumerate() {
            shards[index] = unit(position);
        }
        restore_data::<R>(code, bytes, &mut shards);
        if wanted.iter().any(|&index| index >= code.data_count()) {
            make_parity::<R>(code, &mut shards);
        }
        let row = |&index: &usize| -> Vec<Factor> {
            (0..sources.len()).map(|position| factor_at(&shards[index], position)).collect()
        };
        Self { rows: wanted.iter().map(row).collect(), engine: DefaultEngine::new() }
    }
}

fn low_byte_of(element: usize) -> usize {
    element / ELEMENTS_PER_BLOCK * BLOCK_BYTES + element % ELEMENTS_PER_BLOCK
}

fn factor_at(shard: &[u8], element: usize) -> Factor {
    let low = low_byte_of(element);
    match GfElement::from_le_bytes([shard[low], shard[low + ELEMENTS_PER_BLOCK]]) {
        0 => Factor::Zero,
        1 => Factor::One,
        other => Factor::Log(tables::get_exp_log().log[usize::from(other)]),
    }
}

/// Fills in the empty data shards from exactly `k` shards that are not empty.
fn restore_data<R: Rate<DefaultEngine>>(code: Code, bytes: usize, shards: &mut [Vec<u8>]) {
    let (k, m) = (code.data_count(), code.parity_count());
    if shards[..k].iter().all(|shard| !shard.is_empty()) {
        return;
    }
    let mut decoder = R::decoder(k, m, bytes, DefaultEngine::new(), None).expect(CHECKED);
    for (index, shard) in shards.iter().enumerate().filter(|(_, shard)| !shard.is_empty()) {
        if index < k {
            decoder.add_original_shard(index, shard).expect(CHECKED);
        } else {
            decoder.add_recovery_shard(index - k, shard).expect(CHECKED);
        }
    }
    let result = decoder.decode().expect(CHECKED);
    for (index, shard) in result.restored_original_iter() {
        shards[index] = shard.to_vec();
    }
}

/// Fills in all parity shards from the data shards.
fn make_parity<R: Rate<DefaultEngine>>(code: Code, shards: &mut [Vec<u8>]) {
    let (k, m) = (code.data_count(), code.parity_count());
    let (data, parity) = shards.split_at_mut(k);
    let mut encoder = R::encoder(k, m, data[0].len(), DefaultEngine::new(), None).expect(CHECKED);
    for shard in data {
        encoder.add_original_shard(&*shard).expect(CHECKED);
    }
    let result = encoder.encode().expect(CHECKED);
    for (shard, made) in parity.iter_mut().zip(result.recovery_iter()) {
        *shard = made.to_vec();
    }
}

impl ColumnRebuilder for LeopardMatrix {
    fn rebuild_column(&self, row: usize, sources: &[&[u8]], column: Range<usize>, out: &mut [u8]) {
        let (out, _) = out.as_chunks_mut::<BLOCK_BYTES>();
        let mut product = [[0; BLOCK_BYTES]; PIECE_BYTES / BLOCK_BYTES];
        let product = &mut product[..out.len()];
        let mut is_first = true;
        for (source, factor) in sources.iter().zip(&self.rows[row]) {
            let (source, _) = source[column.clone()].as_chunks::<BLOCK_BYTES>();
            match *factor {
                Factor::Zero => continue,
                Factor::One if is_first => out.copy_from_slice(source),
                Factor::One => add(out, source),
                Factor::Log(log) if is_first => {
                    out.copy_from_slice(source);
                    self.engine.mul(out, log);
                }
                Factor::Log(log) => {
                    product.copy_from_slice(source);
                    self.engine.mul(product, log);
                    add(out, product);
                }
            }
            is_first = false;
        }
        debug_assert!(!is_first, "every shard depends on some source");
    }

    fn copy_of(&self, row: usize) -> Option<usize> {
        let row = &self.rows[row];
        let mut contributing =
            row.iter().enumerate().filter(|(_, factor)| **factor != Factor::Zero);
        match (contributing.next(), contributing.next()) {
            (Some((source, Factor::One)), None) => Some(source),
            _ => None,
        }
    }
}

/// Adds in the field, which is exclusive or; by words, so that unoptimised builds are bearable.
fn add(sum: &mut [[u8; BLOCK_BYTES]], term: &[[u8; BLOCK_BYTES]]) {
    const WORD: usize = size_of::<u128>();
    for (sum, term) in sum.iter_mut().zip(term) {
        let (sum, _) = sum.as_chunks_mut::<WORD>();
        let (term, _) = term.as_chunks::<WORD>();
        for (sum, term) in sum.iter_mut().zip(term) {
            *sum = (u128::from_ne_bytes(*sum) ^ u128::from_ne_bytes(*term)).to_ne_bytes();
        }
    }
}
