//! Exports over everything that may happen to them while they are made.

mod schedules;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use custody_config::Period;
use custody_config::collector::{CollectorConfig, TenantQuota};
use custody_event::{Clock, Digest, Draft, EventId, Field, Target, Timestamp};
use custody_evidence::verify::{Trust, verify_bundle};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::work::Desk;
use super::*;
use crate::access::{Access, Authenticator, Permission, Permissions, Principal, Scope};
use crate::index::tests::{Spec as EventSpec, event};
use crate::index::{IndexOptions, Indexer};
use crate::query::api::QueryState;
use crate::store::BlockSource;
use crate::store::evidence::{Checked, EvidenceLog, Options as LogOptions, Outcome, TlogOptions};
use crate::testing::TestStream;
use crate::tlog::Enrolment;

/// A clock that stands until it is set.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

const NOW: i64 = 1_791_000_000_000_000;
const BASE: i64 = 1_790_000_000_000_000;

/// A collector's rooms around its exports.
struct House {
    dir: tempfile::TempDir,
    log: Arc<EvidenceLog>,
    stream: TestStream,
    indexer: Indexer,
    source: Source,
    clock: Arc<Hand>,
}

fn options() -> Options {
    Options {
        pause_every: Duration::ZERO,
        group_rows: 40,
        ..Options::from(&CollectorConfig::with_defaults("h"))
    }
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(NOW)));
        let shared: Arc<dyn Clock> = Arc::<Hand>::clone(&clock);
        Access::open(dir.path(), Arc::clone(&shared)).unwrap();
        let stream = TestStream::new(1, 1, "aa");
        let agent =
            Enrolment { agent: stream.agent, host: stream.host.clone(), key: stream.key.public() };
        let mut log_options = LogOptions::new(1 << 20);
        log_options.tlog = Some(TlogOptions {
            folder: dir.path().join("tlog"),
            origin: "test/log".to_owned(),
            random: [9; 32],
            agents: vec![agent],
        });
        let evidence = dir.path().join("evidence");
        let (log, _) = EvidenceLog::open(&evidence, &log_options, Arc::clone(&shared)).unwrap();
        let log = Arc::new(log);
        let index =
            IndexOptions { arena_bytes: 16_000_000, ..IndexOptions::new(dir.path().join("index")) };
        let blocks: Arc<dyn BlockSource> = Arc::<EvidenceLog>::clone(&log);
        let (store, indexer) =
            Indexer::open(index, Arc::clone(&blocks), Arc::clone(&shared)).unwrap();
        let source = Source {
            store,
            blocks,
            log: Some(Arc::clone(&log)),
            clock: shared,
            acts: None,
            accounts: None,
        };
        Self { dir, log, stream, indexer, source, clock }
    }

    /// With events of these numbers, found.
    fn with(numbers: std::ops::Range<u64>) -> Self {
        let mut house = Self::new();
        house.add(numbers);
        house
    }

    fn add(&mut self, numbers: std::ops::Range<u64>) {
        let all: Vec<u64> = numbers.collect();
        for some in all.chunks(25) {
            let specs = some.iter().map(|number| event(&spec(*number)));
            self.add_events(specs);
        }
    }

    fn add_events(&mut self, events: impl Iterator<Item = Vec<u8>>) {
        for event in events {
            self.stream.raw_event(std::str::from_utf8(&event).unwrap());
        }
        let block = self.stream.seal();
        let checked = Arc::new(Checked {
            bytes: block.encode().unwrap(),
            coverage: Vec::new(),
            block,
            keys_version: 0,
            _permit: None,
        });
        let outcome = self.log.submit(&checked).unwrap().blocking_recv().unwrap();
        assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
        self.indexer.catch_up(|_| {}).unwrap();
    }

    fn desk(&self, options: Options) -> Desk {
        Desk::open(self.dir.path(), self.source.clone(), options).unwrap()
    }

    /// Makes an export in one go; gives its entry and its file.
    fn made(&self, format: Format, q: &str) -> (Row, Vec<u8>) {
        self.made_in(format, Words::Custody, q)
    }

    fn made_in(&self, format: Format, words: Words, q: &str) -> (Row, Vec<u8>) {
        let desk = self.desk(options());
        let row = desk.queue(said(format, words, q), "ann").unwrap();
        assert!(desk.work().unwrap());
        let row = desk.table.get(&row.id).unwrap().unwrap();
        assert_eq!((row.status, row.told.error.as_deref()), (Status::Completed, None));
        let file = std::fs::read(desk.file_path(&row)).unwrap();
        assert_eq!(row.told.sha256.as_deref(), Some(Digest::of(&file).to_hex().as_str()));
        assert_eq!(row.told.bytes, wide(file.len()));
        (row, file)
    }

    /// What an export of everything must hold, oldest first.
    fn events(&self, numbers: std::ops::Range<u64>) -> Vec<u8> {
        numbers.flat_map(|number| [event(&spec(number)), b"\n".to_vec()].concat()).collect()
    }
}

