//! Reads a journal on and on, and proves that nothing was left out.
//!
//! **Life of an entry.** The reader gives it; its number is compared with the last one of its
//! sequence: the next one is given on, an older one was given already, and before a later one the
//! numbers between are looked for ([`crate::repair`]) and given first, or told as [`Missing`].
//!
//! **At the end** a reader may have been silent about whole files. [`Follower::audit`] looks at the
//! files' headers, lets the reader come to its end once more, and then looks for every number that
//! the headers had and that was not given.
//!
//! **What is known after a restart** is a [`Mark`] for each sequence: it must be kept in the same
//! atomic write as the entries up to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::counters::Counters;
use crate::files::{Look, look};
use crate::repair::{Counted, Found, Known, Others, Repair, Why};
use crate::seen::{Judged, Mark};
use crate::{
    Access, ChildOptions, Cursor, Entry, EntryReader, JournalError, Missing, Seek, Seen, SeqnumId,
    Target, Wake, open,
};

/// How readers are opened and files looked at; tests put their own in.
pub trait Way {
    /// Opens a reader.
    ///
    /// # Errors
    /// There is no way in.
    fn open(&self, target: &Target) -> Result<Box<dyn EntryReader>, JournalError>;
    /// Looks at the files of the journal that is followed.
    ///
    /// # Errors
    /// They cannot be listed.
    fn look(&self) -> Result<Look, JournalError>;
    /// The journal that is followed.
    fn target(&self) -> Target;
}

/// The ways that there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FollowerOptions {
    /// Which journal.
    pub target: Target,
    /// By library or journalctl.
    pub access: Access,
    /// How journalctl is run.
    pub child: ChildOptions,
}

impl Way for FollowerOptions {
    fn open(&self, target: &Target) -> Result<Box<dyn EntryReader>, JournalError> {
        open(target, &self.access, &self.child)
    }

    fn look(&self) -> Result<Look, JournalError> {
        look(&self.target)
    }

    fn target(&self) -> Target {
        self.target.clone()
    }
}

/// Counts calls that may hang: odd while one is under way. Whoever watches sees a number that stays
/// odd and the same.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
}

impl Pulse {
    /// The count.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }

    /// Counts a call.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.beats.fetch_add(1, Ordering::AcqRel);
        let result = call();
        self.beats.fetch_add(1, Ordering::AcqRel);
        result
    }
}

/// What [`Follower::next`] gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An entry, in place.
    Entry,
    /// Entries that are lost. The sequence's mark is behind them.
    Missing(Missing),
    /// There is no more now.
    End,
}

/// A journal that is followed.
pub struct Follower<W: Way = FollowerOptions> {
    way: W,
    reader: Box<dyn EntryReader>,
    seen: Seen,
    counters: Counters,
    counted: Counted,
    repair: Option<Repair>,
    /// The entry behind the numbers that are being looked for.
    held: Option<Entry>,
    queue: VecDeque<Missing>,
    audit: Option<Look>,
    /// Last numbers that headers named and no file gave, as they were told.
    claims: BTreeMap<SeqnumId, u64>,
    /// Bad files: seen once, and told.
    suspects: BTreeSet<(u64, u64)>,
    told: BTreeSet<(u64, u64)>,
    pulse: Arc<Pulse>,
    /// Trouble that is not a loss (yet).
    trouble: Option<String>,
}

impl<W: Way> Follower<W> {
    /// Opens the journal behind what was kept; without anything kept at its oldest entry. With
    /// `at_end` it begins behind the newest (then the marks are to be kept at once).
    ///
    /// # Errors
    /// There is no way in, or the journal cannot be read.
    pub fn open(
        way: W,
        kept: Vec<Mark>,
        at_end: bool,
        pulse: Arc<Pulse>,
    ) -> Result<Self, JournalError> {
        let look = pulse.during(|| way.look())?;
        let reader = pulse.during(|| way.open(&way.target()))?;
        let mut follower = Self {
            way,
            reader,
            seen: Seen::new(kept),
            counters: Counters::default(),
            counted: Counted::default(),
            repair: None,
            held: None,
            queue: VecDeque::new(),
            audit: None,
            claims: BTreeMap::new(),
            suspects: BTreeSet::new(),
            told: BTreeSet::new(),
            pulse,
            trouble: None,
        };
        if at_end {
            follower.mark_ends(&look);
        }
        follower.take_up(&look);
        let set_back = !at_end && follower.compare(&look);
        follower.place(set_back)?;
        Ok(follower)
    }

