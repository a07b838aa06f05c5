//! The block: up to about a thousand events of one stream under one header; the unit of storage,
//! signing, sending and acknowledging.
//!
//! # Format, version 1
//! All integers are little endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `CBLK` |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | kind: 0 full, 1 sparse |
//! | 6 | 1 | flags: 1 hashes of records are left out of the body, 2 the body is in frames |
//! | 7 | 1 | reserved, 0 |
//! | 8 | 4 | length of the header, H |
//! | 12 | 4 | length of the signature, S: 0 or 64 |
//! | 16 | 4 | length of the secret, K: 32 if full, 0 if sparse |
//! | 20 | 4 | length of the positions section, P |
//! | 24 | 4 | length of the body, B |
//! | 28 | 4 | length of the body's text, uncompressed, with all hashes |
//! | 32 | H | header: canonical JSON ([`Header`]) |
//! | … | S | Ed25519 signature over `custody block header v1\n` ‖ header |
//! | … | K | the block's secret, from which the salts come ([`crate::merkle`]) |
//! | … | P | positions: canonical JSON list of [`Coverage`] |
//! | … | B | body: one zstd frame, or one for each 128 events |
//! | … | 4 | CRC-32 (IEEE) of everything before: damage, not tampering |
//!
//! The text of a full body is NDJSON: each event's canonical JSON and a `\n`. The text of a sparse
//! body has one line for each index: `e`, the salt as 32 hex digits, a space and the event, or
//! `l` and the leaf's hash as 64 hex digits. Either way the leaves make the header's root.
//! `"raw":"…","raw_sha256":"…"` may stand there with an empty hash, if it is that of the text before
//! it; whoever unpacks the body makes it again (`slim`).
//!
//! The header's hash (SHA-256 of its bytes) is what the next header names as `prev` and what the
//! collector's log holds. The header does not change when a full block becomes sparse.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{AgentId, Digest, KeyId, Seq, StreamId, parse_hex, push_hex};
use crate::json::{push_int, push_string};
use crate::merkle::{self, Salt, Salts, Secret};
use crate::position::Coverage;
use crate::time::Timestamp;
use crate::{MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS, MAX_BLOCK_RAW_BYTES, MAX_SPARSE_BLOCK_BYTES};

const MAGIC: &[u8; 4] = b"CBLK";
/// The version that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;
const PREFIX_BYTES: usize = 32;
const KIND_AT: usize = 5;
/// Flags of the body, in byte 6.
const SLIM: u8 = 1;
const FRAMED: u8 = 2;
const CRC_BYTES: usize = 4;
/// The text of a sparse block: a line is at most so much longer than the event was.
const MAX_SPARSE_TEXT_BYTES: usize = MAX_BLOCK_RAW_BYTES + LEAF_LINE_BYTES * MAX_BLOCK_EVENTS;
/// `l`, the leaf's hash in hex, and the line's end.
const LEAF_LINE_BYTES: usize = 66;
/// A header is at most this long, in bytes: with its signature it must fit into one entry of the
/// collector's log, whose length has 16 bits.
pub const MAX_HEADER_BYTES: usize = 60 * 1024;
const SIGNATURE_BYTES: usize = 64;
/// What is signed is this, then the header's bytes.
pub const SIGNATURE_CONTEXT: &[u8] = b"custody block header v1\n";

/// How far one source's books have come since the agent began to keep them: read = stored +
/// filtered + gap. They go on in the streams that continue one another, so that what a block adds
/// is the difference to the block of that source before it, over the end of a stream as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceBook {
    /// Records that a named rule filtered.
    pub filtered: u64,
    /// Records known to be lost, each told by a gap event.
    pub gap: u64,
    /// Records read.
    pub read: u64,
    /// Records that became events.
    pub stored: u64,
}

impl SourceBook {
    /// Does it add up?
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.stored.checked_add(self.filtered).and_then(|sum| sum.checked_add(self.gap))
            == Some(self.read)
    }

    /// Adds what another book counted.
    pub fn add(&mut self, other: &Self) {
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.gap = self.gap.saturating_add(other.gap);
        self.read = self.read.saturating_add(other.read);
        self.stored = self.stored.saturating_add(other.stored);
    }
}

