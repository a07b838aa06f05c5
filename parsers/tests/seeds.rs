//! The example records of five products' pages, entered as printed: every value comes out in a named field.
//!
//! The pages stand beside the checkout (`../shared/seeds`) or where `CUSTODY_SEEDS` says; where they are absent, the
//! test says so and passes. A record begins at `{` and ends at `}`, or it is a heading with the lines of its
//! tree. Of every `name: value` the words of the value must stand in the event outside `details`, `message` and
//! `origin`; numbers as numbers, sizes in bytes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, Scratch, Select, Settings};
use serde_json::Value;

fn seeds() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CUSTODY_SEEDS") {
        return Some(path.into());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|up| up.join("../shared/seeds")).find(|path| path.is_dir())
}

/// The records that a page prints.
fn records(page: &str) -> Vec<String> {
    let lines: Vec<&str> = page.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let start = at;
        if lines[at].trim() == "{" {
            let mut depth = 0;
            while at < lines.len() {
                depth += lines[at].matches('{').count();
                depth -= lines[at].matches('}').count().min(depth);
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            found.push(lines[start..at].join("\n"));
            continue;
        }
        // A heading in capitals, then a tree.
        let heading = lines[at].split_whitespace().last().unwrap_or_default();
        let name =
            heading.len() > 4 && heading.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let tree = |line: &str| line.starts_with(['├', '└']);
        if name && lines.get(at + 1).is_some_and(|line| tree(line)) {
            at += 1;
            while at < lines.len() && tree(lines[at]) {
                at += 1;
            }
            found.push(lines[start..at].join("\n"));
            continue;
        }
        // A time, then `User:`.
        if lines[at].ends_with(" UTC")
            && lines.get(at + 1).is_some_and(|line| line.starts_with("User:"))
        {
            at += 1;
            while at < lines.len() && lines[at].contains(": ") {
                at += 1;
            }
            found.push(lines[start..at].join("\n"));
            continue;
        }
        at += 1;
    }
    found
}

/// The values that a record names.
fn values(record: &str) -> Vec<String> {
    if let Ok(json) = serde_json::from_str::<Value>(record) {
        let mut all = Vec::new();
        leaves(&json, "", &mut all);
        return all;
    }
    // What is set up (`FRT=5min`) has no field of its own: that is what `details` is for.
    record
        .lines()
        .filter(|line| !(line.contains("Details: ") && line.contains('=')))
        .filter_map(|line| line.split_once(": "))
        .map(|(_, value)| value.to_owned())
        .collect()
}

fn leaves(value: &Value, key: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| leaves(value, key, all)),
        Value::String(text) => all.push(text.clone()),
        // `file_size_mb` names its unit.
        other if key.ends_with("_mb") => all.push(format!("{other} MB")),
        other => all.push(other.to_string()),
    }
}

/// All that the named fields say, in lower case.
fn named(event: &Value) -> String {
    let mut event = event.clone();
    let name = event["origin"]["event_name"].clone();
    for free in ["details", "message", "origin", "id", "observed"] {
        event.as_object_mut().unwrap().remove(free);
    }
    format!("{event} {name}").to_lowercase()
}

/// Words that only join others, and what an action's own name says.
const JOINTS: &[&str] = &[
    "to", "new", "the", "of", "and", "exported", "created", "promoted", "policy", "yes", "utc",
    "contacts",
];

fn stands(value: &str, said: &str) -> Option<String> {
    let value = value.to_lowercase().replace(',', "");
    if said.contains(value.trim()) {
        return None;
    }
    let words: Vec<&str> =
        value.split(|sign: char| sign.is_whitespace() || "()\"#=/".contains(sign)).collect();
    if let [number, "mb"] = words.as_slice() {
        let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
        let tenths = whole.parse::<u64>().unwrap() * 10 + tenths.parse::<u64>().unwrap();
        let found = [tenths * 100_000, tenths * 1_048_576 / 10]
            .iter()
            .any(|bytes| said.contains(&bytes.to_string()));
        return (!found).then(|| value.clone());
    }
    words
        .into_iter()
        .map(|word| {
            word.trim_end_matches('z')
                .split(['t'])
                .next()
                .filter(|date| date.len() == 10 && date.starts_with("20"))
                .unwrap_or(word)
        })
        .flat_map(|word| {
            word.split('.')
                .filter(|_| !word.contains('@'))
                .map(str::to_owned)
                .chain(word.contains('@').then(|| word.to_owned()))
        })
        .filter(|word| word.len() > 1 && !JOINTS.contains(&word.as_str()))
        .find(|word| {
            // `completed` and `success` are outcomes, `updated` is `update`.
            let stem = word.strip_suffix('d').unwrap_or(word);
            !said.contains(word.as_str())
                && !said.contains(stem)
                && !matches!(word.as_str(), "completed" | "failed")
        })
}

#[test]
fn every_value_of_the_example_records_comes_out_in_a_named_field() {
    let Some(seeds) = seeds() else {
        println!("skipped: seeds absent");
        return;
    };
    let set = PackSet::with_builtin(&[]).unwrap();
    let parser = set.select(&Select::Auto, Settings::default()).unwrap();
    let observed = Timestamp::parse("2025-12-01T12:00:00.000000Z").unwrap();
    let (mut count, mut problems) = (0, Vec::new());
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    for page in pages {
        for record in records(&std::fs::read_to_string(page).unwrap()) {
            count += 1;
            let mut out = Vec::new();
            let envelope = Envelope::bare(observed);
            parser.parse(
                &mut Scratch::new(),
                &envelope,
                record.as_bytes(),
                Offset(0),
                None,
                &mut out,
            );
            let event: Value = serde_json::from_slice(&out).unwrap();
            assert!(event["origin"]["rule"].is_string(), "{record}\n{event}");
            let said = named(&event);
            for value in values(&record) {
                if let Some(word) = stands(&value, &said) {
                    problems.push(format!("{word:?} of {value:?}: {said}"));
                }
            }
        }
    }
    println!("{count} records");
    assert!(count >= 15, "{count} records found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
