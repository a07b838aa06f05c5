//! What the kernel says of a file: which inode, how long, changed when.

use std::fs::File;
use std::io;
use std::path::Path;

use custody_event::FileIdentity;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

/// An inode as far as it can be told from another over reboots and reuse: the device counts only
/// where the file system keeps no birth time (device numbers change, birth times do not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Inode {
    pub(crate) durable_dev: u64,
    pub(crate) ino: u64,
    pub(crate) born_ns: i64,
}

impl Inode {
    pub(crate) fn of(identity: &FileIdentity) -> Self {
        Self { durable_dev: identity.durable_dev(), ino: identity.ino, born_ns: identity.born_ns }
    }
}

/// One look at a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) inode: Inode,
    pub(crate) dev: u64,
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) links: u32,
    pub(crate) is_file: bool,
    pub(crate) is_dir: bool,
}

const NANOS: i64 = 1_000_000_000;

impl From<&Statx> for Stat {
    fn from(raw: &Statx) -> Self {
        let nanos = |seconds: i64, nanos: u32| {
            seconds.saturating_mul(NANOS).saturating_add(i64::from(nanos))
        };
        let has_birth = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born_ns =
            if has_birth { nanos(raw.stx_btime.tv_sec, raw.stx_btime.tv_nsec) } else { 0 };
        let dev = rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor);
        let kind = FileType::from_raw_mode(u32::from(raw.stx_mode));
        Self {
            inode: Inode {
                durable_dev: if born_ns == 0 { dev } else { 0 },
                ino: raw.stx_ino,
                born_ns,
            },
            dev,
            size: raw.stx_size,
            modified_ns: nanos(raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec),
            links: raw.stx_nlink,
            is_file: kind == FileType::RegularFile,
            is_dir: kind == FileType::Directory,
        }
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

/// Looks at what stands at `path`; symbolic links are followed.
pub(crate) fn stat_path(path: &Path) -> io::Result<Stat> {
    Ok(Stat::from(&statx(CWD, path, AtFlags::empty(), wanted())?))
}

/// Looks at an open file.
pub(crate) fn stat_file(file: &File) -> io::Result<Stat> {
    Ok(Stat::from(&statx(file, "", AtFlags::EMPTY_PATH, wanted())?))
}
