//! The index against a list that is searched naively, and against the hazards of its life.

mod ending;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custody_event::{
    Change, Clock, Detail, Draft, EventId, EventView, Field, SystemClock, Target, Timestamp,
};
use proptest::prelude::*;

use super::memory::MemoryLog;
use super::*;
use crate::query::filter::{Expr, Filter, Findable};
use crate::query::line;
use crate::store::Receipt;

/// What varies between the events of a test.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) number: u64,
    pub(crate) time: i64,
    pub(crate) actor: u8,
    pub(crate) action: u8,
    pub(crate) ip: u8,
    pub(crate) text: u8,
}

const ACTORS: [&str; 4] = ["Jane.Doe@Company.com", "root", "admin", "José"];
const ACTIONS: [&str; 4] =
    ["authentication.login", "data.export", "data.import", "settings.retention_policy.update"];
const IPS: [&str; 6] =
    ["203.0.113.7", "203.0.113.200", "10.1.2.3", "2001:db8::1", "2001:db8:0:7::9", ""];
const TEXTS: [&str; 5] = [
    "signed the contract 77 today",
    "contract 770 and 77 more",
    "Failed password for invalid user from 10.1.2.3 port 22",
    "管理者 changed sess_abc123",
    "",
];

const SESSIONS: [&str; 4] =
    ["s1", "5f00aa11bb22cc33", "5F00AA11-bb22-cc33-dd44-ee55ff660077", "sess 5f00aa11bb22cc44"];
const REQUESTS: [&str; 3] = ["", "Req0123456789AB", "req-0123456789ab"];

pub(crate) fn event(spec: &Spec) -> Vec<u8> {
    let mut draft = Draft::new();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&spec.number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&spec.number.to_be_bytes());
    draft.id(EventId(id));
    let time = Timestamp::from_micros(spec.time);
    draft.time(Field::Time, time);
    draft.time(Field::Observed, time);
    draft.text(Field::ActorName, ACTORS[usize::from(spec.actor) % ACTORS.len()]);
    draft.text(Field::Action, ACTIONS[usize::from(spec.action) % ACTIONS.len()]);
    draft.text(Field::Outcome, if spec.action.is_multiple_of(2) { "success" } else { "failure" });
    draft
        .text(Field::Host, if spec.actor.is_multiple_of(2) { "web1" } else { "web-2.example.org" });
    draft.text(Field::SourceIp, IPS[usize::from(spec.ip) % IPS.len()]);
    draft.text(Field::OriginAgent, "a1");
    draft.text(Field::OriginInput, "test");
    if spec.text.is_multiple_of(3) {
        draft.text(Field::SessionId, SESSIONS[usize::from(spec.actor / 4) % SESSIONS.len()]);
        draft.detail("count", Detail::Int(i64::from(spec.text)));
        draft.target(Target {
            kind: Some("contact".into()),
            id: Some("12345".into()),
            ..Target::default()
        });
        draft.change(Change {
            field: "plan".into(),
            before: Some(Detail::Text("Free".into())),
            after: Some(Detail::Text("<script>alert(1)</script>".into())),
            masked: false,
        });
    }
    draft.text(Field::TraceRequestId, REQUESTS[usize::from(spec.ip / 8) % REQUESTS.len()]);
    draft.text(Field::Message, TEXTS[usize::from(spec.text) % TEXTS.len()]);
    let call = if spec.action > 127 { " call REQ0123456789ab" } else { "" };
    draft.text(Field::OriginRaw, format!("line {} of the log{call}", spec.number));
    let mut out = Vec::new();
    draft.finish(&mut out);
    out
}

const DAY: i64 = 86_400_000_000;
const BASE: i64 = 1_790_000_000_000_000;

pub(crate) fn text_of(specs: &[Spec]) -> Vec<u8> {
    let mut text = Vec::new();
    for spec in specs {
        text.extend_from_slice(&event(spec));
        text.push(b'\n');
    }
    text
}

fn receipt(day: i64, held: Vec<(u32, u32)>) -> Receipt {
    Receipt { held, received: Timestamp::from_micros(BASE + day * DAY) }
}

