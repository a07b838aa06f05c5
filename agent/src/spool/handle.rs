//! What the rest of the agent holds: a cheap, cloneable handle to the owner thread.
//!
//! Nothing here touches the store. `append` may block (that is the back-pressure); everything else
//! leaves its question with the owner and returns a [`Reply`], to be waited for by a thread or awaited.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::keys::check_small;
use super::owner::Core;
use super::ring::Ring;
use super::stats::SpoolStats;
use super::types::{
    Batch, DeadLetter, Durable, Incident, Moved, Options, OutputCursor, Restreamed, Slot,
    SpoolClock, SpoolError, SpoolKey, StoreError,
};
use super::{MAX_BLOCK_BYTES, keys};

/// Questions that may wait for the owner: far more than there are outputs and commands.
const MAX_REQUESTS: usize = 1024;

/// A question to the owner; asked again after a reopen if the store failed under it.
pub(crate) type Request = Box<dyn FnMut(&mut Core) -> Result<(), StoreError> + Send>;

/// An answer that comes later: [`Reply::wait`] blocks a thread, `.await` suspends a task.
#[derive(Debug)]
#[must_use = "the answer may be an error"]
pub struct Reply<T>(oneshot::Receiver<Result<T, SpoolError>>);

/// Resolves when an appended batch is durable.
pub type Ticket = Reply<()>;

impl<T> Reply<T> {
    /// Waits on this thread.
    ///
    /// # Panics
    /// Inside an async runtime; await it there.
    ///
    /// # Errors
    /// As the question; [`SpoolError::Closed`] if the owner ended first.
    pub fn wait(self) -> Result<T, SpoolError> {
        self.0.blocking_recv().unwrap_or(Err(SpoolError::Closed))
    }

    fn ready(result: Result<T, SpoolError>) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is right here, so the send cannot fail.
        drop(sender.send(result));
        Self(receiver)
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, SpoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|got| got.unwrap_or(Err(SpoolError::Closed)))
    }
}

/// A batch on its way to the owner.
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    pub(crate) size: u64,
    pub(crate) done: oneshot::Sender<Result<(), SpoolError>>,
}

/// What handles and owner share under one lock; held for moments only.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) appends: VecDeque<Pending>,
    /// Bytes of batches in `appends` and in the owner's hands.
    pub(crate) queued_bytes: u64,
    /// Of these, the blocks' bytes.
    pub(crate) queued_block_bytes: u64,
    /// Bytes and number of the blocks in the store.
    pub(crate) held_bytes: u64,
    pub(crate) held_blocks: u64,
    pub(crate) requests: VecDeque<Request>,
    /// Acknowledged by outputs, not yet taken by the owner.
    pub(crate) acks: BTreeMap<String, u64>,
    pub(crate) acks_since: Option<Duration>,
    pub(crate) outputs: BTreeSet<String>,
    pub(crate) generation: u32,
    pub(crate) next_append_seq: u64,
    pub(crate) needs_restream: Option<String>,
    /// A restream waits or runs: appends wait.
    pub(crate) restreaming: bool,
    /// Appends that wait for room.
    pub(crate) waiting: u32,
    /// Why the owner appends nothing.
    pub(crate) pause: Option<String>,
    /// It is for want of disk space.
    pub(crate) disk_full: bool,
    pub(crate) full_since_unix_ms: Option<u64>,
    pub(crate) closed: bool,
    /// When a closing owner gives up what it cannot write.
    pub(crate) close_by: Option<Duration>,
    pub(crate) incidents: Vec<Incident>,
}

