//! The committer against a real spool: what becomes durable together, and what a full spool does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use custody_event::position::Fingerprint;
use custody_event::{
    Block, Coverage, FileIdentity, MAX_BLOCK_EVENTS, Offset, SourceBook, StreamId, SystemClock,
    Timestamp,
};

use super::worker::{After, Events, Parsed, Worked, WorkedItem};
use super::{
    Books, Committer, CommitterParts, OwnAct, OwnEvents, StreamState, Undelivered, Underway,
    dropped_untold,
};
use crate::identity::AgentIdentity;
use crate::runtime::ClockForSpool;
use crate::sources::{Item, Mark, Notice, SourceIndex};
use crate::spool::{Options, Spool, SpoolHandle};

/// A spool with room for `max_bytes`, one output, and two sources.
struct Bench {
    dir: tempfile::TempDir,
    spool: SpoolHandle,
    state: StreamState,
    drop_when_full: bool,
}

fn open(dir: &Path, max_bytes: u64) -> SpoolHandle {
    let options = Options { min_free_bytes: 1, ..Options::for_max_bytes(max_bytes) };
    let clock = Arc::new(ClockForSpool(Arc::new(SystemClock::new())));
    Spool::open(&dir.join("spool"), options, clock).unwrap().0
}

impl Bench {
    fn new(max_bytes: u64, drop_when_full: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), max_bytes);
        spool.register_outputs(&["c"]).wait().unwrap();
        Self { dir, spool, state: StreamState::begin(StreamId([3; 16])), drop_when_full }
    }

    /// What a pipeline does with these items from its start to its end.
    fn commit(&mut self, items: Vec<WorkedItem>) {
        let identity = AgentIdentity::load_or_create(self.dir.path(), "web1").unwrap();
        let books = self.spool.scan_prefix(Books::prefix()).wait().unwrap();
        let parts = CommitterParts {
            own: OwnEvents::new(
                &identity.host_id,
                &self.state.stream,
                identity.agent.to_hex(),
                "web1".into(),
                "t".into(),
            ),
            identity: Arc::new(identity),
            state: self.state.clone(),
            books: Books::from_saved(&books).unwrap(),
            clock: Arc::new(SystemClock::new()),
            linger: Duration::from_secs(3600),
            spool: self.spool.clone(),
            drop_when_full: self.drop_when_full,
            dropped: dropped_untold(&self.spool).unwrap(),
            sources: vec![("a".into(), Arc::default()), ("b".into(), Arc::default())],
        };
        let (underway_tx, underway): (_, Receiver<Underway>) = bounded(1_000);
        let mut committer = Committer::new(parts, underway_tx).unwrap();
        let (sender, worked) = bounded(items.len().max(1));
        for (ticket, output) in (0..).zip(items) {
            sender.send(Worked { ticket, bytes: 1, output }).unwrap();
        }
        drop(sender);
        committer.run(&worked).unwrap();
        self.state = committer.into_parts().state;
        for batch in underway.try_iter() {
            batch.ticket.wait().unwrap();
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let stats = self.spool.stats();
        let held = stats.first_seq..self.spool.durable().borrow().next_seq;
        held.filter_map(|seq| self.spool.read(seq).wait().unwrap())
            .map(|bytes| Block::decode(&bytes).unwrap())
            .collect()
    }

    fn text(&self) -> String {
        let events = self.blocks().into_iter().flat_map(|block| {
            let opened = block.open().unwrap();
            opened.events().map(|(_, event)| event.to_vec()).collect::<Vec<_>>()
        });
        let lines: Vec<String> = events.map(|event| String::from_utf8(event).unwrap()).collect();
        lines.join("\n")
    }
}

fn book_of(block: &Block, source: &str) -> SourceBook {
    block.header.books.get(source).copied().unwrap_or_default()
}

fn identity() -> FileIdentity {
    FileIdentity {
        ino: 7,
        fingerprint: Fingerprint::of_first_record(b"first\n"),
        ..FileIdentity::of_place("file", b"x")
    }
}

/// `count` events of `len` bytes each, of a source, about the same file as the other's.
fn events(source: u16, count: u32, len: usize) -> WorkedItem {
    let line = |number: u32| {
        let mut noise = vec![0; len / 2];
        getrandom::fill(&mut noise).unwrap();
        let noise: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{\"n\":{number},\"x\":\"{noise}\"}}\n")
    };
    let text: String = (0..count).map(line).collect();
    let now = Timestamp::Y2020;
    let stored = u64::from(count);
    WorkedItem::Events(vec![Parsed {
        source: SourceIndex(source),
        events: Events::Text { text: text.into_bytes(), count, times: (now, now) },
        book: SourceBook { read: stored, stored, ..SourceBook::default() },
        unmatched: 0,
        coverage: Coverage {
            file: identity(),
            from: Offset(0),
            path: "/x".into(),
            records: stored,
            source: if source == 0 { "a".into() } else { "b".into() },
            to: Offset(stored),
        },
        after: After::Marks(Vec::new()),
        promise: None,
    }])
}

