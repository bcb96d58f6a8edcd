// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules that every manifest keeps, checked on every decode.

use super::{Extent, Page, Root, Stripe, expected_shard_len};
use crate::ids::{Cid, ParseIdError};
use crate::limits::{
    INLINE_BYTES_MAX, PAGE_EXTENTS_MAX, PAGES_MAX, STRIPE_BYTES_MAX, STRIPE_WIDTH_MAX,
};

/// A block that is no valid manifest root or page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than any block of its kind may be.
    #[error("a {kind} of {len} bytes is over the limit of {max}")]
    BlockTooLong {
        /// Root or page.
        kind: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not DAG-CBOR, or not of this schema.
    #[error("the block is no {kind}: {reason}")]
    Malformed {
        /// Root or page.
        kind: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// The same content has another, canonical encoding.
    #[error("the {kind} is not in canonical DAG-CBOR form; its CID names nothing")]
    NotCanonical {
        /// Root or page.
        kind: &'static str,
    },
    /// Written by a newer program.
    #[error("manifest version {version} is unknown; upgrade to read it")]
    Version {
        /// The version found.
        version: u64,
    },
    /// A link or CID of another kind than ours.
    #[error(transparent)]
    Link(#[from] ParseIdError),
    /// A code this program cannot decode.
    #[error("erasure codec {id} is unknown; upgrade to read it")]
    Codec {
        /// Its number.
        id: u8,
    },
    /// Width out of range, or another number of shard ids.
    #[error("a stripe of {k}+{m} with {shard_count} shard ids; widths are 1 to 256 and must match")]
    StripeWidth {
        /// Data shards.
        k: u16,
        /// Parity shards.
        m: u16,
        /// Ids given.
        shard_count: usize,
    },
    /// A shard length that the geometry does not give.
    #[error("a stripe of {len} bytes states {stated} bytes a shard; the geometry gives {expected}")]
    ShardLen {
        /// Bytes of the stripe.
        len: u64,
        /// What the manifest says.
        stated: u64,
        /// What it must be.
        expected: u64,
    },
    /// An extent of no bytes or of too many.
    #[error("an extent of {len} bytes is out of range; this kind has 1 to {max}")]
    ExtentLen {
        /// Its length.
        len: u64,
        /// The limit of its kind.
        max: u64,
    },
    /// Too many extents in a page, or pages in an object, or an empty page after the first.
    #[error("{what}: {count}, and it must be {rule}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many.
        count: usize,
        /// The rule.
        rule: &'static str,
    },
    /// The extents do not add up to the object's size.
    #[error("the extents cover {covered} bytes, the object has {size}")]
    Size {
        /// Sum of the extents; `u64::MAX` when it overflows.
        covered: u64,
        /// The object's size.
        size: u64,
    },
    /// The object has no such group.
    #[error("the object has no group {group}")]
    NoSuchGroup {
        /// What was asked for.
        group: u32,
    },
    /// Bytes of another block.
    #[error("the block is not {expected}")]
    WrongBlock {
        /// What was wanted.
        expected: Cid,
    },
    /// A page whose sums are not those the root states.
    #[error("page {group} does not cover what the root says it does")]
    PageSums {
        /// Which page.
        group: u32,
    },
}

pub(super) fn validate_root(root: &Root) -> Result<(), ManifestError> {
    validate_page(&root.page_0)?;
    if root.pages.len() >= PAGES_MAX {
        let count = root.pages.len() + 1;
        return Err(ManifestError::Count { what: "pages", count, rule: "at most 32,768" });
    }
    let mut covered = checked_len(&root.page_0, root.size)?;
    let mut stripe_count = root.page_0.stripe_count();
    for page in &root.pages {
        if page.len == 0 {
            return Err(ManifestError::Count {
                what: "bytes of a page",
                count: 0,
                rule: "positive",
            });
        }
        let overflow = ManifestError::Size { covered: u64::MAX, size: root.size };
        covered = covered.checked_add(page.len).ok_or(overflow.clone())?;
        stripe_count = stripe_count.checked_add(page.stripe_count).ok_or(overflow)?;
    }
    if covered != root.size {
        return Err(ManifestError::Size { covered, size: root.size });
    }
    Ok(())
}

pub(super) fn validate_page(page: &Page) -> Result<(), ManifestError> {
    if page.extents.len() > PAGE_EXTENTS_MAX {
        let count = page.extents.len();
        return Err(ManifestError::Count { what: "extents of a page", count, rule: "at most 64" });
    }
    page.extents.iter().try_for_each(validate_extent)?;
    checked_len(page, u64::MAX).map(|_| ())
}

fn checked_len(page: &Page, size: u64) -> Result<u64, ManifestError> {
    page.extents
        .iter()
        .try_fold(0_u64, |sum, extent| sum.checked_add(extent.len()))
        .ok_or(ManifestError::Size { covered: u64::MAX, size })
}

pub(super) fn validate_extent(extent: &Extent) -> Result<(), ManifestError> {
    let max = match extent {
        Extent::Stripe(stripe) => {
            validate_stripe(stripe)?;
            STRIPE_BYTES_MAX
        }
        Extent::Inline { .. } => INLINE_BYTES_MAX as u64,
        Extent::Zero { .. } => u64::MAX,
        Extent::Slice { offset, .. } => u64::MAX - offset,
    };
    match extent.len() {
        len if len == 0 || len > max => Err(ManifestError::ExtentLen { len, max }),
        _ => Ok(()),
    }
}

fn validate_stripe(stripe: &Stripe) -> Result<(), ManifestError> {
    let in_range = stripe.data_count >= 1
        && stripe.width() <= STRIPE_WIDTH_MAX
        && stripe.shards.len() == stripe.width();
    if !in_range {
        return Err(ManifestError::StripeWidth {
            k: u16::try_from(stripe.data_count).unwrap_or(u16::MAX),
            m: u16::try_from(stripe.parity_count).unwrap_or(u16::MAX),
            shard_count: stripe.shards.len(),
        });
    }
    let expected = expected_shard_len(stripe);
    if stripe.shard_len != expected {
        return Err(ManifestError::ShardLen {
            len: stripe.len,
            stated: stripe.shard_len,
            expected,
        });
    }
    Ok(())
}
