//! The growing log: the right edge in memory, everything else in tiles.
//!
//! [`Log::append`] does no I/O; [`Log::commit`] writes the tiles that have become full, then the
//! partial ones, and only then may a checkpoint be signed. A commit that failed may be repeated.
//!
//! **Opening.** The caller says how many entries count: those that the newest signed checkpoint
//! names. Tiles beyond are of entries that nobody was promised, and are written anew.

use std::mem;

use custody_event::Digest;
use custody_event::merkle;
use thiserror::Error;

use super::tile::{Kind, Tile, TileError, TileRead, TileWrite, bundle_entries, hashes, push_entry};
use super::{Frontier, MAX_SIZE, TILE_WIDTH, TreeHead, leaf_hash};

/// Levels of tiles, at most.
const LEVELS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Log<S> {
    store: S,
    frontier: Frontier,
    /// By level: the hashes of its last, partial tile.
    edges: Vec<Vec<Digest>>,
    /// The last, partial bundle of entries.
    bundle: Vec<u8>,
    bundled: u16,
    /// Tiles that have become full and are not written yet, in the order of writing.
    full: Vec<(Tile, Vec<u8>)>,
    /// Size at the last commit.
    committed: u64,
}

/// An entry does not fit into a bundle, or the log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an entry of {bytes} bytes at {index}: at most 65,535 bytes and 2^56 entries")]
pub struct TooLong {
    /// How long it is.
    pub bytes: usize,
    /// Where it would stand.
    pub index: u64,
}

impl<S: TileWrite> Log<S> {
    /// Opens a log of `size` entries, 0 for a new one. Compare [`Self::head`] with the checkpoint.
    ///
    /// # Errors
    /// A tile of the right edge is missing, damaged, or does not fit the others.
    pub fn open(mut store: S, size: u64) -> Result<Self, TileError> {
        if size > MAX_SIZE {
            return Err(TileError::Beyond { index: size, size: MAX_SIZE });
        }
        store.forget_beyond(size)?;
        let mut edges = vec![Vec::new(); LEVELS];
        for (level, edge) in (0_u8..).zip(&mut edges).skip(1) {
            let index = (size >> (8 * u32::from(level))) / TILE_WIDTH;
            if let Some(tile) = Tile::in_tree(Kind::Hashes(level), index, size) {
                *edge = hashes(&store.read_tile(&tile)?);
            }
        }
        let (mut bundle, mut bundled) = (Vec::new(), 0);
        if let Some(tile) = Tile::in_tree(Kind::Entries, size / TILE_WIDTH, size) {
            bundle = store.read_tile(&tile)?;
            bundled = tile.width;
            let entries = bundle_entries(&bundle).unwrap_or_default();
            edges[0] = entries.into_iter().map(leaf_hash).collect();
        }
        let frontier = Frontier::from_nodes(size, edge_nodes(size, &edges)).ok_or_else(|| {
            TileError::Damaged { path: "tile".to_owned(), reason: "an edge is short".to_owned() }
        })?;
        Ok(Self { store, frontier, edges, bundle, bundled, full: Vec::new(), committed: size })
    }

    /// Opens as many of the first `size` entries as can be read, where the last commits were not
    /// durable and a power failure took them. The caller appends the rest again, from what is
    /// durable elsewhere, and compares the head with the checkpoint.
    ///
    /// # Errors
    /// A tile that was durable cannot be read.
    pub fn open_shorter(store: S, size: u64) -> Result<Self, TileError> {
        let edge = size / TILE_WIDTH;
        let whole = edge * TILE_WIDTH;
        let readable = (whole + 1..=size).rev().find(|size| {
            Tile::in_tree(Kind::Entries, edge, *size)
                .is_some_and(|tile| store.read_tile(&tile).is_ok())
        });
        Self::open(store, readable.unwrap_or(whole))
    }

    /// Appends; gives the entry's index.
    ///
    /// # Errors
    /// The entry is longer than a bundle can hold, or the log is full.
    pub fn append(&mut self, entry: &[u8]) -> Result<u64, TooLong> {
        let index = self.frontier.size();
        if index >= MAX_SIZE || !push_entry(entry, &mut self.bundle) {
            return Err(TooLong { bytes: entry.len(), index });
        }
        let leaf = leaf_hash(entry);
        self.frontier.push(leaf);
        self.bundled += 1;
        if u64::from(self.bundled) == TILE_WIDTH {
            let tile = Tile { kind: Kind::Entries, index: index / TILE_WIDTH, width: self.bundled };
            self.full.push((tile, mem::take(&mut self.bundle)));
            self.bundled = 0;
        }
        self.push_hash(index, leaf);
        Ok(index)
    }

