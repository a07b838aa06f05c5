//! What a verification has found: for people as text, for programs as JSON.

use std::fmt::{self, Write as _};

use custody_event::{AgentId, Seq, StreamId, Timestamp};
use serde::Serialize;

use crate::tlog::TreeHead;

/// Problems and gaps that are told one by one; more are only counted.
const MAX_TOLD: usize = 1_000;
/// Streams that a report tells one by one.
const MAX_STREAMS_TOLD: usize = 1_000;

/// What was done to the evidence, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Harm {
    /// It is there and not what it was.
    Altered,
    /// It was there and is not.
    Removed,
    /// It is there and was not, or is there again.
    Inserted,
    /// It stands in another place.
    Reordered,
    /// The end is missing.
    Truncated,
    /// It is signed by a key that nobody vouches for, or by none.
    Forged,
}

impl Harm {
    fn word(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Forged => "forged",
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What was done.
    pub harm: Harm,
    /// File and byte, or tile; empty where the harm has no place (something is missing).
    pub place: String,
    /// Whose stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Which stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// The first and last block concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<(Seq, Seq)>,
    /// The event's index in the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<u32>,
    /// The first and last entry of the log concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<(u64, u64)>,
    /// The sentence.
    pub text: String,
}

impl Problem {
    /// Of this kind, at this place.
    pub fn new(harm: Harm, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            harm,
            place: place.into(),
            agent: None,
            stream: None,
            blocks: None,
            event: None,
            entries: None,
            text: text.into(),
        }
    }

    /// Names the blocks.
    #[must_use]
    pub fn of(mut self, name: (AgentId, StreamId), first: Seq, last: Seq) -> Self {
        (self.agent, self.stream) = (Some(name.0), Some(name.1));
        self.blocks = Some((first, last));
        self
    }

    /// Names the entries of the log.
    #[must_use]
    pub fn entries(mut self, first: u64, last: u64) -> Self {
        self.entries = Some((first, last));
        self
    }
}

fn range(f: &mut fmt::Formatter<'_>, what: &str, first: u64, last: u64) -> fmt::Result {
    if first == last { write!(f, "{what} {first}") } else { write!(f, "{what}s {first} to {last}") }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.harm.word())?;
        if let Some(event) = self.event {
            write!(f, "event {event} of ")?;
        }
        if let Some((first, last)) = self.blocks {
            range(f, "block", first.get(), last.get())?;
            if let (Some(agent), Some(stream)) = (self.agent, self.stream) {
                write!(f, " of stream {stream} of agent {agent}")?;
            }
            f.write_str(": ")?;
        } else if let Some((first, last)) = self.entries {
            range(f, "entry", first, last)?;
            f.write_str(" of the log: ")?;
        }
        f.write_str(&self.text)?;
        if self.place.is_empty() { Ok(()) } else { write!(f, " ({})", self.place) }
    }
}

/// A gap that the agent itself has declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Whose.
    pub agent: AgentId,
    /// Which stream.
    pub stream: StreamId,
    /// Which block.
    pub seq: Seq,
    /// The gap event's index in the block.
    pub index: u32,
    /// When, as the event says.
    pub time: Timestamp,
    /// The event's sentence.
    pub message: String,
}

/// One stream, as far as it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Whose.
    pub agent: AgentId,
    /// Which.
    pub stream: StreamId,
    /// The first block here.
    pub first: Seq,
    /// The last block here.
    pub last: Seq,
    /// Blocks that verify.
    pub blocks: u64,
    /// Events that are here and verify.
    pub events: u64,
    /// Events of which only the leaf or the header is here.
    pub withheld: u64,
    /// The earliest event's time, as the headers say.
    pub from: Timestamp,
    /// The latest event's time.
    pub to: Timestamp,
    /// Does it miss nothing between first and last?
    pub complete: bool,
}

