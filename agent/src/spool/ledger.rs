//! The ledger: a small file beside the store that remembers the last durable block number.
//!
//! # Format
//! Two slots of 64 bytes, at offsets 0 and 4096, written in turn; the valid one with the higher count
//! is the truth. All numbers little endian.
//! ```text
//! 0  "cspl"      4  version 1 (u32)   8  count (u64)     16 generation (u32)  20 zero (u32)
//! 24 first (u64) 32 next (u64)        40 store (u64)     48 unix ms (u64)     56 zero   60 CRC32 of 0..60
//! ```
//! # What it is for
//! A database that rolls back silently, or a folder restored from a copy, looks whole. The ledger is a
//! lower bound of what was durable: a store that has less was rolled back. It is written after the
//! store's sync, at most once a second, so it never promises too much. Losing it loses only this check.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SLOT_BYTES: usize = 64;
const SLOT_AT: [u64; 2] = [0, 4096];
const MAGIC: &[u8; 4] = b"cspl";
const VERSION: u32 = 1;

/// What the ledger remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// The stream's generation.
    pub(crate) generation: u32,
    /// The first block that was held.
    pub(crate) first_seq: u64,
    /// The first block number that was not durable.
    pub(crate) next_seq: u64,
    /// The number of the live store folder.
    pub(crate) store: u64,
    /// When.
    pub(crate) unix_ms: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    count: u64,
    last: Option<Entry>,
}

impl Ledger {
    /// Opens or makes the file. A damaged slot counts as absent.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut newest: Option<(u64, Entry)> = None;
        for at in SLOT_AT {
            let mut slot = [0_u8; SLOT_BYTES];
            match file.read_exact_at(&mut slot, at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            if let Some(found) = decode(&slot)
                && newest.is_none_or(|(count, _)| found.0 > count)
            {
                newest = Some(found);
            }
        }
        let (count, last) = newest.map_or((0, None), |(count, entry)| (count, Some(entry)));
        Ok(Self { file, count, last })
    }

    /// What it says.
    pub(crate) fn last(&self) -> Option<Entry> {
        self.last
    }

    /// Writes into the older slot and makes it durable.
    pub(crate) fn write(&mut self, entry: Entry) -> io::Result<()> {
        let count = self.count + 1;
        let at = if count.is_multiple_of(2) { SLOT_AT[0] } else { SLOT_AT[1] };
        self.file.write_all_at(&encode(count, entry), at)?;
        self.file.sync_data()?;
        self.count = count;
        self.last = Some(entry);
        Ok(())
    }
}

fn encode(count: u64, entry: Entry) -> [u8; SLOT_BYTES] {
    let mut slot = [0_u8; SLOT_BYTES];
    slot[0..4].copy_from_slice(MAGIC);
    slot[4..8].copy_from_slice(&VERSION.to_le_bytes());
    slot[8..16].copy_from_slice(&count.to_le_bytes());
    slot[16..20].copy_from_slice(&entry.generation.to_le_bytes());
    slot[24..32].copy_from_slice(&entry.first_seq.to_le_bytes());
    slot[32..40].copy_from_slice(&entry.next_seq.to_le_bytes());
    slot[40..48].copy_from_slice(&entry.store.to_le_bytes());
    slot[48..56].copy_from_slice(&entry.unix_ms.to_le_bytes());
    let crc = crc32fast::hash(&slot[..60]);
    slot[60..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Entry)> {
    let (body, crc) = slot.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc)
        || !body.starts_with(MAGIC)
        || u32_at(body, 4)? != VERSION
    {
        return None;
    }
    let entry = Entry {
        generation: u32_at(body, 16)?,
        first_seq: u64_at(body, 24)?,
        next_seq: u64_at(body, 32)?,
        store: u64_at(body, 40)?,
        unix_ms: u64_at(body, 48)?,
    };
    Some((u64_at(body, 8)?, entry))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(next_seq: u64) -> Entry {
        Entry { generation: 3, first_seq: 1, next_seq, store: 2, unix_ms: 77 }
    }

    #[test]
    fn a_torn_write_leaves_the_entry_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.last(), None);
        for next in 1..=5 {
            ledger.write(entry(next)).unwrap();
        }
        assert_eq!(Ledger::open(&path).unwrap().last(), Some(entry(5)));
        // Entry 5 stands in the second slot (count 5 is odd): any damage there gives entry 4.
        for at in 0..64 {
            let whole = std::fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn[4096 + at] ^= 0x10;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(Ledger::open(&path).unwrap().last(), Some(entry(4)), "byte {at}");
            std::fs::write(&path, &whole).unwrap();
        }
    }
}
