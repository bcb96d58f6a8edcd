// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which lanes hang, and which were only silent because everything stood still.
//!
//! After a pause of the whole process or machine every lane was silent for long, until its writer
//! comes by; the first to do so must not condemn the others. So one long silence is a suspicion,
//! and counts only when it is still there a while later and another lane's writer came by often
//! enough in between.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a suspicion lasts before it counts.
const DOUBT: Duration = Duration::from_secs(5);
/// How often another lane's writer comes by meanwhile.
const LOOKS_MIN: u64 = 3;

/// A lane as it looks now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    /// Names it.
    pub(super) lane: u64,
    /// Whether it is silent for long.
    pub(super) is_silent: bool,
    /// How often its writer has come by.
    pub(super) looks: u64,
}

/// Lanes that are silent for long: since when that is known, and how often the others' writers had
/// come by then.
#[derive(Debug, Default)]
pub(super) struct Suspicions(HashMap<u64, (Instant, HashMap<u64, u64>)>);

impl Suspicions {
    /// Takes note of all lanes that are online; says which of them hang.
    pub(super) fn judge(&mut self, now: Instant, signs: &[Sign]) -> Vec<u64> {
        let is_silent = |lane: u64| signs.iter().any(|sign| sign.lane == lane && sign.is_silent);
        self.0.retain(|lane, _| is_silent(*lane));
        let mut hanging = Vec::new();
        for Sign { lane, .. } in signs.iter().filter(|sign| sign.is_silent) {
            let begin = || (now, signs.iter().map(|sign| (sign.lane, sign.looks)).collect());
            let (since, looks) = self.0.entry(*lane).or_insert_with(begin);
            let came_by = |sign: &Sign| {
                let before = looks.get(&sign.lane).copied().unwrap_or(sign.looks);
                !sign.is_silent && sign.looks >= before + LOOKS_MIN
            };
            if now.duration_since(*since) >= DOUBT && signs.iter().any(came_by) {
                hanging.push(*lane);
            }
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Sign, Suspicions};

    const NOBODY: [u64; 0] = [];

    fn sign(lane: u64, is_silent: bool, looks: u64) -> Sign {
        Sign { lane, is_silent, looks }
    }

    #[test]
    fn who_wakes_first_after_a_pause_condemns_nobody() {
        let (mut suspicions, woken) = (Suspicions::default(), Instant::now());
        let judged = suspicions.judge(woken, &[sign(1, false, 10), sign(2, true, 10)]);
        assert_eq!(judged, NOBODY);
        let at = |millis| woken + Duration::from_millis(millis);
        let judged = suspicions.judge(at(20), &[sign(1, false, 11), sign(2, true, 10)]);
        assert_eq!(judged, NOBODY);
        let judged = suspicions.judge(at(40), &[sign(1, false, 11), sign(2, false, 11)]);
        assert_eq!(judged, NOBODY);
        // It is forgotten: a later silence begins anew.
        let judged = suspicions.judge(at(60_000), &[sign(1, false, 70), sign(2, true, 11)]);
        assert_eq!(judged, NOBODY);
    }

    #[test]
    fn a_pause_after_a_suspicion_confirms_nothing() {
        let (mut suspicions, begun) = (Suspicions::default(), Instant::now());
        assert_eq!(suspicions.judge(begun, &[sign(1, false, 10), sign(2, true, 10)]), NOBODY);
        let late = begun + Duration::from_secs(3600);
        assert_eq!(suspicions.judge(late, &[sign(1, false, 11), sign(2, true, 10)]), NOBODY);
    }

    #[test]
    fn who_stays_silent_while_another_works_hangs() {
        let (mut suspicions, begun) = (Suspicions::default(), Instant::now());
        let at = |secs| begun + Duration::from_secs(secs);
        assert_eq!(suspicions.judge(at(0), &[sign(1, false, 10), sign(2, true, 10)]), NOBODY);
        assert_eq!(suspicions.judge(at(3), &[sign(1, false, 13), sign(2, true, 10)]), NOBODY);
        assert_eq!(suspicions.judge(at(6), &[sign(1, false, 16), sign(2, true, 10)]), [2]);
    }

    #[test]
    fn while_all_are_silent_none_hangs() {
        let (mut suspicions, begun) = (Suspicions::default(), Instant::now());
        for secs in [0, 10, 100] {
            let now = begun + Duration::from_secs(secs);
            assert_eq!(suspicions.judge(now, &[sign(1, true, 10), sign(2, true, 10)]), NOBODY);
        }
    }
}
