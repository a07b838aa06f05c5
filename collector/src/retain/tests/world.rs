//! A data directory with everything in it that a collector has, and a clock that can be moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use custody_config::Env;
use custody_config::collector::{CollectorConfig, CollectorOverrides};
use custody_event::{Clock, Draft, EventId, Field, SystemClock, Timestamp};
use custody_evidence::bundle::{BundleWriter, Manifest, Place, Scope};
use custody_evidence::tlog::{FileTiles, Kind, Prover, TILE_WIDTH, Tile, TileRead, bundle_entries};
use tempfile::TempDir;

use super::super::{Given, Hooks, NewErasure, OnStep, Retain};
use crate::access::Access;
use crate::index::{
    EmbeddedStore, EventStore, Hit, IndexOptions, Indexer, RunnerHandle, SearchRequest,
    StatsRequest, has_term,
};
use crate::own::{Acts, Identity, OwnStream};
use crate::query::line;
use crate::store::evidence::{
    Checked, EvidenceLog, Options, Outcome, TlogOptions, folder_in, read_segment,
};
use crate::store::{BlockSource, LogCursor};
use crate::testing::TestStream;
use crate::tlog::Enrolment;

/// Stands in every event that is to expire first.
pub(in crate::retain) const GONE: &str = "zqexpired";
/// Stands in every event that is to be erased.
pub(in crate::retain) const VICTIM: &str = "zqvictim";

/// A clock whose wall time is moved by hand.
pub(in crate::retain) struct Moved {
    now: AtomicI64,
    real: SystemClock,
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.fetch_add(1, Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }
}

impl Moved {
    pub(in crate::retain) fn pass_days(&self, days: i64) {
        self.now.fetch_add(days * 86_400_000_000, Ordering::Relaxed);
    }
}

/// Event number `n`: even ones are of category api and expire first, one in a hundred of the others
/// is the victim's.
pub(in crate::retain) fn event(n: u32) -> String {
    let mut draft = Draft::new();
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
    id[12..].copy_from_slice(&n.to_be_bytes());
    draft.id(EventId(id));
    let time = Timestamp::from_micros(1_790_000_000_000_000 + i64::from(n) * 1_000);
    draft.time(Field::Time, time);
    draft.time(Field::Observed, time);
    draft.text(Field::Action, "contact.view");
    draft.text(Field::Host, "web1");
    draft.text(Field::OriginInput, "test");
    let is_victim = n % 100 == 7;
    if n.is_multiple_of(2) {
        draft.text(Field::Category, "api");
        draft.text(Field::ActorName, format!("{GONE}{n}"));
        draft.text(Field::Message, format!("call {n} of {GONE}"));
    } else {
        draft.text(Field::Category, "access");
        let who = if is_victim { format!("{VICTIM}@example.org") } else { format!("user{n}") };
        draft.text(Field::Message, format!("{who} looked at contact {n}"));
        draft.text(Field::ActorName, who);
    }
    let mut out = Vec::new();
    draft.finish(&mut out);
    String::from_utf8(out).unwrap()
}

pub(in crate::retain) fn class(category: &str, days: u32) -> String {
    format!(
        "retention: {{ default: 400d, classes: [{{ category: [{category}], keep: {days}d }}] }}\n"
    )
}

pub(in crate::retain) fn subject(key: &str, value: &str) -> NewErasure {
    NewErasure {
        subject: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        reason: "asked by the person".to_owned(),
        ..NewErasure::default()
    }
}

