// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds a manifest while an object streams past.
//!
//! The builder holds the page being filled, page 0 (which goes into the root) and one reference a
//! page, so an object of 5 TiB costs a few hundred KiB here. Sealed pages are handed out at once,
//! for the caller to store.

use bytes::Bytes;

use super::codec;
use super::validate::{ManifestError, validate_extent};
use super::{Encryption, Extent, Page, PageRef, Root};
use crate::ids::Cid;
use crate::limits::{PAGE_EXTENTS_MAX, PAGES_MAX};
use crate::tree::ShardsRootHasher;

/// An encoded block and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The hash of `bytes`.
    pub cid: Cid,
    /// Canonical DAG-CBOR.
    pub bytes: Bytes,
}

/// A finished manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The root's block; its CID is the object's.
    pub block: Block,
    /// The root itself.
    pub root: Root,
}

/// An object that no manifest can describe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An extent breaks a rule.
    #[error(transparent)]
    Extent(#[from] ManifestError),
    /// More pages than a root can reference.
    #[error("the object needs more than {PAGES_MAX} pages; store it as several objects")]
    TooManyPages,
}

/// Collects extents in object order.
#[derive(Debug, Default)]
pub struct Builder {
    page_0: Option<Page>,
    pages: Vec<PageRef>,
    filling: Page,
    size: u64,
    shards_root: ShardsRootHasher,
    encryption: Option<Encryption>,
}

impl Builder {
    /// An empty object so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how the client encrypted what it pushes.
    pub fn encryption(&mut self, encryption: Encryption) {
        self.encryption = Some(encryption);
    }

    /// Object bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The group that the next extent belongs to.
    pub fn next_group(&self) -> usize {
        let sealed = self.pages.len() + usize::from(self.page_0.is_some());
        sealed + usize::from(self.filling.extents.len() == PAGE_EXTENTS_MAX)
    }

    /// Ends the page being filled before it is full, so that the next extent starts a new group
    /// (with another placement). Returns the page as [`Self::push`] does; does nothing when the
    /// page is still empty.
    ///
    /// # Errors
    /// When the object gets too large for one root.
    pub fn end_page(&mut self) -> Result<Option<Block>, BuildError> {
        if self.filling.is_empty() { Ok(None) } else { self.seal() }
    }

    /// Appends an extent. When that starts a new page, the full one before it is returned if it
    /// is a block of its own (page 0 is not: it becomes part of the root).
    ///
    /// # Errors
    /// When the extent breaks a rule of the manifest or the object gets too large for one.
    pub fn push(&mut self, extent: Extent) -> Result<Option<Block>, BuildError> {
        validate_extent(&extent)?;
        let size = self.size.checked_add(extent.len());
        let size = size.ok_or(ManifestError::Size { covered: u64::MAX, size: self.size })?;
        let sealed =
            if self.filling.extents.len() == PAGE_EXTENTS_MAX { self.seal()? } else { None };
        if let Extent::Stripe(stripe) = &extent {
            for shard in stripe.shards.iter().copied() {
                self.shards_root.push(shard, stripe.shard_len);
            }
        }
        self.size = size;
        self.filling.extents.push(extent);
        Ok(sealed)
    }

    /// Ends the object. Returns the last page, if it is a block of its own, and the manifest.
    ///
    /// # Errors
    /// When the object has too many pages for one root.
    pub fn finish(
        mut self,
        content_root: [u8; 32],
    ) -> Result<(Option<Block>, Manifest), BuildError> {
        let last =
            if self.page_0.is_none() || !self.filling.is_empty() { self.seal()? } else { None };
        let root = Root {
            size: self.size,
            content_root,
            shards_root: self.shards_root.finish(),
            encryption: self.encryption,
            page_0: self.page_0.unwrap_or_default(),
            pages: self.pages,
        };
        Ok((last, Manifest { block: root.encode(), root }))
    }

    fn seal(&mut self) -> Result<Option<Block>, BuildError> {
        let page = std::mem::take(&mut self.filling);
        if self.page_0.is_none() {
            self.page_0 = Some(page);
            return Ok(None);
        }
        if self.pages.len() + 1 >= PAGES_MAX {
            return Err(BuildError::TooManyPages);
        }
        let block = codec::encode_page(&page);
        self.pages.push(PageRef {
            cid: block.cid,
            len: page.len(),
            stripe_count: page.stripe_count(),
            slot_count: page.slot_count(),
        });
        Ok(Some(block))
    }
}
