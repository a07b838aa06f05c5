//! What befalls the way between agent and collector: a collector that hangs, certificates that have
//! ended, names that are not found, and a network that loses, refuses, resets and parts.
//!
//! For each: the agent says what is wrong and what mends it, keeps everything, and goes on by itself
//! when it is mended.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use custody_tests::clock::SECONDS_AHEAD;
use custody_tests::logfile::Form;
use custody_tests::process::{Said, run};
use custody_tests::rng::Rng;
use custody_tests::world::is_long;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, World};
use rustix::process::Signal;

/// How soon after the healing of a network all must be delivered again.
const RECOVERY: Duration = Duration::from_secs(5);

fn parts(world: &World, name: &str) -> (LogFile, Collector) {
    let log = LogFile::create(&world.path("logs/app.log"), Form::Mixed, Rng::new(7));
    (log, Collector::new(world, name))
}

fn spec(log: &LogFile, collector: &Collector, extra: &str) -> AgentSpec {
    let mut spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    spec.output_extra = extra.to_owned();
    spec
}

fn write(log: &mut LogFile, lines: u64) {
    log.append(lines);
    log.flush();
}

/// Waits until the agent names its trouble with all these words, in its status and in its log.
fn expect_trouble(agent: &Agent, words: &[&str]) {
    let _status = agent.wait_status(&format!("trouble with {words:?}"), |status| {
        let trouble = status.output()["trouble"].as_str().unwrap_or_default();
        words.iter().all(|word| trouble.contains(word))
    });
    let log = std::fs::read_to_string(&agent.stderr).unwrap();
    assert!(words.iter().all(|word| log.contains(word)), "not in its log: {words:?}");
}

