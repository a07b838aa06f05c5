//! `bench collector`: signed blocks over HTTP into a collector, then questions.
//!
//! (a) events a second made durable and acknowledged, without an index; (b) events a second until
//! the last of them is found by search; (c) bytes on disk per event in all; (d) latencies of the
//! newest 50. Blocks are made and written to files before any clock runs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use custody_event::Timestamp;
use serde_json::{Value, json};

use super::load::{self, Load, Plan};
use super::queries::{self, Answered, Counts};
use super::sheet::{Sheet, Target};
use super::{Common, disk_bytes, machine};
use crate::collector::Collector;
use crate::generate::Kind;
use crate::numbers::{float, mib, per_second, percentile};
use crate::out::{self, say};
use crate::procfs;
use crate::shell::{self, Programs};

/// The whole CPU time of taking and indexing.
pub(super) const CPU: &str = "CPU per million, to searchable";
/// More blocks than this of each stream say nothing new about ingest alone.
const INGEST_BLOCKS: u64 = 500;

/// Arguments of `bench collector`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events (the targets are for 10,000,000).
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Agents that send at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// What the events are made of; may be given several times (default: all kinds, mixed).
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// The events' times are spread over so many days before now.
    #[arg(long, default_value_t = 7)]
    days: u64,
    /// Questions of each kind, warm.
    #[arg(long, default_value_t = 20)]
    questions: u64,
    /// Questions of each kind, cold: the collector is started anew for each.
    #[arg(long, default_value_t = 3)]
    cold_questions: u64,
    /// Events a second that come in while the warm questions are asked.
    #[arg(long, default_value_t = 10_000)]
    pour: u64,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, programs) = args.common.begin()?;
    let now = shell::now();
    let plan = Plan {
        events: args.events,
        streams: args.streams,
        seed: args.common.seed,
        days: args.days,
        kinds: Kind::or_all(&args.kind),
    };
    let begun = Instant::now();
    let loads = load::make(&plan, now, folder.path())?;
    say(&format!("{} events in blocks after {:.0} s", args.events, begun.elapsed().as_secs_f64()));
    let mut sheet =
        Sheet::new(format!("collector: {} events, {} streams", args.events, args.streams));
    let mut answered = Vec::new();
    for run in 1..=args.common.runs {
        let place = folder.path().join(format!("run-{run}"));
        std::fs::create_dir(&place)?;
        ingest_only(&programs, &loads, &place, &mut sheet)?;
        to_searchable(&programs, &loads, args.events, &place, &mut sheet)?;
        if run == args.common.runs {
            let (all, rate) = questions(args, &programs, &place, now)?;
            answered = all;
            if args.pour > 0 {
                sheet.add("came in during the questions", "events/s", rate);
            }
        }
        std::fs::remove_dir_all(&place)?;
    }
    sheet.print();
    print_answers(&answered);
    let queries: serde_json::Map<String, Value> = answered.iter().map(answer_json).collect();
    args.common.write_json(&json!({
        "machine": machine(), "events": args.events, "collector": sheet.to_json(), "queries": queries
    }))
}

fn ingest_only(
    programs: &Programs,
    loads: &[Load],
    place: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    say("Ingest alone …");
    let data = place.join("evidence-only");
    let collector = Collector::start(
        &programs.collector,
        &data,
        &["--index", "none"],
        &place.join("evidence-only.log"),
    )?;
    let before = procfs::cpu_time(collector.daemon.pid())?;
    let (events, time) =
        load::post(&collector, loads, INGEST_BLOCKS).with_context(|| collector.daemon.log_end())?;
    let cpu = procfs::cpu_time(collector.daemon.pid())?.saturating_sub(before);
    let speed = per_second(events, time);
    sheet.add_for("durable and acknowledged", "events/s", speed, Target::AtLeast(100_000.0));
    sheet.add("CPU per million, ingest alone", "s", cpu.as_secs_f64() * 1e6 / float(events.max(1)));
    collector.daemon.stop(Duration::from_secs(60))?;
    std::fs::remove_dir_all(&data)?;
    Ok(())
}

pub(super) fn to_searchable(
    programs: &Programs,
    loads: &[Load],
    events: u64,
    place: &Path,
    sheet: &mut Sheet,
) -> anyhow::Result<()> {
    say("Ingest with the index …");
    let data = place.join("data");
    let mut collector =
        Collector::start(&programs.collector, &data, &[], &place.join("collector.log"))?;
    let before = procfs::cpu_time(collector.daemon.pid())?;
    let begun = Instant::now();
    let (posted, acknowledged) =
        load::post(&collector, loads, u64::MAX).with_context(|| collector.daemon.log_end())?;
    load::wait_until_found(&mut collector, loads)?;
    let searchable = begun.elapsed();
    let cpu = procfs::cpu_time(collector.daemon.pid())?.saturating_sub(before);
    let memory = procfs::memory(collector.daemon.pid())?;
    sheet.add("acknowledged, with the index", "events/s", per_second(posted, acknowledged));
    let speed = per_second(posted, searchable);
    sheet.add_for("sustained to searchable", "events/s", speed, Target::AtLeast(25_000.0));
    sheet.add(CPU, "s", cpu.as_secs_f64() * 1e6 / float(posted.max(1)));
    sheet.add("memory, peak", "MiB", mib(memory.peak_bytes));
    collector.daemon.stop(Duration::from_secs(120))?;
    note_disk(&data, events, sheet)
}

fn note_disk(data: &Path, events: u64, sheet: &mut Sheet) -> anyhow::Result<()> {
    let each = |bytes: u64| float(bytes) / float(events.max(1));
    sheet.add_for("on disk in all", "B/event", each(disk_bytes(data)?), Target::AtMost(250.0));
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            let name = format!("on disk: {}", entry.file_name().to_string_lossy());
            sheet.add(&name, "B/event", each(disk_bytes(&entry.path())?));
        }
    }
    Ok(())
}

fn questions(
    args: &Args,
    programs: &Programs,
    place: &Path,
    now: Timestamp,
) -> anyhow::Result<(Vec<Answered>, f64)> {
    say("Questions …");
    let counts = Counts { cold: args.cold_questions, warm: args.questions, pour: args.pour };
    let (data, log) = (place.join("data"), place.join("collector.log"));
    queries::measure(&programs.collector, &data, &log, counts, now)
        .with_context(|| crate::daemon::log_end("custody-collector", &log))
}

fn print_answers(answered: &[Answered]) {
    say(&format!(
        "\nnewest 50, milliseconds (target: p99 warm ≤ {} ms; counts over 30 days ≤ 500 ms)",
        queries::TARGET_MS
    ));
    let head = ["question", "warm p50", "p99", "cold p50", "p99", "events", ""];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    table.extend(answered.iter().map(Answered::cells));
    out::table(&table);
}

fn answer_json(answered: &Answered) -> (String, Value) {
    let said = json!({
        "warm_p50_ms": percentile(&answered.warm_ms, 50), "warm_p99_ms": percentile(&answered.warm_ms, 99),
        "cold_p50_ms": percentile(&answered.cold_ms, 50), "cold_p99_ms": percentile(&answered.cold_ms, 99),
        "found": answered.found, "met": answered.is_fast(),
    });
    (answered.name.to_owned(), said)
}
