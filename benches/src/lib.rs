// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benches share: their input, and how they report. Each bench beside this folder asks
//! one question and says in its first line which.
//!
//! A [`Figure`] is an answer in one row, for questions that compare two things in one run and want
//! a ratio rather than a distribution.

use std::fmt;
use std::fs::File;
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

const READER: &str = "somebody reads the figures";

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
    /// How the figure came about: every round, and the sizes. A `note` in it is printed too.
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

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, question, unit, ratio, .. } = self;
        let (ours, against) = (significant(self.ours), significant(self.against));
        write!(f, "{id:24} {ours:>10} {against:>10} {unit:11} {ratio:>7.3}  {question}")
    }
}

/// Four digits or so, of large and of small values.
pub fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// How much work is done: all of it under `cargo bench`, a taste under `cargo test --benches` and
/// with `--quick`.
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
pub type Question<'a> = (&'static str, &'a dyn Fn(Scale) -> Figure);

/// Answers the questions whose id contains one of the arguments (all of them without any) in a
/// table. With `--json FILE` each row is a line of JSON in that file too, with all its rounds.
///
/// # Panics
/// When a row cannot be written.
pub fn answer(questions: &[Question<'_>]) {
    let mut arguments = std::env::args().skip(1);
    let (mut scale, mut json, mut names) = (Scale::Taste, None, Vec::new());
    let mut is_quick = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => scale = Scale::Full,
            "--quick" => is_quick = true,
            "--json" => {
                let path = arguments.next().expect("--json is followed by the name of a file");
                json = Some(File::create(path).expect("a file for the rows"));
            }
            flag if flag.starts_with('-') => {}
            _ => names.push(argument),
        }
    }
    let scale = if is_quick { Scale::Taste } else { scale };
    let mut out = io::stdout();
    let head = ("id", "ours", "against", "unit", "ratio", "question");
    let (id, ours, against, unit, ratio, question) = head;
    writeln!(out, "{id:24} {ours:>10} {against:>10} {unit:11} {ratio:>7}  {question}")
        .expect(READER);
    for (id, measure) in questions {
        if names.is_empty() || names.iter().any(|name| id.contains(name.as_str())) {
            let mut figure = measure(scale);
            figure.raw["machine"] = machine().into();
            writeln!(out, "{figure}").expect(READER);
            if let Some(note) = figure.raw["note"].as_str() {
                writeln!(out, "{:24} {note}", "").expect(READER);
            }
            if let Some(json) = &mut json {
                let line = serde_json::to_string(&figure).expect("a figure has an encoding");
                writeln!(json, "{line}").expect(READER);
            }
        }
    }
}

/// What it was measured on and with: processors and kernel.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("an unknown processor", |line| line.trim_start_matches(['\t', ':', ' ']));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} x {model}, Linux {}", kernel.trim())
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
