//! The agent's stream: found again at start, begun anew when it cannot go on.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use custody_event::block::Placement;
use custody_event::{Block, Clock, Digest, Seq, StreamId};

use crate::identity::AgentIdentity;
use crate::pipeline::{OwnAct, StreamState, mark_prefix, position_prefix, random_secret};
use crate::spool::{Batch, Opened, Quarantined, RolledBack, SpoolHandle};

/// A stream to go on with, and what must be said in it first.
#[derive(Debug)]
pub struct Found {
    /// Where it stands.
    pub state: StreamState,
    /// Gaps and the like, to be its next events.
    pub acts: Vec<OwnAct>,
}

/// Finds the stream in a spool that was just opened.
///
/// # Errors
/// The spool cannot be read or written.
pub fn find(
    spool: &SpoolHandle,
    opened: &Opened,
    identity: &Arc<AgentIdentity>,
    clock: &Arc<dyn Clock>,
    reread: &[String],
) -> anyhow::Result<Found> {
    let mut acts = Vec::new();
    if let Some(quarantined) = &opened.quarantined {
        acts.push(quarantine_gap(quarantined));
    }
    // A damaged store cannot say which blocks it held last, so all may have been lost. So it is
    // where the process ended between putting the store aside and this, and nothing tells why.
    let lost = opened.quarantined.is_some()
        || (opened.needs_restream.is_some() && opened.rolled_back.is_none());
    let reread = if lost { reread } else { &[] };
    if let Some(rolled_back) = &opened.rolled_back {
        acts.push(rollback_gap(rolled_back));
    }
    let saved = saved_state(spool)?;
    let reason = match (&opened.needs_restream, &saved) {
        (Some(reason), _) => reason.clone(),
        (None, None) if opened.next_seq == 0 => {
            return Ok(Found { state: StreamState::begin(random_stream()?), acts });
        }
        (None, None) => "the spool has lost the stream's name".into(),
        (None, Some(state)) if state.next_seq == Seq(opened.next_seq) => {
            return Ok(Found { state: state.clone(), acts });
        }
        (None, Some(state)) => match state_of_last_block(spool, opened.next_seq, state)? {
            Some(state) => return Ok(Found { state, acts }),
            None => "the spool has lost the stream's last block".into(),
        },
    };
    let (state, act) = begin_anew(spool, saved.as_ref(), identity, clock, &reason, reread)?;
    acts.push(act);
    Ok(Found { state, acts })
}

fn saved_state(spool: &SpoolHandle) -> anyhow::Result<Option<StreamState>> {
    match spool.value(StreamState::KEY).wait()? {
        None => Ok(None),
        Some(value) => Ok(Some(
            serde_json::from_slice(&value)
                .context("the stream's state in the spool cannot be read")?,
        )),
    }
}

/// After a restream that was cut short the state is behind; the last block knows better.
fn state_of_last_block(
    spool: &SpoolHandle,
    next_seq: u64,
    saved: &StreamState,
) -> anyhow::Result<Option<StreamState>> {
    let Some(last) = next_seq.checked_sub(1) else { return Ok(None) };
    let Some(bytes) = spool.read(last).wait()? else { return Ok(None) };
    let block = Block::decode(&bytes)?;
    Ok((block.header.stream == saved.stream).then(|| StreamState {
        next_seq: Seq(next_seq),
        last_hash: block.hash(),
        ..saved.clone()
    }))
}

/// Begins a new stream with everything in the spool that has not been delivered. Sources in
/// `reread` are read again from their beginning: at once where the spool is empty, else after a
/// further new stream, see [`to_reread`].
///
/// # Errors
/// The spool cannot be read or written.
pub fn begin_anew(
    spool: &SpoolHandle,
    previous: Option<&StreamState>,
    identity: &Arc<AgentIdentity>,
    clock: &Arc<dyn Clock>,
    reason: &str,
    reread: &[String],
) -> anyhow::Result<(StreamState, OwnAct)> {
    let begun = StreamState::begin(random_stream()?);
    log::warn!(stream = begun.stream.to_hex().as_str(); "a new stream begins: {reason}");
    let last_hash = Arc::new(Mutex::new(Digest::ZERO));
    let map = mover(&begun, identity, clock, &last_hash);
    let mut puts = vec![(StreamState::KEY.to_vec(), serde_json::to_vec(&begun)?)];
    if !reread.is_empty() {
        puts.push((REREAD_KEY.to_vec(), serde_json::to_vec(reread)?));
    }
    let restreamed = spool.restream(map, puts).wait()?;
    let state = StreamState {
        next_seq: Seq(restreamed.next_seq),
        last_hash: *last_hash.lock().unwrap_or_else(PoisonError::into_inner),
        ..begun
    };
    let put = (StreamState::KEY.to_vec(), serde_json::to_vec(&state)?);
    spool.append(Batch { block: None, puts: vec![put], deletes: Vec::new() })?.wait()?;
    if restreamed.next_seq == 0 {
        forget_positions(spool, reread)?;
    }
    let previous = previous.map_or_else(|| "unknown".to_owned(), |state| state.stream.to_hex());
    Ok((state, OwnAct::StreamBegun { previous, reason: reason.to_owned() }))
}

