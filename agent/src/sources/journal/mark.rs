//! How far each sequence was read, as the spool keeps it: `seq/<sequence id>` → JSON.

use anyhow::Context;
use custody_journal::{Cursor, Id128, Mark, SeqnumId};
use serde::{Deserialize, Serialize};

use crate::sources::batch::{Mark as Kept, MarkOf, RecordAt, SavedMarks};

const PREFIX: &str = "seq/";
const STARTED: &[u8] = b"started";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    seqnum: u64,
    realtime_us: u64,
    cursor: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    generation: u32,
    #[serde(default, skip_serializing_if = "is_nothing")]
    after_us: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_gone: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<(u64, u64)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_nothing(value: &u64) -> bool {
    *value == 0
}

/// Says that there was a start.
pub(super) fn started() -> Kept {
    Kept { key: STARTED.to_vec(), value: Some(b"1".to_vec()), also_when_dropped: true }
}

/// A sequence's key.
pub(super) fn key(id: SeqnumId) -> Vec<u8> {
    format!("{PREFIX}{id}").into_bytes()
}

/// A mark as it is kept.
pub(super) fn value(mark: &Mark) -> Vec<u8> {
    let stored = Stored {
        seqnum: mark.seqnum,
        realtime_us: mark.realtime_us,
        cursor: mark.cursor.clone(),
        generation: mark.generation,
        after_us: mark.after_us,
        is_gone: mark.is_gone,
        open: mark.open.clone(),
    };
    // Numbers and texts with texts for keys can always be written.
    serde_json::to_vec(&stored).unwrap_or_default()
}

/// A sequence in one of its generations: from a record of it follows how far it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) id: SeqnumId,
    pub(super) generation: u32,
    pub(super) after_us: u64,
    pub(super) open: Vec<(u64, u64)>,
}

impl Sequence {
    /// May records of both stand in one batch?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.id, self.generation, self.after_us) == (other.id, other.generation, other.after_us)
    }
}

impl MarkOf for Sequence {
    fn value(&self, record: &RecordAt) -> Option<Vec<u8>> {
        let cursor = record.known.as_ref()?.cursor.as_ref()?;
        let realtime_us = Cursor::parse(cursor).ok()?.realtime_us;
        Some(value(&Mark {
            seqnum_id: self.id,
            seqnum: record.offset.0,
            realtime_us,
            cursor: cursor.clone(),
            generation: self.generation,
            after_us: self.after_us,
            is_gone: false,
            // Those before it; a batch keeps what is open at its end.
            open: self.open.iter().copied().filter(|open| open.1 < record.offset.0).collect(),
        }))
    }
}

/// What was kept.
///
/// # Errors
/// A mark cannot be read.
pub(super) fn read(saved: &SavedMarks) -> anyhow::Result<Vec<Mark>> {
    let marks = saved.iter().filter(|(key, _)| key != STARTED);
    marks
        .map(|(key, value)| {
            let name = String::from_utf8_lossy(key);
            let unread = || format!("the journal's mark {name} cannot be read");
            let id = name.strip_prefix(PREFIX).and_then(Id128::parse).with_context(unread)?;
            let stored: Stored = serde_json::from_slice(value).with_context(unread)?;
            Ok(Mark {
                seqnum_id: id,
                seqnum: stored.seqnum,
                realtime_us: stored.realtime_us,
                cursor: stored.cursor,
                generation: stored.generation,
                after_us: stored.after_us,
                is_gone: stored.is_gone,
                open: stored.open,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use custody_event::Offset;

    use super::*;
    use crate::sources::Known;

    #[test]
    fn what_is_kept_reads_back_and_what_is_not_ours_is_an_error() {
        let mark = Mark {
            seqnum_id: Id128([7; 16]),
            seqnum: 12,
            realtime_us: 99,
            cursor: "s=07;i=c".into(),
            generation: 2,
            after_us: 50,
            is_gone: true,
            open: vec![(3, 4), (7, 7)],
        };
        let kept = (key(mark.seqnum_id), value(&mark));
        let started = started();
        let saved = vec![(started.key, started.value.unwrap()), kept];
        assert_eq!(read(&saved).unwrap(), [mark]);
        let error = read(&vec![(b"seq/x".to_vec(), Vec::new())]).unwrap_err();
        assert!(format!("{error:#}").contains("seq/x"));
    }

    #[test]
    fn from_a_record_follows_the_mark_behind_it() {
        let cursor = Cursor::text_for(Id128([7; 16]), 12, Some(99))
            + ";b=07070707070707070707070707070707;m=1;x=2";
        let known = Known { cursor: Some(cursor.clone()), ..Known::default() };
        let record = RecordAt {
            end: 0,
            offset: Offset(12),
            way: 0,
            segment: None,
            known: Some(Box::new(known)),
        };
        let sequence = Sequence {
            id: Id128([7; 16]),
            generation: 2,
            after_us: 50,
            open: vec![(3, 4), (7, 7)],
        };
        let kept = sequence.value(&record).unwrap();
        let mark = Mark {
            seqnum_id: Id128([7; 16]),
            seqnum: 12,
            realtime_us: 99,
            cursor,
            generation: 2,
            after_us: 50,
            is_gone: false,
            open: vec![(3, 4), (7, 7)],
        };
        assert_eq!(read(&vec![(key(mark.seqnum_id), kept)]).unwrap(), [mark]);
    }
}
