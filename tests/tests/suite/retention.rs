//! A person's events are erased by two people while lines come in and the collector is killed: in
//! the end they are gone from the disk, everything else is there once, and it all verifies. Then a
//! backup of the running collector is restored.

use std::time::{Duration, Instant};

use custody_evidence::verify::{Trust, verify_dir};
use custody_tests::evidence::is_on_disk;
use custody_tests::logfile::{Form, word};
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, is_long, query};
use serde_json::Value;

/// Lines that are erased: the first so many of every hundred.
const ERASED: u64 = 2;

fn is_erased(number: u64) -> bool {
    number % 100 < ERASED
}

#[test]
fn erased_lines_are_gone_and_no_other_though_the_collector_is_killed_meanwhile() {
    let world = World::new("retention");
    let mut rng = world.rng();
    let mut collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(rng.bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    let lines = if is_long() { 100_000 } else { 5_000 };
    log.append(lines);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();

    // Two people.
    let first = collector.data_dir.join("admin.token");
    let second = collector.second_admin(&world);

    let words: Vec<String> = (0..lines).step_by(100).map(|n| format!("n{:07}*", n / 100)).collect();
    // Words of the first two lines of each hundred: n0000000 00, n0000000 01.
    let words: Vec<String> = words
        .iter()
        .flat_map(|start| (0..ERASED).map(|n| format!("{}{n:02}", start.trim_end_matches('*'))))
        .collect();
    assert_eq!(words[0], word(0));
    let mut asked = Vec::new();
    for (part, words) in words.chunks(200).enumerate() {
        let q = words.join(" OR ");
        let reason = format!("request {part}");
        let said = collector.ask(&["erase", "--q", &q, "--reason", &reason], &first);
        said.expect(0, &[&format!("\"matched\": {}", words.len())]);
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        asked.push(answer["erasure"]["id"].as_i64().unwrap().to_string());
    }
    let alone = collector.ask(&["erase", "approve", &asked[0]], &first);
    assert_ne!(alone.code, Some(0), "one person alone erases nothing: {alone:?}");

    // Killed while it works, again and again, and lines go on coming.
    for id in &asked {
        collector.ask(&["erase", "approve", id], &second).expect(0, &["approved"]);
        for _ in 0..3 {
            log.append(50);
            std::thread::sleep(Duration::from_millis(rng.between(0, 400)));
            collector.kill();
            let report = verify_dir(&collector.data_dir, &Trust::default()).unwrap();
            assert!(report.problems.is_empty(), "{}", report.to_text());
            collector.start();
            collector.wait_ready();
        }
        until("the erasure is done", world.patience(), || {
            let row = collector.try_get(&format!("/v1/erasures/{id}")).ok()?;
            (row.status == 200 && row.json()["status"] == "done").then_some(())
        });
    }
    log.flush();
    query::wait_for_line(&collector, log.written() - 1, world.patience());
    let _idle = agent.wait_idle();
    let stays: Vec<u64> = (0..log.written()).filter(|n| *n >= lines || !is_erased(*n)).collect();
    assert_eq!(query::numbers(&collector, "input:app"), stays);
    until("every receipt can be found", world.patience(), || {
        let receipts = query::all(&collector, "action:erasure.complete");
        (receipts.len() >= asked.len()).then_some(())
    });

    // A backup is of the moment of the log's checkpoint, which follows what is durable within a second.
    let checkpoint = collector.data_dir.join("tlog/checkpoint");
    let mut last = (Vec::new(), Instant::now());
    until("the checkpoint names everything", world.patience(), || {
        let now = std::fs::read(&checkpoint).unwrap();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    // A backup of the running collector, and what is made of it.
    let backup = world.path("backup");
    let data_dir = collector.data_dir.to_str().unwrap().to_owned();
    let said = Collector::cli(&["backup", "--data-dir", &data_dir, backup.to_str().unwrap()]);
    said.expect(0, &["VERIFIED"]);

    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    for number in [0, 1, lines / 2 / 100 * 100] {
        assert!(!is_on_disk(&collector.data_dir, &word(number)), "line {number}");
    }
    assert!(is_on_disk(&collector.data_dir, &word(ERASED)), "the measure itself");
    let report = verify_dir(&collector.data_dir, &Trust::default()).unwrap();
    assert!(report.verified && report.withheld >= lines / 100 * ERASED, "{}", report.to_text());
    collector.verify().expect(0, &["0 problems"]);

    std::fs::remove_dir_all(&collector.data_dir).unwrap();
    let said = Collector::cli(&["restore", "--data-dir", &data_dir, backup.to_str().unwrap()]);
    said.expect(0, &["is restored"]);
    collector.start();
    collector.wait_ready();
    query::wait_for_line(&collector, log.written() - 1, world.patience());
    assert_eq!(query::numbers(&collector, "input:app"), stays);
    assert_eq!(collector.stop().code(), Some(0));
}
