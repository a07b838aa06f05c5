//! Ten kinds of bad input. Each ends with the exit code that scripts rely on and a message that
//! says what is wrong, where, and what to do; or, where a daemon must not end, it says the same
//! and goes on.
//!
//! | mistake | answer |
//! |---|---|
//! | unknown key, wrong type, bad regex in a pack | 78, file:line:column |
//! | unreadable file | 66 |
//! | unwritable data directory, port taken | 74 |
//! | wrong token | 401 to who asks; an agent keeps everything, says so, knocks again |
//! | clock before 2020 | 78 |
//! | damaged spool | put aside, a gap event, and on; `spool verify` answers 1 |
//! | damaged evidence | 74, segment and byte; `verify` answers 1 |

use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_tests::logfile::Form;
use custody_tests::process::{Said, run};
use custody_tests::wait::until;
use custody_tests::{
    Agent, AgentSpec, Collector, Evidence, LogFile, World, agent, collector, http,
};

/// A good configuration, to be spoiled.
fn good(world: &World) -> String {
    let spec =
        AgentSpec::new(&world.path("app.log"), "http://127.0.0.1:1", &world.path("enroll.token"));
    spec.yaml(&world.path("agent"), &world.path("agent.sock"))
}

fn run_agent(config: &Path) -> Said {
    let mut command = Command::new(agent::binary());
    command.args(["run", "--config"]).arg(config);
    run(command)
}

fn run_collector(args: &[&str]) -> Said {
    let mut command = Command::new(collector::binary());
    command.arg("run").args(args);
    run(command)
}

