// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any `k` of the `k + m` shards give the stripe back; fewer give an error.

use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq};
use proptest::proptest;

use super::{code, codes, stripe};
use crate::erasure::{Code, Codec, ErasureError, RebuildPlan, Wanted, reconstruct};
use crate::geometry::shard_len;

/// Every way to keep `keep` of `width` shards.
fn subsets(width: usize, keep: usize) -> impl Iterator<Item = Vec<usize>> {
    (0_u32..1 << width)
        .filter(move |mask| mask.count_ones() as usize == keep)
        .map(move |mask| (0..width).filter(|index| mask & (1 << index) != 0).collect())
}

fn keep(shards: &[Bytes], kept: &[usize]) -> Vec<Option<Bytes>> {
    let kept_or_lost = |index| kept.contains(&index).then(|| shards[index].clone());
    (0..shards.len()).map(kept_or_lost).collect()
}

fn rebuild_from(code: Code, shards: &[Bytes], kept: &[usize]) {
    let mut left = keep(shards, kept);
    reconstruct(code, &mut left, Wanted::All).expect("k are left");
    assert!(left.iter().flatten().eq(shards), "{code:?} from {kept:?}");
}

#[test]
fn all_fifteen_pairs_lost_from_four_and_two() {
    for codec in Codec::ALL {
        let code = code(codec, 4, 2);
        let shards = stripe(code, 192);
        assert_eq!(subsets(6, 4).count(), 15);
        subsets(6, 4).for_each(|kept| rebuild_from(code, &shards, &kept));
    }
}

#[test]
fn all_1001_subsets_of_ten_and_four() {
    let code = code(Codec::Leopard16High, 10, 4);
    let shards = stripe(code, 64);
    assert_eq!(subsets(14, 10).count(), 1001);
    subsets(14, 10).for_each(|kept| rebuild_from(code, &shards, &kept));
}

#[test]
fn more_than_k_and_only_data_wanted() {
    for code in codes() {
        let (k, m) = (code.data_count(), code.parity_count());
        let shards = stripe(code, 128);
        let lost = if m == 1 { vec![0] } else { vec![0, k + m - 1] };
        let kept: Vec<_> = (0..k + m).filter(|index| !lost.contains(index)).collect();
        let mut left = keep(&shards, &kept);
        reconstruct(code, &mut left, Wanted::Data).expect("enough are left");
        assert_eq!(left[0].as_ref(), Some(&shards[0]), "{code:?}");
        assert_eq!(left[k + m - 1].is_some(), m == 1, "parity was not asked for");
    }
}

#[test]
fn without_parity_every_shard_is_needed() {
    let code = Code::with_default_codec(5, 0).expect("within the limit");
    let shards = stripe(code, 64);
    rebuild_from(code, &shards, &[0, 1, 2, 3, 4]);
    let mut left = keep(&shards, &[0, 1, 3, 4]);
    let refused = reconstruct(code, &mut left, Wanted::Data);
    assert_eq!(refused, Err(ErasureError::NotEnoughShards { have: 4, need: 5 }));
    assert!(left[2].is_none(), "nothing is made up");
}

#[test]
fn shard_lengths_of_the_geometry() {
    let code = code(Codec::Leopard16High, 10, 4);
    let kept = [1, 3, 4, 5, 6, 7, 9, 10, 12, 13];
    let available = RebuildPlan::new(code, &kept, &[0, 2, 8, 11]).expect("ten left");
    for bytes in [1, 640, 641, 81_920, 655_350, 655_361, 1_000_000] {
        let len = usize::try_from(shard_len(bytes, 10)).expect("small");
        let shards = stripe(code, len);
        let sources: Vec<_> =
            available.sources().iter().map(|&index| shards[index].clone()).collect();
        let rebuilt = available.rebuild(&sources).expect("lengths fit");
        for (index, shard) in available.wanted().iter().zip(rebuilt) {
            assert!(shard == shards[*index], "shard {index} of {len} bytes");
        }
    }
}

fn kept_of(width: usize, keep: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::sample::subsequence((0..width).collect::<Vec<_>>(), keep).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_29_of_29_and_51(kept in kept_of(80, 29), is_high: bool) {
        let codec = if is_high { Codec::Leopard16High } else { Codec::Leopard16Low };
        let code = code(codec, 29, 51);
        let shards = stripe(code, 128);
        let missing: Vec<_> = (0..80).filter(|index| !kept.contains(index)).collect();
        let plan = RebuildPlan::new(code, &kept, &missing).expect("29 left");
        let sources: Vec<_> = plan.sources().iter().map(|&index| shards[index].clone()).collect();
        for (index, shard) in missing.into_iter().zip(plan.rebuild(&sources).expect("fits")) {
            prop_assert_eq!(&shard, &shards[index]);
        }
    }

    #[test]
    fn any_widths_any_losses(
        (k, m, mask) in (1_usize..20, 0_usize..20)
            .prop_flat_map(|(k, m)| (proptest::strategy::Just(k), proptest::strategy::Just(m),
                proptest::collection::vec(any::<bool>(), k + m))),
        blocks in 1_usize..5, is_high: bool,
    ) {
        let codec = if is_high { Codec::Leopard16High } else { Codec::Leopard16Low };
        let code = code(codec, k, m);
        let shards = stripe(code, blocks * 64);
        let kept: Vec<_> = (0..k + m).filter(|&index| mask[index]).collect();
        let mut left = keep(&shards, &kept);
        match reconstruct(code, &mut left, Wanted::All) {
            Ok(()) => prop_assert!(left.iter().flatten().eq(&shards)),
            Err(error) => {
                let expected = ErasureError::NotEnoughShards { have: kept.len(), need: k };
                prop_assert_eq!(error, expected);
                prop_assert!(kept.len() < k);
            }
        }
    }
}
