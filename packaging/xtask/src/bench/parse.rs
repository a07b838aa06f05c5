//! `cargo xtask bench parse`: lines parsed and written as canonical events on one thread, the raw line kept, beside what
//! others need to take the same values out of the same lines.
//!
//! The example `measure` of `parsers` does it, built as packages are. Processor time counts, so that other programs on the
//! machine matter less; each way of reading takes its turn in each round, and its best round counts.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Common;
use super::sheet::{Sheet, Target};
use crate::numbers::{float, per_second};
use crate::shell::{self, Profile};

/// Lines a second that one pack should read, with nothing redacted.
const TARGETS: &[(&str, f64)] = &[("sshd", 900_000.0), ("nginx", 700_000.0), ("json", 600_000.0)];
/// All packs at hand may cost so much more than one.
const ALL_PACKS: f64 = 1.3;

/// Arguments of `bench parse`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Each way of reading takes so many turns in a run.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = shell::scratch(args.common.dir.as_deref())?;
    let example =
        shell::build_example(Profile::Release, "custody-parsers", "measure", folder.path())?;
    let mut sheets: BTreeMap<&str, Sheet> = BTreeMap::new();
    for (kind, _) in TARGETS {
        sheets.insert(kind, Sheet::new(format!("{kind} lines, one thread")));
    }
    for _ in 0..args.common.runs {
        let done = Command::new(&example).args(["speed", &args.rounds.to_string()]).output()?;
        if !done.status.success() {
            bail!("measure ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
        }
        for (kind, target) in TARGETS {
            let sheet = sheets.get_mut(kind).context("just made")?;
            add(sheet, &times(&String::from_utf8(done.stdout.clone())?, kind)?, *target)?;
        }
    }
    let mut json = serde_json::Map::new();
    for (kind, _) in TARGETS {
        let sheet = &sheets[kind];
        sheet.print();
        json.insert((*kind).to_owned(), sheet.to_json());
    }
    json.insert("machine".to_owned(), super::machine());
    args.common.write_json(&Value::Object(json))
}

/// Ways of reading lines of a kind, and the nanoseconds of a line.
fn times(rows: &str, kind: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let mut times = Vec::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).context("a row of measure")?;
        if row["kind"] == kind {
            let way = row["way"].as_str().context("no way")?;
            times.push((way.to_owned(), row["ns"].as_u64().context("no time")?.max(1)));
        }
    }
    Ok(times)
}

fn add(sheet: &mut Sheet, times: &[(String, u64)], target: f64) -> anyhow::Result<()> {
    let of = |wanted: &str| {
        let found = times.iter().find(|(way, _)| way == wanted);
        found.map(|(_, ns)| float(*ns)).with_context(|| format!("measure has no `{wanted}`"))
    };
    for (way, ns) in times {
        let speed = per_second(1, Duration::from_nanos(*ns));
        match way.as_str() {
            "one pack" => sheet.add_for(way, "lines/s", speed, Target::AtLeast(target)),
            _ => sheet.add(way, "lines/s", speed),
        }
    }
    let (one, all) = (of("one pack")?, of("all packs")?);
    sheet.add_for("all packs, of one pack's time", "ratio", all / one, Target::AtMost(ALL_PACKS));
    let both = of("all packs, redaction")? / of("one pack, redaction")?;
    sheet.add_for("the same with redaction", "ratio", both, Target::AtMost(ALL_PACKS));
    for (way, ns) in times.iter().filter(|(way, _)| !way.contains("pack")) {
        sheet.add(&format!("one pack, of the time of: {way}"), "ratio", one / float(*ns));
    }
    Ok(())
}
