//! The owner thread: the only one that calls the store.
//!
//! Each turn: answer questions, then take what is queued (at most `group_max_bytes`), apply it with
//! the acknowledgements that came in as one atomic batch, make it durable with one sync, and resolve
//! the tickets. A group stays in memory until it is durable: after any error the store is reopened and
//! the same group applied again, which is harmless because everything in it is named by seq or key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::{Pending, Request, Shared, SpoolHandle, State, locked, millis};
use super::keys::{NEXT_SEQ, RESTREAM, cursor_key, refused_key};
use super::ledger::{Entry, Ledger};
use super::quarantine;
use super::recover::{Context, Recovered, cursor_value, discard, guarded};
use super::types::{
    Change, Durable, Incident, OpenError, Opened, Options, RolledBack, Slot, SpoolClock,
    SpoolError, Store, StoreError, StoreFactory,
};

/// Blocks deleted in one batch at most: sled keeps all that a batch touches in memory until its end.
const MAX_DROPS: usize = 32;

/// A block in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) len: u32,
    pub(crate) since_unix_ms: u64,
}

/// What is in the store, as the owner knows it; rebuilt at every open.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) generation: u32,
    pub(crate) next_seq: u64,
    pub(crate) blocks: BTreeMap<u64, Held>,
    pub(crate) bytes: u64,
    /// Cursors as written.
    pub(crate) cursors: BTreeMap<String, u64>,
    pub(crate) dead_ids: BTreeSet<u64>,
    /// Which output has refused which block.
    pub(crate) refused: BTreeSet<(String, u64)>,
}

impl Index {
    pub(crate) fn first_seq(&self) -> u64 {
        self.blocks.first_key_value().map_or(self.next_seq, |(seq, _)| *seq)
    }
}

/// The owner's own state.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) context: Context,
    pub(crate) ledger: Ledger,
    pub(crate) number: u64,
    pub(crate) store: Option<Box<dyn Store>>,
    pub(crate) index: Index,
    /// Where the outputs stand, written or not; `None` until they are registered.
    pub(crate) goals: Option<BTreeMap<String, u64>>,
    group: Vec<Pending>,
    /// Questions that found the disk full.
    deferred: Vec<Request>,
    retry_at: Option<Duration>,
    reopened_at: Option<Duration>,
    acks_since: Option<Duration>,
    pub(crate) unsynced_bytes: u64,
    pub(crate) unsynced_since: Option<Duration>,
    ledger_at: Option<Duration>,
    recreate_at_bytes: u64,
}

/// Takes the lock, opens, starts the thread.
pub(crate) fn start(
    dir: &Path,
    options: Options,
    clock: Arc<dyn SpoolClock>,
    factory: Box<dyn StoreFactory>,
) -> Result<(SpoolHandle, Opened), OpenError> {
    let lock = super::inspect::take_lock(dir)?;
    let fail = |what| move |error| OpenError::Io { path: dir.to_path_buf(), what, error };
    let ledger = Ledger::open(&dir.join("ledger")).map_err(fail("opening the ledger"))?;
    quarantine::sync_dir(dir).map_err(fail("syncing the folder"))?;
    let mut context = Context {
        dir: dir.to_path_buf(),
        factory,
        options: options.clone(),
        clock: Arc::clone(&clock),
    };
    let recovered = context.recover(ledger.last())?;
    let shared = Arc::new(Shared::new(options, clock));
    let mut core = Core::new(Arc::clone(&shared), context, ledger);
    let created = recovered.created;
    let fail = |error| OpenError::Store { path: dir.to_path_buf(), error };
    core.adopt(recovered).map_err(fail)?;
    let opened = core.opened(created);
    let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
        core.run();
        drop(lock);
    });
    let thread = thread.map_err(|error| OpenError::Io {
        path: PathBuf::from(dir),
        what: "starting its thread",
        error,
    })?;
    *locked(&shared.owner) = Some(thread);
    Ok((SpoolHandle::new(shared), opened))
}

