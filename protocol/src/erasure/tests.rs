// SPDX-License-Identifier: MIT OR Apache-2.0
//! The codes against the library that defines them, and every error by its name.

mod any_k;

use bytes::Bytes;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, LowRateDecoder, RateDecoder};

use super::{
    COLUMN_BYTES, Code, Codec, CodecError, Encoder, ErasureError, RebuildPlan, Wanted,
    align_to_blocks, reconstruct,
};

/// Bytes that differ everywhere, the same in every run.
fn sample(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"erasure tests").finalize_xof().fill(&mut bytes);
    bytes
}

fn code(codec: Codec, data_count: usize, parity_count: usize) -> Code {
    Code::new(codec, data_count, parity_count).expect("widths within the limit")
}

/// A whole stripe of random data: data shards, then parity shards.
fn stripe(code: Code, shard_len: usize) -> Vec<Bytes> {
    stripe_of(code, &sample(code.data_count() * shard_len))
}

fn stripe_of(code: Code, data: &[u8]) -> Vec<Bytes> {
    let shard_len = data.len() / code.data_count();
    let mut parity = vec![vec![0xee; shard_len]; code.parity_count()];
    Encoder::new(code).encode_stripe(data, &mut parity).expect("lengths fit");
    let data = data.chunks(shard_len).map(Bytes::copy_from_slice);
    data.chain(parity.into_iter().map(Bytes::from)).collect()
}

/// Both codecs at widths of every kind. The largest ones use field elements of two bytes; all
/// others stay within the subfield of 256 elements.
fn codes() -> impl Iterator<Item = Code> {
    let small = [(1, 1), (1, 2), (1, 5), (2, 1), (2, 2), (3, 2), (4, 2), (10, 4), (12, 10)];
    let large = [(20, 10), (29, 51), (200, 56), (56, 200)];
    small.into_iter().chain(large).flat_map(|(k, m)| Codec::ALL.map(|codec| code(codec, k, m)))
}

#[test]
fn ids_and_names_are_fixed() {
    for (codec, id, name) in
        [(Codec::Leopard16High, 1, "leopard16-high"), (Codec::Leopard16Low, 2, "leopard16-low")]
    {
        assert_eq!((codec.id(), codec.to_string().as_str()), (id, name));
        assert_eq!(Codec::try_from(id), Ok(codec));
        assert_eq!(name.parse(), Ok(codec));
        assert_eq!(serde_json::to_string(&codec).expect("a number"), id.to_string());
        assert_eq!(postcard::to_allocvec(&codec).expect("a byte"), [id]);
        assert_eq!(serde_json::from_str::<Codec>(&id.to_string()).expect("known"), codec);
    }
    let reserved = CodecError::Reserved { id: 3, name: "cauchy8" };
    assert_eq!(Codec::try_from(3), Err(reserved.clone()));
    assert_eq!("cauchy8".parse::<Codec>(), Err(reserved));
    assert_eq!(Codec::try_from(0), Err(CodecError::UnknownId { id: 0 }));
    let unknown = CodecError::UnknownName { name: "Leopard16-high".into() };
    assert_eq!("Leopard16-high".parse::<Codec>(), Err(unknown));
    let error = serde_json::from_str::<Codec>("3").expect_err("reserved");
    assert!(error.to_string().contains("cauchy8"), "{error}");
}

#[test]
fn the_default_is_the_librarys_default() {
    assert_eq!(Codec::default_for(10, 4), Codec::Leopard16High);
    assert_eq!(Codec::default_for(29, 51), Codec::Leopard16Low);
    assert_eq!(Codec::default_for(32, 64), Codec::Leopard16Low);
    assert_eq!(Codec::default_for(7, 0), Codec::Leopard16High);
    assert_eq!(Codec::default_for(3, 4), Codec::Leopard16High);
    assert_eq!(Codec::default_for(4, 4), Codec::Leopard16High);
    assert_eq!(Codec::default_for(4, 3), Codec::Leopard16Low);
    for (k, m) in (1..=9).flat_map(|k| (1..=9).map(move |m| (k, m))).chain([(29, 51), (17, 31)]) {
        let data: Vec<Vec<u8>> = sample(k * 64).chunks(64).map(<[u8]>::to_vec).collect();
        let by_library = reed_solomon_simd::encode(k, m, &data).expect("small widths");
        let ours = stripe_of(
            Code::with_default_codec(k, m).expect("widths within the limit"),
            &data.concat(),
        );
        assert_eq!(ours[k..], by_library, "{k}+{m}");
    }
}

