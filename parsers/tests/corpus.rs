//! The built-in packs against logs that others have labelled.
//!
//! The corpus stands beside the checkout (`../shared/corpus`) or where `CUSTODY_CORPUS` says; where
//! it is absent, the tests say so and pass. `cargo xtask score-corpus` compares the values; here is what
//! holds of every line: the system's logs are decoded, and all forms of times are read.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; line numbers are small"
)]

use std::path::{Path, PathBuf};

use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, PackSource, Parser, Scratch, Select, Settings};
use jiff::tz::TimeZone;
use serde_json::Value;

fn corpus() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CUSTODY_CORPUS") {
        return Some(path.into());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|up| up.join("../shared/corpus")).find(|path| path.is_dir())
}

fn parser(zone: &str) -> Parser {
    let zone = match zone {
        "-02:00" => TimeZone::fixed(jiff::tz::offset(-2)),
        other => TimeZone::get(other).unwrap(),
    };
    PackSet::builtin().select(&Select::Auto, Settings { zone, ..Settings::default() }).unwrap()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every line of the files, labelled or not: the system's logs must at least be decoded.
#[test]
fn every_line_of_the_systems_logs_is_decoded_and_most_are_known() {
    let Some(corpus) = corpus() else {
        println!("skipped: corpus absent");
        return;
    };
    let parser = parser("UTC");
    let mut scratch = Scratch::new();
    let observed = Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap();
    let envelope = Envelope::bare(observed);
    for file in ["auth-ubuntu1204.log", "secure-rhel7.log", "test.log", "timestamp.log"] {
        let bytes = std::fs::read(corpus.join("system/auth/input").join(file)).unwrap();
        let content = String::from_utf8_lossy(&bytes);
        for line in content.lines() {
            let mut out = Vec::new();
            parser.parse(&mut scratch, &envelope, line.as_bytes(), Offset(0), None, &mut out);
            let event: Value = serde_json::from_slice(&out).unwrap();
            assert_ne!(event["time_basis"], "received", "{line}");
            assert!(event["service"].is_string() && event["origin"]["rule"].is_string(), "{line}");
        }
    }
}

#[test]
fn times_of_many_programs_are_read_to_the_instant() {
    let Some(corpus) = corpus() else {
        println!("skipped: corpus absent");
        return;
    };
    let lines = std::fs::read_to_string(corpus.join("timestamps/timestamps.jsonl")).unwrap();
    let mut problems = Vec::new();
    let mut read = 0;
    for line in lines.lines() {
        let label: Value = serde_json::from_str(line).unwrap();
        let id = text(&label["id"]);
        let zone = label["assume"]["tz"].as_str().unwrap_or("UTC");
        let now = label["assume"]["ref_now"].as_str().unwrap_or("2026-01-01T00:00:00Z");
        // Where the corpus cut the zone out of the line, it is put back: `other field (tz="-0500")`.
        let said = text(&label["zone"]);
        let beside = said.strip_prefix("other field (").and_then(|rest| rest.strip_suffix(')'));
        let raw = match beside {
            Some(zone) => format!("{} {zone}", text(&label["raw"])),
            None => text(&label["raw"]),
        };
        let found = read_time(&raw, zone, now);
        let wanted = text(&label["expected_utc"]);
        let same = found.as_deref().and_then(|found| found.get(..26)) == Some(&micros(&wanted));
        read += usize::from(same);
        if !same {
            problems.push(format!(
                "{id} {} {:?}: {found:?}, expected {wanted}",
                label["shape"], label["raw"]
            ));
        }
    }
    println!("{read} of {} times read", lines.lines().count());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// `2024-01-01T00:00:00.5Z` as `2024-01-01T00:00:00.500000`.
fn micros(time: &str) -> String {
    let time = time.trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<6.6}")
}

/// The time of a record that holds only this, read by a pack of one rule.
fn read_time(raw: &str, zone: &str, now: &str) -> Option<String> {
    let forms = [
        "%y%m%d %H:%M:%S",
        "%d.%m.%Y %H:%M:%S",
        "%m/%d/%Y, %I:%M:%S %p",
        "%d-%m-%Y %H:%M:%S %z",
        "%Y%m%d-%H:%M:%S",
        "%m/%d/%Y - %H:%M:%S",
        "%d/%b/%Y:%H:%M:%S %z",
    ];
    let forms: Vec<String> = forms.iter().map(|form| format!("'{form}'")).collect();
    let pack = format!(
        "pack: t\nversion: 1\ndecode: none\ntime: {{ field: $t, formats: [auto, epoch, {}] }}\n\
         rules:\n  - id: t\n    match: '(?<t>.*)'\n    event: {{ action: a.b }}\n",
        forms.join(", ")
    );
    let source = PackSource { name: "t.yaml".to_owned(), text: pack };
    let set = PackSet::load(&[source]).unwrap_or_else(|errors| panic!("{errors}"));
    let settings = Settings { zone: TimeZone::get(zone).unwrap(), ..Settings::default() };
    let parser = set.select(&Select::Auto, settings).unwrap();
    let now = Timestamp::parse(&format!("{}.000000Z", now.trim_end_matches('Z'))).unwrap();
    let mut out = Vec::new();
    parser.parse(
        &mut Scratch::new(),
        &Envelope::bare(now),
        raw.as_bytes(),
        Offset(0),
        None,
        &mut out,
    );
    let event: Value = serde_json::from_slice(&out).unwrap();
    (event["time_basis"] != "received").then(|| text(&event["time"]))
}
