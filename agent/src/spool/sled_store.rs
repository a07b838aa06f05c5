//! The store: sled 0.34.7 for all that is small, and [`Bodies`] for what blocks say. The only file of
//! the project that knows sled.
//!
//! # Why so much around so little
//! sled's `flush()` does not fsync: it ends in `sync_file_range`, which leaves the file's metadata and
//! the disk's cache alone. So [`Store::sync`] here is `flush()` and then fdatasync through a descriptor
//! of our own. Leaves beyond a quarter of a segment go to files in `blobs/` that sled never syncs: the
//! parts of `keys` keep leaves below that, and should one appear all the same, it is synced too.
//!
//! # Blocks
//! [`Store::commit`] appends bodies and makes them durable, and then gives sled their places, in the
//! batch with all the rest: sled's batch decides whether a block is there. Blocks in parts, as they were
//! written before, are read and dropped, and none is written.
//!
//! # Full disks
//! A sled call that meets ENOSPC can block for ever. So before bytes are handed over, [`Store::reserve`]
//! allocates the blocks that they could need (`fallocate`, file length unchanged): ENOSPC comes back
//! from there as a plain error, and sled does not meet it.
//!
//! # Failures
//! Every error ends the handle: sled keeps the first one and returns it for ever. Dropping it flushes
//! and may panic; the owner drops it inside `catch_unwind`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::ahead::allocate;
use super::bodies::{BlockId, Bodies, Place};
use super::keys::{
    BLOCK_PARTS, BODIES, HEAD_BYTES, PART_BYTES, PLACE, fences, parse_part_key, parse_place_key,
    part_key, parts, place_key,
};
use super::types::{Change, Large, Slot, Store, StoreError, StoreFactory};
use super::{MAX_BLOCK_BYTES, SpoolKey};

/// 2 MiB: a quarter of it holds a whole leaf of 17 parts, and sled's buffers, which are as large as a
/// segment, stay small (resident 20 MiB instead of 30 with 8 MiB).
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const SEGMENT_BYTES_U64: u64 = 2 * 1024 * 1024;
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Segments allocated ahead of the file's length: sled writes about five times what it is given, as it
/// rewrites leaves, and a dead letter is nearly a segment long.
const SEGMENTS_AHEAD: u64 = 8;

/// Opens sled stores.
#[derive(Debug, Default)]
pub(crate) struct SledFactory {
    /// Blocks go into sled, as they did before bodies had files of their own: only a test wants that.
    pub(crate) in_parts: bool,
}

impl StoreFactory for SledFactory {
    fn open(&mut self, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
        remove_half_snapshots(dir)?;
        fs::create_dir_all(dir)?;
        let fresh = !dir.join("db").try_exists()?;
        let damage = if fresh { None } else { damaged_header(&dir.join("db"))? };
        let db = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(sled_error)?;
        let mut store = SledStore {
            db,
            file: File::options().read(true).write(true).open(dir.join("db"))?,
            blobs: File::open(dir.join("blobs"))?,
            bodies: Bodies::open(dir)?,
            dir: dir.to_path_buf(),
            can_reserve: true,
            has_parts: false,
            is_marked: false,
            cached_bytes: 0,
            in_parts: self.in_parts,
            damage,
        };
        store.settle(fresh)?;
        store.look_for_blocks()?;
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

/// How a segment of sled 0.34 begins: the CRC-32 of the 16 bytes behind it, inverted.
const SEGMENT_HEADER_BYTES: usize = 20;

/// Says which segment's header does not hold. With a snapshot sled does not look at them, goes on
/// writing behind a damaged one, and misses what stands there when it is opened again. A header is
/// within one sector, so that no power failure tears it.
fn damaged_header(db: &Path) -> io::Result<Option<String>> {
    let file = File::open(db)?;
    let len = file.metadata()?.len();
    for at in (0..len).step_by(SEGMENT_BYTES) {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if len - at < bytes_of(SEGMENT_HEADER_BYTES) {
            break;
        }
        file.read_exact_at(&mut header, at)?;
        let (crc, rest) = header.split_at(4);
        let holds = (!crc32fast::hash(rest)).to_le_bytes() == crc;
        if !holds && header != [0; SEGMENT_HEADER_BYTES] {
            return Ok(Some(format!("the header of sled's segment at byte {at} does not hold")));
        }
    }
    Ok(None)
}

struct SledStore {
    db: sled::Db,
    /// Our own descriptor of sled's file, for fdatasync and fallocate.
    file: File,
    bodies: Bodies,
    dir: PathBuf,
    /// Where sled puts what is too large for its file.
    blobs: File,
    /// False once the file system has said that it cannot.
    can_reserve: bool,
    /// There are blocks in parts.
    has_parts: bool,
    /// [`BODIES`] stands.
    is_marked: bool,
    /// What went through sled since it was opened.
    cached_bytes: u64,
    in_parts: bool,
    /// What was wrong with sled's file before sled opened it.
    damage: Option<String>,
}

/// A batch for sled in the making.
#[derive(Default)]
struct Filled {
    batch: sled::Batch,
    bytes: u64,
    /// Where the blocks lie that it stores, and those that it drops (`None`).
    places: BTreeMap<BlockId, Option<Place>>,
    /// Places that are in sled and will not be.
    gone: Vec<Place>,
}

impl Filled {
    fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += bytes_of(key.len() + value.len());
        self.batch.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        self.bytes += bytes_of(key.len());
        self.batch.remove(key);
    }
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
        self.flush()?;
        for entry in fs::read_dir(&self.dir)? {
            File::open(entry?.path()).and_then(|file| file.sync_all())?;
        }
        Ok(File::open(&self.dir).and_then(|dir| dir.sync_all())?)
    }

