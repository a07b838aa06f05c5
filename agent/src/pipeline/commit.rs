//! The committer: everything back into line, into blocks, into the spool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use custody_event::block::{Accounts, Placement};
use custody_event::{
    Block, Clock, Coverage, Header, MAX_BLOCK_EVENTS, Sealed, Sealer, SourceBook, Timestamp,
};

use super::Books;
use super::own::{OWN_INPUT, OwnAct, OwnEvents};
use super::place::{StreamState, mark_prefix, position_key};
use super::worker::{After, Events, Parsed, Worked, WorkedItem, random_secret};
use crate::identity::AgentIdentity;
use crate::sources::{FilePosition, Item, Kept, Mark, Notice, Promise, Refused, SourceIndex};
use crate::spool::{Batch, SpoolHandle, SpoolKey, SpooledBlock, Ticket};
use crate::status::SourceCounters;

/// Small chunks are gathered up to this much text before they become a block.
const GATHER_BYTES: usize = 768 * 1024;

/// The same where somebody waits for an answer: long enough that many who ask at once share a block
/// and a sync, and no longer than a sync takes.
const PROMISED_LINGER: Duration = Duration::from_millis(2);

/// What gaps may bring a source's book to, at most: a quarter of what a block can tell.
const MAX_COUNT: u64 = 1 << 51;

/// Room for one of the agent's own events.
const OWN_BYTES: usize = 2048;

/// A block with nothing but the gap for dropped events has at most so many bytes.
const GAP_BYTES: usize = 8 * 1024;

/// Spool key of the number of events that were dropped and that no gap tells yet.
const DROPPED_KEY: &[u8] = b"meta/dropped";

/// How many events were dropped that no gap tells.
///
/// # Errors
/// The spool cannot be read, or what it kept is no number.
pub fn dropped_untold(spool: &SpoolHandle) -> anyhow::Result<u64> {
    match spool.value(DROPPED_KEY).wait()? {
        None => Ok(0),
        Some(value) => std::str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse().ok())
            .context("the spool's count of dropped events cannot be read"),
    }
}

/// A batch on its way to the disk: when it is durable, its bytes go back to the gate.
#[derive(Debug)]
pub struct Underway {
    /// Resolves when durable.
    pub ticket: Ticket,
    /// To be kept then.
    pub promises: Vec<Promise>,
    /// Bytes taken from the gate.
    pub bytes: usize,
}

/// What a committer is made of.
pub struct CommitterParts {
    /// Who writes and signs.
    pub identity: Arc<AgentIdentity>,
    /// Where the stream stands.
    pub state: StreamState,
    /// How the books stand.
    pub books: Books,
    /// Writes the agent's own events.
    pub own: OwnEvents,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// How long small chunks wait for company.
    pub linger: Duration,
    /// Where blocks go.
    pub spool: SpoolHandle,
    /// A full spool drops the newest events, each counted in a gap, instead of waiting.
    pub drop_when_full: bool,
    /// Events that were dropped before and that no gap in the spool tells.
    pub dropped: u64,
    /// Sources by their numbers: ids and counters.
    pub sources: Vec<(String, Arc<SourceCounters>)>,
}

/// Chunks gathered for the next block.
#[derive(Debug, Default)]
struct Gathered {
    text: Vec<u8>,
    count: usize,
    times: Option<(Timestamp, Timestamp)>,
    effects: Effects,
    since: Option<Duration>,
}

/// What a batch does beside its block: positions, books, coverage.
#[derive(Debug, Default)]
struct Effects {
    coverage: Vec<Coverage>,
    counted: BTreeMap<String, SourceBook>,
    puts: BTreeMap<Vec<u8>, Put>,
    promises: Vec<Promise>,
    deletes: BTreeSet<Vec<u8>>,
    sources: BTreeSet<SourceIndex>,
    bytes: usize,
    /// Dropped events that a gap among the events tells.
    told: u64,
    /// What stands in the spool until these events have told it.
    tells: Vec<SpoolKey>,
}

