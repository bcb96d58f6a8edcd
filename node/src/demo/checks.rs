// SPDX-License-Identifier: MIT OR Apache-2.0
//! Claims of the demo and whether they held.

use serde::Serialize;

use crate::output::{Output, Progress};

/// One claim.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What is claimed; never changes once it has been released.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// Claims in a demo that goes well.
const CHECK_COUNT: u64 = 44;

/// All claims so far, each told as it is made.
pub(super) struct Checks {
    all: Vec<Check>,
    progress: Progress,
}

impl Checks {
    pub(super) fn new(output: Output) -> Self {
        Self { all: Vec::new(), progress: output.steps("demo", CHECK_COUNT) }
    }

    /// Says what happens next.
    pub(super) fn talk(&self, text: impl std::fmt::Display) {
        self.progress.talk(text);
    }

    /// Notes a claim and what was seen.
    pub(super) fn note(&mut self, name: &str, ok: bool, detail: impl Into<String>) {
        let (name, detail) = (name.to_owned(), detail.into());
        let verdict = if ok { "ok    " } else { "FAILED" };
        self.progress.talk(format_args!("  {verdict}  {name} ({detail})"));
        self.progress.step();
        self.all.push(Check { name, ok, detail });
    }

    /// Notes that something is as it was expected.
    pub(super) fn equal<T: PartialEq + std::fmt::Display>(
        &mut self,
        name: &str,
        seen: &T,
        expected: &T,
    ) {
        let ok = seen == expected;
        let detail = if ok { seen.to_string() } else { format!("{seen}, not {expected}") };
        self.note(name, ok, detail);
    }

    /// Names of the claims that did not hold.
    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|check| !check.ok).map(|check| check.name.as_str())
    }

    /// Takes the bar away, so that the summary starts on a clean line.
    pub(super) fn finish(&self) {
        self.progress.finish();
    }

    pub(super) fn to_vec(&self) -> Vec<Check> {
        self.all.clone()
    }
}
