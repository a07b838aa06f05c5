//! `cargo xtask ci`: a part of what continuous integration (`.ci/run`) runs, in the order in which it
//! fails fastest. What is left out: the tools that hard tests want, the fuzzed API, the packages.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::out::say;
use crate::{demo, shell};

/// Arguments of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the demo.
    #[arg(long)]
    no_demo: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    step("format", cargo(&["fmt", "--all", "--check"])?)?;
    step(
        "lints",
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?,
    )?;
    step("tests", cargo(&["test", "--workspace", "--locked"])?)?;
    if !args.no_demo {
        demo::run(&demo::Args::default())?;
    }
    say("ci: all good");
    Ok(())
}

fn cargo(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = shell::cargo()?;
    command.args(args);
    Ok(command)
}

fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    say(&format!("ci: {name}"));
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("ci: {name} failed ({status})");
    }
    say(&format!("ci: {name} good after {} s", begun.elapsed().as_secs()));
    Ok(())
}
