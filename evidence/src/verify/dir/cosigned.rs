//! What agents have cosigned, as the collector keeps it: `tlog/witness/<agent>`, each a checkpoint
//! with that agent's cosignature. The log must still begin with what they were shown.

use std::io;
use std::path::{Path, PathBuf};

use custody_event::AgentId;

use super::{Harm, Problem, Walk, read_text};
use crate::note::{Checkpoint, Note, VerifierKey};
use crate::tlog::Prover;

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

    /// How many entries the agent has cosigned.
    fn one(&self, key: &VerifierKey, agent: &AgentId, path: &Path) -> Result<u64, (Harm, String)> {
        let forged = |error: &dyn std::fmt::Display| (Harm::Forged, error.to_string());
        let text = read_text(path).map_err(|error| (Harm::Removed, error.to_string()))?;
        let head = Checkpoint::open(&text, key).map_err(|error| forged(&error))?.head;
        let note = Note::parse(&text).map_err(|error| forged(&error))?;
        self.checker.ring.cosigned(agent, &note).map_err(|error| forged(&error))?;
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
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries.take(MAX_WITNESSES) {
        let entry = entry?;
        let agent = entry.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(agent.map(|agent| (agent, entry.path())));
    }
    found.sort();
    Ok(found)
}
