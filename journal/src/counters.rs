//! Sequences that are numbered by one counter.
//!
//! systemd before 254 counts the entries of all its files with one counter and gives the files of
//! the system and of each user a sequence id of their own. What is written by a user between two
//! entries of the system is then a hole in the system's numbers, and none is lost. (From 254 on the
//! files have the id in common.)
//!
//! Which share a counter is taken from where their files stand: journald's own files of a directory
//! (`system…`, `user-…`). Files that were received from other machines have counters of their own.
//!
//! A journald that starts knows only the numbers in the files that it writes to, and the first of
//! them may be behind another: then numbers are given once more. So a number that is not greater
//! than that of an earlier entry begins a new count, and what was settled from it on is forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::Look;
use crate::{Cursor, Mark, SeqnumId};

/// Runs that are remembered; what more would be is searched for in the files again.
const MAX_RUNS: usize = if cfg!(test) { 4 } else { 64 };

/// Runs of numbers, each the first and the last, in order and without touching each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        if let Some(last) = self.0.last_mut()
            && last.1.saturating_add(1) == from
        {
            last.1 = to;
            return;
        }
        let begin = self.0.partition_point(|run| run.1.saturating_add(1) < from);
        let end = self.0.partition_point(|run| run.0 <= to.saturating_add(1));
        let touched = self.0.get(begin..end).unwrap_or_default();
        let run = touched.iter().fold((from, to), |all, run| (all.0.min(run.0), all.1.max(run.1)));
        self.0.splice(begin..end.max(begin), [run]);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what is too much. The lowest says what was before the first entry, the last ones are
    /// asked for most.
    fn bound(&mut self) {
        if self.0.len() > MAX_RUNS {
            self.0.drain(1..=self.0.len() - MAX_RUNS);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|run| self.add(run.0, run.1));
    }

    /// Forgets this number and those behind it.
    fn cut(&mut self, at: u64) {
        self.0.retain(|run| run.0 < at);
        if let Some(last) = self.0.last_mut() {
            last.1 = last.1.min(at.saturating_sub(1));
        }
    }

    /// The runs as far as they are before this number.
    pub(crate) fn before(&self, number: u64) -> Self {
        let mut runs = self.clone();
        runs.cut(number);
        runs
    }

    fn holding(&self, number: u64) -> Option<(u64, u64)> {
        self.0.iter().rev().find(|run| run.0 <= number && number <= run.1).copied()
    }

    /// The last number of the run that holds this one.
    pub(crate) fn end_of(&self, number: u64) -> Option<u64> {
        self.holding(number).map(|run| run.1)
    }

    /// The numbers up to this one that are in no run.
    fn open_before(&self, number: u64) -> Vec<(u64, u64)> {
        let mut open = Vec::new();
        let mut next = 0;
        for run in self.0.iter().take_while(|run| run.0 <= number) {
            if next < run.0 {
                open.push((next, run.0 - 1));
            }
            next = run.1.saturating_add(1);
        }
        if next <= number {
            open.push((next, number));
        }
        open
    }

    /// All numbers up to this one but those.
    fn all_but(open: &[(u64, u64)], number: u64) -> Self {
        let mut runs = Self::default();
        let mut next = 0;
        for (from, to) in open {
            if let Some(end) = from.checked_sub(1).filter(|end| *end >= next) {
                runs.add(next, end);
            }
            next = to.saturating_add(1);
        }
        if next <= number {
            runs.add(next, number);
        }
        runs
    }

    /// Where the next run begins behind this number.
    pub(crate) fn next_behind(&self, number: u64) -> Option<u64> {
        self.0.iter().map(|run| run.0).find(|start| *start > number)
    }
}

/// One counter.
#[derive(Debug, Default)]
struct Counter {
    /// Where its files stand.
    place: PathBuf,
    /// The latest entry that was seen of it.
    latest: Option<Cursor>,
    /// The entry with which a new count began.
    begun: Option<Cursor>,
    settled: Runs,
}

impl Counter {
    /// Is the entry later than all before, and its number is not?
    fn begins_anew(&self, at: &Cursor) -> bool {
        self.latest.is_some_and(|latest| at.seqnum <= latest.seqnum && latest.is_before(at))
    }

