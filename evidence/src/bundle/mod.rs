//! A bundle: events or bare leaves, the signed headers over them, the log entries and proofs that
//! hold the headers, the keys, and a checkpoint, in one file that is written and read as a stream.
//!
//! Format, version 1 (`docs/formats/bundle.md` has it in full): eight bytes `CUSTBND1`, then
//! frames. A frame is `CREC`, a kind (1), zeros (3), the content's length (4, little endian),
//! CRC-32 of these twelve (4), the content, CRC-32 of everything before (4).
//!
//! | kind | content |
//! |---|---|
//! | 1 manifest | canonical JSON, [`Manifest`]; the first frame |
//! | 2 log key | the log's verifier key, text |
//! | 3 checkpoint | signed note |
//! | 4 agent key | canonical JSON, [`AgentKeyRecord`] (spool exports) |
//! | 5 continuation | canonical JSON, [`Continuation`]: the checkpoint continues an older one |
//! | 6 voucher | place, entry: a key's statement from before the range |
//! | 7 entry | place, entry: a statement in the range, or a block without its events |
//! | 8 block | place, block: full or sparse |
//! | 9 end | canonical JSON, [`End`]; the last frame: totals, a digest of all before, and the maker's seal |
//!
//! A *place* is the index in the log (8, little endian; all ones: in no log), the number of hashes
//! of the inclusion proof (1) and the hashes (32 each).
//!
//! **Completeness.** A bundle of kind `log` holds every entry of the log from `first` to `end`; one
//! of kind `streams` or `spool` every block of the named streams from `first` to `end`. Of a block
//! that no filter wants, the header alone is kept; of one that it wants in part, a sparse block. So
//! each index of each block is an event, a bare leaf, or counted by a signed header.

mod read;
mod write;

use custody_event::{
    AgentId, Block, Digest, MAX_SPARSE_BLOCK_BYTES, Malformed, Seq, StreamId, Timestamp,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PublicKey;
use crate::entry::Entry;
use crate::scan::{Framing, HEAD_BYTES, TAIL_BYTES};
use crate::tlog::{MAX_PROOF, TreeHead};

pub use read::{BundleReader, Item, Record};
pub use write::BundleWriter;

/// The file's first bytes.
pub const MAGIC: &[u8; 8] = b"CUSTBND1";
/// Streams that a manifest may name.
pub const MAX_STREAMS: usize = 20_000;
/// A record is at most this long: a block with its place, a manifest, a note.
const MAX_RECORD_BYTES: usize = MAX_SPARSE_BLOCK_BYTES + 512 * 1024;
const NO_INDEX: u64 = u64::MAX;
const SEAL_CONTEXT: &[u8] = b"custody bundle v1\n";

/// What a bundle says it is complete over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every entry of a collector's log in a range.
    Log,
    /// Every block of some streams in a range, with proofs in a collector's log.
    Streams,
    /// The blocks of an agent's spool, in no log.
    Spool,
}

/// One stream's range of blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRange {
    /// Whose.
    pub agent: AgentId,
    /// One beyond the last block.
    pub end: Seq,
    /// The first block.
    pub first: Seq,
    /// Which.
    pub stream: StreamId,
}

/// The first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `log`: one beyond the last entry; else 0.
    pub end: u64,
    /// `log`: the first entry; else 0.
    pub first: u64,
    /// When it was made, by its maker's clock.
    pub made: Timestamp,
    /// The log's name; empty for a spool.
    pub origin: String,
    /// The filter that chose the events, in words; empty for all.
    pub query: String,
    /// What it is complete over.
    pub scope: Scope,
    /// `streams`, `spool`: the ranges; else empty.
    pub streams: Vec<StreamRange>,
    /// 1.
    pub v: u8,
}

/// The key that signs a spool's first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentKeyRecord {
    /// Whose.
    pub agent: AgentId,
    /// The key.
    pub key: PublicKey,
}

/// The proof that the bundle's checkpoint continues an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    /// The older head.
    pub old: TreeHead,
    /// The consistency proof.
    pub path: Vec<Digest>,
}

