//! The proof of one event: everything that shows, without asking anybody, that this event stood
//! in a block that an agent signed and that the collector's log held when its checkpoint was
//! signed.
//!
//! One JSON object (bytes as lower-case hex, texts as they are):
//!
//! | field | what |
//! |---|---|
//! | `v` | 1 |
//! | `event` | the canonical event, as a string |
//! | `salt`, `index`, `path` | how its leaf leads to the header's root |
//! | `header`, `signature` | the block's header (canonical JSON, as a string) and the agent's signature |
//! | `log_index`, `log_path` | how the header's entry leads to the checkpoint's root |
//! | `keys` | the entries that vouch for the agent's key: `entry`, `index`, `path` |
//! | `checkpoint` | the signed note |

use custody_event::{Block, Digest, Header, canon, merkle};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base64;
use crate::entry::{BadEntry, Entry, Signed};
use crate::keyring::{Keyring, KeyringError};
use crate::note::{Checkpoint, NoteError, VerifierKey};
use crate::tlog::{
    ProofError, Prover, TileError, TileRead, TreeHead, leaf_hash, path_in, verify_inclusion,
};

/// A proof longer than this is not read: an event, a header, and 1,000 keys.
pub const MAX_PROOF_BYTES: usize = 4 * 1024 * 1024;
const MAX_KEYS: usize = 4_000;

/// An entry of the log with its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvedEntry {
    /// The entry, base 64.
    pub entry: String,
    /// Its place in the log.
    pub index: u64,
    /// From its leaf to the checkpoint's root.
    pub path: Vec<Digest>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// The signed note.
    pub checkpoint: String,
    /// The canonical event.
    pub event: String,
    /// The block's header.
    pub header: String,
    /// The event's place in the block.
    pub index: u32,
    /// What vouches for the agent's key, in the log's order.
    pub keys: Vec<ProvedEntry>,
    /// The block's place in the log.
    pub log_index: u64,
    /// From the header's entry to the checkpoint's root.
    pub log_path: Vec<Digest>,
    /// From the event's leaf to the header's root.
    pub path: Vec<Digest>,
    /// The salt: 32 hex digits.
    pub salt: String,
    /// The agent's signature over the header: 128 hex digits.
    pub signature: String,
    /// 1.
    pub v: u8,
}

/// Why a proof proves nothing.
#[derive(Debug, Error)]
pub enum EventProofError {
    /// It cannot be read.
    #[error("not a proof of an event: {0}")]
    Malformed(String),
    /// The event is not in the block.
    #[error("the event is not the one at index {index} of the block: {why}")]
    Event {
        /// Where.
        index: u32,
        /// What the path does.
        why: ProofError,
    },
    /// The entry is not in the log.
    #[error("entry {index} is not in the log that the checkpoint names: {why}")]
    Log {
        /// Where.
        index: u64,
        /// What the path does.
        why: ProofError,
    },
    /// The agent's signature or key.
    #[error(transparent)]
    Key(#[from] KeyringError),
    /// The checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A tile that is needed to make a proof.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// An entry that cannot be read.
    #[error(transparent)]
    Entry(#[from] BadEntry),
}

/// What a proof has shown.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The canonical event.
    pub event: String,
    /// The block's header.
    pub header: Header,
    /// The log's statement.
    pub checkpoint: Checkpoint,
}

impl EventProof {
    /// Makes the proof of the event at `index` of `block`, which stands in the log at
    /// `log_index`. `keys` are the places and bytes of the entries that vouch for the agent's key.
    ///
    /// # Errors
    /// The event is not in the block, the block is not signed, or a tile cannot be had.
    pub fn make<R: TileRead>(
        block: &Block,
        index: u32,
        log_index: u64,
        keys: &[(u64, Vec<u8>)],
        checkpoint: &str,
        prover: &mut Prover<R>,
    ) -> Result<Self, EventProofError> {
        let malformed = |what: &str| EventProofError::Malformed(what.to_owned());
        let shown = block.show(index).map_err(|e| EventProofError::Malformed(e.to_string()))?;
        let shown = shown.ok_or_else(|| malformed("the block does not show this event"))?;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let signature = block.signature().ok_or_else(|| malformed("the block is not signed"))?;
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| malformed("not UTF-8"));
        let keys = keys.iter().map(|(index, entry)| -> Result<ProvedEntry, TileError> {
            let (index, path) = (*index, prover.inclusion(*index)?);
            Ok(ProvedEntry { entry: base64::encode(entry), index, path })
        });
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Self {
            checkpoint: checkpoint.to_owned(),
            event: text(&shown.event)?,
            header: text(block.header_bytes())?,
            index,
            keys,
            log_index,
            log_path: prover.inclusion(log_index)?,
            path: path_in(&shown.leaves, at).unwrap_or_default(),
            salt: hex(&shown.salt),
            signature: hex(signature),
            v: 1,
        })
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(json: &[u8]) -> Result<Self, EventProofError> {
        if json.len() > MAX_PROOF_BYTES {
            return Err(EventProofError::Malformed("longer than 4 MiB".to_owned()));
        }
        let proof: Self = serde_json::from_slice(json)
            .map_err(|error| EventProofError::Malformed(error.to_string()))?;
        if proof.v != 1 || proof.keys.len() > MAX_KEYS {
            return Err(EventProofError::Malformed("version 1 and at most 4,000 keys".to_owned()));
        }
        Ok(proof)
    }

