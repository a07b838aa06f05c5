//! A block's body: the text of its events, packed and unpacked.

use super::slim::Slimmer;
use super::{Block, Body, Malformed, pack};
use crate::MAX_BLOCK_RAW_BYTES;

/// Working space is kept between blocks up to this length, in bytes: few blocks have longer texts.
pub(super) const KEPT_BYTES: usize = 2 * 1024 * 1024;

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

    pub(super) fn pack(&mut self, text: &[u8]) -> std::io::Result<Body> {
        self.slim.shrink_to(KEPT_BYTES);
        let is_slim = self.slimmer.leave_out(text, &mut self.slim);
        let bytes = self.zstd.pack(if is_slim { &self.slim } else { text })?;
        let text_len = u32::try_from(text.len()).map_err(std::io::Error::other)?;
        Ok(Body { bytes, is_slim, text_len })
    }
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
        let len = body.checked_text_len()?;
        let Self { zstd, slimmer, slim } = self;
        slim.shrink_to(KEPT_BYTES);
        zstd.unpack(&body.bytes, len, if body.is_slim { slim } else { &mut *text })
            .map_err(|error| Malformed::new(format!("its body cannot be decompressed: {error}")))?;
        if body.is_slim {
            text.clear();
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

impl Body {
    pub(super) fn checked_text_len(&self) -> Result<usize, Malformed> {
        let len = usize::try_from(self.text_len).unwrap_or(usize::MAX);
        if len > MAX_BLOCK_RAW_BYTES {
            return Err(Malformed::new(format!("its text of {len} bytes is longer than 8 MiB")));
        }
        Ok(len)
    }
}

impl Block {
    pub(super) fn unpack(&self) -> Result<Vec<u8>, Malformed> {
        let mut text = Vec::new();
        Unpacker::default().unpack(self, &mut text)?;
        Ok(text)
    }
}
