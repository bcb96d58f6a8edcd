// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS 1.3 in which both ends prove their node identity.
//!
//! Each process makes one certificate at its start. Its key is ephemeral; an extension carries
//! the node's public key and a signature by it over the certificate's key (the libp2p TLS
//! specification). There is no authority: the peer id *is* the name. Three defaults are switched
//! off on purpose: session keys are never written to a file, early data is never accepted because
//! it can be replayed, and sessions are never resumed because all peers answer to one TLS name
//! and would share one another's tickets.

use std::sync::Arc;

use libp2p_identity::Keypair;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::NoKeyLog;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use supernode_protocol::ids::{NodeId, ParseIdError};
use supernode_protocol::wire::ALPN;

use crate::verifier::{PeerVerifier, provider};

/// The TLS server name to dial with. Servers ignore it; it says nothing about the peer.
pub const SERVER_NAME: &str = "l";

const SUITES: &str = "the suites are those of TLS 1.3";

/// Why TLS cannot be set up, or a peer has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("no TLS certificate can be made from the identity key: {0}")]
    Certificate(#[from] libp2p_tls::certificate::GenError),
    /// The cipher suite that QUIC starts with is missing from the build.
    #[error("the TLS provider lacks the cipher suite that QUIC starts with: {0}")]
    Cipher(#[from] NoInitialCipherSuite),
    /// The identity key is of a type that names no node.
    #[error("the identity key is no Ed25519 key; create one with `supernode init`")]
    KeyType,
    /// The peer sent no certificate, or one without a valid identity.
    #[error("the peer's certificate carries no valid identity: {reason}")]
    Peer {
        /// What is wrong with it.
        reason: String,
    },
}

/// The server's side: clients without an identity do not get past the handshake.
///
/// # Errors
/// When no certificate can be made from `identity`.
pub fn server_config(identity: &Keypair) -> Result<quinn::ServerConfig, TlsError> {
    let made = libp2p_tls::make_server_config(identity)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUITES)
        .with_client_cert_verifier(Arc::new(PeerVerifier))
        .with_cert_resolver(made.cert_resolver);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.key_log = Arc::new(NoKeyLog);
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}

/// The client's side. It accepts any node: the dialler compares [`peer_of`] with whom it meant.
///
/// # Errors
/// When no certificate can be made from `identity`.
pub fn client_config(identity: &Keypair) -> Result<quinn::ClientConfig, TlsError> {
    let made = libp2p_tls::make_client_config(identity, None)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUITES)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier))
        .with_client_cert_resolver(made.client_auth_cert_resolver);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.key_log = Arc::new(NoKeyLog);
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

/// Who is at the other end of an established connection.
///
/// # Errors
/// [`TlsError::Peer`] when the certificate names nobody of ours.
pub fn peer_of(connection: &quinn::Connection) -> Result<NodeId, TlsError> {
    let fail = |reason: &str| TlsError::Peer { reason: reason.to_owned() };
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| fail("it sent none"))?;
    let [certificate] = certificates.as_slice() else {
        return Err(fail("it sent a chain instead of one certificate"));
    };
    let certificate = libp2p_tls::certificate::parse(certificate)
        .map_err(|error| fail(&format!("it does not verify: {error}")))?;
    NodeId::from_peer_id(&certificate.peer_id())
        .map_err(|error: ParseIdError| fail(&error.to_string()))
}
