//! Which events of a block an older stream of the same host has delivered already.
//!
//! An agent that has lost its memory, or was put back from a backup, begins a new stream and reads
//! files again. Its events are kept as evidence like all others; what an older stream (by first
//! arrival) has already delivered is left out of search and counts.
//!
//! **Content decides.** A range that no older stream covers needs no look-up at all. Where ranges
//! overlap, the old blocks are read, and an event is *held* if an old event of the same file has
//! the same offset and the same record hash (and the same number among the record's events).
//! Other bytes at an equal offset are never held.
//!
//! **Equal bytes are not enough.** A file that was emptied and written again with the same lines
//! holds new records. Agents number such contents of a file (*generations*), but each agent
//! counts for itself. So the collector numbers them over all streams of a host (*lines*): when a
//! stream shows a file for the first time, its first ranges are compared with the lines that
//! older streams have of it, newest first; it goes on with the line with which more records agree
//! than disagree; where all disagree it begins a new line; where nothing can be compared it goes
//! on with the newest. From there the stream's own count moves it from line to line. Events are
//! held only within one line: the second content that a new stream sees is newer than all that
//! older streams saw, and is not held though its bytes be the same.
//!
//! The decision depends on nothing but the blocks before in the log, so it is the same when the
//! ledger is made again. What it cannot see: a file rewritten with mostly the same first lines,
//! time stamps and all, just while the agent lost its memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use custody_event::position::event_id;
use custody_event::{Block, Coverage, Digest, EventId, Malformed, Offset};
use serde::Deserialize;

use super::ledger::{Basis, OldBlock, Shared};
use super::note::DurableFile;
use crate::store::{LogCursor, StoreError};

/// An event that stands at a place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// In the block.
    index: u32,
    /// Which of the block's ranges.
    range: usize,
    offset: u64,
    hash: Digest,
    /// Which of the record's events.
    nth: u32,
}

/// A block's events that stand in files.
#[derive(Debug)]
pub(crate) struct BoundEvents {
    events: Vec<Bound>,
    files: Vec<(DurableFile, u32)>,
}

/// Where old blocks are read.
pub(crate) trait OldBlocks {
    /// The events of the block at this place.
    fn bound(&self, at: LogCursor) -> Result<Arc<BoundEvents>, StoreError>;
}

/// What was decided about a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Held indices, as the receipt keeps them.
    pub(crate) ranges: Vec<(u32, u32)>,
    /// Held events by source.
    pub(crate) by_source: BTreeMap<String, u64>,
    /// The line of each covered range.
    pub(crate) lines: Vec<u32>,
}

#[derive(Deserialize)]
struct Event<'a> {
    id: EventId,
    #[serde(borrow)]
    origin: Origin<'a>,
}

#[derive(Deserialize)]
struct Origin<'a> {
    #[serde(borrow)]
    input: Option<std::borrow::Cow<'a, str>>,
    offset: Option<u64>,
    raw_sha256: Option<Digest>,
}

impl BoundEvents {
    /// Finds each event's range. Events without a place in a file, and those whose range is not
    /// plain, are left out: they are never held.
    ///
    /// # Errors
    /// The block does not open.
    pub(crate) fn of(block: &Block) -> Result<Self, Malformed> {
        let coverage = block.coverage()?;
        let keys: Vec<_> =
            coverage.iter().map(|covered| covered.file.key(&block.header.host)).collect();
        let opened = block.open()?;
        let mut events = Vec::with_capacity(opened.len());
        let mut last: Option<(u64, Digest, u32)> = None;
        for (index, text) in opened.events() {
            let Ok(event) = serde_json::from_slice::<Event<'_>>(text) else { continue };
            let origin = &event.origin;
            let (Some(offset), Some(hash)) = (origin.offset, origin.raw_sha256) else { continue };
            let nth = match last {
                Some((at, same, nth)) if at == offset && same == hash => nth + 1,
                _ => 0,
            };
            last = Some((offset, hash, nth));
            let input = origin.input.as_deref();
            let mut fitting = (0..coverage.len()).filter(|at| {
                let covered = &coverage[*at];
                (covered.from.get()..covered.to.get()).contains(&offset)
                    && input == Some(covered.source.as_str())
            });
            let range = match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only),
                (None, _) => None,
                // Two files of one source, or two contents of one file: the id tells.
                (Some(_), Some(_)) => keys
                    .iter()
                    .position(|key| event_id(*key, Offset(offset), nth, &hash) == event.id),
            };
            if let Some(range) = range {
                events.push(Bound { index, range, offset, hash, nth });
            }
        }
        let files = coverage
            .iter()
            .map(|covered| (DurableFile::from(&covered.file), covered.file.generation))
            .collect();
        Ok(Self { events, files })
    }
}