#[test]
fn a_collector_that_hangs_is_named_and_all_is_delivered_when_it_goes_on() {
    let world = World::new("faults_hang");
    let (mut log, mut collector) = parts(&world, "collector");
    collector.start();
    collector.wait_ready();
    let mut agent = Agent::started(&world, "agent", &spec(&log, &collector, "timeout: 1s"));
    write(&mut log, 100);
    let _idle = agent.wait_idle();
    collector.daemon().signal(Signal::STOP);
    write(&mut log, 100);
    expect_trouble(&agent, &["timed out", "does it hang"]);
    collector.daemon().signal(Signal::CONT);
    let idle = agent.wait_idle();
    assert!(idle.output()["trouble"].is_null(), "{:#}", idle.output());
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

#[test]
fn a_certificate_that_has_ended_is_named_and_a_new_one_mends_it() {
    let world = World::new("faults_expired");
    let (mut log, mut collector) = parts(&world, "collector");
    let (ca, cert, key) = super::ship::certificates_until(&world, Some(2024));
    collector.configure(&world, &format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n"), true);
    collector.start();
    collector.wait_ready();
    let trusting = spec(&log, &collector, &format!("tls: {{ ca_file: {ca} }}"));
    let mut agent = Agent::started(&world, "agent", &trusting);
    write(&mut log, 100);
    expect_trouble(&agent, &["certificate", "renew it at the collector"]);
    let said = Agent::cli(&[
        "doctor",
        "--user",
        "nobody-of-this-name",
        "--config",
        &agent.config.display().to_string(),
    ]);
    said.expect(1, &["renew it at the collector"]);
    // Into the same files, with another authority.
    let _same = super::ship::certificates(&world);
    agent.reload();
    collector.daemon().signal(Signal::HUP);
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

/// Nothing waits for it, and everybody who looks is told: status, log and doctor, with what mends it.
#[test]
fn a_clock_that_is_an_hour_off_is_named_and_holds_up_nothing() {
    let world = World::new("faults_clock");
    let (mut log, mut collector) = parts(&world, "collector");
    collector.start();
    collector.wait_ready();
    let mut agent = Agent::new(&world, "agent", &spec(&log, &collector, ""));
    let ahead = |mut command: Command| {
        command.env(SECONDS_AHEAD, "3600");
        command
    };
    agent.start_as(ahead(agent.command()));
    agent.wait_ready();
    write(&mut log, 100);
    let told = agent.wait_status("it says that the clocks are apart", |status| {
        status.output()["clock"].as_str().is_some_and(|why| why.contains("s ahead of"))
    });
    assert!(told.output()["trouble"].is_null(), "{:#}", told.output());
    let idle = agent.wait_idle();
    let clock = idle.output()["clock"].as_str().unwrap();
    assert!(clock.contains("timedatectl"), "{clock}");
    let said = std::fs::read_to_string(&agent.stderr).unwrap();
    assert!(said.contains("s ahead of the collector's"), "{said}");
    let mut doctor = Command::new(custody_tests::agent::binary());
    doctor.args(["doctor", "--user", "nobody-of-this-name", "--config"]).arg(&agent.config);
    run(ahead(doctor)).expect(0, &["differ by 3", "timedatectl"]);
    let mut typed = Command::new(custody_tests::agent::binary());
    typed.args(["status", "--socket"]).arg(&agent.socket);
    run(typed).expect(0, &["s ahead of the collector's"]);
    assert_eq!(agent.stop().code(), Some(0));

    // Set right, it is said no more.
    agent.start();
    write(&mut log, 100);
    let mended = agent.wait_idle();
    assert!(mended.output()["clock"].is_null(), "{:#}", mended.output());
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

/// In a mount namespace of its own, whose `/etc/hosts` is a file of the test's.
#[test]
fn a_name_that_is_not_found_is_named_and_found_again() {
    let Some(world) = apart("faults_name", "a_name_that_is_not_found_is_named_and_found_again")
    else {
        return;
    };
    let hosts = world.path("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    if !done("mount", &["--bind", &hosts.display().to_string(), "/etc/hosts"]) {
        return;
    }
    let (mut log, mut collector) = parts(&world, "collector");
    let (ca, cert, key) = super::ship::certificates(&world);
    collector.configure(&world, &format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n"), true);
    collector.start();
    collector.wait_ready();
    let mut named = spec(&log, &collector, &format!("tls: {{ ca_file: {ca} }}"));
    named.endpoints = vec![format!("https://audit.test:{}", collector.address.port())];
    let mut agent = Agent::started(&world, "agent", &named);
    write(&mut log, 100);
    expect_trouble(&agent, &["audit.test", "cannot be resolved"]);
    std::fs::write(&hosts, "127.0.0.1 localhost audit.test\n").unwrap();
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

/// In a network of its own, in which packets between the two are lost, dropped and reset.
#[test]
fn a_bad_network_loses_and_doubles_nothing_and_is_soon_forgotten() {
    let Some(world) =
        apart("faults_network", "a_bad_network_loses_and_doubles_nothing_and_is_soon_forgotten")
    else {
        return;
    };
    if !done("ip", &["link", "set", "lo", "up"]) || !done("nft", &["list", "ruleset"]) {
        return;
    }
    let (mut log, mut collector) = parts(&world, "collector");
    collector.start();
    collector.wait_ready();
    let mut agent = Agent::started(&world, "agent", &spec(&log, &collector, "timeout: 3s"));
    write(&mut log, 100);
    let _idle = agent.wait_idle();
    let port = collector.address.port();
    let parted = if is_long() { 60 } else { 4 };

    // Every tenth packet, for a while: slower, but all arrives meanwhile.
    spoil(port, "numgen random mod 10 == 0 drop");
    for _ in 0..10 {
        write(&mut log, 100);
        std::thread::sleep(Duration::from_millis(100));
    }
    let _idle = agent.wait_idle();
    heal(&agent);

    for fault in ["drop", "reject with tcp reset"] {
        spoil(port, fault);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(parted) {
            write(&mut log, 50);
            std::thread::sleep(Duration::from_millis(200));
        }
        let status = agent.wait_status("it says so", |status| {
            !status.output()["trouble"].is_null() && status.spool()["blocks"] != 0
        });
        assert!(status.output()["lag_blocks"].as_u64() > Some(0), "{:#}", status.output());
        heal(&agent);
    }

    // The collector dies while nobody can hear of it: the agent's connections are open on one side.
    spoil(port, "drop");
    write(&mut log, 100);
    collector.kill();
    collector.start();
    std::thread::sleep(Duration::from_secs(2));
    heal(&agent);
    collector.wait_for_lines(log.written());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
}

/// What happens to packets to and from this port.
fn spoil(port: u16, fate: &str) {
    let rules = format!(
        "add table inet faults\n\
         add chain inet faults way {{ type filter hook input priority 0; }}\n\
         add rule inet faults way tcp dport {port} {fate}\n\
         add rule inet faults way tcp sport {port} {fate}\n"
    );
    let mut nft = Command::new("nft");
    nft.arg(rules);
    run(nft).expect(0, &[]);
}

/// The network is good again, and soon everything is delivered.
fn heal(agent: &Agent) {
    let mut nft = Command::new("nft");
    nft.args(["delete", "table", "inet", "faults"]);
    run(nft).expect(0, &[]);
    let began = Instant::now();
    let _idle = agent.wait_idle();
    let took = began.elapsed();
    eprintln!("delivered again {took:?} after the healing");
    if is_long() {
        assert!(took <= RECOVERY, "{took:?}");
    }
}

/// Runs the test of this name once more in mount and network namespaces of its own; there, gives its
/// world. `None`: that has been done, or cannot be done here.
fn apart(world: &'static str, test: &str) -> Option<World> {
    const INSIDE: &str = "CUSTODY_APART";
    if std::env::var_os(INSIDE).is_some() {
        return Some(World::new(world));
    }
    let separate = ["--mount", "--net", "--fork", "--kill-child"];
    let mut probe = Command::new("unshare");
    probe.args(separate).args(["ip", "link", "set", "lo", "up"]);
    match probe.output() {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("skipped: needs root, unshare and ip");
            return None;
        }
    }
    let me = std::env::current_exe().unwrap();
    let said = again(&me, separate, &format!("faults::{test}"), INSIDE);
    eprint!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(0), "in namespaces of its own it failed");
    None
}

fn again(me: &Path, separate: [&str; 4], test: &str, inside: &str) -> Said {
    let mut command = Command::new("unshare");
    command.args(separate).arg("sh").arg("-c");
    command.arg("ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture");
    command.arg(me).arg(test).env(inside, "1");
    Said::from(command.output().unwrap())
}

/// Runs a tool without which the test cannot be.
fn done(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    let good = output.is_ok_and(|output| output.status.success());
    if !good {
        eprintln!("skipped: {program} cannot be used here");
    }
    good
}
