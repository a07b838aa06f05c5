//! Opened blocks, kept for the next look: a page of hits often lies in few blocks, and the newest
//! blocks have something for every page.
//!
//! Where more blocks are wanted in turn than there is room for, driving out the least recently used
//! one would keep none of them until it is wanted again. So a block is kept in another's place only
//! if it is wanted more often. From one that is not kept single events are picked, which costs half.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_event::Malformed;
use custody_event::block::{Opened, Picker};

use super::IndexError;
use crate::store::{BlockSource, LogCursor, StoredBlock};

/// A block with its events unpacked.
#[derive(Debug)]
pub struct OpenBlock {
    /// As stored.
    pub stored: StoredBlock,
    /// Its events.
    pub events: Opened,
}

/// See the module.
pub(super) struct Blocks {
    source: Arc<dyn BlockSource>,
    max_bytes: usize,
    kept: Mutex<Kept>,
    /// Those that nobody uses now.
    pickers: Mutex<Vec<Picker>>,
}

#[derive(Default)]
struct Kept {
    blocks: HashMap<LogCursor, Arc<OpenBlock>>,
    bytes: usize,
    /// What of blocks is remembered, kept or not.
    wanted: HashMap<LogCursor, Wanted>,
    /// How often any was wanted.
    wants: u64,
    /// How often blocks were forgotten: what was read before must not be kept after.
    generation: u64,
}

/// How often a block was wanted of late.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    times: u32,
    /// The number of the last want.
    last: u64,
}

impl Wanted {
    /// Counts half after `half_life` wants of others, a quarter after twice as many.
    fn now(self, wants: u64, half_life: u64) -> u32 {
        let halved = u32::try_from((wants - self.last) / half_life).unwrap_or(u32::MAX);
        self.times.checked_shr(halved).unwrap_or(0)
    }
}

/// Beside the events: the packed body, the header, the books; a round figure.
const OVERHEAD_BYTES: usize = 128 * 1024;
/// Up to so many events are picked out of a block that is not kept, instead of opening all of it.
const MAX_PICKED: usize = 4;
/// Wants of others, for each block that is kept, after which a block's own count half: what was wanted
/// long ago gives way to what is wanted now.
const HALF_LIFE: u64 = 4;
/// As if at least so many blocks were kept.
const MIN_REMEMBERED: u64 = 16;
/// What has come down to nothing is forgotten so often.
const FORGET_EVERY: u64 = 1_024;
/// Pickers that wait for the next search, a few MiB each: a window of at most 8 MiB and their texts.
const MAX_PICKERS: usize = 4;

impl Blocks {
    pub(super) fn new(source: Arc<dyn BlockSource>, max_bytes: usize) -> Self {
        Self { source, max_bytes, kept: Mutex::default(), pickers: Mutex::default() }
    }

    /// The events at these indices, which ascend, of the block at this place; one of which only the
    /// leaf is there is `None`.
    pub(super) fn events(
        &self,
        at: LogCursor,
        indices: &[u32],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let (kept, whole) = {
            let mut kept = self.kept();
            let wanted = kept.want(at);
            let block = kept.blocks.get(&at).cloned();
            let whole = indices.len() > MAX_PICKED
                || block.is_none() && wanted > 1 && kept.has_room(wanted, self.max_bytes);
            (block, whole)
        };
        let block = match kept {
            Some(block) => block,
            None if whole => self.open(at)?,
            None => return self.pick(at, indices),
        };
        let event = |index: &u32| block.events.event(*index).map(<[u8]>::to_vec);
        Ok(indices.iter().map(event).collect())
    }

    /// The block at this place.
    pub(super) fn get(&self, at: LogCursor) -> Result<Arc<OpenBlock>, IndexError> {
        let kept = {
            let mut kept = self.kept();
            kept.want(at);
            kept.blocks.get(&at).cloned()
        };
        kept.map_or_else(|| self.open(at), Ok)
    }

    fn open(&self, at: LogCursor) -> Result<Arc<OpenBlock>, IndexError> {
        let generation = self.kept().generation;
        let stored = self.source.read_at(at)?;
        let events = stored.block.open_unverified().map_err(|error| unopened(at, &error))?;
        let block = Arc::new(OpenBlock { stored, events });
        let mut kept = self.kept();
        if kept.generation == generation {
            kept.keep(at, &block, self.max_bytes);
        }
        Ok(block)
    }

    fn pick(&self, at: LogCursor, indices: &[u32]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let stored = self.source.read_at(at)?;
        let mut picker = self.pickers().pop().unwrap_or_default();
        let picked = picker.pick(&stored.block, indices).map_err(|error| unopened(at, &error));
        let mut pickers = self.pickers();
        if pickers.len() < MAX_PICKERS {
            pickers.push(picker);
        }
        picked
    }

