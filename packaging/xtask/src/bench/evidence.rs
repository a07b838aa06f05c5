//! `bench evidence`: what signing, hashing and proofs are of all that an agent and a collector do,
//! and how fast a stranger checks it.
//!
//! The programs run once over the same lines as `bench agent` and the same blocks as `bench
//! collector` does; their whole CPU time is the measure. Then the evidence steps alone are done
//! again over the very blocks (`evidence/examples/evidence-cost.rs`), in seconds on a CPU: counts of
//! instructions would mislead, for SHA-256 has instructions of its own that no emulator counts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::sheet::{Sheet, Target};
use super::{Common, agent, collector, load, machine};
use crate::generate::{Kind, write_log};
use crate::numbers::{float, mib};
use crate::out::say;
use crate::procfs;
use crate::shell::{self, Profile};

/// Arguments of `bench evidence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lines that the agent reads, events that the collector takes.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events that custody-verify checks.
    #[arg(long, default_value_t = 1_000_000)]
    verify_events: u64,
    #[command(flatten)]
    common: Common,
}

/// The tools, built by themselves.
struct Tools {
    cost: PathBuf,
    make: PathBuf,
    verify: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = shell::scratch(args.common.dir.as_deref())?;
    say("Building with the release profile …");
    let tools = tools(folder.path())?;
    let programs = shell::build(Profile::Release, folder.path())?;
    let mut sheet = Sheet::new(format!("evidence: {} events", args.events));
    for run in 1..=args.common.runs {
        let place = folder.path().join(format!("run-{run}"));
        std::fs::create_dir(&place)?;
        let log = place.join("sshd.log");
        write_log(&log, Kind::Sshd, args.events, args.common.seed)?;
        say("The agent …");
        let measured = agent::one_run(&programs, Kind::Sshd, &log, args.events, &place)?;
        let steps = cost(&tools, &place.join("collector-data"))?;
        share(&mut sheet, "agent", measured.agent_cpu.as_secs_f64(), &steps, 15.0);
        let alone = measured.collector_cpu.as_secs_f64();
        let part = sum(&steps, "collector") / alone * 100.0;
        sheet.add("collector without an index: evidence", "% of its CPU", part);
        say("The collector …");
        let place = place.join("collector");
        std::fs::create_dir(&place)?;
        let plan = load::Plan {
            events: args.events,
            streams: 8,
            seed: args.common.seed,
            days: 7,
            kinds: Kind::or_all(&[]),
        };
        let loads = load::make(&plan, shell::now(), &place)?;
        let mut inner = Sheet::new("");
        collector::to_searchable(&programs, &loads, args.events, &place, &mut inner)?;
        let per_million = inner.median(collector::CPU).context("the collector's CPU time")?;
        let steps = cost(&tools, &place.join("data"))?;
        share(&mut sheet, "collector", per_million * float(args.events) / 1e6, &steps, 10.0);
        verified(args, &tools, &folder.path().join(format!("verify-{run}")), &mut sheet)?;
        std::fs::remove_dir_all(folder.path().join(format!("run-{run}")))?;
    }
    sheet.print();
    args.common.write_json(&serde_json::json!({
        "machine": machine(), "events": args.events, "evidence": sheet.to_json()
    }))
}

fn tools(folder: &Path) -> anyhow::Result<Tools> {
    let mut command = shell::cargo()?;
    command.args(["build", "--release", "-p", "custody-evidence", "--bins", "--examples"]);
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo build failed");
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let take = |name: &str| shell::take(&text, name, folder);
    Ok(Tools {
        cost: take("evidence-cost")?,
        make: take("make-evidence")?,
        verify: take("custody-verify")?,
    })
}

/// Seconds by step, of all blocks in the directory.
fn cost(tools: &Tools, data: &Path) -> anyhow::Result<Value> {
    let program = tools.cost.display().to_string();
    let said = shell::run(&program, &[data.display().to_string()])?;
    Ok(serde_json::from_str(&said)?)
}

/// All steps of one side.
fn sum(steps: &Value, side: &str) -> f64 {
    let steps = steps["seconds"].as_object().into_iter().flatten();
    steps.filter(|(step, _)| step.starts_with(side)).filter_map(|(_, cost)| cost.as_f64()).sum()
}

fn share(sheet: &mut Sheet, side: &str, cpu: f64, steps: &Value, at_most: f64) {
    let part = sum(steps, side) / cpu * 100.0;
    sheet.add(&format!("{side}: CPU"), "s", cpu);
    for (step, cost) in steps["seconds"].as_object().into_iter().flatten() {
        if let Some(cost) = cost.as_f64().filter(|_| step.starts_with(side)) {
            sheet.add(step, "s", cost);
        }
    }
    let name = format!("{side}: evidence");
    sheet.add_for(&name, "% of its CPU", part, Target::AtMost(at_most));
}

/// `custody-verify` on a bundle and on a directory: it has one thread, so that its time is a core's.
fn verified(args: &Args, tools: &Tools, place: &Path, sheet: &mut Sheet) -> anyhow::Result<()> {
    say("custody-verify …");
    // As packages carry it.
    let stripped = tools.verify.with_extension("stripped");
    let paths = [&stripped, &tools.verify].map(|path| path.display().to_string());
    shell::run("strip", &["--strip-unneeded", "-o", &paths[0], &paths[1]])?;
    let bytes = std::fs::metadata(&stripped)?.len();
    sheet.add_for("custody-verify, the program", "MB", float(bytes) / 1e6, Target::AtMost(3.0));
    let make = tools.make.display().to_string();
    shell::run(&make, &[place.display().to_string(), args.verify_events.to_string()])?;
    for target in ["bundle.custody", "data"] {
        let (time, peak) = timed(&tools.verify, &place.join(target))?;
        let million = time.as_secs_f64() * 1e6 / float(args.verify_events.max(1));
        let name = format!("custody-verify, a million events: {target}");
        sheet.add_for(&name, "s", million, Target::AtMost(5.0));
        let name = format!("custody-verify, memory: {target}");
        sheet.add_for(&name, "MiB", mib(peak), Target::AtMost(64.0));
    }
    std::fs::remove_dir_all(place).context("removing the evidence")
}

fn timed(program: &Path, target: &Path) -> anyhow::Result<(Duration, u64)> {
    let begun = Instant::now();
    let mut child = Command::new(program).arg(target).stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("custody-verify {}: {status}", target.display());
            }
            return Ok((begun.elapsed(), peak));
        }
        // It may end in between.
        peak = procfs::memory(child.id()).map_or(peak, |memory| memory.peak_bytes.max(peak));
        std::thread::sleep(Duration::from_millis(5));
    }
}
