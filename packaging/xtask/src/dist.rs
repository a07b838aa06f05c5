//! `cargo xtask dist`: a Debian package of each program, in `target/debian/`.

use anyhow::{Context, bail};

use crate::out::say;
use crate::shell;

/// What is packaged.
const PACKAGES: [&str; 2] = ["custody-agent", "custody-collector"];

/// Arguments of `dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package only this one.
    #[arg(long, value_parser = PACKAGES)]
    package: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !shell::installed("cargo-deb") {
        bail!("cargo-deb is not installed: cargo install cargo-deb --locked");
    }
    for package in PACKAGES {
        if args.package.as_deref().is_some_and(|wanted| wanted != package) {
            continue;
        }
        say(&format!("{package}: building with the release profile, then packaging …"));
        let status = shell::cargo()?
            .args(["deb", "--package", package, "--locked"])
            .status()
            .context("cannot run cargo deb")?;
        if !status.success() {
            bail!("{package}: cargo deb failed ({status})");
        }
    }
    Ok(())
}
