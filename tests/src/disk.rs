//! Small file systems that can be filled up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;
use crate::world::World;

/// A mounted tmpfs of a few MiB; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one; `None` (and a line that says so) where that is not allowed.
    #[must_use]
    pub fn mount(world: &World, name: &str, mib: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root to mount a small file system");
            return None;
        }
        let dir = world.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"]).arg(&dir);
        let said = run(mount);
        if said.code == Some(0) {
            return Some(Self { dir });
        }
        eprintln!("skipped: needs root with the right to mount: {}", said.err.trim());
        None
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Bytes that can still be written.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.dir).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it up until only `left` bytes are free; what others write meanwhile is not in the way.
    ///
    /// # Panics
    /// It cannot be filled.
    pub fn fill(&self, left: u64) {
        let filled = (0..20).any(|_| {
            let file = File::create(self.ballast()).unwrap();
            let len = self.free_bytes().saturating_sub(left);
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).is_ok()
        });
        assert!(filled, "the disk cannot be filled");
    }

    /// Frees what [`Self::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("--lazy").arg(&self.dir);
        let said = run(umount);
        if said.code != Some(0) {
            eprintln!("cannot unmount {}: {}", self.dir.display(), said.err);
        }
    }
}
