//! What memory keeps of a stored block, and how a list of it stands beside a closed segment.
//!
//! `0000000007.idx` (little endian): magic `CIDX`, version 1 (4), segment (8), the segment's
//! length (8), number of notes (4), the notes, CRC-32 of everything before. It is derived: where it
//! is missing, damaged or does not fit the segment, it is made again from the segment's frames.

use std::collections::BTreeMap;

use custody_event::position::Fingerprint;
use custody_event::{AgentId, Digest, FileIdentity, Seq, SourceBook, StreamId, Timestamp};

use crate::store::LogCursor;

const MAGIC: &[u8; 4] = b"CIDX";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 28;

/// A file without its generation, as it is known over reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DurableFile {
    pub(crate) ino: u64,
    pub(crate) born_ns: i64,
    pub(crate) dev: u64,
    pub(crate) fingerprint: Fingerprint,
}

impl From<&FileIdentity> for DurableFile {
    fn from(file: &FileIdentity) -> Self {
        Self {
            ino: file.ino,
            born_ns: file.born_ns,
            dev: file.durable_dev(),
            fingerprint: file.fingerprint,
        }
    }
}

/// A covered range of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoteSpan {
    pub(crate) file: DurableFile,
    pub(crate) generation: u32,
    /// Which content of the file, over all streams of the host (see [`super::held`]).
    pub(crate) line: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A stored block, as memory keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) agent: AgentId,
    pub(crate) stream: StreamId,
    pub(crate) seq: Seq,
    /// The header's hash.
    pub(crate) hash: Digest,
    pub(crate) host: String,
    pub(crate) at: LogCursor,
    pub(crate) received: Timestamp,
    /// When the agent sealed it, by its own clock.
    pub(crate) sealed: Timestamp,
    pub(crate) events: u32,
    pub(crate) spans: Vec<NoteSpan>,
    pub(crate) books: BTreeMap<String, SourceBook>,
    /// Events already held from an older stream, by source.
    pub(crate) held: BTreeMap<String, u64>,
}

/// Collects the notes of the segment that is being written.
#[derive(Debug, Default)]
pub(super) struct SidecarBuilder {
    notes: u32,
    bytes: Vec<u8>,
}

impl SidecarBuilder {
    pub(super) fn push(&mut self, note: &Note) {
        self.notes += 1;
        push_note(note, &mut self.bytes);
    }

