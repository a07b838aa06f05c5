//! What memory knows of the log: every stream's place, its books, and which byte ranges of which
//! files the streams of a host have covered. Made from the notes at start, in the log's order, and
//! advanced only by what has become durable.
//!
//! Cost: 16 bytes a block for its place, 32 bytes a covered range, and the newest header hashes of
//! each stream.

use std::collections::{BTreeMap, HashMap, VecDeque};

use custody_event::{AgentId, Coverage, Digest, Seq, SourceBook, StreamId, Timestamp};
use custody_evidence::{Chain, Place};

use super::note::{DurableFile, Note, NoteSpan};
use crate::store::LogCursor;

/// Header hashes kept in memory for each stream: an agent has at most four blocks under way, so a
/// block that comes again is nearly always among these. Older ones are read from the log.
const RECENT_HASHES: usize = 64;

/// Names a stream.
pub(crate) type StreamName = (AgentId, StreamId);

/// A block's place in sixteen bytes (a segment is smaller than 4 GiB).
#[derive(Debug, Clone, Copy)]
struct ShortPlace {
    segment: u32,
    offset: u32,
    /// Which block of the log it is, from 0, over all streams.
    ordinal: u64,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) name: StreamName,
    pub(crate) host: String,
    pub(crate) chain: Chain,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
    /// From the sealing of the newest block (the agent's clock) to its arrival, microseconds.
    pub(crate) lag_us: i64,
    pub(crate) events: u64,
    pub(crate) books: BTreeMap<String, SourceBook>,
    /// Events already held from older streams, by source.
    pub(crate) held: BTreeMap<String, u64>,
    places: Vec<ShortPlace>,
    recent: VecDeque<Digest>,
}

impl StreamState {
    fn new(note: &Note) -> Self {
        Self {
            name: (note.agent, note.stream),
            host: note.host.clone(),
            chain: Chain::new(note.stream),
            first_seen: note.received,
            last_seen: note.received,
            lag_us: 0,
            events: 0,
            books: BTreeMap::new(),
            held: BTreeMap::new(),
            places: Vec::new(),
            recent: VecDeque::with_capacity(RECENT_HASHES),
        }
    }

    fn apply(&mut self, note: &Note, ordinal: u64) {
        self.chain.next_seq = note.seq.next();
        self.chain.last_hash = note.hash;
        self.last_seen = note.received;
        self.lag_us = note.received.micros().saturating_sub(note.sealed.micros());
        self.events += u64::from(note.events);
        for (source, book) in &note.books {
            self.books.insert(source.clone(), *book);
        }
        for (source, count) in &note.held {
            *self.held.entry(source.clone()).or_default() += count;
        }
        if self.recent.len() == RECENT_HASHES {
            self.recent.pop_front();
        }
        self.recent.push_back(note.hash);
        self.places.push(ShortPlace {
            segment: u32::try_from(note.at.segment).unwrap_or(u32::MAX),
            offset: u32::try_from(note.at.offset).unwrap_or(u32::MAX),
            ordinal,
        });
    }

    /// The header hash of one of the newest blocks.
    fn recent_hash(&self, seq: Seq) -> Option<Digest> {
        let back = usize::try_from(self.chain.next_seq.since(seq)).ok()?;
        self.recent.get(self.recent.len().checked_sub(back)?).copied()
    }
}

/// What one stream has covered of one file.
#[derive(Debug)]
struct FileOfStream {
    stream: u32,
    /// The generation that this stream saw first, and which line that was.
    first_generation: u32,
    first_line: u32,
    /// By `from`, mostly without overlaps.
    spans: Vec<Span>,
    longest: u64,
    newest_line: u32,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    /// Ranges of blocks are below 4 GiB; a longer one is kept as this and found all the same.
    len: u32,
    line: u32,
    seq: u64,
}

impl Span {
    fn to(&self) -> u64 {
        if self.len == u32::MAX { u64::MAX } else { self.from + u64::from(self.len) }
    }
}

impl FileOfStream {
    fn push(&mut self, span: Span) {
        self.longest = self.longest.max(span.to() - span.from);
        self.newest_line = self.newest_line.max(span.line);
        let at = self.spans.partition_point(|other| other.from <= span.from);
        self.spans.insert(at, span);
    }

    /// Spans that share a byte with the range.
    fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = &Span> {
        let end = self.spans.partition_point(|span| span.from < to);
        let reach = from.saturating_sub(self.longest);
        self.spans[..end]
            .iter()
            .rev()
            .take_while(move |span| span.from >= reach)
            .filter(move |span| span.to() > from)
    }
}

/// An old block that shares bytes with a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OldBlock {
    pub(crate) at: LogCursor,
    pub(crate) line: u32,
    /// What the old block's own stream called the line.
    pub(crate) generation: u32,
}

/// What older streams of the host have of one range's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Index of the range in the block's coverage.
    pub(crate) range: usize,
    /// First generation and its line, if this stream has covered the file before.
    pub(crate) known: Option<(u32, u32)>,
    /// The newest line that older streams have.
    pub(crate) newest_line: u32,
    /// Blocks with bytes of the range, in the log's order.
    pub(crate) blocks: Vec<OldBlock>,
}

/// What a block's held ranges are decided from. Empty where no older stream of the host knows any
/// of the files: the ordinary case. Equal bases give equal decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Basis(pub(crate) Vec<Shared>);

