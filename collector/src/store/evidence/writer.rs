//! The one thread that owns the files. It takes blocks from a bounded queue, puts each at its
//! place in its stream, appends all of a batch, syncs once, and then answers all.
//!
//! **Order.** A block that comes before its predecessor (an agent sends up to four at once) waits
//! at most [`PARK_MS`] in a small room of its stream.
//!
//! **Full disk.** The part that was written is cut off again, the batch is answered "unavailable",
//! and the next batch tries anew: nothing has to be restarted when there is room again.
//!
//! **Failed sync.** After a failed fdatasync the kernel may have dropped the pages and call the
//! next one a success. So the file is never written on: it is opened again, cut to what had been
//! durable before, synced, its pages are dropped and it is read back from the disk; then a new
//! segment is begun. If any of this fails the writer gives up for good and the process ends (74);
//! the next start judges what is on the disk.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use custody_event::{Clock, Digest, Seq};
use custody_evidence::keyring::KeyringError;
use custody_evidence::{Chain, Entry, SignatureError};

use super::Shared;
use super::frame;
use super::ledger::{Standing, StreamName};
use super::mark::Mark;
use super::note::{DurableFile, Note, SidecarBuilder};
use super::reader::read_frame;
use super::recover::{begin, last_crc, note, open_rw, write_sidecar};
use super::segment::{HEADER_BYTES, Segment, day_in, day_of};
use super::submit::{Outcome, Submission, Work};
use crate::store::{LogCursor, Receipt, StoreError};
use crate::tlog::SAVE_EVERY;

/// How long a block waits for its predecessor, in milliseconds.
const PARK_MS: u64 = 250;
/// Blocks of one stream that wait for a predecessor, at most.
const MAX_PARKED: usize = 16;
/// A batch is synced when it has grown to this many bytes.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// What a sender is told when the disk is full.
const FULL_RETRY_S: u32 = 10;

/// How the file is made durable; tests put failures in its place.
pub(super) type Sync = Arc<dyn Fn(&File) -> std::io::Result<()> + Send + std::marker::Sync>;

/// See the module.
pub(super) struct Writer {
    pub(super) root: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) queue: Receiver<Work>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sync: Sync,
    pub(super) segment: Segment,
    pub(super) file: File,
    pub(super) sidecar: SidecarBuilder,
    pub(super) mark: Mark,
    pub(super) batch: Batch,
    pub(super) parked: HashMap<StreamName, BTreeMap<Seq, Parked>>,
    /// The last sync failed, and the segment must not be written on.
    pub(super) distrusted: bool,
}

/// A block that waits for its predecessor.
pub(super) struct Parked {
    submission: Submission,
    until: Duration,
}

/// What will become durable together.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    notes: Vec<Note>,
    /// What enters the transparency log.
    entries: Vec<Vec<u8>>,
    answers: Vec<(Submission, Outcome)>,
    chains: HashMap<StreamName, Chain>,
    hashes: HashMap<(StreamName, Seq), Digest>,
    files: HashMap<(String, DurableFile), StreamName>,
}

impl Batch {
    /// Does the submission's held decision rest on something that this batch changes?
    fn concerns(&self, submission: &Submission) -> bool {
        let name = submission.name();
        let host = &submission.block().header.host;
        if !submission.basis.0.is_empty() && self.notes.iter().any(|note| note.host == *host) {
            return true;
        }
        submission.coverage().iter().any(|covered| {
            let key = (host.clone(), DurableFile::from(&covered.file));
            self.files.get(&key).is_some_and(|other| *other != name)
        })
    }

    fn take(&mut self, submission: Submission, note: Note) {
        let name = submission.name();
        let chain = self.chains.entry(name).or_insert_with(|| Chain::new(name.1));
        chain.advance(submission.block());
        self.hashes.insert((name, note.seq), note.hash);
        for span in &note.spans {
            self.files.insert((note.host.clone(), span.file), name);
        }
        self.answers.push((submission, Outcome::Stored { next_seq: note.seq.next() }));
        self.notes.push(note);
    }

    fn clear(&mut self) -> Vec<(Submission, Outcome)> {
        self.bytes.clear();
        self.notes.clear();
        self.entries.clear();
        self.chains.clear();
        self.hashes.clear();
        self.files.clear();
        std::mem::take(&mut self.answers)
    }
}

