//! Frames of blocks, kept unpacked for the next look: a page of hits often lies in few frames, and the
//! newest have something for every page.
//!
//! Where more are wanted in turn than there is room for, driving out the least recently used one
//! would keep none of them until it is wanted again. So a frame is kept in another's place only if it
//! is wanted more often. What is wanted once is not kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_event::Malformed;
use custody_event::block::{EventFrame, FrameReader, Opened};

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
    readers: Mutex<Vec<FrameReader>>,
}

/// Of the block at a place, the frame of this number.
type Place = (LogCursor, u32);

#[derive(Default)]
struct Kept {
    frames: HashMap<Place, Arc<EventFrame>>,
    bytes: usize,
    /// What of frames is remembered, kept or not.
    wanted: HashMap<Place, Wanted>,
    /// How often any was wanted.
    wants: u64,
    /// How often frames were forgotten: what was read before must not be kept after.
    generation: u64,
}

/// How often a frame was wanted of late.
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

/// Beside the events: the maps' entries, and what it costs to look through all that are kept. So there
/// are at most some thousands, however small.
const OVERHEAD_BYTES: usize = 16 * 1024;
/// Wants of others, for each frame that is kept, after which a frame's own count half: what was wanted
/// long ago gives way to what is wanted now.
const HALF_LIFE: u64 = 4;
/// As if at least so many frames were kept.
const MIN_REMEMBERED: u64 = 16;
/// What has come down to nothing is forgotten so often.
const FORGET_EVERY: u64 = 1_024;
/// Readers that wait for the next search, a few hundred KiB each, 2 MiB at most.
const MAX_READERS: usize = 4;

impl Blocks {
    pub(super) fn new(source: Arc<dyn BlockSource>, max_bytes: usize) -> Self {
        Self { source, max_bytes, kept: Mutex::default(), readers: Mutex::default() }
    }

    /// The events at these indices, which ascend, of the block at this place; one of which only the
    /// leaf is there is `None`.
    pub(super) fn events(
        &self,
        at: LogCursor,
        indices: &[u32],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        // Whatever of it is kept is as old as the reading of it.
        let mut stored = None;
        let mut events = Vec::with_capacity(indices.len());
        let frame_of = |index: &u32| EventFrame::of(*index);
        for of_one in indices.chunk_by(|one, next| frame_of(one) == frame_of(next)) {
            let place = (at, frame_of(&of_one[0]));
            let found = {
                let mut kept = self.kept();
                kept.want(place);
                kept.frames.get(&place).cloned().ok_or(kept.generation)
            };
            let frame = match found {
                Ok(frame) => frame,
                Err(generation) => {
                    let (stored, generation) = match &stored {
                        Some(stored) => stored,
                        None => stored.insert((self.source.read_at(at)?, generation)),
                    };
                    self.read(stored, place, *generation)?
                }
            };
            for index in of_one {
                events.push(frame.event(*index).map_err(|error| unopened(at, &error))?);
            }
        }
        Ok(events)
    }

    /// The block at this place.
    pub(super) fn get(&self, at: LogCursor) -> Result<OpenBlock, IndexError> {
        let stored = self.source.read_at(at)?;
        let events = stored.block.open_unverified().map_err(|error| unopened(at, &error))?;
        Ok(OpenBlock { stored, events })
    }

