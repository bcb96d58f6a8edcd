// SPDX-License-Identifier: MIT OR Apache-2.0
//! `client.toml`: what `put`, `get`, `stat`, `ls`, `rm`, `status` and `peer` need to know.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use supernode_chain::ChainConfig;
use supernode_dht::{DhtConfig, Mode};
use supernode_object::Class;
use supernode_protocol::limits::{INLINE_BYTES_MAX, PIN_SECONDS_MAX};

use super::error::Invalid;
use super::layers::Settings;
use super::log::LogSection;
use super::node::{DEFAULT_NETWORK, chain_invalid};

/// A client's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// The key that owns what this client puts. Relative to this file. Empty: a fresh key for each
    /// command, which can read but owns nothing.
    pub identity_file: PathBuf,
    /// A file with the token of a capability of this key, shown to every node. Relative to this
    /// file. Empty: none is shown.
    pub capability_file: PathBuf,
    /// The network and the way into it.
    pub network: NetworkSection,
    /// How objects are put.
    pub put: PutSection,
    /// The chain on which deals are made.
    pub chain: ChainConfig,
    /// Logs.
    pub log: LogSection,
}

/// The network and the way into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// The network's name; nodes of other networks are refused.
    pub name: String,
    /// Multiaddresses of nodes to start from, each ending in `/p2p/` and the peer id.
    pub bootstrap: Vec<String>,
    /// Use addresses of private networks and of this machine. Taken for granted when one of the
    /// bootstrap addresses is such an address.
    pub allow_private_addresses: bool,
}

/// How objects are put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PutSection {
    /// Data and parity shards of each stripe, as `k+m`.
    pub class: String,
    /// A put succeeds only if it survives the loss of any this many nodes.
    pub tolerate_nodes: usize,
    /// How long the pin lasts before it must be renewed.
    pub lease_secs: u64,
    /// An object of at most so many bytes lies in its manifest and has no shards.
    pub inline_bytes_max: u64,
    /// Objects are kept as copies if these take no more room than shards.
    pub replicate_small: bool,
    /// Stripes of zeros are noted in the manifest and have no shards.
    pub elide_zeros: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            identity_file: PathBuf::new(),
            capability_file: PathBuf::new(),
            network: NetworkSection::default(),
            put: PutSection::default(),
            chain: ChainConfig::default(),
            log: LogSection::at("warn"),
        }
    }
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self {
            name: DEFAULT_NETWORK.to_owned(),
            bootstrap: Vec::new(),
            allow_private_addresses: false,
        }
    }
}

impl Default for PutSection {
    fn default() -> Self {
        Self {
            class: "10+4".to_owned(),
            tolerate_nodes: 1,
            lease_secs: PIN_SECONDS_MAX,
            inline_bytes_max: 1024,
            replicate_small: true,
            elide_zeros: false,
        }
    }
}

impl Settings for ClientConfig {
    const HIDDEN: &'static [(&'static str, &'static str)] = &[];

    fn validate(&self) -> Result<(), Invalid> {
        self.dht().validate().map_err(|error| match error.field {
            "network" => Invalid::new("network.name", error.reason),
            field => Invalid::new(format!("network.{field}"), error.reason),
        })?;
        self.put.class()?;
        if !(1..=PIN_SECONDS_MAX).contains(&self.put.lease_secs) {
            let problem = "a pin lasts from 1s to 30days; renew it for longer";
            return Err(Invalid::new("put.lease_secs", problem));
        }
        if self.put.inline_bytes_max > INLINE_BYTES_MAX as u64 {
            let problem = format!("a manifest takes {INLINE_BYTES_MAX} bytes of an object at most");
            return Err(Invalid::new("put.inline_bytes_max", problem));
        }
        self.chain.validate().map_err(chain_invalid)?;
        self.log.validate()
    }

    fn resolve_paths(&mut self, directory: &Path) {
        for path in [&mut self.identity_file, &mut self.capability_file] {
            if !path.as_os_str().is_empty() {
                *path = directory.join(&*path);
            }
        }
        self.chain.key_file = directory.join(&self.chain.key_file);
    }
}

impl ClientConfig {
    /// The DHT's settings, complete: this client only asks.
    pub fn dht(&self) -> DhtConfig {
        let network = &self.network;
        DhtConfig {
            network: network.name.clone(),
            bootstrap: network.bootstrap.clone(),
            mode: Mode::Client,
            allow_private_addresses: network.allow_private_addresses || network.starts_privately(),
            ..DhtConfig::default()
        }
    }
}

impl NetworkSection {
    /// Whether a bootstrap address is of a private network or of this machine: whoever starts
    /// there means such a network.
    fn starts_privately(&self) -> bool {
        self.bootstrap.iter().any(|address| {
            let host = address.split('/').nth(2).and_then(|host| host.parse::<IpAddr>().ok());
            host.is_some_and(|host| match host.to_canonical() {
                IpAddr::V4(host) => host.is_loopback() || host.is_private() || host.is_link_local(),
                IpAddr::V6(host) => {
                    host.is_loopback() || host.is_unique_local() || host.is_unicast_link_local()
                }
            })
        })
    }
}

impl PutSection {
    /// The class as the object layer knows it.
    ///
    /// # Errors
    /// When the text is not two counts with a plus between them, or no code is that wide.
    pub fn class(&self) -> Result<Class, Invalid> {
        self.class.parse().map_err(|error| Invalid::new("put.class", error))
    }
}

#[cfg(test)]
mod tests {
    use super::ClientConfig;
    use crate::config::layers::Settings;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn starting_at(host: &str) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.network.bootstrap = vec![format!("{host}/tcp/30333/p2p/{PEER}")];
        config
    }

    #[test]
    fn a_private_start_means_a_private_network() {
        for host in ["/ip4/127.0.0.1", "/ip4/10.1.2.3", "/ip4/192.168.0.1", "/ip6/::1"] {
            let config = starting_at(host);
            assert!(config.dht().allow_private_addresses, "{host}");
            config.validate().expect("a usual development network");
        }
        for host in ["/ip4/8.8.8.8", "/dns4/seed.example.org", "/ip6/2606:4700::1"] {
            let config = starting_at(host);
            assert!(!config.dht().allow_private_addresses, "{host}");
            config.validate().expect("a usual network");
        }
    }

    #[test]
    fn a_class_and_a_lease_have_their_limits() {
        let mut config = ClientConfig::default();
        config.put.class = "10".to_owned();
        assert_eq!(config.validate().expect_err("no parity").key, "put.class");
        config.put.class = "4+2".to_owned();
        config.put.lease_secs = 31 * 24 * 3600;
        assert_eq!(config.validate().expect_err("too long").key, "put.lease_secs");
        config.put.lease_secs = 1;
        config.put.inline_bytes_max = 16 << 10;
        config.validate().expect("the most there may be");
        config.put.inline_bytes_max += 1;
        assert_eq!(config.validate().expect_err("too much").key, "put.inline_bytes_max");
    }
}
