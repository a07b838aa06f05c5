//! What was done about retention, as events.

use custody_event::{Detail, Draft, Field};

use super::describe::Say;

/// A hold, an erasure, an archive, or what has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainAct {
    /// Who did it; `None`: the collector by itself.
    pub who: Option<String>,
    /// `hold.create` …
    pub action: &'static str,
    /// `create`, `delete` …
    pub op: &'static str,
    /// `info`, `low` …
    pub severity: &'static str,
    /// `success` or `denied`.
    pub outcome: &'static str,
    /// With what: its type and id.
    pub target: (&'static str, String),
    /// Why.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Counts, by name.
    pub counts: Vec<(&'static str, i64)>,
    /// More, by name.
    pub texts: Vec<(&'static str, String)>,
}

impl RetainAct {
    /// Done well, by the collector itself.
    #[must_use]
    pub fn new(action: &'static str, op: &'static str, message: String) -> Self {
        Self {
            who: None,
            action,
            op,
            severity: "medium",
            outcome: "success",
            target: ("log", String::new()),
            reason: String::new(),
            message,
            counts: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// Done by somebody.
    #[must_use]
    pub fn by(mut self, who: &str) -> Self {
        self.who = Some(who.to_owned());
        self
    }

    /// Adds a count.
    pub fn count(&mut self, name: &'static str, count: u64) {
        self.counts.push((name, i64::try_from(count).unwrap_or(i64::MAX)));
    }

    /// Adds a text, if there is one.
    pub fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.texts.push((name, text.to_owned()));
        }
    }
}

pub(super) fn describe<'a>(act: &'a RetainAct, draft: &mut Draft<'a>) -> Say<'a> {
    if !act.reason.is_empty() {
        draft.text(Field::Justification, act.reason.as_str());
    }
    for (name, count) in &act.counts {
        draft.detail(*name, Detail::Int(*count));
    }
    for (name, text) in &act.texts {
        draft.detail(*name, Detail::Text(text.as_str().into()));
    }
    let (kind, id) = &act.target;
    Say {
        severity: act.severity,
        outcome: act.outcome,
        who: act.who.as_deref(),
        target: Some((kind, id)),
        ..Say::new(act.action, act.op, act.message.clone())
    }
}
