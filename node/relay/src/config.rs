// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the relay server. Every queue, pool and buffer has its bound here.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::NETWORK_NAME_BYTES_MAX;
use supernode_tls::transport::{SettingError, Transport, check_setting};

macro_rules! limit_names {
    ($section:literal) => {
        LimitNames {
            requests_max: concat!($section, ".requests_max"),
            queue_max: concat!($section, ".queue_max"),
            requests_per_sec: concat!($section, ".requests_per_sec"),
            requests_burst: concat!($section, ".requests_burst"),
            bytes_per_sec: concat!($section, ".bytes_per_sec"),
            burst_bytes: concat!($section, ".burst_bytes"),
            in_flight_bytes_max: concat!($section, ".in_flight_bytes_max"),
        }
    };
}

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

/// What one client may use; of strangers, all of one address prefix (/24 in IPv4, /56 in IPv6)
/// together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientLimits {
    /// Requests under way at a time.
    pub requests_max: u32,
    /// Requests that may wait for one of those to end.
    pub queue_max: u32,
    /// Requests per second over time.
    pub requests_per_sec: u32,
    /// Requests that may come at once after a pause.
    pub requests_burst: u32,
    /// Bytes of bodies per second over time, both directions together.
    pub bytes_per_sec: u64,
    /// Bytes that may move at once after a pause. A longer body is slowed to the rate.
    pub burst_bytes: u64,
    /// Bytes of bodies in memory at a time: on their way in, or sent and not acknowledged.
    pub in_flight_bytes_max: u64,
}

/// The limits of each class, for each client in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classes {
    /// Nobody vouches for them; one budget per address prefix.
    #[serde(deserialize_with = "over_default::<_, 0>")]
    pub stranger: ClientLimits,
    /// Nodes that restore redundancy; they go when nobody else waits.
    #[serde(deserialize_with = "over_default::<_, 1>")]
    pub repair: ClientLimits,
    /// Edge caches.
    #[serde(deserialize_with = "over_default::<_, 2>")]
    pub relay: ClientLimits,
    /// Front doors of the network, and writers.
    #[serde(deserialize_with = "over_default::<_, 3>")]
    pub gateway: ClientLimits,
    /// Who runs the node.
    #[serde(deserialize_with = "over_default::<_, 4>")]
    pub operator: ClientLimits,
}

impl Classes {
    /// The limits of a class.
    pub fn of(&self, class: ClientClass) -> &ClientLimits {
        match class {
            ClientClass::Stranger => &self.stranger,
            ClientClass::Repair => &self.repair,
            ClientClass::Relay => &self.relay,
            ClientClass::Gateway => &self.gateway,
            ClientClass::Operator => &self.operator,
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            stranger: ClientLimits::of(ClientClass::Stranger),
            repair: ClientLimits::of(ClientClass::Repair),
            relay: ClientLimits::of(ClientClass::Relay),
            gateway: ClientLimits::of(ClientClass::Gateway),
            operator: ClientLimits::of(ClientClass::Operator),
        }
    }
}

