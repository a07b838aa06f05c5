//! Numbers that a reader passed over, looked for once more.
//!
//! A merged journal is read in the order of time, and each file from where the merge stands: an
//! entry that appears behind that (a file of another machine that arrives late; an entry that
//! journald wrote to one file while the reader had looked at that file already) is never given. So
//! the files whose headers claim the missing numbers are read on their own, from the first missing
//! number to the last. A damaged place is stepped over with growing strides. What is still missing
//! then is lost.

use std::path::PathBuf;

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

/// A search for the numbers `next..=to`.
pub(crate) struct Repair {
    id: SeqnumId,
    next: u64,
    to: u64,
    known: Known,
    look: Look,
    reader: Option<Box<dyn EntryReader>>,
    /// An entry behind missing numbers that have to be told first.
    held: Option<Entry>,
    strides: u32,
    failures: u32,
    trouble: String,
}

impl Repair {
    pub(crate) fn new(id: SeqnumId, (from, to): (u64, u64), known: Known, look: Look) -> Self {
        Self {
            id,
            next: from,
            to,
            known,
            look,
            reader: None,
            held: None,
            strides: 0,
            failures: 0,
            trouble: String::new(),
        }
    }

    pub(crate) fn step(&mut self, way: &dyn Way, entry: &mut Entry) -> Result<Found, JournalError> {
        if let Some(mut held) = self.held.take() {
            std::mem::swap(entry, &mut held);
            return Ok(self.given(entry));
        }
        while self.next <= self.to {
            if self.reader.is_none() && !self.open(way)? {
                return Ok(self.rest());
            }
            match self.read(entry) {
                Ok(true) if entry.cursor().seqnum == self.next => return Ok(self.given(entry)),
                Ok(true) => {
                    let missing = self.missing(self.next, entry.cursor().seqnum - 1);
                    self.held = Some(std::mem::take(entry));
                    return Ok(Found::Missing(missing));
                }
                Ok(false) => {}
                Err(error) => self.trouble = error.to_string(),
            }
            // The files' end, or a damaged place.
            if !self.stride() {
                return Ok(self.rest());
            }
        }
        Ok(Found::Done)
    }

    fn given(&mut self, entry: &Entry) -> Found {
        self.next = entry.cursor().seqnum + 1;
        self.strides = 0;
        Found::Entry
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
            Err(error) if self.failures < FAILURES => {
                self.failures += 1;
                // A file may have been renamed or deleted since.
                self.look = way.look()?;
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

    /// The last number that is looked for.
    pub(crate) fn to(&self) -> u64 {
        self.to
    }

    /// Everything that is left is missing. Numbers that only a header names may never have been
    /// given: how many are lost is not said, and nobody must take them for read.
    fn rest(&mut self) -> Found {
        let mut missing = self.missing(self.next, self.to);
        if self.known == Known::Claimed {
            let trouble = std::mem::take(&mut missing.detail);
            missing.to = None;
            missing.detail = format!("a file's header names numbers up to {}", self.to);
            if !trouble.is_empty() {
                missing.detail = format!("{}; {trouble}", missing.detail);
            }
        }
        self.next = self.to.saturating_add(1);
        Found::Missing(missing)
    }

    fn missing(&self, from: u64, to: u64) -> Missing {
        let claims = |head: &&Head| {
            head.seqnum_id == self.id && head.head_seqnum <= to && head.tail_seqnum >= from
        };
        let claimants: Vec<&Head> = self.look.good.iter().filter(claims).collect();
        // A file with as many entries as numbers must hold them all.
        let is_whole =
            |head: &&&Head| head.entries > head.tail_seqnum.saturating_sub(head.head_seqnum);
        let surely: Vec<PathBuf> =
            claimants.iter().filter(is_whole).map(|head| head.path.clone()).collect();
        let bad: Vec<PathBuf> = self.look.bad.iter().map(|bad| bad.path.clone()).collect();
        let (why, files) = if !surely.is_empty() {
            (Why::Corrupt, surely)
        } else if !bad.is_empty() {
            (Why::Unreadable, bad)
        } else if !claimants.is_empty() && !self.trouble.is_empty() {
            (Why::Corrupt, claimants.iter().map(|head| head.path.clone()).collect())
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
