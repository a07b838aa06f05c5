//! Takes events out of a closed segment: its blocks become sparse, their leaves and headers stay.
//!
//! # How
//! The segment is written anew beside the old one (`….seg.new`), each block checked against its
//! root before it is written; the file is synced, read back, and renamed over the old one. A crash
//! at any instant leaves the old file or the new one, never a mixture, and the next start removes
//! what was not finished.
//!
//! # Places
//! A sparse block may be shorter or longer than it was. Each frame keeps its first place and
//! length ([`Was`]), and the header keeps the segment's first end: cursors, the index, the ledger
//! and the header of the next segment name what they named before.
//!
//! # What it does not do
//! The file system may keep the freed bytes on the medium until they are used again; encrypt the
//! disk where that matters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use custody_event::{Block, Timestamp};
use custody_evidence::segments::HEADER_LEN;

use super::frame::{self, Was};
use super::note::{Note, SidecarBuilder, names};
use super::reader::{RawFrame, read_frame};
use super::recover::{notes_of, write_sidecar};
use super::segment::{
    HEADER_BYTES, Rewritten, Segment, SegmentHeader, damaged, end_of, io_error, read_header,
    sync_folder,
};
use crate::store::{LogCursor, StoreError, StoredBlock};

/// Events that go: the place of the frame as the log names it, and indices in its block.
pub(crate) type Gone = BTreeMap<u64, BTreeSet<u32>>;

/// Where it stands; tests stop it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The new file is being written.
    Writing,
    /// The new file is whole and durable.
    Written,
    /// It has the old one's name.
    Renamed,
    /// Its sidecar fits.
    Done,
}

impl Step {
    /// All of them, in their order.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Writing, Self::Written, Self::Renamed, Self::Done];
}

/// Makes blocks of the segment file at `path` sparse. The segment must be closed.
///
/// # Errors
/// A file cannot be read or written, or a block does not open; then the old file stands, unless
/// the last renaming had been done.
pub(crate) fn make_sparse(
    path: &Path,
    gone: &Gone,
    step: &dyn Fn(Step) -> io::Result<()>,
) -> Result<(), StoreError> {
    let temporary = path.with_extension("seg.new");
    let failed = |e| io_error(&temporary, e);
    let old = Old::open(path)?;
    let notes = old.write_anew(&temporary, gone, step)?;
    let len = std::fs::metadata(&temporary).map_err(failed)?.len();
    read_back(&temporary, len)?;
    step(Step::Written).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    step(Step::Renamed).map_err(failed)?;
    let mut sidecar = SidecarBuilder::default();
    notes.iter().for_each(|note| sidecar.push(note));
    let segment = Segment { len, ..old.segment };
    write_sidecar(&segment, &sidecar).map_err(failed)?;
    step(Step::Done).map_err(failed)
}

/// Puts `copy`, a copy of this segment from before it lost events, in the place of the file at `path`.
///
/// # Errors
/// It is no copy of this segment, or a file cannot be read or written.
pub(super) fn put_back(path: &Path, copy: &Path) -> Result<(), StoreError> {
    check_copy(path, copy)?;
    let live = Old::open(path)?;
    let len = std::fs::metadata(copy).map_err(|e| io_error(copy, e))?.len();
    let temporary = path.with_extension("seg.new");
    let failed = |e| io_error(&temporary, e);
    std::fs::copy(copy, &temporary).map_err(failed)?;
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed)?;
    read_back(&temporary, len)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    live.write_sidecar_of(path, len)
}

/// Makes the sidecar of `copy` again if it is missing or unfit: a crash came between the copy's
/// rewriting and its sidecar. It is made of the sidecar of the segment at `path`, for a segment keeps
/// the places and notes of its frames, however often it is written anew. Says whether it was made.
///
/// # Errors
/// It is no copy of this segment, or a file cannot be read or written.
pub(crate) fn mend_sidecar(path: &Path, copy: &Path) -> Result<bool, StoreError> {
    let (header, len) = header_of(copy)?;
    if has_sidecar(copy, header.number, len)? {
        return Ok(false);
    }
    check_copy(path, copy)?;
    Old::open(path)?.write_sidecar_of(copy, len)?;
    Ok(true)
}

/// Is there a sidecar for the segment at `path` as it is? Only its head is read.
fn has_sidecar(path: &Path, number: u64, len: u64) -> Result<bool, StoreError> {
    let path = path.with_extension("idx");
    let mut head = Vec::new();
    match File::open(&path).and_then(|file| file.take(64).read_to_end(&mut head)) {
        Ok(_) => Ok(names(&head, number, len)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(&path, error)),
    }
}

