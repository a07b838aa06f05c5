//! Segment files: their names, their header, and the list of them on disk.
//!
//! `evidence/2026-11-21/0000000007.seg`: the folder is the UTC day on which the segment was begun,
//! the number runs over all days without holes. A segment is closed when it has reached its size
//! or the day is over; closed segments change only by losing events ([`super::rewrite`]).
//!
//! The form stands in [`custody_evidence::segments`], for whoever reads it without a collector. A header
//! names the segment before, so a closed one that has lost its end, or was exchanged, is noticed
//! without reading it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use custody_event::Timestamp;
use custody_evidence::segments::{self, HEADER_LEN};
pub(super) use custody_evidence::segments::{HEADER_BYTES, Rewritten, Segment, SegmentHeader};

use crate::store::StoreError;

/// Reads the header of an open segment; `None` if the file is shorter than a header.
pub(super) fn read_header(path: &Path, file: &File) -> Result<Option<SegmentHeader>, StoreError> {
    let mut bytes = [0; HEADER_LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {
            SegmentHeader::from_bytes(&bytes).map(Some).map_err(|reason| damaged(path, 0, reason))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}

/// How a segment ended when it was closed: its length and its last four bytes then.
pub(super) fn end_of(segment: &Segment) -> Result<(u64, u32), StoreError> {
    segments::end_of(segment).map_err(|e| io_error(&segment.path, e))
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
    let found = segments::list(root).map_err(|e| io_error(root, e))?;
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
