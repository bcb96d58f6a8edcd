// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of the codecs. An id, once given, means the same bytes for ever; golden vectors hold
//! us to it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Code;
use super::encode::ColumnEncoder;
use super::leopard::{self, LeopardEncoder, LeopardMatrix};
use super::rebuild::ColumnRebuilder;

/// Which arithmetic made a stripe's parity. Serialised as its id, shown as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Codec {
    /// Leopard over GF(2^16), "high rate": transforms sized by the parity count.
    Leopard16High,
    /// Leopard over GF(2^16), "low rate": transforms sized by the data count.
    Leopard16Low,
}

/// A codec id or name that this version cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The id belongs to a codec that is planned, but not to be read or written yet.
    #[error("codec {name} ({id}) is reserved: a newer version is needed to read this stripe")]
    Reserved {
        /// Its id.
        id: u8,
        /// Its name.
        name: &'static str,
    },
    /// The id means nothing here.
    #[error("codec id {id} is unknown: the data is damaged or needs a newer version")]
    UnknownId {
        /// The id.
        id: u8,
    },
    /// The name means nothing here.
    #[error("codec {name:?} is unknown: use leopard16-high or leopard16-low")]
    UnknownName {
        /// The name, cut to a printable length.
        name: String,
    },
}

const RESERVED: [(u8, &str); 1] = [(3, "cauchy8")];

impl Codec {
    /// Every codec that can be read and written.
    pub const ALL: [Self; 2] = [Self::Leopard16High, Self::Leopard16Low];

    /// The number in manifests and on disk.
    pub const fn id(self) -> u8 {
        match self {
            Self::Leopard16High => 1,
            Self::Leopard16Low => 2,
        }
    }

    /// The name in settings and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leopard16High => "leopard16-high",
            Self::Leopard16Low => "leopard16-low",
        }
    }

    /// The faster of the two rates for these widths.
    ///
    /// The rate changes the parity, so the choice is recorded with each stripe and this function
    /// only speaks for new ones. It follows the library's own default: the side with the larger
    /// power of two decides, and where both have the same, the larger count gives way (the bytes
    /// are the same then, only the decoder's speed differs).
    /// Without parity there is nothing to choose and the answer is `leopard16-high`.
    pub fn default_for(data_count: usize, parity_count: usize) -> Self {
        let data_order = data_count.checked_next_power_of_two();
        let parity_order = parity_count.checked_next_power_of_two();
        let is_low = match data_order.cmp(&parity_order) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => data_count > parity_count,
            std::cmp::Ordering::Greater => false,
        };
        if is_low && parity_count > 0 { Self::Leopard16Low } else { Self::Leopard16High }
    }

    pub(super) fn encoder(code: Code) -> Box<dyn ColumnEncoder> {
        match code.codec() {
            Self::Leopard16High => Box::new(LeopardEncoder::<leopard::High>::new(code)),
            Self::Leopard16Low => Box::new(LeopardEncoder::<leopard::Low>::new(code)),
        }
    }

    /// `sources` are `k` distinct indexes of the stripe; `wanted` any indexes of it.
    pub(super) fn rebuilder(
        code: Code,
        sources: &[usize],
        wanted: &[usize],
    ) -> Box<dyn ColumnRebuilder> {
        Box::new(match code.codec() {
            Self::Leopard16High => LeopardMatrix::new::<leopard::High>(code, sources, wanted),
            Self::Leopard16Low => LeopardMatrix::new::<leopard::Low>(code, sources, wanted),
        })
    }
}

impl From<Codec> for u8 {
    fn from(codec: Codec) -> Self {
        codec.id()
    }
}

impl TryFrom<u8> for Codec {
    type Error = CodecError;

    fn try_from(id: u8) -> Result<Self, CodecError> {
        if let Some(codec) = Self::ALL.into_iter().find(|codec| codec.id() == id) {
            return Ok(codec);
        }
        Err(match RESERVED.into_iter().find(|(reserved, _)| *reserved == id) {
            Some((id, name)) => CodecError::Reserved { id, name },
            None => CodecError::UnknownId { id },
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        if let Some(codec) = Self::ALL.into_iter().find(|codec| codec.name() == text) {
            return Ok(codec);
        }
        Err(match RESERVED.into_iter().find(|(_, reserved)| *reserved == text) {
            Some((id, name)) => CodecError::Reserved { id, name },
            None => CodecError::UnknownName { name: text.chars().take(80).collect() },
        })
    }
}
