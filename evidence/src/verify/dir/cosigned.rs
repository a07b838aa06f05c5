//! What agents have cosigned, as the collector keeps it: `tlog/witness/<agent>`, each a checkpoint
//! with that agent's cosignature; and what went to others: `tlog/anchor/`, checkpoints with the
//! cosignatures of witnesses. The log must still begin with all of them.

use std::io;
use std::path::{Path, PathBuf};

use custody_event::AgentId;

use super::{Harm, Problem, Trust, Walk, read_text};
use crate::note::{Checkpoint, Note, VerifierKey};
use crate::tlog::{Prover, TreeHead};

/// Agents that are looked at, at most: each costs a few tiles.
const MAX_WITNESSES: usize = 100_000;

impl Walk<'_> {
    /// Compares all of them with the log, whose tiles have been verified.
    pub(super) fn cosigned(&mut self, key: Option<&VerifierKey>, tlog: &Path) {
        let Some(key) = key else { return };
        let folder = tlog.join("witness");
        let notes = match list(&folder) {
            Ok(notes) => notes,
            Err(error) => {
                let place = folder.display().to_string();
                return self.problem(Problem::new(Harm::Removed, place, error.to_string()));
            }
        };
        let (mut agents, mut newest) = (0_u64, 0);
        for (agent, path) in notes {
            match self.one(key, &agent, &path) {
                Ok(size) => (agents, newest) = (agents + 1, newest.max(size)),
                Err((harm, why)) => {
                    let text = format!("the cosignature of agent {agent}: {why}");
                    self.problem(Problem::new(harm, path.display().to_string(), text));
                }
            }
        }
        if agents > 0 {
            self.checker.report.note(format!(
                "{agents} agents have cosigned the log; the newest of it the first {newest} entries"
            ));
        }
    }

    /// Compares the anchors with the log, and says which of the trusted witnesses cosigned them.
    pub(super) fn anchored(&mut self, key: Option<&VerifierKey>, tlog: &Path, trust: &Trust) {
        let Some(key) = key else { return };
        let folder = tlog.join("anchor");
        let paths = match paths(&folder) {
            Ok(paths) => paths,
            Err(error) => {
                let place = folder.display().to_string();
                return self.problem(Problem::new(Harm::Removed, place, error.to_string()));
            }
        };
        let (mut count, mut newest) = (0_u64, None);
        for path in paths {
            match self.anchor(key, &path) {
                Ok((size, note)) => {
                    count += 1;
                    if newest.as_ref().is_none_or(|(before, _)| *before <= size) {
                        newest = Some((size, note));
                    }
                }
                Err((harm, why)) => {
                    let text = format!("an anchor of the log: {why}");
                    self.problem(Problem::new(harm, path.display().to_string(), text));
                }
            }
        }
        let Some((size, note)) = newest else { return };
        let report = &mut self.checker.report;
        report.note(format!("{count} anchors fit the log; the newest is of {size} entries"));
        let Ok(note) = Note::parse(&note) else { return };
        for witness in &trust.witnesses {
            if let Ok(Some(seconds)) = note.verify(witness) {
                let name = witness.name();
                report.note(format!(
                    "{name} has cosigned the first {size} entries, at {seconds} seconds since 1970"
                ));
            }
        }
    }

    fn anchor(&self, key: &VerifierKey, path: &Path) -> Result<(u64, String), (Harm, String)> {
        let note = read_text(path).map_err(|error| (Harm::Removed, error.to_string()))?;
        let head = Checkpoint::open(&note, key).map_err(|e| (Harm::Forged, e.to_string()))?.head;
        self.begins_with(head)?;
        Ok((head.size, note))
    }

    /// How many entries the agent has cosigned.
    fn one(&self, key: &VerifierKey, agent: &AgentId, path: &Path) -> Result<u64, (Harm, String)> {
        let forged = |error: &dyn std::fmt::Display| (Harm::Forged, error.to_string());
        let text = read_text(path).map_err(|error| (Harm::Removed, error.to_string()))?;
        let head = Checkpoint::open(&text, key).map_err(|error| forged(&error))?.head;
        let note = Note::parse(&text).map_err(|error| forged(&error))?;
        self.checker.ring.cosigned(agent, &note).map_err(|error| forged(&error))?;
        self.begins_with(head)
    }

    /// Does the log begin with what this head names? Gives its size.
    fn begins_with(&self, head: TreeHead) -> Result<u64, (Harm, String)> {
        if head.size > self.size {
            let why = format!("it was shown {} entries, and the log has {}", head.size, self.size);
            return Err((Harm::Truncated, why));
        }
        match Prover::new(self.tiles, self.size).root(head.size) {
            Ok(root) if root == head.root => Ok(head.size),
            Ok(_) => {
                let why = format!("it was shown other {} entries than the log has", head.size);
                Err((Harm::Altered, why))
            }
            // Told already, with the tile.
            Err(_) if !self.rebuild.whole => Ok(0),
            Err(error) => Err((Harm::Removed, error.to_string())),
        }
    }
}

fn list(folder: &Path) -> io::Result<Vec<(AgentId, PathBuf)>> {
    let agent = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    Ok(files(folder)?.into_iter().filter_map(|path| Some((agent(&path)?, path))).collect())
}

/// The notes among a collector's anchors.
fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_note = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "note")
            || path.file_name().is_some_and(|name| name == "witnessed")
    };
    Ok(files(folder)?.into_iter().filter(is_note).collect())
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let found = entries.take(MAX_WITNESSES).map(|entry| entry.map(|entry| entry.path()));
    let mut found = found.collect::<io::Result<Vec<PathBuf>>>()?;
    found.sort();
    Ok(found)
}