/// The last frame: what stood before it, and the maker's word for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Frames of kind 8.
    pub blocks: u64,
    /// Frames of kind 7.
    pub entries: u64,
    /// Frames of all kinds before this one.
    pub records: u64,
    /// SHA-256 of all frames before this one.
    pub sha256: Digest,
    /// The seal: the log's signature (a spool's: the agent's newest key's) over
    /// `custody bundle v1\n` and this record without the seal; 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Frames of kind 6.
    pub vouchers: u64,
}

impl End {
    /// What a seal signs.
    pub(crate) fn sealed_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let bare = Self { signature: None, ..self.clone() };
        let json = serde_json::to_vec(&bare).map_err(std::io::Error::other)?;
        Ok([SEAL_CONTEXT, &json].concat())
    }
}

/// Where an entry stands in the log, with the proof of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The index; `None` for a spool.
    pub index: Option<u64>,
    /// The inclusion proof.
    pub path: Vec<Digest>,
}

/// Why a bundle cannot be written or read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Writing or reading failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is beyond the limits of the format.
    #[error("not possible in a bundle: {0}")]
    Limit(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest = 1,
    LogKey = 2,
    Checkpoint = 3,
    AgentKey = 4,
    Continuation = 5,
    Voucher = 6,
    Entry = 7,
    Block = 8,
    End = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 9] = [
            Kind::Manifest,
            Kind::LogKey,
            Kind::Checkpoint,
            Kind::AgentKey,
            Kind::Continuation,
            Kind::Voucher,
            Kind::Entry,
            Kind::Block,
            Kind::End,
        ];
        ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    fn byte(self) -> u8 {
        match self {
            Self::Manifest => 1,
            Self::LogKey => 2,
            Self::Checkpoint => 3,
            Self::AgentKey => 4,
            Self::Continuation => 5,
            Self::Voucher => 6,
            Self::Entry => 7,
            Self::Block => 8,
            Self::End => 9,
        }
    }
}

pub(crate) struct BundleFraming;

impl Framing for BundleFraming {
    const MAGIC: &'static [u8; 4] = b"CREC";

    fn frame_len(head: &[u8]) -> Option<usize> {
        Kind::from_byte(*head.get(4)?)?;
        if head.get(5..8)? != [0; 3] {
            return None;
        }
        let len = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?);
        usize::try_from(len).ok()?.checked_add(HEAD_BYTES + TAIL_BYTES)
    }
}

impl Place {
    /// In no log.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    fn push(&self, out: &mut Vec<u8>) -> Result<(), BundleError> {
        let count = u8::try_from(self.path.len())
            .ok()
            .filter(|_| self.path.len() <= MAX_PROOF)
            .ok_or(BundleError::Limit("a proof of more than 64 hashes"))?;
        out.extend_from_slice(&self.index.unwrap_or(NO_INDEX).to_le_bytes());
        out.push(count);
        self.path.iter().for_each(|hash| out.extend_from_slice(&hash.0));
        Ok(())
    }

    fn cut(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (index, rest) = bytes.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first()?;
        let count = usize::from(*count);
        if count > MAX_PROOF {
            return None;
        }
        let (path, rest) = rest.split_at_checked(count * 32)?;
        let index = Some(u64::from_le_bytes(*index)).filter(|index| *index != NO_INDEX);
        Some((Self { index, path: crate::tlog::hashes(path) }, rest))
    }
}

/// What a filter leaves of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// All events: the block as it is.
    Whole(Block),
    /// Some: a sparse block.
    Sparse(Block),
    /// None: the entry of its header.
    Header(Entry),
}

/// Leaves of a block what `keep` wants.
///
/// # Errors
/// The block does not open, or is not signed.
pub fn filter(
    block: &Block,
    mut keep: impl FnMut(u32, &[u8]) -> bool,
) -> Result<Filtered, Malformed> {
    let opened = block.open_unverified()?;
    let mut kept = std::collections::BTreeSet::new();
    for (index, event) in opened.events() {
        if keep(index, event) {
            kept.insert(index);
        }
    }
    if kept.len() == opened.len() {
        return Ok(Filtered::Whole(block.clone()));
    }
    if kept.is_empty() {
        let entry = Entry::of_block(block).ok_or_else(|| Malformed::new("it is not signed"))?;
        return Ok(Filtered::Header(entry));
    }
    block.to_sparse(|index, _| kept.contains(&index)).map(Filtered::Sparse)
}

#[cfg(test)]
mod tests;