/// Who is of which class. They read in every profile; who is on several lists is of the highest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// Nodes that restore redundancy.
    pub repair: BTreeSet<NodeId>,
    /// Edge caches.
    pub relay: BTreeSet<NodeId>,
    /// Front doors.
    pub gateway: BTreeSet<NodeId>,
    /// Who runs the node.
    pub operator: BTreeSet<NodeId>,
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
    /// Who may write, and read in every profile. Of class gateway, unless a list says more.
    pub writers: BTreeSet<NodeId>,
    /// Whose capabilities count, for every class and right.
    pub issuers: BTreeSet<NodeId>,
    /// Who is of which class.
    pub members: Members,
    /// Requests under way at a time, of all clients.
    pub requests_max: u32,
    /// How long a request may wait for its turn before it is told to come back.
    pub queue_wait_ms: u64,
    /// Requests that may wait, of all clients.
    pub queue_total_max: u32,
    /// When a client that waited in vain is told to come back.
    pub retry_after_ms: u32,
    /// Bytes of bodies in memory at a time, of all clients.
    pub body_bytes_in_flight_max: u64,
    /// Bytes of bodies per second that are sent, to all clients; 0 for as fast as it goes.
    pub egress_bytes_per_sec_max: u64,
    /// The same for those that are received.
    pub ingress_bytes_per_sec_max: u64,
    /// Capabilities whose bytes are counted at a time; more are told to come back.
    pub capabilities_max: u32,
    /// Slots of the repairs that clients have proven and not committed; more are told to come back.
    pub repair_slots_max: u32,
    /// Connections at a time.
    pub connections_max: u32,
    /// Connections at a time from one address prefix.
    pub connections_per_prefix_max: u32,
    /// Connections at a time of one client.
    pub connections_per_client_max: u32,
    /// Handshakes under way at a time; more are refused.
    pub handshakes_max: u32,
    /// Handshakes under way from which on new clients must first prove their address.
    pub handshakes_retry_from: u32,
    /// Handshakes per second from one address prefix. Beyond it clients must prove their address;
    /// of those that did, as many again are let in and the rest is refused.
    pub handshakes_per_prefix_per_sec: u32,
    /// Handshakes that may wait to be looked at.
    pub incoming_max: u32,
    /// Requests one connection may have under way.
    pub streams_per_connection_max: u32,
    /// From the first packet of a client to its hello.
    pub hello_timeout_ms: u64,
    /// For the frame of a request to arrive.
    pub frame_timeout_ms: u64,
    /// For a request, besides the time its body needs.
    pub request_timeout_ms: u64,
    /// How long a body may stand still, besides the time its next 256 KiB need at the slowest
    /// rate.
    pub progress_grace_ms: u64,
    /// The slowest body that is still waited for.
    pub body_bytes_per_sec_min: u64,
    /// Whether clients may change their address; behind several sockets they must not.
    pub migration: bool,
    /// What each client may use, by class.
    pub class: Classes,
    /// What all strangers may use together.
    #[serde(deserialize_with = "over_all_strangers")]
    pub all_strangers: ClientLimits,
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
            issuers: BTreeSet::new(),
            members: Members::default(),
            requests_max: 1024,
            queue_wait_ms: 500,
            queue_total_max: 8192,
            retry_after_ms: 250,
            body_bytes_in_flight_max: BUDGET_BYTES,
            egress_bytes_per_sec_max: 0,
            ingress_bytes_per_sec_max: 0,
            capabilities_max: 16_384,
            repair_slots_max: 65_536,
            connections_max: 4096,
            connections_per_prefix_max: 64,
            connections_per_client_max: 16,
            handshakes_max: 512,
            handshakes_retry_from: 64,
            handshakes_per_prefix_per_sec: 64,
            incoming_max: 1024,
            streams_per_connection_max: 64,
            hello_timeout_ms: 10_000,
            frame_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            progress_grace_ms: 10_000,
            body_bytes_per_sec_min: 64 << 10,
            migration: false,
            class: Classes::default(),
            all_strangers: ClientLimits::ALL_STRANGERS,
            transport: Transport::default(),
        }
    }
}

