// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a development chain begins: who owns what, as data that fits in a JSON file.
//!
//! The file `genesis.json` in a chain's directory is written once, when the chain is created. The
//! hash of block 0 follows from it alone, so two directories with equal files are the same chain
//! and a directory with another file is refused.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use codec::Encode;
use serde::{Deserialize, Serialize};
use sp_core::H256;
use sp_keyring::Sr25519Keyring;
use sp_runtime::traits::{BlakeTwo256, Hash as HashT};
use sp_runtime::{AccountId32, BuildStorage};
use supernode_pallet::types::Parameters;

use crate::runtime::{Balance, BlockNumber, RuntimeGenesisConfig, TOKEN};

/// Name of the file beside the log.
pub(crate) const GENESIS_FILE: &str = "genesis.json";

/// A genesis file larger than this is refused before it is read.
const GENESIS_FILE_BYTES_MAX: u64 = 64 << 20;

/// Longest name of a chain.
const NAME_BYTES_MAX: usize = 128;

/// What each well-known account owns by default, in tokens.
const DEVELOPMENT_TOKENS: Balance = 1_000_000;

/// The beginning of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Name that `system_chain` tells. It is part of block 0: chains of different names differ.
    pub name: String,
    /// Owners and what they own, in the smallest unit. An account may stand here once.
    pub balances: Vec<(AccountId32, Balance)>,
    /// Prices and periods of the pallet; on this chain nothing changes them later.
    pub parameters: Parameters<Balance, BlockNumber>,
}

impl Default for Genesis {
    /// The well-known development accounts, Alice to Ferdie, with a million tokens each.
    fn default() -> Self {
        let accounts = [
            Sr25519Keyring::Alice,
            Sr25519Keyring::Bob,
            Sr25519Keyring::Charlie,
            Sr25519Keyring::Dave,
            Sr25519Keyring::Eve,
            Sr25519Keyring::Ferdie,
        ];
        let balances = accounts
            .into_iter()
            .map(|account| (account.to_account_id(), DEVELOPMENT_TOKENS * TOKEN))
            .collect();
        Self {
            name: "Supernode Development".to_owned(),
            balances,
            parameters: Parameters::default(),
        }
    }
}

/// A key of the state and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// Why a genesis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The file could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a genesis.
    #[error("{} is not a genesis file: {reason}; fix it or use another directory", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The content makes no chain.
    #[error("the genesis makes no chain: {reason}")]
    Impossible {
        /// What to change.
        reason: String,
    },
}

impl Genesis {
    /// Reads the genesis of the chain in `dir`; `None` if there is no chain yet.
    pub fn read(dir: &Path) -> Result<Option<Self>, GenesisError> {
        let path = dir.join(GENESIS_FILE);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(GenesisError::Io { path, source }),
        };
        if length > GENESIS_FILE_BYTES_MAX {
            let reason = format!("it is longer than {GENESIS_FILE_BYTES_MAX} bytes");
            return Err(GenesisError::Malformed { path, reason });
        }
        let text =
            fs::read(&path).map_err(|source| GenesisError::Io { path: path.clone(), source })?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| GenesisError::Malformed { path, reason: error.to_string() })
    }

    /// Writes the file so that it is either whole or not there.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), GenesisError> {
        let path = dir.join(GENESIS_FILE);
        let draft = dir.join("genesis.json.new");
        let text = serde_json::to_vec_pretty(self).expect("a genesis is plain data");
        let write = || {
            let mut file = fs::File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|source| GenesisError::Io { path: path.clone(), source })
    }

    /// A digest of the data itself; block 0 has the hash that follows from it.
    pub(crate) fn digest(&self) -> H256 {
        BlakeTwo256::hash(&serde_json::to_vec(self).expect("a genesis is plain data"))
    }

    /// The key-value pairs of block 0.
    pub(crate) fn storage(&self) -> Result<Vec<Pair>, GenesisError> {
        self.check()?;
        let config = RuntimeGenesisConfig {
            balances: pallet_balances::GenesisConfig {
                balances: self.balances.clone(),
                ..Default::default()
            },
            supernode: supernode_pallet::GenesisConfig { parameters: self.parameters.clone() },
            ..Default::default()
        };
        let storage =
            config.build_storage().map_err(|reason| GenesisError::Impossible { reason })?;
        // The name is a fact of the state, under a key no pallet can have: `:` starts well-known
        // keys.
        let name = (b":supernode:name".to_vec(), self.name.encode());
        Ok(storage.top.into_iter().chain([name]).collect())
    }

    /// The builder of the storage panics on these; here they are errors.
    fn check(&self) -> Result<(), GenesisError> {
        let impossible = |reason: String| Err(GenesisError::Impossible { reason });
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return impossible(format!("the name must have 1 to {NAME_BYTES_MAX} bytes"));
        }
        let mut accounts: Vec<_> = self.balances.iter().map(|(account, _)| account).collect();
        accounts.sort();
        if let Some(twice) = accounts.windows(2).find(|pair| pair[0] == pair[1]) {
            return impossible(format!("{} stands twice in balances; name it once", twice[0]));
        }
        if let Some((account, _)) = self.balances.iter().find(|(_, balance)| *balance == 0) {
            return impossible(format!(
                "{account} owns nothing; give it at least 1 or leave it out"
            ));
        }
        let total = self.balances.iter().try_fold(0u128, |sum, (_, own)| sum.checked_add(*own));
        if !self.parameters.are_valid() {
            return impossible("the parameters contradict each other".to_owned());
        }
        if total.is_none() {
            return impossible("the balances add up to more than 2^128".to_owned());
        }
        Ok(())
    }
}

/// Root of an empty list of extrinsics, which block 0 has.
pub(crate) fn no_extrinsics_root() -> H256 {
    BlakeTwo256::ordered_trie_root(Vec::new(), sp_core::storage::StateVersion::V1)
}
