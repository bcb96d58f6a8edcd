// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audits: what is asked, what counts as an answer, and when.

use frame_support::{assert_noop, assert_ok};

use crate::mock::{
    Object, RuntimeOrigin, Supernode, Test, chain, events, next_block, operator, owner, parameters,
    reserve, run_to, small_object, submit,
};
use crate::pallet::{AuditResults, Deals, Error, Event, Holdings, NextAudit, OpenAudits, Rewards};
use crate::types::{AuditOf, NOBODY, Parameters, Queue, Rejection};

/// All open audits by node and id.
fn open() -> Vec<(u32, u64, AuditOf<Test>)> {
    let mut open: Vec<_> = OpenAudits::<Test>::iter().collect();
    open.sort_by_key(|(_, audit, _)| *audit);
    open
}

fn rejections() -> Vec<(u64, Rejection)> {
    let rejection = |event| match event {
        Event::ProofRejected { audit, reason, .. } => Some((audit, reason)),
        _ => None,
    };
    events().into_iter().filter_map(rejection).collect()
}

fn passed() -> Vec<u64> {
    let pass = |event| match event {
        Event::AuditPassed { audit, .. } => Some(audit),
        _ => None,
    };
    events().into_iter().filter_map(pass).collect()
}

/// Every slot of every deal is asked for in every round.
fn audit_everything() {
    let all = Parameters { slots_per_round: 1_000, ..parameters() };
    assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), all));
}

#[test]
fn a_round_visits_consecutive_slots_and_the_group_names_the_node() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = object.deal(1, 500);
        let mut starts = std::collections::BTreeSet::new();
        for round in 1..30 {
            run_to(1 + 10 * round);
            let open = open();
            assert_eq!(open.len(), 4, "round {round}");
            let slots: Vec<_> = open
                .iter()
                .map(|(_, _, audit)| audit.stripe * 4 + u32::from(audit.index))
                .collect();
            let expected: Vec<_> = (0..4).map(|step| (slots[0] + step) % 16).collect();
            assert_eq!(slots, expected, "round {round}");
            starts.insert(slots[0]);
            for (node, _, audit) in &open {
                let group = usize::from(audit.stripe >= 3);
                assert_eq!(object.groups[group].1[usize::from(audit.index)], *node);
                assert_eq!((audit.deal, audit.object), (deal, object.name));
            }
        }
        assert!(starts.len() > 8, "rounds start anywhere: {starts:?}");
    });
}

#[test]
fn slots_of_nobody_are_not_asked_for() {
    chain(6).execute_with(|| {
        audit_everything();
        let object = Object::new(3, 2, vec![(2, vec![0, NOBODY, 1, NOBODY])], 64);
        object.deal(1, 100);
        run_to(11);
        let asked: Vec<_> =
            open().into_iter().map(|(node, _, audit)| (node, audit.stripe, audit.index)).collect();
        assert_eq!(asked.len(), 4);
        for slot in [(0, 0, 0), (1, 0, 2), (0, 1, 0), (1, 1, 2)] {
            assert!(asked.contains(&slot), "{slot:?}");
        }
    });
}

#[test]
fn one_bad_proof_spoils_none_and_leaves_its_audit_open() {
    chain(6).execute_with(|| {
        audit_everything();
        let object = Object::new(3, 1, vec![(4, vec![0, 1])], 20_000);
        object.deal(1, 100);
        run_to(11);
        let ours: Vec<_> = open().into_iter().filter(|(node, _, _)| *node == 0).collect();
        assert_eq!(ours.len(), 4);
        let honest = |at: usize| (ours[at].1, object.proof(&ours[at].2).encode());
        let mut wrong_bytes = object.proof(&ours[1].2);
        wrong_bytes.chunks[2].chunk[5] ^= 1;
        // The right bytes of another slot, and a slot proven with another seed.
        let other_slot = object.proof(&ours[0].2);
        let replayed = object.proof_of(ours[3].2.stripe, ours[3].2.index, &[7; 32], 4);
        assert_ok!(submit(
            0,
            vec![
                honest(0),
                (ours[1].1, wrong_bytes.encode()),
                (999, honest(0).1),
                (ours[2].1, other_slot.encode()),
                (ours[3].1, replayed.encode()),
                (ours[1].1, vec![1, 2, 3]),
                honest(2),
            ]
        ));
        assert_eq!(
            rejections(),
            [
                (ours[1].1, Rejection::WrongChunks),
                (999, Rejection::NotOpen),
                (ours[2].1, Rejection::WrongEntry),
                (ours[3].1, Rejection::WrongChunks),
                (ours[1].1, Rejection::Malformed),
            ]
        );
        assert_eq!(passed(), [ours[0].1, ours[2].1]);
        // What was rejected can still be proven, and what was accepted only once.
        next_block();
        assert_ok!(submit(0, vec![honest(1), honest(3), honest(0)]));
        assert_eq!(passed(), [ours[1].1, ours[3].1]);
        assert_eq!(rejections(), [(ours[0].1, Rejection::NotOpen)]);
    });
}

