//! The agent's stream: found again at start, begun anew when it cannot go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use custody_event::block::Placement;
use custody_event::{Block, Clock, Digest, Seq, StreamId};

use crate::identity::AgentIdentity;
use crate::ours::Ours;
use crate::pipeline::{OwnAct, StreamState, mark_prefix, position_prefix, random_secret};
use crate::rotation::Rotations;
use crate::spool::{Batch, Moved, Opened, Quarantined, RolledBack, SpoolHandle};

/// Who writes the stream, and by what it knows what it has written.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The agent.
    pub identity: &'a Arc<AgentIdentity>,
    /// Its keys.
    pub ours: &'a Arc<Ours>,
    /// How they came after one another.
    pub rotations: &'a Rotations,
}

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
    writer: Writer<'_>,
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
        (None, Some(state)) => match goes_on(spool, opened, state, writer.rotations)? {
            Ok(state) => return Ok(Found { state, acts }),
            Err(Stop::Lost) => "the spool has lost the stream's last block".into(),
            Err(Stop::Other(seq)) => {
                format!(
                    "block {seq}, the spool's last, is not the one that the stream's state names"
                )
            }
            Err(Stop::Older(known)) => {
                let it = RolledBack { ledger_next_seq: known, store_next_seq: opened.next_seq };
                acts.push(rollback_gap(&it));
                "the spool ends before the block from which on the newest key signs".into()
            }
        },
    };
    let (state, begun) = begin_anew(spool, saved.as_ref(), writer, clock, &reason, reread)?;
    acts.extend(begun);
    Ok(Found { state, acts })
}

/// Why a stream does not go on.
enum Stop {
    /// The last block is not there, or of another stream.
    Lost,
    /// The last block is not the one that the state names.
    Other(u64),
    /// Blocks up to this one had been there when the key was last replaced.
    Older(u64),
}

/// The state that the stream goes on with. What stands beside the blocks is not signed: the last
/// block says where they end.
fn goes_on(
    spool: &SpoolHandle,
    opened: &Opened,
    saved: &StreamState,
    rotations: &Rotations,
) -> anyhow::Result<Result<StreamState, Stop>> {
    if let Some(reached) = rotations.reached(saved.stream).filter(|seq| seq.get() > opened.next_seq)
    {
        return Ok(Err(Stop::Older(reached.get())));
    }
    if opened.first_seq == opened.next_seq && saved.next_seq == Seq(opened.next_seq) {
        return Ok(Ok(saved.clone()));
    }
    let Some(state) = state_of_last_block(spool, opened.next_seq, saved)? else {
        return Ok(Err(Stop::Lost));
    };
    let differs = saved.next_seq == state.next_seq && saved.last_hash != state.last_hash;
    Ok(if differs { Err(Stop::Other(opened.next_seq - 1)) } else { Ok(state) })
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
    writer: Writer<'_>,
    clock: &Arc<dyn Clock>,
    reason: &str,
    reread: &[String],
) -> anyhow::Result<(StreamState, Vec<OwnAct>)> {
    let begun = StreamState::begin(random_stream()?);
    log::warn!(stream = begun.stream.to_hex().as_str(); "a new stream begins: {reason}");
    let told = Arc::new(Mutex::new(MoverTold::default()));
    let map = mover(&begun, previous.map(|state| state.stream), writer, clock, &told);
    let mut puts = vec![(StreamState::KEY.to_vec(), serde_json::to_vec(&begun)?)];
    if !reread.is_empty() {
        puts.push((REREAD_KEY.to_vec(), serde_json::to_vec(reread)?));
    }
    let restreamed = spool.restream(map, puts).wait()?;
    let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    let state =
        StreamState { next_seq: Seq(restreamed.next_seq), last_hash: told.last_hash, ..begun };
    let put = (StreamState::KEY.to_vec(), serde_json::to_vec(&state)?);
    spool.append(Batch { block: None, puts: vec![put], deletes: Vec::new() })?.wait()?;
    if restreamed.next_seq == 0 && !reread.is_empty() {
        forget_positions(spool, reread)?;
    }
    let previous = previous.map_or_else(|| "unknown".to_owned(), |state| state.stream.to_hex());
    let mut acts = vec![OwnAct::StreamBegun { previous, reason: reason.to_owned() }];
    acts.extend(told.aside.iter().map(|(seq, (bytes, why))| not_ours_gap(*seq, *bytes, why)));
    Ok((state, acts))
}

/// What the mover of blocks leaves behind.
#[derive(Debug)]
struct MoverTold {
    last_hash: Digest,
    /// Blocks that are not what this agent has signed: their length, and why.
    aside: BTreeMap<u64, (usize, String)>,
}

impl Default for MoverTold {
    fn default() -> Self {
        Self { last_hash: Digest::ZERO, aside: BTreeMap::new() }
    }
}

/// Rewrites block after block for the new stream; starts over at number 0. The agent's signature
/// goes only to what had it before.
fn mover(
    begun: &StreamState,
    previous: Option<StreamId>,
    writer: Writer<'_>,
    clock: &Arc<dyn Clock>,
    told: &Arc<Mutex<MoverTold>>,
) -> impl FnMut(u64, u64, &[u8]) -> Result<Moved, String> + Send + 'static {
    let (stream, identity) = (begun.stream, Arc::clone(writer.identity));
    let (ours, clock, told) = (Arc::clone(writer.ours), Arc::clone(clock), Arc::clone(told));
    move |old_seq, seq, bytes| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if seq == 0 {
            told.last_hash = Digest::ZERO;
        }
        let block = match own_block(&ours, previous, old_seq, bytes) {
            Ok(block) => block,
            Err(why) => {
                log::error!(block = old_seq; "a block in the spool is not what this agent has signed and is set aside: {why}");
                told.aside.insert(old_seq, (bytes.len(), why.clone()));
                return Ok(Moved::Aside(why));
            }
        };
        let mut moved = block.moved_to(Placement {
            agent: identity.agent,
            host: identity.host_id.clone(),
            key: identity.key.id(),
            stream,
            seq: Seq(seq),
            prev: told.last_hash,
            sealed: clock.now(),
        });
        identity.key.sign(&mut moved);
        told.last_hash = moved.hash();
        moved.encode().map(Moved::To).map_err(|error| error.to_string())
    }
}

