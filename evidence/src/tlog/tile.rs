//! Where tiles stand: `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]` (C2SP tlog-tiles).

use std::fmt::{self, Write};
use std::io;

use custody_event::Digest;
use thiserror::Error;

use super::{MAX_ENTRY_BYTES, TILE_WIDTH};

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Entries, each after its length (big endian, 16 bits).
    Entries,
    /// Hashes of this level: leaves at 0, roots of full tiles of the level below above.
    Hashes(u8),
}

/// Names one tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number in its level, from 0.
    pub index: u64,
    /// Hashes or entries in it: 1 to 256.
    pub width: u16,
}

/// 2^56 entries are seven levels of tiles.
const MAX_LEVEL: u8 = 7;
const FULL: u16 = 256;

impl Tile {
    /// The tile with this index in a tree of `size`, as wide as it is there; `None` where the
    /// tree does not reach.
    #[must_use]
    pub fn in_tree(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let shift = match kind {
            Kind::Entries => 0,
            Kind::Hashes(level) if level <= MAX_LEVEL => 8 * u32::from(level),
            Kind::Hashes(_) => return None,
        };
        let left = (size >> shift).checked_sub(index.checked_mul(TILE_WIDTH)?)?;
        let width = u16::try_from(left.min(TILE_WIDTH)).ok()?;
        (width > 0).then_some(Self { kind, index, width })
    }

    /// Is it full, and so never changed again?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.width == FULL
    }

    /// The same tile, full.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: FULL, ..*self }
    }

    /// The path without the part that says how wide a partial tile is.
    #[must_use]
    pub fn stem(&self) -> String {
        let mut out = match self.kind {
            Kind::Entries => "tile/entries".to_owned(),
            Kind::Hashes(level) => format!("tile/{level}"),
        };
        let mut groups = 1_u32;
        while self.index / 1000_u64.saturating_pow(groups) > 0 && groups < 7 {
            groups += 1;
        }
        for group in (0..groups).rev() {
            let digits = self.index / 1000_u64.saturating_pow(group) % 1000;
            let mark = if group > 0 { "x" } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(out, "/{mark}{digits:03}");
        }
        out
    }

    /// Reads a path as [`fmt::Display`] writes it; everything else is `None`.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                (number, width.parse().ok().filter(|w| (1..FULL).contains(w))?)
            }
            None => (rest, FULL),
        };
        let mut index = 0_u64;
        for group in number.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let value: u64 = (digits.len() == 3).then(|| digits.parse().ok())??;
            index = index.checked_mul(1000)?.checked_add(value)?;
        }
        let tile = Self { kind, index, width };
        // One name each: no leading zeros, no signs, every group but the last marked.
        (tile.to_string() == path).then_some(tile)
    }

    /// Has the tile's content the form that it must have?
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, bytes: &[u8]) -> Result<(), TileError> {
        let wanted = usize::from(self.width);
        let damaged = |reason| Err(TileError::Damaged { path: self.to_string(), reason });
        match self.kind {
            Kind::Hashes(_) if bytes.len() == wanted * 32 => Ok(()),
            Kind::Hashes(_) => damaged(format!("{} bytes, not {}", bytes.len(), wanted * 32)),
            Kind::Entries => match bundle_entries(bytes) {
                Some(entries) if entries.len() == wanted => Ok(()),
                Some(entries) => damaged(format!("{} entries, not {wanted}", entries.len())),
                None => damaged("its last entry is cut off".to_owned()),
            },
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stem())?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// Why a tile cannot be had.
#[derive(Debug, Error)]
pub enum TileError {
    /// It is not there.
    #[error("{0}: the tile is missing; put it back from a copy of the log")]
    Missing(String),
    /// It has not the form that it must have.
    #[error("{path}: the tile is damaged: {reason}; put it back from a copy of the log")]
    Damaged {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The tree does not have what was asked for.
    #[error("entry {index} is not in a log of {size} entries")]
    Beyond {
        /// What was asked for.
        index: u64,
        /// What there is.
        size: u64,
    },
}

/// Reads tiles.
pub trait TileRead {
    /// The tile's bytes, checked with [`Tile::check`].
    ///
    /// # Errors
    /// It is missing, damaged or cannot be read.
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError>;
}

/// Writes tiles.
pub trait TileWrite: TileRead {
    /// Puts the tile in its place, whole or not at all. With `durable` it must survive a power
    /// failure once [`Self::sync`] has returned.
    ///
    /// # Errors
    /// It cannot be written.
    fn write_tile(&mut self, tile: &Tile, bytes: &[u8], durable: bool) -> Result<(), TileError>;

    /// Forgets what goes beyond the first `size` entries: nobody was promised it. What a tile
    /// holds of the first `size` stays readable.
    ///
    /// # Errors
    /// It cannot be done.
    fn forget_beyond(&mut self, size: u64) -> Result<(), TileError>;

    /// Makes the names of what was written durable, and lets go of what it replaces.
    ///
    /// # Errors
    /// It cannot be done.
    fn sync(&mut self) -> Result<(), TileError>;
}

/// All kinds of tile that a log can have.
#[cfg(feature = "fs")]
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    std::iter::once(Kind::Entries).chain((0..=MAX_LEVEL).map(Kind::Hashes))
}

#[cfg(feature = "fs")]
impl Kind {
    /// The index of the tile in which a log of `size` entries goes on.
    pub(super) fn edge(self, size: u64) -> u64 {
        match self {
            Self::Entries => size / TILE_WIDTH,
            Self::Hashes(level) => (size >> (8 * u32::from(level))) / TILE_WIDTH,
        }
    }
}

impl<T: TileRead + ?Sized> TileRead for &T {
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError> {
        (**self).read_tile(tile)
    }
}

/// The hashes of a tile's bytes.
#[must_use]
pub fn hashes(bytes: &[u8]) -> Vec<Digest> {
    let (hashes, _) = bytes.as_chunks::<32>();
    hashes.iter().copied().map(Digest).collect()
}

/// The entries of a bundle, at most 256; `None` where the bytes are not whole entries.
#[must_use]
pub fn bundle_entries(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        if entries.len() == usize::from(FULL) {
            return None;
        }
        entries.push(entry);
        rest = after;
    }
    rest.is_empty().then_some(entries)
}

/// Appends an entry to a bundle; `false` where it is too long for one.
#[must_use]
pub(super) fn push_entry(entry: &[u8], out: &mut Vec<u8>) -> bool {
    match u16::try_from(entry.len()) {
        Ok(len) if entry.len() <= MAX_ENTRY_BYTES => {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(entry);
            true
        }
        _ => false,
    }
}

/// The first `count` entries of a bundle's bytes.
pub(super) fn first_entries(bytes: &[u8], count: u16) -> Option<&[u8]> {
    let mut at = 0;
    for _ in 0..count {
        let len = bytes.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_be_bytes([len[0], len[1]]));
    }
    bytes.get(..at)
}
