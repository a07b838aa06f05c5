//! Records that are not lines of a file, on the worker: each with its own envelope.
//!
//! A batch's events mostly fit in one block. Where a rule pack makes several events of a record
//! they may not; then the batch is cut between two records, and each part has its own range and
//! the mark of its last record. Whoever waits for the batch waits for its last part.

use custody_event::position::delivery_key;
use custody_event::{Coverage, FileKey, MAX_BLOCK_EVENTS, Offset, Sealer, Timestamp};
use custody_parsers::{Envelope, Given, Run, Scratch};

use super::append::append;
use super::worker::{After, HashOf, PART_BYTES, Parsed, SourceContext, Tally, hashed, len_u64};
use crate::sources::batch::RecordAt;
use crate::sources::{Known, Mark, RecordBatch, SaidBy, Way};

/// Parses a batch into as many parts as it needs blocks.
pub(super) fn parse(
    source: &SourceContext,
    mut batch: RecordBatch,
    scratch: &mut Scratch,
    text: &mut Vec<u8>,
    hashes: &mut Vec<HashOf>,
    sealer: &mut Sealer,
) -> anyhow::Result<Vec<Parsed>> {
    text.clear();
    hashes.clear();
    let promise = batch.promise.take();
    let marks = std::mem::take(&mut batch.marks);
    let place = batch.place.identity.key(&source.host_id);
    let first = batch.records.first().map_or(Offset(0), |record| record.offset);
    let mut parts = Parts {
        source,
        batch: &batch,
        from: first,
        tally: Tally::new(),
        done: Vec::new(),
        last: None,
        text,
        hashes,
        sealer,
    };
    let mut at = 0;
    while at < batch.records.len() {
        let way = batch.records[at].way;
        let same = batch.records[at..].iter().take_while(|record| record.way == way).count();
        let envelope = envelope(source, &batch.ways[way], place, batch.observed);
        let mut run = source.parser.run(scratch, &envelope);
        for number in at..at + same {
            parts.record(&mut run, number)?;
        }
        at += same;
    }
    parts.end(marks, promise)?;
    Ok(parts.done)
}

struct Parts<'a> {
    source: &'a SourceContext,
    batch: &'a RecordBatch,
    /// Where the part that is being made begins.
    from: Offset,
    tally: Tally,
    done: Vec<Parsed>,
    /// The part's last record.
    last: Option<usize>,
    text: &'a mut Vec<u8>,
    hashes: &'a mut Vec<HashOf>,
    sealer: &'a mut Sealer,
}

impl Parts<'_> {
    fn record(&mut self, run: &mut Run<'_>, number: usize) -> anyhow::Result<()> {
        let (length, stored) = (self.text.len(), self.tally.book.stored);
        let mut record = Tally::new();
        self.append(run, number, &mut record);
        let full =
            stored + record.book.stored > len_u64(MAX_BLOCK_EVENTS) || self.text.len() > PART_BYTES;
        if full && self.last.is_some() {
            let events = self.text.split_off(length);
            self.end(Vec::new(), None)?;
            *self.text = events;
        }
        self.tally.add(&record);
        self.last = Some(number);
        Ok(())
    }

    /// Appends the events of a record, each with its line end; counts it once.
    fn append(&mut self, run: &mut Run<'_>, number: usize, tally: &mut Tally) {
        let begin = number.checked_sub(1).map_or(0, |before| self.batch.records[before].end);
        let RecordAt { end, offset, segment, ref known, .. } = self.batch.records[number];
        let record = &self.batch.bytes[begin..end];
        let given = self.given(known.as_deref());
        let hash = append(run, record, offset, segment, given, self.text, tally);
        let event_end = self.text.len();
        self.hashes.extend(hash.map(|hash| HashOf { event_end, place: begin..end, hash }));
    }

    fn given<'k>(&self, known: Option<&'k Known>) -> Given<'k> {
        let Some(known) = known else { return Given::default() };
        let name = known.delivery.as_ref().map(|(delivery, number)| {
            let key = delivery_key(&self.source.host_id, &self.source.id, delivery);
            (key, Offset(*number))
        });
        Given {
            name,
            cursor: known.cursor.as_deref(),
            said: known.said.as_ref().map(SaidBy::said),
            ..Given::default()
        }
    }

    fn mark_of(&self, last: &RecordAt) -> Option<Vec<u8>> {
        match &self.batch.mark_of {
            Some(mark_of) => mark_of.value(last),
            None => last.known.as_ref()?.mark.clone(),
        }
    }

    /// Makes a part of what was parsed since the last one.
    fn end(
        &mut self,
        mut marks: Vec<Mark>,
        promise: Option<crate::sources::Promise>,
    ) -> anyhow::Result<()> {
        let tally = std::mem::replace(&mut self.tally, Tally::new());
        let last = self.last.take();
        let parts = self.batch.mark_parts.as_ref().zip(last);
        marks.extend(parts.map(|(parts, number)| parts.mark(&self.batch.mark_key, number)));
        let last = last.map(|number| &self.batch.records[number]);
        let to = last.map_or(self.from, |record| record.offset.plus(1));
        let mark = last.and_then(|record| self.mark_of(record));
        marks.extend(mark.map(|value| Mark {
            key: self.batch.mark_key.clone(),
            value: Some(value),
            also_when_dropped: true,
        }));
        let hashed = hashed(&self.batch.bytes, self.hashes);
        let observed = self.batch.observed;
        let events = tally.events(self.text, hashed, observed, self.sealer, promise.is_some())?;
        self.done.push(Parsed {
            source: self.batch.source,
            book: tally.book,
            unmatched: tally.unmatched,
            coverage: Coverage {
                file: self.batch.place.identity.clone(),
                from: self.from,
                path: self.batch.place.path.clone(),
                records: tally.records,
                source: self.source.id.clone(),
                to,
            },
            after: After::Marks(marks),
            promise,
            events,
        });
        self.from = to;
        self.text.clear();
        self.hashes.clear();
        Ok(())
    }
}

fn envelope<'a>(
    source: &'a SourceContext,
    way: &'a Way,
    place: FileKey,
    observed: Timestamp,
) -> Envelope<'a> {
    Envelope {
        host: &source.host,
        tenant: &source.tenant,
        agent: &source.agent,
        input: &source.id,
        unit: way.unit.as_deref(),
        endpoint: way.endpoint.as_deref(),
        service: way.service.as_deref(),
        verdict: way.verdict.as_deref(),
        details: &way.details,
        labels: &source.labels,
        file: place,
        ..Envelope::bare(observed)
    }
}
