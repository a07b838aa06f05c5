//! The transparency log: the header of every block that is evidence, and every statement about
//! keys and forks, in one order, under one signed checkpoint.
//!
//! # Files
//! `tlog/key` (the log's secret, 0600), `tlog/vkey` (who verifies, one line), `tlog/checkpoint`
//! (the newest signed note), `tlog/tile/…` (C2SP tlog-tiles).
//!
//! # Life of an entry
//! Blocks enter in the order of the segments' frames, after the segment is durable: the log's
//! tiles cost no sync, for they can be made again from the segments. A tile is written when it is full; one that is
//! not stays in memory, from where it is served, until a checkpoint on disk names it. Statements stand nowhere
//! else, so they are durable before anybody hears of them. Then the checkpoint is signed, and
//! only then is anything acknowledged. On disk the checkpoint follows at once after a statement,
//! and within [`SAVE_EVERY`] after blocks, and in any case before anything stands beside it that names
//! more (cosignatures, anchors); at a start what is missing is appended again (`open`).
//!
//! # Limits
//! Memory: the statements (about 500 bytes each), the right edge of the tree. No I/O under the
//! lock but the writing of tiles.
//!
//! # Failures
//! A commit that failed is repeated before the next checkpoint; until then nothing is
//! acknowledged. Files that contradict the evidence or each other: the collector does not start.

mod cosigned;
mod key;
pub mod keys;
mod open;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use custody_event::{AgentId, Block, Digest, Timestamp};
use custody_evidence::entry::{BadEntry, Enrolled, ForkAccepted, Revoked, Statement};
use custody_evidence::keyring::KeyringError;
use custody_evidence::note::{NoteError, NoteKey, VerifierKey};
use custody_evidence::proof::{EventProof, EventProofError};
use custody_evidence::tlog::{
    FileTiles, Log, Prover, Tile, TileError, TileRead, TooLong, TreeHead,
};
use custody_evidence::whole::{PUBLIC, write_whole};
use custody_evidence::{Checkpoint, Entry, Keyring, LogReceipt, PublicKey, Signed};

use serde_json::value::RawValue;

use crate::query::api::{Prove, Proved};
use crate::store::evidence::EvidenceLog;

pub use open::Enrolment;
pub(crate) use open::{Known, open};