fn gap(records: u64) -> WorkedItem {
    let notice = Notice::new(SourceIndex(0), "journal_vacuumed", "Lost.".into(), Timestamp::Y2020);
    WorkedItem::Other(Item::Gap(Notice {
        records: Some(records),
        marks: vec![Mark {
            key: b"seq".to_vec(),
            value: Some(b"behind".to_vec()),
            also_when_dropped: true,
        }],
        ..notice
    }))
}

#[test]
fn two_sources_on_one_file_never_share_a_block_for_their_events_have_the_same_ids() {
    let mut bench = Bench::new(1 << 20, false);
    bench.commit(vec![events(0, 3, 20), events(0, 2, 20), events(1, 3, 20), events(0, 1, 20)]);
    let counts: Vec<(u64, u64)> = bench
        .blocks()
        .iter()
        .map(|block| {
            let sources: std::collections::BTreeSet<String> =
                block.coverage().unwrap().into_iter().map(|range| range.source).collect();
            (u64::from(block.header.count), u64::try_from(sources.len()).unwrap())
        })
        .collect();
    assert_eq!(counts, [(5, 1), (3, 1), (1, 1)]);
}

#[test]
fn a_gap_that_finds_the_block_full_takes_its_mark_and_its_count_with_it_into_the_next() {
    let mut bench = Bench::new(1 << 20, false);
    let full = u32::try_from(MAX_BLOCK_EVENTS).unwrap();
    bench.commit(vec![events(0, full, 20), gap(7)]);
    let blocks = bench.blocks();
    assert_eq!(blocks.len(), 2);
    assert_eq!(book_of(&blocks[0], "a").gap, 0, "the block without the event counts it");
    assert_eq!(book_of(&blocks[1], "a").gap, 7);
}

#[test]
fn what_a_full_spool_dropped_is_told_over_a_stop_and_a_kill() {
    let mut bench = Bench::new(6_000, true);
    // The first block fits, the second and the third do not.
    bench.commit(vec![events(0, 1, 5_000), events(1, 5, 2_000)]);
    bench.commit(vec![events(1, 4, 2_000)]);
    assert_eq!(bench.blocks().len(), 1);
    assert_eq!(dropped_untold(&bench.spool).unwrap(), 9, "the count is durable");
    let generation = bench.spool.stats().generation;
    bench.spool.ack("c", generation, 1).unwrap();
    let begun = std::time::Instant::now();
    while bench.spool.stats().blocks > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the spool does not free the block");
        std::thread::sleep(Duration::from_millis(5));
    }
    // There is room again: it is told although nothing else comes.
    bench.commit(Vec::new());
    let text = bench.text();
    assert!(text.contains("spool_full") && text.contains("\"lost_records\":9"), "{text}");
    assert_eq!(dropped_untold(&bench.spool).unwrap(), 0);
    let events = text.lines().count();
    bench.commit(Vec::new());
    assert_eq!(bench.text().lines().count(), events, "it is told once");
}

/// Output `c` refuses the first block.
fn refused(bench: &Bench) -> Undelivered {
    let gap = Undelivered::of("c", &bench.blocks()[0], "413: too long").unwrap();
    let puts = vec![gap.to_put().unwrap()];
    bench.spool.set_aside("c", 0, "413: too long", puts).wait().unwrap();
    gap
}

#[test]
fn a_gap_of_an_output_is_told_once_and_what_tells_it_makes_no_other() {
    let mut bench = Bench::new(1 << 20, false);
    bench.commit(vec![events(0, 3, 100)]);
    let gap = refused(&bench);
    assert_eq!((gap.block, gap.records), (0, 3));
    assert_eq!(
        Undelivered::untold(&bench.spool).unwrap(),
        std::slice::from_ref(&gap),
        "a crash finds it"
    );
    bench.commit(vec![WorkedItem::Own(OwnAct::Undelivered(gap))]);
    assert_eq!(Undelivered::untold(&bench.spool).unwrap(), []);
    let text = bench.text();
    assert_eq!(text.matches("\"code\":\"output_refused\"").count(), 1, "{text}");
    assert!(text.contains("\"block\":0") && text.contains("\"lost_records\":3"), "{text}");
    // An output that refuses everything refuses this too, and nothing is told of that.
    let telling = bench.blocks().pop().unwrap();
    assert_eq!(Undelivered::of("c", &telling, "413: too long"), None);
}

#[test]
fn a_gap_of_an_output_that_a_full_spool_dropped_stays_noted() {
    let mut measure = Bench::new(1 << 20, false);
    measure.commit(vec![events(0, 1, 5_000)]);
    let len = u64::try_from(measure.blocks()[0].encode().unwrap().len()).unwrap();
    // Room for that block, and not for one that tells a gap.
    let mut bench = Bench::new(len + 200, true);
    bench.commit(vec![events(0, 1, 5_000)]);
    let gap = refused(&bench);
    bench.commit(vec![WorkedItem::Own(OwnAct::Undelivered(gap.clone()))]);
    assert!(!bench.text().contains("output_refused"));
    assert_eq!(Undelivered::untold(&bench.spool).unwrap(), [gap]);
}
