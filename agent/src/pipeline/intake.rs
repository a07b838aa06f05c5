//! The intake: gives every item a ticket, so that the committer can put them back in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Gate;
use super::OwnAct;
use crate::sources::{Item, Outlet, Stopped};

/// Items between sources and workers. Each is at most a chunk; the gate bounds their bytes.
const QUEUE_ITEMS: usize = 64;
/// How often a blocked source looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPut {
    /// There is no room: the spool takes nothing, or not as fast as records come.
    Full,
    /// The intake was closed.
    Stopped,
}

/// What stands in line.
#[derive(Debug)]
pub enum Entry {
    /// From a source.
    Source(Item),
    /// The agent's own act.
    Own(OwnAct),
}

/// An entry with its place in line.
#[derive(Debug)]
pub struct Ticketed {
    /// Place in line, from 0, without holes.
    pub ticket: u64,
    /// Bytes taken from the gate.
    pub bytes: usize,
    /// The entry.
    pub entry: Entry,
}

/// Where all the sources of one pipeline put their items.
#[derive(Debug)]
pub struct Intake {
    line: Mutex<Line>,
    gate: Arc<Gate>,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Line {
    next_ticket: u64,
    queue: Option<Sender<Ticketed>>,
}

impl Intake {
    /// An intake and the queue that workers read.
    #[must_use]
    pub fn new(gate: Arc<Gate>) -> (Arc<Self>, Receiver<Ticketed>) {
        let (queue, items) = bounded(QUEUE_ITEMS);
        let line = Mutex::new(Line { next_ticket: 0, queue: Some(queue) });
        (Arc::new(Self { line, gate, closed: AtomicBool::new(false) }), items)
    }

    /// No more items: workers end when the queue is empty, then the committer.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.line.lock().unwrap_or_else(PoisonError::into_inner).queue = None;
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Hands an entry on, waiting for room as long as it takes.
    ///
    /// # Errors
    /// The intake was closed.
    pub fn put(&self, entry: Entry) -> Result<(), Stopped> {
        let bytes = weight(&entry);
        while !self.gate.enter(bytes, STOP_CHECK) {
            if self.is_closed() {
                return Err(Stopped);
            }
        }
        self.enqueue(entry, bytes).inspect_err(|Stopped| self.gate.leave(bytes))
    }

    /// Hands an entry on if there is room for it within `wait`.
    ///
    /// # Errors
    /// There was none, or the intake was closed; the entry is dropped, and with it its promise.
    pub fn put_within(&self, entry: Entry, wait: Duration) -> Result<(), NotPut> {
        let bytes = weight(&entry);
        if self.is_closed() {
            return Err(NotPut::Stopped);
        }
        if !self.gate.enter(bytes, wait) {
            return Err(NotPut::Full);
        }
        self.enqueue(entry, bytes).map_err(|Stopped| {
            self.gate.leave(bytes);
            NotPut::Stopped
        })
    }

    /// The ticket is taken under the same lock as the place in the queue: no ticket without item.
    fn enqueue(&self, entry: Entry, bytes: usize) -> Result<(), Stopped> {
        let mut waiting = entry;
        loop {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            let ticket = line.next_ticket;
            let queue = line.queue.as_ref().ok_or(Stopped)?;
            match queue.try_send(Ticketed { ticket, bytes, entry: waiting }) {
                Ok(()) => {
                    line.next_ticket += 1;
                    return Ok(());
                }
                Err(TrySendError::Full(back)) => waiting = back.entry,
                Err(TrySendError::Disconnected(_)) => return Err(Stopped),
            }
            drop(line);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What an entry costs at the gate: its bytes, and a little for carrying it.
fn weight(entry: &Entry) -> usize {
    const CARRYING: usize = 512;
    match entry {
        Entry::Source(Item::Records(chunk)) => chunk.bytes.len() + CARRYING,
        Entry::Source(Item::Batch(batch)) => batch.bytes.len() + batch.extra_bytes() + CARRYING,
        Entry::Source(
            Item::Forget { .. } | Item::Moved { .. } | Item::Marks { .. } | Item::Gap(_),
        )
        | Entry::Own(_) => CARRYING,
    }
}

/// One source's way into the intake.
#[derive(Debug, Clone)]
pub struct SourceOutlet {
    /// The shared intake.
    pub intake: Arc<Intake>,
    /// Tells the source to end.
    pub stop: custody_config::shell::StopToken,
}

impl Outlet for SourceOutlet {
    fn put(&mut self, item: Item) -> Result<(), Stopped> {
        self.intake.put(Entry::Source(item))
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    fn is_stopped_after(&self, wait: Duration) -> bool {
        self.stop.wait_timeout(wait)
    }
}
