// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benches share: their input, and how they report. Each bench beside this folder asks
//! one question and says in its first line which.
//!
//! A [`Figure`] is an answer in one line of JSON, for questions that compare two things in one
//! run and want a ratio rather than a distribution.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use criterion::Criterion;
use serde::Serialize;

/// Bytes that no compressor or branch predictor likes, the same in every run.
pub fn seeded(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"benches").finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs benches with criterion's own command line.
pub fn run(benches: &[fn(&mut Criterion)]) {
    let mut criterion = Criterion::default().configure_from_args();
    for bench in benches {
        bench(&mut criterion);
    }
    criterion.final_summary();
}

/// The answer to one performance question, as it is printed.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Its name, by which documents refer to it.
    pub id: &'static str,
    /// What was asked.
    pub question: &'static str,
    /// What ours took or did.
    pub ours: f64,
    /// What the baseline took or did in the same run.
    pub against: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// `ours` by `against`.
    pub ratio: f64,
    /// How the figure came about: every round, and the sizes.
    pub raw: serde_json::Value,
}

impl Figure {
    /// A figure of two values in one unit.
    pub fn new(
        (id, question): (&'static str, &'static str),
        (ours, against): (f64, f64),
        unit: &'static str,
        raw: serde_json::Value,
    ) -> Self {
        Self { id, question, ours, against, unit, ratio: ours / against, raw }
    }
}

/// How much work is done: all of it under `cargo bench`, a taste under `cargo test --benches`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Figures that mean something.
    Full,
    /// Only shows that the bench runs.
    Taste,
}

impl Scale {
    /// One of two values, by scale.
    pub fn pick<T>(self, full: T, taste: T) -> T {
        match self {
            Self::Full => full,
            Self::Taste => taste,
        }
    }
}

/// A question: its id, and what answers it.
pub type Question = (&'static str, fn(Scale) -> Figure);

/// Answers the questions whose id contains one of the arguments (all of them without any), one
/// line each.
pub fn answer(questions: &[Question]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let scale = if is_bench { Scale::Full } else { Scale::Taste };
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for (id, measure) in questions {
        if names.is_empty() || names.iter().any(|name| id.contains(name.as_str())) {
            let line = serde_json::to_string(&measure(scale)).expect("a figure has an encoding");
            writeln!(io::stdout(), "{line}").expect("somebody reads the figures");
        }
    }
}

/// How long something takes, with what it gives.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let outcome = work();
    (started.elapsed(), outcome)
}

/// Rounds of two contenders, each first in every other round: what the machine does meanwhile
/// befalls both. Returns what the two gave for each round.
pub fn interleaved(
    rounds: u32,
    mut ours: impl FnMut(u32) -> f64,
    mut against: impl FnMut(u32) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let mut both = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            both.0.push(ours(round));
            both.1.push(against(round));
        } else {
            both.1.push(against(round));
            both.0.push(ours(round));
        }
    }
    both
}

/// The middle of some values (of an even number, the upper one of the two in the middle).
///
/// # Panics
/// When there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