#[test]
fn the_rates_differ_only_where_the_counts_do() {
    let differ = |k, m| {
        stripe(code(Codec::Leopard16High, k, m), 64) != stripe(code(Codec::Leopard16Low, k, m), 64)
    };
    for (k, m) in [(1, 1), (2, 2), (3, 4), (4, 3), (9, 16), (16, 16)] {
        assert!(!differ(k, m), "{k}+{m}");
    }
    for (k, m) in [(1, 2), (2, 1), (10, 4), (4, 10), (29, 51)] {
        assert!(differ(k, m), "{k}+{m}");
    }
}

#[test]
fn columns_equal_whole_shards() {
    let lengths = [64, COLUMN_BYTES - 64, COLUMN_BYTES, COLUMN_BYTES + 64, 3 * COLUMN_BYTES + 4096];
    for code in codes().filter(|code| code.width() < 30) {
        // One encoder for all lengths: what a longer call left in its work space must not show.
        let mut in_columns = Encoder::new(code);
        for len in lengths.into_iter().rev() {
            let data = sample(code.data_count() * len);
            let mut columns = vec![vec![1; len]; code.parity_count()];
            in_columns.encode_stripe(&data, &mut columns).expect("lengths fit");
            let mut whole = vec![vec![2; len]; code.parity_count()];
            let mut encoder = Encoder::with_column_bytes(code, len);
            encoder.encode_stripe(&data, &mut whole).expect("lengths fit");
            assert!(columns == whole, "{code:?} at {len} bytes");
        }
    }
}

#[test]
fn shards_may_be_passed_one_by_one_or_as_one_buffer() {
    let code = code(Codec::Leopard16High, 10, 4);
    let shards = stripe(code, 192);
    let mut buffer = vec![0; 4 * 192];
    let mut parity: Vec<&mut [u8]> = buffer.chunks_exact_mut(192).collect();
    Encoder::new(code).encode(&shards[..10], &mut parity).expect("lengths fit");
    assert_eq!(buffer, shards[10..].concat());
}

#[test]
fn zeros_in_zeros_out() {
    for code in codes() {
        let shards = stripe_of(code, &vec![0; code.data_count() * 4160]);
        assert_eq!(shards.len(), code.width());
        assert!(shards.iter().all(|shard| shard.iter().all(|byte| *byte == 0)), "{code:?}");
    }
}

#[test]
fn one_data_shard_is_copied_by_default() {
    for parity_count in [0, 1, 2, 3, 6, 255] {
        let code = Code::with_default_codec(1, parity_count).expect("within the limit");
        let shards = stripe(code, 320);
        assert_eq!(shards.len(), parity_count + 1);
        assert!(shards.iter().all(|shard| *shard == shards[0]), "1+{parity_count}");
    }
    // The other rate is a code all the same, only not one of copies.
    let multiples = stripe(code(Codec::Leopard16High, 1, 3), 320);
    assert_ne!(multiples[1], multiples[0]);
    let mut lost: Vec<_> = multiples.iter().cloned().map(Some).collect();
    lost[0] = None;
    reconstruct(code(Codec::Leopard16High, 1, 3), &mut lost, Wanted::Data).expect("three left");
    assert_eq!(lost[0].as_ref(), Some(&multiples[0]));
}

#[test]
fn a_replica_is_shared_and_not_copied() {
    let code = Code::with_default_codec(1, 2).expect("within the limit");
    let only = Bytes::from(sample(640));
    let mut shards = [None, None, Some(only.clone())];
    reconstruct(code, &mut shards, Wanted::All).expect("one left");
    for shard in &shards {
        let shard = shard.as_ref().expect("filled in");
        assert_eq!((shard.as_ptr(), shard.len()), (only.as_ptr(), 640));
    }
}

