//! The agent's keys over time: at every start and every day a new one; the old key signs the new,
//! and its secret goes.
//!
//! # Files (in the data directory, mode 0600)
//! `agent.key`: the secret that signs now. `agent.key.next`: the next one, only while it is being
//! taken over. `rotations`: the statements by which each key named the next, and how many of them
//! each output's collector has taken. They stand beside the spool and not in it: a damaged spool
//! must not cost the agent its identity. Statements that were taken are kept too ([`MAX_KEPT`]):
//! a collector that was put back from an older copy needs them again.
//!
//! # Order
//! next secret durable; statement durable; rename over the old secret; only then does the next
//! key sign anything. A crash after the first step leaves the old key, after the second the new
//! one ([`settle`]). A collector takes the statements before any block: they are sent first, again
//! and again until acknowledged, and one that it has already is acknowledged again.
//!
//! # When not
//! Where a collector keeps no log nobody could be told of a new key; so a key is replaced only
//! when every output's collector has shown its log.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use custody_event::{AgentId, Seq, StreamId, Timestamp};
use custody_evidence::entry::Rotated;
use custody_evidence::whole::{PRIVATE, sync_folder_of, write_whole};
use custody_evidence::{AgentKey, Entry, PublicKey, Signed, base64};
use serde::{Deserialize, Serialize};

use crate::pipeline::random_secret;

/// Statements kept, at most: years of daily rotations; about 700 bytes each.
const MAX_KEPT: usize = 1_000;

/// One key named the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    /// Counts all rotations of this agent.
    number: u64,
    /// The statement: the entry's bytes, base 64.
    entry: String,
    /// The old public key, hex: what a collector that has not taken this yet knows.
    old: String,
    /// The new public key, hex.
    new: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    list: Vec<One>,
    /// By output: the first number that its collector has not taken.
    taken: BTreeMap<String, u64>,
}

impl Kept {
    fn next(&self) -> u64 {
        self.list.last().map_or(0, |one| one.number + 1)
    }

    fn pending(&self, output: &str) -> Option<&One> {
        let from = self.taken.get(output).copied().unwrap_or_default();
        self.list.iter().find(|one| one.number >= from)
    }
}

/// The statements; see the module.
#[derive(Debug)]
pub struct Rotations {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl Rotations {
    /// Those of the agent in this data directory.
    ///
    /// # Errors
    /// The file cannot be read, or is not what was written.
    pub fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("rotations");
        let kept = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self { path, kept: Mutex::new(kept) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first statement that the output's collector has not taken, with its number.
    #[must_use]
    pub fn pending(&self, output: &str) -> Option<(u64, Vec<u8>)> {
        let kept = self.kept();
        let one = kept.pending(output)?;
        Some((one.number, base64::decode(&one.entry)?))
    }

    /// The public key, hex, by which the output's collector knows the agent: the one before the
    /// first statement that it has not taken. `None`: the current one.
    #[must_use]
    pub fn known_key(&self, output: &str) -> Option<String> {
        self.kept().pending(output).map(|one| one.old.clone())
    }

    /// Every statement that the output's collector has not taken, the oldest first.
    #[must_use]
    pub fn all_pending(&self, output: &str) -> Vec<Vec<u8>> {
        let kept = self.kept();
        let from = kept.taken.get(output).copied().unwrap_or_default();
        let pending = kept.list.iter().filter(|one| one.number >= from);
        pending.filter_map(|one| base64::decode(&one.entry)).collect()
    }

    /// All keys that the statements name, the oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<PublicKey> {
        let kept = self.kept();
        let first = kept.list.first().map(|one| one.old.as_str());
        let names = first.into_iter().chain(kept.list.iter().map(|one| one.new.as_str()));
        names.filter_map(|hex| PublicKey::from_hex(hex).ok()).collect()
    }

    /// All statements, the oldest first: the entries' bytes.
    #[must_use]
    pub fn statements(&self) -> Vec<Vec<u8>> {
        self.kept().list.iter().filter_map(|one| base64::decode(&one.entry)).collect()
    }

