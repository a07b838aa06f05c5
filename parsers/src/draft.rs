//! A first pack for a log that no pack knows: clusters of its lines, a rule for each, tests from its
//! own lines.
//!
//! The draft is for a person to go on with: the names of actions and fields are guesses from the words
//! around. What it promises is that it loads and that its tests pass: they are what the drafted rules
//! make of the sample.

mod guess;
mod mine;

use std::fmt::Write as _;

use custody_event::{FileKey, Offset, Timestamp};
use serde_json::Value;
use thiserror::Error;

use crate::decode::syslog;
use crate::load::PackSource;
use crate::parser::{Envelope, Scratch, Settings};
use crate::redact::Redaction;
use crate::set::{PackSet, Select};
use crate::time::forms;
use guess::Part;
use mine::Miner;

/// Lines that are looked at, at most.
pub const MAX_DRAFT_LINES: usize = 200_000;
/// Rules of a draft, at most; the commonest sentences come first.
const MAX_DRAFT_RULES: usize = 100;
/// Tests of a rule.
const TESTS: usize = 3;
/// A line longer than this is no sentence.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// A drafted pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drafted {
    /// The pack.
    pub yaml: String,
    /// Lines that were looked at.
    pub lines: usize,
    /// Lines that a rule knows.
    pub known: usize,
    /// Rules.
    pub rules: usize,
}

/// Why there is no draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoDraft {
    /// Nothing to learn from.
    #[error("no line to learn from")]
    Empty,
    /// A pack for it stands already.
    #[error("the lines are JSON objects: `packs: [generic-json]` reads them as they are")]
    Json,
    /// Every line is a sentence of its own.
    #[error("no two lines are alike: give more lines, or lines of one program")]
    Nothing,
}

/// What stands before the message of every line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Syslog,
    /// So many words are the time, in brackets or not.
    Time {
        words: usize,
        bracketed: bool,
    },
    Bare,
}

/// A rule that is being made.
struct Rule {
    id: String,
    pattern: String,
    event: Vec<(String, String)>,
    samples: Vec<usize>,
    count: usize,
    tests: Vec<(String, Vec<(String, Value)>)>,
}

/// Drafts a pack of this name from lines of a log, as read at `now`.
///
/// # Errors
/// The lines are none, or JSON, or have nothing in common.
pub fn draft(name: &str, lines: &[&str], now: Timestamp) -> Result<Drafted, NoDraft> {
    let lines: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !line.trim().is_empty() && line.len() <= MAX_LINE_BYTES)
        .take(MAX_DRAFT_LINES)
        .collect();
    if lines.is_empty() {
        return Err(NoDraft::Empty);
    }
    if mostly(&lines, |line| line.trim_start().starts_with('{')) {
        return Err(NoDraft::Json);
    }
    let frame = Frame::of(&lines);
    let mut rules = rules(name, frame, &lines);
    let mut services: Vec<&str> = Vec::new();
    if frame == Frame::Syslog {
        services = services_of(&lines);
    }
    rules.retain(|rule| loads(name, frame, &services, std::slice::from_ref(rule)));
    let known = prove(name, frame, &services, &mut rules, &lines, now);
    if rules.is_empty() {
        return Err(NoDraft::Nothing);
    }
    let yaml = yaml(name, frame, &services, &rules);
    Ok(Drafted { yaml, lines: lines.len(), known, rules: rules.len() })
}

/// Four of five?
fn mostly(lines: &[&str], test: impl Fn(&str) -> bool) -> bool {
    lines.iter().filter(|line| test(line)).count() * 5 >= lines.len() * 4
}

impl Frame {
    fn of(lines: &[&str]) -> Self {
        if mostly(lines, |line| syslog::decode(line).is_ok_and(|line| line.service.is_some())) {
            return Self::Syslog;
        }
        for bracketed in [true, false] {
            for words in (1..=4).rev() {
                let frame = Self::Time { words, bracketed };
                if mostly(lines, |line| frame.message(line).is_some()) {
                    return frame;
                }
            }
        }
        Self::Bare
    }

