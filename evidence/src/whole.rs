//! Files that stand on disk whole, or not at all: what a crash may interrupt is written under another
//! name, made durable, renamed, and the folder made durable.
//!
//! What root writes into a folder of somebody else's belongs to that one: a service whose administrator has called one of its
//! commands must still be able to read its own files.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::Path;

/// The mode of a file that only this user may read: secrets.
pub const PRIVATE: u32 = 0o600;
/// The mode of a file that everybody may read, as far as the umask allows.
pub const PUBLIC: u32 = 0o644;

const ROOT: u32 = 0;

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
    give_to_owner_of(folder_of(path), &file)?;
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
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A new file belongs to whom the folder belongs to, where we may say so: as root.
fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let (owner, ours) = (std::fs::metadata(folder)?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) || ours.uid() != ROOT {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Gives what root has made below `folder` to whom the folder belongs to; nothing where that is root. Links are not followed.
///
/// # Errors
/// Something cannot be read, or not be given away.
pub fn give_all_to_owner(folder: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    if owner.uid() == ROOT {
        return Ok(());
    }
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.uid() == ROOT {
                lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
            }
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
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
    fn what_root_writes_into_somebodys_folder_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        if std::fs::metadata(folder.path()).unwrap().uid() != ROOT {
            println!("skipped: needs root");
            return;
        }
        let uid = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().uid();
        write_whole(&folder.path().join("ours"), b"1", PRIVATE).unwrap();
        assert_eq!(uid("ours"), ROOT);
        std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
        write_whole(&folder.path().join("theirs"), b"2", PRIVATE).unwrap();
        assert_eq!(uid("theirs"), 65_534);
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("left"), b"3").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", below.join("link")).unwrap();
        give_all_to_owner(folder.path()).unwrap();
        for name in ["ours", "below", "below/left"] {
            assert_eq!(uid(name), 65_534, "{name}");
        }
        assert_eq!(std::fs::metadata("/etc/hostname").map_or(ROOT, |found| found.uid()), ROOT);
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
