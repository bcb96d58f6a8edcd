// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the DHT and their limits.

use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use supernode_protocol::limits::NETWORK_NAME_BYTES_MAX;

use crate::addresses::AddressRule;

/// Whether others may ask us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Answers queries, keeps records for the network, is a member.
    Server,
    /// Only asks.
    Client,
}

/// All settings of the DHT. One time to live holds for provider records, manifests and node
/// records alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DhtConfig {
    /// Name of the network: lowercase letters, digits and hyphens. Networks do not mix.
    pub network: String,
    /// Multiaddresses to listen on (TCP). Empty for clients.
    pub listen: Vec<String>,
    /// Multiaddresses of peers to ask first, each ending in `/p2p/PEER`.
    pub bootstrap: Vec<String>,
    /// Whether others may ask us.
    pub mode: Mode,
    /// Dial and pass on loopback, private and link-local addresses: development, closed networks.
    pub allow_private_addresses: bool,
    /// Records live this long where they were put, unless they are published again.
    pub provider_ttl_secs: u64,
    /// Our own records are published again after this; at most half the time to live.
    pub republish_interval_secs: u64,
    /// A query ends after this, with what it found.
    pub query_timeout_secs: u64,
    /// Records of members are looked up again, and idle members probed, after this.
    pub member_refresh_secs: u64,
    /// The longest wait between two walks through the network in search of new nodes.
    pub walk_interval_secs: u64,
    /// Connections are checked this often; one that does not answer is closed.
    pub ping_interval_secs: u64,
    /// Connections that nobody uses are closed after this.
    pub idle_connection_secs: u64,
    /// Members known at most. One costs about 2 KiB.
    pub members_max: usize,
    /// Providers that one lookup returns at most.
    pub providers_per_lookup_max: usize,
    /// Lookups of callers at the same time.
    pub lookups_max: usize,
    /// Publications of our own records at the same time.
    pub publications_max: usize,
    /// Messages waiting for the actor. One costs at most a manifest of 8 KiB.
    pub mailbox_messages_max: usize,
    /// How many records are kept for others, and of our own.
    pub records: RecordLimits,
    /// How many connections are held.
    pub connections: ConnectionLimits,
}

/// Bounds of the record table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordLimits {
    /// Manifest blocks kept for others.
    pub manifests_max: usize,
    /// Their bytes together.
    pub manifest_bytes_max: usize,
    /// Manifest blocks kept for one peer.
    pub manifests_per_peer_max: usize,
    /// Node records kept for others: one per node.
    pub node_records_max: usize,
    /// Provider records kept for others. One costs about half a KiB.
    pub providers_max: usize,
    /// Provider records kept for one peer.
    pub providers_per_peer_max: usize,
    /// Objects and pages that we announce.
    pub own_providers_max: usize,
    /// Manifest blocks that we publish.
    pub own_manifests_max: usize,
}

/// Bounds of the connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// Established connections that others opened.
    pub incoming_max: u32,
    /// Established connections that we opened.
    pub outgoing_max: u32,
    /// Established connections with one peer. Both sides may dial at once, so at least 2.
    pub per_peer_max: u32,
    /// Connections in either direction whose handshake is not finished, each.
    pub pending_max: u32,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self {
            manifests_max: 16_384,
            manifest_bytes_max: 32 << 20,
            manifests_per_peer_max: 4096,
            node_records_max: 4096,
            providers_max: 131_072,
            providers_per_peer_max: 32_768,
            own_providers_max: 131_072,
            own_manifests_max: 4096,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { incoming_max: 512, outgoing_max: 512, per_peer_max: 3, pending_max: 64 }
    }
}

