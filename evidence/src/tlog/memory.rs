//! Tiles in memory: for tests, for small logs, and for a browser.

use std::collections::BTreeMap;

use super::tile::{Kind, Tile, TileError, TileRead, TileWrite, first_entries};

/// See the module. A partial tile is also found as the beginning of a wider one.
#[derive(Debug, Clone, Default)]
pub struct MemoryTiles {
    tiles: BTreeMap<(Kind, u64), (u16, Vec<u8>)>,
}

/// The first `width` hashes or entries of a tile's bytes.
pub(super) fn narrowed(tile: &Tile, bytes: &[u8]) -> Option<Vec<u8>> {
    match tile.kind {
        Kind::Hashes(_) => bytes.get(..usize::from(tile.width) * 32).map(<[u8]>::to_vec),
        Kind::Entries => first_entries(bytes, tile.width).map(<[u8]>::to_vec),
    }
}

impl TileRead for MemoryTiles {
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError> {
        self.tiles
            .get(&(tile.kind, tile.index))
            .filter(|(width, _)| *width >= tile.width)
            .and_then(|(_, bytes)| narrowed(tile, bytes))
            .ok_or_else(|| TileError::Missing(tile.to_string()))
    }
}

impl TileWrite for MemoryTiles {
    fn write_tile(&mut self, tile: &Tile, bytes: &[u8], _durable: bool) -> Result<(), TileError> {
        self.tiles.insert((tile.kind, tile.index), (tile.width, bytes.to_vec()));
        Ok(())
    }

    fn forget_beyond(&mut self, size: u64) -> Result<(), TileError> {
        self.tiles.retain(|(kind, index), (width, bytes)| {
            let Some(tile) = Tile::in_tree(*kind, *index, size) else { return false };
            if let Some(kept) = narrowed(&tile, bytes).filter(|_| *width > tile.width) {
                (*width, *bytes) = (tile.width, kept);
            }
            true
        });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), TileError> {
        Ok(())
    }
}
