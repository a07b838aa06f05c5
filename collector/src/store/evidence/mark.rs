//! How far the log is known to be durable: a small file beside the segments.
//!
//! It is written after each successful fdatasync and is itself not synced, so it never says more
//! than is true. It lets recovery tell a damaged block that had been acknowledged (refuse to
//! start) from a tail that never was (cut it off). After a power failure the mark may lag by as
//! much as the kernel holds back; what lies beyond it is then judged by checksums alone.
//!
//! 32 bytes: magic `CDUR`, version 1 (4), segment (8), offset (8), CRC-32 of these (4), zeros (4).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::LogCursor;

const MAGIC: &[u8; 4] = b"CDUR";
const LEN: usize = 32;

/// The open file.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens or makes the mark in `root`; returns what it says, `None` where it says nothing.
    pub(super) fn open(root: &Path) -> io::Result<(Self, Option<LogCursor>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join("durable"))?;
        let said = Self::said(&file)?;
        Ok((Self(file), said))
    }

    /// Reads it only; `None` where there is none.
    pub(super) fn look(root: &Path) -> io::Result<Option<LogCursor>> {
        match File::open(root.join("durable")) {
            Ok(file) => Self::said(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn said(file: &File) -> io::Result<Option<LogCursor>> {
        let mut bytes = [0; LEN];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, end: LogCursor) -> io::Result<()> {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&end.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&end.offset.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

fn parse(bytes: &[u8; LEN]) -> Option<LogCursor> {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let crc = crc32fast::hash(&bytes[..24]).to_le_bytes();
    (bytes.starts_with(MAGIC) && bytes[4] == 1 && bytes[24..28] == crc)
        .then(|| LogCursor { segment: word(8), offset: word(16) })
}
