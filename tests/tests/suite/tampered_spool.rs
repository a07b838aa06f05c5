//! Somebody changes a block in the spool of an agent that is down, with its checksum made anew; the
//! collector does not take it, the agent sets it aside and says so, and every line comes all the
//! same, once, from the log where it still stands.
//!
//! Thousands of other changes, without a collector: `agent/tests/tamper.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custody_agent::spool::{Options, Spool, SpoolClock};
use custody_event::{Clock, SystemClock};
use custody_tests::logfile::Form;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World, query};

struct TestClock(SystemClock);

impl SpoolClock for TestClock {
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.0.now().micros() / 1000).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Flips a bit of the packed events of the oldest block, by the spool's own code; gives its number.
fn change(data_dir: &Path) -> u64 {
    let clock = Arc::new(TestClock(SystemClock::new()));
    let options = Options { min_free_bytes: 1 << 20, ..Options::for_max_bytes(64 << 20) };
    let (spool, opened) = Spool::open(&data_dir.join("spool"), options, clock).unwrap();
    assert!(opened.next_seq > opened.first_seq + 2, "{opened:?}");
    let seq = opened.first_seq;
    let mut bytes = spool.read(seq).wait().unwrap().unwrap().to_vec();
    let end = bytes.len() - 4;
    bytes[end - 20] ^= 1;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    spool.replace_block(seq, bytes.into()).wait().unwrap();
    assert!(spool.close(Duration::from_secs(30)));
    seq
}

#[test]
fn a_changed_block_is_refused_set_aside_and_told_and_every_line_still_comes_once() {
    let world = World::new("tampered_spool");
    let mut collector = Collector::started(&world, "collector");
    let mut log =
        LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(world.rng().bits()));
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(1000);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(collector.stop().code(), Some(0));
    for _ in 0..4 {
        log.append(1500);
        log.flush();
    }
    let _held = agent.wait_status("all is read", |status| {
        let read = status.source("app")["book"]["read"].as_u64();
        read >= Some(log.written()) && status.spool()["blocks"].as_u64() > Some(3)
    });
    agent.kill();
    let seq = change(&agent.data_dir);

    collector.start();
    collector.wait_ready();
    agent.start();
    agent.wait_ready();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    query::wait_for_line(&collector, log.written() - 1, world.patience());
    let tally = collector.tally();
    // What was saved is delivered before the file is read again.
    tally.expect_once_in_any_order(&log);
    let told = tally.own("gap.record");
    let named = format!("Block {seq} in the spool is not what this agent had signed");
    let gap = told.iter().find(|gap| gap.code == "block_not_ours");
    assert!(gap.is_some_and(|gap| gap.message.contains(&named)), "{told:?}");
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &[]);

    // It is kept, for whoever asks what was done to it; and what is in the spool now verifies.
    let data_dir = agent.data_dir.display().to_string();
    let dead = Agent::cli(&["spool", "ls", "--dead", "--data-dir", &data_dir]);
    dead.expect(0, &[&seq.to_string()]);
    let bundle = world.path("spool.custody").display().to_string();
    let exported = Agent::cli(&["spool", "export", "--data-dir", &data_dir, &bundle]);
    exported.expect(0, &["first key"]);
    let trust = custody_evidence::verify::Trust::default();
    let file = std::fs::File::open(&bundle).unwrap();
    let report = custody_evidence::verify::verify_bundle(file, "spool", &trust).unwrap();
    assert!(report.verified, "{}", report.to_text());
}
