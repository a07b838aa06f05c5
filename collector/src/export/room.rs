//! What exports may take of the disk. Evidence comes first: a file that can be made again must never
//! be the reason for which evidence leaves the log or is refused.

use std::path::Path;

use custody_config::collector::CollectorConfig;

use super::ExportError;

/// Exports never take the last of the disk, whatever the configuration says.
const LEAST_FREE_BYTES: u64 = 512 * 1024 * 1024;
/// Exports end so far before anything is done for want of space: what they write between two looks.
const AHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The longest file.
    pub max_bytes: u64,
    /// All files together, also those that are being made.
    pub max_total_bytes: u64,
    /// Space that exports leave free.
    pub min_free_bytes: u64,
}

impl From<&CollectorConfig> for Room {
    fn from(config: &CollectorConfig) -> Self {
        let (exports, space) = (&config.exports, &config.space);
        // Without an archive nothing leaves the log for want of space; blocks are refused all the same.
        let archives = config.archive.as_ref().map_or(0, |_| space.archive_below.bytes());
        let kept = archives.max(space.stop_below.bytes()).saturating_add(AHEAD_BYTES);
        Self {
            max_bytes: exports.max_bytes.bytes(),
            max_total_bytes: exports.max_total_bytes.bytes(),
            min_free_bytes: kept.max(LEAST_FREE_BYTES),
        }
    }
}

impl Room {
    /// Is there room for more in this folder?
    pub(super) fn check(&self, folder: &Path) -> Result<(), ExportError> {
        let Self { max_total_bytes, min_free_bytes, .. } = *self;
        let stat = rustix::fs::statvfs(folder)
            .map_err(|error| ExportError::io(folder)(std::io::Error::from(error)))?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free_bytes < min_free_bytes {
            return Err(ExportError::NoRoom { free_bytes, min_free_bytes });
        }
        if bytes_in(folder)? >= max_total_bytes {
            return Err(ExportError::Full { max_total_bytes });
        }
        Ok(())
    }
}

/// The bytes of all files in a folder.
fn bytes_in(folder: &Path) -> Result<u64, ExportError> {
    let failed = || ExportError::io(folder);
    let mut bytes = 0_u64;
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        match entry.map_err(failed())?.metadata() {
            Ok(meta) => bytes = bytes.saturating_add(meta.len()),
            // It has expired meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(bytes)
}
