//! Workers: records to events, and many events to a sealed body, in parallel.
//!
//! A chunk's events fit in one block, unless a rule pack makes several events of a record (`fan_out`):
//! then the chunk is cut in two where a block is full, and each part has its own range and position,
//! as if the source had read less at once. A part never begins within the first [`TAIL_BYTES`] of a
//! chunk: the position before it needs those bytes. That always leaves room, because a record makes
//! at most [`MAX_FAN_OUT`] events and so few bytes can hold only few more.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use custody_event::position::Fingerprint;
use custody_event::{
    Coverage, Digest, FileKey, Hashed, MAX_BLOCK_EVENTS, MAX_BLOCK_RAW_BYTES, Offset, Sealed,
    Sealer, SourceBook, Timestamp,
};
use custody_parsers::{Envelope, Given, MAX_FAN_OUT, Original, Parser, Run, Scratch, Verdict};

use super::OwnAct;
use super::batch;
use super::intake::{Entry, Ticketed};
use super::join::{self, Join};
use crate::sources::{
    Chunk, Encoding, FilePosition, Framing, Item, Mark, Promise, RecordBatch, Span, TAIL_BYTES,
};

/// Working space for much is kept so long without work, …
const QUIET: Duration = Duration::from_secs(2);
/// … or for so many items of …
const FEW_ITEMS: u32 = 64;
/// … so few bytes of records.
const FEW_BYTES: usize = 8 * 1024;

/// A chunk with at least so many events is sealed by its worker and becomes a block of its own.
const SEAL_DIRECT_EVENTS: u32 = 256;
/// The same where somebody waits for an answer.
const SEAL_AWAITED_EVENTS: u32 = 48;
// The shortest element of a list is two bytes and a comma.
const _: () = assert!(MAX_FAN_OUT + TAIL_BYTES / 2 < MAX_BLOCK_EVENTS);

/// What the workers need to know of a source.
pub struct SourceContext {
    /// The source's id.
    pub id: String,
    /// Its rules.
    pub parser: Parser,
    /// The organisation.
    pub tenant: String,
    /// The host's name.
    pub host: String,
    /// The host's durable id.
    pub host_id: String,
    /// The agent's id.
    pub agent: String,
    /// Words that every event carries: `key:value`.
    pub labels: Vec<String>,
    /// Which records become one event.
    pub join: Join,
}

/// An item, worked.
#[derive(Debug)]
pub struct Worked {
    /// Place in line.
    pub ticket: u64,
    /// Bytes to give back to the gate when it is durable.
    pub bytes: usize,
    /// What became of it.
    pub output: WorkedItem,
}

/// What became of an item.
#[derive(Debug)]
pub enum WorkedItem {
    /// A chunk's events, in as many parts as they need blocks (mostly one).
    Events(Vec<Parsed>),
    /// Everything else of a source goes on as it came.
    Other(Item),
    /// The agent's own act.
    Own(OwnAct),
}

/// A chunk's events with everything that the committer needs.
#[derive(Debug)]
pub struct Parsed {
    /// The source's number.
    pub source: crate::sources::SourceIndex,
    /// Events.
    pub events: Events,
    /// What was counted.
    pub book: SourceBook,
    /// Events that no rule knew.
    pub unmatched: u64,
    /// The bytes covered.
    pub coverage: Coverage,
    /// What the source remembers after them.
    pub after: After,
    /// Whoever waits for them.
    pub promise: Option<Promise>,
}

/// What a source remembers after its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Where a file stands.
    File(FilePosition),
    /// All else.
    Marks(Vec<Mark>),
}

/// Events as text, or sealed already.
#[derive(Debug)]
pub enum Events {
    /// Few: canonical lines, to be gathered with others.
    Text {
        /// The lines, each with its line end.
        text: Vec<u8>,
        /// How many.
        count: u32,
        /// Earliest and latest time.
        times: (Timestamp, Timestamp),
    },
    /// Many: hashed and compressed.
    Sealed(Sealed),
}

