//! Drafted packs load, their tests pass, and they know the log that they were drafted from.

use custody_event::Timestamp;
use custody_parsers::{NoDraft, PackSet, PackSource, draft};
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