    fn pickers(&self) -> MutexGuard<'_, Vec<Picker>> {
        self.pickers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks of these segments have lost events: they are read anew.
    pub(super) fn forget(&self, segments: &BTreeSet<u64>) {
        let mut kept = self.kept();
        kept.generation += 1;
        let old: Vec<LogCursor> =
            kept.blocks.keys().filter(|at| segments.contains(&at.segment)).copied().collect();
        for at in old {
            if let Some(block) = kept.blocks.remove(&at) {
                kept.bytes -= cost(&block);
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The map is consistent between its statements; a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(block: &OpenBlock) -> usize {
    block.events.text_bytes() + OVERHEAD_BYTES
}

fn unopened(at: LogCursor, error: &Malformed) -> IndexError {
    let reason = error.to_string();
    IndexError::Block { segment: at.segment, offset: at.offset, reason }
}

impl Kept {
    /// Counts that the block is wanted; says how often it was of late.
    fn want(&mut self, at: LogCursor) -> u32 {
        self.wants += 1;
        if self.wants.is_multiple_of(FORGET_EVERY) {
            let (wants, half_life) = (self.wants, self.half_life());
            self.wanted.retain(|_, wanted| wanted.now(wants, half_life) > 0);
        }
        let times = self.times(&at).saturating_add(1);
        self.wanted.insert(at, Wanted { times, last: self.wants });
        times
    }

    fn half_life(&self) -> u64 {
        let kept = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX);
        HALF_LIFE * kept.clamp(MIN_REMEMBERED, FORGET_EVERY)
    }

    fn times(&self, at: &LogCursor) -> u32 {
        let wanted = self.wanted.get(at).copied().unwrap_or_default();
        wanted.now(self.wants, self.half_life())
    }

    /// Is there room for another block, or one that is wanted less often?
    fn has_room(&self, wanted: u32, max_bytes: usize) -> bool {
        // What a block costs is known when it is open; most are alike.
        let usual = self.bytes.checked_div(self.blocks.len()).unwrap_or_default();
        self.bytes + usual <= max_bytes
            || self.least_wanted().is_some_and(|(times, _)| times < wanted)
    }

    /// A few hundred blocks at most: looking through them is cheaper than opening one.
    fn least_wanted(&self) -> Option<(u32, LogCursor)> {
        self.blocks.keys().map(|at| (self.times(at), *at)).min()
    }

    /// Keeps the block if there is room, or would be without some that are wanted less often.
    fn keep(&mut self, at: LogCursor, block: &Arc<OpenBlock>, max_bytes: usize) {
        if self.blocks.contains_key(&at) {
            return;
        }
        let Some(less) = self.that_make_room(at, cost(block), max_bytes) else { return };
        for at in less {
            if let Some(old) = self.blocks.remove(&at) {
                self.bytes -= cost(&old);
            }
        }
        self.bytes += cost(block);
        self.blocks.insert(at, Arc::clone(block));
    }

    /// The blocks that must go for another to stay; `None` if they are wanted as often.
    fn that_make_room(
        &self,
        at: LogCursor,
        cost_bytes: usize,
        max_bytes: usize,
    ) -> Option<Vec<LogCursor>> {
        let mut bytes = self.bytes + cost_bytes;
        if bytes <= max_bytes {
            return Some(Vec::new());
        }
        let mut less: Vec<_> =
            self.blocks.iter().filter(|(other, _)| self.times(other) < self.times(&at)).collect();
        less.sort_unstable_by_key(|(other, _)| (self.times(other), **other));
        let mut gone = Vec::new();
        for (other, block) in less {
            bytes -= cost(block);
            gone.push(*other);
            if bytes <= max_bytes {
                return Some(gone);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::index::memory::MemoryLog;
    use crate::store::{Receipt, StoreError};

    /// Counts how often blocks are read.
    struct Counted {
        log: MemoryLog,
        reads: AtomicUsize,
        /// Called while a block is being read.
        meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl BlockSource for Counted {
        fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let read = self.log.read_at(at);
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile();
            }
            read
        }

        fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
            self.log.next_from(from)
        }

        fn durable_end(&self) -> tokio::sync::watch::Receiver<LogCursor> {
            self.log.durable_end()
        }
    }

    const EVENTS: u32 = 20;

    fn event(block: usize, index: u32) -> Vec<u8> {
        format!("{{\"block\":{block},\"index\":{index}}}").into_bytes()
    }

    /// So many blocks, and room for so many of them.
    fn blocks(count: usize, room: usize) -> (Arc<Counted>, Blocks, Vec<LogCursor>) {
        let log = MemoryLog::new(None).unwrap();
        let mut places = Vec::new();
        for block in 0..count {
            let lines = (0..EVENTS).map(|index| [event(block, index), b"\n".to_vec()].concat());
            let text: Vec<u8> = lines.flatten().collect();
            let receipt = Receipt { received: custody_event::Timestamp::Y2020, held: Vec::new() };
            places.push(log.append(&text, receipt).unwrap());
        }
        let source =
            Arc::new(Counted { log, reads: AtomicUsize::new(0), meanwhile: Mutex::default() });
        let each = OVERHEAD_BYTES + 1_024;
        (Arc::clone(&source), Blocks::new(source, room * each), places)
    }

    fn reads_of(source: &Counted, work: impl FnOnce()) -> usize {
        let before = source.reads.load(Ordering::Relaxed);
        work();
        source.reads.load(Ordering::Relaxed) - before
    }

    #[test]
    fn events_are_the_same_picked_and_kept() {
        let (_, blocks, places) = blocks(3, 2);
        for _ in 0..4 {
            for indices in [&[0][..], &[3, 19], &[1, 2, 3, 4, 5, 6], &[25]] {
                for (block, at) in places.iter().enumerate() {
                    let wanted: Vec<_> = indices
                        .iter()
                        .map(|index| (*index < EVENTS).then(|| event(block, *index)))
                        .collect();
                    assert_eq!(blocks.events(*at, indices).unwrap(), wanted);
                }
            }
        }
    }

    #[test]
    fn of_more_blocks_than_there_is_room_for_some_stay() {
        let (source, blocks, places) = blocks(12, 8);
        let round = || {
            for at in &places {
                blocks.events(*at, &[1]).unwrap();
            }
        };
        assert_eq!(reads_of(&source, round), 12);
        reads_of(&source, round);
        for _ in 0..5 {
            assert_eq!(reads_of(&source, round), 4);
        }
        assert!(blocks.kept().bytes <= blocks.max_bytes);
    }

    #[test]
    fn what_is_wanted_more_often_takes_the_place_of_what_was() {
        let (source, blocks, places) = blocks(2, 1);
        let look = |at: usize, times| {
            reads_of(&source, || {
                for _ in 0..times {
                    blocks.events(places[at], &[0]).unwrap();
                }
            })
        };
        assert_eq!(look(0, 4), 2, "once picked, once opened");
        assert_eq!(look(1, 9), 5, "kept once it is wanted more often");
        assert_eq!(look(0, 1), 1);
        assert_eq!(blocks.kept().blocks.len(), 1);
    }

    #[test]
    fn what_was_wanted_long_ago_is_forgotten() {
        let (_, blocks, places) = blocks(2, 1);
        blocks.events(places[0], &[0]).unwrap();
        for _ in 0..FORGET_EVERY {
            blocks.events(places[1], &[0]).unwrap();
        }
        assert!(!blocks.kept().wanted.contains_key(&places[0]));
        assert!(blocks.kept().wanted.contains_key(&places[1]));
    }

    #[test]
    fn what_was_wanted_often_gives_way_to_what_is_wanted_now() {
        let (source, blocks, places) = blocks(40, 1);
        let times = 100;
        let reads: Vec<usize> = places
            .iter()
            .map(|at| {
                reads_of(&source, || {
                    (0..times).for_each(|_| drop(blocks.events(*at, &[0]).unwrap()))
                })
            })
            .collect();
        let kept_soon = reads.iter().filter(|reads| **reads <= times * 3 / 4).count();
        assert!(kept_soon >= 30, "{reads:?}");
    }

    #[test]
    fn a_block_that_cannot_stay_drives_none_out() {
        let (_, blocks, places) = blocks(3, 2);
        for (at, times) in [(0, 9), (1, 1), (2, 5)] {
            for _ in 0..times {
                blocks.kept().want(places[at]);
            }
        }
        let big = blocks.open(places[2]).unwrap();
        blocks.forget(&BTreeSet::from([places[0].segment]));
        blocks.open(places[0]).unwrap();
        blocks.open(places[1]).unwrap();
        let mut kept = blocks.kept();
        let max_bytes = kept.bytes;
        kept.keep(places[2], &big, cost(&big) - 1);
        assert_eq!(kept.blocks.len(), 2, "it has no room at all");
        kept.keep(places[2], &big, max_bytes);
        assert!(kept.blocks.contains_key(&places[2]) && !kept.blocks.contains_key(&places[1]));
    }

    #[test]
    fn what_was_read_before_events_went_is_not_kept_after() {
        let (source, blocks, places) = blocks(1, 1);
        let (blocks, at) = (Arc::new(blocks), places[0]);
        let forgetting = Arc::clone(&blocks);
        *source.meanwhile.lock().unwrap() =
            Some(Box::new(move || forgetting.forget(&BTreeSet::from([at.segment]))));
        blocks.get(at).unwrap();
        assert!(blocks.kept().blocks.is_empty());
        blocks.get(at).unwrap();
        assert_eq!(blocks.kept().blocks.len(), 1);
    }

    #[test]
    fn blocks_that_have_lost_events_are_read_anew() {
        let (source, blocks, places) = blocks(2, 2);
        for at in &places {
            blocks.get(*at).unwrap();
        }
        assert_eq!(reads_of(&source, || drop(blocks.get(places[0]).unwrap())), 0);
        blocks.forget(&BTreeSet::from([places[0].segment]));
        assert_eq!(reads_of(&source, || drop(blocks.get(places[0]).unwrap())), 1);
    }
}
