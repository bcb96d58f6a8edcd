// SPDX-License-Identifier: MIT OR Apache-2.0
//! The secret that signs transactions, in a file that nobody else can read.
//!
//! The file holds one line: `0x` and the 64 hex digits of an sr25519 seed, or a secret phrase with
//! optional derivation (`//Alice`). No error, log line or `Debug` output shows any of it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use subxt_signer::sr25519::Keypair;
use subxt_signer::{SecretString, SecretUri};

/// A key file longer than this is none.
const FILE_BYTES_MAX: u64 = 4096;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot read the chain key {}: {source}; `supernode chain key` makes one",
            path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new file could not be made.
    #[error("cannot make the chain key {}: {source}; a key that exists is never replaced",
            path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the chain key {} can be read by others (mode {mode:o}); chmod 600 it", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a secret.
    #[error("{} holds no key: write 0x and 64 hex digits, or a secret phrase, on one line",
            path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
    },
}

/// A key pair whose secret never shows.
#[derive(Clone)]
pub struct SecretKey(Keypair);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.address())
    }
}

/// An account as people write it (SS58, generic prefix 42).
pub fn address(account: [u8; 32]) -> String {
    subxt::config::substrate::AccountId32(account).to_string()
}

impl SecretKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it is not there, open to others, or holds no secret.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        Self::parse(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    /// Writes a new file with a new secret from the operating system.
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        let filled = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
        filled.map_err(|source| KeyError::Create { path: path.to_owned(), source })?;
        Self::create(path, seed)
    }

    /// Writes a new file with this secret.
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn create(path: &Path, seed: [u8; 32]) -> Result<Self, KeyError> {
        let io = |source| KeyError::Create { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "0x{digits}").and_then(|()| file.sync_all()).map_err(io)?;
        Self::from_seed(seed).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    /// The key of a seed; `None` for the few byte strings that are none.
    pub fn from_seed(seed: [u8; 32]) -> Option<Self> {
        Keypair::from_secret_key(seed).ok().map(Self)
    }

    fn parse(text: &str) -> Option<Self> {
        let uri = SecretUri::from_str(text).ok()?;
        // An empty phrase means the well-known development phrase; only a derivation asks for it.
        if text.is_empty() {
            return None;
        }
        Keypair::from_uri(&uri).ok().map(Self)
    }

    /// The account: its public key.
    pub fn account(&self) -> [u8; 32] {
        self.0.public_key().0
    }

    /// The account as people write it.
    pub fn address(&self) -> String {
        address(self.account())
    }

    pub(crate) fn pair(&self) -> &Keypair {
        &self.0
    }
}

/// Keeps the type that carries secrets in the signer's own hands.
const _: fn(SecretString) = drop;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::{KeyError, SecretKey};

    const CANARY: [u8; 32] = [0x5a; 32];

    #[test]
    fn a_key_file_is_read_back_and_never_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("chain.key");
        let made = SecretKey::create(&path, CANARY).expect("a new file");
        let read = SecretKey::read(&path).expect("what was written");
        assert_eq!(made.account(), read.account());
        assert!(matches!(SecretKey::create(&path, CANARY), Err(KeyError::Create { .. })));
        let shown = format!("{read:?} {read:#?}");
        assert!(!shown.contains("5a5a"), "{shown}");
        assert!(shown.contains(&read.address()), "{shown}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("chain.key");
        SecretKey::create(&path, CANARY).expect("a new file");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("own file");
        let error = SecretKey::read(&path).expect_err("open to the group");
        assert!(error.to_string().contains("640") && error.to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_repeating_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for (number, text) in ["", "0x5a5a", "correct horse battery staple"].iter().enumerate() {
            let path = dir.path().join(format!("{number}.key"));
            fs::write(&path, text).expect("a new file");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("own file");
            let error = SecretKey::read(&path).expect_err("no key").to_string();
            assert!(error.contains("holds no key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_phrase_with_a_derivation_is_a_key() {
        let alice = SecretKey::parse("//Alice").expect("the development phrase, derived");
        assert_eq!(alice.address(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
    }
}
