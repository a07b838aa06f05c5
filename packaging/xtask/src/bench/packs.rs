//! `cargo xtask bench packs`: instructions per record of each pack, counted by callgrind.
//!
//! Instructions do not depend on what else the machine does, so one run is enough and 5 % mean something. A pack
//! reads the records of its own tests, over and over; a second run reads them more often, and the difference is the
//! cost of reading alone, without loading the pack. Figures of the same build profile are compared with those in
//! `packs.json`; `--save` writes them there. Where valgrind is not installed, nothing is measured, and that is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, Scratch, Select, Settings, builtin};
use serde_json::Value;

use crate::out;

/// How often the records are read in the shorter run, and how much more often in the longer one.
const FEW: u32 = 2;
const MORE: u32 = 10;
/// So many hundredths more are too many.
const WORSE: u64 = 5;
/// Those that are measured where none is named: one of each kind of decoder, and all packs at once.
const USUAL: &[&str] = &[
    "sshd",
    "nginx-access",
    "auditd",
    "postgresql",
    "aws-cloudtrail",
    "generic-json",
    "generic-logfmt",
    "generic-text",
    "generic-json+auto",
    "sshd+auto",
];

/// Arguments of `bench packs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Packs; `NAME+auto` reads the pack's records with all packs (default: one of each kind).
    #[arg(value_name = "PACK")]
    packs: Vec<String>,
    /// Keep the figures as those to compare with.
    #[arg(long)]
    save: bool,
}

/// Arguments of the run that is counted.
#[derive(Debug, clap::Args)]
pub(crate) struct Reading {
    pack: String,
    times: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        out::say("skipped: valgrind is not installed");
        return Ok(());
    }
    let wanted: Vec<&str> = match args.packs.as_slice() {
        [] => USUAL.to_vec(),
        packs => packs.iter().map(String::as_str).collect(),
    };
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut kept = kept()?;
    let figures = kept.entry(profile.to_owned()).or_default();
    let mut rows = vec![
        ["pack", "records", "instructions a record", "before", "change"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut worse = Vec::new();
    for name in wanted {
        let records = records(name.trim_end_matches("+auto"))?.len();
        let (few, many) = (count(name, FEW)?, count(name, FEW + MORE)?);
        let read = u64::from(MORE) * u64::try_from(records)?.max(1);
        let now = many.saturating_sub(few) / read;
        let before = figures.get(name).copied();
        if before.is_some_and(|before| now * 100 > before * (100 + WORSE)) {
            worse.push(name.to_owned());
        }
        let change = before.filter(|before| *before > 0).map(|before| {
            let hundredths = i64::try_from(now * 100 / before).unwrap_or(i64::MAX) - 100;
            format!("{hundredths:+} %")
        });
        let shown = before.map_or_else(|| "-".to_owned(), |before| before.to_string());
        let change = change.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![name.to_owned(), records.to_string(), now.to_string(), shown, change]);
        if args.save || before.is_none() {
            figures.insert(name.to_owned(), now);
        }
    }
    out::table(&rows);
    if args.save {
        let text = serde_json::to_string_pretty(&kept)? + "\n";
        std::fs::write(file(), text).context("packs.json")?;
    }
    if !worse.is_empty() && !args.save {
        bail!("more than {WORSE} % worse than packs.json: {}", worse.join(", "));
    }
    Ok(())
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/packs.json")
}

/// Figures by build profile and pack.
fn kept() -> anyhow::Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let text = std::fs::read_to_string(file()).context("packs.json")?;
    serde_json::from_str(&text).context("packs.json")
}

/// Instructions of one run of this program.
fn count(name: &str, times: u32) -> anyhow::Result<u64> {
    let own = std::env::current_exe()?;
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["bench", "pack-reading", name, &times.to_string()])
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&done.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let number = collected.and_then(|(_, number)| number.trim().parse().ok());
    number.with_context(|| format!("callgrind counted nothing: {said}"))
}

/// The records of a pack's tests.
fn records(pack: &str) -> anyhow::Result<Vec<String>> {
    let found = builtin().iter().find(|(name, _)| *name == pack);
    let (_, text) = found.with_context(|| format!("no built-in pack `{pack}`"))?;
    let pack: Value = serde_yaml::from_str(text).context("a built-in pack")?;
    let rules = pack["rules"].as_array().into_iter().flatten();
    let tests = rules.flat_map(|rule| rule["tests"].as_array().into_iter().flatten());
    Ok(tests.filter_map(|test| test["record"].as_str().map(str::to_owned)).collect())
}

/// Reads the records so often: what is counted.
pub(crate) fn read(args: &Reading) -> anyhow::Result<()> {
    let name = args.pack.trim_end_matches("+auto");
    let select = match args.pack.ends_with("+auto") {
        true => Select::Auto,
        false => Select::Names(vec![name.to_owned()]),
    };
    let parser = PackSet::with_builtin(&[])?.select(&select, Settings::default())?;
    let observed = Timestamp::parse("2024-03-01T12:00:00.000000Z").context("the clock")?;
    let envelope = Envelope { path: Some("/var/log/all.log"), ..Envelope::bare(observed) };
    let records = records(name)?;
    let mut scratch = Scratch::new();
    let mut out = Vec::new();
    for _ in 0..args.times {
        let mut run = parser.run(&mut scratch, &envelope);
        for record in &records {
            out.clear();
            run.parse(record.as_bytes(), Offset(0), None, &mut out);
        }
    }
    Ok(())
}
