// SPDX-License-Identifier: MIT OR Apache-2.0
//! The codes as `docs/PROTOCOL.md` defines them: polynomials through points, written down as
//! slowly as the definition reads. Whoever implements the document gets the bytes we store.

use supernode_protocol::erasure::{Code, Codec, Encoder};

const POLYNOMIAL: u32 = 0x1002D;
const BASIS: [u16; 16] = [
    0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012, 0x6C98, 0x10D8, 0x6A72, 0xB900,
    0xFDB8, 0xFB34, 0xFF38, 0x991E,
];

/// GF(2^16) on words that are coordinates in [`BASIS`].
struct Field {
    word_of: Vec<u16>,
}

fn element(word: u16) -> u16 {
    (0..16).filter(|bit| word >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit])
}

fn product(a: u16, b: u16) -> u16 {
    let mut sum = 0_u32;
    for bit in 0..16 {
        if b >> bit & 1 == 1 {
            sum ^= u32::from(a) << bit;
        }
    }
    for bit in (16..32).rev() {
        if sum >> bit & 1 == 1 {
            sum ^= POLYNOMIAL << (bit - 16);
        }
    }
    u16::try_from(sum).expect("reduced")
}

impl Field {
    fn new() -> Self {
        let mut word_of = vec![0; 1 << 16];
        for word in 0..=u16::MAX {
            word_of[usize::from(element(word))] = word;
        }
        Self { word_of }
    }

    fn mul(&self, a: u16, b: u16) -> u16 {
        self.word_of[usize::from(product(element(a), element(b)))]
    }

    /// `a` to the power of 2^16 - 2.
    fn inverse(&self, a: u16) -> u16 {
        assert_ne!(a, 0);
        let (mut power, mut result) = (a, 1);
        for _ in 1..16 {
            power = self.mul(power, power);
            result = self.mul(result, power);
        }
        result
    }

    /// The value at `x` of the polynomial through `points`, of a degree below their number.
    fn interpolate(&self, points: &[(u16, u16)], x: u16) -> u16 {
        let mut sum = 0;
        for (place, value) in points {
            let mut term = *value;
            for (other, _) in points.iter().filter(|(other, _)| other != place) {
                term = self.mul(term, self.mul(x ^ other, self.inverse(place ^ other)));
            }
            sum ^= term;
        }
        sum
    }
}

fn word(number: usize) -> u16 {
    u16::try_from(number).expect("small")
}

/// The parity words of one position, from its data words.
fn parity_words(field: &Field, codec: Codec, data: &[u16], m: usize) -> Vec<u16> {
    match codec {
        Codec::Leopard16High => {
            let width = m.next_power_of_two();
            let mut parity = vec![0; m];
            for (chunk, words) in data.chunks(width).enumerate() {
                let points: Vec<_> = (0..width)
                    .map(|i| (word((chunk + 1) * width + i), words.get(i).copied().unwrap_or(0)))
                    .collect();
                for (j, sum) in parity.iter_mut().enumerate() {
                    *sum ^= field.interpolate(&points, word(j));
                }
            }
            parity
        }
        Codec::Leopard16Low => {
            let width = data.len().next_power_of_two();
            let points: Vec<_> =
                (0..width).map(|i| (word(i), data.get(i).copied().unwrap_or(0))).collect();
            (0..m).map(|j| field.interpolate(&points, word(width + j))).collect()
        }
    }
}

fn seeded(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"definition").finalize_xof().fill(&mut bytes);
    bytes
}

/// Word `i` of a 64-byte block: low bytes first, then high bytes.
fn word_of_block(block: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([block[i], block[32 + i]])
}

#[test]
fn the_written_definition_gives_the_parity_we_store() {
    let field = Field::new();
    let shard_bytes = 128;
    for (codec, k, m) in [
        (Codec::Leopard16High, 2, 1),
        (Codec::Leopard16High, 3, 2),
        (Codec::Leopard16High, 10, 4),
        (Codec::Leopard16High, 7, 3),
        (Codec::Leopard16Low, 3, 8),
        (Codec::Leopard16Low, 5, 3),
        (Codec::Leopard16Low, 6, 17),
    ] {
        let data = seeded(k * shard_bytes);
        let mut parity = vec![vec![0; shard_bytes]; m];
        let code = Code::new(codec, k, m).expect("valid widths");
        Encoder::new(code).encode_stripe(&data, &mut parity).expect("equal shards");
        for block in (0..shard_bytes).step_by(64) {
            for i in 0..32 {
                let words: Vec<_> = data
                    .chunks(shard_bytes)
                    .map(|shard| word_of_block(&shard[block..block + 64], i))
                    .collect();
                let expected = parity_words(&field, codec, &words, m);
                let made: Vec<_> = parity
                    .iter()
                    .map(|shard| word_of_block(&shard[block..block + 64], i))
                    .collect();
                assert_eq!(made, expected, "{codec:?} {k}+{m}, word {i} of block {block}");
            }
        }
    }
}
