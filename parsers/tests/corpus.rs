//! The built-in packs against logs that others have labelled.
//!
//! The corpus stands beside the checkout (`../shared/corpus`) or where `CUSTODY_CORPUS` says; where
//! it is absent, the test says so and passes. An expectation counts where it names a user, an
//! address, a port, an outcome or a time; every disagreement must be listed in [`EXCUSED`] with
//! its reason, and every line of that list must be needed.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "helpers of tests; line numbers are small"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, PackSource, Parser, Scratch, Select, Settings};
use jiff::tz::TimeZone;
use serde_json::Value;

/// Where an expectation is not the truth: stream, text that the line holds, field, reason.
const EXCUSED: &[(&str, &str, &str, &str)] = &[
    ("auditd/log", "exe=\"/usr/bin/sudo\"", "user", AS_ANOTHER),
    ("auditd/log", "exe=\"/bin/su\"", "user", AS_ANOTHER),
    ("auditd/log", "type=USER_CMD", "user", OF_THE_PROCESS),
    ("auditd/log", "type=SOFTWARE_UPDATE", "user", OF_THE_PROCESS),
    ("auditd/log", "type=CRYPTO_KEY_USER msg=audit(1489636960.070", "user", OF_THE_PROCESS),
    (
        "auditd/log",
        "acct=\"charlie\" exe=\"/usr/bin/passwd\"",
        "user",
        "the label takes the account whose password was changed for the one who changed it",
    ),
    (
        "system/auth",
        "useradd[6995]: new user: name=apache",
        "user",
        "the label takes the account that was made for the one who made it; the line does not say \
         who acted, and the new account is the event's target",
    ),
    (
        "system/syslog",
        "com.apple.xpc.launchd[1] (com.apple.",
        "process",
        "the label takes `launchd[1] (job)` for the name of the program; the program is launchd, \
         its process 1, and the job in brackets is no part of its name",
    ),
];

const AS_ANOTHER: &str = "the label pairs the login id of the one who acts with the name of the \
    account that he becomes; that account is the event's target";

const OF_THE_PROCESS: &str =
    "the label is the id of the process; who acted is the login id, which stays through sudo";

const STREAMS: &[&str] = &[
    "auditd/log",
    "system/auth",
    "system/syslog",
    "nginx/access",
    "crowdsec/sshd-logs",
    "crowdsec/sshd-invalid-bf",
    "crowdsec/sshd-success-logs",
    "crowdsec/opnsense-sshd",
    "crowdsec/pam-logs",
];

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
    PackSet::builtin().select(&Select::Auto, Settings { zone }).unwrap()
}

struct Checked {
    field: &'static str,
    agrees: bool,
    expected: String,
    found: String,
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What the expectation names, compared with what the event says.
fn compare(expected: &Value, event: &Value, zone_offset_s: i64) -> Vec<Checked> {
    let mut checked = Vec::new();
    let mut check = |field: &'static str, expected: String, found: String, agrees: Option<bool>| {
        if !expected.is_empty() {
            let agrees = agrees.unwrap_or(expected == found);
            checked.push(Checked { field, agrees, expected, found });
        }
    };
    let user = text(&expected["user"]);
    // Where a record has no name, the label is the number.
    let by_id = event["actor"]["name"].is_null() && user == text(&event["actor"]["id"]);
    check("user", user, text(&event["actor"]["name"]), by_id.then_some(true));
    check("src_ip", text(&expected["src_ip"]), text(&event["source"]["ip"]), None);
    check("src_port", text(&expected["src_port"]), text(&event["source"]["port"]), None);
    check("host", text(&expected["host"]), text(&event["host"]), None);
    check("process", text(&expected["process"]), text(&event["service"]), None);
    check("pid", text(&expected["pid"]), text(&event["details"]["pid"]), None);
    // The labels know no `denied`: a refusal is a failure there.
    let outcome = text(&event["outcome"]).replace("denied", "failure");
    if expected["outcome"] != "unknown" {
        // Some labels keep the number that the record has.
        let label = text(&expected["outcome"]);
        let label = if label == "1" { "success".to_owned() } else { label };
        check("outcome", label, outcome, None);
    }
    let time = text(&event["time"]);
    let wanted = text(&expected["timestamp"]);
    // Labels are cut to milliseconds.
    let millis = format!("{}.000", wanted.trim_end_matches('Z'));
    let same = time.get(..23) == millis.get(..23);
    check("timestamp", wanted, time.clone(), Some(same));
    let local = Timestamp::parse(&time).unwrap().plus_micros(zone_offset_s * 1_000_000);
    let partial = local.to_string()[4..19].to_owned();
    check(
        "timestamp_partial",
        text(&expected["timestamp_partial"]).replace("--", "-"),
        partial,
        None,
    );
    let civil = local.civil();
    let month =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            [usize::from(civil.month) - 1];
    let raw =
        format!("{month} {} {:02}:{:02}:{:02}", civil.day, civil.hour, civil.minute, civil.second);
    let wanted = text(&expected["timestamp_raw"]);
    if wanted.starts_with(char::is_alphabetic) {
        let wanted = wanted.split_whitespace().collect::<Vec<_>>().join(" ").replace(" 0", " ");
        check("timestamp_raw", wanted, raw.replace(" 0", " "), None);
    }
    checked
}