/// A checkpoint that names only blocks is on disk at the latest after this time.
pub(crate) const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why the log cannot be opened or go on.
#[derive(Debug, thiserror::Error)]
pub enum TlogError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key's file.
    #[error(transparent)]
    Key(#[from] custody_evidence::keys::KeyError),
    /// A tile.
    #[error("the transparency log: {0}")]
    Tile(#[from] TileError),
    /// A note or a name.
    #[error("the transparency log: {0}")]
    Note(#[from] NoteError),
    /// An entry that does not fit.
    #[error("the transparency log: {0}")]
    TooLong(#[from] TooLong),
    /// A statement beyond its limits.
    #[error("the transparency log: {0}")]
    Bad(#[from] BadEntry),
    /// A statement or signature that the keys do not allow.
    #[error(transparent)]
    Ring(#[from] KeyringError),
    /// The files say different things.
    #[error("{path}: {what}. Nothing has been changed. Remedy: {remedy}")]
    Contradiction {
        /// The folder or file.
        path: PathBuf,
        /// What contradicts what, and where.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) index: u64,
    pub(crate) entry: Vec<u8>,
}

/// What changes under the lock.
struct State {
    log: Log<FileTiles>,
    ring: Keyring,
    /// Counts the statements that have come since the start.
    version: u64,
    /// Places of all entries that are not blocks, ascending.
    statements: Vec<u64>,
    /// Enrolments and rotations, by agent.
    keys: HashMap<AgentId, Vec<Stands>>,
    forks: Vec<Stands>,
    head: TreeHead,
    note: Arc<str>,
    /// The checkpoint on disk is older than the note, and was written then.
    unsaved: bool,
    saved_at: Duration,
    /// How many entries the checkpoint on disk names.
    saved: u64,
}

/// See the module.
pub struct Tlog {
    folder: PathBuf,
    key: NoteKey,
    vkey: VerifierKey,
    public: PublicKey,
    tiles: FileTiles,
    state: RwLock<State>,
    /// Statements are checked and appended one at a time.
    stating: Mutex<()>,
    /// Cosignatures are kept one at a time.
    witnessing: Mutex<()>,
}

impl std::fmt::Debug for Tlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tlog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A checkpoint with the proofs that it continues what somebody knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continuation {
    pub(crate) checkpoint: String,
    /// By the size that each begins at.
    pub(crate) proofs: Vec<(u64, Vec<Digest>)>,
    /// Accepted forks with their paths, the newest last.
    pub(crate) forks: Vec<(Stands, Vec<Digest>)>,
}

/// Accepted forks that an answer carries, at most.
const MAX_FORKS_SHOWN: usize = 32;

impl Tlog {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who verifies the log's notes.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.vkey
    }

    /// The newest signed checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Arc<str> {
        Arc::clone(&self.read().note)
    }

    /// The newest checkpoint's head.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.read().head
    }

    /// Changes with every statement.
    pub(crate) fn version(&self) -> u64 {
        self.read().version
    }

    /// May this block come next into the log: is its key known, neither replaced nor revoked, and
    /// does its signature hold?
    pub(crate) fn check(&self, block: &Block) -> Result<(), KeyringError> {
        let signed = Signed::of_block(block)
            .ok_or(custody_evidence::SignatureError::Missing(block.header.seq))
            .map_err(KeyringError::Signature)?;
        let state = self.read();
        state.ring.check(&signed, Some(state.log.size()))
    }

    /// Does the log vouch for this key of this agent?
    pub(crate) fn knows(&self, agent: &AgentId, key: &PublicKey) -> bool {
        self.read().ring.key(agent, &key.id()).is_some()
    }

    /// Has the log ever vouched for a key of this agent?
    pub(crate) fn has(&self, agent: &AgentId) -> bool {
        self.read().ring.has(agent)
    }

    /// The agent's key that is neither replaced nor revoked.
    pub(crate) fn current(&self, agent: &AgentId) -> Option<PublicKey> {
        self.read().ring.current(agent).cloned()
    }

    /// Appends the entries of blocks that are durable in the segments, in their order, and signs.
    pub(crate) fn take_blocks<'a>(
        &self,
        entries: impl Iterator<Item = &'a [u8]>,
        now: Duration,
    ) -> Result<(), TlogError> {
        let mut state = self.write();
        for entry in entries {
            state.log.append(entry)?;
        }
        self.commit_rest(&mut state, now)
    }

    /// Makes the checkpoint name everything that has been appended; a commit that failed is
    /// repeated here.
    pub(crate) fn flush(&self, now: Duration) -> Result<(), TlogError> {
        let mut state = self.write();
        if state.log.size() == state.head.size {
            return Ok(());
        }
        self.commit_rest(&mut state, now)
    }

    /// Commits everything that has been appended; durably if a statement is among it whose own
    /// commit failed: when it is stated again it stands already, and is answered as durable.
    fn commit_rest(&self, state: &mut State, now: Duration) -> Result<(), TlogError> {
        let durable = state.has_statement_left();
        self.commit(state, durable, now)
    }

    fn commit(&self, state: &mut State, durable: bool, now: Duration) -> Result<(), TlogError> {
        let due = durable || now.saturating_sub(state.saved_at) >= SAVE_EVERY;
        let head = if due || state.log.has_full_tiles() {
            state.log.commit(durable)?
        } else {
            // Tiles that are not full are served from memory, and written before a checkpoint names them.
            state.log.head()
        };
        let note: Arc<str> = Checkpoint::new(self.vkey.name(), head).sign(&self.key).into();
        state.unsaved = true;
        if due {
            save(&self.folder, &note)?;
            (state.unsaved, state.saved_at, state.saved) = (false, now, head.size);
        }
        (state.head, state.note) = (head, note);
        Ok(())
    }

    /// Writes the checkpoint to disk, and before it the tiles that it names.
    fn save(&self, state: &mut State) -> Result<(), TlogError> {
        let durable = state.has_statement_left();
        state.log.commit(durable)?;
        save(&self.folder, &state.note)?;
        (state.unsaved, state.saved) = (false, state.head.size);
        Ok(())
    }

    /// Writes the checkpoint to disk if that is due; says how long it may still wait.
    pub(crate) fn save_if_due(&self, now: Duration) -> Result<Option<Duration>, TlogError> {
        let (unsaved, saved_at) = {
            let state = self.read();
            (state.unsaved, state.saved_at)
        };
        let due = saved_at.saturating_add(SAVE_EVERY);
        if !unsaved {
            return Ok(None);
        }
        if now < due {
            return Ok(Some(due.saturating_sub(now)));
        }
        let mut state = self.write();
        self.save(&mut state)?;
        state.saved_at = now;
        Ok(None)
    }

    /// Makes the checkpoint on disk name at least so many entries. What stands beside it in the data
    /// directory must never name more: after a kill that would look like a log that was cut off.
    pub(crate) fn save_up_to(&self, size: u64) -> Result<(), TlogError> {
        if self.read().saved >= size {
            return Ok(());
        }
        self.save(&mut self.write())
    }

    /// Appends a statement, durably, and signs. Only the writer of the evidence log calls this:
    /// it has put all blocks before it into the log. Gives the statement's place, also where it
    /// stands already.
    pub(crate) fn state(&self, entry: &Entry, now: Duration) -> Result<u64, TlogError> {
        let _one = self.stating.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = entry.encode();
        let mut state = self.write();
        if let Some(index) = state.place_of(entry, &bytes) {
            drop(state);
            self.flush(now)?;
            return Ok(index);
        }
        let index = state.log.size();
        state.ring.apply(Some(index), entry, Some(&self.public))?;
        let index = state.log.append(&bytes)?;
        state.note_statement(index, entry, bytes);
        self.commit(&mut state, true, now)?;
        Ok(index)
    }

    fn signed<T: Statement>(&self, body: T) -> Result<Signed<T>, BadEntry> {
        Signed::sign(body, &self.key)
    }

    /// The statement that this key is this agent's.
    pub(crate) fn enrolled(&self, who: &Enrolment, at: Timestamp) -> Result<Entry, BadEntry> {
        let (agent, host, key) = (who.agent, who.host.clone(), who.key.clone());
        self.signed(Enrolled { agent, at, host, key, v: 1 }).map(Entry::Enrolled)
    }

    /// The statement that this key's signatures are not taken any more.
    pub(crate) fn revoked(
        &self,
        agent: AgentId,
        key: &PublicKey,
        reason: &str,
        at: Timestamp,
    ) -> Result<Entry, BadEntry> {
        let body = Revoked { agent, at, key: key.id(), reason: reason.to_owned(), v: 1 };
        self.signed(body).map(Entry::Revoked)
    }

    /// The statement that the log goes on although it does not continue `old`.
    pub(crate) fn fork_accepted(
        &self,
        old: TreeHead,
        reason: &str,
        at: Timestamp,
    ) -> Result<Entry, BadEntry> {
        self.signed(ForkAccepted {
            at,
            by: self.public.clone(),
            new: self.head(),
            old,
            origin: self.vkey.name().to_owned(),
            reason: reason.to_owned(),
            v: 1,
        })
        .map(Entry::ForkAccepted)
    }

    /// Does the log say already that it does not continue this head?
    pub(crate) fn has_accepted(&self, old: &TreeHead) -> bool {
        self.read().forks.iter().any(|fork| match Entry::decode(&fork.entry) {
            Ok(Entry::ForkAccepted(signed)) => signed.body.old == *old,
            _ => false,
        })
    }

    /// The place in the log of the block that was the `ordinal`th in the segments' order; `None`
    /// where the checkpoint does not reach it yet.
    pub(crate) fn index_of(&self, ordinal: u64) -> Option<u64> {
        self.read().index_of(ordinal)
    }

    /// The receipt for the block at this place, and the size of the log that it shows; `from` is
    /// the size that the asker knows.
    pub(crate) fn receipt(&self, index: u64, from: u64) -> Result<(LogReceipt, u64), TlogError> {
        let state = self.read();
        Ok(state.receipt(&state.log, index, from)?)
    }

    /// The same for the block that was the `ordinal`th in the segments' order, where nobody writes and all tiles are in
    /// memory.
    pub(crate) fn receipt_at_once(&self, ordinal: u64, from: u64) -> Option<(LogReceipt, u64)> {
        let state = self.state.try_read().ok()?;
        state.receipt(InMemory(&state.log), state.index_of(ordinal)?, from).ok()
    }

    /// The checkpoint, and that it continues the first entries of each of these sizes that the
    /// log has.
    pub(crate) fn continuation(&self, sizes: &[u64]) -> Result<Continuation, TlogError> {
        let state = self.read();
        let mut prover = Prover::new(&state.log, state.head.size);
        let mut proofs = Vec::new();
        for from in sizes.iter().filter(|from| **from <= state.head.size) {
            proofs.push((*from, prover.consistency(*from)?));
        }
        let skip = state.forks.len().saturating_sub(MAX_FORKS_SHOWN);
        let mut forks = Vec::new();
        for fork in state.forks.iter().skip(skip).filter(|fork| fork.index < state.head.size) {
            forks.push((fork.clone(), prover.inclusion(fork.index)?));
        }
        Ok(Continuation { checkpoint: state.note.to_string(), proofs, forks })
    }

    /// That the log's first `size` entries continue its first `from`.
    pub(crate) fn consistency(&self, from: u64, size: u64) -> Result<Vec<Digest>, TlogError> {
        let state = self.read();
        let size = size.min(state.head.size);
        Ok(Prover::new(&state.log, size).consistency(from.min(size))?)
    }

    /// The proof of the event at `index` of a block that stands at `log_index`.
    pub(crate) fn prove(
        &self,
        block: &Block,
        index: u32,
        log_index: u64,
    ) -> Result<EventProof, EventProofError> {
        let state = self.read();
        let keys = state.keys.get(&block.header.agent).map(Vec::as_slice).unwrap_or_default();
        let keys: Vec<(u64, Vec<u8>)> = keys
            .iter()
            .filter(|key| key.index < log_index)
            .map(|key| (key.index, key.entry.clone()))
            .collect();
        let mut prover = Prover::new(&state.log, state.head.size);
        EventProof::make(block, index, log_index, &keys, &state.note, &mut prover)
    }

    /// Does the log begin with the entries that this head names?
    pub(crate) fn continues(&self, head: &TreeHead) -> Result<bool, TlogError> {
        let state = self.read();
        if head.size > state.head.size {
            return Ok(false);
        }
        let root = Prover::new(&state.log, state.head.size).root(head.size)?;
        Ok(root == head.root)
    }

    /// A tile as it is served; `None` where the checkpoint does not reach it.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, TileError> {
        let widest = Tile::in_tree(tile.kind, tile.index, self.head().size);
        if widest.is_none_or(|widest| widest.width < tile.width) {
            return Ok(None);
        }
        // What is not in memory is full, and stands in its file.
        let held = self.read().log.in_memory(tile);
        match held {
            Some(bytes) => Ok(Some(bytes)),
            None => self.tiles.read_tile(tile).map(Some),
        }
    }
}

/// The tiles at the log's right edge, and no others.
struct InMemory<'a>(&'a Log<FileTiles>);

