//! What happens when the log is opened: closed segments give their notes, the last segment is read
//! whole, and a tail that was never acknowledged is cut off.
//!
//! | found | done |
//! |---|---|
//! | a frame at the very end of the last segment that is incomplete or fails its checksum, beyond the mark | cut off: it was never acknowledged |
//! | the same before the mark, or with a whole frame after it, or in a closed segment | refused: evidence is damaged; nothing is written |
//! | a segment missing or shorter than the next one says | refused |
//! | a sidecar missing or unfit | made again |
//! | a last segment that was closed and written anew | kept as it is; the next is begun |
//! | a segment half written anew (`.new`) | removed: the old one stands |

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use custody_event::{Block, Clock, Coverage};

use super::frame::{self, HEAD_BYTES, Lengths};
use super::held::{DecideError, Decision, decide};
use super::ledger::{Ledger, Standing};
use super::mark::Mark;
use super::note::{Note, NoteSpan, SidecarBuilder, read_sidecar};
use super::reader::{RawFrame, Reader, read_frame};
use super::segment::{
    HEADER_BYTES, Segment, SegmentHeader, damaged, day_of, end_of, io_error, list, path_of,
    read_header, sync_folder,
};
use crate::store::{LogCursor, Receipt, StoreError};

const REMEDY: &str = "nothing has been overwritten. Run `custody-collector verify` for the whole \
                      extent, and put the file back from a backup";

/// What recovery cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: std::path::PathBuf,
    /// Its length now.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// The log as it was found, ready to go on.
pub(super) struct Recovered {
    pub(super) reader: Arc<Reader>,
    pub(super) ledger: Ledger,
    /// The segment that is written on.
    pub(super) last: Segment,
    pub(super) file: File,
    pub(super) sidecar: SidecarBuilder,
    pub(super) mark: Mark,
    pub(super) cut: Option<Cut>,
    /// Sidecars that had to be made again.
    pub(super) sidecars_made: usize,
}

/// Opens the log in `root`, making it where there is none.
pub(super) fn recover(root: &Path, clock: &dyn Clock) -> Result<Recovered, StoreError> {
    make_root(root)?;
    super::rewrite::remove_unfinished(root)?;
    let (mark, said) = Mark::open(root).map_err(|e| io_error(&root.join("durable"), e))?;
    let mut segments = list(root)?;
    if segments.is_empty() {
        if let Some(said) = said {
            return Err(missing(root, said));
        }
        segments.push(begin(root, clock, None)?);
    }
    let mut named = named(&segments)?;
    check_mark(root, &named, said)?;
    if let (Some(last), Some(closed)) = (segments.last(), named.last())
        && read_header_of(last)?.is_some_and(|header| header.rewritten.is_some())
    {
        // It was closed, and nothing came after it before the end, or before the backup was made.
        let (_, crc) = end_of(last)?;
        let next = begin(root, clock, Some((closed, crc)))?;
        segments.push(next.clone());
        named.push(next);
    }
    let reader = Arc::new(Reader::new(named));
    let mut ledger = Ledger::with_order();
    let mut sidecars_made = 0;
    let (mut last, closed) = match segments.split_last() {
        Some((last, closed)) => (last.clone(), closed),
        None => return Err(missing(root, LogCursor::default())),
    };
    for (segment, next) in closed.iter().zip(&segments[1..]) {
        check_follows(segment, next)?;
        if load_closed(segment, &reader, &mut ledger)? {
            sidecars_made += 1;
        }
    }
    let file = open_rw(&last.path)?;
    mend_header(&mut last, &file, closed.last(), said, clock)?;
    let (end, cut) = find_end(&last, &file, said)?;
    if cut.is_some() {
        file.set_len(end).map_err(|e| io_error(&last.path, e))?;
    }
    // What was found may be in memory only: make sure of it before anybody is told of it.
    file.sync_all().map_err(|e| io_error(&last.path, e))?;
    last.len = end;
    reader.put(last.clone());
    let mut sidecar = SidecarBuilder::default();
    each_note(&last, &reader, &mut ledger, &mut |note| sidecar.push(note))?;
    Ok(Recovered { reader, ledger, last, file, sidecar, mark, cut, sidecars_made })
}

fn read_header_of(segment: &Segment) -> Result<Option<SegmentHeader>, StoreError> {
    let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
    read_header(&segment.path, &file)
}

