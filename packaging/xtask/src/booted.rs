//! `cargo xtask booted`: makes the packages and runs the suite's test of them on a booted system, in its long form.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::dist;
use crate::out::say;
use crate::shell;

/// Arguments of `booted`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Packages that were made before, instead of new ones.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// The short form, as in CI.
    #[arg(long)]
    short: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let packages = match &args.packages {
        Some(packages) => packages.clone(),
        None => dist::for_trying()?,
    };
    say("the packages on a booted system …");
    let mut command = shell::cargo()?;
    // The whole workspace, as all tests are built: for one package alone cargo would build the libraries once more.
    command.args(["test", "--locked", "--workspace", "--test", "suite"]);
    command.args(["booted::", "--", "--nocapture"]);
    command.env("CUSTODY_PACKAGES", std::path::absolute(&packages)?);
    if !args.short {
        command.env("CUSTODY_LONG", "1");
    }
    let status = command.status().context("cannot run cargo test")?;
    if !status.success() {
        bail!("the packages have failed on a booted system ({status})");
    }
    Ok(())
}
