//! Workers: records to events, and many events to a sealed body, in parallel.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use custody_event::{Coverage, FileKey, Sealed, Sealer, SourceBook, Timestamp};
use custody_parsers::{Envelope, Parser, Scratch, Verdict};

use super::OwnAct;
use super::intake::{Entry, Ticketed};
use crate::sources::{Chunk, FilePosition, Framing, Item};

/// A chunk with at least so many events is sealed by its worker and becomes a block of its own.
const SEAL_DIRECT_EVENTS: u32 = 256;

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
    /// A chunk's events.
    Events(Box<Parsed>),
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
    /// The position after them.
    pub position: FilePosition,
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
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Counts and times while a chunk is parsed.
struct Tally {
    book: SourceBook,
    unmatched: u64,
    times: Option<(Timestamp, Timestamp)>,
}

impl Tally {
    fn note(&mut self, verdict: &Verdict) {
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
        };
        self.book.stored += 1;
        self.times = Some(match self.times {
            None => (time, time),
            Some((first, last)) => (first.min(time), last.max(time)),
        });
    }
}

impl Worker {
    /// A worker for these sources.
    ///
    /// # Errors
    /// zstd could not be set up (out of memory).
    pub fn new(sources: Arc<Vec<SourceContext>>) -> std::io::Result<Self> {
        Ok(Self { sources, scratch: Scratch::default(), sealer: Sealer::new()?, text: Vec::new() })
    }

    /// Works until the queue is closed and empty.
    ///
    /// # Errors
    /// The operating system gives no randomness, or sealing fails: the pipeline must stop.
    pub fn run(mut self, items: &Receiver<Ticketed>, done: &Sender<Worked>) -> anyhow::Result<()> {
        for Ticketed { ticket, bytes, entry } in items {
            let output = match entry {
                Entry::Source(Item::Records(chunk)) => {
                    WorkedItem::Events(Box::new(self.parse(&chunk)?))
                }
                Entry::Source(other) => WorkedItem::Other(other),
                Entry::Own(act) => WorkedItem::Own(act),
            };
            if done.send(Worked { ticket, bytes, output }).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn parse(&mut self, chunk: &Chunk) -> anyhow::Result<Parsed> {
        let sources = Arc::clone(&self.sources);
        let source = &sources[usize::from(chunk.source.0)];
        let mut tally = Tally { book: SourceBook::default(), unmatched: 0, times: None };
        self.text.clear();
        self.parse_records(source, chunk, &mut tally);
        let coverage = Coverage {
            file: chunk.file.identity.clone(),
            from: chunk.from,
            path: chunk.file.path.clone(),
            records: tally.book.read,
            source: source.id.clone(),
            to: chunk.after.offset,
        };
        Ok(Parsed {
            source: chunk.source,
            book: tally.book,
            unmatched: tally.unmatched,
            coverage,
            position: chunk.after.clone(),
            events: self.events(&tally, chunk.observed)?,
        })
    }

    fn events(&mut self, tally: &Tally, observed: Timestamp) -> anyhow::Result<Events> {
        let count = u32::try_from(tally.book.stored)?;
        let times = tally.times.unwrap_or((observed, observed));
        if count >= SEAL_DIRECT_EVENTS {
            return Ok(Events::Sealed(self.sealer.seal(&self.text, times, random_secret()?)?));
        }
        Ok(Events::Text { text: self.text.clone(), count, times })
    }

    fn parse_records(&mut self, source: &SourceContext, chunk: &Chunk, tally: &mut Tally) {
        let envelope = envelope(source, chunk);
        let mut run = source.parser.run(&mut self.scratch, &envelope);
        let mut one = |record: &[u8], offset, segment| {
            let verdict = run.parse(record, offset, segment, &mut self.text);
            if !matches!(verdict, Verdict::Filtered { .. }) {
                self.text.push(b'\n');
            }
            tally.note(&verdict);
        };
        match chunk.framing {
            Framing::Lines => {
                let mut from = 0;
                for end in memchr::memchr_iter(b'\n', &chunk.bytes) {
                    let line = strip_return(&chunk.bytes[from..end]);
                    let offset = chunk.from.plus(len_u64(from));
                    one(line, offset, None);
                    from = end + 1;
                }
            }
            Framing::Segment { number } => {
                let piece = strip_line_end(&chunk.bytes);
                one(piece, chunk.from, Some(number));
            }
            Framing::Unterminated => {
                let line = strip_line_end(&chunk.bytes);
                one(line, chunk.from, None);
            }
        }
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

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn strip_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn strip_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").map_or(line, strip_return)
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