pub(crate) struct Bench {
    pub(crate) log: Arc<MemoryLog>,
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { log: Arc::new(MemoryLog::new(None).unwrap()), dir: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> IndexOptions {
        options(&self.dir.path().join("index"))
    }

    pub(crate) fn open(&self) -> (Arc<EmbeddedStore>, Indexer) {
        open(self.options(), &self.log)
    }

    /// Everything indexed.
    pub(crate) fn indexed(&self) -> (Arc<EmbeddedStore>, Indexer) {
        let (store, mut indexer) = self.open();
        indexer.catch_up(|_| {}).unwrap();
        (store, indexer)
    }
}

fn options(dir: &Path) -> IndexOptions {
    IndexOptions { arena_bytes: 16_000_000, commit_after_ms: 20, ..IndexOptions::new(dir) }
}

fn open(options: IndexOptions, log: &Arc<MemoryLog>) -> (Arc<EmbeddedStore>, Indexer) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Indexer::open(options, Arc::clone(log) as Arc<dyn crate::store::BlockSource>, clock).unwrap()
}

pub(crate) fn filter(text: &str) -> Filter {
    line::parse(text, Timestamp::from_micros(BASE)).unwrap()
}

fn request(filter: Filter, limit: usize) -> SearchRequest {
    SearchRequest { filter, limit, total: true, ..SearchRequest::default() }
}

/// All pages, one after the other.
fn all(
    store: &dyn EventStore,
    filter: &Filter,
    direction: Direction,
    limit: usize,
) -> Vec<Vec<u8>> {
    let mut request = SearchRequest { direction, ..request(filter.clone(), limit) };
    let mut events = Vec::new();
    loop {
        let page = store.search(&request).unwrap();
        events.extend(page.hits.into_iter().map(|hit| hit.event));
        match page.next {
            Some(next) => request.after = Some(next),
            None => return events,
        }
    }
}

/// What a naive search finds: (time, order of coming) descending.
fn naive(held: &[(i64, usize, Vec<u8>)], filter: &Filter) -> Vec<Vec<u8>> {
    let mut found: Vec<_> = held
        .iter()
        .filter(|(time, _, event)| {
            filter.from.is_none_or(|from| *time >= from.micros())
                && filter.to.is_none_or(|to| *time < to.micros())
                && filter.expr.matches(&Findable::of(&EventView::read(event).unwrap()))
        })
        .collect();
    found.sort_by_key(|(time, order, _)| std::cmp::Reverse((*time, *order)));
    found.into_iter().map(|(_, _, event)| event.clone()).collect()
}

fn specs() -> impl Strategy<Value = Vec<Vec<Spec>>> {
    let one = (0_i64..200, any::<[u8; 4]>());
    let blocks = proptest::collection::vec(proptest::collection::vec(one, 0..12), 1..12);
    blocks.prop_map(|blocks| {
        let mut number = 0;
        let spec = |(time, [actor, action, ip, text]): (i64, [u8; 4])| {
            number += 1;
            Spec { number, time: BASE + time * 1_000_000, actor, action, ip, text }
        };
        let mut spec = spec;
        blocks.into_iter().map(|block| block.into_iter().map(&mut spec).collect()).collect()
    })
}

