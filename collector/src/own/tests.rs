//! The collector's own stream while the transparency log has no room.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use custody_event::{Seq, SystemClock, Timestamp};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::store::evidence::{Options, StreamName, TlogOptions};

/// Goes, and can be put forward.
struct Forward {
    clock: SystemClock,
    ahead_s: AtomicU64,
}

impl Clock for Forward {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + Duration::from_secs(self.ahead_s.load(Ordering::SeqCst))
    }
}

struct World {
    log: Arc<EvidenceLog>,
    clock: Arc<Forward>,
    own: Arc<OwnStream>,
    acts: Acts,
    agent: AgentId,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load(folder.path()).unwrap();
        let mut options = Options::new(1 << 20);
        options.tlog = Some(TlogOptions {
            folder: folder.path().join("tlog"),
            origin: "collector.example".to_owned(),
            random: [5; 32],
            agents: vec![identity.enrolment()],
        });
        let clock = Arc::new(Forward { clock: SystemClock::new(), ahead_s: AtomicU64::new(0) });
        let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let opened =
            EvidenceLog::open(&folder.path().join("evidence"), &options, Arc::clone(&dynamic));
        let log = Arc::new(opened.unwrap().0);
        let agent = identity.agent();
        let (own, acts) = OwnStream::start(Arc::clone(&log), identity, "test", dynamic).unwrap();
        Self { log, clock, own: Arc::new(own), acts, agent, folder }
    }

    fn tiles(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("tlog/tile"), self.folder.path().join("away"))
    }

    /// Blocks become durable from now on, but their entries do not: it is time again to write these to disk.
    fn take_the_tiles_away(&self) {
        self.clock.ahead_s.fetch_add(3_600, Ordering::SeqCst);
        let (tiles, away) = self.tiles();
        std::fs::rename(&tiles, away).unwrap();
        std::fs::write(tiles, "in the way").unwrap();
    }

    fn give_the_tiles_back(&self) {
        let (tiles, away) = self.tiles();
        std::fs::remove_file(&tiles).unwrap();
        std::fs::rename(away, tiles).unwrap();
    }

    fn stream(&self) -> Option<StreamName> {
        self.log.with_ledger(|ledger| {
            ledger.streams().iter().find(|stream| stream.name.0 == self.agent).map(|s| s.name)
        })
    }

    /// An act that is durable in its segment, and is not answered.
    fn an_act_halfway(&self) -> oneshot::Receiver<()> {
        self.take_the_tiles_away();
        let durable = self.acts.record_durably(started());
        eventually("the block is in its segment", || self.stream());
        durable
    }
}

fn started() -> Act {
    Act::Started { config_sha256: "00".to_owned() }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain: {what}");
}

fn closed(world: &World) {
    let own = Arc::clone(&world.own);
    let closing = std::thread::spawn(move || own.close());
    eventually("the end", || closing.is_finished().then_some(()));
    closing.join().unwrap();
}

#[test]
fn an_act_that_the_transparency_log_had_no_room_for_is_durable_once_there_is_room() {
    let world = World::new();
    let mut durable = world.an_act_halfway();
    assert_eq!(durable.try_recv(), Err(TryRecvError::Empty), "no checkpoint names it");
    world.give_the_tiles_back();
    eventually("the act is durable", || durable.try_recv().ok());
    let name = world.stream().unwrap();
    assert!(world.log.log_index(&name, Seq(0)).is_some(), "a checkpoint names it");
    assert_eq!(world.log.with_ledger(|ledger| ledger.next_seq(&name)), Seq(1), "it is told once");
    closed(&world);
    assert_eq!(world.log.with_ledger(|ledger| ledger.next_seq(&name)), Seq(2), "and so is the end");
}

#[test]
fn the_end_waits_neither_for_room_in_the_log_nor_in_the_queue() {
    let world = World::new();
    let durable = world.an_act_halfway();
    for _ in 0..QUEUE + 10 {
        world.acts.record(started());
    }
    closed(&world);
    assert!(durable.blocking_recv().is_err(), "whoever waited is told that it is not durable");
    world.give_the_tiles_back();
    world.log.close();
}
