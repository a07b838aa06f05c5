//! What happens when the log is opened: every entry is read and held against the segments and the
//! checkpoint, and what is missing is appended again.
//!
//! | found | done |
//! |---|---|
//! | the log ends before the segments do | blocks are appended, in the frames' order |
//! | tiles that a power failure took | appended again; they must lead to the checkpoint's root |
//! | a block of the log that is not the segments' | refused |
//! | a checkpoint that names more than tiles and segments hold | refused |
//! | tiles without a checkpoint, a checkpoint without its key | refused |
//! | agents without an entry | enrolled: before the first block of a log that begins, else at its end |
//!
//! Cost: each entry is read and hashed twice, about two seconds for a million blocks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use custody_event::{AgentId, Clock, Digest};
use custody_evidence::note::{KeyType, NoteKey};
use custody_evidence::tlog::{
    FileTiles, Frontier, Kind, Log, TILE_WIDTH, Tile, TileRead, TreeHead, bundle_entries, leaf_hash,
};
use custody_evidence::{Checkpoint, Entry, Keyring, PublicKey};

use super::{State, Tlog, TlogError, key, save};
use crate::store::{LogCursor, StoreError, StoredBlock};

/// Where an entry's body begins: kind, version, signature.
const BODY_AT: usize = 66;
const KIND_BLOCK: u8 = 1;

const REMEDY: &str = "put data directory and tlog/ back from one backup, both of the same moment; \
                      `custody-verify DIR` names every difference";

/// An agent and its key, as the log is to vouch for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Who.
    pub agent: AgentId,
    /// The host's id.
    pub host: String,
    /// The key.
    pub key: PublicKey,
}

/// What is known before the log is opened.
pub(crate) struct Known<'a> {
    /// The log's folder.
    pub(crate) folder: &'a Path,
    /// Its name, if it begins now.
    pub(crate) origin: &'a str,
    /// Its secret, if it begins now.
    pub(crate) random: &'a [u8; 32],
    /// Agents that the log must vouch for.
    pub(crate) agents: &'a [Enrolment],
    /// Every block of the segments in its order: where it stands, and its header's hash.
    pub(crate) blocks: &'a [(LogCursor, Digest)],
    /// Reads a block.
    pub(crate) read: &'a dyn Fn(LogCursor) -> Result<StoredBlock, StoreError>,
}

/// Opens the log, or begins it.
///
/// # Errors
/// A file cannot be read or written, or the log contradicts the evidence.
pub(crate) fn open(known: &Known<'_>, clock: &dyn Clock) -> Result<Tlog, StoreError> {
    let key = key::load(known.folder, known.origin, known.random)?;
    let claimed = claimed(known.folder, &key)?;
    let log = open_tiles(known.folder, claimed)?;
    let begins = log.size() == 0;
    let mut opening = Opening::new(known, &key, log, claimed);
    opening.scan()?;
    let verifier = key.verifier(KeyType::Ed25519);
    let head = opening.state.log.head();
    let tlog = Tlog {
        folder: known.folder.to_owned(),
        public: verifier.public(),
        vkey: verifier,
        key,
        tiles: FileTiles::new(known.folder),
        state: RwLock::new(State { head, ..opening.state }),
        stating: Mutex::new(()),
        witnessing: Mutex::new(()),
    };
    if begins && claimed.size == 0 {
        enrol(&tlog, known.agents, clock)?;
    }
    append_missing(&tlog, known, opening.blocks, claimed)?;
    let now = clock.monotonic();
    {
        let mut state = tlog.write();
        tlog.commit(&mut state, true, now)?;
    }
    enrol(&tlog, known.agents, clock)?;
    Ok(tlog)
}

fn contradiction(folder: &Path, what: String) -> TlogError {
    TlogError::Contradiction { path: folder.to_owned(), what, remedy: REMEDY }
}

/// What the checkpoint on disk names. A log that begins writes one of size 0 before any tile.
fn claimed(folder: &Path, key: &NoteKey) -> Result<TreeHead, TlogError> {
    let path = folder.join("checkpoint");
    match std::fs::read_to_string(&path) {
        Ok(note) => Ok(Checkpoint::open(&note, &key.verifier(KeyType::Ed25519))?.head),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => begin(folder, key),
        Err(source) => Err(TlogError::Io { path, source }),
    }
}

fn begin(folder: &Path, key: &NoteKey) -> Result<TreeHead, TlogError> {
    let tiles: PathBuf = folder.join("tile");
    let has_tiles =
        tiles.try_exists().map_err(|source| TlogError::Io { path: tiles.clone(), source })?;
    if has_tiles {
        let what = "there are tiles, but the file checkpoint is gone: what agents have been shown \
                    is not known"
            .to_owned();
        return Err(contradiction(folder, what));
    }
    let head = TreeHead::empty();
    save(folder, &Checkpoint::new(key.name(), head).sign(key))?;
    Ok(head)
}

