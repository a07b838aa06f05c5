//! Tests that packs carry: a record, and what must become of it.

use std::sync::{Arc, OnceLock};

use custody_event::{FileKey, Offset, Timestamp};
use jiff::tz::TimeZone;
use serde_json::Value;
use serde_yaml::Spanned;

use crate::error::PackError;
use crate::load::default_now;
use crate::pack::{Pack, Rule, Test};
use crate::parser::{Envelope, Parser, Scratch, Settings, Verdict};
use crate::redact::Redaction;
use crate::time::{ZoneMemo, forms, resolve};
use crate::yaml::Raw;

/// How the tests went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestReport {
    /// Tests that passed.
    pub passed: usize,
    /// What failed, where it stands.
    pub failures: Vec<PackError>,
    /// Tests by pack, in the order of the packs: name, passed, failed.
    pub packs: Vec<(String, usize, usize)>,
}

impl TestReport {
    /// Did all pass?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Reads an instant as tests write it.
pub(crate) fn read_now(text: &str) -> Option<Timestamp> {
    let (moment, used) = forms::iso(text.as_bytes())?;
    let zero = Timestamp::from_micros(0);
    let found = resolve(moment, &TimeZone::UTC, &mut ZoneMemo::default(), zero)?;
    (used == text.len()).then_some(found.0)
}

pub(crate) fn run(packs: &[Arc<Pack>]) -> TestReport {
    let mut report = TestReport::default();
    for pack in packs {
        let (mut passed, mut failed) = (0, 0);
        for rule in &pack.rules {
            for test in &rule.tests {
                let problems = check(pack, rule, test);
                if problems.is_empty() {
                    passed += 1;
                } else {
                    failed += 1;
                }
                report.failures.extend(problems.into_iter().map(|(line, column, message)| {
                    PackError { file: pack.file.clone(), line, column, message, hint: None }
                }));
            }
        }
        report.passed += passed;
        report.packs.push((pack.name.clone(), passed, failed));
    }
    report
}

type Problem = (u64, u64, String);

fn check(pack: &Arc<Pack>, rule: &Rule, test: &Test) -> Vec<Problem> {
    let zone = test.zone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
    // As in an agent whose operator has said nothing: secrets are masked.
    static REDACTION: OnceLock<Redaction> = OnceLock::new();
    let settings = Settings {
        zone: zone.unwrap_or(TimeZone::UTC),
        redaction: REDACTION.get_or_init(Redaction::default).clone(),
        ..Settings::default()
    };
    let parser = Parser::new(std::slice::from_ref(pack), true, settings);
    let now = test.now.as_deref().or(pack.test_now.as_deref()).and_then(read_now);
    let envelope = Envelope {
        host: "test-host",
        path: test.path.as_deref(),
        unit: test.unit.as_deref(),
        service: test.service.as_deref(),
        endpoint: test.endpoint.as_deref(),
        file: FileKey([7; 16]),
        ..Envelope::bare(now.unwrap_or(default_now()))
    };
    let mut out = Vec::new();
    let record = test.record.as_bytes();
    let verdict = parser.parse(&mut Scratch::new(), &envelope, record, Offset(0), None, &mut out);
    let here =
        |message: String| vec![(test.line, test.column, format!("rule `{}`: {message}", rule.id))];
    let event: Value = match verdict {
        Verdict::Filtered { reason } => {
            let reason = &parser.drop_reasons()[reason];
            return match &test.dropped {
                Some(wanted) if *wanted == reason.reason && reason.rule == rule.id => Vec::new(),
                _ => here(format!("dropped by `{}`: {}", reason.rule, reason.reason)),
            };
        }
        _ => match serde_json::from_slice(&out) {
            Ok(event) => event,
            Err(error) => return here(format!("the event is no JSON: {error}")),
        },
    };
    if let Some(reason) = &test.dropped {
        return here(format!("expected to be dropped ({reason}), but it is an event: {event}"));
    }
    let matched = event["origin"]["rule"].as_str();
    match (test.unmatched, matched) {
        (true, Some(other)) => here(format!("expected no match, but `{other}` matched")),
        (false, None) => here("no rule matched".to_owned()),
        (false, Some(other)) if other != rule.id => here(format!("`{other}` matched instead")),
        _ => compare(test, &event),
    }
}

fn compare(test: &Test, event: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, expected) in &test.event.0 {
        let found = lookup(event, &path.value);
        let wanted = to_json(expected);
        if found.unwrap_or(&Value::Null) != &wanted {
            let found = found.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let message = format!("`{}` is {found}, expected {wanted}", path.value);
            problems.push((path.referenced.line(), path.referenced.column(), message));
        }
    }
    problems
}

/// A dotted path; a list that is not indexed stands for its first element (`targets.name`).
fn lookup<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(event, |at, key| match at {
        Value::Array(items) => match key.parse::<usize>() {
            Ok(index) => items.get(index),
            Err(_) => items.first()?.get(key),
        },
        other => other.get(key),
    })
}

fn to_json(raw: &Spanned<Raw>) -> Value {
    match &raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::from(*value),
        Raw::Int(value) => Value::from(*value),
        Raw::Float(value) => Value::from(value.to_string()),
        Raw::Text(text) => Value::from(text.as_str()),
        Raw::List(items) => items.iter().map(to_json).collect(),
        Raw::Map(pairs) => {
            pairs.0.iter().map(|(key, value)| (key.value.clone(), to_json(value))).collect()
        }
    }
}