const LINES: &[&str] = &[
    "",
    "actor:root",
    "actor:jane.doe@company.com",
    "actor:*@company.com",
    "actor:JOSÉ",
    "action:data.*",
    "action:*.update",
    "action:s*.update",
    "outcome:failure host:web1",
    "-outcome:failure",
    "-host:web1 -actor:admin",
    "ip:203.0.113.0/24",
    "ip:203.0.113.0/25",
    "ip:10.0.0.0/8",
    "ip:0.0.0.0/0",
    "ip:2001:db8::/32",
    "ip:2001:db8::/64",
    "ip:2001:db8::1",
    "ip:::/0",
    "ip:::/80",
    "-ip:::/0",
    "contract",
    "CONTRACT -770",
    "\"contract 77\"",
    "-\"contract 77\"",
    "\"contract 77\" OR actor:root",
    "NOT (\"contract 77\" OR actor:root)",
    "jane company.com",
    "web-2.example.org",
    "sess_abc123",
    "管理",
    "pass*",
    "target:contact",
    "target.id:123*",
    "session:*",
    "-session:*",
    "field:plan script",
    "nosuchword",
    "5f00aa11BB22cc33",
    "5f00aa11bb22cc44",
    "5f00*",
    "-5f00aa11bb22*",
    "req0123456789ab",
    "-req0123456789ab",
    "\"call req0123456789ab\"",
    "-\"call req0123456789ab\"",
    "req*",
    "bb22 session:5f*",
    "(actor:root OR actor:admin) action:data.export,data.import",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_search_finds_what_a_naive_one_finds_in_the_same_order(
        blocks in specs(),
        range in (0_i64..200, 0_i64..200),
        limit in 1_usize..9,
    ) {
        let bench = Bench::new();
        let mut held = Vec::new();
        let (store, mut indexer) = bench.open();
        for (day, block) in blocks.iter().enumerate() {
            let leave_out = (day % 3 == 2 && !block.is_empty()).then_some((0, 1));
            bench.log
                .append(&text_of(block), receipt(i64::try_from(day / 4).unwrap(), leave_out.into_iter().collect()))
                .unwrap();
            for (index, spec) in block.iter().enumerate() {
                if leave_out.is_none_or(|(_, last)| index > usize::try_from(last).unwrap()) {
                    held.push((spec.time, held.len(), event(spec)));
                }
            }
            if day % 2 == 0 {
                indexer.catch_up(|_| {}).unwrap();
            }
        }
        indexer.catch_up(|_| {}).unwrap();
        let at = |second: i64| Some(Timestamp::from_micros(BASE + second * 1_000_000));
        for text in LINES {
            for (from, to) in [(None, None), (at(range.0), at(range.1))] {
                let filter = Filter { from, to, ..filter(text) };
                let expected = naive(&held, &filter);
                let found = all(store.as_ref(), &filter, Direction::NewestFirst, limit);
                prop_assert_eq!(&found, &expected, "{:?} {:?}", text, (from, to));
                let mut backwards = all(store.as_ref(), &filter, Direction::OldestFirst, limit);
                backwards.reverse();
                prop_assert_eq!(&backwards, &expected, "{:?} backwards", text);
                let page = store.search(&request(filter.clone(), limit)).unwrap();
                if page.total.exact {
                    prop_assert_eq!(page.total.value, u64::try_from(expected.len()).unwrap());
                }
                if !filter.expr.needs_text() {
                    prop_assert!(page.total.exact);
                    let stats = StatsRequest { filter, group_by: Some(terms::Tag::Action), interval_micros: Some(7_000_000), ..StatsRequest::default() };
                    let stats = store.stats(&stats).unwrap();
                    prop_assert_eq!(stats.total, page.total.value);
                    prop_assert_eq!(stats.groups.iter().map(|(_, count)| count).sum::<u64>(), stats.total);
                    prop_assert_eq!(stats.spans.iter().map(|(_, count)| count).sum::<u64>(), stats.total);
                }
            }
        }
        for (_, _, event) in &held {
            let id = EventView::read(event).unwrap().id;
            let (hit, _) = store.find(id, &|_| true).unwrap().unwrap();
            prop_assert_eq!(&hit.event, event);
        }
        prop_assert!(store.find(EventId([9; 16]), &|_| true).unwrap().is_none());
    }
}

fn run_of(numbers: std::ops::Range<u64>) -> Vec<Spec> {
    numbers
        .map(|number| Spec {
            number,
            time: BASE + i64::try_from(number).unwrap(),
            actor: u8::try_from(number % 4).unwrap(),
            action: u8::try_from(number % 3).unwrap(),
            ip: u8::try_from(number % 6).unwrap(),
            text: u8::try_from(number % 5).unwrap(),
        })
        .collect()
}

fn numbers_of(events: &[Vec<u8>]) -> Vec<u64> {
    events
        .iter()
        .map(|event| {
            let id = EventView::read(event).unwrap().id;
            u64::from_be_bytes(id.0[8..].try_into().unwrap())
        })
        .collect()
}

#[test]
fn new_events_do_not_move_the_pages_behind_a_cursor() {
    let bench = Bench::new();
    bench.log.append(&text_of(&run_of(0..100)), receipt(0, vec![])).unwrap();
    let (store, mut indexer) = bench.indexed();
    let mut seen = Vec::new();
    let mut ask = request(filter("-actor:nobody"), 7);
    let mut next_new = 100;
    loop {
        let page = store.search(&ask).unwrap();
        seen.extend(page.hits.iter().map(|hit| hit.event.clone()));
        let Some(next) = page.next else { break };
        ask.after = Some(next);
        let newer = text_of(&run_of(next_new..next_new + 5));
        bench.log.append(&newer, receipt(1, vec![])).unwrap();
        next_new += 5;
        indexer.catch_up(|_| {}).unwrap();
    }
    assert_eq!(numbers_of(&seen), (0..100).rev().collect::<Vec<_>>());
}

