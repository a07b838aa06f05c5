//! Numbers that a reader passed over, looked for once more.
//!
//! A merged journal is read in the order of time, and each file from where the merge stands: an
//! entry that appears behind that (a file of another machine that arrives late; an entry that
//! journald wrote to one file while the reader had looked at that file already) is never given. So
//! the files whose headers claim the missing numbers are read on their own, from the first missing
//! number to the last. A damaged place is stepped over with growing strides. What is still missing
//! then is lost.
//!
//! Where several sequences share a counter ([`crate::counters`]), numbers that another has given or
//! that stand in another's files are none of this one's. And a file that reaches over numbers and
//! gives all its entries has never had them: that is counted, once for each file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::counters::Runs;
use crate::files::{Head, Look};
use crate::follow::Way;
use crate::{Cursor, Entry, EntryReader, JournalError, Seek, SeqnumId, Target};

/// Places tried behind a damaged one.
const STRIDES: u32 = 48;
/// Times that opening the files may fail, for instance for want of descriptors.
const FAILURES: u32 = 5;

/// Numbers that are looked for in the files of others at once, …
const WINDOW: u64 = if cfg!(test) { 8 } else { 65_536 };
/// … until so many runs of them are found.
const MANY_RUNS: usize = if cfg!(test) { 6 } else { 10_000 };

/// Why numbers are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No file holds them any more.
    Vacuumed,
    /// Files cannot be read and may hold them.
    Unreadable,
    /// A file claims them and does not give them.
    Corrupt,
    /// The whole sequence is gone.
    Gone,
    /// The journal is older than what was read of it.
    SetBack,
}

/// Entries that are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which sequence; zeros where a file does not say.
    pub seqnum_id: SeqnumId,
    /// The first number; 0 where it is not known.
    pub from: u64,
    /// The last number, where it is known.
    pub to: Option<u64>,
    /// Why.
    pub why: Why,
    /// The files to blame.
    pub files: Vec<PathBuf>,
    /// What the system said.
    pub detail: String,
}

impl Missing {
    /// For machines: lower case, stable.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.why {
            Why::Vacuumed => "journal_vacuumed",
            Why::Unreadable => "journal_unreadable",
            Why::Corrupt => "journal_corrupt",
            Why::Gone => "journal_gone",
            Why::SetBack => "journal_set_back",
        }
    }

    /// How many numbers, where it is known.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        Some(self.to?.saturating_sub(self.from) + 1)
    }

    /// One sentence for people.
    #[must_use]
    pub fn text(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        let (names, id, from) = (names.join(", "), self.seqnum_id, self.from);
        let range = match self.to {
            Some(to) if to == from => format!("the journal's entry number {from}"),
            Some(to) => format!("the journal's entries number {from} to {to}"),
            None => "entries of the journal".into(),
        };
        let why = match self.why {
            Why::Vacuumed => {
                "not there any more: their files were deleted (vacuumed) before they were read"
                    .to_owned()
            }
            Why::Unreadable => format!("missing; they may stand in what cannot be read: {names}"),
            Why::Corrupt => {
                format!("missing; the file that should hold them does not give them: {names}")
            }
            Why::Gone => format!(
                "perhaps lost: what was read up to number {} is not there any more, and what followed it is not known",
                from.saturating_sub(1)
            ),
            Why::SetBack => format!(
                "perhaps lost: the journal was set back to before number {from}, for instance from a backup; what is newer is read"
            ),
        };
        let detail =
            if self.detail.is_empty() { String::new() } else { format!(" ({})", self.detail) };
        format!("{range} (sequence {id}): {why}{detail}")
    }
}

/// What a step of a repair gave.
#[derive(Debug)]
pub(crate) enum Found {
    /// An entry, in place.
    Entry,
    /// Numbers that are not there.
    Missing(Missing),
    /// All numbers are settled.
    Done,
}

/// How the last of the missing numbers is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// An entry behind it was read.
    Read,
    /// A file's header says so: it may be damaged.
    Claimed,
}

/// How many entries files give, and up to which number that was counted, by the sequence and the
/// file's first number.
#[derive(Debug, Default)]
pub(crate) struct Counted(BTreeMap<(SeqnumId, u64), (u64, u64)>);

