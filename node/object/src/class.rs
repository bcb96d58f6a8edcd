// SPDX-License-Identifier: MIT OR Apache-2.0
//! The erasure class of a put: how many data and parity shards its stripes have.

use core::fmt;
use core::str::FromStr;

use supernode_protocol::erasure::{Code, ErasureError};
use supernode_protocol::geometry::shard_len;
use supernode_protocol::limits::STRIPE_WIDTH_MAX;

/// What a shard costs its holder beside its bytes: its record's header, its id in the manifest, and
/// its part of the manifests that fewer holders need not keep. So many make 1+4 and 10+4 take the
/// same room where they were measured to, at 2.2 KiB.
const RECORD_BYTES: u64 = 896;

/// `k` data and `m` parity shards, written `k+m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    data_count: usize,
    parity_count: usize,
}

/// A width that no stripe may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{input:?} is no erasure class; write DATA+PARITY with 1 to {STRIPE_WIDTH_MAX} shards, \
     such as 10+4"
)]
pub struct ClassError {
    input: String,
}

impl Class {
    /// A class of `data_count` + `parity_count` shards.
    ///
    /// # Errors
    /// When there is no data shard or the stripe would be too wide.
    pub fn new(data_count: usize, parity_count: usize) -> Result<Self, ClassError> {
        let width = data_count.checked_add(parity_count);
        match width {
            Some(width) if data_count >= 1 && width <= STRIPE_WIDTH_MAX => {
                Ok(Self { data_count, parity_count })
            }
            _ => Err(ClassError { input: format!("{data_count}+{parity_count}") }),
        }
    }

    /// `k`: how many shards give the stripe back.
    pub fn data_count(self) -> usize {
        self.data_count
    }

    /// `m`: how many may be lost.
    pub fn parity_count(self) -> usize {
        self.parity_count
    }

    /// What a stripe of so many bytes is better kept as: copies that survive the same losses, if
    /// these take no more room.
    #[must_use]
    pub fn or_copies(self, len: u64) -> Self {
        let copies = Self { data_count: 1, ..self };
        let room =
            |class: Self| class.width() as u64 * (shard_len(len, class.data_count) + RECORD_BYTES);
        if room(copies) <= room(self) { copies } else { self }
    }

    /// The code of its stripes.
    ///
    /// # Errors
    /// When no code is that wide.
    pub fn code(self) -> Result<Code, ErasureError> {
        Code::with_default_codec(self.data_count, self.parity_count)
    }

    /// `k + m`.
    pub fn width(self) -> usize {
        self.data_count + self.parity_count
    }
}

impl Default for Class {
    /// 10+4: any four of fourteen shards may be lost for 1.4 bytes stored a byte.
    fn default() -> Self {
        Self { data_count: 10, parity_count: 4 }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data_count, self.parity_count)
    }
}

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, ClassError> {
        let error = || ClassError { input: text.chars().take(40).collect() };
        let (data, parity) = text.split_once('+').ok_or_else(error)?;
        let data = data.trim().parse().map_err(|_| error())?;
        let parity = parity.trim().parse().map_err(|_| error())?;
        Self::new(data, parity).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::Class;

    #[test]
    fn copies_are_for_what_they_make_no_larger() {
        for (class, len, better) in [
            ("10+4", 1, "1+4"),
            ("10+4", 2304, "1+4"),
            ("10+4", 2305, "10+4"),
            ("29+51", 500, "1+51"),
            ("29+51", 2048, "29+51"),
            ("4+2", 64 << 20, "4+2"),
            ("1+2", 64 << 20, "1+2"),
        ] {
            let class: Class = class.parse().expect(class);
            assert_eq!(class.or_copies(len).to_string(), better, "{len} bytes");
        }
    }

    #[test]
    fn classes_are_read_as_they_are_written() {
        for text in ["10+4", "1+2", "29+51", "3+0"] {
            assert_eq!(text.parse::<Class>().expect(text).to_string(), text);
        }
        for text in ["", "10", "0+4", "a+b", "200+57", "10-4", "99999999999999999999+1"] {
            assert!(text.parse::<Class>().is_err(), "{text:?}");
        }
    }
}