    fn push_hash(&mut self, entry: u64, leaf: Digest) {
        let (mut hash, mut index) = (leaf, entry);
        for (level, edge) in (0_u8..).zip(&mut self.edges) {
            edge.push(hash);
            if edge.len() < 256 {
                return;
            }
            let tile = Tile { kind: Kind::Hashes(level), index: index / TILE_WIDTH, width: 256 };
            self.full.push((tile, bytes_of(edge)));
            hash = merkle::root(&mut mem::take(edge));
            index /= TILE_WIDTH;
        }
    }

    /// Writes what has been appended. With `durable` it survives a power failure; without, only
    /// full tiles do, and the caller must be able to append the rest again.
    ///
    /// # Errors
    /// A tile cannot be written; nothing is lost, call it again.
    pub fn commit(&mut self, durable: bool) -> Result<TreeHead, TileError> {
        let size = self.frontier.size();
        if size == self.committed {
            return Ok(self.head());
        }
        for (tile, bytes) in &self.full {
            self.store.write_tile(tile, bytes, true)?;
        }
        if let Some(tile) = Tile::in_tree(Kind::Entries, size / TILE_WIDTH, size) {
            self.store.write_tile(&tile, &self.bundle, durable)?;
        }
        for (level, edge) in (0_u8..).zip(&self.edges) {
            let shift = 8 * u32::from(level);
            if size >> shift == self.committed >> shift {
                break;
            }
            let index = (size >> shift) / TILE_WIDTH;
            if let Some(tile) = Tile::in_tree(Kind::Hashes(level), index, size) {
                // Only the leaves can be made again from the entries.
                self.store.write_tile(&tile, &bytes_of(edge), durable || level > 0)?;
            }
        }
        self.store.sync()?;
        self.full.clear();
        self.committed = size;
        Ok(self.head())
    }

    /// Size and root, with what has not been committed yet.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.frontier.head()
    }

    /// Entries, with those not committed yet.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Are there full tiles that have not been written?
    #[must_use]
    pub fn has_full_tiles(&self) -> bool {
        !self.full.is_empty()
    }

    /// The tiles.
    pub fn store(&self) -> &S {
        &self.store
    }
}

impl<S> Log<S> {
    /// The tile, if it is at the right edge, in which the log goes on, or has not been written yet.
    #[must_use]
    pub fn in_memory(&self, tile: &Tile) -> Option<Vec<u8>> {
        if let Some((_, bytes)) =
            self.full.iter().find(|(known, _)| (known.kind, known.index) == (tile.kind, tile.index))
            && let Some(bytes) = super::memory::narrowed(tile, bytes)
        {
            return Some(bytes);
        }
        let size = self.frontier.size();
        match tile.kind {
            Kind::Hashes(level) if (size >> (8 * u32::from(level))) / TILE_WIDTH == tile.index => {
                let edge = self.edges.get(usize::from(level))?;
                edge.get(..usize::from(tile.width)).map(bytes_of)
            }
            Kind::Entries if size / TILE_WIDTH == tile.index => {
                super::memory::narrowed(tile, &self.bundle)
            }
            _ => None,
        }
    }
}

/// Reads the edge from memory, so that proofs of what has just been appended cost no I/O.
impl<S: TileRead> TileRead for Log<S> {
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError> {
        self.in_memory(tile).map_or_else(|| self.store.read_tile(tile), Ok)
    }
}

fn bytes_of(hashes: &[Digest]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(hashes.len() * 32);
    hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
    bytes
}

/// The complete subtrees of a tree, from the partial tiles of its right edge.
fn edge_nodes(size: u64, edges: &[Vec<Digest>]) -> Vec<Digest> {
    let mut nodes = Vec::new();
    for height in (0..64_u32).rev().filter(|height| size >> height & 1 == 1) {
        let edge = usize::try_from(height / 8).ok().and_then(|level| edges.get(level));
        // What the larger subtrees before it take of this edge.
        let used = (size >> (8 * (height / 8))) & 0xff & !((2_u64 << (height % 8)) - 1);
        let from = usize::try_from(used).unwrap_or(usize::MAX);
        let run = edge.and_then(|edge| edge.get(from..from.checked_add(1 << (height % 8))?));
        if let Some(run) = run {
            nodes.push(merkle::root(&mut run.to_vec()));
        }
    }
    nodes
}