impl RelayConfig {
    /// Settings that are fixed when the server starts, by their keys.
    pub const FIXED: &'static [&'static str] = &[
        "listen",
        "network",
        "agent",
        "profile",
        "writers",
        "issuers",
        "members",
        "incoming_max",
        "streams_per_connection_max",
        "migration",
        "transport",
    ];

    /// The highest class that a list gives.
    pub fn listed_class(&self, client: NodeId) -> Option<ClientClass> {
        let members = &self.members;
        [
            (&members.operator, ClientClass::Operator),
            (&members.gateway, ClientClass::Gateway),
            (&self.writers, ClientClass::Gateway),
            (&members.relay, ClientClass::Relay),
            (&members.repair, ClientClass::Repair),
        ]
        .into_iter()
        .find_map(|(list, class)| list.contains(&client).then_some(class))
    }

    /// The highest class that capabilities of this issuer give here: any for one on the list of
    /// issuers, and its own for a writer. Those of others are not taken.
    pub fn grants_max(&self, issuer: NodeId) -> Option<ClientClass> {
        if self.issuers.contains(&issuer) {
            return Some(ClientClass::Operator);
        }
        self.listed_class(issuer).filter(|_| self.writers.contains(&issuer))
    }

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
        self.validate_counts()?;
        for (setting, millis) in [
            ("hello_timeout_ms", self.hello_timeout_ms),
            ("frame_timeout_ms", self.frame_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("progress_grace_ms", self.progress_grace_ms),
        ] {
            check_setting((1..=3_600_000).contains(&millis), setting, millis, "1 ms to 1 h")?;
        }
        check_setting(
            self.queue_wait_ms <= 60_000,
            "queue_wait_ms",
            self.queue_wait_ms,
            "at most 1 min",
        )?;
        check_setting(
            self.body_bytes_per_sec_min > 0,
            "body_bytes_per_sec_min",
            self.body_bytes_per_sec_min,
            "at least 1",
        )?;
        check_setting(
            (IN_FLIGHT_BYTES_MIN..=BURST_BYTES_MAX).contains(&self.body_bytes_in_flight_max),
            "body_bytes_in_flight_max",
            self.body_bytes_in_flight_max,
            "1 MiB to 1 TiB",
        )?;
        for (setting, value) in [
            ("egress_bytes_per_sec_max", self.egress_bytes_per_sec_max),
            ("ingress_bytes_per_sec_max", self.ingress_bytes_per_sec_max),
        ] {
            let is_in_range = value == 0 || RATE_BYTES.contains(&value);
            check_setting(is_in_range, setting, value, "0 for none, or 1 KiB to 256 GiB")?;
        }
        self.class.stranger.validate(&limit_names!("class.stranger"))?;
        self.class.repair.validate(&limit_names!("class.repair"))?;
        self.class.relay.validate(&limit_names!("class.relay"))?;
        self.class.gateway.validate(&limit_names!("class.gateway"))?;
        self.class.operator.validate(&limit_names!("class.operator"))?;
        self.all_strangers.validate(&limit_names!("all_strangers"))?;
        self.transport.validate()
    }

    fn validate_counts(&self) -> Result<(), SettingError> {
        for (setting, value) in [
            ("requests_max", self.requests_max),
            ("capabilities_max", self.capabilities_max),
            ("repair_slots_max", self.repair_slots_max),
            ("connections_max", self.connections_max),
            ("connections_per_prefix_max", self.connections_per_prefix_max),
            ("connections_per_client_max", self.connections_per_client_max),
            ("handshakes_max", self.handshakes_max),
            ("handshakes_per_prefix_per_sec", self.handshakes_per_prefix_per_sec),
            ("incoming_max", self.incoming_max),
        ] {
            check_setting((1..=COUNT_MAX).contains(&value), setting, value, "1 to 1048576")?;
        }
        check_setting(
            self.queue_total_max <= COUNT_MAX,
            "queue_total_max",
            self.queue_total_max,
            "at most 1048576",
        )?;
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
        )
    }

    /// These settings with the [fixed](Self::FIXED) ones of `running`.
    pub(crate) fn with_fixed_of(&self, running: &Self) -> Self {
        Self {
            listen: running.listen,
            network: running.network.clone(),
            agent: running.agent.clone(),
            profile: running.profile,
            writers: running.writers.clone(),
            issuers: running.issuers.clone(),
            members: running.members.clone(),
            incoming_max: running.incoming_max,
            streams_per_connection_max: running.streams_per_connection_max,
            migration: running.migration,
            transport: running.transport.clone(),
            ..self.clone()
        }
    }

    pub(crate) fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }

    pub(crate) fn frame_timeout(&self) -> Duration {
        Duration::from_millis(self.frame_timeout_ms)
    }

    /// How long a request may take, but for its body.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn queue_wait(&self) -> Duration {
        Duration::from_millis(self.queue_wait_ms)
    }

    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_millis(u64::from(self.retry_after_ms))
    }
}

