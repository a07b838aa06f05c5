//! The store on sled 0.34.7: the only file of the project that knows sled.
//!
//! # Why so much around so little
//! sled's `flush()` does not fsync: it ends in `sync_file_range`, which leaves the file's metadata and
//! the disk's cache alone. So [`Store::sync`] here is `flush()` and then fdatasync through a descriptor
//! of our own. Leaves beyond a quarter of a segment go to files in `blobs/` that sled never syncs: the
//! parts of `keys` keep leaves below that, and should one appear all the same, it is synced too.
//!
//! # Full disks
//! A sled call that meets ENOSPC can block for ever. So before bytes are handed over, [`Store::reserve`]
//! allocates the blocks that they could need (`fallocate`, file length unchanged): ENOSPC comes back
//! from there as a plain error, and sled does not meet it.
//!
//! # Failures
//! Every error ends the handle: sled keeps the first one and returns it for ever. Dropping it flushes
//! and may panic; the owner drops it inside `catch_unwind`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::keys::{HEAD_BYTES, LARGE, PART_BYTES, fences, parse_part_key, part_key, parts};
use super::types::{Change, Large, Slot, Store, StoreError, StoreFactory};
use super::{MAX_BLOCK_BYTES, SpoolKey};

/// 2 MiB: a quarter of it holds a whole leaf of 17 parts, and sled's buffers, which are as large as a
/// segment, stay small (resident 20 MiB instead of 30 with 8 MiB).
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const SEGMENT_BYTES_U64: u64 = 2 * 1024 * 1024;
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Segments allocated ahead of the file's length: sled writes about five times what it is given, as it
/// rewrites leaves, and a group is up to a segment long.
const SEGMENTS_AHEAD: u64 = 8;

/// Opens sled stores.
#[derive(Debug)]
pub(crate) struct SledFactory;

impl StoreFactory for SledFactory {
    fn open(&mut self, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
        remove_half_snapshots(dir).map_err(io_error)?;
        fs::create_dir_all(dir).map_err(io_error)?;
        let fresh = !dir.join("db").try_exists().map_err(io_error)?;
        let db = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(sled_error)?;
        let file = File::options().read(true).write(true).open(dir.join("db")).map_err(io_error)?;
        let mut store = SledStore { db, file, dir: dir.to_path_buf(), can_reserve: true };
        store.settle(fresh)?;
        Ok(Box::new(store))
    }

    fn forget_derived(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == "conf" || name.starts_with("snap.") {
                fs::rename(entry.path(), dir.join(format!("aside.{name}")))?;
            }
        }
        Ok(())
    }
}

/// A crash while sled writes a snapshot leaves `snap.*.generating`, which sled would take for the
/// newest snapshot at the next start, and fail. The log holds everything that was in it.
fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

struct SledStore {
    db: sled::Db,
    /// Our own descriptor of sled's file, for fdatasync and fallocate.
    file: File,
    dir: PathBuf,
    /// False once the file system has said that it cannot.
    can_reserve: bool,
}

impl SledStore {
    /// After opening: the files that sled made are on disk, and the fences stand.
    fn settle(&mut self, fresh: bool) -> Result<(), StoreError> {
        if fresh {
            let mut batch = sled::Batch::default();
            for key in fences() {
                batch.insert(key, &[][..]);
            }
            self.db.apply_batch(batch).map_err(sled_error)?;
        }
        self.sync()?;
        for entry in fs::read_dir(&self.dir).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(io_error)?;
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error)
    }

    /// No leaf should ever be large enough for a blob file; if one is, it must be as durable as the rest.
    fn sync_blobs(&self) -> io::Result<()> {
        let blobs = self.dir.join("blobs");
        let mut any = false;
        for entry in fs::read_dir(&blobs)? {
            match File::open(entry?.path()) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            any = true;
        }
        if any { File::open(&blobs)?.sync_all() } else { Ok(()) }
    }
}

fn fill(batch: &mut sled::Batch, change: &Change) -> Result<(), StoreError> {
    for (slot, len) in &change.drops {
        for part in 0..parts(usize::try_from(*len).unwrap_or(MAX_BLOCK_BYTES)) {
            batch.remove(part_key(*slot, part));
        }
    }
    for (slot, bytes) in &change.stores {
        let len = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_BLOCK_BYTES);
        let len =
            len.ok_or_else(|| StoreError::Refused(format!("a value of {} bytes", bytes.len())))?;
        let head = &bytes[..bytes.len().min(PART_BYTES)];
        batch.insert(part_key(*slot, 0), [&len.to_le_bytes(), head].concat());
        for (part, piece) in (1_u16..).zip(bytes[head.len()..].chunks(PART_BYTES)) {
            batch.insert(part_key(*slot, part), piece);
        }
    }
    for key in &change.deletes {
        batch.remove(key.as_slice());
    }
    for (key, value) in &change.puts {
        batch.insert(key.as_slice(), value.as_slice());
    }
    Ok(())
}

