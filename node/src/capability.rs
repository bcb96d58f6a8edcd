// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities as files: one token, which a client shows to every node.
//!
//! What a node would refuse for what it says (to whom it was given, for which network and until
//! when) is refused here, before any node is asked. Whether its issuer is trusted, only nodes know.
//! The text of a token is in no error: it is a grant to one identity, and nobody else's business.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use supernode_protocol::capability::{Capability, CapabilityError, TOKEN_CHARS_MAX, TokenError};
use supernode_protocol::ids::NodeId;
use supernode_protocol::signed::{SignatureError, Signed};

/// A capability file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityFileError {
    /// It cannot be read.
    #[error("capability file {path}: {source}; its issuer's `supernode capability sign` makes one")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("capability file {path} holds no capability ({source}); ask its issuer for it again")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// Somebody has changed it.
    #[error("capability file {path}: {source}; ask its issuer for it again")]
    Forged {
        /// Which file.
        path: PathBuf,
        /// Whose signature it should be.
        source: SignatureError,
    },
    /// It is worth nothing to this client, here and now.
    #[error("capability file {path}: {source}")]
    Worthless {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CapabilityError,
    },
}

/// Reads the token in a file, without looking at its signature. White space around it is left out.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read(path: &Path) -> Result<Signed<Capability>, CapabilityFileError> {
    let io = |source| CapabilityFileError::Io { path: path.to_owned(), source };
    // Of a longer file as much as tells that it is too long.
    let bytes_max = u64::try_from(TOKEN_CHARS_MAX).unwrap_or(u64::MAX) + 64;
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut text)).map_err(io)?;
    // What is no text is no token either.
    let text = String::from_utf8_lossy(&text);
    Signed::from_token(text.trim())
        .map_err(|source| CapabilityFileError::Malformed { path: path.to_owned(), source })
}

/// Reads a capability that `client` can show on `network` at `now`, seconds since the Unix epoch.
///
/// # Errors
/// When the file cannot be read, or what it holds is worth nothing there.
pub fn load(
    path: &Path,
    client: NodeId,
    network: &str,
    now: u64,
) -> Result<Signed<Capability>, CapabilityFileError> {
    let signed = read(path)?;
    let forged = |source| CapabilityFileError::Forged { path: path.to_owned(), source };
    let worthless = |source| CapabilityFileError::Worthless { path: path.to_owned(), source };
    signed.verify().map_err(forged)?.check(client, network, now).map_err(worthless)?;
    Ok(signed)
}

/// Seconds since the Unix epoch. A clock before it is at it: what nodes say then is final.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use supernode_protocol::capability::{Capability, CapabilityError, ClientClass, Scope};
    use supernode_protocol::ids::NodeId;
    use supernode_protocol::signed::Signed;

    use super::{CapabilityFileError, load};
    use crate::identity::Identity;

    const CLIENT: NodeId = NodeId::from_bytes([7; 32]);

    fn signed(issuer: &Identity) -> Signed<Capability> {
        let capability = Capability {
            issuer: issuer.node,
            audience: CLIENT,
            network: "main".to_owned(),
            class: ClientClass::Relay,
            scope: Scope { read: true, write: false },
            bytes: 1 << 40,
            expires_at: 1000,
        };
        Signed::sign(capability, &issuer.keypair).expect("own key")
    }

    fn refused(path: &Path, client: NodeId, network: &str, now: u64) -> CapabilityFileError {
        let error = load(path, client, network, now).expect_err("of no use");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        error
    }

    #[test]
    fn a_file_counts_for_its_client_on_its_network_until_it_ends() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("grant");
        let signed = signed(&Identity::generate());
        fs::write(&path, format!("  {}\n\n", signed.token())).expect("own directory");
        assert_eq!(load(&path, CLIENT, "main", 999).expect("all is right"), signed);
        let stranger = NodeId::from_bytes([8; 32]);
        for (client, network, now, why) in [
            (stranger, "main", 999, CapabilityError::Audience),
            (CLIENT, "test", 999, CapabilityError::Network),
            (CLIENT, "main", 1000, CapabilityError::Expired),
        ] {
            let error = refused(&path, client, network, now);
            let is_right = matches!(&error, CapabilityFileError::Worthless { source, .. }
                if *source == why);
            assert!(is_right, "{error}");
        }
    }

    #[test]
    fn what_is_no_capability_is_told_without_showing_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("grant");
        let error = refused(&path, CLIENT, "main", 0);
        assert!(matches!(error, CapabilityFileError::Io { .. }), "{error}");
        let token = signed(&Identity::generate()).token();
        // The last character but one is of the signature; the last one has bits that must be 0.
        let mut forged = token.clone().into_bytes();
        let place = forged.len() - 2;
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        fs::write(&path, &forged).expect("own directory");
        let error = refused(&path, CLIENT, "main", 0);
        assert!(matches!(error, CapabilityFileError::Forged { .. }), "{error}");
        let long = format!("{token}{}", "A".repeat(1 << 20));
        for content in [&token.as_bytes()[1..], b"", b"\xff\xfe", long.as_bytes()] {
            fs::write(&path, content).expect("own directory");
            let error = refused(&path, CLIENT, "main", 0);
            assert!(matches!(error, CapabilityFileError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains(&token[1..40]), "{error}");
        }
    }
}