/// The small part of a block, kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Who wrote it.
    pub agent: AgentId,
    /// The books of the sources that this block touches, after it.
    pub books: BTreeMap<String, SourceBook>,
    /// Events in the block.
    pub count: u32,
    /// Earliest event time.
    pub first_time: Timestamp,
    /// The host's id (a digest of its machine id), lower-case hex.
    pub host: String,
    /// Which of the agent's keys signs.
    pub key: KeyId,
    /// Latest event time.
    pub last_time: Timestamp,
    /// SHA-256 of the positions section.
    pub positions: Digest,
    /// Hash of the previous header; zeros in the stream's first.
    pub prev: Digest,
    /// Merkle root over the events.
    pub root: Digest,
    /// When the agent sealed it, by the agent's clock.
    pub sealed: Timestamp,
    /// Number in the stream, from 0.
    pub seq: Seq,
    /// Which stream.
    pub stream: StreamId,
    /// Format version, 1.
    pub v: u8,
}

impl Header {
    /// The canonical bytes: what is hashed and signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(640);
        out.extend_from_slice(b"{\"agent\":");
        push_hex_string(&self.agent.0, &mut out);
        out.extend_from_slice(b",\"books\":");
        self.push_books(&mut out);
        out.extend_from_slice(b",\"count\":");
        push_int(i64::from(self.count), &mut out);
        push_time(",\"first_time\":", self.first_time, &mut out);
        out.extend_from_slice(b",\"host\":");
        push_string(&self.host, &mut out);
        out.extend_from_slice(b",\"key\":");
        push_hex_string(&self.key.0, &mut out);
        push_time(",\"last_time\":", self.last_time, &mut out);
        out.extend_from_slice(b",\"positions\":");
        push_hex_string(&self.positions.0, &mut out);
        out.extend_from_slice(b",\"prev\":");
        push_hex_string(&self.prev.0, &mut out);
        out.extend_from_slice(b",\"root\":");
        push_hex_string(&self.root.0, &mut out);
        push_time(",\"sealed\":", self.sealed, &mut out);
        out.extend_from_slice(b",\"seq\":");
        push_count(self.seq.get(), &mut out);
        out.extend_from_slice(b",\"stream\":");
        push_hex_string(&self.stream.0, &mut out);
        out.extend_from_slice(b",\"v\":");
        push_int(i64::from(self.v), &mut out);
        out.push(b'}');
        out
    }

    fn push_books(&self, out: &mut Vec<u8>) {
        let mut before = b'{';
        for (source, book) in &self.books {
            out.push(before);
            before = b',';
            push_string(source, out);
            for (key, value) in [
                (&b":{\"filtered\":"[..], book.filtered),
                (b",\"gap\":", book.gap),
                (b",\"read\":", book.read),
                (b",\"stored\":", book.stored),
            ] {
                out.extend_from_slice(key);
                push_count(value, out);
            }
            out.push(b'}');
        }
        if before == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
    }

    /// Reads a header; anything but the canonical bytes of a valid one is refused.
    ///
    /// # Errors
    /// With the reason.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_HEADER_BYTES {
            return Err(Malformed::new("its header is longer than 60 KiB"));
        }
        let header: Self = serde_json::from_slice(bytes)
            .map_err(|error| Malformed::new(format!("its header cannot be read: {error}")))?;
        if header.v != FORMAT_VERSION {
            return Err(Malformed::new(format!(
                "its header has version {}, this reader knows 1",
                header.v
            )));
        }
        if header.to_bytes() != bytes {
            return Err(Malformed::new("its header is not canonical JSON"));
        }
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Malformed> {
        if usize::try_from(self.count).map_or(true, |count| count > MAX_BLOCK_EVENTS) {
            return Err(Malformed::new(format!(
                "{} events are more than {MAX_BLOCK_EVENTS}",
                self.count
            )));
        }
        if self.first_time > self.last_time {
            return Err(Malformed::new("its time range ends before it begins"));
        }
        if (self.seq == Seq(0)) != (self.prev == Digest::ZERO) {
            return Err(Malformed::new("only the first block of a stream has no previous hash"));
        }
        match self.books.iter().find(|(_, book)| !book.is_balanced()) {
            Some((source, _)) => {
                Err(Malformed::new(format!("the books of source {source:?} do not add up")))
            }
            None => Ok(()),
        }
    }
}