/// A value of a batch.
#[derive(Debug)]
enum Put {
    Position(Box<FilePosition>),
    Mark(Mark),
}

impl Put {
    fn value(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Position(position) => Ok(serde_json::to_vec(&position)?),
            Self::Mark(mark) => Ok(mark.value.unwrap_or_default()),
        }
    }
}

impl Effects {
    fn is_empty(&self) -> bool {
        self.coverage.is_empty()
            && self.counted.is_empty()
            && self.puts.is_empty()
            && self.deletes.is_empty()
            && self.promises.is_empty()
            && self.bytes == 0
    }

    fn put(&mut self, source: &str, position: FilePosition) {
        let key = position_key(source, &position.identity);
        self.deletes.remove(&key);
        self.puts.insert(key, Put::Position(Box::new(position)));
    }

    fn mark(&mut self, source: &str, mark: Mark) {
        let key = [mark_prefix(source).as_slice(), &mark.key].concat();
        if mark.value.is_none() {
            return self.delete(key);
        }
        self.deletes.remove(&key);
        self.puts.insert(key, Put::Mark(mark));
    }

    fn take_after(&mut self, source: &str, after: After, promise: Option<Promise>) {
        match after {
            After::File(position) => self.put(source, position),
            After::Marks(marks) => {
                marks.into_iter().for_each(|mark| self.mark(source, mark));
            }
        }
        self.promises.extend(promise);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.puts.remove(&key);
        self.deletes.insert(key);
    }

    fn count(&mut self, source: &str, book: &SourceBook) {
        self.counted.entry(source.to_owned()).or_default().add(book);
    }

    /// Has another source read this file too? Its events have the same ids.
    fn has_from_another(&self, range: &Coverage) -> bool {
        self.coverage.iter().any(|held| held.file == range.file && held.source != range.source)
    }

    /// Adds a range, or lengthens the last one of the same file.
    fn cover(&mut self, range: Coverage) {
        if range.records == 0 {
            return;
        }
        let same = self.coverage.iter_mut().find(|held| {
            held.file == range.file && held.source == range.source && held.to == range.from
        });
        match same {
            Some(held) => {
                held.to = range.to;
                held.records += range.records;
            }
            None => self.coverage.push(range),
        }
    }
}

/// One thread that gives every block its place.
pub struct Committer {
    parts: CommitterParts,
    sealer: Sealer,
    gathered: Gathered,
    waiting: BTreeMap<u64, Worked>,
    next_ticket: u64,
    /// Events dropped that no gap tells yet.
    dropped: u64,
    /// How many the spool knows of: so many are told after a crash.
    dropped_kept: u64,
    underway: Sender<Underway>,
}