impl State {
    /// Is there room for a batch of `size` bytes with a block of `block` bytes?
    fn has_room(&self, options: &Options, size: u64, block: u64) -> bool {
        let queue = self.queued_bytes == 0 || self.queued_bytes + size <= options.queue_max_bytes;
        let held = self.held_bytes + self.queued_block_bytes;
        let quota = block == 0
            || (self.pause.is_none() && (held == 0 || held + block <= options.max_bytes));
        queue && quota
    }
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn SpoolClock>,
    state: Mutex<State>,
    /// Wakes the owner.
    pub(crate) work: Condvar,
    /// Wakes appends that wait for room, and waiters for durability.
    pub(crate) room: Condvar,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) stats: Mutex<SpoolStats>,
    /// Monotonic milliseconds + 1 at which the running store call began; 0: none runs.
    pub(crate) busy_since_ms: AtomicU64,
    pub(crate) durable: watch::Sender<Durable>,
    pub(crate) owner: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half-way through a change that matters.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    pub(crate) fn new(options: Options, clock: Arc<dyn SpoolClock>) -> Self {
        let ring = Ring::new(options.ring_max_bytes);
        Self {
            options,
            clock,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            ring: Mutex::new(ring),
            stats: Mutex::default(),
            busy_since_ms: AtomicU64::new(0),
            durable: watch::Sender::new(Durable::default()),
            owner: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Ends the owner when the last handle is gone.
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        begin_close(&self.0, Duration::from_secs(2));
    }
}

fn begin_close(shared: &Shared, within: Duration) {
    let mut state = shared.state();
    let by = shared.clock.monotonic() + within;
    state.closed = true;
    state.close_by = Some(state.close_by.map_or(by, |old| old.min(by)));
    shared.work.notify_all();
    shared.room.notify_all();
}

/// The agent's hold on its spool; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct SpoolHandle {
    shared: Arc<Shared>,
    _life: Arc<Life>,
}

impl std::fmt::Debug for SpoolHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolHandle")
            .field("durable", &*self.shared.durable.borrow())
            .finish_non_exhaustive()
    }
}