/// When the segment was begun.
pub(crate) fn begun_of(segment: &Segment) -> Result<Timestamp, StoreError> {
    header_of(&segment.path).map(|(header, _)| header.begun)
}

/// How often the segment at `path` was written anew.
pub(crate) fn generation_of(path: &Path) -> Result<u32, StoreError> {
    let (header, _) = header_of(path)?;
    Ok(header.rewritten.map_or(0, |rewritten| rewritten.generation))
}

/// Is `copy` a copy of the closed segment at `path`, of whatever time?
///
/// # Errors
/// It is not, or a file cannot be read.
pub(crate) fn check_copy(path: &Path, copy: &Path) -> Result<(), StoreError> {
    let closed = |path: &Path| -> Result<_, StoreError> {
        let (header, len) = header_of(path)?;
        let segment = Segment { number: header.number, path: path.to_owned(), len };
        Ok((header.number, end_of(&segment)?))
    };
    if closed(path)? == closed(copy)? {
        return Ok(());
    }
    Err(damaged(copy, 0, "it is no copy of this segment; nothing has been changed"))
}

/// Was the segment at `path` written anew, to its end, for the time of this number (`None`: for any
/// time), and does every block of it verify?
///
/// # Errors
/// It cannot be read.
pub(crate) fn is_rewritten_whole(path: &Path, generation: Option<u32>) -> Result<bool, StoreError> {
    let whole = || -> Result<bool, StoreError> {
        let (header, len) = header_of(path)?;
        let Some(rewritten) = header.rewritten else { return Ok(false) };
        if rewritten.len != len || generation.is_some_and(|wanted| wanted != rewritten.generation) {
            return Ok(false);
        }
        let mut whole = true;
        read_segment(path, &mut |stored| {
            whole = stored.block.open().is_ok();
            Ok(whole)
        })?;
        Ok(whole)
    };
    match whole() {
        Err(StoreError::Damaged { .. }) => Ok(false),
        answer => answer,
    }
}

/// The header of the segment at `path`, and its length.
fn header_of(path: &Path) -> Result<(SegmentHeader, u64), StoreError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let len = file.metadata().map_err(|e| io_error(path, e))?.len();
    let header = read_header(path, &file)?;
    Ok((header.ok_or_else(|| damaged(path, 0, "the segment has no header"))?, len))
}

/// Gives every block of a closed segment's file, also of one outside the log; `false` ends it.
pub(crate) fn read_segment(
    path: &Path,
    take: &mut dyn FnMut(&StoredBlock) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let len = file.metadata().map_err(|e| io_error(path, e))?.len();
    let number = read_header(path, &file)?
        .ok_or_else(|| damaged(path, 0, "the segment has no header"))?
        .number;
    let mut at = HEADER_BYTES;
    while at < len {
        let wrong = |reason: String| damaged(path, at, reason);
        let frame = read_frame(&file, path, at, len)?.map_err(wrong)?;
        let block = Block::decode(&frame.block).map_err(|error| wrong(error.to_string()))?;
        let named = frame.was.as_ref().map_or(at, |was| was.at);
        let next = LogCursor { segment: number, offset: named + frame.named_len() };
        let stored = StoredBlock {
            at: LogCursor { segment: number, offset: named },
            next,
            block,
            receipt: frame.receipt,
        };
        if !take(&stored)? {
            return Ok(());
        }
        at += frame.len;
    }
    Ok(())
}

/// Removes what a crash has left unfinished.
pub(super) fn remove_unfinished(root: &Path) -> Result<(), StoreError> {
    for day in std::fs::read_dir(root).map_err(|e| io_error(root, e))? {
        let day = day.map_err(|e| io_error(root, e))?.path();
        if !day.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&day).map_err(|e| io_error(&day, e))? {
            let path = entry.map_err(|e| io_error(&day, e))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                std::fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
            }
        }
    }
    Ok(())
}

/// The segment as it stands.
struct Old {
    segment: Segment,
    file: File,
    header: SegmentHeader,
    /// Its end when it was closed.
    end: (u64, u32),
    /// By the place of their frames.
    notes: HashMap<u64, Note>,
}