/// The segments with the lengths that the rest of the log names.
fn named(segments: &[Segment]) -> Result<Vec<Segment>, StoreError> {
    let named = segments.iter().map(|segment| {
        let (len, _) = end_of(segment)?;
        Ok(Segment { len, ..segment.clone() })
    });
    named.collect()
}

fn make_root(root: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(root).map_err(|e| io_error(root, e))?;
    let parent = root.parent().unwrap_or(root);
    sync_folder(parent).map_err(|e| io_error(parent, e))
}

pub(super) fn open_rw(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| io_error(path, e))
}

/// Begins a segment: the file with its header, durable with its name.
pub(super) fn begin(
    root: &Path,
    clock: &dyn Clock,
    before: Option<(&Segment, u32)>,
) -> Result<Segment, StoreError> {
    let now = clock.now();
    let mut day = day_of(now);
    let (mut number, mut prev_len, mut prev_crc) = (0, 0, 0);
    if let Some((segment, crc)) = before {
        // A clock that was put back does not take the log back.
        day = day.max(super::segment::day_in(&segment.path).to_owned());
        (number, prev_len, prev_crc) = (segment.number + 1, segment.len, crc);
    }
    // An attempt that failed half-way may have left the file, perhaps on another day.
    let left = left_behind(root, number)?;
    let is_new = left.is_none();
    let path = left.unwrap_or_else(|| path_of(root, &day, number));
    let folder = path.parent().unwrap_or(root).to_owned();
    let header = SegmentHeader { number, begun: now, prev_len, prev_crc, rewritten: None };
    let made = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(is_new).truncate(!is_new).open(&path)?;
        let written = file.write_all(&header.to_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Without a header it would stand in the way of the next attempt.
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        sync_folder(&folder)?;
        sync_folder(root)
    };
    made().map_err(|e| io_error(&path, e))?;
    Ok(Segment { number, path, len: HEADER_BYTES })
}

/// The file of a segment that was begun and never held a frame.
fn left_behind(root: &Path, number: u64) -> Result<Option<std::path::PathBuf>, StoreError> {
    let found = custody_evidence::segments::list(root).map_err(|e| io_error(root, e))?;
    let left = |segment: &Segment| segment.number == number && segment.len <= HEADER_BYTES;
    Ok(found.into_iter().find(left).map(|segment| segment.path))
}

fn missing(root: &Path, said: LogCursor) -> StoreError {
    let reason = format!(
        "evidence was durable up to byte {} of segment {}, which is not here; {REMEDY}",
        said.offset, said.segment
    );
    damaged(root, said.offset, reason)
}

fn check_mark(
    root: &Path,
    segments: &[Segment],
    said: Option<LogCursor>,
) -> Result<(), StoreError> {
    let Some(said) = said else { return Ok(()) };
    let marked = segments.iter().find(|segment| segment.number == said.segment);
    match marked {
        Some(segment) if segment.len >= said.offset => Ok(()),
        Some(segment) => Err(damaged(
            &segment.path,
            segment.len,
            format!("acknowledged evidence up to byte {} is missing; {REMEDY}", said.offset),
        )),
        None => Err(missing(root, said)),
    }
}

/// The next segment's header says how long this one is and how it ends.
fn check_follows(segment: &Segment, next: &Segment) -> Result<(), StoreError> {
    let file = File::open(&next.path).map_err(|e| io_error(&next.path, e))?;
    // The last segment may have been begun just before a crash; its header is mended later.
    let Some(header) = read_header(&next.path, &file)? else { return Ok(()) };
    if header.number != next.number {
        let reason = format!("its header says that it is segment {}; {REMEDY}", header.number);
        return Err(damaged(&next.path, 8, reason));
    }
    let (len, crc) = end_of(segment)?;
    if header.prev_len == len && header.prev_crc == crc {
        return check_length(segment);
    }
    let reason = format!(
        "it has {len} bytes and ends with checksum {crc:08x}; the next segment says {} bytes and \
         {:08x}; {REMEDY}",
        header.prev_len, header.prev_crc
    );
    Err(damaged(&segment.path, segment.len.min(header.prev_len), reason))
}

