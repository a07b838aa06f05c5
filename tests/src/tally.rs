//! What the evidence holds, counted: each numbered line, each stream's chain and books, and the
//! agent's own acts.

use std::collections::BTreeMap;

use custody_event::block::SourceBook;
use custody_event::{EventView, StreamId};
use custody_evidence::Chain;

use crate::evidence::{Evidence, Frame};
use crate::logfile::{LogFile, number_in};

/// One of the agent's own events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEvent {
    /// `agent.start`, `gap.record` …
    pub action: String,
    /// The outcome.
    pub outcome: String,
    /// The reason's code.
    pub code: String,
    /// The sentence.
    pub message: String,
}

/// One record that is not a numbered line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The source's id.
    pub input: String,
    /// Its bytes.
    pub raw: Vec<u8>,
    /// Which piece of an over-long line.
    pub segment: Option<i64>,
    /// The rule, if one knew it.
    pub rule: Option<String>,
    /// The event.
    pub event: String,
}

#[derive(Debug)]
struct Stream {
    chain: Chain,
    books: BTreeMap<String, SourceBook>,
    /// Events whose source had no book yet: of each source, those of its first blocks.
    stored: BTreeMap<String, u64>,
    /// What the books stood at where the stream began: not zero where it continues another.
    begun_at: BTreeMap<String, u64>,
}

/// Everything in one collector's evidence, or as far as it has been followed.
#[derive(Debug)]
pub struct Tally {
    evidence: Evidence,
    streams: BTreeMap<StreamId, Stream>,
    /// The collector's own.
    collectors: BTreeMap<StreamId, Chain>,
    /// Numbers of lines in the order of the log, without those that are held.
    pub numbers: Vec<u64>,
    /// Events that an older stream had delivered.
    pub held: u64,
    /// The agent's own events.
    pub own: Vec<OwnEvent>,
    /// Records without a number, without those that are held.
    pub others: Vec<Record>,
}

impl Tally {
    /// Of the whole log as it is.
    #[must_use]
    pub fn of(data_dir: &std::path::Path) -> Self {
        let mut tally = Self::following(data_dir);
        tally.look();
        tally
    }