/// The block, if it is one that this agent has signed, for this place.
fn own_block(
    ours: &Ours,
    stream: Option<StreamId>,
    seq: u64,
    bytes: &[u8],
) -> Result<Block, String> {
    let block = Block::decode(bytes).map_err(|error| error.to_string())?;
    ours.check(&block)?;
    let header = &block.header;
    if header.seq != Seq(seq) || stream.is_some_and(|stream| stream != header.stream) {
        return Err(format!("it is block {} of stream {}", header.seq, header.stream));
    }
    Ok(block)
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

/// Forgets the positions of `sources` and that they were to be read again. Before it, a stream must
/// have begun that is newer than the one in which the saved blocks were delivered.
///
/// # Errors
/// The spool cannot be read or written.
pub fn forget_positions(spool: &SpoolHandle, sources: &[String]) -> anyhow::Result<()> {
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

/// The gap event for a block that was not carried over into a new stream.
fn not_ours_gap(seq: u64, bytes: usize, why: &str) -> OwnAct {
    OwnAct::Gap {
        code: "block_not_ours".into(),
        text: format!(
            "Block {seq} in the spool is not what this agent had signed ({why}). It is kept as a \
             dead letter and not delivered.",
        ),
        source: None,
        path: None,
        from: None,
        bytes: u64::try_from(bytes).ok(),
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

#[cfg(test)]
mod tests {
    use custody_event::block::Accounts;
    use custody_event::{Sealer, SystemClock, Timestamp};

    use super::*;
    use crate::runtime::ClockForSpool;
    use crate::spool::{Options, Spool, SpooledBlock};

    /// An empty spool and who writes into it.
    struct Bench {
        _dir: tempfile::TempDir,
        spool: SpoolHandle,
        identity: Arc<AgentIdentity>,
        rotations: Rotations,
        clock: Arc<dyn Clock>,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { min_free_bytes: 1, ..Options::for_max_bytes(1 << 20) };
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let spool_clock = Arc::new(ClockForSpool(Arc::clone(&clock)));
            let (spool, _) = Spool::open(&dir.path().join("spool"), options, spool_clock).unwrap();
            let identity = Arc::new(AgentIdentity::load_or_create(dir.path(), "web1").unwrap());
            let rotations = Rotations::load(dir.path()).unwrap();
            Self { _dir: dir, spool, identity, rotations, clock }
        }

        fn put(&self, block: Option<SpooledBlock>, put: (Vec<u8>, Vec<u8>)) {
            let batch = Batch { block, puts: vec![put], deletes: Vec::new() };
            self.spool.append(batch).unwrap().wait().unwrap();
        }

        fn block(&self, stream: StreamId) -> SpooledBlock {
            let times = (Timestamp::Y2020, Timestamp::Y2020);
            let sealed = Sealer::new().unwrap().seal(b"{}\n", times, [0; 32]).unwrap();
            let placement = Placement {
                agent: self.identity.agent,
                host: self.identity.host_id.clone(),
                key: self.identity.key.id(),
                stream,
                seq: Seq(0),
                prev: Digest::ZERO,
                sealed: Timestamp::Y2020,
            };
            let mut block = sealed.place(placement, Accounts::default());
            self.identity.key.sign(&mut block);
            SpooledBlock { seq: 0, bytes: block.encode().unwrap().into() }
        }

        fn anew(&self, previous: &StreamState, reread: &[String]) -> StreamState {
            let ours = Arc::new(Ours::new(&self.identity, &self.rotations, false));
            let Self { spool, identity, rotations, clock, .. } = self;
            let writer = Writer { identity, ours: &ours, rotations };
            begin_anew(spool, Some(previous), writer, clock, "a test", reread).unwrap().0
        }
    }

    #[test]
    fn sources_are_read_again_also_where_blocks_that_came_since_go_along() {
        let bench = Bench::new();
        let first = StreamState::begin(StreamId([1; 16]));
        let position = ([position_prefix("a"), b"x".to_vec()].concat(), b"{}".to_vec());
        bench.put(Some(bench.block(first.stream)), position);
        let reread = vec!["a".to_owned()];
        let second = bench.anew(&first, &reread);
        assert_eq!(second.next_seq, Seq(1));
        assert_eq!(to_reread(&bench.spool).unwrap(), reread, "the block is delivered first");
        // Then, with what came meanwhile.
        assert_eq!(bench.anew(&second, &[]).next_seq, Seq(1));
        assert_eq!(to_reread(&bench.spool).unwrap(), reread, "a crash here does not forget it");
        forget_positions(&bench.spool, &reread).unwrap();
        assert!(to_reread(&bench.spool).unwrap().is_empty());
        assert!(bench.spool.scan_prefix(&position_prefix("a")).wait().unwrap().is_empty());
    }

    #[test]
    fn a_new_stream_of_an_empty_spool_does_not_forget_that_sources_are_to_be_read_again() {
        let bench = Bench::new();
        bench.put(None, (REREAD_KEY.to_vec(), b"[\"a\"]".to_vec()));
        bench.anew(&StreamState::begin(StreamId([1; 16])), &[]);
        assert_eq!(to_reread(&bench.spool).unwrap(), ["a"]);
    }
}
