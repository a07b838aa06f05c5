//! The archive for systems without a package manager that we know: programs, units, papers, and a script that installs them.

use std::path::Path;

use anyhow::Context;

use super::{PRODUCTS, fresh};
use crate::shell;

/// What is copied as it is, and to where in the archive.
const FILES: [(&str, &str); 7] = [
    ("packaging/install.sh", "install.sh"),
    ("LICENSE", "LICENSE"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("config/agent.yaml", "etc/agent.yaml"),
    ("config/collector.yaml", "etc/collector.yaml"),
    ("systemd/custody-agent.service", "systemd/custody-agent.service"),
    ("systemd/custody-collector.service", "systemd/custody-collector.service"),
];
const FOLDERS: [(&str, &str); 3] = [
    ("config/examples", "examples"),
    ("systemd/sysusers.d", "sysusers.d"),
    ("systemd/tmpfiles.d", "tmpfiles.d"),
];

/// Makes `custody-<version>-<machine>.tar.gz` of what is staged.
pub(super) fn make(stage: &Path, out: &Path, epoch: &str) -> anyhow::Result<()> {
    let name = format!("custody-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let folder = fresh(&stage.join("tar").join(&name))?;
    std::fs::create_dir_all(folder.join("bin"))?;
    for product in PRODUCTS {
        copy(&stage.join(product.program), &folder.join("bin").join(product.program))?;
    }
    let root = shell::root()?;
    for (from, to) in FILES {
        let to = folder.join(to);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        copy(&root.join(from), &to)?;
    }
    for (from, to) in FOLDERS {
        copy_flat(&root.join(from), &folder.join(to))?;
    }
    for paper in ["man", "bash", "zsh", "fish"] {
        copy_flat(&stage.join("papers").join(paper), &folder.join(paper))?;
    }
    let archive = out.join(format!("{name}.tar.gz")).display().to_string();
    let at = folder.parent().context("the archive's folder has a parent")?.display().to_string();
    shell::run(
        "tar",
        &[
            "--create",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=u+rw,go=rX",
            "--format=ustar",
            &format!("--mtime=@{epoch}"),
            // No name and no time in the header of the compressed file.
            "--use-compress-program=gzip --no-name -9",
            "--file",
            &archive,
            "--directory",
            &at,
            &name,
        ],
    )
    .map(drop)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to).with_context(|| from.display().to_string()).map(drop)
}

/// The files of a folder that has no folders in it.
fn copy_flat(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
