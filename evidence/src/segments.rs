//! The form of a collector's evidence segments: names, headers, frames, and the mark of what is
//! durable. The collector writes by it, everybody reads by it.
//!
//! `evidence/2026-11-21/0000000007.seg`: the folder is the UTC day on which the segment was begun,
//! the number runs over all days without holes.
//!
//! Header, 64 bytes (little endian): magic `CSEG`, version 1 and three zeros, number (8), when
//! begun in microseconds (8), length of the segment before (8), last four bytes of the segment
//! before (4), 24 zeros, CRC-32 of all this (4).
//!
//! A closed segment whose events have expired or were erased is written anew, with the same blocks as
//! sparse ones; its header then has version 2 and, in place of the 24 zeros: its first length (8), its
//! first last four bytes (4), how often it was written anew (4), its length now (8). The header of
//! the next segment goes on naming the first length and bytes. The receipts of such a segment carry
//! `was`: where the frame stood at first (`at`) and how long it was (`len`), so that places named
//! before stay good.
//!
//! Frame: magic `CFRM`, length of the receipt (4), length of the block (4), CRC-32 of these twelve
//! (4), the receipt (canonical JSON, at most 64 KiB), the block, CRC-32 of everything before (4).
//!
//! Mark (`evidence/durable`), 32 bytes: magic `CDUR`, version 1 and three zeros, segment (8), offset
//! (8), CRC-32 of these (4), zeros (4).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use custody_event::{MAX_SPARSE_BLOCK_BYTES, Timestamp};

use crate::scan::{Framing, Piece, Scanner};
pub use crate::scan::{HEAD_BYTES, TAIL_BYTES};

const MAGIC: &[u8; 4] = b"CSEG";
const VERSION: u8 = 1;
const VERSION_REWRITTEN: u8 = 2;
/// Where the first frame stands.
pub const HEADER_BYTES: u64 = 64;
/// A header's length in memory.
pub const HEADER_LEN: usize = 64;
/// What every frame begins with.
pub const FRAME_MAGIC: &[u8; 4] = b"CFRM";
/// A receipt is at most this long, in bytes: 1,024 events make at most 512 ranges of a dozen bytes,
/// and this is ten times as much.
pub const MAX_RECEIPT_BYTES: usize = 64 * 1024;
const MARK_MAGIC: &[u8; 4] = b"CDUR";
/// Length of the mark of what is durable, in bytes.
pub const MARK_BYTES: usize = 32;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 0 over all days.
    pub number: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
}

/// What a segment says of itself and of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number.
    pub number: u64,
    /// When it was begun.
    pub begun: Timestamp,
    /// Length of the segment before; 0 in the first.
    pub prev_len: u64,
    /// Last four bytes of the segment before; 0 in the first.
    pub prev_crc: u32,
    /// What it was before blocks were made sparse.
    pub rewritten: Option<Rewritten>,
}

/// What a segment that was written anew says of its first form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// Its length in bytes when it was closed.
    pub was_len: u64,
    /// Its last four bytes then.
    pub was_crc: u32,
    /// How often it was written anew.
    pub generation: u32,
    /// Its length now.
    pub len: u64,
}

