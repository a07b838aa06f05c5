//! How far the log is known to be durable: a small file beside the segments.
//!
//! It is written after each successful fdatasync and is itself not synced, so it never says more
//! than is true. It lets recovery tell a damaged block that had been acknowledged (refuse to
//! start) from a tail that never was (cut it off). After a power failure the mark may lag by as
//! much as the kernel holds back; what lies beyond it is then judged by checksums alone.
//! Its form stands in [`custody_evidence::segments`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use custody_evidence::segments;

use crate::store::LogCursor;

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
        let mut bytes = [0; segments::MARK_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                Ok(segments::mark_in(&bytes).map(|(segment, offset)| LogCursor { segment, offset }))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, end: LogCursor) -> io::Result<()> {
        self.0.write_all_at(&segments::mark(end.segment, end.offset), 0)
    }
}
