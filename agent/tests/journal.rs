//! The journal source as it ships: a real journald in namespaces of its own, the real program, kill
//! -9, and a count of every entry in the spool. Where no journald can run: skipped, and said.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

#[path = "../../journal/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the journal crate's own tests")]
mod journald;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journald::PrivateJournald;
use serde_json::Value;
use support::{Agent, stored};

macro_rules! or_skip {
    ($started:expr) => {
        match $started {
            Ok(value) => value,
            Err(why) => {
                println!("skipped: no journald of our own here: {why}");
                return;
            }
        }
    };
}

fn agent_of(journal: &Path, more: &str) -> Agent {
    let journal = journal.display();
    Agent::new(&format!(
        "sources:\n  - {{ id: j, type: journal, directory: {journal}, packs: auto{more} }}\n\
         spool: {{ max_bytes: 256MiB, linger: 20ms, free_space_floor: 1MiB }}\n"
    ))
}

/// Failed logins of numbered users, as sshd says them.
fn failures(journald: &mut PrivateJournald, from: u64, to: u64) {
    journald.run(&format!(
        "seq -f 'Failed password for invalid user u%.0f from 192.0.2.7 port 22 ssh2' {from} {to} | systemd-cat -t sshd -p info"
    ));
    journald.sync();
}

fn expect_each_once(events: &[Value], count: u64) {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events.iter().filter(|event| event["origin"]["pack"] == "sshd") {
        *times.entry(event["actor"]["name"].as_str().unwrap()).or_default() += 1;
    }
    let wrong: Vec<String> = (0..count)
        .map(|user| format!("u{user}"))
        .filter(|user| times.get(user.as_str()) != Some(&1))
        .collect();
    assert!(wrong.is_empty(), "not exactly once: {} of {count}: {wrong:.200?}", wrong.len());
    assert_eq!(times.len(), usize::try_from(count).unwrap());
    let mut ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "an id is there twice");
}

fn gaps(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["action"].as_str().unwrap().starts_with("gap")).collect()
}

#[test]
fn an_entry_becomes_an_event_with_the_packs_meaning_and_the_journals_place() {
    let state = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(state.path()));
    journald.run("logger -t sshd -p auth.info 'Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2'");
    journald.sync();
    let mut agent = agent_of(state.path(), ", identifiers: [sshd]");
    let checked = agent.command(&["check"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    agent.start();
    agent.wait("j", "the entry", |source| stored(source) == 1 && source["type"] == "journal");
    agent.stop();
    let events = agent.all_events();
    let event = events.iter().find(|event| event["origin"]["input"] == "j").unwrap();
    assert_eq!(event["action"], "authentication.login", "{event:#}");
    assert_eq!(event["outcome"], "failure");
    assert_eq!(event["actor"]["name"], "webmaster");
    assert_eq!(event["source"]["ip"], "173.234.31.186");
    assert_eq!(event["source"]["port"], 38_926);
    assert_eq!(event["service"], "sshd");
    assert_eq!(event["time_basis"], "record");
    assert_eq!(event["origin"]["pack"], "sshd");
    assert_eq!(event["details"]["journal_comm"], "logger");
    assert_eq!(event["details"]["journal_uid"], "0");
    let raw: Value = serde_json::from_str(event["origin"]["raw"].as_str().unwrap()).unwrap();
    assert_eq!(raw["SYSLOG_FACILITY"], "4");
    assert_eq!(raw["__CURSOR"], event["origin"]["cursor"]);
    let cursor = event["origin"]["cursor"].as_str().unwrap();
    let found = journald.run(&format!("journalctl -o cat -n 1 --cursor='{cursor}'"));
    assert!(found.contains("webmaster"), "{found}");
}

#[test]
fn the_json_that_a_service_writes_is_taken_apart() {
    let state = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(state.path()));
    journald.run(r#"echo '{"action":"contact.update","user":"eva","ip":"192.0.2.9","result":"success"}' | systemd-cat -t crm"#);
    journald.sync();
    let mut agent = agent_of(state.path(), ", identifiers: [crm]");
    agent.start();
    agent.wait("j", "the entry", |source| stored(source) == 1);
    agent.stop();
    let events = agent.all_events();
    let event = events.iter().find(|event| event["origin"]["input"] == "j").unwrap();
    assert_eq!(event["actor"]["name"], "eva", "{event:#}");
    assert_eq!(event["source"]["ip"], "192.0.2.9");
    assert_eq!(event["service"], "crm");
}

#[test]
fn an_agent_killed_again_and_again_holds_each_entry_exactly_once() {
    let state = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(state.path()));
    for via in ["library", "journalctl"] {
        let from = if via == "library" { 0 } else { 9_000 };
        let more = format!(", via: {via}, start: end");
        let mut agent = agent_of(state.path(), &more);
        agent.start();
        agent.wait("j", "the start", |source| source["trouble"].is_null());
        // `start: end` is behind what is there when the agent reads its first.
        failures(&mut journald, 1_000_000, 1_000_000);
        agent.wait("j", "the first entry", |source| stored(source) > 0);
        for round in 0..9 {
            failures(&mut journald, from + round * 1_000, from + round * 1_000 + 999);
            // Anywhere between reading the first of them and having all.
            std::thread::sleep(Duration::from_millis(round * 13 % 70));
            agent.kill();
            if round % 3 == 1 {
                journald.run("journalctl --rotate");
            }
            agent.start();
        }
        agent.wait("j", "all entries", |source| stored(source) >= 9_001);
        agent.stop();
        let events = agent.all_events();
        let renamed: Vec<Value> = events
            .into_iter()
            .filter(|event| event["actor"]["name"] != "u1000000")
            .map(|mut event| {
                let name = event["actor"]["name"].as_str().and_then(|name| name.strip_prefix('u'));
                if let Some(number) = name.and_then(|name| name.parse::<u64>().ok()) {
                    event["actor"]["name"] = format!("u{}", number - from).into();
                }
                event
            })
            .collect();
        assert_eq!(gaps(&renamed), Vec::<&Value>::new());
        expect_each_once(&renamed, 9_000);
    }
}