fn push_hex_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    push_hex(bytes, out);
    out.push(b'"');
}

fn push_time(key: &str, time: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    time.write_to(out);
    out.push(b'"');
}

/// Counts beyond 2^53 are out of reach; they would be cut rather than written wrongly.
fn push_count(value: u64, out: &mut Vec<u8>) {
    push_int(i64::try_from(value).unwrap_or(i64::MAX).min(crate::json::MAX_SAFE_INT), out);
}

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a well-formed block: {0}")]
pub struct Malformed(String);

impl Malformed {
    /// With this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Events hashed and compressed, waiting for their place in a stream.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Events.
    pub count: u32,
    /// Earliest event time.
    pub first_time: Timestamp,
    /// Latest event time.
    pub last_time: Timestamp,
    /// Merkle root.
    pub root: Digest,
    secret: Secret,
    body: Body,
}

/// Events, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    bytes: Vec<u8>,
    /// Hashes of records are left out.
    is_slim: bool,
    /// There are several frames, each of so many events that the one of an event is known.
    is_framed: bool,
    /// The text's length in bytes, with all hashes.
    text_len: u32,
}

impl Body {
    fn flags(&self) -> u8 {
        let (slim, framed) = (u8::from(self.is_slim), u8::from(self.is_framed));
        slim * SLIM + framed * FRAMED
    }
}

/// Hashes and compresses runs of events; keeps its working space.
pub struct Sealer {
    packer: body::Packer,
    leaves: Vec<Digest>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// A sealer of its own for each thread.
    ///
    /// # Errors
    /// zstd could not be set up (out of memory).
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { packer: body::Packer::new()?, leaves: Vec::new() })
    }

    /// Seals `text` (events, each followed by `\n`), whose times span `times`, with a fresh
    /// random `secret`.
    ///
    /// # Errors
    /// More events or bytes than a block holds, or zstd fails.
    pub fn seal(
        &mut self,
        text: &[u8],
        times: (Timestamp, Timestamp),
        secret: Secret,
    ) -> std::io::Result<Sealed> {
        self.seal_hashed(text, times, secret, std::iter::empty())
    }

    /// The same where the hashes of some of the events' records are known, in the order of the
    /// events: these are not made once more.
    ///
    /// # Errors
    /// As for [`Sealer::seal`].
    pub fn seal_hashed<'h>(
        &mut self,
        text: &[u8],
        times: (Timestamp, Timestamp),
        secret: Secret,
        hashed: impl Iterator<Item = Hashed<'h>>,
    ) -> std::io::Result<Sealed> {
        if text.len() > MAX_BLOCK_RAW_BYTES {
            return Err(std::io::Error::other("events too long for one block"));
        }
        self.leaves.clear();
        merkle::leaves(&secret, lines(text), &mut self.leaves);
        if self.leaves.len() > MAX_BLOCK_EVENTS {
            return Err(std::io::Error::other("too many events for one block"));
        }
        let count = u32::try_from(self.leaves.len()).map_err(std::io::Error::other)?;
        Ok(Sealed {
            count,
            first_time: times.0,
            last_time: times.1,
            root: merkle::root(&mut self.leaves),
            secret,
            body: self.packer.pack(text, hashed)?,
        })
    }
}

/// An event's record, and the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Hashed<'a> {
    /// Where the event ends in the text.
    pub event_end: usize,
    /// As it stands in `origin.raw`, without escapes; another is passed over.
    pub record: &'a [u8],
    /// A wrong one makes a block that nobody can open.
    pub hash: Digest,
}

/// The lines of NDJSON text, without their `\n`.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    memchr::memchr_iter(b'\n', text).map(move |end| {
        let line = &text[from..end];
        from = end + 1;
        line
    })
}

/// Everything about a block that its stream decides.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Who.
    pub agent: AgentId,
    /// Which host.
    pub host: String,
    /// Which key will sign.
    pub key: KeyId,
    /// Which stream.
    pub stream: StreamId,
    /// Which number.
    pub seq: Seq,
    /// Hash of the header before.
    pub prev: Digest,
    /// When.
    pub sealed: Timestamp,
}

