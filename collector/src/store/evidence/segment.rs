//! Segment files: their names, their header, and the list of them on disk.
//!
//! `evidence/2026-11-21/0000000007.seg`: the folder is the UTC day on which the segment was begun,
//! the number runs over all days without holes. A segment is closed when it has reached its size
//! or the day is over; closed segments never change.
//!
//! The header's 64 bytes (little endian): magic `CSEG`, version 1 and three zeros, number (8),
//! when begun in microseconds (8), length of the segment before (8), CRC at the end of its last
//! frame (4), 24 zeros, CRC-32 of all this (4). So a closed segment that has lost its end, or was
//! exchanged, is noticed without reading it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use custody_event::Timestamp;

use crate::store::StoreError;

const MAGIC: &[u8; 4] = b"CSEG";
const VERSION: u8 = 1;
/// Where the first frame stands.
pub(super) const HEADER_BYTES: u64 = 64;
const HEADER_LEN: usize = 64;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) begun: Timestamp,
    /// Length of the segment before; 0 in the first.
    pub(super) prev_len: u64,
    /// Last four bytes of the segment before; 0 in the first.
    pub(super) prev_crc: u32,
}

impl SegmentHeader {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = VERSION;
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.begun.micros().to_le_bytes());
        out[24..32].copy_from_slice(&self.prev_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.prev_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, String> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        let (content, crc) = bytes.split_at(60);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err("the segment's header is damaged".to_owned());
        }
        if !bytes.starts_with(MAGIC) || bytes[5..8] != [0; 3] || bytes[36..60] != [0; 24] {
            return Err("the file is not a segment".to_owned());
        }
        if bytes[4] != VERSION {
            return Err(format!("segment format {}, this program knows 1", bytes[4]));
        }
        let half = word(32);
        Ok(Self {
            number: u64::from_le_bytes(word(8)),
            begun: Timestamp::from_micros(i64::from_le_bytes(word(16))),
            prev_len: u64::from_le_bytes(word(24)),
            prev_crc: u32::from_le_bytes([half[0], half[1], half[2], half[3]]),
        })
    }

    /// Reads the header of an open segment; `None` if the file is shorter than a header.
    pub(super) fn read(path: &Path, file: &File) -> Result<Option<Self>, StoreError> {
        let mut bytes = [0; HEADER_LEN];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Self::from_bytes(&bytes).map(Some).map_err(|reason| damaged(path, 0, reason)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(io_error(path, source)),
        }
    }
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// Bytes that are durable.
    pub(super) len: u64,
}

/// The UTC day of a time, as a folder is named.
pub(super) fn day_of(time: Timestamp) -> String {
    let civil = time.civil();
    format!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day)
}

/// Where the segment stands.
pub(super) fn path_of(root: &Path, day: &str, number: u64) -> PathBuf {
    root.join(day).join(format!("{number:010}.seg"))
}

/// The day (folder) that a segment stands in.
pub(super) fn day_in(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

/// All segments under `root`, by number.
///
/// # Errors
/// A folder cannot be read, or a number is missing or there twice.
pub(super) fn list(root: &Path) -> Result<Vec<Segment>, StoreError> {
    let mut found = Vec::new();
    for day in folder(root)? {
        if !day.is_dir() || !is_day(&day) {
            continue;
        }
        for path in folder(&day)? {
            if let Some(number) = number_in(&path) {
                let len = std::fs::metadata(&path).map_err(|e| io_error(&path, e))?.len();
                found.push(Segment { number, path, len });
            }
        }
    }
    found.sort_by_key(|segment| segment.number);
    if let Some(first) = found.first().filter(|first| first.number != 0) {
        let reason = "segments before this one are missing; put them back from a backup".to_owned();
        return Err(damaged(&first.path, 0, reason));
    }
    for pair in found.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            let reason = format!(
                "segment {} is not followed by the next one: a file is missing, or is there twice; \
                 put it back from a backup",
                pair[0].number
            );
            return Err(damaged(&pair[1].path, 0, reason));
        }
    }
    Ok(found)
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(path).map_err(|e| io_error(path, e))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|e| io_error(path, e))).collect()
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

/// Makes the folder's entries durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

pub(super) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), offset, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_seen() {
        let header = SegmentHeader {
            number: 7,
            begun: Timestamp::Y2020,
            prev_len: 1 << 33,
            prev_crc: 0xdead_beef,
        };
        let bytes = header.to_bytes();
        assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::from_bytes(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_missing_number_is_told() {
        let root = tempfile::tempdir().unwrap();
        for (day, number) in [("2026-11-20", 0), ("2026-11-21", 1), ("2026-11-21", 3)] {
            let path = path_of(root.path(), day, number);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
        }
        assert!(matches!(list(root.path()), Err(StoreError::Damaged { .. })));
        std::fs::remove_file(path_of(root.path(), "2026-11-21", 3)).unwrap();
        assert_eq!(list(root.path()).unwrap().len(), 2);
    }
}
