// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cipher suites of our connections, and what a peer's certificate must be: the rules of the
//! libp2p TLS specification, the same for both ends.
//!
//! `libp2p_tls` checks certificates but offers ChaCha20-Poly1305 before anything else, and the
//! client's first offer is what is taken. Measured on a Xeon with AES instructions, packets of
//! 1400 bytes, processor time per GiB on each side: ChaCha20-Poly1305 0.76 s, AES-256-GCM 0.17 s,
//! AES-128-GCM 0.16 s; everything else that QUIC does costs about 0.9 s.

use std::sync::Arc;

use libp2p_tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};

/// The cryptography of our connections, the suite that is cheapest here first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        provider.cipher_suites.reverse();
    }
    Arc::new(provider)
}

/// Whether this processor has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Demands exactly one certificate that signs itself and carries a valid node identity.
#[derive(Debug)]
pub(crate) struct PeerVerifier;

impl PeerVerifier {
    fn check(
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(Error::General("a peer presents exactly one certificate".to_owned()));
        }
        certificate::parse(certificate)?;
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = certificate::parse(certificate)?;
        certificate.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// What a certificate's key may be, as the specification has it.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
        ]
    }

    /// QUIC has no TLS 1.2; a peer that gets here all the same breaks the rules.
    fn too_old() -> Error {
        PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use libp2p_identity::Keypair;
    use libp2p_tls::certificate;
    use rustls::CipherSuite;
    use rustls::pki_types::CertificateDer;

    use super::{PeerVerifier, has_aes, provider};

    #[test]
    fn a_peer_presents_one_certificate_that_holds() {
        let key = Keypair::generate_ed25519();
        let (whole, _) = certificate::generate(&key).expect("an Ed25519 key");
        PeerVerifier::check(&whole, &[]).expect("a certificate of our own making");
        PeerVerifier::check(&whole, from_ref(&whole)).expect_err("a chain");
        // The last bytes are the certificate's own signature.
        let mut forged = whole.to_vec();
        *forged.last_mut().expect("a certificate") ^= 1;
        PeerVerifier::check(&CertificateDer::from(forged), &[]).expect_err("a forged one");
    }

    #[test]
    fn the_cheapest_suite_is_offered_first_and_none_is_missing() {
        let offered: Vec<_> =
            provider().cipher_suites.iter().map(rustls::SupportedCipherSuite::suite).collect();
        let first = if has_aes() {
            CipherSuite::TLS13_AES_128_GCM_SHA256
        } else {
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        };
        assert_eq!(offered.first(), Some(&first));
        assert_eq!(offered.len(), 3);
    }
}
