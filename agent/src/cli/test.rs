//! `custody-agent test`: every pack's own tests.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use custody_config::shell::{Exit, Failure};
use custody_parsers::{PackSet, PackSource};

use super::print;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Pack files to test instead of the built-in packs.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &TestArgs) -> anyhow::Result<Exit> {
    let packs = load(&args.files)?;
    let report = packs.run_tests();
    let mut out = print::stdout();
    for failure in &report.failures {
        writeln!(out, "{failure}")?;
    }
    writeln!(
        out,
        "{} packs, {} tests, {} failed",
        report.packs.len(),
        report.passed + report.failures.len(),
        report.failures.len()
    )?;
    out.flush()?;
    Ok(if report.failures.is_empty() { Exit::Good } else { Exit::No })
}

/// The built-in packs, or those of these files.
pub(super) fn load(files: &[PathBuf]) -> anyhow::Result<PackSet> {
    if files.is_empty() {
        return Ok(PackSet::builtin());
    }
    let sources = files.iter().map(source).collect::<anyhow::Result<Vec<_>>>()?;
    PackSet::load(&sources).map_err(|error| Failure::new(Exit::Config, error.to_string()).into())
}

/// A pack's file.
pub(super) fn source(file: &PathBuf) -> anyhow::Result<PackSource> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::because(Exit::NoInput, format!("cannot read {name}"), error))?;
    Ok(PackSource { name, text })
}
