//! `bench export`: many events exported to each format by a real collector that is killed with -9 in
//! the middle and goes on. Shown: time, CPU, and the most memory of the process; held against 150 MiB:
//! what the process itself holds. (Pages of index files that the kernel keeps for it are counted apart: it takes
//! them back when anybody needs the room.) Each file is then judged by others ([`judge`]).

mod judge;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::load::{self, Plan};
use super::sheet::{Sheet, Target};
use super::{Common, machine};
use crate::collector::Collector;
use crate::generate::Kind;
use crate::http::Client;
use crate::numbers::{float, mib, per_second};
use crate::out::{self, say};
use crate::procfs;
use crate::shell::{self, Programs};

const MAX_MEMORY_MIB: f64 = 150.0;
/// An export that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(3_600);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A word behind a hyphen is the form.
const FORMATS: [&str; 7] = ["csv", "json", "ndjson", "parquet", "parquet-ocsf", "pdf", "bundle"];

/// Arguments of `bench export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Agents from which they come.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Formats; may be given several times (default: all).
    #[arg(long, value_parser = FORMATS)]
    format: Vec<String>,
    /// Let it finish undisturbed.
    #[arg(long)]
    no_kill: bool,
    /// Keep the files here.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, programs) = args.common.begin()?;
    let plan = Plan {
        events: args.events,
        streams: args.streams,
        seed: args.common.seed,
        days: 7,
        kinds: Kind::ALL.to_vec(),
    };
    let loads = load::make(&plan, shell::now(), folder.path())?;
    let (data, log) = (folder.path().join("data"), folder.path().join("collector.log"));
    let mut collector = Collector::start(&programs.collector, &data, &[], &log)?;
    load::post(&collector, &loads, u64::MAX).with_context(|| collector.daemon.log_end())?;
    load::wait_until_found(&mut collector, &loads)?;
    collector.daemon.stop(Duration::from_secs(120))?;
    say(&format!("{} events are in", args.events));
    let mut sheet = Sheet::new(format!("exports of {} events", args.events));
    let mut bench = Bench { args, programs, folder: folder.path().to_owned(), data, log };
    let mut verdicts = vec![["format", "judge", "verdict"].map(str::to_owned).to_vec()];
    for format in FORMATS {
        if args.format.is_empty() || args.format.iter().any(|wanted| wanted == format) {
            verdicts.extend(bench.one(format, &mut sheet)?);
        }
    }
    sheet.print();
    out::table(&verdicts);
    args.common.write_json(&json!({
        "machine": machine(), "events": args.events, "exports": sheet.to_json(), "judged": verdicts,
    }))
}

struct Bench<'a> {
    args: &'a Args,
    programs: Programs,
    folder: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

/// The most that was seen of a process.
#[derive(Debug, Default)]
struct Most {
    own_bytes: u64,
    all_bytes: u64,
}

impl Most {
    fn look(&mut self, collector: &Collector) -> anyhow::Result<()> {
        let memory = procfs::memory(collector.daemon.pid())?;
        self.own_bytes = self.own_bytes.max(memory.anonymous_bytes);
        self.all_bytes = self.all_bytes.max(memory.peak_bytes);
        Ok(())
    }
}

