//! Searching: newest segment first, the best of each, until no other can hold better.
//!
//! Both directions are one: a key of the opposite direction is the key with its bits flipped
//! ([`Rank`]), so "best" is always the greatest.
//!
//! When the time is up, a search ends between two segments. What it has found is then complete
//! down to the best time of the segments that it has not visited. It always visits at least one
//! segment that it had not visited before the cursor, so that whoever goes on at the end of a cut
//! search comes to its end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use custody_event::{Clock, Timestamp};
use tantivy::columnar::ColumnValues;
use tantivy::query::{EnableScoring, Query, Weight};
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, Searcher, SegmentReader};

use super::schema::{ID, INDEX, PLACE, TIME, unpack_place};
use super::{Cut, Direction, HitKey, IndexError, schema};
use crate::store::LogCursor;

/// Documents whose times are compared in one go: their numbers take a quarter of a MiB.
const SCANNED_AT_ONCE: u32 = if cfg!(test) { 5 } else { 65_536 };

/// A partition as it was at one moment: its segments with their columns open.
pub(super) struct View {
    pub(super) searcher: Searcher,
    pub(super) segments: Vec<Segment>,
}

/// A segment's columns and the span of its times.
pub(super) struct Segment {
    pub(super) reader: SegmentReader,
    pub(super) times: Arc<dyn ColumnValues<i64>>,
    places: Arc<dyn ColumnValues<u64>>,
    indices: Arc<dyn ColumnValues<u64>>,
    ids: Arc<dyn ColumnValues<u64>>,
    /// Bounds; the times themselves may lie within.
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) first_place: u64,
}

impl View {
    pub(super) fn of(searcher: Searcher) -> Result<Self, IndexError> {
        let segments: Result<Vec<_>, _> =
            searcher.segment_readers().iter().map(Segment::open).collect();
        let mut segments = segments?;
        segments.sort_by_key(|segment| segment.first_place);
        Ok(Self { searcher, segments })
    }
}

impl Segment {
    fn open(reader: &SegmentReader) -> Result<Self, IndexError> {
        let columns = reader.fast_fields();
        let times = columns.column_first_or_default::<i64>(TIME)?;
        let places = columns.column_first_or_default::<u64>(PLACE)?;
        Ok(Self {
            min_time: times.min_value(),
            max_time: times.max_value(),
            // Documents stand in the order of the log.
            first_place: if reader.max_doc() == 0 { 0 } else { places.get_val(0) },
            times,
            places,
            indices: columns.column_first_or_default::<u64>(INDEX)?,
            ids: columns.column_first_or_default::<u64>(ID)?,
            reader: reader.clone(),
        })
    }

    pub(super) fn docs(&self) -> u32 {
        self.reader.max_doc()
    }

    fn key(&self, doc: DocId, time: i64) -> HitKey {
        HitKey {
            time: Timestamp::from_micros(time),
            at: unpack_place(self.places.get_val(doc)),
            // The column holds what was a u32.
            index: u32::try_from(self.indices.get_val(doc)).unwrap_or(u32::MAX),
        }
    }

    /// Keys of the events whose id may be this one.
    pub(super) fn candidates(&self, short_id: u64) -> Vec<HitKey> {
        let mut docs = Vec::new();
        self.ids.get_row_ids_for_value_range(short_id..=short_id, 0..self.docs(), &mut docs);
        docs.into_iter().map(|doc| self.key(doc, self.times.get_val(doc))).collect()
    }

    /// Gives all documents of these times, some at once: the column looks through its values itself,
    /// which takes half of what it takes to be asked for each. No document of an index is deleted.
    fn each_in(&self, times: &Times, mut give: impl FnMut(&[DocId])) {
        // The column takes a range below all its values for one that begins there.
        if !self.meets(times) || times.start >= times.end {
            return;
        }
        let range = times.start..=times.end - 1;
        let mut docs = Vec::new();
        let mut begin = 0;
        while begin < self.docs() {
            let end = self.docs().min(begin.saturating_add(SCANNED_AT_ONCE));
            docs.clear();
            self.times.get_row_ids_for_value_range(range.clone(), begin..end, &mut docs);
            give(&docs);
            begin = end;
        }
    }

    pub(super) fn meets(&self, times: &Times) -> bool {
        self.min_time < times.end && self.max_time >= times.start
    }

    pub(super) fn is_within(&self, times: &Times) -> bool {
        self.min_time >= times.start && self.max_time < times.end
    }
}

/// From (included) and to (excluded), microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Times {
    pub(super) fn new(from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        Self {
            start: from.map_or(i64::MIN, Timestamp::micros),
            end: to.map_or(i64::MAX, Timestamp::micros),
        }
    }

    pub(super) fn contains(&self, time: i64) -> bool {
        (self.start..self.end).contains(&time)
    }
}

/// A key, greater where it comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(i64, u64, u64, u32);

impl Rank {
    fn of(key: &HitKey, direction: Direction) -> Self {
        let rank = Self(key.time.micros(), key.at.segment, key.at.offset, key.index);
        match direction {
            Direction::NewestFirst => rank,
            Direction::OldestFirst => Self(!rank.0, !rank.1, !rank.2, !rank.3),
        }
    }
}

