//! Where a record stood, and the event id that is derived from it.
//!
//! **File identity.** A file is known by its inode and the time when the inode was born (by its
//! device as well where the file system keeps no birth time: device numbers change over a
//! reboot, birth times do not), and one *generation* of its content by the fingerprint of its
//! first record. Where a file is emptied and begins again with the same first record, the agent
//! counts: `generation` is 0 for the first content with this fingerprint, 1 for the next.
//!
//! **Event id.** Derived from nothing but host, file key, offset, index and record hash, so that
//! an agent that has lost its state makes the same ids from the same bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{Digest, EventId, FileKey, Offset, Seq, parse_hex};

/// The first record of a file is hashed over at most this many bytes.
pub const FINGERPRINT_BYTES: usize = 1024;

/// One generation of one file's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Birth time of the inode in nanoseconds since the epoch; 0 where the file system has none.
    pub born_ns: i64,
    /// Device number as the kernel gives it when the file is first seen.
    pub dev: u64,
    /// First 16 bytes of SHA-256 over the first record (without its newline), cut to
    /// [`FINGERPRINT_BYTES`].
    pub fingerprint: Fingerprint,
    /// How many earlier contents of this inode with the same fingerprint this agent has seen.
    pub generation: u32,
    /// Inode number.
    pub ino: u64,
}

/// First 16 bytes of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of these bytes, as they are.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(head16(Sha256::digest(bytes).as_slice()))
    }

    /// Of a file's first record: `record` without its newline, cut to [`FINGERPRINT_BYTES`].
    #[must_use]
    pub fn of_first_record(record: &[u8]) -> Self {
        Self::of(&record[..record.len().min(FINGERPRINT_BYTES)])
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        FileKey(self.0).fmt(f)
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse_hex(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("expected 32 lower-case hex digits"))
    }
}

fn head16(hash: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

impl FileIdentity {
    /// The device as far as it belongs to the durable identity: 0 where the birth time is known.
    #[must_use]
    pub fn durable_dev(&self) -> u64 {
        if self.born_ns == 0 { self.dev } else { 0 }
    }

    /// Stands for records that do not come from a file: `kind` says from what (`pushed`, `journal`),
    /// `name` which one. No file has inode 0, so none is ever taken for it.
    #[must_use]
    pub fn of_place(kind: &str, name: &[u8]) -> Self {
        let named = [b"custody place v1\0", kind.as_bytes(), b"\0", name].concat();
        Self { born_ns: 0, dev: 0, fingerprint: Fingerprint::of(&named), generation: 0, ino: 0 }
    }

    /// Names this generation of this file of `host`.
    #[must_use]
    pub fn key(&self, host: &str) -> FileKey {
        let mut hash = Sha256::new();
        hash.update(b"custody file v1\0");
        hash.update(host.as_bytes());
        hash.update([0]);
        hash.update(self.durable_dev().to_le_bytes());
        hash.update(self.ino.to_le_bytes());
        hash.update(self.born_ns.to_le_bytes());
        hash.update(self.fingerprint.0);
        hash.update(self.generation.to_le_bytes());
        FileKey(head16(hash.finalize().as_slice()))
    }
}

/// The id of event number `index` of the record at `offset`: SHA-256 over 52 bytes (one block of
/// the hash function: this runs once an event), cut to 128 bits.
#[must_use]
pub fn event_id(file: FileKey, offset: Offset, index: u32, record_hash: &Digest) -> EventId {
    let mut input = [0_u8; 52];
    input[..16].copy_from_slice(&file.0);
    input[16..24].copy_from_slice(&offset.get().to_le_bytes());
    input[24..28].copy_from_slice(&index.to_le_bytes());
    input[28..].copy_from_slice(&record_hash.0[..24]);
    EventId(head16(Sha256::digest(input).as_slice()))
}

/// The key under which an agent's own events (start, stop, gaps) are named: there is no file, so
/// the stream stands for it and a counter for the offset.
#[must_use]
pub fn own_key(host: &str, stream: &crate::ids::StreamId) -> FileKey {
    let mut hash = Sha256::new();
    hash.update(b"custody own v1\0");
    hash.update(host.as_bytes());
    hash.update([0]);
    hash.update(stream.0);
    FileKey(head16(hash.finalize().as_slice()))
}

/// The key under which the records of one delivery are named: its sender's id for it stands for
/// the file, so that a delivery that is sent again makes the same ids.
#[must_use]
pub fn delivery_key(host: &str, input: &str, delivery: &str) -> FileKey {
    let mut hash = Sha256::new();
    hash.update(b"custody delivery v1\0");
    for part in [host, input] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(delivery.as_bytes());
    FileKey(head16(hash.finalize().as_slice()))
}

/// What a block says of the bytes that it covers: all of them were read, and every record in
/// them is an event of this block, filtered by a named rule, or in a gap.
///
/// A block carries a list of these (its *positions section*); the header carries its digest. The
/// collector compares them over streams of one host, so that nothing that an older stream has
/// delivered is counted twice after an agent lost its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Which generation of which file.
    pub file: FileIdentity,
    /// First byte covered.
    pub from: Offset,
    /// Where the file stood when it was read (for people).
    pub path: String,
    /// Records in the range.
    pub records: u64,
    /// The source's id in the agent's configuration.
    pub source: String,
    /// One beyond the last byte covered.
    pub to: Offset,
}

/// One block's place: which stream, which number.
pub type BlockPlace = (crate::ids::StreamId, Seq);

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> FileIdentity {
        FileIdentity {
            born_ns: 5,
            dev: 1,
            fingerprint: Fingerprint::of_first_record(b"first"),
            generation: 0,
            ino: 77,
        }
    }

    #[test]
    fn a_file_keeps_its_key_when_its_device_is_renumbered_but_not_when_its_content_is_new() {
        let file = identity();
        let key = file.key("h");
        assert_eq!(FileIdentity { dev: 9, ..file.clone() }.key("h"), key);
        assert_ne!(
            FileIdentity { dev: 9, born_ns: 0, ..file.clone() }.key("h"),
            FileIdentity { born_ns: 0, ..file.clone() }.key("h")
        );
        assert_ne!(FileIdentity { generation: 1, ..file.clone() }.key("h"), key);
        assert_ne!(FileIdentity { ino: 78, ..file.clone() }.key("h"), key);
        assert_ne!(
            FileIdentity { fingerprint: Fingerprint::of(b"x"), ..file.clone() }.key("h"),
            key
        );
        assert_ne!(file.key("g"), key);
    }

    #[test]
    fn an_id_moves_with_every_part_that_it_is_derived_from() {
        let key = identity().key("h");
        let record = Digest::of(b"line");
        let id = event_id(key, Offset(3), 0, &record);
        assert_eq!(event_id(key, Offset(3), 0, &record), id);
        for other in [
            event_id(key, Offset(4), 0, &record),
            event_id(key, Offset(3), 1, &record),
            event_id(key, Offset(3), 0, &Digest::of(b"lime")),
            event_id(identity().key("g"), Offset(3), 0, &record),
        ] {
            assert_ne!(other, id);
        }
    }
}