/// The records that older streams have of one line of one file, near one range.
#[derive(Default)]
struct OldRecords {
    offsets: HashSet<u64>,
    records: HashSet<(u64, u32, Digest)>,
}

impl OldRecords {
    fn read(
        file: DurableFile,
        blocks: &[OldBlock],
        line: u32,
        old: &impl OldBlocks,
    ) -> Result<Self, StoreError> {
        let mut found = Self::default();
        for block in blocks.iter().filter(|block| block.line == line) {
            let events = old.bound(block.at)?;
            for event in &events.events {
                if events.files[event.range] == (file, block.generation) {
                    found.offsets.insert(event.offset);
                    found.records.insert((event.offset, event.nth, event.hash));
                }
            }
        }
        Ok(found)
    }

    fn has(&self, event: &Bound) -> bool {
        self.records.contains(&(event.offset, event.nth, event.hash))
    }

    /// How many of the events agree, and how many stand where an old record has other bytes.
    fn compare<'a>(&self, events: impl Iterator<Item = &'a Bound>) -> (usize, usize) {
        events.fold((0, 0), |(agree, differ), event| {
            let same = self.has(event);
            let other = !same && self.offsets.contains(&event.offset);
            (agree + usize::from(same), differ + usize::from(other))
        })
    }
}

/// Decides about a block. `events` is asked for only where an older stream has a range's bytes.
///
/// # Errors
/// An old block cannot be read, or this one does not open.
pub(crate) fn decide(
    block: &Block,
    coverage: &[Coverage],
    basis: &Basis,
    old: &impl OldBlocks,
) -> Result<Decision, DecideError> {
    let mut decision = Decision {
        lines: coverage.iter().map(|c| c.file.generation).collect(),
        ..Decision::default()
    };
    if basis.0.is_empty() {
        return Ok(decision);
    }
    let new = match basis.0.iter().any(|shared| !shared.blocks.is_empty()) {
        true => BoundEvents::of(block)?,
        false => BoundEvents { events: Vec::new(), files: Vec::new() },
    };
    let mut begun: HashMap<DurableFile, (u32, u32)> = HashMap::new();
    let mut held: Vec<u32> = Vec::new();
    for shared in &basis.0 {
        let covered = &coverage[shared.range];
        let file = DurableFile::from(&covered.file);
        let generation = covered.file.generation;
        let events = || new.events.iter().filter(|event| event.range == shared.range);
        let first = match shared.known.or_else(|| begun.get(&file).copied()) {
            Some(first) => first,
            None => (generation, first_line(shared, file, events, old)?),
        };
        begun.insert(file, first);
        // A stream's own count never goes back; should it, nothing is held.
        let Some(later) = generation.checked_sub(first.0) else { continue };
        let line = first.1.saturating_add(later);
        decision.lines[shared.range] = line;
        let records = OldRecords::read(file, &shared.blocks, line, old)?;
        let before = held.len();
        held.extend(events().filter(|event| records.has(event)).map(|event| event.index));
        if let Some(count) = u64::try_from(held.len() - before).ok().filter(|count| *count > 0) {
            *decision.by_source.entry(covered.source.clone()).or_default() += count;
        }
    }
    decision.ranges = runs(held);
    Ok(decision)
}

/// The line with which a stream begins that shows a file for the first time.
fn first_line<'a, I: Iterator<Item = &'a Bound>>(
    shared: &Shared,
    file: DurableFile,
    events: impl Fn() -> I,
    old: &impl OldBlocks,
) -> Result<u32, StoreError> {
    let mut lines: Vec<u32> = shared.blocks.iter().map(|block| block.line).collect();
    lines.sort_unstable_by(|left, right| right.cmp(left));
    lines.dedup();
    let mut rewritten = false;
    for line in lines {
        let (agree, differ) = OldRecords::read(file, &shared.blocks, line, old)?.compare(events());
        if agree > differ {
            return Ok(line);
        }
        rewritten |= differ > 0 && line == shared.newest_line;
    }
    Ok(shared.newest_line.saturating_add(u32::from(rewritten)))
}

/// Sorted indices as ranges, both ends included.
fn runs(mut indices: Vec<u32>) -> Vec<(u32, u32)> {
    indices.sort_unstable();
    indices.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == index => run.1 = index,
            _ => runs.push((index, index)),
        }
    }
    runs
}

/// Why nothing could be decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    /// The block itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_neighbours() {
        assert_eq!(runs(vec![5, 1, 2, 3, 9, 5]), vec![(1, 3), (5, 5), (9, 9)]);
        assert_eq!(runs(Vec::new()), Vec::new());
    }
}
