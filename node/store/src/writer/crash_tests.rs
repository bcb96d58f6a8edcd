// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random lives with every kind of end. A failure prints its seed, which replays it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::harness::{IndexFate, Lab};
use crate::disk::Fault;

/// Lives that the test goes through, and events in each.
const LIVES: u64 = 300;
const EVENTS: u32 = 30;

fn fate(random: &mut ChaCha8Rng) -> IndexFate {
    [IndexFate::Kept, IndexFate::Lost, IndexFate::Older][random.random_range(0..3)]
}

fn live(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = Lab::new(seed);
    for _ in 0..EVENTS {
        // The power may go at any write or sync of whatever comes next.
        let cut = random.random_bool(0.2);
        if cut {
            let (syncs, writes) = lab.disk.counts();
            lab.inject(Fault::PowerOff(syncs + writes + random.random_range(0..6)));
        }
        match random.random_range(0..10) {
            0..7 => {
                let actions = lab.world.random(&mut random);
                let batch = random.random_range(1..6);
                for batch in actions.chunks(batch) {
                    if !lab.disk.is_off() {
                        lab.run(batch);
                    }
                }
            }
            7..9 => lab.tick(random.random_range(0..120)),
            _ => lab.flush_index(),
        }
        if cut {
            // What was to fail may not have come to it.
            let power_cut = random.random_bool(0.7);
            lab.restart(power_cut, fate(&mut random));
        } else if random.random_bool(0.1) {
            lab.close_and_open(fate(&mut random));
        }
    }
    lab.compare();
}

#[test]
fn whatever_happens_acknowledged_is_kept_and_the_rest_is_whole_or_absent() {
    (0..LIVES).for_each(live);
}