    /// As JSON.
    ///
    /// # Errors
    /// It is beyond the limits of JSON (it is not).
    pub fn to_json(&self) -> Result<String, EventProofError> {
        serde_json::to_string(self).map_err(|error| EventProofError::Malformed(error.to_string()))
    }

    /// Checks all of it. Everything is believed on the word of `log`, and of the agent's key that
    /// the log vouches for.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, log: &VerifierKey) -> Result<Proved, EventProofError> {
        let bad_hex = |what: &str| EventProofError::Malformed(format!("{what} is not hex"));
        let checkpoint = Checkpoint::open(&self.checkpoint, log)?;
        let signature = unhex::<64>(&self.signature).ok_or_else(|| bad_hex("the signature"))?;
        let signed = Signed::of_header(self.header.as_bytes(), signature)?;
        let header = signed.body.clone();
        self.verify_event(&header)?;
        let entry = Entry::Block(Box::new(signed.clone())).encode();
        included(self.log_index, &entry, &checkpoint.head, &self.log_path)?;
        let mut ring = Keyring::new();
        for key in &self.keys {
            let bytes = base64::decode(&key.entry)
                .ok_or_else(|| EventProofError::Malformed("an entry is not base 64".to_owned()))?;
            included(key.index, &bytes, &checkpoint.head, &key.path)?;
            ring.apply(Some(key.index), &Entry::decode(&bytes)?, Some(&log.public()))?;
        }
        ring.check(&signed, Some(self.log_index))?;
        Ok(Proved { event: self.event.clone(), header, checkpoint })
    }

    fn verify_event(&self, header: &Header) -> Result<(), EventProofError> {
        canon::check(self.event.as_bytes())
            .map_err(|error| EventProofError::Malformed(error.to_string()))?;
        let salt = unhex::<16>(&self.salt)
            .ok_or_else(|| EventProofError::Malformed("the salt is not hex".to_owned()))?;
        let leaf = merkle::leaf(&salt, self.event.as_bytes());
        let head = TreeHead { root: header.root, size: header.count.into() };
        verify_inclusion(&leaf, self.index.into(), &head, &self.path)
            .map_err(|why| EventProofError::Event { index: self.index, why })
    }
}

fn included(
    index: u64,
    entry: &[u8],
    head: &TreeHead,
    path: &[Digest],
) -> Result<(), EventProofError> {
    verify_inclusion(&leaf_hash(entry), index, head, path)
        .map_err(|why| EventProofError::Log { index, why })
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    custody_event::ids::push_hex(bytes, &mut out);
    // Hex digits are ASCII.
    String::from_utf8(out).unwrap_or_default()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    custody_event::ids::parse_hex(text)
}