fn ranked_time(time: i64, direction: Direction) -> i64 {
    match direction {
        Direction::NewestFirst => time,
        Direction::OldestFirst => !time,
    }
}

/// When a search must give up.
pub(super) struct Deadline<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) started: Duration,
    pub(super) limit_ms: u64,
}

impl<'a> Deadline<'a> {
    pub(super) fn new(clock: &'a dyn Clock, limit_ms: u64) -> Self {
        Self { clock, started: clock.monotonic(), limit_ms }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Is the time up?
    pub(super) fn is_over(&self) -> bool {
        self.elapsed() >= Duration::from_millis(self.limit_ms)
    }

    /// What is said when a question ends here.
    pub(super) fn cut(&self, direction: Direction, searched: i64) -> Cut {
        Cut { after_ms: self.limit_ms, direction, searched: Timestamp::from_micros(searched) }
    }
}

/// The first keys that a scan found.
pub(super) struct Firsts {
    pub(super) keys: Vec<HitKey>,
    /// The time was up: everything with a better time than this is in `keys`.
    pub(super) ended: Option<i64>,
}

/// Everything whose time is no better than `time` comes after this key, nothing else does.
pub(super) fn border(time: i64, direction: Direction) -> HitKey {
    // The greatest place: in the order of the oldest first it stands behind all of its time.
    let time = match direction {
        Direction::NewestFirst => time,
        Direction::OldestFirst => time.saturating_sub(1),
    };
    let at = LogCursor { segment: u64::MAX, offset: u64::MAX };
    HitKey { time: Timestamp::from_micros(time), at, index: u32::MAX }
}

/// Newest first: from when on everything has been looked at, if the best of the rest is `time`.
pub(super) fn searched(time: i64, direction: Direction) -> i64 {
    match direction {
        Direction::NewestFirst => time.saturating_add(1),
        Direction::OldestFirst => time,
    }
}

/// One search over the segments of all partitions.
pub(super) struct Scan<'a> {
    weights: Vec<Box<dyn Weight>>,
    /// Segment and the number of its partition's weight, best first.
    segments: Vec<(usize, &'a Segment)>,
    everything: bool,
    times: Times,
    direction: Direction,
    deadline: &'a Deadline<'a>,
    /// Hits in each segment, by place in `segments`, where they have been counted.
    counted: Vec<Option<u64>>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        views: &'a [Arc<View>],
        query: &dyn Query,
        everything: bool,
        times: Times,
        direction: Direction,
        deadline: &'a Deadline<'a>,
    ) -> Result<Self, IndexError> {
        let mut weights = Vec::with_capacity(views.len());
        let mut segments = Vec::new();
        for (number, view) in views.iter().enumerate() {
            weights.push(query.weight(EnableScoring::disabled_from_searcher(&view.searcher))?);
            let met = view.segments.iter().filter(|segment| segment.meets(&times));
            segments.extend(met.map(|segment| (number, segment)));
        }
        segments.sort_by_key(|(_, segment)| Reverse(best_time(segment, direction)));
        let counted = vec![None; segments.len()];
        Ok(Self { weights, segments, everything, times, direction, deadline, counted })
    }

    /// The first `limit` keys after `after`, in order.
    pub(super) fn first(
        &mut self,
        limit: usize,
        after: Option<&HitKey>,
    ) -> Result<Firsts, IndexError> {
        let mut best = Best {
            heap: BinaryHeap::with_capacity(limit + 1),
            limit,
            after: after.map(|key| Rank::of(key, self.direction)),
            direction: self.direction,
        };
        let mut last_new: Option<i64> = None;
        let mut ended = None;
        for at in 0..self.segments.len() {
            let segment = self.segments[at].1;
            if best.cannot_gain(segment) {
                // Segments stand by their best time: none behind can do better.
                break;
            }
            if best.is_before_cursor(segment) {
                continue;
            }
            let time = best_time(segment, self.direction);
            if self.deadline.is_over() && last_new.is_some_and(|last| last > time) {
                ended = Some(unranked(time, self.direction));
                break;
            }
            if best.after.is_none_or(|after| time <= after.0) {
                last_new = Some(time);
            }
            self.visit(at, &mut best)?;
        }
        let mut keys = best.into_keys();
        if let Some(time) = ended {
            let whole = ranked_time(time, self.direction);
            keys.retain(|key| ranked_time(key.time.micros(), self.direction) > whole);
        }
        Ok(Firsts { keys, ended })
    }

