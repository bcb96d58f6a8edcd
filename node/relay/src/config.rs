// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the relay server. Every queue, pool and buffer has its bound here.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::{NETWORK_NAME_BYTES_MAX, SHARD_BYTES_MAX};
use supernode_tls::transport::{SettingError, Transport, check_setting};

/// Who may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Anybody who proves an identity; those on no list share a budget per address prefix.
    #[default]
    Public,
    /// Readers and writers on the lists.
    Private,
}

/// What one client, or all strangers of one address prefix together, may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientLimits {
    /// Requests under way at a time.
    pub requests_max: u32,
    /// Requests per second over time.
    pub requests_per_sec: u32,
    /// Requests that may come at once after a pause.
    pub requests_burst: u32,
    /// Bytes of bodies per second over time, both directions together.
    pub bytes_per_sec: u64,
    /// Bytes that may move at once after a pause; at least the largest shard with its proof.
    pub burst_bytes: u64,
}

/// Settings of a [`crate::Relay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// UDP address to listen on; `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// The network this node serves; clients of another one are refused.
    pub network: String,
    /// Program and version, as clients are told.
    pub agent: String,
    /// Who may read.
    pub profile: Profile,
    /// Who may write, and read in every profile.
    pub writers: BTreeSet<NodeId>,
    /// Who may read in the private profile, and has a budget of its own in every profile.
    pub readers: BTreeSet<NodeId>,
    /// Requests under way at a time, of all clients.
    pub requests_max: u32,
    /// For each client on a list. What the configuration leaves out keeps its default.
    #[serde(deserialize_with = "known_limits")]
    pub known: ClientLimits,
    /// For each address prefix (/24 in IPv4, /56 in IPv6) of clients on no list. As above.
    #[serde(deserialize_with = "stranger_limits")]
    pub strangers: ClientLimits,
    /// When a client that met a full pool is told to come back.
    pub retry_after_ms: u32,
    /// Connections at a time.
    pub connections_max: u32,
    /// Connections at a time from one address prefix.
    pub connections_per_prefix_max: u32,
    /// Handshakes under way at a time; more are refused.
    pub handshakes_max: u32,
    /// Handshakes under way from which on new clients must first prove their address.
    pub handshakes_retry_from: u32,
    /// Handshakes that may wait to be looked at.
    pub incoming_max: u32,
    /// Requests one connection may have under way.
    pub streams_per_connection_max: u32,
    /// From the first packet of a client to its hello.
    pub hello_timeout_ms: u64,
    /// For the frame of a request to arrive.
    pub frame_timeout_ms: u64,
    /// For a request, besides the time its body needs at the slowest rate.
    pub request_timeout_ms: u64,
    /// The slowest body that is still waited for.
    pub body_bytes_per_sec_min: u64,
    /// Whether clients may change their address; behind several sockets they must not.
    pub migration: bool,
    /// Settings of QUIC.
    pub transport: Transport,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9002)),
            network: "main".to_owned(),
            agent: concat!("supernode/", env!("CARGO_PKG_VERSION")).to_owned(),
            profile: Profile::Public,
            writers: BTreeSet::new(),
            readers: BTreeSet::new(),
            requests_max: 1024,
            known: ClientLimits::KNOWN,
            strangers: ClientLimits::STRANGERS,
            retry_after_ms: 250,
            connections_max: 4096,
            connections_per_prefix_max: 64,
            handshakes_max: 512,
            handshakes_retry_from: 64,
            incoming_max: 1024,
            streams_per_connection_max: 64,
            hello_timeout_ms: 10_000,
            frame_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            body_bytes_per_sec_min: 64 << 10,
            migration: false,
            transport: Transport::default(),
        }
    }
}

impl RelayConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first setting that is out of it.
    pub fn validate(&self) -> Result<(), SettingError> {
        check_setting(
            (1..=NETWORK_NAME_BYTES_MAX).contains(&self.network.len()),
            "network",
            self.network.len() as u64,
            "a name of 1 to 64 bytes",
        )?;
        for (setting, value) in [
            ("requests_max", self.requests_max),
            ("connections_max", self.connections_max),
            ("connections_per_prefix_max", self.connections_per_prefix_max),
            ("handshakes_max", self.handshakes_max),
            ("incoming_max", self.incoming_max),
        ] {
            check_setting((1..=1 << 20).contains(&value), setting, value, "1 to 1048576")?;
        }
        check_setting(
            self.handshakes_retry_from <= self.handshakes_max,
            "handshakes_retry_from",
            self.handshakes_retry_from,
            "at most handshakes_max",
        )?;
        check_setting(
            (1..=256).contains(&self.streams_per_connection_max),
            "streams_per_connection_max",
            self.streams_per_connection_max,
            "1 to 256",
        )?;
        for (setting, millis) in [
            ("hello_timeout_ms", self.hello_timeout_ms),
            ("frame_timeout_ms", self.frame_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
        ] {
            check_setting((1..=3_600_000).contains(&millis), setting, millis, "1 ms to 1 h")?;
        }
        check_setting(
            self.body_bytes_per_sec_min > 0,
            "body_bytes_per_sec_min",
            self.body_bytes_per_sec_min,
            "at least 1",
        )?;
        self.known.validate()?;
        self.strangers.validate()?;
        self.transport.validate()
    }

    pub(crate) fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }

    pub(crate) fn frame_timeout(&self) -> Duration {
        Duration::from_millis(self.frame_timeout_ms)
    }

    /// How long a request with a body of `len` bytes may take.
    pub(crate) fn request_timeout(&self, len: u64) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
            + Duration::from_secs(len / self.body_bytes_per_sec_min)
    }
}

