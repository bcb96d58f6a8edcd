// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifest: the immutable description of an object.
//!
//! - An object is a list of [`Extent`]s in order; the usual one is an erasure-coded [`Stripe`].
//! - Extents come in pages of up to 64. Page 0 is embedded in the [`Root`], the others are blocks
//!   of their own, referenced by CID with what a reader must know to find the right one. Page `n`
//!   is placement group `n`.
//! - Root and pages are deterministic DAG-CBOR ([`codec`]); the CID of the root is the object's
//!   CID. A block that decodes but would be encoded in another way is refused, so that one object
//!   has one CID.
//! - [`Builder`] makes manifests while an object streams past, holding one page at a time.
//!
//! Decoding validates: whoever holds a [`Root`] or [`Page`] holds one within every limit, with
//! shard lengths that match the normative geometry.

mod builder;
mod codec;
mod validate;

#[cfg(test)]
mod tests;

use core::ops::Range;

use bytes::Bytes;

use crate::erasure::Codec;
use crate::geometry;
use crate::ids::{Cid, ShardId};
use crate::tree::ShardEntry;

pub use self::builder::{Block, BuildError, Builder, Manifest};
pub use self::codec::MANIFEST_VERSION;
pub use self::validate::ManifestError;

/// What the root block of an object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Bytes of the object.
    pub size: u64,
    /// BLAKE3 of the object's bytes.
    pub content_root: [u8; 32],
    /// BLAKE3 over every slot's entry in order: what the chain keeps. See [`crate::tree`].
    pub shards_root: [u8; 32],
    /// Set when the client encrypted the object; the CID then covers ciphertext.
    pub encryption: Option<Encryption>,
    /// The first page.
    pub page_0: Page,
    /// Pages 1 and up.
    pub pages: Vec<PageRef>,
}

/// How a client encrypted an object before it was cut into extents. Reserved: this version reads
/// and keeps it, and leaves decryption to the client that understands the scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Name of the scheme.
    pub scheme: String,
    /// Which key, in the client's own terms.
    pub key_id: String,
    /// Plaintext bytes under one authentication tag.
    pub chunk_bytes: u64,
}

/// Up to 64 extents in object order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The extents.
    pub extents: Vec<Extent>,
}

/// A link to a page, with the sums a reader needs to skip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// The page's block.
    pub cid: Cid,
    /// Object bytes it covers.
    pub len: u64,
    /// `Stripe` extents in it.
    pub stripe_count: u32,
    /// Slots of those stripes.
    pub slot_count: u32,
}

/// A run of an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Erasure-coded.
    Stripe(Stripe),
    /// That many zeros, stored nowhere.
    Zero {
        /// How many.
        len: u64,
    },
    /// Bytes kept in the manifest itself.
    Inline {
        /// The bytes.
        bytes: Bytes,
    },
    /// A part of another object.
    Slice {
        /// The other object.
        cid: Cid,
        /// Where in it the part starts.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

/// `k + m` shards of which any `k` give `len` bytes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripe {
    /// Object bytes, 1 to 64 MiB.
    pub len: u64,
    /// The code that made the parity.
    pub codec: Codec,
    /// `k`.
    pub data_count: usize,
    /// `m`.
    pub parity_count: usize,
    /// Bytes of each shard, as [`geometry::shard_len`] dictates.
    pub shard_len: u64,
    /// Data shards, then parity shards.
    pub shards: Vec<ShardId>,
}

impl Stripe {
    /// `k + m`.
    pub fn width(&self) -> usize {
        self.data_count + self.parity_count
    }
}

impl Extent {
    /// Object bytes this extent covers.
    pub fn len(&self) -> u64 {
        match self {
            Self::Stripe(stripe) => stripe.len,
            Self::Zero { len } | Self::Slice { len, .. } => *len,
            Self::Inline { bytes } => bytes.len() as u64,
        }
    }

    /// Never true in a valid manifest; here because a length without it reads oddly.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Page {
    /// Object bytes the page covers.
    pub fn len(&self) -> u64 {
        self.extents.iter().map(Extent::len).sum()
    }

