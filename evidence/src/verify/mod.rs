//! Judges evidence offline: a bundle, a collector's data directory, a spool's export.
//!
//! A verification never stops at the first harm: it says all of it, each with what was done
//! (altered, removed, inserted, reordered, truncated, forged), to which block, event or entry, and
//! at which byte of which file. What it cannot know it says as well.
//!
//! # Limits
//! Constant memory: one frame, one bundle of log entries (at most 16 MiB), the keys, the streams.

mod bundle;
mod check;
#[cfg(feature = "fs")]
mod dir;
mod report;
mod track;

use std::io;

use thiserror::Error;

pub use bundle::verify_bundle;
#[cfg(feature = "fs")]
pub use dir::verify_dir;
pub use report::{Gap, Harm, LogReport, Problem, Report, StreamReport};

use crate::keys::PublicKey;
use crate::note::{Checkpoint, KeyType, Note, NoteError, VerifierKey};

/// What whoever asks trusts already.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The log's key.
    pub log: Option<VerifierKey>,
    /// An agent's first key (for a spool's export).
    pub agent: Option<PublicKey>,
    /// Witnesses whose cosignatures of the checkpoint are asked for.
    pub witnesses: Vec<VerifierKey>,
    /// A checkpoint from before, from an agent, a witness or an anchor: a signed note.
    pub checkpoint: Option<String>,
}

/// It is no key that anything here is verified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("neither a verifier key (name+id+base 64) nor 64 hex digits")]
pub struct NotAKey;

impl Trust {
    /// Trusts a key, whosever it is: a log's or a witness's verifier key, or an agent's 64 hex
    /// digits.
    ///
    /// # Errors
    /// It is none of these.
    pub fn add_key(&mut self, text: &str) -> Result<(), NotAKey> {
        let text = text.trim();
        if let Ok(key) = text.parse::<VerifierKey>() {
            match key.kind() {
                KeyType::Ed25519 => self.log = Some(key),
                KeyType::Cosignature => self.witnesses.push(key),
            }
        } else {
            self.agent = Some(PublicKey::from_hex(text).map_err(|_| NotAKey)?);
        }
        Ok(())
    }
}

/// Nothing can be said.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is neither a bundle nor a collector's data directory.
    #[error("{0}: neither a bundle nor a collector's data directory")]
    Nothing(String),
    /// It is an agent's spool, which only the agent's program can open.
    #[error(
        "{0}: an agent's spool is a database; stop the agent, run `custody-agent spool export FILE` \
         there, and give this program the file"
    )]
    Spool(String),
    /// What was given to trust cannot be read.
    #[error("the trusted checkpoint cannot be used: {0}")]
    Trust(#[from] NoteError),
}

/// Takes the checkpoint that is trusted; it must be the log's, where its key is trusted as well.
fn trusted_head(trust: &Trust) -> Result<Option<Checkpoint>, NoteError> {
    let Some(note) = &trust.checkpoint else { return Ok(None) };
    match &trust.log {
        Some(key) => Checkpoint::open(note, key).map(Some),
        None => Checkpoint::parse(Note::parse(note)?.text()).map(Some),
    }
}

/// Says which of the witnesses have cosigned the checkpoint.
fn witnessed(report: &mut Report, place: &str, note: &str, trust: &Trust) {
    let Ok(note) = Note::parse(note) else { return };
    for witness in &trust.witnesses {
        match note.verify(witness) {
            Ok(seconds) => report.note(format!(
                "{} has cosigned the checkpoint, at {} seconds since 1970",
                witness.name(),
                seconds.unwrap_or_default()
            )),
            Err(NoteError::Unsigned(_)) => report.unknown(format!(
                "whether {} was shown this checkpoint: it has not cosigned it",
                witness.name()
            )),
            Err(error) => report.problem(Problem::new(Harm::Forged, place, error.to_string())),
        }
    }
}
