//! The ordinary way from a line to the collector, and small things on it: stop, reload, odd bytes,
//! endpoints, tokens, TLS.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use custody_tests::logfile::{Form, word};
use custody_tests::process::complaints;
use custody_tests::wait::until;
use custody_tests::{Agent, AgentSpec, Collector, LogFile, Rotation, World, ports, query};
use serde_json::Value;

fn log_in(world: &World) -> LogFile {
    LogFile::create(&world.path("logs/app.log"), Form::Mixed, world.rng())
}

fn spec_for(log: &LogFile, collector: &Collector) -> AgentSpec {
    AgentSpec::new(log.path(), &collector.url(), &collector.enroll_token())
}

/// Nothing out of the ordinary happens, so nothing may be complained about.
#[test]
fn an_ordinary_day_ends_with_every_line_found_and_no_complaint_in_either_log() {
    let world = World::new("ship_ordinary");
    let mut collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut agent = Agent::started(&world, "agent", &spec_for(&log, &collector));
    for how in Rotation::ALL {
        log.append(1000);
        log.rotate(how);
        log.append(1000);
        log.flush();
    }
    collector.wait_for_lines(log.written());
    query::expect_exactly_once(&collector, &log, world.patience());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_others(&[]);
    tally.expect_no_gaps();
    tally.expect_balanced_books();
    let acts: Vec<&str> = tally.own.iter().map(|own| own.action.as_str()).collect();
    assert_eq!(acts, ["agent.start", "agent.stop"]);
    assert_eq!(collector.stop().code(), Some(0));
    collector.verify().expect(0, &["0 problems"]);
    assert_eq!(agent.complaints(&[]), [""; 0]);
    assert_eq!(complaints(&collector.stderr, &[]), [""; 0]);
}

#[test]
fn a_line_that_a_rule_knows_is_found_by_who_from_where_and_how_it_ended() {
    let world = World::new("ship_fields");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let _agent = Agent::started(&world, "agent", &spec_for(&log, &collector));
    let line = "Dec 10 06:55:48 LabSZ sshd[24200]: Failed password for invalid user webmaster \
                from 173.234.31.186 port 38926 ssh2\n";
    log.append_raw(line.as_bytes());
    let search = "actor:webmaster ip:173.234.31.0/24 outcome:failure action:authentication.login";
    let event = until("the event is found", world.patience(), || {
        let mut found = query::all(&collector, search);
        found.pop().filter(|_| found.is_empty())
    });
    assert_eq!(event["origin"]["raw"], line.trim_end());
    assert_eq!(event["origin"]["offset"], 0);
    assert_eq!(event["origin"]["pack"], "sshd");
    assert_eq!(event["source"]["port"], 38_926);
    for elsewhere in ["actor:webmaster outcome:success", "ip:173.234.32.0/24", "webmasters"] {
        assert!(query::all(&collector, elsewhere).is_empty(), "{elsewhere}");
    }
}

/// SIGTERM right after the lines were written: what was read is delivered or kept, nothing twice.
#[test]
fn sigterm_writes_down_what_was_read_and_the_next_start_goes_on() {
    let world = World::new("ship_sigterm");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut agent = Agent::new(&world, "agent", &spec_for(&log, &collector));
    let mut rng = world.rng();
    for _ in 0..6 {
        agent.start();
        agent.wait_ready();
        log.append(rng.between(100, 3000));
        // Some are met in the middle of reading, some after it.
        if rng.one_in(2) {
            log.flush();
            collector.wait_for_lines(log.written());
        }
        assert_eq!(agent.stop().code(), Some(0));
    }
    log.flush();
    agent.start();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_balanced_books();
    let starts = tally.own("agent.start");
    assert_eq!((starts.len(), tally.own("agent.stop").len()), (7, 7));
    assert!(starts.iter().all(|start| !start.message.contains("did not end in order")));
    assert_eq!(agent.complaints(&[]), [""; 0]);
}