/// Waits until this holds.
pub(in crate::retain) fn until(what: &str, holds: impl Fn() -> bool) {
    let clock = SystemClock::new();
    while !holds() {
        assert!(clock.monotonic() < Duration::from_secs(120), "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// See the module.
pub(in crate::retain) struct World {
    dir: TempDir,
    yaml: String,
    pub(in crate::retain) clock: Arc<Moved>,
}

/// Everything open.
pub(in crate::retain) struct Open {
    pub(in crate::retain) retain: Arc<Retain>,
    pub(in crate::retain) log: Arc<EvidenceLog>,
    pub(in crate::retain) store: Arc<EmbeddedStore>,
    stream: TestStream,
    acts: Acts,
    own: Option<OwnStream>,
    runner: Option<RunnerHandle>,
}

/// Where a word was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::retain) struct Found {
    /// In a block's body, decompressed.
    pub(in crate::retain) log: bool,
    /// In a term dictionary of the index.
    pub(in crate::retain) index: bool,
    /// In any file as it stands.
    pub(in crate::retain) raw: bool,
}

impl Found {
    pub(in crate::retain) const NOWHERE: Self = Self { log: false, index: false, raw: false };
}

impl World {
    pub(in crate::retain) fn new(yaml: &str) -> Self {
        let clock = Moved { now: AtomicI64::new(1_790_000_000_000_000), real: SystemClock::new() };
        let dir = tempfile::tempdir().unwrap();
        Self { dir, yaml: yaml.to_owned(), clock: Arc::new(clock) }
    }

    pub(in crate::retain) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(in crate::retain) fn add_yaml(&mut self, yaml: &str) {
        self.yaml.push_str(yaml);
    }

    pub(in crate::retain) fn open(&self) -> Open {
        self.open_with(Arc::new(|_| Ok(())))
    }

    pub(in crate::retain) fn open_with(&self, on_step: OnStep) -> Open {
        open_in(self.path(), &self.yaml, &self.clock, on_step)
    }

    pub(in crate::retain) fn open_hooked(&self, hooks: Hooks) -> Open {
        open_hooked_in(self.path(), &self.yaml, &self.clock, hooks)
    }

    /// A part of the index that was set aside, as after damage.
    pub(in crate::retain) fn index_aside(&self) -> PathBuf {
        let path = self.path().join("index/2026-01-01.damaged");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("x"), GONE).unwrap();
        path
    }

    /// Searches everything on the disk.
    pub(in crate::retain) fn bytes_of(
        &self,
        words: &[&'static str],
    ) -> BTreeMap<&'static str, Found> {
        let mut found: BTreeMap<_, _> =
            words.iter().map(|word| (*word, Found::default())).collect();
        each_file(self.path(), &mut |path| {
            let bytes = std::fs::read(path).unwrap();
            let is_segment = path.to_str().unwrap().contains(".seg");
            for (word, found) in &mut found {
                found.raw |= has(&bytes, word);
                if is_segment {
                    found.log |= in_segment(path, word);
                }
            }
        });
        for day in std::fs::read_dir(self.path().join("index")).unwrap() {
            let day = day.unwrap().path();
            if day.join("meta.json").is_file() {
                for (word, found) in &mut found {
                    found.index |= has_term(&day, word.as_bytes()).unwrap();
                }
            }
        }
        found
    }
}

fn has(bytes: &[u8], word: &str) -> bool {
    memchr::memmem::find(bytes, word.as_bytes()).is_some()
}

fn each_file(dir: &Path, take: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { each_file(&path, take) } else { take(&path) }
    }
}

fn in_segment(path: &Path, word: &str) -> bool {
    let mut found = false;
    read_segment(path, &mut |stored| {
        let opened = stored.block.open().unwrap();
        found |= opened.events().any(|(_, event)| has(event, word));
        Ok(!found)
    })
    .unwrap();
    found
}

pub(in crate::retain) fn open_in(
    dir: &Path,
    yaml: &str,
    clock: &Arc<Moved>,
    on_step: OnStep,
) -> Open {
    open_hooked_in(dir, yaml, clock, Hooks { on_step, ..Hooks::default() })
}

fn open_hooked_in(dir: &Path, yaml: &str, clock: &Arc<Moved>, hooks: Hooks) -> Open {
    let clock: Arc<dyn Clock> = Arc::<Moved>::clone(clock);
    let overrides = CollectorOverrides::default();
    let config = CollectorConfig::from_text(Path::new("c.yaml"), yaml, &overrides, &Env::default());
    let config = config.unwrap().value;
    drop(Access::open(dir, Arc::clone(&clock)).unwrap());
    let identity = Identity::load(dir).unwrap();
    let agent = identity.agent();
    let mut stream = TestStream::new(1, 1, "aa");
    let who =
        Enrolment { agent: stream.agent, host: stream.host.clone(), key: stream.key.public() };
    let mut options = Options::new(2 * 1024 * 1024);
    options.tlog = Some(TlogOptions {
        folder: dir.join("tlog"),
        origin: "test/log".to_owned(),
        random: [9; 32],
        agents: vec![who, identity.enrolment()],
    });
    let (log, _) = EvidenceLog::open(&folder_in(dir), &options, Arc::clone(&clock)).unwrap();
    let log = Arc::new(log);
    let name = (stream.agent, stream.stream);
    log.with_ledger(|ledger| {
        if let Some(known) = ledger.stream(&name) {
            stream.go_on(known.chain.next_seq, known.chain.last_hash);
        }
    });
    let (own, acts) =
        OwnStream::start(Arc::clone(&log), identity, "test", Arc::clone(&clock)).unwrap();
    let options = IndexOptions { commit_after_ms: 20, ..IndexOptions::new(dir.join("index")) };
    let source: Arc<dyn BlockSource> = Arc::<EvidenceLog>::clone(&log);
    let (store, indexer) = Indexer::open(options, source, Arc::clone(&clock)).unwrap();
    let given = Given {
        config: &config,
        data_dir: dir,
        log: Arc::clone(&log),
        index: Some(Arc::clone(&store)),
        clock,
        acts: Some(acts.clone()),
        own: agent,
    };
    let retain = Arc::new(Retain::open_with(given, hooks).unwrap());
    let runner = Some(indexer.start().unwrap());
    Open { retain, log, store, stream, acts, own: Some(own), runner }
}

impl Open {
    /// Blocks of a thousand of these events.
    pub(in crate::retain) fn store(&mut self, events: impl Iterator<Item = String>) {
        let events: Vec<String> = events.collect();
        events.chunks(1_000).for_each(|events| self.store_block(events));
    }

