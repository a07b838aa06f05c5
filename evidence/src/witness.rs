//! What an agent remembers of a collector's log, and by which it judges every further checkpoint.
//!
//! The agent keeps the newest checkpoint (the note itself, so that it can be shown to others). A
//! checkpoint that does not continue it is refused: the collector was rolled back, or shows
//! different logs to different agents. Whoever has checked one may cosign it.

use custody_event::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::note::{Checkpoint, NoteError, NoteKey, VerifierKey, cosign};
use crate::tlog::{ProofError, TreeHead, leaf_hash, verify_consistency, verify_inclusion};

/// What the collector's answer to a block says of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogReceipt {
    /// The signed checkpoint.
    pub checkpoint: String,
    /// The proof that the checkpoint continues the log's first `from` entries.
    pub consistency: Vec<Digest>,
    /// The size that the asker said it knew.
    pub from: u64,
    /// The proof that the block's entry is in the log.
    pub inclusion: Vec<Digest>,
    /// The entry's place in the log.
    pub index: u64,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// It cannot be read, or is not signed by the log's key.
    #[error("the collector's checkpoint is refused: {0}")]
    Note(#[from] NoteError),
    /// The log is shorter than it had been shown to be.
    #[error(
        "the collector's log has {now} entries and had shown {before}: it was rolled back, or this \
         is an answer from before"
    )]
    Shorter {
        /// What had been shown.
        before: u64,
        /// What is shown now.
        now: u64,
    },
    /// It has the same length and other content, or a proof that does not lead to it.
    #[error(
        "the collector's log of {now} entries does not continue the {before} entries that it had \
         shown: {why}"
    )]
    Forked {
        /// What had been shown.
        before: u64,
        /// What is shown now.
        now: u64,
        /// What the proof does.
        why: ProofError,
    },
    /// The proof begins elsewhere: ask for one that begins here.
    #[error("a proof from {needed} entries on is needed")]
    NeedsProof {
        /// Where it must begin.
        needed: u64,
    },
    /// The entry is not in the log.
    #[error("the collector's log does not have what was sent at entry {index}: {why}")]
    NotIncluded {
        /// Where it should be.
        index: u64,
        /// What the proof does.
        why: ProofError,
    },
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Witness {
    key: VerifierKey,
    newest: Option<(TreeHead, String)>,
    /// The note that was opened last: several answers carry the same, and its signature costs more
    /// than all the rest.
    opened: Option<(TreeHead, String)>,
}

impl Witness {
    /// Of a log that has shown nothing yet.
    #[must_use]
    pub fn new(key: VerifierKey) -> Self {
        Self { key, newest: None, opened: None }
    }

    /// As it was kept: the newest note.
    ///
    /// # Errors
    /// The note is not a checkpoint of this log.
    pub fn restore(key: VerifierKey, note: &str) -> Result<Self, NoteError> {
        let head = Checkpoint::open(note, &key)?.head;
        Ok(Self { key, newest: Some((head, note.to_owned())), opened: None })
    }

    /// Entries that have been shown.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(head, _)| head.size)
    }

    /// The newest checkpoint's head.
    #[must_use]
    pub fn head(&self) -> Option<&TreeHead> {
        self.newest.as_ref().map(|(head, _)| head)
    }

    /// The newest checkpoint, signed: what must be kept.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.newest.as_ref().map(|(_, note)| note.as_str())
    }

    /// The head of a note of this log, whatever its relation to the newest.
    ///
    /// # Errors
    /// The note is not a checkpoint of this log.
    pub fn open(&mut self, note: &str) -> Result<TreeHead, NoteError> {
        if let Some((head, _)) = self.opened.as_ref().filter(|(_, known)| known == note) {
            return Ok(*head);
        }
        let head = Checkpoint::open(note, &self.key)?.head;
        self.opened = Some((head, note.to_owned()));
        Ok(head)
    }

    /// Judges a checkpoint; `consistency` is the proof from the first `from` entries on. Gives
    /// its head, which is remembered if it is newer.
    ///
    /// # Errors
    /// It is refused; nothing changes.
    pub fn accept(
        &mut self,
        note: &str,
        from: u64,
        consistency: &[Digest],
    ) -> Result<TreeHead, Refused> {
        let head = self.open(note)?;
        if let Some((before, _)) = &self.newest {
            let (now, was) = (head.size, before.size);
            if now < was {
                return Err(Refused::Shorter { before: was, now });
            }
            let proof = if now == was { &[] } else { consistency };
            if was > 0 && now > was && from != was {
                return Err(Refused::NeedsProof { needed: was });
            }
            // Every log continues the empty one.
            if was > 0 {
                verify_consistency(before, &head, proof).map_err(|why| Refused::Forked {
                    before: was,
                    now,
                    why,
                })?;
            }
            if now == was {
                return Ok(head);
            }
        }
        self.newest = Some((head, note.to_owned()));
        Ok(head)
    }

    /// Judges the answer to a block: the checkpoint, and that `entry` is in the log.
    ///
    /// # Errors
    /// It is refused; nothing changes.
    pub fn accept_receipt(
        &mut self,
        receipt: &LogReceipt,
        entry: &[u8],
    ) -> Result<TreeHead, Refused> {
        let head = self.open(&receipt.checkpoint)?;
        verify_inclusion(&leaf_hash(entry), receipt.index, &head, &receipt.inclusion)
            .map_err(|why| Refused::NotIncluded { index: receipt.index, why })?;
        self.accept(&receipt.checkpoint, receipt.from, &receipt.consistency)
    }

    /// Goes on from another history, which somebody has accepted ([`crate::entry::ForkAccepted`]).
    ///
    /// # Errors
    /// The note is not a checkpoint of this log.
    pub fn accept_fork(&mut self, note: &str) -> Result<TreeHead, NoteError> {
        let head = self.open(note)?;
        self.newest = Some((head, note.to_owned()));
        Ok(head)
    }

    /// A cosignature line for the newest checkpoint.
    ///
    /// # Errors
    /// There is none yet.
    pub fn cosign(&self, key: &NoteKey, seconds: u64) -> Result<String, NoteError> {
        let note = self.note().ok_or(NoteError::NotACheckpoint("none has been accepted yet"))?;
        cosign(note, key, seconds)
    }
}
