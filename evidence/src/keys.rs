//! An agent's signing key and its public half.
//!
//! The key is 32 random bytes in a file of mode 0600 that the agent writes once and never sends
//! anywhere; the public key goes to the collector at enrolment. One signature covers a whole block
//! (about 36 µs a block, against a microsecond for each event's leaf), never a single event.

#[cfg(feature = "fs")]
mod files;

use custody_event::block::SIGNATURE_CONTEXT;
use custody_event::ids::parse_hex;
use custody_event::{AgentId, Block, Digest, Header, KeyId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::note::{KeyType, NoteKey, VerifierKey};

#[cfg(feature = "fs")]
pub use files::{KeyError, load_or_create_secret};

/// An agent's signing key. Its secret half is never shown, not even by `Debug`.
pub struct AgentKey {
    key: SigningKey,
    id: KeyId,
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgentKey({})", self.id)
    }
}

impl AgentKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(secret);
        Self { id: key_id(&key.verifying_key()), key }
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// Signs a block's header.
    pub fn sign(&self, block: &mut Block) {
        let signature = self.key.sign(&block.signed_bytes());
        block.sign(signature.to_bytes());
    }

    /// The same key as a witness of logs, under its agent's name: cosignatures say in their
    /// beginning what they are, and so do signed headers.
    #[must_use]
    pub fn witness(&self, agent: &AgentId) -> NoteKey {
        NoteKey::of(witness_name(agent), self.key.clone())
    }

    /// Signs bytes that say in their beginning what they are.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }
}

/// A public key; in JSON 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self(key)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// 64 hex digits of a point on the curve were expected.
    #[error("not an Ed25519 public key")]
    NotAKey,
    /// The block has no signature.
    #[error("block {0} is not signed")]
    Missing(custody_event::Seq),
    /// Another key was used.
    #[error("block {seq} names key {named}, not {expected}")]
    OtherKey {
        /// Which block.
        seq: custody_event::Seq,
        /// Its key.
        named: KeyId,
        /// The one known.
        expected: KeyId,
    },
    /// It was not made by this key over this header.
    #[error("the signature of block {0} does not hold")]
    Wrong(custody_event::Seq),
}

fn key_id(key: &VerifyingKey) -> KeyId {
    let hash = Digest::of(key.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hash.0[..8]);
    KeyId(id)
}

/// The name under which an agent cosigns.
#[must_use]
pub fn witness_name(agent: &AgentId) -> String {
    format!("custody-agent/{agent}")
}

impl PublicKey {
    /// What verifies the agent's cosignatures.
    #[must_use]
    pub fn witness(&self, agent: &AgentId) -> VerifierKey {
        VerifierKey::of(witness_name(agent), KeyType::Cosignature, self.0)
    }

    /// From 64 hex digits.
    ///
    /// # Errors
    /// They are not a public key.
    pub fn from_hex(text: &str) -> Result<Self, SignatureError> {
        let bytes: [u8; 32] = parse_hex(text).ok_or(SignatureError::NotAKey)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| SignatureError::NotAKey)
    }

    /// As 64 hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        Digest(*self.0.as_bytes()).to_hex()
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        key_id(&self.0)
    }

    /// Checks a block's signature, strictly (no malleable signatures, no weak keys).
    ///
    /// # Errors
    /// There is none, it is another key's, or it does not hold.
    pub fn verify(&self, block: &Block) -> Result<(), SignatureError> {
        let signature = block.signature().ok_or(SignatureError::Missing(block.header.seq))?;
        self.verify_header(&block.header, block.header_bytes(), signature)
    }

    /// Checks the signature of a header of which `bytes` are the canonical bytes.
    ///
    /// # Errors
    /// It is another key's, or it does not hold.
    pub fn verify_header(
        &self,
        header: &Header,
        bytes: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), SignatureError> {
        if header.key != self.id() {
            return Err(SignatureError::OtherKey {
                seq: header.seq,
                named: header.key,
                expected: self.id(),
            });
        }
        let mut signed = Vec::with_capacity(SIGNATURE_CONTEXT.len() + bytes.len());
        signed.extend_from_slice(SIGNATURE_CONTEXT);
        signed.extend_from_slice(bytes);
        if self.holds(&signed, signature) { Ok(()) } else { Err(SignatureError::Wrong(header.seq)) }
    }

    /// Is this the key's signature over these bytes? Strictly, see [`Self::verify`].
    #[must_use]
    pub fn holds(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tests::block;

    #[test]
    fn a_signature_holds_for_its_block_and_its_key_only() {
        let key = AgentKey::from_secret(&[1; 32]);
        let mut signed = block(0, Digest::ZERO, key.id());
        assert_eq!(
            key.public().verify(&signed),
            Err(SignatureError::Missing(custody_event::Seq(0)))
        );
        key.sign(&mut signed);
        assert_eq!(key.public().verify(&signed), Ok(()));
        assert!(AgentKey::from_secret(&[2; 32]).public().verify(&signed).is_err());
        let mut other = block(1, Digest::of(b"x"), key.id());
        other.sign(*signed.signature().unwrap());
        assert_eq!(key.public().verify(&other), Err(SignatureError::Wrong(custody_event::Seq(1))));
    }

    #[test]
    fn public_keys_read_back_from_hex() {
        let key = AgentKey::from_secret(&[1; 32]).public();
        assert_eq!(PublicKey::from_hex(&key.to_hex()), Ok(key));
        assert!(PublicKey::from_hex("00").is_err());
    }
}