impl Default for DhtConfig {
    fn default() -> Self {
        Self {
            network: "dev".into(),
            listen: Vec::new(),
            bootstrap: Vec::new(),
            mode: Mode::Client,
            allow_private_addresses: false,
            provider_ttl_secs: 24 * 3600,
            republish_interval_secs: 8 * 3600,
            query_timeout_secs: 10,
            member_refresh_secs: 300,
            walk_interval_secs: 120,
            ping_interval_secs: 10,
            idle_connection_secs: 600,
            members_max: 4096,
            providers_per_lookup_max: 20,
            lookups_max: 256,
            publications_max: 16,
            mailbox_messages_max: 256,
            records: RecordLimits::default(),
            connections: ConnectionLimits::default(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the DHT setting {field} is not usable: {reason}")]
pub struct DhtConfigError {
    /// Its name, as in the configuration file.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub reason: String,
}

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, DhtConfigError> {
    Err(DhtConfigError { field, reason: reason.into() })
}

/// What the texts in the configuration mean.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<(PeerId, Multiaddr)>,
}

impl DhtConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first one that cannot be used, and the remedy.
    pub fn validate(&self) -> Result<(), DhtConfigError> {
        self.endpoints()?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.network.is_empty() || !self.network.chars().all(allowed) {
            return refuse("network", "use lowercase letters, digits and hyphens");
        }
        if self.network.len() > NETWORK_NAME_BYTES_MAX {
            return refuse("network", format!("use at most {NETWORK_NAME_BYTES_MAX} characters"));
        }
        if self.mode == Mode::Server && self.listen.is_empty() {
            return refuse("listen", "a server needs at least one address, or set mode to client");
        }
        if self.provider_ttl_secs / 2 < self.republish_interval_secs {
            return refuse(
                "republish_interval_secs",
                "it may be half of provider_ttl_secs at most",
            );
        }
        self.validate_numbers()
    }

    fn validate_numbers(&self) -> Result<(), DhtConfigError> {
        let seconds = [
            ("provider_ttl_secs", self.provider_ttl_secs),
            ("republish_interval_secs", self.republish_interval_secs),
            ("query_timeout_secs", self.query_timeout_secs),
            ("member_refresh_secs", self.member_refresh_secs),
            ("walk_interval_secs", self.walk_interval_secs),
            ("ping_interval_secs", self.ping_interval_secs),
            ("idle_connection_secs", self.idle_connection_secs),
        ];
        let counts = [
            ("members_max", self.members_max),
            ("providers_per_lookup_max", self.providers_per_lookup_max),
            ("lookups_max", self.lookups_max),
            ("publications_max", self.publications_max),
            ("mailbox_messages_max", self.mailbox_messages_max),
        ];
        const YEAR_SECS: u64 = 366 * 24 * 3600;
        const COUNT_MAX: usize = 1 << 20;
        if let Some((field, _)) = seconds.into_iter().find(|(_, n)| !(1..=YEAR_SECS).contains(n)) {
            return refuse(field, "give between one second and one year");
        }
        if let Some((field, _)) = counts.into_iter().find(|(_, n)| !(1..=COUNT_MAX).contains(n)) {
            return refuse(field, format!("give between 1 and {COUNT_MAX}"));
        }
        if self.connections.per_peer_max < 2 {
            return refuse("connections.per_peer_max", "both sides may dial at once: at least 2");
        }
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Result<Endpoints, DhtConfigError> {
        let listen =
            self.listen.iter().map(|text| listen_address(text)).collect::<Result<_, _>>()?;
        let rule = self.address_rule();
        let bootstrap = self
            .bootstrap
            .iter()
            .map(|text| bootstrap_address(text, rule))
            .collect::<Result<_, _>>()?;
        Ok(Endpoints { listen, bootstrap })
    }

    pub(crate) fn address_rule(&self) -> AddressRule {
        AddressRule { allow_private: self.allow_private_addresses }
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_secs(self.provider_ttl_secs)
    }

    pub(crate) fn query_timeout(&self) -> Duration {
        Duration::from_secs(self.query_timeout_secs)
    }
}

fn parse(field: &'static str, text: &str) -> Result<Multiaddr, DhtConfigError> {
    text.parse().or_else(|error| refuse(field, format!("{text:?} is no multiaddress ({error})")))
}

fn listen_address(text: &str) -> Result<Multiaddr, DhtConfigError> {
    let address = parse("listen", text)?;
    let parts: Vec<_> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(address),
        _ => refuse("listen", format!("{text:?} must have the form /ip4/ADDRESS/tcp/PORT")),
    }
}

fn bootstrap_address(text: &str, rule: AddressRule) -> Result<(PeerId, Multiaddr), DhtConfigError> {
    let address = parse("bootstrap", text)?;
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return refuse("bootstrap", format!("{text:?} must end in /p2p/PEER"));
    };
    if rule.allows(&address) {
        return Ok((peer, address));
    }
    if (AddressRule { allow_private: true }).allows(&address) {
        let remedy = "is no public address; set allow_private_addresses if that is meant";
        return refuse("bootstrap", format!("{text:?} {remedy}"));
    }
    refuse("bootstrap", format!("{text:?} must have the form /ip4/ADDRESS/tcp/PORT/p2p/PEER"))
}

#[cfg(test)]
mod tests {
    use super::{DhtConfig, Mode};

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn refused(change: impl FnOnce(&mut DhtConfig)) -> &'static str {
        let mut config = DhtConfig::default();
        change(&mut config);
        config.validate().expect_err("a setting that cannot be used").field
    }

