//! Reads a segment event by event, to find what goes.

use std::collections::BTreeMap;
use std::path::Path;

use custody_event::{AgentId, Timestamp};

use super::{RetainError, StoreError};
use crate::store::LogCursor;
use crate::store::evidence::{Gone, read_segment};

/// An event in a segment.
pub(super) struct Seen<'a> {
    /// Its block.
    pub(super) at: LogCursor,
    /// Its index in it.
    pub(super) index: u32,
    /// When its block came.
    pub(super) received: Timestamp,
    /// Whose block it is.
    pub(super) agent: AgentId,
    /// Is it left out of search, because an older stream had delivered it?
    pub(super) held: bool,
    /// Its canonical bytes.
    pub(super) event: &'a [u8],
}

/// Gives every event of the segment file that is still there.
pub(super) fn each_event(
    path: &Path,
    take: &mut dyn FnMut(&Seen<'_>) -> Result<(), RetainError>,
) -> Result<(), RetainError> {
    let mut told = Ok(());
    read_segment(path, &mut |stored| {
        let opened = stored.block.open_unverified().map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            offset: stored.at.offset,
            reason: error.to_string(),
        })?;
        for (index, event) in opened.events() {
            let seen = Seen {
                at: stored.at,
                index,
                received: stored.receipt.received,
                agent: stored.block.header.agent,
                held: stored.receipt.is_held(index),
                event,
            };
            told = take(&seen);
            if told.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    told
}

/// Events that go, put together.
#[derive(Debug, Default)]
pub(super) struct Going {
    pub(super) gone: Gone,
    pub(super) count: u64,
}

impl Going {
    pub(super) fn has(&self, seen: &Seen<'_>) -> bool {
        self.gone.get(&seen.at.offset).is_some_and(|indices| indices.contains(&seen.index))
    }

    pub(super) fn put(&mut self, seen: &Seen<'_>) {
        self.count += 1;
        let gone: &mut BTreeMap<_, std::collections::BTreeSet<u32>> = &mut self.gone;
        gone.entry(seen.at.offset).or_default().insert(seen.index);
    }
}
