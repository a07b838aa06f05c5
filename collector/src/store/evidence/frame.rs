//! One frame of a segment: a block with the receipt that was made when it came in.
//!
//! Its form stands in [`custody_evidence::segments`].

use custody_evidence::segments::FRAME_MAGIC;
pub(super) use custody_evidence::segments::{HEAD_BYTES, Lengths, MAX_RECEIPT_BYTES, TAIL_BYTES};

use crate::store::Receipt;

/// Appends a frame to `out`. Blocks and receipts beyond the format's lengths are refused before
/// they come here.
pub(super) fn push(receipt: &Receipt, block: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let receipt = serde_json::to_vec(receipt).map_err(|_| TooLong)?;
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
