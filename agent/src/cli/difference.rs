//! `custody-agent preview --diff OLD_PACK`: what another version of a pack would make of the same log.
//!
//! The log is read twice, with the old pack in the place of the new one, and each line's events are compared
//! value by value. The time of reading is left out: it differs always.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};

use custody_event::Offset;
use serde_json::{Value, json};

use super::preview::Reader;

/// Characters of a line that are shown.
const SHOWN_CHARS: usize = 160;

/// Says which lines come out otherwise, and how many.
pub(super) fn run(
    (old, new): (&mut Reader, &mut Reader),
    input: impl Read,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut input = BufReader::new(input);
    let (mut line, mut offset, mut lines, mut differing) = (Vec::new(), 0, 0_u64, 0_u64);
    loop {
        line.clear();
        let count = input.read_until(b'\n', &mut line)?;
        if count == 0 {
            break;
        }
        lines += 1;
        let before = values(old, &line, offset)?;
        let after = values(new, &line, offset)?;
        offset += u64::try_from(count)?;
        let changes = changes(&before, &after);
        if changes.is_empty() {
            continue;
        }
        differing += 1;
        if as_json {
            let changed = changes.iter().map(|(field, before, after)| {
                json!({ "field": field, "before": before, "after": after })
            });
            let changed: Vec<Value> = changed.collect();
            writeln!(out, "{}", json!({ "line": lines, "changed": changed }))?;
        } else {
            show(lines, &line, &changes, out)?;
        }
    }
    if !as_json {
        writeln!(out, "{differing} of {lines} lines come out otherwise")?;
    }
    Ok(())
}

type Values = BTreeMap<String, Value>;

/// Every value of a line's events, by its path.
fn values(reader: &mut Reader, line: &[u8], offset: u64) -> anyhow::Result<Values> {
    let (_, events) = reader.events(line, Offset(offset));
    let mut all = Values::new();
    let events = events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty());
    for (number, event) in events.enumerate() {
        let event: Value = serde_json::from_slice(event)?;
        let path = if number == 0 { String::new() } else { format!("[{number}]") };
        flatten(&path, &event, &mut all);
        // A record without a time has that of its reading.
        if event["time_basis"] == "received" {
            let time = if number == 0 { "time".to_owned() } else { format!("{path}.time") };
            all.remove(&time);
        }
    }
    all.retain(|path, _| !path.ends_with("observed") && !path.ends_with("pack_version"));
    Ok(all)
}

fn flatten(path: &str, value: &Value, all: &mut Values) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, all);
            }
        }
        other => {
            all.insert(path.to_owned(), other.clone());
        }
    }
}

type Changed<'a> = (&'a str, Option<&'a Value>, Option<&'a Value>);

fn changes<'a>(before: &'a Values, after: &'a Values) -> Vec<Changed<'a>> {
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| (path.as_str(), before.get(path), after.get(path)))
        .filter(|(_, before, after)| before != after)
        .collect()
}

fn show(
    number: u64,
    line: &[u8],
    changes: &[Changed<'_>],
    out: &mut impl Write,
) -> std::io::Result<()> {
    let shown: String =
        String::from_utf8_lossy(line).trim_end().chars().take(SHOWN_CHARS).collect();
    writeln!(out, "line {number}: {}", shown.escape_debug())?;
    for (field, before, after) in changes {
        match (before, after) {
            (Some(before), Some(after)) => writeln!(out, "  ~ {field}: {before} → {after}")?,
            (Some(before), None) => writeln!(out, "  - {field}: {before}")?,
            (None, after) => writeln!(out, "  + {field}: {}", after.unwrap_or(&Value::Null))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let mut before = Values::new();
        let mut after = Values::new();
        flatten("", &json!({ "a": { "b": 1, "c": 2 }, "d": [1] }), &mut before);
        flatten("", &json!({ "a": { "b": 1, "c": 3 }, "e": null }), &mut after);
        let told: Vec<&str> = changes(&before, &after).iter().map(|(path, ..)| *path).collect();
        assert_eq!(told, ["a.c", "d", "e"]);
    }
}
