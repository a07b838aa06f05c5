//! Where an expectation is not the truth, and why: `excuses.json`.
//!
//! A row names the stream, the field and the record (`<file>:<line>`, or `*` for all of the stream that
//! expect the value named by `expected`), and gives a reason. A row that is not needed is an error.

use anyhow::Context;
use serde_json::Value;

use super::compare::Checked;
use super::streams::Labelled;

struct Excuse {
    stream: String,
    field: String,
    /// `<file>:<line>`, or `*`.
    places: Vec<String>,
    /// Only where this is expected.
    expected: Option<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "the test that finds idle rows prints it"))]
    reason: String,
    used: bool,
}

/// All of them.
pub(super) struct Excuses(Vec<Excuse>);

impl Excuses {
    pub(super) fn read() -> anyhow::Result<Self> {
        let rows: Vec<Value> = serde_json::from_str(include_str!("excuses.json"))
            .context("excuses.json is not JSON")?;
        rows.iter().map(Excuse::of).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Is the disagreement the expectation's fault?
    pub(super) fn covers(&mut self, stream: &str, labelled: &Labelled, checked: &Checked) -> bool {
        let fits = |excuse: &Excuse| {
            excuse.stream == stream
                && excuse.field == checked.field
                && excuse.places.iter().any(|place| place == "*" || *place == labelled.place)
                && excuse.expected.as_ref().is_none_or(|expected| *expected == checked.expected)
        };
        let found = self.0.iter_mut().find(|excuse| fits(excuse));
        found.map(|excuse| excuse.used = true).is_some()
    }

    /// Those that nothing needed.
    #[cfg(test)]
    pub(super) fn idle(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|excuse| !excuse.used).map(|excuse| {
            format!("{} {} {:?}: {}", excuse.stream, excuse.field, excuse.places, excuse.reason)
        })
    }
}

impl Excuse {
    fn of(row: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let found = row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            found.map(str::to_owned).with_context(|| format!("excuses.json: no `{name}` in {row}"))
        };
        let places = row.get("records").and_then(Value::as_array).into_iter().flatten();
        let places: Vec<String> = places.filter_map(Value::as_str).map(str::to_owned).collect();
        anyhow::ensure!(!places.is_empty(), "excuses.json: no `records` in {row}");
        Ok(Self {
            stream: text("stream")?,
            field: text("field")?,
            places,
            expected: row.get("expected").and_then(Value::as_str).map(str::to_owned),
            reason: text("reason")?,
            used: false,
        })
    }
}