    /// The message of a line that is of this frame.
    fn message<'a>(&self, line: &'a str) -> Option<&'a str> {
        match *self {
            Self::Syslog => syslog::decode(line).ok().map(|line| line.inner),
            Self::Bare => Some(line),
            Self::Time { bracketed: true, .. } => {
                let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
                forms::auto(time).and(rest.strip_prefix(' '))
            }
            Self::Time { words, .. } => {
                let (end, _) = line.match_indices(' ').nth(words - 1)?;
                forms::auto(&line[..end]).and(line.get(end + 1..))
            }
        }
    }

    /// The pattern of what stands before the message.
    fn pattern(self) -> String {
        match self {
            Self::Syslog | Self::Bare => "^".to_owned(),
            Self::Time { bracketed: true, .. } => r"^\[(?<time>[^\]]+)\] ".to_owned(),
            Self::Time { words, .. } => {
                format!(r"^(?<time>{}) ", [r"\S+"].repeat(words).join(" "))
            }
        }
    }
}

fn rules(pack: &str, frame: Frame, lines: &[&str]) -> Vec<Rule> {
    let mut miner = Miner::default();
    for (number, line) in lines.iter().enumerate() {
        if let Some(message) = frame.message(line) {
            miner.add(message.trim_end(), number);
        }
    }
    let mut clusters = miner.clusters;
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.count));
    clusters.truncate(MAX_DRAFT_RULES);
    let mut rules: Vec<Rule> = Vec::new();
    for cluster in &clusters {
        let messages: Vec<Vec<&str>> = cluster
            .samples
            .iter()
            .filter_map(|number| frame.message(lines[*number]))
            .map(|message| mine::words(message.trim_end()))
            .collect();
        let Some(parts) = guess::parts(&messages) else { continue };
        // A sentence without one word of its own would know every line.
        if !parts.iter().any(|part| matches!(part, Part::Same(word) if word.len() > 1)) {
            continue;
        }
        let taken: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        let id = free_id(&guess::slug(&parts), &taken);
        rules.push(rule(pack, id, frame, &parts, cluster));
    }
    // Of two patterns that know a line the one with more words of its own is the more particular.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.pattern.len()));
    rules
}

fn free_id(slug: &str, taken: &[&str]) -> String {
    if !taken.contains(&slug) {
        return slug.to_owned();
    }
    (2..)
        .map(|number| format!("{slug}_{number}"))
        .find(|id| !taken.contains(&id.as_str()))
        .unwrap_or_default()
}

fn rule(pack: &str, id: String, frame: Frame, parts: &[Part], cluster: &mine::Cluster) -> Rule {
    let mut pattern = frame.pattern();
    let mut event = vec![("action".to_owned(), guess::action(pack, parts))];
    if let Some(outcome) = guess::outcome(parts) {
        event.push(("outcome".to_owned(), outcome.to_owned()));
    }
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            pattern.push(' ');
        }
        match part {
            Part::Same(word) => pattern.push_str(&regex::escape(word)),
            Part::Value { before, after, kind, name } => {
                let (before, after) = (regex::escape(before), regex::escape(after));
                let _ = write!(pattern, "{before}(?<{name}>{}){after}", kind.pattern());
                let field = guess::field(name, *kind);
                let taken = event.iter().any(|(known, _)| *known == field);
                let field = if taken { format!("details.{name}") } else { field };
                event.push((field, format!("${name}")));
            }
        }
    }
    pattern.push('$');
    Rule {
        id,
        pattern,
        event,
        samples: cluster.samples.clone(),
        count: cluster.count,
        tests: Vec::new(),
    }
}

fn services_of<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut services: Vec<&str> =
        lines.iter().filter_map(|line| syslog::decode(line).ok()?.service).collect();
    services.sort_unstable();
    services.dedup();
    services.truncate(20);
    services
}

fn load(name: &str, frame: Frame, services: &[&str], rules: &[Rule]) -> Option<PackSet> {
    let text = yaml(name, frame, services, rules);
    PackSet::load(&[PackSource { name: format!("{name}.yaml"), text }]).ok()
}

fn loads(name: &str, frame: Frame, services: &[&str], rules: &[Rule]) -> bool {
    load(name, frame, services, rules).is_some()
}

