//! An RFC 6962 log (RFC 9162 §2.1) over opaque entries, kept as C2SP tlog-tiles.
//!
//! A leaf is SHA-256(0x00 ‖ entry), a node SHA-256(0x01 ‖ left ‖ right). Hashes stand in tiles of
//! 256 (height 8), entries in bundles of 256; the last of each may be partial. Everything that a
//! proof needs is read from tiles through [`TileRead`], which knows nothing of files.
//!
//! - [`Frontier`]: the root of a growing tree in 64 hashes of memory.
//! - [`Log`]: appends; keeps the right edge in memory and writes tiles through [`TileWrite`].
//! - [`Prover`]: inclusion and consistency proofs from tiles.
//! - [`verify_inclusion`], [`verify_consistency`]: RFC 9162 §2.1.3.2 and §2.1.4.2.
//!
//! # Limits
//! An entry has at most [`MAX_ENTRY_BYTES`]; a tree at most 2^56 entries.
//!
//! # Failures
//! A tile that is missing or has the wrong length is an error that names it; a proof made from
//! changed tiles does not verify.

#[cfg(feature = "fs")]
mod files;
mod log;
mod memory;
mod proof;
mod tile;

#[cfg(test)]
mod tests;

use custody_event::Digest;
use custody_event::merkle::node;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

#[cfg(feature = "fs")]
pub use files::FileTiles;
pub use log::{Log, TooLong};
pub use memory::MemoryTiles;
pub use proof::{ProofError, Prover, path_in, verify_consistency, verify_inclusion};
pub use tile::{Kind, Tile, TileError, TileRead, TileWrite, bundle_entries, hashes};

/// The length prefix of an entry bundle has 16 bits.
pub const MAX_ENTRY_BYTES: usize = 65_535;
/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// No tree is larger; keeps every shift and sum within 64 bits.
pub const MAX_SIZE: u64 = 1 << 56;
/// Hashes in a proof, at most (a consistency proof has one more than the tree is high).
pub const MAX_PROOF: usize = 64;

/// What a checkpoint says of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Root over all entries; SHA-256 of nothing for none.
    pub root: Digest,
    /// Entries.
    pub size: u64,
}

impl TreeHead {
    /// Of a log without entries.
    #[must_use]
    pub fn empty() -> Self {
        Self { root: Digest::of(b""), size: 0 }
    }
}

/// SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    Digest(hash.finalize().into())
}

/// The complete subtrees of a tree, largest first: all that is needed to go on and to name the
/// root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

impl Frontier {
    /// Entries so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// From the subtrees of a tree of `size` entries; `None` where there are not as many as that
    /// size has.
    #[must_use]
    pub fn from_nodes(size: u64, nodes: Vec<Digest>) -> Option<Self> {
        let wanted = usize::try_from(size.count_ones()).ok()?;
        (nodes.len() == wanted && size <= MAX_SIZE).then_some(Self { size, nodes })
    }

    /// Goes on by one leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut carry = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                carry = node(&left, &carry);
            }
        }
        self.nodes.push(carry);
        self.size += 1;
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let joined = self.nodes.iter().rev().copied().reduce(|right, left| node(&left, &right));
        joined.unwrap_or_else(|| Digest::of(b""))
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { root: self.root(), size: self.size }
    }
}