impl Committer {
    /// A committer that hands its batches' tickets to `underway`.
    ///
    /// # Errors
    /// zstd could not be set up (out of memory).
    pub fn new(parts: CommitterParts, underway: Sender<Underway>) -> std::io::Result<Self> {
        for (id, counters) in &parts.sources {
            counters.set_book(parts.books.of(id));
        }
        let dropped = parts.dropped;
        Ok(Self {
            parts,
            sealer: Sealer::new()?,
            gathered: Gathered::default(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            dropped,
            dropped_kept: dropped,
            underway,
        })
    }

    /// Works until all workers are gone, then commits what was gathered. Gives back its parts:
    /// state and books go on in the next pipeline.
    ///
    /// # Errors
    /// The spool has given up, or the operating system gives no randomness.
    pub fn run(&mut self, worked: &Receiver<Worked>) -> anyhow::Result<()> {
        loop {
            match self.receive(worked) {
                Ok(item) => {
                    self.waiting.insert(item.ticket, item);
                    while let Some(item) = self.waiting.remove(&self.next_ticket) {
                        self.next_ticket += 1;
                        self.take(item)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.flush()?,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            if self.linger_left() == Some(Duration::ZERO) {
                self.flush()?;
            }
        }
    }

    /// Commits what was gathered, and the gap for what was dropped if there is room for it; else it
    /// is told by the next committer.
    fn end(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        if self.dropped > 0 && !self.parts.spool.is_full(GAP_BYTES) {
            self.tell_dropped()?;
        }
        self.flush()
    }

    fn receive(&self, worked: &Receiver<Worked>) -> Result<Worked, RecvTimeoutError> {
        match self.linger_left() {
            Some(left) => worked.recv_timeout(left),
            None => worked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn linger_left(&self) -> Option<Duration> {
        let since = self.gathered.since?;
        let linger = match self.gathered.effects.promises.is_empty() {
            true => self.parts.linger,
            false => self.parts.linger.min(PROMISED_LINGER),
        };
        Some(linger.saturating_sub(self.parts.clock.monotonic().saturating_sub(since)))
    }

    fn source_id(&self, source: SourceIndex) -> String {
        self.parts.sources[usize::from(source.0)].0.clone()
    }

    fn take(&mut self, item: Worked) -> anyhow::Result<()> {
        match item.output {
            WorkedItem::Events(mut parts) => {
                let last = parts.pop();
                for part in parts {
                    self.take_events(part, 0)?;
                }
                // The chunk's bytes are given back when the last part of it is durable.
                last.map_or(Ok(()), |part| self.take_events(part, item.bytes))
            }
            WorkedItem::Other(other) => {
                self.gathered.effects.bytes += item.bytes;
                self.take_other(other)
            }
            WorkedItem::Own(act) => {
                self.gathered.effects.bytes += item.bytes;
                self.add_own(&act)
            }
        }
    }

    fn take_other(&mut self, item: Item) -> anyhow::Result<()> {
        self.start_linger();
        match item {
            Item::Records(_) | Item::Batch(_) => {
                anyhow::bail!("records reached the committer without a worker")
            }
            Item::Marks { source, marks } => {
                let id = self.source_id(source);
                self.gathered.effects.sources.insert(source);
                for mark in marks {
                    self.gathered.effects.mark(&id, mark);
                }
            }
            Item::Moved { source, position } => {
                let id = self.source_id(source);
                self.gathered.effects.sources.insert(source);
                self.gathered.effects.put(&id, position);
            }
            Item::Forget { source, identity } => {
                let id = self.source_id(source);
                self.gathered.effects.sources.insert(source);
                self.gathered.effects.delete(position_key(&id, &identity));
            }
            Item::Gap(notice) => self.take_gap(notice)?,
            Item::Refused(refused) => {
                let id = self.source_id(refused.source);
                let Refused { code, count, .. } = refused;
                log::warn!(source = id.as_str(), code = code, count = count; "{}", refused.text);
                self.add_own(&OwnAct::from_refused(&refused, &id))?;
            }
        }
        Ok(())
    }

    fn take_gap(&mut self, notice: Notice) -> anyhow::Result<()> {
        // What comes after the gap must not become durable without it.
        self.make_room(1, OWN_BYTES)?;
        let id = self.source_id(notice.source);
        let act = OwnAct::from_notice(&notice, &id);
        log::warn!(source = id.as_str(), code = notice.code; "gap: {}", notice.text);
        self.gathered.effects.sources.insert(notice.source);
        if let Some(position) = notice.after {
            self.gathered.effects.put(&id, position);
        }
        for mark in notice.marks {
            self.gathered.effects.mark(&id, mark);
        }
        let read = self.parts.books.of(&id).read;
        let fits = |records: &u64| read.saturating_add(*records) <= MAX_COUNT;
        // A number that no book could hold is a guess, and the books go on without it.
        if let Some(records) = notice.records.filter(fits) {
            let lost = SourceBook { read: records, gap: records, ..SourceBook::default() };
            self.gathered.effects.count(&id, &lost);
        }
        self.parts.sources[usize::from(notice.source.0)].1.count_gap();
        self.add_own(&act)
    }

    fn take_events(&mut self, parsed: Parsed, bytes: usize) -> anyhow::Result<()> {
        let id = self.source_id(parsed.source);
        self.parts.sources[usize::from(parsed.source.0)].1.count(&parsed.book, parsed.unmatched);
        match parsed.events {
            Events::Sealed(sealed) => {
                if self.gathered.effects.sources.contains(&parsed.source) {
                    self.flush()?;
                }
                let mut effects = Effects { bytes, ..Effects::default() };
                effects.count(&id, &parsed.book);
                effects.cover(parsed.coverage);
                effects.take_after(&id, parsed.after, parsed.promise);
                self.commit(Some(sealed), effects)
            }
            Events::Text { text, count, times } => {
                // A block must not hold an id twice.
                if self.gathered.effects.has_from_another(&parsed.coverage) {
                    self.flush()?;
                }
                self.make_room(count, text.len())?;
                self.start_linger();
                self.gather_text(text, count, times);
                let effects = &mut self.gathered.effects;
                effects.bytes += bytes;
                effects.sources.insert(parsed.source);
                effects.count(&id, &parsed.book);
                effects.cover(parsed.coverage);
                effects.take_after(&id, parsed.after, parsed.promise);
                Ok(())
            }
        }
    }

    fn add_own(&mut self, act: &OwnAct) -> anyhow::Result<()> {
        self.make_room(1, OWN_BYTES)?;
        self.start_linger();
        let now = self.parts.clock.now();
        let mut text = Vec::with_capacity(1024);
        self.parts.own.write(self.parts.state.next_own, now, act, &mut text);
        self.parts.state.next_own += 1;
        self.gather_text(text, 1, (now, now));
        let one = SourceBook { read: 1, stored: 1, ..SourceBook::default() };
        self.gathered.effects.count(OWN_INPUT, &one);
        if let OwnAct::Undelivered(gap) = act {
            self.gathered.effects.tells.push(gap.key());
        }
        Ok(())
    }

    fn make_room(&mut self, count: u32, bytes: usize) -> anyhow::Result<()> {
        let count = self.gathered.count + usize::try_from(count)?;
        if count > MAX_BLOCK_EVENTS || self.gathered.text.len() + bytes > GATHER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn start_linger(&mut self) {
        if self.gathered.since.is_none() {
            self.gathered.since = Some(self.parts.clock.monotonic());
        }
    }

    fn gather_text(&mut self, text: Vec<u8>, count: u32, times: (Timestamp, Timestamp)) {
        if count == 0 {
            return;
        }
        let gathered = &mut self.gathered;
        if gathered.text.is_empty() {
            gathered.text = text;
        } else {
            gathered.text.extend_from_slice(&text);
        }
        gathered.count += usize::try_from(count).unwrap_or(usize::MAX);
        gathered.times = Some(match gathered.times {
            None => times,
            Some((first, last)) => (first.min(times.0), last.max(times.1)),
        });
    }

    /// Commits what was gathered.
    fn flush(&mut self) -> anyhow::Result<()> {
        let Gathered { text, times, effects, .. } = std::mem::take(&mut self.gathered);
        let sealed = match times {
            None if effects.is_empty() => return Ok(()),
            None => None,
            Some(times) => Some(self.sealer.seal(&text, times, random_secret()?)?),
        };
        self.commit(sealed, effects)
    }

    /// One atomic batch: block (if there are events), positions, books, stream state.
    fn commit(&mut self, sealed: Option<Sealed>, mut effects: Effects) -> anyhow::Result<()> {
        let sealed = sealed.filter(|sealed| !self.drops(sealed, &mut effects));
        let has_block = sealed.is_some();
        self.append(sealed, effects)?;
        if has_block { self.tell_dropped() } else { Ok(()) }
    }

    /// Gathers the gap for what was dropped.
    fn tell_dropped(&mut self) -> anyhow::Result<()> {
        if self.dropped == 0 {
            return Ok(());
        }
        self.make_room(1, OWN_BYTES)?;
        // To make room may have told it.
        match std::mem::take(&mut self.dropped) {
            0 => Ok(()),
            records => {
                self.gathered.effects.told += records;
                self.add_own(&dropped_gap(records))
            }
        }
    }

    /// In a full spool that was told to drop, the newest events become a gap in the books.
    fn drops(&mut self, sealed: &Sealed, effects: &mut Effects) -> bool {
        if !self.parts.drop_when_full || !self.parts.spool.is_full(sealed.packed_len()) {
            return false;
        }
        self.dropped += std::mem::take(&mut effects.told);
        // The next start tells it.
        effects.tells.clear();
        for book in effects.counted.values_mut() {
            self.dropped += book.stored;
            book.gap += book.stored;
            book.stored = 0;
        }
        effects.coverage.clear();
        effects.puts.retain(|_, put| match put {
            Put::Position(_) => true,
            Put::Mark(mark) => mark.also_when_dropped,
        });
        for promise in effects.promises.drain(..) {
            promise.keep(Kept::Dropped);
        }
        true
    }

    fn append(&mut self, sealed: Option<Sealed>, effects: Effects) -> anyhow::Result<()> {
        let Effects { coverage, counted, puts, deletes, bytes, promises, tells, .. } = effects;
        let deletes = deletes.into_iter().chain(tells).collect();
        let mut batch = Batch { block: None, puts: Vec::new(), deletes };
        let mut books = BTreeMap::new();
        for (source, counted) in counted {
            let book = self.parts.books.add(&source, &counted);
            if let Some((_, counters)) = self.parts.sources.iter().find(|(id, _)| *id == source) {
                counters.set_book(book);
            }
            batch.puts.push(Books::saved(&source, &book)?);
            books.insert(source, book);
        }
        for (key, put) in puts {
            batch.puts.push((key, put.value()?));
        }
        self.keep_dropped(&mut batch);
        if let Some(sealed) = sealed {
            batch.block = Some(self.place(sealed, Accounts { coverage, books })?);
            batch.puts.push((StreamState::KEY.to_vec(), serde_json::to_vec(&self.parts.state)?));
        }
        let ticket = self.parts.spool.append(batch)?;
        self.underway
            .send(Underway { ticket, promises, bytes })
            .map_err(|_| anyhow::anyhow!("the spool has given up; see the log"))
    }

    /// Writes how much is untold after this batch, where that changes.
    fn keep_dropped(&mut self, batch: &mut Batch) {
        let untold = self.dropped + self.gathered.effects.told;
        match untold {
            same if same == self.dropped_kept => return,
            0 => batch.deletes.push(DROPPED_KEY.to_vec()),
            count => batch.puts.push((DROPPED_KEY.to_vec(), count.to_string().into_bytes())),
        }
        self.dropped_kept = untold;
    }

    fn place(&mut self, sealed: Sealed, accounts: Accounts) -> anyhow::Result<SpooledBlock> {
        let parts = &mut self.parts;
        let placement = Placement {
            agent: parts.identity.agent,
            host: parts.identity.host_id.clone(),
            key: parts.identity.key.id(),
            stream: parts.state.stream,
            seq: parts.state.next_seq,
            prev: parts.state.last_hash,
            sealed: parts.clock.now(),
        };
        let mut block: Block = sealed.place(placement, accounts);
        parts.identity.key.sign(&mut block);
        let Header { seq, .. } = block.header;
        let bytes = block.encode()?;
        parts.state.next_seq = seq.next();
        parts.state.last_hash = block.hash();
        Ok(SpooledBlock { seq: seq.get(), bytes: bytes.into() })
    }

    /// What the next committer goes on with: stream and books as they stand now.
    #[must_use]
    pub fn into_parts(self) -> CommitterParts {
        self.parts
    }
}

fn dropped_gap(records: u64) -> OwnAct {
    OwnAct::Gap {
        code: "spool_full".into(),
        text: format!(
            "The spool was full and `when_full: drop_newest` is set: {records} events were dropped."
        ),
        source: None,
        path: None,
        from: None,
        bytes: None,
        records: Some(records),
    }
}
