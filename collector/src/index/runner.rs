//! The thread that keeps the index up with the evidence log.
//!
//! It alone writes. It wakes when blocks become durable, indexes them, and commits after
//! [`IndexOptions::commit_after_ms`] when little comes; when a commit itself takes long, after a
//! few times as long as it takes, at most [`MAX_COMMIT_AFTER_MS`], so that commits never eat the
//! time of indexing; and when it reads old blocks (after a rebuild), in larger batches still.
//!
//! What fails (a full disk) is tried again after a while, with all that was not committed read anew.
//! Told to stop, it ends behind the block, the file check or the day at which it is ([`super::handle`]).

use std::fs::File;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use custody_event::Clock;
use tantivy::index::SegmentMeta;
use tantivy::indexer::IndexWriterOptions;
use tantivy::{FutureResult, IndexWriter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::embedded::{EmbeddedStore, Request, Shared};
use super::handle::{Doing, RunnerHandle};
use super::partition::{self, Opened, Partition};
use super::remake::Remaking;
use super::schema::{Documents, Fields, day_of, pack_place};
use super::{IndexError, IndexOptions, merge};
use crate::store::{BlockSource, LogCursor, StoreError, StoredBlock};

/// How much the threads that index what comes in stand back (nice(2)): who waits for a search or a
/// receipt notices each millisecond, and nobody an index that is some later.
const NICE: i32 = 5;
/// Under load, but where searches take the processors: indexing and the commit itself stay within two
/// seconds of an event's coming.
const MAX_COMMIT_AFTER_MS: u64 = 1_000;
/// While old blocks are read nobody waits for the last of them.
const CATCH_UP_COMMIT_AFTER_MS: u64 = 5_000;
/// Blocks that came in longer ago are old.
const CATCH_UP_AGE_MICROS: i64 = 10_000_000;
/// Terms handed to the writer since the last commit, at most: what its queue can hold.
const MAX_PENDING_BYTES: usize = 96 * 1024 * 1024;
/// How often an idle runner looks for ended merges.
const IDLE: Duration = Duration::from_secs(1);
/// Damaged evidence is tried so often before the index goes on behind it: new events must not be
/// hidden by an old block, and the log itself says where it is damaged.
const DAMAGE_TRIES: u32 = 3;
/// Of what is wrong with a part of the index so much is told.
const MAX_REASON_CHARS: usize = 300;
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A stretch of the log that has to be indexed.
#[derive(Debug, Clone)]
struct Stretch {
    /// Up to here; `None` goes on for ever.
    to: Option<LogCursor>,
    /// The partition; `None` goes by the day of receipt.
    day: Option<String>,
    from: LogCursor,
}

/// How far the index has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events that can be found, since this indexer began.
    pub events: u64,
    /// Events that could not be read.
    pub skipped: u64,
    /// How far into the log.
    pub at: LogCursor,
    /// How far the log goes.
    pub end: LogCursor,
}

/// Puts blocks into the index.
pub struct Indexer {
    options: IndexOptions,
    source: Arc<dyn BlockSource>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    plan: Vec<Stretch>,
    current: Option<Writing>,
    progress: Progress,
    /// Times in a row that evidence could not be read.
    damage_met: u32,
    /// Held as long as the indexer lives.
    _lock: File,
}

/// The partition that is being written.
struct Writing {
    partition: Partition,
    writer: IndexWriter,
    documents: Documents,
    merging: Option<FutureResult<Option<SegmentMeta>>>,
    pending: Option<Pending>,
    last_commit: Duration,
    /// Where the reader stands, committed or not.
    cursor: LogCursor,
}

/// What is not committed yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    since: Duration,
    bytes: usize,
    events: u64,
    old: bool,
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Indexed a block; there may be more.
    Worked,
    /// At the durable end.
    AtEnd,
}

impl Indexer {
    /// Opens the index, sets aside what is damaged, and says what has to be read again. The store
    /// answers at once with what is there.
    ///
    /// # Errors
    /// The folder cannot be used, or another process has it.
    pub fn open(
        options: IndexOptions,
        source: Arc<dyn BlockSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<EmbeddedStore>, Self), IndexError> {
        std::fs::create_dir_all(&options.dir).map_err(partition::io(&options.dir))?;
        let lock = lock(&options.dir)?;
        let shared = Arc::new(Shared::new());
        let store = Arc::new(EmbeddedStore::new(
            &options,
            Arc::clone(&source),
            Arc::clone(&clock),
            Arc::clone(&shared),
        ));
        partition::end_swaps(&options.dir, true)?;
        let mut indexer = Self {
            options,
            source,
            clock,
            shared,
            plan: Vec::new(),
            current: None,
            progress: Progress::default(),
            damage_met: 0,
            _lock: lock,
        };
        indexer.survey(false)?;
        Ok((store, indexer))
    }

