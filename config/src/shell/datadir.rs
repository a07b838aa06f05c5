//! The data directory: made if it is not there, readable by us alone, writable, and used by one process at a time.
//!
//! The lock is flock(2) on `lock` inside the directory. The system drops it with the process, however that ends; the pid
//! in the file is only there to be shown. The file itself is never removed: two processes could then hold two locks.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::exit::{Exit, Failure};
use crate::place::Located;

/// A data directory that this process has to itself until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the directory (mode 0700) if need be, checks that it can be written, and locks it.
    ///
    /// # Errors
    /// Exit 74: it cannot be made or written, or another process uses it.
    pub fn open(path: &Located<PathBuf>) -> Result<Self, Failure> {
        let dir = path.get();
        let fail =
            |what: String, hint: &str| Failure::new(Exit::Io, path.problem(what, hint).to_string());
        let shown = dir.display();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| {
            fail(
                format!("cannot make the data directory {shown}: {e}"),
                "choose another data_dir, or make it and give it to this user",
            )
        })?;
        warn_if_open_to_others(dir);
        check_writable(dir).map_err(|e| {
            fail(format!("cannot write to the data directory {shown}: {e}"), &writable_hint(&e))
        })?;
        let lock = take_lock(dir).map_err(|refusal| match refusal {
            Refusal::Used(pid) => fail(
                format!("another process uses the data directory {shown}{pid}"),
                "stop that one, or choose another data_dir",
            ),
            Refusal::Io(e) => fail(
                format!("cannot lock the data directory {shown}: {e}"),
                "the file `lock` in it must be ours",
            ),
        })?;
        Ok(Self { path: dir.clone(), lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child that was forked and has not yet called exec.
        if let Err(errno) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            log::warn!(error:% = errno; "cannot unlock the data directory; the end of the process does it");
        }
    }
}

fn writable_hint(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only".to_owned(),
        ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid().as_raw();
            format!("give the directory to the user with the id {uid}, or choose another data_dir")
        }
        _ => "choose another data_dir".to_owned(),
    }
}

fn warn_if_open_to_others(dir: &Path) {
    let Ok(meta) = std::fs::metadata(dir) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        log::warn!(path:% = dir.display(), mode:% = format!("{mode:04o}"); "the data directory is open to other users; chmod 0700 would close it");
    }
}

/// Makes a file and removes it. A disk that is full now may be free later: that is for the spool and the store to wait for.
fn check_writable(dir: &Path) -> io::Result<()> {
    let probe = dir.join(".writable");
    match OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe) {
        Ok(_) => std::fs::remove_file(&probe),
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            log::warn!(path:% = dir.display(), error:% = error; "the file system of the data directory is full");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

enum Refusal {
    /// Locked by another; the text is empty or `, pid N`.
    Used(String),
    Io(io::Error),
}

fn take_lock(dir: &Path) -> Result<File, Refusal> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Refusal::Io)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(Refusal::Used(holder(&mut file))),
        Err(errno) => return Err(Refusal::Io(errno.into())),
    }
    if let Err(error) = write_pid(&mut file) {
        // The lock is held; only its holder's name is missing.
        log::warn!(error:% = error; "cannot write the pid into the lock file");
    }
    Ok(file)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!(", pid {}", text.trim()),
        _ => String::new(),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}