impl Store for SledStore {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            fill(&mut batch, change)?;
        }
        self.db.apply_batch(batch).map_err(sled_error)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.db.flush().map_err(sled_error)?;
        self.sync_blobs().map_err(io_error)?;
        self.file.sync_data().map_err(io_error)
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        if !self.can_reserve {
            return Ok(());
        }
        let meta = self.file.metadata().map_err(io_error)?;
        let want = meta.len().next_multiple_of(SEGMENT_BYTES_U64)
            + SEGMENTS_AHEAD * SEGMENT_BYTES_U64
            + bytes;
        // A quarter of what is ahead may be used up before it is asked for again: a call per two segments.
        if meta.blocks() * 512 + 2 * SEGMENT_BYTES_U64 >= want {
            return Ok(());
        }
        // A failed fallocate may keep what it got so far and so fill the disk itself: ask first.
        let disk = rustix::fs::fstatvfs(&self.file).map_err(|error| io_error(error.into()))?;
        let (need, free) =
            (want.saturating_sub(meta.blocks() * 512), disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < need {
            return Err(StoreError::Full(format!(
                "{need} bytes are needed ahead of the log, {free} are free"
            )));
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, want) {
            Ok(()) => {
                // A file system that does not count what it promised (compression) cannot be asked again and again.
                self.can_reserve = self.file.metadata().map_err(io_error)?.blocks() * 512 >= want;
                Ok(())
            }
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.can_reserve = false;
                Ok(())
            }
            Err(error) => Err(io_error(error.into())),
        }
    }

    fn read(&mut self, slot: Slot) -> Result<Option<Arc<[u8]>>, StoreError> {
        let Some(head) = self.db.get(part_key(slot, 0)).map_err(sled_error)? else {
            return Ok(None);
        };
        let mut whole = Assembly::begin(&head).map_err(StoreError::Corrupt)?;
        for part in 1..parts(whole.len) {
            let Some(piece) = self.db.get(part_key(slot, part)).map_err(sled_error)? else {
                return Err(StoreError::Corrupt(format!("{slot:?}: part {part} is missing")));
            };
            whole.bytes.extend_from_slice(&piece);
        }
        whole.finish().map(Some).map_err(|error| StoreError::Corrupt(format!("{slot:?}: {error}")))
    }

    fn visit_large(
        &mut self,
        from: Option<Slot>,
        budget_bytes: u64,
        visit: &mut dyn FnMut(Large),
    ) -> Result<Option<Slot>, StoreError> {
        let start = from.map_or_else(|| LARGE.to_vec(), |slot| part_key(slot, 0));
        let mut open: Option<Walked> = None;
        let mut read_bytes = 0_u64;
        for item in self.db.range(start..) {
            let (key, value) = item.map_err(sled_error)?;
            let Some((slot, part)) = parse_part_key(&key) else {
                return Err(StoreError::Corrupt(format!("a key that nobody wrote: {key:02x?}")));
            };
            if let Some(walked) = open.as_mut().filter(|walked| walked.slot == slot) {
                walked.add(part, &value);
            } else {
                if let Some(walked) = open.take() {
                    visit(walked.finish());
                }
                if read_bytes > budget_bytes {
                    return Ok(Some(slot));
                }
                open = Some(Walked::begin(slot, part, &value));
            }
            read_bytes += u64::try_from(value.len()).unwrap_or(u64::MAX);
        }
        if let Some(walked) = open {
            visit(walked.finish());
        }
        Ok(None)
    }

    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(sled_error)?.map(|value| value.to_vec()))
    }

    fn scan_prefix(&mut self, prefix: &[u8]) -> Result<Vec<(SpoolKey, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for item in self.db.scan_prefix(prefix) {
            let (key, value) = item.map_err(sled_error)?;
            if matches!(key.first(), Some(b'|' | b'~')) {
                break;
            }
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(found)
    }

    fn size_on_disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().map_err(io_error)?.len())
    }
}

/// A large value being put together from its parts.
struct Assembly {
    len: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    fn begin(head: &[u8]) -> Result<Self, String> {
        let (len, first) =
            head.split_first_chunk::<HEAD_BYTES>().ok_or("its first part is cut off")?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|error| error.to_string())?;
        if len > MAX_BLOCK_BYTES {
            return Err(format!("its length says {len} bytes, the limit is {MAX_BLOCK_BYTES}"));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(first);
        Ok(Self { len, bytes })
    }

    fn finish(self) -> Result<Arc<[u8]>, String> {
        if self.bytes.len() == self.len {
            return Ok(self.bytes.into());
        }
        Err(format!("{} of {} bytes are there", self.bytes.len(), self.len))
    }
}

/// A large value met on a walk over all keys.
struct Walked {
    slot: Slot,
    last: u16,
    whole: Result<Assembly, String>,
}

impl Walked {
    fn begin(slot: Slot, part: u16, value: &[u8]) -> Self {
        let whole = if part == 0 {
            Assembly::begin(value)
        } else {
            Err("its first part is missing".to_owned())
        };
        Self { slot, last: part, whole }
    }

    fn add(&mut self, part: u16, value: &[u8]) {
        match &mut self.whole {
            Ok(whole) if self.last + 1 == part => whole.bytes.extend_from_slice(value),
            Ok(_) => self.whole = Err(format!("part {part} follows part {}", self.last)),
            Err(_) => {}
        }
        self.last = part;
    }

    fn finish(self) -> Large {
        (self.slot, self.whole.and_then(Assembly::finish))
    }
}

fn io_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(error.to_string())
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Refused(error.to_string())
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            StoreError::Corrupt(error.to_string())
        }
        // EMFILE, ENFILE, ENOMEM: a lack of the moment, no reason to put data aside.
        _ if matches!(error.raw_os_error(), Some(12 | 23 | 24)) => {
            StoreError::Refused(error.to_string())
        }
        _ => StoreError::Io(error.to_string()),
    }
}

fn sled_error(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => {
            let text = error.to_string();
            if text.contains("could not acquire lock") {
                StoreError::Locked(text)
            } else {
                io_error(error)
            }
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}