impl Core {
    fn new(shared: Arc<Shared>, context: Context, ledger: Ledger) -> Self {
        Self {
            shared,
            context,
            ledger,
            number: 0,
            store: None,
            index: Index::default(),
            goals: None,
            group: Vec::new(),
            deferred: Vec::new(),
            retry_at: None,
            reopened_at: None,
            acks_since: None,
            unsynced_bytes: 0,
            unsynced_since: None,
            ledger_at: None,
            recreate_at_bytes: 0,
        }
    }

    fn opened(&self, created: bool) -> Opened {
        let mut state = self.shared.state();
        let mut opened = Opened {
            created,
            generation: self.index.generation,
            first_seq: self.index.first_seq(),
            next_seq: self.index.next_seq,
            needs_restream: state.needs_restream.clone(),
            ..Opened::default()
        };
        for incident in std::mem::take(&mut state.incidents) {
            match incident {
                Incident::Quarantined(it) => opened.quarantined = Some(it),
                Incident::RolledBack(it) => opened.rolled_back = Some(it),
            }
        }
        opened
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    /// Calls the store: watched, and with panics caught.
    pub(crate) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(store) = self.store.as_deref_mut() else {
            return Err(StoreError::Io("the store is closed after an error".to_owned()));
        };
        self.shared
            .busy_since_ms
            .store(millis(self.shared.clock.monotonic()) + 1, Ordering::Relaxed);
        let result = guarded(|| call(store));
        self.shared.busy_since_ms.store(0, Ordering::Relaxed);
        result
    }

    fn run(mut self) {
        self.publish();
        loop {
            self.wait_for_work();
            self.ensure_store();
            if self.store.is_some() {
                self.turn();
            }
            self.publish();
            if self.is_done() {
                break;
            }
        }
        self.finish();
    }

    fn turn(&mut self) {
        self.serve();
        if self.may_append() {
            let result = self.commit_group();
            self.note(result);
        }
        if self.store.is_some() && self.acks_due() {
            let result = self.commit_acks();
            self.note(result);
        }
        if self.store.is_some() && self.sync_due() {
            let result = self.sync();
            self.note(result);
        }
        let result = self.refresh_if_due();
        self.note(result);
        self.write_ledger(false);
        self.drop_stale_growth();
    }

    /// What a result means for the handle: a full disk is waited out, anything else ends it.
    fn note(&mut self, result: Result<(), StoreError>) {
        let Err(error) = result else { return };
        self.retry_at = Some(self.now() + self.shared.options.retry_every);
        let text = error.to_string();
        locked(&self.shared.stats).last_error = Some(text.clone());
        let disk_full = matches!(error, StoreError::Full(_));
        self.shared.state().disk_full = disk_full;
        if disk_full {
            self.shared.state().pause = Some(text);
            return;
        }
        log::warn!("the spool's store failed and is reopened: {text}");
        self.shared.state().pause = Some(format!("{text}; reopening"));
        if let Some(store) = self.store.take() {
            self.shared.busy_since_ms.store(millis(self.now()) + 1, Ordering::Relaxed);
            discard(store);
            self.shared.busy_since_ms.store(0, Ordering::Relaxed);
        }
        // The first try at once: most failures are over with a fresh handle. Not again and again.
        let again =
            self.reopened_at.is_some_and(|at| self.now() < at + self.shared.options.retry_every);
        if !again {
            self.retry_at = None;
        }
    }

