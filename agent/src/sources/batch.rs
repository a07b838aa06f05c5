//! Records that are not lines of a file: journal entries, webhook deliveries, syslog messages.
//!
//! A [`RecordBatch`] is to such a source what a [`super::Chunk`] is to the file source: a run of
//! whole records, in order, that becomes durable in one piece together with what the source must
//! remember ([`Mark`]).
//!
//! **Where a record stands.** Instead of a file there is a *place* ([`Place`]) and instead of the
//! byte offset a number that grows: a journal's sequence number, or a counter of pushed records in
//! a place that is made anew, with a random name, whenever the source starts. So a block says what
//! it covers in the same words as for files, and what has to be sent once more in a new stream is
//! known again by the collector.
//!
//! **Ids.** From place, number and record; where the sender names its delivery, from that name
//! and the record's number in the delivery, so that a delivery that comes again has the same ids.
//!
//! **Limits.** [`super::MAX_CHUNK_BYTES`] and [`super::MAX_CHUNK_RECORDS`] ([`RecordBatch::push`]
//! says when it is full), but a single record may have up to [`MAX_RECORD_BYTES`] (the source cuts longer ones). A record longer
//! than an event keeps becomes an event (with all its fields) and numbered segments with the rest
//! of its bytes. A mark's key has at most 900 bytes, its value 16 KiB.
//!
//! **Failures.** Whoever waits for a batch holds a [`Promise`]; it is kept when everything is
//! durable, and broken when the records were dropped or the pipeline has ended without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use custody_event::{FileIdentity, Offset, Timestamp};
use custody_parsers::Said;
use tokio::sync::oneshot;

use super::{FileRef, MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, SourceIndex};

/// A single record's bytes, at most: even where nothing of it can be compressed its segments fit in
/// one block.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// What a source remembers, in the same atomic batch as the events that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The key within the source.
    pub key: Vec<u8>,
    /// The value; `None` forgets it.
    pub value: Option<Vec<u8>>,
    /// Is it written also where a full spool drops the events? A position is: the records are
    /// passed. The memory of a delivery is not: the sender is told to send it again.
    pub also_when_dropped: bool,
}

/// A source's marks as the spool kept them: keys and values.
pub type SavedMarks = Vec<(Vec<u8>, Vec<u8>)>;

/// What records that came the same way have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The systemd unit.
    pub unit: Option<String>,
    /// The webhook's path.
    pub endpoint: Option<String>,
    /// The program.
    pub service: Option<String>,
    /// What was found when the sender was checked.
    pub verdict: Option<String>,
    /// For `details`: the peer's address.
    pub details: Vec<(String, String)>,
}

/// An envelope that the source has taken off (a journal's entry has it in fields), its texts one
/// after the other in one piece of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaidBy {
    texts: String,
    /// Bytes of the message.
    message: usize,
    /// Bytes of the kind, the host, the service and the process, where they are known.
    others: [Option<usize>; 4],
    time: Option<Timestamp>,
    priority: Option<u8>,
}

impl SaidBy {
    /// A copy of what was said.
    #[must_use]
    pub fn of(said: &Said<'_>) -> Self {
        let others = [said.kind, said.host, said.service, said.pid];
        let all = || std::iter::once(said.message).chain(others.into_iter().flatten());
        let mut texts = String::with_capacity(all().map(str::len).sum());
        all().for_each(|text| texts.push_str(text));
        Self {
            texts,
            message: said.message.len(),
            others: others.map(|text| text.map(str::len)),
            time: said.time,
            priority: said.priority,
        }
    }

    /// What was said.
    #[must_use]
    pub fn said(&self) -> Said<'_> {
        let (message, mut rest) = self.texts.split_at(self.message);
        let [kind, host, service, pid] = self.others.map(|len| {
            let text;
            (text, rest) = rest.split_at(len?);
            Some(text)
        });
        Said { message, kind, time: self.time, host, service, pid, priority: self.priority }
    }

    /// Bytes of its texts.
    fn len_bytes(&self) -> usize {
        self.texts.len()
    }
}

/// What is known of one record beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The sender's id of the delivery, and the record's number in it.
    pub delivery: Option<(Arc<str>, u64)>,
    /// Shown as `origin.cursor`.
    pub cursor: Option<String>,
    /// The envelope.
    pub said: Option<SaidBy>,
    /// What [`RecordBatch::mark_key`] is set to if a block ends with this record: a batch may need
    /// several blocks where a rule pack makes several events of a record.
    pub mark: Option<Vec<u8>>,
}

/// One record of a batch.
#[derive(Debug)]
pub struct RecordAt {
    /// One beyond its last byte in the batch's bytes.
    pub end: usize,
    /// Its number in the place.
    pub offset: Offset,
    /// Which of the batch's ways.
    pub way: usize,
    /// The piece's number, where the source had to cut a record.
    pub segment: Option<u32>,
    /// What else is known of it.
    pub known: Option<Box<Known>>,
}

/// A value that grows with each record by as many bytes: where a block ends with the batch's record
/// `n`, counted from 0, [`RecordBatch::mark_key`] is set to the first `n + 1` times so many bytes of it.
#[derive(Debug)]
pub struct MarkParts {
    /// For all records.
    pub value: Vec<u8>,
    /// Bytes of each.
    pub stride: usize,
}

impl MarkParts {
    /// What is kept where a block ends with this record. Not where a full spool drops it: then the
    /// records are not stored.
    #[must_use]
    pub fn mark(&self, key: &[u8], record: usize) -> Mark {
        let end = record.saturating_add(1).saturating_mul(self.stride).min(self.value.len());
        let value = Some(self.value[..end].to_vec());
        Mark { key: key.to_vec(), value, also_when_dropped: false }
    }
}