    fn settle(&mut self, from: u64, at: &Cursor) {
        if self.begins_anew(at) {
            self.begun = Some(*at);
            self.settled.cut(at.seqnum);
        } else if self.latest.is_some_and(|latest| latest.boot != at.boot && at.is_before(&latest))
        {
            // Of an earlier boot: its numbers may be others now.
            return;
        }
        if self.latest.is_none_or(|latest| latest.is_before(at) || latest.seqnum < at.seqnum) {
            self.latest = Some(*at);
        }
        self.settled.add(from, at.seqnum);
        self.settled.bound();
    }
}

/// Which numbers of each counter have been given or told as missing, by whichever sequence.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    counters: Vec<Counter>,
    /// The counter of a sequence, if its files are journald's own.
    counter_of: BTreeMap<SeqnumId, usize>,
}

impl Counters {
    /// Takes notice of files.
    pub(crate) fn learn(&mut self, look: &Look) {
        for head in &look.good {
            if self.counter_of.contains_key(&head.seqnum_id) {
                continue;
            }
            let Some(place) = journalds_place(&head.path) else { continue };
            let known = self.counters.iter().position(|counter| counter.place == place);
            let index = known.unwrap_or_else(|| {
                self.counters.push(Counter { place: place.into(), ..Counter::default() });
                self.counters.len() - 1
            });
            self.counter_of.insert(head.seqnum_id, index);
        }
    }

    /// The other sequences of its counter.
    pub(crate) fn siblings(&self, id: SeqnumId) -> impl Iterator<Item = SeqnumId> {
        let ours = self.counter_of.get(&id);
        let same =
            move |(other, counter): &(&SeqnumId, &usize)| **other != id && Some(*counter) == ours;
        self.counter_of.iter().filter(same).map(|(other, _)| *other)
    }

    fn counter(&mut self, id: SeqnumId) -> Option<&mut Counter> {
        self.counters.get_mut(*self.counter_of.get(&id)?)
    }

    /// Takes up what was kept: all numbers up to the last are settled but the open ones. Of what was
    /// kept of several sequences of a counter, the newest is to come last.
    pub(crate) fn take_up(&mut self, mark: &Mark) {
        // The files of a user who is gone may be gone too.
        let index = match (self.counter_of.get(&mark.seqnum_id), self.counters.len()) {
            (Some(index), _) => *index,
            (None, 1) => 0,
            (None, _) => return,
        };
        let Some(counter) = self.counters.get_mut(index) else { return };
        // The mark of numbers that are missing has no boot.
        let at = Cursor::parse(&mark.cursor).ok();
        if let Some(at) = at.filter(|at| counter.begins_anew(at)) {
            counter.settled.cut(at.seqnum);
        }
        // What was open when this one was given may have been given since, at the same time.
        counter.settled.add_all(&Runs::all_but(&mark.open, mark.seqnum));
        counter.latest = at.or(counter.latest);
    }

    /// The entry is given; `follows` where the sequence itself had the number before. Gives the
    /// numbers before it that are open; what was before the first entry that is ever read is not.
    pub(crate) fn give(&mut self, at: &Cursor, follows: bool) -> Vec<(u64, u64)> {
        let Some(counter) = self.counter(at.seqnum_id) else { return Vec::new() };
        let from = match counter.latest {
            None if counter.settled == Runs::default() => 0,
            // The count had begun anew, and this sequence's number has set it forward again.
            Some(latest) if follows && latest.seqnum < at.seqnum && !at.is_before(&latest) => {
                latest.seqnum + 1
            }
            Some(_) | None => at.seqnum,
        };
        counter.settle(from, at);
        counter.settled.open_before(at.seqnum)
    }

    /// Numbers are told as missing.
    pub(crate) fn tell(&mut self, id: SeqnumId, from: u64, to: u64) {
        if let Some(counter) = self.counter(id) {
            counter.settled.add(from, to);
            counter.settled.bound();
        }
    }

    /// The sequence is numbered anew: nothing is known of its counter.
    pub(crate) fn forget(&mut self, id: SeqnumId) {
        if let Some(counter) = self.counter(id) {
            (counter.latest, counter.begun, counter.settled) = (None, None, Runs::default());
        }
    }