/// One worker: a thread with its own scratch space.
pub struct Worker {
    sources: Arc<Vec<SourceContext>>,
    scratch: Scratch,
    sealer: Sealer,
    text: Vec<u8>,
    hashes: Vec<HashOf>,
    /// Small items since the last one that was not.
    small: u32,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Counts and times while a part of a chunk is parsed.
pub(super) struct Tally {
    pub(super) book: SourceBook,
    /// Records, however many events they make.
    pub(super) records: u64,
    pub(super) unmatched: u64,
    times: Option<(Timestamp, Timestamp)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { book: SourceBook::default(), records: 0, unmatched: 0, times: None }
    }

    /// Each element of a record that was fanned out counts as a thing that was read.
    pub(super) fn note(&mut self, verdict: &Verdict) {
        self.records += 1;
        if let Verdict::Many(many) = verdict {
            self.book.read += u64::from(many.stored) + u64::from(many.filtered);
            self.book.stored += u64::from(many.stored);
            self.book.filtered += u64::from(many.filtered);
            self.unmatched += u64::from(many.unmatched);
            if many.stored > 0 {
                self.cover(many.times);
            }
            return;
        }
        self.book.read += 1;
        let time = match verdict {
            Verdict::Filtered { .. } => {
                self.book.filtered += 1;
                return;
            }
            Verdict::Stored { time } => *time,
            Verdict::Unmatched { time } => {
                self.unmatched += 1;
                *time
            }
            Verdict::Many(_) => return,
        };
        self.book.stored += 1;
        self.cover((time, time));
    }

    /// A further piece of a record that was counted: an event more, and no record.
    pub(super) fn note_segment(&mut self, verdict: &Verdict) {
        let records = self.records;
        self.note(verdict);
        self.records = records;
    }

    /// Adds what another has counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.book.add(&other.book);
        self.records += other.records;
        self.unmatched += other.unmatched;
        if let Some(times) = other.times {
            self.cover(times);
        }
    }

    /// The events of a part, sealed where they are many.
    pub(super) fn events<'h>(
        &self,
        text: &[u8],
        hashed: impl Iterator<Item = Hashed<'h>>,
        observed: Timestamp,
        sealer: &mut Sealer,
        is_awaited: bool,
    ) -> anyhow::Result<Events> {
        let count = u32::try_from(self.book.stored)?;
        let times = self.times.unwrap_or((observed, observed));
        if count >= if is_awaited { SEAL_AWAITED_EVENTS } else { SEAL_DIRECT_EVENTS } {
            let sealed = sealer.seal_hashed(text, times, random_secret()?, hashed)?;
            return Ok(Events::Sealed(sealed));
        }
        Ok(Events::Text { text: text.to_vec(), count, times })
    }

    fn cover(&mut self, times: (Timestamp, Timestamp)) {
        self.times = Some(match self.times {
            None => times,
            Some((first, last)) => (first.min(times.0), last.max(times.1)),
        });
    }
}

impl Worker {
    /// A worker for these sources.
    ///
    /// # Errors
    /// zstd could not be set up (out of memory).
    pub fn new(sources: Arc<Vec<SourceContext>>) -> std::io::Result<Self> {
        let (scratch, sealer) = (Scratch::default(), Sealer::new()?);
        Ok(Self { sources, scratch, sealer, text: Vec::new(), hashes: Vec::new(), small: 0 })
    }

