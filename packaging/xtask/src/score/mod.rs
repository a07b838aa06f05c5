//! `cargo xtask score-corpus`: the built-in packs against logs that others have labelled.
//!
//! **The corpus** stands beside the checkout (`../shared/corpus`) or where `CUSTODY_CORPUS` says. Each
//! of its streams is a folder with an `expected.jsonl`: one expectation a line, which names a record by
//! its file and lines and says who did what from where, when, and how it went. Nothing of it is copied
//! into the project.
//!
//! **What is done.** Every named record is read by all built-in packs (`packs: auto`), as a file
//! `/var/log/<stream>/<file>` in the zone that the expectation assumes, and every value that the
//! expectation names is compared with the event ([`compare`] has the table). Where the expectation is
//! not the truth, [`excuses`] says so with a reason, and the value is not counted.
//!
//! **What holds.** A test asks that no stream falls below its floor (`floors.json`), and that every
//! excuse is needed.

mod compare;
mod excuses;
mod streams;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, Parser, Scratch, Select, Settings};
use serde_json::{Value, json};

use crate::out;
use compare::Checked;
use excuses::Excuses;
use streams::{Labelled, Stream};

/// The clock of the reader: times without a year are of the year before it.
const OBSERVED: &str = "2026-06-01T12:00:00.000000Z";

/// Arguments of `score-corpus`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The corpus (default: `CUSTODY_CORPUS`, or `../shared/corpus` beside the checkout).
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
    /// List the disagreements of this stream (or of all whose name begins so).
    #[arg(long, value_name = "STREAM")]
    show: Option<String>,
    /// Lines of `--show`, at most.
    #[arg(long, default_value_t = 200, value_name = "N")]
    limit: usize,
}

/// A value on which expectation and event do not agree.
#[derive(Debug)]
struct Disagreement {
    place: String,
    field: String,
    expected: String,
    found: String,
    rule: String,
    record: String,
}

/// What a stream came to.
#[derive(Debug, Default)]
struct Score {
    records: usize,
    /// Records that a rule knows.
    known: usize,
    /// Named and agreeing values by field; those that are excused are not among them.
    fields: BTreeMap<String, (usize, usize)>,
    excused: usize,
    disagreements: Vec<Disagreement>,
}

impl Score {
    fn values(&self) -> (usize, usize) {
        self.fields.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Of ten thousand; a stream without values is all right.
    fn basis_points(&self) -> usize {
        let (named, agreeing) = self.values();
        (agreeing * 10_000).checked_div(named).unwrap_or(10_000)
    }

    fn add(&mut self, labelled: &Labelled, rule: &str, checked: Checked, excused: bool) {
        if !checked.agrees && excused {
            self.excused += 1;
            return;
        }
        let counts = self.fields.entry(checked.field.clone()).or_default();
        counts.0 += 1;
        counts.1 += usize::from(checked.agrees);
        if !checked.agrees {
            self.disagreements.push(Disagreement {
                place: labelled.place.clone(),
                field: checked.field,
                expected: checked.expected,
                found: checked.found,
                rule: rule.to_owned(),
                record: labelled.record.replace('\n', " ⏎ ").chars().take(240).collect(),
            });
        }
    }
}

/// Reads records; one parser for each zone.
struct Readers {
    packs: PackSet,
    parsers: BTreeMap<String, Parser>,
    scratch: Scratch,
    observed: Timestamp,
}

impl Readers {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            packs: PackSet::with_builtin(&[]).context("the built-in packs")?,
            parsers: BTreeMap::new(),
            scratch: Scratch::new(),
            observed: Timestamp::parse(OBSERVED).context("the reader's clock")?,
        })
    }

    /// The events of a record.
    fn read(&mut self, stream: &str, labelled: &Labelled) -> anyhow::Result<Vec<Value>> {
        let zone = &labelled.zone;
        if !self.parsers.contains_key(zone) {
            let settings = Settings { zone: streams::zone(zone)?, ..Settings::default() };
            self.parsers.insert(zone.clone(), self.packs.select(&Select::Auto, settings)?);
        }
        let parser = self.parsers.get(zone).context("just made")?;
        let path = format!("/var/log/{stream}/{}", labelled.file);
        let envelope = Envelope { path: Some(&path), ..Envelope::bare(self.observed) };
        let mut events = Vec::new();
        for record in labelled.records() {
            let mut out = Vec::new();
            parser.parse(
                &mut self.scratch,
                &envelope,
                record.as_bytes(),
                Offset(0),
                None,
                &mut out,
            );
            for event in out.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
                events.push(serde_json::from_slice(event)?);
            }
        }
        Ok(events)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let corpus = args.corpus.clone().or_else(streams::corpus).context(
        "no corpus: give --corpus, set CUSTODY_CORPUS, or put it beside the checkout (../shared/corpus)",
    )?;
    let mut excuses = Excuses::read()?;
    let scores = score(&corpus, &mut excuses, args.show.as_deref())?;
    if let Some(shown) = &args.show {
        for (name, score) in scores.iter().filter(|(name, _)| name.starts_with(shown)) {
            show(name, score, args.limit);
        }
    }
    if args.json {
        out::say(&serde_json::to_string_pretty(&as_json(&scores))?);
    } else {
        print(&scores);
    }
    Ok(())
}