/// The plans are made of the library's answers for single elements; this compares them with its
/// answers for whole shards.
#[test]
fn plans_agree_with_the_librarys_decoder() {
    fn decode<D: RateDecoder<DefaultEngine>>(code: Code, shards: &[Bytes]) -> Vec<Bytes> {
        let (k, m) = (code.data_count(), code.parity_count());
        let len = shards[0].len();
        let mut decoder = D::new(k, m, len, DefaultEngine::new(), None).expect("valid widths");
        let lost = k.min(m);
        (lost..k).for_each(|i| decoder.add_original_shard(i, &shards[i]).expect("new index"));
        (0..lost).for_each(|j| decoder.add_recovery_shard(j, &shards[k + j]).expect("new index"));
        let result = decoder.decode().expect("k shards");
        result.restored_original_iter().map(|(_, shard)| Bytes::copy_from_slice(shard)).collect()
    }
    for code in codes() {
        let (k, lost) = (code.data_count(), code.data_count().min(code.parity_count()));
        let shards = stripe(code, 1088);
        let restored = match code.codec() {
            Codec::Leopard16High => decode::<HighRateDecoder<DefaultEngine>>(code, &shards),
            Codec::Leopard16Low => decode::<LowRateDecoder<DefaultEngine>>(code, &shards),
        };
        let available: Vec<_> = (lost..k + lost).collect();
        let wanted: Vec<_> = (0..lost).collect();
        let plan = RebuildPlan::new(code, &available, &wanted).expect("k shards");
        let sources: Vec<_> = plan.sources().iter().map(|&index| shards[index].clone()).collect();
        assert_eq!(plan.rebuild(&sources).expect("lengths fit"), restored, "{code:?}");
        assert_eq!(restored, shards[..lost], "{code:?}");
    }
}

#[test]
fn a_plan_takes_data_first_and_otherwise_what_was_named_first() {
    let code = code(Codec::Leopard16High, 4, 4);
    let plan = RebuildPlan::new(code, &[7, 5, 3, 6, 1], &[0, 4]).expect("five left");
    assert_eq!(plan.sources(), [3, 1, 7, 5]);
    assert_eq!(plan.wanted(), [0, 4]);
    assert_eq!(plan.code(), code);
    // A shard that is there already may be wanted too, and costs nothing.
    let shards = stripe(code, 64);
    let plan = RebuildPlan::new(code, &[0, 1, 2, 3], &[2]).expect("four left");
    let rebuilt = plan.rebuild(&shards[..4]).expect("lengths fit");
    assert_eq!(rebuilt[0].as_ptr(), shards[2].as_ptr());
    let nothing = RebuildPlan::new(code, &[0, 1, 2, 3], &[]).expect("four left");
    assert!(nothing.rebuild(&shards[..4]).expect("lengths fit").is_empty());
}

#[test]
fn a_range_of_the_shards_gives_the_range_of_the_missing_ones() {
    let code = code(Codec::Leopard16High, 10, 4);
    let shards = stripe(code, 20_480);
    let available = [0, 2, 3, 4, 6, 7, 8, 9, 11, 13];
    let plan = RebuildPlan::new(code, &available, &[1, 5, 10]).expect("ten left");
    for range in [0..64, 64..128, 8128..16_448, 20_416..20_480, 0..20_480] {
        let sources: Vec<_> =
            plan.sources().iter().map(|&index| shards[index].slice(range.clone())).collect();
        let mut out = vec![vec![0xaa; range.len()]; 3];
        plan.rebuild_into(&sources, &mut out).expect("lengths fit");
        for (index, part) in plan.wanted().iter().zip(out) {
            assert_eq!(part, shards[*index].slice(range.clone()), "{range:?} of {index}");
        }
    }
    assert_eq!(align_to_blocks(0..1), 0..64);
    assert_eq!(align_to_blocks(63..129), 0..192);
    assert_eq!(align_to_blocks(64..128), 64..128);
    assert_eq!(align_to_blocks(0..u64::MAX).end, u64::MAX);
}

