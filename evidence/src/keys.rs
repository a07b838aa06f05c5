//! An agent's signing key and its public half.
//!
//! The key is 32 random bytes in a file of mode 0600 that the agent writes once and never sends
//! anywhere; the public key goes to the collector at enrolment. One signature covers a whole block
//! (about 36 µs a block, against a microsecond for each event's leaf), never a single event.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use custody_event::ids::parse_hex;
use custody_event::{Block, Digest, KeyId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;

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

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key.
    #[error(
        "{0}: not a signing key (64 hex digits expected); restore it, or remove it to have a new one made and enrol again"
    )]
    NotAKey(PathBuf),
    /// Others can read it.
    #[error("{path}: mode {mode:03o} lets others read the signing key; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl AgentKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(secret);
        Self { id: key_id(&key.verifying_key()), key }
    }

    /// Reads the key from `path`; if there is none, makes one from `random` and writes it durably.
    ///
    /// # Errors
    /// The file cannot be read or written, is no key, or can be read by others.
    pub fn load_or_create(path: &Path, random: &[u8; 32]) -> Result<Self, KeyError> {
        let io_error = |source| KeyError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_secret(path, random).map_err(io_error)?;
                Ok(Self::from_secret(random))
            }
            Err(error) => Err(io_error(error)),
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, KeyError> {
        let io_error = |source| KeyError::Io { path: path.to_owned(), source };
        let mode = file.metadata().map_err(io_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(1024).read_to_string(&mut text).map_err(io_error)?;
        let secret: [u8; 32] =
            parse_hex(text.trim_end()).ok_or_else(|| KeyError::NotAKey(path.to_owned()))?;
        Ok(Self::from_secret(&secret))
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
}

/// Written to a temporary name first, so that a crash leaves no half key.
fn write_secret(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut text = Vec::with_capacity(65);
    custody_event::ids::push_hex(secret, &mut text);
    text.push(b'\n');
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

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

impl PublicKey {
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
        let seq = block.header.seq;
        let signature = block.signature().ok_or(SignatureError::Missing(seq))?;
        if block.header.key != self.id() {
            return Err(SignatureError::OtherKey {
                seq,
                named: block.header.key,
                expected: self.id(),
            });
        }
        self.0
            .verify_strict(&block.signed_bytes(), &Signature::from_bytes(signature))
            .map_err(|_| SignatureError::Wrong(seq))
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
    fn a_key_is_made_once_and_read_back_and_refused_when_others_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        let made = AgentKey::load_or_create(&path, &[3; 32]).unwrap();
        let read = AgentKey::load_or_create(&path, &[4; 32]).unwrap();
        assert_eq!(made.id(), read.id());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(AgentKey::load_or_create(&path, &[4; 32]), Err(KeyError::Exposed { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(AgentKey::load_or_create(&path, &[4; 32]), Err(KeyError::NotAKey(_))));
    }

    #[test]
    fn public_keys_read_back_from_hex() {
        let key = AgentKey::from_secret(&[1; 32]).public();
        assert_eq!(PublicKey::from_hex(&key.to_hex()), Ok(key));
        assert!(PublicKey::from_hex("00").is_err());
    }
}
