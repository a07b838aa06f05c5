//! One frame of a segment: a block with the receipt that was made when it came in.
//!
//! All integers are little endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `CFRM` |
//! | 4 | 4 | length of the receipt, R: at most 64 KiB |
//! | 8 | 4 | length of the block, B: at most [`custody_event::MAX_BLOCK_BYTES`] |
//! | 12 | 4 | CRC-32 of the twelve bytes before: the lengths can be believed |
//! | 16 | R | receipt: canonical JSON ([`Receipt`]) |
//! | … | B | block, as it was sent |
//! | … | 4 | CRC-32 of everything before |

use custody_event::MAX_BLOCK_BYTES;

use crate::store::Receipt;

const MAGIC: &[u8; 4] = b"CFRM";
/// Bytes before the receipt.
pub(super) const HEAD_BYTES: usize = 16;
/// Bytes after the block.
pub(super) const TAIL_BYTES: usize = 4;
/// 1,024 events make at most 512 ranges of a dozen bytes; this is ten times as much.
pub(super) const MAX_RECEIPT_BYTES: usize = 64 * 1024;

/// The lengths that a frame's head names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) receipt: usize,
    pub(super) block: usize,
}

impl Lengths {
    /// The whole frame's.
    pub(super) fn frame(self) -> usize {
        HEAD_BYTES + self.receipt + self.block + TAIL_BYTES
    }

    /// Reads a head; `None` where it is none.
    pub(super) fn read(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (content, crc) = head.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) || !content.starts_with(MAGIC) {
            return None;
        }
        let number = |at: usize| {
            let bytes = content.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let lengths = Self { receipt: number(4)?, block: number(8)? };
        (lengths.receipt <= MAX_RECEIPT_BYTES && lengths.block <= MAX_BLOCK_BYTES)
            .then_some(lengths)
    }
}

/// Appends a frame to `out`. Blocks and receipts beyond the format's lengths are refused before
/// they come here.
pub(super) fn push(receipt: &Receipt, block: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let receipt = serde_json::to_vec(receipt).map_err(|_| TooLong)?;
    if receipt.len() > MAX_RECEIPT_BYTES || block.len() > MAX_BLOCK_BYTES {
        return Err(TooLong);
    }
    let start = out.len();
    out.extend_from_slice(MAGIC);
    for len in [receipt.len(), block.len()] {
        out.extend_from_slice(&u32::try_from(len).map_err(|_| TooLong)?.to_le_bytes());
    }
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
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

/// Takes a whole frame apart: the receipt and the block's bytes.
pub(super) fn open(frame: &[u8], lengths: Lengths) -> Result<(Receipt, &[u8]), String> {
    let (content, crc) = frame.split_last_chunk::<TAIL_BYTES>().ok_or("the frame is cut off")?;
    if frame.len() != lengths.frame() {
        return Err("the frame is cut off".to_owned());
    }
    if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
        return Err("the frame's checksum does not hold".to_owned());
    }
    let (receipt, block) = content[HEAD_BYTES..].split_at(lengths.receipt);
    let receipt = serde_json::from_slice(receipt)
        .map_err(|error| format!("the receipt cannot be read: {error}"))?;
    Ok((receipt, block))
}

/// The next place at or after `from` where a frame's magic stands.
pub(super) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(bytes.get(from..)?, MAGIC).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_event::Timestamp;

    #[test]
    fn a_frame_reads_back_and_every_flipped_bit_is_seen() {
        let receipt = Receipt { held: vec![(1, 2)], received: Timestamp::Y2020 };
        let mut frame = Vec::new();
        push(&receipt, b"block", &mut frame).unwrap();
        let head: [u8; HEAD_BYTES] = frame[..HEAD_BYTES].try_into().unwrap();
        let lengths = Lengths::read(&head).unwrap();
        assert_eq!(open(&frame, lengths).unwrap(), (receipt, &b"block"[..]));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let head: [u8; HEAD_BYTES] = bad[..HEAD_BYTES].try_into().unwrap();
            let seen = Lengths::read(&head).is_none_or(|lengths| open(&bad, lengths).is_err());
            assert!(seen, "bit {bit}");
        }
    }
}
