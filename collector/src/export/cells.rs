//! An event as one row: a column for each field of the event, by its dotted path.
//!
//! The columns that people look at first stand first, then all others in the order of
//! [`Field::ALL`]. The first target has columns of its own (`targets.0.type` …) beside `targets`,
//! which holds all of them.

use custody_event::{Field, Kind, Timestamp};
use serde_json::Value;

use super::ExportError;

/// What stands first.
const LEAD: [Column; 16] = [
    Column::Field(Field::Time),
    Column::Field(Field::Severity),
    Column::Field(Field::Category),
    Column::Field(Field::Action),
    Column::Field(Field::Op),
    Column::Field(Field::Outcome),
    Column::Field(Field::ReasonCode),
    Column::Field(Field::ActorName),
    Column::Field(Field::ActorId),
    Column::Field(Field::SourceIp),
    Column::Target("type", "targets.0.type"),
    Column::Target("id", "targets.0.id"),
    Column::Target("name", "targets.0.name"),
    Column::Target("parent", "targets.0.parent"),
    Column::Field(Field::Message),
    Column::Field(Field::Id),
];

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// A field of the event.
    Field(Field),
    /// A part of the first target: its key, and the column's name.
    Target(&'static str, &'static str),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A text.
    Text,
    /// An integer.
    Int,
    /// `true` or `false`.
    Bool,
    /// An instant.
    Time,
    /// A list of texts.
    Texts,
    /// Canonical JSON.
    Json,
}

impl Column {
    /// All, in their order.
    pub(super) fn all() -> Vec<Self> {
        let rest = Field::ALL.iter().map(|field| Self::Field(*field));
        LEAD.into_iter().chain(rest.filter(|column| !LEAD.contains(column))).collect()
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Field(field) => field.path(),
            Self::Target(_, name) => name,
        }
    }

    /// What it holds.
    pub(super) fn holds(self) -> Holds {
        match self {
            Self::Field(Field::Time | Field::Observed) => Holds::Time,
            Self::Field(field) => match field.kind() {
                Kind::Text => Holds::Text,
                Kind::Int => Holds::Int,
                Kind::Bool => Holds::Bool,
                Kind::Texts => Holds::Texts,
                Kind::Targets | Kind::Changes | Kind::Details => Holds::Json,
            },
            Self::Target(..) => Holds::Text,
        }
    }

    /// Its value in an event.
    pub(super) fn of(self, event: &Value) -> Option<&Value> {
        match self {
            Self::Field(field) => field.path().split('.').try_fold(event, |at, key| at.get(key)),
            Self::Target(key, _) => event.get("targets")?.get(0)?.get(key),
        }
    }
}

/// Reads an event.
pub(super) fn read(event: &[u8]) -> Result<Value, ExportError> {
    serde_json::from_slice(event).map_err(|error| ExportError::Event(error.to_string()))
}

/// A value as one text: lists of texts joined by `; `, everything that is nested as canonical
/// JSON.
pub(super) fn text(holds: Holds, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if holds == Holds::Texts => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            texts.join("; ")
        }
        other => other.to_string(),
    }
}

/// A value as microseconds since 1970.
pub(super) fn micros(value: &Value) -> Option<i64> {
    Timestamp::parse(value.as_str()?).ok().map(Timestamp::micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_one_column() {
        let all = Column::all();
        assert_eq!(all.len(), Field::ALL.len() + 4);
        for field in Field::ALL {
            let count = all.iter().filter(|column| **column == Column::Field(*field)).count();
            assert_eq!(count, 1, "{}", field.path());
        }
    }
}
