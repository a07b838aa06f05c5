//! `bench agent`: file → parse → durable spool → acknowledged by a collector on loopback that
//! checks and keeps blocks and does not index them.
//!
//! The clock runs from the agent's start (nothing is subtracted) until its status says that every
//! line is read and every block acknowledged, asked every 10 ms. Each run begins with fresh data
//! directories; the log is in the page cache, as a log that is being written is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Map, Value};

use super::sheet::{Sheet, Target};
use super::yardsticks::{self, Counter};
use super::{Common, latency, machine};
use crate::agent::{Agent, Settings, Status};
use crate::collector::Collector;
use crate::generate::{Kind, write_log};
use crate::numbers::{float, mib, per_second};
use crate::out::say;
use crate::procfs;
use crate::shell::{self, Programs};

/// No run takes so long.
const LIMIT: Duration = Duration::from_secs(600);
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(5);

/// Arguments of `bench agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lines of each log.
    #[arg(long, default_value_t = 2_000_000)]
    lines: u64,
    /// Which log; all where left out.
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Leave out the latencies.
    #[arg(long)]
    no_latency: bool,
    /// Measure the latencies only.
    #[arg(long, conflicts_with = "no_latency")]
    latency_only: bool,
    /// Lines of the latency measurement, one every 20 ms.
    #[arg(long, default_value_t = 500)]
    latency_lines: u32,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, programs) = args.common.begin()?;
    let mut figures = Map::from_iter([("machine".to_owned(), machine())]);
    if !args.latency_only {
        for kind in Kind::or_all(&args.kind) {
            let sheet = throughput(args, kind, &programs, folder.path())?;
            figures.insert(kind.name().to_owned(), sheet.to_json());
        }
    }
    if !args.no_latency {
        let sheet = latencies(args, &programs, folder.path())?;
        figures.insert("latency".to_owned(), sheet.to_json());
    }
    args.common.write_json(&Value::Object(figures))
}

fn throughput(
    args: &Args,
    kind: Kind,
    programs: &Programs,
    folder: &Path,
) -> anyhow::Result<Sheet> {
    let counter = Counter::find();
    let log = folder.join(format!("{}.log", kind.name()));
    let bytes = write_log(&log, kind, args.lines, args.common.seed)?;
    let mean = float(bytes) / float(args.lines.max(1));
    let mut sheet = Sheet::new(format!("{}: {} lines of {mean:.0} bytes", kind.name(), args.lines));
    for run in 1..=args.common.runs {
        say(&format!("{}: run {run} of {} …", kind.name(), args.common.runs));
        let place = folder.join(format!("{}-{run}", kind.name()));
        std::fs::create_dir(&place)?;
        let measured = one_run(programs, kind, &log, args.lines, &place)?;
        measured.note(&mut sheet, kind, args.lines, bytes);
        yardsticks::measure(&mut sheet, counter, kind, &log, (args.lines, bytes))?;
        ratios(&mut sheet, &measured, args.lines, bytes);
        std::fs::remove_dir_all(&place)?;
    }
    std::fs::remove_file(&log)?;
    sheet.print();
    Ok(sheet)
}

/// How the agent stands to what the machine can do at best.
fn ratios(sheet: &mut Sheet, measured: &Measured, lines: u64, bytes: u64) {
    let speed = per_second(lines, measured.wall);
    for name in ["yardstick rg -c", "yardstick grep -cP", "yardstick wc -l"] {
        if let Some(yardstick) = sheet.median(name) {
            let tool = name.trim_start_matches("yardstick ").to_owned();
            sheet.add(&format!("ratio to {tool}"), "×", speed / yardstick);
        }
    }
    if let Some(sealing) = sheet.median(yardsticks::SEALING) {
        let cpu = measured.agent_cpu.as_secs_f64() * 1e6 / float(lines.max(1));
        sheet.add("agent CPU to hash and pack alone", "×", cpu / sealing);
    }
    if let Some(copy) = sheet.median("yardstick fsync'd copy") {
        let rate = float(bytes) / 1e6 / measured.wall.as_secs_f64();
        sheet.add("ratio to fsync'd copy", "×", rate / copy);
    }
}

/// One run's raw figures.
#[derive(Debug, Default)]
pub(super) struct Measured {
    wall: Duration,
    pub(super) agent_cpu: Duration,
    pub(super) collector_cpu: Duration,
    collector_peak_bytes: u64,
    peak_bytes: u64,
    idle_bytes: u64,
    idle_cpu: Duration,
    unmatched: u64,
    spool_left_bytes: u64,
    evidence_bytes: u64,
}