/// How a source remembers how far it was read, where every record could be the last of a block and
/// making it for each would be dear.
pub trait MarkOf: std::fmt::Debug + Send + Sync {
    /// What [`RecordBatch::mark_key`] is set to where a block ends with this record.
    fn value(&self, record: &RecordAt) -> Option<Vec<u8>>;
}

/// A run of whole records of one source that is no file.
#[derive(Debug)]
pub struct RecordBatch {
    /// Whose.
    pub source: SourceIndex,
    /// The place, and how people call it (`path`): `journal`, `/github`, `udp 0.0.0.0:514`.
    pub place: Arc<FileRef>,
    /// The records, one after the other.
    pub bytes: Vec<u8>,
    /// Where each ends; their offsets grow.
    pub records: Vec<RecordAt>,
    /// The ways that the records name.
    pub ways: Vec<Arc<Way>>,
    /// When they were read.
    pub observed: Timestamp,
    /// The mark that a record's own mark is for.
    pub mark_key: Vec<u8>,
    /// The same for all records at once.
    pub mark_parts: Option<MarkParts>,
    /// The same, made when it is asked for.
    pub mark_of: Option<Box<dyn MarkOf>>,
    /// Written with the last of the records.
    pub marks: Vec<Mark>,
    /// Whoever waits for it.
    pub promise: Option<Promise>,
}

impl RecordBatch {
    /// An empty one.
    #[must_use]
    pub fn new(source: SourceIndex, place: Arc<FileRef>, observed: Timestamp) -> Self {
        Self {
            source,
            place,
            bytes: Vec::new(),
            records: Vec::new(),
            ways: Vec::new(),
            observed,
            mark_key: Vec::new(),
            mark_parts: None,
            mark_of: None,
            marks: Vec::new(),
            promise: None,
        }
    }

    /// Takes the memory for so many records and bytes at once.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.records.reserve(records);
        self.bytes.reserve(bytes);
    }

    /// Is there room for a record of so many bytes? An empty batch takes any.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.records.is_empty()
            || (self.records.len() < MAX_CHUNK_RECORDS
                && self.bytes.len().saturating_add(bytes) <= MAX_CHUNK_BYTES)
    }

    /// Adds a record; false (and nothing is added) where the batch is full.
    pub fn push(
        &mut self,
        record: &[u8],
        offset: Offset,
        way: &Arc<Way>,
        segment: Option<u32>,
        known: Option<Known>,
    ) -> bool {
        if !self.has_room(record.len()) {
            return false;
        }
        self.add(record, offset, way, segment, known);
        true
    }

    /// Adds a record whether there is room or not: for records that came in one request, whose
    /// size was looked at before.
    pub fn add(
        &mut self,
        record: &[u8],
        offset: Offset,
        way: &Arc<Way>,
        segment: Option<u32>,
        known: Option<Known>,
    ) {
        if self.ways.last() != Some(way) {
            self.ways.push(Arc::clone(way));
        }
        self.bytes.extend_from_slice(record);
        self.records.push(RecordAt {
            end: self.bytes.len(),
            offset,
            way: self.ways.len() - 1,
            segment,
            known: known.map(Box::new),
        });
    }

    /// Numbers the records from `first` on: for pushed records, just before they are handed on.
    pub fn number_from(&mut self, first: u64) {
        for (offset, record) in (first..).zip(&mut self.records) {
            record.offset = Offset(offset);
        }
    }

    /// What it costs at the gate beside its bytes.
    #[must_use]
    pub fn extra_bytes(&self) -> usize {
        let known = self.records.iter().filter_map(|record| record.known.as_ref());
        let said = known.map(|known| {
            let said = known.said.as_ref().map_or(0, SaidBy::len_bytes);
            size_of::<Known>() + said + known.mark.as_ref().map_or(0, Vec::len)
        });
        let marks = self.marks.iter().map(|mark| mark.value.as_ref().map_or(64, |v| v.len() + 64));
        self.records.len() * size_of::<RecordAt>() + said.sum::<usize>() + marks.sum::<usize>()
    }
}

/// Where a source's pushed records stand: a place of its own for each time that it starts.
#[derive(Debug)]
pub struct Place {
    file: Arc<FileRef>,
    next: AtomicU64,
}

impl Place {
    /// A new place; `name` is random. `path` is how people call it.
    #[must_use]
    pub fn new(name: [u8; 16], path: String) -> Self {
        let identity = FileIdentity::of_place("pushed", &name);
        Self { file: Arc::new(FileRef { identity, path }), next: AtomicU64::new(0) }
    }

    /// As batches name it.
    #[must_use]
    pub fn file(&self) -> &Arc<FileRef> {
        &self.file
    }

    /// Gives a batch's records the next numbers.
    pub fn number(&self, batch: &mut RecordBatch) {
        let count = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
        batch.number_from(self.next.fetch_add(count, Ordering::Relaxed));
    }
}

/// Tells whoever waits that records are durable. Dropped without a word, it is broken.
#[derive(Debug)]
pub struct Promise(oneshot::Sender<Kept>);

/// How a promise ended that was not broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Everything is durable.
    Durable,
    /// The spool is full and set to drop: the records are a gap in the books.
    Dropped,
}

impl Promise {
    /// A promise, and the end at which it is waited for (an error there: it was broken).
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<Kept>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Says how it ended.
    pub fn keep(self, kept: Kept) {
        let _not_waited_for = self.0.send(kept);
    }
}
