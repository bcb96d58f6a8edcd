// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: whether a deal lease goes, by contract 5 of the blueprint.
//!
//! - A finalised fact that names an end (active, reserved, ended) moves the stored end there. Later
//!   on one endpoint's word, for that only keeps; earlier only if every other endpoint names an end
//!   as early. Else one lie would move an end into the past, and an absence would then end what
//!   the chain is about to know.
//! - A lease goes when its stored end and the reorg buffer lie behind the processed finalised
//!   block, the chain does not list the deal any more, and every other endpoint says the same.
//! - Absence moves nothing: a deal that the chain does not know runs to its stored end.

use std::fmt;

use supernode_protocol::deal::DealId;
use supernode_protocol::ids::LeaseId;

use crate::chain::{DealFact, Height, Opinion, Standing};
use crate::keeper::Held;

/// What happens to a deal lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Keep),
    /// It goes: what no other lease covers moves to the trash.
    End(End),
}

/// Why a lease stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Its end, or the reorg buffer after it, has not passed.
    NotDue {
        /// The finalised height at which it is looked at.
        at: Height,
    },
    /// The chain still lists the deal.
    Listed,
    /// It was made for another chain.
    OtherChain,
    /// The chain is not trusted with ending things now.
    Untrusted(Standing),
    /// Own history does not continue on this chain, or has not been followed to its end.
    History,
    /// Another endpoint knows a later end.
    Disputed {
        /// The endpoint.
        endpoint: String,
    },
    /// Another endpoint does not answer, or has not come that far.
    Unconfirmed {
        /// The endpoint.
        endpoint: String,
    },
}

/// Why a lease goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The deal ran to its end.
    Expired,
    /// Its owner ended the deal.
    Cancelled,
    /// The chain knows no such deal, and the stored end has passed.
    Absent,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue { at } => write!(f, "not before finalised block {at}"),
            Self::Listed => f.write_str("the chain still lists the deal"),
            Self::OtherChain => f.write_str("it belongs to another chain"),
            Self::Untrusted(standing) => write!(f, "the chain is {standing}"),
            Self::History => f.write_str("the chain's history is not followed to its end"),
            Self::Disputed { endpoint } => write!(f, "{endpoint} knows a later end"),
            Self::Unconfirmed { endpoint } => write!(f, "{endpoint} does not confirm it yet"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the deal has expired",
            Self::Cancelled => "the deal was cancelled",
            Self::Absent => "the chain knows no such deal and the stored end has passed",
        })
    }
}

/// What would happen to one lease, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The lease with its objects, slots and bytes.
    pub held: Held,
    /// The deal, if the lease is of this chain.
    pub deal: Option<DealId>,
    /// Where its stored end moves first.
    pub moves_to: Option<Height>,
    /// Whether it goes, and why.
    pub verdict: Verdict,
}

impl Planned {
    /// A lease that stays where it is.
    pub(crate) fn kept(held: Held, deal: Option<DealId>, keep: Keep) -> Self {
        Self { held, deal, moves_to: None, verdict: Verdict::Keep(keep) }
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.held.lease
    }
}

/// The end that a fact names.
pub(crate) fn named_end(fact: DealFact) -> Option<Height> {
    match fact {
        DealFact::Active { expires_at } => Some(expires_at),
        DealFact::Reserved { activates_by } => Some(activates_by),
        DealFact::Ended { at, .. } => Some(at),
        DealFact::Unknown => None,
    }
}

/// The highest stored end that may be looked at when `finalised` is processed.
pub(crate) fn due_height(finalised: Height, buffer: u64) -> Option<Height> {
    finalised.checked_sub(buffer)
}

/// What one endpoint's fact says about a lease whose stored end may be due. The first part is where
/// the stored end moves, which is never earlier here.
pub(crate) fn judge(
    stored: Height,
    fact: DealFact,
    finalised: Height,
    buffer: u64,
) -> (Option<Height>, Verdict) {
    let end = named_end(fact).map_or(stored, |end| end.max(stored));
    let moves_to = (end > stored).then_some(end);
    if due_height(finalised, buffer).is_none_or(|due| end > due) {
        let at = end.saturating_add(buffer);
        return (moves_to, Verdict::Keep(Keep::NotDue { at }));
    }
    let verdict = match fact {
        DealFact::Active { .. } | DealFact::Reserved { .. } => Verdict::Keep(Keep::Listed),
        DealFact::Ended { cancelled: false, .. } => Verdict::End(End::Expired),
        DealFact::Ended { cancelled: true, .. } => Verdict::End(End::Cancelled),
        DealFact::Unknown => Verdict::End(End::Absent),
    };
    (moves_to, verdict)
}

/// Whether every other endpoint agrees that a deal which ended at `end` is over, buffer included.
/// The first that does not is named.
pub(crate) fn objection(end: Height, buffer: u64, opinions: &[Opinion]) -> Option<Keep> {
    opinions.iter().find_map(|opinion| {
        let endpoint = || opinion.endpoint.clone();
        let Some((finalised, fact)) = opinion.answer else {
            return Some(Keep::Unconfirmed { endpoint: endpoint() });
        };
        if due_height(finalised, buffer).is_none_or(|due| end > due) {
            return Some(Keep::Unconfirmed { endpoint: endpoint() });
        }
        match judge(end, fact, finalised, buffer) {
            (_, Verdict::End(_)) => None,
            (_, Verdict::Keep(_)) => Some(Keep::Disputed { endpoint: endpoint() }),
        }
    })
}

