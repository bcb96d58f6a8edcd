// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every bound that two machines must share. Local settings may be tighter, never wider.

/// Object bytes in one stripe at most.
pub const STRIPE_BYTES_MAX: u64 = 64 << 20;
/// Bytes in one shard at most: a stripe of width 1, already padded.
pub const SHARD_BYTES_MAX: u64 = STRIPE_BYTES_MAX;
/// Shards of one stripe at most, data and parity together.
pub const STRIPE_WIDTH_MAX: usize = 256;
/// Extents in one manifest page, and so in one placement group.
pub const PAGE_EXTENTS_MAX: usize = 64;
/// Pages of one object at most: 128 TiB of full stripes.
pub const PAGES_MAX: usize = 32_768;
/// Bytes of an `Inline` extent at most.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// Encoded bytes of a manifest page at most.
pub const PAGE_BLOCK_BYTES_MAX: usize = 2 << 20;
/// Encoded bytes of a manifest root at most: an embedded page and a reference to every other.
pub const ROOT_BLOCK_BYTES_MAX: usize = 6 << 20;
/// How deep `Slice` extents may lead from object to object.
pub const SLICE_DEPTH_MAX: usize = 4;
/// Encoded bytes of a request or response frame at most; bodies are streamed after it.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// Bytes of a network's name at most.
pub const NETWORK_NAME_BYTES_MAX: usize = 64;
/// Bytes of a region's name at most.
pub const REGION_NAME_BYTES_MAX: usize = 32;
/// Addresses of one kind in a node record at most.
pub const NODE_ADDRESSES_MAX: usize = 8;
/// Node records, lease entries or slots in one page of a listing at most.
pub const LISTING_ENTRIES_MAX: usize = 512;
/// Shards, or parts of shards, in one batch at most.
pub const BATCH_PARTS_MAX: usize = 256;
/// Bytes of bodies in one batch of puts at most.
pub const BATCH_BYTES_MAX: u64 = SHARD_BYTES_MAX;
/// Encoded bytes of a signed capability at most.
pub const CAPABILITY_BYTES_MAX: usize = 1 << 10;
/// A pin lives this long at most before its owner renews it: 30 days.
pub const PIN_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Chunks that one audit asks for at most.
pub const CHUNKS_PER_AUDIT_MAX: u8 = 32;
/// Encoded bytes of an audit proof at most: 32 chunks of 1 KiB with 16 siblings each take 49 KiB,
/// the entry with its 15 neighbours and up to 36 siblings under 2 KiB.
pub const AUDIT_PROOF_BYTES_MAX: usize = 64 << 10;
/// Encoded bytes of a span proof at most: 30 neighbours of up to 43 bytes take 1,290; the largest
/// object has 2^29 slots in 2^25 chunks, so that 48 subtrees of 32 bytes, 1,536 in all, lie beside
/// a span.
pub const SPAN_PROOF_BYTES_MAX: usize = 4 << 10;