    fn store_block(&mut self, events: &[String]) {
        events.iter().for_each(|event| self.stream.raw_event(event));
        let block = self.stream.seal();
        let checked = Arc::new(Checked {
            bytes: block.encode().unwrap(),
            coverage: block.coverage().unwrap(),
            keys_version: self.log.tlog().unwrap().version(),
            _permit: None,
            block,
        });
        loop {
            match self.log.submit(&checked).unwrap().blocking_recv().unwrap() {
                Outcome::Recheck => {}
                outcome => {
                    assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
                    return;
                }
            }
        }
    }

    pub(in crate::retain) fn wait_indexed(&self) {
        let end = *self.log.durable_end().borrow();
        let begun = std::time::Duration::from_secs(120);
        let clock = SystemClock::new();
        let searchable = self.store.searchable();
        loop {
            let at = *searchable.borrow();
            if at >= end
                || (at.segment + 1 == end.segment && self.log.next_from(at).unwrap().is_none())
            {
                return;
            }
            assert!(clock.monotonic() < begun, "the index stands at {at:?} of {end:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(in crate::retain) fn count(&self, q: &str) -> u64 {
        self.wait_indexed();
        let filter = line::parse(q, Timestamp::Y2020).unwrap();
        let request = StatsRequest { filter, ..StatsRequest::default() };
        self.store.stats(&request).unwrap().total
    }

    pub(in crate::retain) fn events(&self, q: &str) -> Vec<Hit> {
        self.wait_indexed();
        let filter = line::parse(q, Timestamp::Y2020).unwrap();
        let mut request = SearchRequest { filter, limit: 1_000, ..SearchRequest::default() };
        let mut hits = Vec::new();
        loop {
            let page = self.store.search(&request).unwrap();
            hits.extend(page.hits);
            request.after = page.next;
            if request.after.is_none() {
                return hits;
            }
        }
    }

    /// Everything there is now as a bundle, and its checkpoint.
    pub(in crate::retain) fn bundle(&self) -> (Vec<u8>, String) {
        let tlog = self.log.tlog().unwrap();
        tlog.flush(Duration::ZERO).unwrap();
        let (note, size) = (tlog.checkpoint().to_string(), tlog.head().size);
        tlog.save_up_to(size).unwrap();
        let tiles = FileTiles::new(&self.retain.data_dir.join("tlog"));
        let manifest = Manifest {
            end: size,
            first: 0,
            made: Timestamp::Y2020,
            origin: "test/log".to_owned(),
            query: String::new(),
            scope: Scope::Log,
            streams: Vec::new(),
            v: 1,
        };
        let mut out = BundleWriter::new(Vec::new(), &manifest).unwrap();
        out.log_key(tlog.verifier()).unwrap();
        out.checkpoint(&note).unwrap();
        let mut prover = Prover::new(&tiles, size);
        let mut at = LogCursor::default();
        for index in 0..size {
            let tile = Tile::in_tree(Kind::Entries, index / TILE_WIDTH, size).unwrap();
            let bytes = tiles.read_tile(&tile).unwrap();
            let entries = bundle_entries(&bytes).unwrap();
            let entry = entries[usize::try_from(index % TILE_WIDTH).unwrap()];
            let place = Place { index: Some(index), path: prover.inclusion(index).unwrap() };
            if entry[0] == 1 {
                let stored = self.log.next_from(at).unwrap().unwrap();
                at = stored.next;
                out.block(&place, &stored.block.encode().unwrap()).unwrap();
            } else {
                out.entry(&place, entry).unwrap();
            }
        }
        (out.finish().unwrap(), note)
    }

    /// Ends the collector's own stream, if it has not ended yet.
    pub(in crate::retain) fn end_own(&mut self) {
        if let Some(own) = self.own.take() {
            own.close();
        }
    }

    /// Two closed segments of a thousand events each.
    pub(in crate::retain) fn store_two_segments(&mut self) {
        for first in [0, 1_000] {
            self.store((first..first + 1_000).map(event));
            self.log.close_segment().unwrap();
        }
        self.wait_indexed();
    }

    /// An erasure of the victim's events that two people have agreed on; gives its number.
    pub(in crate::retain) fn agree_to_erase(&self) -> i64 {
        let new = subject("actor.name", &format!("{VICTIM}@example.org"));
        let (row, _) = self.retain.ask(&new, "anna").unwrap();
        self.retain.approve(row.id, &super::person("bert")).unwrap();
        row.id
    }

    /// Events of the victim that can be found.
    pub(in crate::retain) fn victims(&self) -> u64 {
        self.count(&format!("action:contact.view actor:{VICTIM}@example.org"))
    }

    /// Ends everything in order.
    pub(in crate::retain) fn close(mut self) {
        self.end_own();
        drop(self.acts);
        self.runner.take().unwrap().stop();
        self.log.close();
    }
}