/// What keeps an end from moving earlier, to `end`: an endpoint that names a later one or none, or
/// that has not come to that block yet.
pub(crate) fn doubt(end: Height, opinions: &[Opinion]) -> Option<Keep> {
    opinions.iter().find_map(|opinion| {
        let endpoint = opinion.endpoint.clone();
        match opinion.answer {
            Some((_, fact)) if named_end(fact).is_some_and(|named| named <= end) => None,
            Some((finalised, _)) if finalised >= end => Some(Keep::Disputed { endpoint }),
            Some(_) | None => Some(Keep::Unconfirmed { endpoint }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{End, Keep, Verdict, doubt, judge, objection};
    use crate::chain::{DealFact, Opinion};

    const BUFFER: u64 = 6;

    fn ended(at: u64) -> DealFact {
        DealFact::Ended { at, cancelled: false }
    }

    #[test]
    fn the_buffer_is_counted_from_the_end_to_the_processed_block() {
        let (moves, verdict) = judge(100, ended(100), 105, BUFFER);
        assert_eq!((moves, verdict), (None, Verdict::Keep(Keep::NotDue { at: 106 })));
        assert_eq!(judge(100, ended(100), 106, BUFFER), (None, Verdict::End(End::Expired)));
        assert_eq!(judge(100, ended(100), 3, BUFFER).1, Verdict::Keep(Keep::NotDue { at: 106 }));
    }

    #[test]
    fn a_listed_deal_stays_however_old_its_end() {
        let active = DealFact::Active { expires_at: 10 };
        assert_eq!(judge(10, active, 9999, BUFFER), (None, Verdict::Keep(Keep::Listed)));
        let reserved = DealFact::Reserved { activates_by: 10 };
        assert_eq!(judge(10, reserved, 9999, BUFFER), (None, Verdict::Keep(Keep::Listed)));
    }

    #[test]
    fn a_later_end_moves_the_stored_one_and_an_earlier_end_does_not() {
        let later = DealFact::Active { expires_at: 500 };
        let (moves, verdict) = judge(100, later, 200, BUFFER);
        assert_eq!((moves, verdict), (Some(500), Verdict::Keep(Keep::NotDue { at: 506 })));
        let cancel = DealFact::Ended { at: 50, cancelled: true };
        let (moves, verdict) = judge(100, cancel, 105, BUFFER);
        assert_eq!((moves, verdict), (None, Verdict::Keep(Keep::NotDue { at: 106 })));
        assert_eq!(judge(100, cancel, 106, BUFFER), (None, Verdict::End(End::Cancelled)));
    }

    #[test]
    fn an_earlier_end_needs_every_endpoint_to_name_one_as_early() {
        let says = |answer| [Opinion { endpoint: "b".to_owned(), answer }];
        let endpoint = || "b".to_owned();
        assert_eq!(doubt(50, &[]), None);
        assert_eq!(doubt(50, &says(Some((50, ended(50))))), None);
        assert_eq!(doubt(50, &says(Some((90, ended(40))))), None);
        let disputed = Some(Keep::Disputed { endpoint: endpoint() });
        for fact in [ended(51), DealFact::Active { expires_at: 80 }, DealFact::Unknown] {
            assert_eq!(doubt(50, &says(Some((50, fact)))), disputed, "{fact:?}");
        }
        let unconfirmed = Some(Keep::Unconfirmed { endpoint: endpoint() });
        let active = DealFact::Active { expires_at: 80 };
        for answer in [None, Some((49, active)), Some((49, DealFact::Unknown))] {
            assert_eq!(doubt(50, &says(answer)), unconfirmed, "{answer:?}");
        }
    }

    #[test]
    fn absence_moves_nothing_and_ends_only_what_has_run_out() {
        let (moves, verdict) = judge(100, DealFact::Unknown, 105, BUFFER);
        assert_eq!((moves, verdict), (None, Verdict::Keep(Keep::NotDue { at: 106 })));
        assert_eq!(judge(100, DealFact::Unknown, 106, BUFFER).1, Verdict::End(End::Absent));
        assert_eq!(
            judge(u64::MAX, DealFact::Unknown, u64::MAX, BUFFER).1,
            Verdict::Keep(Keep::NotDue { at: u64::MAX }),
            "an end that no block can pass by the buffer stays"
        );
    }

    #[test]
    fn every_other_endpoint_must_agree_from_far_enough() {
        let says = |answer| Opinion { endpoint: "b".to_owned(), answer };
        let endpoint = || "b".to_owned();
        assert_eq!(objection(100, BUFFER, &[]), None);
        assert_eq!(objection(100, BUFFER, &[says(Some((106, ended(100))))]), None);
        assert_eq!(objection(100, BUFFER, &[says(Some((106, DealFact::Unknown)))]), None);
        let silent = [says(Some((106, ended(100)))), says(None)];
        assert_eq!(
            objection(100, BUFFER, &silent),
            Some(Keep::Unconfirmed { endpoint: endpoint() })
        );
        let early = [says(Some((105, DealFact::Unknown)))];
        assert_eq!(
            objection(100, BUFFER, &early),
            Some(Keep::Unconfirmed { endpoint: endpoint() })
        );
        for fact in [DealFact::Active { expires_at: 100 }, ended(101)] {
            let other = [says(Some((106, fact)))];
            let disputed = Some(Keep::Disputed { endpoint: endpoint() });
            assert_eq!(objection(100, BUFFER, &other), disputed, "{fact:?}");
        }
    }
}
