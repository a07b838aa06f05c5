//! What an output remembers of its collector's log, and how it judges what the collector says.
//!
//! # File
//! `log-<output>` in the data directory: the log's verifier key in one line, then the newest
//! checkpoint that was accepted (a signed note). Written whole, at most once a second, before it is
//! cosigned, and at the end: an older checkpoint than the newest is as good a beginning, the proof is
//! only longer, as long as nobody has this agent's word for a newer one. It
//! stands beside the spool and not in it, so that a damaged spool does not make the agent forget.
//!
//! # Judgement
//! Each answer to a block must prove that the block is in the log, under a checkpoint that
//! continues the remembered one. Several blocks are under way at once, so a proof may begin at an
//! older size: then one question ([`Memory::loose`], [`Memory::prove`]) asks for the proofs from
//! all these sizes to the newest checkpoint. What does not continue is refused ([`Trouble::Refused`]).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use custody_event::Digest;
use custody_evidence::note::VerifierKey;
use custody_evidence::tlog::{TreeHead, leaf_hash, verify_consistency, verify_inclusion};
use custody_evidence::witness::Refused;
use custody_evidence::{Checkpoint, Entry, LogReceipt, Witness, base64};
use serde::Deserialize;

/// A key and a note with cosignatures.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// How often the file is written at most.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The collector's history does not continue: nothing more may be sent to it.
    Refused(String),
    /// Nothing can be said now.
    Failed(String),
}

/// The answer of `GET /v1/log`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Shown {
    pub(super) vkey: String,
    pub(super) checkpoint: String,
    pub(super) proofs: Vec<From>,
    pub(super) forks: Vec<Fork>,
}

/// That the checkpoint continues the first `from` entries.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct From {
    from: u64,
    path: Vec<Digest>,
}

/// An accepted fork, with its place in the log.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Fork {
    entry: String,
    index: u64,
    path: Vec<Digest>,
}

/// An accepted fork that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AcceptedFork {
    pub(super) before: u64,
    pub(super) now: u64,
    pub(super) reason: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    key: Option<VerifierKey>,
    witness: Option<Witness>,
    /// The size on disk, and when it was written.
    kept: Option<(u64, Duration)>,
}

