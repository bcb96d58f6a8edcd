// SPDX-License-Identifier: MIT OR Apache-2.0
//! The identity: an Ed25519 key in a file, which is the name of a node or a client.
//!
//! - The file holds the key in libp2p's protobuf encoding, mode 0600. It is created once, never
//!   overwritten, and never generated on the fly for a node: a node with a new key is a new node.
//! - A file that others can read is refused: whoever reads it can be the node.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libp2p_identity::Keypair;
use supernode_protocol::ids::NodeId;

/// An identity file that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("there is no identity file {path}; `supernode init` creates one")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// One is there already.
    #[error("identity file {path} exists and is never overwritten; move it away to get a new one")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error(
        "identity file {path} has mode {mode:04o}, so others can read the key; run \
         `chmod 600 {path}`"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("identity file {path} holds no Ed25519 key ({reason}); restore it from a backup")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("identity file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A key and the name it gives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Signs and authenticates.
    pub keypair: Keypair,
    /// The public half: what others know.
    pub node: NodeId,
}

/// Keys are a few dozen bytes; a file longer than this is something else.
const FILE_BYTES_MAX: u64 = 4096;

impl Identity {
    /// A key that nobody has seen before.
    pub fn generate() -> Self {
        let keypair = Keypair::generate_ed25519();
        let node = NodeId::from_public(&keypair.public()).expect("the key is Ed25519");
        Self { keypair, node }
    }

    /// Generates a key and writes it to a new file, durably, readable by its owner only.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] when there is a file already, or what the file system says.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let identity = Self::generate();
        let encoded = identity.keypair.to_protobuf_encoding().map_err(|error| {
            IdentityError::Malformed { path: path.to_owned(), reason: error.to_string() }
        })?;
        write_new(path, &encoded).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.to_owned() },
            _ => IdentityError::Io { path: path.to_owned(), source },
        })?;
        Ok(identity)
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// When the file is missing, readable by others or no key.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
            _ => IdentityError::Io { path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(io)?;
        // Asked of the open file, so that what is checked is what is read.
        let metadata = file.metadata().map_err(io)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut encoded = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut encoded).map_err(io)?;
        decode(&encoded)
            .map_err(|reason| IdentityError::Malformed { path: path.to_owned(), reason })
    }
}

fn decode(encoded: &[u8]) -> Result<Identity, String> {
    let keypair = Keypair::from_protobuf_encoding(encoded).map_err(|error| error.to_string())?;
    let node = NodeId::from_public(&keypair.public()).map_err(|error| error.reason)?;
    Ok(Identity { keypair, node })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // A umask can only take bits away; this gives back what it took from the owner.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Identity, IdentityError};

    #[test]
    fn a_key_is_kept_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("identity.key");
        let made = Identity::create(&path).expect("a fresh directory");
        assert_eq!(fs::metadata(&path).expect("just made").permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::load(&path).expect("just made").node, made.node);
        let error = Identity::create(&path).expect_err("it exists");
        assert!(matches!(error, IdentityError::Exists { .. }), "{error}");
        assert_eq!(Identity::load(&path).expect("untouched").node, made.node);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("identity.key");
        Identity::create(&path).expect("a fresh directory");
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
            let error = Identity::load(&path).expect_err("others can read it").to_string();
            let path = path.display().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
            assert!(error.contains(&format!("chmod 600 {path}")), "{error}");
        }
    }

    #[test]
    fn other_files_are_no_keys() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let missing = Identity::load(&dir.path().join("none")).expect_err("not there");
        assert!(matches!(missing, IdentityError::Missing { .. }));
        for content in [&b""[..], b"-----BEGIN PRIVATE KEY-----", &[0; 8192]] {
            let path = dir.path().join("identity.key");
            fs::write(&path, content).expect("own directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
            let error = Identity::load(&path).expect_err("no key");
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
        }
    }
}
