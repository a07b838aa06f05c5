//! Reads frames back, up to the durable end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use custody_event::Block;

use super::frame::{self, HEAD_BYTES, Lengths};
use super::held::{BoundEvents, OldBlocks};
use super::segment::{HEADER_BYTES, Segment, damaged, io_error};
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
    segments: RwLock<Vec<Segment>>,
    files: Mutex<VecDeque<(u64, Arc<File>)>>,
    old: Mutex<VecDeque<(LogCursor, Arc<BoundEvents>)>>,
}

/// A frame as it stands in the log.
pub(super) struct RawFrame {
    pub(super) receipt: Receipt,
    pub(super) block: Vec<u8>,
    pub(super) len: u64,
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

    fn file(&self, segment: &Segment) -> Result<Arc<File>, StoreError> {
        let mut files = lock(&self.files);
        if let Some((_, file)) = files.iter().find(|(number, _)| *number == segment.number) {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&segment.path).map_err(|e| io_error(&segment.path, e))?;
        let file = Arc::new(file);
        if files.len() == MAX_FILES {
            files.pop_front();
        }
        files.push_back((segment.number, Arc::clone(&file)));
        Ok(file)
    }

    /// The frame at `at`; it must be there.
    fn frame(&self, at: LogCursor) -> Result<(Segment, RawFrame), StoreError> {
        let segment = self.segment(at.segment).ok_or_else(|| StoreError::Io {
            path: PathBuf::from(format!("segment {}", at.segment)),
            source: io::Error::new(io::ErrorKind::NotFound, "the log has no such segment"),
        })?;
        let file = self.file(&segment)?;
        let frame = read_frame(&file, &segment.path, at.offset, segment.len)?
            .map_err(|reason| damaged(&segment.path, at.offset, format!("{reason}; {REMEDY}")))?;
        Ok((segment, frame))
    }

    pub(super) fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
        let (segment, frame) = self.frame(at)?;
        let block = Block::decode(&frame.block)
            .map_err(|error| damaged(&segment.path, at.offset, format!("{error}; {REMEDY}")))?;
        let next = LogCursor { segment: at.segment, offset: at.offset + frame.len };
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
    Ok(frame::open(&bytes, lengths).map(|(receipt, block)| RawFrame {
        receipt,
        block: block.to_vec(),
        len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    }))
}
