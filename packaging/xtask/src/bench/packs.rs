//! `cargo xtask bench packs`: instructions per record of each pack, counted by callgrind.
//!
//! Instructions do not depend on what else the machine does, so one run is enough and 5 % mean something. A pack
//! reads the records of its own tests, after it has read them twice: what is made when it is first needed is not counted,
//! nor is SHA-256's inner loop, which processors do themselves and valgrind's does not. One run of the example `measure` of
//! `parsers` reads them all; the instrument writes a file for each.
//!
//! The figures are compared with those in `packs.json` that are of the same build (`dev` as tests are built, or `release`)
//! and the same kind of processor; `--save` writes them there. Without valgrind nothing is measured, and that is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use custody_parsers::builtin;
use serde_json::{Value, json};

use crate::numbers::len;
use crate::out;
use crate::shell::{self, Profile};

/// So many hundredths more are too many.
const WORSE: u64 = 5;
/// What reads a pack's records with all packs at hand.
const AUTO: &str = "+auto";
/// Those that are read with all packs too, where none is named: one of each kind of record.
const WITH_ALL: &[&str] = &["sshd", "nginx-access", "auditd", "aws-cloudtrail", "generic-json"];

/// Arguments of `bench packs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Packs; `NAME+auto` reads the pack's records with all packs (default: all by themselves, and some with all).
    #[arg(value_name = "PACK")]
    packs: Vec<String>,
    /// Measure the optimised build that packages have.
    #[arg(long)]
    release: bool,
    /// Keep the figures as those to compare with.
    #[arg(long)]
    save: bool,
}

/// Figures of one kind of build, by pack.
type Figures = BTreeMap<String, u64>;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !shell::installed("valgrind") {
        out::say("skipped: valgrind is not installed");
        return Ok(());
    }
    let wanted = match args.packs.as_slice() {
        [] => usual(),
        packs => packs.to_vec(),
    };
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let counted = count(profile, &wanted)?;
    let mut kept = kept()?;
    let build = kind_of_build(profile);
    let before = kept.entry(build.clone()).or_default();
    let worse = compare(&counted, before);
    if args.save {
        before.extend(counted.iter().map(|one| (one.name.clone(), one.each())));
        let text = serde_json::to_string_pretty(&kept)? + "\n";
        std::fs::write(file(), text).context("packs.json")?;
    } else if before.is_empty() {
        out::say(&format!("skipped: packs.json has no figures of `{build}` to compare with"));
    } else if !worse.is_empty() {
        bail!(
            "more than {WORSE} % worse than packs.json: {} (where that is meant: `cargo xtask bench packs --save`)",
            worse.join(", ")
        );
    }
    Ok(())
}

fn usual() -> Vec<String> {
    let alone = builtin().iter().map(|pack| pack.name().to_owned());
    alone.chain(WITH_ALL.iter().map(|name| format!("{name}{AUTO}"))).collect()
}

