// SPDX-License-Identifier: MIT OR Apache-2.0
//! Manifests: golden vectors, canonical form, every limit.

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Block, Builder, Encryption, Extent, Manifest, ManifestError, Page, Root, Stripe};
use crate::erasure::Codec;
use crate::geometry::shard_len;
use crate::ids::{Cid, ShardId};
use crate::limits::{INLINE_BYTES_MAX, PAGE_EXTENTS_MAX, STRIPE_BYTES_MAX};
use crate::tree::ShardsTree;

fn stripe(len: u64, data_count: usize, parity_count: usize, seed: u8) -> Stripe {
    let width = u16::try_from(data_count + parity_count).expect("test widths are small");
    Stripe {
        len,
        codec: Codec::default_for(data_count, parity_count),
        data_count,
        parity_count,
        shard_len: shard_len(len, data_count),
        shards: (0..width)
            .map(|index| ShardId::of(&[[seed, 0], index.to_le_bytes()].concat()))
            .collect(),
    }
}

/// A finished manifest and its page blocks.
fn build(extents: impl IntoIterator<Item = Extent>) -> (Manifest, Vec<Block>) {
    let mut builder = Builder::new();
    let mut pages: Vec<Block> = Vec::new();
    for extent in extents {
        pages.extend(builder.push(extent).expect("a valid extent"));
    }
    let (last, manifest) = builder.finish([7; 32]).expect("few pages");
    pages.extend(last);
    (manifest, pages)
}

