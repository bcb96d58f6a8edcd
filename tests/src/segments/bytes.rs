// SPDX-License-Identifier: MIT OR Apache-2.0
//! The encodings that segments are made of, written down a second time: fixed-width fields,
//! postcard, and CRC32C. A mistake that reader and node shared would be seen by neither.

use super::{Hash, Name};

/// Little-endian integers one after another. The caller knows how many there are.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// That many bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// 32 bits, widened: lengths and numbers are all computed with in 64.
    pub fn u32(&mut self) -> u64 {
        let bytes = self.take(4).try_into().expect("four bytes");
        u64::from(u32::from_le_bytes(bytes))
    }

    /// 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }
}

/// Just enough of postcard; nothing where the bytes end too early or say something else.
pub struct Postcard<'a>(pub &'a [u8]);

impl Postcard<'_> {
    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A varint: seven bits a byte, the low ones first.
    pub fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// An id of 16 bytes.
    pub fn name(&mut self) -> Option<Name> {
        self.id()
    }

    /// An id of 32 bytes.
    pub fn hash(&mut self) -> Option<Hash> {
        self.id()
    }

    /// A byte string of any length.
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn id<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (id, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        id.try_into().ok()
    }
}

/// Appends a varint.
pub fn put_number(bytes: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest % 0x80).expect("seven bits") | 0x80);
        rest /= 0x80;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
}

/// The Castagnoli polynomial, bit by bit: headers are short.
pub mod crc32c {
    /// The checksum of some bytes.
    pub fn of(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        let crc =
            bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
        !crc
    }

    /// Whether the last four bytes are the checksum of those before.
    pub fn ends(bytes: &[u8]) -> bool {
        let (body, end) = bytes.split_at(bytes.len() - 4);
        of(body).to_le_bytes() == end
    }
}

#[cfg(test)]
mod tests {
    use super::{Postcard, crc32c};

    #[test]
    fn the_checksum_is_the_one_of_iscsi() {
        assert_eq!(crc32c::of(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn varints_end_where_they_say() {
        let mut bytes = Postcard(&[0x80, 0x01, 0x7f, 0x80]);
        assert_eq!((bytes.number(), bytes.number(), bytes.number()), (Some(128), Some(127), None));
    }
}
