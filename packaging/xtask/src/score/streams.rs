//! The corpus: its streams, their expectations, and the records that these name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::tz::TimeZone;
use serde_json::Value;

/// A stream is at most so many folders deep.
const MAX_DEPTH: usize = 3;

/// A folder of the corpus.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its path in the corpus.
    pub(super) name: String,
    folder: PathBuf,
}

/// A record and what is expected of it.
#[derive(Debug)]
pub(super) struct Labelled {
    pub(super) expected: Value,
    /// `<file>:<first line>`.
    pub(super) place: String,
    pub(super) file: String,
    pub(super) record: String,
    /// As the expectation assumes; see [`zone`].
    pub(super) zone: String,
}

/// Where the corpus is.
pub(super) fn corpus() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CUSTODY_CORPUS") {
        return Some(path.into());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|up| up.join("../shared/corpus")).find(|path| path.is_dir())
}

/// All streams, by name.
pub(super) fn all(corpus: &Path) -> anyhow::Result<Vec<Stream>> {
    let mut found = Vec::new();
    collect(corpus, "", MAX_DEPTH, &mut found)?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn collect(folder: &Path, name: &str, depth: usize, found: &mut Vec<Stream>) -> anyhow::Result<()> {
    if folder.join("expected.jsonl").is_file() {
        found.push(Stream { name: name.to_owned(), folder: folder.to_owned() });
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let part = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !part.starts_with('_') {
            let name = if name.is_empty() { part } else { format!("{name}/{part}") };
            collect(&entry.path(), &name, depth - 1, found)?;
        }
    }
    Ok(())
}

impl Stream {
    /// Its records; those of which the corpus has only the text have no place and are left out.
    pub(super) fn labelled(&self) -> anyhow::Result<Vec<Labelled>> {
        let expectations = std::fs::read_to_string(self.folder.join("expected.jsonl"))?;
        let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut all = Vec::new();
        for line in expectations.lines() {
            let expected: Value = serde_json::from_str(line)?;
            let (Some(file), Some(first)) =
                (expected["file"].as_str(), expected["line"].as_u64().and_then(number))
            else {
                continue;
            };
            if !files.contains_key(file) {
                let path = self.folder.join(file);
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                let text = String::from_utf8_lossy(&bytes);
                files.insert(file.to_owned(), text.lines().map(str::to_owned).collect());
            }
            let lines = files.get(file).context("just read")?;
            let count = expected["lines"].as_u64().and_then(number).unwrap_or(1);
            let record: Vec<&str> = lines
                .iter()
                .skip(first.saturating_sub(1))
                .take(count)
                .map(|line| line.trim_end_matches('\r'))
                .collect();
            all.push(Labelled {
                place: format!("{file}:{first}"),
                file: file.rsplit('/').next().unwrap_or(file).to_owned(),
                record: record.join("\n"),
                zone: zone_name(&expected),
                expected,
            });
        }
        Ok(all)
    }
}

fn number(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

impl Labelled {
    /// The records as the agent is given them: the lines of one record together, but those of the
    /// Linux audit system one by one, for there each line is a record.
    pub(super) fn records(&self) -> Vec<&str> {
        if self.record.starts_with("type=") || self.record.starts_with("node=") {
            return self.record.lines().collect();
        }
        vec![&self.record]
    }
}

/// The zone's name before what is said of it: `UTC (upstream convention; …)`.
fn zone_name(expected: &Value) -> String {
    let said = expected["tz_assumed"].as_str().unwrap_or("UTC");
    said.split_whitespace().next().unwrap_or("UTC").to_owned()
}

/// An IANA name, an offset, or the summer time of Berlin.
pub(super) fn zone(name: &str) -> anyhow::Result<TimeZone> {
    match offset(name) {
        Some(hours) => Ok(TimeZone::fixed(jiff::tz::offset(hours))),
        None => TimeZone::get(name).with_context(|| format!("zone {name}")),
    }
}

fn offset(name: &str) -> Option<i8> {
    match name {
        "CEST" => Some(2),
        "CET" => Some(1),
        _ => name.strip_suffix(":00")?.parse().ok(),
    }
}

/// Seconds east, where the zone is an offset.
pub(super) fn offset_s(name: &str) -> i64 {
    i64::from(offset(name).unwrap_or(0)) * 3600
}