/// What the figures depend on, beside the code: how it was built, and which instructions the processor has.
fn kind_of_build(profile: Profile) -> String {
    let build = if profile == Profile::Release { "release" } else { "dev" };
    #[cfg(target_arch = "x86_64")]
    let wide = if std::arch::is_x86_feature_detected!("avx2") { "+avx2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    format!("{build}, {}{wide}", std::env::consts::ARCH)
}

/// The instructions of all records of a pack.
struct Counted {
    name: String,
    records: u64,
    instructions: u64,
}

impl Counted {
    fn each(&self) -> u64 {
        self.instructions / self.records.max(1)
    }
}

/// Prints the table; gives the names of those that are worse.
fn compare(counted: &[Counted], before: &Figures) -> Vec<String> {
    let head = ["pack", "records", "instructions a record", "before", "change"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut worse = Vec::new();
    for one in counted {
        let now = one.each();
        let last = before.get(&one.name).copied().filter(|last| *last > 0);
        if last.is_some_and(|last| now * 100 > last * (100 + WORSE)) {
            worse.push(one.name.clone());
        }
        let change = last.map(|last| {
            let hundredths = i64::try_from(now * 100 / last).unwrap_or(i64::MAX) - 100;
            format!("{hundredths:+} %")
        });
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let last = or_none(last.map(|last| last.to_string()));
        let (records, now) = (one.records.to_string(), now.to_string());
        rows.push(vec![one.name.clone(), records, now, last, or_none(change)]);
    }
    out::table(&rows);
    worse
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/packs.json")
}

/// Figures by kind of build.
fn kept() -> anyhow::Result<BTreeMap<String, Figures>> {
    let text = std::fs::read_to_string(file()).context("packs.json")?;
    serde_json::from_str(&text).context("packs.json")
}

/// Runs the example under callgrind.
fn count(profile: Profile, wanted: &[String]) -> anyhow::Result<Vec<Counted>> {
    let folder = shell::scratch(None)?;
    let example = shell::build_example(profile, "custody-parsers", "measure", folder.path())?;
    let mut list = Vec::new();
    let mut counted = Vec::new();
    for name in wanted {
        let pack = name.trim_end_matches(AUTO);
        let records = records(pack)?;
        counted.push(Counted { name: name.clone(), records: len(records.len()), instructions: 0 });
        let packs = if pack == name { json!([pack]) } else { Value::Null };
        list.push(json!({ "name": name, "packs": packs, "records": records }));
    }
    let input = folder.path().join("records.json");
    std::fs::write(&input, serde_json::to_vec(&list)?).context("the records")?;
    let output = folder.path().join("counted");
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-line=no", "--dump-after=measure::counted"])
        .arg("--toggle-collect=measure::counted")
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(example)
        .arg("count")
        .arg(&input)
        .output()
        .context("valgrind")?;
    if !done.status.success() {
        bail!("valgrind ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    for (number, one) in counted.iter_mut().enumerate() {
        let dump = output.with_extension((number + 1).to_string());
        one.instructions = total(&dump)?;
    }
    Ok(counted)
}

/// The sum of a file of callgrind's without the hashes, which under valgrind are made without the processor's
/// instructions for them.
fn total(dump: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(dump).with_context(|| dump.display().to_string())?;
    let number = Some(without_hashes(&text)).filter(|number| *number > 0);
    number.with_context(|| format!("callgrind counted nothing: {}", dump.display()))
}

/// In callgrind's format (its manual, 7.3) a function is named once, by `fn=(ID) NAME` or as one that is called, and by
/// `fn=(ID)` from then on. A line that begins with a position ends with what it costs; that after `calls=` is the callee's.
fn without_hashes(dump: &str) -> u64 {
    let mut hashes: BTreeMap<&str, bool> = BTreeMap::new();
    let (mut is_hash, mut of_callee, mut sum) = (false, false, 0);
    for line in dump.lines() {
        let named = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="));
        if let Some((id, name)) = named.map(|named| named.split_once(' ').unwrap_or((named, ""))) {
            let known = hashes.entry(id).or_insert_with(|| name.contains("sha2::"));
            if line.starts_with("fn=") {
                is_hash = *known;
            }
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
            if !std::mem::take(&mut of_callee) && !is_hash {
                sum += cost.unwrap_or(0);
            }
        }
    }
    sum
}

/// The records of a pack's tests.
fn records(pack: &str) -> anyhow::Result<Vec<String>> {
    let found = builtin().iter().find(|known| known.name() == pack);
    let text = found.with_context(|| format!("no built-in pack `{pack}`"))?.text();
    let pack: Value = serde_yaml::from_str(&text).context("a built-in pack")?;
    let rules = pack["rules"].as_array().into_iter().flatten();
    let tests = rules.flat_map(|rule| rule["tests"].as_array().into_iter().flatten());
    Ok(tests.filter_map(|test| test["record"].as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_callees_and_hashes_cost_is_not_counted_twice_or_at_all() {
        let dump = "events: Ir\nfn=(1) measure::counted\n0 7\ncfn=(2) sha2::sha256::compress256\ncalls=3 0\n0 90\n\
                    cfn=(3) parse\ncalls=1 0\n0 11\n\nfn=(2)\n0 90\n\nfn=(3)\n+4 5\n* 6\n\ntotals: 108\n";
        assert_eq!(super::without_hashes(dump), 18);
    }
}