impl SpoolHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let life = Arc::new(Life(Arc::clone(&shared)));
        Self { shared, _life: life }
    }

    /// Queues a batch; the ticket resolves when it is durable. Order is kept. Blocks while there is no
    /// room: quota, queue, full disk. Not to be called on an async worker.
    ///
    /// # Errors
    /// What is wrong with the batch, [`SpoolError::OutOfOrder`], [`SpoolError::NeedsRestream`], or
    /// [`SpoolError::Closed`] (also while waiting). After an error nothing of the batch was taken.
    pub fn append(&self, batch: Batch) -> Result<Ticket, SpoolError> {
        let (size, block) = self.check_batch(&batch)?;
        let options = &self.shared.options;
        let mut state = self.shared.state();
        loop {
            if state.closed {
                return Err(SpoolError::Closed);
            }
            if let Some(reason) = state.needs_restream.as_ref().filter(|_| !state.restreaming) {
                return Err(SpoolError::NeedsRestream(reason.clone()));
            }
            let expected = state.next_append_seq;
            if let Some(got) = batch
                .block
                .as_ref()
                .map(|block| block.seq)
                .filter(|got| *got != expected && !state.restreaming)
            {
                return Err(SpoolError::OutOfOrder { expected, got });
            }
            if !state.restreaming && state.has_room(options, size, block) {
                break;
            }
            self.note_full(&mut state, block);
            state.waiting += 1;
            self.shared.work.notify_one();
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let (done, receiver) = oneshot::channel();
        if batch.block.is_some() {
            state.next_append_seq += 1;
            state.full_since_unix_ms = None;
        }
        state.queued_bytes += size;
        state.queued_block_bytes += block;
        state.appends.push_back(Pending { batch, size, done });
        self.shared.work.notify_one();
        Ok(Reply(receiver))
    }

    /// Would [`SpoolHandle::append`] of a block of `block_bytes` block now? For sources that would
    /// rather answer 503.
    #[must_use]
    pub fn would_block(&self, block_bytes: usize) -> bool {
        let mut state = self.shared.state();
        let block = u64::try_from(block_bytes).unwrap_or(u64::MAX);
        let blocks = state.restreaming || !state.has_room(&self.shared.options, block, block);
        if blocks {
            self.note_full(&mut state, block);
        }
        blocks
    }

    /// Does a block of `block_bytes` find no room, by the quota or on the disk? Not where an append
    /// only waits a moment (a reopening, a restream, the queue). For `when_full: drop_newest`.
    #[must_use]
    pub fn is_full(&self, block_bytes: usize) -> bool {
        let mut state = self.shared.state();
        let block = u64::try_from(block_bytes).unwrap_or(u64::MAX);
        let held = state.held_bytes + state.queued_block_bytes;
        let over = held > 0 && held.saturating_add(block) > self.shared.options.max_bytes;
        let full = over || state.disk_full;
        if full {
            self.note_full(&mut state, block);
        }
        full
    }

    fn note_full(&self, state: &mut State, block: u64) {
        let options = &self.shared.options;
        let held = state.held_bytes + state.queued_block_bytes;
        if (state.pause.is_some() || held + block > options.max_bytes)
            && state.full_since_unix_ms.is_none()
        {
            state.full_since_unix_ms = Some(self.shared.clock.unix_ms());
        }
    }

    fn check_batch(&self, batch: &Batch) -> Result<(u64, u64), SpoolError> {
        for (key, value) in &batch.puts {
            check_small(key, value.len())?;
        }
        for key in &batch.deletes {
            check_small(key, 0)?;
        }
        let small: usize = batch.puts.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
        let Some(block) = &batch.block else {
            return Ok((u64::try_from(small).unwrap_or(u64::MAX), 0));
        };
        self.check_block(&block.bytes)?;
        let block = u64::try_from(block.bytes.len()).unwrap_or(u64::MAX);
        Ok((block.saturating_add(u64::try_from(small).unwrap_or(u64::MAX)), block))
    }

    fn check_block(&self, bytes: &[u8]) -> Result<(), SpoolError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(SpoolError::TooLarge {
                what: "block",
                len: bytes.len(),
                limit: MAX_BLOCK_BYTES,
            });
        }
        (self.shared.options.check)(bytes).map_err(SpoolError::BadBlock)
    }

    fn ask<T: Send + 'static>(
        &self,
        mut question: impl FnMut(&mut Core) -> Result<Result<T, SpoolError>, StoreError>
        + Send
        + 'static,
    ) -> Reply<T> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let mut state = self.shared.state();
        if state.closed {
            return Reply::ready(Err(SpoolError::Closed));
        }
        if state.requests.len() >= MAX_REQUESTS {
            return Reply::ready(Err(SpoolError::Busy(state.requests.len())));
        }
        state.requests.push_back(Box::new(move |core| {
            let answer = question(core)?;
            if let Some(sender) = sender.take() {
                // Nobody waits any more: the answer is not needed.
                drop(sender.send(answer));
            }
            Ok(())
        }));
        self.shared.work.notify_one();
        Reply(receiver)
    }

    /// One durable block; `None` if it is acknowledged and gone, or not durable yet.
    pub fn read(&self, seq: u64) -> Reply<Option<Bytes>> {
        if let Some(block) = locked(&self.shared.ring).get(seq) {
            return Reply::ready(Ok(Some(block)));
        }
        if seq >= self.shared.durable.borrow().next_seq {
            return Reply::ready(Ok(None));
        }
        self.ask(move |core| Ok(Ok(core.read_block(seq)?)))
    }

    /// One small value, as last made durable.
    pub fn value(&self, key: &[u8]) -> Reply<Option<Vec<u8>>> {
        let key = key.to_vec();
        self.ask(move |core| Ok(Ok(core.call(|store| store.value(&key))?)))
    }

    /// All small values under a prefix, in the order of their keys.
    pub fn scan_prefix(&self, prefix: &[u8]) -> Reply<Vec<(SpoolKey, Vec<u8>)>> {
        let prefix = prefix.to_vec();
        self.ask(move |core| Ok(Ok(core.call(|store| store.scan_prefix(&prefix))?)))
    }

    /// A receiver that changes whenever more has become durable; outputs await it.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.shared.durable.subscribe()
    }

    /// Blocks this thread until block `seq` is durable (true) or the time is over (false).
    #[must_use]
    pub fn wait_for(&self, seq: u64, timeout: Duration) -> bool {
        let until = self.shared.clock.monotonic() + timeout;
        let mut state = self.shared.state();
        loop {
            if self.shared.durable.borrow().next_seq > seq {
                return true;
            }
            let left = until.saturating_sub(self.shared.clock.monotonic());
            if left.is_zero() || state.closed {
                return false;
            }
            state = self
                .shared
                .room
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Names all outputs, once, at start. Until then nothing is deleted. Cursors of others do not hold
    /// blocks back; an output without a cursor begins at the first block held.
    pub fn register_outputs(&self, outputs: &[&str]) -> Reply<Vec<OutputCursor>> {
        let outputs: Vec<String> = outputs.iter().map(|&output| output.to_owned()).collect();
        self.ask(move |core| Ok(Ok(core.register(&outputs))))
    }

    /// Output `output` has everything below `next_seq` of the stream of `generation` (see
    /// [`SpoolHandle::durable`]). Never waits; blocks that no output needs are
    /// deleted soon, and the cursor is durable within a second or so.
    ///
    /// # Errors
    /// [`SpoolError::UnknownOutput`], [`SpoolError::AckBeyondEnd`], [`SpoolError::Closed`], and
    /// [`SpoolError::OldStream`] for an answer that comes after a restream: it must not free blocks of the
    /// new stream.
    pub fn ack(&self, output: &str, generation: u32, next_seq: u64) -> Result<(), SpoolError> {
        let mut state = self.shared.state();
        if state.closed {
            return Err(SpoolError::Closed);
        }
        if !state.outputs.contains(output) {
            return Err(SpoolError::UnknownOutput(output.to_owned()));
        }
        if generation != state.generation {
            return Err(SpoolError::OldStream { got: generation, generation: state.generation });
        }
        let durable_next_seq = self.shared.durable.borrow().next_seq;
        if next_seq > durable_next_seq {
            return Err(SpoolError::AckBeyondEnd {
                output: output.to_owned(),
                next_seq,
                durable_next_seq,
            });
        }
        let now = self.shared.clock.monotonic();
        state.acks_since.get_or_insert(now);
        let cursor = state.acks.entry(output.to_owned()).or_insert(0);
        *cursor = next_seq.max(*cursor);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Sets bytes aside as a dead letter; resolves with its id when durable.
    pub fn dead_letter(&self, seq: u64, bytes: Bytes, reason: &str) -> Reply<u64> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Reply::ready(Err(SpoolError::TooLarge {
                what: "block",
                len: bytes.len(),
                limit: MAX_BLOCK_BYTES,
            }));
        }
        let reason = reason.to_owned();
        let mut given = None;
        self.ask(move |core| core.dead_letter(seq, bytes.clone(), &reason, &mut given))
    }

    /// Output `output` refuses this block for ever, for this reason: a copy of it becomes a dead
    /// letter, and that it is refused is remembered ([`OutputCursor::refused`]) until the output is
    /// past it. The block stays whole for all other outputs. `puts` are written in the same atomic
    /// step. Resolves when durable; asked twice it is done once.
    pub fn set_aside(
        &self,
        output: &str,
        seq: u64,
        reason: &str,
        puts: Vec<(SpoolKey, Vec<u8>)>,
    ) -> Reply<()> {
        for (key, value) in &puts {
            if let Err(error) = keys::check_small(key, value.len()) {
                return Reply::ready(Err(error));
            }
        }
        let (output, reason) = (output.to_owned(), reason.to_owned());
        self.ask(move |core| core.set_aside(&output, seq, &reason, &puts))
    }

    /// Replaces a block that is still held by other bytes. The agent itself never does this: it is
    /// for whoever shows what becomes of a spool in which somebody has changed a block. Resolves
    /// when durable.
    pub fn replace_block(&self, seq: u64, bytes: Bytes) -> Reply<()> {
        if let Err(error) = self.check_block(&bytes) {
            return Reply::ready(Err(error));
        }
        self.ask(move |core| core.replace_block(seq, bytes.clone()))
    }

    /// All dead letters, oldest first.
    pub fn dead_letters(&self) -> Reply<Vec<DeadLetter>> {
        self.ask(|core| Ok(Ok(core.dead_letters()?)))
    }

    /// A dead letter's bytes.
    pub fn read_dead_letter(&self, id: u64) -> Reply<Option<Bytes>> {
        self.ask(move |core| Ok(Ok(core.call(|store| store.read(Slot::Dead(id)))?)))
    }

    /// Removes a dead letter (after it was replayed); false if there is none.
    pub fn remove_dead_letter(&self, id: u64) -> Reply<bool> {
        self.ask(move |core| Ok(Ok(core.remove_dead_letter(id)?)))
    }

    /// Begins a new stream: all blocks held get new numbers from 0, rewritten by
    /// `map(old_seq, new_seq, bytes)`, and `puts` (the new stream's id, say) are written in the batch
    /// that switches over. A crash before that leaves the old stream, after it the new one. All cursors
    /// are 0 then. `map` starts over (with new_seq 0) when the store failed in between, and it must reset
    /// any state that it chains when it sees new_seq 0. Batches queued before finish first; appends wait.
    /// A block that `map` wants [`Moved::Aside`] becomes a dead letter, and the next takes its number.
    pub fn restream<M: Into<Moved>>(
        &self,
        mut map: impl FnMut(u64, u64, &[u8]) -> Result<M, String> + Send + 'static,
        puts: Vec<(SpoolKey, Vec<u8>)>,
    ) -> Reply<Restreamed> {
        for (key, value) in &puts {
            if let Err(error) = keys::check_small(key, value.len()) {
                return Reply::ready(Err(error));
            }
        }
        let mut target = None;
        let mut map = move |old, new, bytes: &[u8]| map(old, new, bytes).map(Into::into);
        self.ask(move |core| core.restream(&mut map, &puts, &mut target))
    }

    /// Ends the stream for whoever appends: waiting and further appends get
    /// [`SpoolError::NeedsRestream`] until [`SpoolHandle::restream`]. What was queued is written.
    pub fn end_stream(&self, reason: &str) {
        let mut state = self.shared.state();
        state.needs_restream.get_or_insert_with(|| reason.to_owned());
        self.shared.room.notify_all();
    }

    /// What happened since the last call that the books must say.
    #[must_use]
    pub fn take_incidents(&self) -> Vec<Incident> {
        std::mem::take(&mut self.shared.state().incidents)
    }

    /// How the spool is; never waits for the owner.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let mut stats = locked(&self.shared.stats).clone();
        {
            let state = self.shared.state();
            stats.queued_bytes = state.queued_bytes;
            stats.full_since_unix_ms = state.full_since_unix_ms;
            stats.waiting = state.pause.clone().or_else(|| {
                state.full_since_unix_ms.map(|_| {
                    format!(
                        "{} of {} bytes (spool.max_bytes) wait for an output",
                        state.held_bytes, self.shared.options.max_bytes
                    )
                })
            });
            stats.needs_restream.clone_from(&state.needs_restream);
        }
        let busy_ms = self.shared.busy_since_ms.load(Ordering::Relaxed);
        if let Some(since_ms) = busy_ms.checked_sub(1) {
            let running_ms = millis(self.shared.clock.monotonic()).saturating_sub(since_ms);
            if running_ms >= millis(self.shared.options.stuck_after) {
                stats.stuck_since_unix_ms =
                    Some(self.shared.clock.unix_ms().saturating_sub(running_ms));
            }
        }
        stats
    }

    /// Takes nothing more, writes what was taken, makes it durable, and ends the owner. True if all
    /// that was appended is durable; false if the time was over before.
    #[must_use]
    pub fn close(&self, within: Duration) -> bool {
        begin_close(&self.shared, within);
        let mut state = self.shared.state();
        let until = self.shared.clock.monotonic() + within + Duration::from_millis(500);
        while locked(&self.shared.owner).as_ref().is_some_and(|owner| !owner.is_finished()) {
            if self.shared.clock.monotonic() >= until {
                return false;
            }
            let pause = Duration::from_millis(5);
            state = self
                .shared
                .room
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.queued_bytes == 0
    }
}
