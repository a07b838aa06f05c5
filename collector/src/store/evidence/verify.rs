//! Reads the whole log and checks everything that can be checked without the agents: frames,
//! checksums, headers, the chain of every stream, signatures, roots, and that events are canonical.
//! Writes nothing; goes on behind damage and says all of it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use custody_event::{AgentId, Block, KeyId};
use custody_evidence::{Chain, Place, PublicKey};

use super::ledger::StreamName;
use super::mark::Mark;
use super::reader::{RawFrame, read_frame};
use super::recover::find_whole_frame;
use super::segment::{HEADER_BYTES, Segment, SegmentHeader, end_of, io_error, list, read_header};
use crate::store::StoreError;

/// Problems that are told one by one; more are only counted.
const MAX_PROBLEMS: usize = 200;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Blocks that verify.
    pub blocks: u64,
    /// Events (or bare leaves) in them.
    pub events: u64,
    /// What is wrong, each with file and offset; at most 200.
    pub problems: Vec<String>,
    /// How many problems in all.
    pub problem_count: u64,
}

impl Report {
    /// Is everything as it should be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, path: &Path, offset: u64, what: impl std::fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{}: byte {offset}: {what}", path.display()));
        }
    }
}

/// Verifies the log in `root`. `key` knows the agents' public keys.
///
/// # Errors
/// A file cannot be read, or a segment is missing.
pub fn verify(
    root: &Path,
    key: &dyn Fn(&AgentId, &KeyId) -> Option<PublicKey>,
) -> Result<Report, StoreError> {
    let segments = list(root)?;
    let mut check = Check { key, report: Report::default(), chains: HashMap::new() };
    for (at, segment) in segments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| segments.get(at));
        check.segment(segment, before)?;
    }
    if let Some(said) = Mark::look(root).map_err(|e| io_error(&root.join("durable"), e))? {
        let marked = segments.iter().find(|segment| segment.number == said.segment);
        if marked.is_none_or(|segment| segment.len < said.offset) {
            let what = format!(
                "acknowledged evidence is missing: it went to byte {} of segment {}",
                said.offset, said.segment
            );
            check.report.problem(root, said.offset, what);
        }
    }
    Ok(check.report)
}

struct Check<'a> {
    key: &'a dyn Fn(&AgentId, &KeyId) -> Option<PublicKey>,
    report: Report,
    chains: HashMap<StreamName, Chain>,
}

impl Check<'_> {
    fn segment(&mut self, segment: &Segment, before: Option<&Segment>) -> Result<(), StoreError> {
        self.report.segments += 1;
        let path = &segment.path;
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        match read_header(path, &file) {
            Ok(Some(header)) => self.header(segment, header, before)?,
            Ok(None) => self.report.problem(path, 0, "the segment has no header"),
            Err(StoreError::Damaged { reason, .. }) => self.report.problem(path, 0, reason),
            Err(error) => return Err(error),
        }
        let mut at = HEADER_BYTES;
        while at < segment.len {
            match read_frame(&file, path, at, segment.len)? {
                Ok(frame) => {
                    self.frame(path, at, &frame);
                    at += frame.len;
                }
                Err(reason) => {
                    self.report.problem(path, at, reason);
                    at = find_whole_frame(segment, &file, at)?.unwrap_or(segment.len);
                }
            }
        }
        Ok(())
    }

    fn header(
        &mut self,
        segment: &Segment,
        header: SegmentHeader,
        before: Option<&Segment>,
    ) -> Result<(), StoreError> {
        let (len, crc) = match before {
            Some(before) => end_of(before)?,
            None => (0, 0),
        };
        if let Some(anew) = header.rewritten.filter(|anew| anew.len != segment.len) {
            let what =
                format!("it was written anew with {} bytes; it has {}", anew.len, segment.len);
            self.report.problem(&segment.path, 0, what);
        }
        if header.number != segment.number || header.prev_len != len || header.prev_crc != crc {
            let what = format!(
                "the segment says that it is number {} after one of {} bytes ending in {:08x}; \
                 it stands as number {} after one of {len} bytes ending in {crc:08x}",
                header.number, header.prev_len, header.prev_crc, segment.number
            );
            self.report.problem(&segment.path, 0, what);
        }
        Ok(())
    }

    fn frame(&mut self, path: &Path, at: u64, frame: &RawFrame) {
        match self.block(&frame.block) {
            Ok(events) => {
                self.report.blocks += 1;
                self.report.events += events;
            }
            Err(what) => self.report.problem(path, at, what),
        }
    }

    fn block(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let block = Block::decode(bytes).map_err(|error| error.to_string())?;
        let header = &block.header;
        let name = (header.agent, header.stream);
        let of = format!("block {} of stream {}", header.seq, header.stream);
        let chain = self.chains.entry(name).or_insert_with(|| Chain::new(header.stream));
        let placed = match chain.place(header.seq) {
            Place::Next => chain.check(&block).map_err(|error| error.to_string()),
            Place::Earlier => Err("its number was there before".to_owned()),
            Place::Later => Err(format!("block {} was expected", chain.next_seq)),
        };
        // Go on from here: one missing block is one problem.
        chain.advance(&block);
        placed.map_err(|what| format!("{of}: {what}"))?;
        let key = (self.key)(&header.agent, &header.key).ok_or_else(|| {
            format!("{of}: key {} of agent {} is not known", header.key, header.agent)
        })?;
        key.verify(&block).map_err(|error| format!("{of}: {error}"))?;
        block.coverage().map_err(|error| format!("{of}: {error}"))?;
        let opened = block.open().map_err(|error| format!("{of}: {error}"))?;
        for (index, event) in opened.events() {
            custody_event::canon::check(event)
                .map_err(|error| format!("{of}, event {index}: {error}"))?;
        }
        Ok(u64::try_from(opened.len()).unwrap_or(u64::MAX))
    }
}
