//! Blocks whose events an output will not take, until the chain tells of them.
//!
//! Such a gap is noted in the spool in the atomic step that sets the block aside for its output,
//! and forgotten in the one that brings the gap's event into the chain: after a crash in between it
//! is told at the next start, and in no case twice.

use anyhow::Context;
use custody_event::{Block, Detail, Draft, EventView, Field, Target, Timestamp};
use serde::{Deserialize, Serialize};

use super::own::OWN_INPUT;
use crate::spool::{SpoolHandle, SpoolKey};

/// Where they stand in the spool.
const PREFIX: &[u8] = b"undelivered/";
/// The gap's code.
const CODE: &str = "output_refused";
/// A collector's reason is cut here; it is for people.
const REASON_MAX_CHARS: usize = 1_000;

/// An output gets a block's header and leaves, and not its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Which output.
    pub output: String,
    /// The block's stream, hex.
    pub stream: String,
    /// The block's number in it.
    pub block: u64,
    /// Events in the block.
    pub records: u32,
    /// The earliest event's time.
    pub first_time: Timestamp,
    /// The latest event's time.
    pub last_time: Timestamp,
    /// What the destination said.
    pub reason: String,
}

impl Undelivered {
    /// Of this block. None where it holds nothing but such gaps: of an output that takes no events
    /// at all there would be something new to tell for ever.
    #[must_use]
    pub fn of(output: &str, block: &Block, reason: &str) -> Option<Self> {
        if holds_only_gaps(block) {
            return None;
        }
        let header = &block.header;
        Some(Self {
            output: output.to_owned(),
            stream: header.stream.to_hex(),
            block: header.seq.get(),
            records: header.count,
            first_time: header.first_time,
            last_time: header.last_time,
            reason: reason.chars().take(REASON_MAX_CHARS).collect(),
        })
    }

    /// Where it stands in the spool.
    #[must_use]
    pub fn key(&self) -> SpoolKey {
        let Self { output, stream, block, .. } = self;
        [PREFIX, format!("{output}/{stream}/{block}").as_bytes()].concat()
    }

    /// As it stands in the spool.
    ///
    /// # Errors
    /// It has no form as JSON.
    pub fn to_put(&self) -> Result<(SpoolKey, Vec<u8>), serde_json::Error> {
        Ok((self.key(), serde_json::to_vec(self)?))
    }

    /// Those that no event tells yet.
    ///
    /// # Errors
    /// The spool cannot be read, or holds something else there.
    pub fn untold(spool: &SpoolHandle) -> anyhow::Result<Vec<Self>> {
        let found = spool.scan_prefix(PREFIX).wait()?;
        let parse = |(_, value): (SpoolKey, Vec<u8>)| {
            serde_json::from_slice(&value).context("what an output was not sent cannot be read")
        };
        found.into_iter().map(parse).collect()
    }

    /// One sentence about it.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { output, stream, block, records, first_time, last_time, reason } = self;
        format!(
            "Output {output} does not take block {block} of stream {stream} ({reason}): of its {records} events from {first_time} to {last_time} it gets the leaves only. They are kept as a dead letter; other outputs get them."
        )
    }

    pub(super) fn describe<'a>(&'a self, draft: &mut Draft<'a>) {
        draft.text(Field::ReasonCode, CODE);
        draft.text(Field::ReasonText, &*self.reason);
        draft.tag("gap");
        draft.target(Target {
            kind: Some("output".into()),
            id: Some((&*self.output).into()),
            name: None,
            parent: None,
        });
        draft.detail("stream", Detail::Text((&*self.stream).into()));
        draft.detail("block", Detail::Int(i64::try_from(self.block).unwrap_or(i64::MAX)));
        draft.detail("lost_records", Detail::Int(i64::from(self.records)));
        draft.detail("first_time", Detail::Text(self.first_time.to_string().into()));
        draft.detail("last_time", Detail::Text(self.last_time.to_string().into()));
    }
}

fn holds_only_gaps(block: &Block) -> bool {
    let is_gap = |event: &[u8]| {
        EventView::read(event).is_ok_and(|view| {
            view.reason.code.as_deref() == Some(CODE)
                && view.origin.input.as_deref() == Some(OWN_INPUT)
        })
    };
    block.open().is_ok_and(|opened| opened.events().all(|(_, event)| is_gap(event)))
}