/// What the block covers and how the books stand after it.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// Byte ranges of files.
    pub coverage: Vec<Coverage>,
    /// Books of the sources touched.
    pub books: BTreeMap<String, SourceBook>,
}

impl Sealed {
    /// Length of the packed events, in bytes: nearly that of the whole block.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.body.bytes.len()
    }

    /// Puts the sealed events at their place: the header's bytes are ready to be signed.
    #[must_use]
    pub fn place(self, placement: Placement, accounts: Accounts) -> Block {
        let positions = canonical_positions(&accounts.coverage);
        let header = Header {
            agent: placement.agent,
            books: accounts.books,
            count: self.count,
            first_time: self.first_time,
            host: placement.host,
            key: placement.key,
            last_time: self.last_time,
            positions: Digest::of(&positions),
            prev: placement.prev,
            root: self.root,
            sealed: placement.sealed,
            seq: placement.seq,
            stream: placement.stream,
            v: FORMAT_VERSION,
        };
        Block {
            header_bytes: header.to_bytes(),
            header,
            signature: None,
            content: Content::Full(self.secret),
            positions,
            body: self.body,
        }
    }
}

/// The positions section's bytes. The struct's fields are declared in canonical order.
fn canonical_positions(coverage: &[Coverage]) -> Vec<u8> {
    // A list of structs of numbers and strings: there is nothing in it that cannot be written.
    serde_json::to_vec(coverage).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Full(Secret),
    Sparse,
}

/// A block, decoded: its sections are well formed and its checksum holds. The events are checked
/// by [`Block::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    header_bytes: Vec<u8>,
    signature: Option<[u8; SIGNATURE_BYTES]>,
    content: Content,
    positions: Vec<u8>,
    body: Body,
}

/// In a sparse line the event begins after `e`, 32 digits and a space.
const EVENT_AT: usize = 34;

fn leaf_line(line: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(line.strip_prefix(b"l")?).ok()?;
    parse_hex(text).map(Digest)
}

fn event_line(line: &[u8]) -> Option<(Salt, &[u8])> {
    let salt = std::str::from_utf8(line.get(1..EVENT_AT - 1)?).ok()?;
    let event = line.get(EVENT_AT..)?;
    (line[0] == b'e' && line[EVENT_AT - 1] == b' ').then_some(())?;
    Some((parse_hex(salt)?, event))
}