/// How a block stands to what is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is here: with this header hash, or at this place in the log.
    Here(Result<Digest, LogCursor>),
    /// It would be the next; the chain that it must continue.
    Next(Chain),
    /// Blocks are missing before it.
    Later,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: Vec<StreamState>,
    by_name: HashMap<StreamName, u32>,
    files: HashMap<(String, DurableFile), Vec<FileOfStream>>,
    /// Blocks of all streams.
    blocks: u64,
    /// While the log is opened: every block's place and header hash, in the log's order.
    order: Option<Vec<(LogCursor, Digest)>>,
}

impl Ledger {
    /// One that also writes down the order of all blocks, until [`Self::take_order`].
    pub(super) fn with_order() -> Self {
        Self { order: Some(Vec::new()), ..Self::default() }
    }

    /// Every block's place and header hash, in the log's order.
    pub(super) fn take_order(&mut self) -> Vec<(LogCursor, Digest)> {
        self.order.take().unwrap_or_default()
    }

    /// Which block of the log this is, from 0, over all streams.
    pub(crate) fn ordinal(&self, name: &StreamName, seq: Seq) -> Option<u64> {
        let at = usize::try_from(seq.get()).ok()?;
        self.stream(name)?.places.get(at).map(|place| place.ordinal)
    }

    pub(crate) fn stream(&self, name: &StreamName) -> Option<&StreamState> {
        self.by_name.get(name).and_then(|index| self.streams.get(usize::try_from(*index).ok()?))
    }

    /// Streams in the order of their first arrival.
    pub(crate) fn streams(&self) -> &[StreamState] {
        &self.streams
    }

    pub(crate) fn next_seq(&self, name: &StreamName) -> Seq {
        self.stream(name).map_or(Seq(0), |stream| stream.chain.next_seq)
    }

    pub(crate) fn standing(&self, name: &StreamName, seq: Seq) -> Standing {
        let Some(stream) = self.stream(name) else {
            return if seq == Seq(0) {
                Standing::Next(Chain::new(name.1))
            } else {
                Standing::Later
            };
        };
        match stream.chain.place(seq) {
            Place::Next => Standing::Next(stream.chain.clone()),
            Place::Later => Standing::Later,
            Place::Earlier => Standing::Here(match stream.recent_hash(seq) {
                Some(hash) => Ok(hash),
                None => Err(place_in(stream, seq)),
            }),
        }
    }

    /// What older streams of the host have of the files that the block covers.
    pub(crate) fn basis(&self, name: &StreamName, host: &str, coverage: &[Coverage]) -> Basis {
        let streams = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let own = self.by_name.get(name).copied().unwrap_or(streams);
        if own == 0 {
            return Basis::default();
        }
        let shared = coverage.iter().enumerate().filter_map(|(range, covered)| {
            let key = (host.to_owned(), DurableFile::from(&covered.file));
            self.shared(own, range, covered, self.files.get(&key)?)
        });
        Basis(shared.collect())
    }

    fn shared(
        &self,
        own: u32,
        range: usize,
        covered: &Coverage,
        files: &[FileOfStream],
    ) -> Option<Shared> {
        let older = || files.iter().filter(|file| file.stream < own);
        let newest_line = older().map(|file| file.newest_line).max()?;
        let known = files
            .iter()
            .find(|file| file.stream == own)
            .map(|file| (file.first_generation, file.first_line));
        let mut blocks: Vec<OldBlock> = older()
            .flat_map(|file| {
                file.overlapping(covered.from.get(), covered.to.get())
                    .filter_map(|span| self.old_block(file, span))
            })
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        Some(Shared { range, known, newest_line, blocks })
    }

    fn old_block(&self, file: &FileOfStream, span: &Span) -> Option<OldBlock> {
        let stream = self.streams.get(usize::try_from(file.stream).ok()?)?;
        let later = span.line.checked_sub(file.first_line)?;
        Some(OldBlock {
            at: place_in(stream, Seq(span.seq)),
            line: span.line,
            generation: file.first_generation.checked_add(later)?,
        })
    }

    /// Takes in a block that has become durable: the next one of its stream.
    pub(crate) fn apply(&mut self, note: &Note) {
        let name = (note.agent, note.stream);
        let next = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let index = *self.by_name.entry(name).or_insert(next);
        if index == next {
            self.streams.push(StreamState::new(note));
        }
        if let Some(stream) = usize::try_from(index).ok().and_then(|at| self.streams.get_mut(at)) {
            stream.apply(note, self.blocks);
        }
        self.blocks += 1;
        if let Some(order) = &mut self.order {
            order.push((note.at, note.hash));
        }
        for span in &note.spans {
            self.cover(index, note, span);
        }
    }

    fn cover(&mut self, stream: u32, note: &Note, span: &NoteSpan) {
        let files = self.files.entry((note.host.clone(), span.file)).or_default();
        let at = files.iter().position(|file| file.stream == stream).unwrap_or_else(|| {
            files.push(FileOfStream {
                stream,
                first_generation: span.generation,
                first_line: span.line,
                spans: Vec::new(),
                longest: 0,
                newest_line: span.line,
            });
            files.len() - 1
        });
        files[at].push(Span {
            from: span.from,
            len: u32::try_from(span.to.saturating_sub(span.from)).unwrap_or(u32::MAX),
            line: span.line,
            seq: note.seq.get(),
        });
    }
}

fn place_in(stream: &StreamState, seq: Seq) -> LogCursor {
    usize::try_from(seq.get())
        .ok()
        .and_then(|at| stream.places.get(at))
        .map(|place| LogCursor { segment: place.segment.into(), offset: place.offset.into() })
        .unwrap_or_default()
}
