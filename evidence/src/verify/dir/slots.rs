//! The log's entries in their order, from the bundles on disk; and the tree made again from them.

use custody_event::Digest;
use custody_event::merkle;

use crate::tlog::{
    FileTiles, Frontier, Kind, TILE_WIDTH, Tile, TileError, TileRead, TreeHead, bundle_entries,
    hashes, leaf_hash,
};

/// Tiles that differ are told one by one up to this many.
const MAX_DIFFERENCES: usize = 1_000;

/// What the log has at one index.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) index: u64,
    /// The leaf; `None` where neither the entry nor its hash can be read.
    pub(super) leaf: Option<Digest>,
    /// The entry; `None` where only the hash can be read.
    pub(super) entry: Option<Vec<u8>>,
}

/// Reads slots one after the other.
pub(super) struct Slots<'a> {
    tiles: &'a FileTiles,
    size: u64,
    next: u64,
    loaded: Option<u64>,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Digest>,
    /// Why bundles could not be read: told by whoever reads first.
    pub(super) errors: Vec<(u64, TileError)>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(tiles: &'a FileTiles, size: u64, from: u64) -> Self {
        Self {
            tiles,
            size,
            next: from,
            loaded: None,
            entries: Vec::new(),
            leaves: Vec::new(),
            errors: Vec::new(),
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.next
    }

    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        if self.next >= self.size {
            return None;
        }
        let (index, tile) = (self.next, self.next / TILE_WIDTH);
        if self.loaded != Some(tile) {
            self.load(tile);
        }
        self.next += 1;
        let at = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
        let leaf = self.leaves.get(at).copied();
        Some(Slot { index, leaf, entry: self.entries.get(at).cloned() })
    }

    fn load(&mut self, index: u64) {
        self.loaded = Some(index);
        self.entries.clear();
        self.leaves.clear();
        let Some(tile) = Tile::in_tree(Kind::Entries, index, self.size) else { return };
        match self.tiles.read_tile(&tile) {
            Ok(bytes) => {
                let entries = bundle_entries(&bytes).unwrap_or_default();
                self.leaves = entries.iter().map(|entry| leaf_hash(entry)).collect();
                self.entries = entries.into_iter().map(<[u8]>::to_vec).collect();
            }
            Err(error) => {
                self.errors.push((index, error));
                let hashes_of = Tile { kind: Kind::Hashes(0), ..tile };
                if let Ok(bytes) = self.tiles.read_tile(&hashes_of) {
                    self.leaves = hashes(&bytes);
                }
            }
        }
    }
}

/// A tile on disk that is not what its entries make.
pub(super) enum Differs {
    /// It cannot be read.
    Unreadable(TileError),
    /// These entries (first and last of those that differ) have other hashes.
    Entries(Tile, u64, u64),
    /// A tile above the leaves differs.
    Above(Tile),
}

/// Makes the tree again and compares every tile with it.
pub(super) struct Rebuild<'a> {
    tiles: &'a FileTiles,
    frontier: Frontier,
    edges: Vec<Vec<Digest>>,
    /// Was every leaf known?
    pub(super) whole: bool,
    pub(super) differences: Vec<Differs>,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(tiles: &'a FileTiles) -> Self {
        let edges = vec![Vec::new(); 8];
        Self { tiles, frontier: Frontier::default(), edges, whole: true, differences: Vec::new() }
    }

    pub(super) fn head(&self) -> TreeHead {
        self.frontier.head()
    }

    pub(super) fn push(&mut self, slot: &Slot) {
        let Some(leaf) = slot.leaf else {
            self.whole = false;
            return;
        };
        if !self.whole {
            return;
        }
        self.frontier.push(leaf);
        let (mut hash, mut index) = (leaf, slot.index);
        for level in 0_u8..8 {
            let edge = &mut self.edges[usize::from(level)];
            edge.push(hash);
            if edge.len() < 256 {
                return;
            }
            let mut full = std::mem::take(edge);
            let tile = Tile { kind: Kind::Hashes(level), index: index / TILE_WIDTH, width: 256 };
            self.compare(tile, level, &full);
            hash = merkle::root(&mut full);
            index /= TILE_WIDTH;
        }
    }

    /// Compares the partial tiles at the right edge.
    pub(super) fn finish(&mut self) {
        let size = self.frontier.size();
        for (level, edge) in (0_u8..8).zip(std::mem::take(&mut self.edges)) {
            let index = (size >> (8 * u32::from(level))) / TILE_WIDTH;
            if let Some(tile) = Tile::in_tree(Kind::Hashes(level), index, size)
                && self.whole
            {
                self.compare(tile, level, &edge);
            }
        }
    }

    fn compare(&mut self, tile: Tile, level: u8, ours: &[Digest]) {
        let theirs = match self.tiles.read_tile(&tile) {
            Ok(bytes) => hashes(&bytes),
            Err(error) => return self.differ(Differs::Unreadable(error)),
        };
        let differ = |at: &usize| theirs.get(*at) != ours.get(*at);
        let first = (0..ours.len()).find(differ);
        let last = (0..ours.len()).rfind(differ);
        let (Some(first), Some(last)) = (first, last) else { return };
        let entry = |at: usize| tile.index * TILE_WIDTH + u64::try_from(at).unwrap_or(u64::MAX);
        self.differ(match level {
            0 => Differs::Entries(tile, entry(first), entry(last)),
            _ => Differs::Above(tile),
        });
    }

    fn differ(&mut self, difference: Differs) {
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }
}

/// How many entries the bundles on disk hold, where no checkpoint says it.
pub(super) fn probe(tiles: &FileTiles) -> u64 {
    let readable =
        |index, width| tiles.read_tile(&Tile { kind: Kind::Entries, index, width }).is_ok();
    let mut full = 0;
    while readable(full, 256) {
        full += 1;
    }
    let partial = (1..256).rev().find(|width| readable(full, *width));
    full * TILE_WIDTH + u64::from(partial.unwrap_or(0))
}