    /// The block of this stream from which on the newest key signs: so far the stream had come.
    #[must_use]
    pub fn reached(&self, stream: StreamId) -> Option<Seq> {
        let statements = self.statements().into_iter().rev();
        statements
            .filter_map(|bytes| match Entry::decode(&bytes) {
                Ok(Entry::Rotated(signed)) => Some(signed.body),
                _ => None,
            })
            .find(|body| body.stream == stream)
            .map(|body| body.from_seq)
    }

    /// The output's collector has taken this statement and all before it.
    ///
    /// # Errors
    /// The file cannot be written; then it is sent again some time.
    pub fn taken(&self, output: &str, number: u64) -> io::Result<()> {
        self.change(|kept| {
            kept.taken.insert(output.to_owned(), number + 1);
        })
    }

    /// The output's collector has forgotten: all statements are sent again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rewind(&self, output: &str) -> io::Result<()> {
        self.change(|kept| {
            kept.taken.insert(output.to_owned(), 0);
        })
    }

    /// An output that this agent never had knows the agent by its current key.
    fn introduce(&self, outputs: &[&str]) -> io::Result<()> {
        if outputs.iter().all(|output| self.kept().taken.contains_key(*output)) {
            return Ok(());
        }
        self.change(|kept| {
            let next = kept.next();
            for output in outputs {
                kept.taken.entry((*output).to_owned()).or_insert(next);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) -> io::Result<()> {
        let mut kept = self.kept();
        let mut changed = kept.clone();
        change(&mut changed);
        let bytes = serde_json::to_vec(&changed).map_err(io::Error::other)?;
        write_whole(&self.path, &bytes, PRIVATE)?;
        *kept = changed;
        Ok(())
    }

    fn reload(&self) -> anyhow::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let found = Self::load(folder)?.kept().clone();
        *self.kept() = found;
        Ok(())
    }

    fn push(&self, entry: &[u8], old: &AgentKey, new: &AgentKey) -> io::Result<()> {
        self.change(|kept| {
            let number = kept.next();
            let (old, new) = (old.public().to_hex(), new.public().to_hex());
            kept.list.push(One { number, entry: base64::encode(entry), old, new });
            let lowest = kept.taken.values().min().copied().unwrap_or_default();
            while kept.list.len() > MAX_KEPT && kept.list[0].number < lowest {
                kept.list.remove(0);
            }
        })
    }

    /// Is there room for one more?
    fn has_room(&self) -> bool {
        let kept = self.kept();
        let lowest = kept.taken.values().min().copied().unwrap_or_default();
        kept.list.iter().filter(|one| one.number >= lowest).count() < MAX_KEPT
    }

    fn newest_is(&self, key: &AgentKey) -> bool {
        self.kept().list.last().is_some_and(|one| one.new == key.public().to_hex())
    }
}

fn next_path(data_dir: &Path) -> PathBuf {
    data_dir.join("agent.key.next")
}

/// Ends what a crash has left half done: before the agent's key is read.
///
/// # Errors
/// A file cannot be read or written.
pub fn settle(data_dir: &Path, rotations: &Rotations) -> anyhow::Result<()> {
    let path = next_path(data_dir);
    if !path.try_exists().with_context(|| path.display().to_string())? {
        return Ok(());
    }
    let next = AgentKey::load_or_create(&path, &random_secret()?)?;
    if rotations.newest_is(&next) {
        return take_over(data_dir);
    }
    std::fs::remove_file(&path).with_context(|| path.display().to_string())
}

/// The next secret replaces the old one.
fn take_over(data_dir: &Path) -> anyhow::Result<()> {
    let key = data_dir.join("agent.key");
    std::fs::rename(next_path(data_dir), &key)
        .and_then(|()| sync_folder_of(&key))
        .with_context(|| key.display().to_string())
}

/// Where the stream stands when the key changes.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The agent.
    pub agent: AgentId,
    /// Its stream.
    pub stream: StreamId,
    /// The first block that the new key signs.
    pub from_seq: Seq,
    /// Now.
    pub at: Timestamp,
}

/// Replaces the key; gives the new one. `None` where no collector could be told.
///
/// # Errors
/// A file cannot be written, or there is no randomness. Before the new key is in force nothing
/// has changed.
pub fn rotate(
    data_dir: &Path,
    rotations: &Rotations,
    old: &AgentKey,
    standing: Standing,
    outputs: &[&str],
) -> anyhow::Result<Option<AgentKey>> {
    rotations.introduce(outputs).context("rotations")?;
    for output in outputs {
        let shown = data_dir.join(format!("log-{output}"));
        if !shown.try_exists().with_context(|| shown.display().to_string())? {
            return Ok(None);
        }
    }
    if outputs.is_empty() || !rotations.has_room() {
        return Ok(None);
    }
    let new = AgentKey::load_or_create(&next_path(data_dir), &random_secret()?)?;
    let body = Rotated {
        agent: standing.agent,
        at: standing.at,
        from_seq: standing.from_seq,
        new: new.public(),
        old: old.id(),
        stream: standing.stream,
        v: 1,
    };
    let entry = Entry::Rotated(Signed::sign(body, old)?).encode();
    if let Err(error) = rotations.push(&entry, old, &new) {
        // Was it written all the same? Only the disk knows.
        if !Rotations::load(data_dir)?.newest_is(&new) {
            log::warn!("the key is not replaced: {}: {error}", rotations.path.display());
            return Ok(None);
        }
        rotations.reload()?;
    }
    // From here on the old key must sign nothing more.
    take_over(data_dir)?;
    log::info!(key:% = new.id(); "a new key signs from now on; the old one has named it and is gone");
    Ok(Some(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            agent: AgentId([1; 16]),
            stream: StreamId([2; 16]),
            from_seq: Seq(7),
            at: Timestamp::Y2020,
        }
    }

    fn key_of(data_dir: &Path) -> AgentKey {
        AgentKey::load_or_create(&data_dir.join("agent.key"), &[9; 32]).unwrap()
    }

    #[test]
    fn a_crash_at_every_step_leaves_one_key_and_the_statement_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let old = key_of(dir);
        std::fs::write(dir.join("log-central"), "").unwrap();
        // After the first step: the next secret is there, no statement.
        AgentKey::load_or_create(&next_path(dir), &[8; 32]).unwrap();
        let rotations = Rotations::load(dir).unwrap();
        settle(dir, &rotations).unwrap();
        assert_eq!(key_of(dir).id(), old.id());
        assert!(!next_path(dir).try_exists().unwrap());
        // After the second: the statement is there, the secret not yet taken over.
        rotations.introduce(&["central"]).unwrap();
        let next = AgentKey::load_or_create(&next_path(dir), &[8; 32]).unwrap();
        rotations.push(b"statement", &old, &next).unwrap();
        let rotations = Rotations::load(dir).unwrap();
        settle(dir, &rotations).unwrap();
        assert_eq!(key_of(dir).id(), next.id());
        assert_eq!(rotations.known_key("central"), Some(old.public().to_hex()));
        // And twice is once.
        settle(dir, &rotations).unwrap();
        assert_eq!(key_of(dir).id(), next.id());
    }

