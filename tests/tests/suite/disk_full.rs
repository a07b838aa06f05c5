//! No space under the spool, and none under the evidence: each waits, says so, and goes on by
//! itself when there is space again. Nothing is lost.

use std::time::Duration;

use custody_tests::disk::SmallDisk;
use custody_tests::logfile::Form;
use custody_tests::wait::{throughout, until};
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rng, World};
use serde_json::Value;

const DISK_MIB: u64 = 64;
/// Free space below which the spool takes nothing.
const FLOOR: u64 = 4 << 20;

/// How full the disk under the spool gets.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// A little less than the floor: the spool stops before anything fails.
    LessThanTheFloor,
    /// Nothing at all: writes fail.
    Nothing,
}

#[test]
fn an_agent_whose_disk_is_full_waits_says_so_and_goes_on_by_itself() {
    let world = World::new("disk_full_agent");
    let Some(disk) = SmallDisk::mount(&world, "disk", DISK_MIB) else { return };
    let mut rng = world.rng();
    let collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(rng.bits()));
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.spool_max_bytes = 16 << 20;
    spec.free_space_floor = FLOOR;
    let mut agent = Agent::new(&world, "agent", &spec);
    agent.data_dir = disk.dir().join("agent");
    agent.configure(&spec);
    agent.start();
    agent.wait_ready();
    for left in [Left::LessThanTheFloor, Left::Nothing, Left::LessThanTheFloor] {
        log.append(2000);
        log.flush();
        collector.wait_for_lines(log.written());
        disk.fill(match left {
            Left::LessThanTheFloor => FLOOR - (512 << 10),
            Left::Nothing => 0,
        });
        log.append(5000);
        log.flush();
        let waiting = agent.wait_status("the spool says why it takes nothing", |status| {
            !status.spool()["waiting"].is_null()
        });
        let why = waiting.spool()["waiting"].as_str().unwrap();
        assert!(why.contains("space"), "{left:?}: {why}");
        throughout(Duration::from_secs(2), || {
            let status = agent.status();
            match status.spool()["waiting"].is_null() {
                true => Err(format!("{left:?}: it no longer says that it waits: {status:#?}")),
                false => Ok(()),
            }
        });
        let said = std::fs::read_to_string(&agent.stderr).unwrap();
        assert!(said.contains(" WARN ") && said.contains("space"), "the log does not say it");
        disk.free();
        collector.wait_for_lines(log.written());
        let status = agent.wait_idle();
        assert_eq!(status.spool()["waiting"], Value::Null, "{status:#?}");
    }
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
}

/// Started on a full disk, and killed on one.
#[test]
fn an_agent_killed_and_started_on_a_full_disk_loses_nothing() {
    let world = World::new("disk_full_restart");
    let Some(disk) = SmallDisk::mount(&world, "disk", DISK_MIB) else { return };
    let collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, world.rng());
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.spool_max_bytes = 16 << 20;
    spec.free_space_floor = FLOOR;
    let mut agent = Agent::new(&world, "agent", &spec);
    agent.data_dir = disk.dir().join("agent");
    agent.configure(&spec);
    agent.start();
    agent.wait_ready();
    log.append(2000);
    log.flush();
    collector.wait_for_lines(log.written());
    disk.fill(0);
    log.append(2000);
    log.flush();
    let _waiting = agent.wait_status("the spool says why it takes nothing", |status| {
        !status.spool()["waiting"].is_null()
    });
    agent.kill();
    // It may run and wait, or end with a reason: a service manager starts it again.
    agent.start();
    let ended = custody_tests::eventually(Duration::from_secs(3), || agent.daemon().ended());
    log.append(1000);
    log.flush();
    disk.free();
    if let Some(status) = ended {
        assert_eq!(status.code(), Some(74), "the log says why");
        agent.forget_ended();
        agent.start();
    }
    agent.wait_ready();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
}

#[test]
fn a_collector_whose_disk_is_full_says_so_and_the_agent_keeps_everything() {
    let world = World::new("disk_full_collector");
    let Some(disk) = SmallDisk::mount(&world, "disk", DISK_MIB) else { return };
    let mut collector = Collector::new(&world, "collector");
    collector.data_dir = disk.dir().join("collector");
    collector.start();
    collector.wait_ready();
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Noisy, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(2000);
    log.flush();
    collector.wait_for_lines(log.written());
    for _ in 0..2 {
        disk.fill(0);
        log.append(5000);
        log.flush();
        let waiting = agent.wait_status("the agent waits for the collector", |status| {
            status.output()["state"] == "waiting" && status.source("app")["behind_bytes"] == 0
        });
        let trouble = waiting.output()["trouble"].as_str().unwrap();
        assert!(trouble.contains("503") || trouble.contains("busy"), "{trouble}");
        until("the collector's log says it", world.patience(), || {
            let said = std::fs::read_to_string(&collector.stderr).unwrap();
            let complains = |line: &str| {
                (line.contains(" WARN ") || line.contains(" ERROR ")) && line.contains("space")
            };
            said.lines().any(complains).then_some(())
        });
        disk.free();
        collector.wait_for_lines(log.written());
        let _idle = agent.wait_idle();
    }
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &[]);
}

/// Told to stop while nothing can be written: neither the index, nor its own acts, nor a thread of
/// retention waits for room.
#[test]
fn a_collector_that_is_stopped_on_a_full_disk_ends_and_goes_on_at_its_next_start() {
    let world = World::new("disk_full_stop");
    let Some(disk) = SmallDisk::mount(&world, "disk", DISK_MIB) else { return };
    let mut collector = Collector::new(&world, "collector");
    collector.data_dir = disk.dir().join("collector");
    collector.start();
    collector.wait_ready();
    let mut log = LogFile::create(&world.path("logs/app.log"), Form::Noisy, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    for _ in 0..2 {
        log.append(2000);
        log.flush();
        collector.wait_for_lines(log.written());
        // What has just come is not in the index yet.
        disk.fill(0);
        log.append(2000);
        log.flush();
        let _waiting = agent.wait_status("the agent waits for the collector", |status| {
            status.output()["state"] == "waiting"
        });
        assert_eq!(collector.stop().code(), Some(0));
        disk.free();
        collector.start();
        collector.wait_ready();
        collector.wait_for_lines(log.written());
        let _idle = agent.wait_idle();
    }
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &[]);
}
