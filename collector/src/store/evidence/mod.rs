//! The evidence log: append-only segment files of whole blocks. It is the truth; everything else
//! is derived from it.
//!
//! # Life of a block
//! [`EvidenceLog::submit`] decides which of its events are already held (`held`), and hands it to
//! the writer's bounded queue (`writer`); the writer puts it at its place in its stream, appends
//! it as a frame (`frame`) to the last segment (`segment`), syncs once for a whole batch, moves
//! the mark (`mark`) and the ledger (`ledger`) on, and answers. Only then can anybody read it.
//!
//! # Limits
//! A segment is at most as long as `blocks.segment_bytes` says (256 MiB by default, 2 GiB at most); the queue holds [`QUEUE_BLOCKS`] blocks, and
//! its bytes are bounded by the permits that each block carries.
//!
//! # Failures
//! A full disk refuses blocks until there is room. A failed sync closes the segment; if what is on
//! the disk cannot be made sure of, the log fails for good ([`EvidenceLog::failed`]) and the
//! process should end. Damage is found at start and never overwritten (`recover`).
//!
//! # Removal
//! Events that have expired or were erased leave their leaves behind (`rewrite`); nothing else ever
//! changes what is written.

mod frame;
mod held;
mod ledger;
mod mark;
mod note;
mod reader;
mod recover;
mod rewrite;
mod segment;
mod shown;
mod submit;
pub mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError};
use custody_event::{Block, Clock};
pub(crate) use custody_evidence::segments::Segment;
use custody_evidence::{Entry, LogReceipt};
use tokio::sync::{oneshot, watch};

pub(crate) use held::DecideError;
use ledger::Standing;
pub(crate) use ledger::{Ledger, StreamName};

pub use recover::Cut;
pub(crate) use rewrite::{
    Gone, Step, begun_of, check_copy, generation_of, is_rewritten_whole, make_sparse, mend_sidecar,
    read_segment,
};
pub(crate) use submit::{Checked, Outcome};

use super::{BlockSource, LogCursor, StoreError, StoredBlock};
use crate::tlog::{self, Enrolment, Tlog, TlogError};
use reader::{Reader, lock};
use shown::Shown;
use submit::{Submission, Work};
use writer::{Batch, Sync, Writer};

/// Blocks that wait for the writer, at most.
const QUEUE_BLOCKS: usize = 256;

/// How the log is kept.
#[derive(Clone)]
pub struct Options {
    /// A segment is closed when it has this many bytes.
    pub segment_bytes: u64,
    /// The transparency log; without one nothing is proved.
    pub tlog: Option<TlogOptions>,
    sync: Sync,
}

/// The transparency log of an evidence log.
#[derive(Debug, Clone)]
pub struct TlogOptions {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name, if it begins now.
    pub origin: String,
    /// Its secret, if it begins now.
    pub random: [u8; 32],
    /// Agents that it must vouch for.
    pub agents: Vec<Enrolment>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Segments of this size, made durable with fdatasync.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes, tlog: None, sync: Arc::new(|file| file.sync_data()) }
    }
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opening {
    /// A tail that was cut off; it had never been acknowledged.
    pub cut: Option<Cut>,
    /// Sidecars made again.
    pub sidecars_made: usize,
    /// Streams known.
    pub streams: usize,
}

/// What the writer and all readers see.
struct Shared {
    reader: Arc<Reader>,
    ledger: RwLock<Ledger>,
    end: watch::Sender<LogCursor>,
    failed: watch::Sender<Option<String>>,
    held_back: watch::Sender<Option<String>>,
    tlog: Option<Tlog>,
    shown: Shown,
}

impl Shared {
    fn ledger(&self) -> RwLockReadGuard<'_, Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    fn fail(&self, reason: String) {
        log::error!(reason:% = reason; "the evidence log has failed and takes no more blocks");
        self.failed.send_replace(Some(reason));
    }
}

/// Whether a block is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It would be the next, or blocks are missing before it.
    No,
    /// It is here.
    Same,
    /// Another stands in its place.
    Another,
}

/// The open log. Dropped or closed, it finishes what is in its queue.
pub struct EvidenceLog {
    shared: Arc<Shared>,
    queue: Mutex<Option<Sender<Work>>>,
    clock: Arc<dyn Clock>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for EvidenceLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidenceLog")
            .field("end", &*self.shared.end.borrow())
            .finish_non_exhaustive()
    }
}

/// Where the log stands in a data directory.
#[must_use]
pub fn folder_in(data_dir: &Path) -> PathBuf {
    data_dir.join("evidence")
}