    /// Removes the index in the options' folder: the next [`Self::open`] makes it again.
    ///
    /// # Errors
    /// It is in use, or cannot be removed.
    pub fn remove(options: &IndexOptions) -> Result<(), IndexError> {
        std::fs::create_dir_all(&options.dir).map_err(partition::io(&options.dir))?;
        let _lock = lock(&options.dir)?;
        for entry in std::fs::read_dir(&options.dir).map_err(partition::io(&options.dir))? {
            let path = entry.map_err(partition::io(&options.dir))?.path();
            if path.file_name() != Some(LOCK.as_ref()) {
                partition::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(self) -> Result<RunnerHandle, IndexError> {
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(IndexError::Thread)?;
        let (running, ended) = crossbeam_channel::bounded(0);
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || {
                let _running = running;
                stand_back();
                self.run(&runtime);
            })
            .map_err(IndexError::Thread)?;
        Ok(RunnerHandle::new(shared, thread, ended))
    }

    /// Indexes everything that is durable now, on this thread, and waits for the merges.
    ///
    /// # Errors
    /// The index cannot be written or the log cannot be read.
    pub fn catch_up(&mut self, mut tell: impl FnMut(Progress)) -> Result<Progress, IndexError> {
        let end = *self.source.durable_end().borrow();
        self.progress.end = end;
        loop {
            let turn = self.turn()?;
            self.poll_merge()?;
            if self.current.as_ref().is_none_or(|writing| writing.pending.is_none())
                || turn == Turn::AtEnd
            {
                tell(self.progress);
            }
            if turn == Turn::AtEnd {
                break;
            }
        }
        self.commit()?;
        while self.current.as_ref().is_some_and(|writing| writing.merging.is_some()) {
            if let Some(merge) = self.current.as_mut().and_then(|writing| writing.merging.take()) {
                merge.wait()?;
                self.after_merge()?;
            }
        }
        tell(self.progress);
        Ok(self.progress)
    }

    #[cfg(test)]
    pub(super) fn shared_for_tests(&self) -> &Shared {
        &self.shared
    }

    fn run(mut self, runtime: &tokio::runtime::Runtime) {
        let stop = self.shared.stop.clone();
        let mut ends = self.source.durable_end();
        let first_backoff = Duration::from_millis(self.options.retry_after_ms);
        let mut backoff = first_backoff;
        while !stop.is_cancelled() {
            ends.mark_unchanged();
            match self.turn() {
                Ok(Turn::Worked) => backoff = first_backoff,
                Ok(Turn::AtEnd) => {
                    backoff = first_backoff;
                    let wait = self.until_commit().unwrap_or(IDLE);
                    runtime.block_on(idle(&mut ends, &stop, wait));
                }
                Err(_) if stop.is_cancelled() => self.current = None,
                Err(error) => {
                    log::error!(error = error.to_string(), retry_s = backoff.as_secs();
                        "the index cannot go on; trying again");
                    // What was not committed is lost with its error: the writer is never used again.
                    self.current = None;
                    self.shared.now(Doing::WaitingToTryAgain);
                    runtime.block_on(pause(&stop, backoff));
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    self.begin_again();
                }
            }
        }
        if let Err(error) = self.commit() {
            // The next start reads the same stretch of the log again.
            log::warn!(error = error.to_string(); "the index's last commit failed");
        }
    }

    /// One block, or what is to be done between blocks.
    fn turn(&mut self) -> Result<Turn, IndexError> {
        if self.shared.suspect.swap(false, Ordering::Relaxed) {
            self.current = None;
            self.survey(true)?;
        }
        self.answer_requests()?;
        let found = self.next_block()?;
        let turn = match found {
            Some(block) => {
                self.add(&block)?;
                Turn::Worked
            }
            None if self.plan.len() > 1 => {
                self.end_stretch()?;
                Turn::Worked
            }
            None => Turn::AtEnd,
        };
        if self.until_commit().is_some_and(|wait| wait.is_zero()) {
            self.commit()?;
        }
        self.poll_merge()?;
        Ok(turn)
    }

    /// Does what it was asked to do; what fails is asked for again by whoever asked.
    fn answer_requests(&mut self) -> Result<(), IndexError> {
        let waiting = self
            .shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .map(std::mem::take);
        for request in waiting.into_iter().flatten() {
            let done = match request {
                Request::Commit(done) => {
                    self.commit()?;
                    done
                }
                Request::Swap(day, done) => {
                    self.swap(&day)?;
                    done
                }
            };
            if done.send(()).is_err() {
                log::debug!("nobody waits for the index any more");
            }
        }
        Ok(())
    }

    /// Puts the day that was made anew in the place of the old one, with what came meanwhile.
    fn swap(&mut self, day: &str) -> Result<(), IndexError> {
        self.commit()?;
        self.shared.now(Doing::PuttingADayInPlace);
        if self.current.as_ref().is_some_and(|writing| writing.partition.day == day) {
            self.current = None;
        }
        let dir = self.options.dir.clone();
        let Some(old) = self.shared.partition(day) else { return Ok(()) };
        let name = partition::anew(day);
        match Partition::open(&dir, &name, false)? {
            Opened::Whole(new) => {
                let to = old.payload.next;
                let again = Remaking::go_on(*new, &self.options, &*self.source, &self.shared);
                again?.read_up_to(to)?;
            }
            _ => return partition::remove(&dir.join(name)),
        }
        partition::swap(&dir, day)?;
        match Partition::open(&dir, day, false)? {
            Opened::Whole(partition) => self.shared.publish(&partition),
            _ => {
                self.shared.suspect.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn next_block(&mut self) -> Result<Option<StoredBlock>, IndexError> {
        let Some(stretch) = self.plan.first() else { return Ok(None) };
        let (from, to) = (stretch.from, stretch.to);
        self.shared.now(Doing::ReadingTheLog);
        if to.is_some_and(|to| from >= to) {
            return Ok(None);
        }
        match self.source.next_from(from) {
            Ok(found) => {
                self.damage_met = 0;
                Ok(found.filter(|block| to.is_none_or(|to| block.at < to)))
            }
            Err(StoreError::Damaged { path, offset, reason })
                if self.damage_met >= DAMAGE_TRIES =>
            {
                self.damage_met = 0;
                log::error!(path = path.display().to_string(), offset = offset,
                    reason = reason;
                    "evidence cannot be read; the rest of this segment is not in the index");
                self.commit()?;
                if let Some(stretch) = self.plan.first_mut() {
                    stretch.from = LogCursor { segment: from.segment + 1, offset: 0 };
                }
                Ok(None)
            }
            Err(error) => {
                self.damage_met += 1;
                Err(error.into())
            }
        }
    }

    fn add(&mut self, stored: &StoredBlock) -> Result<(), IndexError> {
        let place = pack_place(stored.at)
            .ok_or(IndexError::Beyond { segment: stored.at.segment, offset: stored.at.offset })?;
        self.shared.now(Doing::Indexing);
        self.open_for(stored)?;
        let now = self.clock.monotonic();
        let old =
            self.clock.now().micros() - stored.receipt.received.micros() > CATCH_UP_AGE_MICROS;
        let Some(writing) = self.current.as_mut() else { return Ok(()) };
        let pending =
            writing.pending.get_or_insert(Pending { since: now, bytes: 0, events: 0, old });
        pending.old = old;
        let skipped = writing.documents.of_block(stored, place, |document, bytes| {
            writing.writer.add_document(document)?;
            pending.bytes += bytes;
            pending.events += 1;
            Ok(())
        })?;
        writing.partition.payload.skipped += skipped;
        self.progress.skipped += skipped;
        writing.cursor = stored.next;
        if let Some(stretch) = self.plan.first_mut() {
            stretch.from = stored.next;
        }
        Ok(())
    }

    /// Sees to it that the partition of this block is being written.
    fn open_for(&mut self, stored: &StoredBlock) -> Result<(), IndexError> {
        let Some(stretch) = self.plan.first() else { return Ok(()) };
        let fixed = stretch.day.clone();
        let from = stretch.from;
        let received = day_of(stored.receipt.received);
        let last = self.current.as_ref().map(|writing| writing.partition.day.clone());
        // A day never goes back: a clock that did must not tear a partition's stretch in two.
        let day = match (fixed, last.clone().or_else(|| self.shared.newest_day())) {
            (Some(day), _) => day,
            (None, Some(last)) if last > received => last,
            (None, _) => received,
        };
        if last.as_ref() == Some(&day) {
            return Ok(());
        }
        self.commit()?;
        self.current = None;
        let partition = match self.shared.partition(&day) {
            Some(partition) => partition,
            None => {
                partition::remove(&self.options.dir.join(&day))?;
                Partition::create(&self.options.dir, &day, from)?
            }
        };
        self.current = Some(Writing::begin(partition, &self.options, from)?);
        Ok(())
    }

    fn end_stretch(&mut self) -> Result<(), IndexError> {
        let done = self.plan.remove(0);
        if let (Some(writing), Some(to)) = (self.current.as_mut(), done.to)
            && writing.cursor < to
        {
            writing.cursor = to;
        }
        self.commit_always()?;
        self.current = None;
        Ok(())
    }

    /// How long until the pending events must be committed; `None` if there are none.
    fn until_commit(&self) -> Option<Duration> {
        let writing = self.current.as_ref()?;
        let pending = writing.pending?;
        if pending.bytes >= MAX_PENDING_BYTES {
            return Some(Duration::ZERO);
        }
        let after = if pending.old {
            Duration::from_millis(CATCH_UP_COMMIT_AFTER_MS)
        } else {
            (writing.last_commit * 4)
                .min(Duration::from_millis(MAX_COMMIT_AFTER_MS))
                .max(Duration::from_millis(self.options.commit_after_ms))
        };
        Some((pending.since + after).saturating_sub(self.clock.monotonic()))
    }

    fn commit(&mut self) -> Result<(), IndexError> {
        match &self.current {
            Some(writing) if writing.pending.is_some() => self.commit_always(),
            _ => Ok(()),
        }
    }

    fn commit_always(&mut self) -> Result<(), IndexError> {
        let Some(writing) = self.current.as_mut() else { return Ok(()) };
        self.shared.now(Doing::Committing);
        let begun = self.clock.monotonic();
        let mut payload = writing.partition.payload;
        payload.next = writing.cursor;
        let mut prepared = writing.writer.prepare_commit()?;
        prepared.set_payload(&payload.to_text()?);
        prepared.commit()?;
        writing.partition.payload = payload;
        if let Some(pending) = writing.pending.take() {
            self.progress.events += pending.events;
        }
        self.progress.at = payload.next;
        self.shared.publish(&writing.partition)?;
        self.shared.searchable.send_if_modified(|at| {
            let moved = *at < payload.next;
            *at = (*at).max(payload.next);
            moved
        });
        writing.last_commit = self.clock.monotonic().saturating_sub(begun);
        self.start_merge()
    }

    fn start_merge(&mut self) -> Result<(), IndexError> {
        let Some(writing) = self.current.as_mut() else { return Ok(()) };
        if writing.merging.is_some() {
            return Ok(());
        }
        let Some(view) = self.shared.view(&writing.partition.day) else { return Ok(()) };
        let sizes: Vec<u32> = view.segments.iter().map(super::segments::Segment::docs).collect();
        if let Some(run) = merge::next_run(&sizes) {
            let ids: Vec<_> =
                view.segments[run].iter().map(|segment| segment.reader.segment_id()).collect();
            writing.merging = Some(writing.writer.merge(&ids));
        }
        Ok(())
    }

    /// Looks whether a merge has ended; shows its result, and begins the next.
    fn poll_merge(&mut self) -> Result<(), IndexError> {
        let Some(writing) = self.current.as_mut() else { return Ok(()) };
        let Some(merging) = writing.merging.as_mut() else { return Ok(()) };
        match pin!(merging).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(()),
            Poll::Ready(done) => {
                writing.merging = None;
                done?;
                self.after_merge()
            }
        }
    }

    fn after_merge(&mut self) -> Result<(), IndexError> {
        if let Some(writing) = &self.current {
            self.shared.publish(&writing.partition)?;
        }
        self.start_merge()
    }

    /// After an error: looks at the disk anew.
    fn begin_again(&mut self) {
        if self.shared.stop.is_cancelled() {
            return;
        }
        if let Err(error) = self.survey(true) {
            log::error!(error = error.to_string(); "the index cannot be opened");
        }
    }

    /// Opens all partitions, sets aside what is damaged, and plans what must be read.
    fn survey(&mut self, verify_all: bool) -> Result<(), IndexError> {
        let dir = self.options.dir.clone();
        self.shared.now(Doing::CheckingFiles);
        partition::end_swaps(&dir, false)?;
        let days = partition::days(&dir)?;
        let mut whole: Vec<Partition> = Vec::new();
        let mut lost: Vec<String> = Vec::new();
        for (number, day) in days.iter().enumerate() {
            // To read all files of a large index takes minutes.
            self.shared.go_on()?;
            // Only the newest was being written when a machine stopped.
            let verify = verify_all || number + 1 == days.len();
            if self.current.is_none() {
                partition::remove_unfinished(&dir.join(day))?;
            }
            match Partition::open(&dir, day, verify)? {
                Opened::Whole(partition) => match whole.last() {
                    Some(last) if last.payload.next > partition.payload.from => {
                        self.aside(day, "it overlaps the day before it", &mut lost)?;
                    }
                    _ => whole.push(*partition),
                },
                // Made but never committed, or robbed of its `meta.json`: the plan knows which, by
                // whether a stretch of the log is missing there.
                Opened::Empty => {
                    partition::remove(&dir.join(day))?;
                    lost.push(day.clone());
                }
                Opened::Damaged(reason) => self.aside(day, &reason, &mut lost)?,
            }
        }
        self.plan = plan(&whole, &lost);
        self.shared.replace(&whole)?;
        let end = whole.last().map_or(LogCursor::default(), |last| last.payload.next);
        self.progress.at = end;
        self.shared.searchable.send_replace(end);
        Ok(())
    }

    fn aside(&self, day: &str, reason: &str, lost: &mut Vec<String>) -> Result<(), IndexError> {
        // The engine tells a whole file where it cannot read it.
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        log::warn!(day = day, reason = reason;
            "a part of the index is damaged; it is set aside and made again");
        partition::set_aside(&self.options.dir, day)?;
        lost.push(day.to_owned());
        Ok(())
    }
}

impl Drop for Indexer {
    /// Whoever waits for an answer gets none.
    fn drop(&mut self) {
        drop(self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What has to be read, given the partitions that are whole (in order of the log and of days)
/// and the days that were lost.
fn plan(whole: &[Partition], lost: &[String]) -> Vec<Stretch> {
    let mut plan = Vec::new();
    let mut at = LogCursor::default();
    let mut last_day: Option<&String> = None;
    for partition in whole {
        let from = partition.payload.from;
        let day = lost
            .iter()
            .find(|day| **day < partition.day && last_day.is_none_or(|last| *day > last))
            .or(last_day);
        // Before the first partition there may be what was dropped for its age: only a partition
        // known to be lost is made again there.
        if from > at
            && let Some(day) = day
        {
            plan.push(Stretch { from: at, to: Some(from), day: Some(day.clone()) });
        }
        at = partition.payload.next;
        last_day = Some(&partition.day);
    }
    plan.push(Stretch { from: at, to: None, day: None });
    plan
}

impl Writing {
    fn begin(
        partition: Partition,
        options: &IndexOptions,
        cursor: LogCursor,
    ) -> Result<Self, IndexError> {
        let writer = writer_of(&partition, options)?;
        Ok(Self {
            partition,
            writer,
            documents: Documents::new(Fields::schema().1),
            merging: None,
            pending: None,
            last_commit: Duration::ZERO,
            cursor,
        })
    }
}

/// A writer whose segments stand in the order of the log.
pub(super) fn writer_of(
    partition: &Partition,
    options: &IndexOptions,
) -> Result<IndexWriter, IndexError> {
    let writer = partition.index.writer_with_options(
        IndexWriterOptions::builder()
            .memory_budget_per_thread(options.arena_bytes)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build(),
    )?;
    // The runner itself says what is merged.
    writer.set_merge_policy(Box::new(tantivy::merge_policy::NoMergePolicy));
    Ok(writer)
}

/// For this thread, and for those of the writer that it will start.
fn stand_back() {
    // The current thread: on Linux the number zero stands for it, not for the whole process.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        log::debug!(error = error.to_string(); "the index's threads do not stand back");
    }
}

async fn idle(ends: &mut watch::Receiver<LogCursor>, stop: &CancellationToken, wait: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
        changed = ends.changed() => {
            if changed.is_err() {
                // The log is closed; only the stop can still come.
                pause(stop, wait).await;
            }
        }
    }
}

async fn pause(stop: &CancellationToken, wait: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

const LOCK: &str = "lock";

fn lock(dir: &std::path::Path) -> Result<File, IndexError> {
    let path = dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(partition::io(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(IndexError::Busy { path }),
        Err(error) => Err(partition::io(&path)(error.into())),
    }
}
