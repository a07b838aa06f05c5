//! What an export shows of the log: entries with their proofs, and the key that seals.

use custody_event::Digest;
use custody_evidence::note::NoteKey;
use custody_evidence::tlog::{Kind, Prover, TILE_WIDTH, Tile, TileRead, bundle_entries};

use super::{Tlog, TlogError};

/// An entry and the proof that it is in the tree.
pub(crate) type Shown = (Vec<u8>, Vec<Digest>);

impl Tlog {
    /// The key that signs what the log answers for.
    pub(crate) fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The entries from `from` to before `end`, each with its proof in the tree of `size` entries
    /// (not more than the checkpoint names).
    pub(crate) fn stretch(&self, from: u64, end: u64, size: u64) -> Result<Vec<Shown>, TlogError> {
        let state = self.read();
        let mut prover = Prover::new(&state.log, size);
        let mut shown = Vec::new();
        let mut index = from;
        while index < end {
            let number = index / TILE_WIDTH;
            let Some(tile) = Tile::in_tree(Kind::Entries, number, size) else { break };
            let bytes = state.log.read_tile(&tile)?;
            let entries = bundle_entries(&bytes).unwrap_or_default();
            let skip = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
            for entry in entries.into_iter().skip(skip) {
                if index == end {
                    break;
                }
                shown.push((entry.to_vec(), prover.inclusion(index)?));
                index += 1;
            }
            if index < end && index / TILE_WIDTH == number {
                // The tile is shorter than the tree says; the proof above would have failed too.
                break;
            }
        }
        Ok(shown)
    }
}
