// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which chain, over which endpoints, with which key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::shown;

/// Endpoints at most: each is a connection that is kept.
const ENDPOINTS_MAX: usize = 8;

/// The chain's settings; without endpoints there is no chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainConfig {
    /// WebSocket addresses of JSON-RPC endpoints, the one to work with first. The others have to
    /// agree before anything is deleted. `ws://` is for this machine only.
    pub endpoints: Vec<String>,
    /// Hash of block 0, `0x` and 64 hex digits. A chain of another one is refused.
    pub genesis: String,
    /// File with the secret that signs transactions, readable by its owner alone.
    pub key_file: PathBuf,
    /// How long one question may take.
    pub request_timeout_secs: u64,
    /// Heads are asked for at least this often, also when no stream says that there are new ones.
    pub heartbeat_secs: u64,
    /// How long a transaction may take until it is in a block.
    pub inclusion_timeout_secs: u64,
    /// Blocks after which a transaction that is in none never will be; a power of two.
    pub mortal_blocks: u64,
    /// How long a block of this chain takes: turns a duration that a person names into blocks.
    pub block_millis: u64,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            genesis: String::new(),
            key_file: PathBuf::from("chain.key"),
            request_timeout_secs: 15,
            heartbeat_secs: 6,
            inclusion_timeout_secs: 90,
            mortal_blocks: 64,
            block_millis: 6000,
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}")]
pub struct ConfigError {
    /// Which.
    pub key: &'static str,
    /// What is wrong, and what to write.
    pub problem: String,
}

impl ChainConfig {
    /// Whether there is a chain at all.
    pub fn is_configured(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Checks every setting; without endpoints the others do not matter.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError { key, problem });
        if !self.is_configured() {
            return Ok(());
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return bad("endpoints", format!("are more than {ENDPOINTS_MAX}; name the best"));
        }
        for (position, url) in self.endpoints.iter().enumerate() {
            match line_of(url) {
                Line::Private => {}
                Line::Clear => {
                    return bad(
                        "endpoints",
                        format!("has {} in the clear; write wss://", shown(url)),
                    );
                }
                Line::None => {
                    return bad(
                        "endpoints",
                        format!("has {:?}; write ws://… or wss://…", shown(url)),
                    );
                }
            }
            if self.endpoints[..position].contains(url) {
                return bad("endpoints", format!("has {} twice; two voices, not one", shown(url)));
            }
        }
        let periods = [
            ("request_timeout_secs", self.request_timeout_secs),
            ("heartbeat_secs", self.heartbeat_secs),
            ("inclusion_timeout_secs", self.inclusion_timeout_secs),
        ];
        if let Some((key, _)) = periods.into_iter().find(|(_, secs)| !(1..=3600).contains(secs)) {
            return bad(key, "must be 1s to 1h".to_owned());
        }
        if !self.mortal_blocks.is_power_of_two() || !(4..=65_536).contains(&self.mortal_blocks) {
            return bad("mortal_blocks", "must be a power of two from 4 to 65536".to_owned());
        }
        if !(10..=600_000).contains(&self.block_millis) {
            return bad("block_millis", "must be 10ms to 10min".to_owned());
        }
        self.genesis_hash().map(drop)
    }

    /// The genesis hash as bytes.
    ///
    /// # Errors
    /// When it is not written as one.
    pub fn genesis_hash(&self) -> Result<[u8; 32], ConfigError> {
        let digits = self.genesis.strip_prefix("0x").unwrap_or(&self.genesis);
        let mut bytes = [0; 32];
        let whole = digits.len() == 64 && digits.is_ascii();
        let fill = |(position, byte): (usize, &mut u8)| {
            let pair = digits.get(position * 2..position * 2 + 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).map(|value| *byte = value)
        };
        if whole && bytes.iter_mut().enumerate().all(|place| fill(place).is_some()) {
            return Ok(bytes);
        }
        let problem = format!(
            "is {:?}; write the hash of block 0 as 0x and 64 hex digits, so that no other chain is \
             ever believed",
            self.genesis
        );
        Err(ConfigError { key: "genesis", problem })
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_secs)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_secs)
    }

    pub(crate) fn inclusion_timeout(&self) -> Duration {
        Duration::from_secs(self.inclusion_timeout_secs)
    }
}

/// Who can listen on the way to an address.
enum Line {
    /// Nobody: it is encrypted, or does not leave this machine.
    Private,
    /// Anybody on the way.
    Clear,
    /// It is no address of an endpoint.
    None,
}

fn line_of(url: &str) -> Line {
    if url.strip_prefix("wss://").is_some_and(|rest| !rest.is_empty()) {
        return Line::Private;
    }
    let Some(rest) = url.strip_prefix("ws://") else { return Line::None };
    let authority = rest.split('/').next().unwrap_or_default();
    let is_loopback = match authority.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => authority.split(':').next() == Some("localhost"),
    };
    if is_loopback { Line::Private } else { Line::Clear }
}

#[cfg(test)]
mod tests {
    use super::ChainConfig;

    fn config(endpoints: &[&str], genesis: &str) -> ChainConfig {
        ChainConfig {
            endpoints: endpoints.iter().map(|url| (*url).to_owned()).collect(),
            genesis: genesis.to_owned(),
            ..ChainConfig::default()
        }
    }

    #[test]
    fn without_endpoints_nothing_is_asked_for() {
        assert_eq!(config(&[], "").validate(), Ok(()));
    }

    #[test]
    fn the_genesis_is_pinned_and_the_line_is_encrypted_or_local() {
        let genesis = format!("0x{}", "ab".repeat(32));
        let good = config(
            &["ws://127.0.0.1:9944", "ws://localhost:1/x", "ws://[::1]:2", "wss://c.example"],
            &genesis,
        );
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.genesis_hash().expect("64 digits"), [0xab; 32]);
        for (endpoints, genesis, word) in [
            (&["ws://127.0.0.1:9944"][..], "", "genesis"),
            (&["ws://127.0.0.1:9944"], "0x12", "genesis"),
            (&["ws://127.0.0.1:9944"], &"zz".repeat(32), "genesis"),
            (&["ws://chain.example"], &genesis, "clear"),
            (&["http://127.0.0.1:1"], &genesis, "ws://"),
            (&["nonsense"], &genesis, "ws://"),
            (&["ws://"], &genesis, "clear"),
            (&["ws://user@127.0.0.1:1"], &genesis, "clear"),
            (&["ws://127.0.0.1:1", "ws://127.0.0.1:1"], &genesis, "twice"),
        ] {
            let error = config(endpoints, genesis).validate().expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
