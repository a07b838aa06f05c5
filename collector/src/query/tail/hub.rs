//! One reader of the evidence log for all who tail it: it reads each new block once and gives each
//! client the events that its filter finds.
//!
//! # Bounds
//! A client's queue holds [`QUEUE_BYTES`]. What does not fit is not kept and not waited for: it is
//! counted, and from the first that is left out nothing more goes in until the client has taken
//! all, so that the count stands where the hole is. The log is the hub's own buffer: when filters
//! cost more than the time there is, all clients are later, and nothing is lost.
//!
//! # Failures
//! A block that cannot be read three times is passed over together with the rest of its segment,
//! and the log says so; the evidence log's own checks tell more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_config::shell::StopToken;
use custody_event::EventView;
use tokio::sync::{Notify, Semaphore};

use crate::index::HitKey;
use crate::query::filter::{Filter, Findable};
use crate::store::{BlockSource, LogCursor, StoreError, StoredBlock};

/// Bytes of events that wait for one client.
pub(super) const QUEUE_BYTES: usize = 1024 * 1024;
/// Clients at once: each costs its filter for every event.
const MAX_CLIENTS: usize = 32;
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// An event for a client.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: HitKey,
    pub(super) event: Vec<u8>,
}

/// What waits for a client.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    skipped: u64,
    /// What stands before this the client has read by itself; the hub may be behind it.
    from: LogCursor,
}

/// One who tails.
pub(super) struct Client {
    filter: Filter,
    queue: Mutex<Queue>,
    queue_bytes: usize,
    /// Something waits.
    pub(super) ready: Notify,
}

/// What a client takes: events in order, then how many were left out after them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) skipped: u64,
}

impl Client {
    pub(super) fn new(filter: Filter, queue_bytes: usize) -> Self {
        Self { filter, queue: Mutex::default(), queue_bytes, ready: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change leaves the queue whole; a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, key: HitKey, event: &[u8]) {
        let event = self.filter.sight.show(event);
        let mut queue = self.queue();
        if key.at < queue.from {
            return;
        }
        if queue.skipped > 0 || queue.bytes + event.len() > self.queue_bytes {
            queue.skipped += 1;
        } else {
            queue.bytes += event.len();
            queue.items.push_back(Item { key, event: event.to_vec() });
        }
    }

    /// All that waits.
    pub(super) fn take(&self) -> Batch {
        let mut queue = self.queue();
        queue.bytes = 0;
        let items = std::mem::take(&mut queue.items).into();
        Batch { items, skipped: std::mem::take(&mut queue.skipped) }
    }

    /// The client has everything before this place.
    pub(super) fn has_until(&self, place: LogCursor) {
        self.queue().from = place;
    }
}

/// The events of a block that the filter finds, behind `after`.
pub(super) fn found_in(block: &StoredBlock, filter: &Filter, after: Option<&HitKey>) -> Vec<Item> {
    let mut items = Vec::new();
    each(block, |key, view, event| {
        let is_new = after.is_none_or(|after| (key.at, key.index) > (after.at, after.index));
        if is_new && filter.spans(view.time) && filter.holds(event) {
            items.push(Item { key, event: filter.sight.show(event).into_owned() });
        }
    });
    items
}

/// Calls `take` with each event of a block that can be found by a search.
fn each(block: &StoredBlock, mut take: impl FnMut(HitKey, &EventView<'_>, &[u8])) {
    let opened = match block.block.open_unverified() {
        Ok(opened) => opened,
        Err(error) => {
            log::warn!(segment = block.at.segment, offset = block.at.offset,
                error = error.to_string(); "a block that cannot be opened is not shown live");
            return;
        }
    };
    for (index, event) in opened.events() {
        if block.receipt.is_held(index) {
            continue;
        }
        if let Ok(view) = EventView::read(event) {
            take(HitKey { time: view.time, at: block.at, index }, &view, event);
        }
    }
}

/// See the module.
pub(super) struct Hub {
    source: Arc<dyn BlockSource>,
    inner: Mutex<Inner>,
    wake: Notify,
    pub(super) places: Arc<Semaphore>,
}

struct Inner {
    clients: Vec<Arc<Client>>,
    /// The next block that clients are given.
    at: LogCursor,
}

impl Hub {
    pub(super) fn new(source: Arc<dyn BlockSource>) -> Self {
        let inner = Mutex::new(Inner { clients: Vec::new(), at: LogCursor::default() });
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        Self { source, inner, wake: Notify::new(), places }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the durable log ends.
    pub(super) fn end(&self) -> LogCursor {
        *self.source.durable_end().borrow()
    }

    /// The first block at or after this place.
    pub(super) fn block(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
        self.source.next_from(from)
    }

    /// Adds a client; it is given every block from the place on that is returned.
    pub(super) fn join(&self, client: Arc<Client>) -> LogCursor {
        let mut inner = self.inner();
        if inner.clients.is_empty() {
            inner.at = self.end();
        }
        inner.clients.push(client);
        self.wake.notify_one();
        inner.at
    }

    pub(super) fn leave(&self, client: &Arc<Client>) {
        self.inner().clients.retain(|other| !Arc::ptr_eq(other, client));
    }

    /// Reads until the stop comes.
    pub(super) fn run(&self, runtime: &tokio::runtime::Runtime, stop: &StopToken) {
        let mut ends = self.source.durable_end();
        let mut failed = 0;
        while !stop.is_stopped() {
            ends.mark_unchanged();
            match self.turn() {
                Ok(true) => failed = 0,
                Ok(false) => {
                    failed = 0;
                    runtime.block_on(async {
                        tokio::select! {
                            () = stop.stopped() => {}
                            () = self.wake.notified() => {}
                            _ = ends.changed() => {}
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                    });
                }
                Err(error) => {
                    failed += 1;
                    self.failed(&error, &mut failed);
                    runtime.block_on(async {
                        tokio::select! {
                            () = stop.stopped() => {}
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                    });
                }
            }
        }
    }

    fn failed(&self, error: &StoreError, failed: &mut u32) {
        log::warn!(error = error.to_string(); "evidence cannot be read for those who tail");
        if *failed >= TRIES && matches!(error, StoreError::Damaged { .. }) {
            *failed = 0;
            let mut inner = self.inner();
            inner.at = LogCursor { segment: inner.at.segment + 1, offset: 0 };
        }
    }

    /// One block to all clients; false where there is nothing to do.
    fn turn(&self) -> Result<bool, StoreError> {
        let at = {
            let inner = self.inner();
            if inner.clients.is_empty() {
                return Ok(false);
            }
            inner.at
        };
        let Some(block) = self.source.next_from(at)? else { return Ok(false) };
        let clients = {
            let mut inner = self.inner();
            if inner.at != at {
                return Ok(true);
            }
            // Whoever joins from here on is told to begin behind this block.
            inner.at = block.next;
            inner.clients.clone()
        };
        give(&block, &clients);
        Ok(true)
    }
}

fn give(block: &StoredBlock, clients: &[Arc<Client>]) {
    each(block, |key, view, event| {
        let mut findable = None;
        for client in clients {
            if !client.filter.spans(key.time) {
                continue;
            }
            let holds = if client.filter.sight.is_whole() {
                client.filter.expr.matches(findable.get_or_insert_with(|| Findable::of(view)))
            } else {
                client.filter.holds(event)
            };
            if holds {
                client.offer(key, event);
            }
        }
    });
    for client in clients {
        client.ready.notify_one();
    }
}
