//! Reads a bundle as a stream and goes on behind damage.

use std::io::{self, Read};

use custody_event::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    AgentKeyRecord, BundleFraming, Continuation, End, Kind, MAGIC, MAX_STREAMS, Manifest, Place,
};
use crate::scan::{HEAD_BYTES, Piece, Scanner, TAIL_BYTES};

/// A frame's content.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Kind 1.
    Manifest(Manifest),
    /// Kind 2.
    LogKey(&'a str),
    /// Kind 3.
    Checkpoint(&'a str),
    /// Kind 4.
    AgentKey(AgentKeyRecord),
    /// Kind 5.
    Continuation(Continuation),
    /// Kind 6.
    Voucher(Place, &'a [u8]),
    /// Kind 7.
    Entry(Place, &'a [u8]),
    /// Kind 8.
    Block(Place, &'a [u8]),
    /// Kind 9.
    End(End),
}

/// What stands next in a bundle.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A record at this offset.
    Record(u64, Record<'a>),
    /// A frame whose content cannot be read, and why.
    Malformed(u64, String),
    /// Bytes that are no frame: from, to, and whether nothing whole follows.
    Damage(u64, u64, bool),
}

/// See the module.
pub struct BundleReader<R> {
    scanner: Scanner<io::Chain<io::Cursor<Vec<u8>>, R>, BundleFraming>,
    begins: bool,
    digest: Sha256,
}

impl<R> std::fmt::Debug for BundleReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleReader").finish_non_exhaustive()
    }
}

impl<R: Read> BundleReader<R> {
    /// Begins to read. Where the first bytes are not those of a bundle, they are told as damage.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        let len = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        input.by_ref().take(len).read_to_end(&mut magic)?;
        let begins = magic == MAGIC;
        let (before, offset) = if begins { (Vec::new(), len) } else { (magic, 0) };
        let scanner = Scanner::new(io::Cursor::new(before).chain(input), offset);
        Ok(Self { scanner, begins, digest: Sha256::new() })
    }

    /// Does it begin as a bundle does?
    #[must_use]
    pub fn begins_well(&self) -> bool {
        self.begins
    }

    /// SHA-256 of all whole frames so far but the end.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.digest.clone().finalize().into())
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn next_item(&mut self) -> io::Result<Option<Item<'_>>> {
        Ok(self.scanner.next()?.map(|piece| match piece {
            Piece::Damage { from, to, to_end } => Item::Damage(from, to, to_end),
            Piece::Frame { at, bytes } => {
                let record = record(bytes);
                if !matches!(record, Ok(Record::End(_))) {
                    self.digest.update(bytes);
                }
                match record {
                    Ok(record) => Item::Record(at, record),
                    Err(reason) => Item::Malformed(at, reason),
                }
            }
        }))
    }
}

fn record(frame: &[u8]) -> Result<Record<'_>, String> {
    let content = &frame[HEAD_BYTES..frame.len() - TAIL_BYTES];
    let kind = frame.get(4).copied().and_then(Kind::from_byte).ok_or("an unknown kind")?;
    let text = || std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned());
    let placed = || Place::cut(content).ok_or("its place in the log cannot be read".to_owned());
    Ok(match kind {
        Kind::Manifest => Record::Manifest(manifest(content)?),
        Kind::LogKey => Record::LogKey(text()?),
        Kind::Checkpoint => Record::Checkpoint(text()?),
        Kind::AgentKey => Record::AgentKey(json(content)?),
        Kind::Continuation => Record::Continuation(json(content)?),
        Kind::Voucher => placed().map(|(place, entry)| Record::Voucher(place, entry))?,
        Kind::Entry => placed().map(|(place, entry)| Record::Entry(place, entry))?,
        Kind::Block => placed().map(|(place, block)| Record::Block(place, block))?,
        Kind::End => Record::End(json(content)?),
    })
}

fn manifest(content: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = json(content)?;
    if manifest.v != 1 {
        return Err(format!("manifest version {}, this program knows 1", manifest.v));
    }
    if manifest.streams.len() > MAX_STREAMS || manifest.first > manifest.end {
        return Err("a manifest names at most 20,000 streams and a range forwards".to_owned());
    }
    Ok(manifest)
}

fn json<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| error.to_string())
}