#[test]
fn an_id_that_another_has_too_does_not_hide_the_one_that_may_be_seen() {
    let bench = Bench::new();
    let id = |event: &[u8]| EventView::read(event).unwrap().id;
    let both: Vec<Vec<u8>> = run_of(0..2).iter().map(event).collect();
    let (first, second) = (id(&both[0]), id(&both[1]));
    let text = |event: &[u8]| String::from_utf8(event.to_vec()).unwrap();
    let alike = text(&both[1]).replace(&second.to_hex(), &first.to_hex());
    for event in [text(&both[0]), alike.clone()] {
        bench.log.append(format!("{event}\n").as_bytes(), receipt(0, vec![])).unwrap();
    }
    let (store, _indexer) = bench.indexed();
    for mine in [&both[0][..], alike.as_bytes()] {
        let (hit, _) = store.find(first, &|event| event == mine).unwrap().unwrap();
        assert_eq!(hit.event, mine);
    }
    assert!(store.find(first, &|_| false).unwrap().is_none());
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !done() {
        assert!(clock.monotonic() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_running_index_shows_new_events_by_itself_and_goes_on_after_a_restart() {
    let bench = Bench::new();
    for round in 0..3_u64 {
        let (store, indexer) = bench.open();
        let runner = indexer.start().unwrap();
        for block in 0..5 {
            let first = (round * 5 + block) * 10;
            bench.log.append(&text_of(&run_of(first..first + 10)), receipt(0, vec![])).unwrap();
        }
        let end = *bench.log.durable_end().borrow();
        wait_for("searchable", || *store.searchable().borrow() == end);
        runner.stop();
        let found = all(store.as_ref(), &Filter::default(), Direction::NewestFirst, 1_000);
        assert_eq!(numbers_of(&found), (0..(round + 1) * 50).rev().collect::<Vec<_>>());
    }
}

use crate::store::BlockSource;

#[test]
fn held_events_bare_leaves_and_erased_ones_are_not_found() {
    let bench = Bench::new();
    let specs = run_of(0..10);
    bench.log.append(&text_of(&specs), receipt(0, vec![(2, 4), (9, 9)])).unwrap();
    bench
        .log
        .append_block(&text_of(&run_of(10..20)), receipt(0, vec![]), |block| {
            block.to_sparse(|index, _| index % 2 == 0).unwrap()
        })
        .unwrap();
    let (store, _indexer) = bench.indexed();
    let found = all(store.as_ref(), &Filter::default(), Direction::OldestFirst, 3);
    assert_eq!(numbers_of(&found), [0, 1, 5, 6, 7, 8, 10, 12, 14, 16, 18]);
}

#[test]
fn an_event_that_cannot_be_read_is_counted_and_the_rest_is_found() {
    let bench = Bench::new();
    let mut text = text_of(&run_of(0..2));
    text.extend_from_slice(b"{\"v\":1}\nnot json\n");
    text.extend_from_slice(&text_of(&run_of(2..4)));
    bench.log.append(&text, receipt(0, vec![])).unwrap();
    let (store, mut indexer) = bench.open();
    let progress = indexer.catch_up(|_| {}).unwrap();
    assert_eq!((progress.events, progress.skipped), (4, 2));
    let found = all(store.as_ref(), &Filter::default(), Direction::OldestFirst, 9);
    assert_eq!(numbers_of(&found), [0, 1, 2, 3]);
}

fn fill_days(bench: &Bench, days: i64) {
    for day in 0..days {
        for part in 0..3 {
            let first = u64::try_from(day * 3 + part).unwrap() * 10;
            bench.log.append(&text_of(&run_of(first..first + 10)), receipt(day, vec![])).unwrap();
        }
    }
}

fn days_in(bench: &Bench) -> Vec<std::path::PathBuf> {
    let mut days: Vec<_> = std::fs::read_dir(bench.options().dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.extension().is_none())
        .collect();
    days.sort();
    days
}

fn expect_all(bench: &Bench, events: u64) {
    let (store, _indexer) = bench.indexed();
    let found = all(store.as_ref(), &Filter::default(), Direction::NewestFirst, 100);
    assert_eq!(numbers_of(&found), (0..events).rev().collect::<Vec<_>>());
}

#[test]
fn a_damaged_day_is_set_aside_and_made_again_without_the_others() {
    for damaged in 0..4_usize {
        for way in 0..4 {
            let bench = Bench::new();
            fill_days(&bench, 4);
            drop(bench.indexed());
            let days = days_in(&bench);
            assert_eq!(days.len(), 4);
            let meta = days[damaged].join("meta.json");
            match way {
                0 => std::fs::write(&meta, b"{\"torn").unwrap(),
                1 => std::fs::write(
                    &meta,
                    std::fs::read_to_string(&meta)
                        .unwrap()
                        .replace("\\\"format\\\":2", "\\\"format\\\":9"),
                )
                .unwrap(),
                2 => remove_a_segment_file(&days[damaged]),
                _ => std::fs::remove_file(&meta).unwrap(),
            }
            let kept = days[(damaged + 1) % 4].join("meta.json");
            let before = std::fs::metadata(&kept).unwrap().modified().unwrap();
            expect_all(&bench, 120);
            assert_eq!(days_in(&bench), days);
            let after = std::fs::metadata(&kept).unwrap().modified().unwrap();
            assert_eq!(before, after, "{damaged} {way}: the others are left alone");
            expect_all(&bench, 120);
        }
    }
}

fn remove_a_segment_file(day: &Path) {
    let file = std::fs::read_dir(day)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "term"))
        .unwrap();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_flipped_byte_in_the_newest_day_is_noticed_at_the_start() {
    let bench = Bench::new();
    fill_days(&bench, 2);
    drop(bench.indexed());
    let newest = days_in(&bench).pop().unwrap();
    let file = std::fs::read_dir(&newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "idx"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3] ^= 0x40;
    std::fs::write(&file, bytes).unwrap();
    expect_all(&bench, 60);
    assert!(newest.with_extension("damaged").try_exists().unwrap());
}

#[test]
fn what_a_killed_writer_left_unfinished_goes_at_the_next_start() {
    let bench = Bench::new();
    fill_days(&bench, 2);
    drop(bench.indexed());
    let left = days_in(&bench)[1].join(".tmpAbC123");
    std::fs::write(&left, b"half a meta.json").unwrap();
    expect_all(&bench, 60);
    assert!(!left.try_exists().unwrap());
}

#[test]
fn the_oldest_days_may_be_dropped_and_stay_dropped() {
    let bench = Bench::new();
    fill_days(&bench, 3);
    drop(bench.indexed());
    std::fs::remove_dir_all(&days_in(&bench)[0]).unwrap();
    let (store, _indexer) = bench.indexed();
    let found = all(store.as_ref(), &Filter::default(), Direction::OldestFirst, 100);
    assert_eq!(numbers_of(&found), (30..90).collect::<Vec<_>>());
}

#[test]
fn made_again_or_bit_by_bit_the_index_finds_the_same() {
    let bench = Bench::new();
    let (store, mut indexer) = bench.open();
    for block in 0..40_u64 {
        let numbers = block * 7..block * 7 + 7;
        let day = i64::try_from(block / 15).unwrap();
        bench.log.append(&text_of(&run_of(numbers)), receipt(day, vec![])).unwrap();
        indexer.catch_up(|_| {}).unwrap();
    }
    let ask = |store: &EmbeddedStore| {
        LINES.map_pages(|text| all(store, &filter(text), Direction::NewestFirst, 50))
    };
    let bit_by_bit = ask(&store);
    drop(indexer);
    Indexer::remove(&bench.options()).unwrap();
    let (again, _indexer) = bench.indexed();
    assert_eq!(ask(&again), bit_by_bit);
}

trait MapPages {
    fn map_pages(&self, page: impl FnMut(&str) -> Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>>;
}

impl MapPages for [&str] {
    fn map_pages(&self, mut page: impl FnMut(&str) -> Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
        self.iter().map(|text| page(text)).collect()
    }
}

#[test]
fn two_indexers_of_one_folder_are_one_too_many() {
    let bench = Bench::new();
    let (_store, _indexer) = bench.open();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log = Arc::clone(&bench.log) as Arc<dyn BlockSource>;
    assert!(matches!(
        Indexer::open(bench.options(), log, clock).map(|_| ()),
        Err(IndexError::Busy { .. })
    ));
    assert!(matches!(Indexer::remove(&bench.options()), Err(IndexError::Busy { .. })));
}

#[test]
fn a_clock_that_jumps_back_does_not_tear_a_day() {
    let bench = Bench::new();
    for (block, day) in [(0, 5), (1, 3), (2, 5), (3, 6), (4, 0)] {
        let numbers = block * 10..block * 10 + 10;
        bench.log.append(&text_of(&run_of(numbers)), receipt(day, vec![])).unwrap();
    }
    expect_all(&bench, 50);
    assert_eq!(days_in(&bench).len(), 2);
    expect_all(&bench, 50);
}

/// The log of the kill test, the same in parent and child.
fn kill_log() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(None).unwrap());
    for block in 0..120_u64 {
        let numbers = block * 50..block * 50 + 50;
        let day = i64::try_from(block / 50).unwrap();
        log.append(&text_of(&run_of(numbers)), receipt(day, vec![])).unwrap();
    }
    log
}

const KILLED_DIR: &str = "CUSTODY_TEST_KILLED_INDEX";

/// Not a test by itself: what the parent below kills.
#[test]
fn child_of_the_kill_test() {
    let Some(dir) = std::env::var_os(KILLED_DIR) else { return };
    // Commits as often as it can, so that kills fall into them.
    let options = IndexOptions { commit_after_ms: 0, ..options(Path::new(&dir)) };
    let (_store, mut indexer) = open(options, &kill_log());
    indexer.catch_up(|_| {}).unwrap();
}

#[test]
fn killed_at_any_instant_the_index_goes_on_and_has_each_event_once() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let log = kill_log();
    let mut finished = false;
    for round in 0..40_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::child_of_the_kill_test", "--nocapture"])
            .env(KILLED_DIR, &index)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The instant is the matter of the test; it is spread over the child's life.
        std::thread::sleep(Duration::from_millis(30 + round * 37 % 400));
        finished |= child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 8 == 7 {
            check_prefix(&index, &log);
        }
    }
    let (store, mut indexer) = open(options(&index), &log);
    indexer.catch_up(|_| {}).unwrap();
    let found = all(store.as_ref(), &Filter::default(), Direction::OldestFirst, 1_000);
    assert_eq!(numbers_of(&found), (0..6_000).collect::<Vec<_>>(), "finished: {finished}");
    assert!(
        !std::fs::read_dir(&index)
            .unwrap()
            .any(|entry| { entry.unwrap().path().extension().is_some_and(|end| end == "damaged") }),
        "a kill must not look like damage"
    );
}

