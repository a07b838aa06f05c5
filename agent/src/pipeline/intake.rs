//! The intake: gives every item a ticket, so that the committer can put them back in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Gate;
use super::OwnAct;
use crate::sources::{Hatch, Item, NotTaken, Outlet, Stopped};
use crate::spool::SpoolHandle;

/// Items between sources and workers. Each is at most a chunk; the gate bounds their bytes.
const QUEUE_ITEMS: usize = 64;
/// How often a blocked source looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

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

    /// Hands an item on if there is room for it now.
    ///
    /// # Errors
    /// There is none, or the intake was closed.
    pub fn offer(&self, item: Item) -> Result<(), NotTaken> {
        self.try_put(Entry::Source(item)).map_err(|back| match back {
            Some(back) => match *back {
                Entry::Source(item) => NotTaken::Full(Box::new(item)),
                Entry::Own(_) => NotTaken::Stopped,
            },
            None => NotTaken::Stopped,
        })
    }

    /// Hands an entry on if there is room for it now.
    ///
    /// # Errors
    /// The entry, if there is none; nothing, if the intake was closed.
    pub fn try_put(&self, entry: Entry) -> Result<(), Option<Box<Entry>>> {
        let bytes = weight(&entry);
        if self.is_closed() {
            return Err(None);
        }
        if !self.gate.enter(bytes, Duration::ZERO) {
            return Err(Some(Box::new(entry)));
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = line.next_ticket;
        let sent = match line.queue.as_ref() {
            Some(queue) => queue.try_send(Ticketed { ticket, bytes, entry }),
            None => Err(TrySendError::Disconnected(Ticketed { ticket, bytes, entry })),
        };
        if sent.is_ok() {
            line.next_ticket += 1;
        }
        drop(line);
        sent.map_err(|error| {
            self.gate.leave(bytes);
            match error {
                TrySendError::Full(back) => Some(Box::new(back.entry)),
                TrySendError::Disconnected(_) => None,
            }
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
            Item::Forget { .. }
            | Item::Moved { .. }
            | Item::Marks { .. }
            | Item::Gap(_)
            | Item::Refused(_),
        )
        | Entry::Own(_) => CARRYING,
    }
}

/// One source's way into the intake.
#[derive(Clone)]
pub struct SourceOutlet {
    /// The shared intake.
    pub intake: Arc<Intake>,
    /// To ask whether it takes anything.
    pub spool: SpoolHandle,
    /// Tells the source to end.
    pub stop: custody_config::shell::StopToken,
}

/// A block of a few events: what is asked for when the spool is asked whether it has room.
const ROOM_ASKED_BYTES: usize = 64 * 1024;

impl Hatch for SourceOutlet {
    fn offer(&self, item: Item) -> Result<(), NotTaken> {
        self.intake.offer(item)
    }

    fn is_full(&self) -> bool {
        self.spool.would_block(ROOM_ASKED_BYTES)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_act_that_finds_no_room_comes_back_at_once_for_its_giver_hears_the_signals() {
        let gate = Arc::new(Gate::new(100));
        let (intake, items) = Intake::new(Arc::clone(&gate));
        assert!(gate.enter(100, Duration::ZERO));
        let act = OwnAct::Stopped { reason: "asked to stop".into() };
        let back = intake.try_put(Entry::Own(act.clone())).unwrap_err().unwrap();
        assert!(matches!(*back, Entry::Own(same) if same == act));
        assert!(items.is_empty());
        gate.leave(100);
        assert!(intake.try_put(Entry::Own(act)).is_ok());
        intake.close();
        assert_eq!((items.len(), gate.held_bytes()), (1, 512));
    }
}