impl Memory {
    /// As it was kept; nothing where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not what was written.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| {
            format!(
                "{}: {why}; put the file back from a backup. Without it this agent would believe any \
                 history that the collector tells",
                path.display()
            )
        };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|e| wrong(&e))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), key: None, witness: None, kept: None });
            }
            Err(error) => return Err(wrong(&error)),
        }
        let (key, note) = text.split_once('\n').ok_or_else(|| wrong(&"not a key and a note"))?;
        let key: VerifierKey = key.parse().map_err(|error| wrong(&error))?;
        let witness = match note {
            "" => Witness::new(key.clone()),
            note => Witness::restore(key.clone(), note).map_err(|error| wrong(&error))?,
        };
        Ok(Self { path: path.to_owned(), key: Some(key), witness: Some(witness), kept: None })
    }

    /// Entries of the log that have been shown.
    pub(super) fn size(&self) -> u64 {
        self.witness.as_ref().map_or(0, Witness::size)
    }

    /// Has the collector ever shown its log?
    pub(super) fn is_bound(&self) -> bool {
        self.size() > 0
    }

    /// Is the log's key known?
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The newest checkpoint.
    pub(super) fn note(&self) -> Option<&str> {
        self.witness.as_ref().and_then(Witness::note)
    }

    /// Believes this key from now on: the first that the collector showed.
    pub(super) fn trust(&mut self, key: &str) -> Result<(), String> {
        let key: VerifierKey = key.parse().map_err(|error| format!("the log's key: {error}"))?;
        self.witness = Some(Witness::new(key.clone()));
        self.key = Some(key);
        self.kept = None;
        Ok(())
    }

    /// Judges the answer to a block. Gives a head whose relation to the newest must still be
    /// proved, if so.
    ///
    /// # Errors
    /// The block is not in the log, or the log does not continue.
    pub(super) fn judge(
        &mut self,
        block: &[u8],
        receipt: &LogReceipt,
    ) -> Result<Option<TreeHead>, Trouble> {
        let Some(witness) = &mut self.witness else {
            return Err(Trouble::Failed("the log's key is not known yet".to_owned()));
        };
        let entry = Entry::of_encoded_block(block)
            .map_err(|error| Trouble::Failed(error.to_string()))?
            .ok_or_else(|| Trouble::Failed("the block is not signed".to_owned()))?;
        let refused = |error: &dyn std::fmt::Display| Trouble::Refused(error.to_string());
        match witness.accept_receipt(receipt, &entry.encode()) {
            Ok(_) => Ok(None),
            // An answer that another has overtaken, or a proof from an older size.
            Err(Refused::NeedsProof { .. } | Refused::Shorter { .. }) => {
                witness.open(&receipt.checkpoint).map(Some).map_err(|error| refused(&error))
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// The question that proves these heads and the remembered one: sizes with commas between.
    pub(super) fn question(&self, loose: &[TreeHead]) -> String {
        let mut sizes: Vec<u64> = loose.iter().map(|head| head.size).collect();
        sizes.push(self.size());
        sizes.sort_unstable();
        sizes.dedup();
        sizes.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }

    /// Judges a newer checkpoint: it must continue the remembered one and all of `loose`.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn prove(&mut self, shown: &Shown, loose: &[TreeHead]) -> Result<(), Trouble> {
        let Some(key) = &self.key else { return Ok(()) };
        self.check_key(shown)?;
        let head = Checkpoint::open(&shown.checkpoint, key)
            .map_err(|error| Trouble::Refused(Refused::Note(error).to_string()))?
            .head;
        let known = self.witness.as_ref().and_then(Witness::head);
        for before in known.into_iter().chain(loose).filter(|head| head.size > 0) {
            check_continues(before, &head, &shown.proofs)?;
        }
        if let Some(witness) = &mut self.witness {
            let from = witness.size();
            let path = path_from(&shown.proofs, from).unwrap_or_default();
            witness
                .accept(&shown.checkpoint, from, path)
                .map_err(|error| Trouble::Refused(error.to_string()))?;
        }
        Ok(())
    }

    fn check_key(&self, shown: &Shown) -> Result<(), Trouble> {
        match &self.key {
            Some(key) if key.to_string() != shown.vkey => Err(Trouble::Refused(format!(
                "the collector's log is signed by another key ({}) than the one that this agent knows ({key})",
                shown.vkey
            ))),
            _ => Ok(()),
        }
    }

    /// Has the log's own key signed, into the log, that it does not continue exactly what this
    /// agent remembers? Then that is believed from now on.
    pub(super) fn accept_signed(&mut self, shown: &Shown) -> Option<AcceptedFork> {
        let key = self.key.clone()?;
        self.check_key(shown).ok()?;
        let before = *self.witness.as_ref()?.head()?;
        let head = Checkpoint::open(&shown.checkpoint, &key).ok()?.head;
        let reason = shown.forks.iter().rev().find_map(|fork| {
            let bytes = base64::decode(&fork.entry)?;
            let Entry::ForkAccepted(signed) = Entry::decode(&bytes).ok()? else { return None };
            verify_inclusion(&leaf_hash(&bytes), fork.index, &head, &fork.path).ok()?;
            let body = &signed.body;
            let ours = body.old == before
                && body.by == key.public()
                && body.origin == key.name()
                && signed.is_by(&body.by);
            ours.then(|| body.reason.clone())
        })?;
        self.witness.as_mut()?.accept_fork(&shown.checkpoint).ok()?;
        self.kept = None;
        Some(AcceptedFork { before: before.size, now: head.size, reason })
    }

    /// Somebody on this host accepts whatever the collector shows now.
    pub(super) fn accept_here(
        &mut self,
        shown: &Shown,
        reason: &str,
    ) -> Result<AcceptedFork, String> {
        let before = self.size();
        let key: VerifierKey = shown.vkey.parse().map_err(|error| format!("{error}"))?;
        let mut witness = Witness::new(key.clone());
        let head = witness.accept_fork(&shown.checkpoint).map_err(|error| error.to_string())?;
        (self.key, self.witness, self.kept) = (Some(key), Some(witness), None);
        Ok(AcceptedFork { before, now: head.size, reason: reason.to_owned() })
    }

    /// What must be written now, if anything: the path and the text.
    pub(super) fn keep_now(&mut self, now: Duration, at_once: bool) -> Option<(PathBuf, String)> {
        let (key, witness) = (self.key.as_ref()?, self.witness.as_ref()?);
        let due = match self.kept {
            None => true,
            Some((size, _)) if size == witness.size() => false,
            Some((_, at)) => at_once || now.saturating_sub(at) >= KEEP_EVERY,
        };
        if !due {
            return None;
        }
        let text = format!("{key}\n{}", witness.note().unwrap_or_default());
        self.kept = Some((witness.size(), now));
        Some((self.path.clone(), text))
    }

    /// It could not be written: try again.
    pub(super) fn not_kept(&mut self) {
        self.kept = None;
    }
}

fn path_from(proofs: &[From], from: u64) -> Option<&[Digest]> {
    proofs.iter().find(|proof| proof.from == from).map(|proof| proof.path.as_slice())
}

fn check_continues(before: &TreeHead, now: &TreeHead, proofs: &[From]) -> Result<(), Trouble> {
    if now.size < before.size {
        let error = Refused::Shorter { before: before.size, now: now.size };
        return Err(Trouble::Refused(error.to_string()));
    }
    let path = match path_from(proofs, before.size) {
        _ if now.size == before.size => &[],
        Some(path) => path,
        None => return Err(Trouble::Failed(format!("no proof from {} entries on", before.size))),
    };
    verify_consistency(before, now, path).map_err(|why| {
        let error = Refused::Forked { before: before.size, now: now.size, why };
        Trouble::Refused(error.to_string())
    })
}