    fn read(
        &self,
        stored: &StoredBlock,
        place: Place,
        generation: u64,
    ) -> Result<Arc<EventFrame>, IndexError> {
        let mut reader = self.readers().pop().unwrap_or_default();
        let read = reader.read(&stored.block, place.1);
        let mut readers = self.readers();
        if readers.len() < MAX_READERS {
            readers.push(reader);
        }
        drop(readers);
        let frame = Arc::new(read.map_err(|error| unopened(place.0, &error))?);
        let mut kept = self.kept();
        if kept.generation == generation && kept.times(&place) > 1 {
            kept.keep(place, &frame, self.max_bytes);
        }
        Ok(frame)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<FrameReader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks of these segments have lost events: they are read anew.
    pub(super) fn forget(&self, segments: &BTreeSet<u64>) {
        let mut kept = self.kept();
        kept.generation += 1;
        let of_these = |place: &&Place| segments.contains(&place.0.segment);
        let old: Vec<Place> = kept.frames.keys().filter(of_these).copied().collect();
        for place in old {
            kept.drop_frame(place);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The map is consistent between its statements; a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(frame: &EventFrame) -> usize {
    frame.text_bytes() + OVERHEAD_BYTES
}

fn unopened(at: LogCursor, error: &Malformed) -> IndexError {
    let reason = error.to_string();
    IndexError::Block { segment: at.segment, offset: at.offset, reason }
}

impl Kept {
    /// Counts that the frame is wanted.
    fn want(&mut self, place: Place) {
        self.wants += 1;
        if self.wants.is_multiple_of(FORGET_EVERY) {
            let (wants, half_life) = (self.wants, self.half_life());
            self.wanted.retain(|_, wanted| wanted.now(wants, half_life) > 0);
        }
        let times = self.times(&place).saturating_add(1);
        self.wanted.insert(place, Wanted { times, last: self.wants });
    }

    fn half_life(&self) -> u64 {
        let kept = u64::try_from(self.frames.len()).unwrap_or(u64::MAX);
        HALF_LIFE * kept.clamp(MIN_REMEMBERED, FORGET_EVERY)
    }

    fn times(&self, place: &Place) -> u32 {
        let wanted = self.wanted.get(place).copied().unwrap_or_default();
        wanted.now(self.wants, self.half_life())
    }

    fn drop_frame(&mut self, place: Place) {
        if let Some(frame) = self.frames.remove(&place) {
            self.bytes -= cost(&frame);
        }
    }

    /// Keeps the frame if there is room, or would be without some that are wanted less often.
    fn keep(&mut self, place: Place, frame: &Arc<EventFrame>, max_bytes: usize) {
        if self.frames.contains_key(&place) {
            return;
        }
        let Some(less) = self.that_make_room(place, cost(frame), max_bytes) else { return };
        for place in less {
            self.drop_frame(place);
        }
        self.bytes += cost(frame);
        self.frames.insert(place, Arc::clone(frame));
    }

    /// The frames that must go for another to stay; `None` if they are wanted as often.
    fn that_make_room(
        &self,
        place: Place,
        cost_bytes: usize,
        max_bytes: usize,
    ) -> Option<Vec<Place>> {
        let mut bytes = self.bytes + cost_bytes;
        if bytes <= max_bytes {
            return Some(Vec::new());
        }
        let wanted = self.times(&place);
        let times = self.frames.keys().map(|other| (self.times(other), *other));
        let mut less: Vec<_> = times.filter(|(times, _)| *times < wanted).collect();
        less.sort_unstable();
        let mut gone = Vec::new();
        for (_, other) in less {
            bytes -= self.frames.get(&other).map_or(0, |frame| cost(frame));
            gone.push(other);
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

    /// So many blocks of so many events, and room for so many of them, if each is one frame.
    fn blocks_of(events: u32, count: usize, room: usize) -> (Arc<Counted>, Blocks, Vec<LogCursor>) {
        let log = MemoryLog::new(None).unwrap();
        let (mut places, mut longest) = (Vec::new(), 0);
        for block in 0..count {
            let lines = (0..events).map(|index| [event(block, index), b"\n".to_vec()].concat());
            let text: Vec<u8> = lines.flatten().collect();
            longest = longest.max(text.len());
            let receipt = Receipt { received: custody_event::Timestamp::Y2020, held: Vec::new() };
            places.push(log.append(&text, receipt).unwrap());
        }
        let source =
            Arc::new(Counted { log, reads: AtomicUsize::new(0), meanwhile: Mutex::default() });
        let max_bytes = room * (OVERHEAD_BYTES + longest);
        (Arc::clone(&source), Blocks::new(source, max_bytes), places)
    }

    fn blocks(count: usize, room: usize) -> (Arc<Counted>, Blocks, Vec<LogCursor>) {
        blocks_of(EVENTS, count, room)
    }

    fn reads_of(source: &Counted, work: impl FnOnce()) -> usize {
        let before = source.reads.load(Ordering::Relaxed);
        work();
        source.reads.load(Ordering::Relaxed) - before
    }

    #[test]
    fn events_are_the_same_read_and_kept() {
        for events in [EVENTS, 300] {
            let (_, blocks, places) = blocks_of(events, 3, 2);
            for _ in 0..4 {
                for indices in [&[0][..], &[3, 19], &[1, 2, 3, 4, 5, 6], &[5, 127, 128, 299, 300]] {
                    for (block, at) in places.iter().enumerate() {
                        let wanted: Vec<_> = indices
                            .iter()
                            .map(|index| (*index < events).then(|| event(block, *index)))
                            .collect();
                        assert_eq!(blocks.events(*at, indices).unwrap(), wanted);
                    }
                }
            }
            assert!(!blocks.kept().frames.is_empty());
        }
    }

    #[test]
    fn a_block_is_read_once_for_all_its_frames_and_not_at_all_for_those_that_are_kept() {
        let (source, blocks, places) = blocks_of(300, 1, 3);
        let look = |indices: &[u32]| reads_of(&source, || drop(blocks.events(places[0], indices)));
        assert_eq!(look(&[0, 128, 256]), 1);
        assert_eq!(look(&[0, 128]), 1);
        assert_eq!(look(&[127, 128, 255]), 0);
        assert_eq!(look(&[0, 256]), 1);
        assert_eq!(look(&[0, 256]), 0);
    }

    #[test]
    fn of_more_frames_than_there_is_room_for_some_stay() {
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
        assert_eq!(look(0, 4), 2, "once read for one look, once to be kept");
        assert_eq!(look(1, 9), 5, "kept once it is wanted more often");
        assert_eq!(look(0, 1), 1);
        assert_eq!(blocks.kept().frames.len(), 1);
    }

    #[test]
    fn what_was_wanted_long_ago_is_forgotten() {
        let (_, blocks, places) = blocks(2, 1);
        blocks.events(places[0], &[0]).unwrap();
        for _ in 0..FORGET_EVERY {
            blocks.events(places[1], &[0]).unwrap();
        }
        assert!(!blocks.kept().wanted.contains_key(&(places[0], 0)));
        assert!(blocks.kept().wanted.contains_key(&(places[1], 0)));
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
    fn a_frame_that_cannot_stay_drives_none_out() {
        let (source, blocks, places) = blocks(3, 2);
        let places: Vec<Place> = places.iter().map(|at| (*at, 0)).collect();
        for (at, times) in [(0, 9), (1, 1), (2, 5)] {
            for _ in 0..times {
                blocks.kept().want(places[at]);
            }
        }
        for (at, number) in &places[..2] {
            blocks.events(*at, &[*number]).unwrap();
        }
        let stored = source.read_at(places[2].0).unwrap();
        let third = Arc::new(FrameReader::default().read(&stored.block, 0).unwrap());
        let mut kept = blocks.kept();
        let max_bytes = kept.bytes.max(blocks.max_bytes);
        kept.keep(places[2], &third, cost(&third) - 1);
        assert_eq!(kept.frames.len(), 2, "it has no room at all");
        kept.keep(places[2], &third, max_bytes);
        assert!(kept.frames.contains_key(&places[2]) && !kept.frames.contains_key(&places[1]));
    }

    #[test]
    fn what_was_read_before_events_went_is_not_kept_after() {
        let (source, blocks, places) = blocks(1, 1);
        let (blocks, at) = (Arc::new(blocks), places[0]);
        let forgetting = Arc::clone(&blocks);
        blocks.events(at, &[0]).unwrap();
        *source.meanwhile.lock().unwrap() =
            Some(Box::new(move || forgetting.forget(&BTreeSet::from([at.segment]))));
        blocks.events(at, &[0]).unwrap();
        assert!(blocks.kept().frames.is_empty());
        blocks.events(at, &[0]).unwrap();
        assert_eq!(blocks.kept().frames.len(), 1);
    }

    #[test]
    fn no_frame_of_a_block_that_was_read_before_events_went_is_kept_after() {
        let (source, blocks, places) = blocks_of(300, 1, 3);
        let (blocks, at) = (Arc::new(blocks), places[0]);
        let forgetting = Arc::clone(&blocks);
        blocks.events(at, &[0, 128, 256]).unwrap();
        *source.meanwhile.lock().unwrap() =
            Some(Box::new(move || forgetting.forget(&BTreeSet::from([at.segment]))));
        blocks.events(at, &[0, 128, 256]).unwrap();
        assert!(blocks.kept().frames.is_empty());
    }

    #[test]
    fn frames_that_have_lost_events_are_read_anew() {
        let (source, blocks, places) = blocks(2, 2);
        let look = |at: usize| reads_of(&source, || drop(blocks.events(places[at], &[0]).unwrap()));
        assert_eq!([look(0), look(0), look(1), look(1)], [1; 4]);
        assert_eq!([look(0), look(1)], [0; 2]);
        blocks.forget(&BTreeSet::from([places[0].segment]));
        assert_eq!([look(0), look(0)], [1, 0]);
    }
}