#[test]
fn what_is_vacuumed_while_the_agent_is_down_is_a_gap_with_its_numbers() {
    let state = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(state.path()));
    failures(&mut journald, 0, 99);
    let mut agent = agent_of(state.path(), "");
    agent.start();
    agent.wait("j", "the first entries", |source| stored(source) >= 100);
    agent.stop();
    failures(&mut journald, 5_000, 5_999);
    journald.run("journalctl --rotate");
    failures(&mut journald, 100, 199);
    journald.run("journalctl --vacuum-files=1 2>/dev/null");
    agent.start();
    agent.wait("j", "the gap", |source| source["book"]["gap"].as_u64() >= Some(1_000));
    agent.wait("j", "the last entries", |source| stored(source) >= 200);
    agent.wait("j", "balance", |source| {
        let of = |key: &str| source["book"][key].as_u64().unwrap();
        of("read") == of("stored") + of("filtered") + of("gap")
    });
    agent.stop();
    let events = agent.all_events();
    expect_each_once(&events, 200);
    let gaps = gaps(&events);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(gaps[0]["reason"]["code"], "journal_vacuumed", "{:#}", gaps[0]);
    // The numbers on both sides of the gap are the neighbours' own.
    let offset = |user: &str| {
        let event = events.iter().find(|event| event["actor"]["name"] == user).unwrap();
        event["origin"]["offset"].as_u64().unwrap()
    };
    let text = gaps[0]["message"].as_str().or(gaps[0]["reason"]["text"].as_str()).unwrap();
    assert!(offset("u99") < offset("u100"));
    assert!(text.contains("number"), "{text}");
}

#[test]
fn a_damaged_file_is_named_by_a_gap_and_the_others_are_read() {
    let state = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(state.path()));
    failures(&mut journald, 0, 99);
    journald.run("journalctl --rotate");
    failures(&mut journald, 7_000, 7_099);
    journald.run("journalctl --rotate");
    failures(&mut journald, 100, 199);
    let target = custody_journal::Target::Directory(journald.files_dir());
    let mut heads = custody_journal::files::look(&target).unwrap().good;
    heads.sort_by_key(|head| head.head_seqnum);
    let damaged: PathBuf = heads[1].path.clone();
    std::fs::write(&damaged, b"no journal any more").unwrap();
    let mut agent = agent_of(state.path(), "");
    agent.start();
    agent.wait("j", "all that can be read", |source| {
        stored(source) >= 200 && source["book"]["gap"].as_u64() >= Some(100)
    });
    agent.wait("j", "the trouble", |source| {
        source["trouble"].as_str().is_some_and(|text| text.contains(damaged.to_str().unwrap()))
    });
    agent.stop();
    let events = agent.all_events();
    expect_each_once(&events, 200);
    let gaps = gaps(&events);
    assert!(!gaps.is_empty());
    assert!(
        gaps.iter().any(|gap| gap["reason"]["code"] == "journal_unreadable"
            && gap.to_string().contains(damaged.to_str().unwrap())),
        "{gaps:#?}"
    );
}