impl TileRead for InMemory<'_> {
    fn read_tile(&self, tile: &Tile) -> Result<Vec<u8>, TileError> {
        self.0.in_memory(tile).ok_or_else(|| TileError::Missing(tile.to_string()))
    }
}

impl State {
    /// Is there a statement that no checkpoint names, as its own commit has failed?
    fn has_statement_left(&self) -> bool {
        self.statements.last().is_some_and(|last| *last >= self.head.size)
    }

    fn index_of(&self, ordinal: u64) -> Option<u64> {
        let before = self.statements_before(ordinal);
        Some(ordinal + before).filter(|index| *index < self.head.size)
    }

    fn receipt(
        &self,
        tiles: impl TileRead,
        index: u64,
        from: u64,
    ) -> Result<(LogReceipt, u64), TileError> {
        let mut prover = Prover::new(tiles, self.head.size);
        let inclusion = prover.inclusion(index)?;
        let from = from.min(self.head.size);
        let consistency = prover.consistency(from)?;
        let checkpoint = self.note.to_string();
        Ok((LogReceipt { checkpoint, consistency, from, inclusion, index }, self.head.size))
    }

    /// Where the statement stands already.
    fn place_of(&self, entry: &Entry, bytes: &[u8]) -> Option<u64> {
        let list = match entry {
            Entry::Rotated(signed) => self.keys.get(&signed.body.agent)?,
            Entry::Enrolled(signed) => {
                // The same key is enrolled once, whenever that was.
                let (agent, key) = (signed.body.agent, &signed.body.key);
                self.ring.key(&agent, &key.id())?;
                return self.keys.get(&agent)?.first().map(|first| first.index);
            }
            Entry::ForkAccepted(_) => &self.forks,
            Entry::Block(_) | Entry::Revoked(_) => return None,
        };
        list.iter().find(|stands| stands.entry == bytes).map(|stands| stands.index)
    }

