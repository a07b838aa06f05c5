//! Judges a collector's data directory: the evidence segments against the log, the log against
//! its tiles, and both against the checkpoint.
//!
//! The log's block entries stand in the order of the segments' frames. Both are read once, side by
//! side. Where they part, the log is searched ahead for the frame's entry: what lies between was
//! removed from the segments; what the log does not have at all was inserted.

mod cosigned;
mod slots;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use custody_event::{Block, Digest};

use super::check::{Checker, Held};
use super::report::{Harm, LogReport, Problem, Report};
use super::track::{Step, Track};
use super::{Trust, VerifyError, trusted_head, witnessed};
use crate::entry::Entry;
use crate::note::{Checkpoint, MAX_NOTE_BYTES, VerifierKey};
use crate::segments::{self, Frame, Frames, HEADER_BYTES, Segment, SegmentHeader};
use crate::tlog::{FileTiles, TreeHead};
use slots::{Differs, Rebuild, Slot, Slots, probe};

/// Entries that are read while looking for lost places, over the whole verification.
const MAX_SEARCHED: u64 = 20_000_000;

/// Verifies the data directory `dir`. May run beside the collector.
///
/// # Errors
/// It cannot be read, is no data directory, or what is trusted cannot be read.
pub fn verify_dir(dir: &Path, trust: &Trust) -> Result<Report, VerifyError> {
    let old = trusted_head(trust)?;
    let (evidence, tlog) = (dir.join("evidence"), dir.join("tlog"));
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| VerifyError::Io { path, source }
    };
    let there = |path: &Path| path.try_exists().map_err(io(path));
    let (has_evidence, has_log) = (there(&evidence)?, there(&tlog)?);
    if !has_evidence && !has_log {
        let spool = ["spool/ledger", "ledger"];
        let name = dir.display().to_string();
        for file in spool {
            if there(&dir.join(file))? {
                return Err(VerifyError::Spool(name));
            }
        }
        return Err(VerifyError::Nothing(name));
    }
    let tiles = FileTiles::new(&tlog);
    let mut checker = Checker::default();
    checker.from_the_start = true;
    let found = open_log(&mut checker, &tlog, &tiles, trust);
    let segments =
        if has_evidence { segments::list(&evidence).map_err(io(&evidence))? } else { Vec::new() };
    let mut walk = Walk {
        checker,
        slots: Slots::new(&tiles, found.size, 0),
        rebuild: Rebuild::new(&tiles),
        tiles: &tiles,
        size: found.size,
        peeked: None,
        old: old.as_ref().map(|old| old.head),
        continues: None,
        searched: 0,
        tail: 0,
    };
    let durable = segments::durable_end(&evidence).map_err(io(&evidence))?;
    walk.segments(&segments, durable)?;
    walk.rest();
    walk.tiles_and_root(found.checkpoint.as_ref(), &tlog);
    walk.cosigned(found.key.as_ref(), &tlog);
    walk.anchored(found.key.as_ref(), &tlog, trust);
    Ok(walk.finish(found, trust))
}

/// The log as its own files tell it.
struct Found {
    key: Option<VerifierKey>,
    checkpoint: Option<Checkpoint>,
    /// Entries that are read: those of the checkpoint, or those that are there.
    size: u64,
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX) + 1;
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

fn open_log(checker: &mut Checker, tlog: &Path, tiles: &FileTiles, trust: &Trust) -> Found {
    let mut problem = |harm, path: &Path, text: String| {
        checker.report.problem(Problem::new(harm, path.display().to_string(), text));
    };
    let path = tlog.join("vkey");
    let own = match read_text(&path) {
        Ok(text) => match text.strip_suffix('\n').unwrap_or_default().parse::<VerifierKey>() {
            Ok(key) => Some(key),
            Err(error) => {
                problem(Harm::Altered, &path, error.to_string());
                None
            }
        },
        Err(error) => {
            problem(Harm::Removed, &path, format!("the log's key cannot be read: {error}"));
            None
        }
    };
    if let (Some(own), Some(trusted)) = (&own, &trust.log)
        && own != trusted
    {
        problem(Harm::Forged, &path, "another key than the one that is trusted".to_owned());
    }
    let key = trust.log.clone().or(own);
    let path = tlog.join("checkpoint");
    let checkpoint = match (read_text(&path), &key) {
        (Ok(note), Some(key)) => match Checkpoint::open(&note, key) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                problem(Harm::Forged, &path, error.to_string());
                None
            }
        },
        (Ok(_), None) => None,
        (Err(error), _) => {
            problem(Harm::Removed, &path, format!("the checkpoint cannot be read: {error}"));
            None
        }
    };
    if let (Some(_), Ok(note)) = (&checkpoint, read_text(&path)) {
        witnessed(&mut checker.report, &path.display().to_string(), &note, trust);
    }
    checker.log_key = key.as_ref().map(VerifierKey::public);
    checker.head = checkpoint.as_ref().map(|checkpoint| checkpoint.head);
    let size = checkpoint.as_ref().map_or_else(|| probe(tiles), |c| c.head.size);
    Found { key, checkpoint, size }
}

