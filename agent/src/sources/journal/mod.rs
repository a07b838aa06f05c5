//! The journal source: the systemd journal, each entry exactly once.
//!
//! **Life of an entry.** A [`custody_journal::Follower`] gives it, in the order of its number; the
//! filter chooses; it becomes one JSON object (the record) with the envelope that its fields are
//! ([`record`]); it is handed on in a batch together with how far its sequence was read. That mark is
//! in the same atomic write as the entry's event, so that a restart goes on at the next entry.
//!
//! **Where a record stands.** A sequence of numbers is a place, an entry's number its offset. What is
//! chosen belongs to the place's name: the same numbers under another choice are other records.
//!
//! **What is lost** (vacuumed before it was read, in a damaged or unreadable file, undone by a
//! backup) is a gap with its numbers, in order with the entries around it.
//!
//! **Failures.** What cannot be opened or read is said as trouble, with the remedy, and tried again
//! with growing pauses. A call that does not come back is seen by a watcher thread ([`watch`]): it is
//! trouble in `status` and an error in the log; the call itself cannot be ended from outside.
//!
//! **Limits.** A batch: as for all sources. Marks without entries (a busy journal of which nothing is
//! chosen) are written every [`MARKS_EVERY`]; after a crash so much is looked through again.

mod mark;
mod record;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use custody_event::{Clock, FileIdentity, Offset};
use custody_journal::{
    Entry, Filter, Follower, FollowerOptions, Mark as SequenceMark, Missing, Pulse, SeqnumId, Step,
    Target, Wake,
};

use super::batch::{Mark, RecordBatch, SavedMarks, Way};
use super::{
    FileRef, Item, MAX_CHUNK_BYTES, Notice, Outlet, SharedSourceState, SourceIndex, Stopped,
};
use mark::Sequence;
use record::Fields;
use watch::Watched;

/// How long one wait for the journal may take: so long may a request to stop go unnoticed.
const WAIT: Duration = Duration::from_millis(200);
/// Between two comparisons of what was given with what the files hold, while nothing happens.
const AUDIT_EVERY: Duration = Duration::from_secs(5);
/// The same when files came or went.
const AUDIT_SOON: Duration = Duration::from_secs(1);
/// Between two writes of marks that no entry brings.
const MARKS_EVERY: Duration = Duration::from_secs(5);
/// Errors at one place before it is stepped over.
const MAX_FAILURES: u32 = 5;
/// The first pause after an error; doubled up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What to read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Which journal, and by which way.
    pub follow: FollowerOptions,
    /// Which entries.
    pub filter: Filter,
    /// At the very first start, begin behind what is there.
    pub at_end: bool,
    /// A call that takes longer is told as a hang.
    pub watchdog: Duration,
}

/// A journal source, ready to run.
pub struct JournalSource {
    options: JournalOptions,
    source: SourceIndex,
    clock: Arc<dyn Clock>,
}

impl JournalSource {
    /// A source that reads what `options` say.
    #[must_use]
    pub fn new(options: JournalOptions, source: SourceIndex, clock: Arc<dyn Clock>) -> Self {
        Self { options, source, clock }
    }

    /// Reads until the pipeline stops. Blocks: belongs on a thread of its own.
    ///
    /// # Errors
    /// What was kept cannot be read, or the watcher cannot be started.
    pub fn run(
        self,
        saved: &SavedMarks,
        outlet: &mut dyn Outlet,
        state: &SharedSourceState,
    ) -> anyhow::Result<()> {
        let kept = mark::read(saved)?;
        let watched = Watched::new(self.options.watchdog, Arc::clone(&self.clock));
        std::thread::scope(|scope| {
            let watcher = std::thread::Builder::new().name("journal-watch".into());
            watcher.spawn_scoped(scope, || watched.run(state))?;
            // However reading ends, the watcher ends with it.
            let _ends = watched.until_dropped();
            let mut reading = Reading::new(&self, watched.pulse(), outlet, state);
            let Err(Stopped) = reading.run(kept, saved.is_empty());
            Ok(())
        })
    }
}

/// The work of the source's thread.
struct Reading<'a> {
    options: &'a JournalOptions,
    source: SourceIndex,
    clock: &'a dyn Clock,
    pulse: Arc<Pulse>,
    outlet: &'a mut dyn Outlet,
    state: &'a SharedSourceState,
    /// The filter as part of a place's name.
    choice: String,
    batch: Option<(Sequence, RecordBatch)>,
    /// Who spoke last.
    way: Arc<Way>,
    json: Vec<u8>,
    /// Marks that no batch has brought.
    unwritten: bool,
    wrote_marks: Duration,
    audited: Duration,
    pause: Duration,
    /// Errors since the last entry, each after the journal could be opened again.
    failures: u32,
}