/// The tiles of the claimed head, or as many of them as a power failure has left.
fn open_tiles(folder: &Path, claimed: TreeHead) -> Result<Log<FileTiles>, TlogError> {
    if let Ok(log) = Log::open(FileTiles::new(folder), claimed.size)
        && log.head() == claimed
    {
        return Ok(log);
    }
    let log = Log::open_shorter(FileTiles::new(folder), claimed.size)?;
    log::warn!(
        found = log.size(), checkpoint = claimed.size;
        "the newest tiles of the transparency log are missing; they are made again from the evidence"
    );
    Ok(log)
}

/// A log that is being read through.
struct Opening<'a> {
    known: &'a Known<'a>,
    public: PublicKey,
    state: State,
    claimed: TreeHead,
    /// Blocks found so far.
    blocks: usize,
    frontier: Frontier,
}

impl<'a> Opening<'a> {
    fn new(known: &'a Known<'a>, key: &NoteKey, log: Log<FileTiles>, claimed: TreeHead) -> Self {
        let head = log.head();
        let state = State {
            log,
            ring: Keyring::new(),
            version: 0,
            statements: Vec::new(),
            keys: HashMap::new(),
            forks: Vec::new(),
            head,
            note: Arc::from(""),
            unsaved: false,
            saved_at: std::time::Duration::ZERO,
            saved: claimed.size,
        };
        let public = key.verifier(KeyType::Ed25519).public();
        Self { known, public, state, claimed, blocks: 0, frontier: Frontier::default() }
    }

    /// Reads all entries.
    fn scan(&mut self) -> Result<(), TlogError> {
        let size = self.state.log.size();
        for number in 0..size.div_ceil(TILE_WIDTH) {
            let Some(tile) = Tile::in_tree(Kind::Entries, number, size) else { break };
            let bundle = self.state.log.read_tile(&tile)?;
            let entries = bundle_entries(&bundle).unwrap_or_default();
            for (index, entry) in (number * TILE_WIDTH..).zip(entries) {
                self.take(index, entry)?;
            }
        }
        let head = self.state.log.head();
        if self.frontier.head() != head || (head.size == self.claimed.size && head != self.claimed)
        {
            let what = format!(
                "the {size} entries in tile/entries do not lead to the root that tiles and \
                 checkpoint say"
            );
            return Err(contradiction(self.known.folder, what));
        }
        Ok(())
    }

    fn take(&mut self, index: u64, bytes: &[u8]) -> Result<(), TlogError> {
        self.frontier.push(leaf_hash(bytes));
        if bytes.first() == Some(&KIND_BLOCK) {
            return self.take_block(index, bytes);
        }
        let wrong =
            |error: String| contradiction(self.known.folder, format!("entry {index}: {error}"));
        let entry = Entry::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        self.state
            .ring
            .apply(Some(index), &entry, Some(&self.public))
            .map_err(|error| wrong(error.to_string()))?;
        self.state.note_statement(index, &entry, bytes.to_vec());
        Ok(())
    }

    fn take_block(&mut self, index: u64, bytes: &[u8]) -> Result<(), TlogError> {
        let hash = Digest::of(bytes.get(BODY_AT..).unwrap_or_default());
        let ordinal = self.blocks;
        self.blocks += 1;
        let what = match self.known.blocks.get(ordinal) {
            Some((_, held)) if *held == hash => return Ok(()),
            Some((at, _)) => format!(
                "entry {index} is not the block that stands at byte {} of segment {}",
                at.offset, at.segment
            ),
            None => format!(
                "entry {index} names a block that the segments do not hold: they end after {ordinal} \
                 blocks"
            ),
        };
        Err(contradiction(self.known.folder, what))
    }
}

/// Appends the blocks from number `from` on; where the checkpoint's size is reached, its root
/// must be.
fn append_missing(
    tlog: &Tlog,
    known: &Known<'_>,
    from: usize,
    claimed: TreeHead,
) -> Result<(), StoreError> {
    let missing = known.blocks.get(from..).unwrap_or_default();
    let mut state = tlog.write();
    for (at, _) in missing {
        let stored = (known.read)(*at)?;
        let entry = Entry::of_block(&stored.block).ok_or_else(|| {
            let what =
                format!("the block at byte {} of segment {} is not signed", at.offset, at.segment);
            contradiction(known.folder, what)
        })?;
        state.log.append(&entry.encode()).map_err(TlogError::from)?;
        if state.log.size() == claimed.size && state.log.head() != claimed {
            let what = format!(
                "the checkpoint names {} entries with another root than the segments' blocks have",
                claimed.size
            );
            return Err(contradiction(known.folder, what).into());
        }
    }
    let size = state.log.size();
    if size < claimed.size {
        let what = format!(
            "the checkpoint names {} entries; tiles and segments together hold {size}",
            claimed.size
        );
        return Err(contradiction(known.folder, what).into());
    }
    if !missing.is_empty() {
        log::info!(blocks = missing.len(), size = size; "blocks were put into the transparency log");
    }
    Ok(())
}

/// Vouches for every agent that the log does not know.
fn enrol(tlog: &Tlog, agents: &[Enrolment], clock: &dyn Clock) -> Result<(), TlogError> {
    for who in agents.iter().filter(|who| !tlog.knows(&who.agent, &who.key)) {
        let entry = tlog.enrolled(who, clock.now())?;
        tlog.state(&entry, clock.monotonic())?;
    }
    Ok(())
}