struct Walk<'a> {
    checker: Checker,
    slots: Slots<'a>,
    rebuild: Rebuild<'a>,
    tiles: &'a FileTiles,
    size: u64,
    /// The next block entry of the log.
    peeked: Option<Slot>,
    old: Option<TreeHead>,
    continues: Option<bool>,
    searched: u64,
    /// Frames behind the last entry of the checkpoint.
    tail: u64,
}

impl Walk<'_> {
    fn problem(&mut self, problem: Problem) {
        self.checker.report.problem(problem);
    }

    fn segments(
        &mut self,
        segments: &[Segment],
        durable: Option<(u64, u64)>,
    ) -> Result<(), VerifyError> {
        let mut numbers = Track::from(0);
        for (at, segment) in segments.iter().enumerate() {
            let path = segment.path.display().to_string();
            match numbers.step(segment.number) {
                Step::Next | Step::Skipped => {}
                Step::Late | Step::Again => {
                    let text = "a segment of this number is there twice";
                    self.problem(Problem::new(Harm::Inserted, path.clone(), text));
                }
            }
            let before = at.checked_sub(1).and_then(|at| segments.get(at));
            let last = at + 1 == segments.len();
            let io = |source| VerifyError::Io { path: path.clone(), source };
            self.segment(segment, before, durable.filter(|_| last)).map_err(io)?;
        }
        for (from, to) in numbers.missing() {
            let text = format!("the segments {from} to {to} are missing");
            self.problem(Problem::new(Harm::Removed, "", text));
        }
        let reached = |(number, byte): &(u64, u64)| {
            segments.iter().any(|s| s.number > *number || (s.number == *number && s.len >= *byte))
        };
        if let Some((number, byte)) = durable.filter(|end| !reached(end)) {
            let text = format!("acknowledged evidence went to byte {byte} of segment {number}");
            self.problem(Problem::new(Harm::Truncated, "", text));
        }
        Ok(())
    }

    fn segment(
        &mut self,
        segment: &Segment,
        before: Option<&Segment>,
        durable: Option<(u64, u64)>,
    ) -> io::Result<()> {
        let place = segment.path.display().to_string();
        let mut input = BufReader::with_capacity(256 * 1024, File::open(&segment.path)?);
        let mut header = Vec::new();
        input.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
        match <[u8; 64]>::try_from(header).map(|header| SegmentHeader::from_bytes(&header)) {
            Ok(Ok(header)) => self.segment_header(segment, header, before)?,
            Ok(Err(reason)) => {
                self.problem(Problem::new(Harm::Altered, format!("{place}: byte 0"), reason));
            }
            Err(_) => {
                let text = "the segment has no header";
                self.problem(Problem::new(Harm::Truncated, place.clone(), text));
            }
        }
        let mut frames = Frames::new(input);
        while let Some(frame) = frames.next_frame()? {
            match frame {
                Frame::Block { at, block, .. } => {
                    self.frame(&format!("{place}: byte {at}"), block);
                }
                Frame::Damage { from, to, to_end } => {
                    self.damage(&place, (from, to, to_end), durable);
                }
            }
        }
        Ok(())
    }

    fn damage(
        &mut self,
        place: &str,
        (from, to, to_end): (u64, u64, bool),
        end: Option<(u64, u64)>,
    ) {
        let text = format!("{} bytes are no whole frame", to - from);
        let place = format!("{place}: byte {from}");
        if to_end && end.is_some_and(|(_, byte)| from >= byte) {
            let note = format!(
                "{place}: {text}, behind what was acknowledged: a write that was cut off, or is \
                 under way"
            );
            return self.checker.report.note(note);
        }
        let harm = if to_end { Harm::Truncated } else { Harm::Altered };
        self.problem(Problem::new(harm, place, text));
    }

    fn segment_header(
        &mut self,
        segment: &Segment,
        header: SegmentHeader,
        before: Option<&Segment>,
    ) -> io::Result<()> {
        let (len, crc) = match before {
            Some(before) => segments::end_of(before)?,
            None => (0, 0),
        };
        if let Some(rewritten) = header.rewritten
            && rewritten.len != segment.len
        {
            let text = format!(
                "the segment was written anew with {} bytes; it has {}",
                rewritten.len, segment.len
            );
            let harm = if segment.len < rewritten.len { Harm::Truncated } else { Harm::Altered };
            self.problem(Problem::new(harm, format!("{}: byte 0", segment.path.display()), text));
        }
        let follows = before.is_none_or(|before| before.number + 1 == segment.number);
        if header.number != segment.number
            || (follows && (header.prev_len != len || header.prev_crc != crc))
        {
            let text = format!(
                "the segment says that it is number {} after one of {} bytes ending in {:08x}; it \
                 stands as number {} after one of {len} bytes ending in {crc:08x}",
                header.number, header.prev_len, header.prev_crc, segment.number
            );
            let place = format!("{}: byte 0", segment.path.display());
            self.problem(Problem::new(Harm::Altered, place, text));
        }
        Ok(())
    }

    /// The next block entry of the log; statements on the way are taken in.
    fn peek(&mut self) -> Option<Slot> {
        while self.peeked.is_none() {
            let slot = self.slots.next_slot()?;
            self.rebuild.push(&slot);
            if let Some(old) = self.old.filter(|old| old.size == slot.index + 1) {
                self.continues = Some(self.rebuild.head() == old && self.rebuild.whole);
            }
            for (tile, error) in std::mem::take(&mut self.slots.errors) {
                let (first, last) = (tile * 256, (tile * 256 + 255).min(self.size - 1));
                let problem = Problem::new(Harm::Altered, "tlog", error.to_string());
                self.problem(problem.entries(first, last));
            }
            let entry = slot.entry.as_deref().map(|bytes| (bytes, Entry::decode(bytes)));
            match entry {
                Some((_, Ok(Entry::Block(_)))) | None => self.peeked = Some(slot),
                Some((bytes, Ok(entry))) => {
                    let place = format!("tlog: entry {}", slot.index);
                    self.checker.statement(&place, &Held::Compared(slot.index), bytes, &entry);
                }
                Some((_, Err(error))) => {
                    let place = format!("tlog: entry {}", slot.index);
                    let problem = Problem::new(Harm::Altered, place, error.to_string());
                    self.problem(problem.entries(slot.index, slot.index));
                }
            }
        }
        self.peeked.clone()
    }

    fn frame(&mut self, place: &str, bytes: &[u8]) {
        let decoded = Block::decode(bytes).ok();
        let header = match &decoded {
            Some(block) => Some(block.header.clone()),
            None => Block::header_in(bytes),
        };
        let leaf = decoded.as_ref().and_then(Entry::of_block).map(|entry| entry.leaf());
        let Some(slot) = self.peek() else {
            self.tail += 1;
            return self.checker.block(place, &Held::Nowhere, bytes);
        };
        if slot.leaf.is_none() || leaf.is_some() && slot.leaf == leaf {
            self.peeked = None;
            return self.checker.block(place, &Held::Compared(slot.index), bytes);
        }
        let logged = slot.entry.as_deref().and_then(|entry| match Entry::decode(entry) {
            Ok(Entry::Block(signed)) => Some(signed.body),
            _ => None,
        });
        let same = match (&header, &logged) {
            (Some(a), Some(b)) => (a.agent, a.stream, a.seq) == (b.agent, b.stream, b.seq),
            (None, _) => true,
            _ => false,
        };
        if same {
            self.peeked = None;
            if leaf.is_some() {
                let text = "the header or its signature is not the one that the log holds";
                let mut problem =
                    Problem::new(Harm::Altered, place, text).entries(slot.index, slot.index);
                if let Some(header) = &header {
                    problem = problem.of((header.agent, header.stream), header.seq, header.seq);
                }
                self.problem(problem);
            }
            return self.checker.block(place, &Held::Compared(slot.index), bytes);
        }
        self.displaced(place, bytes, leaf, slot.index);
    }

    /// A frame whose entry is not the log's next.
    fn displaced(&mut self, place: &str, bytes: &[u8], leaf: Option<Digest>, next: u64) {
        let Some(leaf) = leaf else {
            return self.checker.block(place, &Held::Nowhere, bytes);
        };
        let from = self.slots.position();
        if let Some(found) = self.search(from, self.size, leaf) {
            let text = "the log holds blocks that are not in the segments";
            self.skip_to(found, text, Harm::Removed);
            self.peeked = None;
            return self.checker.block(place, &Held::Compared(found), bytes);
        }
        match self.search(0, next, leaf) {
            // It is in another place than it should be: the stream's numbers tell.
            Some(found) => self.checker.block(place, &Held::Compared(found), bytes),
            None => {
                let text = "the log does not hold this block";
                self.problem(Problem::new(Harm::Inserted, place, text));
                self.checker.block(place, &Held::Nowhere, bytes);
            }
        }
    }

    fn search(&mut self, from: u64, to: u64, leaf: Digest) -> Option<u64> {
        let mut slots = Slots::new(self.tiles, to, from);
        while self.searched < MAX_SEARCHED {
            let slot = slots.next_slot()?;
            self.searched += 1;
            if slot.leaf == Some(leaf) {
                return Some(slot.index);
            }
        }
        None
    }

    /// Passes over block entries before `index` (of which the peeked one is the first).
    fn skip_to(&mut self, index: u64, text: &str, harm: Harm) {
        let mut run: Option<(u64, u64)> = None;
        while let Some(slot) = self.peek().filter(|slot| slot.index < index) {
            self.peeked = None;
            run = Some((run.map_or(slot.index, |(first, _)| first), slot.index));
            let header = slot.entry.as_deref().and_then(|entry| match Entry::decode(entry) {
                Ok(Entry::Block(signed)) => Some(signed.body),
                _ => None,
            });
            if let Some(header) = header {
                let problem = Problem::new(harm, format!("tlog: entry {}", slot.index), text)
                    .entries(slot.index, slot.index)
                    .of((header.agent, header.stream), header.seq, header.seq);
                self.problem(problem);
                run = None;
            }
        }
        if let Some((first, last)) = run {
            self.problem(Problem::new(harm, "", text).entries(first, last));
        }
    }

    /// What the log holds behind the last frame.
    fn rest(&mut self) {
        let text = "the log holds this block, and the segments end before it";
        self.skip_to(u64::MAX, text, Harm::Truncated);
    }

    fn tiles_and_root(&mut self, checkpoint: Option<&Checkpoint>, tlog: &Path) {
        self.rebuild.finish();
        for difference in std::mem::take(&mut self.rebuild.differences) {
            let place = |tile| tlog.join(format!("{tile}")).display().to_string();
            self.problem(match difference {
                Differs::Unreadable(error) => {
                    Problem::new(Harm::Removed, tlog.display().to_string(), error.to_string())
                }
                Differs::Entries(tile, first, last) => {
                    let text = "the entries and their hashes do not fit";
                    Problem::new(Harm::Altered, place(tile), text).entries(first, last)
                }
                Differs::Above(tile) => {
                    let text = "the tile is not what the tiles below it make";
                    Problem::new(Harm::Altered, place(tile), text)
                }
            });
        }
        let Some(checkpoint) = checkpoint else { return };
        if self.rebuild.whole && self.rebuild.head() != checkpoint.head {
            let text = "the entries do not make the root that the checkpoint names: the log was \
                        altered after it was signed";
            let place = tlog.join("tile/entries").display().to_string();
            let problem = Problem::new(Harm::Altered, place, text);
            self.problem(problem.entries(0, checkpoint.head.size.saturating_sub(1)));
        }
    }

    fn finish(mut self, found: Found, trust: &Trust) -> Report {
        self.finish_older();
        let trusted = trust.log.is_some();
        let key = found.key.as_ref().map(ToString::to_string).unwrap_or_default();
        let report = &mut self.checker.report;
        if !trusted {
            report.unknown(format!(
                "whether {key} is the collector's key: it was found in the directory; compare it, or \
                 give it with --key"
            ));
        }
        if self.tail > 0 {
            report.note(format!(
                "{} blocks stand behind the checkpoint's last entry: signed, and not in the log yet; \
                 if the collector is not at work, its log was put back to an older state",
                self.tail
            ));
        }
        if report.withheld > 0 {
            report.note(format!(
                "of {} events only the leaf is here: they expired, were erased, or came without \
                 their text; their headers stand in the log as before",
                report.withheld
            ));
        }
        report.unknown(
            "whether the whole directory was put back to an older state: an agent's newest \
             checkpoint, or an anchor, tells (--checkpoint)",
        );
        if let Some(checkpoint) = found.checkpoint {
            let (origin, head) = (checkpoint.origin, checkpoint.head);
            report.log = Some(LogReport { origin, key, trusted, head, first: 0, end: found.size });
        }
        self.checker.finish()
    }

    fn finish_older(&mut self) {
        let Some(old) = self.old.filter(|old| old.size > 0) else { return };
        match self.continues {
            Some(true) => self
                .checker
                .report
                .notes
                .push(format!("the log continues the trusted checkpoint of {} entries", old.size)),
            Some(false) => {
                let text = format!(
                    "the log does not continue the trusted checkpoint of {} entries: it was \
                     rewritten",
                    old.size
                );
                self.problem(Problem::new(Harm::Altered, "tlog", text).entries(0, old.size - 1));
            }
            None => {
                let text = format!(
                    "the trusted checkpoint has {} entries, the log only {}: it was put back to an \
                     older state",
                    old.size, self.size
                );
                self.problem(
                    Problem::new(Harm::Truncated, "tlog", text).entries(self.size, old.size - 1),
                );
            }
        }
    }
}