    /// Begins to follow a log.
    #[must_use]
    pub fn following(data_dir: &std::path::Path) -> Self {
        Self {
            evidence: Evidence::of(data_dir),
            streams: BTreeMap::new(),
            collectors: BTreeMap::new(),
            numbers: Vec::new(),
            held: 0,
            own: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Takes in what has come since the last look, and says how many numbered lines there are.
    ///
    /// # Panics
    /// A block does not continue its stream, or an event cannot be read.
    pub fn look(&mut self) -> u64 {
        let mut evidence = std::mem::replace(&mut self.evidence, Evidence::of("".as_ref()));
        evidence.new_frames(|frame| self.take(frame));
        self.evidence = evidence;
        self.numbers.len() as u64
    }

    fn take(&mut self, frame: &Frame) {
        let header = &frame.block.header;
        let opened = frame.block.open().unwrap();
        if opened.event(0).is_some_and(is_collectors) {
            // What the collector says of itself is not what it was sent.
            let chain =
                self.collectors.entry(header.stream).or_insert_with(|| Chain::new(header.stream));
            chain.check(&frame.block).unwrap();
            chain.advance(&frame.block);
            return;
        }
        let stream = self.streams.entry(header.stream).or_insert_with(|| Stream {
            chain: Chain::new(header.stream),
            books: BTreeMap::new(),
            stored: BTreeMap::new(),
            begun_at: BTreeMap::new(),
        });
        assert_eq!(stream.chain.place(header.seq), custody_evidence::Place::Next, "{header:?}");
        stream.chain.check(&frame.block).unwrap();
        stream.chain.advance(&frame.block);
        for (index, bytes) in opened.events() {
            let event = EventView::read(bytes).unwrap();
            let input = event.origin.input.as_deref().unwrap_or_default().to_owned();
            *stream.stored.entry(input).or_default() += 1;
            if frame.is_held(index) {
                self.held += 1;
            } else if event.service.as_deref() == Some("custody-agent") {
                self.own.push(own_event(&event));
            } else {
                let raw = raw_of(&event);
                match number_in(&raw) {
                    Some(number) => self.numbers.push(number),
                    None => self.others.push(record(&event, raw, bytes)),
                }
            }
        }
        for (source, book) in &header.books {
            let stored = stream.stored.get(source).copied().unwrap_or_default();
            let begun_at = book.stored.checked_sub(stored).expect("a book counts its events");
            stream.begun_at.entry(source.clone()).or_insert(begun_at);
            stream.books.insert(source.clone(), *book);
        }
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The agent's own events with this action.
    #[must_use]
    pub fn own(&self, action: &str) -> Vec<&OwnEvent> {
        self.own.iter().filter(|event| event.action == action).collect()
    }

    /// Each of these raw records is held exactly so often, and nothing else without a number.
    ///
    /// # Panics
    /// With the difference.
    pub fn expect_others(&self, expected: &[(&[u8], usize)]) {
        let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
        for record in &self.others {
            *counts.entry(&record.raw).or_default() += 1;
        }
        let expected: BTreeMap<&[u8], usize> = expected.iter().copied().collect();
        let shown = |counts: &BTreeMap<&[u8], usize>| -> Vec<String> {
            let line = |(raw, count): (&&[u8], &usize)| {
                format!("{count} x {:?}", String::from_utf8_lossy(raw))
            };
            counts.iter().map(line).collect()
        };
        assert_eq!(shown(&counts), shown(&expected));
    }

    /// Each line of the log is there exactly once, and in order.
    ///
    /// # Panics
    /// With what is missing, twice, or in the wrong place.
    pub fn expect_exactly_once(&self, log: &LogFile) {
        self.expect_once_in_any_order(log);
        let disorder = disorder(&self.numbers);
        assert!(
            disorder.is_empty(),
            "out of order (before, after): {disorder:?}; contents began at {:?}",
            log.contents()
        );
    }

    /// Each line of the log is there exactly once; what was lost and read again may come later.
    ///
    /// # Panics
    /// With what is missing, or twice.
    pub fn expect_once_in_any_order(&self, log: &LogFile) {
        let len = usize::try_from(log.written()).unwrap();
        let mut counts = vec![0_u32; len];
        let mut unknown = Vec::new();
        for number in &self.numbers {
            match counts.get_mut(usize::try_from(*number).unwrap()) {
                Some(count) => *count += 1,
                None => unknown.push(*number),
            }
        }
        let with = |wanted: fn(u32) -> bool| {
            runs((0..).zip(&counts).filter(move |(_, count)| wanted(**count)).map(|(n, _)| n))
        };
        let (missing, twice) = (with(|count| count == 0), with(|count| count > 1));
        assert!(
            missing.is_empty() && twice.is_empty() && unknown.is_empty(),
            "of {len} lines: missing {missing:?}, more than once {twice:?}, never written {unknown:?}\n{}",
            self.summary()
        );
    }

    /// Every stream's books balance, count what the stream holds (from where the stream before it
    /// stood, if it continues one), and know of no gap.
    ///
    /// # Panics
    /// With the book that is wrong.
    pub fn expect_balanced_books(&self) {
        for (id, stream) in &self.streams {
            assert!(!stream.books.is_empty(), "stream {id} has no books");
            for (source, book) in &stream.books {
                let events = stream.stored.get(source).copied().unwrap_or_default();
                assert!(book.is_balanced(), "stream {id}, {source}: {book:?}");
                let begun_at = stream.begun_at.get(source).copied().unwrap_or_default();
                assert_eq!(book.stored - begun_at, events, "stream {id}, {source}: {book:?}");
                let continues = self.own("agent.stream.begin").len();
                assert!(begun_at == 0 || continues > 0, "stream {id}, {source}: {begun_at}");
                assert_eq!(book.gap, 0, "stream {id}, {source}: {book:?}");
            }
        }
    }

    /// No gap was told, but for what may have been written just before a file was emptied.
    ///
    /// # Panics
    /// With the gaps.
    pub fn expect_no_gaps(&self) {
        let mut gaps = self.own("gap.record");
        gaps.retain(|gap| gap.code != "emptied");
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    /// In one line, for messages.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut acts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for own in &self.own {
            *acts.entry((&own.action, &own.code)).or_default() += 1;
        }
        format!(
            "{} numbered lines, {} others, {} held, {} streams, own acts {acts:?}",
            self.numbers.len(),
            self.others.len(),
            self.held,
            self.streams.len()
        )
    }
}

fn is_collectors(event: &[u8]) -> bool {
    EventView::read(event).unwrap().service.as_deref() == Some("custody-collector")
}

fn own_event(event: &EventView<'_>) -> OwnEvent {
    let text =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    OwnEvent {
        action: text(&event.action),
        outcome: text(&event.outcome),
        code: text(&event.reason.code),
        message: text(&event.message),
    }
}

fn record(event: &EventView<'_>, raw: Vec<u8>, bytes: &[u8]) -> Record {
    Record {
        input: event.origin.input.as_deref().unwrap_or_default().to_owned(),
        raw,
        segment: event.origin.segment,
        rule: event.origin.rule.as_deref().map(ToOwned::to_owned),
        event: String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The record as it stood in the file.
fn raw_of(event: &EventView<'_>) -> Vec<u8> {
    match (&event.origin.raw, &event.origin.raw_base64) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(text)) => base64(text),
        both => panic!("an event has raw and raw_base64, or neither: {both:?}"),
    }
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut word, mut bits, mut out) = (0_u32, 0_u32, Vec::new());
    for letter in text.trim_end_matches('=').bytes() {
        let digit = LETTERS.iter().position(|known| *known == letter).unwrap();
        word = word << 6 | u32::try_from(digit).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).unwrap());
        }
    }
    out
}

/// Where a number is not above the one before it: at most the first ten places.
fn disorder(numbers: &[u64]) -> Vec<(u64, u64)> {
    let wrong = |pair: &&[u64]| pair[1] <= pair[0];
    numbers.windows(2).filter(wrong).take(10).map(|pair| (pair[0], pair[1])).collect()
}

/// Ascending numbers as ranges, both ends included; at most the first ten.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        let full = runs.len() == 10;
        match runs.last_mut() {
            Some(run) if run.1 + 1 == number => run.1 = number,
            _ if full => break,
            _ => runs.push((number, number)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_reads_what_the_event_crate_writes() {
        for len in 0..20_u8 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(37)).collect();
            let mut text = Vec::new();
            custody_event::json::push_base64(&bytes, &mut text);
            assert_eq!(base64(std::str::from_utf8(&text).unwrap()), bytes);
        }
    }

    #[test]
    fn disorder_and_runs_are_seen() {
        assert_eq!(disorder(&[1, 2, 4, 3, 3, 5]), vec![(4, 3), (3, 3)]);
        assert_eq!(runs([1, 2, 3, 7, 9, 10].into_iter()), vec![(1, 3), (7, 7), (9, 10)]);
    }
}
