// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bugs that a reviewer would fear, each a branch at its place in the code, so that tests can show
//! that something notices it. No build has one, but for those tests with `planted-bugs`.

/// What the code may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// What is written counts as synced.
    SyncsNothing,
    /// A file may be named in a directory that was never synced.
    SyncsNoDirectory,
    /// A sync that failed is tried again, and believed.
    BelievesSecondSync,
    /// A start builds on what only the system's cache has.
    BuildsOnUnsynced,
    /// An answer is given when its record is written.
    AnswersUnsynced,
    /// An answer is given before readers see what it says.
    AnswersUnpublished,
    /// Records say that everything before them was durable.
    MiscountsUnsynced,
    /// Payloads at the torn end of the log count without a look.
    BelievesTornEnd,
    /// Whatever record is where the index says is what it says.
    BelievesIndex,
    /// The index is marked as further than its entries are.
    MarksAhead,
    /// Figures keep what was refused.
    CountsRefused,
    /// What is in the trash is adopted without a slot that wants it.
    RevivesUncovered,
    /// Holes are made before it is durable that nobody wants the bytes.
    PunchesUnburied,
    /// Holes are made that look like the torn end of a write.
    PunchesUnfenced,
    /// Compaction says a group again without what covers it.
    RestatesUncovered,
    /// Of several segments the newest goes first, and with it the tombstones of what is in others.
    DropsTombstones,
    /// A footer is used though its checksum does not hold.
    BelievesFooter,
    /// A footer is stated before it is durable.
    StatesUnsyncedFooter,
    /// Segments go although something that lives was begun in them.
    UnlinksAnchored,
}

/// Whether this bug is in the code.
#[cfg(not(all(test, feature = "planted-bugs")))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

#[cfg(all(test, feature = "planted-bugs"))]
pub(crate) use self::switch::{has, plant};

#[cfg(test)]
#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is in the code, as this thread runs it.
    pub(crate) fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Has a bug in the code while something is done.
    pub(crate) fn plant<T>(bug: Bug, act: impl FnOnce() -> T) -> T {
        PLANTED.set(Some(bug));
        let outcome = act();
        PLANTED.set(None);
        outcome
    }
}
