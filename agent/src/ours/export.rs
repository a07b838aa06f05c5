//! A spool as a bundle: what `custody-verify` judges without this program.
//!
//! Blocks go in as they lie in the store, also those that do not check: to say what is wrong with
//! them is the verifier's part. What cannot be read at all leaves a hole in the numbers.

use std::io::Write;
use std::path::Path;

use custody_event::{AgentId, Block, Seq, StreamId, Timestamp};
use custody_evidence::PublicKey;
use custody_evidence::bundle::{BundleError, BundleWriter, Manifest, Place, Scope, StreamRange};
use thiserror::Error;

use crate::identity::{self, AgentIdentity};
use crate::pipeline::StreamState;
use crate::rotation::Rotations;
use crate::spool::{Inspector, StoreError};

/// Why there is no bundle.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The stream is not known: nothing in the spool says it.
    #[error("nothing in the spool says which stream it holds")]
    NoStream,
}

/// What went into the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Blocks.
    pub blocks: u64,
    /// Numbers of blocks that should be there and cannot be read.
    pub unreadable: Vec<u64>,
    /// The key from which on the statements lead to the one that signs now.
    pub first_key: PublicKey,
}

/// Writes all blocks of the spool as a sealed bundle.
///
/// # Errors
/// The store cannot be walked, or the bundle cannot be written.
pub fn export<W: Write>(
    spool: &mut Inspector,
    identity: &AgentIdentity,
    rotations: &Rotations,
    made: Timestamp,
    out: W,
) -> Result<(W, Exported), ExportError> {
    let seqs: Vec<u64> = spool.blocks()?.iter().map(|entry| entry.seq).collect();
    let end = spool.next_seq()?.max(seqs.last().map_or(0, |last| last + 1));
    let first = seqs.first().copied().unwrap_or(end);
    let (agent, stream) = name_of(spool, first, identity.agent)?;
    let range = StreamRange { agent, end: Seq(end), first: Seq(first), stream };
    let manifest = Manifest {
        end: 0,
        first: 0,
        made,
        origin: String::new(),
        query: String::new(),
        scope: Scope::Spool,
        streams: vec![range],
        v: 1,
    };
    let mut bundle = BundleWriter::new(out, &manifest)?;
    let first_key = rotations.keys().into_iter().next().unwrap_or_else(|| identity.key.public());
    bundle.agent_key(identity.agent, first_key.clone())?;
    for statement in rotations.statements() {
        bundle.voucher(&Place::none(), &statement)?;
    }
    let mut done = Exported { blocks: 0, unreadable: Vec::new(), first_key };
    for seq in first..end {
        match spool.read_unchecked(seq) {
            Ok(Some(bytes)) => {
                bundle.block(&Place::none(), &bytes)?;
                done.blocks += 1;
            }
            Ok(None) | Err(_) => done.unreadable.push(seq),
        }
    }
    Ok((bundle.finish_sealed(&identity.key)?, done))
}

/// Whose blocks: as the stream's state says, or else the first block.
fn name_of(
    spool: &mut Inspector,
    first: u64,
    agent: AgentId,
) -> Result<(AgentId, StreamId), ExportError> {
    if let Some(value) = spool.value(StreamState::KEY)?
        && let Ok(state) = serde_json::from_slice::<StreamState>(&value)
    {
        return Ok((agent, state.stream));
    }
    let header = spool.read_unchecked(first)?.and_then(|bytes| Block::header_in(&bytes));
    header.map(|header| (header.agent, header.stream)).ok_or(ExportError::NoStream)
}

/// Reads who the agent is, and makes nothing that is not there.
///
/// # Errors
/// Something is not there, or cannot be read.
pub fn identity_in(data_dir: &Path) -> anyhow::Result<(AgentIdentity, Rotations)> {
    anyhow::ensure!(
        identity::is_whole(data_dir)?,
        "{}: agent.id or agent.key is not there",
        data_dir.display()
    );
    let identity = AgentIdentity::load_or_create(data_dir, "")?;
    Ok((identity, Rotations::load(data_dir)?))
}