impl SegmentHeader {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = VERSION;
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.begun.micros().to_le_bytes());
        out[24..32].copy_from_slice(&self.prev_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.prev_crc.to_le_bytes());
        if let Some(rewritten) = self.rewritten {
            out[4] = VERSION_REWRITTEN;
            out[36..44].copy_from_slice(&rewritten.was_len.to_le_bytes());
            out[44..48].copy_from_slice(&rewritten.was_crc.to_le_bytes());
            out[48..52].copy_from_slice(&rewritten.generation.to_le_bytes());
            out[52..60].copy_from_slice(&rewritten.len.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, String> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        let (content, crc) = bytes.split_at(60);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err("the segment's header is damaged".to_owned());
        }
        if !bytes.starts_with(MAGIC) || bytes[5..8] != [0; 3] {
            return Err("the file is not a segment".to_owned());
        }
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let rewritten = match bytes[4] {
            VERSION if bytes[36..60] == [0; 24] => None,
            VERSION => return Err("the file is not a segment".to_owned()),
            VERSION_REWRITTEN => Some(Rewritten {
                was_len: u64::from_le_bytes(word(36)),
                was_crc: half(44),
                generation: half(48),
                len: u64::from_le_bytes(word(52)),
            }),
            other => return Err(format!("segment format {other}, this program knows 1 and 2")),
        };
        Ok(Self {
            number: u64::from_le_bytes(word(8)),
            begun: Timestamp::from_micros(i64::from_le_bytes(word(16))),
            prev_len: u64::from_le_bytes(word(24)),
            prev_crc: half(32),
            rewritten,
        })
    }
}

/// How a segment ended when it was closed, as the header of the next one names it: its length and
/// its last four bytes. Of a damaged header nothing is believed: then the file's own end counts.
///
/// # Errors
/// It cannot be read.
pub fn end_of(segment: &Segment) -> io::Result<(u64, u32)> {
    let mut file = File::open(&segment.path)?;
    let mut header = Vec::with_capacity(HEADER_LEN);
    file.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
    let header = <[u8; HEADER_LEN]>::try_from(header).ok();
    if let Some(Ok(header)) = header.map(|header| SegmentHeader::from_bytes(&header))
        && let Some(rewritten) = header.rewritten
    {
        return Ok((rewritten.was_len, rewritten.was_crc));
    }
    let mut bytes = [0; 4];
    if segment.len >= 4 {
        file.seek(SeekFrom::Start(segment.len - 4))?;
        file.read_exact(&mut bytes)?;
    }
    Ok((segment.len, u32::from_le_bytes(bytes)))
}

/// All segments under `root`, by number; numbers may be missing or there twice.
///
/// # Errors
/// A folder cannot be read.
pub fn list(root: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for day in fs::read_dir(root)? {
        let day = day?.path();
        if !is_day(&day) || !day.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&day)? {
            let path = entry?.path();
            if let Some(number) = number_in(&path) {
                let len = fs::metadata(&path)?.len();
                found.push(Segment { number, path, len });
            }
        }
    }
    found.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
    Ok(found)
}

fn is_day(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn number_in(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (name.len() >= 10 && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok())?
}

/// How far the collector knew its log to be durable: (segment, byte), from the file `durable`;
/// `None` where it says nothing.
///
/// # Errors
/// It cannot be read.
pub fn durable_end(root: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut bytes = Vec::new();
    match File::open(root.join("durable")) {
        Ok(file) => file.take(33).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(<[u8; MARK_BYTES]>::try_from(bytes).ok().and_then(|bytes| mark_in(&bytes)))
}

/// What a mark says, (segment, byte); `None` where it is none.
#[must_use]
pub fn mark_in(bytes: &[u8; MARK_BYTES]) -> Option<(u64, u64)> {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let crc = crc32fast::hash(&bytes[..24]).to_le_bytes();
    let good = bytes.starts_with(MARK_MAGIC) && bytes[4] == VERSION && bytes[24..28] == crc;
    good.then(|| (word(8), word(16)))
}

/// A mark's bytes.
#[must_use]
pub fn mark(segment: u64, offset: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..4].copy_from_slice(MARK_MAGIC);
    bytes[4] = VERSION;
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&offset.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The lengths that a frame's head names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// The receipt's, in bytes.
    pub receipt: usize,
    /// The block's, in bytes.
    pub block: usize,
}

impl Lengths {
    /// The whole frame's.
    #[must_use]
    pub fn frame(self) -> usize {
        HEAD_BYTES + self.receipt + self.block + TAIL_BYTES
    }

    /// A head with these lengths; `None` where they are more than a frame can hold.
    #[must_use]
    pub fn head(self) -> Option<[u8; HEAD_BYTES]> {
        if self.receipt > MAX_RECEIPT_BYTES || self.block > MAX_SPARSE_BLOCK_BYTES {
            return None;
        }
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(FRAME_MAGIC);
        head[4..8].copy_from_slice(&u32::try_from(self.receipt).ok()?.to_le_bytes());
        head[8..12].copy_from_slice(&u32::try_from(self.block).ok()?.to_le_bytes());
        let crc = crc32fast::hash(&head[..12]);
        head[12..].copy_from_slice(&crc.to_le_bytes());
        Some(head)
    }

    /// Reads a head; `None` where it is none.
    #[must_use]
    pub fn read(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (content, crc) = head.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) || !content.starts_with(FRAME_MAGIC)
        {
            return None;
        }
        Self::within(content)
    }

    /// From what stands before the head's checksum.
    fn within(content: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = content.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let lengths = Self { receipt: number(4)?, block: number(8)? };
        (lengths.receipt <= MAX_RECEIPT_BYTES && lengths.block <= MAX_SPARSE_BLOCK_BYTES)
            .then_some(lengths)
    }
}