impl Old {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        let len = file.metadata().map_err(|e| io_error(path, e))?.len();
        let header = read_header(path, &file)?
            .ok_or_else(|| damaged(path, 0, "the segment has no header"))?;
        let segment = Segment { number: header.number, path: path.to_owned(), len };
        let notes = notes_of(&segment)?.ok_or_else(|| {
            damaged(
                path,
                0,
                "its sidecar (.idx) is missing or unfit; the next start makes it again",
            )
        })?;
        let notes = notes.into_iter().map(|note| (note.at.offset, note)).collect();
        Ok(Self { end: end_of(&segment)?, segment, file, header, notes })
    }

    /// Writes the sidecar of another state of this segment, of this length at this path.
    fn write_sidecar_of(&self, path: &Path, len: u64) -> Result<(), StoreError> {
        let mut notes: Vec<&Note> = self.notes.values().collect();
        notes.sort_by_key(|note| note.at.offset);
        let mut sidecar = SidecarBuilder::default();
        notes.into_iter().for_each(|note| sidecar.push(note));
        let segment = Segment { number: self.segment.number, path: path.to_owned(), len };
        write_sidecar(&segment, &sidecar).map_err(|e| io_error(path, e))
    }

    /// Writes the new file, durably; gives the notes in the order of the frames.
    fn write_anew(
        &self,
        to: &Path,
        gone: &Gone,
        step: &dyn Fn(Step) -> io::Result<()>,
    ) -> Result<Vec<&Note>, StoreError> {
        let failed = |e| io_error(to, e);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(to).map_err(failed)?);
        out.write_all(&[0; HEADER_LEN]).map_err(failed)?;
        let (mut at, mut len, mut notes) = (HEADER_BYTES, HEADER_BYTES, Vec::new());
        while at < self.segment.len {
            let path = &self.segment.path;
            let wrong = |reason: String| damaged(path, at, reason);
            let old = read_frame(&self.file, path, at, self.segment.len)?.map_err(wrong)?;
            let named = old.was.as_ref().map_or(at, |was| was.at);
            let note = self.notes.get(&named);
            let note = note.ok_or_else(|| wrong("its sidecar does not name it".to_owned()))?;
            let bytes = frame_anew(&old, named, note, gone.get(&named)).map_err(wrong)?;
            out.write_all(&bytes).map_err(failed)?;
            notes.push(note);
            len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            at += old.len;
        }
        // Readers keep places in 32 bits. The segment stays as it was.
        if u32::try_from(len).is_err() {
            let path = &self.segment.path;
            return Err(damaged(path, at, "without these events it would be longer than 4 GiB"));
        }
        step(Step::Writing).map_err(failed)?;
        let generation = self.header.rewritten.map_or(0, |before| before.generation) + 1;
        let (was_len, was_crc) = self.end;
        let rewritten = Some(Rewritten { was_len, was_crc, generation, len });
        let header = SegmentHeader { rewritten, ..self.header };
        let mut finish = || {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&header.to_bytes())?;
            out.flush()?;
            out.get_ref().sync_all()
        };
        finish().map_err(failed)?;
        Ok(notes)
    }
}

/// The frame with its block made sparse where events of it go.
fn frame_anew(
    old: &RawFrame,
    named: u64,
    note: &Note,
    gone: Option<&BTreeSet<u32>>,
) -> Result<Vec<u8>, String> {
    let was = match &old.was {
        Some(was) => was.clone(),
        None => Was {
            at: named,
            held: note.held.clone(),
            len: old.len,
            lines: note.spans.iter().map(|span| span.line).collect(),
        },
    };
    let mut out = Vec::with_capacity(old.block.len() + 1024);
    let block = match gone {
        None => None,
        Some(gone) => Some(sparse(&old.block, gone)?),
    };
    let block = block.as_deref().unwrap_or(&old.block);
    frame::push_anew(&old.receipt, Some(was), block, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

/// The block without these events. It must verify as before: nothing else may replace it.
fn sparse(bytes: &[u8], gone: &BTreeSet<u32>) -> Result<Vec<u8>, String> {
    let block = Block::decode(bytes).map_err(|error| error.to_string())?;
    block.open().map_err(|error| error.to_string())?;
    let sparse =
        block.to_sparse(|index, _| !gone.contains(&index)).map_err(|error| error.to_string())?;
    sparse.open().map_err(|error| format!("as a sparse block: {error}"))?;
    sparse.coverage().map_err(|error| error.to_string())?;
    sparse.encode().map_err(|error| format!("as a sparse block: {error}"))
}

/// What was written is what the disk gives back, frame by frame.
fn read_back(path: &Path, len: u64) -> Result<(), StoreError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let mut at = HEADER_BYTES;
    while at < len {
        at += read_frame(&file, path, at, len)?.map_err(|reason| damaged(path, at, reason))?.len;
    }
    Ok(())
}