impl Counted {
    /// Does the file give as many entries as its header counts? What was counted before is not
    /// counted again.
    ///
    /// # Errors
    /// It cannot be opened.
    fn gives_all(&mut self, head: &Head, way: &dyn Way) -> Result<bool, JournalError> {
        let key = (head.seqnum_id, head.head_seqnum);
        let (last, entries) = self.0.entry(key).or_insert((head.head_seqnum.saturating_sub(1), 0));
        if *last < head.tail_seqnum {
            let mut reader = way.open(&Target::Files(vec![head.path.clone()]))?;
            reader.seek(&Seek::At(Cursor::text_for(head.seqnum_id, *last + 1, None)))?;
            let mut entry = Entry::default();
            // An error is a damaged place: what is behind it is not counted.
            while let Ok(true) = reader.next(&mut entry) {
                let at = entry.cursor();
                if at.seqnum > head.tail_seqnum {
                    break;
                }
                if at.seqnum_id == head.seqnum_id && at.seqnum > *last {
                    (*last, *entries) = (at.seqnum, *entries + 1);
                }
            }
        }
        // The header is written after the entry, and in pieces.
        Ok(*entries >= head.entries)
    }
}

/// What else is known of a counter's numbers when some are looked for.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Numbers that are settled.
    pub(crate) settled: Runs,
    /// The other sequences.
    pub(crate) siblings: Vec<SeqnumId>,
    /// From this number on, what others have does not count if it is older than this, …
    pub(crate) behind: Option<(u64, Cursor)>,
    /// … and never if it is newer than this: a journald that starts may give numbers once more.
    pub(crate) ahead: Option<Cursor>,
}

impl Others {
    fn counts(&self, at: &Cursor) -> bool {
        let is_older = |(from, behind): &(u64, Cursor)| at.seqnum >= *from && at.is_before(behind);
        !self.behind.as_ref().is_some_and(is_older)
            && !self.ahead.is_some_and(|ahead| ahead.is_before(at))
    }
}

/// A search for the numbers `next..=to`.
pub(crate) struct Repair {
    id: SeqnumId,
    next: u64,
    to: u64,
    known: Known,
    others: Others,
    look: Look,
    reader: Option<Box<dyn EntryReader>>,
    /// An entry behind missing numbers that have to be told first.
    held: Option<Entry>,
    /// The files have given what they give.
    is_done: bool,
    has_looked_again: bool,
    /// Up to where the files of others were searched.
    searched: u64,
    strides: u32,
    failures: u32,
    trouble: String,
}

impl Repair {
    pub(crate) fn new(
        id: SeqnumId,
        (from, to): (u64, u64),
        known: Known,
        look: Look,
        others: Others,
    ) -> Self {
        Self {
            id,
            next: from,
            to,
            known,
            others,
            look,
            reader: None,
            held: None,
            is_done: false,
            has_looked_again: false,
            searched: 0,
            strides: 0,
            failures: 0,
            trouble: String::new(),
        }
    }

    pub(crate) fn step(
        &mut self,
        way: &dyn Way,
        counted: &mut Counted,
        entry: &mut Entry,
    ) -> Result<Found, JournalError> {
        loop {
            self.fill(way)?;
            let found = self.held.as_ref().map(|held| held.cursor().seqnum);
            if found == Some(self.next)
                && let Some(mut held) = self.held.take()
            {
                std::mem::swap(entry, &mut held);
                self.next = entry.cursor().seqnum.saturating_add(1);
                return Ok(Found::Entry);
            }
            if self.next > self.to {
                return Ok(Found::Done);
            }
            if found.is_none() && self.known == Known::Claimed {
                return Ok(Found::Missing(self.claimed()));
            }
            let last = found.map_or(self.to, |number| number - 1);
            if let Some(missing) = self.pass(last, way, counted)? {
                return Ok(Found::Missing(missing));
            }
        }
    }