fn spec(number: u64) -> EventSpec {
    let small = |of: u64| u8::try_from(number % of).unwrap();
    EventSpec {
        number,
        time: BASE + i64::try_from(number).unwrap() * 1_000_000,
        actor: small(4),
        action: small(3),
        ip: small(6),
        text: small(5),
    }
}

fn wanted(format: Format, q: &str) -> Spec {
    said(format, Words::Custody, q)
}

/// Every kind of file that there is.
fn kinds() -> impl Iterator<Item = (Format, Words)> {
    let each = |words: Words| Format::ALL.map(|format| (format, words));
    Words::ALL.into_iter().flat_map(each).filter(|(format, words)| words.fits(*format))
}

fn said(format: Format, words: Words, q: &str) -> Spec {
    Spec {
        name: "Everything of \"Q3\"".to_owned(),
        format,
        q: q.to_owned(),
        from: None,
        to: None,
        bom: false,
        words,
        scopes: Vec::new(),
        schedule: None,
    }
}

#[test]
fn every_event_is_there_once_and_in_order() {
    let house = House::with(0..300);
    let all = house.events(0..300);
    let (row, ndjson) = house.made(Format::Ndjson, "");
    assert_eq!((row.told.rows, row.told.rows_total), (300, Some(300)));
    assert_eq!(ndjson, all);
    let (_, json) = house.made(Format::Json, "");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let lines: Vec<serde_json::Value> = all
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(list, lines);
    let (row, csv) = house.made(Format::Csv, "actor:root");
    assert_eq!(row.told.rows, 75);
    let text = String::from_utf8(csv).unwrap();
    assert!(text.starts_with("time,severity,category,action,op,outcome,reason.code,actor.name,"));
    assert_eq!(text.matches("line ").count(), 75);
    for format in Format::ALL {
        let (row, file) = house.made(format, "nosuchword");
        assert_eq!(row.told.rows, 0, "{format:?}");
        assert!(format == Format::Ndjson || !file.is_empty(), "{format:?}");
    }
}

#[test]
fn an_export_that_is_killed_anywhere_goes_on_to_the_same_bytes() {
    let house = House::with(0..300);
    for (format, words) in kinds() {
        let desk = house.desk(options());
        let whole = desk.queue(said(format, words, "-actor:admin"), "ann").unwrap();
        assert!(desk.work().unwrap());
        let whole = desk.table.get(&whole.id).unwrap().unwrap();
        let expected = std::fs::read(desk.file_path(&whole)).unwrap();
        let row =
            Row { id: super::work::new_id().unwrap(), status: Status::Queued, ..whole.clone() };
        let row = Row { told: Told::default(), ..row };
        desk.table.add(&row).unwrap();
        for kill_at in [0, 1, 2, 39, 40, 41, 100, 199, 224] {
            // As after kill -9: a new desk, and only what stands on the disk.
            let desk = house.desk(options());
            let (mut row, progress) = desk.table.claim().unwrap().unwrap();
            let watch = |rows| if rows >= kill_at { Err(ExportError::Stopped) } else { Ok(()) };
            let ended = super::job::run(&desk, &mut row, progress, &watch);
            assert!(matches!(ended, Err(ExportError::Stopped)), "{format:?} {kill_at}: {ended:?}");
        }
        let desk = house.desk(options());
        assert!(desk.work().unwrap());
        let row = desk.table.get(&row.id).unwrap().unwrap();
        assert_eq!((row.status, row.told.rows), (Status::Completed, 225), "{format:?}");
        let found = std::fs::read(desk.file_path(&row)).unwrap();
        assert!(found == expected, "{format:?}: {} {}", found.len(), expected.len());
        assert!(!desk.part_path(&row).try_exists().unwrap());
    }
}