    #[test]
    fn the_defaults_are_usable() {
        DhtConfig::default().validate().expect("defaults");
        let mut server = DhtConfig { mode: Mode::Server, ..DhtConfig::default() };
        server.listen = vec!["/ip4/0.0.0.0/tcp/30333".into()];
        server.bootstrap = vec![format!("/dns4/seed.example.org/tcp/30333/p2p/{PEER}")];
        server.validate().expect("a usual server");
    }

    #[test]
    fn unusable_settings_are_named() {
        assert_eq!(refused(|c| c.network = String::new()), "network");
        assert_eq!(refused(|c| c.network = "a/b".into()), "network");
        assert_eq!(refused(|c| c.network = "n".repeat(65)), "network");
        assert_eq!(refused(|c| c.mode = Mode::Server), "listen");
        assert_eq!(refused(|c| c.listen = vec!["localhost:1".into()]), "listen");
        assert_eq!(refused(|c| c.listen = vec!["/ip4/0.0.0.0/udp/1/quic-v1".into()]), "listen");
        assert_eq!(refused(|c| c.bootstrap = vec!["/ip4/8.8.8.8/tcp/1".into()]), "bootstrap");
        let private = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}");
        assert_eq!(refused(|c| c.bootstrap = vec![private]), "bootstrap");
        assert_eq!(refused(|c| c.republish_interval_secs = 13 * 3600), "republish_interval_secs");
        assert_eq!(refused(|c| c.query_timeout_secs = 0), "query_timeout_secs");
        assert_eq!(refused(|c| c.query_timeout_secs = u64::MAX), "query_timeout_secs");
        assert_eq!(refused(|c| c.mailbox_messages_max = 0), "mailbox_messages_max");
        assert_eq!(refused(|c| c.connections.per_peer_max = 1), "connections.per_peer_max");
    }

    #[test]
    fn unknown_keys_are_errors_and_missing_ones_have_defaults() {
        let config: DhtConfig =
            toml::from_str("network = \"n\"\nmode = \"server\"").expect("known keys");
        assert_eq!((config.mode, config.query_timeout_secs), (Mode::Server, 10));
        let error = toml::from_str::<DhtConfig>("netwrok = \"n\"").expect_err("unknown key");
        assert!(error.to_string().contains("netwrok"), "{error}");
        assert!(toml::from_str::<DhtConfig>("[records]\nmax = 1").is_err());
    }
}
