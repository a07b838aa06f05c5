//! How far each sequence of numbers has been read.
//!
//! One journald numbers the entries of all its files (the system's and the users') from one counter;
//! journals of other machines, of namespaces and of boots that were kept in memory have counters of
//! their own. Within one, entries are given in order, so one number says all. (Before systemd 254
//! the sequences of one counter are several, with holes: [`crate::counters`].)

use std::collections::BTreeMap;

use crate::{Cursor, SeqnumId};

/// How far one sequence was read: what is kept durably.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// Which sequence.
    pub seqnum_id: SeqnumId,
    /// The last number that was given, or told as missing.
    pub seqnum: u64,
    /// Time of the last entry, microseconds since 1970.
    pub realtime_us: u64,
    /// Its cursor.
    pub cursor: String,
    /// How often the sequence was seen to be set back (restored from a backup).
    pub generation: u32,
    /// Entries of this generation are newer than this.
    pub after_us: u64,
    /// It was told that the sequence is not there any more.
    pub is_gone: bool,
    /// Numbers of its counter before this one that nobody has given and that were not told: from, to.
    pub open: Vec<(u64, u64)>,
}

/// What is to be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is the next one.
    Follows,
    /// It was given already.
    Known,
    /// Numbers before it, from this one on, have not been seen.
    Hole(u64),
    /// It has a number that was read already, and is another entry.
    SetBack,
    /// The sequence is new.
    First,
}

/// Marks of all sequences.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    marks: BTreeMap<SeqnumId, Mark>,
}

impl Seen {
    /// From what was kept.
    #[must_use]
    pub fn new(marks: Vec<Mark>) -> Self {
        Self { marks: marks.into_iter().map(|mark| (mark.seqnum_id, mark)).collect() }
    }

    /// A sequence's mark.
    #[must_use]
    pub fn of(&self, id: SeqnumId) -> Option<&Mark> {
        self.marks.get(&id)
    }

    /// All marks.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.marks.values()
    }

    /// The mark of the newest entry: where a reader is placed again.
    #[must_use]
    pub fn newest(&self) -> Option<&Mark> {
        self.marks
            .values()
            .filter(|mark| !mark.cursor.is_empty())
            .max_by_key(|mark| mark.realtime_us)
    }

    pub(crate) fn judge(&self, at: &Cursor) -> Judged {
        let Some(mark) = self.marks.get(&at.seqnum_id) else { return Judged::First };
        // Only the cursor of an entry that was read has its hash.
        let is_of_an_entry = mark.cursor.contains(";x=");
        if at.seqnum == mark.seqnum && is_of_an_entry && mark.realtime_us != at.realtime_us {
            return Judged::SetBack;
        }
        match mark.seqnum.checked_add(1) {
            Some(next) if next == at.seqnum => Judged::Follows,
            Some(next) if next < at.seqnum => Judged::Hole(next),
            _ => Judged::Known,
        }
    }

    /// An entry of this generation may be older than it: then it belongs to the one before.
    pub(crate) fn is_of_before(&self, at: &Cursor) -> bool {
        self.marks.get(&at.seqnum_id).is_some_and(|mark| at.realtime_us <= mark.after_us)
    }

    /// This entry has been given.
    pub(crate) fn put(&mut self, at: &Cursor, cursor: &str, open: Vec<(u64, u64)>) {
        let mark = self.marks.entry(at.seqnum_id).or_default();
        mark.seqnum_id = at.seqnum_id;
        mark.seqnum = mark.seqnum.max(at.seqnum);
        mark.realtime_us = at.realtime_us;
        (mark.is_gone, mark.open) = (false, open);
        mark.cursor.clear();
        mark.cursor.push_str(cursor);
    }

    /// Numbers up to this one need not be waited for.
    pub(crate) fn advance(&mut self, id: SeqnumId, to: u64) {
        let mark = self.marks.entry(id).or_default();
        mark.seqnum_id = id;
        if mark.seqnum < to {
            mark.seqnum = to;
            // The time of the entry with that number is not known; the last known one is kept.
            mark.realtime_us = mark.realtime_us.max(1);
            mark.cursor = Cursor::text_for(id, to, Some(mark.realtime_us));
        }
    }

    pub(crate) fn insert(&mut self, mark: Mark) {
        self.marks.insert(mark.seqnum_id, mark);
    }

    pub(crate) fn set_gone(&mut self, id: SeqnumId) {
        if let Some(mark) = self.marks.get_mut(&id) {
            mark.is_gone = true;
        }
    }

    /// The sequence begins anew: what is newer than its last entry is a new generation.
    pub(crate) fn set_back(&mut self, id: SeqnumId, below: u64) {
        if let Some(mark) = self.marks.get_mut(&id) {
            mark.generation += 1;
            mark.after_us = mark.realtime_us;
            mark.seqnum = below;
            mark.realtime_us = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seqnum: u64, realtime_us: u64) -> Cursor {
        Cursor { seqnum, realtime_us, ..Cursor::default() }
    }

    #[test]
    fn numbers_must_follow() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge(&at(5, 50)), Judged::First);
        seen.put(&at(5, 50), "five;x=5", Vec::new());
        assert_eq!(seen.judge(&at(6, 60)), Judged::Follows);
        assert_eq!(seen.judge(&at(5, 50)), Judged::Known);
        assert_eq!(seen.judge(&at(4, 99)), Judged::Known);
        assert_eq!(seen.judge(&at(9, 60)), Judged::Hole(6));
        assert_eq!(seen.judge(&at(5, 51)), Judged::SetBack);
    }

    #[test]
    fn a_sequence_that_was_set_back_gives_what_is_newer_and_nothing_twice() {
        let mut seen = Seen::default();
        seen.put(&at(100, 1_000), "hundred;x=1", Vec::new());
        seen.set_back(SeqnumId::default(), 0);
        assert!(seen.is_of_before(&at(60, 600)) && !seen.is_of_before(&at(61, 1_001)));
        assert_eq!(seen.of(SeqnumId::default()).unwrap().generation, 1);
        assert_eq!(seen.judge(&at(1, 5)), Judged::Follows);
    }
}