#[test]
fn progress_is_really_taken_up_and_not_begun_anew() {
    let house = House::with(0..120);
    for format in [Format::Ndjson, Format::Pdf, Format::Bundle] {
        let desk = house.desk(options());
        let row = desk.queue(wanted(format, ""), "ann").unwrap();
        let (mut claimed, progress) = desk.table.claim().unwrap().unwrap();
        let watch = |rows| if rows >= 100 { Err(ExportError::Stopped) } else { Ok(()) };
        assert!(super::job::run(&desk, &mut claimed, progress, &watch).is_err());
        let desk = house.desk(options());
        let (mut claimed, progress) = desk.table.claim().unwrap().unwrap();
        assert_eq!(claimed.id, row.id);
        let least = Mutex::new(u64::MAX);
        let watch = |rows: u64| {
            let mut least = least.lock().unwrap();
            *least = rows.min(*least);
            Ok(())
        };
        super::job::run(&desk, &mut claimed, progress, &watch).unwrap();
        // A bundle is left between two blocks only.
        assert!((75..=100).contains(&*least.lock().unwrap()), "{format:?}: {least:?}");
        assert!(desk.table.finish(&claimed).unwrap());
    }
}

#[test]
fn a_part_that_is_gone_or_too_short_is_made_anew() {
    let house = House::with(0..60);
    let expected = house.events(0..60);
    for spoil in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| std::fs::write(path, b"{").unwrap(),
    ] {
        let desk = house.desk(options());
        desk.queue(wanted(Format::Ndjson, ""), "ann").unwrap();
        let (mut row, progress) = desk.table.claim().unwrap().unwrap();
        let watch = |rows| if rows >= 30 { Err(ExportError::Stopped) } else { Ok(()) };
        assert!(super::job::run(&desk, &mut row, progress, &watch).is_err());
        spoil(&desk.part_path(&row));
        let desk = house.desk(options());
        assert!(desk.work().unwrap());
        assert_eq!(std::fs::read(desk.file_path(&row)).unwrap(), expected);
    }
}

#[test]
fn what_arrives_later_does_not_mix_in() {
    let mut house = House::with(0..100);
    for format in [Format::Ndjson, Format::Bundle] {
        let desk = house.desk(options());
        desk.queue(wanted(format, ""), "ann").unwrap();
        let (mut row, progress) = desk.table.claim().unwrap().unwrap();
        let watch = |rows| if rows >= 50 { Err(ExportError::Stopped) } else { Ok(()) };
        assert!(super::job::run(&desk, &mut row, progress, &watch).is_err());
        // Older and newer by their own times.
        let before = if format == Format::Ndjson { 100 } else { 250 };
        house.add(before..before + 150);
        let desk = house.desk(options());
        assert!(desk.work().unwrap());
        let row = desk.table.get(&row.id).unwrap().unwrap();
        assert_eq!(row.told.rows, before, "{format:?}");
    }
}

#[test]
fn a_bundle_verifies_and_shows_only_what_was_asked_for() {
    let house = House::with(0..300);
    for (q, rows) in [("", 300), ("actor:root", 75), ("actor:root \"contract 77\"", 15), ("no", 0)]
    {
        let (row, file) = house.made(Format::Bundle, q);
        assert_eq!(row.told.rows, rows, "{q}");
        let key = house.log.tlog().unwrap().verifier().clone();
        let trust = Trust { log: Some(key), ..Trust::default() };
        let report = verify_bundle(file.as_slice(), "export", &trust).unwrap();
        assert!(report.verified, "{q}: {}", report.to_text());
        let raw = |number: u64| format!("line {number} of the log");
        assert_eq!(bytes_in(&file, &raw(2)), 0, "bodies are packed: look at the events instead");
        assert!(row.told.proof.is_none());
    }
}

