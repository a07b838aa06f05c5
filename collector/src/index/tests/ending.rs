//! A stop ends every wait of those who write the index.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::index::handle::Doing;
use crate::store::{LogCursor, StoreError, StoredBlock};

/// A log whose reading can be held up: by the runner, or by all others.
struct Gated {
    log: Arc<MemoryLog>,
    holds_runner: bool,
    /// Is the gate shut, and how many wait before it?
    gate: Mutex<(bool, usize)>,
    moved: Condvar,
    reads: AtomicUsize,
}

impl Gated {
    fn new(bench: &Bench, holds_runner: bool) -> Arc<Self> {
        let log = Arc::clone(&bench.log);
        let (gate, moved, reads) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        Arc::new(Self { log, holds_runner, gate, moved, reads })
    }

    fn set_shut(&self, shut: bool) {
        self.gate.lock().unwrap().0 = shut;
        self.moved.notify_all();
    }

    fn wait_for_somebody_before_it(&self) {
        let gate = self.gate.lock().unwrap();
        drop(self.moved.wait_while(gate, |(_, waiting)| *waiting == 0).unwrap());
    }
}

impl BlockSource for Gated {
    fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError> {
        self.log.read_at(at)
    }

    fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError> {
        let is_runner = std::thread::current().name() == Some("index");
        if is_runner != self.holds_runner {
            return self.log.next_from(from);
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut gate = self.gate.lock().unwrap();
        gate.1 += 1;
        self.moved.notify_all();
        gate = self.moved.wait_while(gate, |(shut, _)| *shut).unwrap();
        gate.1 -= 1;
        drop(gate);
        self.log.next_from(from)
    }

    fn durable_end(&self) -> tokio::sync::watch::Receiver<LogCursor> {
        self.log.durable_end()
    }
}

/// What fails is tried again after ten minutes: whoever waits for that waits in vain.
fn patient(bench: &Bench) -> IndexOptions {
    IndexOptions { retry_after_ms: 600_000, ..bench.options() }
}

fn open_gated(bench: &Bench, source: &Arc<Gated>) -> (Arc<EmbeddedStore>, Indexer) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Indexer::open(patient(bench), Arc::clone(source) as Arc<dyn BlockSource>, clock).unwrap()
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_index_that_waits_to_write_again_on_a_full_disk_ends_at_once() {
    let bench = Bench::new();
    let (store, indexer) = open(patient(&bench), &bench.log);
    // Nothing can be made any more where the index is.
    let dir = patient(&bench).dir;
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    let mut runner = indexer.start().unwrap();
    fill_days(&bench, 1);
    wait_for("the error", || store.shared.doing() == Doing::WaitingToTryAgain);
    assert!(runner.end(SOON), "it waits until it may try again");
    std::fs::remove_file(&dir).unwrap();
    expect_all(&bench, 30);
}

#[test]
fn a_day_that_is_being_made_anew_ends_between_two_blocks_and_is_made_anew_later() {
    let bench = Bench::new();
    fill_days(&bench, 2);
    let source = Gated::new(&bench, false);
    let (store, indexer) = open_gated(&bench, &source);
    let mut runner = indexer.start().unwrap();
    let end = *bench.log.durable_end().borrow();
    wait_for("searchable", || *store.searchable().borrow() == end);
    let all = BTreeSet::from([0]);
    std::thread::scope(|scope| {
        source.set_shut(true);
        let remake = scope.spawn(|| store.remake(&all));
        source.wait_for_somebody_before_it();
        store.stop();
        source.set_shut(false);
        assert!(matches!(remake.join().unwrap(), Err(IndexError::Stopped)));
        assert_eq!(source.reads.load(Ordering::SeqCst), 1, "it went on reading");
    });
    assert!(runner.end(SOON));
    expect_all(&bench, 60);
}

#[test]
fn a_thread_that_hangs_in_its_disk_does_not_hold_up_the_end() {
    let bench = Bench::new();
    let source = Gated::new(&bench, true);
    let (store, indexer) = open_gated(&bench, &source);
    source.set_shut(true);
    let mut runner = indexer.start().unwrap();
    source.wait_for_somebody_before_it();
    assert!(!runner.end(Duration::from_millis(20)), "it hangs");
    assert_eq!(store.shared.doing(), Doing::ReadingTheLog);
    source.set_shut(false);
    // Also what asks the index then is answered.
    wait_for("the end", || matches!(store.remake(&BTreeSet::new()), Err(IndexError::Stopped)));
}