#[test]
fn a_reload_takes_a_new_source_in_and_a_bad_file_leaves_the_old_one_at_work() {
    let world = World::new("ship_reload");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut spec = spec_for(&log, &collector);
    let mut agent = Agent::started(&world, "agent", &spec);
    let first = agent.status().0["config_sha256"].clone();
    log.append(500);

    let other = world.path("logs/other.log");
    std::fs::write(&other, "a line of the other log\n").unwrap();
    spec.sources.push(("other".to_owned(), vec![other.display().to_string()]));
    agent.configure(&spec);
    agent.reload();
    let second = agent
        .wait_status("the new configuration is in force", |status| {
            status.0["config_sha256"] != first
        })
        .0["config_sha256"]
        .clone();
    log.append(500);

    std::fs::write(&agent.config, "sources: [{ id: app, type: flie }]\n").unwrap();
    agent.reload();
    let mut tally = collector.tally();
    until("the refusal is an event", world.patience(), || {
        tally.look();
        tally.own("configuration.update").iter().any(|own| own.outcome == "failure").then_some(())
    });
    assert_eq!(agent.status().0["config_sha256"], second, "the old one stays in force");
    log.append(500);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    tally.expect_others(&[(b"a line of the other log", 1)]);
    tally.expect_balanced_books();
    assert_eq!(tally.others[0].input, "other");
    let loads: Vec<&str> =
        tally.own("configuration.update").iter().map(|own| own.outcome.as_str()).collect();
    assert_eq!(loads, ["success", "failure"]);
}

/// Any bytes that stand in a file arrive as they are, whatever they are.
#[test]
fn odd_bytes_arrive_as_they_stand() {
    let world = World::new("ship_bytes");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut agent = Agent::started(&world, "agent", &spec_for(&log, &collector));
    let all_bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let lines: &[&[u8]] = &[
        b"plain text that no rule knows",
        b"windows line\r",
        b"nul \0 in the middle",
        b"latin-1 caf\xe9",
        b"cut utf-8 \xe2\x82",
        "grüße 管理 \u{1f680}".as_bytes(),
        b"\x1b[31mcolour\x1b[0m and \"quotes\" \\ and \x7f",
        b"  leading and trailing  ",
        &all_bytes,
    ];
    for line in lines {
        log.append_raw(line);
        log.append_raw(b"\n");
    }
    log.append(10);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    // A line's end is \n or \r\n.
    let expected: Vec<(&[u8], usize)> =
        lines.iter().map(|line| (line.strip_suffix(b"\r").unwrap_or(line), 1)).collect();
    tally.expect_others(&expected);
    assert!(tally.others.iter().all(|record| record.rule.is_none()));
    tally.expect_exactly_once(&log);
    tally.expect_balanced_books();
}

/// One line of 1 MiB must not blind the agent, nor be lost.
#[test]
fn a_line_of_a_mebibyte_arrives_in_numbered_pieces_and_the_next_lines_after_it() {
    let world = World::new("ship_long_line");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut agent = Agent::started(&world, "agent", &spec_for(&log, &collector));
    let mut long = Vec::new();
    world.rng().noise(1 << 20, &mut long);
    log.append(10);
    log.append_raw(&long);
    log.append_raw(b"\n");
    log.append(10);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    let tally = collector.tally();
    tally.expect_exactly_once(&log);
    let pieces: Vec<Option<i64>> = tally.others.iter().map(|piece| piece.segment).collect();
    assert_eq!(pieces, (0..64).map(Some).collect::<Vec<_>>(), "64 pieces of 16 KiB");
    let joined: Vec<u8> = tally.others.iter().flat_map(|piece| piece.raw.clone()).collect();
    assert!(joined == long, "the pieces make the line");
    tally.expect_balanced_books();
}

#[test]
fn when_the_first_endpoint_is_dead_the_second_takes_everything() {
    let world = World::new("ship_failover");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let mut spec = spec_for(&log, &collector);
    spec.endpoints.insert(0, format!("http://127.0.0.1:{}", ports::free()));
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(3000);
    log.flush();
    collector.wait_for_lines(log.written());
    let status = agent.wait_idle();
    assert_eq!(status.output()["endpoint"], collector.url());
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
    assert_eq!(agent.complaints(&["cannot deliver", "no token"]), [""; 0]);
}

