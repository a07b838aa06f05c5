//! The keys of the one tree.
//!
//! Of a block, sled holds the place where its body lies ([`place_key`]). A dead letter is in sled itself,
//! and so is a block that was written before bodies had files of their own.
//!
//! sled keeps up to 17 keys in a leaf and rewrites the whole leaf after every ten changes. So what is
//! large is cut into parts of [`PART_BYTES`]: a leaf stays below 320 KiB, well under the quarter of a
//! segment above which sled would put it into a file of its own that it never syncs. And positions,
//! which change with every batch, are kept out of the leaves that hold parts by a row of [`fences`]: 40
//! small keys that never change.

use super::types::{Slot, SpoolError};
use super::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// The bytes of one part of a large value.
pub(crate) const PART_BYTES: usize = 16 * 1024;
/// The length of the prefix before a large value's first part: its whole length.
pub(crate) const HEAD_BYTES: usize = 4;
/// There are bodies in files. Everything large begins with `~` and sorts after every other key; builds
/// that know of no such files take this for damage among what is large, and put the store aside: else
/// they would find no blocks, and think that all were delivered.
pub(crate) const BODIES: &[u8] = b"~a/bodies";
/// What is large and part of a block.
pub(crate) const BLOCK_PARTS: &[u8] = b"~b/";
/// Where the bodies of blocks lie.
pub(crate) const PLACE: &[u8] = b".b/";
/// Which generation is the live one (u32, big endian).
pub(crate) const GENERATION: &[u8] = b".generation";
/// The next block number (u64, big endian): the truth when all blocks are gone.
pub(crate) const NEXT_SEQ: &[u8] = b".next";
/// Why a new stream must be begun (text).
pub(crate) const RESTREAM: &[u8] = b".restream";
/// Where the cursors are.
pub(crate) const CURSOR: &[u8] = b"cursor/";
/// Where the dead letters' descriptions are.
pub(crate) const DEAD: &[u8] = b"dead/";
/// Which blocks which outputs have refused.
pub(crate) const REFUSED: &[u8] = b"refused/";

/// The key of one part.
pub(crate) fn part_key(slot: Slot, part: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    match slot {
        Slot::Block { generation, seq } => {
            key.extend_from_slice(BLOCK_PARTS);
            key.extend_from_slice(&generation.to_be_bytes());
            key.extend_from_slice(&seq.to_be_bytes());
        }
        Slot::Dead(id) => {
            key.extend_from_slice(b"~d/");
            key.extend_from_slice(&id.to_be_bytes());
        }
    }
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// The key of the place of a block's body.
pub(crate) fn place_key(generation: u32, seq: u64) -> Vec<u8> {
    [PLACE, &generation.to_be_bytes(), &seq.to_be_bytes()].concat()
}

/// The generation and the block that the key of a place names.
pub(crate) fn parse_place_key(key: &[u8]) -> Option<(u32, u64)> {
    let (generation, seq) = key.strip_prefix(PLACE)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*generation), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// The slot and part that a key names.
pub(crate) fn parse_part_key(key: &[u8]) -> Option<(Slot, u16)> {
    let (head, part) = key.split_last_chunk::<2>()?;
    let slot = if let Some(rest) = head.strip_prefix(BLOCK_PARTS) {
        let (generation, seq) = rest.split_first_chunk::<4>()?;
        Slot::Block {
            generation: u32::from_be_bytes(*generation),
            seq: u64::from_be_bytes(seq.try_into().ok()?),
        }
    } else {
        Slot::Dead(u64::from_be_bytes(head.strip_prefix(b"~d/")?.try_into().ok()?))
    };
    Some((slot, u16::from_be_bytes(*part)))
}

/// How many parts a large value of `len` bytes has; at least one.
pub(crate) fn parts(len: usize) -> u16 {
    u16::try_from(len.div_ceil(PART_BYTES).max(1)).unwrap_or(u16::MAX)
}

/// The key of a cursor.
pub(crate) fn cursor_key(output: &str) -> Vec<u8> {
    [CURSOR, output.as_bytes()].concat()
}

/// The key of a dead letter's description.
pub(crate) fn dead_key(id: u64) -> Vec<u8> {
    [DEAD, &id.to_be_bytes()].concat()
}

/// The key of an output's refusal of a block: the output's name, then as a block's slot.
pub(crate) fn refused_key(output: &str, generation: u32, seq: u64) -> Vec<u8> {
    [REFUSED, output.as_bytes(), &generation.to_be_bytes(), &seq.to_be_bytes()].concat()
}

/// The output, the generation and the block that the key of a refusal names.
pub(crate) fn parse_refused_key(key: &[u8]) -> Option<(String, u32, u64)> {
    let (rest, seq) = key.strip_prefix(REFUSED)?.split_last_chunk::<8>()?;
    let (output, generation) = rest.split_last_chunk::<4>()?;
    let output = String::from_utf8(output.to_vec()).ok()?;
    Some((output, u32::from_be_bytes(*generation), u64::from_be_bytes(*seq)))
}

/// The row of keys between small values and large ones.
pub(crate) fn fences() -> impl Iterator<Item = Vec<u8>> {
    (0_u8..40).map(|n| vec![b'|', b'/', n])
}

/// May the caller use this key, and is its value small enough?
pub(crate) fn check_small(key: &[u8], value_len: usize) -> Result<(), SpoolError> {
    if key.len() > MAX_KEY_BYTES || key.is_empty() {
        return Err(SpoolError::TooLarge { what: "key", len: key.len(), limit: MAX_KEY_BYTES });
    }
    if value_len > MAX_VALUE_BYTES {
        return Err(SpoolError::TooLarge { what: "value", len: value_len, limit: MAX_VALUE_BYTES });
    }
    let ours = matches!(key.first(), Some(b'.' | b'|' | b'~' | 0x7f..))
        || key.starts_with(CURSOR)
        || key.starts_with(DEAD)
        || key.starts_with(REFUSED);
    if ours {
        return Err(SpoolError::ReservedKey(String::from_utf8_lossy(key).into_owned()));
    }
    Ok(())
}