impl<'a> Reading<'a> {
    fn new(
        source: &'a JournalSource,
        pulse: Arc<Pulse>,
        outlet: &'a mut dyn Outlet,
        state: &'a SharedSourceState,
    ) -> Self {
        let options = &source.options;
        let now = source.clock.monotonic();
        Self {
            options,
            source: source.source,
            clock: &*source.clock,
            pulse,
            outlet,
            state,
            choice: if options.filter.is_open() {
                String::new()
            } else {
                record::choice(&options.filter)
            },
            batch: None,
            way: Arc::default(),
            json: Vec::with_capacity(4 * 1024),
            unwritten: false,
            wrote_marks: now,
            audited: now,
            pause: PAUSES.0,
            failures: 0,
        }
    }

    fn run(
        &mut self,
        kept: Vec<SequenceMark>,
        is_first: bool,
    ) -> Result<std::convert::Infallible, Stopped> {
        let mut follower = self.open(&kept, is_first)?;
        log::info!(way = follower.about().as_str(); "reads the journal");
        if is_first {
            // From here on it is no first start any more, whatever comes.
            self.put_marks(&follower, true)?;
        }
        let mut entry = Entry::default();
        self.audit(&mut follower);
        loop {
            match follower.next(&mut entry) {
                Ok(Step::Entry) => {
                    self.failures = 0;
                    self.take(&entry, &follower)?;
                }
                Ok(Step::Missing(missing)) => self.tell(&missing, &follower)?,
                Ok(Step::End) => self.rest(&mut follower)?,
                Err(error) => self.recover(&error, &mut follower)?,
            }
            if self.outlet.is_stopped() {
                self.flush()?;
                self.put_marks(&follower, false)?;
                return Err(Stopped);
            }
        }
    }

    /// Opens the journal, trying until it can be.
    fn open(&mut self, kept: &[SequenceMark], is_first: bool) -> Result<Follower, Stopped> {
        loop {
            let follow = self.options.follow.clone();
            let at_end = is_first && self.options.at_end;
            match Follower::open(follow, kept.to_vec(), at_end, Arc::clone(&self.pulse)) {
                Ok(follower) => {
                    self.well();
                    return Ok(follower);
                }
                Err(error) => self.trouble(&error.to_string())?,
            }
        }
    }

    fn take(&mut self, entry: &Entry, follower: &Follower) -> Result<(), Stopped> {
        if !self.options.filter.wants(entry) {
            self.unwritten = true;
            return Ok(());
        }
        self.json.clear();
        entry.write_json(&mut self.json);
        let at = entry.cursor();
        let seen = follower.seen().of(at.seqnum_id);
        let sequence = Sequence {
            id: at.seqnum_id,
            generation: seen.map_or(0, |mark| mark.generation),
            after_us: seen.map_or(0, |mark| mark.after_us),
            open: seen.map(|mark| mark.open.clone()).unwrap_or_default(),
        };
        let fits = self.batch.as_ref().is_some_and(|(of, batch)| {
            of.is_same(&sequence) && batch.has_room(self.json.len())
                // Offsets grow within a batch.
                && batch.records.last().is_none_or(|last| last.offset < Offset(at.seqnum))
        });
        if !fits {
            self.flush()?;
        }
        let fields = Fields::of(entry);
        if let Some(way) = fields.other_way(&self.way) {
            self.way = Arc::new(way);
        }
        let known = fields.known(entry);
        let (_, batch) = match &mut self.batch {
            Some(batch) => {
                batch.0 = sequence;
                batch
            }
            None => {
                let batch = self.batch_of(&sequence);
                self.batch.insert((sequence, batch))
            }
        };
        batch.push(&self.json, Offset(at.seqnum), &self.way, None, Some(known));
        Ok(())
    }

    fn batch_of(&self, sequence: &Sequence) -> RecordBatch {
        let place = Arc::new(self.place(sequence.id, sequence.generation));
        let mut batch = RecordBatch::new(self.source, place, self.clock.now());
        batch.mark_key = mark::key(sequence.id);
        batch.bytes.reserve(MAX_CHUNK_BYTES.min(self.json.len() * 64));
        batch
    }

