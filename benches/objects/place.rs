// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement alone: no network, no bytes. What a decision costs in networks of three sizes, and
//! how evenly nodes of unequal capacity are filled when little room is left.

use std::collections::HashMap;
use std::hint::black_box;

use serde_json::json;
use supernode_benches::{Figure, Scale, median, timed};
use supernode_object::Class;
use supernode_object::placement::{Candidate, Candidates, PlacementKey};
use supernode_protocol::ids::{Cid, NodeId};

const COST: &str = "one placement of 10+4 at 1,000 nodes in 20 regions, against a target of 50 us, \
                    want <= 1.0";
const FILL: &str = "10,000 nodes of 100 to 1,600 slots, filled to 90 %: root mean square deviation \
                    of their fill, against that of slots drawn by weight one by one";
/// What a decision may cost.
const TARGET_MICROS: f64 = 50.0;
const REGIONS: u64 = 20;
const SIZES: [u64; 3] = [100, 1000, 10_000];
const FULL: f64 = 0.9;
/// Slots that the smallest nodes have room for.
const ROOM_MIN: u64 = 100;

fn candidate(number: u64, capacity_bytes: u64) -> Candidate {
    let node = NodeId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes());
    Candidate { node, region: format!("R{}", number % REGIONS), capacity_bytes }
}

fn key(number: u64) -> PlacementKey {
    PlacementKey::of_object(Cid::of(&number.to_le_bytes()))
}

/// `objects.place`.
pub fn cost(scale: Scale) -> Figure {
    let (rounds, decisions) = scale.pick((15_u64, 2000_u64), (3, 20));
    let mut micros: HashMap<u64, Vec<f64>> = HashMap::new();
    for round in 0..rounds {
        for size in SIZES {
            let candidates: Candidates = (0..size).map(|it| candidate(it, 1 << 40)).collect();
            let keys: Vec<_> = (0..decisions).map(|it| key(round * decisions + it)).collect();
            let (took, ()) = timed(|| {
                for key in &keys {
                    black_box(candidates.place(*key, Class::default()));
                }
            });
            let each = took.as_secs_f64() * 1e6 / decisions as f64;
            micros.entry(size).or_default().push(each);
        }
    }
    let [small, ours, large] = SIZES.map(|size| median(&micros[&size]));
    let note = format!("{small:.1} us at 100 nodes, {ours:.1} at 1,000, {large:.1} at 10,000");
    let raw = json!({
        "ours_rounds": micros[&1000], "decisions": decisions, "note": note,
        "at_100_rounds": micros[&100], "at_10000_rounds": micros[&10_000],
    });
    Figure::new(("objects.place", COST), (ours, TARGET_MICROS), "us", raw)
}

/// `objects.place.fill`.
pub fn fill(scale: Scale) -> Figure {
    let nodes = scale.pick(10_000, 200);
    let room: Vec<u64> = (0..nodes).map(|it| ROOM_MIN << (it % 5)).collect();
    let total: u64 = room.iter().sum();
    let all: Vec<_> = (0..nodes).zip(&room).map(|(it, room)| candidate(it, *room)).collect();
    let numbers: HashMap<NodeId, usize> = all.iter().map(|it| it.node).zip(0..).collect();
    let mut candidates: Candidates = all.into_iter().collect();
    let mut used = vec![0_u64; room.len()];
    let (class, mut placed, mut decisions, mut full) = (Class::default(), 0, 0, 0);
    let (took, ()) = timed(|| {
        while (placed as f64) < FULL * total as f64 {
            let vector = candidates.place(key(decisions), class).expect("there is room left");
            decisions += 1;
            placed += vector.len() as u64;
            for node in vector {
                let number = numbers[&node];
                used[number] += 1;
                // Who has no room is left out before anything is hashed.
                if used[number] == room[number] {
                    candidates.remove(node);
                    full += 1;
                }
            }
        }
    });
    let mut fills: Vec<f64> =
        used.iter().zip(&room).map(|(used, room)| *used as f64 / *room as f64).collect();
    fills.sort_by(f64::total_cmp);
    let mean = placed as f64 / total as f64;
    let rms = |deviations: &mut dyn Iterator<Item = f64>| {
        (deviations.map(|it| it * it).sum::<f64>() / nodes as f64).sqrt()
    };
    let ours = rms(&mut fills.iter().map(|fill| fill / mean - 1.0));
    // Of n slots drawn by weight, a node gets its share give or take the root of it.
    let drawn = rms(&mut room.iter().map(|room| 1.0 / (mean * *room as f64).sqrt()));
    let micros = took.as_secs_f64() * 1e6 / decisions as f64;
    let at = |percent| fills[(fills.len() - 1) * percent / 100];
    let note = format!(
        "{decisions} decisions of {micros:.1} us; fill {:.3} at least, {:.3} at 1 %, {:.3} at \
         50 %, {:.3} at 99 %; {full} nodes full",
        at(0),
        at(1),
        at(50),
        at(99),
    );
    let raw = json!({
        "nodes": nodes, "slots": total, "micros": micros, "full": full, "note": note,
    });
    Figure::new(("objects.place.fill", FILL), (ours * 100.0, drawn * 100.0), "%", raw)
}