/// A burst must pass the largest body there is: a whole shard, or a part of it with its proof.
const BURST_BYTES_MIN: u64 = SHARD_BYTES_MAX + (1 << 20);
/// Rates are kept in KiB with 32 bits and in nanoseconds a cell; this is far above any network.
const BURST_BYTES_MAX: u64 = 1 << 40;

/// Limits of which only some are written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SomeLimits {
    requests_max: Option<u32>,
    requests_per_sec: Option<u32>,
    requests_burst: Option<u32>,
    bytes_per_sec: Option<u64>,
    burst_bytes: Option<u64>,
}

impl SomeLimits {
    fn over(self, default: &ClientLimits) -> ClientLimits {
        ClientLimits {
            requests_max: self.requests_max.unwrap_or(default.requests_max),
            requests_per_sec: self.requests_per_sec.unwrap_or(default.requests_per_sec),
            requests_burst: self.requests_burst.unwrap_or(default.requests_burst),
            bytes_per_sec: self.bytes_per_sec.unwrap_or(default.bytes_per_sec),
            burst_bytes: self.burst_bytes.unwrap_or(default.burst_bytes),
        }
    }
}

fn known_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClientLimits, D::Error> {
    Ok(SomeLimits::deserialize(deserializer)?.over(&ClientLimits::KNOWN))
}

fn stranger_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClientLimits, D::Error> {
    Ok(SomeLimits::deserialize(deserializer)?.over(&ClientLimits::STRANGERS))
}

impl ClientLimits {
    /// The defaults of a client on a list.
    pub const KNOWN: Self = Self {
        requests_max: 256,
        requests_per_sec: 5000,
        requests_burst: 10_000,
        bytes_per_sec: 1 << 30,
        burst_bytes: 2 << 30,
    };

    /// The defaults of all strangers of one address prefix together.
    pub const STRANGERS: Self = Self {
        requests_max: 128,
        requests_per_sec: 1000,
        requests_burst: 2000,
        bytes_per_sec: 256 << 20,
        burst_bytes: 512 << 20,
    };

    fn validate(&self) -> Result<(), SettingError> {
        for (setting, value) in [
            ("requests_max", self.requests_max),
            ("requests_per_sec", self.requests_per_sec),
            ("requests_burst", self.requests_burst),
        ] {
            check_setting((1..=1 << 24).contains(&value), setting, value, "1 to 16777216")?;
        }
        check_setting(
            (1024..=BURST_BYTES_MAX / 4).contains(&self.bytes_per_sec),
            "bytes_per_sec",
            self.bytes_per_sec,
            "1 KiB to 256 GiB",
        )?;
        check_setting(
            (BURST_BYTES_MIN..=BURST_BYTES_MAX).contains(&self.burst_bytes),
            "burst_bytes",
            self.burst_bytes,
            "65 MiB (the largest shard and its proof) to 1 TiB",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientLimits, RelayConfig};

    type Damage = fn(&mut RelayConfig);

    #[test]
    fn the_defaults_are_valid_and_survive_toml() {
        let config = RelayConfig::default();
        config.validate().expect("the defaults");
        let text = toml::to_string(&config).expect("plain data");
        assert_eq!(toml::from_str::<RelayConfig>(&text).expect("own output"), config);
        assert_eq!(toml::from_str::<RelayConfig>("").expect("all defaults"), config);
    }

    #[test]
    fn limits_that_are_left_out_keep_the_default_of_their_class() {
        let text = "[known]\nrequests_max = 7\n[strangers]\nburst_bytes = 100000000";
        let config = toml::from_str::<RelayConfig>(text).expect("some of each");
        assert_eq!(config.known, ClientLimits { requests_max: 7, ..ClientLimits::KNOWN });
        let strangers = ClientLimits { burst_bytes: 100_000_000, ..ClientLimits::STRANGERS };
        assert_eq!(config.strangers, strangers);
        let error = toml::from_str::<RelayConfig>("[known]\nrequest_max = 7").expect_err("typo");
        assert!(error.to_string().contains("request_max"), "{error}");
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_named() {
        let error = toml::from_str::<RelayConfig>("request_max = 1").expect_err("a typing error");
        assert!(error.to_string().contains("request_max"), "{error}");
        let broken: [(&str, Damage); 6] = [
            ("requests_max", |c| c.requests_max = 0),
            ("streams_per_connection_max", |c| c.streams_per_connection_max = 257),
            ("burst_bytes", |c| c.strangers.burst_bytes = 1 << 20),
            ("network", |c| c.network = String::new()),
            ("handshakes_retry_from", |c| c.handshakes_retry_from = u32::MAX),
            ("mtu_bytes_max", |c| c.transport.mtu_bytes_max = 100),
        ];
        for (setting, damage) in broken {
            let mut config = RelayConfig::default();
            damage(&mut config);
            assert_eq!(config.validate().expect_err(setting).setting, setting);
        }
    }
}
