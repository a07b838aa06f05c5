//! One event of a block, with what shows that it is in it.

use super::{
    Block, Content, Header, Malformed, PREFIX_BYTES, SIGNATURE_BYTES, Sections, event_line, lines,
};
use crate::ids::Digest;
use crate::merkle::{Salt, Salts};

/// An event, and what its leaf is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The salt.
    pub salt: Salt,
    /// The canonical event.
    pub event: Vec<u8>,
    /// The leaves of the whole block, in order; they make the header's root.
    pub leaves: Vec<Digest>,
}

/// A header's canonical bytes, and the signature over them.
pub type SignedHeader<'a> = (&'a [u8], [u8; SIGNATURE_BYTES]);

impl Block {
    /// What a damaged block says it is: its header, if that at least can be read. To name the
    /// damage with, not to believe.
    #[must_use]
    pub fn header_in(damaged: &[u8]) -> Option<Header> {
        let len = u32::from_le_bytes(damaged.get(8..12)?.try_into().ok()?);
        let end = PREFIX_BYTES.checked_add(usize::try_from(len).ok()?)?;
        Header::from_bytes(damaged.get(PREFIX_BYTES..end)?).ok()
    }

    /// The canonical header and the signature of an encoded block, if it is signed. The events are
    /// not looked at, nor copied.
    ///
    /// # Errors
    /// The bytes are no block.
    pub fn signed_header_in(bytes: &[u8]) -> Result<Option<SignedHeader<'_>>, Malformed> {
        let sections = Sections::cut(bytes)?;
        Ok(sections.signature()?.map(|signature| (sections.header, signature)))
    }

    /// The leaves of all indices, events or not; checked against the header's root.
    ///
    /// # Errors
    /// The block does not open.
    pub fn leaves(&self) -> Result<Vec<Digest>, Malformed> {
        let text = self.unpack()?;
        self.checked_leaves(&text)
    }

    fn checked_leaves(&self, text: &[u8]) -> Result<Vec<Digest>, Malformed> {
        let mut leaves = Vec::new();
        self.push_leaves(text, &mut leaves)?;
        let root = crate::merkle::root(&mut leaves.clone());
        if root != self.header.root || u32::try_from(leaves.len()) != Ok(self.header.count) {
            return Err(Malformed::new("its events do not make the root that its header names"));
        }
        Ok(leaves)
    }

    /// The event at `index` with its salt; `None` where there is none or only its leaf.
    ///
    /// # Errors
    /// The block does not open.
    pub fn show(&self, index: u32) -> Result<Option<Shown>, Malformed> {
        let text = self.unpack()?;
        let leaves = self.checked_leaves(&text)?;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(line) = lines(&text).nth(at) else { return Ok(None) };
        let found = match &self.content {
            Content::Full(secret) => Salts::new(secret).nth(at).map(|salt| (salt, line)),
            Content::Sparse => event_line(line),
        };
        Ok(found.map(|(salt, event)| Shown { salt, event: event.to_vec(), leaves }))
    }
}
