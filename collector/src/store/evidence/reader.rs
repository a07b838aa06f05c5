//! Reads frames back, up to the durable end.
//!
//! A segment that was written anew ([`super::rewrite`]) has its frames at other bytes than the rest
//! of the log names. Its frames say where they stood ([`Was`]); a list of both is made when the file
//! is opened, from that file, so that it always fits it: a reader that still has the old file open
//! reads on there.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use custody_event::Block;

use super::frame::{self, HEAD_BYTES, Lengths, Was};
use super::held::{BoundEvents, OldBlocks};
use super::segment::{HEADER_BYTES, Rewritten, Segment, damaged, io_error, read_header};
use crate::store::{LogCursor, Receipt, StoreError, StoredBlock};

/// Open segment files, at most.
const MAX_FILES: usize = 32;
/// Old blocks kept opened: about 60 KiB each.
const MAX_OLD_BLOCKS: usize = 128;

const REMEDY: &str = "run `custody-collector verify` for the whole extent, and put the file back \
                      from a backup; nothing has been overwritten";

/// See the module.
#[derive(Debug)]
pub(super) struct Reader {
    /// Their lengths are those that the log names: of one that was written anew, the first.
    segments: RwLock<Vec<Segment>>,
    files: Mutex<VecDeque<(u64, Arc<OpenFile>)>>,
    /// Places in segments that were written anew, by number and how often they were.
    places: Mutex<HashMap<(u64, u32), Arc<Places>>>,
    old: Mutex<VecDeque<(LogCursor, Arc<BoundEvents>)>>,
}

/// A segment's file, with the places of its frames where they are not those that the log names.
#[derive(Debug)]
struct OpenFile {
    file: File,
    places: Option<Arc<Places>>,
}

/// Where the frames of a segment that was written anew stand.
#[derive(Debug)]
struct Places {
    /// The file's length.
    len: u64,
    /// First byte as the log names it, and in the file; both ascending. A segment is below 4 GiB.
    frames: Vec<(u32, u32)>,
}

impl Places {
    /// Where the frame is that the log names by this byte.
    fn find(&self, named: u64) -> Option<u64> {
        let named = u32::try_from(named).ok()?;
        let at = self.frames.binary_search_by_key(&named, |(named, _)| *named).ok()?;
        Some(self.frames[at].1.into())
    }

    fn read(file: &File, segment: &Segment, rewritten: Rewritten) -> Result<Self, StoreError> {
        let mut frames = Vec::new();
        let mut at = HEADER_BYTES;
        while at < rewritten.len {
            let (was, len) = frame_head(file, &segment.path, at)?
                .map_err(|reason| damaged(&segment.path, at, format!("{reason}; {REMEDY}")))?;
            let short = |byte| {
                u32::try_from(byte)
                    .map_err(|_| damaged(&segment.path, at, "the segment is longer than 4 GiB"))
            };
            frames.push((short(was.at)?, short(at)?));
            at += len;
        }
        Ok(Self { len: rewritten.len, frames })
    }
}

/// A frame as it stands in the log.
pub(super) struct RawFrame {
    pub(super) receipt: Receipt,
    pub(super) was: Option<Was>,
    pub(super) block: Vec<u8>,
    /// In its file.
    pub(super) len: u64,
}

impl RawFrame {
    /// Its length as the log names it.
    pub(super) fn named_len(&self) -> u64 {
        self.was.as_ref().map_or(self.len, |was| was.len)
    }
}