    fn note_statement(&mut self, index: u64, entry: &Entry, bytes: Vec<u8>) {
        self.version += 1;
        self.statements.push(index);
        let stands = Stands { index, entry: bytes };
        match entry {
            Entry::Enrolled(signed) => {
                self.keys.entry(signed.body.agent).or_default().push(stands);
            }
            Entry::Rotated(signed) => {
                self.keys.entry(signed.body.agent).or_default().push(stands);
            }
            Entry::ForkAccepted(_) => self.forks.push(stands),
            Entry::Block(_) | Entry::Revoked(_) => {}
        }
    }

    /// Statements that stand before the `ordinal`th block: the `k`th of them has `statements[k] - k`
    /// blocks before it.
    fn statements_before(&self, ordinal: u64) -> u64 {
        let (mut low, mut high) = (0, self.statements.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let blocks = self.statements[middle] - u64::try_from(middle).unwrap_or(u64::MAX);
            if blocks <= ordinal { low = middle + 1 } else { high = middle }
        }
        u64::try_from(low).unwrap_or(u64::MAX)
    }
}

impl Prove for EvidenceLog {
    fn prove(&self, block: &Block, index: u32) -> Option<Proved> {
        let header = &block.header;
        let log_index = self.log_index(&(header.agent, header.stream), header.seq)?;
        let made = self.tlog()?.prove(block, index, log_index);
        let json = made.and_then(|proof| proof.to_json()).map_err(|error| error.to_string());
        match json.and_then(|json| RawValue::from_string(json).map_err(|e| e.to_string())) {
            Ok(json) => Some(Proved { log_index, json }),
            Err(error) => {
                log::error!(error:% = error; "an event cannot be proved");
                None
            }
        }
    }
}

/// Writes the checkpoint: whole and durable, or not at all.
fn save(folder: &Path, note: &str) -> Result<(), TlogError> {
    put(&folder.join("checkpoint"), note)
}

/// Writes a text of the log: whole and durable, or not at all, in a folder that is made if need be.
fn put(path: &Path, text: &str) -> Result<(), TlogError> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder
        .and_then(|()| write_whole(path, text.as_bytes(), PUBLIC))
        .map_err(|source| TlogError::Io { path: path.to_owned(), source })
}