impl Block {
    /// The header's canonical bytes.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.header_bytes
    }

    /// SHA-256 of the header's bytes: the link to the next block.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.header_bytes)
    }

    /// The signature, if there is one.
    #[must_use]
    pub fn signature(&self) -> Option<&[u8; SIGNATURE_BYTES]> {
        self.signature.as_ref()
    }

    /// What is signed.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNATURE_CONTEXT.len() + self.header_bytes.len());
        out.extend_from_slice(SIGNATURE_CONTEXT);
        out.extend_from_slice(&self.header_bytes);
        out
    }

    /// Puts a signature in.
    pub fn sign(&mut self, signature: [u8; SIGNATURE_BYTES]) {
        self.signature = Some(signature);
    }

    /// Is it sparse: header, positions, and for each index an event or a bare leaf?
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.content == Content::Sparse
    }

    /// The byte ranges that the block covers.
    ///
    /// # Errors
    /// The section is not a list of coverages, or does not have the header's digest.
    pub fn coverage(&self) -> Result<Vec<Coverage>, Malformed> {
        if Digest::of(&self.positions) != self.header.positions {
            return Err(Malformed::new(
                "its positions do not have the digest that its header names",
            ));
        }
        let coverage: Vec<Coverage> = serde_json::from_slice(&self.positions)
            .map_err(|error| Malformed::new(format!("its positions cannot be read: {error}")))?;
        match coverage.iter().find(|range| range.from > range.to) {
            Some(range) => Err(Malformed::new(format!(
                "its range {}–{} of {:?} ends before it begins",
                range.from, range.to, range.path
            ))),
            None => Ok(coverage),
        }
    }

    /// The encoded bytes.
    ///
    /// # Errors
    /// A section is longer than the format can say, or the block longer than it may be.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let secret: &[u8] = match &self.content {
            Content::Full(secret) => secret,
            Content::Sparse => &[],
        };
        let signature: &[u8] = self.signature.as_ref().map_or(&[], |signature| signature);
        let sections =
            [&self.header_bytes[..], signature, secret, &self.positions, &self.body.bytes];
        let len = PREFIX_BYTES + sections.iter().map(|part| part.len()).sum::<usize>() + CRC_BYTES;
        check_len(len, self.is_sparse())?;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(MAGIC);
        let kind = u8::from(self.is_sparse());
        out.extend_from_slice(&[FORMAT_VERSION, kind, self.body.flags(), 0]);
        for part in sections {
            let len =
                u32::try_from(part.len()).map_err(|_| Malformed::new("a section is too long"))?;
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend_from_slice(&self.body.text_len.to_le_bytes());
        for part in sections {
            out.extend_from_slice(part);
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Reads a block's sections; the events are still packed.
    ///
    /// # Errors
    /// With the reason, for everything that is not exactly one well-formed block.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let sections = Sections::cut(bytes)?;
        let header = Header::from_bytes(sections.header)?;
        let signature = sections.signature()?;
        let content = match (sections.sparse, sections.secret) {
            (true, []) => Content::Sparse,
            (false, secret) => Content::Full(secret.try_into().map_err(|_| {
                Malformed::new(format!("a secret has 32 bytes, not {}", secret.len()))
            })?),
            (true, _) => return Err(Malformed::new("a sparse block has no secret")),
        };
        Ok(Self {
            header,
            header_bytes: sections.header.to_vec(),
            signature,
            content,
            positions: sections.positions.to_vec(),
            body: Body {
                bytes: sections.body.to_vec(),
                is_slim: sections.flags & SLIM != 0,
                is_framed: sections.flags & FRAMED != 0,
                text_len: sections.text_len,
            },
        })
    }

    fn push_leaves(&self, text: &[u8], leaves: &mut Vec<Digest>) -> Result<(), Malformed> {
        match &self.content {
            Content::Full(secret) => {
                merkle::leaves(secret, lines(text), leaves);
            }
            Content::Sparse => {
                for (index, line) in lines(text).enumerate() {
                    let leaf = leaf_line(line)
                        .or_else(|| {
                            event_line(line).map(|(salt, event)| merkle::leaf(&salt, event))
                        })
                        .ok_or_else(|| {
                            Malformed::new(format!("index {index} is neither event nor leaf"))
                        })?;
                    leaves.push(leaf);
                }
            }
        }
        Ok(())
    }

    /// The same block with only the events that `keep` names; the others leave their leaves
    /// behind. The header and its signature stay as they are.
    ///
    /// # Errors
    /// The block does not open, or zstd fails.
    pub fn to_sparse(&self, mut keep: impl FnMut(u32, &[u8]) -> bool) -> Result<Self, Malformed> {
        let text = self.unpack()?;
        let mut out = Vec::with_capacity(text.len());
        let salts: Box<dyn Iterator<Item = Option<Salt>>> = match &self.content {
            Content::Full(secret) => Box::new(Salts::new(secret).map(Some)),
            Content::Sparse => Box::new(std::iter::repeat(None)),
        };
        for ((line, salt), index) in lines(&text).zip(salts).zip(0_u32..) {
            sparse_line(line, salt, index, &mut keep, &mut out)?;
        }
        let body = body::Packer::new()
            .and_then(|mut packer| packer.pack(&out, std::iter::empty()))
            .map_err(|error| Malformed::new(format!("its body cannot be compressed: {error}")))?;
        Ok(Self { content: Content::Sparse, body, ..self.clone() })
    }

    /// The same events at another place: used when an agent must begin a new stream with what it
    /// has not delivered. The signature goes; sign again.
    #[must_use]
    pub fn moved_to(&self, placement: Placement) -> Self {
        let header = Header {
            agent: placement.agent,
            host: placement.host,
            key: placement.key,
            prev: placement.prev,
            sealed: placement.sealed,
            seq: placement.seq,
            stream: placement.stream,
            ..self.header.clone()
        };
        Self { header_bytes: header.to_bytes(), header, signature: None, ..self.clone() }
    }
}