fn excused(stream: &str, line: &str, field: &str) -> Option<usize> {
    EXCUSED.iter().position(|(known, part, excused, _)| {
        *known == stream && line.contains(part) && *excused == field
    })
}

/// What the streams came to.
#[derive(Default)]
struct Tally {
    /// Named, agreeing, excused by stream and field.
    fields: BTreeMap<(&'static str, &'static str), (usize, usize, usize)>,
    /// Records, and those that a rule knows, by stream.
    records: BTreeMap<&'static str, (usize, usize)>,
    problems: Vec<String>,
    used: Vec<bool>,
}

impl Tally {
    fn add(&mut self, stream: &'static str, record: &str, place: &str, checked: Checked) {
        let counts = self.fields.entry((stream, checked.field)).or_default();
        counts.0 += 1;
        counts.1 += usize::from(checked.agrees);
        if checked.agrees {
            return;
        }
        match excused(stream, record, checked.field) {
            Some(number) => {
                counts.2 += 1;
                self.used[number] = true;
            }
            None => self.problems.push(format!(
                "{stream} {place} {}: expected {:?}, found {:?}: {record:.160}",
                checked.field, checked.expected, checked.found
            )),
        }
    }

    fn print(&self) {
        println!("{:<28} {:<18} {:>7} {:>7} {:>7}", "stream", "field", "named", "agree", "excused");
        for ((stream, field), (named, agree, excused)) in &self.fields {
            println!("{stream:<28} {field:<18} {named:>7} {agree:>7} {excused:>7}");
        }
        for (stream, (records, matched)) in &self.records {
            println!("{stream:<28} {matched} of {records} labelled records known to a rule");
        }
    }
}

fn check_stream(stream: &'static str, folder: &Path, tally: &mut Tally) {
    let (zone, offset_s) =
        if stream.starts_with("crowdsec") { ("UTC", 0) } else { ("-02:00", -2 * 3600) };
    let parser = parser(zone);
    let mut scratch = Scratch::new();
    let nginx = stream.starts_with("nginx");
    let path = if nginx { "/var/log/nginx/access.log" } else { "/var/log/auth.log" };
    let observed = Timestamp::parse("2024-03-01T12:00:00.000000Z").unwrap();
    let envelope = Envelope { path: Some(path), ..Envelope::bare(observed) };
    let expectations = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    for expected in expectations.lines() {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let file = text(&expected["file"]);
        let bytes = std::fs::read(folder.join(&file)).unwrap();
        let first = expected["line"].as_u64().unwrap() as usize;
        let count = expected["lines"].as_u64().unwrap_or(1) as usize;
        let content = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = content.lines().skip(first - 1).take(count).collect();
        let record = lines.join("\n");
        let mut out = Vec::new();
        parser.parse(&mut scratch, &envelope, record.as_bytes(), Offset(0), None, &mut out);
        custody_event::canon::check(&out).unwrap();
        let event: Value = serde_json::from_slice(&out).unwrap();
        let counts = tally.records.entry(stream).or_default();
        counts.0 += 1;
        counts.1 += usize::from(event["origin"]["rule"].is_string());
        for checked in compare(&expected, &event, offset_s) {
            tally.add(stream, &record, &format!("{file}:{first}"), checked);
        }
    }
}

#[test]
fn labelled_logs_of_others_come_out_as_their_labels_say() {
    let Some(corpus) = corpus() else {
        println!("skipped: corpus absent");
        return;
    };
    let mut tally = Tally { used: vec![false; EXCUSED.len()], ..Tally::default() };
    for stream in STREAMS {
        check_stream(stream, &corpus.join(stream), &mut tally);
    }
    tally.print();
    let problems = &tally.problems;
    assert!(problems.is_empty(), "{} disagreements\n{}", problems.len(), problems.join("\n"));
    let idle: Vec<_> = EXCUSED.iter().zip(&tally.used).filter(|(_, used)| !**used).collect();
    assert!(idle.is_empty(), "these excuses are not needed: {idle:?}");
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

/// Times of the corpus whose form is not one that this crate reads by itself: each needs a pack
/// that names its form or its place in the line.
const TIMES_LEFT: &[(&str, &str)] = &[
    ("ts-099", "the zone stands elsewhere in the line (`tz=\"-0500\"`)"),
    ("ts-109", "seconds, a point and then the process id: a pack must cut it off"),
];

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
        let found = read_time(&text(&label["raw"]), zone, now);
        let wanted = text(&label["expected_utc"]);
        let same = found.as_deref().and_then(|found| found.get(..26)) == Some(&micros(&wanted));
        let left = TIMES_LEFT.iter().any(|(known, _)| *known == id);
        read += usize::from(same);
        if same == left {
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
        "date=%Y-%m-%d time=%H:%M:%S",
    ];
    let forms: Vec<String> = forms.iter().map(|form| format!("'{form}'")).collect();
    let pack = format!(
        "pack: t\nversion: 1\ndecode: none\ntime: {{ field: $t, formats: [auto, epoch, {}] }}\n\
         rules:\n  - id: t\n    match: '(?<t>.*)'\n    event: {{ action: a.b }}\n",
        forms.join(", ")
    );
    let source = PackSource { name: "t.yaml".to_owned(), text: pack };
    let set = PackSet::load(&[source]).unwrap_or_else(|errors| panic!("{errors}"));
    let settings = Settings { zone: TimeZone::get(zone).unwrap() };
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
