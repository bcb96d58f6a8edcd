// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that prove who wrote them.
//!
//! A [`Signed`] value carries a body and an Ed25519 signature over
//! `domain || 0x00 || postcard(body)`. The domain separates record kinds, so that a signature
//! under one can never be shown as another. The signer is named inside the body, and that name is
//! its public key: nothing else is needed to verify.

use libp2p_identity::Keypair;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// A body that can be signed: it says under which domain and by whom.
pub trait SignedBody: Serialize + DeserializeOwned {
    /// Separates this kind of record from every other; ends with its version.
    const DOMAIN: &'static str;

    /// The key that must have signed.
    fn signer(&self) -> NodeId;
}

/// A signature that does not hold, or a record that cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature does not match body and signer.
    #[error("the signature of {domain} by {signer} does not hold; drop the record")]
    Mismatch {
        /// The record kind.
        domain: &'static str,
        /// Who was said to have signed.
        signer: NodeId,
    },
    /// The key at hand is not the one the body names.
    #[error("the body names {named} as signer, the key at hand belongs to {actual}")]
    WrongKey {
        /// The signer inside the body.
        named: NodeId,
        /// The owner of the key.
        actual: NodeId,
    },
    /// Only Ed25519 keys sign here.
    #[error("the identity key is no Ed25519 key; create one with `supernode init`")]
    KeyType,
}

/// A body whose signature holds. Decoding does not check it; [`Signed::verify`] does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T: SignedBody> {
    body: T,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

impl<T: SignedBody> Signed<T> {
    /// Signs `body` with the key it names.
    ///
    /// # Errors
    /// When the key is another one than the body's signer, or no Ed25519 key.
    pub fn sign(body: T, key: &Keypair) -> Result<Self, SignatureError> {
        let actual = NodeId::from_public(&key.public()).map_err(|_| SignatureError::KeyType)?;
        if actual != body.signer() {
            return Err(SignatureError::WrongKey { named: body.signer(), actual });
        }
        let signature = key.sign(&message(&body)).map_err(|_| SignatureError::KeyType)?;
        Ok(Self { body, signature })
    }

    /// Checks the signature and hands out the body.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`] when it was not made by the signer over this body.
    pub fn verify(&self) -> Result<&T, SignatureError> {
        let signer = self.body.signer();
        let holds =
            signer.public_key().is_ok_and(|key| key.verify(&message(&self.body), &self.signature));
        if holds {
            Ok(&self.body)
        } else {
            Err(SignatureError::Mismatch { domain: T::DOMAIN, signer })
        }
    }

    /// The body as received; callers that act on it use [`Self::verify`].
    pub fn body_unverified(&self) -> &T {
        &self.body
    }

    /// The canonical encoding, as sent and stored.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a record in memory has an encoding")
    }

    /// Decodes one record and checks its signature. Trailing bytes are an error.
    ///
    /// # Errors
    /// Says whether the bytes or the signature are at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, SignedDecodeError> {
        let record = Self::decode_unverified(bytes)?;
        record.verify()?;
        Ok(record)
    }

    /// Decodes one record for whoever looks at its signature later, or shows that it does not
    /// hold. Trailing bytes are an error.
    ///
    /// # Errors
    /// [`SignedDecodeError::Malformed`].
    pub fn decode_unverified(bytes: &[u8]) -> Result<Self, SignedDecodeError> {
        let (record, rest) = postcard::take_from_bytes::<Self>(bytes)
            .map_err(|_| SignedDecodeError::Malformed { domain: T::DOMAIN })?;
        if !rest.is_empty() {
            return Err(SignedDecodeError::Malformed { domain: T::DOMAIN });
        }
        Ok(record)
    }
}

/// Bytes that are no valid signed record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedDecodeError {
    /// Not an encoding of this record kind.
    #[error("these bytes are no {domain} record")]
    Malformed {
        /// The record kind that was expected.
        domain: &'static str,
    },
    /// Well formed, and signed by nobody who could have.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

fn message<T: SignedBody>(body: &T) -> Vec<u8> {
    let mut message = T::DOMAIN.as_bytes().to_vec();
    message.push(0);
    postcard::to_extend(body, message).expect("a record in memory has an encoding")
}