/// Writes the text as `agent.yaml`; `run` and `check` say the same about it.
fn expect_refused(world: &World, yaml: &str, code: i32, fragments: &[&str]) {
    let config = world.path("agent.yaml");
    std::fs::write(&config, yaml).unwrap();
    run_agent(&config).expect(code, fragments);
    let checked = Agent::cli(&["check".as_ref(), "--config".as_ref(), config.as_os_str()]);
    checked.expect(code, fragments);
    for said in [&checked.err, &checked.out] {
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let world = World::new("bad_key");
    let yaml = format!("{}spoool: {{}}\n", good(&world));
    let line = yaml.lines().count();
    let place = format!("agent.yaml:{line}:1: ");
    expect_refused(&world, &yaml, 78, &[&place, "unknown key `spoool`", "`spool`"]);

    let file = world.path("collector.yaml");
    std::fs::write(&file, "blocks:\n  type: local\n  segment_byte: 1MiB\n").unwrap();
    run_collector(&["--config", &file.display().to_string()]).expect(
        78,
        &["collector.yaml:3:3: ", "unknown key `blocks.segment_byte`", "segment_bytes"],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_place_and_an_example() {
    let world = World::new("bad_type");
    let yaml = good(&world).replace("max_bytes: 67108864", "max_bytes: [1]");
    let line = 1 + yaml.lines().position(|line| line.contains("max_bytes")).unwrap();
    let place = format!("agent.yaml:{line}:");
    expect_refused(&world, &yaml, 78, &[&place, "max_bytes", "hint"]);
}

#[test]
fn a_bad_regex_in_a_pack_is_named_with_file_line_and_column() {
    let world = World::new("bad_regex");
    let packs = world.path("packs");
    std::fs::create_dir(&packs).unwrap();
    let pack = "pack: door\nversion: 1\nabout: a door\nselect: { service: [door] }\n\
                decode: none\nrules:\n  - id: opened\n    match: '^opened by (?<who>\\S+'\n    \
                event: { action: door.open, outcome: success }\n    tests:\n      \
                - record: 'opened by x'\n        event: { action: door.open }\n";
    let file = packs.join("door.yaml");
    std::fs::write(&file, pack).unwrap();
    let yaml = format!("{}pack_dirs: [{}]\n", good(&world), packs.display());
    let place = "door.yaml:8:";
    expect_refused(&world, &yaml, 78, &[place]);
    let said = Agent::cli(&["test".as_ref(), file.as_os_str()]);
    said.expect(78, &[place]);
    let column = said.err.split(place).nth(1).unwrap().split(':').next().unwrap();
    let column: usize = column.parse().expect("a column follows the line");
    let text = pack.lines().nth(7).unwrap();
    assert!((12..=text.len()).contains(&column), "column {column} is not in the pattern: {text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let world = World::new("bad_file");
    let missing = world.path("nowhere.yaml");
    run_agent(&missing).expect(66, &["nowhere.yaml", "No such file"]);
    run_agent(world.dir()).expect(66, &["s a directory"]);
    run_collector(&["--config", &missing.display().to_string()])
        .expect(66, &["nowhere.yaml", "No such file"]);
    let log = world.path("nowhere.log");
    Agent::cli(&["preview".as_ref(), log.as_os_str()]).expect(66, &["nowhere.log", "No such file"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named_with_a_remedy() {
    let world = World::new("bad_data_dir");
    std::fs::write(world.path("file"), "").unwrap();
    let inside = world.path("file/data");
    let config = world.path("agent.yaml");
    let yaml = good(&world).replace(
        &format!("data_dir: {}", world.path("agent").display()),
        &format!("data_dir: {}", inside.display()),
    );
    std::fs::write(&config, yaml).unwrap();
    let shown = inside.display().to_string();
    run_agent(&config).expect(74, &["agent.yaml:1:", &shown, "Not a directory", "hint"]);
    run_collector(&["--data-dir", &shown, "--listen", "127.0.0.1:0"])
        .expect(74, &[&shown, "Not a directory", "hint"]);
}

#[test]
fn a_data_directory_that_another_process_uses_is_refused() {
    let world = World::new("bad_lock");
    let collector = Collector::started(&world, "collector");
    let dir = collector.data_dir.display().to_string();
    run_collector(&["--data-dir", &dir, "--listen", "127.0.0.1:0"])
        .expect(74, &[&dir, "another process uses", "hint"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_a_remedy() {
    let world = World::new("bad_port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = world.path("collector").display().to_string();
    run_collector(&["--data-dir", &dir, "--listen", &address])
        .expect(74, &[&address, "taken", "--listen"]);
}

#[test]
fn a_public_address_without_tls_is_refused() {
    let world = World::new("bad_plain");
    let dir = world.path("collector").display().to_string();
    run_collector(&["--data-dir", &dir, "--listen", "0.0.0.0:0"]).expect(78, &["tls", "hint"]);
}

#[test]
fn a_wrong_token_is_told_to_who_asks_and_shown_by_an_agent_that_keeps_everything() {
    let world = World::new("bad_token");
    let collector = Collector::started(&world, "collector");
    for token in [None, Some("wrong")] {
        let answer = http::request("GET", collector.address, "/v1/events", token, b"").unwrap();
        assert_eq!(answer.status, 401);
        let problem = answer.json();
        assert_eq!(problem["status"], 401);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("token")));
    }
    let wrong = world.path("wrong.token");
    std::fs::write(&wrong, "wrong\n").unwrap();
    let mut log = LogFile::create(&world.path("app.log"), Form::Mixed, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &wrong);
    let agent = Agent::started(&world, "agent", &spec);
    log.append(100);
    log.flush();
    let status = agent.wait_status("the refusal is shown", |status| {
        !status.output()["trouble"].is_null() && status.spool()["blocks"].as_u64() > Some(0)
    });
    let trouble = status.output()["trouble"].as_str().unwrap();
    assert!(trouble.contains("401") && trouble.contains("wrong.token"), "{trouble}");
    assert!(!agent.complaints(&[]).is_empty(), "the log says it");
}

/// A shared object that makes a program believe that it is the year 2001.
fn year_2001(world: &World) -> Option<PathBuf> {
    let source = world.path("clock.c");
    let object = world.path("clock.so");
    std::fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
         int clock_gettime(clockid_t id, struct timespec *now) {\n\
         if (id == CLOCK_REALTIME) { now->tv_sec = 1000000000; now->tv_nsec = 0; return 0; }\n\
         return (int)syscall(SYS_clock_gettime, id, now);\n}\n",
    )
    .unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&object).arg(&source);
    match cc.output() {
        Ok(output) if output.status.success() => Some(object),
        Ok(output) => {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("skipped: needs cc: {error}");
            None
        }
    }
}

#[test]
fn a_clock_before_2020_keeps_both_from_starting() {
    let world = World::new("bad_clock");
    let Some(object) = year_2001(&world) else { return };
    let config = world.path("agent.yaml");
    std::fs::write(&config, good(&world)).unwrap();
    let says = ["clock", "2001-09-09", "hint"];
    let mut command = Command::new(agent::binary());
    command.args(["run", "--config"]).arg(&config).env("LD_PRELOAD", &object);
    run(command).expect(78, &says);
    let mut command = Command::new(collector::binary());
    command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(world.path("collector"));
    command.env("LD_PRELOAD", &object);
    run(command).expect(78, &says);
}

/// Turns over every bit of a few bytes at `at`.
fn damage(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, at).unwrap();
    for byte in &mut bytes {
        *byte = !*byte;
    }
    file.write_all_at(&bytes, at).unwrap();
}

#[test]
fn a_damaged_spool_is_put_aside_told_as_a_gap_and_costs_no_line() {
    let world = World::new("bad_spool");
    let mut collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("app.log"), Form::Noisy, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(2000);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    collector.kill();
    log.append(8000);
    log.flush();
    let _spooled = agent.wait_status("all is in the spool", |status| {
        status.source("app")["behind_bytes"] == 0
            && status.0["in_flight_bytes"] == 0
            && status.spool()["blocks"].as_u64() > Some(5)
    });
    agent.kill();

    let data_dir = agent.data_dir.clone();
    let verify = || {
        Agent::cli(&[
            "spool".as_ref(),
            "verify".as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
        ])
    };
    verify().expect(0, &["0 problems"]);
    // Into the middle of what was written last, where blocks are.
    let store = until("the blocks' file", world.patience(), || bodies_file(&agent.data_dir));
    let written = used_bytes(&store);
    // So densely that no block lies between two places, whatever the choices were.
    for part in 32..128 {
        damage(&store, written / 128 * part);
    }
    let said = verify();
    assert_ne!(said.code, Some(0), "{said:#?}");
    said.expect(1, &["damaged", "problems"]);

    collector.start();
    collector.wait_ready();
    agent.start();
    agent.wait_ready();
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    let status = agent.wait_idle();
    assert_eq!(status.spool()["quarantined"], 1);
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    let gaps = tally.own("gap.record");
    assert_eq!(gaps.len(), 1, "{}", tally.summary());
    assert_eq!(gaps[0].code, "spool_damaged");
    assert!(gaps[0].message.contains("quarantine"), "{}", gaps[0].message);
    // What was saved is delivered before files are read again: the order is not that of the file.
    let mut numbers = tally.numbers.clone();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..log.written()).collect();
    assert_eq!(numbers, expected, "{}", tally.summary());
}

/// The file that holds most of the blocks of the live store under an agent's data directory.
fn bodies_file(data_dir: &Path) -> Option<PathBuf> {
    let current = std::fs::read_to_string(data_dir.join("spool/current")).ok()?;
    let bodies = data_dir.join("spool").join(current.trim()).join("bodies");
    let files = std::fs::read_dir(bodies).ok()?.filter_map(Result::ok);
    let longest = files.max_by_key(|file| file.metadata().map_or(0, |meta| meta.len()))?;
    Some(longest.path())
}

/// How far a file is not zeros.
fn used_bytes(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

#[test]
fn a_damaged_evidence_segment_is_named_and_nothing_starts_on_it() {
    let world = World::new("bad_evidence");
    let mut collector = Collector::started(&world, "collector");
    let mut log = LogFile::create(&world.path("app.log"), Form::Noisy, world.rng());
    let spec = AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token());
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(5000);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &["0 problems"]);

    let segment = Evidence::of(&collector.data_dir).segments().pop().unwrap();
    let at = std::fs::metadata(&segment).unwrap().len() / 2;
    damage(&segment, at);
    let name = segment.file_name().unwrap().to_str().unwrap();
    collector.verify().expect(1, &[name, "byte"]);
    let dir = collector.data_dir.display().to_string();
    run_collector(&["--data-dir", &dir, "--listen", "127.0.0.1:0"])
        .expect(74, &[name, "damaged at byte"]);

    // Put back, it is as it was: nothing has been cut off or written over.
    damage(&segment, at);
    collector.verify().expect(0, &["0 problems"]);
    collector.start();
    collector.wait_ready();
    collector.tally().expect_exactly_once(&log);
}