    fn place(&self, id: SeqnumId, generation: u32) -> FileRef {
        let name = [&id.0[..], self.choice.as_bytes()].concat();
        let identity = FileIdentity { generation, ..FileIdentity::of_place("journal", &name) };
        FileRef { identity, path: self.path() }
    }

    /// How people call the journal.
    fn path(&self) -> String {
        match &self.options.follow.target {
            Target::Local => "journal".into(),
            Target::Namespace(name) => format!("journal of namespace {name}"),
            Target::Directory(dir) => dir.display().to_string(),
            Target::Files(files) => {
                files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        match self.batch.take() {
            Some((sequence, mut batch)) => {
                batch.mark_of = Some(Box::new(sequence));
                self.outlet.put(Item::Batch(batch))
            }
            None => Ok(()),
        }
    }

    /// Entries are lost: a gap, with the mark behind it.
    fn tell(&mut self, missing: &Missing, follower: &Follower) -> Result<(), Stopped> {
        self.flush()?;
        let text = missing.text();
        log::warn!(code = missing.code(); "{text}");
        let marks = follower.seen().of(missing.seqnum_id).map(mark_of);
        let counted = missing.count().filter(|_| self.options.filter.is_open());
        self.outlet.put(Item::Gap(Notice {
            path: Some(match missing.files.first() {
                Some(file) => file.display().to_string(),
                None => self.path(),
            }),
            from: (missing.from > 0).then_some(Offset(missing.from)),
            // How many of them would have been chosen is not known.
            records: counted,
            marks: marks.into_iter().collect(),
            ..Notice::new(self.source, missing.code(), text, self.clock.now())
        }))
    }

    /// There is no more now.
    fn rest(&mut self, follower: &mut Follower) -> Result<(), Stopped> {
        self.flush()?;
        self.show(follower.trouble().map(str::to_owned));
        let now = self.clock.monotonic();
        if self.unwritten && now.saturating_sub(self.wrote_marks) >= MARKS_EVERY {
            self.put_marks(follower, false)?;
        }
        let since = now.saturating_sub(self.audited);
        match follower.wait(WAIT) {
            Ok(Wake::FilesChanged) if since >= AUDIT_SOON => self.audit(follower),
            Ok(_) if since >= AUDIT_EVERY => self.audit(follower),
            Ok(_) => {}
            Err(error) => self.recover(&error, follower)?,
        }
        Ok(())
    }

    fn audit(&mut self, follower: &mut Follower) {
        self.audited = self.clock.monotonic();
        if let Err(error) = follower.audit() {
            self.show(Some(error.to_string()));
        }
    }

    /// Writes all marks; the first time also one that says that there was a start.
    fn put_marks(&mut self, follower: &Follower, is_first: bool) -> Result<(), Stopped> {
        self.wrote_marks = self.clock.monotonic();
        if !self.unwritten && !is_first {
            return Ok(());
        }
        self.unwritten = false;
        let started = is_first.then(mark::started);
        let marks = started.into_iter().chain(follower.seen().marks().map(mark_of)).collect();
        self.outlet.put(Item::Marks { source: self.source, marks })
    }

    fn recover(
        &mut self,
        error: &custody_journal::JournalError,
        follower: &mut Follower,
    ) -> Result<(), Stopped> {
        self.flush()?;
        self.trouble(&error.to_string())?;
        if follower.is_repairing() {
            return Ok(());
        }
        match follower.reopen() {
            Ok(()) => {
                self.well();
                self.failures += 1;
                if self.failures >= MAX_FAILURES
                    && let Err(error) = follower.step_over()
                {
                    return self.trouble(&error.to_string());
                }
                Ok(())
            }
            Err(error) => self.trouble(&error.to_string()),
        }
    }

    /// Says what is wrong and waits a little.
    fn trouble(&mut self, text: &str) -> Result<(), Stopped> {
        log::warn!(trouble = text; "the journal cannot be read; it is tried again");
        self.show(Some(text.to_owned()));
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        if self.outlet.is_stopped_after(pause) { Err(Stopped) } else { Ok(()) }
    }

    fn well(&mut self) {
        self.pause = PAUSES.0;
        self.show(None);
    }

    fn show(&self, trouble: Option<String>) {
        let mut shown = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shown.trouble != trouble {
            shown.trouble = trouble;
        }
    }
}

fn mark_of(mark: &SequenceMark) -> Mark {
    Mark { key: mark::key(mark.seqnum_id), value: Some(mark::value(mark)), also_when_dropped: true }
}
