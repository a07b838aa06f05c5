//! What reading records costs, by the clock and in instructions.
//!
//! ```text
//! cargo run --release -p custody-parsers --example measure -- speed 5
//! cargo run --release -p custody-parsers --example measure -- loop sshd all masked 100000
//! ```
//! - `speed ROUNDS`: a row of JSON for each kind of line and way of reading it: nanoseconds of processor time a line, the
//!   best of the rounds. Yardsticks take their turn with the parser, so that a busy machine is as hard on them.
//! - `count FILE`: for callgrind, which `cargo xtask bench packs` runs it under: [`counted`] is what it counts. The file
//!   names packs and gives records.
//! - `loop KIND one|all masked|open LINES`: one way by itself, for a profiler.
//!
//! The parser keeps the raw line and writes canonical JSON, as an agent does, on one thread.

mod lines;
mod yardsticks;

use std::error::Error;
use std::io::Write;

use custody_event::{FileKey, Offset, Timestamp};
use custody_parsers::{Envelope, PackSet, Parser, Redaction, Run, Scratch, Select, Settings};
use serde_json::{Value, json};

use lines::Kind;
use yardsticks::Yardstick;

type Done<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str =
    "usage: measure speed ROUNDS | count FILE | loop KIND one|all masked|open LINES";
/// Lines of one round.
const LINES: u64 = 100_000;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut out = std::io::stdout().lock();
    match words.as_slice() {
        ["speed", rounds] => speed(rounds.parse()?, &mut out),
        ["count", file] => count(&std::fs::read_to_string(file)?, &mut out),
        ["loop", kind, packs, redaction, lines] => {
            let kind = Kind::ALL.iter().find(|known| known.name() == *kind).ok_or(USAGE)?;
            let way = Way { all: *packs == "all", masked: *redaction == "masked" };
            let set = PackSet::with_builtin(&[])?;
            let parser = way.parser(&set, *kind)?;
            let written = parse(&parser, *kind, &lines::text(*kind, lines.parse()?));
            Ok(writeln!(out, "{written} bytes")?)
        }
        _ => Err(USAGE.into()),
    }
}

/// How the parser reads.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// With all packs, not only the one that knows the lines.
    all: bool,
    /// With the redaction that is on by default.
    masked: bool,
}

impl Way {
    fn parser(self, set: &PackSet, kind: Kind) -> Done<Parser> {
        let select = match self.all {
            true => Select::Auto,
            false => Select::Names(vec![kind.pack().to_owned()]),
        };
        let redaction = if self.masked { Redaction::default() } else { Redaction::off() };
        Ok(set.select(&select, Settings { redaction, ..Settings::default() })?)
    }

    fn name(self) -> &'static str {
        match (self.all, self.masked) {
            (false, false) => "one pack",
            (false, true) => "one pack, redaction",
            (true, false) => "all packs",
            (true, true) => "all packs, redaction",
        }
    }
}

fn envelope(path: &str) -> Envelope<'_> {
    Envelope {
        host: "bench",
        agent: "00112233445566778899aabbccddeeff",
        input: "bench",
        path: Some(path),
        file: FileKey([3; 16]),
        // 2023-12-10T23:59:59Z
        ..Envelope::bare(Timestamp::from_micros(1_702_252_799_000_000))
    }
}

/// Splits the lines and parses them into one buffer, which is emptied whenever it holds a MiB; gives the bytes
/// that were written in all.
fn parse(parser: &Parser, kind: Kind, text: &[u8]) -> usize {
    let envelope = envelope(kind.path());
    let mut scratch = Scratch::new();
    let mut run = parser.run(&mut scratch, &envelope);
    let mut out = Vec::with_capacity(1 << 21);
    let (mut start, mut written) = (0, 0);
    for end in memchr::memchr_iter(b'\n', text) {
        run.parse(&text[start..end], Offset(u64::try_from(start).unwrap_or(0)), None, &mut out);
        start = end + 1;
        if out.len() > 1 << 20 {
            written += out.len();
            out.clear();
        }
    }
    written + out.len()
}

/// Nanoseconds that this thread has been on a processor.
fn cpu_ns() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Something that reads the lines, and its name.
type Reading<'a> = (String, Box<dyn FnMut(&[u8]) -> usize + 'a>);

fn speed(rounds: u32, out: &mut impl Write) -> Done {
    let set = PackSet::with_builtin(&[])?;
    for kind in Kind::ALL.iter().copied() {
        let text = lines::text(kind, LINES);
        let mut ways: Vec<Reading<'_>> = Vec::new();
        for yardstick in Yardstick::of(kind)? {
            ways.push((yardstick.name().to_owned(), Box::new(move |text| yardstick.read(text))));
        }
        for (all, masked) in [(false, false), (false, true), (true, false), (true, true)] {
            let way = Way { all, masked };
            let parser = way.parser(&set, kind)?;
            ways.push((way.name().to_owned(), Box::new(move |text| parse(&parser, kind, text))));
        }
        let mut best = vec![i128::MAX; ways.len()];
        for _ in 0..rounds.max(1) {
            for ((_, read), best) in ways.iter_mut().zip(&mut best) {
                let begun = cpu_ns();
                std::hint::black_box(read(std::hint::black_box(&text)));
                *best = (*best).min(cpu_ns() - begun);
            }
        }
        for ((name, _), best) in ways.iter().zip(best) {
            let ns = best / i128::from(LINES);
            let bytes = text.len();
            let row = json!({ "kind": kind.name(), "way": name, "ns": i64::try_from(ns)?, "lines": LINES, "bytes": bytes });
            writeln!(out, "{row}")?;
        }
    }
    Ok(())
}

/// Reads what the file says: `[{"name": …, "packs": [NAME] or null for all, "records": [TEXT]}]`.
fn count(file: &str, out: &mut impl Write) -> Done {
    let wanted: Vec<Value> = serde_json::from_str(file)?;
    let set = PackSet::with_builtin(&[])?;
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let envelope = envelope("/var/log/all.log");
    let mut scratch = Scratch::new();
    for one in &wanted {
        let select = match one["packs"].is_null() {
            true => Select::Auto,
            false => Select::Names(texts(&one["packs"])),
        };
        let parser = set.select(&select, Settings::default())?;
        let records = texts(&one["records"]);
        let mut run = parser.run(&mut scratch, &envelope);
        let mut written = Vec::new();
        // What is made when it is first needed is made now; what events have in common at the second.
        for _ in 0..2 {
            each(&mut run, &records, &mut written);
        }
        counted(&mut run, &records, &mut written);
        writeln!(out, "{} {}", one["name"].as_str().unwrap_or_default(), records.len())?;
    }
    Ok(())
}

#[inline(never)]
fn counted(run: &mut Run<'_>, records: &[String], out: &mut Vec<u8>) -> usize {
    each(run, records, out);
    // Something is left to do: a call that is the last thing done becomes a jump, and with it callgrind would leave here.
    std::hint::black_box(out.len())
}

/// Reads each record once.
fn each(run: &mut Run<'_>, records: &[String], out: &mut Vec<u8>) {
    for record in records {
        out.clear();
        run.parse(record.as_bytes(), Offset(0), None, out);
    }
}