/// What was verified against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The log's name.
    pub origin: String,
    /// The key that signed, as a verifier key.
    pub key: String,
    /// Was the key given by whoever asked?
    pub trusted: bool,
    /// The checkpoint's size and root.
    pub head: TreeHead,
    /// The first entry that is here.
    pub first: u64,
    /// One beyond the last entry that is here.
    pub end: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Is nothing wrong?
    pub verified: bool,
    /// Events that are here and verify.
    pub events: u64,
    /// Events of which only the leaf or the header is here.
    pub withheld: u64,
    /// Blocks that verify, with those of which only the header is here.
    pub blocks: u64,
    /// Statements of the log (keys, accepted forks) that verify.
    pub statements: u64,
    /// The earliest event's time, as the headers say.
    pub from: Option<Timestamp>,
    /// The latest event's time.
    pub to: Option<Timestamp>,
    /// The log, if the evidence stands in one.
    pub log: Option<LogReport>,
    /// The streams; at most 1,000.
    pub streams: Vec<StreamReport>,
    /// Streams in all.
    pub stream_count: u64,
    /// Gaps that the agents have declared; at most 1,000.
    pub gaps: Vec<Gap>,
    /// Gaps in all.
    pub gap_count: u64,
    /// What is wrong; at most 1,000.
    pub problems: Vec<Problem>,
    /// Problems in all.
    pub problem_count: u64,
    /// What is worth knowing and no harm; at most 1,000.
    pub notes: Vec<String>,
    /// What cannot be known from what is here.
    pub unknown: Vec<String>,
}

impl Report {
    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < MAX_TOLD {
            self.problems.push(problem);
        }
    }

    pub(crate) fn gap(&mut self, gap: Gap) {
        self.gap_count += 1;
        if self.gaps.len() < MAX_TOLD {
            self.gaps.push(gap);
        }
    }

    pub(crate) fn stream(&mut self, stream: StreamReport) {
        self.stream_count += 1;
        if self.streams.len() < MAX_STREAMS_TOLD {
            self.streams.push(stream);
        }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < MAX_TOLD {
            self.notes.push(text.into());
        }
    }

    pub(crate) fn unknown(&mut self, text: impl Into<String>) {
        self.unknown.push(text.into());
    }

    /// As one JSON object.
    ///
    /// # Errors
    /// It cannot be written (it can).
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut out);
        // What the evidence says must not steer the terminal on which it is read.
        let mut shown = String::with_capacity(out.len());
        for c in out.chars() {
            if c.is_control() && c != '\n' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        shown
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}", if self.verified { "VERIFIED" } else { "TAMPERED" })?;
        write!(out, "{} events in {} blocks verified", self.events, self.blocks)?;
        if let (Some(from), Some(to)) = (self.from, self.to) {
            write!(out, ", from {from} to {to}")?;
        }
        writeln!(out)?;
        if self.withheld > 0 {
            writeln!(out, "{} more events are counted and not shown", self.withheld)?;
        }
        if let Some(log) = &self.log {
            writeln!(
                out,
                "log {}: entries {} to {} of {}, checkpoint root {}",
                log.origin,
                log.first,
                log.end.saturating_sub(1),
                log.head.size,
                log.head.root
            )?;
        }
        for stream in &self.streams {
            writeln!(
                out,
                "agent {} stream {}: blocks {} to {} {}, {} events, {} not shown",
                stream.agent,
                stream.stream,
                stream.first,
                stream.last,
                if stream.complete { "complete" } else { "NOT COMPLETE" },
                stream.events,
                stream.withheld
            )?;
        }
        self.write_lists(out)
    }

    fn write_lists(&self, out: &mut String) -> fmt::Result {
        if self.gap_count > 0 {
            writeln!(out, "gaps that the agents have declared: {}", self.gap_count)?;
        }
        for gap in &self.gaps {
            let Gap { seq, index, time, message, stream, .. } = gap;
            writeln!(out, "  {time} block {seq} event {index} of stream {stream}: {message}")?;
        }
        if self.problem_count > 0 {
            writeln!(out, "problems: {}", self.problem_count)?;
        }
        for problem in &self.problems {
            writeln!(out, "  {problem}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        for unknown in &self.unknown {
            writeln!(out, "not known: {unknown}")?;
        }
        Ok(())
    }
}
