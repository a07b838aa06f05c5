//! The collector's evidence log, read from its files without the collector's code: the sceptic's
//! reader.
//!
//! `evidence/<day>/<number>.seg`: 64 bytes of header, then frames: `CFRM`, length of the receipt,
//! length of the block, CRC-32 of these twelve bytes, receipt (JSON), block, CRC-32 of all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use custody_event::Block;

const SEGMENT_HEADER_BYTES: u64 = 64;
const HEAD_BYTES: usize = 16;
const TAIL_BYTES: usize = 4;

/// The log of one collector, and how far it has been read.
#[derive(Debug)]
pub struct Evidence {
    root: PathBuf,
    segment: usize,
    offset: u64,
}

/// One block as the collector keeps it.
#[derive(Debug)]
pub struct Frame {
    /// Ranges of indices that an older stream has delivered already.
    pub held: Vec<(u32, u32)>,
    /// The block; its checksum holds.
    pub block: Block,
}

impl Frame {
    /// Does the receipt say that the event at `index` was delivered by an older stream?
    #[must_use]
    pub fn is_held(&self, index: u32) -> bool {
        self.held.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }
}

impl Evidence {
    /// Of the collector with this data directory, from its beginning.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { root: data_dir.join("evidence"), segment: 0, offset: SEGMENT_HEADER_BYTES }
    }

    /// All segments there are now, in order.
    ///
    /// # Panics
    /// A folder cannot be read.
    #[must_use]
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = folder(&self.root)
            .into_iter()
            .filter(|path| path.is_dir())
            .flat_map(|day| folder(&day))
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        found
    }

    /// Gives what has come since the last call, as far as it is whole.
    ///
    /// # Panics
    /// A frame in the middle is not what was written.
    pub fn new_frames(&mut self, mut take: impl FnMut(&Frame)) {
        let segments = self.segments();
        while let Some(path) = segments.get(self.segment) {
            while let Some((frame, len)) = frame_at(path, self.offset) {
                take(&frame);
                self.offset += len;
            }
            if self.segment + 1 == segments.len() {
                return;
            }
            let len = std::fs::metadata(path).unwrap().len();
            assert_eq!(self.offset, len, "{} ends within a frame", path.display());
            (self.segment, self.offset) = (self.segment + 1, SEGMENT_HEADER_BYTES);
        }
    }
}

/// Does this word stand in any file below the folder, as it is, or in a block below `evidence`?
///
/// # Panics
/// A file cannot be read.
#[must_use]
pub fn is_on_disk(dir: &Path, word: &str) -> bool {
    let has = |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    let mut found = false;
    Evidence::of(dir).new_frames(|frame| {
        found |= frame.block.open().unwrap().events().any(|(_, event)| has(event));
    });
    let mut folders = vec![dir.to_owned()];
    while let Some(at) = folders.pop() {
        for path in folder(&at) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found |= has(&std::fs::read(path).unwrap());
            }
        }
    }
    found
}

fn folder(path: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The frame at `at` and its length; `None` where it is not whole (yet).
fn frame_at(path: &Path, at: u64) -> Option<(Frame, u64)> {
    let file = File::open(path).unwrap();
    let mut head = [0; HEAD_BYTES];
    read(&file, &mut head, at)?;
    if !head.starts_with(b"CFRM") || crc32fast::hash(&head[..12]) != number(&head[12..]) {
        return None;
    }
    let length = |at: usize| usize::try_from(number(&head[at..])).unwrap();
    let (receipt, block) = (length(4), length(8));
    let mut bytes = vec![0; HEAD_BYTES + receipt + block + TAIL_BYTES];
    read(&file, &mut bytes, at)?;
    let (content, crc) = bytes.split_at(bytes.len() - TAIL_BYTES);
    if crc32fast::hash(content) != number(crc) {
        return None;
    }
    let (receipt, block) = content[HEAD_BYTES..].split_at(receipt);
    let receipt: serde_json::Value = serde_json::from_slice(receipt).unwrap();
    let held = serde_json::from_value(receipt["held"].clone()).unwrap();
    let block = Block::decode(block).unwrap();
    Some((Frame { held, block }, u64::try_from(bytes.len()).unwrap()))
}

fn read(file: &File, into: &mut [u8], at: u64) -> Option<()> {
    match file.read_exact_at(into, at) {
        Ok(()) => Some(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => panic!("{error}"),
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}
