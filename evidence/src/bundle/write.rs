//! Writes a bundle, one frame after the other.

use std::io::Write;

use custody_event::{AgentId, Digest};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    AgentKeyRecord, BundleError, Continuation, End, Filtered, Kind, MAGIC, MAX_RECORD_BYTES,
    MAX_STREAMS, Manifest, Place,
};
use crate::entry::Signs;
use crate::note::{NoteKey, VerifierKey};
use crate::scan::push_head;
use crate::{Entry, PublicKey};

/// See the module. The order is: manifest (by [`Self::new`]), keys, checkpoint, continuations,
/// vouchers in the log's order, then entries and blocks in theirs, then [`Self::finish`].
#[derive(Debug)]
pub struct BundleWriter<W> {
    out: W,
    frame: Vec<u8>,
    totals: End,
    digest: Sha256,
}

impl<W: Write> BundleWriter<W> {
    /// Begins a bundle.
    ///
    /// # Errors
    /// It names too many streams, or cannot be written.
    pub fn new(mut out: W, manifest: &Manifest) -> Result<Self, BundleError> {
        if manifest.streams.len() > MAX_STREAMS {
            return Err(BundleError::Limit("more than 20,000 streams"));
        }
        out.write_all(MAGIC)?;
        let totals = End {
            blocks: 0,
            entries: 0,
            records: 0,
            sha256: Digest::ZERO,
            signature: None,
            vouchers: 0,
        };
        let mut writer = Self { out, frame: Vec::new(), totals, digest: Sha256::new() };
        writer.json(Kind::Manifest, manifest)?;
        Ok(writer)
    }

    /// Goes on with a bundle that was left behind a whole frame: `totals` and `digest` are those of
    /// then ([`Self::totals`], [`Self::digest`]), and `out` appends.
    #[must_use]
    pub fn resume(out: W, totals: End, digest: Sha256) -> Self {
        Self { out, frame: Vec::new(), totals, digest }
    }

    /// What stands in the bundle so far; hash and seal come at the end.
    #[must_use]
    pub fn totals(&self) -> &End {
        &self.totals
    }

    /// The hash over all frames so far.
    #[must_use]
    pub fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// Where it is written to: whoever writes there himself breaks the bundle.
    pub fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// The log's key, for readers who have it not from elsewhere.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log_key(&mut self, key: &VerifierKey) -> Result<(), BundleError> {
        self.write(Kind::LogKey, key.to_string().as_bytes())
    }

    /// The checkpoint that the proofs lead to, with all its signatures.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn checkpoint(&mut self, note: &str) -> Result<(), BundleError> {
        self.write(Kind::Checkpoint, note.as_bytes())
    }

    /// That the checkpoint continues an older one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn continuation(&mut self, continuation: &Continuation) -> Result<(), BundleError> {
        self.json(Kind::Continuation, continuation)
    }

    /// The key that signs a spool's first block.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn agent_key(&mut self, agent: AgentId, key: PublicKey) -> Result<(), BundleError> {
        self.json(Kind::AgentKey, &AgentKeyRecord { agent, key })
    }

    /// A statement from before the range that vouches for a key.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn voucher(&mut self, place: &Place, entry: &[u8]) -> Result<(), BundleError> {
        self.totals.vouchers += 1;
        self.placed(Kind::Voucher, place, entry)
    }

    /// A statement of the range, or a block of which only the header is shown.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn entry(&mut self, place: &Place, entry: &[u8]) -> Result<(), BundleError> {
        self.totals.entries += 1;
        self.placed(Kind::Entry, place, entry)
    }

    /// A block, encoded.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn block(&mut self, place: &Place, block: &[u8]) -> Result<(), BundleError> {
        self.totals.blocks += 1;
        self.placed(Kind::Block, place, block)
    }

    /// What a filter has left of a block.
    ///
    /// # Errors
    /// It cannot be encoded or written.
    pub fn filtered(&mut self, place: &Place, filtered: &Filtered) -> Result<(), BundleError> {
        match filtered {
            Filtered::Header(entry) => self.entry(place, &Entry::encode(entry)),
            Filtered::Whole(block) | Filtered::Sparse(block) => {
                let bytes =
                    block.encode().map_err(|_| BundleError::Limit("a block that is too long"))?;
                self.block(place, &bytes)
            }
        }
    }

    /// Ends the bundle without a seal; the caller makes it durable.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> Result<W, BundleError> {
        self.end(None::<&NoteKey>)
    }

    /// Ends the bundle with a seal: by the log's key, or for a spool by the agent's newest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish_sealed(self, key: &impl Signs) -> Result<W, BundleError> {
        self.end(Some(key))
    }

    fn end(mut self, key: Option<&impl Signs>) -> Result<W, BundleError> {
        let mut end = self.totals.clone();
        end.sha256 = Digest(std::mem::take(&mut self.digest).finalize().into());
        if let Some(key) = key {
            let signature = key.sign_bytes(&end.sealed_bytes()?);
            let mut hex = Vec::with_capacity(128);
            custody_event::ids::push_hex(&signature, &mut hex);
            end.signature = String::from_utf8(hex).ok();
        }
        self.json(Kind::End, &end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn json(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), BundleError> {
        let json = serde_json::to_vec(value).map_err(std::io::Error::other)?;
        self.write(kind, &json)
    }

    fn placed(&mut self, kind: Kind, place: &Place, bytes: &[u8]) -> Result<(), BundleError> {
        let mut content = Vec::with_capacity(place.path.len() * 32 + 9 + bytes.len());
        place.push(&mut content)?;
        content.extend_from_slice(bytes);
        self.write(kind, &content)
    }

    fn write(&mut self, kind: Kind, content: &[u8]) -> Result<(), BundleError> {
        let len = u32::try_from(content.len())
            .ok()
            .filter(|_| content.len() <= MAX_RECORD_BYTES)
            .ok_or(BundleError::Limit("a record of more than 10.1 MiB"))?;
        let mut twelve = [0; 12];
        twelve[..4].copy_from_slice(b"CREC");
        twelve[4] = kind.byte();
        twelve[8..].copy_from_slice(&len.to_le_bytes());
        self.frame.clear();
        push_head(&twelve, &mut self.frame);
        self.frame.extend_from_slice(content);
        let crc = crc32fast::hash(&self.frame);
        self.frame.extend_from_slice(&crc.to_le_bytes());
        self.totals.records += 1;
        self.digest.update(&self.frame);
        self.out.write_all(&self.frame)?;
        Ok(())
    }
}