/// A segment that was written anew says itself how long it is.
fn check_length(segment: &Segment) -> Result<(), StoreError> {
    let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
    let rewritten = read_header(&segment.path, &file)?.and_then(|header| header.rewritten);
    match rewritten {
        Some(rewritten) if rewritten.len != segment.len => {
            let reason = format!(
                "it has {} bytes; it was written anew with {}; {REMEDY}",
                segment.len, rewritten.len
            );
            Err(damaged(&segment.path, segment.len.min(rewritten.len), reason))
        }
        _ => Ok(()),
    }
}

/// The segment's last four bytes.
pub(super) fn last_crc(segment: &Segment) -> Result<u32, StoreError> {
    let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
    let mut crc = [0; 4];
    let at = segment.len.saturating_sub(4);
    file.read_exact_at(&mut crc, at).map_err(|e| io_error(&segment.path, e))?;
    Ok(u32::from_le_bytes(crc))
}

/// A segment that a crash caught before its header was whole gets it again; it holds no frame.
fn mend_header(
    last: &mut Segment,
    file: &File,
    before: Option<&Segment>,
    said: Option<LogCursor>,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    if last.len > HEADER_BYTES {
        let header = read_header(&last.path, file)?;
        if header.is_some_and(|header| header.rewritten.is_some()) {
            // Only closed segments are written anew: one came after it.
            let reason = format!("the segment after this one is missing; {REMEDY}");
            return Err(damaged(&last.path, last.len, reason));
        }
        return Ok(());
    }
    match read_header(&last.path, file) {
        Ok(Some(_)) => return Ok(()),
        Err(error) if said.is_some_and(|said| said.segment == last.number) => return Err(error),
        _ => {}
    }
    let (prev_len, prev_crc) = match before {
        Some(before) => end_of(before)?,
        None => (0, 0),
    };
    let header = SegmentHeader {
        number: last.number,
        begun: clock.now(),
        prev_len,
        prev_crc,
        rewritten: None,
    };
    file.set_len(0)
        .and_then(|()| file.write_all_at(&header.to_bytes(), 0))
        .and_then(|()| file.sync_all())
        .map_err(|e| io_error(&last.path, e))?;
    last.len = HEADER_BYTES;
    Ok(())
}

/// Where the last segment's whole frames end, and what must be cut off behind them.
fn find_end(
    last: &Segment,
    file: &File,
    said: Option<LogCursor>,
) -> Result<(u64, Option<Cut>), StoreError> {
    let mut at = HEADER_BYTES;
    while at < last.len {
        match read_frame(file, &last.path, at, last.len)? {
            Ok(frame) => at += frame.len,
            Err(reason) => return judge_tail(last, file, said, at, reason),
        }
    }
    Ok((at, None))
}

fn judge_tail(
    last: &Segment,
    file: &File,
    said: Option<LogCursor>,
    at: u64,
    reason: String,
) -> Result<(u64, Option<Cut>), StoreError> {
    if said.is_some_and(|said| said.segment == last.number && said.offset > at) {
        let reason = format!("{reason}, in evidence that was acknowledged; {REMEDY}");
        return Err(damaged(&last.path, at, reason));
    }
    if let Some(whole) = find_whole_frame(last, file, at)? {
        let reason = format!("{reason}, but a whole frame follows at byte {whole}; {REMEDY}");
        return Err(damaged(&last.path, at, reason));
    }
    let cut = Cut { path: last.path.clone(), offset: at, bytes: last.len - at, reason };
    Ok((at, Some(cut)))
}

/// The first whole frame behind a place where there is none.
pub(super) fn find_whole_frame(
    last: &Segment,
    file: &File,
    at: u64,
) -> Result<Option<u64>, StoreError> {
    let len = usize::try_from(last.len - at).unwrap_or(usize::MAX);
    let mut tail = vec![0; len];
    file.read_exact_at(&mut tail, at).map_err(|e| io_error(&last.path, e))?;
    let mut from = 1;
    while let Some(found) = frame::find_magic(&tail, from) {
        if is_whole(&tail[found..]) {
            return Ok(Some(at + u64::try_from(found).unwrap_or(u64::MAX)));
        }
        from = found + 1;
    }
    Ok(None)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes
        .first_chunk::<HEAD_BYTES>()
        .and_then(Lengths::read)
        .and_then(|lengths| Some((lengths, bytes.get(..lengths.frame())?)))
        .is_some_and(|(lengths, frame)| frame::open(frame, lengths).is_ok())
}

