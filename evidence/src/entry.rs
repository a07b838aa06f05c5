//! What stands in the collector's log: one tagged encoding for all entries.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | kind: 1 block, 2 key enrolled, 3 key rotated, 4 key revoked, 5 fork accepted |
//! | 1 | 1 | version, 1 |
//! | 2 | 64 | Ed25519 signature over the kind's context ‖ body |
//! | 66 | … | body: canonical JSON, for a block its header |
//!
//! | kind | context | signed by |
//! |---|---|---|
//! | block | `custody block header v1\n` | the agent's key that the header names |
//! | key enrolled | `custody key enrolled v1\n` | the log's key |
//! | key rotated | `custody key rotated v1\n` | the agent's old key |
//! | key revoked | `custody key revoked v1\n` | the log's key |
//! | fork accepted | `custody fork accepted v1\n` | the key that the body names |
//!
//! An entry is at most 65,535 bytes ([`crate::tlog::MAX_ENTRY_BYTES`]); a header is shorter by the
//! event crate's own limit. Anything but the canonical bytes of a known kind is refused.

use custody_event::block::SIGNATURE_CONTEXT;
use custody_event::{AgentId, Block, Digest, Header, KeyId, Seq, StreamId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::keys::{AgentKey, PublicKey};
use crate::note::NoteKey;
use crate::tlog::{MAX_ENTRY_BYTES, TreeHead, leaf_hash};

const VERSION: u8 = 1;
const SIGNATURE_AT: usize = 2;
const BODY_AT: usize = 66;
/// A reason is a sentence, not a file.
const MAX_REASON_BYTES: usize = 1_000;
/// A host's id is 32 hex digits today.
const MAX_HOST_BYTES: usize = 255;

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not an entry of the log: {0}")]
pub struct BadEntry(String);

impl BadEntry {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The log takes this key as this agent's. Later enrolments of the same agent stand beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Whose.
    pub agent: AgentId,
    /// When, by the collector's clock.
    pub at: Timestamp,
    /// The host's id.
    pub host: String,
    /// The key.
    pub key: PublicKey,
    /// 1.
    pub v: u8,
}

/// The old key names the next, and signs nothing after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotated {
    /// Whose.
    pub agent: AgentId,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// The first block of `stream` that the new key signs.
    pub from_seq: Seq,
    /// The next key.
    pub new: PublicKey,
    /// The key that signs this, and nothing after it.
    pub old: KeyId,
    /// The stream that goes on. In other streams the order of the log decides.
    pub stream: StreamId,
    /// 1.
    pub v: u8,
}

/// Nothing that this key signs is taken from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Whose.
    pub agent: AgentId,
    /// When, by the collector's clock.
    pub at: Timestamp,
    /// Which key.
    pub key: KeyId,
    /// Why: one sentence.
    pub reason: String,
    /// 1.
    pub v: u8,
}

/// Somebody answers for it that the log does not continue what an agent had been shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkAccepted {
    /// When, by the signer's clock.
    pub at: Timestamp,
    /// The key that signs.
    pub by: PublicKey,
    /// The head that goes on.
    pub new: TreeHead,
    /// The head that had been shown and is not continued.
    pub old: TreeHead,
    /// The log's name.
    pub origin: String,
    /// Why: one sentence.
    pub reason: String,
    /// 1.
    pub v: u8,
}

/// A statement that the log can hold.
pub trait Statement: Serialize + DeserializeOwned {
    /// What is signed before the body.
    const CONTEXT: &'static [u8];

    /// Is it within the limits?
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self) -> Result<(), BadEntry>;
}

fn check_text(what: &str, text: &str, max_bytes: usize) -> Result<(), BadEntry> {
    if text.len() > max_bytes || text.contains(char::is_control) {
        return Err(BadEntry::new(format!(
            "{what} has more than {max_bytes} bytes or control characters"
        )));
    }
    Ok(())
}

fn check_version(v: u8) -> Result<(), BadEntry> {
    if v == VERSION {
        Ok(())
    } else {
        Err(BadEntry::new(format!("version {v}, this reader knows 1")))
    }
}

impl Statement for Enrolled {
    const CONTEXT: &'static [u8] = b"custody key enrolled v1\n";

    fn check(&self) -> Result<(), BadEntry> {
        check_version(self.v)?;
        check_text("the host", &self.host, MAX_HOST_BYTES)
    }
}

impl Statement for Rotated {
    const CONTEXT: &'static [u8] = b"custody key rotated v1\n";

    fn check(&self) -> Result<(), BadEntry> {
        check_version(self.v)?;
        if self.old == self.new.id() {
            return Err(BadEntry::new("a key does not follow itself"));
        }
        Ok(())
    }
}

impl Statement for Revoked {
    const CONTEXT: &'static [u8] = b"custody key revoked v1\n";

    fn check(&self) -> Result<(), BadEntry> {
        check_version(self.v)?;
        check_text("the reason", &self.reason, MAX_REASON_BYTES)
    }
}

impl Statement for ForkAccepted {
    const CONTEXT: &'static [u8] = b"custody fork accepted v1\n";

    fn check(&self) -> Result<(), BadEntry> {
        check_version(self.v)?;
        check_text("the origin", &self.origin, MAX_HOST_BYTES)?;
        check_text("the reason", &self.reason, MAX_REASON_BYTES)
    }
}

/// Whoever can sign a statement: an agent's key or the log's.
pub trait Signs {
    /// The signature over these bytes.
    fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64];
}