    /// Works until the queue is closed and empty.
    ///
    /// # Errors
    /// The operating system gives no randomness, or sealing fails: the pipeline must stop.
    pub fn run(mut self, items: &Receiver<Ticketed>, done: &Sender<Worked>) -> anyhow::Result<()> {
        while let Some(Ticketed { ticket, bytes, entry }) = self.next(items) {
            let output = match entry {
                Entry::Source(Item::Records(chunk)) => WorkedItem::Events(self.parse(&chunk)?),
                Entry::Source(Item::Batch(batch)) => WorkedItem::Events(self.parse_batch(batch)?),
                Entry::Source(other) => WorkedItem::Other(other),
                Entry::Own(act) => WorkedItem::Own(act),
            };
            if done.send(Worked { ticket, bytes, output }).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The next item; `None` once the queue is closed and empty. Where none comes for a while, or
    /// only small ones, the working space is given back first: some MiB, of which a quiet host has no
    /// use.
    fn next(&mut self, items: &Receiver<Ticketed>) -> Option<Ticketed> {
        let item = match items.recv_timeout(QUIET) {
            Ok(item) => item,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                self.rest();
                items.recv().ok()?
            }
        };
        self.small = if item.bytes > FEW_BYTES { 0 } else { self.small.saturating_add(1) };
        if self.small == FEW_ITEMS {
            self.rest();
        }
        Some(item)
    }

    fn rest(&mut self) {
        self.text = Vec::new();
        self.hashes = Vec::new();
        self.scratch = Scratch::default();
        // Without memory for another one the sealer at hand will do.
        if let Ok(sealer) = Sealer::new() {
            self.sealer = sealer;
        }
    }

    fn parse_batch(&mut self, batch: RecordBatch) -> anyhow::Result<Vec<Parsed>> {
        let sources = Arc::clone(&self.sources);
        let source = &sources[usize::from(batch.source.0)];
        let Self { scratch, text, hashes, sealer, .. } = self;
        batch::parse(source, batch, scratch, text, hashes, sealer)
    }

    fn parse(&mut self, chunk: &Chunk) -> anyhow::Result<Vec<Parsed>> {
        let sources = Arc::clone(&self.sources);
        let source = &sources[usize::from(chunk.source.0)];
        self.text.clear();
        self.hashes.clear();
        let mut parts = Parts {
            source,
            chunk,
            from: chunk.from,
            tally: Tally::new(),
            done: Vec::new(),
            text: &mut self.text,
            hashes: &mut self.hashes,
            decoded: String::new(),
            sealer: &mut self.sealer,
        };
        let envelope = envelope(source, chunk);
        parts.records(source.parser.run(&mut self.scratch, &envelope))?;
        parts.end(chunk.after.clone())?;
        Ok(parts.done)
    }
}

/// The hash of a record of a part.
pub(super) struct HashOf {
    /// Where the event ends in the part's text.
    pub(super) event_end: usize,
    /// Where the record stands among the source's bytes.
    pub(super) place: Range<usize>,
    pub(super) hash: Digest,
}

pub(super) fn hashed<'h>(
    bytes: &'h [u8],
    hashes: &'h [HashOf],
) -> impl Iterator<Item = Hashed<'h>> {
    hashes.iter().map(|HashOf { event_end, place, hash }| Hashed {
        event_end: *event_end,
        record: &bytes[place.clone()],
        hash: *hash,
    })
}

/// Bytes of events of one part, at most, before another begins: the rest of a block's room is for a
/// record that fans out within the first bytes of a chunk.
pub(super) const PART_BYTES: usize = MAX_BLOCK_RAW_BYTES / 2;

/// The parts of a chunk: one, unless its records fan out to more than a block holds.
struct Parts<'a> {
    source: &'a SourceContext,
    chunk: &'a Chunk,
    /// Where the part that is being made begins.
    from: Offset,
    tally: Tally,
    done: Vec<Parsed>,
    /// The part's events, each with its line end.
    text: &'a mut Vec<u8>,
    hashes: &'a mut Vec<HashOf>,
    /// Room for the text of a record that is not UTF-8.
    decoded: String,
    sealer: &'a mut Sealer,
}

