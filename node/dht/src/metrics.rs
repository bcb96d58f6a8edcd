// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the actor tells about itself: a plain snapshot after every step.

use crate::admission::Rejection;

/// Figures of the DHT at one instant. Those that end in `_total` only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DhtMetrics {
    /// A bootstrap peer has answered, or none is configured.
    pub ready: bool,
    /// Peers with at least one open connection.
    pub connected_peers: usize,
    /// Peers that serve our protocol and are believed alive, with or without a known record.
    pub routing_peers: usize,
    /// Members with a verified record, this node included.
    pub members: usize,
    /// Manifest blocks kept for others.
    pub manifests: usize,
    /// Their bytes.
    pub manifest_bytes: usize,
    /// Node records kept for others.
    pub node_records: usize,
    /// Distinct keys with providers, our own included.
    pub provider_keys: usize,
    /// Provider records kept for others.
    pub providers: usize,
    /// Objects and pages that we announce.
    pub announced: usize,
    /// Manifest blocks that we publish.
    pub published_manifests: usize,
    /// Lookups running.
    pub lookups: usize,
    /// Lookups started.
    pub lookups_total: u64,
    /// Lookups that ran into the timeout.
    pub lookup_timeouts_total: u64,
    /// Publications of our own records that went out.
    pub publications_total: u64,
    /// Publications that nobody took; they are tried again.
    pub publication_failures_total: u64,
    /// Requests of peers answered.
    pub requests_total: u64,
    /// Records of peers stored or renewed.
    pub records_accepted_total: u64,
    /// Peers turned away because they belong to another network.
    pub other_network_total: u64,
    /// A sequence of our own node record on the network that is above ours: present a higher one.
    pub newer_own_sequence: Option<u64>,
    /// Messages waiting for the actor.
    pub mailbox_depth: usize,
    rejected: [u64; Rejection::ALL.len()],
}

impl DhtMetrics {
    /// Records that were not stored, for this reason.
    pub fn rejected_total(&self, reason: Rejection) -> u64 {
        let at = Rejection::ALL.iter().position(|known| *known == reason);
        at.map_or(0, |at| self.rejected[at])
    }

    /// Records that were not stored, by reason.
    pub fn rejections(&self) -> impl Iterator<Item = (Rejection, u64)> {
        Rejection::ALL.into_iter().zip(self.rejected)
    }

    pub(crate) fn reject(&mut self, reason: Rejection) {
        if let Some(at) = Rejection::ALL.iter().position(|known| *known == reason) {
            self.rejected[at] += 1;
        }
    }
}