impl Signs for AgentKey {
    fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        Self::sign_bytes(self, bytes)
    }
}

impl Signs for NoteKey {
    fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        Self::sign_bytes(self, bytes)
    }
}

/// A body with its canonical bytes and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What is said.
    pub body: T,
    bytes: Vec<u8>,
    signature: [u8; 64],
}

impl<T> Signed<T> {
    /// The canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    fn encode(&self, kind: u8) -> Vec<u8> {
        let mut out = Vec::with_capacity(BODY_AT + self.bytes.len());
        out.extend_from_slice(&[kind, VERSION]);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&self.bytes);
        out
    }
}

impl<T: Statement> Signed<T> {
    /// Signs a statement.
    ///
    /// # Errors
    /// It is beyond the limits.
    pub fn sign(body: T, key: &impl Signs) -> Result<Self, BadEntry> {
        body.check()?;
        let bytes = canonical(&body)?;
        let signature = key.sign_bytes(&[T::CONTEXT, &bytes].concat());
        Ok(Self { body, bytes, signature })
    }

    /// Does this key's signature hold?
    #[must_use]
    pub fn is_by(&self, key: &PublicKey) -> bool {
        key.holds(&[T::CONTEXT, &self.bytes].concat(), &self.signature)
    }

    fn read(bytes: &[u8], signature: [u8; 64]) -> Result<Self, BadEntry> {
        let body: T = serde_json::from_slice(bytes)
            .map_err(|error| BadEntry::new(format!("its body cannot be read: {error}")))?;
        body.check()?;
        if canonical(&body)? != bytes {
            return Err(BadEntry::new("its body is not canonical JSON"));
        }
        Ok(Self { body, bytes: bytes.to_vec(), signature })
    }
}

impl Signed<Header> {
    /// The signed header of a block; `None` where it is not signed.
    #[must_use]
    pub fn of_block(block: &Block) -> Option<Self> {
        Some(Self {
            body: block.header.clone(),
            bytes: block.header_bytes().to_vec(),
            signature: *block.signature()?,
        })
    }

    /// From the canonical bytes of a header and a signature.
    ///
    /// # Errors
    /// They are no header.
    pub fn of_header(bytes: &[u8], signature: [u8; 64]) -> Result<Self, BadEntry> {
        let body = Header::from_bytes(bytes).map_err(|error| BadEntry::new(error.to_string()))?;
        Ok(Self { body, bytes: bytes.to_vec(), signature })
    }

    /// What the next header of the stream names.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What is signed.
    #[must_use]
    pub fn context() -> &'static [u8] {
        SIGNATURE_CONTEXT
    }
}

/// The fields of a statement are declared in canonical order, and hold no floats.
fn canonical<T: Serialize>(body: &T) -> Result<Vec<u8>, BadEntry> {
    serde_json::to_vec(body).map_err(|error| BadEntry::new(error.to_string()))
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A block came in: its header.
    Block(Box<Signed<Header>>),
    /// See [`Enrolled`].
    Enrolled(Signed<Enrolled>),
    /// See [`Rotated`].
    Rotated(Signed<Rotated>),
    /// See [`Revoked`].
    Revoked(Signed<Revoked>),
    /// See [`ForkAccepted`].
    ForkAccepted(Signed<ForkAccepted>),
}

impl Entry {
    /// The entry of a block; `None` where it is not signed.
    #[must_use]
    pub fn of_block(block: &Block) -> Option<Self> {
        Signed::of_block(block).map(Box::new).map(Self::Block)
    }

    /// The entry of an encoded block, without reading its events; `None` where it is not signed.
    ///
    /// # Errors
    /// The bytes are no block.
    pub fn of_encoded_block(bytes: &[u8]) -> Result<Option<Self>, BadEntry> {
        let found = Block::signed_header_in(bytes).map_err(|e| BadEntry::new(e.to_string()))?;
        let signed = found.map(|(header, signature)| Signed::of_header(header, signature));
        Ok(signed.transpose()?.map(Box::new).map(Self::Block))
    }

    /// The bytes that the log holds.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Block(signed) => signed.encode(1),
            Self::Enrolled(signed) => signed.encode(2),
            Self::Rotated(signed) => signed.encode(3),
            Self::Revoked(signed) => signed.encode(4),
            Self::ForkAccepted(signed) => signed.encode(5),
        }
    }

    /// Reads an entry. Signatures are checked by [`crate::Keyring`].
    ///
    /// # Errors
    /// It is none, or none of the known kinds and versions.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(BadEntry::new("longer than 65,535 bytes"));
        }
        let signature = bytes.get(SIGNATURE_AT..BODY_AT).and_then(|s| s.try_into().ok());
        let (Some(signature), Some(body)) = (signature, bytes.get(BODY_AT..)) else {
            return Err(BadEntry::new("too short"));
        };
        if bytes[1] != VERSION {
            return Err(BadEntry::new(format!("version {}, this reader knows 1", bytes[1])));
        }
        Ok(match bytes[0] {
            1 => Self::Block(Box::new(Signed::of_header(body, signature)?)),
            2 => Self::Enrolled(Signed::read(body, signature)?),
            3 => Self::Rotated(Signed::read(body, signature)?),
            4 => Self::Revoked(Signed::read(body, signature)?),
            5 => Self::ForkAccepted(Signed::read(body, signature)?),
            kind => return Err(BadEntry::new(format!("kind {kind}, this reader knows 1 to 5"))),
        })
    }

    /// The entry's leaf in the log.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        leaf_hash(&self.encode())
    }
}
