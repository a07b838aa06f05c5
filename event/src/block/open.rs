//! Blocks opened: their events unpacked, checked against the header or not, all of them or some.

use super::body::{self, FRAME_EVENTS, Frames, KEPT_BYTES};
use super::slim::Slimmer;
use super::{Block, EVENT_AT, MAX_SPARSE_TEXT_BYTES, Malformed, leaf_line, lines, pack};
use crate::ids::Digest;
use crate::merkle;

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
        self.opened.text.clear();
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

/// Reads single frames of bodies, in the same memory: whoever wants one event of a block unpacks an
/// eighth of it.
#[derive(Debug, Default)]
pub struct FrameReader {
    zstd: pack::Unpacker,
    text: Vec<u8>,
}

impl FrameReader {
    /// The frame of this number, or, of a body that is not in frames, the events that would stand in
    /// it. Like [`Block::open_unverified`] this hashes nothing, and of a body that opens it gives the
    /// same events.
    ///
    /// # Errors
    /// The body is not what the block's sections say, as far as it is unpacked.
    pub fn read(&mut self, block: &Block, number: u32) -> Result<EventFrame, Malformed> {
        let frame = self.unpack(block, number);
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        frame
    }

    fn unpack(&mut self, block: &Block, number: u32) -> Result<EventFrame, Malformed> {
        let len = block.checked_text_len()?;
        let mut frames = Frames::of(&block.body);
        let number = position(number);
        let first = number.saturating_mul(FRAME_EVENTS);
        let text = if block.body.is_framed {
            if frames.skip_to(number)? {
                frames.unpack_next(&mut self.zstd, len, &mut self.text)?;
            }
            &self.text[..]
        } else {
            frames.unpack_next(&mut self.zstd, len, &mut self.text)?;
            let begin = lines_end(&self.text, first);
            let text = &self.text[begin..];
            &text[..lines_end(text, FRAME_EVENTS)]
        };
        Ok(EventFrame {
            text: text.to_vec(),
            first,
            is_slim: block.body.is_slim,
            is_sparse: block.is_sparse(),
        })
    }
}

/// Where so many lines end, or all that are there.
fn lines_end(text: &[u8], count: usize) -> usize {
    let Some(before) = count.checked_sub(1) else { return 0 };
    memchr::memchr_iter(b'\n', text).nth(before).map_or(text.len(), |at| at + 1)
}

fn position(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The events of one frame of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFrame {
    /// As the body has them: hashes may be left out.
    text: Vec<u8>,
    /// Index of the first.
    first: usize,
    is_slim: bool,
    is_sparse: bool,
}

impl EventFrame {
    /// The number of the frame in which the event at this index stands.
    #[must_use]
    pub fn of(index: u32) -> u32 {
        const EVENTS: u32 = 128;
        const _: () = assert!(EVENTS as usize == FRAME_EVENTS);
        index / EVENTS
    }

    /// The event at this index of the block, if it is here.
    ///
    /// # Errors
    /// A hash was left out that cannot be made again.
    pub fn event(&self, index: u32) -> Result<Option<Vec<u8>>, Malformed> {
        let line = position(index)
            .checked_sub(self.first)
            .and_then(|further| lines(&self.text).nth(further));
        let Some(Entry::Event(event)) = line.map(|line| entry(line, self.is_sparse)) else {
            return Ok(None);
        };
        if !self.is_slim {
            return Ok(Some(event.to_vec()));
        }
        let mut whole = Vec::new();
        Slimmer::default().put_back(event, MAX_SPARSE_TEXT_BYTES, &mut whole)?;
        Ok(Some(whole))
    }

    /// Bytes that its text takes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }
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
