//! Agents' cosignatures: each agent's newest one in `tlog/witness/<agent>`, a signed note as C2SP
//! tlog-cosignature has it. Whoever holds one can show, without us, what the log had been.

use std::path::PathBuf;
use std::sync::PoisonError;

use custody_event::AgentId;
use custody_evidence::Checkpoint;
use custody_evidence::note::{Note, NoteError};

use super::{Tlog, TlogError, put};

impl Tlog {
    /// Keeps an agent's cosignature, if the note has one and the kept one is not newer. The caller
    /// has found that the log continues the note.
    ///
    /// # Errors
    /// The cosignature does not hold, or it cannot be written.
    pub(crate) fn keep_cosigned(&self, agent: &AgentId, note: &str) -> Result<(), TlogError> {
        let parsed = Note::parse(note)?;
        match self.read().ring.cosigned(agent, &parsed) {
            Ok(_) => {}
            Err(NoteError::Unsigned(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let head = Checkpoint::open(note, &self.vkey)?.head;
        let _one = self.witnessing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.cosigned(agent)?;
        if let Some(Ok(kept)) = kept.map(|kept| Checkpoint::open(&kept, &self.vkey))
            && kept.head.size >= head.size
            && self.continues(&kept.head)?
        {
            return Ok(());
        }
        self.save_up_to(head.size)?;
        put(&self.witness_path(agent), note)
    }

    /// The newest checkpoint that this agent has cosigned.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn cosigned(&self, agent: &AgentId) -> Result<Option<String>, TlogError> {
        let path = self.witness_path(agent);
        match std::fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TlogError::Io { path, source }),
        }
    }

    fn witness_path(&self, agent: &AgentId) -> PathBuf {
        self.folder.join("witness").join(agent.to_hex())
    }
}
