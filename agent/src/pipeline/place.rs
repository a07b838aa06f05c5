//! Where the stream stands, and the spool's keys for it and for positions.

use custody_event::{Digest, FileIdentity, Seq, StreamId};
use serde::{Deserialize, Serialize};

use crate::sources::{FilePosition, Saved};

/// What the next block needs to know of the stream; kept in the same batch as the last block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    /// Which stream.
    pub stream: StreamId,
    /// Number of the next block.
    pub next_seq: Seq,
    /// Hash of the last header; zeros before the first.
    pub last_hash: Digest,
    /// Number of the agent's next own event.
    pub next_own: u64,
}

impl StreamState {
    /// The spool's key for it.
    pub const KEY: &'static [u8] = b"meta/stream";

    /// A stream that begins now.
    #[must_use]
    pub fn begin(stream: StreamId) -> Self {
        Self { stream, next_seq: Seq(0), last_hash: Digest::ZERO, next_own: 0 }
    }
}

/// The spool's key for a position: `pos/<source>/<inode>-<birth>-<fingerprint>-<generation>`.
#[must_use]
pub fn position_key(source: &str, identity: &FileIdentity) -> Vec<u8> {
    format!(
        "pos/{source}/{}-{}-{}-{}-{}",
        identity.durable_dev(),
        identity.ino,
        identity.born_ns,
        identity.fingerprint,
        identity.generation
    )
    .into_bytes()
}

/// The prefix of all of a source's positions.
#[must_use]
pub fn position_prefix(source: &str) -> Vec<u8> {
    format!("pos/{source}/").into_bytes()
}

/// The prefix of all that a source remembers that is no file position: `mark/<source>/<key>`.
#[must_use]
pub fn mark_prefix(source: &str) -> Vec<u8> {
    format!("mark/{source}/").into_bytes()
}

/// The positions that the spool kept for a source.
///
/// # Errors
/// One cannot be read.
pub fn positions_of(saved: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<Saved> {
    saved.iter().map(|(_, value)| Ok(serde_json::from_slice::<FilePosition>(value)?)).collect()
}
