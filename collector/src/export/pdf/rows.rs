//! One event as lines: a row of the table, and below it what needs the page's width.

use serde_json::Value;

use super::font::Font;
use super::sheet::{BODY, LEFT, RIGHT, SMALL, Style, wrap};

/// Columns: title and width.
pub(super) const COLUMNS: [(&str, i64); 6] = [
    ("Time (UTC)", 10_600),
    ("Who", 13_800),
    ("What", 14_600),
    ("Outcome", 9_600),
    ("From where", 11_400),
    ("On what", 17_400),
];
const GAP: i64 = 500;
/// Lines below the row are set in so far.
const INDENT: i64 = LEFT + COLUMNS[0].1;

/// A line of a page: texts at their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) style: Style,
    pub(super) texts: Vec<(i64, String)>,
}

fn text<'a>(event: &'a Value, path: &str) -> Option<&'a str> {
    path.split('.').try_fold(event, |at, key| at.get(key))?.as_str()
}

fn list(event: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(event, |at, key| at.get(key)).and_then(Value::as_array);
    let texts: Vec<&str> = found.into_iter().flatten().filter_map(Value::as_str).collect();
    texts.join(", ")
}

/// Words that are there, with this between them.
fn joined(words: &[Option<&str>], between: &str) -> String {
    let there: Vec<&str> =
        words.iter().flatten().copied().filter(|word| !word.is_empty()).collect();
    there.join(between)
}

fn cells(event: &Value) -> [String; 6] {
    let time = text(event, "time").unwrap_or_default().replace('T', " ");
    let name = text(event, "actor.name").or_else(|| text(event, "actor.display"));
    let id = text(event, "actor.id").filter(|id| Some(*id) != name);
    let roles = list(event, "actor.roles");
    let behalf = text(event, "actor.behalf_of.name").or_else(|| text(event, "actor.behalf_of.id"));
    let behalf = behalf.map(|name| format!("for {name}"));
    let who = [name.or_else(|| text(event, "actor.type")), id, Some(&roles), behalf.as_deref()];
    let how = [text(event, "outcome"), text(event, "reason.code"), text(event, "severity")];
    let from = [text(event, "source.ip"), text(event, "source.host")];
    [
        time.trim_end_matches('Z').to_owned(),
        joined(&who, ", "),
        joined(&[text(event, "action")], ""),
        joined(&how, ", "),
        joined(&from, ", "),
        targets(event),
    ]
}

fn targets(event: &Value) -> String {
    let all = event.get("targets").and_then(Value::as_array);
    let one = |target: &Value| {
        let parts = ["type", "name", "id", "parent"].map(|key| text(target, key));
        joined(&parts, " ")
    };
    all.into_iter().flatten().map(one).collect::<Vec<_>>().join("; ")
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "(not said)".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// What needs the page's width, with its style.
fn below(event: &Value) -> Vec<(Style, String)> {
    let mut lines = Vec::new();
    if let Some(message) = text(event, "message") {
        lines.push((BODY, message.to_owned()));
    }
    for change in event.get("changes").and_then(Value::as_array).into_iter().flatten() {
        let field = text(change, "field").unwrap_or_default();
        let (before, after) = (shown(change.get("before")), shown(change.get("after")));
        lines.push((BODY, format!("{field}: {before} \u{2192} {after}")));
    }
    for (path, what) in [("reason.text", "Reason"), ("justification", "Justification")] {
        if let Some(said) = text(event, path) {
            lines.push((BODY, format!("{what}: {said}")));
        }
    }
    let service = joined(&[text(event, "service"), text(event, "host")], " on ");
    let session = text(event, "session.id").map(|id| format!("session {id}"));
    let id = text(event, "id").map(|id| format!("event {id}"));
    let hash = text(event, "origin.raw_sha256").map(|hash| format!("record {hash}"));
    let parts = [Some(service.as_str()), session.as_deref(), id.as_deref(), hash.as_deref()];
    lines.push((SMALL, joined(&parts, "  \u{b7}  ")));
    lines
}

/// The event's lines.
pub(super) fn lines(event: &Value, font: &mut Font) -> Vec<Line> {
    let cells: Vec<Vec<String>> = cells(event)
        .iter()
        .zip(COLUMNS)
        .map(|(cell, (_, width))| wrap(font, BODY, width - GAP, cell))
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or_default();
    let mut lines: Vec<Line> = (0..height)
        .map(|at| {
            let texts = cells.iter().zip(places()).filter_map(|(cell, x)| Some((x, cell.get(at)?)));
            let texts = texts.map(|(x, text)| (x, text.clone())).collect();
            Line { style: BODY, texts }
        })
        .collect();
    for (style, text) in below(event) {
        for text in wrap(font, style, RIGHT - INDENT, &text) {
            lines.push(Line { style, texts: vec![(INDENT, text)] });
        }
    }
    lines
}

/// Where the columns begin.
pub(super) fn places() -> impl Iterator<Item = i64> {
    COLUMNS.iter().scan(LEFT, |x, (_, width)| {
        let place = *x;
        *x += width;
        Some(place)
    })
}