    /// What is settled before an entry, in the same count.
    pub(crate) fn settled(&self, at: &Cursor) -> Option<&Runs> {
        let counter = self.counters.get(*self.counter_of.get(&at.seqnum_id)?)?;
        let is_same_count =
            counter.latest.is_some_and(|latest| latest.boot == at.boot) && !counter.begins_anew(at);
        is_same_count.then_some(&counter.settled)
    }

    /// Have others had the numbers from this one up to the entry's, since the last one of its own
    /// sequence and in the same count?
    pub(crate) fn is_settled(&self, last: &Cursor, from: u64, at: &Cursor) -> bool {
        let counter =
            self.counter_of.get(&at.seqnum_id).and_then(|index| self.counters.get(*index));
        let is_older =
            counter.and_then(|counter| counter.begun).is_some_and(|begun| last.is_before(&begun));
        let end = self.settled(at).and_then(|runs| runs.end_of(from));
        !is_older && end.is_some_and(|end| end >= at.seqnum - 1)
    }
}

/// The directory of a file that is named as journald names those that it writes itself.
fn journalds_place(path: &Path) -> Option<&Path> {
    let name = path.file_name()?.to_str()?;
    let is_own = ["system.", "system@", "user-"].iter().any(|start| name.starts_with(start));
    path.parent().filter(|_| is_own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Id128;
    use crate::files::Head;

    const SYSTEM: Id128 = Id128([1; 16]);
    const USER: Id128 = Id128([2; 16]);
    const OTHER: Id128 = Id128([3; 16]);

    fn learnt() -> Counters {
        let head = |path: &str, seqnum_id| Head {
            path: path.into(),
            seqnum_id,
            head_seqnum: 1,
            tail_seqnum: 9,
            entries: 5,
            head_realtime_us: 0,
            tail_realtime_us: 0,
            has_common_id: false,
        };
        let mut counters = Counters::default();
        let good = vec![
            head("/j/a/system@00-11.journal", SYSTEM),
            head("/j/a/user-1000.journal", USER),
            head("/j/a/remote-b.journal", OTHER),
            head("/j/b/system.journal", Id128([4; 16])),
        ];
        counters.learn(&Look { good, bad: Vec::new() });
        counters
    }

    fn at(seqnum_id: SeqnumId, seqnum: u64, boot: u8) -> Cursor {
        let boot = Id128([boot; 16]);
        Cursor { seqnum_id, seqnum, boot, monotonic_us: seqnum, realtime_us: seqnum }
    }

    #[test]
    fn the_files_that_journald_writes_to_one_directory_share_a_counter() {
        let counters = learnt();
        assert_eq!(counters.siblings(SYSTEM).collect::<Vec<_>>(), [USER]);
        assert_eq!(counters.siblings(USER).collect::<Vec<_>>(), [SYSTEM]);
        assert_eq!(counters.siblings(OTHER).count(), 0);
        assert_eq!(counters.siblings(Id128([4; 16])).count(), 0);
        assert_eq!(counters.siblings(Id128([9; 16])).count(), 0);
    }

    #[test]
    fn runs_join_where_they_touch() {
        let mut runs = Runs::default();
        for (from, to) in [(10, 12), (1, 3), (20, 20), (14, 15), (13, 13), (21, 25), (2, 2)] {
            runs.add(from, to);
        }
        assert_eq!(runs.0, [(1, 3), (10, 15), (20, 25)]);
        assert_eq!(
            (runs.end_of(12), runs.end_of(16), runs.next_behind(16)),
            (Some(15), None, Some(20))
        );
        runs.add(3, 22);
        assert_eq!(runs.0, [(1, 25)]);
        runs.add(30, 40);
        runs.cut(25);
        assert_eq!(runs.0, [(1, 24)]);
        (0..200).for_each(|number| runs.add(100 + number * 2, 100 + number * 2));
        assert_eq!((runs.0.len(), runs.next_behind(400)), (201, Some(402)));
        runs.bound();
        assert_eq!((runs.0.len(), runs.0[0]), (MAX_RUNS, (1, 24)));
        assert_eq!(runs.end_of(498), Some(498));
        runs.add(0, u64::MAX);
        assert_eq!(runs.0, [(0, u64::MAX)]);
    }

    #[test]
    fn what_is_open_says_what_is_settled() {
        for runs in [vec![(0, 8)], vec![(0, 3), (6, 8)], vec![(2, 2), (5, 6)], Vec::new()] {
            let open = Runs(runs.clone()).open_before(8);
            assert_eq!(Runs::all_but(&open, 8), Runs(runs));
        }
        assert_eq!(Runs(vec![(0, 3), (6, 6)]).open_before(8), [(4, 5), (7, 8)]);
    }

    #[test]
    fn what_is_settled_is_so_for_all_sequences_of_the_counter() {
        let mut counters = learnt();
        assert_eq!(counters.give(&at(SYSTEM, 7, 1), false), [], "nothing was read before");
        assert_eq!(counters.give(&at(USER, 8, 1), false), []);
        assert_eq!(counters.give(&at(SYSTEM, 12, 1), false), [(9, 11)]);
        assert_eq!(counters.settled(&at(USER, 13, 1)), Some(&Runs(vec![(0, 8), (12, 12)])));
        counters.tell(USER, 9, 11);
        assert_eq!(counters.give(&at(USER, 13, 1), false), []);
        assert_eq!(counters.settled(&at(USER, 15, 2)), None, "another boot");
        assert_eq!(counters.give(&at(OTHER, 1, 1), false), []);
        assert_eq!(counters.settled(&at(OTHER, 2, 1)), None);
        counters.forget(SYSTEM);
        assert_eq!(counters.settled(&at(USER, 14, 1)), None);
    }

    #[test]
    fn a_later_entry_with_a_lower_number_begins_a_new_count() {
        let mut counters = learnt();
        let old = at(SYSTEM, 100, 1);
        counters.give(&old, false);
        for number in 101..=150 {
            counters.give(&at(USER, number, 1), false);
        }
        assert!(counters.is_settled(
            &old,
            101,
            &Cursor { monotonic_us: 200, ..at(SYSTEM, 151, 1) }
        ));
        // journald starts again and goes on from the system's last number.
        let later = |number| Cursor { monotonic_us: 1_000 + number, ..at(SYSTEM, number, 1) };
        assert!(!counters.is_settled(&old, 101, &later(106)), "101 to 105 are not the user's");
        assert_eq!(counters.give(&later(101), false), []);
        assert_eq!(counters.settled(&later(102)), Some(&Runs(vec![(0, 101)])));
        assert!(!counters.is_settled(&old, 90, &later(102)), "of the count before");
        // One that comes late does not.
        counters.give(&later(102), false);
        assert_eq!(counters.give(&at(USER, 99, 1), false), []);
        assert_eq!(counters.settled(&later(103)), Some(&Runs(vec![(0, 102)])));
        // A user goes on from his own last number: those before it were his.
        let users = Cursor { monotonic_us: 2_000, ..at(USER, 151, 1) };
        assert_eq!(counters.give(&users, true), []);
        // After a reboot likewise.
        let rebooted = |number| Cursor { realtime_us: 9_000, ..at(SYSTEM, number, 2) };
        assert_eq!(counters.give(&rebooted(90), false), []);
        assert_eq!(counters.settled(&rebooted(91)), Some(&Runs(vec![(0, 90)])));
        counters.give(&at(USER, 95, 1), false);
        assert_eq!(counters.settled(&rebooted(91)), Some(&Runs(vec![(0, 90)])), "an earlier boot");
    }

    #[test]
    fn what_was_kept_is_taken_up() {
        let mut counters = learnt();
        let mark = |seqnum_id, seqnum, open: &[(u64, u64)], cursor: &str| Mark {
            seqnum_id,
            seqnum,
            open: open.to_vec(),
            cursor: cursor.into(),
            ..Mark::default()
        };
        counters.take_up(&mark(USER, 8, &[], ""));
        let cursor = format!("s={SYSTEM};i=c;b={};m=c;t=c;x=1", Id128([1; 16]));
        counters.take_up(&mark(SYSTEM, 12, &[(9, 10)], &cursor));
        assert_eq!(counters.settled(&at(USER, 13, 1)), Some(&Runs(vec![(0, 8), (11, 12)])));
        assert_eq!(counters.give(&at(SYSTEM, 13, 1), true), [(9, 10)]);
        // Of a user whose files are gone it is not known where they stood: there are two places.
        counters.take_up(&mark(Id128([9; 16]), 99, &[], ""));
        assert_eq!(counters.settled(&at(USER, 14, 1)), Some(&Runs(vec![(0, 8), (11, 13)])));
    }
}