    /// How far each sequence was read.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// By which way.
    #[must_use]
    pub fn about(&self) -> String {
        self.reader.about()
    }

    /// What is wrong and not a loss, with its remedy.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Is it looking for missing numbers? An error is then the search's: call [`Follower::next`]
    /// again after a while.
    #[must_use]
    pub fn is_repairing(&self) -> bool {
        self.repair.is_some()
    }

    /// Opens the journal again after an error, where it stood.
    ///
    /// # Errors
    /// There is no way in.
    pub fn reopen(&mut self) -> Result<(), JournalError> {
        let Self { way, pulse, .. } = self;
        self.reader = pulse.during(|| way.open(&way.target()))?;
        (self.held, self.repair, self.audit) = (None, None, None);
        self.place(false)
    }

    /// Reads on.
    ///
    /// # Errors
    /// The journal cannot be read: wait a little and [`Follower::reopen`] it.
    pub fn next(&mut self, entry: &mut Entry) -> Result<Step, JournalError> {
        loop {
            if let Some(missing) = self.queue.pop_front() {
                return Ok(Step::Missing(missing));
            }
            if self.repair.is_some() {
                if let Some(step) = self.repaired(entry)? {
                    return Ok(step);
                }
                continue;
            }
            let reader = &mut self.reader;
            if !self.pulse.during(|| reader.next(entry))? {
                if self.at_end()? {
                    continue;
                }
                return Ok(Step::End);
            }
            if self.judged(entry)? {
                self.give(entry);
                return Ok(Step::Entry);
            }
        }
    }

    fn give(&mut self, entry: &Entry) {
        let at = entry.cursor();
        let before = self.seen.of(at.seqnum_id).map(|mark| mark.seqnum.saturating_add(1));
        let open = self.counters.give(at, before == Some(at.seqnum));
        self.seen.put(entry.cursor(), entry.cursor_text(), open);
    }

    /// Waits for something new.
    ///
    /// # Errors
    /// The journal's directories cannot be watched.
    pub fn wait(&mut self, timeout: Duration) -> Result<Wake, JournalError> {
        let reader = &mut self.reader;
        self.pulse.during(|| reader.wait(timeout))
    }

    /// From here to the next [`Step::End`], makes sure that all numbers that are in the files now
    /// are given or told.
    ///
    /// # Errors
    /// The files cannot be listed.
    pub fn audit(&mut self) -> Result<(), JournalError> {
        let Self { way, pulse, reader, .. } = self;
        let look = pulse.during(|| way.look())?;
        // The reader takes notice of the files that were there at the look.
        pulse.during(|| reader.wait(Duration::ZERO))?;
        self.audit = Some(look);
        Ok(())
    }

    /// Reading fails at the same place again and again: the files are looked at one by one for what
    /// stands behind it, and the place is told as missing.
    ///
    /// # Errors
    /// The files cannot be listed.
    pub fn step_over(&mut self) -> Result<(), JournalError> {
        self.audit()?;
        self.at_end().map(|_found| ())
    }

    /// Is it the entry's turn?
    fn judged(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let at = *entry.cursor();
        let judged = match self.seen.judge(&at) {
            // Others have had the numbers between.
            Judged::Hole(from) if self.is_settled(from, &at) => Judged::Follows,
            judged => judged,
        };
        match judged {
            Judged::Follows if self.seen.is_of_before(&at) => {
                self.seen.advance(at.seqnum_id, at.seqnum);
                Ok(false)
            }
            Judged::Follows => Ok(true),
            Judged::Known => Ok(false),
            Judged::Hole(from) => {
                let look = self.look()?;
                let settled = self.counters.settled(&at).cloned().unwrap_or_default();
                let mark = self.seen.of(at.seqnum_id);
                let behind = mark.and_then(|mark| Some((0, Cursor::parse(&mark.cursor).ok()?)));
                let siblings = self.counters.siblings(at.seqnum_id).collect();
                let others = Others { settled, siblings, behind, ahead: Some(at) };
                self.hold(entry, from, look, others);
                Ok(false)
            }
            Judged::SetBack => {
                let look = self.look()?;
                self.set_back(at.seqnum_id, &look);
                self.place(true)?;
                Ok(false)
            }
            Judged::First => self.judged_first(entry),
        }
    }