/// What a killed indexer left is a beginning of the log, without holes or doubles.
fn check_prefix(index: &Path, log: &Arc<MemoryLog>) {
    let (store, indexer) = open(options(index), log);
    let found = all(store.as_ref(), &Filter::default(), Direction::OldestFirst, 1_000);
    let count = u64::try_from(found.len()).unwrap();
    assert_eq!(numbers_of(&found), (0..count).collect::<Vec<_>>());
    assert_eq!(count % 50, 0, "only whole blocks");
    drop(indexer);
}

#[test]
fn an_index_that_is_damaged_while_it_runs_is_made_again_after_a_failed_search() {
    let bench = Bench::new();
    fill_days(&bench, 1);
    let (store, mut indexer) = bench.indexed();
    store.search(&request(filter("contract"), 5)).unwrap();
    std::fs::write(days_in(&bench)[0].join("meta.json"), b"gone").unwrap();
    indexer.shared_for_tests().suspect.store(true, std::sync::atomic::Ordering::Relaxed);
    indexer.catch_up(|_| {}).unwrap();
    let found = all(store.as_ref(), &Filter::default(), Direction::NewestFirst, 100);
    assert_eq!(found.len(), 30);
}

#[test]
fn a_filter_of_nothing_and_of_everything() {
    let bench = Bench::new();
    let (store, _indexer) = bench.indexed();
    let page = store.search(&request(Filter::default(), 10)).unwrap();
    assert_eq!(
        (page.hits.len(), page.next, page.total),
        (0, None, Total { value: 0, exact: true })
    );
    let nothing = Filter { expr: Expr::Any(Vec::new()), ..Filter::default() };
    fill_days(&bench, 1);
    drop(_indexer);
    let (store, _indexer) = bench.indexed();
    assert!(store.search(&request(nothing, 10)).unwrap().hits.is_empty());
}
