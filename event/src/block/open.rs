//! Blocks opened: their events unpacked, checked against the header or not, all of them or some.

use super::body::{self, FRAME_EVENTS, Frames, KEPT_BYTES};
use super::slim::Slimmer;
use super::{Block, EVENT_AT, Malformed, leaf_line, lines, pack};
use crate::ids::Digest;
use crate::{MAX_BLOCK_RAW_BYTES, merkle};

/// One index of an opened block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The event is here.
    Event(&'a [u8]),
    /// Only its leaf is.
    Leaf(Digest),
}

fn entry(line: &[u8], sparse: bool) -> Entry<'_> {
    if !sparse {
        return Entry::Event(line);
    }
    match line.get(EVENT_AT..) {
        Some(event) if line[0] == b'e' => Entry::Event(event),
        _ => Entry::Leaf(leaf_line(line).unwrap_or(Digest::ZERO)),
    }
}

/// A block whose events have been decompressed and checked against the header's root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    text: Vec<u8>,
    sparse: bool,
    count: usize,
}

impl Opened {
    /// Events and bare leaves, by index.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        lines(&self.text).map(|line| entry(line, self.sparse))
    }

    /// The events that are here, with their indices.
    pub fn events(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0_u32..).zip(self.entries()).filter_map(|(index, entry)| match entry {
            Entry::Event(event) => Some((index, event)),
            Entry::Leaf(_) => None,
        })
    }

    /// The event at this index, if it is here.
    #[must_use]
    pub fn event(&self, index: u32) -> Option<&[u8]> {
        match self.entries().nth(usize::try_from(index).ok()?)? {
            Entry::Event(event) => Some(event),
            Entry::Leaf(_) => None,
        }
    }

    /// All events and leaves as the body has them, each with its line end.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Bytes that the unpacked events take.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Indices in the block.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Has the block no index at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Opens blocks one after the other in the same memory: a collector opens thousands a second, and fresh memory and a
/// fresh decompressor cost a tenth of it.
#[derive(Debug, Default)]
pub struct Opener {
    unpacker: body::Unpacker,
    leaves: Vec<Digest>,
    opened: Opened,
}

impl Opener {
    /// As [`Block::open`]; what was opened before goes.
    ///
    /// # Errors
    /// As for [`Block::open`].
    pub fn open(&mut self, block: &Block) -> Result<&Opened, Malformed> {
        self.opened.text.shrink_to(KEPT_BYTES);
        self.unpacker.unpack(block, &mut self.opened.text)?;
        self.leaves.clear();
        block.push_leaves(&self.opened.text, &mut self.leaves)?;
        let count = self.leaves.len();
        if u32::try_from(count) != Ok(block.header.count) {
            return Err(Malformed::new(format!(
                "it has {count} events where its header says {}",
                block.header.count
            )));
        }
        if merkle::root(&mut self.leaves) != block.header.root {
            return Err(Malformed::new("its events do not make the root that its header names"));
        }
        (self.opened.sparse, self.opened.count) = (block.is_sparse(), count);
        Ok(&self.opened)
    }
}

/// Takes single events out of blocks: of each body only the frames are unpacked in which they
/// stand, in the same memory.
#[derive(Debug, Default)]
pub struct Picker {
    zstd: pack::Unpacker,
    whole: body::Unpacker,
    slimmer: Slimmer,
    text: Vec<u8>,
}

impl Picker {
    /// The events at these indices, which ascend; `None` for one that is not here. Like
    /// [`Block::open_unverified`] this hashes nothing, and of a body that opens it gives the same.
    ///
    /// # Errors
    /// The body is not what the block's sections say, as far as it is unpacked.
    pub fn pick(
        &mut self,
        block: &Block,
        indices: &[u32],
    ) -> Result<Vec<Option<Vec<u8>>>, Malformed> {
        self.text.shrink_to(KEPT_BYTES);
        let mut picked = Vec::with_capacity(indices.len());
        if !block.body.is_framed {
            self.whole.unpack(block, &mut self.text)?;
            self.pick_lines(block, false, (0, indices), &mut picked)?;
            return Ok(picked);
        }
        let len = block.body.checked_text_len()?;
        let mut frames = Frames::of(&block.body);
        for run in indices.chunk_by(|one, next| frame_of(*one) == frame_of(*next)) {
            let number = frame_of(run[0]);
            self.text.clear();
            if frames.skip_to(number, &mut self.zstd)? {
                frames.unpack_next(&mut self.zstd, len, &mut self.text)?;
            }
            let first = number.saturating_mul(FRAME_EVENTS);
            self.pick_lines(block, block.body.is_slim, (first, run), &mut picked)?;
        }
        Ok(picked)
    }

    /// Picks out of the unpacked text, whose first line has this index.
    fn pick_lines(
        &mut self,
        block: &Block,
        is_slim: bool,
        (mut at, indices): (usize, &[u32]),
        picked: &mut Vec<Option<Vec<u8>>>,
    ) -> Result<(), Malformed> {
        let mut rest = lines(&self.text);
        for index in indices.iter().map(|index| position(*index)) {
            let line = index.checked_sub(at).and_then(|further| rest.nth(further));
            at = index.saturating_add(1);
            let event = match line.map(|line| entry(line, block.is_sparse())) {
                Some(Entry::Event(event)) if is_slim => {
                    let mut whole = Vec::new();
                    self.slimmer.put_back(event, MAX_BLOCK_RAW_BYTES, &mut whole)?;
                    Some(whole)
                }
                Some(Entry::Event(event)) => Some(event.to_vec()),
                Some(Entry::Leaf(_)) | None => None,
            };
            picked.push(event);
        }
        Ok(())
    }
}

fn position(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The number of the frame in which an event stands.
fn frame_of(index: u32) -> usize {
    position(index) / FRAME_EVENTS
}

impl Block {
    /// Unpacks the events and checks them against the header: their number, and the root over
    /// their leaves. Does not check that they are canonical ([`crate::canon`]) nor the signature.
    ///
    /// # Errors
    /// With the reason.
    pub fn open(&self) -> Result<Opened, Malformed> {
        let mut opener = Opener::default();
        opener.open(self)?;
        Ok(opener.opened)
    }

    /// Unpacks the events without hashing them: for readers of blocks that were opened when they
    /// came in and whose checksum holds ([`Block::decode`]). Hashing is two thirds of
    /// [`Block::open`]'s cost; a page of search results opens up to a thousand blocks.
    ///
    /// # Errors
    /// The body is not what the block's sections say.
    pub fn open_unverified(&self) -> Result<Opened, Malformed> {
        let text = self.unpack()?;
        let count = memchr::memchr_iter(b'\n', &text).count();
        Ok(Opened { text, sparse: self.is_sparse(), count })
    }
}