/// Rewrites block after block for the new stream; starts over at number 0.
fn mover(
    begun: &StreamState,
    identity: &Arc<AgentIdentity>,
    clock: &Arc<dyn Clock>,
    last_hash: &Arc<Mutex<Digest>>,
) -> impl FnMut(u64, u64, &[u8]) -> Result<Vec<u8>, String> + Send + 'static {
    let (stream, identity) = (begun.stream, Arc::clone(identity));
    let (clock, last_hash) = (Arc::clone(clock), Arc::clone(last_hash));
    move |_, seq, bytes| {
        let mut last_hash = last_hash.lock().unwrap_or_else(PoisonError::into_inner);
        if seq == 0 {
            *last_hash = Digest::ZERO;
        }
        let block = Block::decode(bytes).map_err(|error| error.to_string())?;
        let mut moved = block.moved_to(Placement {
            agent: identity.agent,
            host: identity.host_id.clone(),
            key: identity.key.id(),
            stream,
            seq: Seq(seq),
            prev: *last_hash,
            sealed: clock.now(),
        });
        identity.key.sign(&mut moved);
        *last_hash = moved.hash();
        moved.encode().map_err(|error| error.to_string())
    }
}

fn random_stream() -> anyhow::Result<StreamId> {
    let mut id = [0; 16];
    id.copy_from_slice(&random_secret()?[..16]);
    Ok(StreamId(id))
}

/// Spool key of the sources that are to be read again, in a stream of their own: the collector
/// leaves out what *older streams* of the host have delivered. It is written in the batch that
/// switches to the stream of the saved blocks, so that no crash forgets it.
const REREAD_KEY: &[u8] = b"reread";

/// Sources that are to be read again once every block in the spool is delivered.
///
/// # Errors
/// The spool cannot be read.
pub fn to_reread(spool: &SpoolHandle) -> anyhow::Result<Vec<String>> {
    match spool.value(REREAD_KEY).wait()? {
        None => Ok(Vec::new()),
        Some(value) => {
            serde_json::from_slice(&value).context("the spool's list of sources to read again")
        }
    }
}

/// Forgets the positions of `sources` and that they were to be read again.
fn forget_positions(spool: &SpoolHandle, sources: &[String]) -> anyhow::Result<()> {
    let mut deletes = vec![REREAD_KEY.to_vec()];
    for source in sources {
        let positions = spool.scan_prefix(&position_prefix(source)).wait()?;
        deletes.extend(positions.into_iter().map(|(key, _)| key));
        let marks = spool.scan_prefix(&mark_prefix(source)).wait()?;
        deletes.extend(marks.into_iter().map(|(key, _)| key));
    }
    spool.append(Batch { block: None, puts: Vec::new(), deletes })?.wait()?;
    Ok(())
}

/// The gap event for a damaged store.
#[must_use]
pub fn quarantine_gap(quarantined: &Quarantined) -> OwnAct {
    let lost: u64 = quarantined.lost_seqs.iter().map(|range| range.end - range.start).sum();
    OwnAct::Gap {
        code: "spool_damaged".into(),
        text: format!(
            "The spool was damaged ({}) and is kept at {}; {} blocks were saved, {lost} are known to be lost. \
             Sources with `start: beginning` read their files again.",
            quarantined.reason,
            quarantined.path.display(),
            quarantined.salvaged_blocks,
        ),
        source: None,
        path: Some(quarantined.path.display().to_string()),
        from: None,
        bytes: None,
        records: None,
    }
}

/// The gap event for a store that is older than it should be.
#[must_use]
pub fn rollback_gap(rolled_back: &RolledBack) -> OwnAct {
    OwnAct::Gap {
        code: "spool_rolled_back".into(),
        text: format!(
            "The spool was older than it had been: block {} was durable, it knows only {}. What it forgot is read again.",
            rolled_back.ledger_next_seq.saturating_sub(1),
            rolled_back.store_next_seq,
        ),
        source: None,
        path: None,
        from: None,
        bytes: None,
        records: None,
    }
}
