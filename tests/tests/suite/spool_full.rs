//! The collector away until the spool is full, then back: nothing is lost, memory stays bounded,
//! and `status` says all the while how it is.

use std::time::Duration;

use custody_tests::agent::Status;
use custody_tests::logfile::Form;
use custody_tests::wait::throughout;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, is_long, query};
use serde_json::Value;

/// The agent's promise is 64 MiB at any load; a build without optimisation is given twice that.
const MAX_MEMORY_KIB: u64 = if cfg!(debug_assertions) { 128 << 10 } else { 64 << 10 };

#[test]
fn a_collector_that_is_away_costs_no_line_and_no_memory_and_status_says_so() {
    let world = World::new("spool_full");
    let (away, spool, lines) = if is_long() {
        (Duration::from_secs(60), 16 << 20, 400_000)
    } else {
        (Duration::from_secs(10), 4 << 20, 100_000)
    };
    let mut rng = world.rng();
    let mut collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Noisy, Rng::new(rng.bits()));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.spool_max_bytes = spool;
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(1000);
    log.flush();
    collector.wait_for_lines(log.written());
    let idle = agent.wait_idle();
    expect_well(&idle);

    collector.kill();
    log.append(lines);
    log.flush();
    let full = wait_until_full(&agent);
    assert!(full.spool()["bytes"].as_u64().unwrap() <= spool, "{full:#?}");
    expect_truth(&full, &log);
    throughout(away, || still_full(&agent.status(), spool));

    // What is written now stays behind, all of it.
    let before = agent.status().source("app")["behind_bytes"].as_u64().unwrap();
    let grown = log.bytes();
    log.append(2000);
    log.flush();
    let grown = log.bytes() - grown;
    let _status = agent.wait_status("what is written now stays behind", |status| {
        status.source("app")["behind_bytes"] == before + grown
    });

    collector.start();
    collector.wait_ready();
    collector.wait_for_lines(log.written());
    let after = agent.wait_idle();
    expect_well(&after);
    assert_eq!(after.source("app")["since_start"]["read"], log.written());
    assert_eq!(after.source("app")["since_start"]["gaps"], 0);
    let peak_kib = agent.daemon().memory_kib("VmHWM");
    eprintln!("peak memory {peak_kib} KiB");
    assert!(peak_kib <= MAX_MEMORY_KIB, "peak memory {peak_kib} KiB");

    query::expect_exactly_once(&collector, &log, world.patience());
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
}

/// Full, and so quiet that the numbers stand still: two looks half a second apart are the same.
fn wait_until_full(agent: &Agent) -> Status {
    let mut last = Value::Null;
    let mut since = std::time::Instant::now();
    agent.wait_status("the spool is full and nothing moves", |status| {
        let moving = serde_json::json!([
            status.spool()["durable_next_seq"],
            status.source("app"),
            status.0["in_flight_bytes"]
        ]);
        if moving != last {
            (last, since) = (moving, std::time::Instant::now());
        }
        !status.spool()["full_since_unix_ms"].is_null()
            && !status.output()["trouble"].is_null()
            && since.elapsed() > Duration::from_millis(500)
    })
}

fn still_full(status: &Status, spool: u64) -> Result<(), String> {
    let said = [
        (status.output()["state"] == "waiting", "the output waits"),
        (!status.output()["trouble"].is_null(), "the output says why"),
        (status.output()["lag_blocks"].as_u64() > Some(0), "blocks are not acknowledged"),
        (!status.spool()["full_since_unix_ms"].is_null(), "the spool is full"),
        (!status.spool()["waiting"].is_null(), "the spool says why it takes nothing"),
        (status.spool()["bytes"].as_u64() <= Some(spool), "the spool keeps its bound"),
        (status.source("app")["behind_bytes"].as_u64() > Some(0), "the source is behind"),
    ];
    match said.iter().find(|(is, _)| !is) {
        Some((_, what)) => Err(format!("`status` does not say: {what}\n{status:#?}")),
        None => Ok(()),
    }
}

/// What it says of bytes and records fits the file: the part before `behind_bytes` has been read.
fn expect_truth(status: &Status, log: &LogFile) {
    let app = status.source("app");
    let behind = usize::try_from(app["behind_bytes"].as_u64().unwrap()).unwrap();
    let in_flight = usize::try_from(status.0["in_flight_bytes"].as_u64().unwrap()).unwrap();
    let text = std::fs::read(log.path()).unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let read = text.len().checked_sub(behind).unwrap();
    assert!(read > 0 && in_flight < read, "{status:#?}");
    let (most, least) = (lines(&text[..read]), lines(&text[..read - in_flight]));
    let counted = app["since_start"]["read"].as_u64().unwrap();
    assert!((least..=most).contains(&counted), "{least} to {most} lines were read; {status:#?}");
}

fn expect_well(status: &Status) {
    let app = status.source("app");
    assert_eq!(app["behind_bytes"], 0, "{status:#?}");
    assert_eq!(app["trouble"], Value::Null, "{status:#?}");
    assert_eq!(status.0["in_flight_bytes"], 0, "{status:#?}");
    assert_eq!(status.spool()["full_since_unix_ms"], Value::Null, "{status:#?}");
    assert_eq!(status.spool()["waiting"], Value::Null, "{status:#?}");
    assert_eq!(status.spool()["blocks"], 0, "{status:#?}");
    assert_eq!(status.spool()["bytes"], 0, "{status:#?}");
    assert_eq!(status.output()["state"], "delivering", "{status:#?}");
    assert_eq!(status.output()["trouble"], Value::Null, "{status:#?}");
    assert_eq!(status.output()["retry_at"], Value::Null, "{status:#?}");
    assert_eq!(status.output()["lag_blocks"], 0, "{status:#?}");
}
