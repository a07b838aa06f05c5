//! Proofs: made from tiles (RFC 9162 §2.1.3.1, §2.1.4.1), verified without (§2.1.3.2, §2.1.4.2).

use std::collections::VecDeque;

use custody_event::Digest;
use custody_event::merkle::{self, node};
use thiserror::Error;

use super::tile::{Kind, Tile, TileError, TileRead, hashes};
use super::{MAX_PROOF, TreeHead};

/// Tiles that a prover keeps: a proof in a tree of 2^56 entries needs at most 14.
const MAX_TILES: usize = 16;

/// Makes proofs for one size of a log.
#[derive(Debug)]
pub struct Prover<R> {
    tiles: R,
    size: u64,
    recent: VecDeque<(Tile, Vec<Digest>)>,
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

impl<R: TileRead> Prover<R> {
    /// Proofs of the log's first `size` entries.
    #[must_use]
    pub fn new(tiles: R, size: u64) -> Self {
        Self { tiles, size, recent: VecDeque::new() }
    }

    /// The root over the first `size` entries (not more than the prover's).
    ///
    /// # Errors
    /// A tile cannot be had, or the log is shorter.
    pub fn root(&mut self, size: u64) -> Result<Digest, TileError> {
        self.within(size)?;
        if size == 0 { Ok(Digest::of(b"")) } else { self.range(0, size) }
    }

    /// That the entry at `index` is in the tree.
    ///
    /// # Errors
    /// A tile cannot be had, or the log is shorter.
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Digest>, TileError> {
        self.within(index.saturating_add(1))?;
        let (mut start, mut end) = (0, self.size);
        let mut proof = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// That the tree continues the one of its first `old` entries; empty where `old` is 0 or all.
    ///
    /// # Errors
    /// A tile cannot be had, or the log is shorter.
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Digest>, TileError> {
        self.within(old)?;
        let (mut start, mut end) = (0, self.size);
        let mut proof = Vec::new();
        if old == 0 {
            return Ok(proof);
        }
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        // The old tree's last complete subtree is known to whoever knows the old root alone.
        if start > 0 {
            proof.push(self.range(start, end)?);
        }
        proof.reverse();
        Ok(proof)
    }

    fn within(&self, size: u64) -> Result<(), TileError> {
        if size > self.size {
            return Err(TileError::Beyond { index: size.saturating_sub(1), size: self.size });
        }
        Ok(())
    }

    /// MTH(D[start:end]), where `start` is a multiple of the power of two that spans the range.
    fn range(&mut self, start: u64, end: u64) -> Result<Digest, TileError> {
        let count = end - start;
        if count.is_power_of_two() {
            return self.node(count.trailing_zeros(), start);
        }
        let middle = start + split(count);
        let left = self.range(start, middle)?;
        let right = self.range(middle, end)?;
        Ok(node(&left, &right))
    }

    /// The complete subtree of 2^`height` entries from `start`.
    fn node(&mut self, height: u32, start: u64) -> Result<Digest, TileError> {
        let level = u8::try_from(height / 8).unwrap_or(u8::MAX);
        let first = start >> (8 * u32::from(level));
        let beyond = TileError::Beyond { index: start, size: self.size };
        let tile = Tile::in_tree(Kind::Hashes(level), first / 256, self.size).ok_or(beyond)?;
        let from = usize::try_from(first % 256).unwrap_or(usize::MAX);
        let count = 1_usize << (height % 8);
        let tile_hashes = self.tile(&tile)?;
        let run = tile_hashes.get(from..from + count).ok_or_else(|| TileError::Damaged {
            path: tile.to_string(),
            reason: "it is too narrow".to_owned(),
        })?;
        Ok(merkle::root(&mut run.to_vec()))
    }

    fn tile(&mut self, tile: &Tile) -> Result<&[Digest], TileError> {
        if let Some(at) = self.recent.iter().position(|(known, _)| known == tile) {
            return Ok(&self.recent[at].1);
        }
        let read = hashes(&self.tiles.read_tile(tile)?);
        if self.recent.len() == MAX_TILES {
            self.recent.pop_front();
        }
        self.recent.push_back((*tile, read));
        Ok(self.recent.back().map_or(&[], |(_, hashes)| hashes))
    }
}

/// The inclusion proof of one of a few leaves in memory (a block's events).
#[must_use]
pub fn path_in(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    let mut proof = Vec::new();
    let (mut run, mut index) = (leaves, index);
    if index >= run.len() {
        return None;
    }
    while run.len() > 1 {
        let (left, right) = run.split_at(run.len().next_power_of_two() / 2);
        if index < left.len() {
            proof.push(merkle::root(&mut right.to_vec()));
            run = left;
        } else {
            proof.push(merkle::root(&mut left.to_vec()));
            index -= left.len();
            run = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The entry is beyond the tree, or the old tree larger than the new one.
    #[error("the proof is for a place that the tree does not have")]
    Beyond,
    /// More or fewer hashes than the place needs.
    #[error("the proof has the wrong length")]
    Length,
    /// It leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// Does `proof` show that `leaf` is the entry at `index` of `head`? RFC 9162 §2.1.3.2.
///
/// # Errors
/// It does not.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    head: &TreeHead,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if index >= head.size {
        return Err(ProofError::Beyond);
    }
    if proof.len() > MAX_PROOF {
        return Err(ProofError::Length);
    }
    let (mut at, mut last) = (index, head.size - 1);
    let mut hash = *leaf;
    for step in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at % 2 == 1 || at == last {
            hash = node(step, &hash);
            while at.is_multiple_of(2) && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == head.root { Ok(()) } else { Err(ProofError::Root) }
}

/// Does `proof` show that `new` continues `old`? RFC 9162 §2.1.4.2; a tree continues itself
/// with an empty proof. That every tree continues the empty one is no proof of anything, and is
/// refused.
///
/// # Errors
/// It does not.
pub fn verify_consistency(
    old: &TreeHead,
    new: &TreeHead,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if old.size > new.size || (old.size == 0 && new.size > 0) {
        return Err(ProofError::Beyond);
    }
    if old.size == new.size {
        let same = old.root == new.root && (old.size > 0 || old.root == Digest::of(b""));
        return match (proof, same) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::Root),
            _ => Err(ProofError::Length),
        };
    }
    if proof.len() > MAX_PROOF {
        return Err(ProofError::Length);
    }
    let (first, rest) = if old.size.is_power_of_two() {
        (&old.root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    fold_consistency(old, new, first, rest)
}

fn fold_consistency(
    old: &TreeHead,
    new: &TreeHead,
    first: &Digest,
    rest: &[Digest],
) -> Result<(), ProofError> {
    let shift = (old.size - 1).trailing_ones();
    let (mut at, mut last) = ((old.size - 1) >> shift, (new.size - 1) >> shift);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for step in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at % 2 == 1 || at == last {
            old_hash = node(step, &old_hash);
            new_hash = node(step, &new_hash);
            while at.is_multiple_of(2) && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_hash == old.root && new_hash == new.root { Ok(()) } else { Err(ProofError::Root) }
}