    /// Which files of bodies hold something, and are there blocks in parts?
    fn look_for_blocks(&mut self) -> Result<(), StoreError> {
        for item in self.db.scan_prefix(PLACE) {
            let (_, value) = item.map_err(sled_error)?;
            // What is no place is told when its block is read.
            if let Ok(place) = Place::parse(&value) {
                self.bodies.retain(place);
            }
        }
        let first = self.db.scan_prefix(BLOCK_PARTS).next().transpose().map_err(sled_error)?;
        self.has_parts = first.is_some();
        self.is_marked = self.db.contains_key(BODIES).map_err(sled_error)?;
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(sled_error)?;
        self.sync_blobs()?;
        Ok(self.file.sync_data()?)
    }

    /// No leaf should ever be large enough for a blob file; if one is, it must be as durable as the rest.
    fn sync_blobs(&self) -> io::Result<()> {
        if !has_entries(&self.blobs)? {
            return Ok(());
        }
        for entry in fs::read_dir(self.dir.join("blobs"))? {
            match File::open(entry?.path()) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.blobs.sync_all()
    }

    /// Where a block lies, if it is not in parts.
    fn place_of(&self, (generation, seq): BlockId) -> Result<Option<Place>, StoreError> {
        let value = self.db.get(place_key(generation, seq)).map_err(sled_error)?;
        let place = value.map(|value| Place::parse(&value)).transpose();
        place.map_err(|error| StoreError::Corrupt(format!("block {seq}: {error}")))
    }

    fn fill(&mut self, filled: &mut Filled, change: &Change) -> Result<(), StoreError> {
        for (slot, len) in &change.drops {
            match slot {
                Slot::Block { generation, seq } => {
                    self.drop_block(filled, (*generation, *seq), *len)?
                }
                Slot::Dead(_) => drop_parts(filled, *slot, *len),
            }
        }
        for (slot, bytes) in &change.stores {
            if bytes.len() > MAX_BLOCK_BYTES {
                return Err(StoreError::Refused(format!("a value of {} bytes", bytes.len())));
            }
            match slot {
                Slot::Block { generation, seq } if !self.in_parts => {
                    self.store_block(filled, (*generation, *seq), bytes)?;
                }
                _ => store_parts(filled, *slot, bytes)?,
            }
        }
        change.deletes.iter().for_each(|key| filled.remove(key));
        change.puts.iter().for_each(|(key, value)| filled.insert(key, value));
        Ok(())
    }

    fn store_block(
        &mut self,
        filled: &mut Filled,
        block: BlockId,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.forget_place(filled, block)?;
        let place = self.bodies.write(block, bytes)?;
        if !self.is_marked {
            filled.insert(BODIES, &[]);
        }
        filled.insert(&place_key(block.0, block.1), &place.to_bytes());
        filled.places.insert(block, Some(place));
        Ok(())
    }

    fn drop_block(
        &mut self,
        filled: &mut Filled,
        block: BlockId,
        len: u32,
    ) -> Result<(), StoreError> {
        if self.forget_place(filled, block)? {
            filled.remove(&place_key(block.0, block.1));
            filled.places.insert(block, None);
        }
        if self.has_parts {
            drop_parts(filled, Slot::Block { generation: block.0, seq: block.1 }, len);
        }
        Ok(())
    }

    /// Notes that the place that a block has will be gone; false if it has none.
    fn forget_place(&self, filled: &mut Filled, block: BlockId) -> Result<bool, StoreError> {
        if let Some(written) = filled.places.get(&block) {
            return Ok(written.is_some());
        }
        let place = self.place_of(block)?;
        filled.gone.extend(place);
        Ok(place.is_some())
    }
}

fn bytes_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn drop_parts(filled: &mut Filled, slot: Slot, len: u32) {
    for part in 0..parts(usize::try_from(len).unwrap_or(MAX_BLOCK_BYTES)) {
        filled.remove(&part_key(slot, part));
    }
}

fn store_parts(filled: &mut Filled, slot: Slot, bytes: &[u8]) -> Result<(), StoreError> {
    let len = u32::try_from(bytes.len()).map_err(|error| StoreError::Refused(error.to_string()))?;
    let head = &bytes[..bytes.len().min(PART_BYTES)];
    filled.insert(&part_key(slot, 0), &[&len.to_le_bytes(), head].concat());
    for (part, piece) in (1_u16..).zip(bytes[head.len()..].chunks(PART_BYTES)) {
        filled.insert(&part_key(slot, part), piece);
    }
    Ok(())
}

impl Store for SledStore {
    fn check(&mut self) -> Result<(), StoreError> {
        self.damage.clone().map_or(Ok(()), |damage| Err(StoreError::Corrupt(damage)))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut filled = Filled::default();
        for change in changes {
            self.fill(&mut filled, change)?;
        }
        self.bodies.sync()?;
        self.db.apply_batch(filled.batch).map_err(sled_error)?;
        self.cached_bytes += filled.bytes;
        self.is_marked |= filled.places.values().any(Option::is_some);
        filled.places.into_values().flatten().for_each(|place| self.bodies.retain(place));
        filled.gone.into_iter().for_each(|place| self.bodies.release(place));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        Ok(self.bodies.reclaim()?)
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        if self.can_reserve {
            let len = self.file.metadata()?.len().next_multiple_of(SEGMENT_BYTES_U64);
            let want = len + SEGMENTS_AHEAD * SEGMENT_BYTES_U64 + bytes;
            // A quarter of what is ahead may be used up before it is asked for again: a call per two segments.
            self.can_reserve = allocate(&self.file, want, 2 * SEGMENT_BYTES_U64)?;
        }
        self.bodies.reserve(bytes)
    }