impl Parts<'_> {
    fn records(&mut self, mut run: Run<'_>) -> anyhow::Result<()> {
        let chunk = self.chunk;
        match chunk.framing {
            Framing::Lines => {
                let mut from = 0;
                for end in memchr::memchr_iter(b'\n', &chunk.bytes) {
                    let text_end = from + strip_return(&chunk.bytes[from..end]).len();
                    self.record(&mut run, Span { begin: from, text_end, end: end + 1 }, from)?;
                    from = end + 1;
                }
            }
            Framing::Spans => {
                let mut from = 0;
                for span in &chunk.spans {
                    match self.source.join {
                        Join::None => self.record(&mut run, *span, from)?,
                        join => self.joined(&mut run, join, *span, from)?,
                    }
                    from = span.end;
                }
            }
            Framing::Segment { number } => self.whole(&mut run, Some(number)),
            Framing::Unterminated => self.whole(&mut run, None),
        }
        Ok(())
    }

    /// The chunk is one record, or a piece of one.
    fn whole(&mut self, run: &mut Run<'_>, segment: Option<u32>) {
        let len = self.chunk.bytes.len();
        let begin = self.mark_len(0, len);
        let verdict = self.append(run, begin..len, segment);
        self.tally.note(&verdict);
    }

    /// The length of the mark that may stand at a file's beginning and is no part of its text.
    fn mark_len(&self, begin: usize, text_end: usize) -> usize {
        let mark = self.chunk.encoding.mark();
        let is_first = self.chunk.from.get() == 0 && begin == 0 && text_end > mark.len();
        if is_first && self.chunk.bytes.starts_with(mark) { mark.len() } else { 0 }
    }

    /// Parses a record; ends the part before it, which ends at `at`, where its events would make
    /// more than a block.
    fn record(&mut self, run: &mut Run<'_>, span: Span, at: usize) -> anyhow::Result<()> {
        let (length, stored) = (self.text.len(), self.tally.book.stored);
        let begin = span.begin + self.mark_len(span.begin, span.text_end);
        let verdict = self.append(run, begin..span.text_end, None);
        let more = match &verdict {
            Verdict::Filtered { .. } => 0,
            Verdict::Stored { .. } | Verdict::Unmatched { .. } => 1,
            Verdict::Many(many) => u64::from(many.stored),
        };
        self.make_room(stored + more, length, at)?;
        self.tally.note(&verdict);
        Ok(())
    }

    /// The same of a run of records that come apart into joined events.
    fn joined(
        &mut self,
        run: &mut Run<'_>,
        join: Join,
        span: Span,
        at: usize,
    ) -> anyhow::Result<()> {
        let (length, stored) = (self.text.len(), self.tally.book.stored);
        let mut tally = Tally::new();
        let bytes = &self.chunk.bytes[span.begin..span.text_end];
        let from = self.chunk.from.plus(len_u64(span.begin));
        join::run_of(run, join, bytes, from, self.text, &mut tally);
        self.make_room(stored + tally.book.stored, length, at)?;
        self.tally.add(&tally);
        Ok(())
    }

    /// Ends the part at `at` if what was appended since `length` makes it too large.
    fn make_room(&mut self, events: u64, length: usize, at: usize) -> anyhow::Result<()> {
        let full = events > len_u64(MAX_BLOCK_EVENTS) || self.text.len() > PART_BYTES;
        if full && let Some(position) = self.position(at) {
            let events = self.text.split_off(length);
            self.end(position)?;
            *self.text = events;
        }
        Ok(())
    }

    /// Appends a record's events to the text, each with its line end.
    fn append(&mut self, run: &mut Run<'_>, place: Range<usize>, segment: Option<u32>) -> Verdict {
        let chunk = self.chunk;
        let before = self.text.len();
        let offset = chunk.from.plus(len_u64(place.start));
        let record = &chunk.bytes[place.clone()];
        let verdict = match chunk.encoding {
            Encoding::Utf8 => run.parse(record, offset, segment, self.text),
            other => {
                self.decoded.clear();
                let exact = other.decode(record, &mut self.decoded);
                let original = Original { bytes: record, encoding: other.name(), exact };
                let given = Given { original: Some(original), ..Given::default() };
                run.parse_given(self.decoded.as_bytes(), offset, segment, given, self.text)
            }
        };
        if self.text.len() > before {
            self.text.push(b'\n');
            if !matches!(verdict, Verdict::Many(_)) {
                let event_end = self.text.len();
                self.hashes.extend(run.hash().map(|hash| HashOf { event_end, place, hash }));
            }
        }
        verdict
    }

    /// Makes a part of what was parsed since the last one.
    fn end(&mut self, position: FilePosition) -> anyhow::Result<()> {
        let tally = std::mem::replace(&mut self.tally, Tally::new());
        let to = position.offset;
        let events = self.events(&tally)?;
        self.done.push(Parsed {
            source: self.chunk.source,
            book: tally.book,
            unmatched: tally.unmatched,
            coverage: Coverage {
                file: self.chunk.file.identity.clone(),
                from: self.from,
                path: self.chunk.file.path.clone(),
                records: tally.records,
                source: self.source.id.clone(),
                to,
            },
            after: After::File(position),
            promise: None,
            events,
        });
        self.from = to;
        self.text.clear();
        self.hashes.clear();
        Ok(())
    }

    fn events(&mut self, tally: &Tally) -> anyhow::Result<Events> {
        let hashed = hashed(&self.chunk.bytes, self.hashes);
        tally.events(self.text, hashed, self.chunk.observed, self.sealer, false)
    }

    /// The position before a place of the chunk, where it can be told from the chunk alone.
    fn position(&self, at: usize) -> Option<FilePosition> {
        let offset = self.chunk.from.plus(len_u64(at));
        let tail = usize::try_from(offset.get()).unwrap_or(usize::MAX).min(TAIL_BYTES);
        let begins = at.checked_sub(tail).filter(|_| at > 0 && offset > self.from)?;
        Some(FilePosition {
            offset,
            segment: 0,
            tail: Fingerprint::of(&self.chunk.bytes[begins..at]),
            ..self.chunk.after.clone()
        })
    }
}

