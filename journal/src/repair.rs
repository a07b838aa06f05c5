//! Numbers that a reader passed over, looked for once more.
//!
//! A merged journal is read in the order of time, and each file from where the merge stands: an
//! entry that appears behind that (a file of another machine that arrives late; an entry that
//! journald wrote to one file while the reader had looked at that file already) is never given. So
//! the files whose headers claim the missing numbers are read on their own, from the first missing
//! number to the last. A damaged place is stepped over with growing strides. What is still missing
//! then is lost.
//!
//! Where several sequences share a counter ([`crate::counters`]), the files of all of them are read
//! side by side, in the order of the numbers: what one has given, the others do not lack. And a file
//! that reaches over missing numbers and gives all its entries has never had them.

use std::path::PathBuf;

use crate::counters::Runs;
use crate::files::{Head, Look};
use crate::follow::Way;
use crate::{Cursor, Entry, EntryReader, JournalError, Seek, SeqnumId, Target};

/// Places tried behind a damaged one.
const STRIDES: u32 = 48;
/// Times that opening the files may fail, for instance for want of descriptors.
const FAILURES: u32 = 5;

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

/// The entries of one sequence in a range of numbers, in order.
struct Search {
    id: SeqnumId,
    /// The next number that may come.
    next: u64,
    to: u64,
    /// What is not behind this was given before.
    given: u64,
    reader: Option<Box<dyn EntryReader>>,
    /// The entry that comes next.
    found: Option<Entry>,
    is_done: bool,
    strides: u32,
    failures: u32,
    trouble: String,
}

impl Search {
    fn new(id: SeqnumId, from: u64, to: u64, given: u64) -> Self {
        Self {
            id,
            next: from,
            to,
            given,
            reader: None,
            found: None,
            is_done: false,
            strides: 0,
            failures: 0,
            trouble: String::new(),
        }
    }