    fn read(&mut self, slot: Slot) -> Result<Option<Bytes>, StoreError> {
        if let Slot::Block { generation, seq } = slot
            && let Some(place) = self.place_of((generation, seq))?
        {
            let body = self.bodies.read((generation, seq), place)?;
            return body
                .map(Some)
                .map_err(|error| StoreError::Corrupt(format!("block {seq}: {error}")));
        }
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
        self.cached_bytes += bytes_of(whole.len);
        whole.finish().map(Some).map_err(|error| StoreError::Corrupt(format!("{slot:?}: {error}")))
    }

    fn visit_large(
        &mut self,
        from: Option<Slot>,
        budget_bytes: u64,
        visit: &mut dyn FnMut(Large),
    ) -> Result<Option<Slot>, StoreError> {
        let mut walk = Walk::begin(&self.db, from)?;
        let before = self.cached_bytes;
        while let Some((slot, met)) = walk.next()? {
            self.cached_bytes = before + walk.read_bytes;
            let whole = match met {
                Met::Whole(whole) => whole,
                Met::Place(block, place) => match Place::parse(&place) {
                    Ok(place) => self.bodies.read(block, place)?,
                    Err(error) => Err(error),
                },
            };
            visit((slot, whole));
            if walk.read_bytes > budget_bytes
                && let Some(next) = walk.peek()
            {
                return Ok(Some(next));
            }
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
            if key.starts_with(PLACE) {
                continue;
            }
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(found)
    }

    fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    fn size_on_disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata()?.len() + self.bodies.size_bytes())
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

    fn finish(self) -> Result<Bytes, String> {
        if self.bytes.len() == self.len {
            return Ok(self.bytes.into());
        }
        Err(format!("{} of {} bytes are there", self.bytes.len(), self.len))
    }
}

/// A large value met on a walk over all keys.
struct Walked {
    last: u16,
    whole: Result<Assembly, String>,
}

impl Walked {
    fn begin(part: u16, value: &[u8]) -> Self {
        let whole = if part == 0 {
            Assembly::begin(value)
        } else {
            Err("its first part is missing".to_owned())
        };
        Self { last: part, whole }
    }