/// A lock that a panic has left behind is still good: everything under it is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Self {
            segments: RwLock::new(segments),
            files: Mutex::new(VecDeque::new()),
            places: Mutex::default(),
            old: Mutex::new(VecDeque::new()),
        }
    }

    /// The last segment has grown, or there is a new one.
    pub(super) fn put(&self, segment: Segment) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        match segments.last_mut() {
            Some(last) if last.number == segment.number => *last = segment,
            _ => segments.push(segment),
        }
    }

    fn segment(&self, number: u64) -> Option<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let first = segments.first()?.number;
        segments.get(usize::try_from(number.checked_sub(first)?).ok()?).cloned()
    }

    fn first_segment(&self) -> Option<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map(|segment| segment.number)
    }

    /// All segments but the one that is being written, by their numbers.
    pub(super) fn closed(&self) -> Vec<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.split_last().map(|(_, closed)| closed.to_vec()).unwrap_or_default()
    }

    /// The segment's file has been replaced: nothing of the old one is kept.
    pub(super) fn forget(&self, number: u64) {
        lock(&self.files).retain(|(other, _)| *other != number);
        lock(&self.places).retain(|(other, _), _| *other != number);
        lock(&self.old).retain(|(at, _)| at.segment != number);
    }

    fn file(&self, segment: &Segment) -> Result<Arc<OpenFile>, StoreError> {
        // Under the lock: a file that is replaced meanwhile is forgotten after it was kept.
        let mut files = lock(&self.files);
        if let Some((_, file)) = files.iter().find(|(number, _)| *number == segment.number) {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
        let rewritten = read_header(&segment.path, &file)?.and_then(|header| header.rewritten);
        let places =
            rewritten.map(|rewritten| self.places(&file, segment, rewritten)).transpose()?;
        let file = Arc::new(OpenFile { file, places });
        if files.len() == MAX_FILES {
            files.pop_front();
        }
        files.push_back((segment.number, Arc::clone(&file)));
        Ok(file)
    }

    fn places(
        &self,
        file: &File,
        segment: &Segment,
        rewritten: Rewritten,
    ) -> Result<Arc<Places>, StoreError> {
        let key = (segment.number, rewritten.generation);
        if let Some(places) = lock(&self.places).get(&key) {
            return Ok(Arc::clone(places));
        }
        let places = Arc::new(Places::read(file, segment, rewritten)?);
        lock(&self.places).insert(key, Arc::clone(&places));
        Ok(places)
    }

    /// The frame at `at`; it must be there.
    fn frame(&self, at: LogCursor) -> Result<(Segment, RawFrame), StoreError> {
        let segment = self.segment(at.segment).ok_or_else(|| StoreError::Io {
            path: PathBuf::from(format!("segment {}", at.segment)),
            source: io::Error::new(io::ErrorKind::NotFound, "the log has no such segment"),
        })?;
        let open = self.file(&segment)?;
        let wrong =
            |reason: String| damaged(&segment.path, at.offset, format!("{reason}; {REMEDY}"));
        let (offset, end) = match &open.places {
            None => (at.offset, segment.len),
            Some(places) => {
                let found = places.find(at.offset);
                (found.ok_or_else(|| wrong("no frame began here".to_owned()))?, places.len)
            }
        };
        let frame = read_frame(&open.file, &segment.path, offset, end)?.map_err(wrong)?;
        Ok((segment, frame))
    }

    pub(super) fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
        let (segment, frame) = self.frame(at)?;
        let block = Block::decode(&frame.block)
            .map_err(|error| damaged(&segment.path, at.offset, format!("{error}; {REMEDY}")))?;
        let next = LogCursor { segment: at.segment, offset: at.offset + frame.named_len() };
        Ok(StoredBlock { at, next, block, receipt: frame.receipt })
    }

    pub(super) fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
        let mut at = from;
        if let Some(first) = self.first_segment()
            && at.segment < first
        {
            at = LogCursor { segment: first, offset: 0 };
        }
        loop {
            let Some(segment) = self.segment(at.segment) else { return Ok(None) };
            at.offset = at.offset.max(HEADER_BYTES);
            if at.offset < segment.len {
                return self.read_at(at).map(Some);
            }
            at = LogCursor { segment: at.segment + 1, offset: 0 };
        }
    }
}

impl OldBlocks for Reader {
    fn bound(&self, at: LogCursor) -> Result<Arc<BoundEvents>, StoreError> {
        if let Some((_, events)) = lock(&self.old).iter().find(|(place, _)| *place == at) {
            return Ok(Arc::clone(events));
        }
        let stored = self.read_at(at)?;
        let events = BoundEvents::of(&stored.block).map_err(|error| {
            let path = self.segment(at.segment).map(|segment| segment.path).unwrap_or_default();
            damaged(&path, at.offset, format!("{error}; {REMEDY}"))
        })?;
        let events = Arc::new(events);
        let mut old = lock(&self.old);
        if old.len() == MAX_OLD_BLOCKS {
            old.pop_front();
        }
        old.push_back((at, Arc::clone(&events)));
        Ok(events)
    }
}

/// Reads the frame at `at` of a file that is `end` bytes long. The inner error says what is wrong
/// with the bytes.
pub(super) fn read_frame(
    file: &File,
    path: &Path,
    at: u64,
    end: u64,
) -> Result<Result<RawFrame, String>, StoreError> {
    let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut head = [0; HEAD_BYTES];
    if left < HEAD_BYTES {
        return Ok(Err("the frame is cut off".to_owned()));
    }
    file.read_exact_at(&mut head, at).map_err(|e| io_error(path, e))?;
    let Some(lengths) = Lengths::read(&head) else {
        return Ok(Err("no frame begins here".to_owned()));
    };
    if lengths.frame() > left {
        return Ok(Err("the frame is cut off".to_owned()));
    }
    let mut bytes = vec![0; lengths.frame()];
    file.read_exact_at(&mut bytes, at).map_err(|e| io_error(path, e))?;
    Ok(frame::open(&bytes, lengths).map(|parts| RawFrame {
        receipt: parts.receipt,
        was: parts.was,
        block: parts.block.to_vec(),
        len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    }))
}

/// Reads only what a frame of a segment that was written anew says of its first place, and its
/// length now.
fn frame_head(file: &File, path: &Path, at: u64) -> Result<Result<(Was, u64), String>, StoreError> {
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, at).map_err(|e| io_error(path, e))?;
    let Some(lengths) = Lengths::read(&head) else {
        return Ok(Err("no frame begins here".to_owned()));
    };
    let mut receipt = vec![0; lengths.receipt];
    let behind = at + u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
    file.read_exact_at(&mut receipt, behind).map_err(|e| io_error(path, e))?;
    let len = u64::try_from(lengths.frame()).unwrap_or(u64::MAX);
    Ok(frame::open_receipt(&receipt).and_then(|(_, was)| {
        was.map(|was| (was, len)).ok_or_else(|| "the receipt does not say where it was".to_owned())
    }))
}