#[test]
fn widths_are_bounded() {
    for (k, m) in [(0, 0), (0, 4), (256, 1), (257, 0), (1, 256), (usize::MAX, 2)] {
        let expected = Err(ErasureError::Width { data_count: k, parity_count: m });
        assert_eq!(Code::with_default_codec(k, m), expected, "{k}+{m}");
    }
    for (k, m) in [(1, 0), (256, 0), (1, 255), (128, 128), (255, 1)] {
        let code = Code::with_default_codec(k, m).expect("within the limit");
        assert_eq!(stripe(code, 64).len(), k + m);
    }
}

#[test]
fn wrong_slices_are_named() {
    let code = code(Codec::Leopard16High, 2, 1);
    let mut encoder = Encoder::new(code);
    let mut encode = |data: &[&[u8]], parity: usize| {
        encoder.encode(data, &mut [vec![0; parity]]).expect_err("wrong slices")
    };
    assert_eq!(encode(&[&[0; 64]], 64), ErasureError::Count { what: "data", have: 1, need: 2 });
    let short = ErasureError::Len { position: 1, have: 64, need: 128 };
    assert_eq!(encode(&[&[0; 128], &[0; 64]], 128), short);
    let short = ErasureError::Len { position: 0, have: 64, need: 128 };
    assert_eq!(encode(&[&[0; 128], &[0; 128]], 64), short);
    assert_eq!(encode(&[&[0; 63], &[0; 63]], 63), ErasureError::Unaligned { bytes: 63 });
    assert_eq!(encode(&[&[], &[]], 0), ErasureError::Unaligned { bytes: 0 });
    let none: &mut [Vec<u8>] = &mut [];
    let missing = ErasureError::Count { what: "parity", have: 0, need: 1 };
    assert_eq!(encoder.encode_stripe(&[0; 128], none), Err(missing));
    for bytes in [0, 1, 127, 130] {
        let refused = encoder.encode_stripe(&vec![0; bytes], &mut [vec![0; 64]]);
        assert!(refused.is_err(), "{bytes} bytes over two shards");
    }
}

#[test]
fn wrong_shards_are_named() {
    let code = code(Codec::Leopard16High, 2, 2);
    let shard = |bytes: usize| Some(Bytes::from(vec![0; bytes]));
    let rebuild = |shards: &mut [Option<Bytes>]| reconstruct(code, shards, Wanted::All);
    let few = ErasureError::NotEnoughShards { have: 1, need: 2 };
    assert_eq!(rebuild(&mut [None, None, None, shard(64)]), Err(few));
    let count = ErasureError::Count { what: "shard", have: 3, need: 4 };
    assert_eq!(rebuild(&mut [None, shard(64), shard(64)]), Err(count));
    let length = ErasureError::Len { position: 1, have: 64, need: 128 };
    assert_eq!(rebuild(&mut [None, shard(128), None, shard(64)]), Err(length));
    let unaligned = ErasureError::Unaligned { bytes: 65 };
    assert_eq!(rebuild(&mut [None, shard(65), None, shard(65)]), Err(unaligned));
    for indexes in [[0, 4], [1, 1]] {
        let wrong = Err(ErasureError::Index { index: indexes[1], width: 4 });
        assert_eq!(RebuildPlan::new(code, &indexes, &[]).map(|_| ()), wrong);
        assert_eq!(RebuildPlan::new(code, &[0, 1], &indexes).map(|_| ()), wrong);
    }
    let plan = RebuildPlan::new(code, &[0, 3], &[1]).expect("two left");
    let count = ErasureError::Count { what: "source", have: 1, need: 2 };
    assert_eq!(plan.rebuild(&[Bytes::new()]), Err(count));
    assert_eq!(
        plan.rebuild(&[Bytes::new(), Bytes::new()]),
        Err(ErasureError::Unaligned { bytes: 0 })
    );
}
