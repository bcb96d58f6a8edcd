// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the audit actor counts, by its public names. A node without a chain exports none of it.

use supernode_audit::{AuditMetrics, Standing};

use super::families::{Families, Labels};
use super::number;

/// Every standing, so that an alert can name the one it waits for.
const STANDINGS: [Standing; 6] = [
    Standing::Healthy,
    Standing::Unreachable,
    Standing::Stalled,
    Standing::Behind,
    Standing::ForeignGenesis,
    Standing::ForeignRuntime,
];

/// Adds everything.
pub(super) fn families(audit: &AuditMetrics, to: &mut Families) {
    chain(audit, to);
    audits(audit, to);
    deals(audit, to);
}

fn chain(audit: &AuditMetrics, to: &mut Families) {
    let standings = STANDINGS.map(|standing| (standing.name(), standing == audit.standing));
    let samples: Vec<_> =
        standings.iter().map(|(name, is)| ([("standing", *name)], flag(*is))).collect();
    to.gauges(
        "supernode_chain_standing",
        "1 for how far the chain may be trusted now; only a healthy one ends deals.",
        samples.iter().map(|(labels, value)| (&labels[..], *value)),
    );
    to.gauge(
        "supernode_chain_finalised_lag_seconds",
        "Seconds since a newer finalised block was last processed, by running time.",
        audit.finalised_lag.as_secs_f64(),
    );
    to.gauge(
        "supernode_chain_processed_block",
        "Last finalised block whose changes were carried out.",
        number(audit.cleanup.processed.unwrap_or(0)),
    );
    let alarms: [(Labels<'_>, f64); 3] = [
        (&[("alarm", "chain")], flag(audit.chain_alarm)),
        (&[("alarm", "audit_deadline")], flag(audit.deadline_alarm())),
        (&[("alarm", "unprovable")], flag(audit.unprovable_alarm())),
    ];
    to.gauges("supernode_chain_alarms", "1 while somebody has to look.", alarms);
}

fn audits(audit: &AuditMetrics, to: &mut Families) {
    let results = audit.results().map(|(result, count)| ([("result", result)], number(count)));
    to.counters(
        "supernode_audits_total",
        "Audits of this node that the finalised chain has resolved.",
        results.iter().map(|(labels, value)| (&labels[..], *value)),
    );
    let open: [(Labels<'_>, f64); 3] = [
        (&[("state", "open")], number(audit.audits.open)),
        (&[("state", "pressing")], number(audit.audits.pressing)),
        (&[("state", "unprovable")], number(audit.audits.unprovable)),
    ];
    to.gauges("supernode_audits_open", "Audits that wait for a proof of this node.", open);
    if let (Some(last), Some(least)) =
        (audit.audits.slack_last_blocks, audit.audits.slack_min_blocks)
    {
        let slack: [(Labels<'_>, f64); 2] =
            [(&[("of", "last")], number(last)), (&[("of", "least")], number(least))];
        to.gauges(
            "supernode_audit_slack_blocks",
            "Blocks of its window that were left when a proof was accepted.",
            slack,
        );
    }
    to.counter(
        "supernode_audit_submission_failures_total",
        "Transactions with proofs that were in no block, or whose fate could not be learnt.",
        number(audit.audits.submission_failures_total),
    );
}

fn deals(audit: &AuditMetrics, to: &mut Families) {
    let cleanup = &audit.cleanup;
    let states: [(Labels<'_>, f64); 3] = [
        (&[("state", "active")], number(cleanup.deals.active)),
        (&[("state", "ending")], number(cleanup.deals.ending)),
        (&[("state", "other_chain")], number(cleanup.deals.other_chain)),
    ];
    to.gauges("supernode_deals", "Deals that this node keeps something of.", states);
    let blocked: [(Labels<'_>, f64); 2] = [
        (&[("why", "disputed")], number(cleanup.disputed)),
        (&[("why", "unconfirmed")], number(cleanup.unconfirmed)),
    ];
    to.gauges("supernode_deals_blocked", "Ended deals that another endpoint keeps.", blocked);
    to.counter("supernode_deals_ended_total", "Deals ended here.", number(cleanup.ended_total));
    to.counter(
        "supernode_deals_ended_bytes_total",
        "Bytes of slots of the deals ended here.",
        number(cleanup.ended_bytes_total),
    );
    to.counter(
        "supernode_cleanup_failures_total",
        "Steps of cleanup that failed and were repeated.",
        number(cleanup.failures_total),
    );
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