fn sparse_line(
    line: &[u8],
    salt: Option<Salt>,
    index: u32,
    keep: &mut impl FnMut(u32, &[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let (salt, event) = match salt {
        Some(salt) => (salt, line),
        None => match event_line(line) {
            Some(entry) => entry,
            None => {
                out.extend_from_slice(line);
                out.push(b'\n');
                return Ok(());
            }
        },
    };
    if keep(index, event) {
        out.push(b'e');
        push_hex(&salt, out);
        out.push(b' ');
        out.extend_from_slice(event);
    } else {
        out.push(b'l');
        push_hex(&merkle::leaf(&salt, event).0, out);
    }
    out.push(b'\n');
    Ok(())
}

fn check_len(len: usize, is_sparse: bool) -> Result<(), Malformed> {
    let limit = if is_sparse { MAX_SPARSE_BLOCK_BYTES } else { MAX_BLOCK_BYTES };
    if len <= limit {
        return Ok(());
    }
    Err(Malformed::new(format!("{len} bytes are more than {limit}")))
}

/// A block's bytes, cut into sections.
struct Sections<'a> {
    sparse: bool,
    flags: u8,
    header: &'a [u8],
    signature: &'a [u8],
    secret: &'a [u8],
    positions: &'a [u8],
    body: &'a [u8],
    text_len: u32,
}

impl<'a> Sections<'a> {
    fn cut(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (prefix, mut rest) = Self::checked(bytes)?;
        let number = |at: usize| -> u32 {
            u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
        };
        let mut take = |at: usize, name: &str| -> Result<&'a [u8], Malformed> {
            let len = usize::try_from(number(at)).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at_checked(len).ok_or_else(|| {
                Malformed::new(format!(
                    "its {name} should have {len} bytes, {} are left",
                    rest.len()
                ))
            })?;
            rest = after;
            Ok(part)
        };
        let cut = Self {
            sparse: prefix[KIND_AT] == 1,
            flags: prefix[6],
            header: take(8, "header")?,
            signature: take(12, "signature")?,
            secret: take(16, "secret")?,
            positions: take(20, "positions section")?,
            body: take(24, "body")?,
            text_len: number(28),
        };
        if rest.is_empty() {
            Ok(cut)
        } else {
            Err(Malformed::new(format!("{} bytes follow its body", rest.len())))
        }
    }

    fn signature(&self) -> Result<Option<[u8; SIGNATURE_BYTES]>, Malformed> {
        match self.signature {
            [] => Ok(None),
            signature => signature.try_into().map(Some).map_err(|_| {
                Malformed::new(format!("a signature has 64 bytes, not {}", signature.len()))
            }),
        }
    }

    /// Prefix and sections, once length, magic, version and checksum are right.
    fn checked(bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
        check_len(bytes.len(), bytes.get(KIND_AT) == Some(&1))?;
        if bytes.len() < PREFIX_BYTES + CRC_BYTES {
            return Err(Malformed::new(format!("{} bytes are too few", bytes.len())));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed::new("it does not begin with CBLK"));
        }
        if bytes[4] != FORMAT_VERSION {
            return Err(Malformed::new(format!(
                "format version {}, this reader knows 1",
                bytes[4]
            )));
        }
        if bytes[KIND_AT] > 1 || bytes[6] & !(SLIM | FRAMED) != 0 || bytes[7] != 0 {
            return Err(Malformed::new("unknown kind or flags"));
        }
        check_crc(bytes)?;
        let (prefix, rest) = bytes.split_at(PREFIX_BYTES);
        Ok((prefix, &rest[..rest.len() - CRC_BYTES]))
    }
}

/// Does the checksum at the end of an encoded block hold? Cheap: for stores that only ask about
/// damage.
///
/// # Errors
/// It does not.
pub fn check_crc(bytes: &[u8]) -> Result<(), Malformed> {
    let (content, crc) = bytes
        .split_last_chunk::<CRC_BYTES>()
        .ok_or_else(|| Malformed::new(format!("{} bytes are too few", bytes.len())))?;
    if crc32fast::hash(content) == u32::from_le_bytes(*crc) {
        Ok(())
    } else {
        Err(Malformed::new("its checksum does not hold: the bytes are damaged"))
    }
}

mod body;
mod open;
mod pack;
mod shown;
mod slim;

pub use open::{Entry, EventFrame, FrameReader, Opened, Opener};
pub use shown::{Shown, SignedHeader};

#[cfg(test)]
mod tests;