impl EvidenceLog {
    /// Opens the log in `root`, making it where there is none. One process at a time: the data
    /// directory's lock sees to that.
    ///
    /// # Errors
    /// A file cannot be read or written, or evidence is damaged.
    pub fn open(
        root: &Path,
        options: &Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Opening), StoreError> {
        let mut found = recover::recover(root, &*clock)?;
        let order = found.ledger.take_order();
        let tlog = open_tlog(options, &found.reader, &order, &*clock)?;
        drop(order);
        let opening = Opening {
            cut: found.cut,
            sidecars_made: found.sidecars_made,
            streams: found.ledger.streams().len(),
        };
        let end = LogCursor { segment: found.last.number, offset: found.last.len };
        let shared = Arc::new(Shared {
            reader: found.reader,
            ledger: RwLock::new(found.ledger),
            end: watch::Sender::new(end),
            failed: watch::Sender::new(None),
            held_back: watch::Sender::new(None),
            tlog,
            shown: Shown::default(),
        });
        let (sender, queue) = crossbeam_channel::bounded(QUEUE_BLOCKS);
        let writer = Writer {
            root: root.to_owned(),
            segment_bytes: options.segment_bytes,
            queue,
            shared: Arc::clone(&shared),
            clock: Arc::clone(&clock),
            sync: Arc::clone(&options.sync),
            segment: found.last,
            file: found.file,
            sidecar: found.sidecar,
            mark: found.mark,
            batch: Batch::default(),
            parked: std::collections::HashMap::new(),
            distrusted: false,
        };
        let handle = std::thread::Builder::new()
            .name("evidence".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Io { path: root.to_owned(), source })?;
        let log = Self {
            shared,
            queue: Mutex::new(Some(sender)),
            clock,
            writer: Mutex::new(Some(handle)),
        };
        Ok((log, opening))
    }

    /// Is this block durable? Reads old blocks: call it where blocking is allowed.
    ///
    /// # Errors
    /// The block in its place cannot be read.
    pub(crate) fn known(&self, block: &Block) -> Result<Known, StoreError> {
        let header = &block.header;
        let standing = self.shared.ledger().standing(&(header.agent, header.stream), header.seq);
        let hash = match standing {
            Standing::Next(_) | Standing::Later => return Ok(Known::No),
            Standing::Here(Ok(hash)) => hash,
            Standing::Here(Err(at)) => self.read_at(at)?.block.hash(),
        };
        Ok(if hash == block.hash() { Known::Same } else { Known::Another })
    }

    /// Makes the transparency log's checkpoint name every block that is durable, where a commit of
    /// it has failed before.
    ///
    /// # Errors
    /// The transparency log cannot be written.
    pub(crate) fn flush_tlog(&self) -> Result<(), TlogError> {
        match self.shared.tlog.as_ref() {
            Some(tlog) => tlog.flush(self.clock.monotonic()),
            None => Ok(()),
        }
    }