/// Scores every stream (or those whose name begins with `only`).
fn score(
    corpus: &Path,
    excuses: &mut Excuses,
    only: Option<&str>,
) -> anyhow::Result<BTreeMap<String, Score>> {
    let mut readers = Readers::new()?;
    let mut scores = BTreeMap::new();
    for stream in streams::all(corpus)? {
        if only.is_some_and(|only| !stream.name.starts_with(only)) {
            continue;
        }
        let score = score_stream(&stream, &mut readers, excuses)
            .with_context(|| format!("stream {}", stream.name))?;
        scores.insert(stream.name, score);
    }
    Ok(scores)
}

fn score_stream(
    stream: &Stream,
    readers: &mut Readers,
    excuses: &mut Excuses,
) -> anyhow::Result<Score> {
    let mut score = Score::default();
    for labelled in stream.labelled()? {
        let events = readers.read(&stream.name, &labelled)?;
        let rule = events.iter().find_map(|event| {
            let origin = event.get("origin")?;
            let part = |name| origin.get(name).and_then(Value::as_str);
            Some(format!("{}/{}", part("pack")?, part("rule")?))
        });
        score.records += 1;
        score.known += usize::from(rule.is_some());
        let offset_s = streams::offset_s(&labelled.zone);
        for checked in compare::all(&labelled, &events, offset_s) {
            let excused = !checked.agrees && excuses.covers(&stream.name, &labelled, &checked);
            score.add(&labelled, rule.as_deref().unwrap_or("-"), checked, excused);
        }
    }
    Ok(score)
}

fn show(name: &str, score: &Score, limit: usize) {
    for miss in score.disagreements.iter().take(limit) {
        out::say(&format!(
            "{name} {} {}: expected {:?}, found {:?} ({}): {}",
            miss.place, miss.field, miss.expected, miss.found, miss.rule, miss.record
        ));
    }
}

fn percent(basis_points: usize) -> String {
    format!("{}.{:02}", basis_points / 100, basis_points % 100)
}

fn print(scores: &BTreeMap<String, Score>) {
    let head = ["stream", "records", "known", "values", "agreeing", "%", "excused", "where not"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut named, mut agreeing) = (0, 0);
    for (name, score) in scores {
        let values = score.values();
        named += values.0;
        agreeing += values.1;
        let wrong: Vec<String> = score
            .fields
            .iter()
            .filter(|(_, counts)| counts.0 > counts.1)
            .map(|(field, counts)| format!("{field} {}", counts.0 - counts.1))
            .collect();
        rows.push(vec![
            name.clone(),
            score.records.to_string(),
            score.known.to_string(),
            values.0.to_string(),
            values.1.to_string(),
            percent(score.basis_points()),
            score.excused.to_string(),
            wrong.join(", "),
        ]);
    }
    out::table(&rows);
    let all = (agreeing * 10_000).checked_div(named).unwrap_or(10_000);
    out::say(&format!("all: {agreeing} of {named} values, {} %", percent(all)));
}

fn as_json(scores: &BTreeMap<String, Score>) -> Value {
    let stream = |(name, score): (&String, &Score)| {
        let (named, agreeing) = score.values();
        let fields: serde_json::Map<String, Value> = score
            .fields
            .iter()
            .map(|(field, counts)| {
                (field.clone(), json!({ "values": counts.0, "agreeing": counts.1 }))
            })
            .collect();
        json!({
            "stream": name, "records": score.records, "known": score.known, "values": named,
            "agreeing": agreeing, "percent": percent(score.basis_points()),
            "excused": score.excused, "fields": fields,
        })
    };
    Value::Array(scores.iter().map(stream).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percent with two decimals × 100, by stream.
    fn floors() -> BTreeMap<String, usize> {
        serde_json::from_str(include_str!("floors.json")).unwrap()
    }

    #[test]
    fn no_stream_falls_below_its_floor_and_every_excuse_is_needed() {
        let Some(corpus) = streams::corpus() else {
            out::say("skipped: corpus absent");
            return;
        };
        let mut excuses = Excuses::read().unwrap();
        let scores = score(&corpus, &mut excuses, None).unwrap();
        print(&scores);
        let mut problems = Vec::new();
        for (stream, floor) in floors() {
            let Some(score) = scores.get(&stream) else { continue };
            if score.basis_points() < floor {
                problems.push(format!(
                    "{stream}: {} %, its floor is {} %",
                    percent(score.basis_points()),
                    percent(floor)
                ));
            }
        }
        problems.extend(excuses.idle().map(|idle| format!("this excuse is not needed: {idle}")));
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