impl Writer {
    /// Runs until all senders are gone and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            match self.queue.recv_timeout(self.wait()) {
                Ok(first) => {
                    self.work(first);
                    while self.batch.bytes.len() < MAX_BATCH_BYTES
                        && let Ok(next) = self.queue.try_recv()
                    {
                        self.work(next);
                    }
                    self.commit();
                    self.expire(self.clock.monotonic());
                }
                Err(RecvTimeoutError::Timeout) => self.expire(self.clock.monotonic()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.save_checkpoint(self.clock.monotonic());
        }
        self.expire(Duration::MAX);
        self.save_checkpoint(Duration::MAX);
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Block(submission) => self.admit(*submission),
            Work::Close(answer) => {
                let done = self.close_segment();
                if answer.send(done).is_err() {
                    log::debug!("nobody waits for the end of a segment any more");
                }
            }
            Work::Statement(entry, answer) => {
                // Blocks that came before stand before.
                self.commit();
                let done = match &self.shared.tlog {
                    Some(tlog) => tlog.state(&entry, self.clock.monotonic()),
                    None => Ok(0),
                };
                if answer.send(done).is_err() {
                    log::debug!("nobody waits for a statement's answer any more");
                }
            }
        }
    }

    /// Writes the transparency log's checkpoint to disk where that is due.
    fn save_checkpoint(&self, now: Duration) {
        let Some(tlog) = &self.shared.tlog else { return };
        if let Err(error) = tlog.save_if_due(now) {
            log::warn!(error:% = error; "the checkpoint could not be written; it is tried again");
        }
    }

    fn wait(&self) -> Duration {
        let now = self.clock.monotonic();
        self.parked
            .values()
            .flat_map(BTreeMap::values)
            .map(|parked| parked.until.saturating_sub(now))
            .min()
            // Nobody waits: the queue wakes us, or the checkpoint that is not on disk yet.
            .unwrap_or(SAVE_EVERY)
    }

    /// Puts a block, and those that waited for it, into the batch; or answers it.
    fn admit(&mut self, first: Submission) {
        let mut next = Some(first);
        while let Some(submission) = next.take() {
            let (name, seq) = (submission.name(), submission.block().header.seq);
            if self.place(submission) {
                next = self.unpark(&name, seq.next());
            }
        }
    }

    fn unpark(&mut self, name: &StreamName, seq: Seq) -> Option<Submission> {
        let room = self.parked.get_mut(name)?;
        let parked = room.remove(&seq)?;
        if room.is_empty() {
            self.parked.remove(name);
        }
        Some(parked.submission)
    }

    /// Is it in the batch now?
    fn place(&mut self, submission: Submission) -> bool {
        if let Some(reason) = self.shared.failure() {
            submission.answer(Outcome::unavailable(reason, FULL_RETRY_S));
            return false;
        }
        if self.batch.concerns(&submission) {
            self.commit();
        }
        // Before the look at the chain: it may commit, and that may fail.
        if let Err(error) = self.make_room(submission.bytes().len()) {
            log::error!(error:% = error; "cannot begin a segment; blocks are refused for now");
            submission.answer(Outcome::unavailable(error.to_string(), FULL_RETRY_S));
            return false;
        }
        let (name, seq) = (submission.name(), submission.block().header.seq);
        let standing = match self.batch.chains.get(&name) {
            Some(chain) => Standing::Next(chain.clone()),
            None => self.shared.ledger().standing(&name, seq),
        };
        let chain = match standing {
            Standing::Next(chain) => chain,
            // Durable meanwhile: the sender's side looks again.
            Standing::Here(_) => {
                submission.answer(Outcome::Recheck);
                return false;
            }
            Standing::Later => {
                self.park(submission);
                return false;
            }
        };
        match seq.cmp(&chain.next_seq) {
            std::cmp::Ordering::Less => self.again(submission),
            std::cmp::Ordering::Greater => self.park(submission),
            std::cmp::Ordering::Equal => return self.stage(submission, &chain),
        }
        false
    }

    /// The number is in the batch, or durable.
    fn again(&mut self, submission: Submission) {
        let (name, seq) = (submission.name(), submission.block().header.seq);
        let next_seq = seq.next();
        match self.batch.hashes.get(&(name, seq)) {
            Some(hash) if *hash == submission.block().hash() => {
                self.batch.answers.push((submission, Outcome::Again { next_seq }));
            }
            Some(_) => submission.answer(Outcome::Forked { expected_seq: next_seq }),
            None => submission.answer(Outcome::Recheck),
        }
    }

    fn park(&mut self, submission: Submission) {
        let until = self.clock.monotonic() + Duration::from_millis(PARK_MS);
        let (name, seq) = (submission.name(), submission.block().header.seq);
        let expected_seq = self.shared.ledger().next_seq(&name);
        let room = self.parked.entry(name).or_default();
        if room.len() >= MAX_PARKED {
            submission.answer(Outcome::Later { expected_seq });
        } else if let Some(before) = room.insert(seq, Parked { submission, until }) {
            before.submission.answer(Outcome::Later { expected_seq });
        }
    }

    fn expire(&mut self, now: Duration) {
        let shared = Arc::clone(&self.shared);
        self.parked.retain(|name, room| {
            let expected_seq = shared.ledger().next_seq(name);
            for (_, parked) in room.extract_if(.., |_, parked| parked.until <= now) {
                parked.submission.answer(Outcome::Later { expected_seq });
            }
            !room.is_empty()
        });
    }

    /// Checks what only the log's order can tell, and puts the frame into the batch.
    fn stage(&mut self, submission: Submission, chain: &Chain) -> bool {
        let (name, header) = (submission.name(), &submission.block().header);
        if chain.check(submission.block()).is_err() {
            submission.answer(Outcome::Forked { expected_seq: chain.next_seq });
            return false;
        }
        if let Some(error) = self.key_trouble(&submission) {
            submission.answer(Outcome::BadKey { error });
            return false;
        }
        let Some(entry) = Entry::of_block(submission.block()) else {
            let error = SignatureError::Missing(header.seq).into();
            submission.answer(Outcome::BadKey { error });
            return false;
        };
        let basis = self.shared.ledger().basis(&name, &header.host, submission.coverage());
        if basis != submission.basis {
            submission.answer(Outcome::Recheck);
            return false;
        }
        self.batch.chains.entry(name).or_insert_with(|| chain.clone());
        let receipt =
            Receipt { held: submission.decision.ranges.clone(), received: self.clock.now() };
        let at = LogCursor { segment: self.segment.number, offset: self.end() };
        if let Err(error) = frame::push(&receipt, submission.bytes(), &mut self.batch.bytes) {
            submission.answer(Outcome::unavailable(error.to_string(), FULL_RETRY_S));
            return false;
        }
        let noted =
            note(submission.block(), submission.coverage(), &submission.decision, &receipt, at);
        self.batch.entries.push(entry.encode());
        self.batch.take(submission, noted);
        true
    }

    /// A statement may have come between the check of the signature and now: then it is checked
    /// again.
    fn key_trouble(&self, submission: &Submission) -> Option<KeyringError> {
        let tlog = self.shared.tlog.as_ref()?;
        if tlog.version() == submission.keys_version() {
            return None;
        }
        tlog.check(submission.block()).err()
    }

    /// Where the next frame will stand.
    fn end(&self) -> u64 {
        self.segment.len + u64::try_from(self.batch.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Begins a new segment where this one is full, of yesterday, or distrusted.
    fn make_room(&mut self, block_len: usize) -> Result<(), StoreError> {
        let more = u64::try_from(block_len + frame::MAX_RECEIPT_BYTES).unwrap_or(u64::MAX);
        let full = self.end().saturating_add(more) > self.segment_bytes;
        let over = day_of(self.clock.now()).as_str() > day_in(&self.segment.path);
        if !self.distrusted && !full && !over {
            return Ok(());
        }
        self.commit();
        if self.segment.len > HEADER_BYTES || self.distrusted {
            self.roll()?;
        }
        Ok(())
    }

    /// Ends the segment, unless it is empty: what stands in it can be written anew.
    fn close_segment(&mut self) -> Result<(), StoreError> {
        self.commit();
        if self.segment.len > HEADER_BYTES { self.roll() } else { Ok(()) }
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let crc = last_crc(&self.segment)?;
        let next = begin(&self.root, &*self.clock, Some((&self.segment, crc)))?;
        let file = open_rw(&next.path)?;
        if let Err(error) = write_sidecar(&self.segment, &self.sidecar) {
            log::warn!(
                error:% = error, segment:% = self.segment.path.display();
                "a sidecar could not be written; it will be made at the next start"
            );
        }
        self.segment = next;
        self.file = file;
        self.sidecar = SidecarBuilder::default();
        self.distrusted = false;
        self.shared.reader.put(self.segment.clone());
        Ok(())
    }

    /// Makes the batch durable and answers it.
    fn commit(&mut self) {
        if self.batch.notes.is_empty() {
            // Answers to blocks that came again wait only for blocks of the same batch.
            return self.refuse("the block's first copy was not stored".to_owned());
        }
        if let Err(error) = self.file.write_all_at(&self.batch.bytes, self.segment.len) {
            log::error!(
                error:% = error, segment:% = self.segment.path.display();
                "blocks cannot be written; they are refused for now, and senders keep them"
            );
            self.cut_back();
            return self.refuse(format!("the evidence log cannot be written: {error}"));
        }
        if let Err(error) = (self.sync)(&self.file) {
            log::error!(
                error:% = error, segment:% = self.segment.path.display();
                "a sync failed; the segment is checked and closed"
            );
            self.heal();
            return self.refuse(format!("the evidence log cannot be synced: {error}"));
        }
        self.segment.len = self.end();
        self.publish();
    }

    fn publish(&mut self) {
        let end = LogCursor { segment: self.segment.number, offset: self.segment.len };
        if let Err(error) = self.mark.write(end) {
            log::warn!(error:% = error; "the durable mark could not be written");
        }
        self.shared.reader.put(self.segment.clone());
        {
            let mut ledger = self.shared.ledger.write().unwrap_or_else(PoisonError::into_inner);
            self.batch.notes.iter().for_each(|note| ledger.apply(note));
        }
        self.batch.notes.iter().for_each(|note| self.sidecar.push(note));
        self.shared.end.send_replace(end);
        if let Some(reason) = self.log_entries() {
            return self.refuse(reason);
        }
        for (submission, outcome) in self.batch.clear() {
            submission.answer(outcome);
        }
    }

    /// The batch is durable: its headers enter the transparency log. Says why they could not; then
    /// nothing is acknowledged, and the sender's next attempt makes the checkpoint.
    fn log_entries(&mut self) -> Option<String> {
        let tlog = self.shared.tlog.as_ref()?;
        let entries = self.batch.entries.iter().map(Vec::as_slice);
        let error = tlog.take_blocks(entries, self.clock.monotonic()).err()?;
        log::error!(error:% = error; "the transparency log cannot be written; blocks are not acknowledged for now");
        Some(format!("the transparency log cannot be written: {error}"))
    }

    fn refuse(&mut self, reason: String) {
        for (submission, _) in self.batch.clear() {
            submission.answer(Outcome::unavailable(reason.clone(), FULL_RETRY_S));
        }
    }

    /// Takes back what a failed write has left.
    fn cut_back(&mut self) {
        if let Err(error) = self.file.set_len(self.segment.len) {
            self.shared.fail(format!("{}: {error}", self.segment.path.display()));
        }
    }

    /// After a failed sync: only what the disk gives back is believed.
    fn heal(&mut self) {
        self.distrusted = true;
        if let Err(error) = self.read_back() {
            self.shared.fail(format!(
                "after a failed sync the segment could not be made sure of: {error}"
            ));
        }
    }

    fn read_back(&mut self) -> Result<(), StoreError> {
        let path = &self.segment.path;
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let file = open_rw(path)?;
        file.set_len(self.segment.len).map_err(failed)?;
        (self.sync)(&file).map_err(failed)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| failed(error.into()))?;
        let mut at = HEADER_BYTES;
        while at < self.segment.len {
            at += read_frame(&file, path, at, self.segment.len)?
                .map_err(|reason| super::segment::damaged(path, at, reason))?
                .len;
        }
        self.file = file;
        Ok(())
    }
}