impl Measured {
    fn note(&self, sheet: &mut Sheet, kind: Kind, lines: u64, bytes: u64) {
        let per_million = |time: Duration| time.as_secs_f64() * 1e6 / float(lines.max(1));
        let speed = per_second(lines, self.wall);
        let cpu = per_million(self.agent_cpu);
        if kind == Kind::Sshd {
            sheet.add_for("speed", "lines/s", speed, Target::AtLeast(400_000.0));
            sheet.add_for("agent CPU per million lines", "s", cpu, Target::AtMost(3.0));
        } else {
            sheet.add("speed", "lines/s", speed);
            sheet.add("agent CPU per million lines", "s", cpu);
        }
        sheet.add("rate", "MB/s", float(bytes) / 1e6 / self.wall.as_secs_f64());
        sheet.add("wall", "s", self.wall.as_secs_f64());
        sheet.add_for("agent memory, peak", "MiB", mib(self.peak_bytes), Target::AtMost(64.0));
        sheet.add_for("agent memory, idle", "MiB", mib(self.idle_bytes), Target::AtMost(20.0));
        let idle = self.idle_cpu.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        sheet.add("agent CPU, idle", "% of one core", idle);
        sheet.add("collector CPU per million lines", "s", per_million(self.collector_cpu));
        sheet.add("collector memory, peak", "MiB", mib(self.collector_peak_bytes));
        sheet.add("lines that no rule knew", "", float(self.unmatched));
        sheet.add("spool on disk after", "MiB", mib(self.spool_left_bytes));
        let evidence = float(self.evidence_bytes) / float(lines.max(1));
        sheet.add("evidence on disk per line", "B", evidence);
    }
}

pub(super) fn one_run(
    programs: &Programs,
    kind: Kind,
    log: &Path,
    lines: u64,
    place: &Path,
) -> anyhow::Result<Measured> {
    let data = place.join("collector-data");
    let mut collector = Collector::start(
        &programs.collector,
        &data,
        &["--index", "none"],
        &place.join("collector.log"),
    )?;
    let mut settings =
        Settings::under(place, log, collector.address, &collector.enroll_token_file());
    settings.packs = kind.packs().to_owned();
    let collector_before = procfs::cpu_time(collector.daemon.pid())?;
    let begun = Instant::now();
    let mut agent =
        settings.start(&programs.agent, &place.join("agent.yaml"), &place.join("agent.log"))?;
    let status = wait_until_acknowledged(&mut agent, &mut collector, lines)?;
    let wall = begun.elapsed();
    let mut measured = Measured { wall, unmatched: status.unmatched, ..Measured::default() };
    measured.agent_cpu = procfs::cpu_time(agent.daemon.pid())?;
    measured.collector_cpu =
        procfs::cpu_time(collector.daemon.pid())?.saturating_sub(collector_before);
    measured.collector_peak_bytes = procfs::memory(collector.daemon.pid())?.peak_bytes;
    measured.peak_bytes = procfs::memory(agent.daemon.pid())?.peak_bytes;
    watch_idle(agent.daemon.pid(), &mut measured)?;
    agent.daemon.stop(Duration::from_secs(30))?;
    collector.daemon.stop(Duration::from_secs(30))?;
    measured.spool_left_bytes = super::disk_bytes(&settings.data_dir)?;
    measured.evidence_bytes = super::disk_bytes(&data)?;
    Ok(measured)
}

fn wait_until_acknowledged(
    agent: &mut Agent,
    collector: &mut Collector,
    lines: u64,
) -> anyhow::Result<Status> {
    let waited =
        shell::wait_for("all lines are acknowledged", LIMIT, Duration::from_millis(10), || {
            collector.daemon.ensure_running()?;
            Ok(agent.status()?.filter(|status| status.all_acknowledged(lines)))
        });
    match waited {
        Ok(status) => Ok(status),
        Err(error) => {
            bail!("{error:#}\n{}\n{}", agent.daemon.log_end(), collector.daemon.log_end())
        }
    }
}

fn watch_idle(pid: u32, measured: &mut Measured) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    let (ticks, exact) = (procfs::cpu_time(pid)?, procfs::threads_time(pid));
    std::thread::sleep(IDLE);
    measured.idle_cpu = match (exact, procfs::threads_time(pid)) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => procfs::cpu_time(pid)?.saturating_sub(ticks),
    };
    measured.idle_bytes = procfs::memory(pid)?.resident_bytes;
    Ok(())
}

fn latencies(args: &Args, programs: &Programs, folder: &Path) -> anyhow::Result<Sheet> {
    let mut sheet = Sheet::new(format!("latency: {} lines, one every 20 ms", args.latency_lines));
    for run in 1..=args.common.runs {
        let place = |name: &str| -> PathBuf { folder.join(format!("{name}-{run}")) };
        say(&format!("latency: run {run} of {} …", args.common.runs));
        let durable = latency::durable(programs, &place("durable"), args.latency_lines)?;
        durable.note(&mut sheet, "append → durable at the collector", 300.0);
        let searchable = latency::searchable(programs, &place("searchable"), args.latency_lines)?;
        searchable.note(&mut sheet, "append → searchable", 2_000.0);
    }
    sheet.print();
    Ok(sheet)
}
