//! Drafted packs load, their tests pass, and they know the log that they were drafted from.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use custody_event::{Offset, Timestamp};
use custody_parsers::{Envelope, NoDraft, PackSet, PackSource, Scratch, Select, Settings, draft};
use proptest::prelude::*;

fn now() -> Timestamp {
    Timestamp::parse("2024-03-01T12:00:00.000000Z").expect("a time")
}

fn checked(yaml: &str) -> PackSet {
    let source = PackSource { name: "draft.yaml".to_owned(), text: yaml.to_owned() };
    PackSet::load(&[source]).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
}

#[test]
fn a_log_of_an_unknown_program_becomes_a_pack_that_passes_its_tests() {
    let mut lines = Vec::new();
    for number in 0..60 {
        let second = number % 60;
        lines.push(format!("2024-02-03 10:11:{second:02} INFO user u{number} logged in from 203.0.113.{number}:4{number:03}"));
        lines.push(format!("2024-02-03 10:11:{second:02} WARN login failed for u{number}@example.com reason=\"bad 'word' {number}\""));
        lines.push(format!("2024-02-03 10:11:{second:02} INFO u{number} changed /etc/shop/{number}.conf in {number} ms"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let drafted = draft("shop", &lines, now()).unwrap();
    let report = checked(&drafted.yaml).run_tests();
    assert!(report.is_good() && report.passed >= 6, "{}", drafted.yaml);
    assert_eq!((drafted.lines, drafted.known), (180, 180), "{}", drafted.yaml);
    for said in [
        "source.ip: '203.0.113.",
        "outcome: failure",
        "authentication.login",
        "time: { field: $time",
    ] {
        assert!(drafted.yaml.contains(said), "{said} in\n{}", drafted.yaml);
    }
}

#[test]
fn syslog_lines_are_drafted_behind_their_envelope() {
    let lines: Vec<String> = (0..30)
        .map(|number| {
            format!(
                "Dec 10 06:55:{number:02} web1 doord[{number}]: door {number} opened by card {}",
                number * 7
            )
        })
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let drafted = draft("doord", &lines, now()).unwrap();
    assert!(checked(&drafted.yaml).run_tests().is_good(), "{}", drafted.yaml);
    assert!(
        drafted.yaml.contains("decode: syslog")
            && drafted.yaml.contains("select: { service: ['doord'] }")
    );
    assert_eq!((drafted.rules, drafted.known), (1, 30));
}

#[test]
fn a_draft_holds_no_password_of_the_sample_and_its_tests_pass() {
    let lines: Vec<String> = (0..30)
        .map(|n| format!("2026-01-02 03:04:{n:02} [10.0.0.{n}:1] login of \"u{n}\" with password \"pa55-{n}x\" accepted"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let drafted = draft("door", &lines, now()).unwrap();
    assert!(checked(&drafted.yaml).run_tests().is_good(), "{}", drafted.yaml);
    assert!(!drafted.yaml.contains("pa55"), "{}", drafted.yaml);
    assert!(drafted.yaml.contains("password \"***\" accepted"), "{}", drafted.yaml);
}

#[test]
fn what_gives_no_draft_says_why() {
    assert_eq!(draft("x", &["", "  "], now()), Err(NoDraft::Empty));
    assert_eq!(draft("x", &["{\"a\":1}"; 9], now()), Err(NoDraft::Json));
    assert_eq!(draft("x", &["1 2 3", "4 5 6"], now()), Err(NoDraft::Nothing));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_the_lines_are_the_draft_loads_and_passes(
        lines in prop::collection::vec("(\\PC{0,30}|[a-c]{1,3} ['\"=\\\\{\\[]?[a-z0-9.:/'\"]{0,8} (from|by|user) [0-9a-f.:]{1,12},?)", 1..40)
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        if let Ok(drafted) = draft("any", &lines, now()) {
            let report = checked(&drafted.yaml).run_tests();
            prop_assert!(report.is_good(), "{}\n{:?}", drafted.yaml, report.failures.first().map(ToString::to_string));
        }
    }
}

/// What is named of a line: user, address, time (to the second).
struct Wanted {
    line: String,
    user: Option<String>,
    ip: Option<String>,
    time: Option<String>,
}

/// Drafts a pack from the lines, reads them with it, and asks that nine of ten are known and that user, address and time of
/// the known ones are what they should be.
fn drafted_well(name: &str, all: &[Wanted]) {
    let lines: Vec<&str> = all.iter().map(|wanted| wanted.line.as_str()).collect();
    let drafted = draft(name, &lines, now()).unwrap();
    let set = checked(&drafted.yaml);
    assert!(set.run_tests().is_good(), "{name}: {}", drafted.yaml);
    let parser = set.select(&Select::Names(vec![name.to_owned()]), Settings::default()).unwrap();
    let (mut known, mut named, mut right) = (0, 0, 0);
    let mut wrong = Vec::new();
    for wanted in all {
        let mut out = Vec::new();
        let envelope = Envelope::bare(now());
        parser.parse(
            &mut Scratch::new(),
            &envelope,
            wanted.line.as_bytes(),
            Offset(0),
            None,
            &mut out,
        );
        let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
        if event["origin"]["rule"].is_null() {
            continue;
        }
        known += 1;
        let time = event["time"].as_str().unwrap()[..19].to_owned();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        for (wanted, found) in [
            (&wanted.user, text(&event["actor"]["name"])),
            (&wanted.ip, text(&event["source"]["ip"])),
            (&wanted.time, time),
        ] {
            let Some(wanted) = wanted else { continue };
            named += 1;
            right += usize::from(*wanted == found);
            if *wanted != found {
                wrong.push(format!("{wanted} {found}: {event}"));
            }
        }
    }
    println!("{name}: {known} of {} lines known, {right} of {named} values right", all.len());
    wrong.truncate(4);
    assert!(
        known * 10 >= all.len() * 9,
        "{name}: {known} of {} known\n{}",
        all.len(),
        drafted.yaml
    );
    assert!(
        right * 100 >= named * 97,
        "{name}: {right} of {named}\n{}\n{}",
        wrong.join("\n"),
        drafted.yaml
    );
}

fn wanted(line: String, user: &str, ip: &str, time: &str) -> Wanted {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Wanted { line, user: some(user), ip: some(ip), time: some(time) }
}

#[test]
fn logs_in_forms_that_nobody_has_seen_are_drafted_with_user_address_and_time() {
    let mut door = Vec::new();
    let mut vault = Vec::new();
    let mut queue = Vec::new();
    for number in 0..60 {
        let (user, ip) = (format!("u{}", number % 7), format!("203.0.113.{}", number + 1));
        let time = format!("2024-02-03T10:11:{number:02}");
        let stamp = time.replace('T', " ");
        door.push(wanted(format!("{stamp},123 [door-{number}] badge of user '{user}' refused at gate {number}, reader {ip}:{}", 4000 + number), &user, &ip, &time));
        door.push(wanted(
            format!(
                "{stamp},456 [door-{number}] user '{user}' opened gate {number}, reader {ip}:{}",
                4000 + number
            ),
            &user,
            &ip,
            &time,
        ));
        vault.push(wanted(format!("[{stamp}] INFO  (safe) who={user} did=unseal box={number} client={ip} took={number}ms"), &user, &ip, &time));
        vault.push(wanted(format!("[{stamp}] WARN  (safe) who={user} did=unseal box={number} client={ip} error=\"no {number} keys\""), &user, &ip, &time));
        queue.push(wanted(
            format!(
                "{time}Z queue: {user}@example.com moved job {number} from {ip} to lane {}",
                number % 3
            ),
            &format!("{user}@example.com"),
            &ip,
            &time,
        ));
        queue.push(wanted(
            format!(
                "{time}Z queue: job {number} of account {user}@example.com was dropped by {ip}"
            ),
            &format!("{user}@example.com"),
            &ip,
            &time,
        ));
    }
    drafted_well("door", &door);
    drafted_well("safe", &vault);
    drafted_well("queue", &queue);
}

#[test]
fn streams_of_products_without_a_pack_are_drafted_with_user_address_and_time() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = std::env::var_os("CUSTODY_CORPUS").map(std::path::PathBuf::from);
    let beside =
        || here.ancestors().map(|up| up.join("../shared/corpus")).find(|path| path.is_dir());
    let Some(corpus) = corpus.or_else(beside) else {
        println!("skipped: corpus absent");
        return;
    };
    for stream in ["sshesame", "endlessh-logs", "pterodactyl-wings"] {
        let folder = corpus.join("crowdsec").join(stream);
        let text = std::fs::read_to_string(folder.join("input.log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let labels = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        let all: Vec<Wanted> = labels
            .lines()
            .filter_map(|label| {
                let label: serde_json::Value = serde_json::from_str(label).unwrap();
                let number = usize::try_from(label["line"].as_u64()?).ok()?;
                let text = |key: &str| label[key].as_str().unwrap_or_default().to_owned();
                let ip = text("src_ip");
                let time: String = text("timestamp").chars().take(19).collect();
                Some(wanted(lines.get(number - 1)?.to_string(), &text("user"), &ip, &time))
            })
            .collect();
        drafted_well(&stream.replace("-logs", ""), &all);
    }
}
