//! Files that stand on disk whole, or not at all: what a crash may interrupt is written under another
//! name, made durable, renamed, and the folder made durable.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The mode of a file that only this user may read: secrets.
pub const PRIVATE: u32 = 0o600;
/// The mode of a file that everybody may read, as far as the umask allows.
pub const PUBLIC: u32 = 0o644;

/// Writes `bytes` to `path`: after a crash it holds them, or what it held before.
///
/// What an earlier crash has left under the temporary name (`<path>.new`) is removed, never written
/// into: it may have another mode.
///
/// # Errors
/// The temporary file cannot be made, written or renamed, or the folder not be synced; `path` is as
/// it was unless only the last failed.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = OsString::from(path);
    temporary.push(".new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes durable which files stand in the folder of `path`.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_a_crash_left_gives_neither_its_bytes_nor_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        let left = folder.path().join("agent.key.new");
        std::fs::write(&path, "old").unwrap();
        std::fs::write(&left, "half of what was to be written, and longer").unwrap();
        std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o666)).unwrap();
        write_whole(&path, b"new", PRIVATE).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!left.try_exists().unwrap());
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old").unwrap();
        std::fs::create_dir(folder.path().join("token.new")).unwrap();
        assert!(write_whole(&path, b"new", PRIVATE).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