#[test]
fn a_wrong_token_keeps_everything_says_so_and_the_right_one_lets_it_go() {
    let world = World::new("ship_token");
    let mut collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let token = world.path("enroll.token");
    write_secret(&token, "not-the-token\n");
    let mut spec = spec_for(&log, &collector);
    spec.enroll_token.clone_from(&token);
    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(2000);
    log.flush();
    let denied = agent.wait_status("the refusal is shown", |status| {
        let all_kept = status.source("app")["behind_bytes"] == 0
            && status.spool()["blocks"].as_u64() > Some(0);
        all_kept && !status.output()["trouble"].is_null()
    });
    let trouble = denied.output()["trouble"].as_str().unwrap();
    assert!(trouble.contains("401") && trouble.contains("enroll.token"), "{trouble}");
    assert_eq!(denied.output()["state"], "waiting");
    assert_eq!(collector.tally().look(), 0);

    write_secret(&token, &std::fs::read_to_string(collector.enroll_token()).unwrap());
    collector.wait_for_lines(log.written());
    let status = agent.wait_idle();
    assert_eq!(status.output()["trouble"], Value::Null);
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
    assert_eq!(collector.stop().code(), Some(0));
}

pub(crate) fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn tls_with_a_private_authority_is_trusted_by_its_file_and_by_nothing_else() {
    let world = World::new("ship_tls");
    let (ca, cert, key) = certificates(&world);
    let mut collector = Collector::new(&world, "collector");
    let yaml = format!("tls: {{ cert_file: {cert}, key_file: {key} }}\n");
    collector.configure(&world, &yaml, true);
    collector.start();
    collector.wait_ready();
    let mut log = log_in(&world);
    let mut spec = spec_for(&log, &collector);

    let mut agent = Agent::started(&world, "agent", &spec);
    log.append(1000);
    log.flush();
    let refused = agent.wait_status("the unknown authority is shown", |status| {
        status.output()["trouble"].as_str().is_some_and(|text| text.contains("ertificate"))
    });
    assert_eq!(refused.output()["next_seq"], 0, "nothing went to a stranger");
    assert_eq!(agent.stop().code(), Some(0));

    spec.output_extra = format!("tls: {{ ca_file: {ca} }}");
    agent.configure(&spec);
    agent.start();
    agent.wait_ready();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    assert_eq!(agent.stop().code(), Some(0));
    collector.tally().expect_exactly_once(&log);
    assert_eq!(collector.stop().code(), Some(0));
}

/// Paths of an authority's certificate, and of a certificate for 127.0.0.1 by it with its key.
pub(crate) fn certificates(world: &World) -> (String, String, String) {
    certificates_until(world, None)
}

/// The same; the server's certificate ends with this year.
pub(crate) fn certificates_until(world: &World, year: Option<i32>) -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = ["127.0.0.1", "audit.test"].map(str::to_owned);
    let mut server = CertificateParams::new(names).unwrap();
    if let Some(year) = year {
        server.not_after = rcgen::date_time_ymd(year, 12, 31);
    }
    let cert = server.signed_by(&key, &issuer).unwrap();
    let put = |name: &str, text: &str| {
        let path = world.path(name);
        write_secret(&path, text);
        path.display().to_string()
    };
    (
        put("ca.pem", &authority_cert.pem()),
        put("server.pem", &cert.pem()),
        put("server.key", &key.serialize_pem()),
    )
}

/// The commands that people type say what the socket and the API say.
#[test]
fn status_and_search_can_be_typed() {
    let world = World::new("ship_commands");
    let collector = Collector::started(&world, "collector");
    let mut log = log_in(&world);
    let agent = Agent::started(&world, "agent", &spec_for(&log, &collector));
    log.append(100);
    log.flush();
    collector.wait_for_lines(log.written());
    let _idle = agent.wait_idle();
    query::wait_for_line(&collector, 99, world.patience());

    let socket = agent.socket.display().to_string();
    let said = Agent::cli(&["status", "--socket", &socket, "--json"]);
    said.expect(0, &[]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["sources"][0]["since_start"]["read"], 100);
    Agent::cli(&["status", "--socket", &socket]).expect(0, &["SOURCE", "app", "100", "delivering"]);
    Agent::cli(&["status", "--socket", "/nowhere/admin.sock"]).expect(74, &["no agent answers"]);

    let data_dir = collector.data_dir.display().to_string();
    let url = collector.url();
    let search = |line: &str| {
        Collector::cli(&["search", "--data-dir", &data_dir, "--collector", &url, line])
    };
    search(&word(50)).expect(0, &[&word(50)]);
    let nothing = search("n999999999");
    assert!(!nothing.out.contains("n0"), "{nothing:#?}");
}