    /// What the files of a new sequence hold is not settled, whatever others have had; what is open
    /// before that may have been in files that are gone.
    fn judged_first(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let at = *entry.cursor();
        let look = self.look()?;
        let first = look.first_of(at.seqnum_id);
        let floor = first.map_or(at.seqnum, |head| head.head_seqnum);
        let settled = self.counters.settled(&at).map(|runs| runs.before(floor)).unwrap_or_default();
        let open = settled.end_of(0).map_or(floor, |end| end.saturating_add(1));
        let from = floor.min(open);
        if from >= at.seqnum {
            return Ok(true);
        }
        let begun = first.map_or(0, |head| head.head_realtime_us);
        let behind = Some((floor, Cursor { realtime_us: begun, ..Cursor::default() }));
        let siblings = self.counters.siblings(at.seqnum_id).collect();
        self.hold(entry, from, look, Others { settled, siblings, behind, ahead: Some(at) });
        Ok(false)
    }

    fn look(&mut self) -> Result<Look, JournalError> {
        let look = self.pulse.during(|| self.way.look())?;
        self.counters.learn(&look);
        Ok(look)
    }

    /// What was kept says which of the counters' numbers are settled.
    fn take_up(&mut self, look: &Look) {
        self.counters.learn(look);
        let mut kept: Vec<&Mark> = self.seen.marks().collect();
        kept.sort_by_key(|mark| (mark.realtime_us, mark.seqnum));
        kept.into_iter().for_each(|mark| self.counters.take_up(mark));
    }

    fn is_settled(&self, from: u64, at: &Cursor) -> bool {
        let last = self.seen.of(at.seqnum_id).and_then(|mark| Cursor::parse(&mark.cursor).ok());
        last.is_some_and(|last| self.counters.is_settled(&last, from, at))
    }

    /// Looks for the numbers before this entry first.
    fn hold(&mut self, entry: &mut Entry, from: u64, look: Look, others: Others) {
        let at = *entry.cursor();
        let numbers = (from, at.seqnum - 1);
        self.repair = Some(Repair::new(at.seqnum_id, numbers, Known::Read, look, others));
        self.held = Some(std::mem::take(entry));
    }

    fn repaired(&mut self, entry: &mut Entry) -> Result<Option<Step>, JournalError> {
        let Some(repair) = &mut self.repair else { return Ok(None) };
        let (way, counted) = (&self.way, &mut self.counted);
        match self.pulse.during(|| repair.step(way, counted, entry))? {
            Found::Entry if self.seen.is_of_before(entry.cursor()) => {
                self.seen.advance(entry.cursor().seqnum_id, entry.cursor().seqnum);
                Ok(None)
            }
            Found::Entry => {
                self.give(entry);
                Ok(Some(Step::Entry))
            }
            Found::Missing(missing) => {
                match missing.to {
                    Some(to) => {
                        self.seen.advance(missing.seqnum_id, to);
                        self.counters.tell(missing.seqnum_id, missing.from, to);
                    }
                    None => {
                        self.claims.insert(missing.seqnum_id, repair.to());
                    }
                }
                Ok(Some(Step::Missing(missing)))
            }
            Found::Done => {
                self.repair = None;
                let Some(mut held) = self.held.take() else { return Ok(None) };
                if self.seen.is_of_before(held.cursor()) {
                    self.seen.advance(held.cursor().seqnum_id, held.cursor().seqnum);
                    return Ok(None);
                }
                std::mem::swap(entry, &mut held);
                self.give(entry);
                Ok(Some(Step::Entry))
            }
        }
    }