    /// Looks at what is known of the streams.
    pub(crate) fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shared.ledger())
    }

    /// Decides what of the block is already held and hands it to the writer. Reads old blocks
    /// where an older stream of the host covers the same bytes: call it where blocking is allowed.
    ///
    /// # Errors
    /// The block does not open, or an old block cannot be read.
    pub(crate) fn submit(
        &self,
        checked: &Arc<Checked>,
    ) -> Result<oneshot::Receiver<Outcome>, DecideError> {
        let header = &checked.block.header;
        let name = (header.agent, header.stream);
        let basis = self.shared.ledger().basis(&name, &header.host, &checked.coverage);
        let decision =
            held::decide(&checked.block, &checked.coverage, &basis, &*self.shared.reader)?;
        let (submission, outcome) = Submission::new(Arc::clone(checked), basis, decision);
        if let Err((Work::Block(back), reason, retry_after_s)) =
            self.hand_over(Work::Block(Box::new(submission)))
        {
            back.answer(Outcome::unavailable(reason.to_owned(), retry_after_s));
        }
        Ok(outcome)
    }

    /// Gives work to the writer, or gives it back with the reason and a time to wait.
    fn hand_over(&self, work: Work) -> Result<(), (Work, &'static str, u32)> {
        match lock(&self.queue).as_ref() {
            Some(queue) => match queue.try_send(work) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(back)) => Err((back, "too many blocks are waiting", 1)),
                Err(TrySendError::Disconnected(back)) => Err((back, "the log is closed", 5)),
            },
            None => Err((work, "the collector is shutting down", 5)),
        }
    }

    /// Ends the segment that is being written, so that all there is now can be written anew.
    /// Blocks.
    ///
    /// # Errors
    /// The next segment cannot be begun, or the log is closed.
    pub(crate) fn close_segment(&self) -> Result<(), StoreError> {
        self.command(Work::Close)
    }

    /// Gives the writer something to do, and waits until it is done.
    fn command<T>(
        &self,
        work: impl Fn(oneshot::Sender<Result<T, StoreError>>) -> Work,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Io {
            path: PathBuf::from("evidence"),
            source: std::io::Error::other("the evidence log is closed"),
        };
        let (answer, outcome) = oneshot::channel();
        let queue = lock(&self.queue).clone().ok_or_else(gone)?;
        // It may wait for room in the queue: unlike a sender, nobody asks again.
        queue.send(work(answer)).map_err(|_| gone())?;
        drop(queue);
        outcome.blocking_recv().map_err(|_| gone())?
    }

    /// The segments that are closed, by their numbers; their lengths are those that the log names.
    pub(crate) fn closed_segments(&self) -> Vec<Segment> {
        self.shared.reader.closed()
    }

    /// Makes the blocks of a closed segment sparse: see [`rewrite`].
    ///
    /// # Errors
    /// A file cannot be read or written; then the segment stands as it was.
    pub(crate) fn make_sparse(
        &self,
        segment: &Segment,
        gone: &Gone,
        step: &dyn Fn(Step) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let done = make_sparse(&segment.path, gone, step);
        // Also after an error: the new file may be there already.
        self.shared.reader.forget(segment.number);
        done
    }

    /// Puts a copy that was archived in the place of a segment that has lost events since.
    ///
    /// # Errors
    /// It is no copy of this segment, or a file cannot be read or written.
    pub(crate) fn put_back(&self, segment: &Segment, copy: &Path) -> Result<(), StoreError> {
        let done = rewrite::put_back(&segment.path, copy);
        self.shared.reader.forget(segment.number);
        done
    }

    /// Blocks of agents shall not be taken, for this reason; `None`: they shall.
    pub(crate) fn hold_back(&self, reason: Option<String>) {
        self.shared.held_back.send_if_modified(|before| {
            if before.is_some() != reason.is_some() {
                match &reason {
                    Some(reason) => log::error!(reason:% = reason; "blocks are refused for now"),
                    None => log::info!("blocks are taken again"),
                }
            }
            let changed = *before != reason;
            *before = reason;
            changed
        });
    }

    /// Why blocks of agents are not taken now, if they are not.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.shared.held_back.borrow().clone()
    }

    /// The transparency log.
    pub(crate) fn tlog(&self) -> Option<&Tlog> {
        self.shared.tlog.as_ref()
    }

    /// Puts a statement into the transparency log, behind all blocks that came before it. The
    /// answer is its place there; it comes when the statement is durable and under a checkpoint.
    pub(crate) fn state(
        &self,
        entry: Entry,
    ) -> Result<oneshot::Receiver<Result<u64, TlogError>>, &'static str> {
        let (answer, outcome) = oneshot::channel();
        let handed = self.hand_over(Work::Statement(Box::new(entry), answer));
        handed.map(|()| outcome).map_err(|(_, reason, _)| reason)
    }

    /// The block's place in the transparency log, once a checkpoint names it.
    pub(crate) fn log_index(&self, name: &StreamName, seq: custody_event::Seq) -> Option<u64> {
        let ordinal = self.shared.ledger().ordinal(name, seq)?;
        self.shared.tlog.as_ref()?.index_of(ordinal)
    }

    /// The receipt of a block that is durable; `from` is the size of the log that the sender
    /// knew when it sent the block. `None` where there is no transparency log. Reads tiles: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// The transparency log cannot be written or read.
    pub(crate) fn receipt(
        &self,
        name: &StreamName,
        seq: custody_event::Seq,
        from: u64,
    ) -> Result<Option<LogReceipt>, TlogError> {
        let Some(tlog) = self.shared.tlog.as_ref() else { return Ok(None) };
        if self.log_index(name, seq).is_none() {
            // A commit has failed before.
            tlog.flush(self.clock.monotonic())?;
        }
        let Some(index) = self.log_index(name, seq) else { return Ok(None) };
        let from = self.shared.shown.before(name, seq, from);
        let (receipt, size) = tlog.receipt(index, from)?;
        self.shared.shown.note(name, seq, size);
        Ok(Some(receipt))
    }

    /// As [`Self::receipt`], where it can be had without reading tiles and without waiting for whoever writes them.
    pub(crate) fn receipt_at_once(
        &self,
        name: &StreamName,
        seq: custody_event::Seq,
        from: u64,
    ) -> Option<LogReceipt> {
        let ordinal = self.shared.ledger().ordinal(name, seq)?;
        let from = self.shared.shown.before(name, seq, from);
        let (receipt, size) = self.shared.tlog.as_ref()?.receipt_at_once(ordinal, from)?;
        self.shared.shown.note(name, seq, size);
        Some(receipt)
    }

    /// Follows whether the log has failed for good, and why.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// Takes no more blocks, finishes those in the queue, and ends the writer.
    pub fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(handle) = lock(&self.writer).take()
            && handle.join().is_err()
        {
            log::error!("the writer of the evidence log ended with a panic");
        }
    }
}

fn open_tlog(
    options: &Options,
    reader: &Reader,
    blocks: &[(LogCursor, custody_event::Digest)],
    clock: &dyn Clock,
) -> Result<Option<Tlog>, StoreError> {
    let Some(options) = &options.tlog else { return Ok(None) };
    let known = tlog::Known {
        folder: &options.folder,
        origin: &options.origin,
        random: &options.random,
        agents: &options.agents,
        blocks,
        read: &|at| reader.read_at(at),
    };
    tlog::open(&known, clock).map(Some)
}

impl Drop for EvidenceLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl BlockSource for EvidenceLog {
    fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
        self.shared.reader.read_at(at)
    }

    fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
        self.shared.reader.next_from(from)
    }

    fn durable_end(&self) -> watch::Receiver<LogCursor> {
        self.shared.end.subscribe()
    }
}
