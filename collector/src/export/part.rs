//! A file that is being written: counted, hashed, and synced where it shall be taken up again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use custody_event::Digest;
use custody_event::ids::push_hex;
use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

use super::room::Room;
use super::{ExportError, wide};

const BUFFER_BYTES: usize = 256 * 1024;
/// How much is written between two looks at the room that is left.
const LOOK_EVERY_BYTES: u64 = 8 * 1024 * 1024;

/// A hash that can be put aside.
#[derive(Debug, Clone, Default)]
pub(super) struct Hash(Sha256);

impl Hash {
    pub(super) fn new(hash: Sha256) -> Self {
        Self(hash)
    }

    pub(super) fn into_inner(self) -> Sha256 {
        self.0
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn sum(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }

    pub(super) fn state(&self) -> String {
        let mut hex = Vec::new();
        push_hex(&self.0.serialize(), &mut hex);
        String::from_utf8(hex).unwrap_or_default()
    }

    pub(super) fn from_state(text: &str) -> Option<Self> {
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let state = bytes?.as_slice().try_into().ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }
}

/// Where a part can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    len: u64,
    hash: String,
}

impl Mark {
    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

/// See the module.
pub(super) struct Part {
    path: PathBuf,
    out: BufWriter<File>,
    hash: Hash,
    len: u64,
    room: Room,
    /// Its length at the last look at the room that is left.
    looked: u64,
}

impl Part {
    /// A new, empty one.
    pub(super) fn create(path: &Path, room: Room) -> Result<Self, ExportError> {
        let open =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = open.map_err(ExportError::io(path))?;
        Ok(Self::new(path, file, Hash::default(), 0, room))
    }

    /// One that is cut back to the mark; `None` where it does not reach so far any more.
    pub(super) fn resume(
        path: &Path,
        mark: &Mark,
        room: Room,
    ) -> Result<Option<Self>, ExportError> {
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ExportError::io(path)(error)),
        };
        let Some(hash) = Hash::from_state(&mark.hash) else { return Ok(None) };
        let cut = |mut file: File| -> io::Result<Option<File>> {
            if file.metadata()?.len() < mark.len {
                return Ok(None);
            }
            file.set_len(mark.len)?;
            file.seek(SeekFrom::Start(mark.len))?;
            Ok(Some(file))
        };
        let file = cut(file).map_err(ExportError::io(path))?;
        Ok(file.map(|file| Self::new(path, file, hash, mark.len, room)))
    }

    fn new(path: &Path, file: File, hash: Hash, len: u64, room: Room) -> Self {
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        Self { path: path.to_owned(), out, hash, len, room, looked: len }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let max_bytes = self.room.max_bytes;
        if self.len.saturating_add(wide(bytes.len())) > max_bytes {
            return Err(ExportError::TooLong { max_bytes });
        }
        if self.len.saturating_sub(self.looked) >= LOOK_EVERY_BYTES {
            self.looked = self.len;
            // What is still in memory counts too.
            self.out.flush().map_err(ExportError::io(&self.path))?;
            self.room.check(self.path.parent().unwrap_or(Path::new(".")))?;
        }
        self.out.write_all(bytes).map_err(ExportError::io(&self.path))?;
        self.hash.update(bytes);
        self.len += wide(bytes.len());
        Ok(())
    }

    /// Makes everything so far durable.
    pub(super) fn mark(&mut self) -> Result<Mark, ExportError> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_data());
        synced.map_err(ExportError::io(&self.path))?;
        Ok(Mark { len: self.len, hash: self.hash.state() })
    }

    /// Makes it durable under its last name; gives length and hash.
    pub(super) fn complete(mut self, to: &Path) -> Result<(u64, Digest), ExportError> {
        self.mark()?;
        let rename = || -> io::Result<()> {
            std::fs::rename(&self.path, to)?;
            File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        rename().map_err(ExportError::io(to))?;
        Ok((self.len, self.hash.sum()))
    }
}

/// For writers that know files only.
impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(max_bytes: u64) -> Room {
        Room { max_bytes, max_total_bytes: u64::MAX, min_free_bytes: 0 }
    }

    #[test]
    fn a_part_that_was_cut_off_anywhere_goes_on_as_if_nothing_had_been() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.part");
        let mut part = Part::create(&path, room(1_000)).unwrap();
        part.put(b"one two ").unwrap();
        let mark = part.mark().unwrap();
        part.put(b"lost, and more than what comes instead").unwrap();
        drop(part);
        let mut part = Part::resume(&path, &mark, room(1_000)).unwrap().unwrap();
        part.put(b"three").unwrap();
        let (len, hash) = part.complete(&dir.path().join("x")).unwrap();
        assert_eq!((len, hash), (13, Digest::of(b"one two three")));
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"one two three");
        assert!(Part::resume(&path, &mark, room(1_000)).unwrap().is_none(), "the part is gone");
        std::fs::write(&path, b"one").unwrap();
        assert!(Part::resume(&path, &mark, room(1_000)).unwrap().is_none(), "it is too short");
    }

    #[test]
    fn a_file_ends_at_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut part = Part::create(&dir.path().join("x.part"), room(4)).unwrap();
        part.put(b"1234").unwrap();
        assert!(matches!(part.put(b"5"), Err(ExportError::TooLong { max_bytes: 4 })));
    }

    #[test]
    fn a_long_file_ends_where_all_of_them_take_what_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let max_total_bytes = 3 * LOOK_EVERY_BYTES;
        std::fs::write(dir.path().join("another"), vec![0; 8 << 20]).unwrap();
        let room = Room { max_total_bytes, ..room(u64::MAX) };
        let mut part = Part::create(&dir.path().join("x.part"), room).unwrap();
        let error = loop {
            match part.put(&[0; 64 * 1024]) {
                Ok(()) => assert!(part.len() < max_total_bytes),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ExportError::Full { .. }), "{error}");
    }
}
