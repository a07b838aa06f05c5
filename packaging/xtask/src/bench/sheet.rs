//! Figures of several runs, their medians, and their targets.

use serde_json::{Value, json};

use crate::numbers::{grouped, median};
use crate::out;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {}", figure(bound)),
            Self::AtMost(bound) => format!("≤ {}", figure(bound)),
        }
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    target: Option<Target>,
    values: Vec<f64>,
}

/// Rows in the order in which they first came.
#[derive(Debug)]
pub(super) struct Sheet {
    title: String,
    rows: Vec<Row>,
}

impl Sheet {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// One more value of a figure.
    pub(super) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => {
                self.rows.push(Row {
                    name: name.to_owned(),
                    unit,
                    target: None,
                    values: vec![value],
                });
            }
        }
    }

    /// One more value of a figure that should be something.
    pub(super) fn add_for(&mut self, name: &str, unit: &'static str, value: f64, target: Target) {
        self.add(name, unit, value);
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.target = Some(target);
        }
    }

    /// The median of a figure.
    pub(super) fn median(&self, name: &str) -> Option<f64> {
        median(&self.rows.iter().find(|row| row.name == name)?.values)
    }

    /// As a table on the terminal.
    pub(super) fn print(&self) {
        out::say(&format!("\n{}", self.title));
        let head = ["", "median", "unit", "target", "", "lowest", "highest"];
        let mut table: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
        table.extend(self.rows.iter().map(Row::cells));
        out::table(&table);
    }

    /// As JSON: `{name: {median, values, unit, target?, met?}}`.
    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let middle = median(&row.values);
            let mut said = json!({ "unit": row.unit, "median": middle, "values": row.values });
            if let (Some(target), Some(middle)) = (row.target, middle) {
                said["target"] = target.shown().into();
                said["met"] = target.is_met(middle).into();
            }
            (row.name.clone(), said)
        });
        Value::Object(rows.collect())
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let middle = median(&self.values).unwrap_or(f64::NAN);
        let target = self.target.map(Target::shown).unwrap_or_default();
        let verdict = match self.target {
            None => "",
            Some(target) if target.is_met(middle) => "met",
            Some(_) => "MISSED",
        };
        let mut cells = vec![
            self.name.clone(),
            figure(middle),
            self.unit.to_owned(),
            target,
            verdict.to_owned(),
        ];
        if self.values.len() > 1 {
            let lowest = self.values.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            cells.push(figure(lowest));
            cells.push(figure(highest));
        }
        cells
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_meet_or_miss_their_targets() {
        let mut sheet = Sheet::new("x");
        for value in [1.0, 9.0, 5.0] {
            sheet.add_for("speed", "/s", value, Target::AtLeast(5.0));
            sheet.add_for("time", "s", value, Target::AtMost(4.9));
        }
        assert_eq!(sheet.median("speed"), Some(5.0));
        let said = sheet.to_json();
        assert_eq!(said["speed"]["met"], true);
        assert_eq!(said["time"]["met"], false);
        assert_eq!(said["time"]["target"], "≤ 4.90");
    }
}
