//! An image file with a file system that can be cut: cloned at an instant, or shut down.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::shell::run;

/// Room for one image and its clones; only what is written takes place.
const OUTER_BYTES: u64 = 8 << 30;
/// mkfs.xfs wants at least 300 MiB.
const IMAGE_BYTES: u64 = 1 << 30;

/// What is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn make(self, image: &Path) -> anyhow::Result<()> {
        let image = text(image)?;
        match self {
            Self::Ext4 => run("mkfs.ext4", &["-q", "-F", image])?,
            Self::Xfs => run("mkfs.xfs", &["-q", image])?,
        };
        Ok(())
    }

    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 => "loop",
            // A clone has the same UUID as the image that is mounted beside it.
            Self::Xfs => "loop,nouuid",
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// A mounted file system. Dropped, it is unmounted.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    mounted: bool,
}

impl Mount {
    fn new(image: &Path, path: PathBuf, options: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path)?;
        run("mount", &["-o", options, text(image)?, text(&path)?])?;
        Ok(Self { path, mounted: true })
    }

    /// Unmounts, and says if that fails.
    pub(super) fn unmount(mut self) -> anyhow::Result<()> {
        self.mounted = false;
        run("umount", &[text(&self.path)?]).map(drop)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(path) = self.path.to_str() else { return };
        if self.mounted && run("umount", &["-l", path]).is_err() {
            crate::out::warn(&format!("{path} could not be unmounted; it ends with this process"));
        }
    }
}

/// The image on its cloning file system, mounted.
#[derive(Debug)]
pub(super) struct Disk {
    // Dropped in this order: first what lies inside.
    live: Option<Mount>,
    outer: Mount,
    folder: PathBuf,
    file_system: FileSystem,
}

impl Disk {
    pub(super) fn make(folder: &Path, file_system: FileSystem) -> anyhow::Result<Self> {
        let outer_image = folder.join("outer.img");
        File::create(&outer_image)?.set_len(OUTER_BYTES)?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", text(&outer_image)?])?;
        let outer = Mount::new(&outer_image, folder.join("outer"), "loop")?;
        let mut disk = Self { live: None, outer, folder: folder.to_owned(), file_system };
        let image = disk.image();
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        file_system.make(&image)?;
        disk.mount_live()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.outer.path.join("live.img")
    }

    fn mount_live(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join("live");
        self.live = Some(Mount::new(&self.image(), path, self.file_system.mount_options())?);
        Ok(())
    }

    /// Where the program writes.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("live")
    }

    /// Clones the image as it is this instant.
    pub(super) fn snapshot(&self) -> anyhow::Result<()> {
        let clone = File::create(self.outer.path.join("cut.img"))?;
        rustix::fs::ioctl_ficlone(&clone, File::open(self.image())?)
            .context("cannot clone the image")
    }

    /// Mounts the newest clone. One more clone of it stays untouched for [`Self::keep`].
    pub(super) fn mount_snapshot(&self) -> anyhow::Result<Mount> {
        let image = self.outer.path.join("cut.img");
        let untouched = File::create(self.outer.path.join("untouched.img"))?;
        rustix::fs::ioctl_ficlone(&untouched, File::open(&image)?)
            .context("cannot clone the image")?;
        Mount::new(&image, self.folder.join("cut"), self.file_system.mount_options())
    }

    /// Shuts the file system down under whoever writes to it; nothing is flushed.
    pub(super) fn shut_down(&self) -> anyhow::Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.path())?]).map(drop)
    }

    /// Power is back: the same image, mounted again. Nobody may hold it open.
    pub(super) fn power_on(&mut self) -> anyhow::Result<()> {
        if let Some(live) = self.live.take() {
            live.unmount()?;
        }
        let untouched = File::create(self.outer.path.join("untouched.img"))?;
        rustix::fs::ioctl_ficlone(&untouched, File::open(self.image())?)
            .context("cannot clone the image")?;
        self.mount_live()
    }

    /// Copies the image as the cut left it.
    pub(super) fn keep(&self, to: &Path) -> anyhow::Result<()> {
        let from = self.outer.path.join("untouched.img");
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        run("cp", &["--sparse=always", text(&from)?, text(to)?]).map(drop)
    }
}
