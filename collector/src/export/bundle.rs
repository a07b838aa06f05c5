//! The bundle: the whole log up to a checkpoint, with the events that the filter wants.
//!
//! Every entry of the log is there from the first to the checkpoint's last: statements as they
//! are, a block of which nothing is wanted as its signed header, one that is wanted in part as a
//! sparse block. So whoever reads it knows that nothing inside was left out afterwards. The log
//! says which entry comes next, and the segments are read beside it; a block whose body is gone
//! from them is its header.

use custody_event::{EventView, Seq};
use custody_evidence::Entry;
use custody_evidence::bundle::{
    BundleWriter, End, Filtered, Manifest, Place, Scope, filter as filter_block,
};
use serde::{Deserialize, Serialize};

use super::job::Job;
use super::part::{Hash, Part};
use super::{ExportError, Format, Totals};
use crate::query::filter::{Filter, Findable};
use crate::store::{LogCursor, StoredBlock};
use crate::tlog::Tlog;

/// Entries between two looks at the log.
const STRETCH: u64 = 256;

/// What must be kept to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stand {
    next: u64,
    cursor: LogCursor,
    totals: End,
    digest: String,
}

struct Walk<'a> {
    job: &'a Job<'a>,
    tlog: &'a Tlog,
    size: u64,
    filter: Filter,
    next: u64,
    cursor: LogCursor,
    /// The block of the segments that comes next.
    ahead: Option<StoredBlock>,
    rows: u64,
    content: Hash,
}

/// Makes the bundle, or goes on with it.
pub(super) fn run(job: &mut Job<'_>) -> Result<Totals, ExportError> {
    let log = job.desk.log().ok_or(ExportError::Unavailable("there is no evidence log"))?;
    let tlog = log.tlog().ok_or(ExportError::Unavailable("there is no transparency log"))?;
    let note = job.row.told.checkpoint.clone().unwrap_or_default();
    let checkpoint = custody_evidence::Checkpoint::open(&note, tlog.verifier())
        .map_err(crate::tlog::TlogError::from)?;
    let resumed = job.take_progress();
    let part_path = job.part_path();
    let room = job.desk.options.room;
    let mut walk = Walk {
        tlog,
        size: checkpoint.head.size,
        filter: job.filter.clone(),
        next: 0,
        cursor: LogCursor::default(),
        ahead: None,
        rows: 0,
        content: Hash::default(),
        job: &*job,
    };
    let again = resumed.and_then(|progress| {
        let stand: Stand = serde_json::from_value(progress.state).ok()?;
        let part = Part::resume(&part_path, &progress.part, room).ok()??;
        let digest = Hash::from_state(&stand.digest)?;
        walk.content = Hash::from_state(&progress.content)?;
        (walk.next, walk.cursor, walk.rows) = (stand.next, stand.cursor, progress.rows);
        Some(BundleWriter::resume(part, stand.totals, digest.into_inner()))
    });
    let mut writer = match again {
        Some(writer) => writer,
        None => {
            let part = Part::create(&part_path, room)?;
            let mut writer = BundleWriter::new(part, &walk.manifest(&checkpoint.origin))?;
            writer.log_key(tlog.verifier())?;
            writer.checkpoint(&note)?;
            writer
        }
    };
    walk.all(&mut writer)?;
    let totals = Totals { rows: walk.rows, content_sha256: walk.content.sum().to_hex() };
    let part = writer.finish_sealed(tlog.key())?;
    job.complete(part, &totals)?;
    Ok(totals)
}

impl Walk<'_> {
    fn manifest(&self, origin: &str) -> Manifest {
        debug_assert_eq!(self.job.row.spec.format, Format::Bundle);
        Manifest {
            end: self.size,
            first: 0,
            made: self.job.row.told.started.unwrap_or(self.job.row.created),
            origin: origin.to_owned(),
            query: self.job.words(),
            scope: Scope::Log,
            streams: Vec::new(),
            v: 1,
        }
    }

    fn all(&mut self, writer: &mut BundleWriter<Part>) -> Result<(), ExportError> {
        let mut pace = self.job.pace();
        while self.next < self.size {
            self.job.check(self.rows)?;
            let end = (self.next + STRETCH).min(self.size);
            let shown = self.tlog.stretch(self.next, end, self.size)?;
            if shown.is_empty() {
                return Err(ExportError::Unavailable("the log is shorter than its checkpoint"));
            }
            for (bytes, path) in shown {
                let place = Place { index: Some(self.next), path };
                self.entry(&place, &bytes, writer)?;
                self.next += 1;
                self.job.check(self.rows)?;
                if pace.is_due() {
                    self.pause(writer)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        place: &Place,
        bytes: &[u8],
        writer: &mut BundleWriter<Part>,
    ) -> Result<(), ExportError> {
        let header = match Entry::decode(bytes) {
            Ok(Entry::Block(signed)) => signed.body,
            _ => return Ok(writer.entry(place, bytes)?),
        };
        let block = self.block((header.agent, header.stream, header.seq))?;
        let Some(stored) = block else {
            return Ok(writer.entry(place, bytes)?);
        };
        let filtered = self.filtered(&stored)?;
        Ok(writer.filtered(place, &filtered)?)
    }

    /// The block of this name, where it comes next in the segments.
    fn block(
        &mut self,
        name: (custody_event::AgentId, custody_event::StreamId, Seq),
    ) -> Result<Option<StoredBlock>, ExportError> {
        if self.ahead.is_none() {
            self.ahead = self.job.desk.source.blocks.next_from(self.cursor)?;
        }
        let is_next = self.ahead.as_ref().is_some_and(|stored| {
            let header = &stored.block.header;
            (header.agent, header.stream, header.seq) == name
        });
        let taken = if is_next { self.ahead.take() } else { None };
        if let Some(stored) = &taken {
            self.cursor = stored.next;
        }
        Ok(taken)
    }

    fn filtered(&mut self, stored: &StoredBlock) -> Result<Filtered, ExportError> {
        let (filter, rows, content) = (&self.filter, &mut self.rows, &mut self.content);
        let keep = |index: u32, event: &[u8]| {
            let wanted = !stored.receipt.is_held(index) && wants(filter, event);
            if wanted {
                *rows += 1;
                content.update(event);
                content.update(b"\n");
            }
            wanted
        };
        filter_block(&stored.block, keep).map_err(|error| ExportError::Event(error.to_string()))
    }

    fn pause(&self, writer: &mut BundleWriter<Part>) -> Result<(), ExportError> {
        let mark = writer.out_mut().mark()?;
        let stand = Stand {
            next: self.next,
            cursor: self.cursor,
            totals: writer.totals().clone(),
            digest: Hash::new(writer.digest().clone()).state(),
        };
        let state =
            serde_json::to_value(stand).map_err(|error| ExportError::Table(error.to_string()))?;
        let after = self.next.to_string();
        self.job.save(super::Progress {
            after,
            rows: self.rows,
            part: mark,
            content: self.content.state(),
            state,
        })
    }
}

fn wants(filter: &Filter, event: &[u8]) -> bool {
    EventView::read(event).is_ok_and(|view| {
        filter.from.is_none_or(|from| view.time >= from)
            && filter.to.is_none_or(|to| view.time < to)
            && filter.expr.matches(&Findable::of(&view))
    })
}