/// The notes of a closed segment, where its sidecar is there and fits.
pub(super) fn notes_of(segment: &Segment) -> Result<Option<Vec<Note>>, StoreError> {
    let path = segment.path.with_extension("idx");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(read_sidecar(&bytes, segment.number, segment.len)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&path, error)),
    }
}

/// Takes a closed segment's notes from its sidecar, or makes it again (then `true`).
fn load_closed(
    segment: &Segment,
    reader: &Reader,
    ledger: &mut Ledger,
) -> Result<bool, StoreError> {
    let path = segment.path.with_extension("idx");
    if let Some(notes) = notes_of(segment)? {
        notes.iter().for_each(|note| ledger.apply(note));
        return Ok(false);
    }
    let mut builder = SidecarBuilder::default();
    each_note(segment, reader, ledger, &mut |note| builder.push(note))?;
    write_sidecar(segment, &builder).map_err(|e| io_error(&path, e))?;
    Ok(true)
}

/// Writes a closed segment's sidecar, whole or not at all.
pub(super) fn write_sidecar(segment: &Segment, builder: &SidecarBuilder) -> std::io::Result<()> {
    let temporary = segment.path.with_extension("idx.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&builder.finish(segment.number, segment.len))?;
    file.sync_all()?;
    std::fs::rename(&temporary, segment.path.with_extension("idx"))?;
    sync_folder(segment.path.parent().unwrap_or(Path::new(".")))
}

/// Reads a whole segment into the ledger.
fn each_note(
    segment: &Segment,
    reader: &Reader,
    ledger: &mut Ledger,
    found: &mut impl FnMut(&Note),
) -> Result<(), StoreError> {
    let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
    let mut offset = HEADER_BYTES;
    while offset < segment.len {
        let wrong = |reason: String| damaged(&segment.path, offset, format!("{reason}; {REMEDY}"));
        let frame = read_frame(&file, &segment.path, offset, segment.len)?.map_err(wrong)?;
        let named = frame.was.as_ref().map_or(offset, |was| was.at);
        let at = LogCursor { segment: segment.number, offset: named };
        let note = note_of_frame(&frame, at, reader, ledger).map_err(|error| match error {
            DecideError::Store(error) => error,
            DecideError::Malformed(error) => wrong(error.to_string()),
        })?;
        ledger.apply(&note);
        found(&note);
        offset += frame.len;
    }
    Ok(())
}

fn note_of_frame(
    frame: &RawFrame,
    at: LogCursor,
    reader: &Reader,
    ledger: &Ledger,
) -> Result<Note, DecideError> {
    let block = Block::decode(&frame.block)?;
    let coverage = block.coverage()?;
    let header = &block.header;
    let name = (header.agent, header.stream);
    match ledger.standing(&name, header.seq) {
        Standing::Next(chain) if chain.check(&block).is_ok() => {}
        _ => {
            return Err(DecideError::Malformed(custody_event::Malformed::new(format!(
                "block {} does not continue stream {} of agent {}",
                header.seq, header.stream, header.agent
            ))));
        }
    }
    let decision = match &frame.was {
        Some(was) => Decision {
            ranges: frame.receipt.held.clone(),
            by_source: was.held.clone(),
            lines: was.lines.clone(),
        },
        None => {
            let basis = ledger.basis(&name, &header.host, &coverage);
            decide(&block, &coverage, &basis, reader)?
        }
    };
    Ok(note(&block, &coverage, &decision, &frame.receipt, at))
}

/// What memory keeps of a block.
pub(super) fn note(
    block: &Block,
    coverage: &[Coverage],
    decision: &Decision,
    receipt: &Receipt,
    at: LogCursor,
) -> Note {
    let header = &block.header;
    let spans = coverage.iter().zip(&decision.lines).map(|(covered, line)| NoteSpan {
        file: (&covered.file).into(),
        generation: covered.file.generation,
        line: *line,
        from: covered.from.get(),
        to: covered.to.get(),
    });
    Note {
        agent: header.agent,
        stream: header.stream,
        seq: header.seq,
        hash: block.hash(),
        host: header.host.clone(),
        at,
        received: receipt.received,
        sealed: header.sealed,
        events: header.count,
        spans: spans.collect(),
        books: header.books.clone(),
        held: decision.by_source.clone(),
    }
}
