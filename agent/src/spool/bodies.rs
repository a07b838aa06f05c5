//! The bodies of blocks: files beside sled's that are only ever appended to, and removed whole.
//!
//! # Why not in sled
//! sled writes a value when it is put, again whenever its leaf has changed ten times, and again when
//! the leaf is split or merged: five times what it is given, through buffers that are allocated anew
//! and a cache that keeps them. A block is written once, read once if at all, and removed in order.
//!
//! # Format
//! ```text
//! <store>/bodies/<number, 16 hex digits>   records, one after the other
//! record: 0 "cbdy"  4 generation (u32)  8 seq (u64)  16 length (u32)  20 CRC32 of 0..20 and the body  24 body
//! ```
//! All numbers little endian. Where a record lies ([`Place`]) is a value in sled: `file (u64), offset
//! (u64), length (u32)`, little endian. What no place names is nothing: the rest of a write that did
//! not end, or what was acknowledged.
//!
//! # Life of a file
//! Begun by the first block after an opening, and whenever the one before has [`FILE_BYTES`]; a number
//! is not used twice while anything is held. A body is durable before sled is given its place
//! ([`Bodies::sync`]), so that a place never names what a power cut took. A file that no place names
//! any more is removed after the batch that dropped the last of them is durable ([`Bodies::reclaim`]).
//!
//! # Failures
//! A file that is gone, cut short or changed: the blocks in it do not read, which is damage of the
//! store. A full disk is met in [`Bodies::reserve`], before anything is written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::MAX_BLOCK_BYTES;
use super::ahead::allocate;
use super::quarantine::sync_dir;
use super::types::StoreError;

/// A file that has as much is not appended to any more.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
const HEAD_BYTES: usize = 24;
const HEAD_BYTES_U64: u64 = 24;
const PLACE_BYTES: usize = 20;
const MAGIC: &[u8; 4] = b"cbdy";

/// A generation and a block's number in it.
pub(super) type BlockId = (u32, u64);

/// Where a body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    file: u64,
    offset: u64,
    len: u32,
}

impl Place {
    /// As it stands in sled.
    pub(super) fn to_bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[0..8].copy_from_slice(&self.file.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The place that stands in sled, or what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wrong = || format!("its place has {} bytes instead of {PLACE_BYTES}", bytes.len());
        let (file, rest) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (offset, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        let len = u32::from_le_bytes(rest.try_into().map_err(|_| wrong())?);
        if usize::try_from(len).map_or(true, |len| len > MAX_BLOCK_BYTES) {
            return Err(format!("its length says {len} bytes, the limit is {MAX_BLOCK_BYTES}"));
        }
        Ok(Self { file: u64::from_le_bytes(*file), offset: u64::from_le_bytes(*offset), len })
    }
}

/// The file that is appended to.
#[derive(Debug)]
struct Active {
    number: u64,
    file: File,
    len: u64,
    is_dirty: bool,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Usage {
    /// Places that name it.
    live: u64,
    len: u64,
}

/// The folder of the bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    dir: PathBuf,
    files: BTreeMap<u64, Usage>,
    next: u64,
    active: Option<Active>,
    /// The file that was read last.
    reader: Option<(u64, File)>,
    /// False once the file system has said that it cannot.
    can_reserve: bool,
}

impl Bodies {
    /// What is in `store`; makes nothing.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let dir = store.join("bodies");
        let mut files = BTreeMap::new();
        match fs::read_dir(&dir) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if let Some(number) = entry.file_name().to_str().and_then(number_of) {
                        files.insert(number, Usage { live: 0, len: entry.metadata()?.len() });
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let next = files.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        Ok(Self { dir, files, next, active: None, reader: None, can_reserve: true })
    }

    /// A place in sled names this.
    pub(super) fn retain(&mut self, place: Place) {
        // Also of a file that is gone: its number is not given to another one.
        self.next = self.next.max(place.file.saturating_add(1));
        self.files.entry(place.file).or_default().live += 1;
    }

    /// A place that named this is gone from sled.
    pub(super) fn release(&mut self, place: Place) {
        if let Some(usage) = self.files.get_mut(&place.file) {
            usage.live = usage.live.saturating_sub(1);
        }
    }

    /// Appends a body. Durable with the next [`Bodies::sync`].
    pub(super) fn write(&mut self, block: BlockId, body: &[u8]) -> io::Result<Place> {
        let active = self.active()?;
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let head = head(block, len, body);
        let place = Place { file: active.number, offset: active.len, len };
        active.is_dirty = true;
        active.file.write_all_at(&head, active.len)?;
        active.file.write_all_at(body, active.len + HEAD_BYTES_U64)?;
        active.len += HEAD_BYTES_U64 + u64::from(len);
        let len = active.len;
        self.files.entry(place.file).or_default().len = len;
        Ok(place)
    }

