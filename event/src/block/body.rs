//! A block's body: the text of its events, packed and unpacked.
//!
//! Each frame of a longer body has [`FRAME_EVENTS`] events, so that one event can be read without
//! unpacking those of the other frames.

use super::slim::Slimmer;
use super::{Block, Body, Hashed, MAX_SPARSE_TEXT_BYTES, Malformed, pack};
use crate::MAX_BLOCK_RAW_BYTES;

/// Working space is kept between blocks up to this length, in bytes: few blocks have longer texts.
pub(super) const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// Events in a frame, if others follow it. A body is a twentieth longer than it would be in one
/// frame, and an event is read out of it in an eighth of the time.
pub(super) const FRAME_EVENTS: usize = 128;

/// Packs texts; keeps its working space.
pub(super) struct Packer {
    zstd: pack::Packer,
    slimmer: Slimmer,
    slim: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: pack::Packer::new()?, slimmer: Slimmer::default(), slim: Vec::new() })
    }

    pub(super) fn pack<'h>(
        &mut self,
        text: &[u8],
        hashed: impl Iterator<Item = Hashed<'h>>,
    ) -> std::io::Result<Body> {
        self.slim.clear();
        self.slim.shrink_to(KEPT_BYTES);
        let text_len = u32::try_from(text.len()).map_err(std::io::Error::other)?;
        let is_slim = self.slimmer.leave_out(text, hashed, &mut self.slim);
        let text = if is_slim { &self.slim } else { text };
        let mut bytes = Vec::new();
        let mut begin = 0;
        for end in frame_ends(text).filter(|end| *end < text.len()) {
            self.zstd.pack_frame(&text[begin..end], &mut bytes)?;
            begin = end;
        }
        self.zstd.pack_frame(&text[begin..], &mut bytes)?;
        Ok(Body { bytes, is_slim, is_framed: begin > 0, text_len })
    }
}

/// Where frames of [`FRAME_EVENTS`] lines end.
fn frame_ends(text: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'\n', text).skip(FRAME_EVENTS - 1).step_by(FRAME_EVENTS).map(|at| at + 1)
}

/// Unpacks bodies; keeps its working space.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    zstd: pack::Unpacker,
    slimmer: Slimmer,
    slim: Vec<u8>,
}

impl Unpacker {
    /// Puts the block's text into `text`, in the place of what is there.
    pub(super) fn unpack(&mut self, block: &Block, text: &mut Vec<u8>) -> Result<(), Malformed> {
        let body = &block.body;
        let len = block.checked_text_len()?;
        let Self { zstd, slimmer, slim } = self;
        slim.clear();
        slim.shrink_to(KEPT_BYTES);
        text.clear();
        let packed = if body.is_slim { &mut *slim } else { &mut *text };
        let mut frames = Frames::of(body);
        while frames.unpack_next(zstd, len, packed)? {}
        if body.is_slim {
            slimmer.put_back(slim, len, text)?;
        }
        if text.len() != len {
            return Err(Malformed::new(format!("its text has {} bytes, not {len}", text.len())));
        }
        if text.last().is_some_and(|last| *last != b'\n') {
            return Err(Malformed::new("its last event has no line end"));
        }
        Ok(())
    }
}

/// The frames of a body, in their order.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
    is_framed: bool,
    /// The number of the next one.
    next: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn of(body: &'a Body) -> Self {
        Self { rest: &body.bytes, is_framed: body.is_framed, next: 0 }
    }

    /// Appends the text of the next frame; says no if there is none. `len` is what `text` may come to: more is an
    /// error, or comes out and is too much.
    pub(super) fn unpack_next(
        &mut self,
        zstd: &mut pack::Unpacker,
        len: usize,
        text: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        if self.is_at_end() {
            return Ok(false);
        }
        let begin = text.len();
        self.rest =
            zstd.unpack_frame(self.rest, len.saturating_sub(begin), text).map_err(cannot)?;
        self.next += 1;
        if self.is_framed {
            self.check(&text[begin..])?;
        } else if !self.rest.is_empty() {
            return Err(Malformed::new("its body is not one frame"));
        }
        Ok(true)
    }

    /// Goes on to the frame of this number; says no if there is none.
    pub(super) fn skip_to(&mut self, number: usize) -> Result<bool, Malformed> {
        while self.next < number && !self.is_at_end() {
            self.rest = pack::skip_frame(self.rest).map_err(cannot)?;
            self.next += 1;
        }
        Ok(self.next == number && !self.is_at_end())
    }

    /// A body has one frame at least.
    fn is_at_end(&self) -> bool {
        self.rest.is_empty() && self.next > 0
    }

    /// Has the frame that was just unpacked as many events as whoever skips it believes?
    fn check(&self, frame: &[u8]) -> Result<(), Malformed> {
        let count = memchr::memchr_iter(b'\n', frame).count();
        let is_right = if self.rest.is_empty() {
            (1..=FRAME_EVENTS).contains(&count)
        } else {
            count == FRAME_EVENTS
        };
        if is_right && frame.ends_with(b"\n") {
            return Ok(());
        }
        let number = self.next - 1;
        Err(Malformed::new(format!("frame {number} of its body has {count} events")))
    }
}

fn cannot(error: std::io::Error) -> Malformed {
    Malformed::new(format!("its body cannot be decompressed: {error}"))
}

impl Block {
    pub(super) fn checked_text_len(&self) -> Result<usize, Malformed> {
        let len = usize::try_from(self.body.text_len).unwrap_or(usize::MAX);
        let limit = if self.is_sparse() { MAX_SPARSE_TEXT_BYTES } else { MAX_BLOCK_RAW_BYTES };
        if len > limit {
            return Err(Malformed::new(format!("its text of {len} bytes is longer than {limit}")));
        }
        Ok(len)
    }

    pub(super) fn unpack(&self) -> Result<Vec<u8>, Malformed> {
        let mut text = Vec::new();
        Unpacker::default().unpack(self, &mut text)?;
        Ok(text)
    }
}
