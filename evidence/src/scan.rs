//! Finds frames in a stream of bytes and goes on behind damage: for bundles and for the
//! collector's segments, which are framed alike.
//!
//! A frame is a head of 16 bytes (four of magic, then what the format wants, then CRC-32 of the
//! twelve before), a content whose length the head tells, and CRC-32 of everything before.
//!
//! # Limits
//! One frame is held at a time, at most [`MAX_FRAME_BYTES`].

use std::io::{self, Read};

use custody_event::MAX_SPARSE_BLOCK_BYTES;

/// A head and its check.
#[cfg_attr(not(feature = "fs"), expect(unreachable_pub, reason = "`segments` shows it"))]
pub const HEAD_BYTES: usize = 16;
/// The checksum at the end.
#[cfg_attr(not(feature = "fs"), expect(unreachable_pub, reason = "`segments` shows it"))]
pub const TAIL_BYTES: usize = 4;
/// The longest block, what stands before it, and room.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_SPARSE_BLOCK_BYTES + 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// How a format frames.
pub(crate) trait Framing {
    /// The head's first bytes.
    const MAGIC: &'static [u8; 4];

    /// The whole frame's length, from the twelve bytes before the head's checksum; `None` where
    /// they are no head of the format.
    fn frame_len(head: &[u8]) -> Option<usize>;
}

/// What stands next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A whole frame whose checksums hold.
    Frame {
        /// Its first byte.
        at: u64,
        /// Head, content and checksum.
        bytes: &'a [u8],
    },
    /// Bytes that are no frame.
    Damage {
        /// The first of them.
        from: u64,
        /// One beyond the last.
        to: u64,
        /// Does nothing whole follow?
        to_end: bool,
    },
}

/// See the module.
pub(crate) struct Scanner<R, F> {
    input: R,
    buffer: Vec<u8>,
    /// Where the next frame should begin in the buffer.
    start: usize,
    /// Offset of the buffer's first byte.
    offset: u64,
    ended: bool,
    framing: std::marker::PhantomData<F>,
}

/// What is found at a place of the buffer.
enum Found {
    Frame(usize),
    Nothing,
    End,
}

impl<R: Read, F: Framing> Scanner<R, F> {
    /// Begins at the input's next byte, which has this offset.
    pub(crate) fn new(input: R, offset: u64) -> Self {
        let framing = std::marker::PhantomData;
        Self { input, buffer: Vec::new(), start: 0, offset, ended: false, framing }
    }

    fn at(&self, place: usize) -> u64 {
        self.offset + u64::try_from(place).unwrap_or(u64::MAX)
    }

    /// Makes at least `count` bytes from `place` on available, unless the input ends.
    fn fill(&mut self, place: usize, count: usize) -> io::Result<bool> {
        while !self.ended && self.buffer.len() < place + count {
            let had = self.buffer.len();
            let more = count.max(READ_BYTES);
            let limit = u64::try_from(more).unwrap_or(u64::MAX);
            self.input.by_ref().take(limit).read_to_end(&mut self.buffer)?;
            self.ended = self.buffer.len() < had + more;
        }
        Ok(self.buffer.len() >= place + count)
    }

    fn look(&mut self, place: usize) -> io::Result<Found> {
        if !self.fill(place, HEAD_BYTES)? {
            return Ok(if self.buffer.len() == place { Found::End } else { Found::Nothing });
        }
        let (content, crc) = self.buffer[place..place + HEAD_BYTES].split_at(HEAD_BYTES - 4);
        if !content.starts_with(F::MAGIC) || crc32fast::hash(content).to_le_bytes() != *crc {
            return Ok(Found::Nothing);
        }
        let Some(len) = F::frame_len(content).filter(|len| *len <= MAX_FRAME_BYTES) else {
            return Ok(Found::Nothing);
        };
        if len < HEAD_BYTES + TAIL_BYTES || !self.fill(place, len)? {
            return Ok(Found::Nothing);
        }
        let (content, crc) = self.buffer[place..place + len].split_at(len - TAIL_BYTES);
        let whole = crc32fast::hash(content).to_le_bytes() == *crc;
        Ok(if whole { Found::Frame(len) } else { Found::Nothing })
    }