    /// What was written is on the disk when this returns.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match self.active.as_mut().filter(|active| active.is_dirty) {
            Some(active) => {
                active.file.sync_data()?;
                active.is_dirty = false;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Makes sure that `bytes` more can be appended, where the file system can promise that.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        if !self.can_reserve {
            return Ok(());
        }
        let active = self.active()?;
        // The heads of as many records as a group may have, too.
        let want = (active.len + bytes + bytes / 16).max(FILE_BYTES);
        self.can_reserve = allocate(&active.file, want, 0)?;
        Ok(())
    }

    fn active(&mut self) -> io::Result<&mut Active> {
        if self.active.as_ref().is_none_or(|active| active.len >= FILE_BYTES) {
            // What is dirty in a full file must not be forgotten with its descriptor.
            self.sync()?;
            self.active = None;
            let number = self.next;
            let file = self.begin(number)?;
            self.next += 1;
            self.files.insert(number, Usage::default());
            self.active = Some(Active { number, file, len: 0, is_dirty: false });
        }
        self.active.as_mut().ok_or_else(|| io::Error::other("no file is open"))
    }

    fn begin(&self, number: u64) -> io::Result<File> {
        if !self.dir.try_exists()? {
            fs::create_dir(&self.dir)?;
            if let Some(store) = self.dir.parent() {
                sync_dir(store)?;
            }
        }
        let file = File::options().write(true).create_new(true).open(self.path(number))?;
        file.sync_all()?;
        sync_dir(&self.dir)?;
        Ok(file)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}"))
    }

    /// Reads a body, and whether it is that of this block; the text says what is wrong with it.
    ///
    /// # Errors
    /// Where nothing can be said of it now.
    pub(super) fn read(
        &mut self,
        block: BlockId,
        place: Place,
    ) -> Result<Result<Bytes, String>, StoreError> {
        let len = usize::try_from(place.len).map_err(io::Error::other)?;
        let (mut said, mut body) = ([0; HEAD_BYTES], vec![0; len]);
        let read = self.reader(place.file).and_then(|file| {
            file.read_exact_at(&mut said, place.offset)?;
            file.read_exact_at(&mut body, place.offset.saturating_add(HEAD_BYTES_U64))
        });
        match read.map_err(StoreError::from) {
            Ok(()) if said == head(block, place.len, &body) => Ok(Ok(body.into())),
            Ok(()) => Ok(Err(format!("{} is damaged", self.told(place)))),
            Err(error) if error.is_environment() => Err(error),
            Err(error) => Ok(Err(format!("{}: {error}", self.told(place)))),
        }
    }

    fn told(&self, place: Place) -> String {
        format!("{} at {}", self.path(place.file).display(), place.offset)
    }

    fn reader(&mut self, number: u64) -> io::Result<&File> {
        if self.reader.as_ref().is_none_or(|(open, _)| *open != number) {
            self.reader = Some((number, File::open(self.path(number))?));
        }
        let reader = self.reader.as_ref().map(|(_, file)| file);
        reader.ok_or_else(|| io::Error::other("no file is open"))
    }

    /// Removes the files that no place names. Only after what dropped the places is durable.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        let active = self.active.as_ref().map(|active| active.number);
        let unused = |(number, usage): (&u64, &Usage)| {
            (usage.live == 0 && Some(*number) != active).then_some(*number)
        };
        let unused: Vec<u64> = self.files.iter().filter_map(unused).collect();
        for number in unused {
            if self.reader.as_ref().is_some_and(|(open, _)| *open == number) {
                self.reader = None;
            }
            match fs::remove_file(self.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.files.remove(&number),
            };
        }
        Ok(())
    }

    /// What the files take that hold something.
    pub(super) fn size_bytes(&self) -> u64 {
        self.files.values().filter(|usage| usage.live > 0).map(|usage| usage.len).sum()
    }
}

fn head((generation, seq): BlockId, len: u32, body: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0..4].copy_from_slice(MAGIC);
    head[4..8].copy_from_slice(&generation.to_le_bytes());
    head[8..16].copy_from_slice(&seq.to_le_bytes());
    head[16..20].copy_from_slice(&len.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..20]);
    crc.update(body);
    head[20..].copy_from_slice(&crc.finalize().to_le_bytes());
    head
}

fn number_of(name: &str) -> Option<u64> {
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten()
}
