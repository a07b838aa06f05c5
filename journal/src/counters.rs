//! Sequences that are numbered by one counter.
//!
//! systemd before 254 counts the entries of all its files with one counter and gives the files of
//! the system and of each user a sequence id of their own. What is written by a user between two
//! entries of the system is then a hole in the system's numbers, and none is lost. (From 254 on the
//! files have the id in common.)
//!
//! Which share a counter is taken from where their files stand: journald's own files of a directory
//! (`system…`, `user-…`). Files that were received from other machines have counters of their own.
//! A reboot may set the counter back to the last number of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::Look;
use crate::{BootId, Cursor, SeqnumId};

/// Runs that are remembered; of more the lowest is forgotten, which costs a search in the files.
const MAX_RUNS: usize = 64;

/// Runs of numbers, each the first and the last, in order and without touching each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn add(&mut self, from: u64, to: u64) {
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
        if self.0.len() > MAX_RUNS {
            self.0.remove(0);
        }
    }

    /// Forgets this number and those behind it.
    fn cut(&mut self, at: u64) {
        self.0.retain(|run| run.0 < at);
        if let Some(last) = self.0.last_mut() {
            last.1 = last.1.min(at.saturating_sub(1));
        }
    }

    /// The last number of the run that holds this one.
    pub(crate) fn end_of(&self, number: u64) -> Option<u64> {
        self.0.iter().find(|run| run.0 <= number && number <= run.1).map(|run| run.1)
    }

    /// Where the next run begins behind this number.
    pub(crate) fn next_behind(&self, number: u64) -> Option<u64> {
        self.0.iter().map(|run| run.0).find(|start| *start > number)
    }

    /// Where the run begins that holds this number.
    fn start_of(&self, number: u64) -> Option<u64> {
        self.0.iter().find(|run| run.0 <= number && number <= run.1).map(|run| run.0)
    }
}

/// One counter.
#[derive(Debug, Default)]
struct Counter {
    /// Where its files stand.
    place: PathBuf,
    /// In which boot it was last seen; `None` before that.
    boot: Option<BootId>,
    settled: Runs,
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

    /// The numbers from this one to the entry's are settled. Gives where the run of settled numbers
    /// begins in which the entry is; what was before the first entry that was ever read is settled.
    pub(crate) fn settle(&mut self, from: u64, at: &Cursor) -> u64 {
        let Some(counter) = self.counter(at.seqnum_id) else { return 0 };
        let is_first = counter.boot.is_none() && from == at.seqnum;
        if counter.boot != Some(at.boot) {
            // It counts on from the number that the file had.
            counter.boot = Some(at.boot);
            counter.settled.cut(at.seqnum);
        }
        let from = if is_first { 0 } else { from };
        counter.settled.add(from, at.seqnum);
        counter.settled.start_of(at.seqnum).unwrap_or(from)
    }

    /// The sequence is numbered anew: nothing is known of its counter.
    pub(crate) fn forget(&mut self, id: SeqnumId) {
        if let Some(counter) = self.counter(id) {
            (counter.boot, counter.settled) = (None, Runs::default());
        }
    }

    /// What is settled of the counter of a sequence.
    pub(crate) fn settled(&self, id: SeqnumId) -> Option<&Runs> {
        Some(&self.counters.get(*self.counter_of.get(&id)?)?.settled)
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
            tail_realtime_us: 0,
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
        Cursor { seqnum_id, seqnum, boot: Id128([boot; 16]), ..Cursor::default() }
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
        assert_eq!((runs.0.len(), runs.next_behind(400)), (MAX_RUNS, Some(402)));
        runs.add(0, u64::MAX);
        assert_eq!(runs.0, [(0, u64::MAX)]);
    }

    #[test]
    fn what_is_settled_is_so_for_all_sequences_of_the_counter() {
        let mut counters = learnt();
        assert_eq!(counters.settle(7, &at(SYSTEM, 7, 1)), 0, "nothing was read before");
        assert_eq!(counters.settle(8, &at(USER, 8, 1)), 0);
        assert_eq!(counters.settle(12, &at(SYSTEM, 12, 1)), 12, "9 to 11 are not known");
        assert_eq!(counters.settled(USER), Some(&Runs(vec![(0, 8), (12, 12)])));
        assert_eq!(counters.settle(9, &at(USER, 13, 1)), 0);
        // After a reboot it may count on from an earlier number.
        assert_eq!(counters.settle(11, &at(SYSTEM, 11, 2)), 0);
        assert_eq!(counters.settled(USER), Some(&Runs(vec![(0, 11)])));
        assert_eq!(counters.settle(1, &at(OTHER, 1, 1)), 0);
        assert_eq!(counters.settled(OTHER), None);
        counters.forget(SYSTEM);
        assert_eq!(counters.settled(USER), Some(&Runs::default()));
    }
}