fn bytes_in(file: &[u8], text: &str) -> usize {
    file.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

#[test]
fn the_proof_names_the_file_and_is_signed() {
    let house = House::with(0..50);
    let (row, file) = house.made(Format::Csv, "actor:root");
    let mut proof: serde_json::Value =
        serde_json::from_str(row.told.proof.as_deref().unwrap()).unwrap();
    assert_eq!(proof["sha256"], Digest::of(&file).to_hex());
    assert_eq!(proof["rows"], 13);
    let (_, ndjson) = house.made(Format::Ndjson, "actor:root");
    assert_eq!(proof["events_sha256"], Digest::of(&ndjson).to_hex());
    let tlog = house.log.tlog().unwrap();
    let note = proof["checkpoint"].as_str().unwrap().to_owned();
    custody_evidence::Checkpoint::open(&note, tlog.verifier()).unwrap();
    let signature = proof.as_object_mut().unwrap().remove("signature").unwrap();
    let signature = custody_event::ids::parse_hex::<64>(signature.as_str().unwrap()).unwrap();
    let signed = [b"custody export v1\n", proof.to_string().as_bytes()].concat();
    assert!(tlog.verifier().public().holds(&signed, &signature));
}

/// Two events with everything that CSV can stumble over.
fn awkward() -> Vec<Vec<u8>> {
    let one = |number: u8, actor: &str, message: &str| {
        let mut draft = Draft::new();
        draft.id(EventId([number; 16]));
        let time = Timestamp::from_micros(BASE + i64::from(number) * 500_001);
        draft.time(Field::Time, time);
        draft.time(Field::Observed, time);
        draft.text(Field::ActorName, actor.to_owned());
        draft.text(Field::ActorRoles, "admin");
        draft.text(Field::ActorRoles, "a \"b\", c");
        draft.text(Field::Action, "contact.update");
        draft.text(Field::Message, message.to_owned());
        draft.text(Field::OriginAgent, "a1");
        draft.text(Field::OriginInput, "test");
        draft.int(Field::SourcePort, 22);
        draft.target(Target {
            kind: Some("contact".into()),
            name: Some("O'Neil, \"Bob\"".into()),
            ..Target::default()
        });
        let mut out = Vec::new();
        draft.finish(&mut out);
        out
    };
    vec![
        one(1, "=cmd|'/C calc'!A0", "two\r\nlines, \"quoted\"\nand José 管理者 \u{1f600}"),
        one(2, "+49 30 1", "-1+1"),
        one(3, "@SUM(A1)", "\tafter a tab"),
    ]
}

#[test]
fn csv_is_as_it_always_was() {
    let mut house = House::new();
    house.add_events(awkward().into_iter());
    let (_, csv) = house.made(Format::Csv, "");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/golden/awkward.csv");
    if std::env::var_os("CUSTODY_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &csv).unwrap();
    }
    assert!(csv == std::fs::read(&golden).unwrap(), "{}", String::from_utf8_lossy(&csv));
}

fn ann() -> Principal {
    Principal::new("ann", Permissions::ALL)
}

#[test]
fn scope_bounds_what_an_export_holds() {
    let house = House::with(0..100);
    let desk = house.desk(options());
    let scope = Scope { hosts: vec!["web1".to_owned()], ..Scope::ALL };
    let bounded = Principal { scopes: vec![scope].into(), ..ann() };
    for q in ["", "-host:web1", "host:web1 OR host:web-2.example.org"] {
        let asked = |format: &str| super::ask::Asked {
            name: "x".to_owned(),
            format: format.to_owned(),
            q: q.to_owned(),
            ..Default::default()
        };
        let now = house.source.clock.now();
        let spec = asked("ndjson").spec(now, &desk.options, true, &bounded).unwrap();
        let row = desk.queue(spec, "ann").unwrap();
        assert!(desk.work().unwrap());
        let row = desk.table.get(&row.id).unwrap().unwrap();
        assert_eq!(row.told.rows, if q == "-host:web1" { 0 } else { 50 }, "{q}");
        let text = std::fs::read_to_string(desk.file_path(&row)).unwrap();
        assert!(!text.contains("web-2"), "{q}");
        let refused = asked("bundle").spec(now, &desk.options, true, &bounded).unwrap_err();
        assert_eq!((refused.status, refused.parameter.as_deref()), (422, Some("format")));
    }
}

#[test]
fn what_is_too_long_fails_and_leaves_nothing() {
    let house = House::with(0..100);
    let desk =
        house.desk(Options { room: Room { max_bytes: 5_000, ..options().room }, ..options() });
    for format in Format::ALL {
        let row = desk.queue(wanted(format, ""), "ann").unwrap();
        assert!(desk.work().unwrap());
        let row = desk.table.get(&row.id).unwrap().unwrap();
        assert_eq!(row.status, Status::Failed, "{format:?}");
        assert!(row.told.error.as_deref().unwrap().contains("5000 bytes"), "{format:?}: {row:?}");
        assert!(!desk.part_path(&row).try_exists().unwrap());
        assert!(!desk.file_path(&row).try_exists().unwrap());
    }
}

#[test]
fn exports_together_take_no_more_than_they_may_and_leave_the_evidence_its_space() {
    let house = House::with(0..100);
    let (_, first) = house.made(Format::Ndjson, "");
    let max_total_bytes = wide(first.len()) * 5 / 2;
    let room = Room { max_total_bytes, ..options().room };
    let desk = house.desk(Options { room, ..options() });
    let made = |desk: &Desk| {
        let row = desk.queue(wanted(Format::Ndjson, ""), "ann").unwrap();
        assert!(desk.work().unwrap());
        desk.table.get(&row.id).unwrap().unwrap()
    };
    let taken = || {
        let files = std::fs::read_dir(house.dir.path().join("exports")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let done = made(&desk);
    assert_eq!(done.status, Status::Completed, "the second of two and a half");
    let failed = made(&desk);
    assert_eq!(failed.status, Status::Failed);
    assert_eq!(taken(), 2 * wide(first.len()));
    let error = failed.told.error.clone().unwrap();
    assert!(error.contains("exports.max_total_bytes"), "{error}");
    assert!(!desk.part_path(&failed).try_exists().unwrap());
    assert!(desk.delete(&done, "ann").unwrap());
    assert_eq!(made(&desk).status, Status::Completed, "there is room again");

    let room = Room { min_free_bytes: u64::MAX, ..options().room };
    let desk = house.desk(Options { room, ..options() });
    let error = made(&desk).told.error.unwrap();
    assert!(error.contains("leave"), "{error}");
}

#[test]
fn exports_end_before_evidence_would_leave_the_log_for_want_of_space() {
    let read = |text: &str| {
        let overrides = custody_config::collector::CollectorOverrides::default();
        let env = custody_config::Env::default();
        let path = std::path::Path::new("collector.yaml");
        let config = CollectorConfig::from_text(path, text, &overrides, &env).unwrap();
        Room::from(&config.value).min_free_bytes
    };
    let space = "space: { archive_below: 8GiB }\n";
    assert!(
        read(&format!("{space}archive: {{ type: dir, path: /mnt/x, after: 30d }}\n")) > 8 << 30
    );
    assert_eq!(read(space), 512 << 20, "nothing leaves it without an archive");
}

#[test]
fn quotas_refuse_what_reaches_too_far() {
    let days = |days| Some(Period::days(days));
    let options = Options { max_range: days(92), max_age: days(366), ..options() };
    let now = Timestamp::from_micros(NOW);
    let ask = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        let (name, format) = ("x".to_owned(), "csv".to_owned());
        super::ask::Asked { name, format, from, to, ..Default::default() }
            .spec(now, &options, true, &ann())
            .map_err(|problem| {
                let named = |name: &&str| problem.parameter.as_deref() == Some(*name);
                (problem.status, ["from", "to"].into_iter().find(named))
            })
    };
    assert_eq!(ask("30d", "").unwrap().to, Some(now), "an open end is now");
    assert!(ask("365d", "300d").is_ok());
    assert_eq!(ask("", ""), Err((422, Some("from"))));
    assert_eq!(ask("400d", "390d"), Err((422, Some("from"))));
    assert_eq!(ask("100d", ""), Err((422, Some("to"))));
    assert_eq!(ask("x", ""), Err((400, Some("from"))));
    let open = Options { max_range: None, max_age: None, ..options.clone() };
    for (name, format, q, parameter) in [
        ("", "csv", "", "name"),
        ("a\nb", "csv", "", "name"),
        ("x", "xlsx", "", "format"),
        ("x", "csv", "actor:(", "q"),
    ] {
        let asked = super::ask::Asked {
            name: name.to_owned(),
            format: format.to_owned(),
            q: q.to_owned(),
            ..Default::default()
        };
        let problem = asked.spec(now, &open, true, &ann()).unwrap_err();
        let found = (problem.status, problem.parameter.as_deref());
        assert_eq!(found, (400, Some(parameter)), "{name:?} {q:?}");
    }
}

#[test]
fn whoever_sees_one_tenant_only_is_held_to_its_quota_and_to_that_of_all() {
    let days = |days| Some(Period::days(days));
    let quota = |tenant: &str, max_range, max_age| TenantQuota {
        tenant: vec![tenant.to_owned()],
        max_range,
        max_age,
    };
    let tenants = vec![quota("Acme", days(31), None), quota("globex", days(400), days(60))];
    let options = Options { max_range: days(92), max_age: days(366), tenants, ..options() };
    let ask = |tenants: &[&str], from: &str, to: &str| {
        let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
        let who = Principal { scopes: [Scope { tenants, ..Scope::ALL }].into(), ..ann() };
        let (from, to) = (from.to_owned(), to.to_owned());
        let (name, format) = ("x".to_owned(), "csv".to_owned());
        super::ask::Asked { name, format, from, to, ..Default::default() }
            .spec(Timestamp::from_micros(NOW), &options, true, &who)
            .map(|_| ())
            .map_err(|problem| {
                let key = ["exports.tenants", "exports.max_range", "exports.max_age"]
                    .into_iter()
                    .find(|key| problem.detail.contains(key));
                format!("{} by {}", problem.parameter.unwrap_or_default(), key.unwrap_or_default())
            })
    };
    let refused = |what: &str| Err(what.to_owned());
    assert_eq!(ask(&[], "90d", ""), Ok(()), "no tenant, no bound of a tenant");
    assert_eq!(ask(&["acme"], "90d", ""), refused("to by exports.tenants"));
    assert_eq!(ask(&["acme"], "300d", "280d"), Ok(()));
    assert_eq!(ask(&["glob*"], "80d", "70d"), refused("from by exports.tenants"));
    assert_eq!(ask(&["globex"], "50d", ""), Ok(()));
    assert_eq!(
        ask(&["globex", "acme"], "50d", ""),
        refused("to by exports.tenants"),
        "the tightest"
    );
    assert_eq!(ask(&["globex"], "500d", "400d"), refused("from by exports.tenants"));
    assert_eq!(ask(&["acme"], "500d", "490d"), refused("from by exports.max_age"), "as of all");
    assert_eq!(ask(&["initech"], "100d", ""), refused("to by exports.max_range"));
    // To see one tenant more loosens nothing.
    assert_eq!(ask(&["acme", "initech"], "90d", ""), refused("to by exports.tenants"));
    assert_eq!(ask(&["initech"], "90d", ""), Ok(()));
}

#[test]
fn files_expire_and_the_history_stays() {
    let house = House::with(0..10);
    let desk = house.desk(options());
    let row = desk.queue(wanted(Format::Csv, ""), "ann").unwrap();
    assert!(desk.work().unwrap());
    std::fs::write(house.dir.path().join("exports/0123.csv.part"), b"of nobody").unwrap();
    desk.keep_house().unwrap();
    assert!(desk.file_path(&row).try_exists().unwrap());
    house.clock.0.fetch_add(8 * 86_400_000_000, Ordering::Relaxed);
    desk.keep_house().unwrap();
    assert!(!desk.file_path(&row).try_exists().unwrap());
    let row = desk.table.get(&row.id).unwrap().unwrap();
    assert_eq!((row.status, row.told.rows), (Status::Expired, 10));
    assert!(row.told.sha256.is_some() && row.told.proof.is_some());
    drop(house.desk(options()));
    assert_eq!(std::fs::read_dir(house.dir.path().join("exports")).unwrap().count(), 0);
}

#[test]
fn an_export_that_is_deleted_while_it_is_made_ends_and_leaves_nothing() {
    let house = House::with(0..100);
    let desk = house.desk(options());
    desk.queue(wanted(Format::Ndjson, ""), "ann").unwrap();
    let (mut row, progress) = desk.table.claim().unwrap().unwrap();
    let id = row.id.clone();
    let watch = |rows| {
        if rows == 50 {
            desk.table.remove(&id).unwrap();
        }
        Ok(())
    };
    let ended = super::job::run(&desk, &mut row, progress, &watch);
    assert!(matches!(ended, Err(ExportError::Deleted)), "{ended:?}");
}

struct Doors;

impl Authenticator for Doors {
    fn check(&self, bearer: &str) -> Option<Principal> {
        use Permission::{Export, Search, ViewRaw, ViewSensitive};
        let permissions = match bearer {
            "root" => Permissions::ALL,
            "ann" | "bob" => Permissions::of(&[Search, ViewRaw, ViewSensitive, Export]),
            "viewer" => Permissions::of(&[Search, ViewRaw]),
            "blind" => Permissions::of(&[Search, Export]),
            _ => return None,
        };
        Some(Principal::new(bearer, permissions))
    }
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Api {
    router: axum::Router,
    exports: Arc<Exports>,
    _house: House,
}

impl Api {
    fn new() -> Self {
        let house = House::with(0..100);
        let options = Options { pause_every: Duration::from_secs(2), ..options() };
        let exports = Exports::start(house.dir.path(), house.source.clone(), options).unwrap();
        let query = QueryState {
            store: Arc::clone(&house.source.store),
            auth: Arc::new(Doors),
            clock: Arc::clone(&house.source.clock),
            prover: None,
            acts: None,
        };
        let router = super::router(query, Arc::clone(&exports));
        Self { router, exports, _house: house }
    }

    async fn send(&self, who: &str, method: &str, path: &str, body: &str) -> Answer {
        self.with(who, method, path, body, &[]).await
    }

    async fn with(
        &self,
        who: &str,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(header::HeaderName, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {who}"));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn made(&self, who: &str, body: &str) -> String {
        let answer = self.send(who, "POST", "/v1/exports", body).await;
        assert_eq!(
            answer.status,
            StatusCode::ACCEPTED,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        for _ in 0..600 {
            let entry = self.send(who, "GET", &format!("/v1/exports/{id}"), "").await.json();
            if entry["status"] == "completed" {
                return id;
            }
            assert!(entry["status"] == "queued" || entry["status"] == "running", "{entry}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the export does not complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_makes_shows_sends_and_deletes() {
    let api = tokio::task::spawn_blocking(Api::new).await.unwrap();
    let id = api.made("ann", r#"{"name":"a","format":"ndjson","q":"actor:root"}"#).await;
    let path = format!("/v1/exports/{id}/download");
    let whole = api.send("ann", "GET", &path, "").await;
    assert_eq!(whole.status, StatusCode::OK);
    let tag = whole.headers[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", Digest::of(&whole.body)));
    assert!(whole.headers[header::CONTENT_DISPOSITION].to_str().unwrap().contains("a.ndjson"));
    let rest = [(header::RANGE, "bytes=100-"), (header::IF_RANGE, tag.as_str())];
    let rest = api.with("ann", "GET", &path, "", &rest).await;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(rest.body, whole.body[100..]);
    let range = format!("bytes 100-{}/{}", whole.body.len() - 1, whole.body.len());
    assert_eq!(rest.headers[header::CONTENT_RANGE], range);
    let beyond = api.with("ann", "GET", &path, "", &[(header::RANGE, "bytes=9999999-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let same = api.with("ann", "GET", &path, "", &[(header::IF_NONE_MATCH, &tag)]).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let proof = api.send("ann", "GET", &format!("/v1/exports/{id}/proof"), "").await.json();
    assert_eq!(proof["rows"], 25);
    for number in 0..5 {
        api.made("ann", &format!(r#"{{"name":"n{number}","format":"csv"}}"#)).await;
    }
    let mut seen = Vec::new();
    let mut next = "/v1/exports?limit=2".to_owned();
    loop {
        let page = api.send("ann", "GET", &next, "").await.json();
        seen.extend(page["exports"].as_array().unwrap().iter().map(|e| e["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("/v1/exports?limit=2&cursor={cursor}");
    }
    seen.sort_by_key(ToString::to_string);
    seen.dedup();
    assert_eq!(seen.len(), 6);
    let gone = api.send("ann", "DELETE", &format!("/v1/exports/{id}"), "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(api.send("ann", "GET", &path, "").await.status, StatusCode::NOT_FOUND);
    let exports = Arc::clone(&api.exports);
    tokio::task::spawn_blocking(move || exports.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_fetches_what_is_not_theirs() {
    let api = tokio::task::spawn_blocking(Api::new).await.unwrap();
    let id = api.made("ann", r#"{"name":"a","format":"csv"}"#).await;
    let plan = r#"{"name":"n","every":"day","at":"02:00","format":"csv","period":"previous_day"}"#;
    let schedule = api.send("ann", "POST", "/v1/schedules", plan).await;
    assert_eq!(schedule.status, StatusCode::CREATED);
    let schedule = schedule.json()["id"].as_str().unwrap().to_owned();
    let routes = [
        ("GET", "/v1/exports".to_owned()),
        ("POST", "/v1/exports".to_owned()),
        ("GET", format!("/v1/exports/{id}")),
        ("GET", format!("/v1/exports/{id}/download")),
        ("GET", format!("/v1/exports/{id}/proof")),
        ("DELETE", format!("/v1/exports/{id}")),
        ("GET", "/v1/schedules".to_owned()),
        ("POST", "/v1/schedules".to_owned()),
        ("DELETE", format!("/v1/schedules/{schedule}")),
    ];
    for (method, path) in &routes {
        for (who, expected) in [("nobody", 401), ("viewer", 403), ("blind", 403)] {
            let answer = api.send(who, method, path, "{}").await;
            assert_eq!(answer.status.as_u16(), expected, "{who} {method} {path}");
        }
        let bob = api.send("bob", method, path, "{}").await;
        if path.contains(&id) || path.contains(&schedule) {
            assert_eq!(bob.status, StatusCode::NOT_FOUND, "{method} {path}");
            let other = path.replace(&id, &"0".repeat(32)).replace(&schedule, &"0".repeat(32));
            assert_eq!(api.send("bob", method, &other, "").await.body, bob.body, "{path}");
        } else if *method == "GET" {
            let text = String::from_utf8(bob.body).unwrap();
            assert!(!text.contains(&id) && !text.contains(&schedule), "{text}");
        }
    }
    let seen = api.send("root", "GET", "/v1/exports", "").await.json();
    assert_eq!(seen["exports"][0]["created_by"], "ann", "an administrator sees all");
    let gone = api.send("root", "DELETE", &format!("/v1/schedules/{schedule}"), "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let exports = Arc::clone(&api.exports);
    tokio::task::spawn_blocking(move || exports.stop()).await.unwrap();
}

#[test]
fn a_form_that_a_format_does_not_have_is_refused_and_the_others_are_the_forms_themselves() {
    let house = House::with(0..50);
    let events = house.events(0..50);
    let lines = |bytes: &[u8]| -> Vec<serde_json::Value> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    };
    let forms = |of: fn(&[u8]) -> serde_json::Value| -> Vec<serde_json::Value> {
        events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(of).collect()
    };
    let ocsf = forms(|event| custody_event::ocsf::form(event).unwrap());
    let (row, file) = house.made_in(Format::Ndjson, Words::Ocsf, "");
    assert_eq!(lines(&file), ocsf);
    let proof: serde_json::Value =
        serde_json::from_str(row.told.proof.as_deref().unwrap()).unwrap();
    assert_eq!(proof["form"], "ocsf");
    assert_eq!(proof["events_sha256"], Digest::of(&events).to_hex(), "of the canonical events");
    let (_, file) = house.made_in(Format::Json, Words::Ocsf, "");
    assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&file).unwrap(), ocsf);
    let (_, file) = house.made_in(Format::Ndjson, Words::Ecs, "");
    assert_eq!(lines(&file), forms(|event| custody_event::ecs::form(event).unwrap()));
    for (format, form, expected) in [
        ("parquet", "ocsf", Ok(())),
        ("csv", "custody", Ok(())),
        ("csv", "", Ok(())),
        ("csv", "ocsf", Err((422, Some("form")))),
        ("pdf", "ocsf", Err((422, Some("form")))),
        ("bundle", "ecs", Err((422, Some("form")))),
        ("parquet", "ecs", Err((422, Some("form")))),
        ("json", "cef", Err((400, Some("form")))),
    ] {
        let asked = super::ask::Asked {
            name: "x".to_owned(),
            format: format.to_owned(),
            form: form.to_owned(),
            ..Default::default()
        };
        let found = asked.spec(Timestamp::from_micros(NOW), &options(), true, &ann());
        let found = found.map(|_| ()).map_err(|problem| {
            let named = problem.parameter.as_deref() == Some("form");
            (problem.status, named.then_some("form"))
        });
        assert_eq!(found, expected, "{format} {form}");
    }
}