    /// Whether it covers no bytes, which only page 0 of an empty object does.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// The page's stripes, in order.
    pub fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.extents.iter().filter_map(|extent| match extent {
            Extent::Stripe(stripe) => Some(stripe),
            _ => None,
        })
    }

    /// `Stripe` extents in it.
    pub fn stripe_count(&self) -> u32 {
        u32::try_from(self.stripes().count()).expect("a page has at most 64 extents")
    }

    /// Slots of its stripes.
    pub fn slot_count(&self) -> u32 {
        let slots = self.stripes().map(Stripe::width).sum::<usize>();
        u32::try_from(slots).expect("64 stripes of at most 256 shards")
    }

    /// What the object's list of shards says of the page's slots, in slot order.
    pub fn entries(&self) -> impl Iterator<Item = ShardEntry> {
        self.stripes().flat_map(|stripe| {
            let shard_len = stripe.shard_len;
            stripe.shards.iter().map(move |id| ShardEntry { id: *id, shard_len })
        })
    }

    /// Decodes and validates a page block.
    ///
    /// # Errors
    /// Says which rule the block breaks.
    pub fn decode(block: &[u8]) -> Result<Self, ManifestError> {
        codec::decode_page(block)
    }
}

/// One group as a reader meets it: where its page is and which part of the object it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpan {
    /// Number of the page, and so of the group.
    pub group: u32,
    /// The page's block; `None` for page 0, which is in the root.
    pub page: Option<Cid>,
    /// Object bytes it covers.
    pub bytes: Range<u64>,
    /// Its first stripe, counted over the whole object.
    pub stripe_first: u32,
    /// Its stripes.
    pub stripe_count: u32,
}

impl Root {
    /// Decodes and validates a root block.
    ///
    /// # Errors
    /// Says which rule the block breaks.
    pub fn decode(block: &[u8]) -> Result<Self, ManifestError> {
        codec::decode_root(block)
    }

    /// The root as a block, and the object's CID.
    pub fn encode(&self) -> Block {
        codec::encode_root(self)
    }

    /// Every group of the object in order. Group 0 always exists, also in an empty object.
    pub fn groups(&self) -> impl Iterator<Item = GroupSpan> {
        let first = (None, self.page_0.len(), self.page_0.stripe_count());
        let rest = self.pages.iter().map(|page| (Some(page.cid), page.len, page.stripe_count));
        let mut offset = 0;
        let mut stripe_first = 0;
        std::iter::once(first).chain(rest).zip(0..).map(
            move |((page, len, stripe_count), group)| {
                let span = GroupSpan {
                    group,
                    page,
                    bytes: offset..offset + len,
                    stripe_first,
                    stripe_count,
                };
                offset += len;
                stripe_first += stripe_count;
                span
            },
        )
    }

    /// The page of a group, checked against what the root says of it.
    ///
    /// # Errors
    /// When the block is another one, or its sums are not the root's.
    pub fn open_page(&self, group: u32, block: &[u8]) -> Result<Page, ManifestError> {
        let reference = usize::try_from(group)
            .ok()
            .and_then(|group| group.checked_sub(1))
            .and_then(|position| self.pages.get(position))
            .ok_or(ManifestError::NoSuchGroup { group })?;
        if Cid::of(block) != reference.cid {
            return Err(ManifestError::WrongBlock { expected: reference.cid });
        }
        let page = Page::decode(block)?;
        let sums = (page.len(), page.stripe_count(), page.slot_count());
        if sums != (reference.len, reference.stripe_count, reference.slot_count) {
            return Err(ManifestError::PageSums { group });
        }
        Ok(page)
    }

    /// Slots of all groups before `group`, which is where its own begin in the object's list of
    /// shards; `None` if there is no such group.
    pub fn slots_before(&self, group: u32) -> Option<u64> {
        let Some(pages) = usize::try_from(group).ok()?.checked_sub(1) else { return Some(0) };
        self.pages.get(pages)?;
        let between: u64 = self.pages[..pages].iter().map(|page| u64::from(page.slot_count)).sum();
        Some(u64::from(self.page_0.slot_count()) + between)
    }

    /// Slots of the whole object.
    pub fn slot_count(&self) -> u64 {
        let rest: u64 = self.pages.iter().map(|page| u64::from(page.slot_count)).sum();
        u64::from(self.page_0.slot_count()) + rest
    }
}

/// The stripe geometry a manifest must state.
fn expected_shard_len(stripe: &Stripe) -> u64 {
    geometry::shard_len(stripe.len, stripe.data_count)
}