    /// The sidecar's bytes for a segment of this length.
    pub(super) fn finish(&self, segment: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREFIX_BYTES + self.bytes.len() + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.notes.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Does a sidecar that begins so belong to this segment of this length? Its checksum is not looked at.
pub(super) fn names(head: &[u8], segment: u64, len: u64) -> bool {
    let mut cursor = Cursor(head);
    cursor.take(4) == Some(MAGIC)
        && cursor.u32() == Some(VERSION)
        && cursor.u64() == Some(segment)
        && cursor.u64() == Some(len)
}

/// Reads a sidecar that belongs to this segment of this length; `None` for anything else.
pub(super) fn read_sidecar(bytes: &[u8], segment: u64, len: u64) -> Option<Vec<Note>> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (head, rest) = content.split_at_checked(PREFIX_BYTES - 4)?;
    if !names(head, segment, len) {
        return None;
    }
    let mut cursor = Cursor(rest);
    let count = cursor.u32()?;
    let notes: Option<Vec<Note>> = (0..count).map(|_| read_note(&mut cursor, segment)).collect();
    cursor.0.is_empty().then_some(notes?)
}

fn push_note(note: &Note, out: &mut Vec<u8>) {
    out.extend_from_slice(&note.agent.0);
    out.extend_from_slice(&note.stream.0);
    out.extend_from_slice(&note.seq.0.to_le_bytes());
    out.extend_from_slice(&note.hash.0);
    push_text(&note.host, out);
    out.extend_from_slice(&note.at.offset.to_le_bytes());
    out.extend_from_slice(&note.received.micros().to_le_bytes());
    out.extend_from_slice(&note.sealed.micros().to_le_bytes());
    out.extend_from_slice(&note.events.to_le_bytes());
    push_len(note.spans.len(), out);
    for span in &note.spans {
        out.extend_from_slice(&span.file.ino.to_le_bytes());
        out.extend_from_slice(&span.file.born_ns.to_le_bytes());
        out.extend_from_slice(&span.file.dev.to_le_bytes());
        out.extend_from_slice(&span.file.fingerprint.0);
        out.extend_from_slice(&span.generation.to_le_bytes());
        out.extend_from_slice(&span.line.to_le_bytes());
        out.extend_from_slice(&span.from.to_le_bytes());
        out.extend_from_slice(&span.to.to_le_bytes());
    }
    push_len(note.books.len(), out);
    for (source, book) in &note.books {
        push_text(source, out);
        for count in [book.filtered, book.gap, book.read, book.stored] {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }
    push_len(note.held.len(), out);
    for (source, count) in &note.held {
        push_text(source, out);
        out.extend_from_slice(&count.to_le_bytes());
    }
}

/// Lengths inside a header of 64 KiB and a block of 1.5 MiB: they fit.
fn push_len(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    push_len(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn read_note(from: &mut Cursor<'_>, segment: u64) -> Option<Note> {
    Some(Note {
        agent: AgentId(from.array()?),
        stream: StreamId(from.array()?),
        seq: Seq(from.u64()?),
        hash: Digest(from.array()?),
        host: from.text()?,
        at: LogCursor { segment, offset: from.u64()? },
        received: Timestamp::from_micros(from.i64()?),
        sealed: Timestamp::from_micros(from.i64()?),
        events: from.u32()?,
        spans: from.list(read_span)?,
        books: from.list(read_book)?,
        held: from.list(|from| Some((from.text()?, from.u64()?)))?,
    })
}

fn read_span(from: &mut Cursor<'_>) -> Option<NoteSpan> {
    let file = DurableFile {
        ino: from.u64()?,
        born_ns: from.i64()?,
        dev: from.u64()?,
        fingerprint: Fingerprint(from.array()?),
    };
    let (generation, line) = (from.u32()?, from.u32()?);
    Some(NoteSpan { file, generation, line, from: from.u64()?, to: from.u64()? })
}

fn read_book(from: &mut Cursor<'_>) -> Option<(String, SourceBook)> {
    let source = from.text()?;
    let (filtered, gap) = (from.u64()?, from.u64()?);
    Some((source, SourceBook { filtered, gap, read: from.u64()?, stored: from.u64()? }))
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.u32()?).ok()?;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }

    fn list<T, C: FromIterator<T>>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<C> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        let file = DurableFile { ino: 1, born_ns: -2, dev: 3, fingerprint: Fingerprint::of(b"f") };
        Note {
            agent: AgentId([1; 16]),
            stream: StreamId([2; 16]),
            seq: Seq(3),
            hash: Digest([4; 32]),
            host: "host".into(),
            at: LogCursor { segment: 9, offset: 64 },
            received: Timestamp::Y2020,
            sealed: Timestamp::Y2020,
            events: 5,
            spans: vec![NoteSpan { file, generation: 6, line: 7, from: 8, to: 9 }],
            books: BTreeMap::from([(
                "auth".into(),
                SourceBook { filtered: 1, gap: 2, read: 6, stored: 3 },
            )]),
            held: BTreeMap::from([("auth".into(), 2)]),
        }
    }

    #[test]
    fn a_sidecar_reads_back_and_is_refused_when_damaged_cut_or_another_segments() {
        let mut builder = SidecarBuilder::default();
        builder.push(&note());
        builder.push(&note());
        let bytes = builder.finish(9, 1000);
        assert_eq!(read_sidecar(&bytes, 9, 1000), Some(vec![note(), note()]));
        assert_eq!(read_sidecar(&bytes, 8, 1000), None);
        assert_eq!(read_sidecar(&bytes, 9, 1001), None);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(read_sidecar(&bad, 9, 1000), None, "byte {at}");
            assert_eq!(read_sidecar(&bytes[..at], 9, 1000), None, "cut at {at}");
        }
    }
}
