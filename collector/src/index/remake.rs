//! Makes days of the index anew after events of theirs have gone from the log.
//!
//! # Life of a day
//! Whoever has taken events out of segments calls [`EmbeddedStore::remake`] (it blocks, for seconds
//! a million events). The runner commits what it has read, so that it is known which days hold
//! something of those segments. Each such day is read from the log again into `<day>.new`, beside
//! the one that is searched; then the runner adds what has come meanwhile and puts it in the old
//! one's place by renaming. A search sees the old day or the new one, and of the old one no event
//! that is gone: its text is not in the log any more.
//!
//! # Failures
//! A stop ends it between two blocks; the next start removes what was being made. A crash leaves the old day, the new one, or both names of a renaming that the next start ends
//! ([`partition::end_swaps`]). What failed is asked for again.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use tantivy::IndexWriter;
use tokio::sync::oneshot;

use super::embedded::{EmbeddedStore, Request, Shared};
use super::partition::{self, Partition};
use super::runner::writer_of;
use super::schema::{Documents, Fields, pack_place};
use super::{IndexError, IndexOptions};
use crate::store::{BlockSource, LogCursor, StoredBlock};

/// Terms handed to the writer between commits, at most.
const MAX_PENDING_BYTES: usize = 96 * 1024 * 1024;

impl EmbeddedStore {
    /// Makes all that is derived from these segments anew; they have lost events. Blocks until it
    /// can be searched.
    ///
    /// # Errors
    /// The log cannot be read, the index cannot be written, or the collector is stopping.
    pub(crate) fn remake(&self, segments: &BTreeSet<u64>) -> Result<(), IndexError> {
        self.blocks.forget(segments);
        self.ask(Request::Commit)?;
        let dir = &self.options.dir;
        for day in self.shared.days_of(segments) {
            let Some(old) = self.shared.partition(&day) else { continue };
            let name = partition::anew(&day);
            partition::remove(&dir.join(&name))?;
            let new = Partition::create(dir, &name, old.payload.from)?;
            let remaking = Remaking::go_on(new, &self.options, &*self.source, &self.shared)?;
            remaking.read_up_to(old.payload.next)?;
            self.ask(|done| Request::Swap(day, done))?;
        }
        partition::remove_asides(dir)?;
        // A search may have read a block just before it lost its events.
        self.blocks.forget(segments);
        Ok(())
    }

    fn ask(&self, request: impl FnOnce(oneshot::Sender<()>) -> Request) -> Result<(), IndexError> {
        let (done, answer) = oneshot::channel();
        let request = request(done);
        match self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(requests) => requests.push(request),
            None => return Err(IndexError::Stopped),
        }
        answer.blocking_recv().map_err(|_| IndexError::Stopped)
    }
}

/// A day that is being made anew.
pub(super) struct Remaking<'a> {
    partition: Partition,
    writer: IndexWriter,
    documents: Documents,
    source: &'a dyn BlockSource,
    shared: &'a Shared,
    pending_bytes: usize,
}

impl<'a> Remaking<'a> {
    pub(super) fn go_on(
        partition: Partition,
        options: &IndexOptions,
        source: &'a dyn BlockSource,
        shared: &'a Shared,
    ) -> Result<Self, IndexError> {
        let writer = writer_of(&partition, options)?;
        let documents = Documents::new(Fields::schema().1);
        Ok(Self { partition, writer, documents, source, shared, pending_bytes: 0 })
    }

    /// Reads the log from where the day stands up to here, and commits.
    pub(super) fn read_up_to(mut self, to: LogCursor) -> Result<(), IndexError> {
        let mut at = self.partition.payload.next;
        while at < to {
            self.shared.go_on()?;
            let Some(stored) = self.source.next_from(at)?.filter(|stored| stored.at < to) else {
                break;
            };
            at = stored.next;
            self.add(&stored)?;
            if self.pending_bytes >= MAX_PENDING_BYTES {
                self.commit(at)?;
            }
        }
        self.commit(to.max(self.partition.payload.next))?;
        self.writer.wait_merging_threads()?;
        Ok(())
    }

    fn commit(&mut self, next: LogCursor) -> Result<(), IndexError> {
        let payload = partition::Payload { next, ..self.partition.payload };
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(&payload.to_text()?);
        prepared.commit()?;
        self.partition.payload = payload;
        self.pending_bytes = 0;
        Ok(())
    }

    fn add(&mut self, stored: &StoredBlock) -> Result<(), IndexError> {
        let at = stored.at;
        let place =
            pack_place(at).ok_or(IndexError::Beyond { segment: at.segment, offset: at.offset })?;
        let (writer, pending) = (&self.writer, &mut self.pending_bytes);
        let skipped = self.documents.of_block(stored, place, |document, bytes| {
            writer.add_document(document)?;
            *pending += bytes;
            Ok(())
        })?;
        self.partition.payload.skipped += skipped;
        Ok(())
    }
}