    /// Looks for the next entry, if none is waiting.
    fn fill(&mut self, way: &dyn Way) -> Result<(), JournalError> {
        while self.held.is_none() && !self.is_done {
            if self.next > self.to || (self.reader.is_none() && !self.open(way)?) {
                self.is_done = true;
                return Ok(());
            }
            let mut entry = Entry::default();
            match self.read(&mut entry) {
                Ok(true) => {
                    self.strides = 0;
                    self.held = Some(entry);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => self.trouble = error.to_string(),
            }
            // The files' end, or a damaged place.
            self.is_done = !self.stride();
        }
        Ok(())
    }

    /// Opens the files that claim the numbers; false if there are none.
    fn open(&mut self, way: &dyn Way) -> Result<bool, JournalError> {
        let files = self.look.holding(self.id, self.next, self.to);
        if files.is_empty() {
            return Ok(false);
        }
        let opened = way.open(&Target::Files(files)).and_then(|mut reader| {
            reader.seek(&self.seek(self.next))?;
            Ok(reader)
        });
        match opened {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => {
                self.failed(error, way)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Files cannot be opened: an error while it may be for want of something that comes again.
    fn failed(&mut self, error: JournalError, way: &dyn Way) -> Result<(), JournalError> {
        if self.failures < FAILURES {
            self.failures += 1;
            // A file may have been renamed or deleted since.
            self.look = way.look()?;
            return Err(error);
        }
        self.trouble = error.to_string();
        Ok(())
    }

    fn seek(&self, number: u64) -> Seek {
        Seek::At(Cursor::text_for(self.id, number, None))
    }

    /// Reads the next entry of the range; false if the files give no more of it.
    fn read(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        while reader.next(entry)? {
            let at = entry.cursor();
            if at.seqnum_id == self.id && at.seqnum > self.to {
                return Ok(false);
            }
            if at.seqnum_id == self.id && at.seqnum >= self.next {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Places the reader behind a damaged place: 1, 2, 4 … numbers further; false if that is beyond
    /// the range.
    fn stride(&mut self) -> bool {
        self.strides += 1;
        let further = 1_u64.checked_shl(self.strides - 1).unwrap_or(u64::MAX);
        let number = self.next.saturating_add(further);
        if number > self.to || self.strides > STRIDES {
            return false;
        }
        let seek = self.seek(number);
        let Some(reader) = &mut self.reader else { return false };
        match reader.seek(&seek) {
            Ok(()) => true,
            Err(error) => {
                self.trouble = error.to_string();
                true
            }
        }
    }

    /// The sequence's files do not give the next number, nor any up to `last`. Passes over those that
    /// are settled or not its own, else over those that are missing, which are given to be told.
    fn pass(
        &mut self,
        last: u64,
        way: &dyn Way,
        counted: &mut Counted,
    ) -> Result<Option<Missing>, JournalError> {
        let from = self.next;
        let (around, last) = self.around(from, last);
        if around.iter().any(Head::is_dense) {
            let again = self.looks_again(way)?;
            return Ok(if again { None } else { Some(self.tell(from, last)) });
        }
        // Only a file that says for which sequence its numbers are can say that they are not.
        let is_one = self.look.is_one_family(self.id);
        if is_one && self.trouble.is_empty() && self.one_gives_all(&around, way, counted)? {
            self.next = last.saturating_add(1);
            return Ok(None);
        }
        if let Some(end) = self.others.settled.end_of(from) {
            self.next = last.min(end).saturating_add(1);
            return Ok(None);
        }
        let to = self.others.settled.next_behind(from).map_or(last, |start| last.min(start - 1));
        // What was searched is told for itself.
        let to = if (from..to).contains(&self.searched) { self.searched } else { to };
        if self.has_siblings(from, to, way)? || (!around.is_empty() && self.looks_again(way)?) {
            return Ok(None);
        }
        let mut missing = self.tell(from, to);
        if is_one && missing.why == Why::Vacuumed && !around.is_empty() {
            missing.why = Why::Corrupt;
            missing.files = around.into_iter().map(|head| head.path).collect();
        }
        Ok(Some(missing))
    }

    fn one_gives_all(
        &mut self,
        around: &[Head],
        way: &dyn Way,
        counted: &mut Counted,
    ) -> Result<bool, JournalError> {
        for head in around {
            match counted.gives_all(head, way) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => self.failed(error, way)?,
            }
        }
        Ok(false)
    }

    fn tell(&mut self, from: u64, to: u64) -> Missing {
        self.next = to.saturating_add(1);
        self.missing(from, to)
    }

    /// The files of the sequence that reach over this number, and up to where it stays the same ones
    /// (at most to `last`).
    fn around(&self, from: u64, last: u64) -> (Vec<Head>, u64) {
        let (around, others): (Vec<&Head>, Vec<&Head>) =
            self.claimants(from, last).partition(|head| head.head_seqnum <= from);
        let ends = around.iter().map(|head| head.tail_seqnum);
        let begins = others.iter().map(|head| head.head_seqnum - 1);
        let to = ends.chain(begins).fold(last, u64::min);
        (around.into_iter().cloned().collect(), to)
    }

    /// Once: files may have been rotated since they were looked at, and their names be others now.
    fn looks_again(&mut self, way: &dyn Way) -> Result<bool, JournalError> {
        let is_first = !std::mem::replace(&mut self.has_looked_again, true);
        if is_first {
            self.look = way.look()?;
            (self.reader, self.held, self.is_done, self.strides) = (None, None, false, 0);
        }
        Ok(is_first)
    }

    /// Do files of other sequences hold some of these numbers, which are open? Those are settled from
    /// then on.
    fn has_siblings(&mut self, from: u64, to: u64, way: &dyn Way) -> Result<bool, JournalError> {
        if to <= self.searched || self.others.siblings.is_empty() {
            return Ok(false);
        }
        let (mut found, mut end) = (Runs::default(), from.saturating_sub(1));
        while end < to && found.len() <= MANY_RUNS {
            let begin = end + 1;
            end = to.min(end.saturating_add(WINDOW));
            for id in self.others.siblings.clone() {
                let files = self.look.holding(id, begin, end);
                if files.is_empty() {
                    continue;
                }
                if let Err(error) = self.numbers_of(id, files, (begin, end), &mut found, way) {
                    self.failed(error, way)?;
                }
            }
        }
        self.searched = end;
        self.others.settled.add_all(&found);
        // What is behind may be searched when this is told.
        Ok(found.len() > 0)
    }

    fn numbers_of(
        &self,
        id: SeqnumId,
        files: Vec<PathBuf>,
        (from, to): (u64, u64),
        found: &mut Runs,
        way: &dyn Way,
    ) -> Result<(), JournalError> {
        let mut reader = way.open(&Target::Files(files))?;
        reader.seek(&Seek::At(Cursor::text_for(id, from, None)))?;
        let mut entry = Entry::default();
        while reader.next(&mut entry)? {
            let at = entry.cursor();
            if at.seqnum_id != id || at.seqnum < from {
                continue;
            }
            if at.seqnum > to {
                break;
            }
            if self.others.counts(at) {
                found.add(at.seqnum, at.seqnum);
            }
        }
        Ok(())
    }

    /// The last number that is looked for.
    pub(crate) fn to(&self) -> u64 {
        self.to
    }

    /// The numbers that are left are named by a header only and may never have been given: how many
    /// are lost is not said, and nobody must take them for read.
    fn claimed(&mut self) -> Missing {
        let mut missing = self.missing(self.next, self.to);
        let trouble = std::mem::take(&mut missing.detail);
        missing.to = None;
        missing.detail = format!("a file's header names numbers up to {}", self.to);
        if !trouble.is_empty() {
            missing.detail = format!("{}; {trouble}", missing.detail);
        }
        self.next = self.to.saturating_add(1);
        missing
    }

    fn claimants(&self, from: u64, to: u64) -> impl Iterator<Item = &Head> {
        let claims = move |head: &&Head| {
            head.seqnum_id == self.id && head.head_seqnum <= to && head.tail_seqnum >= from
        };
        self.look.good.iter().filter(claims)
    }

    fn missing(&self, from: u64, to: u64) -> Missing {
        let path = |head: &Head| head.path.clone();
        let surely: Vec<PathBuf> =
            self.claimants(from, to).filter(|head| head.is_dense()).map(path).collect();
        let perhaps: Vec<PathBuf> = self.claimants(from, to).map(path).collect();
        let bad: Vec<PathBuf> = self.look.bad.iter().map(|bad| bad.path.clone()).collect();
        let (why, files) = if !surely.is_empty() {
            (Why::Corrupt, surely)
        } else if !bad.is_empty() {
            (Why::Unreadable, bad)
        } else if !perhaps.is_empty() && !self.trouble.is_empty() {
            (Why::Corrupt, perhaps)
        } else {
            (Why::Vacuumed, Vec::new())
        };
        let detail = match why {
            Why::Unreadable => {
                self.look.bad.iter().map(|bad| bad.why.clone()).collect::<Vec<_>>().join("; ")
            }
            _ => self.trouble.clone(),
        };
        Missing { seqnum_id: self.id, from, to: Some(to), why, files, detail }
    }
}