    fn add(&mut self, part: u16, value: &[u8]) {
        match &mut self.whole {
            Ok(whole) if self.last + 1 == part => whole.bytes.extend_from_slice(value),
            Ok(_) => self.whole = Err(format!("part {part} follows part {}", self.last)),
            Err(_) => {}
        }
        self.last = part;
    }
}

/// What a walk meets: a value that is in sled, or the place of a body.
enum Met {
    Whole(Result<Bytes, String>),
    Place(BlockId, sled::IVec),
}

/// A walk over all large values, in the order of their slots.
struct Walk {
    places: sled::Iter,
    place: Option<(BlockId, sled::IVec)>,
    parts: sled::Iter,
    part: Option<(Slot, u16, sled::IVec)>,
    /// What sled has read.
    read_bytes: u64,
}

impl Walk {
    fn begin(db: &sled::Db, from: Option<Slot>) -> Result<Self, StoreError> {
        // The key after all places.
        let end = [&PLACE[..PLACE.len() - 1], b"0"].concat();
        let place = match from {
            None => PLACE.to_vec(),
            Some(Slot::Block { generation, seq }) => place_key(generation, seq),
            Some(Slot::Dead(_)) => end.clone(),
        };
        let part = from.map_or_else(|| BLOCK_PARTS.to_vec(), |slot| part_key(slot, 0));
        let mut walk = Self {
            places: db.range(place..end),
            place: None,
            parts: db.range(part..),
            part: None,
            read_bytes: 0,
        };
        walk.next_place()?;
        walk.next_part()?;
        Ok(walk)
    }

    fn next_place(&mut self) -> Result<(), StoreError> {
        self.place = match self.places.next().transpose().map_err(sled_error)? {
            None => None,
            Some((key, value)) => {
                self.read_bytes += bytes_of(key.len() + value.len());
                Some((parse_place_key(&key).ok_or_else(|| strange(&key))?, value))
            }
        };
        Ok(())
    }

    fn next_part(&mut self) -> Result<(), StoreError> {
        self.part = match self.parts.next().transpose().map_err(sled_error)? {
            None => None,
            Some((key, value)) => {
                self.read_bytes += bytes_of(value.len());
                let (slot, part) = parse_part_key(&key).ok_or_else(|| strange(&key))?;
                Some((slot, part, value))
            }
        };
        Ok(())
    }

    /// The slot of what comes next.
    fn peek(&self) -> Option<Slot> {
        let place = self
            .place
            .as_ref()
            .map(|((generation, seq), _)| Slot::Block { generation: *generation, seq: *seq });
        let part = self.part.as_ref().map(|(slot, ..)| *slot);
        place.into_iter().chain(part).min()
    }

    fn next(&mut self) -> Result<Option<(Slot, Met)>, StoreError> {
        let Some(slot) = self.peek() else { return Ok(None) };
        let parts = self.assemble(slot)?;
        let is_placed = |((generation, seq), _): &mut (BlockId, sled::IVec)| {
            slot == Slot::Block { generation: *generation, seq: *seq }
        };
        // A block with a place is there, whatever else has its number.
        if let Some((block, place)) = self.place.take_if(is_placed) {
            self.next_place()?;
            return Ok(Some((slot, Met::Place(block, place))));
        }
        Ok(parts.map(|parts| (slot, Met::Whole(parts))))
    }

    /// Takes all parts of this slot, if there are any.
    fn assemble(&mut self, slot: Slot) -> Result<Option<Result<Bytes, String>>, StoreError> {
        let mut walked: Option<Walked> = None;
        while let Some((_, part, value)) = self.part.take_if(|(of, ..)| *of == slot) {
            match &mut walked {
                Some(walked) => walked.add(part, &value),
                None => walked = Some(Walked::begin(part, &value)),
            }
            self.next_part()?;
        }
        Ok(walked.map(|walked| walked.whole.and_then(Assembly::finish)))
    }
}

fn strange(key: &[u8]) -> StoreError {
    StoreError::Corrupt(format!("a key that nobody wrote: {key:02x?}"))
}

/// Has the directory anything in it? Asked at each sync: no memory is taken for it.
fn has_entries(dir: &File) -> io::Result<bool> {
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut space = [MaybeUninit::<u8>::uninit(); 1024];
    let mut entries = rustix::fs::RawDir::new(dir, &mut space);
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sled_error(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => {
            let text = error.to_string();
            if text.contains("could not acquire lock") {
                StoreError::Locked(text)
            } else {
                error.into()
            }
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}
