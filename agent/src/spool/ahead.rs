//! Space on the disk before there is something to write: a full disk is then a plain error, met while
//! nothing is half-done.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::types::StoreError;

/// Allocates blocks for the first `want` bytes of `file`, whose length stays as it is, unless so many
/// but `slack` are allocated already. False where the file system cannot promise space.
///
/// # Errors
/// [`StoreError::Full`] before anything is allocated; what the system says otherwise.
pub(super) fn allocate(file: &File, want: u64, slack: u64) -> Result<bool, StoreError> {
    let allocated = |file: &File| file.metadata().map(|meta| meta.blocks() * 512);
    let there = allocated(file)?;
    if there + slack >= want {
        return Ok(true);
    }
    // A failed fallocate may keep what it got so far and so fill the disk itself: ask first.
    let disk = rustix::fs::fstatvfs(file).map_err(std::io::Error::from)?;
    let (need, free) = (want.saturating_sub(there), disk.f_bavail.saturating_mul(disk.f_frsize));
    if free < need {
        return Err(StoreError::Full(format!(
            "{need} bytes are needed ahead of the log, {free} are free"
        )));
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, want) {
        // A file system that does not count what it promised (compression) cannot be asked again and again.
        Ok(()) => Ok(allocated(file)? >= want),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}