    /// Takes one segment's hits into `best` and counts them.
    fn visit(&mut self, at: usize, best: &mut Best) -> Result<(), IndexError> {
        let (weight, segment) = self.segments[at];
        let times = self.times;
        let within = segment.is_within(&times);
        let mut count = 0_u64;
        if self.everything && !within {
            segment.each_in(&times, |docs| {
                count += docs.len() as u64;
                for doc in docs {
                    best.offer(segment, *doc, segment.times.get_val(*doc));
                }
            });
            self.counted[at] = Some(count);
            return Ok(());
        }
        let mut buffer = [0_i64; COLLECT_BLOCK_BUFFER_LEN];
        self.weights[weight].for_each_no_score(&segment.reader, &mut |docs: &[DocId]| {
            let buffer = &mut buffer[..docs.len()];
            segment.times.get_vals(docs, buffer);
            for (doc, time) in docs.iter().zip(buffer.iter()) {
                if within || times.contains(*time) {
                    count += 1;
                    best.offer(segment, *doc, *time);
                }
            }
        })?;
        self.counted[at] = Some(count);
        Ok(())
    }

    /// Counts what has not been counted, as long as it is cheap; says how many there are at
    /// least, and whether that is all.
    pub(super) fn total(&mut self, budget: Duration) -> Result<(u64, bool), IndexError> {
        let begun = self.deadline.elapsed();
        let mut exact = true;
        for at in 0..self.segments.len() {
            if self.counted[at].is_some() {
                continue;
            }
            if self.deadline.is_over() || self.deadline.elapsed().saturating_sub(begun) > budget {
                exact = false;
                break;
            }
            self.counted[at] = Some(self.count(at)?);
        }
        Ok((self.counted.iter().flatten().sum(), exact))
    }

    fn count(&self, at: usize) -> Result<u64, IndexError> {
        let (weight, segment) = self.segments[at];
        if segment.is_within(&self.times) {
            return Ok(match self.everything {
                true => u64::from(segment.docs()),
                false => u64::from(self.weights[weight].count(&segment.reader)?),
            });
        }
        let mut count = 0;
        if self.everything {
            segment.each_in(&self.times, |docs| count += docs.len() as u64);
            return Ok(count);
        }
        let mut buffer = [0_i64; COLLECT_BLOCK_BUFFER_LEN];
        self.weights[weight].for_each_no_score(&segment.reader, &mut |docs: &[DocId]| {
            let buffer = &mut buffer[..docs.len()];
            segment.times.get_vals(docs, buffer);
            count +=
                buffer.iter().filter(|time| self.times.contains(**time)).map(|_| 1).sum::<u64>();
        })?;
        Ok(count)
    }

    /// Visits every hit of every segment; says where it had to end.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(&Segment, &dyn Weight) -> Result<(), IndexError>,
    ) -> Result<Option<Cut>, IndexError> {
        for (number, (weight, segment)) in self.segments.iter().enumerate() {
            if number > 0 && self.deadline.is_over() {
                let time = unranked(best_time(segment, self.direction), self.direction);
                let searched = searched(time, self.direction);
                return Ok(Some(self.deadline.cut(self.direction, searched)));
            }
            take(segment, self.weights[*weight].as_ref())?;
        }
        Ok(None)
    }
}

/// The time of a rank.
fn unranked(time: i64, direction: Direction) -> i64 {
    // Flipping the bits twice gives what was there.
    ranked_time(time, direction)
}

fn best_time(segment: &Segment, direction: Direction) -> i64 {
    match direction {
        Direction::NewestFirst => segment.max_time,
        Direction::OldestFirst => !segment.min_time,
    }
}

/// The best keys so far.
struct Best {
    /// The worst on top.
    heap: BinaryHeap<Reverse<(Rank, HitKey)>>,
    limit: usize,
    after: Option<Rank>,
    direction: Direction,
}

impl Best {
    fn worst(&self) -> Option<Rank> {
        if self.heap.len() < self.limit {
            return None;
        }
        self.heap.peek().map(|Reverse((rank, _))| *rank)
    }

    fn cannot_gain(&self, segment: &Segment) -> bool {
        self.limit == 0
            || self.worst().is_some_and(|worst| best_time(segment, self.direction) < worst.0)
    }

    /// Does everything in the segment come before the cursor?
    fn is_before_cursor(&self, segment: &Segment) -> bool {
        let last = match self.direction {
            Direction::NewestFirst => segment.min_time,
            Direction::OldestFirst => !segment.max_time,
        };
        self.after.is_some_and(|after| last > after.0)
    }

    fn offer(&mut self, segment: &Segment, doc: DocId, time: i64) {
        let ranked = ranked_time(time, self.direction);
        let worst = self.worst();
        if worst.is_some_and(|worst| ranked < worst.0)
            || self.after.is_some_and(|after| ranked > after.0)
        {
            return;
        }
        let key = segment.key(doc, time);
        let rank = Rank::of(&key, self.direction);
        if worst.is_some_and(|worst| rank < worst) || self.after.is_some_and(|after| rank >= after)
        {
            return;
        }
        self.heap.push(Reverse((rank, key)));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    fn into_keys(self) -> Vec<HitKey> {
        // Ascending by `Reverse` is descending by rank.
        self.heap.into_sorted_vec().into_iter().map(|Reverse((_, key))| key).collect()
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

/// The short form of an id, as the column has it.
pub(super) fn short(id: &custody_event::EventId) -> u64 {
    schema::short_id(id)
}
