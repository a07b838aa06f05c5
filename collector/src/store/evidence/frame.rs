//! One frame of a segment: a block with the receipt that was made when it came in.
//!
//! Its form stands in [`custody_evidence::segments`].

use std::collections::BTreeMap;

use custody_event::Timestamp;
use custody_evidence::segments::FRAME_MAGIC;
pub(super) use custody_evidence::segments::{HEAD_BYTES, Lengths, MAX_RECEIPT_BYTES, TAIL_BYTES};

use serde::{Deserialize, Serialize};

use crate::store::Receipt;

/// What a frame that was written anew (its block made sparse) keeps of its first form: the rest of
/// the log and the index go on naming its first place, and what was decided when its events were
/// still there cannot be decided again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Was {
    /// Its first byte in the segment as it was closed.
    pub(crate) at: u64,
    /// Events held from an older stream, by source.
    pub(crate) held: BTreeMap<String, u64>,
    /// Its length then.
    pub(crate) len: u64,
    /// The line of each covered range ([`super::held`]).
    pub(crate) lines: Vec<u32>,
}

/// The receipt as it stands in the frame.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    held: Vec<(u32, u32)>,
    received: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was: Option<Was>,
}

/// A frame, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) receipt: Receipt,
    pub(super) was: Option<Was>,
    pub(super) block: &'a [u8],
}

/// Appends a frame to `out`. Blocks and receipts beyond the format's lengths are refused before
/// they come here.
pub(super) fn push(receipt: &Receipt, block: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    push_anew(receipt, None, block, out)
}

/// Appends a frame that is written anew.
pub(super) fn push_anew(
    receipt: &Receipt,
    was: Option<Was>,
    block: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let written = Written { held: receipt.held.clone(), received: receipt.received, was };
    let receipt = serde_json::to_vec(&written).map_err(|_| TooLong)?;
    let lengths = Lengths { receipt: receipt.len(), block: block.len() };
    let start = out.len();
    out.extend_from_slice(&lengths.head().ok_or(TooLong)?);
    out.extend_from_slice(&receipt);
    out.extend_from_slice(block);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// A block or a receipt is longer than a frame can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than a frame can hold")]
pub(super) struct TooLong;

/// Takes a whole frame apart.
pub(super) fn open(frame: &[u8], lengths: Lengths) -> Result<Parts<'_>, String> {
    let (content, crc) = frame.split_last_chunk::<TAIL_BYTES>().ok_or("the frame is cut off")?;
    if frame.len() != lengths.frame() {
        return Err("the frame is cut off".to_owned());
    }
    if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
        return Err("the frame's checksum does not hold".to_owned());
    }
    let (receipt, block) = content[HEAD_BYTES..].split_at(lengths.receipt);
    let (receipt, was) = open_receipt(receipt)?;
    Ok(Parts { receipt, was, block })
}

/// Reads a receipt's JSON.
pub(super) fn open_receipt(bytes: &[u8]) -> Result<(Receipt, Option<Was>), String> {
    let written: Written = serde_json::from_slice(bytes)
        .map_err(|error| format!("the receipt cannot be read: {error}"))?;
    Ok((Receipt { held: written.held, received: written.received }, written.was))
}

/// The next place at or after `from` where a frame's magic stands.
pub(super) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(bytes.get(from..)?, FRAME_MAGIC).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::Timestamp;

    #[test]
    fn a_frame_reads_back_and_every_flipped_bit_is_seen() {
        let receipt = Receipt { held: vec![(1, 2)], received: Timestamp::Y2020 };
        let mut frame = Vec::new();
        let was =
            Was { at: 64, held: BTreeMap::from([("a".into(), 2)]), len: 9, lines: vec![0, 1] };
        push_anew(&receipt, Some(was.clone()), b"block", &mut frame).unwrap();
        let head: [u8; HEAD_BYTES] = frame[..HEAD_BYTES].try_into().unwrap();
        let lengths = Lengths::read(&head).unwrap();
        let parts = Parts { receipt, was: Some(was), block: b"block" };
        assert_eq!(open(&frame, lengths).unwrap(), parts);
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let head: [u8; HEAD_BYTES] = bad[..HEAD_BYTES].try_into().unwrap();
            let seen = Lengths::read(&head).is_none_or(|lengths| open(&bad, lengths).is_err());
            assert!(seen, "bit {bit}");
        }
    }
}