#[test]
fn only_the_nodes_operator_answers_and_only_for_its_own_audits() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        object.deal(1, 100);
        run_to(11);
        let (node, audit, record) = open().remove(0);
        let proofs = || {
            let bytes = object.proof(&record).encode().try_into().expect("short");
            vec![(audit, bytes)].try_into().expect("one")
        };
        for signer in [owner(node), operator((node + 1) % 6), 1] {
            let signed = RuntimeOrigin::signed(signer);
            assert_noop!(
                Supernode::submit_proofs(signed, node, proofs()),
                Error::<Test>::NotOperator
            );
        }
        // Another node cannot answer in its stead.
        let other = (node + 1) % 6;
        assert_ok!(submit(other, vec![(audit, object.proof(&record).encode())]));
        assert_eq!(rejections(), [(audit, Rejection::NotOpen)]);
        assert!(OpenAudits::<Test>::contains_key(node, audit));
    });
}

#[test]
fn a_proof_counts_in_the_last_block_of_its_window_and_not_later() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = object.deal(1, 100);
        run_to(15);
        let audits = open();
        let (node, audit, record) = &audits[0];
        assert_eq!(record.deadline, 15);
        assert_ok!(submit(*node, vec![(*audit, object.proof(record).encode())]));
        assert_eq!(passed(), [*audit]);
        next_block();
        let failed = AuditResults::<Test>::iter_values().filter(|result| !result.passed).count();
        assert_eq!((failed, OpenAudits::<Test>::iter().count()), (3, 0));
        let all: u32 = (0..6)
            .filter_map(|node| Holdings::<Test>::get(node, deal))
            .map(|holding| holding.passed + holding.failed)
            .sum();
        assert_eq!(all, 4);
    });
}

#[test]
fn the_deadline_holds_before_the_sweep_has_come() {
    chain(6).execute_with(|| {
        audit_everything();
        let object = small_object(1);
        for _ in 0..5 {
            object.deal(1, 100);
        }
        // 80 slots: 40 in block 11, 40 in block 12. A block sweeps 29 of them and moves on.
        run_to(16);
        let late: Vec<_> = open().into_iter().filter(|(_, _, it)| it.deadline == 15).collect();
        assert!(!late.is_empty(), "the sweep has not come to all of them");
        for (node, audit, record) in &late {
            assert_ok!(submit(*node, vec![(*audit, object.proof(record).encode())]));
        }
        let expected: Vec<_> = late.iter().map(|(_, id, _)| (*id, Rejection::Late)).collect();
        assert_eq!(rejections(), expected);
        run_to(20);
        for (_, audit, _) in late {
            assert!(!AuditResults::<Test>::get(audit).expect("swept").passed);
        }
    });
}

#[test]
fn a_missed_audit_forfeits_the_pay_since_the_last_settlement() {
    chain(6).execute_with(|| {
        audit_everything();
        let object = Object::new(3, 1, vec![(1, vec![0, 1])], 1 << 15);
        let deal = object.deal(1, 100);
        run_to(11);
        let audits = open();
        let (_, audit, record) = audits.iter().find(|(node, _, _)| *node == 0).expect("asked");
        assert_ok!(submit(0, vec![(*audit, object.proof(record).encode())]));
        run_to(20);
        // 32 per block and node: node 0 was paid for ten blocks, node 1 lost fifteen.
        assert_eq!((Rewards::<Test>::get(0), Rewards::<Test>::get(1)), (320, 0));
        let lazy = Holdings::<Test>::get(1, deal).expect("it holds");
        assert_eq!((lazy.settled_at, lazy.passed, lazy.failed), (16, 0, 1));
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        next_block();
        assert_eq!((Rewards::<Test>::get(0), Rewards::<Test>::get(1)), (32 * 19, 32 * 4));
    });
}

/// A deal of one group in which node 0 has two slots of 32 per block each; asked in block 11.
fn two_slots() -> (Object, u64) {
    audit_everything();
    let object = Object::new(3, 2, vec![(1, vec![0, 1, 0, 2])], 1 << 15);
    let deal = object.deal(1, 100);
    run_to(11);
    (object, deal)
}

/// Node 0 proves the slots of these indexes of what it is asked.
fn prove(object: &Object, indexes: &[u16]) {
    for (node, audit, record) in open() {
        if node == 0 && indexes.contains(&record.index) {
            assert_ok!(submit(0, vec![(audit, object.proof(&record).encode())]));
            assert!(passed().contains(&audit));
        }
    }
}

/// What is known of node 0's pay: until when it is settled, open audits, a failure, rewards.
fn pay(deal: u64) -> (u32, u32, bool, u128) {
    let held = Holdings::<Test>::get(0, deal).expect("it holds");
    (held.settled_at, held.open, held.failed_since, Rewards::<Test>::get(0))
}