const COUNT_MAX: u32 = 1 << 20;
/// A shard of 7 MB passes at line rate.
const BURST_BYTES_MIN: u64 = 8 << 20;
/// Rates are kept in KiB with 32 bits and in nanoseconds a cell; this is far above any network.
const BURST_BYTES_MAX: u64 = 1 << 40;
const RATE_BYTES: RangeInclusive<u64> = 1024..=BURST_BYTES_MAX / 4;
/// Bodies are claimed in pieces of at most this.
const IN_FLIGHT_BYTES_MIN: u64 = 1 << 20;
/// The default memory of all bodies in flight.
const BUDGET_BYTES: u64 = 256 << 20;

/// Keys of one section of limits, as errors name them.
struct LimitNames {
    requests_max: &'static str,
    queue_max: &'static str,
    requests_per_sec: &'static str,
    requests_burst: &'static str,
    bytes_per_sec: &'static str,
    burst_bytes: &'static str,
    in_flight_bytes_max: &'static str,
}

/// Limits of which only some are written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SomeLimits {
    requests_max: Option<u32>,
    queue_max: Option<u32>,
    requests_per_sec: Option<u32>,
    requests_burst: Option<u32>,
    bytes_per_sec: Option<u64>,
    burst_bytes: Option<u64>,
    in_flight_bytes_max: Option<u64>,
}

impl SomeLimits {
    fn over(self, default: &ClientLimits) -> ClientLimits {
        ClientLimits {
            requests_max: self.requests_max.unwrap_or(default.requests_max),
            queue_max: self.queue_max.unwrap_or(default.queue_max),
            requests_per_sec: self.requests_per_sec.unwrap_or(default.requests_per_sec),
            requests_burst: self.requests_burst.unwrap_or(default.requests_burst),
            bytes_per_sec: self.bytes_per_sec.unwrap_or(default.bytes_per_sec),
            burst_bytes: self.burst_bytes.unwrap_or(default.burst_bytes),
            in_flight_bytes_max: self.in_flight_bytes_max.unwrap_or(default.in_flight_bytes_max),
        }
    }
}

/// Limits over the defaults of the class at `CLASS` in [`ClientClass::ALL`].
fn over_default<'de, D: Deserializer<'de>, const CLASS: usize>(
    deserializer: D,
) -> Result<ClientLimits, D::Error> {
    let default = ClientLimits::of(ClientClass::ALL[CLASS]);
    Ok(SomeLimits::deserialize(deserializer)?.over(&default))
}

fn over_all_strangers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ClientLimits, D::Error> {
    Ok(SomeLimits::deserialize(deserializer)?.over(&ClientLimits::ALL_STRANGERS))
}

impl ClientLimits {
    /// The defaults of all strangers together.
    pub const ALL_STRANGERS: Self = Self {
        requests_max: 512,
        queue_max: 4096,
        requests_per_sec: 10_000,
        requests_burst: 20_000,
        bytes_per_sec: 125_000_000,
        burst_bytes: 256 << 20,
        in_flight_bytes_max: BUDGET_BYTES / 2,
    };

    const STRANGER: Self = Self {
        requests_max: 128,
        queue_max: 256,
        requests_per_sec: 1000,
        requests_burst: 2000,
        // 100 Mbit/s.
        bytes_per_sec: 12_500_000,
        burst_bytes: BURST_BYTES_MIN,
        in_flight_bytes_max: BUDGET_BYTES / 8,
    };

    const REPAIR: Self = Self {
        requests_max: 128,
        queue_max: 512,
        requests_per_sec: 2000,
        requests_burst: 4000,
        bytes_per_sec: 256 << 20,
        burst_bytes: 512 << 20,
        in_flight_bytes_max: BUDGET_BYTES / 2,
    };

    const TRUSTED: Self = Self {
        requests_max: 256,
        queue_max: 1024,
        requests_per_sec: 5000,
        requests_burst: 10_000,
        bytes_per_sec: 1 << 30,
        burst_bytes: 2 << 30,
        in_flight_bytes_max: BUDGET_BYTES / 2,
    };

    /// The defaults of a client of a class.
    pub fn of(class: ClientClass) -> Self {
        match class {
            ClientClass::Stranger => Self::STRANGER,
            ClientClass::Repair => Self::REPAIR,
            ClientClass::Relay | ClientClass::Gateway | ClientClass::Operator => Self::TRUSTED,
        }
    }