    /// The reader has no more: compares with the files, if that was asked for. True if there is
    /// something to be looked for.
    fn at_end(&mut self) -> Result<bool, JournalError> {
        let Some(look) = self.audit.take() else { return Ok(false) };
        self.note_bad(&look);
        for id in look.ids() {
            let Some((floor, tail)) = look.range_of(id) else { continue };
            let last = self.seen.of(id).map_or(floor.saturating_sub(1), |mark| mark.seqnum);
            let claimed = self.claims.get(&id).copied().unwrap_or_default();
            if last.max(claimed) < tail {
                let now = self.look()?;
                let siblings = self.counters.siblings(id).collect();
                let others = Others { siblings, ..Others::default() };
                self.repair = Some(Repair::new(id, (last + 1, tail), Known::Claimed, now, others));
                // There may be others.
                self.audit = Some(look);
                return Ok(true);
            }
        }
        Ok(!self.queue.is_empty())
    }

    /// A bad file is told when it is still bad at the second look: a new one has no header for a
    /// moment.
    fn note_bad(&mut self, look: &Look) {
        for bad in &look.bad {
            if self.told.contains(&bad.inode) || self.suspects.insert(bad.inode) {
                continue;
            }
            self.told.insert(bad.inode);
            self.queue.push_back(Missing {
                seqnum_id: SeqnumId::default(),
                from: 0,
                to: None,
                why: Why::Unreadable,
                files: vec![bad.path.clone()],
                detail: bad.why.clone(),
            });
        }
        self.suspects.retain(|inode| look.bad.iter().any(|bad| bad.inode == *inode));
        self.trouble =
            look.bad.first().map(|bad| format!("{} is not read: {}", bad.path.display(), bad.why));
    }

    /// The first start begins behind what is there.
    fn mark_ends(&mut self, look: &Look) {
        for id in look.ids() {
            let Some((_, tail)) = look.range_of(id) else { continue };
            let times = look.good.iter().filter(|head| head.seqnum_id == id);
            let time = times.map(|head| head.tail_realtime_us).max().unwrap_or_default();
            self.seen.insert(Mark {
                seqnum_id: id,
                seqnum: tail,
                realtime_us: time,
                cursor: Cursor::text_for(id, tail, Some(time)),
                ..Mark::default()
            });
        }
    }

    /// Compares what was kept with what is there; true if a sequence was set back.
    fn compare(&mut self, look: &Look) -> bool {
        let Some(newest) = self.seen.newest().cloned() else { return false };
        match look.range_of(newest.seqnum_id) {
            Some((_, tail)) if tail < newest.seqnum => {
                self.set_back(newest.seqnum_id, look);
                true
            }
            None if !newest.is_gone && !look.good.is_empty() => {
                self.seen.set_gone(newest.seqnum_id);
                self.queue.push_back(Missing {
                    seqnum_id: newest.seqnum_id,
                    from: newest.seqnum + 1,
                    to: None,
                    why: Why::Gone,
                    files: Vec::new(),
                    detail: String::new(),
                });
                false
            }
            Some(_) | None => false,
        }
    }

    fn set_back(&mut self, id: SeqnumId, look: &Look) {
        let (floor, tail) = look.range_of(id).unwrap_or((1, 0));
        self.seen.set_back(id, floor.saturating_sub(1));
        self.counters.forget(id);
        self.claims.remove(&id);
        self.counted = Counted::default();
        self.queue.push_back(Missing {
            seqnum_id: id,
            from: tail + 1,
            to: None,
            why: Why::SetBack,
            files: Vec::new(),
            detail: String::new(),
        });
    }

    /// Places the reader at the newest entry that was read, or at the head.
    fn place(&mut self, at_head: bool) -> Result<(), JournalError> {
        let seek = match self.seen.newest() {
            Some(mark) if !at_head => Seek::At(mark.cursor.clone()),
            _ => Seek::Head,
        };
        let reader = &mut self.reader;
        // Watching begins before reading, so that no file is missed between.
        self.pulse.during(|| reader.wait(Duration::ZERO))?;
        self.pulse.during(|| reader.seek(&seek))
    }
}
