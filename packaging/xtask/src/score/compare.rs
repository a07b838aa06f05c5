//! What an expectation names, and the field of the event that must say it.
//!
//! | expectation | event |
//! |---|---|
//! | `user` | `actor.name`, or `actor.id` or `actor.display` where the label is that |
//! | `who.email`, `who.full_name` | `actor.name` or `actor.id`; `actor.display` |
//! | `src_ip`, `src_port` | `source.ip`, `source.port`; IPv4 in IPv6 is the IPv4 |
//! | `outcome` | `outcome`; a refusal (`denied`) is a failure; `unknown` is not counted |
//! | `host`, `process`, `pid` | `host`, `service` (or `details.exe`), `details.pid` (or `details.process.pid`) |
//! | `session` | `session.id` |
//! | `count` | `attempts` |
//! | `timestamp` | `time`, to the millisecond (labels are cut there; whole seconds where the label has no fraction) |
//! | `timestamp_partial`, `timestamp_raw` without a year | `time`'s month, day and time of day in the assumed zone |
//!
//! `host`, `process`, `pid`, `session` and the parts of `who` are counted where the value stands in
//! the record (`process` as a program's name): labels also name what only the one who wrote them knew. `action`, `target` and `kind` are in
//! each labeller's own words, so they are not compared. Of a record that becomes several events any may
//! say it.

use std::net::IpAddr;

use custody_event::Timestamp;
use serde_json::Value;

use super::streams::Labelled;

/// A value that the expectation names.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) field: String,
    pub(super) agrees: bool,
    pub(super) expected: String,
    pub(super) found: String,
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Compares everything.
pub(super) fn all(labelled: &Labelled, events: &[Value], offset_s: i64) -> Vec<Checked> {
    let expected = &labelled.expected;
    let mut checked = Vec::new();
    let mut check = |field: &str, wanted: String, found: &dyn Fn(&Value) -> Vec<String>| {
        if wanted.is_empty() {
            return;
        }
        let all: Vec<String> = events.iter().flat_map(found).collect();
        checked.push(Checked {
            field: field.to_owned(),
            agrees: all.contains(&wanted),
            found: all.into_iter().find(|found| !found.is_empty()).unwrap_or_default(),
            expected: wanted,
        });
    };
    let actor =
        |event: &Value| ["name", "id", "display"].map(|part| text(&event["actor"][part])).to_vec();
    check("user", text(&expected["user"]), &actor);
    for part in ["email", "full_name"] {
        let wanted = stands(labelled, &expected["who"][part]);
        check(&format!("who.{part}"), wanted, &actor);
    }
    check("src_ip", address(&expected["src_ip"]), &|event| vec![text(&event["source"]["ip"])]);
    check("src_port", text(&expected["src_port"]), &|event| vec![text(&event["source"]["port"])]);
    check("outcome", outcome(&expected["outcome"]), &|event| vec![outcome(&event["outcome"])]);
    check("host", stands(labelled, &expected["host"]), &|event| vec![text(&event["host"])]);
    check("process", tag(labelled, &expected["process"]), &|event| {
        vec![text(&event["service"]), text(&event["details"]["exe"])]
    });
    check("pid", stands(labelled, &expected["pid"]), &|event| {
        vec![text(&event["details"]["pid"]), text(&event["details"]["process"]["pid"])]
    });
    check("session", stands(labelled, &expected["session"]), &|event| {
        vec![text(&event["session"]["id"])]
    });
    check("count", text(&expected["count"]), &|event| vec![text(&event["attempts"])]);
    times(expected, offset_s, &mut check);
    checked
}

/// A value that the record holds.
fn stands(labelled: &Labelled, value: &Value) -> String {
    let text = text(value);
    if labelled.record.contains(&text) { text } else { String::new() }
}

/// A program's name that the record has before its message: `name[pid]:`, `name:`, `exe="…"`.
fn tag(labelled: &Labelled, value: &Value) -> String {
    let name = text(value);
    let stands = |after: &str| labelled.record.contains(&format!(" {name}{after}"));
    let program = stands("[") || stands(": ") || labelled.record.contains(&format!("exe=\"{name}"));
    if program { name } else { String::new() }
}

fn address(value: &Value) -> String {
    let text = text(value);
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => text,
    }
}

/// Labels know no `denied`; some keep the number that the record has.
fn outcome(value: &Value) -> String {
    match text(value).as_str() {
        "unknown" => String::new(),
        "denied" => "failure".to_owned(),
        "1" => "success".to_owned(),
        other => other.to_owned(),
    }
}

/// Notes a value that is wanted, with what finds it in an event.
type Check<'a> = dyn FnMut(&str, String, &dyn Fn(&Value) -> Vec<String>) + 'a;

fn times(expected: &Value, offset_s: i64, check: &mut Check<'_>) {
    let wanted = text(&expected["timestamp"]);
    let wanted = wanted.trim_end_matches('Z');
    let length = if wanted.contains('.') { 23 } else { 19 };
    let wanted = format!("{wanted:0<length$}").chars().take(length).collect::<String>();
    let full = |event: &Value| vec![text(&event["time"]).chars().take(length).collect()];
    if expected["timestamp"].is_string() {
        check("timestamp", wanted, &full);
    }
    let partial = text(&expected["timestamp_partial"]).replace("--", "");
    check("timestamp_partial", partial, &|event| {
        vec![local(event, offset_s).map(|local| local[5..19].to_owned()).unwrap_or_default()]
    });
    if expected["timestamp"].is_null() {
        let raw = text(&expected["timestamp_raw"]);
        if raw.starts_with(|sign: char| sign.is_ascii_uppercase()) {
            let raw = raw.split_whitespace().collect::<Vec<_>>().join(" ").replace(" 0", " ");
            check("timestamp_raw", raw, &|event| vec![spoken(event, offset_s).unwrap_or_default()]);
        }
    }
}

/// The event's time as it was in the assumed zone.
fn local(event: &Value, offset_s: i64) -> Option<String> {
    let time = Timestamp::parse(event["time"].as_str()?).ok()?;
    Some(time.plus_micros(offset_s * 1_000_000).to_string())
}

/// As syslog writes it, days and hours without a leading zero.
fn spoken(event: &Value, offset_s: i64) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let local = local(event, offset_s)?;
    let month: usize = local.get(5..7)?.parse().ok()?;
    let name = MONTHS.get(month.checked_sub(1)?)?;
    Some(format!("{name} {} {}", local.get(8..10)?, local.get(11..19)?).replace(" 0", " "))
}
