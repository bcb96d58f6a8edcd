// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands that speak to the chain have in common: the connection, the key, and how people
//! write durations and money.

use std::path::Path;
use std::time::Duration;

use supernode_chain::{Account, Chain, ChainConfig, ChainError, KeyError, SecretKey, TxError};

use super::runtime;
use crate::exit::{Exit, Failure};

/// How long the chain may take to be connected.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// What a person calls a number of blocks.
const BLOCKS_SUFFIX: &str = "blocks";

/// Runs `work` on the configured chain, once it is known to be the right one.
pub fn with_chain<T, F>(config: &ChainConfig, work: impl FnOnce(Chain) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let chain = open(config).await?;
        let done = work(chain.clone()).await;
        chain.close();
        done
    });
    runtime.shutdown_background();
    done
}

/// The configured chain, connected.
pub async fn open(config: &ChainConfig) -> Result<Chain, Failure> {
    if !config.is_configured() {
        return Err(Failure::usage(
            "no chain is configured; name chain.endpoints and chain.genesis",
        ));
    }
    let chain = Chain::start(config.clone()).map_err(|error| Failure::of(Exit::Usage, &error))?;
    chain.ready(READY_TIMEOUT).await?;
    Ok(chain)
}

/// The account of a key file.
pub fn account(chain: &Chain, key_file: &Path) -> Result<Account, Failure> {
    let key = SecretKey::read(key_file)?;
    Ok(Account::start(chain.clone(), key))
}

/// A duration as people write it, in blocks: `30days` by the configured block time, or
/// `1000blocks`.
pub fn blocks(text: &str, config: &ChainConfig) -> Result<u32, Failure> {
    let bad = |problem: &str| {
        Failure::usage(format_args!(
            "{text:?} {problem}; write a time such as 30days or blocks such as 1000blocks"
        ))
    };
    let count = match text.strip_suffix(BLOCKS_SUFFIX) {
        Some(count) => count.trim().parse::<u128>().map_err(|_| bad("is no duration"))?,
        None => {
            let time = humantime::parse_duration(text).map_err(|_| bad("is no duration"))?;
            time.as_millis().div_ceil(u128::from(config.block_millis))
        }
    };
    match u32::try_from(count) {
        Ok(0) => Err(bad("is no time at all")),
        Ok(count) => Ok(count),
        Err(_) => Err(bad("is longer than a chain counts")),
    }
}

/// The price cap under which so many bytes for so many blocks cost at most this much. Prices on
/// chain are per GiB and block, and costs are rounded up.
pub fn price_cap(cost_max: Option<u128>, bytes: u64, duration: u32) -> u128 {
    let Some(cost_max) = cost_max else { return u128::MAX };
    let byte_blocks = u128::from(bytes) * u128::from(duration);
    cost_max.saturating_mul(1 << 30).checked_div(byte_blocks).unwrap_or(u128::MAX)
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        let exit = match error {
            ChainError::NoSuchBlock { .. } => Exit::NotFound,
            ChainError::ForeignGenesis { .. } | ChainError::ForeignRuntime { .. } => Exit::Usage,
            ChainError::Unreachable { .. } | ChainError::Malformed { .. } => Exit::Failed,
        };
        Self::of(exit, &error)
    }
}

impl From<TxError> for Failure {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Chain(error) => error.into(),
            TxError::Refused { .. } | TxError::NotAccepted { .. } => {
                Self::of(Exit::Refused, &error)
            }
            TxError::Unknown { .. } | TxError::Stopped => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

#[cfg(test)]
mod tests {
    use supernode_chain::ChainConfig;

    use super::{blocks, price_cap};

    #[test]
    fn a_cap_on_the_cost_is_a_cap_on_the_price() {
        let cost = |price: u128, bytes: u64, blocks: u32| {
            (price * u128::from(bytes) * u128::from(blocks)).div_ceil(1 << 30)
        };
        for (cost_max, bytes, duration) in [(1, 3 << 20, 72), (500, 7, 1_000_000), (10, 1 << 40, 9)]
        {
            let cap = price_cap(Some(cost_max), bytes, duration);
            assert!(cost(cap, bytes, duration) <= cost_max);
            assert!(cost(cap + 1, bytes, duration) > cost_max, "the largest such price");
        }
        assert_eq!(price_cap(None, 1, 1), u128::MAX);
    }

    #[test]
    fn durations_are_times_or_blocks() {
        let config = ChainConfig { block_millis: 6000, ..ChainConfig::default() };
        let count = |text| blocks(text, &config).map_err(|failure| failure.to_string());
        assert_eq!(count("1h"), Ok(600));
        assert_eq!(count("7s"), Ok(2), "never shorter than was asked for");
        assert_eq!(count("1000blocks"), Ok(1000));
        assert_eq!(count("1000 blocks"), Ok(1000));
        for text in ["", "blocks", "-1blocks", "soon", "0blocks", "0s", "99999999999blocks"] {
            let said = count(text).expect_err(text);
            assert!(said.contains("such as"), "{said}");
        }
    }
}
