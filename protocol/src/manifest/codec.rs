// SPDX-License-Identifier: MIT OR Apache-2.0
//! Manifest blocks as deterministic DAG-CBOR.
//!
//! The wire types below are the schema: CBOR maps with these keys, in DAG-CBOR's key order. Ids
//! of a stripe's shards are one byte string, 32 bytes each, because a page of a wide code holds
//! thousands of them. Decoding re-encodes and compares, so that only the canonical form passes.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::builder::Block;
use super::validate::{ManifestError, validate_page, validate_root};
use super::{Encryption, Extent, Page, PageRef, Root, Stripe};
use crate::erasure::Codec;
use crate::ids::{Cid, ShardId};
use crate::limits::{PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX, STRIPE_WIDTH_MAX};

/// Version of the manifest schema. Readers refuse any other.
pub const MANIFEST_VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootWire {
    version: u64,
    size: u64,
    content_root: ByteArray<32>,
    shards_root: ByteArray<32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<EncryptionWire>,
    page_0: Vec<ExtentWire>,
    pages: Vec<PageRefWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptionWire {
    scheme: String,
    key_id: String,
    chunk_size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageWire {
    version: u64,
    extents: Vec<ExtentWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageRefWire {
    cid: cid::Cid,
    len: u64,
    stripes: u32,
    slots: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum ExtentWire {
    Stripe { len: u64, codec: u8, k: u16, m: u16, shard_len: u64, shards: ByteBuf },
    Zero { len: u64 },
    Inline { bytes: ByteBuf },
    Slice { cid: cid::Cid, offset: u64, len: u64 },
}

pub(super) fn encode_root(root: &Root) -> Block {
    let wire = RootWire {
        version: MANIFEST_VERSION,
        size: root.size,
        content_root: ByteArray::new(root.content_root),
        shards_root: ByteArray::new(root.shards_root),
        encryption: root.encryption.as_ref().map(|encryption| EncryptionWire {
            scheme: encryption.scheme.clone(),
            key_id: encryption.key_id.clone(),
            chunk_size: encryption.chunk_bytes,
        }),
        page_0: extents_to_wire(&root.page_0),
        pages: root.pages.iter().map(page_ref_to_wire).collect(),
    };
    encode(&wire)
}

pub(super) fn encode_page(page: &Page) -> Block {
    encode(&PageWire { version: MANIFEST_VERSION, extents: extents_to_wire(page) })
}

pub(super) fn decode_root(block: &[u8]) -> Result<Root, ManifestError> {
    let wire: RootWire = decode("manifest root", block, ROOT_BLOCK_BYTES_MAX)?;
    check_version(wire.version)?;
    let root = Root {
        size: wire.size,
        content_root: wire.content_root.into_array(),
        shards_root: wire.shards_root.into_array(),
        encryption: wire.encryption.map(|encryption| Encryption {
            scheme: encryption.scheme,
            key_id: encryption.key_id,
            chunk_bytes: encryption.chunk_size,
        }),
        page_0: page_from_wire(wire.page_0)?,
        pages: wire.pages.iter().map(page_ref_from_wire).collect::<Result<_, _>>()?,
    };
    validate_root(&root)?;
    Ok(root)
}

pub(super) fn decode_page(block: &[u8]) -> Result<Page, ManifestError> {
    let wire: PageWire = decode("manifest page", block, PAGE_BLOCK_BYTES_MAX)?;
    check_version(wire.version)?;
    let page = page_from_wire(wire.extents)?;
    validate_page(&page)?;
    Ok(page)
}

fn encode<T: Serialize>(wire: &T) -> Block {
    let bytes = serde_ipld_dagcbor::to_vec(wire).expect("a manifest in memory has an encoding");
    Block { cid: Cid::of(&bytes), bytes: Bytes::from(bytes) }
}

fn decode<T: Serialize + DeserializeOwned>(
    kind: &'static str,
    block: &[u8],
    bytes_max: usize,
) -> Result<T, ManifestError> {
    if block.len() > bytes_max {
        return Err(ManifestError::BlockTooLong { kind, len: block.len(), max: bytes_max });
    }
    let wire: T = serde_ipld_dagcbor::from_slice(block)
        .map_err(|error| ManifestError::Malformed { kind, reason: error.to_string() })?;
    if encode(&wire).bytes != block {
        return Err(ManifestError::NotCanonical { kind });
    }
    Ok(wire)
}

fn check_version(version: u64) -> Result<(), ManifestError> {
    if version == MANIFEST_VERSION { Ok(()) } else { Err(ManifestError::Version { version }) }
}

fn extents_to_wire(page: &Page) -> Vec<ExtentWire> {
    page.extents.iter().map(extent_to_wire).collect()
}

fn page_from_wire(extents: Vec<ExtentWire>) -> Result<Page, ManifestError> {
    let extents = extents.into_iter().map(extent_from_wire).collect::<Result<_, _>>()?;
    Ok(Page { extents })
}

fn page_ref_to_wire(page: &PageRef) -> PageRefWire {
    PageRefWire {
        cid: page.cid.to_ipld(),
        len: page.len,
        stripes: page.stripe_count,
        slots: page.slot_count,
    }
}

fn page_ref_from_wire(wire: &PageRefWire) -> Result<PageRef, ManifestError> {
    Ok(PageRef {
        cid: Cid::from_ipld(&wire.cid)?,
        len: wire.len,
        stripe_count: wire.stripes,
        slot_count: wire.slots,
    })
}

fn extent_to_wire(extent: &Extent) -> ExtentWire {
    match extent {
        Extent::Stripe(stripe) => ExtentWire::Stripe {
            len: stripe.len,
            codec: stripe.codec.id(),
            k: width_to_wire(stripe.data_count),
            m: width_to_wire(stripe.parity_count),
            shard_len: stripe.shard_len,
            shards: ByteBuf::from(
                stripe.shards.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>(),
            ),
        },
        Extent::Zero { len } => ExtentWire::Zero { len: *len },
        Extent::Inline { bytes } => ExtentWire::Inline { bytes: ByteBuf::from(bytes.to_vec()) },
        Extent::Slice { cid, offset, len } => {
            ExtentWire::Slice { cid: cid.to_ipld(), offset: *offset, len: *len }
        }
    }
}

fn width_to_wire(count: usize) -> u16 {
    u16::try_from(count).expect("stripe widths are validated against their limit")
}

fn extent_from_wire(wire: ExtentWire) -> Result<Extent, ManifestError> {
    Ok(match wire {
        ExtentWire::Stripe { len, codec, k, m, shard_len, shards } => {
            let (ids, rest) = shards.as_chunks::<{ ShardId::LEN }>();
            if !rest.is_empty() || ids.len() > STRIPE_WIDTH_MAX {
                return Err(ManifestError::StripeWidth { k, m, shard_count: ids.len() });
            }
            Extent::Stripe(Stripe {
                len,
                codec: Codec::try_from(codec).map_err(|_| ManifestError::Codec { id: codec })?,
                data_count: usize::from(k),
                parity_count: usize::from(m),
                shard_len,
                shards: ids.iter().map(|id| ShardId::from_bytes(*id)).collect(),
            })
        }
        ExtentWire::Zero { len } => Extent::Zero { len },
        ExtentWire::Inline { bytes } => Extent::Inline { bytes: Bytes::from(bytes.into_vec()) },
        ExtentWire::Slice { cid, offset, len } => {
            Extent::Slice { cid: Cid::from_ipld(&cid)?, offset, len }
        }
    })
}