#[test]
fn a_holding_is_paid_when_all_its_slots_are_proven() {
    for order in [[0, 2], [2, 0]] {
        chain(6).execute_with(|| {
            let (object, deal) = two_slots();
            assert_eq!(pay(deal), (1, 2, false, 0));
            run_to(12);
            prove(&object, &order[..1]);
            assert_eq!(pay(deal), (1, 1, false, 0), "{order:?}: one of two pays nothing yet");
            run_to(14);
            prove(&object, &order[1..]);
            assert_eq!(pay(deal), (14, 0, false, 64 * 13), "{order:?}");
        });
    }
}

#[test]
fn a_slot_that_is_not_proven_costs_the_pay_for_all_slots() {
    for proven in [0, 2] {
        chain(6).execute_with(|| {
            let (object, deal) = two_slots();
            prove(&object, &[proven]);
            assert_eq!(pay(deal), (1, 1, false, 0));
            run_to(15);
            assert_eq!(pay(deal), (1, 1, false, 0));
            next_block();
            assert_eq!(pay(deal), (16, 0, false, 0), "slot {proven} was proven in vain");
            let held = Holdings::<Test>::get(0, deal).expect("it holds");
            assert_eq!((held.passed, held.failed), (1, 1));
            // The next round can earn again, from the failure on.
            run_to(21);
            assert_eq!(pay(deal), (16, 2, false, 0));
            prove(&object, &[0, 2]);
            assert_eq!(pay(deal), (21, 0, false, 64 * 5));
            // And the end pays the rest, in which nothing has failed.
            run_to(25);
            assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
            next_block();
            assert_eq!(Rewards::<Test>::get(0), 64 * 9);
        });
    }
}

/// Puts the deadline of one of node 0's two audits off by two blocks, as in a round that took
/// several blocks to open, so that the other one's comes first.
fn put_off(index: u16) {
    let found = open().into_iter().find(|(node, _, it)| *node == 0 && it.index == index);
    let (node, audit, mut record) = found.expect("it is asked");
    Supernode::unschedule(Queue::Deadlines, record.deadline + 1, audit);
    record.deadline += 2;
    Supernode::schedule_deadline(record.deadline + 1, audit, node);
    OpenAudits::<Test>::insert(node, audit, record);
}

#[test]
fn a_proof_after_a_failure_does_not_mend_it() {
    for late in [0, 2] {
        chain(6).execute_with(|| {
            let (object, deal) = two_slots();
            put_off(late);
            run_to(16);
            assert_eq!(pay(deal), (1, 1, true, 0), "one failed, the other is open");
            prove(&object, &[late]);
            assert_eq!(pay(deal), (16, 0, false, 0), "slot {late} was proven in vain");
            run_to(21);
            prove(&object, &[0, 2]);
            assert_eq!(pay(deal), (21, 0, false, 64 * 5));
        });
    }
}

#[test]
fn the_end_pays_nobody_of_whom_an_audit_failed_and_drops_what_is_open() {
    chain(6).execute_with(|| {
        let (_, deal) = two_slots();
        put_off(2);
        run_to(16);
        assert_eq!(pay(deal), (1, 1, true, 0));
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        run_to(19);
        assert_eq!(Rewards::<Test>::get(0), 0, "a failure is not undone by the end");
        assert_eq!(OpenAudits::<Test>::iter().count(), 0);
    });
    chain(6).execute_with(|| {
        let (object, deal) = two_slots();
        prove(&object, &[2]);
        assert_eq!(pay(deal), (1, 1, false, 0));
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        run_to(19);
        assert_eq!(Rewards::<Test>::get(0), 64 * 10, "what is dropped counts neither way");
        assert_eq!(OpenAudits::<Test>::iter().count(), 0);
    });
}

#[test]
fn no_audit_outlives_its_deal() {
    chain(6).execute_with(|| {
        let deal = small_object(1).deal(1, 14);
        // The round of block 11 would end with the last block of the deal at 15.
        run_to(11);
        assert_eq!(NextAudit::<Test>::get(), 0);
        run_to(30);
        assert!(!Deals::<Test>::contains_key(deal));
        assert_eq!(NextAudit::<Test>::get(), 0);
        let longer = small_object(2).deal(1, 15);
        run_to(40);
        assert_eq!(NextAudit::<Test>::get(), 4);
        assert!(Deals::<Test>::contains_key(longer));
    });
}

#[test]
fn results_are_kept_for_their_time() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        object.deal(1, 20);
        run_to(11);
        let (node, audit, record) = open().remove(0);
        assert_ok!(submit(node, vec![(audit, object.proof(&record).encode())]));
        run_to(30);
        assert!(AuditResults::<Test>::contains_key(audit));
        next_block();
        assert!(!AuditResults::<Test>::contains_key(audit));
        run_to(60);
        assert_eq!(AuditResults::<Test>::iter().count(), 0, "missed ones go too");
        reserve(1, 1, 5);
    });
}
