//! `bench files`: thousands of files tailed at once, of which few are written to.
//!
//! Idle: nobody writes; CPU time of all the agent's threads over 90 seconds. Active: lines go to
//! the active files in turn, and each counts from its append to the collector's 200 for the block
//! that holds it, which is later than the agent's own disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Common;
use super::latency::{self, Latencies, Passed};
use super::sheet::{Sheet, Target};
use crate::agent::{Agent, Settings};
use crate::collector::Collector;
use crate::numbers::mib;
use crate::procfs;
use crate::shell::{self, Programs};

const LIMIT: Duration = Duration::from_secs(300);
/// Longer than the time between two scans that only make sure.
const IDLE: Duration = Duration::from_secs(90);
/// Files of one folder: hosts keep their logs in a few large folders and many small ones.
const FILES_PER_FOLDER: u32 = 250;
/// Lines that stand in a file at the start.
const OLD_LINES: u32 = 5;

/// Arguments of `bench files`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files.
    #[arg(long, default_value_t = 5_000)]
    files: u32,
    /// Files that are written to.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    active: u32,
    /// Lines that are appended to them.
    #[arg(long, default_value_t = 5_000)]
    lines: u32,
    /// Milliseconds between two lines.
    #[arg(long, default_value_t = 2)]
    every_ms: u64,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let title = format!("{} files, {} active", args.files, args.active);
    args.common
        .measure("files", title, |programs, place, sheet| one_run(args, programs, place, sheet))
}

fn one_run(
    args: &Args,
    programs: &Programs,
    place: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    let logs = write_logs(&place.join("logs"), args.files)?;
    let collector = Collector::start(
        &programs.collector,
        &place.join("collector-data"),
        &["--index", "none"],
        &place.join("collector.log"),
    )?;
    let passed = Passed::default();
    let relay = latency::relay(collector.address, &passed)?;
    let pattern = place.join("logs/**/*.log");
    let mut settings =
        Settings::under(place, &pattern, relay.address, &collector.enroll_token_file());
    settings.packs = "[sshd]".to_owned();
    let begun = Instant::now();
    let mut agent =
        settings.start(&programs.agent, &place.join("agent.yaml"), &place.join("agent.log"))?;
    let old = u64::from(args.files) * u64::from(OLD_LINES);
    wait(&mut agent, old)?;
    sheet.add("until all files are read", "s", begun.elapsed().as_secs_f64());

    let pid = agent.daemon.pid();
    // What follows the first look (closing files, remembering) is not what is asked for.
    std::thread::sleep(Duration::from_secs(5));
    let idle = share(pid, || {
        std::thread::sleep(IDLE);
        Ok(())
    })?;
    sheet.add_for("agent CPU, idle", "% of one core", idle, Target::AtMost(1.0));
    sheet.add("agent memory, idle", "MiB", mib(procfs::memory(pid)?.resident_bytes));

    let mut appended = Vec::new();
    let active = share(pid, || {
        appended = append(args, &logs)?;
        Ok(())
    })?;
    wait(&mut agent, old + u64::from(args.lines))?;
    sheet.add("agent CPU, active", "% of one core", active);
    let peak = mib(procfs::memory(pid)?.peak_bytes);
    sheet.add_for("agent memory, peak", "MiB", peak, Target::AtMost(64.0));
    agent.daemon.stop(Duration::from_secs(30))?;
    collector.daemon.stop(Duration::from_secs(30))?;
    let latencies = Latencies::between(&appended, &latency::arrivals(&passed)?)?;
    latencies.note(sheet, "append to durable at the collector", 500.0);
    Ok(())
}

fn wait(agent: &mut Agent, records: u64) -> anyhow::Result<()> {
    let every = Duration::from_millis(20);
    let waited = shell::wait_for("all lines are acknowledged", LIMIT, every, || {
        Ok(agent.status()?.filter(|status| status.all_acknowledged(records)))
    });
    waited.map(|_| ()).with_context(|| agent.daemon.log_end())
}

/// CPU time of a process while something is done, in percent of one core.
fn share(pid: u32, what: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let spent = || match procfs::threads_time(pid) {
        Some(time) => Ok(time),
        None => procfs::cpu_time(pid),
    };
    let (before, begun) = (spent()?, Instant::now());
    what()?;
    let used = spent()?.saturating_sub(before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

fn write_logs(folder: &Path, files: u32) -> anyhow::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for number in 0..files {
        let folder = folder.join(format!("app-{:03}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let path = folder.join(format!("worker-{number:05}.log"));
        let text: String =
            (0..OLD_LINES).map(|line| latency::line(&format!("old{number}x{line}"))).collect();
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        logs.push(path);
    }
    Ok(logs)
}

/// Appends lines to the active files in turn; when each was appended.
fn append(args: &Args, logs: &[PathBuf]) -> anyhow::Result<Vec<Instant>> {
    let count = usize::try_from(args.active)?.min(logs.len()).max(1);
    // Spread over the folders.
    let step = (logs.len() / count).max(1);
    let open = |path: &PathBuf| File::options().append(true).open(path);
    let mut files =
        logs.iter().step_by(step).take(count).map(open).collect::<std::io::Result<Vec<_>>>()?;
    let every = Duration::from_millis(args.every_ms);
    let begun = Instant::now();
    let mut appended = Vec::new();
    for number in 0..args.lines {
        if let Some(wait) = (begun + every * number).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let line = latency::line(&latency::user(usize::try_from(number)?));
        let at = usize::try_from(number)? % files.len();
        appended.push(Instant::now());
        files[at].write_all(line.as_bytes())?;
    }
    Ok(appended)
}
