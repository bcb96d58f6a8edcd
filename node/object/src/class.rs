// SPDX-License-Identifier: MIT OR Apache-2.0
//! The erasure class of a put: how many data and parity shards its stripes have.

use core::fmt;
use core::str::FromStr;

use supernode_protocol::erasure::{Code, ErasureError};
use supernode_protocol::limits::STRIPE_WIDTH_MAX;

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

    /// Copies that survive as many losses.
    pub fn copies(self) -> Self {
        Self { data_count: 1, ..self }
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
    fn classes_are_read_as_they_are_written() {
        for text in ["10+4", "1+2", "29+51", "3+0"] {
            assert_eq!(text.parse::<Class>().expect(text).to_string(), text);
        }
        for text in ["", "10", "0+4", "a+b", "200+57", "10-4", "99999999999999999999+1"] {
            assert!(text.parse::<Class>().is_err(), "{text:?}");
        }
    }
}
