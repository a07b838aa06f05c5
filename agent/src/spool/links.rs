//! Do the blocks of a store hang together, and are they what was put in?
//!
//! Each block names the hash of the one before, and the last is judged to its last byte: so a chain
//! of any length costs one signature. Where it breaks, both sides are judged, to say which of them
//! it is.

use std::sync::Arc;

use bytes::Bytes;

use super::types::{Judge, Link, Options};

/// Looks at the blocks of a store, in their order.
pub(crate) struct Links {
    judge: Option<Arc<dyn Judge>>,
    last: Option<(u64, Link, Bytes)>,
}

impl Links {
    /// Before the first block. What waits for its restream has holes, and each of its blocks is
    /// judged when it is moved.
    pub(crate) fn begin(options: &Options, needs_restream: bool) -> Self {
        Self { judge: options.judge.clone().filter(|_| !needs_restream), last: None }
    }

    /// The next block.
    pub(crate) fn next(&mut self, seq: u64, bytes: &Bytes) -> Result<(), String> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let named = |seq: u64| move |why: String| format!("block {seq}: {why}");
        let link = judge.link(seq, bytes).map_err(named(seq))?;
        let before = self.last.replace((seq, link, bytes.clone()));
        let Some((last, before, last_bytes)) = before else { return Ok(()) };
        if last + 1 != seq || link.before == before.this {
            return Ok(());
        }
        judge.sealed(&last_bytes).map_err(named(last))?;
        judge.sealed(bytes).map_err(named(seq))?;
        Err(format!("block {seq}: it does not continue block {last}, which was signed as well"))
    }

    /// After the last one.
    pub(crate) fn end(&self) -> Result<(), String> {
        match (&self.judge, &self.last) {
            (Some(judge), Some((seq, _, bytes))) => {
                judge.sealed(bytes).map_err(|why| format!("block {seq}: {why}"))
            }
            _ => Ok(()),
        }
    }
}