    #[test]
    fn statements_are_taken_in_order_by_each_output_and_kept_for_one_that_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let first = key_of(dir);
        let rotations = Rotations::load(dir).unwrap();
        let outputs = ["a", "b"];
        assert!(rotate(dir, &rotations, &first, standing(), &outputs).unwrap().is_none());
        for output in outputs {
            std::fs::write(dir.join(format!("log-{output}")), "").unwrap();
        }
        let second = rotate(dir, &rotations, &first, standing(), &outputs).unwrap().unwrap();
        let third = rotate(dir, &rotations, &second, standing(), &outputs).unwrap().unwrap();
        assert_eq!(key_of(dir).id(), third.id());
        let (number, entry) = rotations.pending("a").unwrap();
        let Entry::Rotated(rotated) = Entry::decode(&entry).unwrap() else { panic!() };
        assert!(rotated.is_by(&first.public()) && rotated.body.new == second.public());
        rotations.taken("a", number).unwrap();
        assert_eq!(rotations.known_key("a"), Some(second.public().to_hex()));
        rotations.taken("a", number + 1).unwrap();
        let rotations = Rotations::load(dir).unwrap();
        assert_eq!((rotations.pending("a"), rotations.known_key("a")), (None, None));
        assert_eq!(rotations.known_key("b"), Some(first.public().to_hex()));
        rotations.rewind("a").unwrap();
        assert_eq!(rotations.pending("a").map(|(number, _)| number), Some(0));
    }
}
