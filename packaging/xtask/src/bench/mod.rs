//! `cargo xtask bench …`: figures beside their targets, and beside yardsticks of the same run,
//! because machines differ and are noisy: a ratio says more than a figure.

mod agent;
mod collector;
mod evidence;
mod export;
mod files;
mod journal;
mod latency;
pub(crate) mod load;
mod packs;
mod parse;
mod queries;
mod sheet;
mod webhook;
mod yardsticks;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use crate::out::say;
use crate::shell::{self, Profile, Programs};
use sheet::Sheet;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// File → parse → durable spool → acknowledged by a collector on loopback.
    Agent(agent::Args),
    /// Blocks → evidence → index → queries.
    Collector(collector::Args),
    /// What evidence is of the agent's and the collector's CPU, and how fast it is checked.
    Evidence(evidence::Args),
    /// Many events to each format, the collector killed meanwhile: memory, speed, and what others make of the files.
    Export(export::Args),
    /// Instructions per record of rule packs (valgrind).
    Packs(packs::Args),
    /// Lines parsed and written as events, on one thread, beside what others need.
    Parse(parse::Args),
    /// Thousands of files tailed at once, few of them written to.
    Files(files::Args),
    /// A journal of a million entries, over rotation, a vacuum, a kill and a damaged file.
    Journal(journal::Args),
    /// Signed requests that are answered when they are durable.
    Webhook(webhook::Args),
}

/// Where and how.
#[derive(Debug, clap::Args)]
struct Common {
    /// Measure so many times and show the median.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where files are written: a folder on the disk to be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seed of everything that is generated.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Common {
    /// A folder to measure in, and the programs, built.
    fn begin(&self) -> anyhow::Result<(tempfile::TempDir, Programs)> {
        let folder = shell::scratch(self.dir.as_deref())?;
        say("Building with the release profile …");
        let programs = shell::build(Profile::Release, folder.path())?;
        Ok((folder, programs))
    }

    /// Measures as often as was asked, each time in a folder of its own, and shows and writes the
    /// figures under this name.
    fn measure(
        &self,
        name: &str,
        title: String,
        mut one_run: impl FnMut(&Programs, &Path, &mut Sheet) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (folder, programs) = self.begin()?;
        let mut sheet = Sheet::new(title);
        for run in 1..=self.runs {
            let place = folder.path().join(format!("{name}-{run}"));
            std::fs::create_dir(&place)?;
            one_run(&programs, &place, &mut sheet)?;
            std::fs::remove_dir_all(&place)?;
        }
        sheet.print();
        self.write_json(&serde_json::json!({ "machine": machine(), name: sheet.to_json() }))
    }

    fn write_json(&self, figures: &serde_json::Value) -> anyhow::Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(figures)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Agent(args) => agent::run(args),
        Command::Collector(args) => collector::run(args),
        Command::Evidence(args) => evidence::run(args),
        Command::Export(args) => export::run(args),
        Command::Packs(args) => packs::run(args),
        Command::Parse(args) => parse::run(args),
        Command::Files(args) => files::run(args),
        Command::Journal(args) => journal::run(args),
        Command::Webhook(args) => webhook::run(args),
    }
}

/// The machine, for whoever reads the figures later.
fn machine() -> serde_json::Value {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    serde_json::json!({
        "cores": cores,
        "cpu": model.map_or("unknown", |(_, name)| name.trim()),
        "kernel": kernel.trim(),
    })
}

/// Bytes that a folder takes on the disk.
fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            total += disk_bytes(&entry.path())?;
        }
    }
    Ok(total)
}