    fn ensure_store(&mut self) {
        if self.store.is_some() || self.retry_at.is_some_and(|at| self.now() < at) {
            return;
        }
        self.shared.busy_since_ms.store(millis(self.now()) + 1, Ordering::Relaxed);
        let recovered = self.context.recover(self.ledger.last());
        self.shared.busy_since_ms.store(0, Ordering::Relaxed);
        let adopted = match recovered {
            Ok(recovered) => self.adopt(recovered).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match adopted {
            Ok(()) => {
                locked(&self.shared.stats).reopened += 1;
                self.retry_at = None;
                self.reopened_at = Some(self.now());
                self.unpause();
            }
            Err(text) => {
                self.store = None;
                self.retry_at = Some(self.now() + self.shared.options.retry_every);
                locked(&self.shared.stats).last_error = Some(text.clone());
                self.shared.state().pause = Some(format!("{text}; trying again"));
            }
        }
    }

    /// Takes over a freshly opened store.
    fn adopt(&mut self, recovered: Recovered) -> Result<(), StoreError> {
        let Recovered { store, number, loaded, quarantined, .. } = recovered;
        let now_ms = self.shared.clock.unix_ms();
        let before = std::mem::take(&mut self.index);
        let held = |(seq, len): (u64, u32)| {
            let since_unix_ms = before.blocks.get(&seq).map_or(now_ms, |held| held.since_unix_ms);
            (seq, Held { len, since_unix_ms })
        };
        self.index = Index {
            generation: loaded.generation,
            next_seq: loaded.next_seq,
            bytes: loaded.blocks.values().map(|len| u64::from(*len)).sum(),
            blocks: loaded.blocks.into_iter().map(held).collect(),
            cursors: loaded.cursors,
            dead_ids: loaded.dead_ids.into_iter().collect(),
            refused: loaded.refused,
        };
        if before.generation != self.index.generation {
            // A restream's last step was applied although its call failed: where the outputs stood was
            // in the old stream.
            self.goals.iter_mut().flat_map(BTreeMap::values_mut).for_each(|goal| *goal = 0);
            self.shared.state().acks.clear();
        }
        (self.store, self.number) = (Some(store), number);
        // What was being replaced when the store failed may be replaced by now.
        locked(&self.shared.ring).clear();
        (self.unsynced_bytes, self.unsynced_since) = (0, None);
        // A cursor that was written but not synced may be behind again: write it once more.
        self.acks_since = self.goals.is_some().then(|| self.shared.clock.monotonic());
        let mut needs = loaded.needs_restream;
        if let Some(rolled_back) = self.rolled_back().filter(|_| needs.is_none()) {
            let text = format!(
                "the store ends before block {}, the ledger knows {} durable",
                rolled_back.store_next_seq, rolled_back.ledger_next_seq
            );
            let mark = Change {
                puts: vec![(RESTREAM.to_vec(), text.clone().into_bytes())],
                ..Change::default()
            };
            self.call(|store| store.commit(&[mark]).and_then(|()| store.sync()))?;
            self.shared.state().incidents.push(Incident::RolledBack(rolled_back));
            needs = Some(text);
        }
        self.clear_stale(&loaded.stale)?;
        self.shared.state().incidents.extend(quarantined.map(Incident::Quarantined));
        locked(&self.shared.stats).quarantined =
            u64::try_from(quarantine::count(&self.context.dir)).unwrap_or(u64::MAX);
        self.after_adopt(needs);
        Ok(())
    }

    fn rolled_back(&self) -> Option<RolledBack> {
        let known = self.ledger.last().map_or((0, 0), |entry| (entry.generation, entry.next_seq));
        let durable = *self.shared.durable.borrow();
        let known = known.max((durable.generation, durable.next_seq));
        (known > (self.index.generation, self.index.next_seq))
            .then_some(RolledBack { ledger_next_seq: known.1, store_next_seq: self.index.next_seq })
    }

    fn after_adopt(&mut self, needs_restream: Option<String>) {
        let mut state = self.shared.state();
        if let Some(reason) = &needs_restream {
            // Their numbers belong to a stream that is over; the callers still have the data.
            for pending in self.group.drain(..).chain(state.appends.drain(..)) {
                drop(pending.done.send(Err(SpoolError::NeedsRestream(reason.clone()))));
            }
            (state.queued_bytes, state.queued_block_bytes) = (0, 0);
            locked(&self.shared.ring).clear();
        }
        let queued =
            self.group.iter().chain(&state.appends).filter(|pending| pending.batch.block.is_some());
        // A commit whose sync failed may be there already: its blocks are counted once.
        let next = queued
            .filter_map(|pending| pending.batch.block.as_ref())
            .map(|block| block.seq + 1)
            .max();
        state.next_append_seq = next.unwrap_or(0).max(self.index.next_seq);
        state.generation = self.index.generation;
        state.needs_restream = needs_restream;
        drop(state);
        // What is in the group is not promised yet, even if it is there.
        let first = self
            .group
            .iter()
            .find_map(|pending| pending.batch.block.as_ref())
            .map(|block| block.seq);
        let next_seq = first.map_or(self.index.next_seq, |first| first.min(self.index.next_seq));
        self.shared.durable.send_replace(Durable { generation: self.index.generation, next_seq });
    }

    fn clear_stale(&mut self, stale: &[(Slot, u32)]) -> Result<(), StoreError> {
        for some in stale.chunks(32) {
            let change = Change { drops: some.to_vec(), ..Change::default() };
            self.commit_unsynced(&[change])?;
        }
        Ok(())
    }

    /// Commits without a sync of its own, but never lets too much be unsynced.
    pub(crate) fn commit_unsynced(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.commit(changes)?;
        self.unsynced_bytes += changes.iter().map(Change::size_bytes).sum::<u64>();
        let now = self.now();
        self.unsynced_since.get_or_insert(now);
        if self.unsynced_bytes >= self.shared.options.group_max_bytes {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Applies changes. After an error here nobody knows what was applied, so even a full disk ends the
    /// handle: only the reopened store can tell.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.call(|store| store.commit(changes)).map_err(in_doubt)
    }

    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.call(|store| store.sync()).map_err(in_doubt)?;
        (self.unsynced_bytes, self.unsynced_since) = (0, None);
        locked(&self.shared.stats).syncs += 1;
        Ok(())
    }

    fn may_append(&self) -> bool {
        self.store.is_some() && self.retry_at.is_none_or(|at| self.now() >= at)
    }

    fn serve(&mut self) {
        if self.retry_at.is_none_or(|at| self.now() >= at) {
            let mut state = self.shared.state();
            for request in self.deferred.drain(..).rev() {
                state.requests.push_front(request);
            }
        }
        loop {
            let Some(mut request) = self.shared.state().requests.pop_front() else { return };
            match request(self) {
                // A reader that always has the next question ready must not keep the memory growing.
                Ok(()) => {
                    let result = self.refresh_if_due();
                    self.note(result);
                    if self.store.is_none() {
                        return;
                    }
                }
                Err(StoreError::Full(text)) => {
                    self.deferred.push(request);
                    self.note(Err(StoreError::Full(text)));
                }
                Err(error) => {
                    self.shared.state().requests.push_front(request);
                    self.note(Err(error));
                    return;
                }
            }
        }
    }

    fn fill_group(&mut self) {
        let mut state = self.shared.state();
        let mut size: u64 = 0;
        while let Some(next) = state.appends.front() {
            if size > 0 && size + next.size > self.shared.options.group_max_bytes {
                break;
            }
            size += next.size.max(1);
            self.group.extend(state.appends.pop_front());
        }
    }

    /// Why nothing may be written now, if so.
    fn floor(&self) -> Result<(), StoreError> {
        let floor = self.shared.options.min_free_bytes;
        match free_bytes(&self.context.dir) {
            Some(free) if free < floor => Err(StoreError::Full(format!(
                "{free} bytes are free on the spool's file system, {floor} must stay free"
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn commit_group(&mut self) -> Result<(), StoreError> {
        if self.group.is_empty() {
            self.fill_group();
        }
        if self.group.is_empty() {
            self.clear_pause();
            return Ok(());
        }
        self.floor()?;
        let size: u64 = self.group.iter().map(|pending| pending.size).sum();
        self.call(|store| store.reserve(size))?;
        self.take_acks();
        let mut changes: Vec<Change> =
            self.group.iter().map(|pending| self.change_of(pending)).collect();
        let next_seq = self
            .group
            .iter()
            .filter_map(|it| it.batch.block.as_ref())
            .map(|block| block.seq + 1)
            .max();
        let next_seq = next_seq.unwrap_or(0).max(self.index.next_seq);
        let acks = self.ack_change();
        changes.extend(acks.iter().cloned());
        changes.push(Change {
            puts: vec![(NEXT_SEQ.to_vec(), next_seq.to_be_bytes().to_vec())],
            ..Change::default()
        });
        self.commit(&changes)?;
        self.sync()?;
        self.clear_pause();
        self.settle_acks(acks.as_ref());
        self.settle_group(next_seq);
        Ok(())
    }

    fn clear_pause(&mut self) {
        self.retry_at = None;
        self.unpause();
    }

    fn unpause(&self) {
        let mut state = self.shared.state();
        (state.pause, state.disk_full) = (None, false);
    }

    fn change_of(&self, pending: &Pending) -> Change {
        let generation = self.index.generation;
        let store = |block: &super::SpooledBlock| {
            (Slot::Block { generation, seq: block.seq }, block.bytes.clone())
        };
        Change {
            drops: Vec::new(),
            stores: pending.batch.block.iter().map(store).collect(),
            deletes: pending.batch.deletes.clone(),
            puts: pending.batch.puts.clone(),
        }
    }

    /// The group is durable: tell everyone.
    fn settle_group(&mut self, next_seq: u64) {
        let since_unix_ms = self.shared.clock.unix_ms();
        let group = std::mem::take(&mut self.group);
        {
            let mut ring = locked(&self.shared.ring);
            for block in group.iter().filter_map(|pending| pending.batch.block.as_ref()) {
                let len = u32::try_from(block.bytes.len()).unwrap_or(u32::MAX);
                let old = self.index.blocks.insert(block.seq, Held { len, since_unix_ms });
                self.index.bytes =
                    self.index.bytes + u64::from(len) - old.map_or(0, |old| u64::from(old.len));
                ring.push(block.seq, block.bytes.clone());
            }
        }
        self.index.next_seq = next_seq;
        {
            let mut state = self.shared.state();
            let of = |it: &Pending| {
                it.batch
                    .block
                    .as_ref()
                    .map_or(0, |block| u64::try_from(block.bytes.len()).unwrap_or(0))
            };
            state.queued_bytes -= group.iter().map(|pending| pending.size).sum::<u64>();
            state.queued_block_bytes -= group.iter().map(of).sum::<u64>();
            (state.held_bytes, state.held_blocks) =
                (self.index.bytes, count(self.index.blocks.len()));
        }
        locked(&self.shared.stats).appended_blocks +=
            count(group.iter().filter(|it| it.batch.block.is_some()).count());
        self.shared.durable.send_replace(Durable { generation: self.index.generation, next_seq });
        for pending in group {
            // Whoever dropped the ticket does not want to know.
            drop(pending.done.send(Ok(())));
        }
    }

    pub(crate) fn take_acks(&mut self) {
        let mut state = self.shared.state();
        let acks = std::mem::take(&mut state.acks);
        if let Some(since) = state.acks_since.take() {
            self.acks_since.get_or_insert(since);
        }
        if let Some(goals) = &mut self.goals {
            for (output, next) in acks {
                // An acknowledgement of an older stream may come late: it is not beyond this one's end.
                let next = next.min(self.index.next_seq);
                goals.entry(output).and_modify(|goal| *goal = next.max(*goal));
            }
        }
    }

    /// Cursors that moved, and the blocks that nobody needs any more.
    fn ack_change(&self) -> Option<Change> {
        let goals = self.goals.as_ref()?;
        let generation = self.index.generation;
        let mut change = Change::default();
        for (output, next) in
            goals.iter().filter(|(output, next)| self.index.cursors.get(*output) != Some(*next))
        {
            change.puts.push((cursor_key(output), cursor_value(generation, *next)));
        }
        let below = goals.values().min().copied().unwrap_or(0);
        for (seq, held) in self.index.blocks.range(..below).take(MAX_DROPS) {
            change.drops.push((Slot::Block { generation, seq: *seq }, held.len));
        }
        // An output that is past a block does not send it again in this stream.
        let passed = |refused: &&(String, u64)| is_passed(goals, refused);
        let refused = self.index.refused.iter().filter(passed);
        change.deletes.extend(refused.map(|(output, seq)| refused_key(output, generation, *seq)));
        let is_empty =
            change.puts.is_empty() && change.drops.is_empty() && change.deletes.is_empty();
        (!is_empty).then_some(change)
    }

    fn settle_acks(&mut self, change: Option<&Change>) {
        self.acks_since = None;
        let Some(goals) = self.goals.as_ref().filter(|_| change.is_some()) else { return };
        self.index.cursors.extend(goals.iter().map(|(output, next)| (output.clone(), *next)));
        self.index.refused.retain(|refused| !is_passed(goals, refused));
        let below = goals.values().min().copied().unwrap_or(0);
        let dropped = change.iter().flat_map(|change| &change.drops);
        for (slot, len) in dropped {
            if let Slot::Block { seq, .. } = slot {
                self.index.blocks.remove(seq);
                self.index.bytes -= u64::from(*len);
            }
        }
        if self.index.first_seq() < below {
            // More to delete: at once, as far as the clock is concerned.
            self.acks_since = Some(Duration::ZERO);
        }
        locked(&self.shared.ring).drop_below(below);
    }

    fn acks_due(&self) -> bool {
        let state = self.shared.state();
        let since = self.acks_since.or(state.acks_since);
        let due = |since: Duration| {
            state.waiting > 0 || state.closed || self.now() >= since + self.shared.options.ack_delay
        };
        since.is_some_and(due)
            && self.retry_at.is_none_or(|at| self.now() >= at || state.pause.is_some())
    }

    pub(crate) fn commit_acks(&mut self) -> Result<(), StoreError> {
        self.take_acks();
        let change = self.ack_change();
        if let Some(change) = &change {
            self.commit_unsynced(std::slice::from_ref(change))?;
        }
        self.settle_acks(change.as_ref());
        Ok(())
    }

    fn sync_due(&self) -> bool {
        let delay = self.shared.options.ack_delay;
        self.unsynced_since
            .is_some_and(|since| self.now() >= since + delay || self.shared.state().closed)
    }

    fn ledger_entry(&self) -> Entry {
        Entry {
            generation: self.index.generation,
            first_seq: self.index.first_seq(),
            next_seq: self.index.next_seq,
            store: self.number,
            unix_ms: self.shared.clock.unix_ms(),
        }
    }

    fn ledger_is_behind(&self) -> bool {
        // Never lowered: while a restream is due, what it knew is still what it knew.
        let known = self.ledger.last().map(|it| (it.generation, it.next_seq, it.store));
        let is = (self.index.generation, self.index.next_seq, self.number);
        self.shared.state().needs_restream.is_none() && known.is_none_or(|known| known < is)
    }

    /// Writes the ledger if it is due. Its failure costs only the check for rollbacks.
    pub(crate) fn write_ledger(&mut self, now: bool) {
        let due = self.ledger_at.is_none_or(|at| self.now() >= at);
        if !(now || due) || self.store.is_none() || !self.ledger_is_behind() {
            return;
        }
        self.ledger_at = Some(self.now() + self.shared.options.ledger_every);
        let entry = self.ledger_entry();
        if let Err(error) = self.ledger.write(entry) {
            locked(&self.shared.stats).last_error = Some(format!("spool ledger: {error}"));
        }
    }

    fn drop_stale_growth(&mut self) {
        if self.store.is_some() && self.wants_recreating() {
            let result = self.recreate();
            if result.is_err() {
                // Not before it has grown again: a full disk must not be asked every turn.
                self.recreate_at_bytes = self.disk_bytes().saturating_mul(2);
            }
            self.note(result.filter_full());
        }
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        let store = self.store.as_deref();
        store.and_then(|store| guarded(|| store.size_on_disk_bytes()).ok()).unwrap_or(0)
    }

    fn wants_recreating(&self) -> bool {
        let (options, disk, held) = (&self.shared.options, self.disk_bytes(), self.index.bytes);
        if disk <= options.recreate_min_bytes.max(self.recreate_at_bytes)
            || !self.shared.state().appends.is_empty()
        {
            return false;
        }
        held == 0 || (disk > options.max_bytes.saturating_mul(2) && held < options.max_bytes / 8)
    }

    pub(crate) fn publish(&mut self) {
        let disk_bytes = self.disk_bytes();
        {
            let mut stats = locked(&self.shared.stats);
            stats.generation = self.index.generation;
            stats.first_seq = self.index.first_seq();
            stats.durable_next_seq = self.shared.durable.borrow().next_seq;
            stats.blocks = count(self.index.blocks.len());
            stats.bytes = self.index.bytes;
            stats.max_bytes = self.shared.options.max_bytes;
            stats.disk_bytes = disk_bytes;
            stats.free_bytes = free_bytes(&self.context.dir).unwrap_or(0);
            stats.dead_letters = count(self.index.dead_ids.len());
            stats.oldest_unsent_since_unix_ms =
                self.index.blocks.first_key_value().map(|(_, held)| held.since_unix_ms);
        }
        let mut state = self.shared.state();
        (state.held_bytes, state.held_blocks) = (self.index.bytes, count(self.index.blocks.len()));
        let max = self.shared.options.max_bytes;
        if state.waiting == 0
            && state.pause.is_none()
            && state.held_bytes + state.queued_block_bytes < max - max / 16
        {
            state.full_since_unix_ms = None;
        }
        drop(state);
        self.shared.room.notify_all();
    }

    fn wait_for_work(&self) {
        let mut state = self.shared.state();
        loop {
            let now = self.now();
            if self.is_ready(&state, now) {
                return;
            }
            let until = self.next_deadline(&state);
            let Some(until) = until else {
                state =
                    self.shared.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            };
            if until <= now {
                return;
            }
            let waited = self.shared.work.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    fn is_ready(&self, state: &State, now: Duration) -> bool {
        let retry = self.retry_at.is_none_or(|at| now >= at);
        if self.store.is_none() {
            return retry || self.close_is_over(state);
        }
        let appends = retry
            && (!self.group.is_empty() || !state.appends.is_empty() || !self.deferred.is_empty());
        let acks = state.acks_since.is_some() && state.waiting > 0;
        appends
            || acks
            || !state.requests.is_empty()
            || (state.closed && (retry || self.close_is_over(state)))
    }

    fn next_deadline(&self, state: &State) -> Option<Duration> {
        let options = &self.shared.options;
        let acks = self.acks_since.or(state.acks_since).map(|since| since + options.ack_delay);
        let sync = self.unsynced_since.map(|since| since + options.ack_delay);
        let behind = self.store.is_some() && state.needs_restream.is_none() && {
            let known = self.ledger.last().map(|it| (it.generation, it.next_seq, it.store));
            known.is_none_or(|known| {
                known < (self.index.generation, self.index.next_seq, self.number)
            })
        };
        let ledger = self.ledger_at.filter(|_| behind);
        let waiting = self.store.is_none()
            || !self.group.is_empty()
            || !state.appends.is_empty()
            || state.closed;
        let waiting = waiting || !self.deferred.is_empty() || state.pause.is_some();
        let retry = self.retry_at.filter(|_| waiting);
        let close = state.close_by.filter(|_| state.closed);
        [acks, sync, ledger, retry, close].into_iter().flatten().min()
    }

    fn close_is_over(&self, state: &State) -> bool {
        state.closed && state.close_by.is_some_and(|by| self.now() >= by)
    }

    fn is_done(&self) -> bool {
        let state = self.shared.state();
        let idle = self.group.is_empty()
            && state.appends.is_empty()
            && state.requests.is_empty()
            && self.deferred.is_empty();
        state.closed && ((idle && self.store.is_some()) || self.close_is_over(&state))
    }

    fn finish(mut self) {
        if self.store.is_some() {
            let result = self.commit_acks().and_then(|()| self.sync());
            self.note(result);
            self.write_ledger(true);
        }
        if let Some(store) = self.store.take() {
            discard(store);
        }
        let mut state = self.shared.state();
        state.requests.clear();
        state.appends.clear();
    }
}

/// Is the output past the block that it has refused?
fn is_passed(goals: &BTreeMap<String, u64>, (output, seq): &(String, u64)) -> bool {
    goals.get(output).is_some_and(|next| seq < next)
}

fn in_doubt(error: StoreError) -> StoreError {
    match error {
        StoreError::Full(text) => StoreError::Io(format!("no disk space: {text}")),
        other => other,
    }
}

/// A full disk while tidying up is no reason to stop appending.
trait FilterFull {
    fn filter_full(self) -> Self;
}

impl FilterFull for Result<(), StoreError> {
    fn filter_full(self) -> Self {
        if matches!(self, Err(StoreError::Full(_))) { Ok(()) } else { self }
    }
}

pub(crate) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Free space for this process; `None` where the system does not say.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