fn envelope<'a>(source: &'a SourceContext, chunk: &'a Chunk) -> Envelope<'a> {
    let file: FileKey = chunk.file.identity.key(&source.host_id);
    Envelope {
        host: &source.host,
        tenant: &source.tenant,
        agent: &source.agent,
        input: &source.id,
        path: Some(&chunk.file.path),
        labels: &source.labels,
        file,
        ..Envelope::bare(chunk.observed)
    }
}

pub(super) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

pub(super) fn strip_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A fresh secret for a block's salts.
///
/// # Errors
/// The operating system gives no randomness.
pub fn random_secret() -> anyhow::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{FileRef, SourceIndex};

    fn position(part: &Parsed) -> &FilePosition {
        match &part.after {
            After::File(position) => position,
            After::Marks(_) => panic!("a file has positions"),
        }
    }
    use custody_event::block::{Accounts, Placement};
    use custody_event::{
        AgentId, FileIdentity, KeyId, Seq, StreamId, position::Fingerprint as Print,
    };
    use custody_parsers::{PackSet, PackSource, Redaction, Select, Settings};

    const PACK: &str = "pack: own\nversion: 1\ndecode: json\nfan_out: $json.list\nrules:\n  - id: it\n    event: { action: a.b, actor.name: $json.who }\n";

    fn worker() -> Worker {
        worker_with(Settings::default())
    }

    fn worker_with(settings: Settings) -> Worker {
        let pack = PackSource { name: "own.yaml".into(), text: PACK.into() };
        let set = PackSet::load(&[pack]).unwrap();
        let source = SourceContext {
            id: "s".into(),
            parser: set.select(&Select::Auto, settings).unwrap(),
            tenant: "t".into(),
            host: "h".into(),
            host_id: "h".into(),
            agent: "a".into(),
            labels: Vec::new(),
            join: Join::None,
        };
        Worker::new(Arc::new(vec![source])).unwrap()
    }

    fn chunk(bytes: Vec<u8>) -> Chunk {
        let identity =
            FileIdentity { dev: 1, ino: 2, born_ns: 3, fingerprint: Print([4; 16]), generation: 0 };
        let from = Offset(10_000);
        let tail = Print::of(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        Chunk {
            source: SourceIndex(0),
            file: Arc::new(FileRef { identity: identity.clone(), path: "/x".into() }),
            from,
            after: FilePosition {
                identity,
                offset: from.plus(len_u64(bytes.len())),
                segment: 0,
                path: "/x".into(),
                tail,
                modified_ns: 5,
            },
            bytes,
            framing: Framing::Lines,
            spans: Vec::new(),
            encoding: Encoding::Utf8,
            observed: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn a_chunk_that_fans_out_to_more_than_a_block_is_cut_at_whole_records() {
        let mut bytes = Vec::new();
        for line in 0..600 {
            let list = vec!["{\"who\":\"eva\"}"; 1 + line % 9].join(",");
            bytes.extend_from_slice(format!("{{\"n\":{line},\"list\":[{list}]}}\n").as_bytes());
        }
        let chunk = chunk(bytes);
        let parts = worker().parse(&chunk).unwrap();
        assert!(parts.len() > 2);
        let mut at = chunk.from;
        let (mut stored, mut records) = (0, 0);
        for part in &parts {
            assert!(part.book.stored <= len_u64(MAX_BLOCK_EVENTS));
            assert_eq!(part.book.read, part.book.stored);
            assert_eq!((part.coverage.from, part.coverage.to), (at, position(part).offset));
            let end = usize::try_from(position(part).offset.get() - chunk.from.get()).unwrap();
            assert_eq!(chunk.bytes[end - 1], b'\n', "a part ends with a record");
            assert_eq!(position(part).tail, Print::of(&chunk.bytes[end - TAIL_BYTES..end]));
            (at, stored) = (part.coverage.to, stored + part.book.stored);
            records += part.coverage.records;
        }
        assert_eq!((at, records), (chunk.after.offset, 600));
        assert_eq!(stored, (0..600).map(|line| 1 + line % 9).sum::<u64>());
    }

    #[test]
    fn the_widest_records_at_a_chunks_start_still_fit() {
        let list = |count: usize| format!("{{\"list\":[{}]}}\n", vec!["{}"; count].join(","));
        let bytes = format!("{}{}{}", list(60), list(MAX_FAN_OUT), list(MAX_FAN_OUT));
        let parts = worker().parse(&chunk(bytes.into_bytes())).unwrap();
        let stored: Vec<u64> = parts.iter().map(|part| part.book.stored).collect();
        assert_eq!(stored, [860, 800]);
    }

    #[test]
    fn a_batch_that_somebody_waits_for_is_sealed_at_once_unless_it_is_small() {
        let sealed = |records: usize, is_awaited: bool| {
            let place = crate::sources::Place::new([1; 16], "/hook".into());
            let now = Timestamp::from_micros(0);
            let mut batch = RecordBatch::new(SourceIndex(0), Arc::clone(place.file()), now);
            for _ in 0..records {
                batch.add(b"{\"who\":\"eva\"}", Offset(0), &Arc::default(), None, None);
            }
            place.number(&mut batch);
            let (promise, _kept) = Promise::new();
            batch.promise = is_awaited.then_some(promise);
            let parts = worker().parse_batch(batch).unwrap();
            matches!(parts[..], [Parsed { events: Events::Sealed(_), .. }])
        };
        assert!(sealed(48, true) && !sealed(47, true));
        assert!(sealed(256, false) && !sealed(255, false));
    }

    #[test]
    fn a_chunk_of_one_event_a_record_stays_whole() {
        let parts = worker().parse(&chunk(b"{\"who\":\"eva\"}\n".repeat(1_000))).unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(position(&parts[0]).offset, Offset(10_000 + 14_000));
    }

    fn placement() -> Placement {
        Placement {
            agent: AgentId([1; 16]),
            host: "h".into(),
            key: KeyId([2; 8]),
            stream: StreamId([3; 16]),
            seq: Seq(0),
            prev: Digest([0; 32]),
            sealed: Timestamp::from_micros(0),
        }
    }

    /// Lines of all kinds: redacted, fanned out, not UTF-8, with escapes, all alike, plain.
    fn mixed() -> Vec<u8> {
        let line = |n: u32| match n % 7 {
            0 => format!("{{\"who\":\"eva {n}\",\"password\":\"s3cret-{n}!\"}}\n").into(),
            1 => format!("{{\"n\":{n},\"list\":[{{\"who\":\"a\"}},{{\"who\":\"b\"}}]}}\n").into(),
            2 => [format!("{n} ").as_bytes(), b"\xff\xfe\n"].concat(),
            3 => format!("{n} tab\t and \"quotes\"\r\n").into(),
            4 => b"the same\n".to_vec(),
            _ => format!("plain {n}\n").into_bytes(),
        };
        (0..700).flat_map(line).collect()
    }

    #[test]
    fn what_is_sealed_with_hashes_at_hand_opens_and_is_what_would_be_sealed_without_them() {
        // The hashes of the second are those of its bytes, not of its text.
        for encoding in [Encoding::Utf8, Encoding::Latin1] {
            let chunk = Chunk { encoding, ..chunk(mixed()) };
            let redaction = Redaction::default();
            let mut worker = worker_with(Settings { redaction, ..Settings::default() });
            let [Parsed { events: Events::Sealed(sealed), .. }] =
                <[Parsed; 1]>::try_from(worker.parse(&chunk).unwrap()).unwrap()
            else {
                panic!("many are sealed")
            };
            let packed = sealed.packed_len();
            let times = (sealed.first_time, sealed.last_time);
            let block = sealed.place(placement(), Accounts::default());
            // The root is made from what comes out.
            let opened = block.open().unwrap();
            let text = opened.text();
            assert!(memchr::memmem::find(text, b"s3cret").is_none());
            let again = worker.sealer.seal(text, times, [0; 32]).unwrap();
            assert_eq!((opened.len(), again.packed_len()), (800, packed));
        }
    }

    /// Works a chunk of this many lines out of a queue; says how many events it made.
    fn work(worker: &mut Worker, lines: usize) -> u64 {
        let (items, queue) = crossbeam_channel::bounded(1);
        let chunk = chunk(b"{\"who\":\"eva\"}\n".repeat(lines));
        let bytes = chunk.bytes.len();
        let entry = Entry::Source(Item::Records(chunk));
        items.send(Ticketed { ticket: 7, bytes, entry }).unwrap();
        let Some(Ticketed { entry: Entry::Source(Item::Records(chunk)), .. }) = worker.next(&queue)
        else {
            panic!("it was sent")
        };
        worker.parse(&chunk).unwrap().iter().map(|part| part.book.stored).sum()
    }

    #[test]
    fn working_space_for_much_goes_when_only_little_comes() {
        let mut worker = worker();
        for _ in 0..2 {
            assert_eq!(work(&mut worker, 1_000), 1_000);
            let much = worker.text.capacity();
            assert!(much > 100_000);
            for _ in 1..FEW_ITEMS {
                assert_eq!(work(&mut worker, 1), 1);
                assert_eq!(worker.text.capacity(), much, "much may come again");
            }
            assert_eq!(work(&mut worker, 1), 1);
            assert!(worker.text.capacity() < much / 10);
        }
    }

    #[test]
    fn a_worker_takes_what_comes_after_a_pause_and_ends_with_its_queue() {
        let (items, queue) = crossbeam_channel::bounded(1);
        let mut worker = worker();
        let late = std::thread::spawn(move || {
            std::thread::sleep(QUIET + QUIET / 4);
            let entry = Entry::Source(Item::Records(chunk(b"{\"who\":\"eva\"}\n".to_vec())));
            items.send(Ticketed { ticket: 7, bytes: 1, entry }).unwrap();
        });
        assert_eq!(worker.next(&queue).map(|item| item.ticket), Some(7));
        assert!(worker.next(&queue).is_none());
        late.join().unwrap();
    }

    /// The events of a chunk, read back.
    fn events(chunk: &Chunk) -> Vec<serde_json::Value> {
        let parts = worker().parse(chunk).unwrap();
        let [Parsed { events: Events::Text { text, .. }, coverage, .. }] = &parts[..] else {
            panic!("one part of few events")
        };
        let events: Vec<serde_json::Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        for event in &events {
            let offset = event["origin"]["offset"].as_u64().unwrap();
            assert!((coverage.from.get()..coverage.to.get()).contains(&offset));
        }
        events
    }

    #[test]
    fn records_of_several_lines_are_one_event_each_at_their_first_byte() {
        let mut chunk = chunk(b"\n\n{\"a\":1,\n \"who\":\"eva\"}\r\n\n2\n 3\n".to_vec());
        chunk.framing = Framing::Spans;
        chunk.spans = vec![
            Span { begin: 2, text_end: 23, end: 26 },
            Span { begin: 26, text_end: 30, end: 31 },
        ];
        let events = events(&chunk);
        let places: Vec<(u64, &str)> = events
            .iter()
            .map(|event| {
                let origin = &event["origin"];
                (origin["offset"].as_u64().unwrap(), origin["raw"].as_str().unwrap())
            })
            .collect();
        let expected = [(10_002, "{\"a\":1,\n \"who\":\"eva\"}"), (10_026, "2\n 3")];
        assert_eq!(places, expected);
        assert!(events[0]["origin"].get("encoding").is_none());
    }

    #[test]
    fn an_events_text_and_encoding_give_back_the_bytes_that_its_hash_is_over() {
        for (encoding, text) in [
            (Encoding::Utf16Le, "gr\u{fc}n \u{1f980} {\"who\":\"eva\"}"),
            (Encoding::Utf16Be, "gr\u{fc}n \u{1f980}"),
            (Encoding::Latin1, "gr\u{fc}n \u{85}"),
            (Encoding::Windows1252, "gr\u{fc}n \u{20ac}"),
        ] {
            let bytes = encoding.encode(text).unwrap();
            let mut chunk = chunk([bytes.clone(), encoding.encode("\n").unwrap()].concat());
            chunk.encoding = encoding;
            chunk.framing = Framing::Spans;
            chunk.spans = vec![Span { begin: 0, text_end: bytes.len(), end: chunk.bytes.len() }];
            let [event] = &events(&chunk)[..] else { panic!("one") };
            let origin = &event["origin"];
            assert_eq!(origin["raw"], text);
            assert_eq!(origin["encoding"], encoding.name());
            let hash = custody_event::Digest::of(&bytes).to_hex();
            assert_eq!(origin["raw_sha256"], hash);
        }
        // Half a surrogate pair is no text: the bytes are kept.
        let mut broken = chunk(vec![b'a', 0, 0x3e, 0xd8, b'\n', 0]);
        (broken.encoding, broken.framing) = (Encoding::Utf16Le, Framing::Spans);
        broken.spans = vec![Span { begin: 0, text_end: 4, end: 6 }];
        let [event] = &events(&broken)[..] else { panic!("one") };
        assert_eq!(event["origin"]["raw_base64"], "YQA+2A==");
        assert!(event["origin"].get("raw").is_none());
        let hash = custody_event::Digest::of(&broken.bytes[..4]).to_hex();
        assert_eq!(event["origin"]["raw_sha256"], hash);
    }

    #[test]
    fn the_longest_record_of_every_encoding_is_kept_whole() {
        for (encoding, character) in [
            (Encoding::Utf16Le, '\u{4e00}'),
            (Encoding::Latin1, '\u{fc}'),
            (Encoding::Windows1252, '\u{20ac}'),
        ] {
            let unit = encoding.encode(&character.to_string()).unwrap();
            let count = encoding.most_bytes() / unit.len();
            let mut chunk = chunk(unit.repeat(count));
            (chunk.encoding, chunk.framing) = (encoding, Framing::Segment { number: 0 });
            let [event] = &events(&chunk)[..] else { panic!("one") };
            assert_eq!(event["origin"]["raw"].as_str().unwrap().chars().count(), count);
        }
    }

    #[test]
    fn the_mark_at_a_files_beginning_is_no_part_of_its_first_record() {
        for (encoding, framing) in [
            (Encoding::Utf8, Framing::Lines),
            (Encoding::Utf16Le, Framing::Spans),
            (Encoding::Utf16Be, Framing::Unterminated),
        ] {
            let text = "\u{feff}{\"who\":\"eva\"}";
            let end = if framing == Framing::Unterminated { "" } else { "\n" };
            let mut first = chunk(encoding.encode(&format!("{text}{end}")).unwrap());
            first.from = Offset(0);
            first.after.offset = Offset(len_u64(first.bytes.len()));
            (first.encoding, first.framing) = (encoding, framing);
            let text_end = first.bytes.len() - end.len() * encoding.unit();
            first.spans = vec![Span { begin: 0, text_end, end: first.bytes.len() }];
            let [event] = &events(&first)[..] else { panic!("one") };
            assert_eq!(event["origin"]["raw"], text.trim_start_matches('\u{feff}'));
            assert_eq!(event["origin"]["offset"], encoding.mark().len());
        }
    }
}