    /// The next frame, or the damage before it; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.buffer.drain(..self.start);
        self.offset += u64::try_from(self.start).unwrap_or(u64::MAX);
        self.start = 0;
        match self.look(0)? {
            Found::End => Ok(None),
            Found::Frame(len) => {
                self.start = len;
                Ok(Some(Piece::Frame { at: self.offset, bytes: &self.buffer[..len] }))
            }
            Found::Nothing => self.skip().map(Some),
        }
    }

    /// Goes on to the next whole frame.
    fn skip(&mut self) -> io::Result<Piece<'_>> {
        let from = self.offset;
        let mut place = 1;
        loop {
            // Keep the buffer short: what has been passed is damage.
            if place > MAX_FRAME_BYTES {
                self.buffer.drain(..place - 1);
                self.offset = self.at(place - 1);
                place = 1;
            }
            self.fill(place, HEAD_BYTES)?;
            let rest = self.buffer.get(place..).unwrap_or_default();
            match memchr::memmem::find(rest, F::MAGIC) {
                Some(found) => {
                    place += found;
                    if let Found::Frame(_) = self.look(place)? {
                        self.start = place;
                        return Ok(Piece::Damage { from, to: self.at(place), to_end: false });
                    }
                    place += 1;
                }
                None if self.ended => {
                    self.start = self.buffer.len();
                    return Ok(Piece::Damage { from, to: self.at(self.start), to_end: true });
                }
                None => {
                    // A magic may lie across the end of what is here.
                    place = self.buffer.len().saturating_sub(F::MAGIC.len() - 1).max(place);
                    self.fill(place, READ_BYTES)?;
                }
            }
        }
    }
}

/// Writes a head: twelve bytes and their checksum.
pub(crate) fn push_head(twelve: &[u8; 12], out: &mut Vec<u8>) {
    out.extend_from_slice(twelve);
    out.extend_from_slice(&crc32fast::hash(twelve).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test;

    impl Framing for Test {
        const MAGIC: &'static [u8; 4] = b"TEST";

        fn frame_len(head: &[u8]) -> Option<usize> {
            let len = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?);
            usize::try_from(len).ok()?.checked_add(HEAD_BYTES + TAIL_BYTES)
        }
    }

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut twelve = *b"TEST\0\0\0\0\0\0\0\0";
        twelve[8..].copy_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        let mut out = Vec::new();
        push_head(&twelve, &mut out);
        out.extend_from_slice(content);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// (at, length) of frames, negative lengths for damage.
    fn walk(bytes: &[u8]) -> Vec<(u64, i64)> {
        let mut scanner = Scanner::<_, Test>::new(bytes, 0);
        let mut found = Vec::new();
        while let Some(piece) = scanner.next().unwrap() {
            found.push(match piece {
                Piece::Frame { at, bytes } => (at, i64::try_from(bytes.len()).unwrap()),
                Piece::Damage { from, to, .. } => (from, -i64::try_from(to - from).unwrap()),
            });
        }
        found
    }

    #[test]
    fn whole_frames_are_found_behind_damage_of_every_byte() {
        let frames = [frame(b"first"), frame(b""), frame(&[7; 3000]), frame(b"TEST inside")];
        let whole: Vec<u8> = frames.concat();
        assert_eq!(walk(&whole).len(), 4);
        let mut starts = vec![0];
        frames.iter().for_each(|frame| starts.push(starts.last().unwrap() + frame.len()));
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            let hit = starts.iter().rposition(|start| *start <= at).unwrap();
            let found = walk(&bad);
            assert_eq!(found.len(), 4, "byte {at}: {found:?}");
            assert!(found[hit].1 < 0 && found.iter().filter(|(_, len)| *len < 0).count() == 1);
        }
        for end in 1..whole.len() {
            let cut = walk(&whole[..end]);
            let clean = starts.contains(&end);
            assert_eq!(cut.iter().any(|(_, len)| *len < 0), !clean, "{end}");
        }
    }

    #[test]
    fn long_damage_is_passed_with_a_short_buffer() {
        let mut bytes = vec![b'T'; 20 * 1024 * 1024];
        let at = bytes.len();
        bytes.extend(frame(b"behind"));
        let damage = -i64::try_from(at).unwrap();
        let found = walk(&bytes);
        assert_eq!(found.iter().map(|(_, len)| *len).filter(|len| *len < 0).sum::<i64>(), damage);
        assert_eq!(found.last().unwrap().0, u64::try_from(at).unwrap());
    }
}
