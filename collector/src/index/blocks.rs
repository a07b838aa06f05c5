//! Opened blocks, kept for the next look: a page of hits often lies in few blocks.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use custody_event::block::Opened;

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

/// The least recently used blocks go when the bytes of all are more than the bound.
pub(super) struct Blocks {
    source: Arc<dyn BlockSource>,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    blocks: HashMap<LogCursor, (Arc<OpenBlock>, u64)>,
    bytes: usize,
    clock: u64,
}

/// Beside the events: the packed body, the header, the books; a round figure.
const OVERHEAD_BYTES: usize = 128 * 1024;

impl Blocks {
    pub(super) fn new(source: Arc<dyn BlockSource>, max_bytes: usize) -> Self {
        Self { source, max_bytes, kept: Mutex::default() }
    }

    /// The block at this place.
    pub(super) fn get(&self, at: LogCursor) -> Result<Arc<OpenBlock>, IndexError> {
        if let Some(block) = self.kept().look(at) {
            return Ok(block);
        }
        let stored = self.source.read_at(at)?;
        let events = stored.block.open_unverified().map_err(|error| IndexError::Block {
            segment: at.segment,
            offset: at.offset,
            reason: error.to_string(),
        })?;
        let block = Arc::new(OpenBlock { stored, events });
        self.kept().keep(at, &block, self.max_bytes);
        Ok(block)
    }

    /// Blocks of these segments have lost events: they are read anew.
    pub(super) fn forget(&self, segments: &BTreeSet<u64>) {
        let mut kept = self.kept();
        let old: Vec<LogCursor> =
            kept.blocks.keys().filter(|at| segments.contains(&at.segment)).copied().collect();
        for at in old {
            if let Some((block, _)) = kept.blocks.remove(&at) {
                kept.bytes -= cost(&block);
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // The map is consistent between its statements; a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(block: &OpenBlock) -> usize {
    block.events.text_bytes() + OVERHEAD_BYTES
}

impl Kept {
    fn look(&mut self, at: LogCursor) -> Option<Arc<OpenBlock>> {
        self.clock += 1;
        let (block, used) = self.blocks.get_mut(&at)?;
        *used = self.clock;
        Some(Arc::clone(block))
    }

    fn keep(&mut self, at: LogCursor, block: &Arc<OpenBlock>, max_bytes: usize) {
        self.clock += 1;
        self.bytes += cost(block);
        if let Some((old, _)) = self.blocks.insert(at, (Arc::clone(block), self.clock)) {
            self.bytes -= cost(&old);
        }
        while self.bytes > max_bytes {
            // A few hundred blocks at most: looking through them is cheaper than opening one.
            let Some(oldest) =
                self.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| *at)
            else {
                break;
            };
            if let Some((old, _)) = self.blocks.remove(&oldest) {
                self.bytes -= cost(&old);
            }
        }
    }
}
