//! Blocks opened: their events unpacked, checked against the header or not, all of them or some.

use super::body::{self, KEPT_BYTES};
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

/// Takes single events out of blocks: each block is unpacked only as far as they stand in it, in
/// the same memory.
#[derive(Debug, Default)]
pub struct Picker {
    begin: pack::BeginUnpacker,
    whole: body::Unpacker,
    text: Vec<u8>,
    slimmer: Slimmer,
}

impl Picker {
    /// The events at these indices, which ascend; `None` for one that is not here. Like
    /// [`Block::open_unverified`] this hashes nothing, and it gives what that gives.
    ///
    /// # Errors
    /// The body is not what the block's sections say.
    pub fn pick(
        &mut self,
        block: &Block,
        indices: &[u32],
    ) -> Result<Vec<Option<Vec<u8>>>, Malformed> {
        let wanted = indices.last().map_or(0, |last| u64::from(*last) + 1);
        self.text.shrink_to(KEPT_BYTES);
        let is_slim = if self.unpack_lines(block, wanted)? {
            block.body.is_slim
        } else {
            // Not so many, or not in a way in which they come bit by bit.
            self.whole.unpack(block, &mut self.text)?;
            false
        };
        let mut at = 0_u32;
        let mut rest = lines(&self.text);
        let mut line_at = |index: u32| {
            let line = rest.nth(usize::try_from(index.checked_sub(at)?).ok()?)?;
            at = index.saturating_add(1);
            match entry(line, block.is_sparse()) {
                Entry::Event(event) => Some(event),
                Entry::Leaf(_) => None,
            }
        };
        let mut pick = |index: &u32| {
            let Some(line) = line_at(*index) else { return Ok(None) };
            if !is_slim {
                return Ok(Some(line.to_vec()));
            }
            let mut event = Vec::new();
            self.slimmer.put_back(line, MAX_BLOCK_RAW_BYTES, &mut event).map(|()| Some(event))
        };
        indices.iter().map(&mut pick).collect()
    }

    /// Unpacks the first `wanted` lines at least; says no if that did not succeed.
    fn unpack_lines(&mut self, block: &Block, wanted: u64) -> Result<bool, Malformed> {
        let len = block.body.checked_text_len()?;
        let mut there = 0_u64;
        let unpacked = self.begin.unpack_until(&block.body.bytes, len, &mut self.text, |more| {
            there += memchr::memchr_iter(b'\n', more).map(|_| 1).sum::<u64>();
            there >= wanted
        });
        Ok(unpacked.is_ok() && there >= wanted)
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