/// Runs the rules over the sample: each gets tests of what it really does, and one that no line
/// reaches goes. Gives the number of lines known.
fn prove(
    name: &str,
    frame: Frame,
    services: &[&str],
    rules: &mut Vec<Rule>,
    lines: &[&str],
    now: Timestamp,
) -> usize {
    // Two rules that say the same are refused together: take them one after the other.
    let mut whole: Vec<Rule> = Vec::new();
    for rule in rules.drain(..) {
        whole.push(rule);
        if !loads(name, frame, services, &whole) {
            whole.pop();
        }
    }
    *rules = whole;
    let Some(set) = load(name, frame, services, rules) else { return 0 };
    // A pack is passed on: its tests hold no secret of the sample, but records as events keep them.
    let settings = Settings { redaction: Redaction::default(), ..Settings::default() };
    let Ok(parser) = set.select(&Select::Names(vec![name.to_owned()]), settings) else {
        return 0;
    };
    let envelope = Envelope { host: "test-host", file: FileKey([7; 16]), ..Envelope::bare(now) };
    let mut scratch = Scratch::new();
    let mut run = parser.run(&mut scratch, &envelope);
    let mut event = |line: &str| -> Value {
        let mut out = Vec::new();
        run.parse(line.as_bytes(), Offset(0), None, &mut out);
        serde_json::from_slice(&out).unwrap_or_default()
    };
    for rule in rules.iter_mut() {
        for number in &rule.samples {
            let event = event(lines[*number]);
            if rule.tests.len() < TESTS
                && event["origin"]["rule"] == rule.id.as_str()
                && let Some(record) = event["origin"]["raw"].as_str()
            {
                rule.tests.push((record.to_owned(), expected(rule, &event)));
            }
        }
    }
    let known = lines.iter().filter(|line| event(line)["origin"]["rule"].is_string()).count();
    rules.retain(|rule| !rule.tests.is_empty());
    known
}

/// What a test asks of an event: the fields that the rule sets.
fn expected(rule: &Rule, event: &Value) -> Vec<(String, Value)> {
    let found = |path: &str| {
        path.split('.').try_fold(event, |at, key| match at {
            Value::Array(items) => items.first()?.get(key),
            other => other.get(key),
        })
    };
    let fields = rule.event.iter().map(|(path, _)| path);
    fields.filter_map(|path| Some((path.clone(), found(path)?.clone()))).collect()
}

/// A text as YAML: single quotes hold everything but control characters.
fn quoted(text: &str) -> String {
    if text.chars().any(char::is_control) {
        return Value::from(text).to_string();
    }
    format!("'{}'", text.replace('\'', "''"))
}

fn yaml(name: &str, frame: Frame, services: &[&str], rules: &[Rule]) -> String {
    let mut out = String::from(
        "# A draft from a sample of the log. Look through the actions and the names of the fields: they are guesses\n\
         # from the words around. Then `custody-agent test` and `custody-agent preview --pack-file` with this file.\n",
    );
    let _ = writeln!(
        out,
        "pack: {name}\nversion: 1\nabout: {}",
        quoted(&format!("drafted for {name}"))
    );
    if !services.is_empty() {
        let names: Vec<String> = services.iter().map(|service| quoted(service)).collect();
        let _ = writeln!(out, "select: {{ service: [{}] }}", names.join(", "));
    }
    let decode = if frame == Frame::Syslog { "syslog" } else { "none" };
    let _ = writeln!(out, "decode: {decode}");
    if matches!(frame, Frame::Time { .. }) {
        out.push_str("time: { field: $time, formats: auto }\n");
    }
    out.push_str("rules:\n");
    for rule in rules {
        let _ = writeln!(out, "  # {} of the lines", rule.count);
        let _ =
            writeln!(out, "  - id: {}\n    match: {}\n    event:", rule.id, quoted(&rule.pattern));
        for (field, value) in &rule.event {
            let _ = writeln!(out, "      {field}: {value}");
        }
        if !rule.tests.is_empty() {
            out.push_str("    tests:\n");
        }
        for (record, event) in &rule.tests {
            let _ = writeln!(out, "      - record: {}\n        event:", quoted(record));
            for (path, value) in event {
                let value = value.as_str().map_or_else(|| value.to_string(), quoted);
                let _ = writeln!(out, "          {path}: {value}");
            }
        }
    }
    out
}

/// Lines that are one sentence with other values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// How many lines.
    pub count: usize,
    /// One of them.
    pub example: String,
}

/// The sentences of these lines, the commonest first; at most 400, of the first
/// [`MAX_DRAFT_LINES`] lines.
#[must_use]
pub fn sentences(lines: &[&str]) -> Vec<Sentence> {
    let lines = &lines[..lines.len().min(MAX_DRAFT_LINES)];
    if lines.is_empty() {
        return Vec::new();
    }
    let frame = Frame::of(lines);
    let mut miner = Miner::default();
    for (number, line) in lines.iter().enumerate() {
        miner.add(frame.message(line).unwrap_or(line).trim_end(), number);
    }
    let mut clusters = miner.clusters;
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.count));
    let sentence = |cluster: &mine::Cluster| Sentence {
        count: cluster.count,
        example: lines[cluster.samples[0]].to_owned(),
    };
    clusters.iter().map(sentence).collect()
}
