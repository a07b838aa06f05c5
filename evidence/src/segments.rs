//! Reads a collector's evidence segments: their names, headers and frames.
//!
//! `evidence/2026-11-21/0000000007.seg`: the folder is the UTC day on which the segment was begun,
//! the number runs over all days without holes.
//!
//! Header, 64 bytes (little endian): magic `CSEG`, version 1 and three zeros, number (8), when
//! begun in microseconds (8), length of the segment before (8), last four bytes of the segment
//! before (4), 24 zeros, CRC-32 of all this (4).
//!
//! Frame: magic `CFRM`, length of the receipt (4), length of the block (4), CRC-32 of these twelve
//! (4), the receipt (canonical JSON), the block, CRC-32 of everything before (4).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::scan::{Framing, HEAD_BYTES, Piece, Scanner, TAIL_BYTES};

/// Where the first frame stands.
pub const HEADER_BYTES: u64 = 64;
const MAX_RECEIPT_BYTES: usize = 64 * 1024;

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
    /// Length of the segment before; 0 in the first.
    pub prev_len: u64,
    /// Last four bytes of the segment before; 0 in the first.
    pub prev_crc: u32,
}

impl SegmentHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8; 64]) -> Result<Self, String> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        let (content, crc) = bytes.split_at(60);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err("the segment's header is damaged".to_owned());
        }
        if !bytes.starts_with(b"CSEG") || bytes[5..8] != [0; 3] || bytes[36..60] != [0; 24] {
            return Err("the file is not a segment".to_owned());
        }
        if bytes[4] != 1 {
            return Err(format!("segment format {}, this program knows 1", bytes[4]));
        }
        let half = word(32);
        Ok(Self {
            number: u64::from_le_bytes(word(8)),
            prev_len: u64::from_le_bytes(word(24)),
            prev_crc: u32::from_le_bytes([half[0], half[1], half[2], half[3]]),
        })
    }
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
        Ok(file) => file.take(32).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(bytes) = <[u8; 32]>::try_from(bytes) else { return Ok(None) };
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let crc = crc32fast::hash(&bytes[..24]).to_le_bytes();
    let good = bytes.starts_with(b"CDUR") && bytes[4] == 1 && bytes[24..28] == crc;
    Ok(good.then(|| (word(8), word(16))))
}

struct SegmentFraming;

fn lengths(head: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (receipt, block) = (number(4)?, number(8)?);
    (receipt <= MAX_RECEIPT_BYTES && block <= custody_event::MAX_BLOCK_BYTES)
        .then_some((receipt, block))
}

impl Framing for SegmentFraming {
    const MAGIC: &'static [u8; 4] = b"CFRM";

    fn frame_len(head: &[u8]) -> Option<usize> {
        let (receipt, block) = lengths(head)?;
        Some(HEAD_BYTES + receipt + block + TAIL_BYTES)
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
                let receipt = lengths(bytes).map_or(0, |(receipt, _)| receipt);
                let (receipt, block) = content.split_at(receipt.min(content.len()));
                Frame::Block { at, receipt, block }
            }
        }))
    }
}