fn extent() -> impl Strategy<Value = Extent> {
    prop_oneof![
        (1..=STRIPE_BYTES_MAX, 1..12_usize, 0..5_usize, any::<u8>())
            .prop_map(|(len, k, m, seed)| Extent::Stripe(stripe(len, k, m, seed))),
        (1..1_u64 << 40).prop_map(|len| Extent::Zero { len }),
        prop::collection::vec(any::<u8>(), 1..64)
            .prop_map(|bytes| Extent::Inline { bytes: Bytes::from(bytes) }),
        (any::<[u8; 32]>(), 0..1_u64 << 40, 1..1_u64 << 40).prop_map(|(cid, offset, len)| {
            Extent::Slice { cid: Cid::from_bytes(cid), offset, len }
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_built_is_what_is_decoded(
        extents in prop::collection::vec(extent(), 0..200),
        encryption in prop_oneof![
            Just(None),
            Just(Some(Encryption {
                scheme: "aead".into(), key_id: "k1".into(), chunk_bytes: 4096,
            })),
        ],
    ) {
        let mut builder = Builder::new();
        if let Some(encryption) = encryption.clone() {
            builder.encryption(encryption);
        }
        let mut blocks: Vec<Block> = Vec::new();
        for extent in extents.clone() {
            blocks.extend(builder.push(extent).expect("a valid extent"));
        }
        let (last, manifest) = builder.finish([7; 32]).expect("few pages");
        blocks.extend(last);

        let root = Root::decode(&manifest.block.bytes).expect("own output");
        prop_assert_eq!(&root, &manifest.root);
        prop_assert_eq!(Cid::of(&manifest.block.bytes), manifest.block.cid);
        prop_assert_eq!(root.size, extents.iter().map(Extent::len).sum::<u64>());
        prop_assert_eq!(root.groups().count(), extents.len().div_ceil(PAGE_EXTENTS_MAX).max(1));

        let mut found = root.page_0.extents.clone();
        for (block, group) in blocks.iter().zip(1..) {
            found.extend(root.open_page(group, &block.bytes).expect("own page").extents);
        }
        prop_assert_eq!(found, extents);
    }

    #[test]
    fn a_changed_byte_never_passes_as_the_same_object(
        extents in prop::collection::vec(extent(), 1..10),
        position in any::<usize>(),
        bit in 0..8_u8,
    ) {
        let (manifest, _) = build(extents);
        let mut forged = manifest.block.bytes.to_vec();
        let position = position % forged.len();
        forged[position] ^= 1_u8 << bit;
        prop_assert!(Cid::of(&forged) != manifest.block.cid);
        if let Ok(root) = Root::decode(&forged) {
            prop_assert_eq!(root.encode().bytes, forged, "only canonical blocks decode");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // A valid block of random bytes would be a hash collision away from meaning something.
        prop_assert!(Root::decode(&bytes).is_err());
        prop_assert!(Page::decode(&bytes).is_err());
    }
}

#[test]
fn pages_hold_64_extents_and_groups_count_stripes_over_the_object() {
    let extents = (0..130_u8).map(|n| match n % 2 {
        0 => Extent::Stripe(stripe(1000, 10, 4, n)),
        _ => Extent::Zero { len: 10 },
    });
    let (manifest, pages) = build(extents);
    assert_eq!(pages.len(), 2);
    let groups: Vec<_> = manifest.root.groups().collect();
    assert_eq!(groups.len(), 3);
    assert_eq!(groups[1].stripe_first, 32);
    assert_eq!(groups[2].stripe_first, 64);
    assert_eq!(groups[2].stripe_count, 1);
    assert_eq!(groups[1].bytes, 32 * 1010..64 * 1010);
    assert_eq!(manifest.root.slot_count(), 65 * 14);
    let swapped = manifest.root.open_page(1, &pages[1].bytes);
    assert!(matches!(swapped, Err(ManifestError::WrongBlock { .. })));
    let absent = manifest.root.open_page(3, &pages[1].bytes);
    assert!(matches!(absent, Err(ManifestError::NoSuchGroup { group: 3 })));
}

#[test]
fn a_page_can_end_early_and_an_empty_object_has_group_0() {
    let mut builder = Builder::new();
    builder.end_page().expect("nothing to end");
    builder.push(Extent::Zero { len: 1 }).expect("valid");
    assert_eq!(builder.next_group(), 0);
    builder.end_page().expect("few pages");
    assert_eq!(builder.next_group(), 1);
    builder.push(Extent::Zero { len: 2 }).expect("valid");
    let (last, manifest) = builder.finish([0; 32]).expect("few pages");
    assert!(last.is_some());
    assert_eq!(manifest.root.groups().count(), 2);

    let (empty, _) = build([]);
    assert_eq!(empty.root.size, 0);
    assert_eq!(empty.root.groups().count(), 1);
    assert_eq!(empty.root.shards_root, *blake3::hash(b"").as_bytes());
}

#[test]
fn every_rule_of_a_stripe_and_extent_is_enforced() {
    let good = stripe(1000, 10, 4, 1);
    let zero_len = Stripe { len: 0, ..good.clone() };
    let too_long = stripe(STRIPE_BYTES_MAX + 1, 10, 4, 1);
    let wrong_shard_len = Stripe { shard_len: good.shard_len + 64, ..good.clone() };
    let too_few_ids = Stripe { shards: good.shards[1..].to_vec(), ..good.clone() };
    let no_data = Stripe { data_count: 0, parity_count: 14, shard_len: 64, ..good.clone() };
    for bad in [
        Extent::Stripe(too_long),
        Extent::Stripe(wrong_shard_len),
        Extent::Stripe(too_few_ids),
        Extent::Stripe(zero_len),
        Extent::Stripe(no_data),
        Extent::Zero { len: 0 },
        Extent::Inline { bytes: Bytes::new() },
        Extent::Inline { bytes: Bytes::from(vec![0; INLINE_BYTES_MAX + 1]) },
        Extent::Slice { cid: Cid::of(b""), offset: u64::MAX, len: 1 },
    ] {
        let built = Builder::new().push(bad.clone());
        assert!(built.is_err(), "{bad:?}");
        let page = Page { extents: vec![bad.clone()] };
        let root = Root { size: page.len(), page_0: page, ..build([]).0.root };
        assert!(Root::decode(&root.encode().bytes).is_err(), "{bad:?}");
    }
    let sum = Root { size: 5, ..build([Extent::Zero { len: 4 }]).0.root };
    let error = Root::decode(&sum.encode().bytes).expect_err("4 is not 5");
    assert_eq!(error, ManifestError::Size { covered: 4, size: 5 });
}

#[test]
fn lengths_that_overflow_are_refused() {
    let extents = vec![Extent::Zero { len: u64::MAX }, Extent::Zero { len: u64::MAX }];
    let mut builder = Builder::new();
    builder.push(extents[0].clone()).expect("the first fits");
    assert!(builder.push(extents[1].clone()).is_err());
    let root = Root { size: u64::MAX - 1, ..build([Extent::Zero { len: 1 }]).0.root };
    let root = Root { page_0: Page { extents }, ..root };
    assert!(Root::decode(&root.encode().bytes).is_err());
}

#[test]
fn another_encoding_of_the_same_content_is_refused() {
    let (manifest, _) = build([Extent::Zero { len: 4 }]);
    // The version 1 written in two bytes instead of one.
    let position = manifest
        .block
        .bytes
        .windows(8)
        .position(|window| window == b"version\x01")
        .expect("the key is there");
    let mut bytes = manifest.block.bytes.to_vec();
    bytes.splice(position + 7..position + 8, [0x18, 0x01]);
    assert!(Root::decode(&bytes).is_err());
    let mut newer = manifest.block.bytes.to_vec();
    newer[position + 7] = 2;
    assert_eq!(Root::decode(&newer), Err(ManifestError::Version { version: 2 }));
}

#[test]
fn a_page_has_its_part_of_the_list_of_shards() {
    // Stripes of two widths with something else between them, over three pages.
    let extents = (0..150_u8).map(|seed| match seed % 3 {
        0 => Extent::Stripe(stripe(1000, 4, 2, seed)),
        1 => Extent::Zero { len: 10 },
        _ => Extent::Stripe(stripe(5000, 10, 4, seed)),
    });
    let (manifest, blocks) = build(extents);
    let root = manifest.root;
    let mut list = ShardsTree::new();
    for group in 0..3 {
        assert_eq!(root.slots_before(group), Some(list.count()), "group {group}");
        list.start_group();
        let page = match group.checked_sub(1) {
            None => root.page_0.clone(),
            Some(block) => root.open_page(group, &blocks[block as usize].bytes).expect("its block"),
        };
        page.entries().for_each(|entry| list.push(entry.id, entry.shard_len));
    }
    assert_eq!((list.root(), list.count()), (root.shards_root, root.slot_count()));
    assert_eq!(root.slots_before(3), None);
    assert_eq!(root.slots_before(u32::MAX), None);
}
