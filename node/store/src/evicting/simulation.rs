// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hit ratios of eviction policies on traces that follow from seeds: why the cache uses the one it
//! does. Entries are of one size, as shards of large objects are.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::s3_fifo::S3Fifo;

/// Things that are asked for, of which a cache holds [`CAPACITY`].
const THINGS: u64 = 10_000;
/// Entries of each cache.
const CAPACITY: usize = 1000;
/// Requests of a trace.
const REQUESTS: usize = 150_000;

trait Policy {
    /// Asks for a thing and lets it in; whether it was there.
    fn request(&mut self, key: u64) -> bool;
}

impl Policy for S3Fifo<u64> {
    fn request(&mut self, key: u64) -> bool {
        let hit = self.visit(&key);
        if !hit {
            if self.len() == CAPACITY {
                self.evict();
            }
            self.push(key, 1);
        }
        hit
    }
}

#[derive(Default)]
struct Fifo {
    queue: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Policy for Fifo {
    fn request(&mut self, key: u64) -> bool {
        let hit = !self.known.insert(key);
        if !hit {
            self.queue.push_back(key);
            if self.queue.len() > CAPACITY {
                let oldest = self.queue.pop_front().expect("it is full");
                self.known.remove(&oldest);
            }
        }
        hit
    }
}

#[derive(Default)]
struct Lru {
    by_use: BTreeMap<u64, u64>,
    uses: HashMap<u64, u64>,
    clock: u64,
}

impl Policy for Lru {
    fn request(&mut self, key: u64) -> bool {
        self.clock += 1;
        let before = self.uses.insert(key, self.clock);
        before.iter().for_each(|used| {
            self.by_use.remove(used);
        });
        self.by_use.insert(self.clock, key);
        if self.uses.len() > CAPACITY {
            let (_, oldest) = self.by_use.pop_first().expect("it is full");
            self.uses.remove(&oldest);
        }
        before.is_some()
    }
}

/// SIEVE (Zhang et al., NSDI 2024): a queue and a hand that takes the first entry which was not
/// asked for since the hand last came by.
#[derive(Default)]
struct Sieve {
    queue: Vec<u64>,
    hand: usize,
    visited: HashMap<u64, bool>,
}

impl Policy for Sieve {
    fn request(&mut self, key: u64) -> bool {
        if let Some(visited) = self.visited.get_mut(&key) {
            *visited = true;
            return true;
        }
        if self.queue.len() == CAPACITY {
            while std::mem::take(self.visited.get_mut(&self.queue[self.hand]).expect("queued")) {
                self.hand = (self.hand + 1) % CAPACITY;
            }
            let victim = self.queue.remove(self.hand);
            self.visited.remove(&victim);
            self.hand %= CAPACITY - 1;
        }
        self.queue.push(key);
        self.visited.insert(key, false);
        false
    }
}

/// Draws ranks by Zipf's law.
struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    fn new(exponent: f64) -> Self {
        let weights = (1..=THINGS).map(|rank| (rank as f64).powf(-exponent));
        let cumulated = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulated: cumulated.collect() }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> u64 {
        let all = self.cumulated.last().expect("there are things");
        let point = random.random_range(0.0..*all);
        self.cumulated.partition_point(|sum| *sum <= point) as u64
    }
}

/// Requests by Zipf's law.
fn zipf(exponent: f64) -> Vec<u64> {
    let (zipf, mut random) = (Zipf::new(exponent), ChaCha8Rng::seed_from_u64(1));
    (0..REQUESTS).map(|_| zipf.draw(&mut random)).collect()
}

/// Now and then somebody reads much once: twice the cache, in every tenth part of the trace.
fn zipf_and_scans() -> Vec<u64> {
    let mut trace = zipf(1.0);
    for (number, requests) in (0_u64..).zip(trace.chunks_mut(REQUESTS / 10)) {
        let scanned = (1 + number) * 1_000_000..;
        requests.iter_mut().zip(scanned).take(2 * CAPACITY).for_each(|(at, key)| *at = key);
    }
    trace
}

/// Four of five requests go to a set half as large as the cache, and that is another one after
/// every tenth part of the trace; the fifth goes anywhere.
fn shifting_set() -> Vec<u64> {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let hot = CAPACITY as u64 / 2;
    let request = |number: usize| {
        let first = (number / (REQUESTS / 10)) as u64 * hot;
        let is_hot = random.random_ratio(4, 5);
        if is_hot { first + random.random_range(0..hot) } else { random.random_range(0..THINGS) }
    };
    (0..REQUESTS).map(request).collect()
}

/// Hits in a thousand of each policy: S3-FIFO, SIEVE, LRU, FIFO.
fn hits(trace: &[u64]) -> [usize; 4] {
    let policies: [Box<dyn Policy>; 4] = [
        Box::new(S3Fifo::new()),
        Box::<Sieve>::default(),
        Box::<Lru>::default(),
        Box::<Fifo>::default(),
    ];
    policies.map(|mut policy| {
        let hits = trace.iter().filter(|key| policy.request(**key)).count();
        hits * 1000 / trace.len()
    })
}

#[test]
fn s3_fifo_finds_as_much_as_its_rivals() {
    let traces = [
        ("zipf 0.8", zipf(0.8), [520, 510, 434, 392]),
        ("zipf 1.0", zipf(1.0), [730, 729, 672, 628]),
        ("zipf 1.0 and scans", zipf_and_scans(), [633, 631, 569, 536]),
        ("shifting set", shifting_set(), [748, 697, 778, 680]),
    ];
    println!("{:<20} s3-fifo sieve   lru  fifo", "hits in a thousand");
    for (name, trace, expected) in traces {
        let [s3_fifo, sieve, lru, fifo] = hits(&trace);
        println!("{name:<20} {s3_fifo:>7} {sieve:>5} {lru:>5} {fifo:>5}");
        // docs/ARCHITECTURE.md shows these figures.
        assert_eq!([s3_fifo, sieve, lru, fifo], expected, "{name}");
    }
}
