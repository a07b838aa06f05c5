//! `cargo xtask tamper`: thousands of random changes on everything that evidence lies in or goes
//! through, by the tests that try them, as one table: kinds of changes by targets.
//!
//! The tests print a line `tried`, target, kind and count (tabulators between) for each; whether
//! each change was told, and where, they assert themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

use crate::out::{self, say};
use crate::shell;

/// So many changes in all, at least.
const AT_LEAST: u64 = 5_000;
/// What is changed.
const TARGETS: [&str; 6] =
    ["answer on the wire", "block on the wire", "bundle", "directory", "spool", "spool's export"];
/// What is done to it.
const KINDS: [&str; 9] =
    ["flip", "cut", "swap", "drop", "duplicate", "splice", "re-sign", "roll back", "rewrite"];
/// What makes no sense there, and why.
const SENSELESS: [(&str, &str, &str); 2] = [
    ("spool's export", "roll back", "what the agent wrote after it, an export does not know"),
    ("spool's export", "rewrite", "that is another agent's export: its key tells"),
];

/// Arguments of `tamper`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what continuous integration tries.
    #[arg(long)]
    short: bool,
    /// Where the random changes begin.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut tried: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (what, test, filter) in [
        ("bundles, directories, spools", ["--test", "it"].as_slice(), &["tamper", "wire"][..]),
        ("blocks that a collector is sent", &["--lib"], &["no_changed_block_is_taken"]),
        ("answers that an agent is given", &["--test", "tamper"], &[]),
    ] {
        say(&format!("{what} …"));
        for (at, count) in tests(args, test, filter)? {
            *tried.entry(at).or_default() += count;
        }
    }
    let kinds: BTreeSet<&str> = tried.keys().map(|(_, kind)| kind.as_str()).collect();
    let targets: BTreeSet<&str> = tried.keys().map(|(target, _)| target.as_str()).collect();
    if kinds != BTreeSet::from(KINDS) || targets != BTreeSet::from(TARGETS) {
        bail!("tried were the kinds {kinds:?} on the targets {targets:?}");
    }
    let mut table = vec![head()];
    let mut missing = Vec::new();
    for target in TARGETS {
        table.push(row(&tried, target, &mut missing));
    }
    out::table(&table);
    for (target, kind, why) in SENSELESS {
        say(&format!("not tried: {kind} of a {target}: {why}"));
    }
    if !missing.is_empty() {
        bail!("never tried: {}", missing.join(", "));
    }
    let all: u64 = tried.values().sum();
    say(&format!("{all} changes, every one told with its place; untouched data never accused"));
    if all < AT_LEAST && !args.short {
        bail!("{all} are fewer than {AT_LEAST}");
    }
    Ok(())
}

fn head() -> Vec<String> {
    std::iter::once("").chain(KINDS).chain(["in all"]).map(str::to_owned).collect()
}

fn row(
    tried: &BTreeMap<(String, String), u64>,
    target: &str,
    missing: &mut Vec<String>,
) -> Vec<String> {
    let (mut cells, mut sum) = (vec![target.to_owned()], 0);
    for kind in KINDS {
        let count = tried.get(&(target.to_owned(), kind.to_owned())).copied().unwrap_or_default();
        let senseless = SENSELESS.iter().any(|(at, what, _)| (*at, *what) == (target, kind));
        if count == 0 && !senseless {
            missing.push(format!("{kind} of a {target}"));
        }
        sum += count;
        cells.push(if senseless { "–".to_owned() } else { count.to_string() });
    }
    cells.push(sum.to_string());
    cells
}

type Counted = Vec<((String, String), u64)>;

fn tests(args: &Args, test: &[&str], filter: &[&str]) -> anyhow::Result<Counted> {
    let mut command = shell::cargo()?;
    // The whole workspace, as all tests are built: for one package alone cargo would build the libraries once more.
    command.args(["test", "--workspace"]).args(test).args(["--", "--nocapture"]).args(filter);
    if !args.short {
        command.env("CUSTODY_LONG", "1");
    }
    if let Some(seed) = args.seed {
        command.env("CUSTODY_TAMPER_SEED", seed.to_string());
    }
    let output = command.output().context("cannot run cargo")?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("a test failed:\n{said}");
    }
    let mut counted = Vec::new();
    for line in said.lines() {
        // The name of a test may stand before it on the line.
        let Some((_, rest)) = line.split_once("tried\t") else { continue };
        let cells: Vec<&str> = rest.split('\t').collect();
        let [target, kind, count] = cells[..] else { bail!("what is {line:?}?") };
        counted.push(((target.to_owned(), kind.to_owned()), count.trim().parse()?));
    }
    Ok(counted)
}