    /// Looks for the next entry, if none is waiting.
    fn fill(&mut self, way: &dyn Way, look: &mut Look) -> Result<(), JournalError> {
        while self.found.is_none() && !self.is_done {
            if self.next > self.to || (self.reader.is_none() && !self.open(way, look)?) {
                self.is_done = true;
                return Ok(());
            }
            let mut entry = Entry::default();
            match self.read(&mut entry) {
                Ok(true) => {
                    self.next = entry.cursor().seqnum + 1;
                    self.strides = 0;
                    self.found = Some(entry);
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
    fn open(&mut self, way: &dyn Way, look: &mut Look) -> Result<bool, JournalError> {
        let files = look.holding(self.id, self.next, self.to);
        if files.is_empty() {
            return Ok(false);
        }
        let opened = way.open(&Target::Files(files)).and_then(|mut reader| {
            reader.seek(&self.seek(self.next))?;
            Ok(reader)
        });
        match opened {
            Ok(reader) => self.reader = Some(reader),
            Err(error) if self.failures < FAILURES => {
                self.failures += 1;
                // A file may have been renamed or deleted since.
                *look = way.look()?;
                return Err(error);
            }
            Err(error) => {
                self.trouble = error.to_string();
                return Ok(false);
            }
        }
        Ok(true)
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
}

/// A search for the numbers `next..=to` of a counter.
pub(crate) struct Repair {
    /// The sequence that lacks them.
    id: SeqnumId,
    /// From here to the next all are settled.
    from: u64,
    next: u64,
    to: u64,
    known: Known,
    /// Numbers of the counter that are settled already.
    settled: Runs,
    look: Look,
    /// Of the sequence, and of all others that share its counter.
    searches: Vec<Search>,
}

impl Repair {
    /// `siblings` are the others that share the counter, with the last number that each has given.
    pub(crate) fn new(
        id: SeqnumId,
        (from, to): (u64, u64),
        known: Known,
        look: Look,
        settled: Runs,
        siblings: impl Iterator<Item = (SeqnumId, u64)>,
    ) -> Self {
        let others = siblings.map(|(id, given)| {
            // What it has not given yet comes first.
            let from = if given < from { given.saturating_add(1) } else { from };
            Search::new(id, from, to, given)
        });
        let own = Search::new(id, from, to, 0);
        let searches = std::iter::once(own).chain(others).collect();
        Self { id, from, next: from, to, known, settled, look, searches }
    }

    pub(crate) fn step(&mut self, way: &dyn Way, entry: &mut Entry) -> Result<Found, JournalError> {
        while self.next <= self.to {
            let first = self.first(way)?;
            let number = first.map(|(number, _)| number);
            if number.is_none_or(|number| number > self.next) {
                match self.pass(number, way) {
                    Some(missing) => return Ok(Found::Missing(missing)),
                    None => continue,
                }
            }
            let Some((number, index)) = first else { continue };
            let search = &mut self.searches[index];
            let Some(mut found) = search.found.take() else { continue };
            self.next = self.next.max(number.saturating_add(1));
            if number > search.given {
                std::mem::swap(entry, &mut found);
                return Ok(Found::Entry);
            }
        }
        Ok(Found::Done)
    }

    /// The lowest number that was found, and by which search.
    fn first(&mut self, way: &dyn Way) -> Result<Option<(u64, usize)>, JournalError> {
        let Self { searches, look, .. } = self;
        searches.iter_mut().try_for_each(|search| search.fill(way, look))?;
        let found = searches
            .iter()
            .enumerate()
            .filter_map(|(index, search)| Some((search.found.as_ref()?.cursor().seqnum, index)));
        Ok(found.min())
    }

    /// Nobody has the next number, nor any before `behind` (the end, if there is none). Passes over
    /// what is settled, else over what is missing, which is given to be told.
    fn pass(&mut self, behind: Option<u64>, way: &dyn Way) -> Option<Missing> {
        let (from, last) = (self.next, behind.map_or(self.to, |number| number - 1));
        if let Some(end) = self.settled.end_of(from) {
            self.next = last.min(end) + 1;
            return None;
        }
        let to = self.settled.next_behind(from).map_or(last, |start| last.min(start - 1));
        self.next = to.saturating_add(1);
        if behind.is_none() && to == self.to && self.known == Known::Claimed {
            return Some(self.claimed(from));
        }
        if self.was_never_given(from, to, way) {
            // Not to this sequence: another may have lost them.
            self.from = self.next;
            return None;
        }
        Some(self.missing(from, to))
    }

    /// The numbers that are settled by now, if there are any.
    pub(crate) fn settled(&self) -> Option<(u64, u64)> {
        (self.next > self.from).then(|| (self.from, self.next - 1))
    }

    /// The last number that is looked for.
    pub(crate) fn to(&self) -> u64 {
        self.to
    }

    /// Numbers that only a header names may never have been given: how many are lost is not said,
    /// and nobody must take them for read.
    fn claimed(&self, from: u64) -> Missing {
        let mut missing = self.missing(from, self.to);
        let trouble = std::mem::take(&mut missing.detail);
        missing.to = None;
        missing.detail = format!("a file's header names numbers up to {}", self.to);
        if !trouble.is_empty() {
            missing.detail = format!("{}; {trouble}", missing.detail);
        }
        missing
    }

    fn claimants(&self, from: u64, to: u64) -> impl Iterator<Item = &Head> {
        let claims = move |head: &&Head| {
            head.seqnum_id == self.id && head.head_seqnum <= to && head.tail_seqnum >= from
        };
        self.look.good.iter().filter(claims)
    }

    /// Does one file of the sequence reach over all these numbers, and give as many entries as it
    /// should hold? Then none of them has ever been one of its entries.
    fn was_never_given(&self, from: u64, to: u64, way: &dyn Way) -> bool {
        let reaches = |head: &&Head| head.head_seqnum <= from && head.tail_seqnum >= to;
        let mut around = self.claimants(from, to).filter(reaches);
        around.any(|head| !is_dense(head) && gives_all(head, way))
    }

    fn missing(&self, from: u64, to: u64) -> Missing {
        let path = |head: &Head| head.path.clone();
        let surely: Vec<PathBuf> =
            self.claimants(from, to).filter(|head| is_dense(head)).map(path).collect();
        let perhaps: Vec<PathBuf> = self.claimants(from, to).map(path).collect();
        let bad: Vec<PathBuf> = self.look.bad.iter().map(|bad| bad.path.clone()).collect();
        let troubles = self.searches.iter().map(|search| search.trouble.as_str());
        let trouble = troubles.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        let (why, files) = if !surely.is_empty() {
            (Why::Corrupt, surely)
        } else if !bad.is_empty() {
            (Why::Unreadable, bad)
        } else if !perhaps.is_empty() && !trouble.is_empty() {
            (Why::Corrupt, perhaps)
        } else {
            (Why::Vacuumed, Vec::new())
        };
        let detail = match why {
            Why::Unreadable => {
                self.look.bad.iter().map(|bad| bad.why.clone()).collect::<Vec<_>>().join("; ")
            }
            _ => trouble,
        };
        Missing { seqnum_id: self.id, from, to: Some(to), why, files, detail }
    }
}

/// A file with as many entries as numbers must hold them all.
fn is_dense(head: &Head) -> bool {
    head.entries > head.tail_seqnum.saturating_sub(head.head_seqnum)
}

/// Counts the entries of a file that can be read.
fn gives_all(head: &Head, way: &dyn Way) -> bool {
    let count = || -> Result<u64, JournalError> {
        let mut reader = way.open(&Target::Files(vec![head.path.clone()]))?;
        reader.seek(&Seek::Head)?;
        let (mut entry, mut count) = (Entry::default(), 0);
        while reader.next(&mut entry)? {
            // It may have grown since.
            count += u64::from(entry.cursor().seqnum <= head.tail_seqnum);
        }
        Ok(count)
    };
    count().is_ok_and(|count| count == head.entries)
}