struct SegmentFraming;

impl Framing for SegmentFraming {
    const MAGIC: &'static [u8; 4] = FRAME_MAGIC;

    fn frame_len(head: &[u8]) -> Option<usize> {
        Lengths::within(head).map(Lengths::frame)
    }
}

/// What stands next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A block with its receipt.
    Block {
        /// The frame's first byte.
        at: u64,
        /// The receipt's JSON.
        receipt: &'a [u8],
        /// The encoded block.
        block: &'a [u8],
    },
    /// Bytes that are no frame.
    Damage {
        /// The first of them.
        from: u64,
        /// One beyond the last.
        to: u64,
        /// Does nothing whole follow?
        to_end: bool,
    },
}

/// Reads the frames of one segment, and goes on behind damage.
pub struct Frames<R>(Scanner<R, SegmentFraming>);

impl<R> std::fmt::Debug for Frames<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl<R: Read> Frames<R> {
    /// From what follows the header.
    pub fn new(input: R) -> Self {
        Self(Scanner::new(input, HEADER_BYTES))
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        Ok(self.0.next()?.map(|piece| match piece {
            Piece::Damage { from, to, to_end } => Frame::Damage { from, to, to_end },
            Piece::Frame { at, bytes } => {
                let content = &bytes[HEAD_BYTES..bytes.len() - TAIL_BYTES];
                let receipt = Lengths::within(bytes).map_or(0, |lengths| lengths.receipt);
                let (receipt, block) = content.split_at(receipt.min(content.len()));
                Frame::Block { at, receipt, block }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_seen() {
        let again = Rewritten { was_len: 1 << 28, was_crc: 7, generation: 3, len: 1 << 20 };
        for rewritten in [None, Some(again)] {
            let header = SegmentHeader {
                number: 7,
                begun: Timestamp::Y2020,
                prev_len: 1 << 33,
                prev_crc: 0xdead_beef,
                rewritten,
            };
            let bytes = header.to_bytes();
            assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(header));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentHeader::from_bytes(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_mark_reads_back_and_a_flipped_bit_of_what_it_says_is_seen() {
        let bytes = mark(3, 1 << 40);
        assert_eq!(mark_in(&bytes), Some((3, 1 << 40)));
        for bit in 0..28 * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(mark_in(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn lengths_beyond_a_frame_make_no_head() {
        let most = Lengths { receipt: MAX_RECEIPT_BYTES, block: MAX_SPARSE_BLOCK_BYTES };
        assert_eq!(Lengths::read(&most.head().unwrap()), Some(most));
        assert_eq!(Lengths { receipt: MAX_RECEIPT_BYTES + 1, ..most }.head(), None);
        assert_eq!(Lengths { block: MAX_SPARSE_BLOCK_BYTES + 1, ..most }.head(), None);
    }
}