impl Bench<'_> {
    /// A collector of its own for each format: the memory of one says nothing about another.
    fn start(&self) -> anyhow::Result<Collector> {
        Collector::start(&self.programs.collector, &self.data, &[], &self.log)
    }

    fn one(&mut self, format: &str, sheet: &mut Sheet) -> anyhow::Result<Vec<Vec<String>>> {
        say(&format!("{format} …"));
        let mut collector = self.start()?;
        let mut client = collector.admin()?;
        let (kind, form) = format.split_once('-').unwrap_or((format, "custody"));
        let asked = json!({ "name": "bench", "format": kind, "form": form, "q": "input:bench" });
        let asked = asked.to_string();
        let answer = client.post("/v1/exports", "application/json", asked.as_bytes())?;
        let id = answer.value()["id"].as_str().context("the export was not taken")?.to_owned();
        let (mut most, begun) = (Most::default(), Instant::now());
        let mut cpu = Duration::ZERO;
        if !self.args.no_kill {
            let rows = self.wait(&mut collector, &id, Some(self.args.events * 2 / 5), &mut most)?;
            cpu += procfs::cpu_time(collector.daemon.pid())?;
            collector.daemon.kill()?;
            let rows = &rows["rows"];
            say(&format!("  killed at {rows} rows"));
            collector = self.start()?;
        }
        let entry = self.wait(&mut collector, &id, None, &mut most)?;
        cpu += procfs::cpu_time(collector.daemon.pid())?;
        let time = begun.elapsed();
        let file = self.fetch(&collector, &id, format)?;
        let proof = proof(&mut collector.admin()?, &id)?;
        collector.daemon.stop(Duration::from_secs(120))?;
        let events = self.args.events;
        if entry["rows"] != events {
            bail!("{format}: {} rows, {events} are there", entry["rows"]);
        }
        sheet.add(&format!("{format}: speed"), "events/s", per_second(events, time));
        sheet.add(
            &format!("{format}: CPU per million"),
            "s",
            cpu.as_secs_f64() * 1e6 / float(events),
        );
        let (own, limit) = (mib(most.own_bytes), Target::AtMost(MAX_MEMORY_MIB));
        sheet.add_for(&format!("{format}: memory of its own, peak"), "MiB", own, limit);
        sheet.add(&format!("{format}: resident with files, peak"), "MiB", mib(most.all_bytes));
        sheet.add(&format!("{format}: size"), "MiB", mib(std::fs::metadata(&file)?.len()));
        let verdicts = judge::judge(format, &file, events, &proof)?;
        match &self.args.keep {
            Some(_) => say(&format!("  kept: {}", file.display())),
            None => std::fs::remove_file(&file)?,
        }
        Ok(verdicts)
    }

    /// Until it is complete, or has so many rows.
    fn wait(
        &self,
        collector: &mut Collector,
        id: &str,
        rows: Option<u64>,
        most: &mut Most,
    ) -> anyhow::Result<Value> {
        let mut client = collector.admin()?;
        shell::wait_for("the export", LIMIT, LOOK_EVERY, || {
            collector.daemon.ensure_running()?;
            most.look(collector)?;
            let entry = client.get(&format!("/v1/exports/{id}"))?.value();
            if entry["status"] == "failed" {
                bail!("the export has failed: {entry}");
            }
            let far = rows.is_some_and(|rows| entry["rows"].as_u64() >= Some(rows));
            Ok((far || entry["status"] == "completed").then_some(entry))
        })
    }

    fn fetch(&self, collector: &Collector, id: &str, format: &str) -> anyhow::Result<PathBuf> {
        let folder = self.args.keep.as_deref().unwrap_or(&self.folder);
        let file = folder.join(format!("export.{format}"));
        let mut command = Command::new(&self.programs.collector);
        command.args(["export", "get", id, "--collector"]);
        command.arg(format!("http://{}", collector.address));
        command.arg("--token-file").arg(collector.admin_token_file()).arg("-o").arg(&file);
        let output = command.output().context("cannot run custody-collector export get")?;
        if !output.status.success() {
            bail!("export get: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(file)
    }
}

/// The hash of the events as canonical NDJSON; a bundle proves itself.
fn proof(client: &mut Client, id: &str) -> anyhow::Result<String> {
    let proof = client.get(&format!("/v1/exports/{id}/proof"))?.value();
    Ok(proof["events_sha256"].as_str().unwrap_or_default().to_owned())
}

fn row(format: &str, judge: &str, verdict: impl Into<String>) -> Vec<String> {
    vec![format.to_owned(), judge.to_owned(), verdict.into()]
}

/// Runs a judge to its end; what it said.
fn said(program: &Path, args: &[&std::ffi::OsStr]) -> anyhow::Result<String> {
    shell::run(program.to_str().context("a path is not UTF-8")?, args)
}