    fn validate(&self, names: &LimitNames) -> Result<(), SettingError> {
        for (setting, value) in [
            (names.requests_max, self.requests_max),
            (names.requests_per_sec, self.requests_per_sec),
            (names.requests_burst, self.requests_burst),
        ] {
            check_setting((1..=1 << 24).contains(&value), setting, value, "1 to 16777216")?;
        }
        check_setting(
            self.queue_max <= COUNT_MAX,
            names.queue_max,
            self.queue_max,
            "at most 1048576",
        )?;
        check_setting(
            RATE_BYTES.contains(&self.bytes_per_sec),
            names.bytes_per_sec,
            self.bytes_per_sec,
            "1 KiB to 256 GiB",
        )?;
        check_setting(
            (BURST_BYTES_MIN..=BURST_BYTES_MAX).contains(&self.burst_bytes),
            names.burst_bytes,
            self.burst_bytes,
            "8 MiB to 1 TiB",
        )?;
        check_setting(
            (IN_FLIGHT_BYTES_MIN..=BURST_BYTES_MAX).contains(&self.in_flight_bytes_max),
            names.in_flight_bytes_max,
            self.in_flight_bytes_max,
            "1 MiB to 1 TiB",
        )
    }
}

#[cfg(test)]
mod tests {
    use supernode_protocol::capability::ClientClass;

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
        let text = "[class.relay]\nrequests_max = 7\n[class.stranger]\nburst_bytes = 100000000\n\
                    [all_strangers]\nqueue_max = 3";
        let config = toml::from_str::<RelayConfig>(text).expect("some of each");
        let relay = ClientLimits { requests_max: 7, ..ClientLimits::of(ClientClass::Relay) };
        assert_eq!(config.class.relay, relay);
        let stranger = ClientLimits::of(ClientClass::Stranger);
        let stranger = ClientLimits { burst_bytes: 100_000_000, ..stranger };
        assert_eq!(config.class.stranger, stranger);
        assert_eq!(config.class.repair, ClientLimits::of(ClientClass::Repair));
        let all_strangers = ClientLimits { queue_max: 3, ..ClientLimits::ALL_STRANGERS };
        assert_eq!(config.all_strangers, all_strangers);
        let error =
            toml::from_str::<RelayConfig>("[class.relay]\nrequest_max = 7").expect_err("typo");
        assert!(error.to_string().contains("request_max"), "{error}");
    }

    #[test]
    fn what_is_fixed_stays_and_the_rest_changes() {
        let table = |config: &RelayConfig| toml::Table::try_from(config).expect("plain data");
        let text = "listen = \"127.0.0.1:1\"\nnetwork = \"other\"\nagent = \"a\"\n\
                    profile = \"private\"\nincoming_max = 1\nstreams_per_connection_max = 1\n\
                    migration = true\nrequests_max = 9\n[class.relay]\nqueue_max = 5\n\
                    [transport]\nmtu_bytes_max = 1300";
        let wanted = toml::from_str::<RelayConfig>(text).expect("all good");
        let running = RelayConfig::default();
        let merged = table(&wanted.with_fixed_of(&running));
        for (key, value) in table(&running) {
            let from = if RelayConfig::FIXED.contains(&key.as_str()) {
                value
            } else {
                table(&wanted)[&key].clone()
            };
            assert_eq!(merged[&key], from, "{key}");
        }
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_named() {
        let error = toml::from_str::<RelayConfig>("request_max = 1").expect_err("a typing error");
        assert!(error.to_string().contains("request_max"), "{error}");
        let broken: [(&str, Damage); 9] = [
            ("requests_max", |c| c.requests_max = 0),
            ("streams_per_connection_max", |c| c.streams_per_connection_max = 257),
            ("class.stranger.burst_bytes", |c| c.class.stranger.burst_bytes = 1 << 20),
            ("all_strangers.requests_max", |c| c.all_strangers.requests_max = 0),
            ("queue_wait_ms", |c| c.queue_wait_ms = 60_001),
            ("egress_bytes_per_sec_max", |c| c.egress_bytes_per_sec_max = 1),
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
